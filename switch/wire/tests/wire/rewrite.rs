//! A rewritten packet is, byte for byte, the packet that would have been made with the new addresses and ports in the
//! first place, whose checksums etherparse computed. So nothing else is touched, in either checksum state.

use proptest::prelude::*;
use proptest::sample::select;
use tapswitch_wire::{ChecksumState, Endpoint, Frame, Gso, GsoKind, Meta, Parsed, Rewrite, checksum, segment};

use crate::oracle;
use crate::packets::{Net, Packet, Transport, V4, address4, packet, payload, port};

type Ends = (Endpoint, Endpoint);

pub fn endpoint() -> impl Strategy<Value = Endpoint> {
    (address4(), port()).prop_map(|(ip, port)| Endpoint::new(ip.into(), port))
}

/// What a session may hold: TCP, UDP and ICMP echo, also as a first fragment, and later fragments of them, whose
/// transport is bytes of any kind.
fn translatable() -> impl Strategy<Value = Packet> {
    let v4 = packet().prop_filter_map("only IPv4 is translated", |packet| match &packet.net {
        Net::V4(ip) if !matches!(ip.transport, Transport::Other(..)) => Some(packet),
        _ => None,
    });
    (v4, select(vec![0u8, 8]), select(vec![1u8, 6, 17]), payload()).prop_map(|(mut packet, echo, number, bytes)| {
        if let Net::V4(ip) = &mut packet.net {
            if ip.fragment & 0x1fff != 0 {
                ip.transport = Transport::Other(number, bytes);
            } else if let Transport::Icmp { kind, code, .. } = &mut ip.transport {
                // Of a fragment nobody can tell whether the whole message is zero, where zero has two checksums.
                (*kind, *code) = (if ip.fragment & 0x3fff == 0 { echo } else { 8 }, 0);
            }
        }
        packet
    })
}

fn v4(packet: &mut Packet) -> &mut V4 {
    match &mut packet.net {
        Net::V4(ip) => ip,
        other => panic!("{other:?}"),
    }
}

/// Its ends, as a translator sees them: the identifier of an echo is the asking end's port, and 0 the other's.
pub fn ends(packet: &Packet) -> Ends {
    let Net::V4(ip) = &packet.net else { panic!("{packet:?}") };
    let ports = match &ip.transport {
        Transport::Tcp { ports, .. } | Transport::Udp { ports, .. } => *ports,
        Transport::Icmp { kind: 8, word, .. } => [u16::from_be_bytes([word[0], word[1]]), 0],
        Transport::Icmp { word, .. } => [0, u16::from_be_bytes([word[0], word[1]])],
        Transport::Other(..) => [0, 0],
    };
    (Endpoint::new(ip.src.into(), ports[0]), Endpoint::new(ip.dst.into(), ports[1]))
}

/// The same packet between other ends, made anew.
pub fn between(packet: &Packet, (src, dst): Ends) -> Packet {
    let mut packet = packet.clone();
    let ip = v4(&mut packet);
    (ip.src, ip.dst) = (src.ip.octets(), dst.ip.octets());
    match &mut ip.transport {
        Transport::Tcp { ports, .. } | Transport::Udp { ports, .. } => *ports = [src.port, dst.port],
        Transport::Icmp { word, .. } => word[..2].copy_from_slice(&(src.port | dst.port).to_be_bytes()),
        Transport::Other(..) => {}
    }
    packet
}

/// New ends for a packet: of an echo, the end that has no identifier keeps none.
pub fn fitting(packet: &Packet, (src, dst): Ends) -> Ends {
    let without = |end: Endpoint| Endpoint::new(end.ip, 0);
    match packet.transport() {
        Some(Transport::Icmp { kind: 8, .. }) => (src, without(dst)),
        Some(Transport::Icmp { .. }) => (without(src), dst),
        _ => (src, dst),
    }
}

