//! What a translator is told.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::Protocol;

/// On what a mapping, or a filter, depends beside the internal endpoint (RFC 4787 4.1 and 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// On nothing.
    #[default]
    EndpointIndependent,
    /// On the other end's address.
    AddressDependent,
    /// On the other end's address and port.
    AddressAndPortDependent,
}

impl Dependence {
    /// All of them.
    pub const ALL: [Dependence; 3] =
        [Dependence::EndpointIndependent, Dependence::AddressDependent, Dependence::AddressAndPortDependent];

    /// The name that users see and write.
    pub const fn name(self) -> &'static str {
        match self {
            Dependence::EndpointIndependent => "endpoint-independent",
            Dependence::AddressDependent => "address-dependent",
            Dependence::AddressAndPortDependent => "address-and-port-dependent",
        }
    }
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the outside port of a new mapping is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortChoice {
    /// At random (RFC 6056), of the same parity.
    #[default]
    Random,
    /// The inside port if it is free, else at random.
    Preserve,
}

impl PortChoice {
    /// All of them.
    pub const ALL: [PortChoice; 2] = [PortChoice::Random, PortChoice::Preserve];

    /// The name that users see and write.
    pub const fn name(self) -> &'static str {
        match self {
            PortChoice::Random => "random",
            PortChoice::Preserve => "preserve",
        }
    }
}

/// How long what is idle is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timers {
    /// UDP (RFC 4787 REQ-5: at least 2 minutes, 5 by default).
    pub udp: Duration,
    /// An established TCP connection (RFC 5382 REQ-5: at least 2 hours 4 minutes).
    pub tcp_established: Duration,
    /// A TCP connection that opens or closes, or was reset (RFC 5382 REQ-5, RFC 7857 2.2: at least 4 minutes).
    pub tcp_transitory: Duration,
    /// ICMP echo (RFC 5508 REQ-2: at least 60 s).
    pub icmp: Duration,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            udp: Duration::from_secs(300),
            tcp_established: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            icmp: Duration::from_secs(60),
        }
    }
}

/// How much there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Sessions in all.
    pub sessions: u32,
    /// Sessions of one owner.
    pub owner_sessions: u32,
    /// Sessions that one owner may begin in a second, and at once.
    pub owner_rate: u32,
    /// Outside ports of one owner, for each protocol.
    pub owner_ports: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { sessions: 262_144, owner_sessions: 65_536, owner_rate: 50_000, owner_ports: 32_768 }
    }
}

/// What a translator is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The subnets inside.
    pub inside: Vec<Ipv4Net>,
    /// Whether addresses are translated; otherwise packets keep theirs, and sessions only filter.
    pub translate: bool,
    /// On what a mapping depends.
    pub mapping: Dependence,
    /// On what it depends whether a packet from outside may use a mapping.
    pub filtering: Dependence,
    /// How outside ports are chosen.
    pub ports: PortChoice,
    /// The outside ports and echo identifiers that mappings may have.
    pub port_range: RangeInclusive<u16>,
    /// Whether inside hosts reach each other by their outside endpoints.
    pub hairpin: bool,
    /// Destinations that see the containers' own addresses.
    pub untranslated: Vec<Ipv4Net>,
    /// Timers.
    pub timers: Timers,
    /// Limits.
    pub limits: Limits,
    /// The MTU that both sides can take at first: what the MSS of a SYN is clamped to.
    pub mtu: u16,
}

impl Config {
    pub(crate) fn is_inside(&self, ip: Ipv4Addr) -> bool {
        self.inside.iter().any(|net| net.contains(&ip))
    }

    /// A translator of this subnet, with all else as RFC 4787, 5382 and 5508 recommend.
    pub fn new(inside: Ipv4Net) -> Config {
        Config {
            inside: vec![inside],
            translate: true,
            mapping: Dependence::EndpointIndependent,
            filtering: Dependence::AddressDependent,
            ports: PortChoice::Random,
            port_range: 1024..=65535,
            hairpin: true,
            untranslated: Vec::new(),
            timers: Timers::default(),
            limits: Limits::default(),
            mtu: 1500,
        }
    }
}

/// A port forward: outside ports that lead to ports of one container (DNAT).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct Forward {
    /// The container's number, which pays for its sessions.
    pub owner: u32,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The outside address it is bound to; any of ours if `None`.
    pub bound: Option<Ipv4Addr>,
    /// The first outside port.
    pub outside: u16,
    /// The container's address.
    pub ip: Ipv4Addr,
    /// The first of the container's ports.
    pub inside: u16,
    /// Number of ports, at least 1.
    pub count: u16,
}

impl Forward {
    /// The container's port behind an outside port.
    pub fn to_inside(&self, outside: u16) -> Option<u16> {
        let at = outside.checked_sub(self.outside)?;
        (at < self.count).then(|| self.inside.wrapping_add(at))
    }

    /// The outside port in front of a container's port.
    pub fn to_outside(&self, inside: u16) -> Option<u16> {
        let at = inside.checked_sub(self.inside)?;
        (at < self.count).then(|| self.outside.wrapping_add(at))
    }

    /// The outside ports.
    pub fn outside_ports(&self) -> RangeInclusive<u16> {
        self.outside..=self.outside.saturating_add(self.count.saturating_sub(1))
    }
}
