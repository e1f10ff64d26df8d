//! What a container, or somebody outside, might try against another.

use std::collections::HashSet;

use tapswitch_conntrack::{Config, Dependence, PortChoice, Refusal, Tuple};
use tapswitch_wire::DropReason;

use crate::world::{
    ICMP, OURS, Outside, Packet, RST, Segment, TCP, UDP, World, config, container, end, forward, hairpin, inbound,
    outbound, remote,
};

const INSIDE: Result<Tuple, Refusal> = Err(Refusal::Silent(DropReason::InsideFromOutside));

#[test]
fn at_7_inside_addresses_from_outside_are_dropped() {
    for filtering in [Dependence::EndpointIndependent, Dependence::AddressDependent] {
        let world = World::new(Config { filtering, ..config() });
        world.nat.publish(forward(UDP, 2, 8080, 80), world.now).unwrap();
        let mapped = world.mapped(outbound(UDP, (2, 4000), (1, 53)));
        let tuple = |src, dst| Tuple { protocol: UDP, src, dst };
        // To a container's own address: even the very answer, which would be right if it were translated back.
        for port in [80, 4000, 1] {
            assert_eq!(world.incoming(tuple(end(remote(1), 53), end(container(2), port))), INSIDE);
        }
        // In a container's name.
        for dst in [mapped, end(OURS, 8080), end(container(2), 4000)] {
            assert_eq!(world.incoming(tuple(end(container(3), 53), dst)), INSIDE, "to {dst}");
        }
        // In our own name, with and without hairpins that look like it.
        for _ in 0..2 {
            for port in [mapped.port, 8080] {
                for dst in [mapped, end(OURS, 8080)] {
                    assert_eq!(world.incoming(tuple(end(OURS, port ^ 1), dst)), INSIDE, "from port {port} to {dst}");
                    assert_eq!(world.incoming(tuple(end(OURS, port), dst)), INSIDE, "from port {port} to {dst}");
                }
            }
            world.out(hairpin(UDP, (2, 4000), 8080)).unwrap();
        }
        assert_eq!(
            world.incoming(tuple(end(remote(1), 1), end(remote(2), 1))),
            Err(Refusal::Silent(DropReason::Filtered))
        );
    }
}

#[test]
fn at_7_an_error_from_outside_comes_from_no_address_inside() {
    let world = World::new(config());
    let sent = world.through(crate::world::Inside, &Packet::first(outbound(UDP, (2, 4000), (1, 53)))).unwrap();
    for from in [container(3), container(2), OURS] {
        let error = sent.packet.error(from, 3, 3, 0, 28);
        assert_eq!(world.error(Outside, &error).map(|_| ()), Err(DropReason::InsideFromOutside), "{from}");
    }
}

#[test]
fn at_14_at_15_nobody_gets_a_port_that_is_anothers() {
    let mut world = World::new(Config { ports: PortChoice::Preserve, ..config() });
    world.nat.publish(forward(TCP, 2, 8080, 80), world.now).unwrap();
    let victim = world.mapped(outbound(TCP, (2, 4000), (1, 80)));
    assert_eq!(victim.port, 4000);
    let answer = inbound(TCP, (1, 80), 4000);
    // The attacker asks for the victim's port towards the victim's peer, for the published one, and for all others.
    let mut got = HashSet::new();
    for port in (3_900..4_100).chain([8080, 80, 65_535]) {
        got.insert(world.mapped(outbound(TCP, (66, port), (1, 80))).port);
    }
    assert_eq!(got.len(), 203);
    assert!(got.is_disjoint(&HashSet::from([4000, 8080])));
    assert_eq!(world.incoming(answer).map(|tuple| tuple.dst), Ok(end(container(2), 4000)));
    assert_eq!(world.incoming(inbound(TCP, (1, 80), 8080)).map(|tuple| tuple.dst), Ok(end(container(2), 80)));
    // It makes the peer reset the victim's connection, waits until that is over, and asks again.
    let reset = Packet::tcp(answer, Segment { flags: RST, seq: 0, ack: 0, len: 0 });
    world.through(Outside, &reset).unwrap();
    world.nat.flush(world.now, |view| view.owner == 2);
    world.wait(119.0);
    for port in [4000, 4002, 4004] {
        world.nat.flush(world.now, |view| view.owner == 66 && view.original.src.port == port);
        assert_ne!(world.mapped(outbound(TCP, (66, port), (1, 80))).port, 4000, "the port rests");
    }
    // The victim has it again in that time.
    assert_eq!(world.mapped(outbound(TCP, (2, 4000), (1, 80))).port, 4000);
}

#[test]
fn at_15_a_hairpin_gets_nobody_anothers_packets() {
    let world = World::new(config());
    let victim = world.mapped(outbound(UDP, (2, 4000), (1, 53)));
    // The attacker's packets reach the victim from an outside endpoint of the attacker's own.
    let arrived = world.out(hairpin(UDP, (66, 53), victim.port)).unwrap();
    assert_eq!(arrived.dst, end(container(2), 4000));
    assert_ne!(arrived.src, victim);
    // The peer's go to the victim as before, and the victim's to the peer.
    assert_eq!(world.incoming(inbound(UDP, (1, 53), victim.port)).map(|tuple| tuple.dst), Ok(end(container(2), 4000)));
    assert_eq!(world.mapped(outbound(UDP, (2, 4000), (1, 53))), victim);
}

#[test]
fn ni_1_echoes_and_datagrams_of_one_number_are_not_confused() {
    let world = World::new(Config { ports: PortChoice::Preserve, ..config() });
    assert_eq!(world.mapped(outbound(UDP, (2, 4000), (1, 53))).port, 4000);
    assert_eq!(world.mapped(outbound(TCP, (3, 4000), (1, 53))).port, 4000);
    assert_eq!(world.mapped(outbound(ICMP, (4, 4000), (1, 0))).port, 4000);
    assert_eq!(world.incoming(inbound(UDP, (1, 53), 4000)).map(|tuple| tuple.dst.ip), Ok(container(2)));
    assert_eq!(world.incoming(inbound(TCP, (1, 53), 4000)).map(|tuple| tuple.dst.ip), Ok(container(3)));
    let reply = Tuple { protocol: ICMP, src: end(remote(1), 0), dst: end(OURS, 4000) };
    assert_eq!(world.incoming(reply).map(|tuple| tuple.dst.ip), Ok(container(4)));
}
