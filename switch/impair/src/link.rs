//! One direction of one cable.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tapswitch_wire::{DropReason, Instant, MAX_FRAME_LEN, Meta, Parsed, checksum, segment::segment};

use crate::buffers::Buffers;
use crate::dice::{Dice, Rolls};
use crate::loss::State;
use crate::units::below;
use crate::wire::Wire;
use crate::{Impairment, Outcome};

/// A frame that has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due<'a> {
    /// When it was due: not after the `now` of the call.
    pub due: Instant,
    /// What is known about it beside its bytes.
    pub meta: Meta,
    /// The whole Ethernet frame.
    pub bytes: &'a [u8],
}

/// A frame under way.
#[derive(Debug)]
struct UnderWay {
    due: Instant,
    /// Frames are numbered as they come; a copy has its frame's number.
    number: u64,
    copy: bool,
    /// The delay it drew; `None` if it skips it. Its due time is later if it must not overtake.
    delay: Option<Duration>,
    meta: Meta,
    bytes: Vec<u8>,
}

impl UnderWay {
    fn key(&self) -> (Instant, u64, bool) {
        (self.due, self.number, self.copy)
    }
}

impl PartialEq for UnderWay {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for UnderWay {}

impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnderWay {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// One direction of one cable. See the [theory of operation](crate).
#[derive(Debug)]
pub struct Link {
    impairment: Impairment,
    dice: Dice,
    loss: State,
    /// Frames that did not overtake, since the last that did.
    since_reordered: u32,
    wire: Wire,
    /// The latest due time of a frame that does not skip the delay: none behind it is due earlier.
    order: Instant,
    /// The number of the first frame that `order` is about: those before it had another delay.
    order_since: u64,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    /// The number of the next frame.
    number: u64,
    now: Instant,
    buffers: Buffers,
    /// The frame that was popped last, lent to the caller.
    popped: Vec<u8>,
    /// Room to cut super-frames in.
    cut: Vec<u8>,
}

impl Link {
    /// A link with this impairment, on which nothing is under way.
    ///
    /// The same seed makes the same link. The two directions of a cable should have two.
    pub fn new(impairment: Impairment, seed: u64) -> Link {
        Link {
            impairment,
            dice: Dice::new(seed),
            loss: State::default(),
            since_reordered: 0,
            wire: Wire::default(),
            order: Instant::ZERO,
            order_since: 0,
            under_way: BinaryHeap::new(),
            number: 0,
            now: Instant::ZERO,
            buffers: Buffers::default(),
            popped: Vec::new(),
            cut: Vec::new(),
        }
    }

    /// Whether frames may pass by this link altogether: it would do nothing to them, and none is under way.
    pub fn is_none(&self) -> bool {
        self.under_way.is_empty() && self.impairment.is_none()
    }

    /// What the link does to frames.
    pub fn impairment(&self) -> &Impairment {
        &self.impairment
    }

    /// How many frames are under way, copies and those that wait for the rate included, lost ones not.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Takes a frame, or a super-frame in pieces, and says what becomes of it.
    ///
    /// Without any impairment a super-frame stays whole. A time earlier than one given before is taken for that one.
    ///
    /// # Errors
    /// [`DropReason::FrameTooLong`], and for a super-frame what [`segment`] says. Nothing of the frame is then queued or
    /// counted, and it rolls no dice.
    pub fn push(&mut self, now: Instant, meta: &Meta, frame: &[u8]) -> Result<Outcome, DropReason> {
        if frame.len() > MAX_FRAME_LEN {
            return Err(DropReason::FrameTooLong);
        }
        self.now = self.now.max(now);
        let mut outcome = Outcome::default();
        if meta.gso.is_none() || self.impairment.is_none() {
            self.admit(meta, frame, &mut outcome);
            return Ok(outcome);
        }
        let mut cut = std::mem::take(&mut self.cut);
        let result = segment(meta, frame, &mut cut, &mut |meta: &Meta, frame: &[u8]| {
            self.admit(meta, frame, &mut outcome);
        });
        self.cut = cut;
        result.map(|_| outcome)
    }

    /// One frame's way. All that chance decides is decided first, so that no outcome shifts the dice of later frames.
    fn admit(&mut self, meta: &Meta, frame: &[u8], outcome: &mut Outcome) {
        let impairment = self.impairment;
        let number = self.number;
        self.number += 1;
        outcome.frames += 1;
        let rolls = self.dice.roll();
        let lost = self.loss.lose(impairment.loss, rolls.loss);
        let overtakes = impairment.reorder.is_some_and(|it| it.overtakes(&mut self.since_reordered, rolls.reorder));
        let delay = impairment.delay.unwrap_or_default().draw(rolls.delay);
        let delay = (!overtakes).then_some(delay);

        let limit = impairment.limit.unwrap_or_default();
        let Some(departure) = self.wire.send(self.now, impairment.rate, limit, number, frame.len()) else {
            outcome.full += 1;
            return;
        };
        let due = self.due(departure, delay);
        if lost {
            outcome.lost += 1;
            return;
        }
        let Some(mut bytes) = self.buffers.copy(frame) else {
            outcome.overrun += 1;
            return;
        };
        let mut meta = *meta;
        if impairment.corrupt.is_some_and(|chance| chance.hits(rolls.corrupt[0])) {
            corrupt(&mut meta, &mut bytes, &rolls);
            outcome.corrupted += 1;
        }
        outcome.reordered += u64::from(overtakes);
        if impairment.duplicate.is_some_and(|chance| chance.hits(rolls.duplicate)) {
            outcome.duplicated += 1;
            match self.buffers.copy(&bytes) {
                Some(bytes) => {
                    outcome.queued += 1;
                    self.under_way.push(Reverse(UnderWay { due, number, copy: true, delay, meta, bytes }));
                }
                None => outcome.overrun += 1,
            }
        }
        outcome.queued += 1;
        self.under_way.push(Reverse(UnderWay { due, number, copy: false, delay, meta, bytes }));
    }

    /// When a frame that departs then, later than all before it, arrives.
    fn due(&mut self, departure: Instant, delay: Option<Duration>) -> Instant {
        let Some(delay) = delay else { return departure };
        self.order = self.order.max(departure + delay);
        self.order
    }

    /// The next frame that is due, by due time and then in the order of their coming.
    pub fn pop(&mut self, now: Instant) -> Option<Due<'_>> {
        self.now = self.now.max(now);
        if self.deadline()? > self.now {
            return None;
        }
        let Reverse(UnderWay { due, meta, bytes, .. }) = self.under_way.pop()?;
        let before = std::mem::replace(&mut self.popped, bytes);
        if before.capacity() > 0 {
            self.buffers.put(before);
        }
        Some(Due { due, meta, bytes: &self.popped })
    }

    /// When [`Link::pop`] will next give a frame; `None` if nothing is under way.
    pub fn deadline(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(first)| first.due)
    }

