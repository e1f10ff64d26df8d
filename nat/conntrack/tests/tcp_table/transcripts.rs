//! Whole connections, one line per segment.

use tapswitch_conntrack::Direction;
use tapswitch_conntrack::tcp::{Change, Segment, State, Tracker};

use super::script::*;

/// The handshake, and then these lines.
fn after_handshake(lines: &[Line]) -> Tracker {
    play(&[&HANDSHAKE[..], lines].concat())
}

const CLOSED: [Line; 3] =
    [(O, FIN | ACK, 101, 501, 0, ORIGINAL_FIN), (R, FIN | ACK, 501, 102, 0, CLOSING), (O, ACK, 102, 502, 0, TIME_WAIT)];

#[test]
fn nt_2_connections_open_in_every_legal_way() {
    let simultaneous: &[Line] = &[
        (O, SYN, 100, 0, 0, SYN_SENT),
        (R, SYN, 500, 0, 0, SYN_RECEIVED),
        (O, SYN | ACK, 100, 501, 0, SYN_RECEIVED),
        (R, SYN | ACK, 500, 101, 0, ESTABLISHED),
        (O, ACK, 101, 501, 0, ESTABLISHED),
    ];
    let simultaneous_with_acks: &[Line] = &[
        (O, SYN, 100, 0, 0, SYN_SENT),
        (R, SYN, 500, 0, 0, SYN_RECEIVED),
        (R, SYN | ACK, 500, 101, 0, SYN_RECEIVED),
        (O, ACK, 101, 501, 0, ESTABLISHED),
    ];
    let syn_repeated: &[Line] = &[
        (O, SYN, 100, 0, 0, SYN_SENT),
        (O, SYN, 100, 0, 0, SYN_SENT),
        (R, SYN | ACK, 500, 101, 0, SYN_RECEIVED),
        (O, SYN, 100, 0, 0, SYN_RECEIVED),
        (R, SYN | ACK, 500, 101, 0, SYN_RECEIVED),
        (O, ACK, 101, 501, 0, ESTABLISHED),
        // Late duplicates of all of it.
        (O, SYN, 100, 0, 0, ESTABLISHED),
        (R, SYN | ACK, 500, 101, 0, ESTABLISHED),
        (O, ACK, 101, 501, 10, ESTABLISHED),
    ];
    let data_in_syn: &[Line] = &[
        (O, SYN, 100, 0, 400, SYN_SENT),
        (R, SYN | ACK, 500, 501, 0, SYN_RECEIVED),
        (R, ACK, 501, 501, 900, SYN_RECEIVED),
        (O, ACK, 501, 1401, 0, ESTABLISHED),
        (O, RST, 501, 0, 0, RESET),
    ];
    let data_in_syn_refused: &[Line] = &[
        (O, SYN, 100, 0, 400, SYN_SENT),
        (R, SYN | ACK, 500, 101, 0, SYN_RECEIVED),
        (O, ACK, 101, 501, 400, ESTABLISHED),
        (R, ACK, 501, 501, 0, ESTABLISHED),
        (R, FIN | ACK, 501, 501, 0, REPLY_FIN),
    ];
    let server_speaks_and_closes_first: &[Line] = &[
        (O, SYN, 100, 0, 0, SYN_SENT),
        (R, SYN | ACK, 500, 101, 0, SYN_RECEIVED),
        (R, FIN | ACK, 501, 101, 20, SYN_RECEIVED),
        (O, ACK, 101, 501, 0, REPLY_FIN),
        (O, ACK, 101, 522, 0, REPLY_FIN),
        (O, FIN | ACK, 101, 522, 0, CLOSING),
        (R, ACK, 522, 102, 0, TIME_WAIT),
    ];
    for lines in [
        &HANDSHAKE[..],
        simultaneous,
        simultaneous_with_acks,
        syn_repeated,
        data_in_syn,
        data_in_syn_refused,
        server_speaks_and_closes_first,
    ] {
        play(lines);
    }
}

