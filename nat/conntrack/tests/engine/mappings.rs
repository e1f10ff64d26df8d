//! Which outside endpoint an inside one gets.

use std::collections::{HashMap, HashSet};

use tapswitch_conntrack::{Config, Dependence, PortChoice, Protocol, Refusal};
use tapswitch_wire::DropReason;

use crate::world::{Inside, OURS, TCP, UDP, World, config, end, forward, inbound, outbound};

/// An echo goes to a host, and not to a port of it.
fn to(protocol: Protocol, host: u32, port: u16) -> (u32, u16) {
    (host, if protocol == Protocol::Icmp { 0 } else { port })
}

#[test]
fn nu_1_nt_1_ni_1_an_inside_endpoint_looks_the_same_to_everybody() {
    let world = World::new(config());
    let mut seen = HashSet::new();
    for protocol in Protocol::ALL {
        for container in [2, 3] {
            let mapped = world.mapped(outbound(protocol, (container, 4000), to(protocol, 1, 80)));
            assert_eq!(mapped.ip, OURS);
            for (host, port) in [(1, 81), (2, 80), (3, 9999), (1, 80)] {
                let again = world.mapped(outbound(protocol, (container, 4000), to(protocol, host, port)));
                assert_eq!(again, mapped, "{protocol} to {host}:{port}");
            }
            assert!(seen.insert((protocol, mapped)), "no other endpoint has it");
            assert_ne!(world.mapped(outbound(protocol, (container, 4001), to(protocol, 1, 80))), mapped);
        }
    }
}

#[test]
fn nu_1_a_mapping_depends_on_what_it_was_told_to_depend() {
    use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    // For each class: whether another port of the same host, and another host, see the same endpoint.
    for (mapping, other_port, other_host) in
        [(EndpointIndependent, true, true), (AddressDependent, true, false), (AddressAndPortDependent, false, false)]
    {
        for protocol in [UDP, TCP] {
            let world = World::new(Config { mapping, ..config() });
            let first = world.mapped(outbound(protocol, (2, 4000), (1, 80)));
            assert_eq!(world.mapped(outbound(protocol, (2, 4000), (1, 81))) == first, other_port, "{mapping}");
            assert_eq!(world.mapped(outbound(protocol, (2, 4000), (2, 80))) == first, other_host, "{mapping}");
            assert_eq!(world.mapped(outbound(protocol, (2, 4000), (1, 80))), first, "{mapping}: it stays");
        }
    }
}

#[test]
fn nu_1_a_mapping_lasts_as_long_as_one_session_uses_it() {
    let mut world = World::new(config());
    let first = world.mapped(outbound(UDP, (2, 4000), (1, 53)));
    for host in 2..20 {
        world.wait(299.0);
        assert_eq!(world.mapped(outbound(UDP, (2, 4000), (host, 53))), first, "after {host} sessions");
    }
    world.wait(302.0);
    assert!(world.is_blank());
}

#[test]
fn nu_2_udp_keeps_parity_and_no_port_is_shared() {
    for ports in [PortChoice::Random, PortChoice::Preserve] {
        let world = World::new(Config { ports, ..config() });
        let mut seen = HashSet::new();
        for container in 2..22 {
            for port in (1000..1060).chain([1, 2, 5004, 5005, 65_535]) {
                let mapped = world.mapped(outbound(UDP, (container, port), (1, 53)));
                assert_eq!(mapped.port & 1, port & 1, "parity");
                assert!(mapped.port >= 1024, "no privileged port");
                assert!(seen.insert(mapped), "{mapped} belongs to another");
            }
        }
    }
}

#[test]
fn a_preserved_port_is_the_inside_one_for_the_first_who_asks() {
    let world = World::new(Config { ports: PortChoice::Preserve, ..config() });
    for protocol in Protocol::ALL {
        assert_eq!(world.mapped(outbound(protocol, (2, 4000), to(protocol, 1, 9))).port, 4000);
        assert_ne!(world.mapped(outbound(protocol, (3, 4000), to(protocol, 1, 9))).port, 4000);
        assert_ne!(world.mapped(outbound(protocol, (2, 80), to(protocol, 1, 9))).port, 80, "below the range");
    }
}

