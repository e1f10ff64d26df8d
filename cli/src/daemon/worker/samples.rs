//! What is known of drops beside their counts: the last frame of each kind, and how often they happen at present.
//!
//! # Theory of operation
//!
//! **Samples.** Where a drop is counted with its frame at hand, the first bytes of the frame are kept as they stood then,
//! by port and reason. That is one copy of at most [`KEPT`] bytes for a frame that is dropped, and nothing for one that is
//! not. They become a line of text only when somebody asks, on the thread that answers. A port has at most [`REASONS`] of
//! them for each poll thread; a further reason takes the place of the one that is longest ago. They go with the port.
//!
//! **Rates.** The owner keeps two copies of the counters, taken at the beginning of a turn, at least [`EVERY`] apart. A
//! rate is what was counted since the older one, so it is an average over the last 10 to 20 seconds. With one poll thread
//! no timer is needed: while the owner sleeps nothing is dropped, and it takes its copy before it reads the next frame.
//! Further threads drop without the owner, so where there are some it wakes every [`EVERY`].

use std::collections::HashMap;
use std::time::Duration;

use tapswitch_switch::MAX_PORTS;
use tapswitch_wire::{DropReason, Instant, Meta, PortId, render};

use crate::api::DropView;

/// Bytes of a frame that are kept: all headers that are shown.
const KEPT: usize = 128;
/// Samples of one port.
const REASONS: usize = 16;
/// Time between two copies of the counters.
const EVERY: Duration = Duration::from_secs(10);
/// For so long a container that runs into a limit is not mentioned again.
const QUIET: Duration = Duration::from_secs(10);

/// The last frame that was dropped on account of a port for one reason.
#[derive(Clone, Debug)]
pub struct Sample {
    reason: DropReason,
    at: Instant,
    meta: Meta,
    /// Of the whole frame.
    length: usize,
    bytes: [u8; KEPT],
    /// When this reason was mentioned last.
    mentioned: Option<Instant>,
}

impl Sample {
    fn new(reason: DropReason, meta: &Meta, frame: &[u8], at: Instant) -> Sample {
        let mut sample = Sample { reason, at, meta: *meta, length: 0, bytes: [0; KEPT], mentioned: None };
        sample.set(meta, frame, at);
        sample
    }

    fn set(&mut self, meta: &Meta, frame: &[u8], at: Instant) {
        let kept = frame.len().min(KEPT);
        (self.at, self.meta, self.length) = (at, *meta, frame.len());
        self.bytes[..kept].copy_from_slice(&frame[..kept]);
    }

    /// The frame in one line.
    fn line(&self) -> String {
        // What was not kept is payload, of which only the length is told.
        let mut frame = self.bytes.to_vec();
        frame.resize(self.length, 0);
        render(&self.meta, &frame)
    }
}

/// The samples of one network that one poll thread has.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// By the port's number.
    ports: Vec<Vec<Sample>>,
}

impl Samples {
    /// Keeps a frame that was dropped. `limit`: whether somebody wants to hear of it the first time in [`QUIET`]; says
    /// whether it is.
    pub(super) fn keep(
        &mut self,
        port: PortId,
        reason: DropReason,
        meta: &Meta,
        frame: &[u8],
        now: Instant,
        limit: bool,
    ) -> bool {
        let at = port.0 as usize;
        if at >= MAX_PORTS {
            return false;
        }
        if self.ports.len() <= at {
            self.ports.resize_with(at + 1, Vec::new);
        }
        let samples = &mut self.ports[at];
        let place = match samples.iter().position(|sample| sample.reason == reason) {
            Some(place) => {
                samples[place].set(meta, frame, now);
                place
            }
            None => {
                let sample = Sample::new(reason, meta, frame, now);
                let oldest = (0..samples.len()).min_by_key(|place| samples[*place].at);
                match oldest.filter(|_| samples.len() >= REASONS) {
                    Some(place) => {
                        samples[place] = sample;
                        place
                    }
                    None => {
                        samples.push(sample);
                        samples.len() - 1
                    }
                }
            }
        };
        let mentioned = &mut samples[place].mentioned;
        let first = limit && mentioned.is_none_or(|before| now - before >= QUIET);
        if first {
            *mentioned = Some(now);
        }
        first
    }

