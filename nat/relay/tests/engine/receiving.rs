//! From the container to the host.

use std::time::Duration;

use proptest::prelude::*;
use tapswitch_wire::{ChecksumState, DropReason, Instant};

use crate::world::{ACK, FIN, HOLD, PSH, RST, SYN, UNIT, WINDOW, World, brief, tcp};

/// Windows in units of 32.
const SCALED: &[u8] = &[2, 4, 5, 180, 3, 3, 7];
/// The window of a SYN-ACK.
const FIRST: u32 = 0xffff;

/// A connection whose host takes nothing, and that holds all it can.
fn full() -> World {
    let mut world = World::established_with(SCALED);
    world.host().room = 0;
    for at in [0, 32_768] {
        world.rx(ACK, 1 + at, 1, &[7; 32_768]);
    }
    assert_eq!(brief(&world.rx(ACK, FIRST, 1, b"7")), [(ACK, 1, 1 + FIRST, 0)]);
    world
}

#[test]
fn tr_5_bytes_that_the_host_does_not_take_are_held_up_to_one_super_frame() {
    for options in [SCALED, &[2, 4, 5, 180]] {
        let mut world = World::established_with(options);
        world.host().room = 0;
        let scale = if options == SCALED { UNIT } else { 1 };
        let mut next = 1;
        let mut edge = 0;
        loop {
            let sent = tcp(world.rx(ACK, next, 1, &[7; 40_000]));
            let [seg] = &sent[..] else { panic!("one acknowledgement: {sent:?}") };
            assert_eq!(seg.seq, 1);
            let offered = seg.ack + u32::from(seg.window) * scale;
            assert!(offered + scale > edge, "the right edge does not go back: {edge} {offered}");
            edge = edge.max(offered);
            if seg.ack == next {
                break;
            }
            next = seg.ack;
        }
        assert_eq!(next, 1 + FIRST, "what was offered, to the byte");
        assert_eq!(world.host().written, []);
        // Room comes back: half of what is held is enough to say so.
        assert_eq!(world.room(1_000), [], "a little is not (RFC 9293 3.8.6.2.2)");
        let sent = tcp(world.room(HOLD as usize));
        assert_eq!(sent.len(), 1, "one update");
        assert!(u32::from(sent[0].window) * scale >= HOLD / 2);
        assert_eq!(world.host().written.len(), FIRST as usize);
    }
}

#[test]
fn tr_5_the_window_is_the_room_of_the_hosts_socket_and_one_super_frame() {
    let mut world = World::established_with(SCALED);
    world.host().claims = Some(200_000);
    let sent = tcp(world.rx(ACK, 1, 1, &[7; 40_000]));
    assert_eq!(u32::from(sent[0].window) * UNIT, (200_000 + HOLD) / UNIT * UNIT);
    // What is written is less room, until the socket is asked again.
    let mut edge = 0;
    for round in 1..100 {
        world.host().claims = Some(100_000);
        let sent = tcp(world.rx(ACK, 1 + round * 10_000, 1, &[7; 10_000]));
        let offered = sent[0].ack + u32::from(sent[0].window) * UNIT;
        assert!(offered + UNIT > edge, "the right edge does not go back");
        edge = edge.max(offered);
    }
    assert!(world.host().asked_for_room < 20, "asked {} times for 100 frames", world.host().asked_for_room);
    world.host().claims = Some(usize::MAX);
    for round in 100..200 {
        world.rx(ACK, 1 + round * 10_000, 1, &[7; 10_000]);
    }
    let sent = tcp(world.rx(ACK, 1 + 2_000_000, 1, &[7; 40_000]));
    let window = u32::from(sent[0].window) * UNIT;
    assert!(window <= WINDOW && window > WINDOW / 2, "{window}");
}

#[test]
fn tr_5_a_socket_that_promised_too_much_is_given_the_rest_later() {
    let mut world = World::established_with(SCALED);
    world.host().claims = Some(1 << 20);
    world.rx(ACK, 1, 1, &[7; 40_000]);
    world.host().room = 0;
    // The window is a million bytes, and nothing of it is taken.
    let mut next = 40_001;
    for _ in 0..10 {
        let sent = tcp(world.rx(ACK, next, 1, &[7; 40_000]));
        next = sent[0].ack;
    }
    assert_eq!(next, 40_001 + HOLD, "no more is held than may be");
    let sent = tcp(world.room(usize::MAX));
    assert_eq!(world.host().written.len() as u32, 40_000 + HOLD);
    assert!(sent.len() <= 1);
    assert_eq!(brief(&world.rx(ACK, next, 1, b"more")), [(ACK, 1, next + 4, 0)]);
}

