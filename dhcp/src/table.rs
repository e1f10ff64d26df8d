//! Every address that is or was in use, with the indexes by which it is found.
//!
//! Rows change only by [`Table::put`] and [`Table::remove`], which keep all indexes true. Addresses without a row were
//! never used (or are forgotten) and are kept as ranges, so the size of the subnet costs nothing.
//!
//! Bound: at most one row per host address, and at most [`MAX_REMEMBERED`] released ones; the one released longest ago
//! is forgotten first. Rows of other states are bounded by the server's limit per port and by the attached containers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use tapswitch_wire::{Instant, Mac, PortId};

use crate::lease::{ClientId, Lease, State};
use crate::ranges::Ranges;

/// How many released addresses are remembered for their last owners.
pub(crate) const MAX_REMEMBERED: usize = 4096;

#[derive(Clone, Debug)]
struct Row {
    lease: Lease,
    /// Key in `idle` if released, in `abandoned` if bound behind no port.
    since: Option<u64>,
}

/// The leases of one network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<u32, Row>,
    never_used: Ranges,
    by_client: BTreeMap<ClientId, u32>,
    /// Reservations only.
    by_station: BTreeMap<Mac, u32>,
    by_name: BTreeMap<String, u32>,
    by_expiry: BTreeSet<(Instant, u32)>,
    per_port: BTreeMap<PortId, usize>,
    /// Released rows in the order of their release.
    idle: BTreeMap<u64, u32>,
    /// Bound rows without a port, in the order in which their ports went.
    abandoned: BTreeMap<u64, u32>,
    /// The next key of the two.
    sequence: u64,
}

impl Table {
    /// An empty table over the addresses from `first` to `last`, without `gateway`.
    pub(crate) fn new(hosts: Option<(Ipv4Addr, Ipv4Addr)>, gateway: Ipv4Addr) -> Table {
        let mut never_used = hosts.map(|(first, last)| Ranges::new(first.into(), last.into())).unwrap_or_default();
        never_used.remove(gateway.into());
        Table { never_used, ..Table::default() }
    }

    /// The row of an address.
    pub(crate) fn get(&self, ip: Ipv4Addr) -> Option<&Lease> {
        self.rows.get(&u32::from(ip)).map(|row| &row.lease)
    }

    /// The address that a client has or had.
    pub(crate) fn of_client(&self, client: &ClientId) -> Option<(Ipv4Addr, &Lease)> {
        self.found(self.by_client.get(client))
    }

    /// The address reserved for a hardware address.
    pub(crate) fn of_station(&self, mac: Mac) -> Option<(Ipv4Addr, &Lease)> {
        self.found(self.by_station.get(&mac))
    }

    /// The address that is or was reserved for a name.
    pub(crate) fn of_name(&self, name: &str) -> Option<(Ipv4Addr, &Lease)> {
        self.found(self.by_name.get(name))
    }

    fn found(&self, ip: Option<&u32>) -> Option<(Ipv4Addr, &Lease)> {
        let ip = *ip?;
        self.rows.get(&ip).map(|row| (ip.into(), &row.lease))
    }

    /// Whether the address is of the pool, used or not.
    pub(crate) fn holds(&self, ip: Ipv4Addr) -> bool {
        self.rows.contains_key(&u32::from(ip)) || self.never_used.contains(ip.into())
    }

    /// Whether the address may be given to anybody: of the pool, and held by nobody.
    pub(crate) fn is_free(&self, ip: Ipv4Addr) -> bool {
        match self.get(ip) {
            Some(lease) => lease.state == State::Released,
            None => self.never_used.contains(ip.into()),
        }
    }

    /// Free addresses in the order in which they should be used up: the lowest never used, then the one released
    /// longest ago, so that an address is not given to somebody new while its last owner may come back.
    pub(crate) fn free(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.never_used.iter().chain(self.idle.values().copied()).map(Ipv4Addr::from)
    }

    /// Leases of stations whose port is gone, the one gone longest ago first: what may be taken back when nothing is
    /// free.
    pub(crate) fn abandoned(&self) -> impl Iterator<Item = (Ipv4Addr, &Lease)> {
        self.abandoned.values().filter_map(|ip| self.found(Some(ip)))
    }

