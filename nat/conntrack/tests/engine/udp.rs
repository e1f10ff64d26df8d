//! Datagrams: timers, filters, hairpins.

use tapswitch_conntrack::{Config, Dependence, Reason, Refusal};
use tapswitch_wire::DropReason;

use crate::world::{
    ACK, Inside, OURS, Outside, Packet, RST, Segment, TCP, UDP, World, config, container, end, hairpin, inbound,
    outbound, remote,
};

const FILTERED: Result<tapswitch_conntrack::Tuple, Refusal> = Err(Refusal::Silent(DropReason::Filtered));

#[test]
fn nu_3_a_session_lasts_five_minutes_and_traffic_in_either_direction_prolongs_it() {
    let mut world = World::new(config());
    let tuple = outbound(UDP, (2, 4000), (1, 53));
    let mapped = world.mapped(tuple);
    let answer = inbound(UDP, (1, 53), mapped.port);
    world.wait(299.0);
    assert!(world.session(tuple).is_some());
    assert_eq!(world.out(tuple).unwrap().src, mapped);
    world.wait(299.0);
    assert_eq!(world.incoming(answer), Ok(outbound(UDP, (2, 4000), (1, 53)).reversed()));
    world.wait(299.0);
    assert!(world.session(tuple).is_some());
    world.wait(2.0);
    assert!(world.is_blank());
    assert_eq!(world.incoming(answer), Err(Refusal::Own), "the port is nobody's");
}

#[test]
fn nu_3_a_session_is_over_when_its_time_is_even_if_nobody_has_looked_at_it_yet() {
    for realm in [Inside, Outside] {
        let mut world = World::new(config());
        let tuple = outbound(UDP, (2, 4000), (1, 53));
        let before = world.through(Inside, &Packet::first(tuple)).unwrap();
        let answer = before.tuple.reversed();
        world.incoming(answer).unwrap();
        world.now = world.now + std::time::Duration::from_secs(301);
        // Another session keeps the next hops known, so that the fast way has all it needs.
        world.incoming(world.out(outbound(UDP, (3, 4000), (1, 53))).unwrap().reversed()).unwrap();
        match realm {
            Outside => assert_eq!(world.incoming(answer), Err(Refusal::Own)),
            Inside => assert!(world.through(Inside, &Packet::first(tuple)).unwrap().way.unwrap().is_new),
        }
    }
}

#[test]
fn nu_3_what_is_filtered_prolongs_nothing() {
    let mut world = World::new(config());
    let mapped = world.mapped(outbound(UDP, (2, 4000), (1, 53)));
    for _ in 0..6 {
        world.wait(50.0);
        assert_eq!(world.incoming(inbound(UDP, (2, 53), mapped.port)), FILTERED);
    }
    world.wait(1.0);
    assert!(world.is_blank());
}

#[test]
fn nu_3_ni_4_icmp_errors_in_either_direction_prolong_nothing() {
    let mut world = World::new(config());
    let sent = world.through(Inside, &Packet::first(outbound(UDP, (2, 4000), (1, 53)))).unwrap();
    let answer = world.through(Outside, &Packet::first(sent.tuple.reversed())).unwrap();
    for _ in 0..6 {
        world.wait(50.0);
        assert!(world.error(Outside, &sent.packet.error(remote(9), 3, 3, 0, 28)).is_ok());
        assert!(world.error(Inside, &answer.packet.error(container(2), 3, 3, 0, 28)).is_ok());
    }
    world.wait(1.0);
    assert!(world.is_blank());
}

#[test]
fn nu_3_a_reset_prolongs_nothing() {
    let mut world = World::new(config());
    let tuple = outbound(TCP, (2, 4000), (1, 80));
    world.mapped(tuple);
    for _ in 0..4 {
        world.wait(60.0);
        let reset = Packet::tcp(tuple, Segment { flags: RST | ACK, seq: 77, ack: 5, len: 0 });
        assert!(world.through(Inside, &reset).is_ok(), "it passes");
    }
    world.wait(1.0);
    assert!(world.is_blank());
}

