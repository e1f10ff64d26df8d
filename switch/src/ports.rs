//! The ports of one switch: what they allow, and what went through them.

use serde::Serialize;
use tapswitch_wire::{DropCounters, DropReason, PortId};

/// How many ports a switch can have: their numbers are below this. Whoever numbers ports uses the numbers of removed
/// ones again.
pub const MAX_PORTS: usize = 4096;

/// What a port allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// The largest IP packet in bytes (without the Ethernet header) that may leave by it.
    pub mtu: u16,
    /// Whether it may not exchange frames with other isolated ports. Has no effect on [`PortId::GATEWAY`].
    pub isolated: bool,
}

/// What went through one port, seen from the switch: received is what the container sent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct PortCounters {
    /// Frames that came in, whatever became of them. A super-frame counts as one.
    pub rx_frames: u64,
    /// Their bytes, from the Ethernet header on.
    pub rx_bytes: u64,
    /// Frames that left, as [`Switch::sent`](crate::Switch::sent) reported them.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames from this port that went nowhere, and frames that should have left by it and did not.
    pub drops: DropCounters,
    /// Frames from this port that were flooded.
    pub flooded: u64,
    /// Addresses that were learned behind this port.
    pub learned: u64,
    /// Frames whose source was not learned because the FDB, or this port's share of it, was full.
    pub learn_refused: u64,
    /// Stations that moved here from another port.
    pub moves: u64,
}

impl PortCounters {
    /// Adds what another thread counted for the same port.
    pub fn add(&mut self, other: &PortCounters) {
        self.rx_frames += other.rx_frames;
        self.rx_bytes += other.rx_bytes;
        self.tx_frames += other.tx_frames;
        self.tx_bytes += other.tx_bytes;
        self.drops.add(&other.drops);
        self.flooded += other.flooded;
        self.learned += other.learned;
        self.learn_refused += other.learn_refused;
        self.moves += other.moves;
    }
}

/// An attached port.
#[derive(Debug)]
pub(crate) struct Port {
    mtu: u16,
    isolated: bool,
    pub(crate) counters: PortCounters,
}

impl Port {
    /// Whether it exchanges frames only with ports that are not isolated.
    pub(crate) fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// Whether an IP packet of `len` bytes may leave by this port.
    pub(crate) fn takes(&self, len: usize) -> bool {
        len <= usize::from(self.mtu)
    }

    /// The largest IP packet in bytes.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }
}

/// All ports, found by number. Boxed, so that a flood over sparse numbers reads a pointer for each gap and not a port.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    slots: Vec<Option<Box<Port>>>,
    /// Drops of ports that are not attached (any more).
    pub(crate) stray: DropCounters,
}

impl Ports {
    /// Attaches a port, or changes what an attached one allows. Ignores numbers that are out of bounds.
    pub(crate) fn add(&mut self, id: PortId, config: PortConfig) {
        let at = id.0 as usize;
        if at >= MAX_PORTS {
            return;
        }
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        let isolated = config.isolated && id != PortId::GATEWAY;
        match &mut self.slots[at] {
            Some(port) => (port.mtu, port.isolated) = (config.mtu, isolated),
            slot => *slot = Some(Box::new(Port { mtu: config.mtu, isolated, counters: PortCounters::default() })),
        }
    }

    /// The same ports, with counters at zero.
    pub(crate) fn copy(&self) -> Ports {
        let copy = |port: &Port| Box::new(Port { counters: PortCounters::default(), ..*port });
        let slots = self.slots.iter().map(|slot| slot.as_deref().map(copy)).collect();
        Ports { slots, stray: DropCounters::default() }
    }

    pub(crate) fn remove(&mut self, id: PortId) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            *slot = None;
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: PortId) -> Option<&Port> {
        self.slots.get(id.0 as usize)?.as_deref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.slots.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// The attached ports in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PortId, &Port)> {
        self.slots.iter().enumerate().filter_map(|(at, slot)| Some((PortId(at as u32), slot.as_deref()?)))
    }

    /// As [`Ports::iter`].
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (PortId, &mut Port)> {
        self.slots.iter_mut().enumerate().filter_map(|(at, slot)| Some((PortId(at as u32), slot.as_deref_mut()?)))
    }

    /// Counts a drop on its port, or among the strays.
    pub(crate) fn count_drop(&mut self, id: PortId, reason: DropReason) {
        match self.get_mut(id) {
            Some(port) => port.counters.drops.count(reason),
            None => self.stray.count(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: PortConfig = PortConfig { mtu: 1500, isolated: false };

    #[test]
    fn numbers_are_bounded_and_memory_with_them() {
        let mut ports = Ports::default();
        for id in [MAX_PORTS as u32, u32::MAX] {
            ports.add(PortId(id), OPEN);
            assert!(ports.get(PortId(id)).is_none() && ports.slots.is_empty());
        }
        ports.add(PortId(MAX_PORTS as u32 - 1), OPEN);
        assert_eq!(ports.iter().count(), 1);
    }

    #[test]
    fn adding_twice_changes_the_port_and_keeps_its_counters_and_removing_forgets_them() {
        let mut ports = Ports::default();
        ports.add(PortId(1), OPEN);
        ports.count_drop(PortId(1), DropReason::TxFull);
        ports.add(PortId(1), PortConfig { mtu: 9000, isolated: true });
        let port = ports.get(PortId(1)).unwrap();
        assert_eq!((port.mtu, port.isolated, port.counters.drops.total()), (9000, true, 1));
        ports.remove(PortId(1));
        ports.count_drop(PortId(1), DropReason::TxFull);
        assert_eq!(ports.stray.get(DropReason::TxFull), 1);
        ports.add(PortId(1), OPEN);
        assert_eq!(ports.get(PortId(1)).unwrap().counters, PortCounters::default());
    }
}
