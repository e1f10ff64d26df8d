//! TCP flows: segments of the container in, news of the host's socket in, what the engine makes of them out.

mod accept;
mod ends;
mod lanes;
mod serve;
mod stamp;
mod table;
mod tcp;

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::ops::Deref;

use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropReason, Emit, FrameOf, Instant, Journey, Mac, PortId, Stage, Step};

use crate::flow::{FlowId, FlowView, Key};
use crate::host::{Host, HostError, HostIcmp, Readiness};
use crate::quote::quote;
use crate::relay::{Refusal, Shared, unreachable_code};
use accept::Listeners;
use lanes::Lanes;
use table::{Flow, Table};
use tcp::{Incoming, KEEPALIVE, Mss, Next, Options, Start, State, Tcp, flag};

/// A SYN with less time to live than any stack begins with is one of a traceroute: it goes no further than it may, and
/// the router that says so is named. All others are sent by the host's own stack with its own.
const PROBE_TTL: u8 = 31;
/// Ended connections that are remembered at most; see `tcp`.
const MAX_LINGERING: usize = 1_024;
/// Connections of one container that are not established yet: what a flood of SYNs may hold.
const MAX_HALF_OPEN: usize = 512;
/// Answers about addresses that are remembered within one second.
const MAX_OWN: usize = 256;

/// The streams of one network.
pub(crate) struct Streams {
    table: Table,
    /// Flows that have something to send at the end of this turn.
    lanes: Lanes,
    lingering: VecDeque<FlowId>,
    listeners: Listeners,
    /// When the first idle flow can have been idle for too long.
    sweep_at: Option<Instant>,
    /// Which addresses are the host's own, and in which second that was asked. Many connections go to few addresses.
    own: (u64, HashMap<IpAddr, bool>),
}

impl Streams {
    pub(crate) fn new() -> Streams {
        Streams {
            table: Table::new(),
            lanes: Lanes::default(),
            lingering: VecDeque::new(),
            listeners: Listeners::default(),
            sweep_at: None,
            own: (0, HashMap::new()),
        }
    }

    /// A copy with at most this flow, in which a container has as many connections half open.
    pub(crate) fn copy_for(&self, port: PortId, key: Option<&Key>) -> Streams {
        let mut copy = Streams::new();
        copy.lanes.join_as(port, &self.lanes);
        let found = key.and_then(|key| Some((key, self.table.find(key)?)));
        if let Some((key, id)) = found
            && let Some(flow) = self.table.look(id)
        {
            let lane = copy.lanes.join_as(self.lanes.port(flow.lane), &self.lanes);
            copy.table.adopt(flow.clone(), lane, self.table.via(id, key));
        }
        copy
    }

    /// Number of flows.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether a flow still has something to send this very moment.
    pub(crate) fn is_busy(&self) -> bool {
        self.lanes.is_busy() || self.listeners.is_busy()
    }

    /// When [`Side::poll`] has something to do although nothing comes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.table.deadline(), self.sweep_at, self.listeners.deadline()].into_iter().flatten().min()
    }

    /// The flows, oldest place first.
    pub(crate) fn flows(&self, now: Instant) -> Vec<FlowView> {
        self.table.iter().map(|(id, flow)| self.view(id, flow, now)).collect()
    }

    fn view(&self, id: FlowId, flow: &Flow, now: Instant) -> FlowView {
        let key = flow.ends.key();
        let idle = flow.last.since(now);
        FlowView {
            port: self.lanes.port(flow.lane),
            proto: key.proto.name(),
            src: key.src,
            dst: key.dst,
            via: self.table.via(id, &key),
            published: flow.published,
            state: flow.tcp.state_name(),
            up_bytes: flow.up_bytes,
            down_bytes: flow.down_bytes,
            idle_s: idle.as_secs(),
            expires_s: flow.tcp.lifetime().saturating_sub(idle).as_secs(),
        }
    }

    /// Whether this is an address of the host itself. Each is asked for once a second at most.
    fn is_own(&mut self, ip: IpAddr, host: &mut impl Host, now: Instant) -> bool {
        let (second, answers) = &mut self.own;
        if *second != now.as_secs() || answers.len() >= MAX_OWN {
            *second = now.as_secs();
            answers.clear();
        }
        *answers.entry(ip).or_insert_with(|| host.is_own(ip))
    }
}

/// Whether this segment begins a connection.
pub(crate) fn begins<B: Deref<Target = [u8]>>(frame: &FrameOf<B>) -> bool {
    frame.segment()[13] & (flag::SYN | flag::ACK | flag::RST) == flag::SYN
}

