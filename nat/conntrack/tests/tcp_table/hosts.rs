//! Two hosts that speak a plain TCP (go-back-N, no window beyond a constant) over a path that loses, doubles and
//! swaps, before the tracker and behind it.

use std::collections::VecDeque;

use proptest::prelude::*;
use tapswitch_conntrack::Direction;
use tapswitch_conntrack::tcp::{Segment, Tracker};

use super::script::*;

const WINDOW: u32 = 20_000;

/// A host. Numbers are offsets: 0 is the SYN, `len + 1` the FIN.
struct Host {
    first: u32,
    len: u32,
    /// The first offset that is not acknowledged, the next to send, and the highest ever sent.
    una: u32,
    next: u32,
    max: u32,
    peer_first: Option<u32>,
    received: u32,
    peer_has_closed: bool,
    may_close: bool,
    /// Set when it aborted or was reset: there is no connection.
    is_gone: bool,
}

impl Host {
    fn new(first: u32, len: u32) -> Host {
        let (peer_first, received) = (None, 0);
        let (peer_has_closed, may_close, is_gone) = (false, false, false);
        Host { first, len, una: 0, next: 0, max: 0, peer_first, received, peer_has_closed, may_close, is_gone }
    }

    fn make(&self, offset: u32, mut flags: u8, len: u32) -> Segment {
        let ack = self.peer_first.map_or(0, |first| first.wrapping_add(self.received));
        if self.peer_first.is_some() {
            flags |= ACK;
        }
        Segment { window: WINDOW as u16, ..segment(flags, self.first.wrapping_add(offset), ack, len) }
    }

    /// What it may send now, in pieces of this size.
    fn send(&mut self, piece: u32) -> Vec<Segment> {
        let mut out = Vec::new();
        if self.is_gone {
            return out;
        }
        if self.next == 0 {
            out.push(self.make(0, SYN, 0));
            self.next = 1;
        }
        if self.una > 0 {
            while self.next <= self.len && self.next - self.una < WINDOW {
                let room = WINDOW - (self.next - self.una);
                let len = piece.min(self.len + 1 - self.next).min(room);
                out.push(self.make(self.next, 0, len));
                self.next += len;
            }
            if self.next == self.len + 1 && self.may_close {
                out.push(self.make(self.next, FIN, 0));
                self.next += 1;
            }
        }
        self.max = self.max.max(self.next);
        out
    }

    fn timeout(&mut self) {
        self.next = self.una;
    }

    fn abort(&mut self) -> Segment {
        self.is_gone = true;
        segment(RST, self.first.wrapping_add(self.max), 0, 0)
    }

    fn handle(&mut self, segment: &Segment) -> Option<Segment> {
        if self.is_gone {
            // RFC 9293 3.10.7.1.
            let is_answered = segment.flags & (RST | ACK) == ACK;
            return is_answered.then(|| super::script::segment(RST, segment.ack, 0, 0));
        }
        let Some(peer_first) = self.peer_first else {
            if segment.flags & SYN == 0 {
                return None;
            }
            (self.peer_first, self.received) = (Some(segment.seq), 1);
            self.acknowledge(segment);
            // A host that had sent nothing repeats no SYN of its own: it answers now.
            let is_open = self.una > 0;
            (self.next, self.max) = (self.next.max(1), self.max.max(1));
            return Some(if is_open { self.make(self.max, 0, 0) } else { self.make(0, SYN, 0) });
        };
        let offset = segment.seq.wrapping_sub(peer_first);
        if segment.flags & RST != 0 {
            // RFC 5961 3.2.
            let is_exact = offset == self.received;
            let is_inside = offset.wrapping_sub(self.received) < WINDOW;
            self.is_gone = is_exact;
            return (is_inside && !is_exact).then(|| self.make(self.max, 0, 0));
        }
        let is_fin = segment.flags & FIN != 0;
        let end = offset.wrapping_add(segment.len);
        // What is wholly old, as the hosts see it that are kindest to it, acknowledges nothing.
        if end.wrapping_add(u32::from(segment.flags & (SYN | FIN) != 0)) >= self.received {
            self.acknowledge(segment);
        }
        if segment.flags & SYN != 0 {
            return Some(self.make(self.max.max(1), 0, 0));
        }
        if segment.len == 0 && !is_fin {
            return None;
        }
        if offset <= self.received && end >= self.received {
            self.received = self.received.max(end);
            if is_fin && !self.peer_has_closed {
                self.peer_has_closed = true;
                self.received += 1;
            }
        }
        Some(self.make(self.max, 0, 0))
    }

    fn acknowledge(&mut self, segment: &Segment) {
        let offset = segment.ack.wrapping_sub(self.first);
        if segment.flags & ACK != 0 && offset <= self.max && offset > self.una {
            self.una = offset;
            self.next = self.next.max(offset);
        }
    }

    fn is_open_and_idle(&self) -> bool {
        self.una == self.len + 1
    }

    fn has_finished(&self) -> bool {
        self.una == self.len + 2 && self.peer_has_closed
    }
}

/// One choice of the path or of time.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Deliver,
    Lose,
    Double,
    Swap,
    Timeout,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Deliver),
        1 => Just(Fate::Lose),
        1 => Just(Fate::Double),
        2 => Just(Fate::Swap),
        1 => Just(Fate::Timeout),
    ]
}

