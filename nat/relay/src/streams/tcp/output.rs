//! What a connection sends to its container.

use std::io;
use std::ops::Deref;

use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{Emit, Gso, GsoKind, Instant, Meta};

use super::{MAX_RETRIES, State, Tcp, WINDOW_SCALE, before, flag};
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
struct TimestampOption {
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
    /// Sends the SYN-ACK: the host is connected.
    pub(crate) fn send_syn_ack(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        self.state = State::SynReceived;
        let [mss_high, mss_low] = Self::own_mss(path).to_be_bytes();
        let mut options = vec![2, 4, mss_high, mss_low];
        if self.scaling {
            options.extend_from_slice(&[1, 3, 3, WINDOW_SCALE]);
        }
        options.extend_from_slice(&self.timestamp(path.now));
        let seq = self.snd_una;
        // The window of a SYN is never scaled (RFC 7323 2.2).
        let window = self.window().min(0xffff);
        self.edge = self.rcv_nxt.wrapping_add(window);
        self.send(path, flag::SYN | flag::ACK, seq, window as u16, &options, 0, out);
        // Only what is sent for the first time is timed (Karn's algorithm).
        let repeated = self.snd_max != seq;
        self.snd_nxt = seq.wrapping_add(1);
        self.snd_max = self.snd_nxt;
        self.recover = self.snd_max;
        self.timed = if repeated { None } else { Some((self.snd_nxt, path.now)) };
        self.timer = Some(path.now + self.timeout());
    }

    /// The MSS that this end offers: what fits the LAN, whatever the container's own is.
    fn own_mss(path: &Path<'_>) -> u16 {
        path.mtu.saturating_sub(if path.key.src.is_ipv4() { 40 } else { 60 })
    }

    /// The timestamp option, padded to whole words; empty if timestamps are not used.
    fn timestamp(&self, now: Instant) -> TimestampOption {
        let Some(recent) = self.ts_recent else { return TimestampOption { bytes: [0; 12], len: 0 } };
        let mut bytes = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        let value = (now.as_millis() as u32).wrapping_add(self.ts_offset);
        bytes[4..8].copy_from_slice(&value.to_be_bytes());
        bytes[8..].copy_from_slice(&recent.to_be_bytes());
        TimestampOption { bytes, len: 12 }
    }

