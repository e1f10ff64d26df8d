//! From the host to the container.

use std::time::Duration;

use crate::world::{ACK, FIN, RST, SYN, World, brief, tcp};

/// An MSS of 1000.
const MSS: &[u8] = &[2, 4, 3, 232];

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// An established connection whose round trip took a hundred milliseconds, so that its timer is set by that.
fn with_round_trip() -> World {
    let mut world = World::new();
    world.rx_with(SYN, 0, 0, b"", MSS);
    world.connect();
    world.now = world.now + milliseconds(100);
    world.rx(ACK, 1, 1, b"");
    world
}

#[test]
fn tr_7_many_segments_leave_as_one_super_frame() {
    let mut world = World::established_with(MSS);
    let sent = tcp(world.incoming(&[7; 3_500]));
    assert_eq!(sent.iter().map(|seg| (seg.payload.len(), seg.gso)).collect::<Vec<_>>(), [(3_500, Some(1_000))]);
    world.rx(ACK, 1, 3_501, b"");
    let sent = tcp(world.incoming(&[7; 1_000]));
    assert_eq!(sent.iter().map(|seg| (seg.payload.len(), seg.gso)).collect::<Vec<_>>(), [(1_000, None)]);
}

#[test]
fn bytes_stay_in_the_socket_until_they_are_acknowledged() {
    let mut world = World::established_with(MSS);
    world.incoming(&[7; 3_000]);
    assert_eq!(world.host().incoming.len(), 3_000);
    world.rx(ACK, 1, 1_001, b"");
    assert_eq!(world.host().incoming.len(), 2_000);
    world.rx(ACK, 1, 3_001, b"");
    assert_eq!(world.host().incoming.len(), 0);
}

#[test]
fn tr_6_the_timer_is_set_by_the_round_trip_and_doubles() {
    let mut world = with_round_trip();
    let sent = world.incoming(&[7; 2_500]);
    assert_eq!(brief(&sent), [(ACK, 1, 1, 2_500)]);
    let begun = world.now;
    let sent = world.pass(Duration::from_secs(100));
    // SRTT 100 ms and RTTVAR 50 ms make 300 ms (RFC 6298 2.2).
    let times: Vec<_> = sent.iter().map(|seg| (seg.at - begun).as_millis()).collect();
    assert_eq!(times[..6], [300, 900, 2_100, 4_500, 9_300, 18_900]);
    assert!(sent.iter().all(|seg| seg.brief() == (ACK, 1, 1, 1_000)), "one segment each time");
    // An answer ends the back-off, and the rest follows.
    let sent = tcp(world.rx(ACK, 1, 1_001, b""));
    assert_eq!(sent.iter().map(|seg| (seg.seq, seg.payload.len())).collect::<Vec<_>>(), [(1_001, 1_500)]);
    assert_eq!(world.rx(ACK, 1, 2_501, b""), []);
    assert_eq!(world.pass(Duration::from_secs(100)), [], "nothing is left to be repeated");
}

