//! One frame: ten bytes of virtio-net header, 16 bytes of arguments for the setters, and the frame itself.
//!
//! Nothing panics. What is refused is refused as a whole. A checksum that was right stays right under every setter, a
//! partial one is the same whether completed before or after, and segments together are what was cut. Coalesced and cut
//! again, frames are what they were.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tapswitch_wire::{
    ChecksumState, Frame, FrameRef, L3, Mac, Meta, Parsed, VNET_HEADER_LEN, checksum, coalesce::Coalescer, render,
    segment,
};

/// Bytes in front of the frame.
pub const PREFIX: usize = VNET_HEADER_LEN + 16;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((header, rest)) = data.split_first_chunk::<VNET_HEADER_LEN>() else { return };
    let Some((arguments, bytes)) = rest.split_first_chunk::<16>() else { return };
    let decoded = Meta::decode(header, bytes);
    if let Ok(meta) = decoded {
        check_header(&meta, bytes);
    }
    let meta = decoded.unwrap_or_default();
    render(&meta, bytes);
    if let Ok(parsed) = Parsed::parse(bytes) {
        check_order(&parsed, bytes);
    }
    let Ok(frame) = FrameRef::parse(meta, bytes) else { return };
    check_accessors(&frame);
    check_segments(&frame);
    check_coalescing(&frame, arguments);
    check_setters(&frame, arguments);
}

fn check_header(meta: &Meta, bytes: &[u8]) {
    let checksum = match meta.checksum {
        ChecksumState::Verified => ChecksumState::Complete,
        other => other,
    };
    let again = Meta::decode(&meta.encode(bytes), bytes);
    assert_eq!(again, Ok(Meta { checksum, ..*meta }), "written and read, it is another one");
}

fn check_order(parsed: &Parsed, bytes: &[u8]) {
    assert!(parsed.l3_start <= parsed.l4_start);
    assert!(parsed.l4_start <= parsed.payload_start);
    assert!(u32::from(parsed.payload_start) <= parsed.end);
    assert!(parsed.end as usize <= bytes.len());
}

fn check_accessors(frame: &FrameRef<'_>) {
    assert!(frame.packet().len() >= frame.segment().len() && frame.segment().len() >= frame.payload().len());
    let is_ip = matches!(frame.parsed().l3, L3::Ipv4 | L3::Ipv6);
    assert_eq!((frame.src_ip().is_some(), frame.dst_ip().is_some()), (is_ip, is_ip));
    let len = frame.meta().packet_len(usize::from(frame.parsed().l3_start), frame.bytes());
    assert!(len <= frame.bytes().len());
}

fn check_segments(frame: &FrameRef<'_>) {
    let (parsed, meta) = (frame.parsed(), frame.meta());
    let limit = usize::from(parsed.l3_start) + meta.packet_len(usize::from(parsed.l3_start), frame.bytes());
    let (mut count, mut payload) = (0, Vec::new());
    let mut emit = |out: &Meta, bytes: &[u8]| {
        count += 1;
        assert_eq!(*out, Meta::PLAIN);
        let segment = FrameRef::parse(*out, bytes).expect("a segment parses");
        if meta.gso.is_some() {
            assert!(bytes.len() <= limit, "{} bytes, more than {limit}", bytes.len());
            assert!(segment.ipv4_checksum_ok() && segment.transport_checksum_ok());
            assert_eq!((segment.parsed().l4, segment.parsed().l4_start), (parsed.l4, parsed.l4_start));
            payload.extend_from_slice(&bytes[usize::from(parsed.payload_start)..]);
        }
    };
    let result = segment::segment(meta, frame.bytes(), &mut Vec::new(), &mut emit);
    assert!(result.is_err() || result == Ok(count));
    if meta.gso.is_some() {
        assert!(result.is_ok(), "a super-frame that was taken can be cut");
        assert_eq!(payload, frame.bytes()[usize::from(parsed.payload_start)..parsed.end as usize]);
    }
}

/// Frames as they come from a port without offloads: what the frame is cut into, one of them damaged perhaps, and twice.
fn plain_frames(frame: &FrameRef<'_>, arguments: &[u8; 16]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let cut = segment::segment(frame.meta(), frame.bytes(), &mut Vec::new(), &mut |_: &Meta, segment: &[u8]| {
        frames.push(segment.to_vec());
    });
    if cut.is_err() {
        frames = vec![frame.bytes().to_vec()];
    }
    let again = frames.clone();
    let which = usize::from(arguments[12]) % frames.len();
    let at = usize::from(arguments[13]) % frames[which].len();
    frames[which][at] ^= arguments[14];
    frames.extend(again);
    frames
}

