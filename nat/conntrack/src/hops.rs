//! MAC addresses of next hops, as the sessions' packets find them: by number, without a lock.
//!
//! A neighbour table belongs to the gateway's thread. What it knows is noted here for a few seconds, so that packets of
//! established sessions need not ask it, and it still hears of each neighbour in use often enough to see it go stale.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tapswitch_wire::{Instant, Mac};

use crate::Realm;

/// How long a noted address is used before the neighbour table is asked again.
pub(crate) const FRESH: Duration = Duration::from_secs(4);
/// Next hops that have a number. There are as many as neighbours; who comes later asks the neighbour table each time.
const CAPACITY: usize = 8192;

/// The number of a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hop(u16);

impl Hop {
    /// One that is never known.
    pub(crate) const NONE: Hop = Hop(u16::MAX);
}

pub(crate) struct Hops {
    /// The address in the upper six bytes, and in the lower two until when it holds, in seconds modulo 2^16; 0 if
    /// unknown.
    pub(crate) known: Box<[AtomicU64]>,
    pub(crate) numbers: Mutex<HashMap<(Realm, Ipv4Addr), u16>>,
}

impl Hops {
    pub(crate) fn new() -> Hops {
        Hops { known: (0..CAPACITY).map(|_| AtomicU64::new(0)).collect(), numbers: Mutex::new(HashMap::new()) }
    }

    /// The number of a next hop.
    pub(crate) fn number(&self, realm: Realm, ip: Ipv4Addr) -> Hop {
        let mut numbers = self.numbers.lock();
        let next = numbers.len();
        match numbers.get(&(realm, ip)) {
            Some(number) => Hop(*number),
            None if next < CAPACITY => {
                numbers.insert((realm, ip), next as u16);
                Hop(next as u16)
            }
            None => Hop::NONE,
        }
    }

    #[inline]
    pub(crate) fn get(&self, hop: Hop, now: Instant) -> Option<Mac> {
        let known = self.known.get(usize::from(hop.0))?.load(Ordering::Relaxed);
        // Within half of the number range it lies ahead.
        let left = (known as u16).wrapping_sub(now.as_secs() as u16);
        if known == 0 || left == 0 || left > FRESH.as_secs() as u16 {
            return None;
        }
        let [a, b, c, d, e, f, ..] = known.to_be_bytes();
        Some(Mac([a, b, c, d, e, f]))
    }

    pub(crate) fn set(&self, hop: Hop, mac: Mac, now: Instant) {
        let Some(place) = self.known.get(usize::from(hop.0)) else { return };
        let until = (now + FRESH).as_secs() as u16;
        let [a, b, c, d, e, f] = mac.0;
        let [high, low] = until.to_be_bytes();
        place.store(u64::from_be_bytes([a, b, c, d, e, f, high, low]), Ordering::Relaxed);
    }

    /// Forgets what is known of a next hop, because it may have changed.
    pub(crate) fn forget(&self, realm: Realm, ip: Ipv4Addr) {
        if let Some(number) = self.numbers.lock().get(&(realm, ip)) {
            self.known[usize::from(*number)].store(0, Ordering::Relaxed);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.known.iter().for_each(|place| place.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_known_for_a_few_seconds_and_forgotten_at_once_if_told() {
        let (hops, mac) = (Hops::new(), Mac([2, 0, 0, 0, 0, 9]));
        let ip = Ipv4Addr::new(10, 0, 0, 9);
        // Around the point where the seconds wrap, too.
        for start in [0, 1, 65_530, 65_533, 65_535, 65_536, 200_000] {
            let hop = hops.number(Realm::Inside, ip);
            hops.set(hop, mac, Instant::from_secs(start));
            assert_eq!(hops.get(hop, Instant::from_secs(start)), Some(mac), "{start}");
            assert_eq!(hops.get(hop, Instant::from_secs(start + 3)), Some(mac), "{start}");
            assert_eq!(hops.get(hop, Instant::from_secs(start + 4)), None, "{start}");
            assert_eq!(hops.get(hop, Instant::from_secs(start + 65_000)), None, "{start}");
            hops.set(hop, mac, Instant::from_secs(start));
            hops.forget(Realm::Outside, ip);
            assert_eq!(hops.get(hop, Instant::from_secs(start)), Some(mac), "the other realm's");
            hops.forget(Realm::Inside, ip);
            assert_eq!(hops.get(hop, Instant::from_secs(start)), None);
        }
        assert_eq!(hops.get(Hop::NONE, Instant::ZERO), None);
    }

    #[test]
    fn a_table_full_of_next_hops_refuses_numbers_and_keeps_what_it_has() {
        let hops = Hops::new();
        let number = |i: u32| hops.number(Realm::Inside, Ipv4Addr::from_bits(i));
        let first: Vec<_> = (0..CAPACITY as u32).map(number).collect();
        assert_eq!(number(CAPACITY as u32), Hop::NONE);
        assert_eq!(number(7), first[7]);
    }
}
