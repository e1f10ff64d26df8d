//! UDP and ping flows: a datagram in is a datagram out, and the host's ICMP errors go back to who caused them.

mod session;
mod table;

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;

use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropReason, Emit, FrameOf, Instant, Journey, Meta, PortId, Stage, Step};

use crate::flow::{FlowId, FlowView, Key};
use crate::host::{Host, HostError, HostIcmp, Proto, Readiness};
use crate::publish::Publication;
use crate::relay::{Refusal, Shared, unreachable_code};
use session::Datagram;
use table::{Flow, Table};

/// Datagrams that one flow receives in one turn.
const DATAGRAM_BUDGET: usize = 64;

/// The endpoints of one network that exchange datagrams with the outside.
pub(crate) struct Datagrams {
    table: Table,
    /// Flows that have something to receive at the end of this turn.
    turn: Vec<FlowId>,
    spare: Vec<FlowId>,
}

impl Datagrams {
    pub(crate) fn new() -> Datagrams {
        Datagrams { table: Table::new(), turn: Vec::new(), spare: Vec::new() }
    }

    /// Number of flows.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether a flow still has something to receive this very moment.
    pub(crate) fn is_busy(&self) -> bool {
        !self.turn.is_empty()
    }

    /// When [`Side::poll`] has something to do although nothing comes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.table.deadline()
    }

    /// The flows, oldest place first.
    pub(crate) fn flows(&self, now: Instant) -> Vec<FlowView> {
        let view = |flow: &Flow| FlowView {
            port: flow.port,
            proto: flow.key.proto.name(),
            src: flow.key.src,
            dst: flow.key.dst,
            via: flow.via,
            state: "active",
            up_bytes: flow.up_bytes,
            down_bytes: flow.down_bytes,
            idle_s: (now - flow.last).as_secs(),
            expires_s: (flow.last + flow.body.idle - now).as_secs(),
        };
        self.table.iter().map(view).collect()
    }
}

/// The datagrams at work, with what they need.
pub(crate) struct Side<'a, H> {
    pub datagrams: &'a mut Datagrams,
    pub shared: &'a mut Shared,
    pub host: &'a mut H,
}

