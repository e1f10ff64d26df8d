//! What a connection sends to its container.

use std::io;
use std::ops::Deref;

use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{Emit, Gso, GsoKind, Instant, Meta};

use super::{End, MAX_RETRIES, MAX_SYN_ACKS, MAX_SYNS, State, Tcp, before, flag};
use crate::flow::{FlowId, Key};
use crate::host::StreamHost;

/// Most payload of one super-frame: an IP packet with the longest headers that are sent here.
const MAX_PAYLOAD: u32 = 65_535 - 40 - 20 - 12;

/// What the sending side needs to know of its surroundings.
pub(crate) struct Path<'a> {
    pub link: Link,
    pub key: &'a Key,
    /// MTU of the container's port.
    pub mtu: u16,
    pub now: Instant,
    /// Reused for headers, and for whole frames.
    pub headers: &'a mut Vec<u8>,
    pub frame: &'a mut Vec<u8>,
}

/// The timestamp option on the stack: data frames allocate nothing.
pub(super) struct TimestampOption {
    bytes: [u8; 12],
    len: usize,
}

impl Deref for TimestampOption {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// How sending ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// All that may be sent now was sent.
    Done,
    /// The turn's share is used up, and there is more.
    More,
    /// The host's side is broken.
    Broken,
}

impl Tcp {
    /// The timestamp option, padded to whole words; empty if timestamps are not used.
    pub(super) fn timestamp(&self, now: Instant) -> TimestampOption {
        if !self.timestamps {
            return TimestampOption { bytes: [0; 12], len: 0 };
        }
        let mut bytes = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        let value = (now.as_millis() as u32).wrapping_add(self.ts_offset);
        bytes[4..8].copy_from_slice(&value.to_be_bytes());
        bytes[8..].copy_from_slice(&self.ts_recent.to_be_bytes());
        TimestampOption { bytes, len: 12 }
    }

