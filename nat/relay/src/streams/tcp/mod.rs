//! The TCP end that a container talks to.
//!
//! # Theory of operation
//!
//! The engine is the other end of the container's connection, and behind it stands a socket of the host that is
//! connected to the real other end. It keeps no copy of what it sends: data of the host's socket is *peeked*, sent, and
//! consumed only when the container acknowledged it, so the kernel's socket buffer is the retransmission buffer. Data of
//! the container goes straight from the frame into the socket; only what the socket cannot take is held, at most one
//! window of it.
//!
//! | state | what happened | what may come |
//! |---|---|---|
//! | `Connecting` | SYN came, the host connects | connected: SYN-ACK, `SynReceived`; refused: RST; unreachable: ICMP; RST: gone |
//! | `SynReceived` | SYN-ACK sent | its ACK: `Open`; RST: gone; no answer: repeated, then gone |
//! | `Open` | both ways work; `peer_fin` and `fin_at` say which way has ended | both ended and acknowledged: `Lingering` or gone |
//! | `Lingering` | all is over, we had ended first | a repeated FIN is acknowledged; a later SYN begins anew |
//!
//! Each way ends by itself: the container's FIN becomes a `shutdown` once every earlier byte is written, the host's end of
//! file becomes a FIN once every earlier byte is sent. A reset passes at once in both directions; what the host received
//! before it is sent first, for [`DRAIN`] and unless the container's window is closed.
//!
//! Loss towards the container is repaired by going back to the first unacknowledged byte: after three duplicate
//! acknowledgements, or when the retransmission timer (RFC 6298, never below 200 ms) ends. How much is under way is the
//! container's window, and after a loss a congestion window that begins small and grows with every acknowledgement.
//! Segments of the container that come out of order are dropped and answered at once, so that it repeats the lost one.
//!
//! Timers: SYN-ACK and data RFC 6298 with back-off, given up after [`MAX_RETRIES`]; window probes with the same back-off,
//! never given up; established and idle [`IDLE`] (RFC 5382 REQ-5); lingering [`LINGER`].

mod input;
mod options;
mod output;

use std::collections::VecDeque;
use std::time::Duration;

use tapswitch_wire::Instant;

pub(crate) use input::{Incoming, Next};
pub(crate) use options::Options;
pub(crate) use output::{Path, Sent};

/// An established connection on which nothing passes is forgotten after this (RFC 5382 REQ-5: at least 7440 s).
const IDLE: Duration = Duration::from_secs(7_440);
/// How long an ended connection still answers a repeated FIN.
const LINGER: Duration = Duration::from_secs(10);
/// A host that does not even refuse is given up after this; its own timer is shorter on every common system.
const CONNECT: Duration = Duration::from_secs(300);
/// How long data that the host received before a reset may take to reach the container.
const DRAIN: Duration = Duration::from_secs(5);
/// First retransmission timeout (RFC 6298 2.1).
const RTO_INITIAL: Duration = Duration::from_secs(1);
const RTO_MIN: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(60);
/// Retransmissions without an answer before the connection is broken.
const MAX_RETRIES: u8 = 10;
/// One connection sends at most one challenge acknowledgement in this time (RFC 5961 7).
const CHALLENGE_EVERY: Duration = Duration::from_millis(500);
/// Receive window, and the most that is held for a host that does not read.
const WINDOW: u32 = 1 << 20;
const WINDOW_SCALE: u8 = 5;

pub(crate) mod flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Connecting,
    SynReceived,
    Open,
    Lingering,
}

/// Whether sequence number `a` lies before `b`.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// One connection. Sequence numbers wrap.
pub(crate) struct Tcp {
    pub(crate) state: State,
    /// The container's IP and transport header of the SYN, for an ICMP error about it. Dropped when connected.
    pub(crate) syn: Box<[u8]>,

    // From the container to the host.
    rcv_nxt: u32,
    /// Accepted and acknowledged, but the socket had no room yet.
    held: VecDeque<u8>,
    /// The container's FIN was received in order.
    peer_fin: bool,
    /// The FIN was passed on.
    finished: bool,
    /// The right edge of the window that was offered. It never goes back.
    edge: u32,

    // From the host to the container.
    snd_una: u32,
    snd_nxt: u32,
    /// One behind the highest sequence number ever sent.
    snd_max: u32,
    snd_wnd: u32,
    peer_scale: u8,
    /// Whether both ends scale their windows (RFC 7323 2.2).
    scaling: bool,
    /// Payload of one segment, options already subtracted.
    mss: u32,
    /// Where our FIN stands, once the host's end of file was seen.
    fin_at: Option<u32>,
    cwnd: u32,
    dup_acks: u8,
    /// Fast retransmission is not begun again before this is acknowledged.
    recover: u32,
    rto: Duration,
    srtt: Option<(Duration, Duration)>,
    /// A segment that is being timed: the number behind it, and when it left.
    timed: Option<(u32, Instant)>,
    retries: u8,
    /// When the retransmission or probe timer ends.
    timer: Option<Instant>,

