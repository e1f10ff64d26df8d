//! Who may pass: filter, forwards, hairpins, quotas, containers that leave; and other networks.

use tapswitch_conntrack::{Dependence, Forward, Protocol, Reason};
use tapswitch_nat as nat;
use tapswitch_wire::{DropReason, FrameRef, L4};

use super::frames::*;
use super::*;

const OUT: (u16, u16) = (4000, 53);
const BACK: (u16, u16) = (53, 4000);

fn forward() -> Forward {
    Forward { owner: PORT_B.0, protocol: Protocol::Tcp, bound: None, outside: 8080, ip: B, inside: 80, count: 1 }
}

fn publish(house: &mut House, forward: Forward) {
    house.network.conntrack().expect("a packet uplink").publish(forward, house.now).expect("a free port");
}

/// Type and code of an ICMP error.
fn icmp_type(frame: &[u8]) -> Option<(u8, u8)> {
    let parsed = FrameRef::parse(Meta::PLAIN, frame).expect("a frame");
    (parsed.parsed().l4 == L4::Icmp).then(|| (parsed.segment()[0], parsed.segment()[1]))
}

#[test]
fn strangers_get_no_answer_but_a_pong() {
    let mut house = House::met(|_| {});
    for (frame, reason) in [
        (coming(FAR, OURS).udp(BACK, b"hello"), DropReason::Filtered),
        (coming(FAR, OURS).tcp((80, 22), SYN, &[], b""), DropReason::Filtered),
        (coming(FAR, OURS).tcp((80, 22), ACK, &[], b""), DropReason::NoSuchSession),
        (coming(FAR, A).udp(BACK, b"hello"), DropReason::InsideFromOutside),
        (coming(A, OURS).udp(BACK, b"hello"), DropReason::InsideFromOutside),
        (coming(FAR, OTHER).udp(BACK, b"hello"), DropReason::Filtered),
        (coming(OURS, OURS).udp(BACK, b"hello"), DropReason::SpoofedSource),
    ] {
        assert_eq!(house.arrive(&frame), drop(reason));
        house.nothing_came();
    }
    assert_eq!(house.arrive(&coming(FAR, OURS).ping(9, b"you there")), Verdict::Reply);
    assert_eq!(house.one_outside(), left(OURS, FAR).ttl(64).pong(9, b"you there"));
    assert_eq!(house.network.gateway_drops().get(DropReason::Filtered), 3);
    // Who was spoken to may answer from another port, by the default filter; another host may not.
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.take_outside();
    house.arrive(&coming(FAR, OURS).udp((999, 4000), b"answer"));
    assert_eq!(house.one_inside(), (PORT_A, come(FAR, A).udp((999, 4000), b"answer")));
    assert_eq!(house.arrive(&coming(OTHER, OURS).udp(BACK, b"answer")), drop(DropReason::Filtered));
}

#[test]
fn nu_1_one_inside_endpoint_is_one_outside_endpoint_for_every_destination() {
    let mut house = House::met(|told| told.packet.nat.ports = PortChoice::Random);
    let mut ports = std::collections::BTreeSet::new();
    for dst in [FAR, OTHER, ROUTER] {
        house.send(PORT_A, &leaving(A, dst).udp(OUT, b"question"));
        ports.insert(house.one_outside()[34..36].to_vec());
    }
    assert_eq!(ports.len(), 1);
}

