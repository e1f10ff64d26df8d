//! What one switch remembers of the FDB, so that known stations cost no lock.

use crate::fdb::Station;

/// A direct-mapped cache of n slots that holds n stations misses about one time in three, and each frame looks twice: so
/// there are several for each of the few hundred stations that a network may have at a time. 64 KiB, of which only what
/// is used is ever in the CPU's cache.
const SLOT_BITS: u32 = 11;
const SLOTS: usize = 1 << SLOT_BITS;

/// No FDB has this generation, so an unused slot never matches.
const NEVER: u64 = 0;

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: u64,
    generation: u64,
    station: Station,
}

/// A direct-mapped cache. An entry holds while the FDB's generation is the one it was stored with.
#[derive(Debug)]
pub(crate) struct Cache {
    slots: Box<[Slot; SLOTS]>,
    multiplier: u64,
}

impl Cache {
    /// An empty cache. A random `seed` keeps others from choosing addresses that meet in one slot.
    pub(crate) fn new(seed: u64) -> Cache {
        let unused = Slot { key: 0, generation: NEVER, station: Station::UNUSED };
        // Multiply-shift hashing asks for an odd multiplier.
        Cache { slots: Box::new([unused; SLOTS]), multiplier: seed | 1 }
    }

    /// The slot of a key.
    #[inline]
    pub(crate) fn index(&self, key: u64) -> usize {
        (key.wrapping_mul(self.multiplier) >> (u64::BITS - SLOT_BITS)) as usize
    }

    /// The station with this key, if it was stored in this generation.
    #[inline]
    pub(crate) fn get(&self, key: u64, generation: u64) -> Option<Station> {
        let slot = &self.slots[self.index(key)];
        (slot.key == key && slot.generation == generation).then_some(slot.station)
    }

    /// Stores what the FDB said. `generation` was read before the FDB was asked: a change in between then makes the
    /// slot stale from the start instead of wrong for ever.
    #[inline]
    pub(crate) fn put(&mut self, key: u64, generation: u64, station: Station) {
        self.slots[self.index(key)] = Slot { key, generation, station };
    }
}

#[cfg(test)]
mod tests {
    use tapswitch_wire::PortId;

    use super::*;

    const STATION: Station = Station { port: PortId(1), pinned: false, seen: 0 };

    #[test]
    fn an_entry_holds_for_its_generation_only() {
        let mut cache = Cache::new(0x9e37_79b9_7f4a_7c15);
        assert_eq!(cache.get(0, 1), None, "an unused slot was taken for key 0");
        cache.put(7, 1, STATION);
        assert_eq!(cache.get(7, 1), Some(STATION));
        assert_eq!(cache.get(7, 2), None);
    }

    #[test]
    fn neighbouring_addresses_spread_over_the_slots() {
        let cache = Cache::new(0x9e37_79b9_7f4a_7c15);
        let mut used: Vec<_> = (0..64).map(|host| cache.index(0x0242_0a00_0000 + host)).collect();
        used.sort_unstable();
        used.dedup();
        assert!(used.len() > 48, "64 neighbours share {} slots", used.len());
    }
}
