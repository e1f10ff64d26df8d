//! What the poll threads count about themselves, and the figures that `/metrics` shows.
//!
//! A turn is written down once, when the next one begins, with the clock reading that the loop needs anyway: how many
//! frames it read, and how long it took. A frame itself costs nothing. A turn after which the thread slept has no length
//! that could be known without one more reading, so it is left out of the durations.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::unistd::{Pid, gettid};
use tapswitch_dhcp::State;
use tapswitch_switch::PortCounters;
use tapswitch_wire::{DropCounters, Instant};

use super::Worker;
use super::pace::Wait;
use super::views::Totals;

/// Buckets of a histogram: bucket `n` has what is at most 2 to the power of `n`, and more than the one before has.
pub(crate) const BUCKETS: usize = 40;

/// How often values of each size occurred.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    pub(crate) buckets: [u64; BUCKETS],
    /// All values together.
    pub(crate) sum: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [0; BUCKETS], sum: 0 }
    }
}

impl Histogram {
    /// One more value. What is too large for every bucket counts in the last one.
    pub(crate) fn record(&mut self, value: u64) {
        let bucket = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.sum = self.sum.saturating_add(value);
    }
}

/// What a poll thread writes down about its turns.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    thread: Option<Pid>,
    began: Instant,
    /// The present turn has read something.
    read: bool,
    /// Frames of each turn that read any.
    batches: Histogram,
    /// Nanoseconds of each turn that read frames, and after which the thread did not sleep.
    durations: Histogram,
}

impl Load {
    /// The thread that calls this is the one that it is about.
    pub(super) fn is_of_this_thread(&mut self) {
        self.thread = Some(gettid());
    }

    /// A turn begins, after so much waiting, and the last one ends.
    #[inline]
    pub(super) fn begins(&mut self, waited: Wait, now: Instant) {
        if self.read && !matches!(waited, Wait::Block(_)) {
            let nanos = (now - self.began).as_nanos();
            self.durations.record(u64::try_from(nanos).unwrap_or(u64::MAX));
        }
        (self.began, self.read) = (now, false);
    }

    /// This turn has read so many frames.
    #[inline]
    pub(super) fn has_read(&mut self, frames: usize) {
        self.read = true;
        self.batches.record(frames as u64);
    }
}

/// The figures of the daemon.
#[derive(Debug, Default)]
pub struct Figures {
    /// When it started, since 1970.
    pub(crate) started: Duration,
    pub(crate) networks: Vec<NetworkFigures>,
    pub(crate) threads: Vec<ThreadFigures>,
}

/// Those of a network.
#[derive(Debug, Default)]
pub(crate) struct NetworkFigures {
    pub(crate) name: String,
    pub(crate) ports: Vec<(String, PortCounters)>,
    /// Drops at the gateway's own port.
    pub(crate) gateway: DropCounters,
    pub(crate) stations: usize,
    /// By their states.
    pub(crate) leases: BTreeMap<&'static str, usize>,
    pub(crate) flows: usize,
}

/// Those of a poll thread.
#[derive(Debug, Default)]
pub(crate) struct ThreadFigures {
    /// The kernel's number of it.
    pub(crate) id: Option<Pid>,
    pub(crate) ports: usize,
    pub(crate) turns: u64,
    pub(crate) sleeps: u64,
    pub(crate) batches: Histogram,
    pub(crate) durations: Histogram,
}

impl ThreadFigures {
    fn new(load: &Load, ports: usize, turns: u64, sleeps: u64) -> ThreadFigures {
        let Load { thread, batches, durations, .. } = load.clone();
        ThreadFigures { id: thread, ports, turns, sleeps, batches, durations }
    }
}

impl Worker {
    /// All that `/metrics` shows, gathered between two turns.
    pub(super) fn figures(&self, now: Instant) -> Figures {
        let network = |lan: &super::Lan| {
            let totals = Totals::of(lan, &self.lanes);
            let mut leases: BTreeMap<_, _> = STATES.iter().map(|state| (state_name(*state), 0)).collect();
            for lease in lan.network.leases(now) {
                *leases.entry(state_name(lease.state)).or_default() += 1;
            }
            // A released address is remembered, but it is nobody's.
            leases.remove(state_name(State::Released));
            let mut ports: Vec<_> = totals.ports().map(|(port, counters)| (port, counters.clone())).collect();
            ports.sort_by_key(|(port, _)| *port);
            NetworkFigures {
                name: lan.plan.name.clone(),
                ports: ports.into_iter().map(|(port, counters)| (lan.name_of(port), counters)).collect(),
                gateway: totals.gateway().clone(),
                stations: lan.network.fdb(now).len(),
                leases,
                flows: lan.network.flow_count(),
            }
        };
        let owner = ThreadFigures::new(&self.load, self.loads[0], self.turn_count, self.sleeps);
        let others = self.lanes.iter().zip(&self.loads[1..]).map(|(lane, ports)| {
            let state = lane.state();
            ThreadFigures::new(&state.load, *ports, state.turns, state.sleeps)
        });
        Figures {
            started: self.clock.epoch(),
            networks: self.networks.iter().map(network).collect(),
            threads: std::iter::once(owner).chain(others).collect(),
        }
    }
}

/// Those that are told of even if there is none.
const STATES: [State; 4] = [State::Offered, State::Bound, State::Reserved, State::Declined];

/// As the API shows it.
pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Offered => "offered",
        State::Bound => "bound",
        State::Reserved => "reserved",
        State::Declined => "declined",
        State::Released => "released",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }

    #[test]
    fn a_bucket_has_what_is_at_most_its_power_of_two() {
        let mut histogram = Histogram::default();
        for (value, bucket) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 39, 39), (u64::MAX, 39)] {
            let before = histogram.buckets[bucket];
            histogram.record(value);
            assert_eq!(histogram.buckets[bucket], before + 1, "{value}");
        }
        assert_eq!(histogram.buckets.iter().sum::<u64>(), 8);
    }

    #[test]
    fn turns_that_read_frames_are_timed_unless_the_thread_slept_after_them() {
        let mut load = Load::default();
        load.begins(Wait::Block(None), at(0));
        load.has_read(5);
        load.begins(Wait::No, at(3));
        load.begins(Wait::Spin, at(4));
        load.has_read(64);
        load.begins(Wait::Block(None), at(1_000_000));
        assert_eq!((load.durations.sum, load.durations.buckets.iter().sum::<u64>()), (3_000, 1));
        assert_eq!((load.batches.sum, load.batches.buckets[3], load.batches.buckets[6]), (69, 1, 1));
    }
}