#[test]
fn a_published_port_leads_to_its_container_and_leads_there_no_more_once_it_is_taken_back() {
    let mut house = House::met(|_| {});
    let syn = coming(FAR, OURS).tcp((5000, 8080), SYN, &[], b"");
    assert_eq!(house.arrive(&syn), drop(DropReason::Filtered));
    publish(&mut house, forward());
    assert_eq!(house.arrive(&syn), Verdict::Reply);
    assert_eq!(house.one_inside(), (PORT_B, come(FAR, B).tcp((5000, 80), SYN, &[], b"")));
    house.send(PORT_B, &leaving(B, FAR).tcp((80, 5000), SYN | ACK, &[], b""));
    assert_eq!(house.one_outside(), left(OURS, FAR).tcp((8080, 5000), SYN | ACK, &[], b""));
    house.arrive(&coming(FAR, OURS).tcp((5000, 8080), ACK, &[], b"hello"));
    assert_eq!(house.one_inside().1, come(FAR, B).tcp((5000, 80), ACK, &[], b"hello"));
    let nat = house.network.conntrack().expect("a packet uplink").clone();
    assert_eq!(nat.sessions(house.now)[0].reason, Reason::Forward);
    assert!(nat.unpublish(&forward(), house.now));
    assert_eq!(house.sessions(), 0, "and the connection with it");
    assert_eq!(house.arrive(&coming(FAR, OURS).tcp((5000, 8080), ACK, &[], b"more")), drop(DropReason::NoSuchSession));
    assert_eq!(house.arrive(&syn), drop(DropReason::Filtered));
    house.nothing_came();
}

#[test]
fn nu_5_containers_reach_a_published_port_by_our_outside_address_and_see_outside_addresses() {
    let mut house = House::met(|_| {});
    publish(&mut house, forward());
    for (port, src) in [(PORT_A, A), (PORT_B, B)] {
        for _ in 0..2 {
            house.send(port, &leaving(src, OURS).tcp((4000, 8080), SYN, &[], b""));
            let (to, frame) = house.one_inside();
            let outer = u16::from_be_bytes([frame[34], frame[35]]);
            assert_eq!((to, frame), (PORT_B, come(OURS, B).tcp((outer, 80), SYN, &[], b"")), "from {src}");
            house.send(PORT_B, &leaving(B, OURS).tcp((80, outer), SYN | ACK, &[], b""));
            let expected = come(OURS, src).tcp((8080, 4000), SYN | ACK, &[], b"");
            assert_eq!(house.one_inside(), (port, expected), "to {src}");
        }
    }
    assert!(house.take_outside().is_empty(), "nothing of it leaves");
    // A ping of our outside address is answered here.
    house.send(PORT_A, &leaving(A, OURS).ping(7700, b"you there"));
    assert_eq!(house.one_inside(), (PORT_A, come(OURS, A).ttl(64).pong(7700, b"you there")));
}

#[test]
fn ni_4_errors_find_back_through_a_hairpin() {
    let mut house = House::met(|_| {});
    publish(&mut house, forward());
    let sent = leaving(A, OURS).tcp((4000, 8080), SYN, &[], b"");
    house.send(PORT_A, &sent);
    let seen = house.one_inside().1;
    house.send(PORT_B, &leaving(B, OURS).error((3, 3), 0, &seen, 8));
    let (port, frame) = house.one_inside();
    assert_eq!((port, icmp_type(&frame)), (PORT_A, Some((3, 3))));
    assert_eq!(frame[26..34], [OURS.octets(), A.octets()].concat(), "B stays hidden");
    assert_eq!(frame[54..70], sent[26..42], "as A sent it");
    assert_eq!(house.sessions(), 1);
}

#[test]
fn a_network_of_isolated_containers_has_no_hairpins() {
    let mut house = House::met(|told| told.network.isolate = true);
    publish(&mut house, forward());
    let frame = leaving(A, OURS).tcp((4000, 8080), SYN, &[], b"");
    assert_eq!(house.send(PORT_A, &frame), drop(DropReason::Filtered));
    assert_eq!(icmp_type(&house.one_inside().1), Some((3, 13)));
}