#[test]
fn nt_2_connections_close_in_every_legal_way() {
    let half_closed_by_client: &[Line] = &[
        (O, FIN | ACK, 101, 501, 50, ORIGINAL_FIN),
        (R, ACK, 501, 152, 9_000, ORIGINAL_FIN),
        (O, ACK, 152, 9_501, 0, ORIGINAL_FIN),
        (R, ACK, 9_501, 152, 9_000, ORIGINAL_FIN),
        (R, FIN | ACK, 18_501, 152, 0, CLOSING),
        (O, ACK, 152, 18_502, 0, TIME_WAIT),
    ];
    let half_closed_by_server: &[Line] = &[
        (R, FIN | ACK, 501, 101, 50, REPLY_FIN),
        (O, ACK, 101, 552, 9_000, REPLY_FIN),
        (R, ACK, 552, 9_101, 0, REPLY_FIN),
        (O, FIN | ACK, 9_101, 552, 0, CLOSING),
        (R, ACK, 552, 9_102, 0, TIME_WAIT),
    ];
    let fin_repeated: &[Line] = &[
        (O, FIN | ACK, 101, 501, 50, ORIGINAL_FIN),
        (O, FIN | ACK, 101, 501, 50, ORIGINAL_FIN),
        (O, FIN | ACK, 151, 501, 0, ORIGINAL_FIN),
        (R, FIN | ACK, 501, 152, 0, CLOSING),
        (O, FIN | ACK, 151, 501, 0, CLOSING),
        (R, FIN | ACK, 501, 152, 0, CLOSING),
        (O, ACK, 152, 502, 0, TIME_WAIT),
        (R, FIN | ACK, 501, 152, 0, TIME_WAIT),
        (O, ACK, 152, 502, 0, TIME_WAIT),
    ];
    let simultaneous: &[Line] = &[
        (O, FIN | ACK, 101, 501, 0, ORIGINAL_FIN),
        (R, FIN | ACK, 501, 101, 0, CLOSING),
        (O, ACK, 102, 502, 0, CLOSING),
        (R, ACK, 502, 102, 0, TIME_WAIT),
    ];
    let data_before_the_fin_was_lost: &[Line] = &[
        (O, FIN | ACK, 201, 501, 0, ESTABLISHED),
        (R, ACK, 501, 101, 0, ESTABLISHED),
        (O, ACK, 101, 501, 100, ORIGINAL_FIN),
        (R, ACK, 501, 202, 0, ORIGINAL_FIN),
    ];
    let data_before_the_fin_took_another_way: &[Line] =
        &[(O, FIN | ACK, 201, 501, 0, ESTABLISHED), (R, ACK, 501, 202, 0, ORIGINAL_FIN)];
    for lines in [
        half_closed_by_client,
        half_closed_by_server,
        fin_repeated,
        simultaneous,
        data_before_the_fin_was_lost,
        data_before_the_fin_took_another_way,
        &CLOSED,
    ] {
        after_handshake(lines);
    }
}

#[test]
fn nt_2_time_wait_is_reused_by_a_newer_syn_from_either_side() {
    let by_client: &[Line] = &[
        (O, SYN, 102, 0, 0, SYN_SENT),
        (R, SYN | ACK, 90_000, 103, 0, SYN_RECEIVED),
        (O, ACK, 103, 90_001, 0, ESTABLISHED),
    ];
    let by_server: &[Line] = &[
        (R, SYN, 70_000, 0, 0, SYN_SENT),
        (O, SYN | ACK, 4_000, 70_001, 0, SYN_RECEIVED),
        (R, ACK, 70_001, 4_001, 0, ESTABLISHED),
        (O, FIN | ACK, 4_001, 70_001, 0, ORIGINAL_FIN),
    ];
    // An older number is answered by the old connection, and only the RST makes room.
    let by_an_older_syn: &[Line] = &[
        (O, SYN, 40, 0, 0, TIME_WAIT),
        (R, ACK, 502, 102, 0, TIME_WAIT),
        (O, RST, 102, 0, 0, RESET),
        (O, SYN, 40, 0, 0, SYN_SENT),
        (R, SYN | ACK, 3, 41, 0, SYN_RECEIVED),
        (O, ACK, 41, 4, 0, ESTABLISHED),
    ];
    // A host that judges by timestamps (RFC 6191) takes an older number.
    let by_timestamp: &[Line] = &[
        (O, SYN, 40, 0, 0, TIME_WAIT),
        (R, SYN | ACK, 66_037, 41, 0, SYN_RECEIVED),
        (O, ACK, 41, 66_038, 0, ESTABLISHED),
    ];
    for lines in [by_client, by_server, by_an_older_syn, by_timestamp] {
        after_handshake(&[&CLOSED[..], lines].concat());
    }
}

