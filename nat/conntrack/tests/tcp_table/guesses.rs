//! What somebody off the path can do, and segments without any sense.

use proptest::prelude::*;
use tapswitch_conntrack::Direction;
use tapswitch_conntrack::tcp::{Change, Segment, Tracker};

use super::script::*;

fn direction() -> impl Strategy<Value = Direction> {
    prop::bool::ANY.prop_map(|reply| if reply { R } else { O })
}

/// A guess: any flags, and numbers that are far off, near or in the window of a connection at 101 and 501, but not the
/// expected ones.
fn guess() -> impl Strategy<Value = (Direction, Segment)> {
    let number =
        || prop_oneof![any::<u32>(), 0..20_000_u32, 90..110_u32, 490..520_u32, any::<i16>().prop_map(|n| n as u32)];
    let flags = prop::sample::select(vec![SYN, SYN | ACK, ACK, FIN | ACK, FIN, RST, RST | ACK, 0, 0xff]);
    let len = prop_oneof![Just(0_u32), Just(1), 0..1_460_u32, 0..65_535_u32];
    (direction(), flags, number(), number(), any::<u16>(), len, prop::option::of(any::<u8>())).prop_filter_map(
        "not exact",
        |(direction, flags, seq, ack, window, len, scale)| {
            let expected: u32 = if direction == O { 101 } else { 501 };
            // A segment that covers the expected byte is believed by an endpoint, too.
            let is_exact = expected.wrapping_sub(seq) <= len;
            (!is_exact).then_some((direction, Segment { flags, seq, ack, window, len, scale }))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nt_6_guesses_from_off_the_path_change_nothing(
        forged in direction(),
        guesses in prop::collection::vec(guess(), 1..400),
    ) {
        let mut tracker = play(&HANDSHAKE);
        for (direction, segment) in guesses {
            // Whoever is off the path can forge one side only: the other is on ours.
            if direction != forged {
                continue;
            }
            prop_assert_eq!(tracker.step(direction, &segment), Change::None, "{:?} {:?}", direction, segment);
            prop_assert_eq!(tracker.state(), ESTABLISHED);
        }
        // The connection goes on, and its real end is still seen.
        for (direction, flags, seq, ack, len, state) in [
            (O, ACK, 101, 501, 100, ESTABLISHED),
            (R, ACK, 501, 201, 100, ESTABLISHED),
            (O, ACK, 201, 601, 0, ESTABLISHED),
        ] {
            tracker.step(direction, &segment(flags, seq, ack, len));
            prop_assert_eq!(tracker.state(), state);
        }
        let mut reset = tracker;
        reset.step(O, &segment(RST, 201, 0, 0));
        prop_assert_eq!(reset.state(), RESET);
    }

    /// One that can be a neighbour only in part: the sender's numbers are guessed in the window again and again, each
    /// followed by a RST where the guess would have led.
    #[test]
    fn nt_6_a_guess_in_the_window_does_not_make_the_next_one_exact(
        guesses in prop::collection::vec((1..9_000_u32, 1..2_000_u32, prop::bool::ANY), 1..200),
    ) {
        let mut tracker = play(&HANDSHAKE);
        for (ahead, len, is_fin) in guesses {
            let flags = if is_fin { FIN | ACK } else { ACK };
            let end = 101 + ahead + len + u32::from(is_fin);
            tracker.step(O, &segment(flags, 101 + ahead, 501, len));
            tracker.step(O, &segment(RST, end, 0, 0));
            tracker.step(O, &segment(FIN | ACK, end, 501, 0));
            prop_assert_eq!(tracker.state(), ESTABLISHED);
        }
    }

    #[test]
    fn any_segments_in_any_order_are_taken(
        first in any::<(u8, u32, u32, u16, u32, Option<u8>)>(),
        rest in prop::collection::vec((direction(), any::<(u8, u32, u32, u16, u32, Option<u8>)>(), 0..6_u8), 0..200),
    ) {
        let make = |(flags, seq, ack, window, len, scale)| Segment { flags, seq, ack, window, len, scale };
        let mut tracker = Some(Tracker::open(&make(first)));
        let mut last = [make(first); 2];
        for (direction, parts, kin) in rest {
            let mut segment = make(parts);
            let (own, other) = (last[direction as usize], last[direction.other() as usize]);
            // Most are related to what was said before, else nothing would be believed.
            if kin > 0 {
                segment.seq = own.seq.wrapping_add(own.len).wrapping_add(parts.1 % 3);
                segment.ack = other.seq.wrapping_add(other.len).wrapping_add(parts.2 % 3);
                segment.len %= 3;
            }
            take(&mut tracker, direction, &segment, "nonsense");
            last[direction as usize] = segment;
        }
    }

    /// No sequence number is special.
    #[test]
    fn nt_8_shifted_numbers_give_the_same_states(
        lines in prop::collection::vec((direction(), 0..32_u8, 0..6_u32, 0..6_u32, 0..3_u32), 1..60),
        shifts in any::<[u32; 2]>(),
    ) {
        let states = |shifts: [u32; 2]| {
            let mut tracker = None;
            lines.iter().map(|&(direction, flags, seq, ack, len)| {
                let direction = if tracker.is_none() { O } else { direction };
                let seq = (100 + seq).wrapping_add(shifts[direction as usize]);
                let ack = (100 + ack).wrapping_add(shifts[direction.other() as usize]);
                let ack = if flags & ACK == 0 { 0 } else { ack };
                let change = take(&mut tracker, direction, &segment(flags, seq, ack, len), "shifted");
                (change, tracker.map(|tracker| tracker.state()))
            }).collect::<Vec<_>>()
        };
        prop_assert_eq!(states([1 << 31, 1 << 31]), states(shifts));
    }
}
