//! Which outside ports are in use, and how a free one is chosen.

use std::collections::{HashMap, VecDeque};
use std::hash::Hasher;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use siphasher::sip::SipHasher13;
use tapswitch_wire::Instant;

use crate::Protocol;

/// A port that was freed is not given to another owner for so long (RFC 6888 REQ-8).
pub(crate) const REST: Duration = Duration::from_secs(120);
/// Ports below are kept for forwards as long as enough others are free: what services are published on.
const UPPER: u16 = 32_768;
/// Random ports that are tried before the pool is walked from one of them on.
const TRIES: usize = 16;

/// No owner has this number.
const NOBODY: u32 = u32::MAX;

/// A freed port: who had it, and until when it rests.
#[derive(Clone, Copy)]
struct Resting {
    owner: u32,
    until: Instant,
}

/// The ports of one protocol.
#[derive(Clone)]
struct Ports {
    used: Box<[u64; 1024]>,
    resting: HashMap<u16, Resting>,
    /// In the order in which they wake. One that was taken again meanwhile is not in the map, or with another time.
    waking: VecDeque<(u16, Instant)>,
}

fn bit(port: u16) -> (usize, u64) {
    (usize::from(port >> 6), 1 << (port & 63))
}

impl Ports {
    fn is_used(&self, port: u16) -> bool {
        let (at, bit) = bit(port);
        self.used[at] & bit != 0
    }

    /// Whether `owner` may take the port.
    fn is_free(&self, port: u16, owner: u32) -> bool {
        !self.is_used(port) && self.resting.get(&port).is_none_or(|resting| resting.owner == owner)
    }
}

impl Ports {
    /// The first port of a range that `owner` may take. Those in use are passed over 64 at a time: when nearly all are,
    /// this is done for every new mapping, and for every packet that asks in vain.
    fn find(&self, range: Range<u32>, parity: Option<u16>, owner: u32) -> Option<u16> {
        let wanted = match parity {
            None => u64::MAX,
            Some(0) => 0x5555_5555_5555_5555,
            Some(_) => 0xaaaa_aaaa_aaaa_aaaa,
        };
        let mut at = range.start;
        while at < range.end {
            let word = at / 64;
            let mut unused = !self.used[word as usize] & wanted & u64::MAX << (at % 64);
            while unused != 0 {
                let port = word * 64 + unused.trailing_zeros();
                if port >= range.end {
                    return None;
                }
                if self.is_free(port as u16, owner) {
                    return Some(port as u16);
                }
                unused &= unused - 1;
            }
            at = (word + 1) * 64;
        }
        None
    }
}

/// The ports of all protocols, at one outside address.
#[derive(Clone)]
pub(crate) struct Pool {
    ports: [Ports; 3],
    range: RangeInclusive<u16>,
    secret: u64,
    drawn: u64,
}

impl Pool {
    pub(crate) fn new(range: RangeInclusive<u16>, secret: u64) -> Pool {
        let ports = || Ports { used: Box::new([0; 1024]), resting: HashMap::new(), waking: VecDeque::new() };
        Pool { ports: [ports(), ports(), ports()], range, secret, drawn: 0 }
    }

    /// Whether a port is neither in use nor resting.
    pub(crate) fn is_rested(&self, protocol: Protocol, port: u16, now: Instant) -> bool {
        let ports = &self.ports[protocol as usize];
        !ports.is_used(port) && ports.resting.get(&port).is_none_or(|resting| resting.until <= now)
    }

    /// An owner is no more, and its number may be another's soon: what rests of it rests for everybody.
    pub(crate) fn disown(&mut self, owner: u32) {
        for resting in self.ports.iter_mut().flat_map(|ports| ports.resting.values_mut()) {
            if resting.owner == owner {
                resting.owner = NOBODY;
            }
        }
    }

    /// Takes a port that must be this one.
    pub(crate) fn take_this(&mut self, protocol: Protocol, port: u16) {
        let ports = &mut self.ports[protocol as usize];
        ports.resting.remove(&port);
        let (at, bit) = bit(port);
        ports.used[at] |= bit;
    }

    /// Takes a port for an inside port: the same one if `preserve` and it is free, else a random one; of the same parity
    /// for UDP, as pairs of RTP and RTCP want it (RFC 4787 REQ-4). `None` if none is free.
    pub(crate) fn take(
        &mut self,
        protocol: Protocol,
        inside: u16,
        preserve: bool,
        owner: u32,
        now: Instant,
    ) -> Option<u16> {
        self.end_rests(protocol, now);
        let keep_parity = protocol == Protocol::Udp;
        let chosen = if preserve && self.range.contains(&inside) && self.ports[protocol as usize].is_free(inside, owner)
        {
            Some(inside)
        } else {
            let (low, high) = (*self.range.start(), *self.range.end());
            let upper = low.max(UPPER)..=high;
            let lower = low..=high.min(UPPER - 1);
            let mut pick = |range: &RangeInclusive<u16>, parity| self.pick(protocol, range.clone(), parity, owner);
            let parity = keep_parity.then_some(inside & 1);
            pick(&upper, parity)
                .or_else(|| pick(&lower, parity))
                // Rather another parity than none.
                .or_else(|| parity.and_then(|_| pick(&upper, None).or_else(|| pick(&lower, None))))
        }?;
        self.take_this(protocol, chosen);
        Some(chosen)
    }

    fn pick(&mut self, protocol: Protocol, range: RangeInclusive<u16>, parity: Option<u16>, owner: u32) -> Option<u16> {
        if range.is_empty() {
            return None;
        }
        let (low, count) = (u32::from(*range.start()), range.len() as u32);
        let fits = |port: u16| parity.is_none_or(|parity| port & 1 == parity);
        for _ in 0..TRIES {
            let port = (low + self.next_random() % count) as u16;
            if fits(port) && self.ports[protocol as usize].is_free(port, owner) {
                return Some(port);
            }
        }
        let start = low + self.next_random() % count;
        let ports = &self.ports[protocol as usize];
        ports.find(start..low + count, parity, owner).or_else(|| ports.find(low..start, parity, owner))
    }

    /// Gives a port back. It rests.
    pub(crate) fn free(&mut self, protocol: Protocol, port: u16, owner: u32, now: Instant) {
        let ports = &mut self.ports[protocol as usize];
        let (at, bit) = bit(port);
        ports.used[at] &= !bit;
        let until = now + REST;
        ports.resting.insert(port, Resting { owner, until });
        ports.waking.push_back((port, until));
    }

    fn end_rests(&mut self, protocol: Protocol, now: Instant) {
        let ports = &mut self.ports[protocol as usize];
        while let Some((port, until)) = ports.waking.front().copied().filter(|(_, until)| *until <= now) {
            ports.waking.pop_front();
            if ports.resting.get(&port).is_some_and(|resting| resting.until == until) {
                ports.resting.remove(&port);
            }
        }
    }

    /// The next number of a keyed sequence: who knows some of them knows nothing of the next.
    fn next_random(&mut self) -> u32 {
        self.drawn += 1;
        let mut hasher = SipHasher13::new_with_keys(self.secret, !self.secret);
        hasher.write_u64(self.drawn);
        hasher.finish() as u32
    }
}
