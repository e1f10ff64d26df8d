//! How a connection begins: from the container's side, and from the host's.

use tapswitch_wire::{DropReason, Emit, Instant};

use super::{Active, End, HOLD, Incoming, Next, Options, Path, State, Tcp, WINDOW_SCALE, flag};

/// The sequence number and the clock that a connection begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Our initial sequence number (RFC 6528).
    pub iss: u32,
    /// How our timestamps are shifted against the clock: for one tuple always alike, so that a later connection of it has
    /// later ones (RFC 7323 5.4).
    pub ts_offset: u32,
    pub mss: Mss,
}

/// What segments may carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mss {
    /// What fits the network.
    most: u16,
    /// What counts as the container's if it says none (RFC 9293 3.7.1).
    default: u16,
}

impl Mss {
    /// Of a network with this MTU.
    pub(crate) fn new(mtu: u16, is_ipv4: bool) -> Mss {
        match is_ipv4 {
            true => Mss { most: mtu.saturating_sub(40), default: 536 },
            false => Mss { most: mtu.saturating_sub(60), default: 1_220 },
        }
    }

    /// Payload of a segment for a container that offers this; more than fits the network is not believed.
    fn agreed(self, options: &Options) -> u16 {
        let mss = options.mss.unwrap_or(self.default).min(self.most).max(64);
        if options.timestamp.is_some() { mss - 12 } else { mss }
    }
}

impl Tcp {
    fn new(state: State, rcv_nxt: u32, start: &Start) -> Tcp {
        Tcp {
            active: Some(Box::new(Active::new(start.iss))),
            rcv_nxt,
            edge: rcv_nxt,
            snd_una: start.iss,
            snd_wnd: 0,
            cwnd: u32::MAX,
            srtt: 0,
            rttvar: 0,
            ts_recent: 0,
            ts_offset: start.ts_offset,
            mss: start.mss.most,
            challenged: 0,
            state,
            end: End::Open,
            peer_scale: 0,
            scaling: true,
            timestamps: true,
            peer_fin: false,
            finished: false,
            readable: false,
            more: false,
            writable: false,
            ack_due: false,
        }
    }

    /// A connection whose SYN just came, `syn` being its head; the host is yet to connect.
    pub(crate) fn passive(seg: &Incoming<'_>, start: &Start, syn: &[u8]) -> Tcp {
        let mut tcp = Tcp::new(State::Connecting, seg.seq.wrapping_add(1), start);
        tcp.agree(&seg.options, seg.window, start.mss);
        tcp.active().syn = syn.into();
        tcp
    }

    /// A connection that the host accepted for a container, which is yet to be asked.
    pub(crate) fn active_open(start: &Start) -> Tcp {
        let mut tcp = Tcp::new(State::SynSent, 0, start);
        tcp.writable = true;
        tcp
    }

    /// What both ends can do is done (RFC 7323 2.2, 3.2), by the container's SYN.
    fn agree(&mut self, options: &Options, window: u16, mss: Mss) {
        self.scaling = options.window_scale.is_some();
        self.peer_scale = options.window_scale.unwrap_or(0).min(14);
        self.timestamps = options.timestamp.is_some();
        self.ts_recent = options.timestamp.map_or(0, |(value, _)| value);
        self.mss = mss.agreed(options);
        // The window of a SYN is never scaled.
        self.snd_wnd = u32::from(window);
    }

    /// The head of the container's SYN, for an ICMP error about it.
    pub(crate) fn syn(&self) -> &[u8] {
        self.active.as_ref().map_or(&[], |active| &active.syn)
    }

    /// The host is connected: sends the SYN-ACK.
    pub(crate) fn send_syn_ack(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        self.state = State::SynReceived;
        self.writable = true;
        self.active().syn = Box::default();
        self.send_opening(flag::SYN | flag::ACK, path, out);
    }

    /// Asks the container, which is what a client outside waits for.
    pub(crate) fn send_syn(&mut self, path: &mut Path<'_>, out: &mut impl Emit) {
        self.send_opening(flag::SYN, path, out);
    }

    fn send_opening(&mut self, flags: u8, path: &mut Path<'_>, out: &mut impl Emit) {
        let [mss_high, mss_low] = Mss::new(path.mtu, path.key.src.is_ipv4()).most.to_be_bytes();
        let mut options = vec![2, 4, mss_high, mss_low];
        if self.scaling {
            options.extend_from_slice(&[1, 3, 3, WINDOW_SCALE]);
        }
        options.extend_from_slice(&self.timestamp(path.now));
        let seq = self.snd_una;
        let window = self.take_first_window();
        self.send(path, flags, seq, window, &options, 0, out);
        let timer = path.now + self.timeout();
        let active = self.active();
        // Only what is sent for the first time is timed (Karn's algorithm).
        let repeated = active.snd_max != seq;
        active.snd_nxt = seq.wrapping_add(1);
        active.snd_max = active.snd_nxt;
        active.recover = active.snd_max;
        active.timed = if repeated { None } else { Some((active.snd_nxt, path.now)) };
        active.timer = Some(timer);
    }

    /// While the host connects, a container can only repeat its SYN or give up.
    pub(super) fn input_connecting(&mut self, seg: &Incoming<'_>) -> Next {
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

    /// The container's answer to our SYN (RFC 9293 3.10.7.3).
    pub(super) fn input_syn_sent(&mut self, seg: &Incoming<'_>, mss: Mss, now: Instant) -> Next {
        let acknowledges = seg.flags & flag::ACK != 0;
        if acknowledges && seg.ack != self.snd_max() {
            // It believes in an earlier connection; the reset ends that, and our next SYN gets in.
            return match seg.flags & flag::RST {
                0 => Next::Refuse,
                _ => Next::Drop(DropReason::TcpOutOfWindow),
            };
        }
        if seg.flags & flag::RST != 0 {
            return if acknowledges { Next::Gone } else { Next::Drop(DropReason::TcpOutOfWindow) };
        }
        if !acknowledges || seg.flags & flag::SYN == 0 {
            // Both ends at once (3.5): the host's side is connected already, so there is nothing that could meet.
            return Next::Drop(DropReason::TcpOutOfWindow);
        }
        self.agree(&seg.options, seg.window, mss);
        self.state = State::Open;
        self.rcv_nxt = seg.seq.wrapping_add(1);
        self.edge = self.rcv_nxt.wrapping_add(HOLD.min(0xffff));
        self.acknowledge_opening(seg.ack, now);
        self.ack_due = true;
        Next::Go
    }

    /// Our SYN was acknowledged. What the client sent meanwhile may be read already.
    fn acknowledge_opening(&mut self, ack: u32, now: Instant) {
        if let Some((_, sent)) = self.active().timed.take() {
            self.measure(now - sent);
        }
        self.snd_una = ack;
        let active = self.active();
        active.snd_nxt = ack;
        active.retries = 0;
        active.timer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tr_7_a_container_that_offers_no_mss_gets_what_every_path_carries() {
        let none = Options::default();
        assert_eq!(Mss::new(1_500, true).agreed(&none), 536);
        assert_eq!(Mss::new(1_500, false).agreed(&none), 1_220);
        let stamped = Options { timestamp: Some((1, 0)), ..none };
        assert_eq!(Mss::new(1_500, false).agreed(&stamped), 1_208);
        let large = Options { mss: Some(9_000), ..none };
        assert_eq!(Mss::new(1_500, true).agreed(&large), 1_460);
        assert_eq!(Mss::new(1_500, false).agreed(&large), 1_440);
        assert_eq!(Mss::new(1_500, true).agreed(&Options { mss: Some(0), ..none }), 64);
    }
}
