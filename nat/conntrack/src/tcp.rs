//! The TCP tracker: what state a connection is in, seen from the middle.
//!
//! # Theory of operation
//!
//! The tracker hears every segment of one connection and answers two questions: which timer the session deserves, and
//! whether the connection is over. It never causes a drop. A segment that an endpoint would refuse passes as well, it
//! just changes nothing here: the tracker is never stricter than the endpoints, and never easier to fool.
//!
//! **Two records.** Each side has four sequence numbers (`Side`): what it sent without a gap, what it sent at all, what
//! it acknowledged, and the edge of the window it offered. A segment moves them only if it is plausible: inside the
//! window that the other side offered, with an acknowledgement of something that was sent (RFC 9293 3.10.7.4, RFC 5961
//! 5). The scale of windows counts only if both SYNs offered one (RFC 7323 2.2); no window is beyond 2^30.
//!
//! **RST** (RFC 5961 3, RFC 7857 2.2) is believed if its sequence number is exactly what the receiver expects. From the
//! middle, two numbers may be that: the receiver's last acknowledgement, and the end of what the sender sent without a
//! gap. Once both sides have sent a FIN, any number in the window will do; nothing is left to lose. In a connection
//! picked up in mid-stream whose other side has not been heard, any number within 2^30 will do. A RST that answers a
//! SYN is known by its acknowledgement. After a RST the session keeps the transitory timer (X4: four minutes), and if
//! *both* sides then go on with plausible segments, the RST was not believed and the connection is what it was.
//!
//! **SYN in an open connection** changes nothing by itself (RFC 5961 4), but it is remembered (the *candidate*). The
//! other side's answer decides: an ACK means that it holds on to the old connection, a SYN-ACK of the candidate means
//! that it has accepted a new one, a RST of the candidate that it has none. A plausible segment from the candidate's
//! own side means that the SYN was forged or late. So a host that has forgotten a connection, or a TIME-WAIT that takes a
//! SYN by its timestamp (RFC 6191), is followed, and a guess off the path is not.
//!
//! **FIN** counts when everything before it has been seen or acknowledged, so one guessed into the window, ahead of the
//! data, closes nothing.
//!
//! **Limits.** A first fragment counts with the bytes it holds. No timestamps are read. One candidate is kept, the
//! newest. A candidate's SYN counts as offering a window of 65 535 bytes.

mod segment;
mod side;

use serde::Serialize;

use crate::Direction;
use segment::{MAX_SCALE, after, earliest, latest};
pub use segment::{Segment, flag};
use side::Side;

/// The state of a connection, as the segments that passed tell it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// One side has sent a SYN. A SYN-ACK or a crossing SYN of the other leads to [`State::SynReceived`], a RST that
    /// acknowledges the SYN to [`State::Reset`]. Nothing else is believed.
    SynSent,
    /// Both sides have sent a SYN. When each has acknowledged the other's: [`State::Established`].
    SynReceived,
    /// The first segment was no SYN, and the other side has not answered yet; windows are unknown. Its first plausible
    /// segment with an acknowledgement leads to [`State::Established`].
    PickedUp,
    /// Data may flow both ways. A FIN leads to [`State::FinWait`].
    Established,
    /// The side whose segments go in this direction has sent a FIN; data may flow the other way for as long as it
    /// likes. The other's FIN leads to [`State::Closing`] or [`State::TimeWait`].
    FinWait(Direction),
    /// Both sides have sent a FIN, and at least one is not acknowledged. When both are: [`State::TimeWait`].
    Closing,
    /// Both FINs are acknowledged. A SYN beyond the last sequence number of its side restarts at [`State::SynSent`].
    TimeWait,
    /// A RST was believed. Any SYN restarts at [`State::SynSent`]; plausible segments from both sides lead back to the
    /// state that their FINs tell.
    Reset,
}