fn rewritten(meta: Meta, bytes: &[u8], old: Ends, new: Ends) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    Frame::parse(meta, &mut bytes[..]).unwrap().rewrite(&Rewrite::new(old, new));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn ip_5_nu_10_a_rewrite_equals_a_full_recompute(packet in translatable(), new in (endpoint(), endpoint())) {
        let (old, new) = (ends(&packet), fitting(&packet, new));
        let right = between(&packet, new);
        let is = rewritten(Meta::PLAIN, &packet.bytes(), old, new);
        prop_assert_eq!(&is, &right.bytes());
        if !packet.is_fragment() {
            prop_assert_eq!(oracle::checksums(&is), Ok(()));
        }
    }

    #[test]
    fn nu_11_of_a_partial_checksum_only_addresses_change_and_it_completes_to_the_right_one(
        packet in translatable(),
        new in (endpoint(), endpoint()),
    ) {
        let (old, new) = (ends(&packet), fitting(&packet, new));
        let Some((meta, before)) = packet.partial().filter(|_| !packet.is_fragment()) else { return Ok(()) };
        let mut is = rewritten(meta, &before, old, new);
        let right = between(&packet, new);
        let ports_only = rewritten(meta, &before, old, (Endpoint { ip: old.0.ip, ..new.0 }, Endpoint { ip: old.1.ip, ..new.1 }));
        let field = |bytes: &[u8]| match meta.checksum {
            ChecksumState::Partial { start, offset } => bytes[usize::from(start + offset)..][..2].to_vec(),
            _ => Vec::new(),
        };
        prop_assert_eq!(field(&ports_only), field(&before), "ports are not in the pseudo header");
        prop_assert_eq!(&is, &right.partial().unwrap().1);
        let (mut meta, end) = (meta, Parsed::parse(&is).unwrap().end as usize);
        checksum::complete(&mut meta, &mut is, end).unwrap();
        prop_assert_eq!(is, right.bytes());
    }

    #[test]
    fn the_inverse_rewrite_gives_the_packet_back(packet in translatable(), new in (endpoint(), endpoint())) {
        let (old, new) = (ends(&packet), fitting(&packet, new));
        let mut states = vec![(Meta::PLAIN, packet.bytes())];
        states.extend(packet.partial().filter(|_| !packet.is_fragment()));
        for (meta, bytes) in states {
            let there = rewritten(meta, &bytes, old, new);
            prop_assert_eq!(rewritten(meta, &there, new, old), bytes);
        }
    }

    #[test]
    fn nu_10_a_computed_zero_is_sent_as_all_ones_and_none_stays_none(
        old in (endpoint(), endpoint()),
        new in (endpoint(), endpoint()),
        rest in payload(),
    ) {
        let datagram = |ends, word: u16, without_checksum| {
            let payload = [&word.to_be_bytes()[..], &rest].concat();
            between(&udp(without_checksum, payload), ends)
        };
        let check = |bytes: &[u8]| u16::from_be_bytes([bytes[40], bytes[41]]);
        // With its own checksum as a word of the payload a datagram sums up to zero.
        let zero = datagram(new, 0, false).bytes();
        let word = match check(&zero) { 0xffff => 0, other => other };
        let is = rewritten(Meta::PLAIN, &datagram(old, word, false).bytes(), old, new);
        prop_assert_eq!(check(&is), 0xffff);
        prop_assert_eq!(&is, &datagram(new, word, false).bytes());
        // And back from there.
        prop_assert_eq!(rewritten(Meta::PLAIN, &is, new, old), datagram(old, word, false).bytes());
        let none = rewritten(Meta::PLAIN, &datagram(old, word, true).bytes(), old, new);
        prop_assert_eq!(check(&none), 0);
        prop_assert_eq!(none, datagram(new, word, true).bytes());
    }

    #[test]
    fn nu_11_segments_of_a_rewritten_super_frame_have_right_checksums(
        udp in any::<bool>(),
        size in 1u16..200,
        payload in prop::collection::vec(any::<u8>(), 1..900),
        old in (endpoint(), endpoint()),
        new in (endpoint(), endpoint()),
    ) {
        // At most as many segments as one read of a port may hold.
        let size = size.max(payload.len() as u16 / 60 + 1);
        let transport = if udp {
            Transport::Udp { ports: [0; 2], without_checksum: false, payload: payload.clone() }
        } else {
            Transport::Tcp { ports: [0; 2], seq: 5, flags: 0x10, options: vec![1; 12], payload: payload.clone() }
        };
        let packet = between(&plain(transport), old);
        let (meta, bytes) = packet.partial().unwrap();
        let kind = if udp { GsoKind::Udp } else { GsoKind::Tcp4 };
        let meta = Meta { gso: Some(Gso { kind, size, ecn: false }), ..meta };
        let bytes = rewritten(meta, &bytes, old, new);
        let mut segments = Vec::new();
        let mut emit = |meta: &Meta, segment: &[u8]| segments.push((*meta, segment.to_vec()));
        segment::segment(&meta, &bytes, &mut Vec::new(), &mut emit).unwrap();
        prop_assert_eq!(segments.len(), payload.len().div_ceil(usize::from(size)));
        for (meta, segment) in segments {
            prop_assert_eq!(oracle::checksums_when_complete(&meta, &segment), Ok(()));
            prop_assert_eq!(&segment[26..38], &bytes[26..38], "addresses and ports");
        }
    }

    #[test]
    fn what_is_not_ipv4_is_left_alone(packet in packet(), new in (endpoint(), endpoint())) {
        if !matches!(packet.net, Net::V4(_)) {
            prop_assert_eq!(rewritten(Meta::PLAIN, &packet.bytes(), new, (new.1, new.0)), packet.bytes());
        }
    }
}

fn plain(transport: Transport) -> Packet {
    let (src, dst) = ([10, 0, 0, 2], [192, 0, 2, 1]);
    let net = Net::V4(V4 { src, dst, ttl: 64, tos: 0, id: 0, options: vec![], fragment: 0x4000, transport });
    Packet { dst_mac: [2; 6], src_mac: [4; 6], tags: vec![], net, padding: 0 }
}

fn udp(without_checksum: bool, payload: Vec<u8>) -> Packet {
    plain(Transport::Udp { ports: [0; 2], without_checksum, payload })
}

#[test]
fn ip_5_every_value_of_a_new_port_gives_the_full_recompute() {
    let end = |ip: [u8; 4], port| Endpoint::new(ip.into(), port);
    let old = (end([10, 0, 0, 2], 4000), end([192, 0, 2, 1], 53));
    for transport in [
        Transport::Udp { ports: [0; 2], without_checksum: false, payload: vec![7; 3] },
        Transport::Icmp { kind: 8, code: 0, word: [0; 4], payload: vec![] },
        Transport::Icmp { kind: 0, code: 0, word: [0; 4], payload: vec![0; 8] },
    ] {
        let packet = plain(transport);
        let packet = between(&packet, fitting(&packet, old));
        for port in 0..=0xffff {
            let new = fitting(&packet, (end([203, 0, 113, 9], port), end([192, 0, 2, 1], port)));
            let is = rewritten(Meta::PLAIN, &packet.bytes(), ends(&packet), new);
            assert_eq!(is, between(&packet, new).bytes(), "port {port}");
            assert_eq!(rewritten(Meta::PLAIN, &is, new, ends(&packet)), packet.bytes(), "back from port {port}");
        }
    }
}
