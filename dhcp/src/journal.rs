//! Leases as lines of text: what must be on disk before a client is told.
//!
//! Each line is one JSON object, the whole state of one address; a later line about the same address replaces the
//! earlier one. Times are UNIX seconds, rounded up, so that a lease never ends earlier after a restart than it would
//! have without one. Offers are not written: an address that was only offered is nobody's.
//!
//! A crash may tear the last line. It is skipped with a warning, and the next line that is written then begins with a
//! line feed, so that it does not grow together with the torn one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tapswitch_wire::{Instant, Mac};

use crate::config::INFINITE;
use crate::lease::{ClientId, Lease, State};

/// How many warnings of a damaged journal are kept word for word.
const MAX_WARNINGS: usize = 16;

/// What monotonic time is by the calendar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    wall: u64,
}

impl Clock {
    /// `wall` is the UNIX time in seconds at `start`.
    pub(crate) fn new(start: Instant, wall: u64) -> Clock {
        Clock { start, wall }
    }

    fn wall(self, at: Instant) -> u64 {
        let nanos = (at - self.start).as_nanos();
        self.wall.saturating_add(u64::try_from(nanos.div_ceil(1_000_000_000)).unwrap_or(u64::MAX))
    }

    /// The instant of a UNIX time that is at most `longest` seconds away; `None` if it is over.
    ///
    /// The bound matters when the calendar was set back: no lease is longer than it was granted for.
    fn instant(self, wall: u64, longest: u32) -> Option<Instant> {
        let left = wall.saturating_sub(self.wall).min(longest.into());
        (left > 0).then(|| self.start + Duration::from_secs(left))
    }
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    ip: Ipv4Addr,
    state: State,
    mac: Mac,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<ClientId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// UNIX seconds; absent for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    /// The length that was granted.
    #[serde(default)]
    secs: u32,
}

impl Entry {
    /// The line for a lease; `None` for an offer, which is not written.
    pub(crate) fn new(ip: Ipv4Addr, lease: &Lease, clock: Clock) -> Option<Entry> {
        (lease.state != State::Offered).then(|| Entry {
            ip,
            state: lease.state,
            mac: lease.mac,
            client: lease.client.clone(),
            hostname: lease.hostname.clone(),
            name: lease.name.clone(),
            expires: lease.expires.map(|at| clock.wall(at)),
            secs: lease.secs,
        })
    }

    /// Appends the line with its line feed.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        // A structure of numbers and strings always serializes into memory.
        if serde_json::to_writer(&mut *out, self).is_ok() {
            out.push(b'\n');
        }
    }

    /// The lease that the line tells of. One whose time is over comes back as released.
    ///
    /// # Errors
    /// What is wrong with it, for the warning.
    fn into_lease(self, clock: Clock) -> Result<(Ipv4Addr, Lease), &'static str> {
        let mut lease = Lease {
            state: self.state,
            client: self.client,
            mac: self.mac,
            port: None,
            hostname: self.hostname,
            name: self.name,
            expires: None,
            secs: self.secs,
            remembered: false,
        };
        match lease.state {
            State::Offered => return Err("an offer does not belong into the journal"),
            State::Reserved if lease.name.is_none() => return Err("a reserved address has a name"),
            State::Bound | State::Declined => {
                let never = self.expires.is_none() && lease.secs == INFINITE;
                lease.expires = self.expires.and_then(|at| clock.instant(at, lease.secs));
                if lease.expires.is_none() && !never {
                    lease = lease.into_released();
                }
            }
            State::Reserved | State::Released => {}
        }
        Ok((self.ip, lease))
    }
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The last state of each address, in the order of the lines.
    pub(crate) leases: Vec<(Ipv4Addr, Lease)>,
    pub(crate) warnings: Warnings,
    /// The last line has no line feed.
    pub(crate) torn: bool,
}

/// Reads a journal. Lines that cannot be used, or whose address `fits` refuses with a reason, become warnings.
pub(crate) fn read(journal: &[u8], clock: Clock, fits: impl Fn(Ipv4Addr) -> Result<(), &'static str>) -> Contents {
    let mut contents = Contents { torn: journal.last().is_some_and(|last| *last != b'\n'), ..Contents::default() };
    let mut last: BTreeMap<Ipv4Addr, (usize, Lease)> = BTreeMap::new();
    for (index, line) in journal.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let entry = match serde_json::from_slice::<Entry>(line) {
            Ok(entry) => entry,
            Err(error) => {
                contents.warnings.add(format!("line {} of the lease journal was skipped: {error}", index + 1));
                continue;
            }
        };
        let ip = entry.ip;
        match fits(ip).and_then(|()| entry.into_lease(clock)) {
            Ok((ip, lease)) => {
                last.insert(ip, (index, lease));
            }
            Err(why) => {
                contents.warnings.add(format!("line {} of the lease journal was skipped: {ip}: {why}", index + 1));
            }
        }
    }
    let mut leases: Vec<_> = last.into_iter().map(|(ip, (index, lease))| (index, ip, lease)).collect();
    leases.sort_unstable_by_key(|(index, ..)| *index);
    contents.leases = leases.into_iter().map(|(_, ip, lease)| (ip, lease)).collect();
    contents
}

/// The first few warnings, and how many more there were.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    kept: Vec<String>,
    more: usize,
}

impl Warnings {
    fn add(&mut self, warning: String) {
        if self.kept.len() < MAX_WARNINGS {
            self.kept.push(warning);
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn into_vec(mut self) -> Vec<String> {
        if self.more > 0 {
            self.kept.push(format!("{} more lines of the lease journal were skipped", self.more));
        }
        self.kept
    }
}
