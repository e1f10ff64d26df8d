//! Uplinks that are a device: what they are, and how somebody who may open the device hands it over.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tapswitch_conntrack::{Dependence, PortChoice};
use tapswitch_wire::Mac;

use super::{NetworkView, UplinkKind};
use crate::config::{NatPlan, UplinkPlan};

/// The protocol that `POST /v1/networks/NAME/uplink` upgrades to.
pub const UPLINK_PROTOCOL: &str = "tapswitch-uplink";

/// An uplink that is a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkView {
    /// How far it is.
    pub state: UplinkState,
    /// The device that carries it, in words: `packet socket eth0`; absent as long as there is none.
    pub device: Option<String>,
    /// Our router's address and its prefix, if it has one.
    pub ip: Option<Ipv4Net>,
    /// The router that leads on, if it is known.
    pub gateway: Option<Ipv4Addr>,
    /// Our router's MAC address.
    pub mac: Option<Mac>,
    /// MTU; absent as long as the device says.
    pub mtu: Option<u16>,
    /// Whether packets get the uplink's address.
    pub translate: bool,
    /// How sessions are tracked and translated; absent where the LAN is joined.
    pub nat: Option<NatView>,
}

/// How far an uplink is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UplinkState {
    /// Nobody has opened its device yet, or it is gone.
    WaitingForDevice,
    /// It has no address yet.
    AskingDhcp,
    /// Its address would be inside, too, so it is not used.
    Overlapping,
    /// Packets pass.
    Up,
}

impl fmt::Display for UplinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UplinkState::WaitingForDevice => "waiting for its device",
            UplinkState::AskingDhcp => "asking DHCP",
            UplinkState::Overlapping => "not used: its address overlaps with the network",
            UplinkState::Up => "up",
        })
    }
}

/// How sessions are tracked and translated. Times are seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatView {
    /// When an internal endpoint keeps its external one.
    pub mapping: Dependence,
    /// From whom a mapping lets packets in.
    pub filtering: Dependence,
    /// Which external port a mapping gets.
    pub ports: PortChoice,
    /// `FIRST-LAST`.
    pub port_range: String,
    /// Idle time of a UDP mapping.
    pub udp_timeout: u64,
    /// Idle time of an established TCP connection.
    pub tcp_established_timeout: u64,
    /// Idle time of a TCP connection that is being opened or closed.
    pub tcp_transitory_timeout: u64,
    /// Idle time of an echo's mapping.
    pub icmp_timeout: u64,
    /// Most sessions of the network.
    pub max_sessions: u32,
    /// Most sessions of one container.
    pub container_sessions: u32,
    /// Most new sessions of one container in a second.
    pub container_rate: u32,
    /// Most external ports of one container for each protocol.
    pub container_ports: u32,
    /// Destinations reached with the container's own address.
    pub no_translate: Vec<Ipv4Net>,
    /// Whether a container reaches another by its external endpoint.
    pub hairpin: bool,
}

impl From<&NatPlan> for NatView {
    fn from(plan: &NatPlan) -> NatView {
        NatView {
            mapping: plan.mapping,
            filtering: plan.filtering,
            ports: plan.ports,
            port_range: format!("{}-{}", plan.port_range.start(), plan.port_range.end()),
            udp_timeout: plan.udp_timeout.as_secs(),
            tcp_established_timeout: plan.tcp_established_timeout.as_secs(),
            tcp_transitory_timeout: plan.tcp_transitory_timeout.as_secs(),
            icmp_timeout: plan.icmp_timeout.as_secs(),
            max_sessions: plan.max_sessions,
            container_sessions: plan.container_sessions,
            container_rate: plan.container_rate,
            container_ports: plan.container_ports,
            no_translate: plan.no_translate.clone(),
            hairpin: plan.hairpin,
        }
    }
}

/// The device that an uplink wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkOffer {
    /// The network.
    pub network: String,
    /// What it is for.
    pub kind: UplinkKind,
    /// The interface: what a LAN is reached by, or the TUN or TAP device itself.
    pub device: String,
    /// The MAC address that our router shall have. A device that has its own, as a macvtap that was made beforehand, keeps
    /// that. Absent where a LAN is joined.
    pub mac: Option<Mac>,
    /// The MTU that was asked for; absent for the device's own.
    pub mtu: Option<u16>,
}

impl UplinkOffer {
    /// What a network's uplink wants; none if it is no device.
    pub(crate) fn of(network: &str, uplink: &UplinkPlan) -> Option<UplinkOffer> {
        let (kind, packet) = match uplink {
            UplinkPlan::Nat(packet) => (UplinkKind::Nat, Some(packet)),
            UplinkPlan::Tun(packet) => (UplinkKind::Tun, Some(packet)),
            UplinkPlan::Lan { .. } => (UplinkKind::Lan, None),
            UplinkPlan::User | UplinkPlan::None => return None,
        };
        Some(UplinkOffer {
            network: network.to_owned(),
            kind,
            device: uplink.device().unwrap_or_default().to_owned(),
            mac: packet.map(|packet| packet.mac),
            mtu: packet.and_then(|packet| packet.mtu),
        })
    }
}

/// How handing a device over ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum UplinkResult {
    /// The network uses it, and is like this now.
    Taken(NetworkView),
    /// It does not, and this is why.
    Refused(String),
}
