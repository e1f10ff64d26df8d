//! What happens when there is no room.

use tapswitch_relay::Limits;
use tapswitch_wire::{DropReason, PortId};

use crate::world::{HOW, How, OTHER, SERVER, World, at, from, seconds};

const FEW: Limits = Limits { flows: 1_000, flows_per_container: 10, ports: 1_000 };

#[test]
fn lm_4_answered_questions_make_room_and_unanswered_ones_do_not() {
    let mut world = World::limited(FEW);
    for port in 0..10 {
        world.send(from(1_000 + port), (SERVER, 53), b"?");
        if port >= 8 {
            assert_eq!(world.arrive(at(SERVER, 53), b"!").len(), 1);
        }
    }
    let first_answered = world.relay.host().opened[8];
    world.send(from(2_000), (SERVER, 53), b"?");
    assert!(!world.relay.host().sockets.contains_key(&first_answered), "the one that was answered first");
    world.send(from(2_001), (SERVER, 53), b"?");
    assert_eq!((world.sockets(), world.relay.evicted()), (10, 2));
    let refusal = world.put(from(2_002), (SERVER, 53), b"?").expect_err("all others wait");
    assert_eq!((refusal.reason, refusal.unreachable), (DropReason::FlowLimit, Some(13)));
    // What was not used for five seconds may go: the one that was used least recently.
    world.pass(seconds(3));
    world.send(from(1_000), (SERVER, 53), b"again?");
    world.pass(seconds(2));
    world.send(from(2_002), (SERVER, 53), b"?");
    let sources: Vec<_> = world.flows().iter().map(|flow| flow.src.port()).collect();
    assert!(sources.contains(&1_000) && !sources.contains(&1_001), "{sources:?}");
    assert_eq!(world.sockets(), 10);
}

#[test]
fn lm_4_a_container_displaces_nobody_elses_sockets() {
    let mut world = World::limited(FEW);
    let other = How { src: "10.0.0.3:5000".parse().expect("an address"), port: PortId(2), ..HOW };
    world.send(other, (SERVER, 53), b"?");
    world.arrive(at(SERVER, 53), b"!");
    for port in 0..100 {
        world.send(from(1_000 + port), (SERVER, 53), b"?");
        world.arrive(at(SERVER, 53), b"!");
    }
    let flows = world.flows();
    assert_eq!(flows.iter().filter(|flow| flow.port == PortId(2)).count(), 1);
    assert_eq!((world.sockets(), world.relay.evicted()), (11, 90));
}

#[test]
fn lm_4_sessions_of_a_container_are_bounded_and_the_oldest_goes() {
    let mut world = World::new();
    for number in 0..16_384u32 {
        world.put(HOW, (SERVER, (number % 60_000) as u16 + 1), b"x").expect("room");
    }
    world.turn();
    assert_eq!(world.flows().len(), 16_384);
    world.pass(seconds(1));
    world.send(HOW, (SERVER, 1), b"x");
    world.send(HOW, (OTHER, 1), b"x");
    let flows = world.flows();
    assert_eq!((flows.len(), world.relay.evicted(), world.sockets()), (16_384, 1, 1));
    assert!(flows.iter().any(|flow| flow.dst == at(SERVER, 1)), "it was used since");
    assert!(!flows.iter().any(|flow| flow.dst == at(SERVER, 2)));
    // Nobody outside displaces what the container has.
    assert_eq!(world.arrive(at(SERVER, 60_001), b"x"), []);
    assert_eq!(world.drops(DropReason::SessionLimit), 1);
}

#[test]
fn a_full_socket_loses_datagrams_by_name_and_each_is_counted() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"x");
    world.relay.host().last().room = 5;
    for _ in 0..20 {
        world.put(HOW, (SERVER, 7), b"hello").expect("a datagram that may pass");
    }
    world.turn();
    assert_eq!(world.sent().len(), 6);
    assert_eq!(world.drops(DropReason::HostBufferFull), 15);
    world.relay.host().last().room = 5;
    world.send(HOW, (SERVER, 7), b"x");
    assert_eq!(world.sent().len(), 7, "and then it goes on");
}

#[test]
fn a_host_that_takes_a_few_at_a_time_gets_all_of_them_once_and_in_order() {
    for most in 1..10 {
        let mut world = World::new();
        world.send(HOW, (SERVER, 7), b"x");
        world.relay.host().last().most = most;
        let sizes = [3, 3, 3, 2, 5, 5, 5, 5, 0, 1];
        for (number, size) in sizes.into_iter().enumerate() {
            world.put(HOW, (SERVER, 7 + (number / 7) as u16), &vec![number as u8; size]).expect("room");
        }
        world.turn();
        let sent: Vec<_> = world.sent().into_iter().skip(1).map(|sent| (sent.to.port(), sent.bytes)).collect();
        let all = sizes.into_iter().enumerate();
        let expected: Vec<_> = all.map(|(number, size)| (7 + (number / 7) as u16, vec![number as u8; size])).collect();
        assert_eq!(sent, expected, "{most} at a time");
    }
}

#[test]
fn what_a_full_socket_lost_is_counted_across_runs() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"x");
    world.relay.host().last().room = 4;
    for (to, count) in [(SERVER, 3), (OTHER, 3), (SERVER, 2)] {
        (0..count).for_each(|_| world.put(HOW, (to, 8), b"hello").expect("a datagram that may pass"));
    }
    world.turn();
    assert_eq!((world.sent().len(), world.drops(DropReason::HostBufferFull)), (5, 4));
}