impl State {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            State::SynSent => "syn-sent",
            State::SynReceived => "syn-received",
            State::PickedUp => "picked-up",
            State::Established => "established",
            State::FinWait(_) => "fin-wait",
            State::Closing => "closing",
            State::TimeWait => "time-wait",
            State::Reset => "reset",
        }
    }

    /// The timer class of a session in this state.
    pub const fn lifetime(self) -> Lifetime {
        match self {
            State::Established | State::FinWait(_) => Lifetime::Established,
            State::SynSent | State::SynReceived | State::PickedUp => Lifetime::Transitory,
            State::Closing | State::TimeWait | State::Reset => Lifetime::Transitory,
        }
    }
}

/// Which idle timer applies (RFC 5382 REQ-5, RFC 7857 2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifetime {
    /// Half-open, closing, closed or reset: never below 240 s.
    Transitory,
    /// Open, or closed by one side only (as RFC 6146 3.5.2.2): never below 7440 s.
    Established,
}

/// What a segment did, as far as the session's owner must act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing to do beyond refreshing the timer.
    None,
    /// The timer class is another now; the new deadline may be earlier than the old one.
    Lifetime(Lifetime),
    /// A new connection took the place of the old one, at its beginning: the transitory timer applies, and what was
    /// kept of the old connection is void.
    Restarted,
}

/// The tracker of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracker {
    /// By direction.
    sides: [Side; 2],
    /// The sequence number of the candidate; meaningless without [`CANDIDATE`].
    candidate: u32,
    state: State,
    /// The shift of each side's window: four bits each, [`NO_SCALE`] until negotiated if the SYN offered none.
    scales: u8,
    /// The shift that the candidate offered.
    candidate_scale: u8,
    /// Bits of the constants below.
    marks: u8,
}

const _: () = assert!(size_of::<Tracker>() <= 40);

/// `FIN << direction`: `sent` of this side ends with a FIN. It counts once `next` has come up to it.
const FIN: u8 = 1;
/// `HEARD << direction`: in syn-received, this side has acknowledged the other's SYN; in reset, it has sent a plausible
/// segment since; when picked up, it has acknowledged something.
const HEARD: u8 = 1 << 2;
/// `UNSEEN << direction`: nothing is known of this side but what the other acknowledged.
const UNSEEN: u8 = 1 << 4;
/// There is a candidate.
const CANDIDATE: u8 = 1 << 6;
/// The candidate came in the reply direction.
const CANDIDATE_REPLY: u8 = 1 << 7;

/// In [`Tracker::scales`]: the SYN had no such option.
const NO_SCALE: u8 = 15;
/// How far off a sequence number may be where nothing is known: the largest window (RFC 7323 2.3).
const ROUGH: u32 = 1 << 30;
/// A late duplicate of the handshake is at most this far behind.
const LATE: u32 = 1 << 24;
/// How much an answer may acknowledge of a candidate whose length is not kept: the SYN and one Ethernet packet of data.
const SYN_REACH: u32 = 1 + 1460;

const fn mark(kind: u8, direction: Direction) -> u8 {
    kind << direction as u8
}

impl Tracker {
    /// Begins with the first segment, whose direction is the original one. Anything but a SYN is picked up in
    /// mid-stream, a RST included: it is the end of a connection that was never seen.
    pub fn open(first: &Segment) -> Tracker {
        if first.flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN {
            return Tracker::begin(Direction::Original, first);
        }
        let end = first.end();
        let mut marks = mark(UNSEEN, Direction::Reply);
        let mut sides = [Side { next: end, sent: end, ..Side::default() }, Side::default()];
        sides[1].ack = first.seq;
        sides[1].edge = end.wrapping_add(ROUGH);
        if first.has(flag::ACK) {
            marks |= mark(HEARD, Direction::Original);
            sides[0].ack = first.ack;
            sides[0].edge = first.ack.wrapping_add(u32::from(first.window) << MAX_SCALE);
            (sides[1].next, sides[1].sent) = (first.ack, first.ack);
        }
        if first.is_fin() {
            marks |= mark(FIN, Direction::Original);
        }
        let state = if first.has(flag::RST) { State::Reset } else { State::PickedUp };
        // The real scales are unknown: the largest makes the window too wide rather than too narrow.
        Tracker { sides, candidate: 0, state, scales: MAX_SCALE | MAX_SCALE << 4, candidate_scale: 0, marks }
    }