#[test]
fn nt_7_a_host_that_forgot_the_connection_opens_it_anew() {
    // The other side answers the SYN with what it expects (RFC 5961 4); the RST of that is exact.
    let challenged: &[Line] = &[
        (O, ACK, 101, 501, 1_000, ESTABLISHED),
        (R, ACK, 501, 1_101, 0, ESTABLISHED),
        (O, SYN, 900_000, 0, 0, ESTABLISHED),
        (R, ACK, 501, 1_101, 0, ESTABLISHED),
        (O, RST, 1_101, 0, 0, RESET),
        (O, SYN, 900_000, 0, 0, SYN_SENT),
        (R, SYN | ACK, 7_000_000, 900_001, 0, SYN_RECEIVED),
        (O, ACK, 900_001, 7_000_001, 0, ESTABLISHED),
    ];
    // The other side forgot it as well.
    let accepted: &[Line] = &[
        (O, SYN, 900_000, 0, 0, ESTABLISHED),
        (R, SYN | ACK, 7_000_000, 900_001, 0, SYN_RECEIVED),
        (O, ACK, 900_001, 7_000_001, 0, ESTABLISHED),
        (R, RST, 7_000_001, 0, 0, RESET),
    ];
    let accepted_the_other_way: &[Line] = &[
        (R, SYN, 900_000, 0, 0, ESTABLISHED),
        (O, SYN | ACK, 7_000_000, 900_001, 0, SYN_RECEIVED),
        (R, ACK, 900_001, 7_000_001, 0, ESTABLISHED),
    ];
    let refused: &[Line] = &[(O, SYN, 900_000, 0, 0, ESTABLISHED), (R, RST | ACK, 0, 900_001, 0, RESET)];
    // The SYN was forged or late: its side goes on as before, and an answer to it would come from nowhere.
    let forged: &[Line] = &[
        (O, SYN, 900_000, 0, 0, ESTABLISHED),
        (R, ACK, 501, 101, 0, ESTABLISHED),
        (O, ACK, 101, 501, 10, ESTABLISHED),
        (R, RST | ACK, 0, 900_001, 0, ESTABLISHED),
        (R, SYN | ACK, 7_000_000, 900_001, 0, ESTABLISHED),
    ];
    for lines in [challenged, accepted, accepted_the_other_way, refused, forged] {
        after_handshake(lines);
    }
}

#[test]
fn nt_7_the_syn_ack_of_an_older_incarnation_does_not_stop_the_new_one() {
    play(&[
        (O, SYN, 100, 0, 0, SYN_SENT),
        (R, SYN | ACK, 500, 77_777, 0, SYN_SENT),
        (O, RST, 77_777, 0, 0, SYN_SENT),
        (R, ACK, 500, 77_777, 0, SYN_SENT),
        (O, RST, 77_777, 0, 0, SYN_SENT),
        (O, SYN, 100, 0, 0, SYN_SENT),
        (R, SYN | ACK, 9_000, 101, 0, SYN_RECEIVED),
        (O, ACK, 101, 9_001, 0, ESTABLISHED),
    ]);
    // A client that gave up and began again with another number: either may be the one that is answered.
    for answered in [100, 300_000] {
        play(&[
            (O, SYN, 100, 0, 0, SYN_SENT),
            (O, SYN, 300_000, 0, 0, SYN_SENT),
            (R, SYN | ACK, 500, answered + 1, 0, SYN_RECEIVED),
            (O, ACK, answered + 1, 501, 0, ESTABLISHED),
            (R, RST, 501, 0, 0, RESET),
        ]);
    }
    // The server lost its half-open connection and takes the repeated SYN with a number of its own.
    play(&[
        (O, SYN, 100, 0, 0, SYN_SENT),
        (R, SYN | ACK, 500, 101, 0, SYN_RECEIVED),
        (O, SYN, 100, 0, 0, SYN_RECEIVED),
        (R, SYN | ACK, 88_000_000, 101, 0, SYN_RECEIVED),
        (O, ACK, 101, 88_000_001, 0, ESTABLISHED),
    ]);
}