struct Path {
    hosts: [Host; 2],
    /// By direction: on the way to the tracker, and behind it.
    near: [VecDeque<Segment>; 2],
    far: [VecDeque<Segment>; 2],
    tracker: Option<Tracker>,
    piece: u32,
    seen: Vec<String>,
}

impl Path {
    fn run(&mut self, which: u8, fate: Fate) {
        let direction = if which & 1 == 0 { O } else { R };
        let side = direction as usize;
        if matches!(fate, Fate::Timeout) {
            self.hosts[side].timeout();
        }
        let sent = self.hosts[side].send(self.piece);
        self.near[side].extend(sent);
        let is_near = which & 2 == 0;
        let queue = if is_near { &mut self.near[side] } else { &mut self.far[side] };
        match fate {
            Fate::Swap if queue.len() > 1 => return queue.swap(0, 1),
            Fate::Lose => {
                queue.pop_front();
                return;
            }
            Fate::Double => {
                if let Some(first) = queue.front().copied() {
                    queue.push_back(first);
                }
            }
            Fate::Deliver | Fate::Swap | Fate::Timeout => {}
        }
        let Some(segment) = queue.pop_front() else { return };
        if is_near {
            self.track(direction, segment);
        } else {
            let answer = self.hosts[direction.other() as usize].handle(&segment);
            self.near[direction.other() as usize].extend(answer);
        }
    }

    fn track(&mut self, direction: Direction, segment: Segment) {
        take(&mut self.tracker, direction, &segment, "model");
        self.seen.push(format!("{direction:?} {segment:?} -> {:?}", self.tracker.map(|tracker| tracker.state())));
        self.far[direction as usize].push_back(segment);
    }

    /// Delivers everything, with time passing when nothing is under way, until this holds.
    fn drain(&mut self, until: impl Fn(&Path) -> bool) -> bool {
        for _ in 0..400 {
            for side in 0..2 {
                let sent = self.hosts[side].send(self.piece);
                self.near[side].extend(sent);
            }
            for _ in 0..200 {
                for which in 0..4 {
                    self.run(which, Fate::Deliver);
                }
            }
            let is_quiet = self.near.iter().chain(&self.far).all(VecDeque::is_empty);
            if is_quiet && until(self) {
                return true;
            }
            if is_quiet {
                self.hosts.iter_mut().for_each(Host::timeout);
            }
        }
        false
    }

    fn state(&self) -> Option<tapswitch_conntrack::tcp::State> {
        self.tracker.map(|tracker| tracker.state())
    }

    fn told(&self) -> String {
        self.seen[self.seen.len().saturating_sub(40)..].join("\n")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 20_000, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn nt_2_the_tracker_ends_where_the_hosts_end(
        firsts in any::<[u32; 2]>(),
        lens in [0..40_000_u32, 0..40_000_u32],
        piece in prop::sample::select(vec![100_u32, 1_460, 9_000, 65_000]),
        is_simultaneous in prop::bool::ANY,
        fates in prop::collection::vec((0..4_u8, fate()), 0..600),
        later in prop::collection::vec((0..4_u8, fate()), 0..200),
        aborts in prop::option::of(0..2_usize),
    ) {
        let hosts = [Host::new(firsts[0], lens[0]), Host::new(firsts[1], lens[1])];
        let (near, far) = (Default::default(), Default::default());
        let mut path = Path { hosts, near, far, tracker: None, piece, seen: Vec::new() };
        // A host that waits for the other has sent its SYN only when it answers.
        let syn = path.hosts[0].send(piece)[0];
        if is_simultaneous {
            let crossing = path.hosts[1].send(piece)[0];
            path.track(O, syn);
            path.near[1].push_back(crossing);
        } else {
            path.hosts[1].next = 1;
            path.hosts[1].max = 1;
            path.track(O, syn);
        }
        for (which, fate) in fates {
            // Nothing resends the SYN of a host that waits.
            let is_waiting = which & 1 == 1 && path.hosts[1].peer_first.is_none();
            if !(matches!(fate, Fate::Timeout) && is_waiting) {
                path.run(which, fate);
            }
        }
        let is_open = path.drain(|path| path.hosts.iter().all(Host::is_open_and_idle));
        prop_assert!(is_open, "the hosts cannot open:\n{}", path.told());
        prop_assert_eq!(path.state(), Some(ESTABLISHED), "{}", path.told());

        if let Some(who) = aborts {
            let rst = path.hosts[who].abort();
            path.near[who].push_back(rst);
            for (which, fate) in later {
                path.run(which, fate);
            }
            // A host that has lost the RST notices when it speaks.
            let other = 1 - who;
            path.drain(|_| true);
            if !path.hosts[other].is_gone {
                let probe = path.hosts[other].make(path.hosts[other].max, 0, 0);
                path.near[other].push_back(probe);
            }
            prop_assert!(path.drain(|path| path.hosts.iter().all(|host| host.is_gone)), "{}", path.told());
            prop_assert_eq!(path.state(), Some(RESET), "{}", path.told());
            return Ok(());
        }
        path.hosts.iter_mut().for_each(|host| host.may_close = true);
        for (which, fate) in later {
            path.run(which, fate);
        }
        prop_assert!(path.drain(|path| path.hosts.iter().all(Host::has_finished)), "cannot close:\n{}", path.told());
        prop_assert_eq!(path.state(), Some(TIME_WAIT), "{}", path.told());
    }
}
