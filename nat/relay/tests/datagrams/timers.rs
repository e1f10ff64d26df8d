//! Sessions end when their time is over, and not before; a socket ends with its last session.

use std::time::Duration;

use crate::world::{GATEWAY, HOW, OTHER, RESOLVER, SERVER, World, at, from, seconds};

/// Checks that everything lives for `idle` from now on, and then ends.
#[track_caller]
fn lives_for(world: &mut World, idle: u64) {
    world.pass(seconds(idle) - Duration::from_millis(1));
    assert_eq!(world.sockets(), 1, "just before {idle} s");
    world.pass(Duration::from_millis(1));
    assert_eq!((world.sockets(), world.flows().len()), (0, 0), "after {idle} s");
    assert_eq!(world.relay.deadline(), None, "there is nothing to wake up for");
}

#[test]
fn nu_3_a_udp_session_lives_for_five_minutes_behind_traffic_in_either_direction() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"hello");
    lives_for(&mut world, 300);
    world.send(HOW, (SERVER, 7), b"hello");
    world.pass(seconds(200));
    world.arrive(at(SERVER, 7), b"hello");
    world.pass(seconds(200));
    world.send(HOW, (SERVER, 7), b"hello");
    lives_for(&mut world, 300);
}

#[test]
fn a_question_that_is_answered_is_kept_for_three_seconds() {
    for (to, answers_from, idle) in [
        ((GATEWAY, 53), RESOLVER.parse().expect("an address"), 20),
        ((SERVER, 53), at(SERVER, 53), 20),
        ((SERVER, 123), at(SERVER, 123), 30),
    ] {
        let mut world = World::new();
        world.send(HOW, to, b"who?");
        lives_for(&mut world, idle);
        world.send(HOW, to, b"who?");
        world.pass(seconds(5));
        assert_eq!(world.arrive(answers_from, b"he").len(), 1);
        assert_eq!(world.flows()[0].state, "answered");
        lives_for(&mut world, 3);
        // Two questions have two answers.
        world.send(HOW, to, b"who?");
        world.send(HOW, to, b"and who else?");
        assert_eq!(world.arrive(answers_from, b"he").len(), 1);
        world.pass(seconds(10));
        assert_eq!(world.arrive(answers_from, b"she").len(), 1, "the second one is still waited for");
        lives_for(&mut world, 3);
    }
}

#[test]
fn ni_1_a_ping_is_waited_for_a_minute_and_a_socket_lives_as_long_as_one_session() {
    let mut world = World::new();
    world.ping(7, 1, SERVER, b"").expect("a ping that may pass");
    world.turn();
    world.pass(seconds(30));
    world.ping(7, 2, OTHER, b"").expect("a ping that may pass");
    world.turn();
    world.pass(seconds(30));
    assert_eq!((world.sockets(), world.flows().len()), (1, 1));
    lives_for(&mut world, 30);
}

#[test]
fn a_burst_of_questions_from_ten_thousand_ports_is_gone_with_its_timer() {
    let mut world = World::new();
    for port in 10_000..20_000 {
        world.put(from(port), (SERVER, if port % 2 == 0 { 53 } else { 123 }), b"?").expect("room");
    }
    world.turn();
    assert_eq!(world.sockets(), 10_000);
    world.pass(seconds(20));
    assert_eq!(world.sockets(), 5_000);
    world.pass(seconds(10));
    assert_eq!(world.sockets(), 0);
}
