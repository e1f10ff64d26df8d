//! Any series of setters gives the very bytes of a frame that was made with the new values in the first place, in both
//! checksum states. So nothing else is touched, and every checksum is what a full recompute gives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use tapswitch_wire::{Frame, Mac, Meta, Parsed, checksum};

use crate::oracle;
use crate::packets::{Extension, Net, Packet, Transport, V4, address4, address6, packet, payload, port};

#[derive(Clone, Debug)]
enum Change {
    DstMac([u8; 6]),
    SrcMac([u8; 6]),
    Ttl(u8),
    DecrementTtl,
    SrcIp(IpAddr),
    DstIp(IpAddr),
    SrcPort(u16),
    DstPort(u16),
    IcmpType(u8),
}

fn change() -> impl Strategy<Value = Change> {
    let ip = || {
        prop_oneof![
            address4().prop_map(|ip| IpAddr::from(Ipv4Addr::from(ip))),
            address6().prop_map(|ip| IpAddr::from(Ipv6Addr::from(ip)))
        ]
    };
    prop_oneof![
        any::<[u8; 6]>().prop_map(Change::DstMac),
        any::<[u8; 6]>().prop_map(Change::SrcMac),
        any::<u8>().prop_map(Change::Ttl),
        Just(Change::DecrementTtl),
        ip().prop_map(Change::SrcIp),
        ip().prop_map(Change::DstIp),
        port().prop_map(Change::SrcPort),
        port().prop_map(Change::DstPort),
        any::<u8>().prop_map(Change::IcmpType),
    ]
}

/// By the setter.
fn set(frame: &mut Frame<'_>, change: &Change) {
    match *change {
        Change::DstMac(mac) => frame.set_dst_mac(Mac(mac)),
        Change::SrcMac(mac) => frame.set_src_mac(Mac(mac)),
        Change::Ttl(ttl) => frame.set_ttl(ttl),
        Change::DecrementTtl => {
            frame.decrement_ttl();
        }
        Change::SrcIp(ip) => frame.set_src_ip(ip),
        Change::DstIp(ip) => frame.set_dst_ip(ip),
        Change::SrcPort(port) => frame.set_src_port(port),
        Change::DstPort(port) => frame.set_dst_port(port),
        Change::IcmpType(kind) => frame.set_icmp_type(kind),
    }
}

/// In the value that the bytes are made from. `has_ports` says whether the frame shows its transport header.
fn expect(packet: &mut Packet, change: &Change, has_ports: bool) {
    let ttl = match &mut packet.net {
        Net::V4(ip) => Some(&mut ip.ttl),
        Net::V6(ip) => Some(&mut ip.hops),
        Net::Arp(_) | Net::Other(..) => None,
    };
    match (change, ttl) {
        (Change::DstMac(mac), _) => packet.dst_mac = *mac,
        (Change::SrcMac(mac), _) => packet.src_mac = *mac,
        (Change::Ttl(new), Some(ttl)) => *ttl = *new,
        (Change::DecrementTtl, Some(ttl)) => *ttl = ttl.saturating_sub(1),
        (Change::SrcIp(new), _) => match (&mut packet.net, new) {
            (Net::V4(ip), IpAddr::V4(new)) => ip.src = new.octets(),
            (Net::V6(ip), IpAddr::V6(new)) => ip.src = new.octets(),
            _ => {}
        },
        (Change::DstIp(new), _) => match (&mut packet.net, new) {
            (Net::V4(ip), IpAddr::V4(new)) => ip.dst = new.octets(),
            (Net::V6(ip), IpAddr::V6(new)) => ip.dst = new.octets(),
            _ => {}
        },
        (Change::SrcPort(new) | Change::DstPort(new), _) if has_ports => {
            let which = usize::from(matches!(change, Change::DstPort(_)));
            match packet.transport_mut() {
                Some(Transport::Tcp { ports, .. } | Transport::Udp { ports, .. }) => ports[which] = *new,
                Some(Transport::Icmp { word, .. }) => word[..2].copy_from_slice(&new.to_be_bytes()),
                Some(Transport::Other(..)) | None => {}
            }
        }
        (Change::IcmpType(new), _) if has_ports => {
            if let Some(Transport::Icmp { kind, .. }) = packet.transport_mut() {
                *kind = *new;
            }
        }
        _ => {}
    }
}