#[test]
fn nt_7_segments_that_were_acknowledged_already_disturb_nothing() {
    after_handshake(&[
        (O, ACK, 101, 501, 1_000, ESTABLISHED),
        (O, ACK, 1_101, 501, 1_000, ESTABLISHED),
        (R, ACK, 501, 2_101, 0, ESTABLISHED),
        (O, ACK, 101, 501, 1_000, ESTABLISHED),
        (R, ACK, 501, 2_101, 0, ESTABLISHED),
        (R, ACK, 501, 1_101, 0, ESTABLISHED),
        // Keepalive probes without and with a byte.
        (O, ACK, 2_100, 501, 0, ESTABLISHED),
        (O, ACK, 2_100, 501, 1, ESTABLISHED),
        (R, ACK, 501, 2_101, 0, ESTABLISHED),
        (O, FIN | ACK, 2_101, 501, 0, ORIGINAL_FIN),
        (R, FIN | ACK, 501, 2_102, 0, CLOSING),
        (O, ACK, 101, 501, 1_000, CLOSING),
        (O, ACK, 2_102, 502, 0, TIME_WAIT),
    ]);
}

#[test]
fn nt_6_only_a_rst_that_the_receiver_would_believe_counts() {
    let in_flight: &[Line] = &[
        (O, ACK, 101, 501, 1_000, ESTABLISHED),
        (O, ACK, 1_101, 501, 1_000, ESTABLISHED),
        (O, RST, 1_101, 501, 0, ESTABLISHED),
        (O, RST, 2_100, 501, 0, ESTABLISHED),
        (O, RST, 2_102, 501, 0, ESTABLISHED),
        (O, RST, 9_000, 501, 0, ESTABLISHED),
        (O, RST, 3_000_000, 501, 0, ESTABLISHED),
        (R, RST, 500, 501, 0, ESTABLISHED),
        (R, RST, 502, 501, 0, ESTABLISHED),
    ];
    after_handshake(in_flight);
    // What it told to expect, and the end of all that was sent.
    for exact in [101, 2_101] {
        after_handshake(&[in_flight, &[(O, RST, exact, 0, 0, RESET)]].concat());
    }
    // A gap: what is behind it is not expected yet.
    let gap: &[Line] = &[
        (O, ACK, 1_101, 501, 1_000, ESTABLISHED),
        (O, RST, 2_101, 0, 0, ESTABLISHED),
        (O, RST, 1_101, 0, 0, ESTABLISHED),
        (O, ACK, 101, 501, 1_000, ESTABLISHED),
        (R, ACK, 501, 2_101, 0, ESTABLISHED),
        (O, RST, 1_101, 0, 0, ESTABLISHED),
        (O, RST, 2_101, 0, 0, RESET),
    ];
    after_handshake(gap);
    // Inexact once closing.
    after_handshake(&[
        (O, FIN | ACK, 101, 501, 0, ORIGINAL_FIN),
        (R, RST, 600, 0, 0, ORIGINAL_FIN),
        (R, FIN | ACK, 501, 102, 0, CLOSING),
        (O, RST, 300, 0, 0, RESET),
    ]);
    // A refused connection; a second try follows.
    play(&[
        (O, SYN, 100, 0, 0, SYN_SENT),
        (R, RST, 101, 0, 0, SYN_SENT),
        (R, RST | ACK, 0, 100, 0, SYN_SENT),
        (R, RST | ACK, 0, 102, 0, SYN_SENT),
        (R, RST | ACK, 0, 101, 0, RESET),
        (O, SYN, 4_000, 0, 0, SYN_SENT),
    ]);
}

