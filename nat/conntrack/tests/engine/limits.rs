//! What each owner may use, and that nobody else pays for it.

use tapswitch_conntrack::{Config, Dependence, Limits, PortChoice, Protocol, Refusal, Tuple};
use tapswitch_wire::DropReason;

use crate::world::{Inside, OURS, Outside, Packet, TCP, UDP, World, config, end, forward, inbound, outbound};

fn limited(limits: Limits) -> World {
    World::new(Config { limits, ..config() })
}

const TOLD: fn(DropReason) -> Result<Tuple, Refusal> = |reason| Err(Refusal::Told(reason));

/// Sessions that were there before stay as they were, and work.
fn unharmed(world: &World, tuples: &[Tuple]) {
    for tuple in tuples {
        let before = world.session(*tuple).unwrap_or_else(|| panic!("{tuple} is gone"));
        assert!(world.out(*tuple).is_ok());
        assert_eq!(world.session(*tuple).unwrap().id, before.id);
    }
}

#[test]
fn lm_1_lm_2_sessions_of_one_owner_are_limited_and_its_others_stay() {
    for protocol in Protocol::ALL {
        let mut world = limited(Limits { owner_sessions: 3, ..Limits::default() });
        let port = if protocol == Protocol::Icmp { 0 } else { 80 };
        let tuple = |container: u32, host: u32| outbound(protocol, (container, 4000), (host, port));
        let held: Vec<_> = (1..=3).map(|host| tuple(2, host)).collect();
        held.iter().for_each(|tuple| assert!(world.out(*tuple).is_ok()));
        for host in 4..50 {
            assert_eq!(world.out(tuple(2, host)), TOLD(DropReason::SessionLimit));
        }
        unharmed(&world, &held);
        assert!(world.out(tuple(3, 1)).is_ok(), "another container is not concerned");
        assert_eq!(world.nat.usage(2).sessions, 3);
        assert_eq!(world.nat.usage(2).ports[protocol as usize], 1);
        world.nat.flush(world.now, |view| view.original == held[0]);
        assert!(world.out(tuple(2, 9)).is_ok(), "one that ended makes room");
        world.wait(301.0);
        assert!(world.is_blank());
    }
}

#[test]
fn lm_1_new_sessions_of_one_owner_are_limited_by_the_second() {
    let mut world = limited(Limits { owner_rate: 10, ..Limits::default() });
    let begin = |world: &World, container: u32, from: u16, count: u16| {
        let tuple = |n: u16| outbound(UDP, (container, 4000), (1, from + n));
        (0..count).filter(|n| world.out(tuple(*n)).is_ok()).count()
    };
    assert_eq!(begin(&world, 2, 1, 100), 10, "ten at once");
    assert_eq!(world.out(outbound(UDP, (2, 4000), (9, 9))), TOLD(DropReason::SessionRate));
    assert_eq!(begin(&world, 2, 1, 10), 10, "those that exist are not new");
    assert_eq!(begin(&world, 3, 1, 10), 10, "another container is not concerned");
    world.wait(0.5);
    assert_eq!(begin(&world, 2, 1000, 100), 5, "five in half a second");
    world.wait(60.0);
    assert_eq!(begin(&world, 2, 2000, 100), 10, "no more can be saved up");
    assert_eq!(world.nat.usage(2).sessions, 25);
    assert_eq!(world.nat.mappings(), 2, "what was refused left no mapping");
}

#[test]
fn lm_1_outside_ports_of_one_owner_are_limited_for_each_protocol() {
    for protocol in [UDP, TCP] {
        let world = limited(Limits { owner_ports: 3, ..Limits::default() });
        let held: Vec<_> = (4000..4003).map(|port| outbound(protocol, (2, port), (1, 80))).collect();
        held.iter().for_each(|tuple| assert!(world.out(*tuple).is_ok()));
        assert_eq!(world.out(outbound(protocol, (2, 4003), (1, 80))), TOLD(DropReason::PortLimit));
        unharmed(&world, &held);
        assert!(world.out(outbound(protocol, (2, 4000), (2, 80))).is_ok(), "by a port that it has");
        let other = if protocol == UDP { TCP } else { UDP };
        assert!(world.out(outbound(other, (2, 4003), (1, 80))).is_ok());
        assert!(world.out(outbound(protocol, (3, 4003), (1, 80))).is_ok());
        assert_eq!(world.nat.usage(2).ports[protocol as usize], 3);
    }
}

#[test]
fn lm_2_a_full_table_refuses_and_evicts_nobody() {
    let mut world = limited(Limits { sessions: 20, ..Limits::default() });
    let held: Vec<_> = (0..20).map(|n| outbound(UDP, (2 + n % 4, 4000), (1 + n, 53))).collect();
    held.iter().for_each(|tuple| assert!(world.out(*tuple).is_ok()));
    let before = world.sessions();
    let (mappings, helpers) = (world.nat.mappings(), world.nat.helpers());
    for n in 0..100 {
        assert_eq!(world.out(outbound(UDP, (9, 1000 + n), (9, 9))), TOLD(DropReason::SessionTableFull));
        let port = world.session(held[0]).unwrap().reply.dst.port;
        let silent = Err(Refusal::Silent(DropReason::SessionTableFull));
        assert_eq!(world.incoming(inbound(UDP, (1, 1000 + n), port)), silent, "the outside is not told");
    }
    assert_eq!(world.sessions(), before);
    assert_eq!(world.nat.mappings(), mappings);
    assert_eq!(world.nat.usage(9), Default::default(), "what was refused is not paid for");
    assert_eq!(world.nat.helpers(), helpers);
    unharmed(&world, &held);
    world.wait(301.0);
    assert!(world.is_blank());
    assert!(world.out(outbound(UDP, (9, 1000), (9, 9))).is_ok());
}

