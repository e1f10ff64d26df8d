//! TCP flows: segments of the container in, news of the host's socket in, what the engine makes of them out.

mod table;
mod tcp;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;

use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropReason, Emit, FrameOf, Instant, Journey, Mac, PortId, Stage, Step};

use crate::flow::{FlowId, FlowView, Key};
use crate::host::{Host, HostError, HostIcmp, Readiness};
use crate::publish::Publication;
use crate::quote::quote;
use crate::relay::{Refusal, Shared, unreachable_code};
use table::{Flow, Table};
use tcp::{Incoming, Next, Options, Path, Sent, State, Tcp, flag};

/// Ended connections that are remembered at most; see `tcp`.
const MAX_LINGERING: usize = 1_024;
/// Frames of data that one flow sends in one turn.
const FLOW_BUDGET: u32 = 8;

/// The streams of one network.
pub(crate) struct Streams {
    table: Table,
    /// Flows that have something to send at the end of this turn.
    turn: Vec<FlowId>,
    spare: Vec<FlowId>,
    lingering: VecDeque<FlowId>,
}

impl Streams {
    pub(crate) fn new() -> Streams {
        Streams { table: Table::new(), turn: Vec::new(), spare: Vec::new(), lingering: VecDeque::new() }
    }

    /// Number of flows.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether a flow still has something to send this very moment.
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
            state: flow.body.state_name(),
            up_bytes: flow.up_bytes,
            down_bytes: flow.down_bytes,
            idle_s: (now - flow.last).as_secs(),
            expires_s: (flow.body.expires(flow.last) - now).as_secs(),
        };
        self.table.iter().map(view).collect()
    }
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
        let Some(Flow { body: tcp, mac, last, up_bytes, .. }) = self.streams.table.get(id) else {
            return Err(DropReason::NoSuchFlow.into());
        };
        *mac = frame.src_mac();
        *last = now;
        let before = tcp.state;
        let next = tcp.input(id, &seg, self.host, now);
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
        let host = &mut self.host;
        let via = self.shared.admit(port, &key, |ip| host.is_own(ip), journey)?;
        let id = self.streams.table.next_id();
        let headers = if key.src.is_ipv4() { 40 } else { 60 };
        let iss = self.initial_sequence(&key, now);
        let tcp = Tcp::new(seg.seq, seg.window, &seg.options, iss, self.shared.config.mtu - headers, quote(frame));
        if let Err(error) = self.host.connect(id, via) {
            return self.refuse_open(&key, frame.src_mac(), seg, error, journey, out);
        }
        self.shared.budget.take(port);
        let flow = Flow::new(key, via, frame.src_mac(), port, now, Box::new(tcp));
        self.streams.table.insert(flow);
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
        (self.shared.isn.hash_one(key) as u32).wrapping_add((now.as_micros() / 4) as u32)
    }

    pub(crate) fn host_event(&mut self, id: FlowId, ready: Readiness, now: Instant, out: &mut impl Emit) {
        let Some(Flow { body: tcp, .. }) = self.streams.table.get(id) else { return };
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
            tcp.host_writable(id, self.host, now);
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
                let error = HostIcmp { kind: 3, code, mtu: 0, offender: None };
                if let Some(Flow { key, mac, body: tcp, .. }) = self.streams.table.get(id) {
                    self.shared.emit_error(*mac, key.src.ip(), &tcp.syn, error, out);
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
            if old.is_some_and(|flow| flow.body.state == State::Lingering) {
                self.remove(oldest, false);
            }
        }
    }

    /// Breaks a connection towards both ends.
    fn break_tcp(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        self.with_tcp(id, now, out, |tcp, path, out| tcp.send_reset(path, out));
        self.remove(id, true);
    }

    fn with_tcp<E: Emit>(
        &mut self,
        id: FlowId,
        now: Instant,
        out: &mut E,
        then: impl FnOnce(&mut Tcp, &mut Path<'_>, &mut E),
    ) {
        let (headers, frame) = (&mut self.shared.headers, &mut self.shared.frame);
        let Some(Flow { key, mac, body: tcp, .. }) = self.streams.table.get(id) else { return };
        let link = Link { src: self.shared.config.mac, dst: *mac };
        let mut path = Path { link, key, mtu: self.shared.config.mtu, now, headers, frame };
        then(tcp, &mut path, out);
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

    /// Once a turn: sends what flows owe, lets timers end.
    pub(crate) fn poll(&mut self, now: Instant, out: &mut impl Emit) {
        let mut turn = std::mem::replace(&mut self.streams.turn, std::mem::take(&mut self.streams.spare));
        for id in turn.drain(..) {
            if let Some(flow) = self.streams.table.get(id) {
                flow.queued = false;
            }
            self.serve(id, now, out);
        }
        self.streams.spare = turn;
        while let Some(id) = self.streams.table.due(now) {
            self.on_timer(id, now, out);
        }
    }

    /// Puts a flow on the list of this turn, once.
    fn enqueue(&mut self, id: FlowId) {
        if let Some(flow) = self.streams.table.get(id)
            && !flow.queued
        {
            flow.queued = true;
            self.streams.turn.push(id);
        }
    }

    /// Gives one flow its share.
    fn serve(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        let mut ended = Sent::Done;
        let mut bytes = 0;
        let (headers, frame) = (&mut self.shared.headers, &mut self.shared.frame);
        let Some(Flow { key, mac, body: tcp, down_bytes, last, .. }) = self.streams.table.get(id) else { return };
        if tcp.state != State::Connecting {
            let link = Link { src: self.shared.config.mac, dst: *mac };
            let mut path = Path { link, key, mtu: self.shared.config.mtu, now, headers, frame };
            (ended, bytes) = tcp.pump(id, FLOW_BUDGET, &mut path, self.host, out);
        }
        if bytes > 0 {
            *down_bytes += bytes;
            *last = now;
        }
        match ended {
            Sent::Done => self.arm(id),
            Sent::More => self.enqueue(id),
            Sent::Broken => self.break_tcp(id, now, out),
        }
    }

    fn on_timer(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        let Some(Flow { body: tcp, last, .. }) = self.streams.table.get(id) else { return };
        if tcp.expires(*last) <= now {
            if tcp.state == State::Lingering {
                self.remove(id, false);
            } else {
                self.break_tcp(id, now, out);
            }
            return;
        }
        let mut alive = true;
        self.with_tcp(id, now, out, |tcp, path, out| alive = tcp.on_timer(path, out));
        if alive {
            self.serve(id, now, out);
            self.arm(id);
        } else {
            self.break_tcp(id, now, out);
        }
    }

    /// Sets a flow's timer to its present deadline.
    fn arm(&mut self, id: FlowId) {
        let Some(flow) = self.streams.table.get(id) else { return };
        let at = flow.body.deadline(flow.last);
        self.streams.table.arm(id, at);
    }

    /// Listens on the host for a container.
    pub(crate) fn publish(&mut self, _publication: &Publication) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Listens no more.
    pub(crate) fn unpublish(&mut self, _publication: &Publication) {}

    /// A port is gone: its flows end, and the other ends are told.
    pub(crate) fn port_gone(&mut self, port: PortId) {
        let ids: Vec<_> = self.streams.table.ids().collect();
        for id in ids {
            if self.streams.table.get(id).is_some_and(|flow| flow.port == port) {
                self.remove(id, true);
            }
        }
    }

    /// Ends the flows that `matches` says. Returns how many.
    pub(crate) fn end_where(&mut self, now: Instant, matches: impl Fn(&FlowView) -> bool) -> usize {
        let all: Vec<FlowId> = self.streams.table.numbers().collect();
        let ended = all.into_iter().zip(self.streams.flows(now)).filter(|(_, flow)| matches(flow)).map(|(id, _)| id);
        let ended: Vec<FlowId> = ended.collect();
        ended.iter().for_each(|id| self.remove(*id, true));
        ended.len()
    }

    fn remove(&mut self, id: FlowId, reset: bool) {
        if let Some(flow) = self.streams.table.remove(id) {
            self.shared.budget.give(flow.port);
            self.host.close_stream(id, reset);
        }
    }
}
