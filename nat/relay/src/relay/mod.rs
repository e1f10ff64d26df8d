//! Frames to flows, flows to frames: the one door of the relay, and what streams and datagrams have in common.

mod datagrams;
mod streams;

use std::collections::VecDeque;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::ops::Deref;

use serde::Serialize;
use tapswitch_wire::build::{Ip, Link};
use tapswitch_wire::{DropCounters, DropReason, Emit, FrameOf, Instant, Journey, L4, Mac, PortId, Stage, Step};

use crate::datagram::emit_icmp_error;
use crate::host::{Host, HostError, HostIcmp, Proto, Readiness};
use crate::policy::Policy;
use crate::table::{Body, Flow, FlowId, Key, Limits, Table};
use crate::tcp::{Path, Sent, State};

/// Frames of data that one flow sends in one turn.
const FLOW_BUDGET: u32 = 8;

/// What the relay of one network is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// MAC address of the gateway.
    pub mac: Mac,
    /// MTU of the network.
    pub mtu: u16,
    /// Where containers may go.
    pub policy: Policy,
    /// How many flows there may be.
    pub limits: Limits,
}

/// A flow was refused, or a frame of one was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: DropReason,
    /// What a router would say about it: ICMP type 3 with this code. The gateway sends it.
    pub unreachable: Option<u8>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Refusal { reason, unreachable: None }
    }
}

/// A flow, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowView {
    /// The port its container is attached to.
    pub port: PortId,
    /// Protocol.
    pub proto: &'static str,
    /// The container's end.
    pub src: SocketAddr,
    /// The other end, as the container sees it.
    pub dst: SocketAddr,
    /// The other end, as the host reaches it.
    pub via: SocketAddr,
    /// State.
    pub state: &'static str,
    /// Bytes from the container.
    pub up_bytes: u64,
    /// Bytes to the container.
    pub down_bytes: u64,
    /// Seconds since anything passed.
    pub idle_s: u64,
    /// Seconds until it is forgotten if nothing passes.
    pub expires_s: u64,
}

/// The relay of one network.
pub struct Relay<H> {
    config: Config,
    host: H,
    table: Table,
    /// Flows that have something to send at the end of this turn.
    turn: Vec<FlowId>,
    spare: Vec<FlowId>,
    lingering: VecDeque<FlowId>,
    /// Keys of initial sequence numbers (RFC 6528).
    isn: RandomState,
    drops: DropCounters,
    headers: Vec<u8>,
    frame: Vec<u8>,
}

impl<H: Host> Relay<H> {
    /// A relay without flows.
    pub fn new(config: Config, host: H) -> Relay<H> {
        Relay {
            table: Table::new(config.limits),
            config,
            host,
            turn: Vec::new(),
            spare: Vec::new(),
            lingering: VecDeque::new(),
            isn: RandomState::new(),
            drops: DropCounters::default(),
            headers: Vec::with_capacity(128),
            frame: Vec::with_capacity(1 << 16),
        }
    }

    /// The host's side.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// Drops of frames that came from the outside.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Ports of the gateway's own address that lead somewhere: DNS, and ports of the host that rules open.
    pub fn served_ports(&self) -> impl Iterator<Item = u16> {
        let dns = self.config.policy.resolver.map(|_| crate::DNS_PORT);
        dns.into_iter().chain(self.config.policy.host_ports())
    }

