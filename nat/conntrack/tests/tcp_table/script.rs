//! Transcripts: one line per segment, with the state after it.

use tapswitch_conntrack::Direction;
use tapswitch_conntrack::tcp::{Change, Lifetime, Segment, State, Tracker, flag};

pub const O: Direction = Direction::Original;
pub const R: Direction = Direction::Reply;

pub const FIN: u8 = flag::FIN;
pub const SYN: u8 = flag::SYN;
pub const RST: u8 = flag::RST;
pub const ACK: u8 = flag::ACK;

pub const SYN_SENT: State = State::SynSent;
pub const SYN_RECEIVED: State = State::SynReceived;
pub const PICKED_UP: State = State::PickedUp;
pub const ESTABLISHED: State = State::Established;
pub const CLOSING: State = State::Closing;
pub const TIME_WAIT: State = State::TimeWait;
pub const RESET: State = State::Reset;
pub const ORIGINAL_FIN: State = State::FinWait(O);
pub const REPLY_FIN: State = State::FinWait(R);

/// A line: direction, flags, sequence number, acknowledgement, payload bytes, state afterwards. The window is 10 000.
pub type Line = (Direction, u8, u32, u32, u32, State);

/// A segment with a window of 10 000 and no options.
pub fn segment(flags: u8, seq: u32, ack: u32, len: u32) -> Segment {
    Segment { flags, seq, ack, window: 10_000, len, scale: None }
}

/// A handshake from 100 (original) and 500 (reply): the next numbers are 101 and 501.
pub const HANDSHAKE: [Line; 3] =
    [(O, SYN, 100, 0, 0, SYN_SENT), (R, SYN | ACK, 500, 101, 0, SYN_RECEIVED), (O, ACK, 101, 501, 0, ESTABLISHED)];

/// Plays lines and checks the state after each, what the change says of it, and that no number is special: the same
/// lines with all numbers shifted give the same states, also across the wrap.
pub fn play(lines: &[Line]) -> Tracker {
    for shift in [0x8000_0000, 0xffff_ff9c, 0xffff_fe0c, 0x7fff_ff9b] {
        run(lines, shift, shift);
        run(lines, shift, 12_345);
    }
    run(lines, 0, 0)
}

fn run(lines: &[Line], original: u32, reply: u32) -> Tracker {
    let mut tracker = None;
    for (number, &(direction, flags, seq, ack, len, state)) in lines.iter().enumerate() {
        let (own, other) = if direction == O { (original, reply) } else { (reply, original) };
        let ack = if flags & ACK == 0 { 0 } else { ack.wrapping_add(other) };
        let segment = segment(flags, seq.wrapping_add(own), ack, len);
        take(&mut tracker, direction, &segment, &format!("line {number}, shifted by {original:#x} and {reply:#x}"));
        let now = tracker.as_ref().map(Tracker::state);
        assert_eq!(now, Some(state), "line {number}, shifted by {original:#x} and {reply:#x}: {segment:?}");
    }
    tracker.expect("a transcript has lines")
}

/// Takes one segment, which may be the first, and holds the change against what changed.
pub fn take(tracker: &mut Option<Tracker>, direction: Direction, segment: &Segment, place: &str) -> Change {
    let Some(tracker) = tracker else {
        *tracker = Some(Tracker::open(segment));
        return Change::None;
    };
    let before = tracker.lifetime();
    let change = tracker.step(direction, segment);
    match change {
        Change::None => assert_eq!(tracker.lifetime(), before, "{place}: a change of timer is told"),
        Change::Lifetime(lifetime) => {
            assert_ne!(lifetime, before, "{place}: nothing changed");
            assert_eq!(lifetime, tracker.lifetime(), "{place}");
        }
        Change::Restarted => assert_eq!(tracker.lifetime(), Lifetime::Transitory, "{place}"),
    }
    assert_eq!(tracker.is_closed(), matches!(tracker.state(), State::TimeWait | State::Reset), "{place}");
    change
}
