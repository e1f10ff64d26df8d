//! When the loop waits and when it looks again at once.
//!
//! Waking up costs microseconds, which a request and its answer pay twice. A loop that looks again for a short while
//! after the last frame saves them, at the price of a CPU for that while. That is worth it where the ends wait for each
//! other, and so leave a CPU idle. Where they send in bulk they do not wait, and need every CPU: then nothing spins. Nor does
//! it where others compute, which shows when the thread was kept from its CPU while it only looked again. So `adaptive` spins
//! unless much passes, unless CPUs are short, and unless a thread of ours would take the last one from the containers.

use std::time::Duration;

use tapswitch_wire::Instant;

use crate::daemon::PollPolicy;

/// How long `adaptive` looks again before it sleeps, where there is a CPU to spare.
const SPIN: Duration = Duration::from_micros(50);
/// What passes is bulk if it is more than this in one window: 2 Gbit/s.
const WINDOW: Duration = Duration::from_millis(1);
const BULK: usize = 256 << 10;
/// A turn that does not wait takes microseconds, and a few hundred with a full budget of frames. When it took longer than
/// this, the thread was kept from its CPU.
const PREEMPTED: Duration = Duration::from_millis(1);
/// For so long nothing spins then.
const CROWDED: Duration = Duration::from_millis(100);
/// With fewer CPUs than this, the containers need them all.
const SPARE_CPUS: usize = 2;

/// The policy and what it needs to know.
pub(super) struct Pace {
    policy: PollPolicy,
    spin: Duration,
    last_work: Instant,
    /// When the last turn began.
    turn: Instant,
    /// Others want this CPU: nothing spins before.
    crowded_until: Instant,
    /// When the present window began, and the bytes in it and in the one before.
    window: Instant,
    bytes: [usize; 2],
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
        Pace {
            policy,
            spin: spin.unwrap_or(default),
            last_work: Instant::ZERO,
            turn: Instant::ZERO,
            crowded_until: Instant::ZERO,
            window: Instant::ZERO,
            bytes: [0; 2],
        }
    }

    /// How long it looks again after the last frame; nothing if for ever.
    pub(super) fn spin(&self) -> Option<Duration> {
        match self.policy {
            PollPolicy::Busy => None,
            PollPolicy::Adaptive => Some(self.spin),
            PollPolicy::Sleep => Some(Duration::ZERO),
        }
    }

    /// A turn begins, after so much waiting. If the last one took long although it only looked again, somebody else had the
    /// CPU meanwhile, for a whole time slice: others need it more.
    pub(super) fn begins(&mut self, waited: Wait, now: Instant) {
        if waited == Wait::Spin && now - self.turn > PREEMPTED {
            self.crowded_until = now + CROWDED;
        }
        self.turn = now;
    }

    /// This turn found something to do: so many bytes of frames, beside other things.
    pub(super) fn worked(&mut self, now: Instant, bytes: usize) {
        self.last_work = now;
        let age = now - self.window;
        if age >= WINDOW {
            let before = if age < 2 * WINDOW { self.bytes[0] } else { 0 };
            self.bytes = [0, before];
            self.window = now;
        }
        self.bytes[0] += bytes;
    }

    /// Whether so much passes that the ends need the CPU more than a wake-up costs.
    fn is_bulk(&self) -> bool {
        self.bytes.iter().any(|bytes| *bytes > BULK)
    }

    /// How the next turn waits: `deadline` says when the next timer is due.
    pub(super) fn wait(&self, now: Instant, deadline: Option<Instant>) -> Wait {
        let spins = match self.policy {
            PollPolicy::Busy => true,
            PollPolicy::Adaptive => now - self.last_work < self.spin && now >= self.crowded_until && !self.is_bulk(),
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
        pace.worked(NOW, 100);
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
        assert_eq!(wait(PollPolicy::Adaptive, None, 2, 49), Wait::Spin);
        assert_eq!(wait(PollPolicy::Adaptive, None, 1, 0), SECOND);
        assert_eq!(wait(PollPolicy::Adaptive, Some(20), 1, 19), Wait::Spin);
    }

    #[test]
    fn adaptive_does_not_spin_where_others_took_the_cpu_while_it_looked() {
        let mut pace = Pace::with_cpus(PollPolicy::Adaptive, None, 8);
        let at = |micros| NOW + Duration::from_micros(micros);
        let mut turn = |waited, micros| {
            pace.begins(waited, at(micros));
            pace.worked(at(micros), 100);
            pace.wait(at(micros), None)
        };
        assert_eq!(turn(Wait::Block(None), 0), Wait::Spin);
        assert_eq!(turn(Wait::Spin, 900), Wait::Spin, "the frames before may have taken so long");
        assert_eq!(turn(Wait::Spin, 1901), Wait::Block(None), "to look again does not take a millisecond");
        assert_eq!(turn(Wait::Block(None), 101_900), Wait::Block(None));
        assert_eq!(turn(Wait::Block(None), 101_901), Wait::Spin, "a tenth of a second later");
        assert_eq!(turn(Wait::Block(None), 400_000), Wait::Spin, "a long sleep says nothing");
    }

    #[test]
    fn adaptive_does_not_spin_while_much_passes() {
        let mut pace = Pace::with_cpus(PollPolicy::Adaptive, None, 8);
        let at = |micros| NOW + Duration::from_micros(micros);
        pace.worked(at(0), BULK);
        assert_eq!(pace.wait(at(1), None), Wait::Spin);
        pace.worked(at(2), 1);
        assert_eq!(pace.wait(at(3), None), Wait::Block(None), "more than the bound within a millisecond");
        pace.worked(at(1500), 100);
        assert_eq!(pace.wait(at(1501), None), Wait::Block(None), "so it was a millisecond ago");
        pace.worked(at(2600), 100);
        assert_eq!(pace.wait(at(2601), None), Wait::Spin);
        pace.worked(at(2700), 2 * BULK);
        pace.worked(at(9000), 100);
        assert_eq!(pace.wait(at(9001), None), Wait::Spin, "what is long ago does not count");
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
