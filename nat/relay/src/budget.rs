//! Sockets of the host that containers may have: a bound for all, and one for each.
//!
//! A socket is a descriptor, memory of the kernel and, towards the outside, one of the host's ports. Who wants one asks
//! here first and gives it back here, whatever it is used for; so one container cannot use up what the others and the
//! daemon itself need, and a refusal has a name instead of an error of the kernel.

use std::collections::HashMap;

use tapswitch_wire::{DropReason, PortId};

/// How many sockets there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// In the network.
    pub flows: usize,
    /// For each container.
    pub flows_per_container: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 16_384, flows_per_container: 4_096 }
    }
}

/// Who has how many.
pub(crate) struct Budget {
    limits: Limits,
    taken: usize,
    by_container: HashMap<PortId, usize>,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Budget {
        Budget { limits, taken: 0, by_container: HashMap::new() }
    }

    /// Whether this container may have one more.
    pub(crate) fn check(&self, container: PortId) -> Result<(), DropReason> {
        let has = self.by_container.get(&container).copied().unwrap_or(0);
        let full = self.taken >= self.limits.flows || has >= self.limits.flows_per_container;
        if full { Err(DropReason::FlowLimit) } else { Ok(()) }
    }

    /// One more of this container. Whoever calls has checked, or does not mind.
    pub(crate) fn take(&mut self, container: PortId) {
        self.taken += 1;
        *self.by_container.entry(container).or_insert(0) += 1;
    }

    /// One that [`Budget::take`] counted is closed.
    pub(crate) fn give(&mut self, container: PortId) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(has) = self.by_container.get_mut(&container) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                self.by_container.remove(&container);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lm_4_a_container_gets_its_share_and_no_more_and_all_of_them_no_more_than_there_is() {
        let mut budget = Budget::new(Limits { flows: 3, flows_per_container: 2 });
        let (a, b) = (PortId(1), PortId(2));
        for _ in 0..2 {
            assert_eq!(budget.check(a), Ok(()));
            budget.take(a);
        }
        assert_eq!(budget.check(a), Err(DropReason::FlowLimit));
        assert_eq!(budget.check(b), Ok(()));
        budget.take(b);
        assert_eq!(budget.check(b), Err(DropReason::FlowLimit), "three in all");
        budget.give(a);
        assert_eq!(budget.check(b), Ok(()));
        assert_eq!(budget.check(a), Ok(()));
    }
}
