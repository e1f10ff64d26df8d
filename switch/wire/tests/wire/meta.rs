//! The virtio-net header, both ways, and what is refused.

use proptest::prelude::*;
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{ChecksumState, DropReason, Frame, Gso, GsoKind, Mac, Meta, VNET_HEADER_LEN, checksum};

const LINK: Link = Link { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };

fn ip(v6: bool) -> Ip {
    let (src, dst) = if v6 { ("fd00::2", "fd00::1") } else { ("10.0.0.2", "10.0.0.1") };
    Ip { src: src.parse().unwrap(), dst: dst.parse().unwrap(), ttl: 64, tos: 0, id: 0 }
}

/// A TCP segment of 3000 bytes with 12 bytes of options, and its metadata.
fn tcp(v6: bool) -> (Meta, Vec<u8>) {
    let mut out = Vec::new();
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let tcp = Tcp { src_port: 1, dst_port: 2, seq: 3, ack: 4, flags: 0x18, window: 5, options: &options };
    let meta = build::tcp(&mut out, LINK, ip(v6), tcp, 3000);
    out.resize(out.len() + 3000, 7);
    (meta, out)
}

fn header(flags: u8, gso_type: u8, hdr_len: u16, gso_size: u16, start: u16, offset: u16) -> [u8; VNET_HEADER_LEN] {
    let mut out = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
    for (at, word) in [(2, hdr_len), (4, gso_size), (6, start), (8, offset)] {
        out[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    }
    out
}

fn partial(start: u16, offset: u16) -> ChecksumState {
    ChecksumState::Partial { start, offset }
}

#[test]
fn at_20_headers_are_read_as_the_kernel_means_them_and_the_rest_is_refused() {
    let (_, frame) = tcp(false);
    let len = frame.len() as u16;
    let gso = |kind, size, ecn| Some(Gso { kind, size, ecn });
    let taken = [
        ("plain", header(0, 0, 0, 0, 0, 0), ChecksumState::Complete, None),
        ("vouched for", header(2, 0, 0, 0, 0, 0), ChecksumState::Verified, None),
        ("partial", header(1, 0, 0, 0, 34, 16), partial(34, 16), None),
        ("partial and vouched for", header(3, 0, 0, 0, 34, 16), partial(34, 16), None),
        ("field at the very end", header(1, 0, 0, 0, 34, len - 36), partial(34, len - 36), None),
        ("offsets without a flag mean nothing", header(0, 0, 0, 9, 0xffff, 0xffff), ChecksumState::Complete, None),
        ("TSO", header(1, 1, 66, 1448, 34, 16), partial(34, 16), gso(GsoKind::Tcp4, 1448, false)),
        ("TSO for IPv6", header(1, 4, 86, 1428, 54, 16), partial(54, 16), gso(GsoKind::Tcp6, 1428, false)),
        ("TSO with ECN", header(1, 0x81, 66, 1448, 34, 16), partial(34, 16), gso(GsoKind::Tcp4, 1448, true)),
        ("USO", header(1, 5, 42, 1200, 34, 6), partial(34, 6), gso(GsoKind::Udp, 1200, false)),
        ("header length of zero", header(1, 1, 0, 1448, 34, 16), partial(34, 16), gso(GsoKind::Tcp4, 1448, false)),
        (
            "header length that lies",
            header(1, 1, 0xffff, 1448, 34, 16),
            partial(34, 16),
            gso(GsoKind::Tcp4, 1448, false),
        ),
        ("segments of one byte", header(1, 1, 66, 1, 34, 16), partial(34, 16), gso(GsoKind::Tcp4, 1, false)),
        ("segments of any size", header(1, 1, 66, 65535, 34, 16), partial(34, 16), gso(GsoKind::Tcp4, 65535, false)),
    ];
    for (what, header, checksum, gso) in taken {
        assert_eq!(Meta::decode(&header, &frame), Ok(Meta { checksum, gso }), "{what}");
    }
    let refused = [
        ("unknown flag", header(4, 0, 0, 0, 0, 0)),
        ("unknown flag beside a known one", header(0x81, 0, 0, 0, 34, 16)),
        ("segments of zero bytes", header(1, 1, 66, 0, 34, 16)),
        ("datagrams of zero bytes", header(1, 5, 42, 0, 34, 6)),
        ("UFO", header(1, 3, 42, 1480, 34, 6)),
        ("unknown type", header(1, 2, 66, 1448, 34, 16)),
        ("unknown type", header(1, 6, 66, 1448, 34, 16)),
        ("unknown type", header(1, 0x41, 66, 1448, 34, 16)),
        ("ECN without segments", header(1, 0x80, 66, 1448, 34, 16)),
        ("ECN with datagrams", header(1, 0x85, 42, 1200, 34, 6)),
        ("segments without a partial checksum", header(0, 1, 66, 1448, 34, 16)),
        ("segments with a checksum vouched for", header(2, 1, 66, 1448, 34, 16)),
        ("segments with another protocol's field", header(1, 1, 66, 1448, 34, 6)),
        ("datagrams with another protocol's field", header(1, 5, 42, 1200, 34, 16)),
        ("start in the Ethernet header", header(1, 0, 0, 0, 13, 16)),
        ("start behind the end", header(1, 0, 0, 0, len, 0)),
        ("field behind the end", header(1, 0, 0, 0, 34, len - 35)),
        ("offsets whose sum overflows", header(1, 0, 0, 0, 0xffff, 0xffff)),
    ];
    for (what, header) in refused {
        assert_eq!(Meta::decode(&header, &frame), Err(DropReason::BadVnetHeader), "{what}");
    }
}

#[test]
fn at_20_segmentation_of_another_kind_of_packet_is_refused() {
    let ((meta4, tcp4), (meta6, tcp6)) = (tcp(false), tcp(true));
    let mut datagram = Vec::new();
    build::udp(&mut datagram, LINK, ip(false), 1, 2, &[0; 3000]);
    let udp = Meta { checksum: partial(34, 6), gso: None };
    let mut fragment = tcp4.clone();
    fragment[20] = 0x20;
    let table = [
        ("TCP over IPv4", GsoKind::Tcp4, meta4, &tcp4, true),
        ("TCP over IPv6", GsoKind::Tcp6, meta6, &tcp6, true),
        ("UDP", GsoKind::Udp, udp, &datagram, true),
        ("TCP over the other family", GsoKind::Tcp6, meta4, &tcp4, false),
        ("TCP over the other family", GsoKind::Tcp4, meta6, &tcp6, false),
        ("UDP that is TCP", GsoKind::Udp, meta4, &tcp4, false),
        ("TCP that is UDP", GsoKind::Tcp4, udp, &datagram, false),
        (
            "a checksum that begins elsewhere",
            GsoKind::Tcp4,
            Meta { checksum: partial(35, 16), gso: None },
            &tcp4,
            false,
        ),
        ("a complete checksum", GsoKind::Tcp4, Meta::PLAIN, &tcp4, false),
        ("a fragment", GsoKind::Tcp4, meta4, &fragment, false),
    ];
    for (what, kind, meta, frame, taken) in table {
        let meta = Meta { gso: Some(Gso { kind, size: 1000, ecn: false }), ..meta };
        let parsed = Frame::parse(meta, &mut frame.clone()[..]).map(|_| ());
        assert_eq!(parsed, if taken { Ok(()) } else { Err(DropReason::BadVnetHeader) }, "{what}");
    }
}

#[test]
fn at_20_header_length_is_computed_and_never_believed() {
    for (v6, kind, headers) in [(false, GsoKind::Tcp4, 66u16), (true, GsoKind::Tcp6, 86)] {
        let (meta, frame) = tcp(v6);
        let meta = Meta { gso: Some(Gso { kind, size: 1000, ecn: false }), ..meta };
        let encoded = meta.encode(&frame);
        assert_eq!(encoded[2..4], headers.to_ne_bytes());
        let mut lying = encoded;
        lying[2..4].copy_from_slice(&9999u16.to_ne_bytes());
        assert_eq!(Meta::decode(&lying, &frame), Ok(meta));
        assert_eq!(meta.packet_len(14, &frame), usize::from(headers) - 14 + 1000);
    }
}

#[test]
fn br_9_a_super_frame_is_as_long_as_its_segments_and_no_longer_than_itself() {
    let (meta, frame) = tcp(false);
    assert_eq!(meta.packet_len(14, &frame), frame.len() - 14, "an ordinary frame counts whole");
    for (size, len) in [(1000, 52 + 1000), (2999, 52 + 2999), (3000, 52 + 3000), (65_535, 52 + 3000)] {
        let meta = Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size, ecn: false }), ..meta };
        assert_eq!(meta.packet_len(14, &frame), len);
    }
}

