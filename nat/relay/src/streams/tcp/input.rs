//! What a segment of the container does to a connection (RFC 9293 3.10.7, RFC 5961).

use tapswitch_wire::{DropReason, Instant};

use super::opening::Mss;
use super::{CHALLENGE_EVERY, End, Options, State, Tcp, before, flag};
use crate::flow::FlowId;
use crate::host::StreamHost;

/// A segment of the container, read once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Options,
    pub payload: &'a [u8],
}

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// It goes on. Owed acknowledgements and data are sent at the end of the turn.
    Go,
    /// It goes on; this segment was dropped.
    Drop(DropReason),
    /// It goes on; the SYN-ACK is to be repeated.
    RepeatSynAck,
    /// The container broke it: the host's side is reset, nothing is sent.
    Gone,
    /// It goes on; a RST answers this segment, which belongs to another one (RFC 9293 3.10.7.4, SYN-RECEIVED).
    Refuse,
    /// A new SYN on an ended connection: forget this one and begin anew.
    Renew,
}

impl Tcp {
    /// Takes one segment.
    pub(crate) fn input(
        &mut self,
        id: FlowId,
        seg: &Incoming<'_>,
        mss: Mss,
        host: &mut impl StreamHost,
        now: Instant,
    ) -> Next {
        match self.state {
            State::Connecting => return self.input_connecting(seg),
            State::SynSent => return self.input_syn_sent(seg, mss, now),
            State::Lingering if self.begins_anew(seg) => return Next::Renew,
            _ => {}
        }
        if seg.flags & flag::RST != 0 {
            return self.input_reset(seg, now);
        }
        if seg.flags & flag::SYN != 0 {
            if self.state == State::SynReceived && seg.seq == self.rcv_nxt.wrapping_sub(1) {
                return Next::RepeatSynAck;
            }
            return self.challenge(now);
        }
        if !self.acceptable(seg) {
            self.ack_due = true;
            return Next::Drop(DropReason::TcpOutOfWindow);
        }
        if seg.flags & flag::ACK == 0 {
            return Next::Drop(DropReason::TransportMalformed);
        }
        match self.input_ack(id, seg, host, now) {
            Next::Go => {}
            other => return other,
        }
        let next = self.input_payload(id, seg, host, now);
        self.settle();
        next
    }

    /// Bytes of the container that were taken, counted from anywhere; it wraps.
    pub(crate) fn taken(&self) -> u32 {
        self.rcv_nxt.wrapping_sub(u32::from(self.peer_fin))
    }

    /// Whether this is the SYN of a new connection, and not a late one of the connection that ended (RFC 6191 2).
    fn begins_anew(&self, seg: &Incoming<'_>) -> bool {
        let newer = match seg.options.timestamp {
            Some((value, _)) if self.timestamps && value != self.ts_recent => before(self.ts_recent, value),
            _ => !before(seg.seq, self.rcv_nxt),
        };
        newer && seg.flags & (flag::SYN | flag::RST | flag::ACK) == flag::SYN
    }

    /// RFC 5961 3.2: only the exact number breaks the connection.
    fn input_reset(&mut self, seg: &Incoming<'_>, now: Instant) -> Next {
        if seg.seq == self.rcv_nxt {
            return Next::Gone;
        }
        let ahead = seg.seq.wrapping_sub(self.rcv_nxt);
        if ahead < self.offered() { self.challenge(now) } else { Next::Drop(DropReason::TcpOutOfWindow) }
    }

    fn challenge(&mut self, now: Instant) -> Next {
        let part = (now.as_millis() / CHALLENGE_EVERY % 0xffff) as u16 + 1;
        if self.challenged != part {
            self.challenged = part;
            self.ack_due = true;
        }
        Next::Drop(DropReason::TcpOutOfWindow)
    }

    /// RFC 9293 3.10.7.4 first check, and PAWS (RFC 7323 5.3).
    fn acceptable(&mut self, seg: &Incoming<'_>) -> bool {
        let timestamp = seg.options.timestamp.filter(|_| self.timestamps).map(|(value, _)| value);
        if timestamp.is_some_and(|value| before(value, self.ts_recent)) {
            return false;
        }
        let acceptable = self.in_window(seg);
        if let Some(value) = timestamp
            && acceptable
            && !before(self.rcv_nxt, seg.seq)
        {
            self.ts_recent = value;
        }
        acceptable
    }

    fn in_window(&self, seg: &Incoming<'_>) -> bool {
        let len = seg.payload.len() as u32 + u32::from(seg.flags & flag::FIN != 0);
        let window = self.offered();
        let starts_inside = seg.seq.wrapping_sub(self.rcv_nxt) < window.max(1);
        if len == 0 {
            return starts_inside;
        }
        let last = seg.seq.wrapping_add(len - 1);
        window > 0 && (starts_inside || last.wrapping_sub(self.rcv_nxt) < window)
            // Against a closed window the acknowledgement still counts.
            || window == 0 && seg.seq == self.rcv_nxt
    }

