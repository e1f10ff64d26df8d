//! When sessions are looked at again.
//!
//! A wheel of lists, one for each second. A packet does not touch it: it only notes in the session until when that lives.
//! When a session's second has come, it ends, or is hung up again at the second that its last packet meant. Lists are
//! linked both ways, by number, so that a session whose life becomes shorter can be moved.

const NONE: u32 = u32::MAX;
/// Seconds on the wheel: more than two hours, so that only very long timers go round more than once.
const SECONDS: usize = 8192;

#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    second: u16,
    hung: bool,
}

pub(crate) struct Wheel {
    links: Vec<Link>,
    heads: Box<[u32]>,
    /// The next second to be looked at.
    cursor: u64,
    /// No list before this second has anything.
    soonest: u64,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel { links: Vec::new(), heads: vec![NONE; SECONDS].into(), cursor: 0, soonest: u64::MAX }
    }

    /// Hangs a session up at a second, wherever it hung before. One that has passed is looked at next.
    pub(crate) fn hang(&mut self, number: u32, second: u64) {
        let at = number as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, Link { prev: NONE, next: NONE, second: 0, hung: false });
        }
        self.unhang(number);
        // One that lies too far ahead is looked at earlier, and hung up again.
        let second = second.clamp(self.cursor, self.cursor + SECONDS as u64 - 1);
        self.soonest = self.soonest.min(second);
        let second = (second % SECONDS as u64) as usize;
        let next = self.heads[second];
        self.links[at] = Link { prev: NONE, next, second: second as u16, hung: true };
        if next != NONE {
            self.links[next as usize].prev = number;
        }
        self.heads[second] = number;
    }

    pub(crate) fn unhang(&mut self, number: u32) {
        let Some(link) = self.links.get_mut(number as usize).filter(|link| link.hung) else { return };
        link.hung = false;
        let Link { prev, next, second, .. } = *link;
        match prev {
            NONE => self.heads[usize::from(second)] = next,
            prev => self.links[prev as usize].next = next,
        }
        if next != NONE {
            self.links[next as usize].prev = prev;
        }
    }

    /// Takes down one session of a second that has passed; `None` if there is none left.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<u32> {
        // After a long sleep each second of the wheel is looked at once.
        let oldest = now.saturating_sub(SECONDS as u64 - 1);
        self.cursor = self.cursor.max(self.soonest.min(now)).max(oldest);
        while self.cursor <= now {
            let number = self.heads[(self.cursor % SECONDS as u64) as usize];
            if number != NONE {
                self.unhang(number);
                return Some(number);
            }
            self.cursor += 1;
        }
        let mut ahead = self.cursor..self.cursor + SECONDS as u64;
        self.soonest = ahead.find(|s| self.heads[(s % SECONDS as u64) as usize] != NONE).unwrap_or(u64::MAX);
        None
    }

    /// No session is due before this second; `None` if none hangs.
    pub(crate) fn next(&self) -> Option<u64> {
        (self.soonest != u64::MAX).then_some(self.soonest)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_session_is_looked_at_in_its_second_and_none_is_lost(
            steps in prop::collection::vec((0u32..40, 0u64..20_000, 0u64..9_000, 0u8..8), 1..200)
        ) {
            let (mut wheel, mut model, mut now) = (Wheel::new(), BTreeMap::new(), 0);
            for (number, ahead, pass, what) in steps {
                match what {
                    0..=3 => {
                        wheel.hang(number, now + ahead);
                        model.insert(number, now + ahead);
                    }
                    4 => {
                        wheel.unhang(number);
                        model.remove(&number);
                    }
                    _ => {
                        now += pass;
                        while let Some(due) = wheel.take_due(now) {
                            let second = model[&due];
                            if second > now {
                                wheel.hang(due, second);
                            } else {
                                model.remove(&due);
                            }
                        }
                        prop_assert!(model.values().all(|second| *second > now), "{model:?} at {now}");
                        let next = model.values().min().copied();
                        prop_assert_eq!(wheel.next().is_none(), next.is_none());
                        prop_assert!(wheel.next() <= next, "never later than the first is due");
                    }
                }
            }
        }
    }
}