#[test]
fn x4_a_rst_that_both_sides_outlive_is_taken_back() {
    let tracker = after_handshake(&[
        (O, RST, 101, 0, 0, RESET),
        // The other side had this on the way.
        (R, ACK, 501, 101, 700, RESET),
        (R, ACK, 1_201, 101, 700, RESET),
        (O, RST, 101, 0, 0, RESET),
        (O, ACK, 101, 1_901, 10, ESTABLISHED),
        (R, FIN | ACK, 1_901, 111, 0, REPLY_FIN),
        (R, RST, 1_902, 0, 0, RESET),
        (O, ACK, 111, 1_902, 0, RESET),
        (R, ACK, 1_902, 111, 0, REPLY_FIN),
    ]);
    assert_eq!(tracker.state(), REPLY_FIN);
    // Implausible segments are no sign of life.
    after_handshake(&[
        (O, RST, 101, 0, 0, RESET),
        (R, ACK, 501, 101, 700, RESET),
        (O, ACK, 80_000, 501, 0, RESET),
        (O, ACK, 101, 9_000, 0, RESET),
        (O, 0, 101, 0, 10, RESET),
    ]);
}

#[test]
fn nt_8_a_connection_is_picked_up_in_mid_stream() {
    let answered: &[Line] = &[
        (O, ACK, 101, 501, 100, PICKED_UP),
        (O, ACK, 201, 501, 100, PICKED_UP),
        (R, ACK, 501, 301, 60_000, ESTABLISHED),
        (O, ACK, 301, 60_501, 0, ESTABLISHED),
        (O, RST, 400, 0, 0, ESTABLISHED),
        (O, RST, 301, 0, 0, RESET),
    ];
    // The first segment was an old one repeated: the other side is ahead of it.
    let repeated: &[Line] = &[
        (O, ACK, 101, 501, 100, PICKED_UP),
        (R, ACK, 9_501, 5_101, 0, ESTABLISHED),
        (O, ACK, 5_101, 9_501, 10, ESTABLISHED),
        (R, FIN | ACK, 9_501, 5_111, 0, REPLY_FIN),
    ];
    let any_rst_in_reach: &[Line] = &[(O, ACK, 101, 501, 100, PICKED_UP), (R, RST, 900_000, 0, 0, RESET)];
    let opened_anew: &[Line] = &[
        (O, ACK, 101, 501, 100, PICKED_UP),
        (O, SYN, 7_000, 0, 0, PICKED_UP),
        (R, SYN | ACK, 60_000, 7_001, 0, SYN_RECEIVED),
        (O, ACK, 7_001, 60_001, 0, ESTABLISHED),
    ];
    let closing: &[Line] = &[
        (O, FIN | ACK, 101, 501, 0, PICKED_UP),
        (R, ACK, 501, 102, 300, ORIGINAL_FIN),
        (R, FIN | ACK, 801, 102, 0, CLOSING),
        (O, ACK, 102, 802, 0, TIME_WAIT),
    ];
    let without_acknowledgement: &[Line] = &[
        (O, 0, 101, 0, 100, PICKED_UP),
        (O, ACK, 201, 501, 100, PICKED_UP),
        (R, ACK, 501, 301, 0, ESTABLISHED),
        (O, RST, 301, 0, 0, RESET),
    ];
    let never_acknowledged: &[Line] = &[
        (O, 0, 101, 0, 100, PICKED_UP),
        (R, ACK, 501, 201, 10, ESTABLISHED),
        (O, ACK, 201, 511, 10, ESTABLISHED),
        (O, RST, 211, 0, 0, RESET),
    ];
    let by_a_syn_ack: &[Line] = &[
        (O, SYN | ACK, 500, 101, 0, PICKED_UP),
        (R, ACK, 101, 501, 0, ESTABLISHED),
        (O, FIN | ACK, 501, 101, 0, ORIGINAL_FIN),
    ];
    let by_a_rst: &[Line] = &[(O, RST, 500, 0, 0, RESET), (R, ACK, 101, 500, 0, RESET), (O, SYN, 9, 0, 0, SYN_SENT)];
    for lines in [
        answered,
        repeated,
        any_rst_in_reach,
        opened_anew,
        closing,
        without_acknowledgement,
        never_acknowledged,
        by_a_syn_ack,
        by_a_rst,
    ] {
        play(lines);
    }
}

