//! The server's state and its upkeep: expiry, the journal, and what users see. Messages are answered in `answer`,
//! reservations made in `reserve`.

use std::net::Ipv4Addr;

use tapswitch_wire::{Instant, PortId};

use crate::config::Config;
use crate::journal::{self, Clock, Entry};
use crate::lease::{Lease, LeaseView, State};
use crate::table::Table;

/// The address service of one network.
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) config: Config,
    pub(crate) table: Table,
    /// Scratch space for reply frames.
    pub(crate) frame: Vec<u8>,
    clock: Clock,
    /// The journal ends in a torn line: what is written next must begin with a line feed.
    torn: bool,
}

/// What came out of a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Number of addresses that are in use: bound, reserved or in quarantine.
    pub leases: usize,
    /// One sentence for each line that could not be used. The first few, if there are many.
    pub warnings: Vec<String>,
}

impl Server {
    /// A server without leases. `wall` is the UNIX time in seconds at `now`: the journal holds calendar time, since it
    /// outlives the machine's uptime, while everything in here is counted in monotonic time.
    pub fn new(config: Config, now: Instant, wall: u64) -> Server {
        let table = Table::new(config.hosts(), config.server_ip);
        Server { table, config, frame: Vec::new(), clock: Clock::new(now, wall), torn: false }
    }

    /// One with the same settings that knows of nobody.
    pub fn without_leases(&self) -> Server {
        let table = Table::new(self.config.hosts(), self.config.server_ip);
        Server { config: self.config.clone(), table, frame: Vec::new(), clock: self.clock, torn: false }
    }

    /// Takes in the journal of an earlier run: all that was ever recorded, in order. Call it before anything else.
    ///
    /// Never fails: what cannot be read, or does not fit the subnet any more, becomes a warning. A torn last line may
    /// stay in the file, the next record begins with a line feed of its own.
    pub fn restore(&mut self, journal: &[u8]) -> Restored {
        let fits = |ip: Ipv4Addr| match self.table.holds(ip) {
            true => Ok(()),
            false if ip == self.config.server_ip => Err("this is the gateway's own address now"),
            false => Err("this is no host address of the subnet"),
        };
        let contents = journal::read(journal, self.clock, fits);
        self.torn = contents.torn;
        for (ip, lease) in contents.leases {
            self.table.put(ip, lease);
        }
        let leases = self.table.iter().filter(|(_, lease)| lease.state != State::Released).count();
        Restored { leases, warnings: contents.warnings.into_vec() }
    }

    /// A journal equal to the present state, to replace the grown one. Offers are not in it.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let held = self.table.iter().filter(|(_, lease)| lease.state != State::Released);
        // Released addresses keep their order, which is that of their reuse.
        for (ip, lease) in self.table.released().chain(held) {
            if let Some(entry) = Entry::new(ip, lease, self.clock) {
                entry.write(&mut out);
            }
        }
        out
    }

    /// A port was detached. What was only offered there is free again; what was acknowledged or declined stays so until
    /// it expires, but counts against no port any more, and its client may come back behind any. What was acknowledged
    /// may go to somebody else before that, if nothing is free.
    pub fn port_gone(&mut self, port: PortId, now: Instant, record: &mut impl FnMut(&[u8])) {
        self.poll(now, record);
        let mine: Vec<_> = self.table.iter().filter(|(_, l)| l.port == Some(port)).map(|(ip, _)| ip).collect();
        for ip in mine {
            match self.table.get(ip) {
                Some(lease) if lease.state != State::Offered => {
                    let lease = Lease { port: None, ..lease.clone() };
                    self.table.put(ip, lease);
                }
                _ => self.withdraw(ip),
            }
        }
    }

    /// Ends what is over at `now`: offers, leases, quarantines. Due at [`Server::deadline`]; later does no harm, since
    /// every other call begins with it.
    pub fn poll(&mut self, now: Instant, record: &mut impl FnMut(&[u8])) {
        while let Some(ip) = self.table.expired(now) {
            match self.table.get(ip).cloned() {
                Some(lease) if lease.state != State::Offered => self.update(ip, lease.into_released(), record),
                _ => self.withdraw(ip),
            }
        }
    }

    /// When [`Server::poll`] is next due; `None` if nothing will expire.
    pub fn deadline(&self) -> Option<Instant> {
        self.table.next_expiry()
    }

    /// Every address that is in use or remembered, lowest first.
    pub fn leases(&self, now: Instant) -> Vec<LeaseView> {
        self.table.iter().map(|(ip, lease)| LeaseView::new(ip, lease, now)).collect()
    }

    /// Sets the row of an address and records it, if the journal does not say so already.
    pub(crate) fn update(&mut self, ip: Ipv4Addr, lease: Lease, record: &mut impl FnMut(&[u8])) {
        let before = self.table.get(ip).and_then(|lease| Entry::new(ip, lease, self.clock));
        let after = Entry::new(ip, &lease, self.clock);
        self.table.put(ip, lease);
        if let Some(entry) = after
            && before.as_ref() != Some(&entry)
        {
            let mut line = if std::mem::take(&mut self.torn) { vec![b'\n'] } else { Vec::new() };
            entry.write(&mut line);
            record(&line);
        }
    }

    /// Takes an offer back: a client that had the address before is remembered, any other forgotten.
    pub(crate) fn withdraw(&mut self, ip: Ipv4Addr) {
        match self.table.get(ip).cloned() {
            Some(lease) if lease.state != State::Offered => {}
            Some(lease) if lease.remembered => self.table.put(ip, lease.into_released()),
            _ => self.table.remove(ip),
        }
    }
}
