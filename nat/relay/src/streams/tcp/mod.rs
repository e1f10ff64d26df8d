//! The TCP end that a container talks to.
//!
//! # Theory of operation
//!
//! The engine is the other end of the container's connection, and behind it stands a socket of the host that is
//! connected to the real other end. It keeps no copy of what it sends: data of the host's socket is *peeked*, sent, and
//! consumed only when the container acknowledged it, so the kernel's socket buffer is the retransmission buffer. Data of
//! the container goes straight from the frame into the socket, and the window that it is offered is the room that the
//! socket has, and [`HOLD`] bytes beside: what the socket turns out not to take is held, that much at most. Running into
//! a full socket is what makes the host tell when there is room again.
//!
//! | state | what happened | what may come |
//! |---|---|---|
//! | `Connecting` | SYN came, the host connects | connected: SYN-ACK, `SynReceived`; refused: RST; unreachable: ICMP; RST: gone |
//! | `SynReceived` | SYN-ACK sent | its ACK: `Open`; RST: gone; no answer: repeated, then gone |
//! | `SynSent` | the host accepted a connection for the container, SYN sent | SYN-ACK: `Open`; RST: gone; no answer: repeated, then gone |
//! | `Open` | both ways work; `peer_fin` and `end` say which way has ended | both ended and acknowledged: `Lingering` or gone |
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
//! Timers: SYN, SYN-ACK and data RFC 6298 with back-off, given up after [`MAX_SYNS`], [`MAX_SYN_ACKS`] and
//! [`MAX_RETRIES`]; window probes with the same back-off, never given up; lingering [`LINGER`]. A connection on which
//! nothing passes for [`KEEPALIVE`] is asked whether it still exists (RFC 9293 3.8.4), and reset if it is silent until
//! [`IDLE`] (RFC 5382 REQ-5); so a container whose last RST was lost does not keep a socket for ever.
//!
//! # Memory
//!
//! Of a connection on which nothing is under way only [`Tcp`] is kept. Everything that is needed while something is, its
//! timer included, stands in [`Active`], which is made when it is needed and thrown away when its timer finds nothing to
//! wait for.

mod input;
mod opening;
mod options;
mod output;
mod window;

use std::collections::VecDeque;
use std::time::Duration;

use tapswitch_wire::Instant;

use super::stamp::Stamp;
pub(crate) use input::{Incoming, Next};
pub(crate) use opening::{Mss, Start};
pub(crate) use options::Options;
pub(crate) use output::{Path, Sent};

/// An established connection on which nothing passes is asked after this whether it still exists (RFC 9293 3.8.4: not
/// before two hours), and again with pauses of [`KEEPALIVE_EVERY`]: so short that a small stack that drops its answer while
/// it resolves our address still knows that when it is asked again.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(7_200);
pub(crate) const KEEPALIVE_EVERY: Duration = Duration::from_secs(45);
/// An established connection on which nothing passes, and that does not answer, is forgotten after this (RFC 5382 REQ-5:
/// at least 7440 s).
pub(crate) const IDLE: Duration = Duration::from_secs(7_200 + 15 * 45);
/// How long an ended connection still answers a repeated FIN.
const LINGER: Duration = Duration::from_secs(10);
/// A connection that is not established is given up if the container says nothing for so long. The longest pause of a
/// system that still tries is 64 s.
const CONNECT: Duration = Duration::from_secs(75);
/// How long data that the host received before a reset may take to reach the container.
const DRAIN: Duration = Duration::from_secs(5);
/// First retransmission timeout (RFC 6298 2.1).
const RTO_INITIAL: Duration = Duration::from_secs(1);
const RTO_MIN: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(60);
/// Retransmissions without an answer before the connection is broken: of data, of a SYN-ACK, and of a SYN, whose client
/// outside believes to be connected and waits for 15 s.
const MAX_RETRIES: u8 = 10;
const MAX_SYN_ACKS: u8 = 6;
const MAX_SYNS: u8 = 3;
/// One connection sends at most one challenge acknowledgement in each of these (RFC 5961 7).
const CHALLENGE_EVERY: u64 = 500;
/// When nothing else is waited for, it is looked after this whether [`Active`] can go.
const QUIET: Duration = Duration::from_secs(1);
/// The most that is held for a host that does not read: one super-frame.
const HOLD: u32 = 1 << 16;
/// The largest window that is offered, whatever room the socket has.
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
    SynSent,
    Open,
    Lingering,
}