    /// Timestamps (RFC 7323 3): the container's latest, if they are used.
    ts_recent: Option<u32>,
    ts_offset: u32,
    last_challenge: Option<Instant>,

    /// The socket may have something to read.
    pub(crate) readable: bool,
    /// The socket may have room.
    pub(crate) writable: bool,
    /// An acknowledgement is owed.
    pub(crate) ack_due: bool,
    /// Set when the host's side is broken: what it received before is still sent, until then at the latest.
    host_reset: Option<Instant>,
}

impl Tcp {
    /// A connection whose SYN just came: `iss` is our own initial sequence number.
    pub(crate) fn new(syn_seq: u32, window: u16, options: &Options, iss: u32, mtu_mss: u16, syn: &[u8]) -> Tcp {
        let scaling = options.window_scale.is_some();
        let timestamps = options.timestamp.is_some();
        let mss = u32::from(options.mss.unwrap_or(536).clamp(64, mtu_mss));
        Tcp {
            state: State::Connecting,
            syn: syn.into(),
            rcv_nxt: syn_seq.wrapping_add(1),
            held: VecDeque::new(),
            peer_fin: false,
            finished: false,
            edge: syn_seq.wrapping_add(1),
            snd_una: iss,
            snd_nxt: iss,
            snd_max: iss,
            snd_wnd: u32::from(window),
            peer_scale: options.window_scale.unwrap_or(0).min(14),
            scaling,
            mss: if timestamps { mss - 12 } else { mss },
            fin_at: None,
            cwnd: u32::MAX,
            dup_acks: 0,
            recover: iss,
            rto: RTO_INITIAL,
            srtt: None,
            timed: None,
            retries: 0,
            timer: None,
            ts_recent: options.timestamp.map(|(value, _)| value),
            ts_offset: iss.rotate_left(16),
            last_challenge: None,
            readable: false,
            writable: false,
            ack_due: false,
            host_reset: None,
        }
    }

    /// When something must be done although nothing comes. `last` is when something last passed.
    pub(crate) fn deadline(&self, last: Instant) -> Instant {
        let end = match self.state {
            State::Connecting | State::SynReceived => last + CONNECT,
            State::Open => last + IDLE,
            State::Lingering => last + LINGER,
        };
        [self.timer, self.host_reset].into_iter().flatten().fold(end, Instant::min)
    }

    /// When it is forgotten if nothing passes.
    pub(crate) fn expires(&self, last: Instant) -> Instant {
        match self.state {
            State::Connecting | State::SynReceived => last + CONNECT,
            State::Open => last + IDLE,
            State::Lingering => last + LINGER,
        }
    }

    /// The name of the state, as TCP's own (RFC 9293 3.3.2) where there is one.
    pub(crate) fn state_name(&self) -> &'static str {
        match (self.state, self.peer_fin, self.fin_at.is_some()) {
            (State::Connecting, ..) => "connecting",
            (State::SynReceived, ..) => "syn-received",
            (State::Open, false, false) => "established",
            (State::Open, true, false) => "close-wait",
            (State::Open, false, true) => "fin-wait",
            (State::Open, true, true) => "closing",
            (State::Lingering, ..) => "time-wait",
        }
    }

    /// Free room for data of the container.
    fn window(&self) -> u32 {
        WINDOW.saturating_sub(self.held.len() as u32)
    }

    /// The largest window that can be offered.
    fn reach(&self) -> u32 {
        if self.scaling { WINDOW } else { 0xffff }
    }

    /// What is left of the window that was offered.
    fn offered(&self) -> u32 {
        if before(self.rcv_nxt, self.edge) { self.edge.wrapping_sub(self.rcv_nxt) } else { 0 }
    }

    /// Bytes sent and not acknowledged, a FIN counted as one.
    fn in_flight(&self) -> u32 {
        self.snd_nxt.wrapping_sub(self.snd_una)
    }

    /// The other end broke the connection. It takes nothing any more, but data that came before the reset is read first,
    /// as a kernel does.
    pub(crate) fn host_broke(&mut self, now: Instant) {
        self.host_reset = self.host_reset.or(Some(now + DRAIN));
        self.readable = true;
        self.held = VecDeque::new();
    }

    /// The retransmission timeout, doubled for each try without an answer (RFC 6298 5.5).
    fn timeout(&self) -> Duration {
        (self.rto * (1 << self.retries.min(8))).min(RTO_MAX)
    }

    fn fin_acked(&self) -> bool {
        self.fin_at.is_some_and(|at| before(at, self.snd_una))
    }
}
