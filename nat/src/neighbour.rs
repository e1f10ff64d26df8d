//! The neighbour table: which MAC address stands behind an address of the LAN, and what waits to learn it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use tapswitch_wire::{DropReason, Instant, Mac};

use crate::waiting::{Queue, Waiting};

/// Entries in all.
const CAPACITY: usize = 4096;
/// Entries with one MAC address: so many addresses a single station may hold.
const PER_STATION: usize = 64;
/// An entry that was not confirmed for so long is stale (RFC 1122 2.3.2.1).
const REACHABLE: Duration = Duration::from_secs(60);
/// Between two requests to one neighbour (RFC 1122 2.3.2.1).
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Packets for a neighbour that stays silent are given up after this.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Unanswered questions to a stale neighbour before its MAC address is forgotten (RFC 1122 2.3.2.1, method 2).
const POLLS: u8 = 3;

/// What is known of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeighbourState {
    /// Asked for, not yet answered; packets wait.
    Incomplete,
    /// ARP came from it within the last 60 s.
    Reachable,
    /// Confirmed longer ago than that; still used, and asked again when it is.
    Stale,
}

/// One neighbour, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NeighbourView {
    /// Its address.
    pub ip: IpAddr,
    /// Its MAC address; none while incomplete.
    pub mac: Option<Mac>,
    /// What is known of it.
    pub state: NeighbourState,
    /// Whole seconds since it was last confirmed, or since it was first asked for.
    pub age: u64,
}

/// What the table says of a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Send it there.
    At(Mac),
    /// Send it there, and ask whether it still stands there.
    AtIfStill(Mac),
    /// Unknown: let the packet wait.
    Unknown,
}

/// What became of a packet that was to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Queued {
    /// The neighbour must be asked for by broadcast now.
    pub(crate) ask: bool,
    /// An older packet for the same neighbour was given up for it.
    pub(crate) displaced: bool,
}

/// What is due.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Neighbours to ask for by broadcast.
    pub(crate) ask: Vec<IpAddr>,
    /// Packets whose neighbour did not answer in time.
    pub(crate) given_up: Vec<Waiting>,
}

#[derive(Clone, Debug)]
struct Known {
    mac: Mac,
    confirmed: Instant,
    /// Questions since it went stale, and when the last one went out.
    polls: u8,
    polled: Instant,
}

impl Known {
    fn is_stale(&self, now: Instant) -> bool {
        now - self.confirmed >= REACHABLE
    }
}

/// An incomplete neighbour. At least one packet waits for it, so the bounds of the queue bound these too.
#[derive(Clone, Debug)]
struct Resolving {
    since: Instant,
    /// When to ask again or to give up.
    next: Instant,
}

/// The table. Ordered maps, so that the same inputs give the same order of frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neighbours {
    known: BTreeMap<IpAddr, Known>,
    resolving: BTreeMap<IpAddr, Resolving>,
    queue: Queue,
    /// No entry goes stale before this: the result of the last vain search for one, which thus need not be repeated
    /// for each packet that meets a full table.
    none_stale_before: Instant,
}

impl Neighbours {
    /// Looks up a next hop for a packet that is to be sent now.
    pub(crate) fn lookup(&mut self, ip: IpAddr, now: Instant) -> Found {
        let Some(known) = self.known.get_mut(&ip) else { return Found::Unknown };
        if !known.is_stale(now) || (known.polls > 0 && now - known.polled < ASK_INTERVAL) {
            return Found::At(known.mac);
        }
        if known.polls >= POLLS {
            return Found::Unknown;
        }
        known.polls += 1;
        known.polled = now;
        Found::AtIfStill(known.mac)
    }

    /// The MAC address of a neighbour that is not stale.
    pub(crate) fn reachable(&self, ip: IpAddr, now: Instant) -> Option<Mac> {
        self.known.get(&ip).filter(|known| !known.is_stale(now)).map(|known| known.mac)
    }

    /// Whether a packet of `len` bytes from `sender` may wait for `hop`.
    ///
    /// # Errors
    /// [`DropReason::NeighbourQueueFull`], [`DropReason::NeighbourTableFull`].
    pub(crate) fn admit(
        &mut self,
        hop: IpAddr,
        sender: Option<Mac>,
        len: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.queue.admit(hop, sender, len)?;
        if self.known.contains_key(&hop) || self.resolving.contains_key(&hop) {
            return Ok(());
        }
        self.make_room(now)
    }

