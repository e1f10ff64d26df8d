//! How long something took: the demo stands outside the cores, so it may look at a clock, and it does so only here.

use std::time::{Duration, Instant};

/// Runs from its making.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts it.
    #[expect(clippy::disallowed_methods, reason = "the demo measures real time, no core depends on it")]
    pub(super) fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Microseconds since it was started.
    pub(super) fn micros(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since it was started.
    pub(super) fn millis(self) -> u64 {
        self.micros() / 1000
    }

    /// What is left of `whole`, if anything is.
    pub(super) fn left_of(self, whole: Duration) -> Option<Duration> {
        whole.checked_sub(self.0.elapsed()).filter(|left| !left.is_zero())
    }
}

/// Waits a moment, between looking twice at something that the kernel is about to do.
#[expect(clippy::disallowed_methods, reason = "there is nothing to wait on: the caller polls with a deadline")]
pub(super) fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
