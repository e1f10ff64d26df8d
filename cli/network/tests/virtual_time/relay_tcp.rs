//! TCP through the relay: whole, in order, ended and broken as the two sides ended and broke it.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::socket::tcp::State;

use crate::lan::{seconds, weathers};
use crate::outside::{Closed, ECHO, MANUAL, SERVER, SINK, SOURCE, pattern};
use crate::world::{Setup, Talk, World};

const RST: u8 = 0x04;
const FIN: u8 = 0x01;

/// A connection of station 1 to `to`, which sends `data`, and ends then if it is to.
pub fn talk(world: &mut World, to: (Ipv4Addr, u16), data: Vec<u8>, ends: bool) -> Talk {
    let socket = world.station(1).connect(to, 40_000, 65_535);
    Talk::new(1, socket, data, ends)
}

/// Runs until the connection is established.
fn establish(world: &mut World, talk: &mut Talk) {
    world.run(seconds(30), |world| {
        talk.go_on(world);
        talk.state(world) == State::Established
    });
}

/// Nothing is left of any flow once what lingers has lingered.
fn nothing_is_left(world: &mut World) {
    world.pass(seconds(60));
    assert_eq!(world.network.flows(world.now), []);
    assert_eq!((world.network.flow_count(), world.outside().open()), (0, 0));
}

/// Runs `test` on every kind of cable, with offload and without.
fn in_all_weathers(mut test: impl FnMut(&mut World)) {
    let mut injected = 0;
    for offload in [true, false] {
        for (faults, seed) in weathers() {
            let mut world = World::new(Setup { stations: 1, faults, seed, offload, ..Setup::default() });
            test(&mut world);
            injected += world.injected();
        }
    }
    assert!(injected > 50, "the cables were bad: {injected} faults");
}

#[test]
fn tr_6_a_download_arrives_whole_and_ends_on_any_cable() {
    in_all_weathers(|world| {
        let len = 256 << 10;
        world.outside().source_len = len;
        let mut talk = talk(world, (SERVER, SOURCE), Vec::new(), false);
        world.run(seconds(900), |world| {
            talk.go_on(world);
            talk.heard_all(world)
        });
        assert!(talk.received == pattern(len), "{} bytes of {len}", talk.received.len());
        assert_eq!(talk.state(world), State::CloseWait);
        let station = world.station(1);
        station.tcp(talk.socket).close();
        world.run(seconds(100), |world| world.outside().stream().saw_end);
        nothing_is_left(world);
        assert_eq!(world.outside().stream().closed, Some(Closed::Orderly));
    });
}

#[test]
fn tr_6_an_upload_arrives_whole_and_ends_on_any_cable() {
    in_all_weathers(|world| {
        let data = pattern(256 << 10);
        let mut talk = talk(world, (SERVER, SINK), data.clone(), true);
        world.run(seconds(900), |world| {
            talk.go_on(world);
            world.outside().streams.values().any(|stream| stream.saw_end)
        });
        assert!(world.outside().stream().taken == data, "{} bytes", world.outside().stream().taken.len());
        world.run(seconds(100), |world| talk.heard_all(world));
        nothing_is_left(world);
    });
}

#[test]
fn tr_6_both_ways_at_once_arrive_whole_on_any_cable() {
    in_all_weathers(|world| {
        let data = pattern(192 << 10);
        let mut talk = talk(world, (SERVER, ECHO), data.clone(), true);
        world.run(seconds(900), |world| {
            talk.go_on(world);
            talk.heard_all(world)
        });
        assert!(talk.received == data, "{} bytes came back", talk.received.len());
        assert!(world.outside().stream().taken == data);
        nothing_is_left(world);
        assert_eq!(world.outside().stream().closed, Some(Closed::Orderly));
    });
}

