//! The forwarding database: which station stands behind which port. Shared by the poll threads of one network.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use serde::Serialize;
use tapswitch_wire::{Mac, PortId};

use crate::ports::MAX_PORTS;

/// All VLANs are one, so there is one filtering identifier.
const FID: u64 = 0;

/// There is nothing to sweep.
const NEVER: u64 = u64::MAX;

/// One line of the FDB, as shown to people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct FdbEntry {
    /// The station.
    pub mac: Mac,
    /// The port behind which it stands.
    pub port: PortId,
    /// Whole seconds since the last frame from it; 0 for a static entry.
    pub age: u64,
    /// Whether it was pinned: it does not age and does not move.
    #[serde(rename = "static")]
    pub is_static: bool,
}

/// The key of an address: filtering identifier and address in one number.
#[inline]
pub(crate) fn key(mac: Mac) -> u64 {
    FID << 48 | mac.as_u64()
}

fn mac(key: u64) -> Mac {
    let [_, _, a, b, c, d, e, f] = key.to_be_bytes();
    Mac([a, b, c, d, e, f])
}

/// What is known of one address, copied out of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Station {
    pub(crate) port: PortId,
    pub(crate) pinned: bool,
    /// The second of the last frame from it; meaningless if pinned.
    pub(crate) seen: u64,
}

impl Station {
    /// Fills a slot that is not in use.
    pub(crate) const UNUSED: Station = Station { port: PortId(0), pinned: false, seen: 0 };

    /// Whether the entry may still be used. `now` and `ageing` are in seconds; a second's fraction counts for the
    /// station, so that nobody is forgotten early.
    #[inline]
    pub(crate) fn is_live(&self, now: u64, ageing: u64) -> bool {
        self.pinned || now.saturating_sub(self.seen) <= ageing
    }
}

/// The entry in the table: `seen` changes under a shard's read lock, the rest under its write lock.
#[derive(Debug)]
struct Record {
    port: PortId,
    pinned: bool,
    seen: AtomicU64,
}

impl Record {
    fn new(station: Station) -> Record {
        Record { port: station.port, pinned: station.pinned, seen: AtomicU64::new(station.seen) }
    }

    fn station(&self) -> Station {
        Station { port: self.port, pinned: self.pinned, seen: self.seen.load(Ordering::Relaxed) }
    }
}

/// The bounds that a switch puts on the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Seconds after which a silent station is forgotten.
    pub(crate) ageing: u64,
    /// Learned entries together.
    pub(crate) entries: usize,
    /// Learned entries behind one port.
    pub(crate) entries_per_port: usize,
}

/// What a frame did to the entry of its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Learning {
    /// The entry is new, or had run out.
    Learned,
    /// The entry is younger now.
    Refreshed,
    /// The entry points to this port now.
    Moved { from: PortId },
    /// A limit stood in the way. An existing entry is as it was.
    Refused,
    /// The entry is static, and of this port.
    Pinned,
    /// The entry is static, and of another port.
    Claimed { owner: PortId },
}

/// The forwarding database of one network.
///
/// All switches that share one are given the same [`Config`](crate::Config) and times from the same clock.
#[derive(Debug)]
pub struct Fdb {
    stations: DashMap<u64, Record, RandomState>,
    hasher: RandomState,
    /// Counts the changes that make copies of entries wrong: always after the change.
    generation: AtomicU64,
    /// Learned entries. Raised before an entry is inserted, so the bound holds whoever inserts at the same time.
    learned: AtomicUsize,
    /// The same by port.
    learned_by_port: Box<[AtomicUsize]>,
    /// The earliest second in which an entry can have run out.
    next_sweep: AtomicU64,
}

impl Default for Fdb {
    fn default() -> Self {
        Self::new()
    }
}

impl Fdb {
    /// An empty table. Its hash is keyed at random.
    pub fn new() -> Fdb {
        let hasher = RandomState::new();
        Fdb {
            stations: DashMap::with_hasher(hasher.clone()),
            hasher,
            generation: AtomicU64::new(1),
            learned: AtomicUsize::new(0),
            learned_by_port: std::iter::repeat_with(AtomicUsize::default).take(MAX_PORTS).collect(),
            next_sweep: AtomicU64::new(NEVER),
        }
    }