    fn input_ack(&mut self, id: FlowId, seg: &Incoming<'_>, host: &mut impl StreamHost, now: Instant) -> Next {
        let ack = seg.ack;
        let opening = self.state == State::SynReceived;
        if opening {
            if ack != self.snd_max() {
                return Next::Refuse;
            }
            self.state = State::Open;
        }
        if before(self.snd_max(), ack) {
            self.ack_due = true;
            return Next::Drop(DropReason::TcpOutOfWindow);
        }
        let window = u32::from(seg.window) << if self.scaling { self.peer_scale } else { 0 };
        if before(self.snd_una, ack) {
            self.acknowledged(id, ack, opening, host, now);
        } else if ack == self.snd_una
            && seg.payload.is_empty()
            && seg.flags & flag::FIN == 0
            && window == self.snd_wnd
            && before(self.snd_una, self.snd_max())
        {
            self.duplicate_ack();
        }
        if !before(ack, self.snd_una) {
            if self.snd_wnd == 0 && window > 0 {
                // The window opened: the probe timer's back-off ends.
                self.active().retries = 0;
                self.restart_timer(now);
            }
            self.snd_wnd = window;
        }
        Next::Go
    }

    /// New data, a SYN or a FIN of ours was acknowledged.
    fn acknowledged(&mut self, id: FlowId, ack: u32, opening: bool, host: &mut impl StreamHost, now: Instant) {
        let mut bytes = ack.wrapping_sub(self.snd_una);
        // Our SYN and our FIN take a number each, but stand for no byte of the socket.
        bytes -= u32::from(opening);
        if self.fin_at().is_some_and(|at| before(at, ack)) {
            self.end = End::Acknowledged;
            bytes -= 1;
        }
        if bytes > 0 && host.consume(id, bytes as usize).is_err() {
            // The socket is broken; reading from it will say so.
            self.readable = true;
        }
        self.readable |= host.must_ask_again();
        if let Some((behind, sent)) = self.active().timed
            && !before(ack, behind)
        {
            self.active().timed = None;
            self.measure(now - sent);
        }
        self.snd_una = ack;
        let active = self.active();
        if before(active.snd_nxt, ack) {
            active.snd_nxt = ack;
        }
        active.dup_acks = 0;
        active.retries = 0;
        self.cwnd = self.cwnd.saturating_add(bytes);
        self.restart_timer(now);
    }

    /// The retransmission timer runs as long as something is not acknowledged (RFC 6298 5.2, 5.3).
    fn restart_timer(&mut self, now: Instant) {
        let timer = now + self.timeout();
        let una = self.snd_una;
        let active = self.active();
        active.timer = if una == active.snd_max { None } else { Some(timer) };
    }

    /// The third one in a row means loss: go back and send again what is missing.
    fn duplicate_ack(&mut self) {
        let (una, mss) = (self.snd_una, self.mss());
        let active = self.active();
        active.dup_acks = active.dup_acks.saturating_add(1);
        if active.dup_acks == 3 && !before(una, active.recover) {
            active.recover = active.snd_max;
            self.cwnd = (active.snd_max.wrapping_sub(una) / 2).max(2 * mss);
            self.go_back();
        }
    }

    /// The next thing sent is the first that was not acknowledged.
    pub(super) fn go_back(&mut self) {
        let una = self.snd_una;
        let active = self.active();
        active.snd_nxt = una;
        active.timed = None;
        self.readable = true;
    }

    fn input_payload(&mut self, id: FlowId, seg: &Incoming<'_>, host: &mut impl StreamHost, now: Instant) -> Next {
        let fin = seg.flags & flag::FIN != 0;
        if seg.payload.is_empty() && !fin {
            // A keepalive probe lies just before the window and was answered by `acceptable`.
            return Next::Go;
        }
        self.ack_due = true;
        if before(self.rcv_nxt, seg.seq) {
            return Next::Drop(DropReason::TcpOutOfOrder);
        }
        if self.state == State::Lingering || self.peer_fin {
            return Next::Go;
        }
        let known = self.rcv_nxt.wrapping_sub(seg.seq) as usize;
        let new = seg.payload.get(known..).unwrap_or_default();
        let offered = &new[..new.len().min(self.offered() as usize)];
        let taken = self.deliver(id, offered, host, now);
        self.rcv_nxt = self.rcv_nxt.wrapping_add(taken as u32);
        if fin && taken == new.len() && known <= seg.payload.len() {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
            self.peer_fin = true;
            self.pass_fin(id, host, now);
        }
        Next::Go
    }

    /// Both ways ended and acknowledged: the connection is over.
    pub(super) fn settle(&mut self) {
        if self.state == State::Open && self.finished && self.end == End::Acknowledged {
            self.state = State::Lingering;
            self.active().timer = None;
        }
    }
}
