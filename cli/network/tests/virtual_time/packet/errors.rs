//! ICMP errors: our own, and those of others.

use tapswitch_wire::{DropReason, FrameRef};

use super::frames::*;
use super::*;

const OUT: (u16, u16) = (4000, 53);
const BACK: (u16, u16) = (53, 4000);

/// An ICMP error that came out: who sends it to whom, type and code, the MTU in it, and the packet that it quotes.
#[track_caller]
fn error(frame: &[u8]) -> ([Ipv4Addr; 2], (u8, u8), u16, Vec<u8>) {
    let parsed = FrameRef::parse(Meta::PLAIN, frame).expect("a frame");
    let ip = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let message = parsed.segment();
    let mtu = u16::from_be_bytes([message[6], message[7]]);
    ([ip(26), ip(30)], (message[0], message[1]), mtu, message[8..].to_vec())
}

#[test]
fn ip_2_a_ttl_that_ends_here_is_answered_from_the_side_it_came_from_with_the_packet_as_it_was() {
    let mut house = House::met(|_| {});
    let probes = |packet: Packet, ports: (u16, u16)| {
        [packet.udp(ports, b"probe 12"), packet.tcp(ports, SYN, &[], b""), packet.ping(7700, b"probe 12")]
    };
    for ttl in [0, 1] {
        for probe in probes(leaving(A, FAR).ttl(ttl), OUT) {
            assert_eq!(house.send(PORT_A, &probe), drop(DropReason::TtlExceeded));
            let (port, answer) = house.one_inside();
            assert_eq!((port, error(&answer)), (PORT_A, ([GATEWAY, A], (11, 0), 0, probe[14..].to_vec())));
        }
    }
    assert_eq!(house.sessions(), 0, "no session was made for it");
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.take_outside();
    for ttl in [0, 1] {
        let probe = coming(FAR, OURS).ttl(ttl).udp(BACK, b"probe 12");
        // By the slow way, and by what would be the fast one.
        for _ in 0..2 {
            assert_eq!(house.arrive(&probe), drop(DropReason::TtlExceeded));
            let answer = house.one_outside();
            assert_eq!(error(&answer), ([OURS, FAR], (11, 0), 0, probe[14..].to_vec()));
            assert_eq!(answer[..12], [mac(ROUTER).0, UPLINK_MAC.0].concat());
        }
    }
    // For ourselves it is enough.
    house.arrive(&coming(FAR, OURS).ttl(1).ping(9, b"you there"));
    assert_eq!(house.one_outside(), left(OURS, FAR).ttl(64).pong(9, b"you there"));
}

