//! Cutting into fragments: what a receiver puts together from them is the packet, and each fits the link.

use etherparse::{NetSlice, SlicedPacket};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{ChecksumState, DropReason, FrameRef, Gso, GsoKind, Mac, Meta, fragment};

use crate::oracle;
use crate::packets::{Net, Packet, Transport, V4, address4, port};

const MORE: u16 = 0x2000;
const DONT: u16 = 0x4000;

fn split(meta: &Meta, frame: &[u8], mtu: u16, id: u16) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut out = Vec::new();
    let mut emit = |meta: &Meta, frame: &[u8]| {
        assert_eq!(*meta, Meta::PLAIN);
        out.push(frame.to_vec());
    };
    let count = fragment::split(meta, frame, mtu, id, &mut Vec::new(), &mut emit)?;
    assert_eq!(count, out.len());
    Ok(out)
}

/// A fragment as etherparse reads it.
struct Piece {
    /// Type of service, TTL, protocol, addresses: what must not differ.
    constant: Vec<u8>,
    options: Vec<u8>,
    id: u16,
    more: bool,
    offset: usize,
    payload: Vec<u8>,
}

fn read(frame: &[u8]) -> Piece {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("{packet:?}") };
    let header = ip.header();
    assert_eq!(usize::from(header.total_len()), frame.len() - 14, "the packet fills its frame");
    Piece {
        constant: [&frame[..14], &header.slice()[1..2], &header.slice()[8..10], &header.slice()[12..20]].concat(),
        options: header.options().to_vec(),
        id: header.identification(),
        more: header.more_fragments(),
        offset: usize::from(header.fragments_offset().value()) * 8,
        payload: ip.payload().payload.to_vec(),
    }
}

/// The map of a receiver that knows nothing but bytes and their places. Each byte must come once.
fn reassemble(pieces: &[Piece], from: usize) -> Vec<u8> {
    let mut map = vec![None; 65_536];
    for piece in pieces {
        for (at, byte) in piece.payload.iter().enumerate() {
            assert_eq!(map[piece.offset + at].replace(*byte), None, "byte {} came twice", piece.offset + at);
        }
    }
    let end = pieces.iter().map(|piece| piece.offset + piece.payload.len()).max().unwrap();
    map[from..end].iter().map(|byte| byte.expect("no hole")).collect()
}

/// Options as a list, and the bytes of those that every fragment must have.
fn options() -> impl Strategy<Value = (Vec<u8>, Vec<Vec<u8>>)> {
    let option = prop_oneof![
        Just(vec![1]),
        (any::<u8>(), vec(any::<u8>(), 0..9)).prop_filter_map("end of options, no-operation", |(kind, body)| {
            (kind > 1).then(|| [&[kind, body.len() as u8 + 2][..], &body].concat())
        }),
    ];
    (vec(option, 0..7), any::<bool>()).prop_map(|(list, is_ended)| {
        let (mut bytes, mut copied) = (Vec::new(), Vec::new());
        for option in list {
            if bytes.len() + option.len() <= 40 {
                bytes.extend_from_slice(&option);
                if option[0] & 0x80 != 0 {
                    copied.push(option);
                }
            }
        }
        bytes.resize(bytes.len().next_multiple_of(4), if is_ended { 0 } else { 1 });
        (bytes, copied)
    })
}

/// Options that this list of bytes holds, without the padding.
fn list(mut options: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(kind) = options.first() {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(options[1]),
        };
        if *kind != 1 {
            out.push(options[..len].to_vec());
        }
        options = &options[len..];
    }
    out
}