/// Whether this is a fragment other than the first, whose payload is any piece of a segment.
fn is_later_fragment(bytes: &[u8]) -> bool {
    Parsed::parse(bytes).unwrap().fragment.is_some_and(|fragment| fragment.offset > 0)
}

/// Whether this may be the beginning of an ICMP message of zeros: the two zeros of ones' complement cannot be told apart
/// while the rest of it is not at hand.
fn is_ambiguous(packet: &Packet) -> bool {
    let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let is_zero = matches!(packet.transport(), Some(Transport::Icmp { payload, .. }) if zeros(payload));
    packet.is_fragment() && is_zero
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn ip_5_any_series_of_setters_equals_making_the_frame_anew(packet in packet(), changes in vec(change(), 1..8)) {
        let mut bytes = packet.bytes();
        if is_later_fragment(&bytes) || is_ambiguous(&packet) {
            return Ok(());
        }
        let mut frame = Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap();
        let mut wanted = packet;
        for change in &changes {
            set(&mut frame, change);
            expect(&mut wanted, change, true);
            // A checksum is right after each setter, not only at the end.
            prop_assert!(frame.ipv4_checksum_ok());
        }
        prop_assert_eq!(&bytes, &wanted.bytes());
        // A setter may have made a timestamp message, which etherparse takes at one length only.
        let is_timestamp = matches!(wanted.transport(), Some(Transport::Icmp { kind: 13 | 14, .. }));
        prop_assert!(is_timestamp || oracle::checksums(&bytes) == Ok(()));
    }

    #[test]
    fn nu_11_any_series_of_setters_keeps_a_partial_checksum_partial(packet in packet(), changes in vec(change(), 1..8)) {
        let Some((meta, mut bytes)) = packet.partial() else { return Ok(()) };
        if is_later_fragment(&bytes) {
            return Ok(());
        }
        let mut frame = Frame::parse(meta, &mut bytes[..]).unwrap();
        let mut wanted = packet;
        for change in &changes {
            set(&mut frame, change);
            expect(&mut wanted, change, true);
        }
        prop_assert_eq!(Some((meta, bytes.clone())), wanted.partial());
        prop_assert_eq!(oracle::checksums_when_complete(&meta, &bytes), Ok(()));
    }

    /// What looks like a transport header there is none.
    #[test]
    fn setters_leave_the_payload_of_a_later_fragment_alone(packet in packet(), changes in vec(change(), 1..8)) {
        let mut packet = packet;
        match &mut packet.net {
            Net::V4(ip) => ip.fragment |= 9,
            Net::V6(ip) => ip.extensions.push(Extension::Fragment(0x48)),
            Net::Arp(_) | Net::Other(..) => return Ok(()),
        }
        let mut bytes = packet.bytes();
        prop_assert!(is_later_fragment(&bytes));
        let start = usize::from(Parsed::parse(&bytes).unwrap().l4_start);
        let payload = bytes[start..].to_vec();
        let mut frame = Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap();
        let mut wanted = packet;
        for change in &changes {
            set(&mut frame, change);
            expect(&mut wanted, change, false);
        }
        prop_assert_eq!(&bytes[..start], &wanted.bytes()[..start]);
        prop_assert_eq!(&bytes[start..], payload);
    }

    #[test]
    fn completing_a_partial_checksum_equals_making_it_complete(packet in packet()) {
        let Some((mut meta, mut bytes)) = packet.partial() else { return Ok(()) };
        let end = Parsed::parse(&bytes).unwrap().end as usize;
        checksum::complete(&mut meta, &mut bytes, end).unwrap();
        prop_assert_eq!((meta, bytes), (Meta::PLAIN, packet.bytes()));
    }

    #[test]
    fn what_is_set_is_what_is_read(packet in packet(), changes in vec(change(), 1..4)) {
        let mut bytes = packet.bytes();
        let mut frame = Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap();
        for change in &changes {
            set(&mut frame, change);
            let has_ip = |ip: &IpAddr| frame.src_ip().is_some_and(|src| src.is_ipv4() == ip.is_ipv4());
            match change {
                Change::DstMac(mac) => prop_assert_eq!(frame.dst_mac(), Mac(*mac)),
                Change::SrcMac(mac) => prop_assert_eq!(frame.src_mac(), Mac(*mac)),
                Change::Ttl(ttl) => prop_assert_eq!(frame.ttl(), if frame.src_ip().is_some() { *ttl } else { 0 }),
                Change::SrcIp(ip) => prop_assert!(!has_ip(ip) || frame.src_ip() == Some(*ip)),
                Change::DstIp(ip) => prop_assert!(!has_ip(ip) || frame.dst_ip() == Some(*ip)),
                Change::SrcPort(port) => prop_assert!([0, *port].contains(&frame.src_port())),
                Change::DstPort(port) => prop_assert!([0, *port].contains(&frame.dst_port())),
                Change::DecrementTtl | Change::IcmpType(_) => {}
            }
        }
    }

    #[test]
    fn tr_12_one_changed_bit_in_a_segment_is_a_wrong_checksum(
        packet in packet(),
        at in any::<prop::sample::Index>(),
        bit in 0u32..8,
    ) {
        let mut bytes = packet.bytes();
        let parsed = Parsed::parse(&bytes).unwrap();
        let without_checksum = matches!(
            packet.transport(),
            None | Some(Transport::Other(..) | Transport::Udp { without_checksum: true, .. })
        );
        if without_checksum || parsed.fragment.is_some() {
            return Ok(());
        }
        let (start, end) = (usize::from(parsed.l4_start), parsed.end as usize);
        bytes[start + at.index(end - start)] ^= 1 << bit;
        let frame = Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap();
        // The bit may have been the only one of a UDP checksum, or one that the header's shape depends on.
        let no_checksum = matches!(packet.transport(), Some(Transport::Udp { .. })) && frame.segment()[6..8] == [0, 0];
        prop_assert!(no_checksum || *frame.parsed() != parsed || !frame.transport_checksum_ok());
    }
}

