//! Flows on which nothing passes end when their time is over, and not before.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::socket::tcp::State;

use crate::lan::{ping, seconds};
use crate::outside::{Closed, ECHO, MANUAL, SERVER, SILENT};
use crate::relay_datagrams::send;
use crate::relay_tcp::talk;
use crate::world::{GATEWAY, World};

/// Checks that the only flow lives for `idle` from now on and then ends.
fn lives_for(world: &mut World, idle: Duration) {
    world.pass(idle - seconds(1));
    assert_eq!(world.network.flow_count(), 1, "a second before {idle:?}: {:?}", world.network.flows(world.now));
    world.pass(seconds(2));
    assert_eq!(world.network.flow_count(), 0, "a second after {idle:?}");
    assert_eq!(world.outside().open(), 0);
}

#[test]
fn tr_10_an_idle_connection_lives_as_long_as_its_container_answers() {
    let mut world = World::one();
    let mut talk = talk(&mut world, (SERVER, MANUAL), b"hello".to_vec(), false);
    world.run(seconds(10), |world| {
        talk.go_on(world);
        world.outside().streams.values().any(|stream| stream.taken == b"hello")
    });
    // It is asked after two hours, and answers.
    world.pass(seconds(10 * 3_600));
    assert_eq!((world.network.flow_count(), talk.state(&mut world)), (1, State::Established));
    assert_eq!(world.outside().stream().closed, None);
    // Once it has forgotten the connection, it says so.
    world.station(1).tcp(talk.socket).abort();
    world.pass(seconds(1));
    assert_eq!(world.network.flow_count(), 0);
    assert_eq!(world.outside().stream().closed, Some(Closed::Reset));
}

#[test]
fn tr_10_keepalives_are_answered_and_keep_the_flow() {
    let mut world = World::one();
    let mut talk = talk(&mut world, (SERVER, MANUAL), b"hello".to_vec(), false);
    world.run(seconds(10), |world| {
        talk.go_on(world);
        talk.state(world) == State::Established
    });
    let socket = world.station(1).tcp(talk.socket);
    socket.set_keep_alive(Some(smoltcp::time::Duration::from_secs(75)));
    socket.set_timeout(Some(smoltcp::time::Duration::from_secs(300)));
    world.pass(seconds(20_000));
    assert_eq!(talk.state(&mut world), State::Established, "each keepalive was answered in time");
    assert_eq!(world.network.flow_count(), 1);
}

#[test]
fn a_udp_flow_ends_after_five_minutes_of_silence_and_traffic_keeps_it() {
    let mut world = World::one();
    let socket = world.station(1).udp(5_000);
    for _ in 0..5 {
        send(&mut world, socket, (SERVER, ECHO), b"still here");
        world.pass(seconds(250));
        assert_eq!(world.network.flow_count(), 1);
    }
    send(&mut world, socket, (SERVER, ECHO), b"still here");
    world.pass(Duration::from_millis(11));
    lives_for(&mut world, seconds(300));
    assert_eq!(world.outside().sockets.len(), 1, "it was one flow all the time");
}

#[test]
fn a_question_to_a_name_server_is_waited_for_twenty_seconds_and_kept_for_three_when_it_is_answered() {
    for (to, idle) in [(GATEWAY, 3), (SERVER, 20), (Ipv4Addr::new(198, 51, 100, 9), 20)] {
        let mut world = World::one();
        let socket = world.station(1).udp(5_000);
        send(&mut world, socket, (to, 53), b"who?");
        world.pass(Duration::from_millis(11));
        lives_for(&mut world, seconds(idle));
    }
}

#[test]
fn ni_1_a_ping_is_waited_for_a_minute() {
    let mut world = World::one();
    assert_eq!(ping(&mut world, SILENT, 1), []);
    // Of the minute, `ping` has waited one second.
    lives_for(&mut world, seconds(59));
}