    /// Changes what the link does, from now on. What that means for frames under way is said in the
    /// [theory of operation](crate).
    pub fn set(&mut self, impairment: Impairment, now: Instant) {
        self.now = self.now.max(now);
        let before = std::mem::replace(&mut self.impairment, impairment);
        if before.loss != impairment.loss {
            self.loss = State::default();
        }
        if before.reorder != impairment.reorder {
            self.since_reordered = 0;
        }
        if before.rate != impairment.rate {
            self.retime();
        }
        if before.delay != impairment.delay {
            (self.order, self.order_since) = (Instant::ZERO, self.number);
        }
    }

    /// Frames that have not left get new due times, in the order in which they came.
    fn retime(&mut self) {
        self.wire.retime(self.now, self.impairment.rate);
        let mut frames = std::mem::take(&mut self.under_way).into_vec();
        frames.sort_unstable_by_key(|Reverse(frame)| (frame.number, frame.copy));
        let epoch = frames.partition_point(|Reverse(frame)| frame.number < self.order_since);
        let (before, since) = frames.split_at_mut(epoch);
        for frames in [before, since] {
            self.order = Instant::ZERO;
            for Reverse(frame) in frames {
                match self.wire.departure(frame.number) {
                    Some(departure) => frame.due = self.due(departure, frame.delay),
                    None if frame.delay.is_some() => self.order = self.order.max(frame.due),
                    None => {}
                }
            }
        }
        self.under_way = frames.into();
    }
}

/// Flips one bit of a frame whose checksum is, or is made, complete.
fn corrupt(meta: &mut Meta, bytes: &mut [u8], rolls: &Rolls) {
    let end = Parsed::parse(bytes).map_or(bytes.len(), |parsed| parsed.end as usize);
    // Offsets outside the frame leave the sum of the pseudo header in the field, which is as wrong as a flipped bit.
    let _ = checksum::complete(meta, bytes, end);
    *meta = Meta::PLAIN;
    let bit = below(rolls.corrupt[1], bytes.len() as u64 * 8);
    if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
        *byte ^= 1 << (bit % 8);
    }
}
