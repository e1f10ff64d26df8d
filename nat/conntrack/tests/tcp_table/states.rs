//! Every state, kind of segment, direction and place relative to the window.
//!
//! The specification below is written from RFC 9293 3.10.7, RFC 5961 3 to 5, RFC 7857 2.2 and the tracker's own
//! decisions on what lies between; it knows nothing of how the tracker computes.

use tapswitch_conntrack::Direction;
use tapswitch_conntrack::tcp::{Change, Lifetime, State, Tracker};

use super::script::*;

/// Where a segment lies, seen from the number that its receiver expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Exact,
    Inside,
    /// One before the expected number.
    Left,
    /// One beyond the edge of the window.
    Right,
    /// A quarter of all numbers and more behind.
    Far,
}

use Place::*;

const PLACES: [Place; 5] = [Exact, Inside, Left, Right, Far];
const KINDS: [u8; 7] = [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK, 0];

/// A named state: how it came about, and by direction the expected number and the edge of the window.
struct Fixture {
    lines: &'static [Line],
    expected: [u32; 2],
    edge: [u32; 2],
}

const NEAR: u32 = 1 << 30;

fn fixtures() -> Vec<Fixture> {
    let mut all = vec![
        // The reply's sequence numbers are unknown.
        Fixture { lines: &[(O, SYN, 100, 0, 0, SYN_SENT)], expected: [101, 501], edge: [10_101, 10_501] },
        Fixture { lines: &HANDSHAKE[..2], expected: [101, 501], edge: [10_101, 10_501] },
        // No window is known, so the roughest is taken.
        Fixture { lines: &[(O, ACK, 101, 501, 0, PICKED_UP)], expected: [101, 501], edge: [101 + NEAR, 501 + NEAR] },
        Fixture { lines: &HANDSHAKE, expected: [101, 501], edge: [10_101, 10_501] },
    ];
    let after_handshake: [(&[Line], [u32; 2], [u32; 2]); 5] = [
        (&[(O, FIN | ACK, 101, 501, 0, ORIGINAL_FIN)], [102, 501], [10_101, 10_501]),
        (&[(R, FIN | ACK, 501, 101, 0, REPLY_FIN)], [101, 502], [10_101, 10_501]),
        // Only the reply's FIN is not acknowledged.
        (
            &[(O, FIN | ACK, 101, 501, 0, ORIGINAL_FIN), (R, FIN | ACK, 501, 102, 0, CLOSING)],
            [102, 502],
            [10_102, 10_501],
        ),
        (
            &[
                (O, FIN | ACK, 101, 501, 0, ORIGINAL_FIN),
                (R, FIN | ACK, 501, 102, 0, CLOSING),
                (O, ACK, 102, 502, 0, TIME_WAIT),
            ],
            [102, 502],
            [10_102, 10_502],
        ),
        (&[(O, RST, 101, 0, 0, RESET)], [101, 501], [10_101, 10_501]),
    ];
    for (more, expected, edge) in after_handshake {
        let lines = [&HANDSHAKE[..], more].concat().leak();
        all.push(Fixture { lines, expected, edge });
    }
    all
}

/// The next state.
fn specification(state: State, direction: Direction, kind: u8, place: Place) -> State {
    let is_reset = kind & RST != 0;
    let is_open_syn = kind == SYN;
    match (state, direction) {
        // The opener may abort. What it says of a connection that is not there means nothing.
        (State::SynSent, O) if is_reset && place == Exact => RESET,
        (State::SynSent, O) => SYN_SENT,
        // A crossing SYN is believed, whatever its number. Else the acknowledgement counts: that is what is placed.
        (State::SynSent, R) if is_open_syn => SYN_RECEIVED,
        (State::SynSent, R) if place != Exact => SYN_SENT,
        (State::SynSent, R) if kind == SYN | ACK => SYN_RECEIVED,
        (State::SynSent, R) if kind == RST | ACK => RESET,
        (State::SynSent, R) => SYN_SENT,

        (State::SynReceived, _) if is_reset && place == Exact => RESET,
        (State::SynReceived, O) if kind == ACK && matches!(place, Exact | Inside) => ESTABLISHED,
        (State::SynReceived, O) if kind == FIN | ACK && place == Exact => ORIGINAL_FIN,
        (State::SynReceived, O) if kind == FIN | ACK && place == Inside => ESTABLISHED,
        // Nothing new, but it acknowledges.
        (State::SynReceived, O) if kind == FIN | ACK && place == Left => ESTABLISHED,
        // The SYN once more, with an acknowledgement: the opener saw a simultaneous open.
        (State::SynReceived, O) if kind == SYN | ACK && place == Left => ESTABLISHED,
        (State::SynReceived, _) => SYN_RECEIVED,

        (State::PickedUp, _) if is_reset && matches!(place, Exact | Inside | Left) => RESET,
        (State::PickedUp, R) if kind == ACK && matches!(place, Exact | Inside | Left) => ESTABLISHED,
        (State::PickedUp, R) if kind == FIN | ACK && matches!(place, Exact | Inside | Left) => REPLY_FIN,
        (State::PickedUp, _) => PICKED_UP,

        (State::Established | State::FinWait(_), _) if is_reset && place == Exact => RESET,
        // The side that has sent its FIN may well have aborted before: its peer still expects the number of the FIN.
        (State::FinWait(side), _) if is_reset && place == Left && side == direction => RESET,
        (State::Established, _) if kind == FIN | ACK && place == Exact => State::FinWait(direction),
        // The FIN acknowledges the other, but is not acknowledged itself.
        (State::FinWait(side), _) if kind == FIN | ACK && place == Exact && side != direction => CLOSING,
        (State::Established | State::FinWait(_), _) => state,

        (State::Closing, _) if is_reset && matches!(place, Exact | Inside) => RESET,
        // So far the original side has acknowledged everything but the FIN.
        (State::Closing, R) if is_reset && place == Left => RESET,
        (State::Closing, O) if kind == ACK && place == Exact => TIME_WAIT,
        // The FIN repeated, now with the other's acknowledged.
        (State::Closing, O) if kind == FIN | ACK && place == Left => TIME_WAIT,
        (State::Closing, _) => CLOSING,

        (State::TimeWait, _) if is_reset && matches!(place, Exact | Inside) => RESET,
        (State::TimeWait, _) if is_open_syn && matches!(place, Exact | Inside | Right) => SYN_SENT,
        (State::TimeWait, _) => TIME_WAIT,

        (State::Reset, _) if is_open_syn => SYN_SENT,
        (State::Reset, _) => RESET,
    }
}

