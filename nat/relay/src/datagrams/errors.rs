//! How many ICMP errors a container gets about its datagrams.

use std::time::Duration;

use tapswitch_wire::Instant;

/// ICMP errors that a container gets at once.
const BURST: u32 = 50;
/// Time after which it may get one more: a hundred in a second.
const INTERVAL: Duration = Duration::from_millis(10);

/// A token bucket.
#[derive(Clone, Copy, Default)]
pub(super) struct Bucket {
    /// When it is full again.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Whether one more may be sent now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        if full_at - now > INTERVAL * (BURST - 1) {
            return false;
        }
        self.full_at = Some(full_at + INTERVAL);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_errors_at_once_and_then_a_hundred_in_a_second() {
        let (mut bucket, now) = (Bucket::default(), Instant::from_secs(5));
        assert_eq!((0..200).filter(|_| bucket.take(now)).count(), 50);
        let passed = (1..=1_000).filter(|ms| bucket.take(now + Duration::from_millis(*ms))).count();
        assert_eq!(passed, 100);
        let later = now + Duration::from_secs(60);
        assert_eq!((0..200).filter(|_| bucket.take(later)).count(), 50, "it is full again and no fuller");
    }
}
