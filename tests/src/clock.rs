//! The only place of the system tests that reads a clock or sleeps.
#![allow(clippy::disallowed_methods, reason = "system tests run in real time, and this is where they wait")]

use std::time::{Duration, Instant};

/// How long to rest between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Measures how long something took.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Looks again and again until `look` finds something. Panics with `what` when `limit` has passed.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(watch.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(PAUSE);
    }
}

/// Looks again and again for `time`, and panics with `what` as soon as the condition does not hold.
#[track_caller]
pub fn holds_for(what: &str, time: Duration, mut look: impl FnMut() -> bool) {
    let watch = Stopwatch::start();
    while watch.elapsed() < time {
        assert!(look(), "{what}: no longer true after {:?}", watch.elapsed());
        std::thread::sleep(PAUSE);
    }
}
