//! IPv4 fragments: translated one by one, without ever putting the packet together.
//!
//! # Theory of operation
//!
//! Only the first fragment of a packet holds ports, and it need not come first. [`Fragments`] remembers, for each
//! packet, what the translator decided at its first fragment, and hands that verdict to whatever comes later. What comes
//! before the first is kept as a copy and given back once the first is decided (RFC 4787 REQ-14). No payload of a packet
//! in order is ever kept, and a packet that is not a fragment never comes here.
//!
//! | fate of a packet | its first fragment | a later one |
//! |---|---|---|
//! | unknown, or waiting | [`Track::First`]: decide, then call [`Fragments::decided`] | [`Track::Held`] |
//! | decided | a duplicate: dropped | [`Track::Later`] |
//! | dead: refused, or its fragments contradict each other | dropped | dropped |
//!
//! **Never mixed.** Which bytes of a packet are known is kept as a list of disjoint ranges. A fragment that lies wholly
//! within one of them is a duplicate and dropped; so each byte passes once at most, and it is the first one. A fragment
//! that overlaps a range in part kills the packet, as does one that contradicts the end of the packet or reaches past
//! 65,535 bytes: what has passed till then has a hole, and nothing will ever fill it (RFC 5722 does this for IPv6). A
//! first fragment without the whole transport header, and a fragment of TCP at offset 8, are how filters were once
//! fooled, and dropped (RFC 1858, RFC 3128). A fragment that is wrong by itself kills the packet if that is known, and
//! costs no memory if not.
//!
//! **Lifetime.** A packet is forgotten at once when all of it has passed, so that the next one may have the same
//! identification: a fast sender comes round within seconds. A duplicate that comes after that opens a packet which
//! never becomes whole and expires. A packet that is not whole [`Limits::hold`] after the first of its fragments to
//! come is forgotten, and if its first fragment was seen, its sender may be told (RFC 792, RFC 1122 3.3.2). Dead ones
//! stay until then too.
//!
//! **Bounds.** The number of packets and the bytes of copies are bounded, for each source and in all. A source that
//! would exceed its share displaces the oldest that is its own; where all is full, the oldest goes of the source that has
//! most, and never one of a source that has less than the newcomer. So a flood of lone fragments pushes out itself, and
//! the datagrams of others pass in order and out of order; those of its own source pass as long as their fragments follow
//! each other closely. A packet that had to go for its number is forgotten, one that had to go for its bytes is dead.
//!
//! What is forgotten cannot be told from what is new. A translator that gives each packet an identification of its own
//! ([`Ids`], as part of its verdict) makes sure that at the receiver, too, nothing of a forgotten packet ever meets
//! fragments of another one with its identification (RFC 4963), and that two hosts behind one address never use the same
//! one at a time.
//!
//! Keys are hashed with a secret, so nobody can aim at one bucket of the table.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use tapswitch_wire::{DropCounters, DropReason, Fragment, FrameOf, Instant, Mac, Meta};

mod ids;
mod one;
mod pieces;

pub use ids::Ids;
use one::{First, MAX_PACKET, check, header_len};
use pieces::Pieces;

/// What a kept copy costs beside its bytes.
const HELD_OVERHEAD: usize = 64;

/// How much is remembered, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Packets under way, in all; 1024.
    pub datagrams: usize,
    /// Packets under way of one source; 64.
    pub per_source: usize,
    /// Bytes of copies that wait for a first fragment, in all; 1 MiB.
    pub held_bytes: usize,
    /// Bytes of copies that wait, of one source; 128 KiB, which is the largest datagram out of order.
    pub held_per_source: usize,
    /// Disjoint parts of one packet; 64. What comes in order, or in reversed order, is one part.
    pub ranges: usize,
    /// Time within which a packet must become whole; 30 s. Kept between 15 s and 60 s (RFC 791 3.2, RFC 1122 3.3.2).
    pub hold: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            datagrams: 1024,
            per_source: 64,
            held_bytes: 1 << 20,
            held_per_source: 128 << 10,
            ranges: 64,
            hold: Duration::from_secs(30),
        }
    }
}

/// Which packet a fragment belongs to (RFC 791 3.2), as it was received.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key {
    /// Address space of the addresses.
    pub realm: u8,
    /// Who pays for it: a port, or the uplink. Nobody spoils the packets of another source by forging its address.
    pub source: u32,
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// IP protocol.
    pub protocol: u8,
    /// Identification.
    pub id: u16,
}