    /// A table of its own with the same entries and limits' counts. Other threads may change this one meanwhile.
    pub(crate) fn copy(&self) -> Fdb {
        let copy = Fdb::new();
        for record in &self.stations {
            let station = record.station();
            if !station.pinned {
                copy.learned.fetch_add(1, Ordering::Relaxed);
                if let Some(count) = copy.learned_by(station.port) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            copy.stations.insert(*record.key(), Record::new(station));
        }
        copy.next_sweep.store(self.next_sweep.load(Ordering::Relaxed), Ordering::Relaxed);
        copy
    }

    /// A random number that is this table's own.
    pub(crate) fn seed(&self) -> u64 {
        self.hasher.hash_one(FID)
    }

    /// The current generation, never 0.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn invalidate_copies(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The station with this key, even if it has run out.
    pub(crate) fn lookup(&self, key: u64) -> Option<Station> {
        self.stations.get(&key).map(|record| record.station())
    }

    /// Notes a frame from the station with this key, which came in by `port` in the second `now`.
    pub(crate) fn learn(&self, key: u64, port: PortId, now: u64, limits: &Limits) -> Learning {
        self.refresh(key, port, now, limits).unwrap_or_else(|| self.insert(key, port, now, limits))
    }

    /// The part of learning that needs only a read lock. `None` if the table itself has to change.
    fn refresh(&self, key: u64, port: PortId, now: u64, limits: &Limits) -> Option<Learning> {
        let Some(record) = self.stations.get(&key) else {
            // Somebody who makes up addresses on a full table gets no write lock for it.
            let full = self.learned.load(Ordering::Relaxed) >= limits.entries
                || self.learned_by(port)?.load(Ordering::Relaxed) >= limits.entries_per_port;
            return full.then_some(Learning::Refused);
        };
        if record.port != port {
            return record.pinned.then_some(Learning::Claimed { owner: record.port });
        }
        if record.pinned {
            return Some(Learning::Pinned);
        }
        let was_live = record.station().is_live(now, limits.ageing);
        record.seen.fetch_max(now, Ordering::Relaxed);
        Some(if was_live { Learning::Refreshed } else { Learning::Learned })
    }

    /// The part of learning that changes the table, under the write lock of one shard.
    fn insert(&self, key: u64, port: PortId, now: u64, limits: &Limits) -> Learning {
        match self.stations.entry(key) {
            Entry::Vacant(vacant) => {
                if !self.reserve_by(port, limits) {
                    return Learning::Refused;
                }
                if !reserve(&self.learned, limits.entries) {
                    self.release_by(port);
                    return Learning::Refused;
                }
                vacant.insert(Record::new(Station { port, pinned: false, seen: now }));
                self.next_sweep.fetch_min(runs_out(now, limits.ageing), Ordering::Relaxed);
                Learning::Learned
            }
            Entry::Occupied(mut occupied) => {
                let station = occupied.get().station();
                match (station.pinned, station.port == port) {
                    (true, true) => return Learning::Pinned,
                    (true, false) => return Learning::Claimed { owner: station.port },
                    (false, true) => {
                        occupied.get().seen.fetch_max(now, Ordering::Relaxed);
                        return Learning::Refreshed;
                    }
                    (false, false) => {}
                }
                if !self.reserve_by(port, limits) {
                    return Learning::Refused;
                }
                occupied.insert(Record::new(Station { port, pinned: false, seen: now }));
                self.release_by(station.port);
                // The generation must not be seen before the entry, and the entry is seen when its lock is given back.
                drop(occupied);
                self.invalidate_copies();
                if station.is_live(now, limits.ageing) {
                    Learning::Moved { from: station.port }
                } else {
                    Learning::Learned
                }
            }
        }
    }

    /// Makes the entry static.
    pub(crate) fn pin(&self, key: u64, port: PortId) {
        let station = Station { port, pinned: true, seen: 0 };
        if let Some(old) = self.stations.insert(key, Record::new(station)) {
            self.release(&old);
        }
        self.invalidate_copies();
    }

    /// Forgets a static entry.
    pub(crate) fn unpin(&self, key: u64) {
        if self.stations.remove_if(&key, |_, record| record.pinned).is_some() {
            self.invalidate_copies();
        }
    }

    /// Forgets everything behind a port.
    pub(crate) fn flush(&self, port: PortId) {
        self.retain(|station| station.port != port);
    }

    /// When the next entry can run out: a second, at whose beginning [`Fdb::sweep`] is due.
    pub(crate) fn next_sweep(&self) -> Option<u64> {
        match self.next_sweep.load(Ordering::Relaxed) {
            NEVER => None,
            second => Some(second),
        }
    }

    /// Forgets the entries that have run out by the second `now`, if there can be any. One of the threads that share
    /// the table does the work, the others pass by.
    pub(crate) fn sweep(&self, now: u64, limits: &Limits) {
        let due = self.next_sweep.load(Ordering::Relaxed);
        if now < due || self.next_sweep.compare_exchange(due, NEVER, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let mut next = NEVER;
        self.retain(|station| {
            let live = station.is_live(now, limits.ageing);
            if live && !station.pinned {
                next = next.min(runs_out(station.seen, limits.ageing));
            }
            live
        });
        // What was learned meanwhile has lowered it already.
        self.next_sweep.fetch_min(next, Ordering::Relaxed);
    }

    /// The entries in use, in the order of their addresses.
    pub(crate) fn entries(&self, now: u64, limits: &Limits) -> Vec<FdbEntry> {
        let mut entries: Vec<_> = self
            .stations
            .iter()
            .map(|record| (*record.key(), record.station()))
            .filter(|(_, station)| station.is_live(now, limits.ageing))
            .map(|(key, station)| FdbEntry {
                mac: mac(key),
                port: station.port,
                age: if station.pinned { 0 } else { now.saturating_sub(station.seen) },
                is_static: station.pinned,
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.mac);
        entries
    }

    fn retain(&self, mut keep: impl FnMut(&Station) -> bool) {
        let mut changed = false;
        self.stations.retain(|_, record| {
            let kept = keep(&record.station());
            if !kept {
                self.release(record);
                changed = true;
            }
            kept
        });
        if changed {
            self.invalidate_copies();
        }
    }

    fn learned_by(&self, port: PortId) -> Option<&AtomicUsize> {
        self.learned_by_port.get(port.0 as usize)
    }

    fn reserve_by(&self, port: PortId, limits: &Limits) -> bool {
        self.learned_by(port).is_some_and(|count| reserve(count, limits.entries_per_port))
    }

    fn release_by(&self, port: PortId) {
        if let Some(count) = self.learned_by(port) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives back what a learned entry took up.
    fn release(&self, record: &Record) {
        if !record.pinned {
            self.release_by(record.port);
            self.learned.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Takes one of `limit` places, if there is one left.
fn reserve(count: &AtomicUsize, limit: usize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
}

/// The first second in which an entry that was last refreshed in the second `seen` is not live.
fn runs_out(seen: u64, ageing: u64) -> u64 {
    seen.saturating_add(ageing).saturating_add(1)
}

#[cfg(test)]
mod tests;
