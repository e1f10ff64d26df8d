//! How many flows there may be, and what is left of a container that is gone.

use smoltcp::socket::tcp::State;
use tapswitch_relay::Limits;
use tapswitch_wire::{DropReason, PortId};

use crate::lan::seconds;
use crate::outside::{Closed, ECHO, MANUAL, SERVER};
use crate::relay_datagrams::send;
use crate::world::{Setup, Talk, World};

#[test]
fn beyond_its_share_a_container_is_refused_and_others_are_not() {
    let limits = Limits { flows: 100, flows_per_container: 10, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let sockets: Vec<_> =
        (0..15).map(|number| world.station(1).connect((SERVER, MANUAL), 40_000 + number, 4_096)).collect();
    world.pass(seconds(1));
    let states: Vec<_> = sockets.iter().map(|socket| world.station(1).tcp(*socket).state()).collect();
    assert_eq!(states.iter().filter(|state| **state == State::Established).count(), 10, "{states:?}");
    assert_eq!(world.network.flow_count(), 10);
    let counters = world.network.counters(PortId(1)).expect("an attached port");
    assert_eq!(counters.drops.get(DropReason::FlowLimit) % 5, 0, "five are refused, each time they ask");
    assert!(world.station(1).icmp_errors().iter().all(|(kind, code, _)| (*kind, *code) == (3, 13)));
    let other = world.station(2).connect((SERVER, MANUAL), 40_000, 4_096);
    world.pass(seconds(1));
    assert_eq!(world.station(2).tcp(other).state(), State::Established);
    // What exists was not touched, and what ends makes room.
    world.station(1).tcp(sockets[0]).abort();
    world.pass(seconds(30));
    assert_eq!(world.network.flow_count(), 11, "ten of the one and one of the other");
}

#[test]
fn a_full_network_refuses_new_flows_and_keeps_the_old() {
    let limits = Limits { flows: 5, flows_per_container: 5, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    for number in 0..3 {
        let socket = world.station(1).udp(5_000 + number);
        send(&mut world, socket, (SERVER, ECHO), b"one");
    }
    for number in 0..2 {
        world.station(2).connect((SERVER, MANUAL), 30_000 + number, 4_096);
    }
    world.pass(seconds(1));
    let socket = world.station(2).connect((SERVER, ECHO), 40_000, 4_096);
    world.pass(seconds(1));
    assert_ne!(world.station(2).tcp(socket).state(), State::Established);
    assert_eq!(world.network.flow_count(), 5);
    world.pass(seconds(400));
    assert_eq!(world.station(2).tcp(socket).state(), State::Established, "once there is room, it gets in");
}

#[test]
fn tr_4_a_container_that_is_gone_resets_its_flows_and_no_others() {
    let mut world = World::new(Setup::default());
    let mut talks = Vec::new();
    for number in 0..4 {
        let station = 1 + number % 2;
        let socket = world.station(station).connect((SERVER, MANUAL), 40_000 + number as u16, 4_096);
        talks.push(Talk::new(station, socket, b"hello".to_vec(), false));
    }
    let datagrams = world.station(1).udp(5_000);
    send(&mut world, datagrams, (SERVER, ECHO), b"hello");
    world.run(seconds(5), |world| {
        talks.iter_mut().for_each(|talk| talk.go_on(world));
        world.outside().streams.values().filter(|stream| stream.taken == b"hello").count() == 4
    });
    assert_eq!(world.network.flow_count(), 5);
    world.unplug(1);
    world.pass(seconds(1));
    assert_eq!(world.network.flow_count(), 2);
    assert!(world.network.flows(world.now).iter().all(|flow| flow.port == PortId(2)));
    let closed = world.outside().streams.values().filter(|stream| stream.closed == Some(Closed::Reset)).count();
    assert_eq!((closed, world.outside().open()), (2, 2));
    assert_eq!(world.outside().streams.values().filter(|stream| stream.saw_reset).count(), 2);
}