#[test]
fn tr_7_super_frames_reach_a_port_with_offload_only_and_are_cut_to_the_segment_size() {
    for offload in [true, false] {
        let mut world = World::new(Setup { stations: 1, offload, ..Setup::default() });
        world.outside().source_len = 100_000;
        let mut talk = talk(&mut world, (SERVER, SOURCE), Vec::new(), false);
        world.run(seconds(10), |world| {
            talk.go_on(world);
            talk.heard_all(world)
        });
        assert_eq!(talk.received.len(), 100_000);
        assert_eq!(world.station(1).super_frames() > 0, offload);
        // smoltcp offers no timestamps unless asked, so a segment has 1460 bytes.
        let longest = world.station(1).frames().map(|frame| frame.payload().len()).max();
        assert_eq!(longest, Some(1_460));
    }
}

#[test]
fn tr_1_connected_in_the_container_means_connected_outside() {
    let mut world = World::one();
    let mut talk = talk(&mut world, (SERVER, MANUAL), Vec::new(), false);
    let begun = world.now;
    world.pass(Duration::from_millis(9));
    assert_eq!(talk.state(&mut world), State::SynSent, "the outside needs ten milliseconds");
    establish(&mut world, &mut talk);
    assert!(world.now - begun >= Duration::from_millis(10));
}

#[test]
fn tr_2_repeated_syns_open_one_connection_outside() {
    // Nothing comes back for a while: the container repeats its SYN, the relay its SYN-ACK.
    let mut world = World::one();
    let mut talk = talk(&mut world, (SERVER, ECHO), b"hello".to_vec(), true);
    world.pass(Duration::from_millis(1));
    world.set_faults(tapswitch_link::fault::Faults { loss: 1.0, ..Default::default() });
    world.pass(seconds(5));
    world.set_faults(Default::default());
    world.run(seconds(60), |world| {
        talk.go_on(world);
        talk.heard_all(world)
    });
    assert_eq!(talk.received, b"hello");
    assert_eq!(world.outside().streams.len(), 1);
    nothing_is_left(&mut world);
}

#[test]
fn tr_2_a_container_that_gives_up_leaves_nothing_and_may_come_again() {
    let mut world = World::one();
    for attempt in 1..=20 {
        let socket = world.station(1).connect((SERVER, MANUAL), 40_000, 4_096);
        // It gives up sooner and later: before the outside has answered, and after.
        world.pass(Duration::from_millis(attempt));
        world.station(1).tcp(socket).abort();
        world.pass(Duration::from_millis(20));
        assert_eq!(world.network.flow_count(), 0, "attempt {attempt}");
        assert_eq!(world.outside().open(), 0, "attempt {attempt}");
        world.station(1).sockets.remove(socket);
    }
    let mut talk = talk(&mut world, (SERVER, ECHO), b"at last".to_vec(), true);
    world.run(seconds(10), |world| {
        talk.go_on(world);
        talk.heard_all(world)
    });
    assert_eq!(talk.received, b"at last");
}

#[test]
fn tr_3_the_container_ends_and_still_receives() {
    in_all_weathers(|world| {
        let mut talk = talk(world, (SERVER, MANUAL), b"that is all".to_vec(), true);
        world.run(seconds(200), |world| {
            talk.go_on(world);
            world.outside().streams.values().any(|stream| stream.saw_end)
        });
        assert_eq!(world.outside().stream().taken, b"that is all");
        let answer = pattern(100_000);
        world.outside().send(&answer);
        world.pass(seconds(3));
        talk.go_on(world);
        assert!(!talk.received.is_empty(), "data flows against the end");
        world.outside().end();
        world.run(seconds(900), |world| {
            talk.go_on(world);
            talk.heard_all(world)
        });
        assert!(talk.received == answer, "{} bytes", talk.received.len());
        nothing_is_left(world);
    });
}

