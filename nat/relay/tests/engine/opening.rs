//! How connections begin.

use std::time::Duration;

use tapswitch_relay::{HostError, Readiness};
use tapswitch_wire::DropReason;

use crate::world::{ACK, CONTAINER, FIN, RST, SYN, Sent, World, brief, container, tcp};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn tr_1_nothing_is_said_before_the_host_knows() {
    let mut world = World::new();
    assert_eq!(world.rx(SYN, 0, 0, b""), []);
    assert_eq!(world.event(Readiness { writable: true, ..Readiness::default() }), [], "still connecting");
    assert_eq!(world.pass(30 * SECOND), []);
    assert_eq!(world.connect().brief(), (SYN | ACK, 0, 1, 0));
}

#[test]
fn tr_1_each_failure_of_the_host_is_said_as_it_is() {
    let table = [
        (HostError::Refused, None, true),
        (HostError::Reset, None, true),
        (HostError::HostUnreachable, Some((3, 1)), false),
        (HostError::NetUnreachable, Some((3, 0)), false),
        (HostError::Prohibited, Some((3, 13)), false),
        (HostError::TimedOut, None, false),
    ];
    for (error, icmp, reset) in table {
        let mut world = World::new();
        world.rx(SYN, 0, 0, b"");
        world.host().connected = Some(Err(error));
        let sent = world.event(Readiness { error: true, writable: true, ..Readiness::default() });
        let errors: Vec<_> = sent
            .iter()
            .filter_map(
                |sent| if let Sent::Icmp(kind, code, quoted) = sent { Some((*kind, *code, quoted)) } else { None },
            )
            .collect();
        assert_eq!(errors.first().map(|(kind, code, _)| (*kind, *code)), icmp, "{error:?}");
        for (.., quoted) in errors {
            assert_eq!(quoted.len(), 28, "the IP header and eight bytes");
            assert_eq!(quoted[12..16], CONTAINER.octets());
            assert_eq!(quoted[20..22], container().port().to_be_bytes());
        }
        let resets: Vec<_> = tcp(sent).iter().map(|seg| (seg.flags, seg.ack)).collect();
        assert_eq!(resets, if reset { vec![(RST | ACK, 1)] } else { vec![] }, "{error:?}");
        assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)), "{error:?}");
    }
}

#[test]
fn tr_1_a_host_that_refuses_at_once_is_a_reset_too() {
    let mut world = World::new();
    world.relay.host().refuses = Some(HostError::Refused);
    let sent = world.rx(SYN, 0, 0, b"");
    assert_eq!(tcp(sent).iter().map(|seg| (seg.flags, seg.ack)).collect::<Vec<_>>(), [(RST | ACK, 1)]);
    assert_eq!(world.relay.len(), 0);
}

#[test]
fn tr_2_a_repeated_syn_opens_no_second_socket() {
    let mut world = World::new();
    for _ in 0..5 {
        assert_eq!(world.rx(SYN, 0, 0, b""), []);
    }
    world.connect();
    // Behind the SYN-ACK it is answered with the same one.
    assert_eq!(brief(&world.rx(SYN, 0, 0, b"")), [(SYN | ACK, 0, 1, 0)]);
    assert_eq!(world.relay.host().opened.len(), 1);
    assert_eq!(world.rx(ACK, 1, 1, b""), []);
    assert_eq!(world.state(), "established");
}

#[test]
fn tr_2_another_syn_on_the_tuple_while_connecting_begins_anew() {
    let mut world = World::new();
    world.rx(SYN, 0, 0, b"");
    world.isn = world.isn.wrapping_add(77_777);
    world.rx(SYN, 0, 0, b"");
    assert_eq!(world.relay.host().opened.len(), 2);
    let first = world.relay.host().opened[0];
    assert_eq!(world.relay.host().streams[&first].closed, Some(true), "nobody waits for the first one");
    assert_eq!(world.connect().brief(), (SYN | ACK, 0, 1, 0));
    assert_eq!(world.relay.len(), 1);
}

#[test]
fn tr_2_a_container_that_gives_up_frees_everything_at_once() {
    let mut world = World::new();
    // While connecting, its own number or the next will do: nothing was sent that it could know better from.
    for (round, seq) in [0, 1].into_iter().enumerate() {
        world.rx(SYN, 0, 0, b"");
        assert_eq!(world.rx(RST, seq, 0, b""), []);
        assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)), "round {round}");
    }
    world.rx(SYN, 0, 0, b"");
    world.connect();
    assert_eq!(world.rx(RST, 1, 0, b""), []);
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
    world.iss = 0;
    world.open(&[]);
}

