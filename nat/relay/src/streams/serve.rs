//! What is done once a turn: flows send what they owe, timers end, idle flows are asked whether they still exist.

use tapswitch_wire::build::Link;
use tapswitch_wire::{Emit, Instant};

use super::Side;
use super::stamp::Stamp;
use super::tcp::{IDLE, KEEPALIVE, KEEPALIVE_EVERY, Path, Sent, State, Tcp};
use crate::flow::FlowId;
use crate::host::Host;

/// Frames of data that one flow sends in one turn, and that the flows of one container send together.
const FLOW_BUDGET: u32 = 8;
const CONTAINER_BUDGET: u32 = 32;

impl<H: Host> Side<'_, H> {
    /// Once a turn: sends what flows owe, lets timers end.
    pub(crate) fn poll(&mut self, now: Instant, out: &mut impl Emit) {
        self.accept(now, out);
        for _ in 0..self.streams.lanes.waiting() {
            let Some((lane, flows)) = self.streams.lanes.begin() else { break };
            let mut budget = CONTAINER_BUDGET;
            for _ in 0..flows {
                let Some(id) = self.streams.lanes.next(lane) else { break };
                if let Some(flow) = self.streams.table.get(id) {
                    flow.queued = false;
                    budget = budget.saturating_sub(self.serve(id, FLOW_BUDGET.min(budget), now, out));
                }
                if budget == 0 {
                    break;
                }
            }
            self.streams.lanes.end(lane);
        }
        while let Some(id) = self.streams.table.due(now) {
            self.on_timer(id, now, out);
        }
        if self.streams.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now, out);
        }
    }

    /// Puts a flow on the list of this turn, once.
    pub(super) fn enqueue(&mut self, id: FlowId) {
        if let Some(flow) = self.streams.table.get(id)
            && !flow.queued
        {
            flow.queued = true;
            self.streams.lanes.enqueue(flow.lane, id);
        }
    }

    /// Gives one flow its share. Returns how many frames of data it sent.
    fn serve(&mut self, id: FlowId, budget: u32, now: Instant, out: &mut impl Emit) -> u32 {
        let (mut ended, mut frames, mut bytes) = (Sent::Done, 0, 0);
        self.with_host(id, now, out, |tcp, path, host, out| {
            if !matches!(tcp.state, State::Connecting | State::SynSent) {
                (ended, frames, bytes) = tcp.pump(id, budget, path, host, out);
            }
        });
        if bytes > 0
            && let Some(flow) = self.streams.table.get(id)
        {
            flow.down_bytes += bytes;
            flow.last = Stamp::of(now);
        }
        match ended {
            Sent::Done => self.streams.table.arm(id, now),
            Sent::More => {
                self.streams.table.arm(id, now);
                self.enqueue(id);
            }
            Sent::Broken => self.break_tcp(id, now, out),
        }
        frames
    }

    /// Breaks a connection towards both ends.
    pub(super) fn break_tcp(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        self.with_tcp(id, now, out, |tcp, path, out| tcp.send_reset(path, out));
        self.remove(id, true);
    }

    pub(super) fn with_tcp<E: Emit>(
        &mut self,
        id: FlowId,
        now: Instant,
        out: &mut E,
        then: impl FnOnce(&mut Tcp, &mut Path<'_>, &mut E),
    ) {
        self.with_host(id, now, out, |tcp, path, _, out| then(tcp, path, out));
    }

    fn with_host<E: Emit>(
        &mut self,
        id: FlowId,
        now: Instant,
        out: &mut E,
        then: impl FnOnce(&mut Tcp, &mut Path<'_>, &mut H, &mut E),
    ) {
        let Some(flow) = self.streams.table.get(id) else { return };
        let key = flow.ends.key();
        let link = Link { src: self.shared.config.mac, dst: flow.mac };
        let (headers, frame) = (&mut self.shared.headers, &mut self.shared.frame);
        let mut path = Path { link, key: &key, mtu: self.shared.config.mtu, now, headers, frame };
        then(&mut flow.tcp, &mut path, self.host, out);
    }

    fn on_timer(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        let Some(flow) = self.streams.table.get(id) else { return };
        // Flows that are established and idle are looked at by `sweep`.
        if flow.tcp.state != State::Open && flow.last.since(now) >= flow.tcp.lifetime() {
            return match flow.tcp.state {
                State::Lingering => self.remove(id, false),
                _ => self.break_tcp(id, now, out),
            };
        }
        let mut alive = true;
        self.with_tcp(id, now, out, |tcp, path, out| alive = tcp.on_timer(path, out));
        if !alive {
            return self.break_tcp(id, now, out);
        }
        self.serve(id, FLOW_BUDGET, now, out);
        if let Some(flow) = self.streams.table.get(id) {
            flow.tcp.rest();
            self.streams.table.arm(id, now);
        }
    }

    /// Looks at all flows for those that were idle for too long. That costs each of them nothing while it is not, and is
    /// done when the first can have been, so as a rule about every two hours, and at most every [`KEEPALIVE_EVERY`].
    fn sweep(&mut self, now: Instant, out: &mut impl Emit) {
        let mut idle = Vec::new();
        let mut longest = None;
        for (id, flow) in self.streams.table.iter().filter(|(_, flow)| flow.tcp.state == State::Open) {
            let since = flow.last.since(now);
            if since >= KEEPALIVE {
                idle.push((id, since));
            }
            longest = longest.max(Some(since));
        }
        self.streams.sweep_at = longest.map(|longest| now + KEEPALIVE.saturating_sub(longest).max(KEEPALIVE_EVERY));
        for (id, since) in idle {
            if since >= IDLE {
                self.break_tcp(id, now, out);
            } else {
                self.host.keep_alive(id);
                self.with_tcp(id, now, out, |tcp, path, out| tcp.send_keepalive(path, out));
            }
        }
    }
}