#[test]
fn lm_2_x_1_who_is_above_its_quota_is_told_so_and_nobody_else_is_harmed() {
    let mut house = House::met(|told| told.packet.nat.limits.owner_sessions = 3);
    for port in 4000..4003 {
        assert_eq!(house.send(PORT_A, &leaving(A, FAR).udp((port, 53), b"question")), Verdict::Relay);
    }
    house.take_outside();
    let frame = leaving(A, FAR).udp((4003, 53), b"question");
    for _ in 0..100 {
        assert_eq!(house.send(PORT_A, &frame), drop(DropReason::SessionLimit));
    }
    let told = house.take_inside();
    assert_eq!(told.len(), 50, "a hundred refusals, and fifty errors at once at most");
    assert!(told.iter().all(|(port, _, frame)| (*port, icmp_type(frame)) == (PORT_A, Some((3, 13)))));
    // What exists was not touched, and B has its own quota.
    house.arrive(&coming(FAR, OURS).udp(BACK, b"answer"));
    assert_eq!(house.one_inside().0, PORT_A);
    assert_eq!(house.send(PORT_B, &leaving(B, FAR).udp((4003, 53), b"question")), Verdict::Relay);
    assert_eq!(house.sessions(), 4);
    let counters = house.network.counters(PORT_A).expect("an attached port");
    assert_eq!(counters.drops.get(DropReason::SessionLimit), 100);
}

#[test]
fn lm_1_new_sessions_are_limited_in_their_rate() {
    let mut house = House::met(|told| told.packet.nat.limits.owner_rate = 10);
    let begin = |house: &mut House, ports: std::ops::Range<u16>| {
        let sent = ports.filter(|port| house.send(PORT_A, &leaving(A, FAR).udp((*port, 53), b"")) == Verdict::Relay);
        sent.count()
    };
    assert_eq!(begin(&mut house, 4000..4100), 10);
    house.pass(seconds(1));
    assert_eq!(begin(&mut house, 4100..4200), 10);
}

#[test]
fn a_container_that_leaves_ends_its_sessions_and_its_forwards() {
    let mut house = House::met(|_| {});
    publish(&mut house, forward());
    house.arrive(&coming(FAR, OURS).tcp((5000, 8080), SYN, &[], b""));
    house.send(PORT_B, &leaving(B, FAR).udp((4001, 53), b"question"));
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    assert_eq!(house.sessions(), 3);
    house.take_inside();
    house.take_outside();
    house.network.remove_port(PORT_B, Some(B), house.now, &mut |_| {});
    assert_eq!(house.sessions(), 1);
    assert_eq!(house.arrive(&coming(FAR, OURS).udp((53, 4001), b"answer")), drop(DropReason::Filtered));
    assert_eq!(house.arrive(&coming(FAR, OURS).tcp((5000, 8080), SYN, &[], b"")), drop(DropReason::Filtered));
    house.arrive(&coming(FAR, OURS).udp(BACK, b"answer"));
    assert_eq!(house.one_inside().0, PORT_A, "the other one's go on");
}

#[test]
fn without_translation_addresses_stay_and_the_outside_must_be_asked_for() {
    let mut house = House::met(|told| told.packet.nat.translate = false);
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    assert_eq!(house.one_outside(), left(A, FAR).udp(OUT, b"question"));
    house.arrive(&coming(FAR, A).udp(BACK, b"answer"));
    assert_eq!(house.one_inside(), (PORT_A, come(FAR, A).udp(BACK, b"answer")));
    assert_eq!(house.arrive(&coming(OTHER, A).udp(BACK, b"hello")), drop(DropReason::Filtered));
    let mut house = House::met(|told| {
        told.packet.nat.translate = false;
        told.packet.nat.filtering = Dependence::EndpointIndependent;
    });
    house.arrive(&coming(OTHER, A).udp(BACK, b"hello"));
    assert_eq!(house.one_inside(), (PORT_A, come(OTHER, A).udp(BACK, b"hello")));
    house.send(PORT_A, &leaving(A, OTHER).udp(OUT, b"yes?"));
    assert_eq!(house.one_outside(), left(A, OTHER).udp(OUT, b"yes?"));
}

