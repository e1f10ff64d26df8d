//! Software segmentation: the segments together are the super-frame, and each is a frame of its own.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{ChecksumState, DropReason, FrameRef, Gso, GsoKind, Mac, Meta, segment};

use crate::oracle;
use crate::packets::{packet, tcp_options};

const LINK: Link = Link { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

fn ip(v6: bool, id: u16) -> Ip {
    let (src, dst) = if v6 { ("fd00::2", "2001:db8::1") } else { ("10.0.0.2", "192.0.2.1") };
    Ip { src: src.parse().unwrap(), dst: dst.parse().unwrap(), ttl: 63, tos: 2, id }
}

/// Puts an 802.1Q tag in, or a second one.
fn tag(frame: &mut Vec<u8>, meta: &mut Meta) {
    frame.splice(12..12, [0x81, 0, 0, 5]);
    if let ChecksumState::Partial { start, .. } = &mut meta.checksum {
        *start += 4;
    }
}

fn cut(meta: &Meta, frame: &[u8]) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut out = Vec::new();
    let mut emit = |meta: &Meta, frame: &[u8]| {
        assert_eq!(*meta, Meta::PLAIN);
        out.push(frame.to_vec());
    };
    let count = segment::segment(meta, frame, &mut Vec::new(), &mut emit)?;
    assert_eq!(count, out.len());
    Ok(out)
}

/// What differs from segment to segment, as etherparse reads it.
struct Part {
    id: Option<u16>,
    seq: u32,
    flags: u8,
    payload: Vec<u8>,
}

fn read(frame: &[u8]) -> Part {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let id = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => Some(ip.header().identification()),
        _ => None,
    };
    match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            Part { id, seq: tcp.sequence_number(), flags: tcp.slice()[13], payload: tcp.payload().to_vec() }
        }
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!(usize::from(udp.length()), udp.payload().len() + 8);
            Part { id, seq: 0, flags: 0, payload: udp.payload().to_vec() }
        }
        other => panic!("{other:?}"),
    }
}

/// The headers with all that may differ set to zero.
fn constant_part(frame: &[u8]) -> Vec<u8> {
    let parsed = *FrameRef::parse(Meta::PLAIN, frame).unwrap().parsed();
    let mut headers = frame[..usize::from(parsed.payload_start)].to_vec();
    let (l3, l4) = (usize::from(parsed.l3_start), usize::from(parsed.l4_start));
    match parsed.ethertype {
        0x0800 => [2..6, 10..12].into_iter().for_each(|field| headers[l3..][field].fill(0)),
        _ => headers[l3 + 4..l3 + 6].fill(0),
    }
    match parsed.protocol {
        6 => [4..8, 13..14, 16..18].into_iter().for_each(|field| headers[l4..][field].fill(0)),
        _ => headers[l4 + 4..l4 + 8].fill(0),
    }
    headers
}

fn check(meta: Meta, frame: &[u8], size: u16, payload: &[u8], padding: usize) {
    let parts = cut(&meta, frame).unwrap();
    let unpadded = &frame[..frame.len() - padding];
    let (first, last) = (read(unpadded), parts.len() - 1);
    assert_eq!(parts.len(), payload.len().div_ceil(usize::from(size)).max(1));
    let mut joined = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        assert_eq!(oracle::checksums(part), Ok(()));
        assert_eq!(constant_part(part), constant_part(unpadded));
        let part = read(part);
        assert!(part.payload.len() == usize::from(size) || at == last && part.payload.len() <= usize::from(size));
        assert_eq!(part.id, first.id.map(|id| id.wrapping_add(at as u16)));
        if meta.gso.is_some_and(|gso| gso.kind != GsoKind::Udp) {
            assert_eq!(part.seq, first.seq.wrapping_add((at * usize::from(size)) as u32));
            let mut flags = first.flags;
            if at < last {
                flags &= !(FIN | PSH);
            }
            if at > 0 {
                flags &= !CWR;
            }
            assert_eq!(part.flags, flags, "segment {at} of {last}");
        }
        joined.extend_from_slice(&part.payload);
    }
    assert_eq!(joined, payload);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn segments_of_tcp_are_the_stream(
        v6 in any::<bool>(),
        (id, seq, flags) in any::<(u16, u32, u8)>(),
        options in tcp_options(),
        size in 1u16..1500,
        len in 0usize..9000,
        tags in 0usize..3,
        padding in 0usize..9,
    ) {
        let size = size.max((len / 200) as u16 + 1);
        let payload: Vec<u8> = (0..len).map(|at| (at * 31 + at / 256) as u8).collect();
        let mut frame = Vec::new();
        let tcp = Tcp { src_port: 1, dst_port: 2, seq, ack: 9, flags, window: 8, options: &options };
        let mut meta = build::tcp(&mut frame, LINK, ip(v6, id), tcp, len);
        frame.extend_from_slice(&payload);
        frame.resize(frame.len() + padding, 0);
        (0..tags).for_each(|_| tag(&mut frame, &mut meta));
        let kind = if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
        check(Meta { gso: Some(Gso { kind, size, ecn: flags & CWR != 0 }), ..meta }, &frame, size, &payload, padding);
    }

    #[test]
    fn nu_12_segments_of_udp_are_the_datagrams(
        v6 in any::<bool>(),
        id in any::<u16>(),
        size in 1u16..1500,
        len in 0usize..9000,
        tags in 0usize..3,
        padding in 0usize..9,
    ) {
        let size = size.max((len / 200) as u16 + 1);
        let payload: Vec<u8> = (0..len).map(|at| (at * 31 + at / 256) as u8).collect();
        let mut frame = Vec::new();
        build::udp(&mut frame, LINK, ip(v6, id), 1000, 2000, &payload);
        frame.resize(frame.len() + padding, 0);
        let start = if v6 { 54 } else { 34 };
        let mut meta = Meta { checksum: ChecksumState::Partial { start, offset: 6 }, gso: None };
        (0..tags).for_each(|_| tag(&mut frame, &mut meta));
        check(Meta { gso: Some(Gso { kind: GsoKind::Udp, size, ecn: false }), ..meta }, &frame, size, &payload, padding);
    }

    /// What needs no cutting comes out once: as it is, or with its checksum completed.
    #[test]
    fn an_ordinary_frame_comes_out_once(packet in packet()) {
        prop_assert_eq!(cut(&Meta::PLAIN, &packet.bytes()), Ok(vec![packet.bytes()]));
        if let Some((meta, bytes)) = packet.partial() {
            prop_assert_eq!(cut(&meta, &bytes), Ok(vec![packet.bytes()]));
        }
    }
}