#[test]
fn nu_5_a_filter_lets_in_what_its_class_says() {
    use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    // Whether another port of the peer, and a stranger, are let in.
    for (filtering, other_port, stranger) in
        [(EndpointIndependent, true, true), (AddressDependent, true, false), (AddressAndPortDependent, false, false)]
    {
        for protocol in [UDP, TCP] {
            for mapping in [EndpointIndependent, AddressDependent, AddressAndPortDependent] {
                let world = World::new(Config { filtering, mapping, ..config() });
                let port = world.mapped(outbound(protocol, (2, 4000), (1, 53))).port;
                for (from, passes) in [((1, 54), other_port), ((2, 53), stranger), ((1, 55), other_port)] {
                    let what = format!("{filtering} filter, {mapping} mapping, from {from:?}");
                    let right = if passes { Ok(outbound(protocol, (2, 4000), from).reversed()) } else { FILTERED };
                    assert_eq!(world.incoming(inbound(protocol, from, port)), right, "{what}");
                    // The filter says the same when asked again, and its answer leaves by the same mapping.
                    assert_eq!(world.incoming(inbound(protocol, from, port)), right, "{what}");
                    if passes {
                        assert_eq!(world.mapped(outbound(protocol, (2, 4000), from)), end(OURS, port), "{what}");
                    }
                }
                let nobody = if port == 65_535 { port - 1 } else { port + 1 };
                assert_eq!(world.incoming(inbound(protocol, (1, 53), nobody)), Err(Refusal::Own), "no mapping");
            }
        }
    }
}

#[test]
fn nu_5_a_hole_closes_when_the_last_session_with_that_peer_ends() {
    let mut world = World::new(config());
    let port = world.mapped(outbound(UDP, (2, 4000), (1, 53))).port;
    world.wait(200.0);
    world.mapped(outbound(UDP, (2, 4000), (2, 53)));
    assert!(world.incoming(inbound(UDP, (1, 1000), port)).is_ok());
    world.wait(150.0);
    assert!(world.incoming(inbound(UDP, (1, 53), port)).is_ok(), "by the hole that port 1000 holds open");
    world.nat.flush(world.now, |view| view.original.dst.ip == remote(1) || view.original.src.ip == remote(1));
    assert_eq!(world.incoming(inbound(UDP, (1, 53), port)), FILTERED);
    assert!(world.incoming(inbound(UDP, (2, 99), port)).is_ok());
}

#[test]
fn nu_5_nt_1_containers_reach_each_other_by_outside_endpoints_and_see_only_those() {
    for protocol in [UDP, TCP] {
        for filtering in [Dependence::EndpointIndependent, Dependence::AddressAndPortDependent] {
            let world = World::new(Config { filtering, ..config() });
            let a = world.mapped(outbound(protocol, (2, 4000), (1, 53)));
            let b = world.mapped(outbound(protocol, (3, 5000), (1, 53)));
            let sent = world.through(Inside, &Packet::first(hairpin(protocol, (2, 4000), b.port))).unwrap();
            assert_eq!(sent.egress, Inside);
            assert_eq!((sent.tuple.src, sent.tuple.dst), (a, end(container(3), 5000)));
            // The answer goes to the outside endpoint, and comes from the one that was asked.
            let answer = world.through(Inside, &Packet::first(sent.tuple.reversed())).unwrap();
            assert_eq!(answer.egress, Inside);
            assert_eq!((answer.tuple.src, answer.tuple.dst), (b, end(container(2), 4000)));
            assert_eq!(world.session(hairpin(protocol, (2, 4000), b.port)).unwrap().reason, Reason::Hairpin);
        }
    }
}

