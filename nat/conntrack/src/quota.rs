//! What each owner uses, and may use.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tapswitch_wire::{DropReason, Instant};

use crate::{Limits, Protocol};

/// What one owner uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Sessions.
    pub sessions: u32,
    /// Outside ports, by protocol.
    pub ports: [u32; 3],
    /// When all of its allowance of new sessions is back.
    full_at: Instant,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas {
    owners: HashMap<u32, Usage>,
    /// Owners that use nothing, and whose allowance is not all back yet.
    waiting: HashSet<u32>,
}

impl Quotas {
    pub(crate) fn usage(&self, owner: u32) -> Usage {
        self.owners.get(&owner).copied().unwrap_or_default()
    }

    /// Whether an owner may begin a session now. If so: when its allowance will be back thereafter.
    ///
    /// # Errors
    /// [`DropReason::SessionLimit`], [`DropReason::SessionRate`].
    pub(crate) fn check_session(&self, owner: u32, limits: &Limits, now: Instant) -> Result<Instant, DropReason> {
        let usage = self.usage(owner);
        if usage.sessions >= limits.owner_sessions {
            return Err(DropReason::SessionLimit);
        }
        // As the budget of ICMP errors: an instant that each session moves on, and that may lie a second ahead.
        let interval = Duration::from_secs(1) / limits.owner_rate.max(1);
        let next = usage.full_at.max(now) + interval;
        if next - now > interval * limits.owner_rate.max(1) {
            return Err(DropReason::SessionRate);
        }
        Ok(next)
    }

    /// Takes one session of an owner's allowance, as [`Quotas::check_session`] granted it.
    pub(crate) fn take_session(&mut self, owner: u32, full_at: Instant) {
        let usage = self.owners.entry(owner).or_default();
        usage.full_at = full_at;
        usage.sessions += 1;
    }

    pub(crate) fn give_session(&mut self, owner: u32, now: Instant) {
        if let Some(usage) = self.owners.get_mut(&owner) {
            usage.sessions = usage.sessions.saturating_sub(1);
        }
        self.tidy(owner, now);
    }

    /// # Errors
    /// [`DropReason::PortLimit`].
    pub(crate) fn take_port(&mut self, owner: u32, protocol: Protocol, limits: &Limits) -> Result<(), DropReason> {
        if self.usage(owner).ports[protocol as usize] >= limits.owner_ports {
            return Err(DropReason::PortLimit);
        }
        self.owners.entry(owner).or_default().ports[protocol as usize] += 1;
        Ok(())
    }

    pub(crate) fn give_port(&mut self, owner: u32, protocol: Protocol, now: Instant) {
        if let Some(usage) = self.owners.get_mut(&owner) {
            let ports = &mut usage.ports[protocol as usize];
            *ports = ports.saturating_sub(1);
        }
        self.tidy(owner, now);
    }

    /// An owner that uses nothing, and whose allowance is back, is forgotten.
    fn tidy(&mut self, owner: u32, now: Instant) {
        let idle = |usage: &&Usage| usage.sessions == 0 && usage.ports == [0; 3];
        match self.owners.get(&owner).filter(idle) {
            Some(usage) if usage.full_at > now => {
                self.waiting.insert(owner);
            }
            Some(_) => {
                self.owners.remove(&owner);
                self.waiting.remove(&owner);
            }
            None => {
                self.waiting.remove(&owner);
            }
        }
    }

    /// Forgets the owners whose allowance has come back since they had nothing left.
    pub(crate) fn settle(&mut self, now: Instant) {
        let waiting: Vec<u32> = self.waiting.iter().copied().collect();
        waiting.into_iter().for_each(|owner| self.tidy(owner, now));
    }

    pub(crate) fn owners(&self) -> usize {
        self.owners.len()
    }
}