#[test]
fn tr_3_the_outside_ends_and_still_receives() {
    in_all_weathers(|world| {
        let data = pattern(100_000);
        let mut talk = talk(world, (SERVER, MANUAL), Vec::new(), false);
        establish(world, &mut talk);
        world.outside().send(b"that is all");
        world.outside().end();
        world.run(seconds(200), |world| {
            talk.go_on(world);
            talk.heard_all(world)
        });
        assert_eq!(talk.received, b"that is all");
        assert!(!world.outside().stream().saw_end);
        let mut more = Talk::new(1, talk.socket, data.clone(), true);
        world.run(seconds(900), |world| {
            more.go_on(world);
            world.outside().stream().saw_end
        });
        assert!(world.outside().stream().taken == data);
        nothing_is_left(world);
        assert_eq!(world.outside().stream().closed, Some(Closed::Orderly));
    });
}

#[test]
fn tr_4_a_reset_of_the_container_is_one_outside() {
    let mut world = World::one();
    let mut talk = talk(&mut world, (SERVER, MANUAL), Vec::new(), false);
    establish(&mut world, &mut talk);
    world.outside().send(&pattern(500_000));
    talk.reads = false;
    world.pass(seconds(1));
    world.station(1).tcp(talk.socket).abort();
    world.pass(Duration::from_millis(50));
    assert!(world.outside().stream().saw_reset, "with data under way, too");
    assert_eq!(world.outside().stream().closed, Some(Closed::Reset));
    assert_eq!(world.network.flow_count(), 0);
}

#[test]
fn tr_4_a_reset_outside_is_one_in_the_container() {
    for unread in [0, 1_000, 500_000] {
        let mut world = World::one();
        let mut talk = talk(&mut world, (SERVER, MANUAL), Vec::new(), false);
        establish(&mut world, &mut talk);
        talk.reads = false;
        world.outside().send(&pattern(unread));
        world.pass(seconds(1));
        world.outside().reset();
        world.pass(Duration::from_millis(50));
        assert_eq!(talk.state(&mut world), State::Closed, "{unread} bytes unread");
        let flags = world.station(1).tcp_flags();
        assert!(flags.last().is_some_and(|last| last & RST != 0), "{unread} bytes unread: {flags:x?}");
        assert!(flags.iter().all(|flags| flags & FIN == 0), "a reset is no end");
        assert_eq!((world.network.flow_count(), world.outside().open()), (0, 0));
    }
}

#[test]
fn tr_4_a_reset_outside_reaches_the_container_on_a_bad_cable() {
    for seed in 1..=10 {
        let faults = tapswitch_link::fault::Faults { loss: 0.2, ..Default::default() };
        let mut world = World::new(Setup { stations: 1, faults, seed, ..Setup::default() });
        let mut talk = talk(&mut world, (SERVER, MANUAL), Vec::new(), false);
        establish(&mut world, &mut talk);
        world.outside().send(&pattern(50_000));
        world.pass(Duration::from_millis(20));
        world.outside().reset();
        // A RST that is lost is not repeated; the next word of the container gets another.
        talk = Talk::new(1, talk.socket, pattern(100_000), false);
        world.run(seconds(300), |world| {
            talk.go_on(world);
            talk.state(world) == State::Closed
        });
        assert_eq!((world.network.flow_count(), world.outside().open()), (0, 0), "seed {seed}");
    }
}

#[test]
fn tr_12_a_tuple_may_be_used_again_at_once() {
    let mut world = World::one();
    for round in 0..5u8 {
        let mut talk = talk(&mut world, (SERVER, ECHO), vec![round; 3_000], true);
        world.run(seconds(20), |world| {
            talk.go_on(world);
            talk.heard_all(world)
        });
        assert_eq!(talk.received, vec![round; 3_000]);
        let socket = world.station(1).tcp(talk.socket);
        // The container forgets what TCP would remember for a while.
        if socket.state() != State::Closed {
            assert_eq!(socket.state(), State::TimeWait);
        }
        world.station(1).sockets.remove(talk.socket);
    }
    assert_eq!(world.outside().streams.len(), 5);
    nothing_is_left(&mut world);
}