#[test]
fn other_routers_of_the_uplinks_lan_are_used_for_what_lies_behind_them() {
    let second = Ipv4Addr::new(192, 0, 2, 2);
    let mut house = House::met(|told| {
        let route = |net: &str, hop| (net.parse().expect("a net"), hop);
        let third = Ipv4Addr::new(192, 0, 2, 3);
        told.packet.routes = vec![route("198.51.0.0/16", third), route("198.51.100.8/32", second)];
        told.packet.routes.push(route("198.51.100.0/24", ROUTER));
    });
    house.arrive(&who_has(OURS, second));
    house.wires.outside.clear();
    for (dst, hop) in [(FAR, ROUTER), (OTHER, second), (ROUTER, ROUTER)] {
        house.send(PORT_A, &leaving(A, dst).udp(OUT, b"question"));
        let mut expected = left(OURS, dst).udp(OUT, b"question");
        expected[..6].copy_from_slice(&mac(hop).0);
        assert_eq!(house.one_outside(), expected, "to {dst}");
    }
}

#[test]
fn two_networks_that_are_peers_are_routed_without_translation_both_ways() {
    let far_a = Ipv4Addr::new(10, 1, 0, 2);
    let far_gateway = Ipv4Addr::new(10, 1, 0, 1);
    let peer = |subnet: &str, network, mtu| nat::Peer { subnet: subnet.parse().expect("a net"), network, mtu };
    let mut here = House::met(|told| told.network.peers = vec![peer("10.1.0.0/24", 1, 1280)]);
    let mut there = House::new(|told| {
        told.network.subnet = "10.1.0.0/24".parse().expect("a subnet");
        told.network.gateway = far_gateway;
        told.network.mtu = 1280;
        told.network.peers = vec![peer("10.0.0.0/24", 0, 1500)];
    });
    there.send(PORT_A, &who_has(far_gateway, far_a));
    there.wires.inside.clear();
    let carry = |from: &mut House, to: &mut House, network: usize| {
        assert!(from.network.is_busy(), "somebody is to carry it");
        for mut crossing in from.network.take_crossing() {
            assert_eq!(crossing.network, network);
            to.network.cross(&mut crossing, to.now, &mut to.wires);
        }
        assert!(!from.network.is_busy());
    };
    for _ in 0..2 {
        assert_eq!(here.send(PORT_A, &leaving(A, far_a).udp(OUT, b"question")), Verdict::Relay);
        carry(&mut here, &mut there, 1);
        let mut expected = come(A, far_a).udp(OUT, b"question");
        expected[6..12].copy_from_slice(&mac(far_gateway).0);
        assert_eq!(there.one_inside(), (PORT_A, expected));
        let mut answer = leaving(far_a, A).udp(BACK, b"answer");
        answer[..6].copy_from_slice(&mac(far_gateway).0);
        assert_eq!(there.send(PORT_A, &answer), Verdict::Relay);
        carry(&mut there, &mut here, 0);
        assert_eq!(here.one_inside(), (PORT_A, come(far_a, A).udp(BACK, b"answer")));
    }
    assert_eq!((here.sessions(), there.sessions()), (0, 0));
    here.send(PORT_A, &leaving(A, far_a).udp(OUT, &[0; 1253]));
    assert_eq!(icmp_type(&here.one_inside().1), Some((3, 4)));
    assert!(!here.network.is_busy());
    // What may be fragmented is, by the other network's gateway.
    assert_eq!(here.send(PORT_A, &leaving(A, far_a).id(7).udp(OUT, &[5; 1253])), Verdict::Relay);
    carry(&mut here, &mut there, 1);
    let pieces: Vec<_> = there.take_inside().into_iter().map(|(_, _, frame)| frame.len()).collect();
    assert_eq!(pieces, [14 + 20 + 1256, 14 + 20 + 5]);
    // Who is not there is not asked for by the peer for ever.
    here.send(PORT_A, &leaving(A, Ipv4Addr::new(10, 1, 0, 9)).udp(OUT, b"question"));
    carry(&mut here, &mut there, 1);
    there.pass(seconds(5));
    assert_eq!(there.network.gateway_drops().get(DropReason::NeighbourUnresolved), 1);
    there.nothing_came();
}