#[test]
fn ip_3_nu_8_what_is_too_big_comes_back_to_its_sender_with_the_mtu_of_the_way() {
    let mut house = House::met(|told| told.mtu = 1280);
    let fits = leaving(A, FAR).udp(OUT, &[1; 1252]);
    house.send(PORT_A, &fits);
    assert_eq!(house.one_outside(), left(OURS, FAR).udp(OUT, &[1; 1252]));
    let large = leaving(A, FAR).udp(OUT, &[1; 1253]);
    assert_eq!(house.send(PORT_A, &large), drop(DropReason::AboveMtu));
    let (port, answer) = house.one_inside();
    let (addresses, kind, mtu, quote) = error(&answer);
    assert_eq!((port, addresses, kind, mtu), (PORT_A, [GATEWAY, A], (3, 4), 1280));
    assert_eq!(quote[12..28], large[26..42], "the packet as A knows it, not as the outside would");
    // A super-frame counts by its segments.
    for (size, fits) in [(1240, true), (1241, false)] {
        let (meta, frame) = leaving(A, FAR).tcp_super((4001, 80), size, &[7; 20_000]);
        house.send_meta(PORT_A, meta, &frame);
        assert_eq!((house.take_outside().len(), house.take_inside().len()), if fits { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn ip_3_nu_8_what_is_too_big_for_the_inside_is_answered_to_the_outside() {
    let mut house = House::met(|told| told.network.mtu = 1280);
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.take_outside();
    let large = coming(FAR, OURS).udp(BACK, &[1; 1253]);
    assert_eq!(house.arrive(&large), drop(DropReason::AboveMtu));
    let (addresses, kind, mtu, quote) = error(&house.one_outside());
    assert_eq!((addresses, kind, mtu), ([OURS, FAR], (3, 4), 1280));
    assert_eq!(quote, large[14..14 + quote.len()], "nothing of the inside is told");
}

#[test]
fn ni_3_errors_from_outside_reach_whom_they_concern_in_terms_of_what_it_sent() {
    let mut house = House::met(|_| {});
    let sent = leaving(A, FAR).udp(OUT, b"question");
    house.send(PORT_A, &sent);
    let seen = house.one_outside();
    for quoted in [8, 16] {
        for (kind, code, mtu) in [(3, 0, 0), (3, 1, 0), (3, 3, 0), (3, 4, 1400), (3, 13, 0), (11, 0, 0), (12, 0, 0)] {
            // From a router on the way, whoever that is.
            house.arrive(&coming(OTHER, OURS).error((kind, code), mtu, &seen, quoted));
            let (port, frame) = house.one_inside();
            let (addresses, what, told_mtu, quote) = error(&frame);
            assert_eq!((port, addresses, what, told_mtu), (PORT_A, [OTHER, A], (kind, code), mtu));
            let mut expected = sent[14..34 + quoted].to_vec();
            // The TTL with which it was seen.
            expected[8] = 63;
            assert_eq!((&quote[..10], &quote[12..]), (&expected[..10], &expected[12..]));
            assert_eq!(tapswitch_wire::checksum::checksum(0, &quote[..20]), 0, "the quoted header's checksum");
        }
    }
    assert_eq!(house.sessions(), 1, "and nothing ended");
}

#[test]
fn ni_3_errors_from_inside_leave_in_our_name() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.take_outside();
    let answer = coming(FAR, OURS).udp(BACK, b"an answer that nobody waits for any more");
    house.arrive(&answer);
    let (_, seen) = house.one_inside();
    for quoted in [8, 48] {
        house.send(PORT_A, &leaving(A, FAR).error((3, 3), 0, &seen, quoted));
        let (addresses, what, _, quote) = error(&house.one_outside());
        assert_eq!((addresses, what), ([OURS, FAR], (3, 3)));
        assert_eq!(quote[12..28], answer[26..42], "as FAR sent it");
    }
}

#[test]
fn nu_7_ni_3_an_error_about_nothing_is_dropped_and_ends_nothing() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    let seen = house.one_outside();
    let other = left(OURS, FAR).udp((4001, 53), b"question");
    let frame = coming(OTHER, OURS).error((3, 3), 0, &other, 8);
    assert_eq!(house.arrive(&frame), drop(DropReason::NoSuchSession));
    let narrow = coming(OTHER, OURS).error((3, 4), 68, &seen, 8);
    assert_eq!(house.arrive(&narrow), drop(DropReason::IcmpForged));
    let redirect = coming(OTHER, OURS).error((5, 1), 0, &seen, 8);
    assert_eq!(house.arrive(&redirect), drop(DropReason::IcmpIgnored));
    let from_inside = coming(A, OURS).error((3, 3), 0, &seen, 8);
    assert_eq!(house.arrive(&from_inside), drop(DropReason::InsideFromOutside));
    let at_its_end = coming(OTHER, OURS).ttl(1).error((3, 3), 0, &seen, 8);
    assert_eq!(house.arrive(&at_its_end), drop(DropReason::TtlExceeded));
    house.nothing_came();
    assert_eq!(house.sessions(), 1);
}

#[test]
fn without_a_device_an_address_or_a_route_the_sender_is_told_that_the_net_is_unreachable() {
    let frame = leaving(A, FAR).udp(OUT, b"question");
    let mut house = House::met(|_| {});
    house.network.uplink_down(house.now);
    assert_eq!(house.send(PORT_A, &frame), drop(DropReason::UplinkDown));
    assert_eq!(error(&house.one_inside().1).1, (3, 0));
    assert_eq!(house.arrive(&coming(FAR, OURS).udp(BACK, b"answer")), drop(DropReason::UplinkDown));
    let mut house = House::met(|told| {
        let address = "192.0.2.10/24".parse().expect("an address");
        told.packet.addressing = Addressing::Static { address, router: None };
    });
    assert_eq!(house.send(PORT_A, &frame), drop(DropReason::NoRoute));
    let (addresses, what, _, quote) = error(&house.one_inside().1);
    assert_eq!((addresses, what), ([GATEWAY, A], (3, 0)));
    assert_eq!(quote[12..28], frame[26..42]);
    // Nothing is translated, and still there is no device.
    let mut house = House::met(|told| told.packet.nat.translate = false);
    house.network.uplink_down(house.now);
    assert_eq!(house.send(PORT_A, &frame), drop(DropReason::UplinkDown));
    assert_eq!(error(&house.one_inside().1).1, (3, 0));
}

#[test]
fn ip_7_errors_are_rate_limited_for_each_sender() {
    let mut house = House::met(|told| told.mtu = 1280);
    let large = leaving(A, FAR).udp(OUT, &[1; 1300]);
    for _ in 0..60 {
        house.send(PORT_A, &large);
    }
    assert_eq!(house.take_inside().len(), 50);
    assert_eq!(house.network.gateway_drops().get(DropReason::IcmpRateLimited), 10);
    house.send(PORT_B, &leaving(B, FAR).udp(OUT, &[1; 1300]));
    assert_eq!(house.take_inside().len(), 1);
}