    /// Begins with a SYN.
    fn begin(direction: Direction, syn: &Segment) -> Tracker {
        let end = syn.end();
        let mut tracker = Tracker {
            sides: [Side::default(); 2],
            candidate: 0,
            state: State::SynSent,
            scales: NO_SCALE | NO_SCALE << 4,
            candidate_scale: 0,
            marks: mark(UNSEEN, direction.other()),
        };
        tracker.offer(direction, syn);
        // What the window is an offer on top of is not known yet: the edge is the bare window until then.
        tracker.sides[direction as usize] = Side { next: end, sent: end, ack: 0, edge: u32::from(syn.window) };
        // The initial sequence number is the first thing not acknowledged.
        tracker.sides[direction.other() as usize] = Side { ack: syn.seq, edge: end, ..Side::default() };
        tracker
    }

    /// Takes one segment that passes in this direction.
    #[inline]
    pub fn step(&mut self, direction: Direction, segment: &Segment) -> Change {
        let flags = segment.flags & (flag::SYN | flag::FIN | flag::RST | flag::ACK);
        if flags == flag::ACK && self.state == State::Established && self.marks == 0 {
            self.record(direction, segment);
            return Change::None;
        }
        self.step_slowly(direction, segment)
    }

    /// Where the connection stands.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// The timer class of the session.
    #[inline]
    pub fn lifetime(&self) -> Lifetime {
        self.state.lifetime()
    }

