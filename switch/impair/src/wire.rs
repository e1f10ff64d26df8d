//! The queue in front of the rate: when each frame will have left.
//!
//! The frames themselves are under way from the start, since their departure is known when they come. Only a change of
//! the rate makes it another.

use std::collections::VecDeque;
use std::time::Duration;

use tapswitch_wire::Instant;

use crate::{Limit, Rate};

#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: u64,
    /// The frame's own length, and what it pays for.
    len: usize,
    charge: usize,
    departure: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// When the last bit of the last frame goes out.
    free: Instant,
    /// What the last frame took beyond that, in 1/rate of a nanosecond: so short times add up exactly.
    carry: u64,
    waiting: VecDeque<Waiting>,
    /// What those pay for together.
    bytes: usize,
}

impl Wire {
    /// Takes a frame into the queue, and says when it will have left; `None` if the queue is full.
    pub fn send(&mut self, now: Instant, rate: Option<Rate>, limit: Limit, number: u64, len: usize) -> Option<Instant> {
        self.advance(now);
        let charge = rate.map_or(len, |rate| rate.charge(len));
        let fits = match limit {
            Limit::Frames(frames) => self.waiting.len() < frames as usize,
            Limit::Bytes(bytes) => self.bytes + charge <= bytes as usize,
        };
        if !fits && !self.waiting.is_empty() {
            return None;
        }
        let departure = self.serialise(now, rate, charge);
        if departure > now {
            self.waiting.push_back(Waiting { number, len, charge, departure });
            self.bytes += charge;
        }
        Some(departure)
    }

    /// The frames that still wait are sent at the new rate, but for the one whose bits are going out.
    pub fn retime(&mut self, now: Instant, rate: Option<Rate>) {
        self.advance(now);
        self.carry = 0;
        self.free = self.waiting.front().map_or(now, |first| first.departure);
        for at in 1..self.waiting.len() {
            let charge = rate.map_or(self.waiting[at].len, |rate| rate.charge(self.waiting[at].len));
            let departure = self.serialise(now, rate, charge);
            let waiting = &mut self.waiting[at];
            self.bytes = self.bytes - waiting.charge + charge;
            (waiting.charge, waiting.departure) = (charge, departure);
        }
    }

    /// When this frame leaves, if it has not left at the last call of `send` or `retime`.
    pub fn departure(&self, number: u64) -> Option<Instant> {
        let at = self.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        Some(self.waiting[at].departure)
    }

    /// Forgets the frames that have left.
    fn advance(&mut self, now: Instant) {
        while let Some(gone) = self.waiting.pop_front_if(|first| first.departure <= now) {
            self.bytes -= gone.charge;
        }
    }

    /// Keeps the wire busy with so many bytes, as soon as it is free.
    fn serialise(&mut self, now: Instant, rate: Option<Rate>, charge: usize) -> Instant {
        if now > self.free {
            (self.free, self.carry) = (now, 0);
        }
        if let Some(rate) = rate {
            let total = charge as u128 * 8 * 1_000_000_000 + u128::from(self.carry);
            let per_second = u128::from(rate.bits.get());
            self.carry = (total % per_second) as u64;
            self.free = self.free + Duration::from_nanos(u64::try_from(total / per_second).unwrap_or(u64::MAX));
        }
        self.free
    }
}
