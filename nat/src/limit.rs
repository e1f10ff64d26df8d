//! How many ICMP errors one source may get (RFC 1812 4.3.2.8).

use std::net::IpAddr;
use std::time::Duration;

use tapswitch_wire::Instant;

/// Errors a source may get at once: a traceroute's burst of probes fits.
const BURST: u32 = 50;
/// Time that each further one takes to become free.
const INTERVAL: Duration = Duration::from_millis(10);
/// Buckets in all. A power of two.
const BUCKETS: usize = 1024;

/// Token buckets, one for each hash of a source address.
///
/// A bucket is one instant: when all of its tokens are back. Spending a token moves it one interval on; a bucket whose
/// instant lies a whole burst ahead is empty. So there is nothing to fill up, to expire or to evict.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    full_at: Box<[Instant]>,
    secret: u64,
}

impl Limiter {
    /// The secret keeps a sender from choosing an address that shares the bucket of another.
    pub(crate) fn new(secret: u64) -> Limiter {
        Limiter { full_at: vec![Instant::ZERO; BUCKETS].into(), secret }
    }

    /// Takes a token of `source`. False if there is none left.
    pub(crate) fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        let index = self.index(source);
        let Some(full_at) = self.full_at.get_mut(index) else { return false };
        let next = (*full_at).max(now) + INTERVAL;
        let free = next.saturating_since(now) <= INTERVAL * BURST;
        if free {
            *full_at = next;
        }
        free
    }

    fn index(&self, source: IpAddr) -> usize {
        let bits = match source {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let hash = mix(mix(self.secret ^ bits as u64) ^ self.secret.rotate_left(32) ^ (bits >> 64) as u64);
        hash as usize % BUCKETS
    }
}

/// A permutation of 64 bits in which each bit of the input moves about half of the output (multiply and xor-shift).
fn mix(mut x: u64) -> u64 {
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9u64), (27, 0x94d0_49bb_1331_11eb)] {
        x = (x ^ (x >> shift)).wrapping_mul(factor);
    }
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(limiter: &mut Limiter, source: &str, now: Instant) -> usize {
        let source = source.parse().unwrap();
        (0..1000).filter(|_| limiter.take(source, now)).count()
    }

    #[test]
    fn ip_7_a_burst_then_a_steady_rate_for_each_source_apart() {
        let mut limiter = Limiter::new(1);
        assert_eq!(granted(&mut limiter, "10.0.0.2", Instant::ZERO), 50);
        assert_eq!(granted(&mut limiter, "10.0.0.2", Instant::from_millis(9)), 0);
        assert_eq!(granted(&mut limiter, "10.0.0.2", Instant::from_millis(100)), 10);
        assert_eq!(
            granted(&mut limiter, "10.0.0.3", Instant::from_millis(100)),
            50,
            "others have a budget of their own"
        );
        assert_eq!(granted(&mut limiter, "10.0.0.2", Instant::from_secs(3600)), 50, "no more is saved up than a burst");
    }

    #[test]
    fn ip_7_which_sources_share_a_budget_depends_on_the_secret() {
        let sharers = |secret| -> Vec<u32> {
            let limiter = Limiter::new(secret);
            let bucket = |i: u32| limiter.index(IpAddr::from(i.to_be_bytes()));
            (1..20_000).filter(|i| bucket(*i) == bucket(0)).collect()
        };
        let (one, other) = (sharers(1), sharers(2));
        assert!((5..50).contains(&one.len()), "about one in 1024 shares: {}", one.len());
        assert_ne!(one, other);
    }
}