    /// Takes a frame that leaves the network by this uplink.
    ///
    /// # Errors
    /// Why it went no further, and what to say to the container about it.
    pub fn handle<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        frame: &FrameOf<B>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        if frame.parsed().fragment.is_some() {
            return Err(DropReason::FragmentNotSupported.into());
        }
        if !frame.transport_checksum_ok() {
            return Err(DropReason::TransportBadChecksum.into());
        }
        let (Some(src), Some(dst)) = (frame.src_ip(), frame.dst_ip()) else {
            return Err(DropReason::UnknownEthertype.into());
        };
        let (proto, src_port, dst_port) = match frame.parsed().l4 {
            L4::Tcp => (Proto::Tcp, frame.src_port(), frame.dst_port()),
            L4::Udp if frame.dst_port() == 0 => return Err(DropReason::TransportMalformed.into()),
            L4::Udp => (Proto::Udp, frame.src_port(), frame.dst_port()),
            L4::Icmp if frame.segment().len() >= 8 && frame.segment()[..2] == [8, 0] => {
                (Proto::Icmp, frame.src_port(), 0)
            }
            L4::Icmp | L4::Icmpv6 => return Err(DropReason::IcmpIgnored.into()),
            L4::Malformed => return Err(DropReason::TransportMalformed.into()),
            L4::Other | L4::None => {
                return Err(Refusal { reason: DropReason::UnknownProtocol, unreachable: Some(2) });
            }
        };
        let key = Key { proto, src: SocketAddr::new(src, src_port), dst: SocketAddr::new(dst, dst_port) };
        match proto {
            Proto::Tcp => self.handle_tcp(port, key, frame, now, journey, out),
            Proto::Udp | Proto::Icmp => self.handle_datagram(port, key, frame, now, journey, out),
        }
    }

    /// Looks where a new flow leads and whether there is room for it.
    fn admit(&mut self, key: &Key, journey: &mut impl Journey) -> Result<SocketAddr, Refusal> {
        let host = &mut self.host;
        let target = self.config.policy.target(key.dst, |ip| host.is_own(ip));
        let via = target.map_err(|reason| {
            journey.note(|| Step::decided(Stage::Relay, format!("{} is refused: {}", key.dst, reason.text())));
            // 13: administratively prohibited; 3: port unreachable (RFC 1812 5.2.7.1).
            Refusal { reason, unreachable: Some(if reason == DropReason::PolicyDenied { 13 } else { 3 }) }
        })?;
        self.table.check_room(key.src.ip()).map_err(|reason| {
            journey.note(|| Step::decided(Stage::Relay, "no room for another flow of this container"));
            Refusal { reason, unreachable: Some(13) }
        })?;
        journey.note(|| {
            Step::decided(
                Stage::Relay,
                match via == key.dst {
                    true => format!("a new {} flow to {}: the host opens a socket", key.proto.name(), key.dst),
                    false => {
                        format!("a new {} flow to {}, which leads to {via} on the host", key.proto.name(), key.dst)
                    }
                },
            )
        });
        Ok(via)
    }

    /// Something became possible on a flow's socket.
    pub fn host_event(&mut self, id: FlowId, ready: Readiness, now: Instant, out: &mut impl Emit) {
        let Some(flow) = self.table.get(id) else { return };
        match &mut flow.body {
            Body::Tcp(_) => self.tcp_event(id, ready, now, out),
            Body::Datagram(_) => {
                if ready.error {
                    self.fetch_errors(id, now, out);
                }
                if ready.readable || ready.error {
                    self.enqueue(id);
                }
            }
        }
    }

    fn emit_error(&mut self, id: FlowId, error: HostIcmp, out: &mut impl Emit) {
        let Some(flow) = self.table.get(id) else { return };
        let link = Link { src: self.config.mac, dst: flow.mac };
        let src = match error.offender {
            Some(offender) if offender.is_ipv4() == flow.key.src.is_ipv4() => offender,
            _ => self.config.policy.gateway,
        };
        let ip = Ip { src, dst: flow.key.src.ip(), ttl: 64, tos: 0xc0, id: 0 };
        let head = match &flow.body {
            Body::Tcp(tcp) => &tcp.syn[..],
            Body::Datagram(datagram) => datagram.head(),
        };
        emit_icmp_error(error, link, ip, head, &mut self.frame, out);
    }

    /// Once a turn: sends what flows owe, lets timers end.
    pub fn poll(&mut self, now: Instant, out: &mut impl Emit) {
        let mut turn = std::mem::replace(&mut self.turn, std::mem::take(&mut self.spare));
        for id in turn.drain(..) {
            if let Some(flow) = self.table.get(id) {
                flow.queued = false;
            }
            self.serve(id, now, out);
        }
        self.spare = turn;
        while let Some(id) = self.table.due(now) {
            self.on_timer(id, now, out);
        }
    }

    /// Puts a flow on the list of this turn, once.
    fn enqueue(&mut self, id: FlowId) {
        if let Some(flow) = self.table.get(id)
            && !flow.queued
        {
            flow.queued = true;
            self.turn.push(id);
        }
    }

    /// Gives one flow its share.
    fn serve(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        let Some(flow) = self.table.get(id) else { return };
        if let Body::Datagram(_) = flow.body {
            return self.receive(id, now, out);
        }
        let mut ended = Sent::Done;
        let mut bytes = 0;
        let (host, headers, frame) = (&mut self.host, &mut self.headers, &mut self.frame);
        let Flow { key, mac, body: Body::Tcp(tcp), .. } = flow else { return };
        if tcp.state != State::Connecting {
            let link = Link { src: self.config.mac, dst: *mac };
            let mut path = Path { link, key, mtu: self.config.mtu, now, headers, frame };
            (ended, bytes) = tcp.pump(id, FLOW_BUDGET, &mut path, host, out);
        }
        if bytes > 0 {
            flow.down_bytes += bytes;
            flow.last = now;
        }
        match ended {
            Sent::Done => self.arm(id),
            Sent::More => self.enqueue(id),
            Sent::Broken => self.break_tcp(id, now, out),
        }
    }

    fn on_timer(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        let Some(flow) = self.table.get(id) else { return };
        let last = flow.last;
        match &flow.body {
            Body::Datagram(datagram) if last + datagram.idle <= now => self.remove(id, false),
            Body::Datagram(_) => self.arm(id),
            Body::Tcp(tcp) if tcp.expires(last) <= now => {
                if tcp.state == State::Lingering {
                    self.remove(id, false);
                } else {
                    self.break_tcp(id, now, out);
                }
            }
            Body::Tcp(_) => {
                let mut alive = true;
                self.with_tcp(id, now, out, |tcp, path, out| alive = tcp.on_timer(path, out));
                if alive {
                    self.serve(id, now, out);
                    self.arm(id);
                } else {
                    self.break_tcp(id, now, out);
                }
            }
        }
    }

    /// Sets a flow's timer to its present deadline.
    fn arm(&mut self, id: FlowId) {
        let Some(flow) = self.table.get(id) else { return };
        let at = match &flow.body {
            Body::Tcp(tcp) => tcp.deadline(flow.last),
            Body::Datagram(datagram) => flow.last + datagram.idle,
        };
        self.table.arm(id, at);
    }

    /// Whether a flow still has something to send this very moment.
    pub fn is_busy(&self) -> bool {
        !self.turn.is_empty()
    }

    /// When [`Relay::poll`] has something to do although nothing comes.
    pub fn deadline(&self) -> Option<Instant> {
        self.table.deadline()
    }

    /// A port is gone: its flows end, and the other ends are told.
    pub fn port_gone(&mut self, port: PortId) {
        let ids: Vec<_> = self.table.ids().collect();
        for id in ids {
            if self.table.get(id).is_some_and(|flow| flow.port == port) {
                self.remove(id, true);
            }
        }
    }

    /// The flows, oldest place first.
    pub fn flows(&self, now: Instant) -> Vec<FlowView> {
        let view = |flow: &Flow| {
            let (state, expires) = match &flow.body {
                Body::Tcp(tcp) => (tcp.state_name(), tcp.expires(flow.last)),
                Body::Datagram(datagram) => ("active", flow.last + datagram.idle),
            };
            FlowView {
                port: flow.port,
                proto: flow.key.proto.name(),
                src: flow.key.src,
                dst: flow.key.dst,
                via: flow.via,
                state,
                up_bytes: flow.up_bytes,
                down_bytes: flow.down_bytes,
                idle_s: (now - flow.last).as_secs(),
                expires_s: (expires - now).as_secs(),
            }
        };
        self.table.iter().map(view).collect()
    }

    /// Ends the flows that `matches` says, at once. Nobody is told: what the container sends next finds no flow, and is
    /// answered as such. Returns how many.
    pub fn end_where(&mut self, now: Instant, matches: impl Fn(&FlowView) -> bool) -> usize {
        let all: Vec<FlowId> = self.table.numbers().collect();
        let ended = all.into_iter().zip(self.flows(now)).filter(|(_, flow)| matches(flow)).map(|(id, _)| id);
        let ended: Vec<FlowId> = ended.collect();
        ended.iter().for_each(|id| self.remove(*id, true));
        ended.len()
    }

    fn remove(&mut self, id: FlowId, reset: bool) {
        if self.table.remove(id).is_some() {
            self.host.close(id, reset);
        }
    }
}

/// The code of ICMP type 3 that says what the host said; `None` where a TCP end answers with a RST instead.
fn unreachable_code(error: HostError) -> Option<u8> {
    match error {
        HostError::Refused | HostError::Reset => None,
        HostError::NetUnreachable => Some(0),
        HostError::HostUnreachable | HostError::TimedOut => Some(1),
        HostError::Prohibited | HostError::NoPing | HostError::Exhausted => Some(13),
    }
}