#[test]
fn nu_5_a_container_reaches_itself_by_its_own_outside_endpoint() {
    let world = World::new(config());
    for protocol in [UDP, TCP] {
        let own = world.mapped(outbound(protocol, (2, 4000), (1, 53)));
        // From another port of its own, and from the very port.
        for port in [4001, 4000] {
            let sent = world.through(Inside, &Packet::first(hairpin(protocol, (2, port), own.port))).unwrap();
            assert_eq!((sent.egress, sent.tuple.dst), (Inside, end(container(2), 4000)));
            assert_eq!(sent.tuple.src.ip, OURS, "from an outside endpoint");
            assert_eq!(sent.tuple.src == own, port == 4000);
        }
    }
}

#[test]
fn nu_5_a_hairpin_keeps_the_mappings_of_both_its_ends() {
    let mut world = World::new(config());
    let b = world.mapped(outbound(UDP, (3, 5000), (1, 53)));
    let there = hairpin(UDP, (2, 4000), b.port);
    let (mut back, mut a) = (None, None);
    for _ in 0..4 {
        let arrived = world.out(there).unwrap();
        assert_eq!(*a.get_or_insert(arrived.src), arrived.src);
        assert_eq!(*back.get_or_insert(world.out(arrived.reversed()).unwrap()), there.reversed());
        world.wait(200.0);
    }
    // The session with the outside host is long gone, and still the endpoint that the other one talks to is the same.
    assert_eq!(world.sessions().len(), 1);
    assert_eq!(world.mapped(outbound(UDP, (3, 5000), (9, 53))), b);
    world.wait(301.0);
    assert!(world.is_blank());
}

#[test]
fn nu_5_without_hairpins_the_sender_is_told() {
    let world = World::new(Config { hairpin: false, ..config() });
    let b = world.mapped(outbound(UDP, (3, 5000), (1, 53)));
    assert_eq!(world.out(hairpin(UDP, (2, 4000), b.port)), Err(Refusal::Told(DropReason::Filtered)));
    assert_eq!(world.nat.usage(2).ports, [0; 3]);
}

#[test]
fn nu_6_at_10_payloads_stay_as_they_are_and_open_nothing() {
    let world = World::new(config());
    let text =
        |port: u16| format!("REGISTER sip:x SIP/2.0\r\nContact: <sip:10.0.0.2:{port}>\r\nPORT 10,0,0,2,15,161\r\n");
    for (protocol, port) in [(UDP, 5060), (TCP, 21), (TCP, 1720), (TCP, 6667)] {
        let tuple = outbound(protocol, (2, 4000), (1, port));
        let payload = text(4001);
        let packet = match protocol {
            TCP => {
                world.mapped(tuple);
                let mut packet = Packet::tcp(tuple, Segment { flags: ACK, seq: 1001, ack: 1, len: payload.len() });
                let start = packet.bytes.len() - payload.len();
                packet.bytes[start..].copy_from_slice(payload.as_bytes());
                packet
            }
            _ => Packet::udp(tuple, payload.as_bytes()),
        };
        let sent = world.through(Inside, &packet).unwrap();
        assert_eq!(sent.packet.payload(), payload.as_bytes());
    }
    // One mapping for each protocol, and nobody comes in by the port that the text names.
    assert_eq!(world.nat.mappings(), 2);
    assert_eq!(world.incoming(inbound(UDP, (1, 5060), 4001)), Err(Refusal::Own));
}

#[test]
fn nu_12_datagrams_of_any_length_pass_and_port_zero_does_not() {
    let world = World::new(config());
    for len in [0, 1, 1472] {
        let packet = Packet::udp(outbound(UDP, (2, 4000), (1, 53)), &vec![7; len]);
        assert_eq!(world.through(Inside, &packet).unwrap().packet.payload().len(), len);
    }
    for tuple in [outbound(UDP, (2, 0), (1, 53)), outbound(UDP, (2, 4000), (1, 0)), outbound(TCP, (2, 0), (1, 80))] {
        assert_eq!(world.out(tuple), Err(Refusal::Silent(DropReason::TransportMalformed)));
    }
}
