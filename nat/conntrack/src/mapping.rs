//! Mappings: which inside endpoint stands behind which outside port (RFC 4787 4).
//!
//! A mapping lives as long as a session uses it. Ports are never shared between mappings, whatever they depend on.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use hashbrown::HashTable;
use tapswitch_wire::Endpoint;

use crate::tuple::Hasher;
use crate::{Dependence, Protocol};

/// A mapping's inside: the endpoint, and what of the other end it depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Inner {
    pub(crate) protocol: Protocol,
    pub(crate) endpoint: Endpoint,
    /// 0.0.0.0:0, an address with port 0, or all of the other end.
    pub(crate) remote: Endpoint,
}

impl Inner {
    pub(crate) fn new(protocol: Protocol, endpoint: Endpoint, remote: Endpoint, mapping: Dependence) -> Inner {
        let remote = match mapping {
            Dependence::EndpointIndependent => Endpoint::new(Ipv4Addr::UNSPECIFIED, 0),
            Dependence::AddressDependent => Endpoint::new(remote.ip, 0),
            Dependence::AddressAndPortDependent => remote,
        };
        Inner { protocol, endpoint, remote }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub(crate) inner: Inner,
    pub(crate) outside: u16,
    pub(crate) owner: u32,
    sessions: u32,
}

/// How many sessions of one mapping one outside address has.
struct Peer {
    mapping: u32,
    ip: Ipv4Addr,
    sessions: u32,
}

pub(crate) struct Mappings {
    all: Vec<Option<Mapping>>,
    free: Vec<u32>,
    by_inner: HashMap<Inner, u32>,
    by_port: HashMap<(Protocol, u16), u32>,
    /// Kept only if the filter asks for it.
    peers: Option<HashTable<Peer>>,
    hasher: Hasher,
}

impl Mappings {
    pub(crate) fn new(filtering: Dependence, hasher: Hasher) -> Mappings {
        Mappings {
            all: Vec::new(),
            free: Vec::new(),
            by_inner: HashMap::new(),
            by_port: HashMap::new(),
            peers: (filtering == Dependence::AddressDependent).then(HashTable::new),
            hasher,
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Mapping> {
        self.all.get(number as usize)?.as_ref()
    }

    pub(crate) fn of_inner(&self, inner: &Inner) -> Option<(u32, Mapping)> {
        let number = *self.by_inner.get(inner)?;
        Some((number, *self.get(number)?))
    }

    pub(crate) fn of_port(&self, protocol: Protocol, port: u16) -> Option<(u32, Mapping)> {
        let number = *self.by_port.get(&(protocol, port))?;
        Some((number, *self.get(number)?))
    }

    /// The numbers of the mappings that `is` says.
    pub(crate) fn numbers(&self, is: impl Fn(&Inner) -> bool) -> HashSet<u32> {
        let inner = |mapping: &Option<Mapping>| mapping.as_ref().is_some_and(|mapping| is(&mapping.inner));
        (0..).zip(&self.all).filter(|(_, mapping)| inner(mapping)).map(|(number, _)| number).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_port.len()
    }

    /// A copy with these mappings only, numbered by their place in the list, and of their peers those that are named.
    pub(crate) fn only(&self, numbers: &[u32], remotes: &[Ipv4Addr]) -> Mappings {
        let mut copy = Mappings::new(Dependence::EndpointIndependent, self.hasher);
        copy.peers = self.peers.as_ref().map(|_| HashTable::new());
        let hasher = self.hasher;
        let hash = |peer: &Peer| hasher.words(u64::from(peer.mapping), u64::from(peer.ip.to_bits()));
        for number in numbers {
            let Some(mapping) = self.get(*number) else { continue };
            let renamed = copy.insert(mapping.inner, mapping.outside, mapping.owner);
            if let Some(Some(own)) = copy.all.get_mut(renamed as usize) {
                own.sessions = mapping.sessions;
            }
            for ip in remotes {
                let sought = Peer { mapping: *number, ip: *ip, sessions: 0 };
                let is_it = |peer: &Peer| (peer.mapping, peer.ip) == (*number, *ip);
                let sessions =
                    self.peers.as_ref().and_then(|peers| peers.find(hash(&sought), is_it)).map(|p| p.sessions);
                if let (Some(sessions), Some(peers)) = (sessions, &mut copy.peers) {
                    let peer = Peer { mapping: renamed, ip: *ip, sessions };
                    let is_it = |other: &Peer| (other.mapping, other.ip) == (renamed, *ip);
                    peers.entry(hash(&peer), is_it, hash).or_insert(peer);
                }
            }
        }
        copy
    }

    /// Adds a mapping that no session uses yet.
    pub(crate) fn insert(&mut self, inner: Inner, outside: u16, owner: u32) -> u32 {
        let mapping = Mapping { inner, outside, owner, sessions: 0 };
        let number = match self.free.pop() {
            Some(number) => {
                self.all[number as usize] = Some(mapping);
                number
            }
            None => {
                self.all.push(Some(mapping));
                self.all.len() as u32 - 1
            }
        };
        self.by_inner.insert(inner, number);
        self.by_port.insert((inner.protocol, outside), number);
        number
    }

    /// One more session uses it, with this other end.
    pub(crate) fn join(&mut self, number: u32, remote: Ipv4Addr) {
        if let Some(Some(mapping)) = self.all.get_mut(number as usize) {
            mapping.sessions += 1;
        }
        let hasher = self.hasher;
        let hash = |peer: &Peer| hasher.words(u64::from(peer.mapping), u64::from(peer.ip.to_bits()));
        if let Some(peers) = &mut self.peers {
            let new = Peer { mapping: number, ip: remote, sessions: 0 };
            let entry = peers.entry(hash(&new), |peer| (peer.mapping, peer.ip) == (number, remote), hash);
            entry.or_insert(new).get_mut().sessions += 1;
        }
    }

    /// A session that used it has ended. Returns the mapping if it was the last one: then it is gone.
    pub(crate) fn leave(&mut self, number: u32, remote: Ipv4Addr) -> Option<Mapping> {
        if let Some(peers) = &mut self.peers {
            let hash = self.hasher.words(u64::from(number), u64::from(remote.to_bits()));
            if let Ok(mut entry) = peers.find_entry(hash, |peer| (peer.mapping, peer.ip) == (number, remote)) {
                entry.get_mut().sessions -= 1;
                if entry.get().sessions == 0 {
                    entry.remove();
                }
            }
        }
        let mapping = self.all.get_mut(number as usize)?.as_mut()?;
        mapping.sessions -= 1;
        if mapping.sessions > 0 {
            return None;
        }
        let gone = self.all[number as usize].take()?;
        self.free.push(number);
        self.by_inner.remove(&gone.inner);
        self.by_port.remove(&(gone.inner.protocol, gone.outside));
        Some(gone)
    }

    /// Whether a mapping has a session with this outside address.
    pub(crate) fn knows(&self, number: u32, remote: Ipv4Addr) -> bool {
        let hash = self.hasher.words(u64::from(number), u64::from(remote.to_bits()));
        self.peers
            .as_ref()
            .is_some_and(|peers| peers.find(hash, |peer| (peer.mapping, peer.ip) == (number, remote)).is_some())
    }

    pub(crate) fn peers(&self) -> usize {
        self.peers.as_ref().map_or(0, HashTable::len)
    }
}
