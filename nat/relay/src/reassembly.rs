//! Fragments of containers, put together (RFC 791 3.2).
//!
//! # Theory of operation
//!
//! A socket takes whole datagrams, so the fragments of one are kept until all have come, and the packet then goes on as if
//! it had never been cut. As nothing leaves before it is whole, and the whole is parsed anew, what fragments hide from a
//! filter that looks at them one by one (RFC 1858, RFC 3128) is not hidden here.
//!
//! *Never mixed.* A fragment that has come already, with the same bounds, is a duplicate and dropped. One that overlaps
//! another in part, contradicts the packet's end or reaches past the largest packet kills the packet (RFC 5722): what
//! comes of it later is dropped too, until its time is over.
//!
//! *Lifetime.* A packet that is not whole [`HOLD`] after its first piece came is forgotten (RFC 1122 3.3.2 has 60 to 120 s,
//! RFC 791 15 s). Nobody is told.
//!
//! *Bounds.* Packets and bytes are bounded for each container and in all. A container that would exceed its share displaces
//! its own oldest; where all is full, the oldest of whoever has most goes. A fragment costs its bytes and
//! [`OVERHEAD`], so small ones are no cheaper way to use up memory.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Deref;
use std::time::Duration;

use tapswitch_wire::{ChecksumState, DropCounters, DropReason, FrameOf, Instant, PortId};

/// How long a packet may take to become whole.
pub(crate) const HOLD: Duration = Duration::from_secs(30);
/// What a fragment costs beside its bytes.
const OVERHEAD: usize = 64;
/// Packets of one container that are not whole.
const PACKETS: usize = 64;
/// What the fragments of one container may cost: four of the largest packets.
const COST: usize = 256 << 10;
/// The same of all containers.
const COST_IN_ALL: usize = 4 << 20;
/// Bytes of the largest packet.
const MAX_PACKET: usize = 65_535;

/// Which packet a fragment belongs to, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Key {
    port: PortId,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u16,
}

/// A packet of which something is missing.
#[derive(Clone)]
struct Partial {
    /// Tells the packets of one container by age.
    serial: u64,
    deadline: Instant,
    /// Link and IP headers of the first fragment, or of any as long as that has not come.
    headers: Vec<u8>,
    /// What has come, by offset. No two overlap.
    pieces: BTreeMap<usize, Box<[u8]>>,
    /// Bytes in them.
    known: usize,
    /// Where the packet ends, once the last fragment has come.
    end: Option<usize>,
    is_dead: bool,
    cost: usize,
}

/// Packets that are not whole.
#[derive(Clone, Default)]
pub(crate) struct Reassembly {
    partials: HashMap<Key, Partial>,
    /// By age, which is the order of deadlines.
    order: BTreeMap<u64, Key>,
    costs: HashMap<PortId, usize>,
    cost: usize,
    serial: u64,
    drops: DropCounters,
}