/// How far our own way, from the host to the container, has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// More may come.
    Open,
    /// The host's end of file was seen; our FIN has a number, and was perhaps sent.
    Seen,
    /// The container acknowledged our FIN.
    Acknowledged,
}

/// Whether sequence number `a` lies before `b`.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// One connection. Sequence numbers wrap.
#[derive(Clone)]
pub(crate) struct Tcp {
    /// What is under way.
    active: Option<Box<Active>>,

    // From the container to the host.
    rcv_nxt: u32,
    /// The right edge of the window that was offered. It never goes back.
    edge: u32,

    // From the host to the container.
    snd_una: u32,
    snd_wnd: u32,
    /// The largest number of bytes that may be under way, beside the window.
    cwnd: u32,
    /// Smoothed round trip and its variation, in microseconds; no round trip was measured yet if the first is 0.
    srtt: u32,
    rttvar: u32,

    /// Timestamps (RFC 7323 3): the container's latest, and how our clock is shifted.
    ts_recent: u32,
    ts_offset: u32,
    /// Payload of one segment, options already subtracted.
    mss: u16,
    /// In which part of the clock a challenge was sent last; see [`CHALLENGE_EVERY`].
    challenged: u16,

    pub(crate) state: State,
    end: End,
    peer_scale: u8,
    /// Whether both ends scale their windows (RFC 7323 2.2).
    scaling: bool,
    /// Whether both ends send timestamps.
    timestamps: bool,
    /// The container's FIN was received in order.
    peer_fin: bool,
    /// The FIN was passed on.
    finished: bool,
    /// The socket may have something to read.
    pub(crate) readable: bool,
    /// A read that gives less than was asked for is not the end of what there is.
    pub(crate) more: bool,
    /// The socket may have room.
    pub(crate) writable: bool,
    /// An acknowledgement is owed.
    pub(crate) ack_due: bool,
}

/// What is needed while something is under way.
#[derive(Clone)]
struct Active {
    /// The container's IP and transport header of the SYN, for an ICMP error about it, while the host connects.
    syn: Box<[u8]>,
    /// Accepted and acknowledged, but the socket had no room yet.
    held: VecDeque<u8>,
    /// What the socket is believed to take beyond that, and how much more may come until it is asked again.
    room: u32,
    unasked: u32,
    snd_nxt: u32,
    /// One behind the highest sequence number ever sent.
    snd_max: u32,
    /// Where our FIN stands, once the host's end of file was seen.
    fin_at: u32,
    /// Fast retransmission is not begun again before this is acknowledged.
    recover: u32,
    dup_acks: u8,
    retries: u8,
    /// A segment that is being timed: the number behind it, and when it left.
    timed: Option<(u32, Instant)>,
    /// When the retransmission or probe timer ends.
    timer: Option<Instant>,
    /// Set when the host's side is broken: what it received before is still sent, until then at the latest.
    host_reset: Option<Instant>,
    /// What the timer heap is set to; entries that say otherwise are old.
    armed: Option<Instant>,
}

impl Active {
    /// Nothing is under way: everything before `una` is acknowledged.
    fn new(una: u32) -> Active {
        Active {
            syn: Box::default(),
            held: VecDeque::new(),
            room: 0,
            unasked: HOLD / 2,
            snd_nxt: una,
            snd_max: una,
            fin_at: una,
            recover: una,
            dup_acks: 0,
            retries: 0,
            timed: None,
            timer: None,
            host_reset: None,
            armed: None,
        }
    }
}

impl Tcp {
    fn active(&mut self) -> &mut Active {
        let una = self.snd_una;
        self.active.get_or_insert_with(|| Box::new(Active::new(una)))
    }

    /// The next number to be sent.
    fn snd_nxt(&self) -> u32 {
        self.active.as_ref().map_or(self.snd_una, |active| active.snd_nxt)
    }

    /// One behind the highest number ever sent.
    fn snd_max(&self) -> u32 {
        self.active.as_ref().map_or(self.snd_una, |active| active.snd_max)
    }

    /// Where our FIN stands, as long as it is not acknowledged.
    fn fin_at(&self) -> Option<u32> {
        self.active.as_ref().filter(|_| self.end == End::Seen).map(|active| active.fin_at)
    }

    fn host_reset(&self) -> Option<Instant> {
        self.active.as_ref()?.host_reset
    }