    /// Lets an admitted packet wait for a next hop that [`Neighbours::lookup`] did not know.
    pub(crate) fn wait(&mut self, packet: Waiting, now: Instant) -> Queued {
        let hop = packet.hop;
        self.known.remove(&hop);
        let mut ask = false;
        self.resolving.entry(hop).or_insert_with(|| {
            ask = true;
            Resolving { since: now, next: now + ASK_INTERVAL }
        });
        let displaced = self.queue.push(packet).is_some();
        Queued { ask, displaced }
    }

    /// Takes in that `mac` says it holds `ip`. An unknown neighbour gets an entry only if `create` is set.
    ///
    /// Returns the packets that waited for it; `None` if there is no entry, or no room for one.
    pub(crate) fn confirm(&mut self, ip: IpAddr, mac: Mac, create: bool, now: Instant) -> Option<VecDeque<Waiting>> {
        let resolved = self.resolving.remove(&ip).is_some();
        let before = self.known.get(&ip).map(|known| known.mac);
        if before.is_none() && !resolved && !create {
            return None;
        }
        if before != Some(mac) {
            self.cap_station(mac);
        }
        if before.is_none() && !resolved {
            self.make_room(now).ok()?;
        }
        self.known.insert(ip, Known { mac, confirmed: now, polls: 0, polled: now });
        Some(if resolved { self.queue.take(ip) } else { VecDeque::new() })
    }

    /// Forgets a neighbour. Returns the packets that waited for it.
    pub(crate) fn forget(&mut self, ip: IpAddr) -> VecDeque<Waiting> {
        self.known.remove(&ip);
        match self.resolving.remove(&ip) {
            Some(_) => self.queue.take(ip),
            None => VecDeque::new(),
        }
    }

    /// Takes what is due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        let queue = &mut self.queue;
        self.resolving.retain(|ip, entry| {
            if now - entry.since >= RESOLVE_TIMEOUT {
                due.given_up.extend(queue.take(*ip));
                return false;
            }
            if entry.next <= now {
                due.ask.push(*ip);
                entry.next = (now + ASK_INTERVAL).min(entry.since + RESOLVE_TIMEOUT);
            }
            true
        });
        due
    }

    /// When [`Neighbours::take_due`] has something next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.resolving.values().map(|entry| entry.next).min()
    }

    /// Every neighbour, in the order of their addresses.
    pub(crate) fn views(&self, now: Instant) -> Vec<NeighbourView> {
        let known = self.known.iter().map(|(ip, known)| {
            let state = if known.is_stale(now) { NeighbourState::Stale } else { NeighbourState::Reachable };
            NeighbourView { ip: *ip, mac: Some(known.mac), state, age: (now - known.confirmed).as_secs() }
        });
        let resolving = self.resolving.iter().map(|(ip, entry)| {
            let age = (now - entry.since).as_secs();
            NeighbourView { ip: *ip, mac: None, state: NeighbourState::Incomplete, age }
        });
        let mut all: Vec<_> = known.chain(resolving).collect();
        all.sort_by_key(|view| view.ip);
        all
    }

    /// Makes room for one entry: the stale one that was confirmed longest ago gives way.
    fn make_room(&mut self, now: Instant) -> Result<(), DropReason> {
        if self.known.len() + self.resolving.len() < CAPACITY {
            return Ok(());
        }
        if now < self.none_stale_before {
            return Err(DropReason::NeighbourTableFull);
        }
        let oldest = self.known.iter().min_by_key(|(_, known)| known.confirmed);
        let Some((ip, known)) = oldest else { return Err(DropReason::NeighbourTableFull) };
        if !known.is_stale(now) {
            self.none_stale_before = known.confirmed + REACHABLE;
            return Err(DropReason::NeighbourTableFull);
        }
        let ip = *ip;
        self.known.remove(&ip);
        Ok(())
    }

    /// Before an entry of `mac` is added: if it has as many as it may, its own oldest gives way.
    fn cap_station(&mut self, mac: Mac) {
        let mut own = self.known.iter().filter(|(_, known)| known.mac == mac);
        let oldest = own.clone().min_by_key(|(_, known)| known.confirmed).map(|(ip, _)| *ip);
        if own.nth(PER_STATION - 1).is_some() {
            oldest.and_then(|ip| self.known.remove(&ip));
        }
    }
}