#[test]
fn tr_5_a_probe_of_a_closed_window_is_answered_and_its_byte_not_taken() {
    let mut world = full();
    for _ in 0..3 {
        let sent = tcp(world.rx(ACK, 1 + FIRST, 1, b"x"));
        assert_eq!((sent[0].ack, sent[0].window), (1 + FIRST, 0));
        let sent = tcp(world.rx(ACK, FIRST, 1, b""));
        assert_eq!((sent[0].ack, sent[0].window), (1 + FIRST, 0), "the probe of another kind");
    }
    assert_eq!(world.rx(RST, 1 + FIRST, 0, b""), [], "a reset gets in, too");
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_5_small_pieces_of_room_are_not_offered() {
    let mut world = full();
    for step in 1..10 {
        world.room(100);
        let sent = tcp(world.rx(ACK, FIRST, 1, b""));
        assert_eq!(sent[0].window, 0, "after {} bytes", step * 100);
    }
    world.room(600);
    let sent = tcp(world.rx(ACK, FIRST, 1, b""));
    assert!(u32::from(sent[0].window).abs_diff(1_500 / UNIT) <= 1, "a whole segment is: {}", sent[0].window);
}

#[test]
fn tr_6_what_comes_out_of_order_is_answered_each_time_and_never_delivered() {
    let mut world = World::established();
    world.rx(ACK, 1, 1, b"first");
    for at in [11, 16, 21] {
        let (reason, sent) = world.verdict(ACK, at, 1, b"later");
        assert_eq!(reason, Some(DropReason::TcpOutOfOrder));
        assert_eq!(brief(&sent), [(ACK, 1, 6, 0)], "three duplicates make a fast retransmission");
    }
    assert_eq!(world.poll(), []);
    assert_eq!(world.host().written, b"first");
    world.rx(ACK, 6, 1, b"secon");
    assert_eq!(world.host().written, b"firstsecon");
}

#[test]
fn tr_6_what_came_before_is_cut_off_and_the_rest_taken() {
    let mut world = World::established();
    world.rx(ACK, 1, 1, b"abcdef");
    assert_eq!(brief(&world.rx(ACK, 1, 1, b"abc")), [(ACK, 1, 7, 0)], "a repetition is acknowledged");
    world.rx(ACK, 4, 1, b"defghi");
    assert_eq!(world.host().written, b"abcdefghi");
    let sent = world.rx(ACK | FIN, 7, 1, b"ghijkl");
    assert_eq!(brief(&sent), [(ACK, 1, 14, 0)]);
    let host = world.host();
    assert_eq!((&host.written[..], host.finished), (&b"abcdefghijkl"[..], true));
}

#[test]
fn tr_9_what_lies_outside_of_the_window_is_answered_and_dropped() {
    let mut world = World::established_with(SCALED);
    world.rx(ACK, 1, 1, b"hello");
    for seq in [0, 1, 6 + HOLD, 6u32.wrapping_sub(HOLD), 6 + (1 << 31)] {
        let (reason, _) = world.verdict(ACK, seq, 1, b"x");
        assert_eq!(reason, Some(DropReason::TcpOutOfWindow), "{seq}");
        assert_eq!(brief(&world.poll()), [(ACK, 1, 6, 0)], "{seq}");
    }
    assert_eq!(world.host().written, b"hello");
}

#[test]
fn tr_9_data_beyond_the_window_is_cut_off() {
    let mut world = World::established_with(SCALED);
    world.host().room = 0;
    world.rx(ACK, 1, 1, &[7; 32_768]);
    let sent = tcp(world.rx(ACK | FIN, 1 + 32_768, 1, &[7; 40_000]));
    assert_eq!((sent[0].ack, sent[0].window), (1 + FIRST, 0));
    assert!(!world.host().finished, "the end behind it is not taken either");
    world.room(usize::MAX);
    assert_eq!(world.host().written.len(), FIRST as usize);
    assert!(!world.host().finished);
}

#[test]
fn tr_9_an_acknowledgement_of_what_was_not_sent_is_answered_and_dropped() {
    let mut world = World::established();
    world.incoming(b"hello");
    for ack in [7, 1_000_000, 1u32.wrapping_add(1 << 31).wrapping_sub(1)] {
        let (reason, _) = world.verdict(ACK, 1, ack, b"data");
        assert_eq!(reason, Some(DropReason::TcpOutOfWindow));
        assert_eq!(brief(&world.poll()), [(ACK, 6, 1, 0)]);
    }
    assert_eq!(world.host().written, b"", "nothing of such a segment is taken");
    assert_eq!(world.host().incoming.len(), 5);
}

#[test]
fn tr_9_only_the_exact_reset_breaks_and_others_are_challenged_at_a_limited_rate() {
    let mut world = World::established_with(SCALED);
    world.rx(ACK, 1, 1, b"hello");
    // In the window but not exact: asked back, twice a second at most.
    assert_eq!(brief(&world.rx(RST, 7, 0, b"")), [(ACK, 1, 6, 0)]);
    for seq in [8, 1_000, FIRST] {
        assert_eq!(world.rx(RST, seq, 0, b""), []);
    }
    world.now = world.now + Duration::from_millis(500);
    assert_eq!(brief(&world.rx(RST, 7, 0, b"")), [(ACK, 1, 6, 0)]);
    // Outside of the window: not even that.
    world.now = world.now + Duration::from_secs(10);
    for seq in [5, 0, 6 + HOLD, 6 + (1 << 31)] {
        let (reason, sent) = world.verdict(RST, seq, 0, b"");
        assert_eq!((reason, &sent[..]), (Some(DropReason::TcpOutOfWindow), &[][..]), "{seq}");
        assert_eq!(world.poll(), []);
    }
    assert_eq!(world.state(), "established");
    assert_eq!(world.rx(RST, 6, 0, b""), []);
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_9_a_syn_in_an_open_connection_is_challenged() {
    let mut world = World::established();
    for seq in [0, 1, 500, 1 << 31] {
        world.now = world.now + Duration::from_secs(1);
        assert_eq!(brief(&world.rx(SYN, seq, 0, b"")), [(ACK, 1, 1, 0)], "{seq}");
        assert_eq!(world.rx(SYN, seq, 0, b""), [], "one for each half second");
    }
    // A container that began anew answers the challenge with the exact reset, and its next SYN gets in.
    assert_eq!(world.rx(RST, 1, 0, b""), []);
    world.iss = 0;
    world.open(&[]);
}

#[test]
fn tr_9_a_segment_without_ack_carries_nothing() {
    let mut world = World::established();
    assert_eq!(world.verdict(PSH, 1, 0, b"data").0, Some(DropReason::TransportMalformed));
    assert_eq!(world.host().written, b"");
}

#[test]
fn tr_10_keepalives_are_answered() {
    let mut world = World::established();
    world.rx(ACK, 1, 1, b"hello");
    for payload in [&b""[..], b"o"] {
        assert_eq!(brief(&world.rx(ACK, 5, 1, payload)), [(ACK, 1, 6, 0)], "with {} bytes", payload.len());
    }
    assert_eq!(world.host().written, b"hello");
}

#[test]
fn tr_7_old_timestamps_are_recognised() {
    let stamp = |value: u32| {
        let mut options = vec![1, 1, 8, 10];
        options.extend_from_slice(&value.to_be_bytes());
        options.extend_from_slice(&[0; 4]);
        options
    };
    for base in [1_000u32, u32::MAX - 5] {
        let mut world = World::new();
        world.options = stamp(base);
        world.rx(SYN, 0, 0, b"");
        world.connect();
        world.options = stamp(base.wrapping_add(10));
        world.rx(ACK, 1, 1, b"hello");
        // The number is right, but it is a segment of long ago.
        world.options = stamp(base.wrapping_add(9));
        assert_eq!(world.verdict(ACK, 6, 1, b"old").0, Some(DropReason::TcpOutOfWindow));
        assert_eq!(tcp(world.poll())[0].brief(), (ACK, 1, 6, 0));
        assert_eq!(world.host().written, b"hello");
        // One that does not belong here cannot push the clock forward.
        world.options = stamp(base.wrapping_add(1 << 30));
        world.rx(ACK, 6u32.wrapping_sub(5_000), 1, b"far off");
        world.options = stamp(base.wrapping_add(11));
        world.rx(ACK, 6, 1, b"new");
        assert_eq!(world.host().written, b"hellonew");
        // A reset needs no timestamp (RFC 7323 5.2).
        world.options = stamp(base.wrapping_sub(1_000));
        world.rx(RST, 9, 0, b"");
        assert_eq!(world.relay.len(), 0);
    }
}

#[test]
fn tr_11_urgent_data_stays_in_line() {
    const URG: u8 = 0x20;
    let mut world = World::established();
    world.rx(ACK, 1, 1, b"before");
    world.rx(ACK | URG, 7, 1, b"urgent");
    world.rx(ACK | URG | PSH, 13, 1, b"after");
    assert_eq!(world.host().written, b"beforeurgentafter");
}

#[test]
fn tr_12_a_wrong_checksum_is_dropped_unless_somebody_vouches_for_it() {
    let mut world = World::established();
    world.checksum = Some(ChecksumState::Complete);
    assert_eq!(world.verdict(ACK, 1, 1, b"damaged").0, Some(DropReason::TransportBadChecksum));
    assert_eq!(world.poll(), [], "nothing of it is believed");
    world.checksum = Some(ChecksumState::Verified);
    world.rx(ACK, 1, 1, b"vouched for");
    assert_eq!(world.host().written, b"vouched for");
}

#[test]
fn tr_12_numbers_wrap_in_both_directions() {
    // The engine's number follows the clock, so a second connection can be made to begin shortly before the end.
    let mut world = World::new();
    world.rx(SYN, 0, 0, b"");
    world.connect();
    world.rx(RST, 1, 0, b"");
    let ahead = (u32::MAX - 3_000).wrapping_sub(world.iss);
    world.now = world.now + Duration::from_micros(u64::from(ahead) * 4);
    world.isn = u32::MAX - 2_000;
    world.iss = 0;
    world.open(&[2, 4, 5, 180]);
    assert_eq!(world.iss, u32::MAX - 3_000);
    let mut got = Vec::new();
    for round in 0..10u32 {
        world.rx(ACK, 1 + round * 1_000, 1 + round * 1_000, &[round as u8; 1_000]);
        for seg in tcp(world.incoming(&[round as u8; 1_000])) {
            assert_eq!(seg.brief(), (ACK, 1 + round * 1_000, 1 + (round + 1) * 1_000, 1_000));
            got.extend(seg.payload);
        }
    }
    let expected: Vec<u8> = (0..10u8).flat_map(|round| [round; 1_000]).collect();
    assert!(world.host().written == expected && got == expected);
    world.rx(ACK | FIN, 10_001, 10_001, b"");
    assert!(world.host().finished);
    assert_eq!(brief(&world.end()), [(FIN | ACK, 10_001, 10_002, 0)]);
    assert_eq!(world.rx(ACK, 10_002, 10_002, b""), []);
    assert_eq!(world.state(), "time-wait");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever segments come, in whatever order: the host gets the container's bytes in order, each once.
    #[test]
    fn tr_6_any_segments_of_one_stream_are_delivered_in_order_and_once(
        segments in prop::collection::vec((0usize..400, 1usize..200), 1..60),
        gulps in prop::collection::vec(0usize..300, 0..60),
        isn in prop_oneof![Just(u32::MAX - 100), any::<u32>()],
    ) {
        let stream: Vec<u8> = (0..600).map(|i| (i * 7) as u8).collect();
        let mut world = World::new();
        world.isn = isn;
        world.open(&[]);
        world.host().gulps.extend(gulps);
        let mut acknowledged = 0;
        for (at, len) in segments {
            for seg in tcp(world.rx(ACK, 1 + at as u32, 1, &stream[at..at + len])) {
                prop_assert!(seg.ack > acknowledged as u32, "an acknowledgement never goes back");
                acknowledged = seg.ack as usize - 1;
            }
            world.room(usize::MAX);
            let written = &world.host().written;
            prop_assert!(written.len() <= acknowledged);
            prop_assert_eq!(&written[..], &stream[..written.len()]);
        }
        // Whatever it still held back: from here on the host takes all.
        world.host().gulps.clear();
        world.room(usize::MAX);
        prop_assert_eq!(world.host().written.len(), acknowledged);
    }

    /// No segment of any kind makes it panic or send what is not sound, and no more than a few frames.
    #[test]
    fn tr_9_any_segment_is_survived(
        segments in prop::collection::vec(
            (any::<u8>(), prop_oneof![0u32..20, any::<u32>()], prop_oneof![0u32..20, any::<u32>()], 0usize..50, any::<u16>()),
            1..40,
        ),
        options in prop::collection::vec(any::<u8>(), 0..40),
        connects in any::<bool>(),
    ) {
        let mut world = World::new();
        world.rx_with(SYN, 0, 0, b"", SCALED);
        if connects {
            world.connect();
            world.rx(ACK, 1, 1, b"");
            world.incoming(b"something");
        }
        for (number, (flags, seq, ack, len, window)) in segments.into_iter().enumerate() {
            world.window = window;
            let chosen: &[u8] = if number % 3 == 0 { &options } else { &[] };
            let sent = world.rx_with(flags, seq, ack, &[1; 50][..len], chosen);
            prop_assert!(sent.len() <= 4, "{:?}", sent);
            prop_assert!(world.relay.len() <= 1);
        }
        prop_assert!(world.now > Instant::ZERO);
    }
}