impl Reassembly {
    /// Takes a fragment. If its packet is whole now, that is put into `whole` as one frame, and the answer is yes.
    ///
    /// # Errors
    /// Why it was dropped.
    pub(crate) fn take<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        frame: &FrameOf<B>,
        now: Instant,
        whole: &mut Vec<u8>,
    ) -> Result<bool, DropReason> {
        let (Some(fragment), Some(src), Some(dst)) = (frame.parsed().fragment, frame.src_ip(), frame.dst_ip()) else {
            return Err(DropReason::FragmentNotSupported);
        };
        if matches!(frame.meta().checksum, ChecksumState::Partial { .. }) {
            return Err(DropReason::BadVnetHeader);
        }
        if !src.is_ipv4() {
            return Err(DropReason::Ipv6NotRouted);
        }
        self.expire(now);
        let id = u16::from_be_bytes([frame.packet()[4], frame.packet()[5]]);
        let key = Key { port, src, dst, protocol: frame.parsed().protocol, id };
        let (start, piece) = (usize::from(fragment.offset), frame.segment());
        let headers = &frame.bytes()[..usize::from(frame.parsed().l4_start)];
        if !self.partials.contains_key(&key) {
            self.open(key, headers, now);
        }
        let Some(partial) = self.partials.get_mut(&key) else { return Err(DropReason::FragmentLimit) };
        let is_fine = match partial.check(start, piece.len(), fragment.more) {
            Err(DropReason::FragmentDuplicate) => return Err(DropReason::FragmentDuplicate),
            verdict => verdict,
        };
        if let Err(reason) = is_fine {
            self.kill(key);
            return Err(reason);
        }
        if start == 0 {
            partial.headers.clear();
            partial.headers.extend_from_slice(headers);
        }
        partial.known += piece.len();
        partial.end = partial.end.or((!fragment.more).then_some(start + piece.len()));
        if partial.end == Some(partial.known) {
            partial.pieces.insert(start, piece.into());
            if let Some(partial) = self.forget(key) {
                partial.put_together(whole);
                return Ok(true);
            }
        }
        self.keep(key, start, piece)?;
        Ok(false)
    }

    /// Forgets the packets whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((_, key)) = self.order.first_key_value() {
            let key = *key;
            if self.partials.get(&key).is_some_and(|partial| partial.deadline > now) {
                return;
            }
            self.drop_all(key, DropReason::FragmentExpired);
        }
    }

    /// When the next one's time is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let (_, key) = self.order.first_key_value()?;
        self.partials.get(key).map(|partial| partial.deadline)
    }

    /// Forgets what belongs to a container.
    pub(crate) fn port_gone(&mut self, port: PortId) {
        let of_port = self.partials.keys().filter(|key| key.port == port);
        for key in of_port.copied().collect::<Vec<_>>() {
            self.forget(key);
        }
    }

    /// Why fragments that waited were dropped.
    pub(crate) fn take_drops(&mut self) -> Option<DropCounters> {
        (self.drops.total() > 0).then(|| std::mem::take(&mut self.drops))
    }

    fn open(&mut self, key: Key, headers: &[u8], now: Instant) {
        if self.partials.keys().filter(|other| other.port == key.port).count() >= PACKETS {
            self.displace(key.port, None);
        }
        self.serial += 1;
        let partial = Partial {
            serial: self.serial,
            deadline: now + HOLD,
            headers: headers.to_vec(),
            pieces: BTreeMap::new(),
            known: 0,
            end: None,
            is_dead: false,
            cost: 0,
        };
        self.partials.insert(key, partial);
        self.order.insert(self.serial, key);
    }

    /// Keeps a piece of a packet for which there may be no room.
    fn keep(&mut self, key: Key, start: usize, piece: &[u8]) -> Result<(), DropReason> {
        let cost = piece.len() + OVERHEAD;
        loop {
            let own = self.costs.get(&key.port).copied().unwrap_or(0);
            let has_share = own + cost <= COST;
            if has_share && self.cost + cost <= COST_IN_ALL {
                break;
            }
            let most =
                self.costs.iter().max_by_key(|(port, cost)| (**cost, **port)).map_or(key.port, |(port, _)| *port);
            let victim = if has_share { most } else { key.port };
            if !self.displace(victim, Some(key)) {
                self.kill(key);
                return Err(DropReason::FragmentLimit);
            }
        }
        if let Some(partial) = self.partials.get_mut(&key) {
            partial.pieces.insert(start, piece.into());
            partial.cost += cost;
            self.cost += cost;
            *self.costs.entry(key.port).or_insert(0) += cost;
        }
        Ok(())
    }

    /// Forgets the oldest packet of a container, but for one. Whether there was another.
    fn displace(&mut self, port: PortId, but: Option<Key>) -> bool {
        let victim = self.order.values().find(|key| key.port == port && but != Some(**key)).copied();
        if let Some(victim) = victim {
            self.drop_all(victim, DropReason::FragmentLimit);
        }
        victim.is_some()
    }

    /// Forgets a packet, and counts what had come of it.
    fn drop_all(&mut self, key: Key, reason: DropReason) {
        if let Some(partial) = self.forget(key) {
            partial.pieces.iter().for_each(|_| self.drops.count(reason));
        }
    }

    /// Gives up a packet whose fragments contradict each other. What comes of it later is dropped.
    fn kill(&mut self, key: Key) {
        let Some(partial) = self.partials.get_mut(&key) else { return };
        partial.is_dead = true;
        let (cost, pieces) = (std::mem::take(&mut partial.cost), std::mem::take(&mut partial.pieces));
        pieces.iter().for_each(|_| self.drops.count(DropReason::FragmentOverlap));
        self.release(key.port, cost);
    }

    fn forget(&mut self, key: Key) -> Option<Partial> {
        let partial = self.partials.remove(&key)?;
        self.order.remove(&partial.serial);
        self.release(key.port, partial.cost);
        Some(partial)
    }

    fn release(&mut self, port: PortId, cost: usize) {
        self.cost = self.cost.saturating_sub(cost);
        if let Some(own) = self.costs.get_mut(&port) {
            *own = own.saturating_sub(cost);
            if *own == 0 {
                self.costs.remove(&port);
            }
        }
    }
}

impl Partial {
    /// Whether a piece fits to what has come.
    fn check(&self, start: usize, len: usize, more: bool) -> Result<(), DropReason> {
        let end = start + len;
        if self.is_dead {
            return Err(DropReason::FragmentOverlap);
        }
        if len == 0 || more && !len.is_multiple_of(8) || self.headers.len() - 14 + end > MAX_PACKET {
            return Err(DropReason::FragmentMalformed);
        }
        let top = self.pieces.last_key_value().map_or(0, |(start, piece)| start + piece.len());
        let before = self.pieces.range(..end).next_back();
        if let Some((other, piece)) = before.filter(|(other, piece)| *other + piece.len() > start) {
            let same = (*other, piece.len()) == (start, len) && (self.end == Some(end)) != more;
            return Err(if same { DropReason::FragmentDuplicate } else { DropReason::FragmentOverlap });
        }
        match (self.end, more) {
            // It ends twice, or goes on behind its end.
            (Some(_), false) => Err(DropReason::FragmentOverlap),
            (Some(known), true) if end >= known => Err(DropReason::FragmentOverlap),
            (None, false) if top > end => Err(DropReason::FragmentOverlap),
            _ => Ok(()),
        }
    }

    /// Puts the whole packet into one frame.
    fn put_together(&self, whole: &mut Vec<u8>) {
        whole.clear();
        whole.extend_from_slice(&self.headers);
        self.pieces.values().for_each(|piece| whole.extend_from_slice(piece));
        let l3 = ip_start(&self.headers);
        let total = (whole.len() - l3) as u16;
        let header = &mut whole[l3..self.headers.len()];
        header[2..4].copy_from_slice(&total.to_be_bytes());
        // Neither an offset nor more to come; DF stays what it was.
        header[6] &= 0x40;
        header[7] = 0;
        header[10..12].fill(0);
        let check = tapswitch_wire::checksum::checksum(0, header);
        header[10..12].copy_from_slice(&check.to_be_bytes());
    }
}

/// Where the IP header begins: behind the Ethernet header and its tags.
fn ip_start(headers: &[u8]) -> usize {
    let is_tag = |at: usize| matches!(headers.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8]));
    let tags = usize::from(is_tag(12)) + usize::from(is_tag(12) && is_tag(16));
    14 + 4 * tags
}

#[cfg(test)]
mod tests;