    /// How many addresses count against a port.
    pub(crate) fn count(&self, port: PortId) -> usize {
        self.per_port.get(&port).copied().unwrap_or(0)
    }

    /// When the next row expires.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.by_expiry.first().map(|(at, _)| *at)
    }

    /// A row whose time is over at `now`.
    pub(crate) fn expired(&self, now: Instant) -> Option<Ipv4Addr> {
        self.by_expiry.first().filter(|(at, _)| *at <= now).map(|(_, ip)| Ipv4Addr::from(*ip))
    }

    /// All rows, lowest address first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Lease)> {
        self.rows.iter().map(|(ip, row)| (Ipv4Addr::from(*ip), &row.lease))
    }

    /// The released rows, the one released longest ago first.
    pub(crate) fn released(&self) -> impl Iterator<Item = (Ipv4Addr, &Lease)> {
        self.idle.values().filter_map(|ip| self.found(Some(ip)))
    }

    /// Sets the row of an address of the pool; does nothing for any other address.
    ///
    /// A client or name that another row carried moves here: one client and one name have one address. (The server does
    /// not let it come to that, but a journal may have been edited.)
    pub(crate) fn put(&mut self, ip: Ipv4Addr, lease: Lease) {
        if !self.holds(ip) {
            return;
        }
        self.unlink(ip);
        let key = u32::from(ip);
        self.never_used.remove(key);
        if let Some(client) = &lease.client {
            if let Some((other, row)) = self.of_client(client) {
                let row = Lease { client: None, ..row.clone() };
                self.put(other, row);
            }
            self.by_client.insert(client.clone(), key);
        }
        if let Some(name) = &lease.name {
            if let Some((other, row)) = self.of_name(name) {
                let row = if row.state == State::Reserved { row.clone().into_released() } else { row.clone() };
                self.put(other, Lease { name: None, ..row });
            }
            self.by_name.insert(name.clone(), key);
        }
        if lease.state == State::Reserved {
            self.by_station.insert(lease.mac, key);
        }
        if let Some(at) = lease.expires {
            self.by_expiry.insert((at, key));
        }
        if let Some(port) = lease.port {
            *self.per_port.entry(port).or_default() += 1;
        }
        let queue = match (lease.state, lease.port) {
            (State::Released, _) => Some(&mut self.idle),
            (State::Bound, None) => Some(&mut self.abandoned),
            _ => None,
        };
        let since = queue.map(|queue| {
            let next = self.sequence;
            queue.insert(next, key);
            self.sequence += 1;
            next
        });
        self.rows.insert(key, Row { lease, since });
        if self.idle.len() > MAX_REMEMBERED
            && let Some((_, oldest)) = self.idle.first_key_value()
        {
            self.remove(Ipv4Addr::from(*oldest));
        }
    }

    /// Forgets the row of an address: it counts as never used again.
    pub(crate) fn remove(&mut self, ip: Ipv4Addr) {
        if self.unlink(ip) {
            self.never_used.insert(ip.into());
        }
    }

    /// Takes a row out of the table and of all indexes. Returns whether there was one.
    fn unlink(&mut self, ip: Ipv4Addr) -> bool {
        let key = u32::from(ip);
        let Some(Row { lease, since }) = self.rows.remove(&key) else { return false };
        if let Some(client) = &lease.client {
            self.by_client.remove(client);
        }
        if let Some(name) = &lease.name {
            self.by_name.remove(name);
        }
        if lease.state == State::Reserved && self.by_station.get(&lease.mac) == Some(&key) {
            self.by_station.remove(&lease.mac);
        }
        if let Some(at) = lease.expires {
            self.by_expiry.remove(&(at, key));
        }
        if let Some(since) = since {
            self.idle.remove(&since);
            self.abandoned.remove(&since);
        }
        if let Some(port) = lease.port
            && let Some(count) = self.per_port.get_mut(&port)
        {
            *count -= 1;
            if *count == 0 {
                self.per_port.remove(&port);
            }
        }
        true
    }
}