/// The streams at work, with what they need.
pub(crate) struct Side<'a, H> {
    pub streams: &'a mut Streams,
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
        let Some(id) = self.streams.table.find(&key) else {
            return self.open_tcp(port, key, frame, &seg, now, journey, out);
        };
        let Some(flow) = self.streams.table.get(id) else {
            return Err(DropReason::NoSuchFlow.into());
        };
        if self.streams.lanes.port(flow.lane) != port {
            // Another container uses the address.
            return Err(DropReason::SpoofedSource.into());
        }
        flow.mac = frame.src_mac();
        flow.last = stamp::Stamp::of(now);
        let (before, taken) = (flow.tcp.state, flow.tcp.taken());
        let mss = Mss::new(self.shared.config.mtu, key.src.is_ipv4());
        let next = flow.tcp.input(id, &seg, mss, self.host, now);
        if before == State::Open {
            flow.up_bytes += u64::from(flow.tcp.taken().wrapping_sub(taken));
        }
        let state = flow.tcp.state;
        journey.note(|| {
            let state = flow.tcp.state_name();
            Step::looked_up(Stage::Relay, format!("a known tcp flow, {state}, which leads to a socket"))
        });
        if state != before {
            self.state_changed(id, now);
        }
        match next {
            Next::Go => {
                if self.streams.table.get(id).is_some_and(|flow| flow.tcp.wants_update()) {
                    self.with_tcp(id, now, out, |tcp, path, out| tcp.send_ack(path, out));
                }
                self.enqueue(id);
            }
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

    /// A flow may have become established, or is over.
    fn state_changed(&mut self, id: FlowId, now: Instant) {
        let Some(flow) = self.streams.table.get(id) else { return };
        if flow.half_open && !flow.tcp.is_half_open() {
            flow.half_open = false;
            self.streams.lanes.opened(flow.lane, flow.published);
            self.streams.sweep_at.get_or_insert(now + KEEPALIVE);
            // Many connections may open in a second that have nothing to say: what opening took is given back at once.
            flow.tcp.rest();
        }
        if flow.tcp.state == State::Lingering {
            self.linger(id);
        }
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
        if self.streams.lanes.half_open(port, false) >= MAX_HALF_OPEN {
            journey.note(|| Step::decided(Stage::Relay, "this container has too many connections half open"));
            return Err(Refusal { reason: DropReason::FlowLimit, unreachable: Some(13) });
        }
        let Side { streams, shared, host } = self;
        let via = shared.admit(port, &key, |ip| streams.is_own(ip, *host, now), journey)?;
        let id = self.streams.table.reserve();
        let connecting = match frame.ttl() {
            0..PROBE_TTL => self.host.probe(id, via, frame.ttl().max(1)),
            _ => self.host.connect(id, via),
        };
        let connected = match connecting {
            Ok(connected) => connected,
            Err(error) => {
                self.streams.table.release(id);
                return self.refuse_open(&key, frame.src_mac(), seg, error, journey, out);
            }
        };
        let start = self.start(&key, now);
        let tcp = Tcp::passive(seg, &start, quote(frame));
        self.insert(id, port, &key, frame.src_mac(), via, now, tcp);
        if connected {
            self.with_tcp(id, now, out, |tcp, path, out| tcp.send_syn_ack(path, out));
        }
        self.streams.table.arm(id, now);
        Ok(())
    }

    /// A flow begins whose socket is there.
    #[expect(clippy::too_many_arguments, reason = "what makes a flow")]
    fn insert(
        &mut self,
        id: FlowId,
        port: PortId,
        key: &Key,
        mac: Mac,
        via: std::net::SocketAddr,
        now: Instant,
        tcp: Tcp,
    ) {
        self.shared.budget.take(port);
        let published = tcp.state == State::SynSent;
        let lane = self.streams.lanes.join(port, published);
        let mut flow = Flow::new(id, key, mac, lane, now, tcp);
        flow.published = published;
        self.streams.table.insert(id, flow, via);
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

    /// What a connection begins with. RFC 6528: a clock, and a hash of the tuple under a secret.
    fn start(&self, key: &Key, now: Instant) -> Start {
        let hash = self.shared.isn.hash_one(key);
        Start {
            iss: (hash as u32).wrapping_add((now.as_micros() / 4) as u32),
            ts_offset: (hash >> 32) as u32,
            mss: Mss::new(self.shared.config.mtu, key.src.is_ipv4()),
        }
    }

    pub(crate) fn host_event(&mut self, id: FlowId, ready: Readiness, now: Instant, out: &mut impl Emit) {
        let Some(flow) = self.streams.table.get(id) else {
            return self.streams.listeners.ready(id);
        };
        let tcp = &mut flow.tcp;
        if tcp.state == State::Lingering {
            return;
        }
        tcp.readable |= ready.readable;
        tcp.more |= ready.ended;
        if tcp.state == State::Connecting {
            match self.host.connected(id) {
                Ok(false) => {}
                Ok(true) => {
                    self.with_tcp(id, now, out, |tcp, path, out| tcp.send_syn_ack(path, out));
                    self.streams.table.arm(id, now);
                }
                Err(error) => self.connect_failed(id, error, now, out),
            }
            return;
        }
        if ready.error && self.host.connected(id).is_err() {
            if tcp.state == State::SynSent {
                return self.break_tcp(id, now, out);
            }
            tcp.host_broke(now);
        }
        if ready.writable {
            let before = tcp.state;
            tcp.host_writable(id, self.host, now);
            if tcp.state != before {
                self.state_changed(id, now);
            }
        }
        self.enqueue(id);
    }

    /// The host could not connect: the container hears what a router, or the other end, would have said.
    fn connect_failed(&mut self, id: FlowId, error: HostError, now: Instant, out: &mut impl Emit) {
        match (error, unreachable_code(error)) {
            // Silence stays silence: the container's own timer ends it.
            (HostError::TimedOut, _) => {}
            (_, Some(code)) => {
                let reported = self.host.probe_error(id);
                let error = reported.unwrap_or(HostIcmp { kind: 3, code, mtu: 0, offender: None });
                if let Some(flow) = self.streams.table.get(id) {
                    let container = flow.ends.key().src.ip();
                    self.shared.emit_error(flow.mac, container, flow.tcp.syn(), error, out);
                }
            }
            (_, None) => self.with_tcp(id, now, out, |tcp, path, out| tcp.send_reset(path, out)),
        }
        self.remove(id, true);
    }

    /// A connection is over on both sides: the socket is not needed, the memory of it is, for a while.
    fn linger(&mut self, id: FlowId) {
        self.host.close_stream(id, false);
        self.streams.lingering.push_back(id);
        if self.streams.lingering.len() > MAX_LINGERING
            && let Some(oldest) = self.streams.lingering.pop_front()
        {
            let old = self.streams.table.get(oldest);
            if old.is_some_and(|flow| flow.tcp.state == State::Lingering) {
                self.remove(oldest, false);
            }
        }
    }

    /// A RST about a segment that belongs to no connection (RFC 9293 3.5.2).
    fn emit_reset(&mut self, key: &Key, mac: Mac, seg: &Incoming<'_>, out: &mut impl Emit) {
        let link = Link { src: self.shared.config.mac, dst: mac };
        let ip = Ip { src: key.dst.ip(), dst: key.src.ip(), ttl: 64, tos: 0, id: 0 };
        let len =
            seg.payload.len() as u32 + u32::from(seg.flags & flag::SYN != 0) + u32::from(seg.flags & flag::FIN != 0);
        let (seq, ack, flags) = match seg.flags & flag::ACK {
            0 => (0, seg.seq.wrapping_add(len), flag::RST | flag::ACK),
            _ => (seg.ack, 0, flag::RST),
        };
        let (src_port, dst_port) = (key.dst.port(), key.src.port());
        let tcp = build::Tcp { src_port, dst_port, seq, ack, flags, window: 0, options: &[] };
        let meta = build::tcp(&mut self.shared.headers, link, ip, tcp, 0);
        out.emit(&meta, &self.shared.headers);
    }

    /// A port is gone: its flows end, and the other ends are told.
    pub(crate) fn port_gone(&mut self, port: PortId) {
        let Streams { table, lanes, .. } = &*self.streams;
        let of_port = table.iter().filter(|(_, flow)| lanes.port(flow.lane) == port);
        let ended: Vec<FlowId> = of_port.map(|(id, _)| id).collect();
        ended.iter().for_each(|id| self.remove(*id, true));
    }

    /// Ends the flows that `matches` says. Returns how many.
    pub(crate) fn end_where(&mut self, now: Instant, matches: impl Fn(&FlowView) -> bool) -> usize {
        let streams = &*self.streams;
        let matching = streams.table.iter().filter(|(id, flow)| matches(&streams.view(*id, flow, now)));
        let ended: Vec<FlowId> = matching.map(|(id, _)| id).collect();
        ended.iter().for_each(|id| self.remove(*id, true));
        ended.len()
    }

    fn remove(&mut self, id: FlowId, reset: bool) {
        let Some(flow) = self.streams.table.remove(id) else { return };
        self.shared.budget.give(self.streams.lanes.port(flow.lane));
        if flow.half_open {
            self.streams.lanes.opened(flow.lane, flow.published);
        }
        self.streams.lanes.leave(flow.lane);
        self.host.close_stream(id, reset);
        if self.streams.table.len() == 0 {
            // Nothing is left of what there was.
            self.streams.sweep_at = None;
            self.streams.lingering = VecDeque::new();
        }
    }
}
