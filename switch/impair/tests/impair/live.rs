//! `tapswitch link set` while frames are under way.

use tapswitch_wire::Instant;

use crate::world::{World, ms, us, words};

const BEGIN: Instant = Instant::from_secs(1);

fn dues(world: &World) -> Vec<(u32, u64)> {
    world.arrivals.iter().map(|arrival| (arrival.number, (arrival.due - BEGIN).as_micros() as u64)).collect()
}

#[test]
fn frames_under_way_keep_their_times_when_the_delay_changes() {
    let mut world = World::new("delay 50ms", 1);
    world.push(60);
    world.advance(ms(10));
    world.link.set(words("delay 5ms"), world.now);
    world.push(60);
    world.advance(ms(1));
    world.link.set(words("delay 100ms"), world.now);
    world.push(60);
    world.drain();
    assert_eq!(dues(&world), [(1, 15_000), (0, 50_000), (2, 111_000)]);
}

#[test]
fn a_delay_set_by_mistake_is_over_when_it_is_taken_back() {
    let mut world = World::new("delay 3600s", 1);
    world.push(60);
    world.link.set(words("delay 10ms rate 1mbit"), world.now);
    world.push(125);
    world.link.set(words("delay 10ms rate 2mbit"), world.now);
    world.push(125);
    world.drain();
    // The first frame of 1000 bits is on the wire at the old rate, the second goes out at the new one.
    assert_eq!(dues(&world), [(1, 11_000), (2, 11_500), (0, 3_600_000_000)]);
}

#[test]
fn a_link_without_impairment_is_to_be_used_until_the_last_frame_has_left() {
    let mut world = World::new("delay 10ms", 1);
    assert!(!world.link.is_none());
    world.push(60);
    world.link.set(words("none"), world.now);
    assert!(!world.link.is_none(), "a frame is under way");
    world.drain();
    assert!(world.link.is_none());
    world.push(60);
    world.advance(ms(0));
    assert_eq!(dues(&world), [(0, 10_000), (1, 10_000)]);
}

#[test]
fn frames_that_wait_go_out_at_the_new_rate_and_in_order() {
    // 1250 bytes are 10 ms at 1 Mbit/s and 1 ms at 10 Mbit/s.
    let mut world = World::new("rate 1mbit delay 3ms", 1);
    for _ in 0..5 {
        world.push(1250);
    }
    world.advance(ms(12));
    world.link.set(words("rate 10mbit delay 3ms"), world.now);
    world.push(1250);
    world.drain();
    // The first is on its way, the second on the wire until 20 ms, the others follow at the new rate.
    assert_eq!(dues(&world), [(0, 13_000), (1, 23_000), (2, 24_000), (3, 25_000), (4, 26_000), (5, 27_000)]);
}

#[test]
fn a_queue_without_a_rate_any_more_empties_at_once() {
    let mut world = World::new("rate 1kbit", 1);
    for _ in 0..100 {
        world.push(125);
    }
    world.advance(ms(500));
    world.link.set(words("delay 1ms"), world.now);
    world.push(125);
    world.drain();
    let late: Vec<_> = dues(&world).into_iter().skip(1).collect();
    assert!(world.numbers().is_sorted());
    assert!(late[..99].iter().all(|(_, due)| *due == 1_000_000), "behind the frame that was being sent: {late:?}");
    assert_eq!(late[99], (100, 1_001_000));
}

#[test]
fn a_slower_rate_holds_back_what_waits() {
    let mut world = World::new("rate 10mbit", 1);
    for _ in 0..3 {
        world.push(1250);
    }
    world.advance(us(500));
    world.link.set(words("rate 1mbit"), world.now);
    world.drain();
    assert_eq!(dues(&world), [(0, 1_000), (1, 11_000), (2, 21_000)]);
}

#[test]
fn a_rate_that_changes_faster_than_a_frame_goes_out_does_not_starve_it() {
    let mut world = World::new("rate 1mbit", 1);
    for _ in 0..10 {
        world.push(1250);
    }
    for step in 0..1000 {
        world.advance(ms(1));
        world.link.set(words(["rate 1mbit", "rate 1001kbit"][step % 2]), world.now);
    }
    assert_eq!(world.numbers(), (0..10).collect::<Vec<u32>>());
    assert!(dues(&world)[9].1 <= 100_000);
}

#[test]
fn a_changed_loss_leaves_everything_else_as_it_was() {
    let run = |change: bool| {
        let mut world = World::new("delay 20ms 9ms reorder 5% duplicate 5% rate 5mbit", 3);
        for step in 0..2000 {
            if change && step == 700 {
                world.link.set(words("delay 20ms 9ms reorder 5% duplicate 5% rate 5mbit loss 20%"), world.now);
            }
            world.push(500);
            world.advance(us(900));
        }
        world.drain();
        world
    };
    let (plain, lossy) = (run(false), run(true));
    let left: Vec<_> = plain.arrivals.iter().filter(|arrival| lossy.arrivals.contains(arrival)).cloned().collect();
    assert_eq!(lossy.arrivals, left, "the same times for all that are not lost");
    assert!(lossy.outcome.lost > 200);
}

#[test]
fn burst_loss_set_anew_begins_in_the_good_state() {
    let mut world = World::new("loss gemodel 100% 0%", 1);
    assert_eq!((world.push(60).lost, world.push(60).lost, world.push(60).lost), (0, 1, 1));
    world.link.set(words("loss gemodel 100% 0% 100% 0%"), world.now);
    assert_eq!(world.push(60).lost, 1, "the same in other words is no change");
    world.link.set(words("loss gemodel 100% 0.1%"), world.now);
    assert_eq!(world.push(60).lost, 0);
}

#[test]
fn a_gap_is_counted_from_when_it_was_set() {
    let mut world = World::new("delay 1ms reorder 100% gap 3", 1);
    assert_eq!([(); 4].map(|()| world.push(60).reordered), [0, 0, 1, 0]);
    world.link.set(words("delay 1ms reorder 100% gap 2"), world.now);
    assert_eq!([(); 4].map(|()| world.push(60).reordered), [0, 1, 0, 1]);
}