#[test]
fn lm_1_limits_of_nothing_leave_nothing_behind() {
    for limits in [
        Limits { owner_sessions: 0, ..Limits::default() },
        Limits { owner_ports: 0, ..Limits::default() },
        Limits { sessions: 0, ..Limits::default() },
    ] {
        let mut world = limited(limits);
        for container in 2..50 {
            assert!(world.out(outbound(UDP, (container, 4000), (1, 53))).is_err());
        }
        world.wait(2.0);
        assert!(world.is_blank(), "{limits:?}: {:?}", world.nat.helpers());
    }
}

#[test]
fn lm_2_the_outside_cannot_use_up_what_a_container_needs() {
    let limits = Limits { owner_sessions: 10, owner_rate: 10, ..Limits::default() };
    let mut world = World::new(Config { limits, filtering: Dependence::EndpointIndependent, ..config() });
    world.nat.publish(forward(TCP, 2, 8080, 80), world.now).unwrap();
    let port = world.mapped(outbound(UDP, (2, 4000), (1, 53))).port;
    for host in 100..200 {
        let _ = world.incoming(inbound(TCP, (host, 1000), 8080));
        let _ = world.incoming(inbound(UDP, (host, 1000), port));
    }
    assert_eq!(world.incoming(inbound(TCP, (99, 1), 8080)), Err(Refusal::Silent(DropReason::SessionLimit)));
    assert_eq!(world.nat.usage(2).sessions, 1);
    for host in 2..11 {
        assert!(world.out(outbound(UDP, (2, 4001), (host, 53))).is_ok(), "host {host}");
    }
    // The same the other way round.
    assert_eq!(world.out(outbound(UDP, (2, 4001), (90, 53))), TOLD(DropReason::SessionLimit));
    world.nat.flush(world.now, |view| view.from == Outside);
    world.wait(1.0);
    assert!(world.incoming(inbound(TCP, (99, 1), 8080)).is_ok());
}

#[test]
fn lm_2_the_allowance_of_new_sessions_outlives_what_was_flushed() {
    let mut world = limited(Limits { owner_rate: 10, ..Limits::default() });
    for host in 0..10 {
        assert!(world.out(outbound(UDP, (2, 4000), (host, 53))).is_ok());
    }
    world.nat.flush(world.now, |_| true);
    assert_eq!(world.out(outbound(UDP, (2, 4000), (1, 53))), TOLD(DropReason::SessionRate));
    assert_ne!(world.nat.helpers(), (0, 0), "its owner is remembered until the allowance is back");
    world.wait(1.0);
    assert!(world.is_blank());
}

#[test]
fn lm_2_what_was_refused_takes_no_port_from_others() {
    // Ports rest after use. One that a refused packet would have used has not been used.
    for limits in [
        Limits { owner_sessions: 1, ..Limits::default() },
        Limits { owner_rate: 1, ..Limits::default() },
        Limits { sessions: 1, ..Limits::default() },
    ] {
        let mut world = World::new(Config { limits, port_range: 50_000..=50_001, ..config() });
        assert!(world.out(outbound(TCP, (66, 4000), (1, 80))).is_ok());
        for port in 0..100 {
            assert!(world.out(outbound(TCP, (66, 5000 + port), (1, 80))).is_err());
        }
        world.nat.set_outside(None, world.now);
        world.nat.set_outside(Some(OURS), world.now);
        assert!(world.out(outbound(TCP, (3, 4000), (1, 80))).is_ok(), "{limits:?}: one port was never used");
        world.wait(301.0);
        assert!(world.is_blank());
    }
}

#[test]
fn at_8_an_owner_at_its_limits_harms_nobody() {
    let limits = Limits { sessions: 1_000, owner_sessions: 100, ..Limits::default() };
    let mut world = limited(limits);
    let victim = outbound(TCP, (2, 4000), (1, 80));
    world.mapped(victim);
    let mut refused = 0;
    for n in 0..70_000u32 {
        let tuple = outbound(UDP, (66, 1 + (n % 65_000) as u16), (n / 1_000, 9));
        refused += u32::from(world.send(Inside, 66, &Packet::first(tuple)).is_err());
        if n % 1_000 == 0 {
            let tuple = outbound(UDP, (3, 5000), (1 + n / 1_000, 53));
            assert!(world.out(tuple).is_ok(), "a new session of another container");
        }
    }
    assert_eq!(refused, 69_900);
    assert!(world.session(victim).is_some());
    world.wait(301.0);
    assert!(world.is_blank());
    assert_eq!(world.nat.outside(), Some(OURS));
    assert_eq!(world.mapped(victim).ip, end(OURS, 0).ip);
}

#[test]
fn lm_3_at_14_who_gets_the_number_of_a_container_that_has_gone_does_not_get_its_ports() {
    let world = World::new(Config { ports: PortChoice::Preserve, ..config() });
    let first = world.mapped(outbound(UDP, (2, 5001), (1, 53)));
    assert_eq!(first.port, 5001);
    world.nat.remove_owner(2, world.now);
    let heir = world.mapped(outbound(UDP, (2, 5001), (1, 53)));
    assert_ne!(heir.port, 5001, "it rests for everybody");
    assert_ne!(world.nat.free_ports(UDP, 1, world.now), Some(5001));
}