    /// A port has gone.
    pub(super) fn forget(&mut self, port: PortId) {
        if let Some(samples) = self.ports.get_mut(port.0 as usize) {
            *samples = Vec::new();
        }
    }

    /// Takes over what another thread kept that is later than what is here.
    pub(super) fn add(&mut self, other: &Samples) {
        if self.ports.len() < other.ports.len() {
            self.ports.resize_with(other.ports.len(), Vec::new);
        }
        for (mine, theirs) in self.ports.iter_mut().zip(&other.ports) {
            for sample in theirs {
                match mine.iter_mut().find(|known| known.reason == sample.reason) {
                    Some(known) if known.at < sample.at => *known = sample.clone(),
                    Some(_) => {}
                    None => mine.push(sample.clone()),
                }
            }
        }
    }

    /// The sample of one reason.
    pub(super) fn take(&mut self, port: PortId, reason: DropReason) -> Option<Sample> {
        let samples = self.ports.get_mut(port.0 as usize)?;
        let place = samples.iter().position(|sample| sample.reason == reason)?;
        Some(samples.swap_remove(place))
    }
}

/// Drops of one port for one reason, before the frame is put into words.
#[derive(Debug)]
pub struct Dropped {
    pub(super) network: String,
    pub(super) name: String,
    pub(super) reason: DropReason,
    pub(super) count: u64,
    pub(super) rate: f64,
    pub(super) sample: Option<Sample>,
}

impl Dropped {
    /// As the API shows it.
    pub fn view(self) -> DropView {
        DropView {
            network: self.network,
            name: self.name,
            reason: self.reason.name().into(),
            count: self.count,
            // Whatever is beyond is not known: the time is not that exact.
            rate: (self.rate * 1000.0).round() / 1000.0,
            text: self.reason.text().into(),
            sample: self.sample.map(|sample| sample.line()),
        }
    }
}

/// What is counted: the network, the serial number of the attached port (0 for the gateway), the reason.
pub(super) type Key = (usize, u64, DropReason);

/// The counters as they were.
#[derive(Debug, Default)]
struct Copy {
    at: Instant,
    counts: HashMap<Key, u64>,
}

/// What rates are told by.
#[derive(Debug, Default)]
pub(super) struct Rates {
    before: Copy,
    last: Copy,
}

impl Rates {
    /// When the counters are to be copied next.
    pub(super) fn due(&self) -> Instant {
        self.last.at + EVERY
    }

    /// Takes a copy of all counters that are not zero.
    pub(super) fn copy(&mut self, counts: HashMap<Key, u64>, now: Instant) {
        self.before = std::mem::replace(&mut self.last, Copy { at: now, counts });
    }

