//! TCP flows: segments of the container in, news of the host's socket in, what the engine makes of them out.

use std::hash::BuildHasher;
use std::ops::Deref;

use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropReason, Emit, FrameOf, Instant, Journey, Mac, PortId, Stage, Step};

use super::{Refusal, Relay, unreachable_code};
use crate::datagram::quote;
use crate::host::{Host, HostError, HostIcmp, Proto, Readiness};
use crate::table::{Body, Flow, FlowId, Key};
use crate::tcp::{Incoming, Next, Options, Path, State, Tcp, flag};

/// Ended connections that are remembered at most; see `tcp`.
const MAX_LINGERING: usize = 1_024;

impl<H: Host> Relay<H> {
    pub(super) fn handle_tcp<B: Deref<Target = [u8]>>(
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
    pub(super) fn open_tcp<B: Deref<Target = [u8]>>(
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
    pub(super) fn refuse_open(
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
    pub(super) fn initial_sequence(&self, key: &Key, now: Instant) -> u32 {
        (self.isn.hash_one(key) as u32).wrapping_add((now.as_micros() / 4) as u32)
    }

    pub(super) fn tcp_event(&mut self, id: FlowId, ready: Readiness, now: Instant, out: &mut impl Emit) {
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
    pub(super) fn connect_failed(&mut self, id: FlowId, error: HostError, now: Instant, out: &mut impl Emit) {
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

    /// A connection is over on both sides: the socket is not needed, the memory of it is, for a while.
    pub(super) fn linger(&mut self, id: FlowId) {
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
        let (headers, frame) = (&mut self.headers, &mut self.frame);
        let Some(Flow { key, mac, body: Body::Tcp(tcp), .. }) = self.table.get(id) else { return };
        let link = Link { src: self.config.mac, dst: *mac };
        let mut path = Path { link, key, mtu: self.config.mtu, now, headers, frame };
        then(tcp, &mut path, out);
    }

    /// A RST about a segment that belongs to no connection (RFC 9293 3.5.2).
    pub(super) fn emit_reset(&mut self, key: &Key, mac: Mac, seg: &Incoming<'_>, out: &mut impl Emit) {
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