impl Key {
    /// The packet that this fragment belongs to; `None` if the frame is no IPv4 fragment.
    pub fn of<B: Deref<Target = [u8]>>(realm: u8, source: u32, frame: &FrameOf<B>) -> Option<Key> {
        let (Some(_), Some(IpAddr::V4(src)), Some(IpAddr::V4(dst))) =
            (frame.parsed().fragment, frame.src_ip(), frame.dst_ip())
        else {
            return None;
        };
        let id = u16::from_be_bytes([*frame.packet().get(4)?, *frame.packet().get(5)?]);
        Some(Key { realm, source, src, dst, protocol: frame.parsed().protocol, id })
    }
}

/// What is to be done with a fragment. `T` is what the translator decided for the whole packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Track<T> {
    /// It holds the transport header: decide, and say what with [`Fragments::decided`].
    First(Key),
    /// It belongs to a packet that was decided: rewrite it like that and pass it on.
    Later(T),
    /// A copy waits for the first fragment. [`Fragments::decided`] gives it back or counts it as dropped.
    Held,
    /// It goes no further.
    Drop(DropReason),
}

/// A packet that did not become whole in time although its first fragment came: its sender may be sent an ICMP error of
/// type 11, code 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expired {
    /// Which one.
    pub key: Key,
    /// Source MAC address of its first fragment.
    pub src_mac: Mac,
    /// What the error quotes: the IPv4 header of the first fragment as it was received, and eight bytes more.
    pub quote: Vec<u8>,
}

#[derive(Clone)]
enum Fate<T> {
    Waiting,
    Decided(T),
    Dead(DropReason),
}

#[derive(Clone)]
struct Datagram<T> {
    /// Tells it from an earlier one with the same key.
    serial: u64,
    deadline: Instant,
    pieces: Pieces,
    /// Bytes of the longest header among its fragments.
    header: usize,
    /// Known once the first fragment came.
    first: Option<First>,
    fate: Fate<T>,
    held: Vec<(Meta, Vec<u8>)>,
    /// What `held` costs.
    cost: usize,
}

/// What one source uses.
#[derive(Clone, Copy, Default)]
struct Share {
    datagrams: usize,
    held: usize,
}

/// Hashes with a secret.
#[derive(Clone, Copy)]
struct Keyed(SipHasher13);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

/// Packets of which fragments are under way.
#[derive(Clone)]
pub struct Fragments<T> {
    limits: Limits,
    datagrams: HashMap<Key, Datagram<T>, Keyed>,
    shares: HashMap<u32, Share, Keyed>,
    /// Serial numbers and keys by age, which is the order of deadlines. Those of forgotten packets are dropped from the
    /// front at once and from the rest now and then.
    order: VecDeque<(u64, Key)>,
    serial: u64,
    held_bytes: usize,
    drops: DropCounters,
}

impl<T: Clone> Fragments<T> {
    /// An empty table. `secret` must not be known outside.
    pub fn new(limits: Limits, secret: [u8; 16]) -> Self {
        let keyed = Keyed(SipHasher13::new_with_key(&secret));
        let hold = limits.hold.clamp(Duration::from_secs(15), Duration::from_secs(60));
        Self {
            limits: Limits { hold, ..limits },
            datagrams: HashMap::with_hasher(keyed),
            shares: HashMap::with_hasher(keyed),
            order: VecDeque::new(),
            serial: 0,
            held_bytes: 0,
            drops: DropCounters::default(),
        }
    }

    /// Takes one IPv4 fragment as it was received, before anything was rewritten. `source` is who pays.
    ///
    /// Call [`Fragments::poll`] before, if [`Fragments::deadline`] has passed. A frame that is no IPv4 fragment does not
    /// belong here and is dropped as [`DropReason::FragmentNotSupported`].
    pub fn track<B: Deref<Target = [u8]>>(
        &mut self,
        realm: u8,
        source: u32,
        frame: &FrameOf<B>,
        now: Instant,
    ) -> Track<T> {
        let (Some(key), Some(fragment)) = (Key::of(realm, source, frame), frame.parsed().fragment) else {
            return Track::Drop(DropReason::FragmentNotSupported);
        };
        match self.place(key, fragment, frame, now) {
            Ok(track) => track,
            Err(reason) => Track::Drop(reason),
        }
    }