fn all() -> impl Iterator<Item = (Tracker, Fixture, Direction, u8, Place)> {
    fixtures().into_iter().flat_map(|fixture| {
        let tracker = play(fixture.lines);
        let Fixture { lines, expected, edge } = fixture;
        [O, R].into_iter().flat_map(move |direction| {
            KINDS.into_iter().flat_map(move |kind| {
                PLACES
                    .into_iter()
                    .map(move |place| (tracker, Fixture { lines, expected, edge }, direction, kind, place))
            })
        })
    })
}

#[test]
fn nt_6_every_segment_in_every_state_does_what_the_table_says() {
    let mut count = 0;
    for (mut tracker, fixture, direction, kind, place) in all() {
        let (own, other) = (direction as usize, direction.other() as usize);
        let placed = |expected: u32, edge: u32| match place {
            Exact => expected,
            Inside => expected + 1000,
            Left => expected - 1,
            Right => edge + 1,
            Far => expected.wrapping_sub(NEAR + 12_345),
        };
        let before = tracker.state();
        let (mut seq, mut ack) = (placed(fixture.expected[own], fixture.edge[own]), fixture.expected[other]);
        if before == SYN_SENT && direction == R {
            (seq, ack) = (500, placed(fixture.expected[O as usize], fixture.edge[O as usize]));
        }
        let change = tracker.step(direction, &segment(kind, seq, ack, 0));
        let after = specification(before, direction, kind, place);
        let what = format!("{before:?}, flags {kind:#04x}, {direction:?}, {place:?}");
        assert_eq!(tracker.state(), after, "{what}");
        let expected = match (before, after) {
            (State::TimeWait | State::Reset, State::SynSent) => Change::Restarted,
            _ if before.lifetime() != after.lifetime() => Change::Lifetime(after.lifetime()),
            _ => Change::None,
        };
        assert_eq!(change, expected, "{what}");
        count += 1;
    }
    assert_eq!(count, 9 * 2 * 7 * 5, "all states, the two sides of fin-wait apart");
}

#[test]
fn nt_4_states_have_the_timer_that_rfc_5382_gives_them() {
    let table = [
        (SYN_SENT, "syn-sent", Lifetime::Transitory, false),
        (SYN_RECEIVED, "syn-received", Lifetime::Transitory, false),
        (PICKED_UP, "picked-up", Lifetime::Transitory, false),
        (ESTABLISHED, "established", Lifetime::Established, false),
        (ORIGINAL_FIN, "fin-wait", Lifetime::Established, false),
        (REPLY_FIN, "fin-wait", Lifetime::Established, false),
        (CLOSING, "closing", Lifetime::Transitory, false),
        (TIME_WAIT, "time-wait", Lifetime::Transitory, true),
        (RESET, "reset", Lifetime::Transitory, true),
    ];
    for (fixture, (state, name, lifetime, is_closed)) in fixtures().iter().zip(table) {
        let tracker = play(fixture.lines);
        assert_eq!((tracker.state(), tracker.state().name()), (state, name));
        assert_eq!((tracker.lifetime(), tracker.is_closed()), (lifetime, is_closed), "{name}");
    }
}