    /// Drops per second, now that so many were counted.
    pub(super) fn rate(&self, key: Key, count: u64, now: Instant) -> f64 {
        // A copy that is too fresh says nothing.
        let base = if now - self.last.at >= EVERY { &self.last } else { &self.before };
        let counted = count.saturating_sub(base.counts.get(&key).copied().unwrap_or(0));
        counted as f64 / (now - base.at).as_secs_f64().max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: PortId = PortId(3);

    fn at(secs: u64) -> Instant {
        Instant::from_secs(secs)
    }

    fn keep(samples: &mut Samples, reason: DropReason, frame: &[u8], secs: u64) -> bool {
        samples.keep(PORT, reason, &Meta::PLAIN, frame, at(secs), true)
    }

    #[test]
    fn the_last_frame_is_told_with_its_true_length() {
        let mut samples = Samples::default();
        keep(&mut samples, DropReason::NoRoute, &[1; 60], 1);
        keep(&mut samples, DropReason::NoRoute, &[2; 1514], 2);
        keep(&mut samples, DropReason::TxFull, &[3; 10], 3);
        let line = samples.take(PORT, DropReason::NoRoute).unwrap().line();
        assert!(line.starts_with("02:02:02:02:02:02 > ") && line.contains("1514 bytes"), "{line}");
        assert_eq!(samples.take(PORT, DropReason::TxFull).unwrap().line(), "cut short: 10 bytes");
        assert!(samples.take(PORT, DropReason::Isolated).is_none());
        assert!(samples.take(PortId(9), DropReason::NoRoute).is_none());
    }

    #[test]
    fn a_port_has_few_samples_and_the_one_longest_ago_makes_room() {
        let mut samples = Samples::default();
        for (secs, reason) in DropReason::ALL.iter().enumerate() {
            keep(&mut samples, *reason, &[0; 60], secs as u64);
        }
        assert_eq!(samples.ports[3].len(), REASONS);
        let newest = &DropReason::ALL[DropReason::ALL.len() - REASONS..];
        assert!(newest.iter().all(|reason| samples.take(PORT, *reason).is_some()));
        keep(&mut samples, DropReason::NoRoute, &[0; 60], 1);
        samples.forget(PORT);
        assert!(samples.take(PORT, DropReason::NoRoute).is_none());
    }

    #[test]
    fn keeping_allocates_nothing_once_a_reason_is_known() {
        let mut samples = Samples::default();
        let mut times = |times: u64| {
            let counted = allocation_counter::measure(|| {
                for secs in 0..times {
                    keep(&mut samples, DropReason::NoRoute, &[0; 1514], secs);
                }
            });
            counted.count_total
        };
        assert!(times(1) > 0, "the first takes room, or nothing is counted");
        assert_eq!(times(1_000), 0);
    }

    #[test]
    fn the_latest_of_all_threads_is_told() {
        let mut all = Samples::default();
        for (length, secs) in [(100, 1), (200, 5), (300, 2)] {
            let mut thread = Samples::default();
            keep(&mut thread, DropReason::NoRoute, &vec![0; length], secs);
            all.add(&thread);
        }
        assert_eq!(all.take(PORT, DropReason::NoRoute).unwrap().length, 200);
    }

    #[test]
    fn a_limit_is_mentioned_once_in_ten_seconds() {
        let mut samples = Samples::default();
        let mentioned: Vec<_> =
            [0, 1, 9, 10, 15, 21].map(|secs| keep(&mut samples, DropReason::FlowLimit, &[0; 60], secs)).into();
        assert_eq!(mentioned, [true, false, false, true, false, true]);
        assert!(keep(&mut samples, DropReason::SessionLimit, &[0; 60], 22), "another one");
        assert!(!samples.keep(PORT, DropReason::FlowLimit, &Meta::PLAIN, &[0; 60], at(90), false), "nobody listens");
    }

    #[test]
    fn a_rate_is_of_the_last_ten_to_twenty_seconds() {
        let key = (0, 1, DropReason::NoRoute);
        let mut rates = Rates::default();
        assert_eq!(rates.rate(key, 50, at(5)), 10.0, "since the beginning");
        assert_eq!(rates.rate(key, 50, at(0)), 50.0, "no division by nothing");
        assert_eq!(rates.due(), at(10));
        rates.copy([(key, 100)].into(), at(10));
        rates.copy([(key, 200)].into(), at(20));
        assert_eq!(rates.due(), at(30));
        assert_eq!(rates.rate(key, 250, at(25)), 10.0, "150 since the copy before the last");
        assert_eq!(rates.rate(key, 200, at(30)), 0.0, "none since the last");
        assert_eq!(rates.rate((0, 2, DropReason::NoRoute), 30, at(25)), 2.0, "another port");
    }
}