    fn held(&self) -> u32 {
        self.active.as_ref().map_or(0, |active| active.held.len() as u32)
    }

    fn mss(&self) -> u32 {
        u32::from(self.mss)
    }

    /// Bytes sent and not acknowledged, a FIN counted as one.
    fn in_flight(&self) -> u32 {
        self.snd_nxt().wrapping_sub(self.snd_una)
    }

    /// When it is forgotten if nothing passes.
    pub(crate) fn lifetime(&self) -> Duration {
        match self.state {
            State::Connecting | State::SynReceived | State::SynSent => CONNECT,
            State::Open => IDLE,
            State::Lingering => LINGER,
        }
    }

    /// Whether it is neither established nor over.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.state, State::Connecting | State::SynReceived | State::SynSent)
    }

    /// Whether nothing is waited for that [`Active`] knows of.
    fn is_quiet(&self) -> bool {
        let Some(active) = &self.active else { return true };
        self.state == State::Open
            && self.end != End::Seen
            && active.held.is_empty()
            && active.timer.is_none()
            && active.host_reset.is_none()
            && active.snd_max == self.snd_una
    }

    /// Throws away what is not needed while nothing is under way.
    pub(crate) fn rest(&mut self) {
        if self.is_quiet() {
            self.active = None;
        }
    }

    /// Looks what the timer must be set to, if it is set later than that or not at all. `last` is when something last
    /// passed.
    pub(crate) fn arm(&mut self, last: Stamp, now: Instant) -> Option<Instant> {
        let active = self.active.as_ref()?;
        let timer = [active.timer, active.host_reset].into_iter().flatten().min();
        let at = match self.state {
            // What is held waits for the host, which tells.
            State::Open => timer.unwrap_or(now + if active.held.is_empty() { QUIET } else { RTO_MAX }),
            _ => {
                let end = now + self.lifetime().saturating_sub(last.since(now));
                timer.map_or(end, |timer| timer.min(end))
            }
        };
        let active = self.active.as_mut()?;
        let earlier = active.armed.is_none_or(|armed| at < armed);
        earlier.then(|| *active.armed.insert(at))
    }

    pub(crate) fn is_armed_for(&self, at: Instant) -> bool {
        self.active.as_ref().is_some_and(|active| active.armed == Some(at))
    }

    pub(crate) fn disarm(&mut self) {
        if let Some(active) = &mut self.active {
            active.armed = None;
        }
    }

    /// The name of the state, as TCP's own (RFC 9293 3.3.2) where there is one.
    pub(crate) fn state_name(&self) -> &'static str {
        match (self.state, self.peer_fin, self.end != End::Open) {
            (State::Connecting, ..) => "connecting",
            (State::SynReceived, ..) => "syn-received",
            (State::SynSent, ..) => "syn-sent",
            (State::Open, false, false) => "established",
            (State::Open, true, false) => "close-wait",
            (State::Open, false, true) => "fin-wait",
            (State::Open, true, true) => "closing",
            (State::Lingering, ..) => "time-wait",
        }
    }

    /// The other end broke the connection. It takes nothing any more, but data that came before the reset is read first,
    /// as a kernel does.
    pub(crate) fn host_broke(&mut self, now: Instant) {
        self.readable = true;
        let active = self.active();
        active.host_reset = active.host_reset.or(Some(now + DRAIN));
        active.held = VecDeque::new();
    }

    /// The retransmission timeout (RFC 6298 2), doubled for each try without an answer (5.5).
    fn timeout(&self) -> Duration {
        let rto = match self.srtt {
            0 => RTO_INITIAL,
            srtt => Duration::from_micros(u64::from(srtt) + 4 * u64::from(self.rttvar)).clamp(RTO_MIN, RTO_MAX),
        };
        let retries = self.active.as_ref().map_or(0, |active| active.retries.min(8));
        (rto * (1 << retries)).min(RTO_MAX)
    }

    /// RFC 6298 2.
    fn measure(&mut self, rtt: Duration) {
        let rtt = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).clamp(1, RTO_MAX.as_micros() as u32);
        let difference = self.srtt.abs_diff(rtt);
        (self.srtt, self.rttvar) = match self.srtt {
            0 => (rtt, rtt / 2),
            srtt => ((srtt - srtt / 8 + rtt / 8).max(1), self.rttvar - self.rttvar / 4 + difference / 4),
        };
    }
}
