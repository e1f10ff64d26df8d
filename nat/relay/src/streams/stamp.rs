//! Points in time of the recent past, in four bytes.

use std::time::Duration;

use tapswitch_wire::Instant;

/// Milliseconds, which wrap: what lies more than 49 days back looks younger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp(u32);

impl Stamp {
    pub(crate) fn of(now: Instant) -> Stamp {
        Stamp(now.as_millis() as u32)
    }

    /// Time that has passed since, in whole milliseconds.
    pub(crate) fn since(self, now: Instant) -> Duration {
        Duration::from_millis(u64::from(Stamp::of(now).0.wrapping_sub(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_across_the_wrap() {
        for start in [0, 1 << 20, (1 << 32) - 5, 1 << 32, (1 << 40) - 5] {
            let then = Instant::from_millis(start);
            let later = Duration::from_millis(7_440_000);
            assert_eq!(Stamp::of(then).since(then + later), later);
        }
    }
}
