//! Sockets of the host that containers may have: a bound for all, and one for each.
//!
//! A socket is a descriptor, memory of the kernel and, towards the outside, one of the host's ports. Who wants one asks
//! here first and gives it back here, whatever it is used for; so one container cannot use up what the others and the
//! daemon itself need, and a refusal has a name instead of an error of the kernel.
//!
//! A fixed share would be too small for the one container that needs many and too large once several do. So a container
//! may have [`SHARE`] times as many as are free: alone it gets most of them, and the more there are the less each gets.
//! One in [`RESERVE`] is kept for containers that have few, so that whoever comes next gets some even if nobody gives back
//! any.

use std::collections::HashMap;

use tapswitch_wire::{DropReason, PortId};

/// How many times what is free a container may have.
const SHARE: usize = 4;
/// This part of all is kept for containers that have few.
const RESERVE: usize = 8;
/// "Few" is this part of all.
const FEW: usize = 128;

/// How many sockets there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// In the network.
    pub flows: usize,
    /// For each container, however many are free.
    pub flows_per_container: usize,
    /// Of them, those for datagrams: each takes one of the host's ephemeral ports from everybody.
    pub ports: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 65_536, flows_per_container: 65_536, ports: 17_645 }
    }
}

/// So many of a kind, and who has how many.
#[derive(Clone)]
struct Pool {
    limit: usize,
    taken: usize,
    by_container: HashMap<PortId, usize>,
}

impl Pool {
    fn new(limit: usize) -> Pool {
        Pool { limit, taken: 0, by_container: HashMap::new() }
    }

    fn check(&self, container: PortId, most: usize) -> Result<(), DropReason> {
        let has = self.by_container.get(&container).copied().unwrap_or(0);
        let free = self.limit.saturating_sub(self.taken);
        let shared = free.saturating_sub(self.limit / RESERVE).saturating_mul(SHARE);
        let few = if free > 0 { (self.limit / FEW).max(1) } else { 0 };
        if has >= most.min(shared.max(few)) { Err(DropReason::FlowLimit) } else { Ok(()) }
    }

    fn take(&mut self, container: PortId) {
        self.taken += 1;
        *self.by_container.entry(container).or_insert(0) += 1;
    }

    fn give(&mut self, container: PortId) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(has) = self.by_container.get_mut(&container) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                self.by_container.remove(&container);
            }
        }
    }
}

/// Who has how many sockets, and how many ports of the host by them.
#[derive(Clone)]
pub(crate) struct Budget {
    most: usize,
    sockets: Pool,
    ports: Pool,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Budget {
        Budget {
            most: limits.flows_per_container,
            sockets: Pool::new(limits.flows),
            ports: Pool::new(limits.ports.min(limits.flows)),
        }
    }

    /// Whether this container may have one more socket.
    pub(crate) fn check(&self, container: PortId) -> Result<(), DropReason> {
        self.sockets.check(container, self.most)
    }

    /// Whether this container may have one more socket that takes a port of the host from everybody.
    pub(crate) fn check_port(&self, container: PortId) -> Result<(), DropReason> {
        self.check(container)?;
        self.ports.check(container, self.most)
    }

    /// One more of this container. Whoever calls has checked, or does not mind.
    pub(crate) fn take(&mut self, container: PortId) {
        self.sockets.take(container);
    }

    /// The same with a port.
    pub(crate) fn take_port(&mut self, container: PortId) {
        self.take(container);
        self.ports.take(container);
    }

    /// One that [`Budget::take`] counted is closed.
    pub(crate) fn give(&mut self, container: PortId) {
        self.sockets.give(container);
    }

    /// One that [`Budget::take_port`] counted is closed.
    pub(crate) fn give_port(&mut self, container: PortId) {
        self.give(container);
        self.ports.give(container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lm_4_a_container_gets_its_share_and_no_more_and_all_of_them_no_more_than_there_is() {
        let mut budget = Budget::new(Limits { flows: 3, flows_per_container: 2, ..Limits::default() });
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

    #[test]
    fn lm_4_whoever_comes_next_finds_some_left_however_many_want_all_of_them() {
        let mut budget = Budget::new(Limits { flows: 1_000, ..Limits::default() });
        for container in 1..=16 {
            let mut got = 0;
            while budget.check(PortId(container)).is_ok() {
                budget.take(PortId(container));
                got += 1;
            }
            assert!(got >= 1_000 / FEW, "container {container} gets {got}");
            assert!(container != 1 || got == 700, "alone it gets {got}");
        }
    }

    #[test]
    fn lm_4_datagrams_leave_ports_of_the_host_to_others_and_streams_need_none() {
        let mut budget = Budget::new(Limits { ports: 8, ..Limits::default() });
        let container = PortId(1);
        while budget.check_port(container).is_ok() {
            budget.take_port(container);
        }
        assert!(budget.ports.taken < 8, "{} of eight", budget.ports.taken);
        assert_eq!(budget.check(container), Ok(()), "a stream needs no port of its own");
        budget.give_port(container);
        assert_eq!(budget.check_port(container), Ok(()));
    }
}
