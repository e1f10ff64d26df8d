//! What a segment of the container does to a connection (RFC 9293 3.10.7, RFC 5961).

use std::io;
use std::time::Duration;

use tapswitch_wire::{DropReason, Instant};

use super::{CHALLENGE_EVERY, Options, RTO_MAX, RTO_MIN, State, Tcp, before, flag};
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
    pub(crate) fn input(&mut self, id: FlowId, seg: &Incoming<'_>, host: &mut impl StreamHost, now: Instant) -> Next {
        match self.state {
            State::Connecting => return self.input_connecting(seg),
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

    /// While the host connects, a container can only repeat its SYN or give up.
    fn input_connecting(&mut self, seg: &Incoming<'_>) -> Next {
        if seg.flags & flag::RST != 0 {
            // Nothing was sent yet that it could acknowledge, so the sequence number alone must be right.
            return if seg.seq == self.rcv_nxt || seg.seq == self.rcv_nxt.wrapping_sub(1) {
                Next::Gone
            } else {
                Next::Drop(DropReason::TcpOutOfWindow)
            };
        }
        if seg.flags & flag::SYN != 0 {
            if seg.seq == self.rcv_nxt.wrapping_sub(1) { Next::Go } else { Next::Renew }
        } else {
            Next::Drop(DropReason::TcpOutOfWindow)
        }
    }

    /// Whether this is the SYN of a new connection, and not a late one of the connection that ended (RFC 6191 2).
    fn begins_anew(&self, seg: &Incoming<'_>) -> bool {
        let newer = match (self.ts_recent, seg.options.timestamp) {
            (Some(recent), Some((value, _))) if value != recent => before(recent, value),
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
        if ahead < self.window() { self.challenge(now) } else { Next::Drop(DropReason::TcpOutOfWindow) }
    }

    fn challenge(&mut self, now: Instant) -> Next {
        if self.last_challenge.is_none_or(|last| now - last >= CHALLENGE_EVERY) {
            self.last_challenge = Some(now);
            self.ack_due = true;
        }
        Next::Drop(DropReason::TcpOutOfWindow)
    }

    /// RFC 9293 3.10.7.4 first check, and PAWS (RFC 7323 5.3).
    fn acceptable(&mut self, seg: &Incoming<'_>) -> bool {
        if let (Some(recent), Some((value, _))) = (self.ts_recent, seg.options.timestamp)
            && before(value, recent)
        {
            return false;
        }
        let acceptable = self.in_window(seg);
        if let (Some(_), Some((value, _))) = (self.ts_recent, seg.options.timestamp)
            && acceptable
            && !before(self.rcv_nxt, seg.seq)
        {
            self.ts_recent = Some(value);
        }
        acceptable
    }

    fn in_window(&self, seg: &Incoming<'_>) -> bool {
        let len = seg.payload.len() as u32 + u32::from(seg.flags & flag::FIN != 0);
        let window = self.window();
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
            if ack != self.snd_max {
                return Next::Refuse;
            }
            self.state = State::Open;
        }
        if before(self.snd_max, ack) {
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
            && before(self.snd_una, self.snd_max)
        {
            self.duplicate_ack();
        }
        if !before(ack, self.snd_una) {
            if self.snd_wnd == 0 && window > 0 {
                // The window opened: the probe timer's back-off ends.
                self.retries = 0;
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
        if self.fin_at.is_some_and(|at| before(at, ack)) && !self.fin_acked() {
            bytes -= 1;
        }
        if bytes > 0 && host.consume(id, bytes as usize).is_err() {
            // The socket is broken; reading from it will say so.
            self.readable = true;
        }
        self.readable |= host.must_ask_again();
        if let Some((behind, sent)) = self.timed
            && !before(ack, behind)
        {
            self.timed = None;
            self.measure(now - sent);
        }
        self.snd_una = ack;
        if before(self.snd_nxt, ack) {
            self.snd_nxt = ack;
        }
        self.cwnd = self.cwnd.saturating_add(bytes);
        self.dup_acks = 0;
        self.retries = 0;
        self.restart_timer(now);
    }

    /// The retransmission timer runs as long as something is not acknowledged (RFC 6298 5.2, 5.3).
    fn restart_timer(&mut self, now: Instant) {
        self.timer = if self.snd_una == self.snd_max { None } else { Some(now + self.timeout()) };
    }

    /// RFC 6298 2.
    fn measure(&mut self, rtt: Duration) {
        let (srtt, var) = match self.srtt {
            None => (rtt, rtt / 2),
            Some((srtt, var)) => (srtt * 7 / 8 + rtt / 8, var * 3 / 4 + srtt.abs_diff(rtt) / 4),
        };
        self.srtt = Some((srtt, var));
        self.rto = (srtt + var * 4).clamp(RTO_MIN, RTO_MAX);
    }

    /// The third one in a row means loss: go back and send again what is missing.
    fn duplicate_ack(&mut self) {
        self.dup_acks = self.dup_acks.saturating_add(1);
        if self.dup_acks == 3 && !before(self.snd_una, self.recover) {
            self.recover = self.snd_max;
            self.cwnd = (self.snd_max.wrapping_sub(self.snd_una) / 2).max(2 * self.mss);
            self.go_back();
        }
    }

    /// The next thing sent is the first that was not acknowledged.
    pub(super) fn go_back(&mut self) {
        self.snd_nxt = self.snd_una;
        self.timed = None;
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
        let room = self.window() as usize;
        let taken = &new[..new.len().min(room)];
        self.deliver(id, taken, host, now);
        self.rcv_nxt = self.rcv_nxt.wrapping_add(taken.len() as u32);
        if fin && taken.len() == new.len() && known <= seg.payload.len() {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
            self.peer_fin = true;
            self.pass_fin(id, host, now);
        }
        Next::Go
    }

    /// Hands data to the socket, and holds what it cannot take. A broken one takes it all to nowhere.
    fn deliver(&mut self, id: FlowId, mut bytes: &[u8], host: &mut impl StreamHost, now: Instant) {
        while self.held.is_empty() && self.writable && self.host_reset.is_none() && !bytes.is_empty() {
            match host.write(id, bytes) {
                Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(_) => self.host_broke(now),
            }
        }
        if self.host_reset.is_none() {
            self.held.extend(bytes);
        }
    }

    /// The socket has room again.
    pub(crate) fn host_writable(&mut self, id: FlowId, host: &mut impl StreamHost, now: Instant) {
        self.writable = true;
        while self.writable && !self.held.is_empty() {
            match host.write(id, self.held.as_slices().0) {
                Ok(taken) => drop(self.held.drain(..taken.min(self.held.len()))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(_) => self.host_broke(now),
            }
        }
        if self.held.is_empty() {
            // Memory is kept only while it is needed.
            self.held = Default::default();
        }
        // The container waits for a window update only if it was told of a small one (RFC 9293 3.8.6.2.2).
        if self.offered() < self.reach() / 2 && self.window() >= self.reach() / 2 {
            self.ack_due = true;
        }
        self.pass_fin(id, host, now);
        self.settle();
    }

    /// Passes the container's FIN on once every earlier byte is written.
    fn pass_fin(&mut self, id: FlowId, host: &mut impl StreamHost, now: Instant) {
        if self.peer_fin && !self.finished && self.held.is_empty() {
            self.finished = true;
            if host.finish(id).is_err() {
                self.host_broke(now);
            }
        }
    }

    /// Both ways ended and acknowledged: the connection is over.
    fn settle(&mut self) {
        if self.state == State::Open && self.finished && self.fin_acked() {
            self.state = State::Lingering;
            self.timer = None;
        }
    }
}
