//! The flows of one network: a bounded table, found by tuple or by number, with one timer each.
//!
//! When the table is full, or a container has as many flows as it may have, a new flow is refused and nothing that exists
//! is touched. Numbers carry a generation, so an event that was under way for a flow that ended finds nobody.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};

use tapswitch_wire::{DropReason, Instant, Mac, PortId};

use crate::datagram::Datagram;
use crate::host::Proto;
use crate::tcp::Tcp;

/// A flow's number. Events and sockets are found by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FlowId {
    index: u32,
    generation: u16,
}

impl FlowId {
    /// The number in the low 48 bits, for an event's token.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The number that [`FlowId::to_bits`] gave; higher bits are ignored.
    pub fn from_bits(bits: u64) -> FlowId {
        FlowId { index: bits as u32, generation: (bits >> 32) as u16 }
    }

    /// The place in the table; places are used again.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// A flow as the container sees it. An echo's identifier plays the source port; its destination port is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub proto: Proto,
    pub src: SocketAddr,
    pub dst: SocketAddr,
}

/// One flow.
pub(crate) struct Flow {
    pub key: Key,
    /// Where the host connected to.
    pub via: SocketAddr,
    /// The container's MAC address, from its latest frame.
    pub mac: Mac,
    /// The port it came from.
    pub port: PortId,
    /// When something last passed.
    pub last: Instant,
    pub up_bytes: u64,
    pub down_bytes: u64,
    pub body: Body,
    /// Whether it stands on the list of flows to serve this turn.
    pub queued: bool,
    /// What the timer heap is set to; entries that say otherwise are old.
    armed: Option<Instant>,
}

/// What only one protocol knows.
pub(crate) enum Body {
    Tcp(Box<Tcp>),
    Datagram(Datagram),
}

impl Flow {
    pub(crate) fn new(key: Key, via: SocketAddr, mac: Mac, port: PortId, now: Instant, body: Body) -> Flow {
        Flow { key, via, mac, port, last: now, up_bytes: 0, down_bytes: 0, body, queued: false, armed: None }
    }
}

/// How many flows there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// In the network.
    pub flows: usize,
    /// For each container, by its address.
    pub flows_per_container: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 16_384, flows_per_container: 4_096 }
    }
}

struct Slot {
    generation: u16,
    flow: Option<Flow>,
}

pub(crate) struct Table {
    limits: Limits,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<Key, FlowId>,
    per_container: HashMap<IpAddr, usize>,
    timers: BinaryHeap<Reverse<(Instant, FlowId)>>,
}

impl Table {
    pub(crate) fn new(limits: Limits) -> Table {
        Table {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            per_container: HashMap::new(),
            timers: BinaryHeap::new(),
        }
    }

    /// Whether this container may have one more flow.
    pub(crate) fn check_room(&self, container: IpAddr) -> Result<(), DropReason> {
        let has = self.per_container.get(&container).copied().unwrap_or(0);
        if self.by_key.len() >= self.limits.flows || has >= self.limits.flows_per_container {
            return Err(DropReason::FlowLimit);
        }
        Ok(())
    }

    /// The number that the next flow will get.
    pub(crate) fn next_id(&mut self) -> FlowId {
        let index = match self.free.last() {
            Some(index) => *index,
            None => {
                let index = self.slots.len() as u32;
                self.slots.push(Slot { generation: 0, flow: None });
                self.free.push(index);
                index
            }
        };
        FlowId { index, generation: self.slots[index as usize].generation }
    }

    /// Puts a flow where [`Table::next_id`] said.
    pub(crate) fn insert(&mut self, flow: Flow) -> FlowId {
        let id = self.next_id();
        self.free.pop();
        self.by_key.insert(flow.key, id);
        *self.per_container.entry(flow.key.src.ip()).or_insert(0) += 1;
        self.slots[id.index()].flow = Some(flow);
        id
    }

    pub(crate) fn find(&self, key: &Key) -> Option<FlowId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&mut self, id: FlowId) -> Option<&mut Flow> {
        let slot = self.slots.get_mut(id.index())?;
        if slot.generation == id.generation { slot.flow.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let slot = self.slots.get_mut(id.index())?;
        if slot.generation != id.generation {
            return None;
        }
        let flow = slot.flow.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.by_key.remove(&flow.key);
        if let Some(count) = self.per_container.get_mut(&flow.key.src.ip()) {
            *count -= 1;
            if *count == 0 {
                self.per_container.remove(&flow.key.src.ip());
            }
        }
        if self.by_key.is_empty() {
            // Without flows there is nothing to wake up for.
            self.timers.clear();
        }
        Some(flow)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.slots.iter().filter_map(|slot| slot.flow.as_ref())
    }

    /// Each flow's number, in the order of [`Table::iter`].
    pub(crate) fn numbers(&self) -> impl Iterator<Item = FlowId> + '_ {
        let taken = self.slots.iter().zip(0..).filter(|(slot, _)| slot.flow.is_some());
        taken.map(|(slot, index)| FlowId { index, generation: slot.generation })
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = FlowId> + '_ {
        self.by_key.values().copied()
    }

    /// Sets a flow's timer. Setting it later than it is costs nothing: the old entry finds out when it is due.
    pub(crate) fn arm(&mut self, id: FlowId, at: Instant) {
        let Some(flow) = self.get(id) else { return };
        let earlier = flow.armed.is_none_or(|armed| at < armed);
        if earlier {
            flow.armed = Some(at);
            self.timers.push(Reverse((at, id)));
            self.sweep_timers();
        }
    }

    /// Entries of flows that ended stay in the heap until they are due. Once they are the greater part, they go.
    fn sweep_timers(&mut self) {
        if self.timers.len() < 64 + 4 * self.by_key.len() {
            return;
        }
        let mut timers = std::mem::take(&mut self.timers);
        timers.retain(|Reverse((at, id))| self.get(*id).is_some_and(|flow| flow.armed == Some(*at)));
        self.timers = timers;
    }

    /// The next flow whose timer is due. The caller looks whether its deadline is really over, and arms it anew.
    pub(crate) fn due(&mut self, now: Instant) -> Option<FlowId> {
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if at > now {
                return None;
            }
            self.timers.pop();
            if let Some(flow) = self.get(id)
                && flow.armed == Some(at)
            {
                flow.armed = None;
                return Some(id);
            }
        }
        None
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }
}