#[test]
fn tr_6_a_container_that_is_dead_is_given_up_and_the_outside_told() {
    let mut world = with_round_trip();
    world.incoming(&[7; 3_000]);
    let sent = world.pass(Duration::from_secs(3_600));
    let (last, repeated) = sent.split_last().expect("repetitions");
    assert_eq!(repeated.len(), 10);
    assert_eq!((last.flags, last.seq), (RST | ACK, 3_001), "behind everything that was sent");
    assert!(last.at - repeated[0].at > Duration::from_secs(100), "not before 100 s (RFC 9293 3.8.3, R2)");
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_6_three_duplicates_mean_loss() {
    let mut world = with_round_trip();
    world.incoming(&[7; 8_000]);
    for _ in 0..2 {
        assert_eq!(world.rx(ACK, 1, 1_001, b""), [], "new, then the first duplicate");
    }
    assert_eq!(world.rx(ACK, 1, 1_001, b""), [], "the second");
    let sent = tcp(world.rx(ACK, 1, 1_001, b""));
    assert_eq!(sent[0].seq, 1_001, "the third: {sent:?}");
    assert!(sent[0].payload.len() <= 4_000, "not more than half of what was under way");
    for _ in 0..5 {
        assert_eq!(world.rx(ACK, 1, 1_001, b""), [], "further ones say nothing new");
    }
    let sent = tcp(world.rx(ACK, 1, 8_001, b""));
    assert_eq!(sent, []);
    assert_eq!(world.pass(Duration::from_secs(10)), []);
}

#[test]
fn tr_6_data_or_a_moved_window_is_no_duplicate() {
    let mut world = with_round_trip();
    world.incoming(&[7; 8_000]);
    for round in 0..6 {
        let sent = tcp(world.rx(ACK, 1 + round * 4, 1, b"data"));
        assert!(sent.iter().all(|seg| seg.payload.is_empty()), "{sent:?}");
    }
    for round in 0..6 {
        world.window -= 1 + round;
        assert_eq!(world.rx(ACK, 25, 1, b""), []);
    }
}

#[test]
fn tr_6_what_is_sent_again_is_not_timed() {
    let mut world = with_round_trip();
    world.incoming(&[7; 1_000]);
    let sent = world.pass(milliseconds(300));
    assert_eq!(sent.len(), 1);
    // The answer comes at once, but which one does it answer (Karn)? The timer stays as it was.
    world.rx(ACK, 1, 1_001, b"");
    world.incoming(&[7; 1_000]);
    let begun = world.now;
    let sent = world.pass(Duration::from_secs(2));
    assert_eq!((sent[0].at - begun).as_millis(), 300);
}

#[test]
fn tr_6_an_acknowledgement_while_repeating_is_one_that_the_container_believes() {
    let mut world = with_round_trip();
    world.incoming(&[7; 3_000]);
    world.pass(milliseconds(300));
    // The container has everything and says something of its own; only its acknowledgements were lost. A number below
    // what it has would make it drop ours (RFC 9293 3.10.7.4).
    let sent = tcp(world.rx(ACK, 1, 1, b"hello"));
    assert_eq!(sent.last().map(|seg| (seg.seq, seg.ack)), Some((3_001, 6)), "{sent:?}");
}

#[test]
fn tr_5_a_closed_window_is_probed_for_ever_and_data_follows_its_opening() {
    let mut world = with_round_trip();
    world.window = 2_000;
    world.rx(ACK, 1, 1, b"");
    assert_eq!(brief(&world.incoming(&[7; 5_000])), [(ACK, 1, 1, 2_000)]);
    world.window = 0;
    world.now = world.now + milliseconds(100);
    assert_eq!(world.rx(ACK, 1, 2_001, b""), []);
    let begun = world.now;
    let mut probes = Vec::new();
    for _ in 0..100 {
        for probe in world.pass(Duration::from_secs(60)) {
            assert_eq!((probe.brief(), probe.flags), ((ACK, 2_000, 1, 0), ACK), "an old number: it must be answered");
            probes.push((probe.at - begun).as_millis());
            assert_eq!(world.rx(ACK, 1, 2_001, b""), [], "still closed");
        }
    }
    // The second round trip like the first: SRTT 100 ms, RTTVAR 37.5 ms.
    assert_eq!(probes[..4], [250, 750, 1_750, 3_750]);
    assert!(probes.windows(2).all(|pair| pair[1] - pair[0] <= 60_000), "{probes:?}");
    assert!(probes.last().is_some_and(|last| *last > 5_000_000), "an hour and a half later it still asks");
    world.window = 10_000;
    assert_eq!(brief(&world.rx(ACK, 1, 2_001, b"")), [(ACK, 2_001, 1, 3_000)]);
}

#[test]
fn tr_5_a_window_that_closes_upon_what_is_under_way_is_probed_too() {
    let mut world = with_round_trip();
    world.window = 3_000;
    world.rx(ACK, 1, 1, b"");
    world.incoming(&[7; 3_000]);
    // The container shrinks its window, which it should not, or an old update came late.
    world.window = 0;
    world.rx(ACK, 1, 1_001, b"");
    let sent = world.pass(Duration::from_secs(1_000));
    assert!(sent.len() > 10, "{sent:?}");
    assert!(sent.iter().all(|seg| seg.flags & RST == 0 && seg.payload.is_empty()));
    world.window = 3_000;
    let sent = tcp(world.rx(ACK, 1, 1_001, b""));
    assert_eq!(sent.iter().map(|seg| (seg.seq, seg.payload.len())).next(), Some((1_001, 1_000)), "one segment first");
    assert_eq!(brief(&world.rx(ACK, 1, 2_001, b"")), [(ACK, 2_001, 1, 1_000)]);
    assert_eq!(world.rx(ACK, 1, 3_001, b""), []);
}

#[test]
fn tr_5_windows_of_one_byte_are_used() {
    let mut world = World::established();
    world.window = 1;
    world.rx(ACK, 1, 1, b"");
    let mut sent = tcp(world.incoming(b"slow"));
    let mut got = Vec::new();
    while let Some(seg) = sent.pop() {
        assert_eq!(seg.payload.len(), 1);
        got.extend(seg.payload);
        sent = tcp(world.rx(ACK, 1, 1 + got.len() as u32, b""));
    }
    assert_eq!(got, b"slow");
}

#[test]
fn tr_5_the_end_waits_for_a_closed_window() {
    let mut world = with_round_trip();
    world.window = 1_000;
    world.rx(ACK, 1, 1, b"");
    world.incoming(&[7; 1_000]);
    assert_eq!(world.end(), [], "the window is full");
    world.window = 0;
    assert_eq!(world.rx(ACK, 1, 1_001, b""), []);
    let sent = world.pass(Duration::from_secs(1_000));
    assert!(sent.iter().all(|seg| seg.flags == ACK), "probes, and no FIN that would be dropped: {sent:?}");
    world.window = 1_000;
    assert_eq!(brief(&world.rx(ACK, 1, 1_001, b"")), [(FIN | ACK, 1_001, 1, 0)]);
}

#[test]
fn tr_5_an_end_that_a_closed_window_swallowed_does_not_break_the_connection() {
    let mut world = with_round_trip();
    world.window = 3_000;
    world.rx(ACK, 1, 1, b"");
    world.host().incoming.extend([7; 500]);
    assert_eq!(brief(&world.end()), [(ACK, 1, 1, 500), (FIN | ACK, 501, 1, 0)]);
    // The container has the data and no room for more, and drops the FIN.
    world.window = 0;
    assert_eq!(world.rx(ACK, 1, 501, b""), []);
    for _ in 0..30 {
        for seg in world.pass(Duration::from_secs(60)) {
            assert_eq!(seg.flags & RST, 0, "it is slow, not dead");
            assert_eq!(world.rx(ACK, 1, 501, b""), []);
        }
    }
    world.window = 3_000;
    assert_eq!(brief(&world.rx(ACK, 1, 501, b"")), [(FIN | ACK, 501, 1, 0)]);
    assert_eq!(world.rx(ACK, 1, 502, b""), []);
}

#[test]
fn tr_6_a_repeated_syn_ack_is_not_timed() {
    let mut world = World::new();
    world.rx_with(SYN, 0, 0, b"", MSS);
    world.connect();
    world.now = world.now + milliseconds(500);
    assert_eq!(world.rx(SYN, 0, 0, b"").len(), 1, "the container did not hear it");
    world.now = world.now + milliseconds(10);
    // Which of the two does this answer? The timer stays at its first value.
    world.rx(ACK, 1, 1, b"");
    world.incoming(&[7; 1_000]);
    let begun = world.now;
    let sent = world.pass(Duration::from_secs(2));
    assert_eq!((sent[0].at - begun).as_millis(), 1_000);
}