    /// Sends what may be sent: at most `budget` frames of data, then a FIN if it is its turn, then what is owed. Returns
    /// how it ended, and how many frames and bytes of data were sent.
    pub(crate) fn pump(
        &mut self,
        id: FlowId,
        budget: u32,
        path: &mut Path<'_>,
        host: &mut impl StreamHost,
        out: &mut impl Emit,
    ) -> (Sent, u32, u64) {
        let (mut frames, mut bytes) = (0, 0);
        let mut sent = Sent::Done;
        while self.state == State::Open && self.readable && self.may_read() {
            let room = self.room() as usize;
            if room == 0 {
                break;
            }
            if frames == budget {
                sent = Sent::More;
                break;
            }
            let header_len = self.header_len(path);
            // It only ever grows, because what is added must be written first.
            if path.frame.len() < header_len + room {
                path.frame.resize((header_len + room).max(1 << 16), 0);
            }
            match host.peek(id, self.in_flight() as usize, &mut path.frame[header_len..header_len + room]) {
                Ok(0) if self.host_reset().is_some() => return (Sent::Broken, frames, bytes),
                Ok(0) => {
                    self.end = End::Seen;
                    let active = self.active();
                    active.fin_at = active.snd_nxt;
                }
                Ok(len) => {
                    self.send_data(path, len, out);
                    bytes += len as u64;
                    frames += 1;
                    // Less than there was room for was all there is; what comes later is told anew.
                    self.readable = len == room || self.more || self.host_reset().is_some();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.host_reset().is_none() => {
                    self.readable = false;
                    self.more = false;
                }
                Err(_) => return (Sent::Broken, frames, bytes),
            }
        }
        if self.host_reset().is_some() && self.state == State::Open && (self.snd_wnd == 0 || self.end != End::Open) {
            return (Sent::Broken, frames, bytes);
        }
        // A FIN waits for a closed window as data does: the container may drop it, and would seem to be dead.
        if self.fin_is_next() && self.state == State::Open && self.in_flight() < self.snd_wnd {
            self.send_fin(path, out);
        }
        if self.ack_due {
            self.send_ack(path, out);
        }
        if self.waits_for_window() && self.active().timer.is_none() {
            let timer = path.now + self.timeout();
            self.active().timer = Some(timer);
        }
        (sent, frames, bytes)
    }

    /// Whether something of the socket can still be sent, or must be sent again.
    fn may_read(&self) -> bool {
        match self.end {
            End::Open => true,
            End::Seen => self.fin_at().is_some_and(|at| before(self.snd_nxt(), at)),
            End::Acknowledged => false,
        }
    }

    fn fin_is_next(&self) -> bool {
        self.fin_at() == Some(self.snd_nxt())
    }

    /// How many bytes may be sent in one frame now. Less than a segment waits until all before it is acknowledged.
    fn room(&self) -> u32 {
        let window = self.snd_wnd.min(self.cwnd);
        let room = window.saturating_sub(self.in_flight()).min(MAX_PAYLOAD);
        if room >= self.mss() {
            room - room % self.mss()
        } else if self.in_flight() == 0 {
            room
        } else {
            0
        }
    }

    /// The container's window is closed and there may be something for it: something new, or what it closed the window
    /// upon before it came.
    fn waits_for_window(&self) -> bool {
        let more = self.readable && self.may_read() || self.fin_is_next();
        self.state == State::Open && more && self.in_flight() == 0 && self.snd_wnd == 0
    }

    fn header_len(&self, path: &Path<'_>) -> usize {
        let ip = if path.key.src.is_ipv4() { 20 } else { 40 };
        14 + ip + 20 + if self.timestamps { 12 } else { 0 }
    }

    /// Sends `len` bytes that already lie in the frame behind the room for the headers.
    fn send_data(&mut self, path: &mut Path<'_>, len: usize, out: &mut impl Emit) {
        let options = self.timestamp(path.now);
        let seq = self.snd_nxt();
        let window = self.take_window();
        let mut meta = self.write_headers(path, flag::ACK | flag::PSH, seq, window, &options, len);
        if len as u32 > self.mss() {
            let kind = if path.key.src.is_ipv4() { GsoKind::Tcp4 } else { GsoKind::Tcp6 };
            meta.gso = Some(Gso { kind, size: self.mss, ecn: false });
        }
        let headers = path.headers.len();
        path.frame[..headers].copy_from_slice(path.headers);
        out.emit(&meta, &path.frame[..headers + len]);
        self.ack_due = false;
        self.advance(seq.wrapping_add(len as u32), path.now);
    }

    fn send_fin(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        let seq = self.snd_nxt();
        self.send_plain(path, flag::FIN | flag::ACK, seq, out);
        self.advance(seq.wrapping_add(1), path.now);
    }

    /// Everything before `to` has been sent.
    fn advance(&mut self, to: u32, now: Instant) {
        let timer = now + self.timeout();
        let active = self.active();
        active.snd_nxt = to;
        if before(active.snd_max, to) {
            active.snd_max = to;
            // Only what is sent for the first time is timed (Karn's algorithm).
            active.timed = active.timed.or(Some((to, now)));
        }
        active.timer = active.timer.or(Some(timer));
    }

    /// Sends an acknowledgement with the present window.
    pub(crate) fn send_ack(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        // While something is sent again, the number of that would lie before what the container has, and it would not
        // look at the acknowledgement.
        let seq = self.snd_max();
        self.send_plain(path, flag::ACK, seq, out);
    }

    /// Sends a RST that the container accepts.
    pub(crate) fn send_reset(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        // If the container lacks some of what was sent, it asks back (RFC 5961 3.2) and gets the exact number then.
        let seq = self.snd_max();
        // Of a container that has not answered yet nothing can be acknowledged.
        let flags = if self.state == State::SynSent { flag::RST } else { flag::RST | flag::ACK };
        self.send(path, flags, seq, 0, &[], 0, out);
    }

    fn send_plain(&mut self, path: &mut Path<'_>, flags: u8, seq: u32, out: &mut impl Emit) {
        let options = self.timestamp(path.now);
        let window = self.take_window();
        self.ack_due = false;
        self.send(path, flags, seq, window, &options, 0, out);
    }

    /// Asks a silent container whether the connection still exists, by a number that it must answer (RFC 9293 3.8.4).
    pub(crate) fn send_keepalive(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        let seq = self.snd_una.wrapping_sub(1);
        self.send_plain(path, flag::ACK, seq, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one header")]
    pub(super) fn send(
        &self,
        path: &mut Path<'_>,
        flags: u8,
        seq: u32,
        window: u16,
        options: &[u8],
        payload: usize,
        out: &mut impl Emit,
    ) {
        let meta = self.write_headers(path, flags, seq, window, options, payload);
        out.emit(&meta, path.headers);
    }

    fn write_headers(
        &self,
        path: &mut Path<'_>,
        flags: u8,
        seq: u32,
        window: u16,
        options: &[u8],
        payload: usize,
    ) -> Meta {
        let ip = Ip { src: path.key.dst.ip(), dst: path.key.src.ip(), ttl: 64, tos: 0, id: 0 };
        let (src_port, dst_port) = (path.key.dst.port(), path.key.src.port());
        let ack = if flags & flag::ACK == 0 { 0 } else { self.rcv_nxt };
        let tcp = build::Tcp { src_port, dst_port, seq, ack, flags, window, options };
        build::tcp(path.headers, path.link, ip, tcp, payload)
    }

    /// A timer ended. Returns false if the connection is to be given up.
    pub(crate) fn on_timer(&mut self, path: &mut Path<'_>, out: &mut impl Emit) -> bool {
        if self.host_reset().is_some_and(|end| end <= path.now) {
            return false;
        }
        let probing = self.waits_for_window();
        let Some(active) = self.active.as_mut().filter(|active| active.timer.is_some_and(|at| at <= path.now)) else {
            return true;
        };
        active.timer = None;
        if self.snd_una == active.snd_max && !probing {
            return true;
        }
        active.retries = active.retries.saturating_add(1);
        let most = match self.state {
            State::SynReceived => MAX_SYN_ACKS,
            State::SynSent => MAX_SYNS,
            _ => MAX_RETRIES,
        };
        if active.retries > most && !probing {
            return false;
        }
        match self.state {
            State::SynReceived => self.send_syn_ack(path, out),
            State::SynSent => self.send_syn(path, out),
            State::Open if probing => {
                // An old number: the container must answer with its present window.
                let seq = self.snd_una.wrapping_sub(1);
                self.send_plain(path, flag::ACK, seq, out);
                let timer = path.now + self.timeout();
                self.active().timer = Some(timer);
            }
            State::Open => {
                active.recover = active.snd_max;
                self.cwnd = self.mss();
                self.go_back();
            }
            State::Connecting | State::Lingering => {}
        }
        true
    }
}
