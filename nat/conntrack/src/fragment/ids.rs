//! Identifications for packets that leave by a shared address.

use std::hash::BuildHasher;
use std::net::Ipv4Addr;

use siphasher::sip::SipHasher13;

use super::Keyed;

/// Counters, a power of two.
const BUCKETS: usize = 4096;

/// Gives each packet an identification that its (source, destination, protocol) has not used for as long as possible
/// (RFC 6864 4.3), without telling others how many packets leave (RFC 6274 3.5.2, RFC 7739 5.3).
///
/// An identification is the sum of two: where the sequence of a triple starts, which is a hash with a secret, and a
/// counter, of which there is a fixed number. Triples that share a counter make it run faster, so an identification
/// comes again after 65,535 packets of all of these together. Triples that do not share one say nothing about each other,
/// and which ones share depends on the secret. Zero is never given, as some take it for "none".
#[derive(Clone)]
pub struct Ids {
    hasher: Keyed,
    counters: Box<[u16; BUCKETS]>,
}

impl Ids {
    /// All counters at zero. `secret` must not be known outside.
    pub fn new(secret: [u8; 16]) -> Self {
        Self { hasher: Keyed(SipHasher13::new_with_key(&secret)), counters: Box::new([0; BUCKETS]) }
    }

    /// An identification for the next packet from `src` to `dst`.
    pub fn next(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> u16 {
        let hash = self.hasher.hash_one((src.to_bits(), dst.to_bits(), protocol));
        let counter = &mut self.counters[hash as usize % BUCKETS];
        let start = (hash >> 48) as u16;
        loop {
            *counter = counter.wrapping_add(1);
            match start.wrapping_add(*counter) {
                0 => {}
                id => return id,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn host(at: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0xcb00_7100 + at)
    }

    #[test]
    fn ip_4_no_identification_comes_again_before_all_others_came() {
        let mut ids = Ids::new([7; 16]);
        let mut last = vec![None; 65_536];
        for at in 0..3 * 65_535u32 {
            let id = usize::from(ids.next(US, host(1), 17));
            assert!(id != 0 && last[id].replace(at).is_none_or(|before| at - before == 65_535), "{id}");
        }
    }

    #[test]
    fn ip_4_triples_that_share_a_counter_do_not_repeat_theirs_either() {
        let mut ids = Ids::new([7; 16]);
        let mut seen = std::collections::HashSet::new();
        // Sixteen triples for each counter, three packets each.
        for round in 0..3 {
            for at in 0..16 * BUCKETS as u32 {
                assert!(seen.insert((at, ids.next(US, host(at), 17))), "round {round}, host {at}");
            }
        }
    }

    #[test]
    fn at_13_what_one_destination_sees_says_nothing_about_the_others() {
        let run = |secret, others: u32| {
            let mut ids = Ids::new([secret; 16]);
            let mut seen = Vec::new();
            for _ in 0..50 {
                seen.push(ids.next(US, host(0), 17));
                (1..=others).for_each(|at| _ = ids.next(US, host(at), 17));
            }
            seen
        };
        assert_eq!(run(7, 0), run(7, 20), "packets to others do not move this sequence");
        assert_ne!(run(7, 0), run(8, 0), "another secret, another sequence");
        let mut ids = Ids::new([7; 16]);
        let starts: Vec<u16> = (0..100).map(|at| ids.next(US, host(at), 17)).collect();
        let steps = starts.windows(2).filter(|pair| pair[1].wrapping_sub(pair[0]) < 16).count();
        assert!(steps < 3, "{steps} of 99 destinations got the number behind their predecessor's");
    }
}