fn transport() -> impl Strategy<Value = Transport> {
    let bytes = || (any::<u8>(), 0usize..5000).prop_map(|(seed, len)| body(seed, len));
    let ports = || [port(), port()];
    prop_oneof![
        3 => (ports(), prop::bool::weighted(0.2), bytes())
            .prop_map(|(ports, without_checksum, payload)| Transport::Udp { ports, without_checksum, payload }),
        1 => (ports(), any::<u32>(), any::<u8>(), bytes()).prop_map(|(ports, seq, flags, payload)| Transport::Tcp {
            ports,
            seq,
            flags,
            options: Vec::new(),
            payload
        }),
        1 => bytes().prop_map(|payload| Transport::Icmp { kind: 8, code: 0, word: [1, 2, 3, 4], payload }),
        1 => (select(vec![47u8, 50, 253]), bytes()).prop_map(|(number, payload)| Transport::Other(number, payload)),
    ]
}

fn body(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 256) as u8 ^ seed).collect()
}

/// A packet, and those of its options that every fragment must have.
fn packet() -> impl Strategy<Value = (Packet, Vec<Vec<u8>>)> {
    // Offsets that leave room for the payload below 64 KiB.
    let fragment =
        prop_oneof![4 => Just(0), 1 => (any::<bool>(), 0u16..7000).prop_map(|(m, at)| at | u16::from(m) << 13)];
    let meta = (address4(), address4(), any::<(u8, u8, u16)>(), 0usize..20);
    (meta, options(), any::<bool>(), fragment, transport()).prop_map(
        |((src, dst, (ttl, tos, id), padding), (options, copied), reserved, fragment, mut transport)| {
            // Whoever cut it before us cut it at eight bytes.
            if fragment & MORE != 0 {
                let (Transport::Udp { payload, .. }
                | Transport::Tcp { payload, .. }
                | Transport::Icmp { payload, .. }
                | Transport::Other(_, payload)) = &mut transport;
                payload.truncate(payload.len() & !7);
                if let Transport::Tcp { payload, .. } = &mut transport {
                    payload.extend_from_slice(&[9; 4]);
                }
            }
            let fragment = fragment | u16::from(reserved) << 15;
            let net = Net::V4(V4 { src, dst, ttl, tos, id, options, fragment, transport });
            (Packet { dst_mac: [2; 6], src_mac: [4; 6], tags: Vec::new(), net, padding }, copied)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn ip_4_fragments_put_together_are_the_packet(
        (packet, copied) in packet(),
        mtu in prop_oneof![68u16..200, 68u16..1600],
        id in any::<u16>(),
        is_partial in any::<bool>(),
    ) {
        let complete = packet.bytes();
        let whole = read(&complete[..complete.len() - packet.padding]);
        let partial = packet.partial().filter(|_| is_partial && !packet.is_fragment());
        let (meta, frame) = partial.unwrap_or((Meta::PLAIN, complete));

        let pieces: Vec<Piece> = split(&meta, &frame, mtu, id)
            .unwrap()
            .iter()
            .map(|frame| {
                assert!(frame.len() - 14 <= usize::from(mtu));
                assert_eq!(oracle::checksums(frame).err().filter(|text| text.contains("IPv4")), None);
                read(frame)
            })
            .collect();
        prop_assert!(reassemble(&pieces, whole.offset) == whole.payload, "another packet");
        let last = pieces.len() - 1;
        let mut next = whole.offset;
        for (at, piece) in pieces.iter().enumerate() {
            prop_assert_eq!((piece.offset, piece.id, &piece.constant), (next, id, &whole.constant));
            prop_assert_eq!(piece.more, at < last || whole.more);
            prop_assert!(at == last || piece.payload.len() % 8 == 0);
            match at {
                0 => prop_assert_eq!(&piece.options, &whole.options),
                _ => prop_assert_eq!(list(&piece.options), copied.clone()),
            }
            next += piece.payload.len();
        }
    }

    /// Cut for one link and again for the next, as routers do.
    #[test]
    fn ip_4_fragments_of_fragments_put_together_are_the_packet(
        len in 0usize..9000,
        mtu in 300u16..2000,
        smaller in 68u16..300,
    ) {
        let mut frame = Vec::new();
        build::udp(&mut frame, LINK, ip(), 1000, 2000, &body(1, len));
        clear_df(&mut frame);
        let whole = read(&frame);
        let mut pieces = Vec::new();
        for piece in split(&Meta::PLAIN, &frame, mtu, 77).unwrap() {
            pieces.extend(split(&Meta::PLAIN, &piece, smaller, 77).unwrap().iter().map(|frame| read(frame)));
        }
        prop_assert!(reassemble(&pieces, 0) == whole.payload);
        prop_assert!(pieces.iter().rev().skip(1).all(|piece| piece.more) && !pieces[pieces.len() - 1].more);
    }

    #[test]
    fn at_19_any_frame_is_cut_or_refused_without_harm(
        packet in crate::packets::packet(),
        mtu in any::<u16>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut frame = packet.bytes();
        let at = at.index(frame.len());
        frame[at] = byte;
        let _ = split(&Meta::PLAIN, &frame, mtu, 1);
    }
}

const LINK: Link = Link { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };

fn ip() -> Ip {
    Ip { src: "10.0.0.2".parse().unwrap(), dst: "192.0.2.1".parse().unwrap(), ttl: 63, tos: 2, id: 5 }
}

/// The builders set DF.
fn clear_df(frame: &mut [u8]) {
    set_fragment(frame, 0);
}

fn set_fragment(frame: &mut [u8], word: u16) {
    frame[20..22].copy_from_slice(&word.to_be_bytes());
    frame[24..26].fill(0);
    let header = 14..14 + usize::from(frame[14] & 0x0f) * 4;
    let check = tapswitch_wire::checksum::checksum(0, &frame[header]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}

#[test]
fn nu_8_the_largest_datagram_leaves_in_fragments_in_order() {
    let mut frame = Vec::new();
    build::udp(&mut frame, LINK, ip(), 1000, 2000, &body(3, 65_507));
    clear_df(&mut frame);
    let whole = read(&frame);
    let pieces: Vec<Piece> = split(&Meta::PLAIN, &frame, 1500, 0xfedc).unwrap().iter().map(|f| read(f)).collect();
    let offsets: Vec<usize> = pieces.iter().map(|piece| piece.offset).collect();
    assert_eq!(offsets, (0..65_515).step_by(1480).collect::<Vec<_>>());
    assert!(reassemble(&pieces, 0) == whole.payload);
    let pieces: Vec<Piece> = split(&Meta::PLAIN, &frame, 28, 1).unwrap().iter().map(|f| read(f)).collect();
    assert_eq!((pieces.len(), pieces[8189].offset, pieces[8189].payload.len()), (8190, 65_512, 3));
}

/// RFC 768: a zero would say that there is no checksum.
#[test]
fn ip_4_a_partial_checksum_that_comes_out_as_zero_leaves_as_ones() {
    let mut frame = Vec::new();
    let mut payload = body(0, 3000);
    payload[..2].fill(0);
    build::udp(&mut frame, LINK, ip(), 1000, 2000, &payload);
    payload[..2].copy_from_slice(&frame[40..42]);
    build::udp(&mut frame, LINK, ip(), 1000, 2000, &payload);
    clear_df(&mut frame);
    assert_eq!(frame[40..42], [0xff, 0xff], "the complete checksum");
    let pseudo = tapswitch_wire::checksum::pseudo_header(ip().src, ip().dst, 17, 3008);
    let mut partial = frame.clone();
    partial[40..42].copy_from_slice(&pseudo.to_be_bytes());
    let meta = Meta { checksum: ChecksumState::Partial { start: 34, offset: 6 }, gso: None };
    for mtu in [576, 1500, 4000] {
        assert_eq!(split(&meta, &partial, mtu, 5), split(&Meta::PLAIN, &frame, mtu, 5));
        assert_eq!(split(&meta, &partial, mtu, 5).unwrap()[0][40..42], [0xff, 0xff]);
    }
}

#[test]
fn ip_4_what_fits_comes_out_once_even_with_df() {
    let mut frame = Vec::new();
    build::udp(&mut frame, LINK, ip(), 1, 2, &[7; 100]);
    let out = split(&Meta::PLAIN, &[&frame[..], &[0; 9]].concat(), 128, 0x1234).unwrap();
    let [only] = &out[..] else { panic!("{}", out.len()) };
    assert_eq!((only.len(), &only[18..22]), (frame.len(), &[0x12, 0x34, 0x40, 0][..]), "DF stays, padding goes");
    assert_eq!(oracle::checksums(only), Ok(()));
}

#[test]
fn ip_4_what_cannot_be_cut_is_refused() {
    let mut good = Vec::new();
    build::udp(&mut good, LINK, ip(), 1, 2, &[7; 100]);
    clear_df(&mut good);
    let with = |word: u16| {
        let mut frame = good.clone();
        set_fragment(&mut frame, word);
        frame
    };
    let with_options = |options: [u8; 4]| {
        let mut frame = good.clone();
        frame.splice(34..34, options);
        (frame[14], frame[17]) = (0x46, frame[17] + 4);
        frame
    };
    let mut tall = with_options([0; 4]);
    tall.splice(34..34, [0; 36]);
    (tall[14], tall[17]) = (0x4f, tall[17] + 36);
    let mut v6 = Vec::new();
    let six = Ip { src: "fd00::1".parse().unwrap(), dst: "fd00::2".parse().unwrap(), ..ip() };
    build::udp(&mut v6, LINK, six, 1, 2, &[7; 100]);
    for (what, frame, mtu, expected) in [
        ("fits exactly", good.clone(), 128, Ok(1)),
        ("one byte too long", good.clone(), 127, Ok(2)),
        ("DF", with(DONT), 127, Err(DropReason::AboveMtu)),
        ("the smallest link that takes it", good.clone(), 28, Ok(14)),
        ("no room for eight bytes", good.clone(), 27, Err(DropReason::AboveMtu)),
        ("no room behind sixty bytes of header", tall.clone(), 67, Err(DropReason::AboveMtu)),
        ("room behind sixty bytes of header, more behind twenty", tall, 68, Ok(4)),
        ("more follow a length of 108", with(MORE), 100, Err(DropReason::FragmentMalformed)),
        ("reaches past the largest packet", with(0x1fff), 100, Err(DropReason::FragmentMalformed)),
        ("reaches its end", with(0x1fff - 16), 100, Ok(2)),
        ("an option without a length", with_options([1, 1, 1, 0x83]), 100, Err(DropReason::Ipv4BadOption)),
        ("an option of one byte", with_options([0x83, 1, 1, 1]), 100, Err(DropReason::Ipv4BadOption)),
        ("an option of no bytes", with_options([0x83, 0, 1, 1]), 100, Err(DropReason::Ipv4BadOption)),
        ("an option past the header", with_options([1, 0x83, 4, 1]), 100, Err(DropReason::Ipv4BadOption)),
        ("IPv6", v6, 100, Err(DropReason::Ipv4Malformed)),
        ("no frame", vec![0; 9], 100, Err(DropReason::FrameTooShort)),
    ] {
        assert_eq!(split(&Meta::PLAIN, &frame, mtu, 5).map(|out| out.len()), expected, "{what}");
    }
    let checksum = ChecksumState::Partial { start: 34, offset: 6 };
    let partial = Meta { checksum, gso: None };
    assert_eq!(split(&partial, &with(MORE), 64, 5), Err(DropReason::BadVnetHeader));
    let gso = Meta { checksum, gso: Some(Gso { kind: GsoKind::Udp, size: 50, ecn: false }) };
    assert_eq!(split(&gso, &good, 1500, 5), Err(DropReason::CannotSegment));
    assert!(FrameRef::parse(gso, &good[..]).is_ok(), "a super-frame");
}