    fn place<B: Deref<Target = [u8]>>(
        &mut self,
        key: Key,
        fragment: Fragment,
        frame: &FrameOf<B>,
        now: Instant,
    ) -> Result<Track<T>, DropReason> {
        if let Err(reason) = check(fragment, frame) {
            self.kill(key, reason);
            return Err(reason);
        }
        if !self.datagrams.contains_key(&key) {
            self.make_room(key.source)?;
            self.open(key, now);
        }
        let Some(datagram) = self.datagrams.get_mut(&key) else { return Err(DropReason::FragmentLimit) };
        if let Fate::Dead(reason) = datagram.fate {
            return Err(reason);
        }
        datagram.header = datagram.header.max(header_len(frame.parsed()));
        let end = usize::from(fragment.offset) + frame.segment().len();
        let added = datagram.pieces.add(usize::from(fragment.offset), end, !fragment.more, self.limits.ranges);
        let added = added.and_then(|()| match datagram.header + datagram.pieces.end() > MAX_PACKET {
            true => Err(DropReason::FragmentMalformed),
            false => Ok(()),
        });
        match added {
            Ok(()) => {}
            Err(DropReason::FragmentDuplicate) => return Err(DropReason::FragmentDuplicate),
            Err(reason) => {
                self.kill(key, reason);
                return Err(reason);
            }
        }
        if fragment.offset == 0 {
            datagram.first = Some(First::of(frame));
            return Ok(Track::First(key));
        }
        match &datagram.fate {
            Fate::Dead(reason) => Err(*reason),
            Fate::Waiting => self.hold(key, frame).map(|()| Track::Held),
            Fate::Decided(verdict) => {
                let verdict = verdict.clone();
                if datagram.pieces.are_whole() {
                    self.forget(key);
                }
                Ok(Track::Later(verdict))
            }
        }
    }

    /// Says what becomes of the packet whose first fragment came: a verdict for all of its fragments, or why the first
    /// was dropped, for which the others are dropped too. Gives back what waited for it, in the order it came.
    pub fn decided(
        &mut self,
        key: Key,
        verdict: Result<T, DropReason>,
    ) -> impl Iterator<Item = (Meta, Vec<u8>)> + use<T> {
        let mut waited = Vec::new();
        if let Some(datagram) = self.datagrams.get_mut(&key) {
            let is_whole = datagram.pieces.are_whole();
            match verdict {
                Err(reason) => self.kill(key, reason),
                Ok(verdict) if !matches!(datagram.fate, Fate::Dead(_)) => {
                    datagram.fate = Fate::Decided(verdict);
                    waited = self.take_held(key);
                }
                Ok(_) => {}
            }
            if is_whole {
                self.forget(key);
            }
        }
        waited.into_iter()
    }

    /// Forgets one packet whose time is over. Call it until it gives nothing.
    ///
    /// Those of which nobody need be told are forgotten on the way: the first fragment did not come, or was refused, or
    /// the fragments contradicted each other.
    pub fn poll(&mut self, now: Instant) -> Option<Expired> {
        while let Some((_, key)) = self.order.front() {
            let key = *key;
            if self.datagrams.get(&key).is_some_and(|datagram| datagram.deadline > now) {
                return None;
            }
            self.kill_held(key, DropReason::FragmentExpired);
            let datagram = self.forget(key)?;
            if let Some(first) = datagram.first
                && !datagram.pieces.are_whole()
            {
                return Some(Expired { key, src_mac: first.src_mac, quote: first.quote().to_vec() });
            }
        }
        None
    }