impl<H: Host> Side<'_, H> {
    pub(crate) fn handle<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        key: Key,
        frame: &FrameOf<B>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        let id = match self.datagrams.table.find(&key) {
            Some(id) => {
                journey.note(|| Step::looked_up(Stage::Relay, format!("a known {} flow", key.proto.name())));
                id
            }
            None => {
                let host = &mut self.host;
                let via = self.shared.admit(port, &key, |ip| host.is_own(ip), journey)?;
                let id = self.datagrams.table.next_id();
                self.host.open(id, key.proto, via).map_err(|error| match error {
                    HostError::NoPing => Refusal { reason: DropReason::HostNoPing, unreachable: Some(13) },
                    error => Refusal { reason: DropReason::HostSocketFailed, unreachable: unreachable_code(error) },
                })?;
                self.shared.budget.take(port);
                let flow = Flow::new(key, via, frame.src_mac(), port, now, Datagram::new(&key));
                self.datagrams.table.insert(flow);
                self.arm(id);
                id
            }
        };
        let Some(Flow { body: datagram, mac, last, up_bytes, .. }) = self.datagrams.table.get(id) else {
            return Err(DropReason::NoSuchFlow.into());
        };
        *mac = frame.src_mac();
        *last = now;
        datagram.remember(frame);
        let payload = if key.proto == Proto::Icmp { frame.segment() } else { frame.payload() };
        *up_bytes += payload.len() as u64;
        // A USO super-frame is many datagrams; each becomes one.
        let size = frame.meta().gso.map_or(payload.len().max(1), |gso| usize::from(gso.size));
        let mut parts = payload.chunks(size);
        let mut part = parts.next().unwrap_or_default();
        loop {
            if let Err(error) = self.send_datagram(id, frame.ttl(), part, now, out) {
                return Err(error.into());
            }
            match parts.next() {
                Some(next) => part = next,
                None => return Ok(()),
            }
        }
    }

    fn send_datagram(
        &mut self,
        id: FlowId,
        ttl: u8,
        payload: &[u8],
        now: Instant,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        // The first failure may be that of an earlier datagram: its ICMP error is fetched, and this one sent again.
        for last_try in [false, true] {
            match self.host.send(id, ttl, payload) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(DropReason::HostBufferFull),
                Err(_) if last_try => return Err(DropReason::HostSendFailed),
                Err(_) => self.fetch_errors(id, now, out),
            }
        }
        Ok(())
    }

    /// Sends the ICMP errors that the host received about a datagram flow.
    fn fetch_errors(&mut self, id: FlowId, _now: Instant, out: &mut impl Emit) {
        while let Some(error) = self.host.icmp_error(id) {
            self.emit_error(id, error, out);
        }
    }

    /// Receives datagrams of one flow.
    fn receive(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        let Some(flow) = self.datagrams.table.get(id) else { return };
        let link = Link { src: self.shared.config.mac, dst: flow.mac };
        let ip = Ip { src: flow.key.dst.ip(), dst: flow.key.src.ip(), ttl: 64, tos: 0, id: 0 };
        let headers = if flow.key.src.is_ipv4() { 20 } else { 40 };
        let mut failed = false;
        for _ in 0..DATAGRAM_BUDGET {
            self.shared.frame.resize(1 << 16, 0);
            let len = match self.host.recv(id, &mut self.shared.frame) {
                Ok(len) => len.min(self.shared.frame.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The error of an earlier datagram; it stands in the error queue too.
                Err(_) => match self.host.icmp_error(id) {
                    Some(error) => {
                        self.emit_error(id, error, out);
                        continue;
                    }
                    // Fetched already; what comes after it is still to be read. Twice means that it will not end.
                    None if failed => return,
                    None => {
                        failed = true;
                        continue;
                    }
                },
            };
            let Some(flow) = self.datagrams.table.get(id) else { return };
            let transport = if flow.key.proto == Proto::Udp { 8 } else { 0 };
            if headers + transport + len > usize::from(self.shared.config.mtu) {
                self.shared.drops.count(DropReason::AboveMtu);
                continue;
            }
            let payload = &self.shared.frame[..len];
            match (flow.key.proto, payload) {
                (Proto::Udp, payload) => {
                    build::udp(&mut self.shared.headers, link, ip, flow.key.dst.port(), flow.key.src.port(), payload);
                }
                // The kernel's ping socket put an identifier of its own; the container waits for the one it chose.
                (_, [0, 0, _, _, _, _, seq_high, seq_low, body @ ..]) => {
                    let [id_high, id_low] = flow.key.src.port().to_be_bytes();
                    let word = [id_high, id_low, *seq_high, *seq_low];
                    build::icmp(&mut self.shared.headers, link, ip, 0, 0, word, body);
                }
                _ => {
                    self.shared.drops.count(DropReason::IcmpIgnored);
                    continue;
                }
            }
            flow.down_bytes += len as u64;
            flow.last = now;
            out.emit(&Meta::PLAIN, &self.shared.headers);
        }
        self.enqueue(id);
    }

    /// Once a turn: sends what flows owe, lets timers end.
    pub(crate) fn poll(&mut self, now: Instant, out: &mut impl Emit) {
        let mut turn = std::mem::replace(&mut self.datagrams.turn, std::mem::take(&mut self.datagrams.spare));
        for id in turn.drain(..) {
            if let Some(flow) = self.datagrams.table.get(id) {
                flow.queued = false;
            }
            self.receive(id, now, out);
        }
        self.datagrams.spare = turn;
        while let Some(id) = self.datagrams.table.due(now) {
            self.on_timer(id, now);
        }
    }

    /// Puts a flow on the list of this turn, once.
    fn enqueue(&mut self, id: FlowId) {
        if let Some(flow) = self.datagrams.table.get(id)
            && !flow.queued
        {
            flow.queued = true;
            self.datagrams.turn.push(id);
        }
    }

    /// Something became possible on a socket.
    pub(crate) fn host_event(&mut self, id: FlowId, ready: Readiness, now: Instant, out: &mut impl Emit) {
        if ready.error {
            self.fetch_errors(id, now, out);
        }
        if ready.readable || ready.error {
            self.enqueue(id);
        }
    }

    fn emit_error(&mut self, id: FlowId, error: HostIcmp, out: &mut impl Emit) {
        let Some(flow) = self.datagrams.table.get(id) else { return };
        self.shared.emit_error(flow.mac, flow.key.src.ip(), flow.body.head(), error, out);
    }

    fn on_timer(&mut self, id: FlowId, now: Instant) {
        let Some(flow) = self.datagrams.table.get(id) else { return };
        if flow.last + flow.body.idle <= now { self.remove(id) } else { self.arm(id) }
    }

    /// Sets a flow's timer to its present deadline.
    fn arm(&mut self, id: FlowId) {
        let Some(flow) = self.datagrams.table.get(id) else { return };
        let at = flow.last + flow.body.idle;
        self.datagrams.table.arm(id, at);
    }

    /// Listens on the host for a container.
    pub(crate) fn publish(&mut self, _publication: &Publication) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Listens no more.
    pub(crate) fn unpublish(&mut self, _publication: &Publication) {}

    /// A port is gone: its flows end, and the other ends are told.
    pub(crate) fn port_gone(&mut self, port: PortId) {
        let ids: Vec<_> = self.datagrams.table.ids().collect();
        for id in ids {
            if self.datagrams.table.get(id).is_some_and(|flow| flow.port == port) {
                self.remove(id);
            }
        }
    }

    /// Ends the flows that `matches` says. Returns how many.
    pub(crate) fn end_where(&mut self, now: Instant, matches: impl Fn(&FlowView) -> bool) -> usize {
        let all: Vec<FlowId> = self.datagrams.table.numbers().collect();
        let ended = all.into_iter().zip(self.datagrams.flows(now)).filter(|(_, flow)| matches(flow)).map(|(id, _)| id);
        let ended: Vec<FlowId> = ended.collect();
        ended.iter().for_each(|id| self.remove(*id));
        ended.len()
    }

    fn remove(&mut self, id: FlowId) {
        if let Some(flow) = self.datagrams.table.remove(id) {
            self.shared.budget.give(flow.port);
            self.host.close(id);
        }
    }
}