    /// Sends what may be sent: at most `budget` frames of data, then a FIN if it is its turn, then what is owed.
    pub(crate) fn pump(
        &mut self,
        id: FlowId,
        budget: u32,
        path: &mut Path<'_>,
        host: &mut impl StreamHost,
        out: &mut impl Emit,
    ) -> (Sent, u64) {
        let mut bytes = 0;
        let mut frames = 0;
        let mut sent = Sent::Done;
        while self.state == State::Open && self.readable && self.fin_at.is_none_or(|at| before(self.snd_nxt, at)) {
            let room = self.room();
            if room == 0 {
                break;
            }
            if frames == budget {
                sent = Sent::More;
                break;
            }
            let header_len = self.header_len(path);
            path.frame.resize(header_len + room as usize, 0);
            let got = host.peek(id, self.in_flight() as usize, &mut path.frame[header_len..]);
            match got {
                Ok(0) if self.host_reset.is_some() => return (Sent::Broken, bytes),
                Ok(0) => self.fin_at = Some(self.snd_nxt),
                Ok(len) => {
                    self.send_data(path, len, out);
                    bytes += len as u64;
                    frames += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.host_reset.is_none() => {
                    self.readable = false
                }
                Err(_) => return (Sent::Broken, bytes),
            }
        }
        if self.host_reset.is_some() && self.state == State::Open && (self.snd_wnd == 0 || self.fin_at.is_some()) {
            return (Sent::Broken, bytes);
        }
        // A FIN waits for a closed window as data does: the container may drop it, and would seem to be dead.
        if self.fin_at == Some(self.snd_nxt) && self.state == State::Open && self.in_flight() < self.snd_wnd {
            self.send_fin(path, out);
        }
        if self.ack_due {
            self.send_ack(path, out);
        }
        if self.timer.is_none() && self.waits_for_window() {
            self.timer = Some(path.now + self.timeout());
        }
        (sent, bytes)
    }

    /// How many bytes may be sent in one frame now. Less than a segment waits until all before it is acknowledged.
    fn room(&self) -> u32 {
        let window = self.snd_wnd.min(self.cwnd);
        let room = window.saturating_sub(self.in_flight()).min(MAX_PAYLOAD);
        if room >= self.mss {
            room - room % self.mss
        } else if self.in_flight() == 0 {
            room
        } else {
            0
        }
    }

    /// The container's window is closed and there may be something for it: something new, or what it closed the window
    /// upon before it came.
    fn waits_for_window(&self) -> bool {
        let more = self.readable || self.fin_at == Some(self.snd_nxt);
        self.state == State::Open && more && self.snd_nxt == self.snd_una && self.snd_wnd == 0
    }

    fn header_len(&self, path: &Path<'_>) -> usize {
        let ip = if path.key.src.is_ipv4() { 20 } else { 40 };
        14 + ip + 20 + if self.ts_recent.is_some() { 12 } else { 0 }
    }

    /// Sends `len` bytes that already lie in the frame behind the room for the headers.
    fn send_data(&mut self, path: &mut Path<'_>, len: usize, out: &mut impl Emit) {
        let options = self.timestamp(path.now);
        let seq = self.snd_nxt;
        let window = self.take_window();
        let mut meta = self.write_headers(path, flag::ACK | flag::PSH, seq, window, &options, len);
        if len as u32 > self.mss {
            let kind = if path.key.src.is_ipv4() { GsoKind::Tcp4 } else { GsoKind::Tcp6 };
            meta.gso = Some(Gso { kind, size: self.mss as u16, ecn: false });
        }
        let headers = path.headers.len();
        path.frame[..headers].copy_from_slice(path.headers);
        out.emit(&meta, &path.frame[..headers + len]);
        self.ack_due = false;
        self.advance(seq.wrapping_add(len as u32), path.now);
    }

    fn send_fin(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        let seq = self.snd_nxt;
        self.send_plain(path, flag::FIN | flag::ACK, seq, out);
        self.advance(seq.wrapping_add(1), path.now);
    }

    /// Everything before `to` has been sent.
    fn advance(&mut self, to: u32, now: Instant) {
        self.snd_nxt = to;
        if before(self.snd_max, to) {
            self.snd_max = to;
            // Only what is sent for the first time is timed (Karn's algorithm).
            if self.timed.is_none() {
                self.timed = Some((to, now));
            }
        }
        if self.timer.is_none() {
            self.timer = Some(now + self.timeout());
        }
    }

    /// Sends an acknowledgement with the present window.
    pub(crate) fn send_ack(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        // While something is sent again, the number of that would lie before what the container has, and it would not
        // look at the acknowledgement.
        let seq = self.snd_max;
        self.send_plain(path, flag::ACK, seq, out);
    }

    /// Sends a RST that the container accepts.
    pub(crate) fn send_reset(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        // If the container lacks some of what was sent, it asks back (RFC 5961 3.2) and gets the exact number then.
        let seq = self.snd_max;
        self.send(path, flag::RST | flag::ACK, seq, 0, &[], 0, out);
    }

    fn send_plain(&mut self, path: &mut Path<'_>, flags: u8, seq: u32, out: &mut impl Emit) {
        let options = self.timestamp(path.now);
        let window = self.take_window();
        self.ack_due = false;
        self.send(path, flags, seq, window, &options, 0, out);
    }

    /// The window field, remembering what was offered. The edge moves by a segment at least (RFC 9293 3.8.6.2.2).
    ///
    /// What the scale cannot express is not offered, so the edge may seem to go back by less than one unit; a segment up
    /// to the edge that was offered before is still taken (RFC 7323 2.4).
    fn take_window(&mut self) -> u16 {
        let (window, offered) = (self.window().min(self.reach()), self.offered());
        if window >= offered.saturating_add(self.mss) {
            self.edge = self.rcv_nxt.wrapping_add(window);
        }
        let scale = if self.scaling { WINDOW_SCALE } else { 0 };
        (self.offered() >> scale).min(0xffff) as u16
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one header")]
    fn send(
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
        let tcp = build::Tcp { src_port, dst_port, seq, ack: self.rcv_nxt, flags, window, options };
        build::tcp(path.headers, path.link, ip, tcp, payload)
    }

    /// A timer ended. Returns false if the connection is to be given up.
    pub(crate) fn on_timer(&mut self, path: &mut Path<'_>, out: &mut impl Emit) -> bool {
        if self.host_reset.is_some_and(|end| end <= path.now) {
            return false;
        }
        if self.timer.is_none_or(|timer| timer > path.now) {
            return true;
        }
        self.timer = None;
        let probing = self.waits_for_window();
        if self.snd_una == self.snd_max && !probing {
            return true;
        }
        self.retries = self.retries.saturating_add(1);
        if self.retries > MAX_RETRIES && !probing {
            return false;
        }
        match self.state {
            State::SynReceived => {
                self.timed = None;
                self.send_syn_ack(path, out);
            }
            State::Open if probing => {
                // An old number: the container must answer with its present window.
                let seq = self.snd_una.wrapping_sub(1);
                self.send_plain(path, flag::ACK, seq, out);
                self.timer = Some(path.now + self.timeout());
            }
            State::Open => {
                self.cwnd = self.mss;
                self.recover = self.snd_max;
                self.go_back();
            }
            State::Connecting | State::Lingering => {}
        }
        true
    }
}
