//! Frames to flows, flows to frames.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;

use serde::Serialize;
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropCounters, DropReason, Emit, FrameOf, Instant, Journey, L4, Mac, Meta, PortId, Stage, Step};

use crate::datagram::{Datagram, emit_icmp_error, quote};
use crate::host::{Host, HostError, HostIcmp, Proto, Readiness};
use crate::policy::Policy;
use crate::table::{Body, Flow, FlowId, Key, Limits, Table};
use crate::tcp::{Incoming, Next, Options, Path, Sent, State, Tcp, flag};

/// Frames of data that one flow sends in one turn.
const FLOW_BUDGET: u32 = 8;
/// Datagrams that one flow receives in one turn.
const DATAGRAM_BUDGET: usize = 64;
/// Ended connections that are remembered at most; see `tcp`.
const MAX_LINGERING: usize = 1_024;

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

    fn handle_tcp<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        key: Key,
        frame: &FrameOf<B>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        let header = frame.segment();
        let long = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let options_end = usize::from(header[12] >> 4) * 4;
        let options = Options::parse(&header[20..options_end]).ok_or(DropReason::TcpBadOption)?;
        let seg = Incoming {
            seq: long(4),
            ack: long(8),
            flags: header[13],
            window: u16::from_be_bytes([header[14], header[15]]),
            options,
            payload: frame.payload(),
        };
        let Some(id) = self.table.find(&key) else {
            return self.open_tcp(port, key, frame, &seg, now, journey, out);
        };
        let Some(Flow { body: Body::Tcp(tcp), mac, last, up_bytes, .. }) = self.table.get(id) else {
            return Err(DropReason::NoSuchFlow.into());
        };
        *mac = frame.src_mac();
        *last = now;
        let before = tcp.state;
        let next = tcp.input(id, &seg, &mut self.host, now);
        if next == Next::Go {
            *up_bytes += seg.payload.len() as u64;
        }
        journey.note(|| {
            Step::looked_up(Stage::Relay, format!("a known tcp flow, {}, which leads to a socket", tcp.state_name()))
        });
        if tcp.state == State::Lingering && before != State::Lingering {
            self.linger(id);
        }
        match next {
            Next::Go => self.enqueue(id),
            Next::Drop(reason) => {
                if reason == DropReason::TcpOutOfOrder {
                    // One acknowledgement for each: the container counts them to see a loss (RFC 5681 3.2).
                    self.with_tcp(id, now, out, |tcp, path, out| tcp.send_ack(path, out));
                }
                self.enqueue(id);
                return Err(reason.into());
            }
            Next::RepeatSynAck => self.with_tcp(id, now, out, |tcp, path, out| tcp.send_syn_ack(path, out)),
            Next::Refuse => {
                self.emit_reset(&key, frame.src_mac(), &seg, out);
                return Err(DropReason::TcpOutOfWindow.into());
            }
            Next::Gone => self.remove(id, true),
            Next::Renew => {
                self.remove(id, true);
                return self.open_tcp(port, key, frame, &seg, now, journey, out);
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "all of it is known to the one caller already")]
    fn open_tcp<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        key: Key,
        frame: &FrameOf<B>,
        seg: &Incoming<'_>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        if seg.flags & (flag::SYN | flag::ACK | flag::RST) != flag::SYN {
            // A segment out of the blue: the container believes in a connection that ended (RFC 9293 3.10.7.1).
            if seg.flags & flag::RST == 0 {
                self.emit_reset(&key, frame.src_mac(), seg, out);
            }
            return Err(DropReason::NoSuchFlow.into());
        }
        let via = self.admit(&key, journey)?;
        let id = self.table.next_id();
        let headers = if key.src.is_ipv4() { 40 } else { 60 };
        let iss = self.initial_sequence(&key, now);
        let tcp = Tcp::new(seg.seq, seg.window, &seg.options, iss, self.config.mtu - headers, quote(frame));
        if let Err(error) = self.host.open(id, Proto::Tcp, via) {
            return self.refuse_open(&key, frame.src_mac(), seg, error, journey, out);
        }
        let body = Body::Tcp(Box::new(tcp));
        self.table.insert(Flow::new(key, via, frame.src_mac(), port, now, body));
        self.arm(id);
        Ok(())
    }

    /// The host said no at once.
    fn refuse_open(
        &mut self,
        key: &Key,
        mac: Mac,
        seg: &Incoming<'_>,
        error: HostError,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        journey.note(|| Step::looked_up(Stage::Relay, format!("the host could not connect: {error:?}")));
        match unreachable_code(error) {
            None => {
                self.emit_reset(key, mac, seg, out);
                Ok(())
            }
            code => Err(Refusal { reason: DropReason::HostSocketFailed, unreachable: code }),
        }
    }

    /// RFC 6528: a clock, and a hash of the tuple under a secret.
    fn initial_sequence(&self, key: &Key, now: Instant) -> u32 {
        let mut hasher = self.isn.build_hasher();
        std::hash::Hash::hash(key, &mut hasher);
        (hasher.finish() as u32).wrapping_add((now.as_micros() / 4) as u32)
    }

    fn handle_datagram<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        key: Key,
        frame: &FrameOf<B>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        let id = match self.table.find(&key) {
            Some(id) => {
                journey.note(|| Step::looked_up(Stage::Relay, format!("a known {} flow", key.proto.name())));
                id
            }
            None => {
                let via = self.admit(&key, journey)?;
                let id = self.table.next_id();
                self.host.open(id, key.proto, via).map_err(|error| match error {
                    HostError::NoPing => Refusal { reason: DropReason::HostNoPing, unreachable: Some(13) },
                    error => Refusal { reason: DropReason::HostSocketFailed, unreachable: unreachable_code(error) },
                })?;
                let body = Body::Datagram(Datagram::new(&key));
                self.table.insert(Flow::new(key, via, frame.src_mac(), port, now, body));
                self.arm(id);
                id
            }
        };
        let Some(Flow { body: Body::Datagram(datagram), mac, last, up_bytes, .. }) = self.table.get(id) else {
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

    fn tcp_event(&mut self, id: FlowId, ready: Readiness, now: Instant, out: &mut impl Emit) {
        let Some(Flow { body: Body::Tcp(tcp), .. }) = self.table.get(id) else { return };
        if tcp.state == State::Lingering {
            return;
        }
        if tcp.state == State::Connecting {
            match self.host.connected(id) {
                Ok(false) => {}
                Ok(true) => {
                    tcp.readable = true;
                    tcp.writable = true;
                    tcp.syn = Box::default();
                    self.with_tcp(id, now, out, |tcp, path, out| tcp.send_syn_ack(path, out));
                    self.arm(id);
                }
                Err(error) => self.connect_failed(id, error, now, out),
            }
            return;
        }
        if ready.error && self.host.connected(id).is_err() {
            tcp.host_broke(now);
        }
        tcp.readable |= ready.readable;
        if ready.writable {
            tcp.host_writable(id, &mut self.host, now);
        }
        if tcp.state == State::Lingering {
            self.linger(id);
        }
        self.enqueue(id);
    }

    /// The host could not connect: the container hears what a router, or the other end, would have said.
    fn connect_failed(&mut self, id: FlowId, error: HostError, now: Instant, out: &mut impl Emit) {
        match (error, unreachable_code(error)) {
            // Silence stays silence: the container's own timer ends it.
            (HostError::TimedOut, _) => {}
            (_, Some(code)) => {
                let host_icmp = HostIcmp { kind: 3, code, mtu: 0, offender: None };
                self.emit_error(id, host_icmp, out);
            }
            (_, None) => self.with_tcp(id, now, out, |tcp, path, out| tcp.send_reset(path, out)),
        }
        self.remove(id, true);
    }

    /// Sends the ICMP errors that the host received about a datagram flow.
    fn fetch_errors(&mut self, id: FlowId, _now: Instant, out: &mut impl Emit) {
        while let Some(error) = self.host.icmp_error(id) {
            self.emit_error(id, error, out);
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

    /// Receives datagrams of one flow.
    fn receive(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        let Some(flow) = self.table.get(id) else { return };
        let link = Link { src: self.config.mac, dst: flow.mac };
        let ip = Ip { src: flow.key.dst.ip(), dst: flow.key.src.ip(), ttl: 64, tos: 0, id: 0 };
        let headers = if flow.key.src.is_ipv4() { 20 } else { 40 };
        for _ in 0..DATAGRAM_BUDGET {
            self.frame.resize(1 << 16, 0);
            let len = match self.host.recv(id, &mut self.frame) {
                Ok(len) => len.min(self.frame.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The error of an earlier datagram; it stands in the error queue too.
                Err(_) => match self.host.icmp_error(id) {
                    Some(error) => {
                        self.emit_error(id, error, out);
                        continue;
                    }
                    // Fetched already; what comes after it is still to be read.
                    None => continue,
                },
            };
            let Some(flow) = self.table.get(id) else { return };
            let transport = if flow.key.proto == Proto::Udp { 8 } else { 0 };
            if headers + transport + len > usize::from(self.config.mtu) {
                self.drops.count(DropReason::AboveMtu);
                continue;
            }
            let payload = &self.frame[..len];
            match (flow.key.proto, payload) {
                (Proto::Udp, payload) => {
                    build::udp(&mut self.headers, link, ip, flow.key.dst.port(), flow.key.src.port(), payload);
                }
                // The kernel's ping socket put an identifier of its own; the container waits for the one it chose.
                (_, [0, 0, _, _, _, _, seq_high, seq_low, body @ ..]) => {
                    let [id_high, id_low] = flow.key.src.port().to_be_bytes();
                    let word = [id_high, id_low, *seq_high, *seq_low];
                    build::icmp(&mut self.headers, link, ip, 0, 0, word, body);
                }
                _ => {
                    self.drops.count(DropReason::IcmpIgnored);
                    continue;
                }
            }
            flow.down_bytes += len as u64;
            flow.last = now;
            out.emit(&Meta::PLAIN, &self.headers);
        }
        self.enqueue(id);
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

    /// A connection is over on both sides: the socket is not needed, the memory of it is, for a while.
    fn linger(&mut self, id: FlowId) {
        self.host.close(id, false);
        self.lingering.push_back(id);
        if self.lingering.len() > MAX_LINGERING
            && let Some(oldest) = self.lingering.pop_front()
        {
            let old = self.table.get(oldest);
            if old.is_some_and(|flow| matches!(&flow.body, Body::Tcp(tcp) if tcp.state == State::Lingering)) {
                self.remove(oldest, false);
            }
        }
    }

    /// Breaks a connection towards both ends.
    fn break_tcp(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        self.with_tcp(id, now, out, |tcp, path, out| tcp.send_reset(path, out));
        self.remove(id, true);
    }

    fn remove(&mut self, id: FlowId, reset: bool) {
        if self.table.remove(id).is_some() {
            self.host.close(id, reset);
        }
    }

    fn with_tcp<E: Emit>(
        &mut self,
        id: FlowId,
        now: Instant,
        out: &mut E,
        then: impl FnOnce(&mut Tcp, &mut Path<'_>, &mut E),
    ) {
        let (headers, frame) = (&mut self.headers, &mut self.frame);
        let Some(Flow { key, mac, body: Body::Tcp(tcp), .. }) = self.table.get(id) else { return };
        let link = Link { src: self.config.mac, dst: *mac };
        let mut path = Path { link, key, mtu: self.config.mtu, now, headers, frame };
        then(tcp, &mut path, out);
    }

    /// A RST about a segment that belongs to no connection (RFC 9293 3.5.2).
    fn emit_reset(&mut self, key: &Key, mac: Mac, seg: &Incoming<'_>, out: &mut impl Emit) {
        let link = Link { src: self.config.mac, dst: mac };
        let ip = Ip { src: key.dst.ip(), dst: key.src.ip(), ttl: 64, tos: 0, id: 0 };
        let len =
            seg.payload.len() as u32 + u32::from(seg.flags & flag::SYN != 0) + u32::from(seg.flags & flag::FIN != 0);
        let (seq, ack, flags) = match seg.flags & flag::ACK {
            0 => (0, seg.seq.wrapping_add(len), flag::RST | flag::ACK),
            _ => (seg.ack, 0, flag::RST),
        };
        let (src_port, dst_port) = (key.dst.port(), key.src.port());
        let tcp = build::Tcp { src_port, dst_port, seq, ack, flags, window: 0, options: &[] };
        let meta = build::tcp(&mut self.headers, link, ip, tcp, 0);
        out.emit(&meta, &self.headers);
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