#[test]
fn the_largest_super_frame_is_cut_too() {
    let mut frame = Vec::new();
    let payload = vec![0xff; 65_535 - 40];
    let tcp = Tcp { src_port: 1, dst_port: 2, seq: u32::MAX, ack: 0, flags: 0x10, window: 8, options: &[] };
    let meta = build::tcp(&mut frame, LINK, ip(false, 0xfff0), tcp, payload.len());
    frame.extend_from_slice(&payload);
    check(Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size: 1460, ecn: false }), ..meta }, &frame, 1460, &payload, 0);
}

/// Each is byte for byte the datagram that a sender without USO would have sent.
#[test]
fn nu_12_a_super_frame_of_udp_leaves_as_datagrams_of_their_own() {
    for (v6, start) in [(false, 34), (true, 54)] {
        let datagram = |at: u16, payload: &[u8]| {
            let mut frame = Vec::new();
            let id = if v6 { 0 } else { 0xfffe_u16.wrapping_add(at) };
            build::udp(&mut frame, LINK, ip(v6, id), 1000, 2000, payload);
            frame
        };
        let mut payload: Vec<u8> = (0..2 * 1400 + 201).map(|at| (at * 31 + at / 256) as u8).collect();
        // The second datagram's checksum comes out as zero, which would say that there is none.
        payload[1400..1402].fill(0);
        let lacking = datagram(1, &payload[1400..2800])[start + 6..start + 8].to_vec();
        payload[1400..1402].copy_from_slice(&lacking);

        let whole = datagram(0, &payload);
        let checksum = ChecksumState::Partial { start: start as u16, offset: 6 };
        let gso = Some(Gso { kind: GsoKind::Udp, size: 1400, ecn: false });
        let parts = cut(&Meta { checksum, gso }, &whole).unwrap();
        let expected: Vec<Vec<u8>> = payload.chunks(1400).zip(0..).map(|(part, at)| datagram(at, part)).collect();
        assert_eq!(parts, expected);
        assert_eq!(parts[1][start + 6..start + 8], [0xff, 0xff]);
        let ends = |frame: &[u8], at: usize| start + usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
        assert!(parts.iter().all(|frame| ends(frame, start + 4) == frame.len()), "the datagram fills its frame");
    }
}

#[test]
fn what_is_not_of_the_kind_its_metadata_names_is_not_cut() {
    let mut frame = Vec::new();
    build::udp(&mut frame, LINK, ip(false, 0), 1, 2, &[0; 100]);
    let meta = |kind, size| Meta {
        checksum: ChecksumState::Partial { start: 34, offset: 6 },
        gso: Some(Gso { kind, size, ecn: false }),
    };
    assert_eq!(cut(&meta(GsoKind::Tcp4, 10), &frame), Err(DropReason::CannotSegment));
    assert_eq!(cut(&meta(GsoKind::Udp, 0), &frame), Err(DropReason::CannotSegment));
    assert_eq!(cut(&meta(GsoKind::Udp, 10), &frame).unwrap().len(), 10);
    frame[20] = 0x20;
    assert_eq!(cut(&meta(GsoKind::Udp, 10), &frame), Err(DropReason::CannotSegment), "a fragment");
    assert_eq!(cut(&Meta::PLAIN, &frame[..9]), Err(DropReason::FrameTooShort));
}
