//! The flows of one network: found by tuple or by number, with one timer each while something is under way.
//!
//! A flow that is idle costs its record and an entry of the index, nothing else: no timer hangs for it. That such a flow
//! has been idle for too long is found by looking at all of them, when the first one can have been; see `Side::sweep`.
//!
//! Numbers carry a generation, so an event that was under way for a flow that ended finds nobody. It counts through the
//! whole table: a place that is used again has another number than before, until 65 536 others came between.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use hashbrown::HashTable;
use tapswitch_wire::{Instant, Mac};

use super::ends::Ends;
use super::lanes::LaneId;
use super::stamp::Stamp;
use super::tcp::Tcp;
use crate::flow::{FlowId, Key};
use crate::host::Proto;
use crate::pages::Pages;

/// One flow.
#[derive(Clone)]
pub(crate) struct Flow {
    pub ends: Ends,
    /// The container's MAC address, from its latest frame.
    pub mac: Mac,
    generation: u16,
    /// The container.
    pub lane: LaneId,
    /// Whether it stands in the queue of its container.
    pub queued: bool,
    /// Whether it counts as half-open.
    pub half_open: bool,
    /// Whether the other end began it, by a published port.
    pub published: bool,
    /// When something last passed.
    pub last: Stamp,
    pub up_bytes: u64,
    pub down_bytes: u64,
    pub tcp: Tcp,
}

impl Flow {
    /// A flow that is just beginning, at the place that [`Table::reserve`] gave.
    pub(crate) fn new(id: FlowId, key: &Key, mac: Mac, lane: LaneId, now: Instant, tcp: Tcp) -> Flow {
        Flow {
            ends: Ends::new(key),
            mac,
            generation: id.generation(),
            lane,
            queued: false,
            half_open: true,
            published: false,
            last: Stamp::of(now),
            up_bytes: 0,
            down_bytes: 0,
            tcp,
        }
    }
}

pub(crate) struct Table {
    flows: Pages<Flow>,
    generation: u16,
    by_key: HashTable<u32>,
    keys: RandomState,
    /// Where the host connected to, for flows whose other end is not what the container believes.
    elsewhere: HashMap<FlowId, SocketAddr>,
    timers: BinaryHeap<Reverse<(Instant, FlowId)>>,
}

impl Table {
    pub(crate) fn new() -> Table {
        Table {
            flows: Pages::new(),
            generation: 0,
            by_key: HashTable::new(),
            keys: RandomState::new(),
            elsewhere: HashMap::new(),
            timers: BinaryHeap::new(),
        }
    }

    /// A number for a flow, or for something else that has a socket of this kind. It is taken until [`Table::release`]
    /// or [`Table::remove`].
    pub(crate) fn reserve(&mut self) -> FlowId {
        self.generation = self.generation.wrapping_add(1);
        FlowId::stream(self.flows.reserve() as u32, self.generation)
    }

    /// Gives a number back that no flow was inserted for.
    pub(crate) fn release(&mut self, id: FlowId) {
        self.flows.free(id.index());
    }

    fn hash(keys: &RandomState, src: SocketAddr, dst: SocketAddr) -> u64 {
        match (src, dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) => {
                let word = |end: std::net::SocketAddrV4| u64::from(end.ip().to_bits()) << 16 | u64::from(end.port());
                keys.hash_one((word(src), word(dst)))
            }
            ends => keys.hash_one(ends),
        }
    }

    /// Puts a flow where [`Table::reserve`] said. `via` is where the host connected to.
    pub(crate) fn insert(&mut self, id: FlowId, flow: Flow, via: SocketAddr) {
        let key = flow.ends.key();
        if via != key.dst {
            self.elsewhere.insert(id, via);
        }
        self.flows.put(id.index(), flow);
        let Table { flows, by_key, keys, .. } = self;
        let rehash = |other: &u32| {
            let key = flows.get(*other as usize).map(|flow| flow.ends.key());
            key.map_or(0, |key| Self::hash(keys, key.src, key.dst))
        };
        by_key.insert_unique(Self::hash(keys, key.src, key.dst), id.index() as u32, rehash);
    }

    /// Puts a flow of another table into this one, in which its container has this lane.
    pub(crate) fn adopt(&mut self, flow: Flow, lane: LaneId, via: SocketAddr) {
        let id = self.reserve();
        self.insert(id, Flow { generation: id.generation(), lane, queued: false, ..flow }, via);
    }

    /// A flow, for a look at it.
    pub(crate) fn look(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(id.index()).filter(|flow| flow.generation == id.generation())
    }

    pub(crate) fn find(&self, key: &Key) -> Option<FlowId> {
        let hash = Self::hash(&self.keys, key.src, key.dst);
        let is = |other: &u32| self.flows.get(*other as usize).is_some_and(|flow| flow.ends.are(key));
        let index = *self.by_key.find(hash, is)?;
        let flow = self.flows.get(index as usize)?;
        Some(FlowId::stream(index, flow.generation))
    }

    #[inline]
    pub(crate) fn get(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(id.index()).filter(|flow| flow.generation == id.generation())
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        self.get(id)?;
        let flow = self.flows.free(id.index())?;
        let key = flow.ends.key();
        let hash = Self::hash(&self.keys, key.src, key.dst);
        if let Ok(entry) = self.by_key.find_entry(hash, |other| *other == id.index() as u32) {
            entry.remove();
        }
        self.elsewhere.remove(&id);
        if self.by_key.is_empty() {
            // Without flows there is nothing to wake up for, and nothing to keep memory for.
            self.by_key = HashTable::new();
            self.elsewhere = HashMap::new();
            self.timers = BinaryHeap::new();
        }
        Some(flow)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The flows with their numbers, lowest place first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FlowId, &Flow)> {
        self.flows.iter().map(|(at, flow)| (FlowId::stream(at as u32, flow.generation), flow))
    }

    /// Where the host connected to.
    pub(crate) fn via(&self, id: FlowId, key: &Key) -> SocketAddr {
        debug_assert_eq!(key.proto, Proto::Tcp);
        self.elsewhere.get(&id).copied().unwrap_or(key.dst)
    }

    /// Sets a flow's timer. Setting it later than it is costs nothing: the old entry finds out when it is due.
    pub(crate) fn arm(&mut self, id: FlowId, now: Instant) {
        let Some(flow) = self.get(id) else { return };
        if let Some(at) = flow.tcp.arm(flow.last, now) {
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
        timers.retain(|Reverse((at, id))| self.get(*id).is_some_and(|flow| flow.tcp.is_armed_for(*at)));
        self.timers = timers;
    }

    /// The next flow whose timer is due. The caller looks whether its deadline is really over, and arms it anew.
    pub(crate) fn due(&mut self, now: Instant) -> Option<FlowId> {
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            // Entries of what ended or rests go as soon as they are the next: nobody wakes up for them.
            let live = self.get(id).is_some_and(|flow| flow.tcp.is_armed_for(at));
            if live && at > now {
                return None;
            }
            self.timers.pop();
            if self.timers.is_empty() {
                self.timers.shrink_to(64);
            }
            if live && let Some(flow) = self.get(id) {
                flow.tcp.disarm();
                return Some(id);
            }
        }
        None
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }
}
