//! The loop's clock: the only place of the daemon that reads one.

use std::time::{Duration, SystemTime};

use tapswitch_wire::Instant;

/// Monotonic time since the daemon started, and the calendar time of that moment.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    start: std::time::Instant,
    epoch: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the loop's own clock")]
    pub(super) fn new() -> Clock {
        let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { start: std::time::Instant::now(), epoch }
    }

    #[expect(clippy::disallowed_methods, reason = "the loop's own clock")]
    pub(super) fn now(&self) -> Instant {
        Instant::ZERO + std::time::Instant::now().duration_since(self.start)
    }

    /// Time since 1970 at [`Instant::ZERO`].
    pub(super) fn epoch(&self) -> Duration {
        self.epoch
    }
}

/// Nanoseconds by a clock that only differences mean something of: what journeys are timed by.
#[expect(clippy::disallowed_methods, reason = "the loop's own clock")]
pub(super) fn nanos() -> u64 {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed().as_nanos() as u64
}
