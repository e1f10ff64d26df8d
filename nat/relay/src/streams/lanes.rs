//! Whose turn it is: containers in rounds, and the flows of one container in rounds among themselves.
//!
//! A container with a thousand busy flows waits for a thousand turns until each of them was served; another with a single
//! flow is served in every turn all the same. What a container has under way that is not established yet is counted here
//! too, because that is what a flood of SYNs consists of.

use std::collections::{HashMap, VecDeque};

use tapswitch_wire::PortId;

use crate::flow::FlowId;

/// The number of a container's lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LaneId(u16);

struct Lane {
    port: PortId,
    flows: usize,
    /// Begun by the container, and by others through its published ports: neither keeps the other from beginning more.
    half_open: [usize; 2],
    /// Flows that have something to send, each once.
    queue: VecDeque<FlowId>,
    /// Whether it stands in the round, or has its turn this moment.
    listed: bool,
}

#[derive(Default)]
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    by_port: HashMap<PortId, LaneId>,
    free: Vec<LaneId>,
    /// Lanes whose queue is not empty, each once.
    round: VecDeque<LaneId>,
}

impl Lanes {
    fn lane(&mut self, lane: LaneId) -> &mut Lane {
        &mut self.lanes[usize::from(lane.0)]
    }

    pub(crate) fn port(&self, lane: LaneId) -> PortId {
        self.lanes[usize::from(lane.0)].port
    }

    /// Flows of a container that are not established yet, those that others began or those that it began itself.
    pub(crate) fn half_open(&self, port: PortId, published: bool) -> usize {
        self.by_port.get(&port).map_or(0, |lane| self.lanes[usize::from(lane.0)].half_open[usize::from(published)])
    }

    /// One more flow of a container, not established yet. A switch has fewer ports than there are lanes.
    pub(crate) fn join(&mut self, port: PortId, published: bool) -> LaneId {
        let id = match self.by_port.get(&port) {
            Some(lane) => *lane,
            None => {
                let lane = Lane { port, flows: 0, half_open: [0; 2], queue: VecDeque::new(), listed: false };
                let id = self.free.pop().unwrap_or(LaneId(self.lanes.len() as u16));
                match self.lanes.get_mut(usize::from(id.0)) {
                    Some(place) => *place = lane,
                    None => self.lanes.push(lane),
                }
                self.by_port.insert(port, id);
                id
            }
        };
        let lane = self.lane(id);
        lane.flows += 1;
        lane.half_open[usize::from(published)] += 1;
        id
    }

    /// The lane of a container as another table counts it, with one flow more.
    pub(crate) fn join_as(&mut self, port: PortId, other: &Lanes) -> LaneId {
        let id = self.join(port, false);
        self.lane(id).half_open = [false, true].map(|published| other.half_open(port, published));
        id
    }

    /// A flow is established, or was given up before.
    pub(crate) fn opened(&mut self, lane: LaneId, published: bool) {
        let half_open = &mut self.lane(lane).half_open[usize::from(published)];
        *half_open = half_open.saturating_sub(1);
    }

    /// A flow has ended. What stands in the queue of it finds nobody.
    pub(crate) fn leave(&mut self, id: LaneId) {
        let lane = self.lane(id);
        lane.flows -= 1;
        if lane.flows > 0 {
            return;
        }
        lane.queue = VecDeque::new();
        lane.listed = false;
        let port = lane.port;
        self.by_port.remove(&port);
        self.round.retain(|other| *other != id);
        self.free.push(id);
        if self.by_port.is_empty() {
            *self = Lanes::default();
        }
    }

    /// Puts a flow behind all others of its container. It must not stand in the queue.
    pub(crate) fn enqueue(&mut self, id: LaneId, flow: FlowId) {
        let lane = self.lane(id);
        lane.queue.push_back(flow);
        if !lane.listed {
            lane.listed = true;
            self.round.push_back(id);
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.round.is_empty()
    }

    /// How many containers wait.
    pub(crate) fn waiting(&self) -> usize {
        self.round.len()
    }

    /// Begins the turn of the next container. Returns how many of its flows wait.
    pub(crate) fn begin(&mut self) -> Option<(LaneId, usize)> {
        let id = self.round.pop_front()?;
        Some((id, self.lane(id).queue.len()))
    }

    /// The next flow of this container.
    pub(crate) fn next(&mut self, id: LaneId) -> Option<FlowId> {
        self.lanes.get_mut(usize::from(id.0))?.queue.pop_front()
    }

    /// Ends the turn of a container: with flows left, it comes behind all others.
    pub(crate) fn end(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(usize::from(id.0)).filter(|lane| lane.listed) else { return };
        if lane.queue.is_empty() {
            lane.listed = false;
            lane.queue.shrink_to(64);
        } else {
            self.round.push_back(id);
        }
    }
}
