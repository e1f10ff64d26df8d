//! Connections on which nothing passes.

use std::time::Duration;

use tapswitch_relay::Readiness;

use crate::world::{ACK, RST, World, brief, tcp};

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn tr_10_a_silent_container_is_asked_after_two_hours_and_kept_as_long_as_it_answers() {
    let mut world = World::established();
    world.rx(ACK, 1, 1, b"hello");
    assert_eq!(world.pass(2 * HOUR - MINUTE), [], "nothing before two hours (RFC 9293 3.8.4)");
    for _ in 0..10 {
        let sent = world.pass(2 * MINUTE);
        assert!(!sent.is_empty() && sent.iter().all(|seg| seg.brief() == (ACK, 0, 6, 0)), "an old number: {sent:?}");
        assert!(world.host().kept_alive, "the other end is asked, too");
        assert_eq!(world.rx(ACK, 6, 1, b""), []);
        assert_eq!(world.pass(2 * HOUR - 2 * MINUTE), []);
    }
    assert_eq!(world.state(), "established");
}

#[test]
fn tr_10_a_container_that_has_forgotten_the_connection_frees_it_when_it_is_asked() {
    let mut world = World::established();
    // Its reset was lost.
    let sent = world.pass(2 * HOUR + MINUTE);
    assert_eq!(world.rx(RST, sent[0].ack, 0, b""), []);
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_10_a_container_that_answers_no_more_is_given_up_and_not_before_two_hours_and_four_minutes() {
    let mut world = World::established();
    let sent = world.pass(Duration::from_secs(7_440));
    assert!(sent.len() >= 5, "{sent:?}");
    assert_eq!(world.state(), "established", "RFC 5382 REQ-5");
    let sent = world.pass(Duration::from_secs(600));
    assert_eq!(sent.last().map(|seg| seg.flags), Some(RST | ACK));
    assert_eq!((world.relay.len(), world.host().closed, world.relay.deadline()), (0, Some(true), None));
}

#[test]
fn an_idle_connection_sets_no_timer() {
    let mut world = World::established();
    world.rx(ACK, 1, 1, b"hello");
    world.incoming(b"answer");
    world.rx(ACK, 6, 7, b"");
    world.pass(Duration::from_secs(5));
    let next = world.relay.deadline().expect("the keepalive");
    assert!(next - world.now > HOUR, "it does not wake up before: {:?}", next - world.now);
    // What was thrown away meanwhile is made anew.
    assert_eq!(brief(&world.incoming(b"and then")), [(ACK, 7, 6, 8)]);
    let sent = world.pass(Duration::from_millis(250));
    assert_eq!(sent.iter().map(|seg| seg.brief()).collect::<Vec<_>>(), [(ACK, 7, 6, 8)], "repeated");
    assert_eq!(brief(&world.rx(ACK, 6, 15, b"again")), [(ACK, 15, 11, 0)]);
    assert_eq!(world.host().written, b"helloagain");
}

#[test]
fn a_connection_whose_host_does_not_read_wakes_nobody_up_all_the_time() {
    let mut world = World::established();
    world.host().room = 0;
    world.rx(ACK, 1, 1, b"held");
    world.pass(Duration::from_secs(5));
    let next = world.relay.deadline().expect("some time");
    assert!(next - world.now > Duration::from_secs(30), "{:?}", next - world.now);
    world.room(usize::MAX);
    assert_eq!(world.host().written, b"held");
    world.pass(Duration::from_secs(5));
    assert!(world.relay.deadline().is_some_and(|next| next - world.now > HOUR));
}

#[test]
fn tr_9_a_challenge_limit_outlives_an_idle_time() {
    let mut world = World::established();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.rx(RST, 7, 0, b"").len(), 1);
    assert_eq!(world.rx(RST, 7, 0, b""), []);
}

#[test]
fn tr_12_five_gigabytes_pass_in_each_direction_of_one_connection() {
    const PIECE: usize = 64_000;
    const ALL: u64 = 5 << 30;
    let mut world = World::established_with(&[2, 4, 5, 180, 3, 3, 5]);
    world.window = 0xffff;
    world.quiet = true;
    world.host().swallows = true;
    let payload = vec![7; PIECE];
    let (mut up, mut down) = (0u64, 0u64);
    while up < ALL {
        world.host().endless = PIECE;
        let sent = world.bulk(1u32.wrapping_add(up as u32), 1u32.wrapping_add(down as u32), &payload);
        up += PIECE as u64;
        assert_eq!(sent.ack, 1u32.wrapping_add(up as u32), "behind {up} bytes");
        assert_eq!(sent.seq, 1u32.wrapping_add(down as u32), "behind {down} bytes");
        down += sent.payload;
    }
    assert!(up > 1 << 32 && down > 1 << 32, "{up} up, {down} down");
    let flow = &world.relay.flows(world.now)[0];
    assert_eq!((flow.up_bytes, flow.down_bytes), (up, down));
    world.host().endless = 0;
    let (seq, ack) = (1u32.wrapping_add(up as u32), 1u32.wrapping_add(down as u32));
    assert_eq!(tcp(world.event(Readiness { readable: true, ..Readiness::default() })), []);
    assert_eq!(world.rx(ACK | 1, seq, ack, b"").len(), 1);
    assert!(world.host().finished);
}
