//! What is in our two zones.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{Name, RData, RecordType};

/// How long an answer may be kept, in seconds, also one that there is nothing.
pub const TTL: u32 = 60;

/// The zone's own name, by its labels.
const ZONE: [&str; 2] = ["tapswitch", "internal"];

/// The name does not exist.
pub(crate) struct NoSuchName;

/// The names of one network.
#[derive(Clone, Debug)]
pub struct Names {
    address: IpAddr,
    /// Whether a port of the host is open, and so the host has a name.
    has_host: bool,
    recursion: bool,
    zone: Name,
    host: Name,
    gateway: Name,
    /// The gateway's address as a name.
    reverse: Name,
}

impl Names {
    /// The names of a network whose gateway has this address. `host` tells whether a rule opens a port of the host, and
    /// `recursion` whether questions about other names go on to a resolver.
    pub fn new(gateway: IpAddr, host: bool, recursion: bool) -> Names {
        Names {
            address: gateway,
            has_host: host,
            recursion,
            zone: below_zone(None),
            host: below_zone(Some("host")),
            gateway: below_zone(Some("gateway")),
            reverse: Name::from(gateway),
        }
    }

    pub(crate) fn recursion(&self) -> bool {
        self.recursion
    }

    /// The zone that a name belongs to, if it is one of ours.
    pub(crate) fn zone_of(&self, name: &Name) -> Option<&Name> {
        [&self.zone, &self.reverse].into_iter().find(|zone| zone.zone_of(name))
    }

    /// The record of a type that a name of our zones has: none if it has no such record.
    pub(crate) fn look_up(&self, name: &Name, kind: RecordType) -> Result<Option<RData>, NoSuchName> {
        let is = |other: RecordType| kind == other || kind == RecordType::ANY;
        if *name == self.gateway || (self.has_host && *name == self.host) {
            let address = match self.address {
                IpAddr::V4(ip) => is(RecordType::A).then_some(RData::A(A(ip))),
                IpAddr::V6(ip) => is(RecordType::AAAA).then_some(RData::AAAA(AAAA(ip))),
            };
            return Ok(address);
        }
        if *name == self.reverse && is(RecordType::PTR) {
            return Ok(Some(RData::PTR(PTR(self.gateway.clone()))));
        }
        if *name == self.reverse || *name == self.zone {
            return Ok(is(RecordType::SOA).then(|| self.soa()));
        }
        Err(NoSuchName)
    }

    /// The start of authority of either zone. Nobody transfers them, so only the last number matters: how long it may
    /// be remembered that something is not there (RFC 2308 section 4).
    pub(crate) fn soa(&self) -> RData {
        const HOUR: i32 = 3600;
        RData::SOA(SOA::new(self.gateway.clone(), below_zone(Some("hostmaster")), 1, HOUR, HOUR, 24 * HOUR, TTL))
    }
}

/// The zone's name, or one below it.
fn below_zone(label: Option<&str>) -> Name {
    Name::from_labels(label.into_iter().chain(ZONE)).expect("a few short labels are a name")
}