/// A handshake with these scale options, data of the original side up to the edge of a window of 1000 (unscaled, as
/// the reply then says it), and a FIN at this distance from its begin. Whether the FIN counts.
fn fin_counts(offers: [Option<u8>; 2], distance: u32) -> bool {
    let syn = Segment { scale: offers[0], ..segment(SYN, 100, 0, 0) };
    let mut tracker = Tracker::open(&syn);
    tracker.step(R, &Segment { scale: offers[1], window: 1000, ..segment(SYN | ACK, 500, 101, 0) });
    tracker.step(O, &segment(ACK, 101, 501, 0));
    tracker.step(R, &Segment { window: 1000, ..segment(ACK, 501, 101, 0) });
    let mut at = 0;
    while at < distance {
        let len = (distance - at).min(65_000);
        tracker.step(O, &segment(ACK, 101 + at, 501, len));
        at += len;
    }
    tracker.step(O, &segment(FIN | ACK, 101 + distance, 501, 0));
    tracker.state() == ORIGINAL_FIN
}

#[test]
fn nt_8_a_window_is_scaled_only_if_both_syns_offered_it() {
    for (offers, window) in [
        ([Some(7), Some(7)], 128_000),
        ([Some(0), Some(3)], 8_000),
        ([Some(9), Some(14)], 16_384_000),
        ([Some(9), Some(200)], 16_384_000),
        ([Some(7), None], 1_000),
        ([None, Some(7)], 1_000),
        ([None, None], 1_000),
        ([Some(7), Some(0)], 1_000),
    ] {
        // A FIN just behind a full window is still taken.
        assert!(fin_counts(offers, window), "{offers:?}");
        assert!(!fin_counts(offers, window + 1), "{offers:?}");
    }
}

#[test]
fn nt_8_the_window_of_a_syn_is_not_scaled() {
    let mut tracker = Tracker::open(&Segment { scale: Some(8), ..segment(SYN, 100, 0, 0) });
    tracker.step(R, &Segment { scale: Some(8), window: 1_000, ..segment(SYN | ACK, 500, 101, 0) });
    tracker.step(O, &segment(ACK, 101, 501, 0));
    // 1 000 bytes and not one more were allowed.
    tracker.step(O, &segment(ACK, 1_102, 501, 100));
    assert!(!tracker.in_flight(O, 1_150));
    tracker.step(O, &segment(ACK, 101, 501, 900));
    assert!(tracker.in_flight(O, 1_000));
}

#[test]
fn nt_8_four_gibibytes_pass_through_the_largest_windows() {
    let scale = Some(14);
    let mut tracker = Tracker::open(&Segment { scale, ..segment(SYN, 100, 0, 0) });
    tracker.step(R, &Segment { scale, ..segment(SYN | ACK, 500, 101, 0) });
    let (mut seq, mut sent) = (101_u32, 0_u64);
    tracker.step(O, &segment(ACK, seq, 501, 0));
    while sent < 5 << 30 {
        tracker.step(R, &Segment { window: u16::MAX, ..segment(ACK, 501, seq, 0) });
        // Super-frames of 64 KiB up to the window's edge, the first of them last.
        let count = (1 << 30) / 65_536 - 1;
        for number in (0..count).rev() {
            tracker.step(O, &segment(ACK, seq.wrapping_add(number * 65_536), 501, 65_536));
        }
        seq = seq.wrapping_add(count * 65_536);
        sent += u64::from(count) * 65_536;
        assert!(tracker.in_flight(O, seq.wrapping_sub(1)) && !tracker.in_flight(O, seq.wrapping_add(1)));
        tracker.step(O, &segment(RST, seq.wrapping_add(1), 0, 0));
        tracker.step(O, &segment(RST, seq.wrapping_sub(1), 0, 0));
        assert_eq!(tracker.state(), ESTABLISHED);
    }
    tracker.step(R, &segment(ACK, 501, seq, 0));
    tracker.step(O, &segment(RST, seq, 0, 0));
    assert_eq!(tracker.state(), RESET);
}

