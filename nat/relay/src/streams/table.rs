//! The flows of one network: a bounded table, found by tuple or by number, with one timer each.
//!
//! When the table is full, or a container has as many flows as it may have, a new flow is refused and nothing that exists
//! is touched. Numbers carry a generation, so an event that was under way for a flow that ended finds nobody.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;

use tapswitch_wire::{Instant, Mac, PortId};

use super::tcp::Tcp;
use crate::flow::{FlowId, Key};

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
    pub body: Box<Tcp>,
    /// Whether it stands on the list of flows to serve this turn.
    pub queued: bool,
    /// What the timer heap is set to; entries that say otherwise are old.
    armed: Option<Instant>,
}

impl Flow {
    pub(crate) fn new(key: Key, via: SocketAddr, mac: Mac, port: PortId, now: Instant, body: Box<Tcp>) -> Flow {
        Flow { key, via, mac, port, last: now, up_bytes: 0, down_bytes: 0, body, queued: false, armed: None }
    }
}

struct Slot {
    generation: u16,
    flow: Option<Flow>,
}

pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<Key, FlowId>,
    timers: BinaryHeap<Reverse<(Instant, FlowId)>>,
}

impl Table {
    pub(crate) fn new() -> Table {
        Table { slots: Vec::new(), free: Vec::new(), by_key: HashMap::new(), timers: BinaryHeap::new() }
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
        FlowId::stream(index, self.slots[index as usize].generation)
    }

    /// Puts a flow where [`Table::next_id`] said.
    pub(crate) fn insert(&mut self, flow: Flow) -> FlowId {
        let id = self.next_id();
        self.free.pop();
        self.by_key.insert(flow.key, id);
        self.slots[id.index()].flow = Some(flow);
        id
    }

    pub(crate) fn find(&self, key: &Key) -> Option<FlowId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&mut self, id: FlowId) -> Option<&mut Flow> {
        let slot = self.slots.get_mut(id.index())?;
        if slot.generation == id.generation() { slot.flow.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let slot = self.slots.get_mut(id.index())?;
        if slot.generation != id.generation() {
            return None;
        }
        let flow = slot.flow.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index() as u32);
        self.by_key.remove(&flow.key);
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
        taken.map(|(slot, index)| FlowId::stream(index, slot.generation))
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
