//! What waits, what is too much, and what it is called.

use tapswitch_impair::{MEMORY, Outcome};
use tapswitch_wire::{DropReason, Instant, MAX_FRAME_LEN, Meta};

use crate::world::{World, ms};

#[test]
fn the_queue_takes_its_limit_and_not_one_more() {
    let mut world = World::new("rate 1mbit limit 3", 1);
    for _ in 0..3 {
        assert_eq!(world.push(1250), Outcome { frames: 1, queued: 1, ..Outcome::default() });
    }
    assert_eq!(world.push(1250), Outcome { frames: 1, full: 1, ..Outcome::default() });
    // One has left after 10 ms.
    world.advance(ms(10));
    assert_eq!((world.push(1250).queued, world.push(1250).full), (1, 1));
    world.drain();
    assert_eq!(world.numbers(), [0, 1, 2, 4]);
}

#[test]
fn a_limit_in_bytes_counts_bytes_but_an_idle_link_takes_any_frame() {
    let mut world = World::new("rate 1mbit limit 1kb", 1);
    assert_eq!(world.push(1500).queued, 1);
    assert_eq!(world.push(60).full, 1);
    world.advance(ms(12));
    assert_eq!((world.push(600).queued, world.push(400).queued, world.push(18).full), (1, 1, 1));
}

#[test]
fn without_words_a_thousand_frames_wait() {
    let mut world = World::new("rate 1mbit", 1);
    for _ in 0..1500 {
        world.push(100);
    }
    assert_eq!((world.outcome.queued, world.outcome.full), (1000, 500));
}

#[test]
fn frames_on_a_long_way_do_not_fill_the_queue() {
    let mut world = World::new("delay 10s rate 100mbit limit 10", 1);
    for _ in 0..5000 {
        world.push(1250);
        world.advance(ms(1));
    }
    assert_eq!((world.outcome.full, world.link.under_way()), (0, 5000));
}

#[test]
fn a_lost_frame_takes_its_place_and_its_time() {
    let mut world = World::new("rate 1mbit limit 2 loss 100%", 1);
    assert_eq!((world.push(1250).lost, world.push(1250).lost, world.push(1250).full), (1, 1, 1));
    world.link.set(crate::world::words("rate 1mbit limit 3"), world.now);
    world.push(1250);
    world.drain();
    assert_eq!(world.arrivals[0].delay(), ms(30));
}

#[test]
fn memory_is_bounded_whatever_the_length_of_frames() {
    for (len, size) in [(60, 256), (1514, 2048), (9014, 10_240), (65_000, MAX_FRAME_LEN)] {
        let mut world = World::new("delay 1s duplicate 100%", 1);
        while world.push(len).overrun == 0 {}
        assert_eq!(world.link.under_way(), MEMORY / size);
        let outcome = world.outcome;
        assert_eq!(outcome.frames + outcome.duplicated, outcome.queued + outcome.overrun);
        world.drain();
        assert_eq!(world.arrivals.len(), MEMORY / size);
    }
}

#[test]
fn a_frame_that_is_none_is_refused_by_name() {
    let mut world = World::new("delay 1s", 1);
    let long = vec![0; MAX_FRAME_LEN + 1];
    assert_eq!(world.link.push(Instant::ZERO, &Meta::PLAIN, &long), Err(DropReason::FrameTooLong));
    let mut world = World::new("corrupt 100% duplicate 100%", 1);
    for len in 0..20 {
        assert_eq!(world.link.push(Instant::ZERO, &Meta::PLAIN, &long[..len]).unwrap().queued, 2);
    }
}

#[test]
fn a_frame_is_due_only_when_its_last_bit_has_come() {
    let mut world = World::new("rate 8kbit ethernet delay 5ms", 1);
    // Padded to 60 bytes, and 24 around it.
    world.push(40);
    assert_eq!(world.link.deadline(), Some(world.now + ms(84 + 5)));
    world.advance(ms(88));
    assert!(world.arrivals.is_empty());
    world.advance(ms(1));
    assert_eq!(world.arrivals.len(), 1);
}