#[test]
fn nt_8_a_zero_window_is_probed_and_opens_again() {
    let mut tracker = Tracker::open(&segment(SYN, 100, 0, 0));
    let steps: [(Direction, u8, u32, u32, u32, u16); 10] = [
        (R, SYN | ACK, 500, 101, 0, 1_000),
        (O, ACK, 101, 501, 0, 1_000),
        (O, ACK, 101, 501, 1_000, 1_000),
        (R, ACK, 501, 1_101, 0, 0),
        // Probes: the byte before, and the byte that does not fit. The second is taken at last.
        (O, ACK, 1_100, 501, 0, 1_000),
        (O, ACK, 1_101, 501, 1, 1_000),
        (R, ACK, 501, 1_102, 0, 0),
        (R, ACK, 501, 1_102, 0, 5_000),
        (O, ACK, 1_102, 501, 5_000, 1_000),
        (R, ACK, 501, 6_102, 0, 5_000),
    ];
    for (direction, flags, seq, ack, len, window) in steps {
        tracker.step(direction, &Segment { window, ..segment(flags, seq, ack, len) });
    }
    assert_eq!(tracker.state(), ESTABLISHED);
    tracker.step(O, &segment(FIN | ACK, 6_102, 501, 0));
    assert_eq!(tracker.state(), ORIGINAL_FIN);
}

#[test]
fn nt_5_an_icmp_error_must_quote_what_is_in_flight() {
    let tracker = after_handshake(&[
        (O, ACK, 101, 501, 1_000, ESTABLISHED),
        (O, ACK, 1_101, 501, 1_000, ESTABLISHED),
        (R, ACK, 501, 1_101, 0, ESTABLISHED),
    ]);
    for (direction, seq, is_in_flight) in [
        (O, 1_100, false),
        (O, 1_101, true),
        (O, 2_100, true),
        (O, 2_101, true),
        (O, 2_102, false),
        (O, 0x8000_0000, false),
        (R, 500, false),
        (R, 501, true),
        (R, 502, false),
    ] {
        assert_eq!(tracker.in_flight(direction, seq), is_in_flight, "{direction:?} {seq}");
    }
    let opening = play(&HANDSHAKE[..1]);
    assert!(opening.in_flight(O, 100));
    assert!(!opening.in_flight(O, 99) && !opening.in_flight(O, 102) && !opening.in_flight(R, 0));
    let candidate = after_handshake(&[(O, SYN, 900_000, 0, 0, ESTABLISHED)]);
    assert!(candidate.in_flight(O, 900_000) && !candidate.in_flight(R, 900_000));
    let picked_up = play(&[(O, ACK, 101, 501, 0, PICKED_UP)]);
    assert!(picked_up.in_flight(O, 7) && picked_up.in_flight(R, 7));
}

#[test]
fn a_restart_is_told_to_the_owner_of_the_session() {
    let mut closed = after_handshake(&CLOSED);
    assert_eq!(closed.step(O, &segment(SYN, 5_000, 0, 0)), Change::Restarted);
    let mut open = after_handshake(&[(O, SYN, 900_000, 0, 0, ESTABLISHED)]);
    assert_eq!(open.step(R, &segment(SYN | ACK, 7_000_000, 900_001, 0)), Change::Restarted);
    assert_eq!(open.state(), State::SynReceived);
}
