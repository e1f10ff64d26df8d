//! The demo's findings, for `--json`.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::dhcp::Exchange;
use super::http::Fetched;
use super::ping::Pings;
use crate::api::{DropView, FdbView, FlowView, JourneyView, NetworkView, PortView, StatsView};

/// Everything that was shown.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Who ran it.
    pub uid: u32,
    /// How long it took.
    pub elapsed_ms: u64,
    /// The network.
    pub network: NetworkView,
    /// The containers and how they got their addresses.
    pub containers: Vec<Joined>,
    /// Ping between them.
    pub ping: Ping,
    /// HTTP through the NAT.
    pub http: Http,
    /// What happened to single frames.
    pub journeys: Vec<JourneyView>,
    /// The switch's counters, before the containers left.
    pub counters: Counters,
}

/// A container and how it got its address.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Joined {
    pub name: String,
    pub ip: Ipv4Addr,
    pub dhcp: Exchange,
}

/// Ping between the containers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ping {
    pub from: String,
    pub to: Ipv4Addr,
    #[serde(flatten)]
    pub pings: Pings,
    /// What the switch had learned by then.
    pub fdb: Vec<FdbView>,
}

/// HTTP through the NAT.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Http {
    pub from: String,
    pub url: String,
    /// Where the server really is.
    pub server: String,
    #[serde(flatten)]
    pub fetched: Fetched,
    /// The flow through the uplink, as far as it was still known afterwards.
    pub flows: Vec<FlowView>,
}

/// The switch's counters.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Counters {
    pub ports: Vec<PortView>,
    pub drops: Vec<DropView>,
    pub stats: StatsView,
}
