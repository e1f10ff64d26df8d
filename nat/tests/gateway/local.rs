//! What is addressed to the gateway itself.

use tapswitch_nat::{Outcome, Service};
use tapswitch_wire::DropReason::*;
use tapswitch_wire::{Frame, Gso, GsoKind, Mac, Meta, Unheard, render};

use crate::world::*;

const ANSWER: &str = "02:42:0a:00:00:01 > 02:42:0a:00:00:02 IPv4 10.0.0.1 > 10.0.0.2 ttl 64 ";

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// An answer of the gateway to A.
fn answer(what: &str) -> Vec<String> {
    vec![format!("{ANSWER}{what}")]
}

#[test]
fn ip_9_echo_to_our_own_address_is_answered_with_the_same_data() {
    for len in [0, 1, 56, 1472] {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let request = icmp(ip(A, GATEWAY, 1), 8, 0, &data);
        let mut world = World::new();
        let expected = answer(&format!("ICMP echo reply id 7 seq 1, {} bytes", 42 + len));
        assert_eq!(world.rx(&request), (REPLY, expected), "{len} bytes; TTL 1 is enough to reach us");
        assert_eq!(&world.last()[42..], data);
        let mut reply = world.last().to_vec();
        let reply = Frame::parse(Meta::PLAIN, &mut reply[..]).unwrap();
        assert!(reply.ipv4_checksum_ok() && reply.transport_checksum_ok());
    }
}