    /// Whether the connection is over, both FINs acknowledged or reset, so that a new SYN may restart it.
    #[inline]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::TimeWait | State::Reset)
    }

    /// Whether the sequence number that an ICMP error quotes of a segment in this direction lies in what that side has
    /// sent and the other has not acknowledged (RFC 5927 4.1). The end counts too, where empty segments stand. True if
    /// unknown, that is until both sides of a connection picked up in mid-stream were seen.
    pub fn in_flight(&self, direction: Direction, seq: u32) -> bool {
        let (sender, receiver) = (&self.sides[direction as usize], &self.sides[direction.other() as usize]);
        if self.candidate_from(direction) == Some(seq) {
            return true;
        }
        if self.is_unseen() && self.state != State::SynSent {
            return true;
        }
        !self.is_marked(UNSEEN, direction) && seq.wrapping_sub(receiver.ack) <= sender.sent.wrapping_sub(receiver.ack)
    }

    #[inline]
    fn is_marked(&self, kind: u8, direction: Direction) -> bool {
        self.marks & mark(kind, direction) != 0
    }

    fn is_unseen(&self) -> bool {
        self.marks & (UNSEEN | UNSEEN << 1) != 0
    }

    #[inline]
    fn pair(&mut self, direction: Direction) -> (&mut Side, &mut Side) {
        let [original, reply] = &mut self.sides;
        match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        }
    }

    #[inline]
    fn scale(&self, direction: Direction) -> u8 {
        (self.scales >> (4 * direction as u8)) & 0x0f
    }

    /// Notes the window scale that a SYN offers. One that offers none leaves an earlier offer alone: a host may repeat
    /// its SYN without options, and the answer tells which one was taken.
    fn offer(&mut self, direction: Direction, syn: &Segment) {
        let shift = 4 * direction as u8;
        if let Some(scale) = syn.scale {
            self.scales = self.scales & !(0x0f << shift) | scale.min(MAX_SCALE) << shift;
        }
    }

    /// Records a plausible segment, which is no SYN.
    #[inline]
    fn record(&mut self, direction: Direction, segment: &Segment) -> bool {
        let shift = self.scale(direction);
        let (sender, receiver) = self.pair(direction);
        sender.record(receiver, segment, shift)
    }

    #[inline(never)]
    fn step_slowly(&mut self, direction: Direction, segment: &Segment) -> Change {
        let before = self.lifetime();
        if segment.has(flag::RST) {
            if self.state != State::Reset && self.believes_reset(direction, segment) {
                self.state = State::Reset;
                // What was said before the RST is no sign of life.
                self.marks &= FIN | FIN << 1 | UNSEEN | UNSEEN << 1;
            }
        } else if segment.has(flag::SYN | flag::ACK) {
            if self.answer(direction, segment) {
                return Change::Restarted;
            }
        } else if segment.has(flag::SYN) {
            if self.synchronise(direction, segment) {
                return Change::Restarted;
            }
        } else {
            self.proceed(direction, segment);
        }
        match self.lifetime() {
            lifetime if lifetime == before => Change::None,
            lifetime => Change::Lifetime(lifetime),
        }
    }

    /// Whether the receiver of this RST would act on it.
    fn believes_reset(&self, direction: Direction, rst: &Segment) -> bool {
        let (sender, receiver) = (&self.sides[direction as usize], &self.sides[direction.other() as usize]);
        // A side that has not acknowledged the other's SYN has not told what it expects.
        let has_told = match self.state {
            State::SynSent | State::SynReceived => self.is_marked(HEARD, direction.other()),
            _ => true,
        };
        let is_exact = rst.seq == sender.next || has_told && rst.seq == receiver.ack;
        if self.answers_candidate(direction, rst) {
            return true;
        }
        match self.state {
            State::SynSent if self.is_marked(UNSEEN, direction) => self.answers_syn(direction, rst),
            State::PickedUp => {
                // Nothing at all is known of a side that was neither seen nor acknowledged.
                let is_known = !self.is_marked(UNSEEN, direction) || self.is_marked(HEARD, direction.other());
                !is_known || is_near(rst.seq, sender.next)
            }
            State::Closing | State::TimeWait => is_exact || receiver.admits(rst.seq, rst.seq),
            State::SynSent | State::SynReceived | State::Established | State::FinWait(_) => is_exact,
            State::Reset => false,
        }
    }

    /// Whether a segment acknowledges the SYN of the other side, of which nothing is acknowledged yet.
    fn answers_syn(&self, direction: Direction, segment: &Segment) -> bool {
        let first = self.sides[direction as usize].ack;
        let beyond = segment.ack.wrapping_sub(first);
        let sent = self.sides[direction.other() as usize].sent.wrapping_sub(first);
        segment.has(flag::ACK) && beyond >= 1 && beyond <= sent
    }

    /// The sequence number of the candidate if it came in this direction.
    fn candidate_from(&self, direction: Direction) -> Option<u32> {
        let is_reply = self.marks & CANDIDATE_REPLY != 0;
        let is_there = self.marks & CANDIDATE != 0 && is_reply == (direction == Direction::Reply);
        is_there.then_some(self.candidate)
    }

    fn forget_candidate(&mut self) {
        self.marks &= !(CANDIDATE | CANDIDATE_REPLY);
    }

    /// Whether a segment acknowledges the candidate of the other side.
    fn answers_candidate(&self, direction: Direction, segment: &Segment) -> bool {
        let Some(seq) = self.candidate_from(direction.other()) else { return false };
        segment.has(flag::ACK) && (1..=SYN_REACH).contains(&segment.ack.wrapping_sub(seq))
    }

    /// A SYN without ACK. Returns whether it restarts the connection.
    fn synchronise(&mut self, direction: Direction, syn: &Segment) -> bool {
        let (sender, receiver) = (&self.sides[direction as usize], &self.sides[direction.other() as usize]);
        match self.state {
            State::SynSent if self.is_marked(UNSEEN, direction) => self.cross(direction, syn),
            State::SynSent if syn.seq == receiver.ack => self.offer(direction, syn),
            // RFC 9293 3.10.7.4: beyond the largest sequence number used.
            State::TimeWait if !after(sender.next, syn.seq) => {
                *self = Tracker::begin(direction, syn);
                return true;
            }
            State::Reset => {
                *self = Tracker::begin(direction, syn);
                return true;
            }
            _ => {
                self.candidate = syn.seq;
                self.candidate_scale = syn.scale.map_or(NO_SCALE, |scale| scale.min(MAX_SCALE));
                self.forget_candidate();
                self.marks |= CANDIDATE | if direction == Direction::Reply { CANDIDATE_REPLY } else { 0 };
            }
        }
        false
    }

    /// A SYN-ACK. Returns whether it restarts the connection.
    fn answer(&mut self, direction: Direction, answer: &Segment) -> bool {
        if self.state == State::SynSent && self.is_marked(UNSEEN, direction) && self.answers_syn(direction, answer) {
            self.cross(direction, answer);
            self.forget_candidate();
            return false;
        }
        if self.answers_candidate(direction, answer) && !self.is_late_handshake(direction, answer) {
            let scale = (self.candidate_scale != NO_SCALE).then_some(self.candidate_scale);
            let syn = Segment { flags: flag::SYN, seq: self.candidate, ack: 0, window: u16::MAX, len: 0, scale };
            *self = Tracker::begin(direction.other(), &syn);
            self.cross(direction, answer);
            return true;
        }
        // In a simultaneous open each side answers with its own SYN once more.
        let first = self.sides[direction.other() as usize].ack;
        let first = first.wrapping_sub(u32::from(self.is_marked(HEARD, direction.other())));
        if self.state == State::SynReceived && answer.seq == first {
            // The window of a SYN is not scaled.
            let window = answer.window >> self.scale(direction);
            self.proceed(direction, &Segment { flags: flag::ACK, seq: first.wrapping_add(1), window, ..*answer });
        }
        false
    }

    /// The SYN or SYN-ACK of the side that had not been seen: now there are two.
    fn cross(&mut self, direction: Direction, syn: &Segment) {
        self.offer(direction, syn);
        if self.scale(Direction::Original) == NO_SCALE || self.scale(Direction::Reply) == NO_SCALE {
            self.scales = 0;
        }
        let end = syn.end();
        let (sender, opener) = self.pair(direction);
        opener.ack = syn.seq;
        opener.edge = opener.edge.wrapping_add(syn.seq).wrapping_add(1);
        (sender.next, sender.sent) = (end, end);
        // The opener's SYN is all that a crossing SYN could acknowledge.
        let mut base = sender.ack.wrapping_add(1);
        if syn.has(flag::ACK) {
            base = syn.ack;
            sender.ack = base;
            opener.next = latest(opener.next, base);
            opener.sent = latest(opener.sent, base);
        }
        sender.edge = base.wrapping_add(u32::from(syn.window));
        self.state = State::SynReceived;
        self.marks &= !mark(UNSEEN, direction);
        if syn.has(flag::ACK) {
            self.marks |= mark(HEARD, direction);
        }
    }

    /// Whether a SYN-ACK and the candidate that it answers are both repetitions of how the tracked connection began.
    fn is_late_handshake(&self, direction: Direction, answer: &Segment) -> bool {
        let is_late = |seq: u32, side: &Side| (1..=LATE).contains(&side.next.wrapping_sub(seq));
        !self.is_unseen()
            && is_late(answer.seq, &self.sides[direction as usize])
            && is_late(self.candidate, &self.sides[direction.other() as usize])
    }

    /// A segment that is neither RST nor SYN.
    fn proceed(&mut self, direction: Direction, segment: &Segment) {
        match self.state {
            State::SynSent => return,
            State::PickedUp if self.is_marked(UNSEEN, direction) => return self.meet(direction, segment),
            // Only now is anything known of the other side.
            State::PickedUp if segment.has(flag::ACK) && !self.is_marked(HEARD, direction) => {
                *self = Tracker::open(segment);
                return;
            }
            State::PickedUp => {
                let (sender, receiver) = self.pair(direction);
                // What the unseen side sent is known by its acknowledgement only.
                if segment.has(flag::ACK) && is_near(segment.ack, sender.ack) {
                    receiver.next = latest(receiver.next, segment.ack);
                    receiver.sent = latest(receiver.sent, segment.ack);
                }
            }
            State::Reset if self.is_unseen() => return,
            _ => {}
        }
        let acknowledged = self.sides[direction as usize].ack;
        if !self.record_to_fin(direction, segment) {
            return;
        }
        if self.candidate_from(direction).is_some() {
            self.forget_candidate();
        }
        match self.state {
            State::SynReceived if self.sides[direction as usize].ack == acknowledged => {}
            State::SynReceived | State::Reset => self.marks |= mark(HEARD, direction),
            _ => {}
        }
        match self.state {
            State::PickedUp => {}
            State::SynReceived | State::Reset
                if !(self.is_marked(HEARD, Direction::Original) && self.is_marked(HEARD, Direction::Reply)) => {}
            _ => self.settle(),
        }
    }

    /// Records a plausible segment, minding the FIN. Behind one that counts, its sender sends nothing more.
    fn record_to_fin(&mut self, direction: Direction, segment: &Segment) -> bool {
        let Side { next, sent, .. } = self.sides[direction as usize];
        let (end, fin) = (segment.end(), mark(FIN, direction));
        let is_marked = self.marks & fin != 0;
        if is_marked && next == sent && after(end, sent) {
            return false;
        }
        if !self.record(direction, segment) {
            return false;
        }
        let reaches = end == self.sides[direction as usize].sent;
        // A FIN whose place was taken by data before is no FIN of the sender's.
        let is_new = !after(next, end.wrapping_sub(1));
        if segment.is_fin() && reaches && (is_new || is_marked) {
            self.marks |= fin;
        } else if is_marked && next != sent && !after(sent, end) && (segment.len > 0 || end != sent) {
            // There is data in the FIN's place: it was not the sender's.
            self.marks &= !fin;
        }
        // All data before the FIN has come.
        let sender = &mut self.sides[direction as usize];
        if self.marks & fin != 0 && sender.next.wrapping_add(1) == sender.sent {
            sender.next = sender.sent;
        }
        true
    }

    /// The first segment of the side that was unseen when the connection was picked up.
    fn meet(&mut self, direction: Direction, segment: &Segment) {
        let other_acknowledged = self.is_marked(HEARD, direction.other());
        let (sender, receiver) = self.pair(direction);
        let is_plausible = segment.has(flag::ACK)
            && is_near(segment.ack, receiver.next)
            && (!other_acknowledged || is_near(segment.seq, sender.next));
        if !is_plausible {
            return;
        }
        let mut end = segment.end();
        if other_acknowledged {
            end = latest(end, receiver.ack);
        } else {
            (receiver.ack, receiver.edge) = (segment.seq, end.wrapping_add(ROUGH));
        }
        let edge = segment.ack.wrapping_add(u32::from(segment.window) << MAX_SCALE);
        *sender = Side { next: end, sent: end, ack: earliest(segment.ack, receiver.sent), edge };
        if after(segment.ack, receiver.sent) {
            (receiver.next, receiver.sent, sender.ack) = (segment.ack, segment.ack, segment.ack);
        }
        self.marks &= !mark(UNSEEN, direction);
        if segment.is_fin() && segment.end() == end {
            self.marks |= mark(FIN, direction);
        }
        self.settle();
    }

    /// The state of a connection that is open on both sides or has been, by its FINs.
    fn settle(&mut self) {
        self.marks &= !(HEARD | HEARD << 1);
        let [original, reply] = &self.sides;
        let has_closed = |direction: Direction, side: &Side| self.is_marked(FIN, direction) && side.next == side.sent;
        let closed = (has_closed(Direction::Original, original), has_closed(Direction::Reply, reply));
        self.state = match closed {
            (false, false) => State::Established,
            (true, false) => State::FinWait(Direction::Original),
            (false, true) => State::FinWait(Direction::Reply),
            (true, true) if original.ack == reply.sent && reply.ack == original.sent => State::TimeWait,
            (true, true) => State::Closing,
        };
    }
}

/// Whether a sequence number is within the largest window around `middle`.
fn is_near(seq: u32, middle: u32) -> bool {
    !after(seq, middle.wrapping_add(ROUGH)) && !after(middle.wrapping_sub(ROUGH), seq)
}