#[test]
fn tr_2_a_late_answer_of_the_host_finds_nobody() {
    let mut world = World::new();
    world.rx(SYN, 0, 0, b"");
    let id = world.id();
    world.rx(RST, 1, 0, b"");
    world.rx(SYN, 0, 0, b"");
    assert_ne!(world.id(), id, "the second connection has a number of its own");
    let mut sent = 0;
    let now = world.now;
    world
        .relay
        .host_event(id, Readiness { writable: true, ..Readiness::default() }, now, &mut |_: &_, _: &[u8]| sent += 1);
    assert_eq!(sent, 0);
    assert_eq!(world.state(), "connecting");
}

#[test]
fn tr_2_a_syn_ack_is_repeated_with_growing_pauses_and_given_up() {
    let mut world = World::new();
    world.rx(SYN, 0, 0, b"");
    let first = world.connect();
    let sent = world.pass(Duration::from_secs(400));
    let (last, repeated) = sent.split_last().expect("repetitions");
    assert!(repeated.len() >= 6);
    assert!(repeated.iter().all(|seg| seg.brief() == first.brief() && seg.options == first.options));
    let times: Vec<_> = std::iter::once(&first).chain(repeated).map(|seg| seg.at).collect();
    let pauses: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 32], "RFC 6298 5.5");
    assert!(pauses.iter().all(|pause| *pause <= 60));
    assert_eq!(last.flags, RST | ACK, "at last it is given up");
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_2_a_host_that_never_answers_is_given_up() {
    let mut world = World::new();
    world.rx(SYN, 0, 0, b"");
    let sent = world.pass(Duration::from_secs(301));
    assert_eq!(sent.iter().map(|seg| seg.flags).collect::<Vec<_>>(), [RST | ACK]);
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_7_options_are_agreed_on_by_the_rules() {
    // MSS: ours is what the LAN carries; scaling and timestamps only if asked for.
    let mut world = World::new();
    world.rx(SYN, 0, 0, b"");
    assert_eq!(world.connect().options, [2, 4, 5, 180]);

    let mut world = World::new();
    world.rx_with(SYN, 0, 0, b"", &[2, 4, 5, 180, 3, 3, 7, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0]);
    let syn_ack = world.connect();
    assert_eq!(syn_ack.window, 0xffff, "the window of a SYN is not scaled");
    assert_eq!(syn_ack.options[..8], [2, 4, 5, 180, 1, 3, 3, 5]);
    assert_eq!(syn_ack.timestamp().map(|(_, echo)| echo), Some(9));

    for (mss, expected) in [(vec![], 536), (vec![2, 4, 2, 0], 512), (vec![2, 4, 0xff, 0xff], 1_460)] {
        let mut world = World::established_with(&mss);
        let sent = tcp(world.incoming(&[7; 4_000]));
        assert_eq!(sent[0].gso, Some(expected), "{mss:?}");
    }
}

#[test]
fn tr_7_a_window_scale_above_fourteen_counts_as_fourteen() {
    let mut world = World::established_with(&[3, 3, 200]);
    world.window = 1;
    world.rx(ACK, 1, 1, b"");
    let sent = tcp(world.incoming(&[7; 40_000]));
    assert_eq!(sent.iter().map(|seg| seg.payload.len()).sum::<usize>(), (1 << 14) / 536 * 536);
}

#[test]
fn tr_7_timestamps_stand_in_every_segment_but_a_reset() {
    let mut world = World::new();
    world.options = vec![1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0];
    world.rx(SYN, 0, 0, b"");
    let syn_ack = world.connect();
    world.options[7] = 20;
    world.rx(ACK, 1, 1, b"");
    world.now = world.now + Duration::from_millis(50);
    let mut sent = world.rx(ACK, 1, 1, b"hello");
    sent.extend(world.incoming(b"answer"));
    sent.extend(world.end());
    for seg in tcp(sent) {
        let (value, echo) = seg.timestamp().expect("a timestamp");
        assert_eq!((value - syn_ack.timestamp().expect("one here, too").0, echo), (50, 20));
    }
    world.host().broken = true;
    let sent = tcp(world.event(Readiness { error: true, ..Readiness::default() }));
    assert_eq!((sent[0].flags, sent[0].timestamp()), (RST | ACK, None));
}

#[test]
fn tr_8_unknown_options_and_ecn_keep_nobody_from_connecting() {
    let table: [(u8, &[u8]); 6] = [
        (SYN | 0xc0, &[]),
        (SYN, &[34, 2]),
        (SYN, &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8]),
        (SYN, &[30, 12, 0, 0x81, 1, 2, 3, 4, 5, 6, 7, 8]),
        (SYN, &[253, 4, 1, 2, 254, 2]),
        (SYN, &[4, 2, 1, 1, 19, 18, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    ];
    for (flags, options) in table {
        let mut world = World::new();
        assert_eq!(world.rx_with(flags, 0, 0, b"", options), []);
        let syn_ack = world.connect();
        assert_eq!((syn_ack.brief(), syn_ack.flags), ((SYN | ACK, 0, 1, 0), SYN | ACK), "{options:?}");
        assert_eq!(world.rx(ACK, 1, 1, b"hello").len(), 1);
        assert_eq!(world.host().written, b"hello");
    }
}

#[test]
fn tr_8_data_in_the_syn_is_taken_when_it_is_repeated() {
    let mut world = World::new();
    assert_eq!(world.rx(SYN, 0, 0, b"early"), []);
    assert_eq!(world.connect().brief(), (SYN | ACK, 0, 1, 0), "the data is not acknowledged");
    world.rx(ACK, 1, 1, b"early");
    assert_eq!(world.host().written, b"early");
}

#[test]
fn tr_8_malformed_options_are_dropped_by_name() {
    for options in [&[2u8, 0, 1, 1][..], &[2, 1, 1, 1], &[8, 20, 1, 1], &[1, 1, 1, 3]] {
        let mut world = World::new();
        world.options = options.to_vec();
        assert_eq!(world.verdict(SYN, 0, 0, b"").0, Some(DropReason::TcpBadOption), "{options:?}");
        assert_eq!(world.relay.len(), 0);
    }
}

#[test]
fn tr_9_a_segment_of_another_connection_does_not_break_one_that_begins() {
    let mut world = World::new();
    world.rx(SYN, 0, 0, b"");
    world.connect();
    // An acknowledgement of what was never sent gets a reset of its own (RFC 9293 3.10.7.4).
    for ack in [0, 2, 70_000, u32::MAX] {
        let sent = tcp(world.rx(ACK, 1, ack, b""));
        assert_eq!(sent.iter().map(|seg| (seg.flags, seg.seq)).collect::<Vec<_>>(), [(RST, ack)]);
    }
    assert_eq!(world.rx(ACK, 1, 1, b""), []);
    assert_eq!(world.state(), "established");
}

#[test]
fn tr_10_a_segment_out_of_the_blue_is_reset_with_numbers_that_fit() {
    let mut world = World::new();
    let sent = tcp(world.rx(ACK, 500, 700, b"data"));
    assert_eq!(sent.iter().map(|seg| (seg.flags, seg.seq)).collect::<Vec<_>>(), [(RST, 700)]);
    let sent = tcp(world.rx(FIN, 500, 0, b"data"));
    assert_eq!(sent.iter().map(|seg| (seg.flags, seg.seq, seg.ack)).collect::<Vec<_>>(), [(RST | ACK, 0, 505)]);
    assert_eq!(world.rx(RST, 500, 0, b""), [], "a reset is never answered");
    assert_eq!(world.rx(RST | ACK, 500, 1, b""), []);
    assert_eq!(world.relay.host().opened.len(), 0);
}

#[test]
fn tr_12_initial_numbers_differ_by_tuple_and_follow_the_clock() {
    let mut world = World::new();
    let mut numbers = Vec::new();
    for port in 0..50 {
        world.iss = 0;
        world.src_port = 40_000 + port;
        world.rx(SYN, 0, 0, b"");
        world.connect();
        numbers.push(world.iss);
        world.rx(RST, 1, 0, b"");
    }
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), numbers.len());
    assert!(sorted.last().zip(sorted.first()).is_some_and(|(last, first)| last - first > 1 << 30), "they are spread");
    // The same tuple a second later: 250 000 further on, one each four microseconds (RFC 6528 3).
    world.now = world.now + SECOND;
    let before = world.iss;
    world.iss = 0;
    world.rx(SYN, 0, 0, b"");
    world.connect();
    assert_eq!(world.iss.wrapping_sub(before), 250_000);
}