fn check_coalescing(frame: &FrameRef<'_>, arguments: &[u8; 16]) {
    let frames = plain_frames(frame, arguments);
    let (mut coalescer, mut came, mut buffer) = (Coalescer::new(), Vec::new(), Vec::new());
    let mut out = |meta: Meta, bytes: &mut [u8]| {
        let cut =
            segment::segment(&meta, bytes, &mut buffer, &mut |_: &Meta, segment: &[u8]| came.push(segment.to_vec()));
        if cut.is_err() {
            assert_eq!(meta, Meta::PLAIN, "a super-frame that was made can be cut");
            came.push(bytes.to_vec());
        }
    };
    for mut bytes in frames.clone() {
        coalescer.push(Meta::PLAIN, &mut bytes, &mut out);
    }
    coalescer.flush(&mut out);
    assert_eq!(by_addresses(came), by_addresses(frames));
}

/// Frames in their order, for each pair of MAC addresses.
fn by_addresses(frames: Vec<Vec<u8>>) -> HashMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut pairs: HashMap<_, Vec<_>> = HashMap::new();
    for frame in frames {
        pairs.entry(frame[..12].to_vec()).or_default().push(frame);
    }
    pairs
}

/// Calls every setter, in an order that the arguments choose.
fn set(frame: &mut Frame<'_>, arguments: &[u8; 16]) {
    let word = u16::from_be_bytes([arguments[0], arguments[1]]);
    let ip = |from: usize| match frame.parsed().l3 {
        L3::Ipv6 => IpAddr::V6(Ipv6Addr::from(u128::from_be_bytes(*arguments).rotate_left(from as u32))),
        _ => Ipv4Addr::new(arguments[from], arguments[from + 1], arguments[from + 2], arguments[from + 3]).into(),
    };
    let (src, dst) = (ip(2), ip(6));
    let chosen = u16::from_be_bytes([arguments[10], arguments[11]]);
    for step in 0..9 {
        if chosen & 1 << step == 0 {
            continue;
        }
        match (step + usize::from(arguments[12])) % 9 {
            0 => frame.set_src_ip(src),
            1 => frame.set_dst_ip(dst),
            2 => frame.set_src_port(word),
            3 => frame.set_dst_port(word.rotate_left(8)),
            4 => frame.set_ttl(arguments[13]),
            5 => drop(frame.decrement_ttl()),
            6 => frame.set_icmp_type(arguments[14]),
            7 => drop(frame.clamp_mss(word)),
            _ => frame.set_src_mac(Mac([arguments[15]; 6])),
        }
    }
}

fn check_setters(frame: &FrameRef<'_>, arguments: &[u8; 16]) {
    let (meta, parsed) = (*frame.meta(), *frame.parsed());
    let mut changed = frame.bytes().to_vec();
    let mut after = Frame::parse(meta, &mut changed[..]).expect("the same bytes");
    set(&mut after, arguments);
    assert!(!frame.ipv4_checksum_ok() || after.ipv4_checksum_ok());
    assert!(!frame.transport_checksum_ok() || after.transport_checksum_ok());
    let again = Parsed::parse(after.bytes()).expect("the same shape");
    assert_eq!(again, parsed, "no setter changes the shape of a frame");

    // Completed first and set then: the same but for the two zeros of ones' complement.
    let ChecksumState::Partial { start, offset } = meta.checksum else { return };
    if start != parsed.l4_start || meta.gso.is_some() {
        return;
    }
    let mut other = frame.bytes().to_vec();
    let (mut first, mut last) = (meta, meta);
    let completed = checksum::complete(&mut first, &mut other, parsed.end as usize);
    assert_eq!(checksum::complete(&mut last, &mut changed, parsed.end as usize), completed);
    if completed.is_ok() {
        let mut completed = Frame::parse(first, &mut other[..]).expect("the same shape");
        set(&mut completed, arguments);
        let field = usize::from(start) + usize::from(offset);
        for bytes in [&mut other, &mut changed] {
            if bytes[field..field + 2] == [0xff, 0xff] {
                bytes[field..field + 2].fill(0);
            }
        }
        assert_eq!(other, changed);
    }
}