#[test]
fn completing_refuses_what_lies_outside_the_packet_and_super_frames() {
    let (meta, frame) = tcp(false);
    let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1000, ecn: false });
    let attempt = |mut meta: Meta, end: usize| {
        let mut bytes = frame.clone();
        let result = checksum::complete(&mut meta, &mut bytes, end);
        assert!(result.is_ok() || bytes == frame, "a refused frame is left as it was");
        result
    };
    assert_eq!(attempt(meta, frame.len()), Ok(()));
    assert_eq!(attempt(Meta { gso, ..meta }, frame.len()), Err(DropReason::CannotSegment));
    assert_eq!(attempt(meta, 34 + 17), Err(DropReason::BadVnetHeader), "the packet ends before the field does");
    assert_eq!(attempt(meta, 33), Err(DropReason::BadVnetHeader), "the packet ends before summing begins");
    assert_eq!(attempt(meta, usize::MAX), Ok(()), "an end behind the frame is the frame's");
    let outside = Meta { checksum: partial(0xffff, 0xffff), gso: None };
    assert_eq!(attempt(outside, frame.len()), Err(DropReason::BadVnetHeader));
}

proptest! {
    #[test]
    fn at_20_whatever_is_taken_is_written_back_as_it_was(
        bytes in any::<[u8; VNET_HEADER_LEN]>(),
        flags in 0u8..4,
        kind in prop::sample::select(vec![0u8, 1, 4, 5, 0x81, 0x84]),
        start in 0u16..60,
        offset in prop::sample::select(vec![2u16, 6, 16]),
    ) {
        let (_, frame) = tcp(false);
        let likely = header(flags, kind, 0, u16::from_ne_bytes([bytes[4], bytes[5]]), start, offset);
        for header in [bytes, likely] {
            if let Ok(meta) = Meta::decode(&header, &frame) {
                // Nobody reads that a checksum is vouched for, so it is not written.
                let checksum = match meta.checksum {
                    ChecksumState::Verified => ChecksumState::Complete,
                    other => other,
                };
                prop_assert_eq!(Meta::decode(&meta.encode(&frame), &frame), Ok(Meta { checksum, ..meta }));
                prop_assert!(meta.packet_len(14, &frame) <= frame.len() - 14);
            }
        }
    }
}
