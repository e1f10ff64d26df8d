//! When the loop waits and when it looks again at once.
//!
//! Waking up costs microseconds, which a request and its answer pay twice. A loop that looks again for a short while
//! after the last frame saves them, at the price of a CPU for that while. On a machine where the containers need every
//! CPU that is a bad bargain. So `adaptive` spins only where two CPUs are left to the containers, or if it is told for how
//! long.

use std::time::Duration;

use tapswitch_wire::Instant;

use crate::daemon::PollPolicy;

/// How long `adaptive` looks again before it sleeps, where there is a CPU to spare.
const SPIN: Duration = Duration::from_micros(50);
/// With fewer CPUs than this, the containers need them all.
const SPARE_CPUS: usize = 3;

/// The policy and what it needs to know.
pub(super) struct Pace {
    policy: PollPolicy,
    spin: Duration,
    last_work: Instant,
}

impl Pace {
    /// One of `threads` threads.
    pub(super) fn new(policy: PollPolicy, spin: Option<Duration>, threads: usize) -> Pace {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        // Every further thread that spins takes one more from the containers.
        Pace::with_cpus(policy, spin, (cpus + 1).saturating_sub(threads.max(1)))
    }

    fn with_cpus(policy: PollPolicy, spin: Option<Duration>, cpus: usize) -> Pace {
        let default = if cpus < SPARE_CPUS { Duration::ZERO } else { SPIN };
        Pace { policy, spin: spin.unwrap_or(default), last_work: Instant::ZERO }
    }

    /// How long it looks again after the last frame; nothing if for ever.
    pub(super) fn spin(&self) -> Option<Duration> {
        match self.policy {
            PollPolicy::Busy => None,
            PollPolicy::Adaptive => Some(self.spin),
            PollPolicy::Sleep => Some(Duration::ZERO),
        }
    }

    /// This turn found something to do.
    pub(super) fn worked(&mut self, now: Instant) {
        self.last_work = now;
    }

    /// How the next turn waits: `deadline` says when the next timer is due.
    pub(super) fn wait(&self, now: Instant, deadline: Option<Instant>) -> Wait {
        let spins = match self.policy {
            PollPolicy::Busy => true,
            PollPolicy::Adaptive => now - self.last_work < self.spin,
            PollPolicy::Sleep => false,
        };
        if spins { Wait::Spin } else { Wait::Block(deadline.map(|at| at - now)) }
    }
}

/// How a turn waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// Not at all: there is something to do.
    No,
    /// It looks again. It does not offer its CPU to others (`sched_yield`): where they always want it, they keep it for
    /// milliseconds, and an answer took 4 ms instead of 20 us.
    Spin,
    /// Until there are news, or for so long.
    Block(Option<Duration>),
}

impl Wait {
    /// What to wait for in the kernel.
    pub(super) fn timeout(self) -> Option<Duration> {
        match self {
            Wait::No | Wait::Spin => Some(Duration::ZERO),
            Wait::Block(limit) => limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(5);
    const SECOND: Wait = Wait::Block(Some(Duration::from_secs(1)));

    fn wait(policy: PollPolicy, spin: Option<u64>, cpus: usize, idle_micros: u64) -> Wait {
        let mut pace = Pace::with_cpus(policy, spin.map(Duration::from_micros), cpus);
        pace.worked(NOW);
        let now = NOW + Duration::from_micros(idle_micros);
        pace.wait(now, Some(now + Duration::from_secs(1)))
    }

    #[test]
    fn adaptive_looks_again_for_a_while_and_then_sleeps() {
        assert_eq!(wait(PollPolicy::Adaptive, None, 8, 49), Wait::Spin);
        assert_eq!(wait(PollPolicy::Adaptive, None, 8, 50), SECOND);
        assert_eq!(wait(PollPolicy::Adaptive, Some(200), 8, 199), Wait::Spin);
    }

    #[test]
    fn adaptive_does_not_spin_where_containers_need_every_cpu_unless_told_to() {
        assert_eq!(wait(PollPolicy::Adaptive, None, 2, 0), SECOND);
        assert_eq!(wait(PollPolicy::Adaptive, Some(20), 2, 19), Wait::Spin);
    }

    #[test]
    fn busy_never_sleeps_and_sleep_always_does() {
        assert_eq!(wait(PollPolicy::Busy, None, 1, 1_000_000), Wait::Spin);
        assert_eq!(wait(PollPolicy::Sleep, Some(1000), 8, 0), SECOND);
        assert_eq!(
            Pace::with_cpus(PollPolicy::Sleep, None, 8).wait(NOW, None),
            Wait::Block(None),
            "without a timer, for ever"
        );
    }
}