#[test]
fn ip_9_an_echo_that_is_all_zeros_gets_a_checksum_that_receivers_accept() {
    let mut request = icmp(ip(A, GATEWAY, 64), 8, 0, &[0; 32]);
    request[34..42].copy_from_slice(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    let mut world = World::new();
    assert_eq!(world.rx(&request).0, REPLY);
    assert_eq!(world.last()[34..42], [0, 0, 0xff, 0xff, 0, 0, 0, 0]);
}

#[test]
fn ip_9_a_broadcast_ping_is_not_answered() {
    for dst in ["255.255.255.255", "10.0.0.255"] {
        let request = sent_to(&ping(A, dst.parse().unwrap(), 64), Mac::BROADCAST);
        assert_eq!(World::new().rx(&request), (drop(MulticastNotRouted), vec![]), "{dst}");
    }
}

#[test]
fn ip_9_no_other_icmp_message_is_answered() {
    for (kind, code) in [(0, 0), (3, 3), (4, 0), (5, 1), (8, 1), (10, 0), (11, 0), (13, 0), (15, 0), (17, 0), (42, 0)] {
        let frame = icmp(ip(A, GATEWAY, 64), kind, code, &[0; 28]);
        assert_eq!(World::new().rx(&frame), (drop(IcmpIgnored), vec![]), "type {kind} code {code}");
    }
}

#[test]
fn an_echo_that_is_broken_cut_short_fragmented_or_too_long_is_not_answered() {
    let good = ping(A, GATEWAY, 64);
    let mut corrupt = good.clone();
    corrupt[45] ^= 0x10;
    let mut short = patched(&good[..40], 2, &[0, 26]);
    short[34..40].copy_from_slice(&[8, 0, 0xf7, 0xff, 0, 0]);
    let fragment = patched(&good, 6, &[0x20, 0]);
    let long = icmp(ip(A, GATEWAY, 64), 8, 0, &[0; 1473]);
    for (frame, reason) in [
        (corrupt, TransportBadChecksum),
        (short, TransportMalformed),
        (fragment, FragmentNotSupported),
        (long, AboveMtu),
    ] {
        assert_eq!(World::new().rx(&frame), (drop(reason), vec![]));
    }
}

#[test]
fn an_echo_whose_checksum_is_still_partial_is_answered_with_a_partial_one() {
    let mut request = ping(A, GATEWAY, 64);
    request[36..38].copy_from_slice(&[0, 0]);
    let mut world = World::new();
    let expected = answer("ICMP echo reply id 7 seq 1, 50 bytes, partial checksum");
    assert_eq!(world.rx_meta(partial(34, 2), &request), (REPLY, expected));
    assert_eq!(world.last()[34..38], [0; 4], "the field is for the last port to fill in");
    assert_eq!(world.rx_meta(partial(34, 4), &request), (drop(BadVnetHeader), vec![]), "a field that is none");
    request[36] = 1;
    assert_eq!(world.rx_meta(partial(34, 2), &request), (drop(TransportBadChecksum), vec![]), "a sum of nothing");
}

#[test]
fn a_service_that_somebody_serves_is_left_to_it_and_keeps_its_ttl() {
    let mut world = World::new();
    assert_eq!(world.rx(&udp(ip(A, GATEWAY, 1), 1000, 53, b"question")), (UPLINK, vec![]));
    assert_eq!(world.left[22], 1);
    assert_eq!(world.rx(&tcp(ip(A, GATEWAY, 1), 53, 9, 0, SYN, b"")), (UPLINK, vec![]));
    assert_eq!(world.rx(&udp(ip(A, GATEWAY, 1), 68, 67, &[0; 300])), (Outcome::Dhcp, vec![]));
    let mut world = World::with(|config| config.services.clear());
    assert_eq!(world.rx(&udp(ip(A, GATEWAY, 64), 1000, 53, b"question")).0, drop(NoSuchService));
    assert_eq!(world.rx(&tcp(ip(A, GATEWAY, 64), 53, 9, 0, SYN, b"")).0, drop(NoSuchService));
    assert_eq!(world.rx(&udp(ip(A, GATEWAY, 64), 68, 67, &[0; 300])).0, drop(NoSuchService));
}

#[test]
fn where_somebody_serves_every_port_a_closed_one_is_refused_as_if_nobody_did() {
    let (udp, tcp) = (udp(ip(A, GATEWAY, 64), 1000, 33434, b"hello"), tcp(ip(A, GATEWAY, 64), 22, 9, 0, SYN, b""));
    for frame in [udp, tcp] {
        let alone = World::new().rx(&frame);
        let mut world = World::with(|config| config.services.push(Service::AnyPort));
        assert_eq!(world.rx(&frame), (UPLINK, vec![]));
        let mut left = world.left.clone();
        let refused = Frame::parse(Meta::PLAIN, &mut left[..]).unwrap();
        let mut sent = Vec::new();
        let out = &mut |meta: &Meta, bytes: &[u8]| sent.push(render(meta, bytes));
        let reason = world.gateway.refuse_closed(&refused, world.now, &mut Unheard, out);
        assert_eq!((drop(reason), sent), alone);
    }
    let mut world = World::with(|config| config.services.push(Service::AnyPort));
    assert_eq!(
        world.rx(&crate::world::udp(ip(A, GATEWAY, 1), 68, 67, &[0; 300])).0,
        Outcome::Dhcp,
        "the address service is nobody else's"
    );
}

#[test]
fn udp_to_a_port_that_nobody_serves_is_told_so() {
    let mut world = World::new();
    let expected = answer("ICMP type 3 code 3, 75 bytes");
    assert_eq!(world.rx(&udp(ip(A, GATEWAY, 64), 1000, 33434, b"hello")), (drop(NoSuchService), expected));
    let mut corrupt = udp(ip(A, GATEWAY, 64), 1000, 33434, b"hello");
    corrupt[44] ^= 1;
    assert_eq!(world.rx(&corrupt), (drop(TransportBadChecksum), vec![]));
}

#[test]
fn tcp_to_a_port_that_nobody_serves_is_reset_as_a_closed_port_does() {
    for (flags, seq, ack, payload, expected) in [
        (SYN, 1000, 0, &b""[..], "[R.] seq 0 ack 1001"),
        (SYN, u32::MAX, 0, b"", "[R.] seq 0 ack 0"),
        (SYN, 1000, 0, b"early", "[R.] seq 0 ack 1006"),
        (FIN, 1000, 0, b"12", "[R.] seq 0 ack 1003"),
        (0, 1000, 0, b"", "[R.] seq 0 ack 1000"),
        (ACK, 1000, 77, b"", "[R] seq 77 ack 0"),
        (SYN | ACK, 1000, 77, b"", "[R] seq 77 ack 0"),
        (FIN | PSH | ACK, 1000, 77, b"data", "[R] seq 77 ack 0"),
    ] {
        let expected = answer(&format!("TCP 22 > 40000 {expected} win 0 payload 0, 54 bytes, partial checksum"));
        let segment = tcp(ip(A, GATEWAY, 64), 22, seq, ack, flags, payload);
        assert_eq!(World::new().rx(&segment), (drop(NoSuchService), expected));
    }
    for flags in [RST, RST | ACK] {
        let segment = tcp(ip(A, GATEWAY, 64), 22, 1, 1, flags, b"");
        assert_eq!(World::new().rx(&segment), (drop(NoSuchService), vec![]), "a reset is never answered");
    }
}

#[test]
fn a_super_frame_to_a_closed_port_is_reset_once() {
    let (meta, frame) = tcp_partial(ip(A, GATEWAY, 64), 22, 1000, 0, 0, &[0; 40_000]);
    let meta = Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size: 1460, ecn: false }), ..meta };
    let (outcome, sent) = World::new().rx_meta(meta, &frame);
    assert_eq!(outcome, drop(NoSuchService));
    assert!(matches!(&sent[..], [one] if one.contains("[R.] seq 0 ack 41000 ")), "{sent:?}");
}

#[test]
fn an_unknown_protocol_is_told_so_and_a_broken_header_is_not() {
    let frame = udp(ip(A, GATEWAY, 64), 1000, 2000, b"hello");
    let expected = answer("ICMP type 3 code 2, 75 bytes");
    assert_eq!(World::new().rx(&patched(&frame, 9, &[132])), (drop(UnknownProtocol), expected));
    let mut lying = frame.clone();
    lying[38..40].copy_from_slice(&[0, 200]);
    assert_eq!(World::new().rx(&lying), (drop(TransportMalformed), vec![]));
}