fn datagram(without_checksum: bool, payload: Vec<u8>) -> Packet {
    let transport = Transport::Udp { ports: [1000, 2000], without_checksum, payload };
    let (src, dst) = ([10, 0, 0, 2], [10, 0, 0, 1]);
    let net = Net::V4(V4 { src, dst, ttl: 64, tos: 0, id: 0, options: vec![], fragment: 0, transport });
    Packet { dst_mac: [2; 6], src_mac: [4; 6], tags: vec![], net, padding: 0 }
}

#[test]
fn nu_10_a_udp_checksum_of_zero_stays_zero() {
    let mut bytes = datagram(true, b"odd".to_vec()).bytes();
    let mut frame = Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap();
    frame.set_src_ip(Ipv4Addr::new(192, 0, 2, 1).into());
    frame.set_dst_port(9);
    assert_eq!(frame.segment()[6..8], [0, 0]);
    assert!(frame.transport_checksum_ok());
}

/// Every source port, so one of them makes the sum come out as zero.
#[test]
fn nu_10_a_udp_checksum_that_comes_out_as_zero_becomes_all_ones() {
    let mut bytes = datagram(false, b"odd".to_vec()).bytes();
    let mut frame = Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap();
    let mut ones = 0;
    for port in 0..=u16::MAX {
        frame.set_src_port(port);
        assert_ne!(frame.segment()[6..8], [0, 0], "port {port}");
        assert!(frame.transport_checksum_ok(), "port {port}");
        ones += u32::from(frame.segment()[6..8] == [0xff, 0xff]);
    }
    assert!(ones >= 1);
}

#[test]
fn nu_10_a_udp_checksum_of_zero_is_wrong_over_ipv6() {
    let mut bytes = Vec::new();
    let link = tapswitch_wire::build::Link { src: Mac([4; 6]), dst: Mac([2; 6]) };
    let ip = |last| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
    let header = tapswitch_wire::build::Ip { src: ip(1), dst: ip(2), ttl: 64, tos: 0, id: 0 };
    tapswitch_wire::build::udp(&mut bytes, link, header, 1, 2, b"x");
    assert!(Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap().transport_checksum_ok());
    bytes[14 + 40 + 6..14 + 40 + 8].fill(0);
    assert!(!Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap().transport_checksum_ok());
}

proptest! {
    /// Odd lengths and long ones: the sum must not care.
    #[test]
    fn payloads_of_any_length_are_summed_right(payload in payload(), more in 0usize..3000) {
        let payload = [payload, vec![0x5a; more]].concat();
        let mut bytes = datagram(false, payload).bytes();
        let frame = Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap();
        prop_assert!(frame.transport_checksum_ok());
    }
}