#[test]
fn x2_exhausted_ports_are_refused_and_nothing_degrades() {
    let world = World::new(Config { port_range: 50_000..=50_007, ..config() });
    let mut mapped = HashMap::new();
    // Even ports only: when the even outside ones are gone, odd ones are taken rather than none.
    for port in (4000..4016).step_by(2) {
        mapped.insert(port, world.mapped(outbound(UDP, (2, port), (1, 53))));
    }
    assert_eq!(mapped.values().collect::<HashSet<_>>().len(), 8);
    assert_eq!(mapped.values().filter(|end| end.port % 2 == 0).count(), 4);
    for (container, host) in [(3, 1), (3, 2), (2, 3)] {
        let refused = world.out(outbound(UDP, (container, 5000), (host, 53)));
        assert_eq!(refused, Err(Refusal::Told(DropReason::PortsExhausted)), "no port is shared between endpoints");
    }
    for (port, before) in &mapped {
        for host in [1, 2, 3] {
            assert_eq!(world.mapped(outbound(UDP, (2, *port), (host, 53))), *before, "who has one keeps it");
        }
    }
    assert_eq!(world.nat.usage(3).ports, [0; 3], "what was refused is not paid for");
    assert!(world.out(outbound(TCP, (3, 5000), (1, 80))).is_ok(), "each protocol has ports of its own");
}

#[test]
fn nt_9_two_flows_never_share_a_five_tuple() {
    let mut world = World::new(Config { filtering: Dependence::EndpointIndependent, ..config() });
    world.nat.publish(forward(UDP, 2, 8080, 80), world.now).unwrap();
    world.nat.publish(forward(UDP, 2, 8081, 80), world.now).unwrap();
    // What leaves port 80 leaves by 8080. What comes in by 8081 from the same peer could not be told from it inside.
    assert_eq!(world.mapped(outbound(UDP, (2, 80), (1, 7))), end(OURS, 8080));
    assert_eq!(world.incoming(inbound(UDP, (1, 7), 8081)), Err(Refusal::Silent(DropReason::PortsExhausted)));
    assert!(world.incoming(inbound(UDP, (1, 7), 8080)).is_ok(), "that is the flow itself");
    assert!(world.incoming(inbound(UDP, (1, 8), 8081)).is_ok(), "and that another one");
    // The other way round: the container answers the flow that exists.
    assert!(world.incoming(inbound(UDP, (2, 7), 8081)).is_ok());
    assert_eq!(world.mapped(outbound(UDP, (2, 80), (2, 7))), end(OURS, 8081));
    let views = world.sessions();
    let tuples: HashSet<_> = views.iter().flat_map(|view| [view.original, view.reply]).collect();
    assert_eq!(tuples.len(), 2 * views.len());
    world.wait(301.0);
    assert!(world.nat.is_empty());
}

#[test]
fn nt_9_a_mapping_for_one_peer_only_never_meets_another_of_the_same_endpoint() {
    // Two mappings of one endpoint, and a stranger who comes in by both: inside, the two flows would be one.
    let mapping = Dependence::AddressAndPortDependent;
    let world = World::new(Config { mapping, filtering: Dependence::EndpointIndependent, ..config() });
    let (a, b) = (world.mapped(outbound(UDP, (2, 80), (1, 7))), world.mapped(outbound(UDP, (2, 80), (2, 7))));
    assert_ne!(a, b);
    assert!(world.incoming(inbound(UDP, (3, 7), a.port)).is_ok());
    assert_eq!(world.incoming(inbound(UDP, (3, 7), b.port)), Err(Refusal::Silent(DropReason::PortsExhausted)));
}