    /// When [`Fragments::poll`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let (_, key) = self.order.front()?;
        self.datagrams.get(key).map(|datagram| datagram.deadline)
    }

    /// Why copies that waited were dropped. A fragment that [`Fragments::track`] said to drop is not counted here.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Number of packets under way.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// What the copies that wait cost, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn open(&mut self, key: Key, now: Instant) {
        self.serial += 1;
        let datagram = Datagram {
            serial: self.serial,
            deadline: now + self.limits.hold,
            pieces: Pieces::default(),
            header: 20,
            first: None,
            fate: Fate::Waiting,
            held: Vec::new(),
            cost: 0,
        };
        self.datagrams.insert(key, datagram);
        self.order.push_back((self.serial, key));
        self.shares.entry(key.source).or_default().datagrams += 1;
    }

    /// Makes room for one more packet of `source`.
    fn make_room(&mut self, source: u32) -> Result<(), DropReason> {
        let has_share = self.share(source).datagrams < self.limits.per_source;
        if has_share && self.datagrams.len() < self.limits.datagrams {
            return Ok(());
        }
        let victim = self.victim(source, !has_share, |share| share.datagrams, |_| true);
        let victim = victim.ok_or(DropReason::FragmentLimit)?;
        self.kill_held(victim, DropReason::FragmentLimit);
        self.forget(victim);
        Ok(())
    }

    /// Keeps a copy until the first fragment comes.
    fn hold<B: Deref<Target = [u8]>>(&mut self, key: Key, frame: &FrameOf<B>) -> Result<(), DropReason> {
        let bytes = frame.bytes().get(..frame.parsed().end as usize).unwrap_or_default();
        let cost = bytes.len() + HELD_OVERHEAD;
        loop {
            let has_share = self.share(key.source).held + cost <= self.limits.held_per_source;
            if has_share && self.held_bytes + cost <= self.limits.held_bytes {
                break;
            }
            let victim = self.victim(key.source, !has_share, |share| share.held, |datagram| datagram.cost > 0);
            let victim = victim.unwrap_or(key);
            self.kill(victim, DropReason::FragmentLimit);
            if victim == key {
                return Err(DropReason::FragmentLimit);
            }
        }
        if let Some(datagram) = self.datagrams.get_mut(&key) {
            datagram.held.push((*frame.meta(), bytes.to_vec()));
            datagram.cost += cost;
            self.held_bytes += cost;
            self.shares.entry(key.source).or_default().held += cost;
        }
        Ok(())
    }

    fn share(&self, source: u32) -> Share {
        self.shares.get(&source).copied().unwrap_or_default()
    }

    /// The oldest packet for which `may_go` holds: of `source` itself if it `has_none_left` of its share or has most,
    /// otherwise of one that has most.
    fn victim(
        &self,
        source: u32,
        has_none_left: bool,
        measure: fn(&Share) -> usize,
        may_go: fn(&Datagram<T>) -> bool,
    ) -> Option<Key> {
        let most = self.shares.values().map(measure).max()?;
        let is_own = has_none_left || measure(&self.share(source)) == most;
        let found = self.order.iter().find(|(serial, key)| {
            let pays = if is_own { key.source == source } else { measure(&self.share(key.source)) == most };
            pays && self.datagrams.get(key).is_some_and(|datagram| datagram.serial == *serial && may_go(datagram))
        });
        found.map(|(_, key)| *key)
    }

    /// Lets nothing more of this packet pass.
    fn kill(&mut self, key: Key, reason: DropReason) {
        self.kill_held(key, reason);
        if let Some(datagram) = self.datagrams.get_mut(&key) {
            datagram.pieces = Pieces::default();
            datagram.first = None;
            datagram.fate = Fate::Dead(reason);
        }
    }

    fn kill_held(&mut self, key: Key, reason: DropReason) {
        for _ in self.take_held(key) {
            self.drops.count(reason);
        }
    }

    fn take_held(&mut self, key: Key) -> Vec<(Meta, Vec<u8>)> {
        let Some(datagram) = self.datagrams.get_mut(&key) else { return Vec::new() };
        let cost = std::mem::take(&mut datagram.cost);
        self.held_bytes -= cost;
        if let Some(share) = self.shares.get_mut(&key.source) {
            share.held -= cost;
        }
        std::mem::take(&mut datagram.held)
    }

    /// Removes a packet that holds nothing.
    fn forget(&mut self, key: Key) -> Option<Datagram<T>> {
        let datagram = self.datagrams.remove(&key)?;
        debug_assert!(datagram.held.is_empty());
        if let Some(share) = self.shares.get_mut(&key.source) {
            share.datagrams -= 1;
            if share.datagrams == 0 {
                self.shares.remove(&key.source);
            }
        }
        let is_live = |(serial, key): &(u64, Key)| self.datagrams.get(key).is_some_and(|d| d.serial == *serial);
        while self.order.front().is_some_and(|ticket| !is_live(ticket)) {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.datagrams.len() + 64 {
            self.order.retain(is_live);
        }
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use tapswitch_wire::FrameRef;

    use super::*;

    #[test]
    fn nu_9_the_queue_of_deadlines_does_not_grow_behind_one_that_waits() {
        let mut fragments: Fragments<()> = Fragments::new(Limits::default(), [0; 16]);
        let mut frame = [0; 42];
        (frame[12], frame[14], frame[17], frame[23], frame[39]) = (8, 0x45, 28, 17, 99);
        for id in 0..10_000u16 {
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            // The first one stays alone, the others get their last fragment.
            for flags in if id == 0 { &[[0x20, 0]][..] } else { &[[0x20, 0], [0, 1]] } {
                frame[20..22].copy_from_slice(flags);
                let parsed = FrameRef::parse(Meta::PLAIN, &frame[..]).unwrap();
                if let Track::First(key) = fragments.track(0, 1, &parsed, Instant::ZERO) {
                    assert_eq!(fragments.decided(key, Ok(())).count(), 0);
                }
            }
            assert!(fragments.len() == 1 && fragments.order.len() < 100);
        }
    }
}
