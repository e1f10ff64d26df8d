//! How connections end.

use std::time::Duration;

use tapswitch_relay::Readiness;

use crate::world::{ACK, FIN, RST, SYN, World, brief, tcp};

#[test]
fn tr_3_the_containers_end_is_passed_on_behind_the_last_byte() {
    let mut world = World::established();
    world.host().room = 3;
    assert_eq!(brief(&world.rx(ACK | FIN, 1, 1, b"hello")), [(ACK, 1, 7, 0)]);
    assert!(!world.host().finished, "two bytes are still held");
    world.room(1);
    assert!(!world.host().finished);
    world.room(1);
    let host = world.host();
    assert_eq!((&host.written[..], host.finished), (&b"hello"[..], true));
    // The other way goes on.
    assert_eq!(brief(&world.incoming(b"answer")), [(ACK, 1, 7, 6)]);
    assert_eq!(world.rx(ACK, 7, 7, b""), []);
    assert_eq!(world.state(), "close-wait");
}

#[test]
fn tr_3_the_hosts_end_is_passed_on_behind_the_last_byte() {
    let mut world = World::established();
    world.host().incoming.extend(b"answer");
    assert_eq!(brief(&world.end()), [(ACK, 1, 1, 6), (FIN | ACK, 7, 1, 0)]);
    assert_eq!(world.rx(ACK, 1, 8, b""), []);
    // The other way goes on.
    world.rx(ACK, 1, 8, b"and then?");
    assert_eq!(world.host().written, b"and then?");
    assert_eq!((world.state(), world.host().finished), ("fin-wait", false));
    assert_eq!(brief(&world.rx(ACK | FIN, 10, 8, b"")), [(ACK, 8, 11, 0)]);
    assert_eq!((world.host().finished, world.host().closed), (true, Some(false)));
}

#[test]
fn tr_3_a_lost_end_is_repeated() {
    let mut world = World::established();
    world.end();
    let sent = world.pass(Duration::from_secs(4));
    assert_eq!(sent.iter().map(|seg| seg.brief()).collect::<Vec<_>>(), [(FIN | ACK, 1, 1, 0); 4], "0.2, 0.6, 1.4, 3 s");
    assert_eq!(world.rx(ACK, 1, 2, b""), []);
    assert_eq!(world.pass(Duration::from_secs(100)), []);
}

#[test]
fn tr_3_an_ended_connection_answers_for_a_while_and_is_forgotten() {
    let mut world = World::established();
    world.end();
    world.rx(ACK | FIN, 1, 2, b"");
    assert_eq!((world.state(), world.host().closed), ("time-wait", Some(false)));
    for _ in 0..3 {
        world.now = world.now + Duration::from_secs(5);
        assert_eq!(brief(&world.rx(ACK | FIN, 1, 2, b"")), [(ACK, 2, 2, 0)], "its FIN came again");
    }
    assert_eq!(world.pass(Duration::from_secs(11)), []);
    assert_eq!(world.relay.len(), 0);
    assert_eq!(world.relay.deadline(), None, "no timer is left");
}

#[test]
fn tr_12_an_ended_tuple_begins_anew_with_a_later_number_and_with_no_other() {
    let mut world = World::established();
    world.end();
    world.rx(ACK | FIN, 1, 2, b"");
    assert_eq!(world.state(), "time-wait");
    // The connection's own SYN, that was long under way.
    assert_eq!(brief(&world.rx(SYN, 0, 0, b"")), [(ACK, 2, 2, 0)]);
    assert_eq!(world.relay.host().opened.len(), 1);
    world.isn = world.isn.wrapping_add(64_000);
    world.iss = 0;
    world.open(&[]);
    assert_eq!(world.relay.host().opened.len(), 2);
    world.rx(ACK, 1, 1, b"hello again");
    assert_eq!(world.host().written, b"hello again");
}

#[test]
fn tr_12_a_later_timestamp_begins_anew_whatever_the_number() {
    let stamp = |value: u8| vec![1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, 0];
    let mut world = World::new();
    world.options = stamp(10);
    world.open(&stamp(10));
    world.end();
    world.rx(ACK | FIN, 1, 2, b"");
    world.isn = world.isn.wrapping_sub(1 << 20);
    world.iss = 0;
    world.options = stamp(11);
    world.open(&stamp(11));
    assert_eq!(world.relay.host().opened.len(), 2);
}

#[test]
fn tr_4_a_reset_goes_through_at_once_with_everything_under_way() {
    // Of the container: with bytes held for the host, and bytes of the host not acknowledged.
    let mut world = World::established();
    world.host().room = 0;
    world.rx(ACK, 1, 1, b"held");
    world.incoming(&[7; 5_000]);
    assert_eq!(world.rx(RST, 5, 0, b""), []);
    assert_eq!((world.relay.len(), world.host().closed, world.host().finished), (0, Some(true), false));

    // Of the outside.
    let mut world = World::established();
    world.host().room = 0;
    world.rx(ACK, 1, 1, b"held");
    world.incoming(&[7; 500]);
    world.host().broken = true;
    let sent = tcp(world.event(Readiness { error: true, readable: true, ..Readiness::default() }));
    assert_eq!(sent.iter().map(|seg| seg.brief()).collect::<Vec<_>>(), [(RST | ACK, 501, 5, 0)]);
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_4_what_came_before_a_reset_outside_is_sent_before_it() {
    let mut world = World::established();
    world.host().incoming.extend([7; 500]);
    world.host().broken = true;
    let sent = tcp(world.event(Readiness { error: true, readable: true, ..Readiness::default() }));
    let brief: Vec<_> = sent.iter().map(|seg| (seg.flags & RST, seg.payload.len())).collect();
    assert_eq!(brief, [(0, 500), (RST, 0)]);
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_4_a_reset_outside_is_noticed_by_writing_and_by_reading() {
    let mut world = World::established();
    world.host().broken = true;
    let sent = tcp(world.rx(ACK, 1, 1, b"hello"));
    assert_eq!(sent.iter().map(|seg| seg.flags).collect::<Vec<_>>(), [RST | ACK]);
    assert_eq!(world.relay.len(), 0);

    let mut world = World::established();
    world.host().broken = true;
    let sent = tcp(world.event(Readiness { readable: true, ..Readiness::default() }));
    assert_eq!(sent.iter().map(|seg| seg.flags).collect::<Vec<_>>(), [RST | ACK]);
    assert_eq!(world.relay.len(), 0);
}

#[test]
fn tr_4_a_reset_after_the_end_is_still_a_reset() {
    let mut world = World::established();
    world.rx(ACK | FIN, 1, 1, b"hello");
    assert!(world.host().finished);
    world.incoming(&[7; 5_000]);
    world.rx(RST, 7, 0, b"");
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn ended_connections_are_remembered_within_a_bound() {
    let mut world = World::new();
    for port in 0..3_000u16 {
        world.src_port = 10_000 + port;
        world.iss = 0;
        world.open(&[]);
        world.end();
        world.rx(ACK | FIN, 1, 2, b"");
    }
    assert_eq!(world.relay.len(), 1_024);
    world.pass(Duration::from_secs(11));
    assert_eq!((world.relay.len(), world.relay.deadline()), (0, None));
}