#[test]
fn lm_3_a_freed_port_rests_for_others_and_not_for_its_owner() {
    for protocol in [UDP, TCP] {
        let mut world = World::new(Config { port_range: 50_000..=50_000, ..config() });
        world.mapped(outbound(protocol, (2, 4000), (1, 53)));
        world.nat.flush(world.now, |_| true);
        let other = outbound(protocol, (3, 4000), (1, 53));
        let refused = Err(Refusal::Told(DropReason::PortsExhausted));
        assert_eq!(world.out(other), refused);
        assert_eq!(world.mapped(outbound(protocol, (2, 4001), (1, 53))).port, 50_000, "its owner may have it");
        world.nat.flush(world.now, |_| true);
        world.wait(119.0);
        assert_eq!(world.out(other), refused);
        world.wait(1.0);
        assert_eq!(world.mapped(other).port, 50_000);
    }
}

/// Outside ports of so many new TCP mappings, of one container after another.
fn ports(secret: u64, count: u32) -> Vec<u16> {
    let world = World::keyed(config(), secret);
    let tuple = |n: u32| outbound(TCP, (2 + n % 50, 4000 + (n / 50) as u16), (1, 80));
    (0..count).map(|n| world.mapped(tuple(n)).port).collect()
}

#[test]
fn lm_3_at_14_outside_ports_are_hard_to_guess() {
    const COUNT: u32 = 10_000;
    const BUCKETS: usize = 64;
    let drawn = ports(1, COUNT);
    let mut buckets = [0u32; BUCKETS];
    // From 32768 on, as long as there is room.
    drawn.iter().for_each(|port| buckets[usize::from(port - 32_768) * BUCKETS / 32_768] += 1);
    let expected = f64::from(COUNT) / BUCKETS as f64;
    let chi_square: f64 = buckets.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
    // 63 degrees of freedom: beyond 120 once in a hundred thousand draws, below 20 hardly ever.
    assert!((20.0..120.0).contains(&chi_square), "{chi_square}");
    let near = drawn.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 16).count();
    assert!(near < 40, "one in a thousand follows its predecessor closely, not {near} of {COUNT}");
    let other = ports(2, COUNT);
    let same = drawn.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!(same < 10, "{same} ports are the same with another secret");
    assert_eq!(drawn[..100], ports(1, 100), "and all with the same one");
}

#[test]
fn lm_3_translation_can_be_switched_off_for_destinations_and_altogether() {
    let untranslated = vec!["198.51.0.9/32".parse().unwrap()];
    let world = World::new(Config { untranslated, ..config() });
    let tuple = outbound(UDP, (2, 4000), (9, 53));
    assert_eq!(world.out(tuple), Ok(tuple));
    assert_eq!(world.incoming(tuple.reversed()), Ok(tuple.reversed()), "the answer");
    assert_ne!(world.out(outbound(UDP, (2, 4000), (8, 53))).unwrap().src, tuple.src);
    let world = World::new(Config { translate: false, ..config() });
    world.nat.set_outside(None, world.now);
    assert_eq!(world.out(tuple), Ok(tuple));
    assert_eq!(world.incoming(tuple.reversed()), Ok(tuple.reversed()));
    let stranger = outbound(UDP, (2, 4000), (8, 53)).reversed();
    assert_eq!(world.incoming(stranger), Err(Refusal::Silent(DropReason::Filtered)));
    assert_eq!(world.nat.mappings(), 0);
}

#[test]
fn nu_4_a_new_outside_address_ends_what_was_translated_to_the_old_one() {
    let mut world = World::new(config());
    let tuple = outbound(UDP, (2, 4000), (1, 53));
    let before = world.mapped(tuple);
    world.nat.set_outside(Some(crate::world::OURS_LATER), world.now);
    assert!(world.nat.is_empty());
    let after = world.mapped(tuple);
    assert_eq!((before.ip, after.ip), (OURS, crate::world::OURS_LATER));
    world.nat.set_outside(None, world.now);
    let refused = world.send(Inside, 2, &crate::world::Packet::first(tuple)).map(|_| ());
    assert_eq!(refused, Err(Refusal::Told(DropReason::UplinkDown)));
    world.wait(300.0);
    assert!(world.is_blank());
}
