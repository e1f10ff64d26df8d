//! The control API's JSON, version 1: what travels under `/v1/` over the daemon's unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/version` | [`Version`] |
//! | `GET /v1/networks` | list of [`NetworkView`] |
//! | `GET /v1/networks/NAME` | [`NetworkView`] |
//! | `POST /v1/networks/NAME/uplink` | `101` and a hand-over as below |
//! | `GET /v1/ports`, `/v1/fdb`, `/v1/arp`, `/v1/leases`, `/v1/drops` (each with `?network=NAME`) | lists of the views below |
//! | `GET /v1/flows` (narrowed by the fields of [`FlowFilter`], as `?container=web&port=443`) | list of [`FlowView`] |
//! | `DELETE /v1/flows` (narrowed alike) | [`Flushed`] |
//! | `GET /v1/stats` | [`StatsView`] |
//! | `GET /v1/ports/NAME/journey` (with `?proto=tcp`, `udp`, `icmp` or `arp`) | [`JourneyView`], see below |
//! | `GET /v1/trace` (narrowed by the fields of [`TraceRequest`]) | a [`TraceLine`] for each frame, until the client hangs up |
//! | `GET /v1/events` (with `?network=NAME`) | an [`EventLine`] for each event, until the client hangs up |
//! | `GET /metrics` | figures in Prometheus' text format, see `docs/metrics.md` |
//! | `POST /v1/ports/NAME/publish` with [`PublishRequest`] | list of [`Published`]: what is published by this |
//! | `POST /v1/ports/NAME/unpublish` with [`PublishRequest`] | list of [`Published`]: what no longer is |
//! | `POST /v1/explain` with [`ExplainRequest`] | [`ExplainView`]: what would happen to a packet; nothing is sent |
//! | `POST /v1/attach` with [`AttachRequest`] | `101` and the hand-over below |
//! | `DELETE /v1/ports/NAME` | `204` |
//!
//! Whatever is refused answers with a status of 400 or more and an [`ErrorBody`].
//!
//! # Attaching
//!
//! The daemon never enters a namespace: the client makes the TAP and hands its descriptor over. `POST /v1/attach` asks to
//! upgrade the connection to `tapswitch-attach`. After the `101` both sides exchange lines of JSON: the daemon sends an
//! [`AttachOffer`] (the address is reserved as long as the connection lives), the client makes the interface and sends an
//! [`AttachTap`] with the descriptor as `SCM_RIGHTS` beside it, the daemon answers with an [`AttachResult`]. A connection
//! that ends early leaves nothing behind.
//!
//! An uplink's device is handed over in the same way: `POST /v1/networks/NAME/uplink` upgrades to `tapswitch-uplink`, the
//! daemon says with an [`UplinkOffer`] which device the network wants, the client opens it and sends an [`UplinkDevice`]
//! with the descriptor, the daemon answers with an [`UplinkResult`].
//!
//! # Journeys
//!
//! `GET /v1/ports/NAME/journey` tells what every stage found out about the next matching frame that the container sends.
//! The head of the answer comes as soon as the switch listens, so whatever is sent after it is not missed; the body comes
//! when the frame has passed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
/// Goes with the descriptor of an uplink: what was opened.
pub use tapswitch_link::uplink::About as UplinkDevice;
/// What the device of an uplink is for.
pub use tapswitch_link::uplink::Mode as UplinkKind;
use tapswitch_wire::Mac;

mod events;
mod explain;
mod flows;
mod trace;
mod uplinks;

pub use crate::publish::{Ports, Proto, Published, Spec};
pub use events::{EventKind, EventLine, EventView};
pub use explain::{Carried, Description, ExplainRequest, ExplainView, PacketRequest, SentView, TcpFlag};
pub use flows::{FlowFilter, FlowView, Flushed, WayView};
pub use trace::{ChangeView, OffloadView, StepView, TraceLine, TraceRequest, TraceView};
pub use uplinks::{NatView, UPLINK_PROTOCOL, UplinkOffer, UplinkResult, UplinkState, UplinkView};

/// The protocol that `POST /v1/attach` upgrades to.
pub const ATTACH_PROTOCOL: &str = "tapswitch-attach";

/// What the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
}

/// Why a request was refused: what was tried, why it failed, what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The text, for people.
    pub error: String,
}

/// Asks for a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The network to join; the daemon's first one if absent.
    #[serde(default)]
    pub network: Option<String>,
    /// The container's name on the switch; the daemon makes one up if absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The address it wants. If absent: the one that this name had before, else the lowest never used, else the one
    /// released longest ago.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// The MAC address it wants. If absent: derived from the IP address or, with `dhcp`, from the names of network and
    /// container, so that a container of the same name is the same DHCP client.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Nothing is reserved: the container's own DHCP client will ask.
    #[serde(default)]
    pub dhcp: bool,
    /// Ports to publish. They belong to this attachment and end with it.
    #[serde(default)]
    pub publish: Vec<Spec>,
}

/// Asks for ports of a container to be published, whenever one of this name is attached; or not to be any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRequest {
    /// At least one. To end what is published, `PORT` alone names it whatever leads there.
    pub specs: Vec<Spec>,
}

/// What the client configures on the interface it makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachOffer {
    /// The network joined.
    pub network: String,
    /// The container's name on the switch.
    pub name: String,
    /// MAC address of the interface.
    pub mac: Mac,
    /// Address of the interface; absent if a DHCP client will ask for it.
    pub ip: Option<Ipv4Addr>,
    /// The network's subnet.
    pub subnet: Ipv4Net,
    /// Where the default route points; absent if the network has no way out, and then there is no such route.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers for the container.
    pub dns: Vec<Ipv4Addr>,
    /// Domains that the container's resolver appends.
    pub search: Vec<String>,
    /// MTU of the interface.
    pub mtu: u16,
    /// How many queues the interface may have, each with a descriptor; an interface without offload has one.
    #[serde(default = "one")]
    pub queues: usize,
}

fn one() -> usize {
    1
}

/// Goes with the descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachTap {
    /// The interface's name in the container.
    pub interface: String,
    /// Where it was made, in words: `pid 4711`, `netns blue`, `run: sh`.
    pub target: String,
}

/// How attaching ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachResult {
    /// The port works.
    Attached(PortView),
    /// It does not, and this is why.
    Refused(String),
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub subnet: Ipv4Net,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// The gateway's MAC address.
    pub gateway_mac: Mac,
    /// MTU of its ports.
    pub mtu: u16,
    /// `user`, `none`, `nat:IFACE`, `lan:IFACE` or `tun:NAME`.
    pub uplink: String,
    /// More of an uplink that is a device; absent for `user` and `none`.
    #[serde(default)]
    pub uplink_device: Option<UplinkView>,
    /// Whether its containers are kept from each other.
    pub isolate: bool,
    /// Name servers that its containers are told.
    pub dns: Vec<Ipv4Addr>,
    /// The resolver of the host that DNS questions to the gateway go to.
    pub resolver: Option<String>,
    /// Destinations on the host that are allowed although they are denied by default.
    pub allow: Vec<String>,
    /// Ports that it publishes by the names of containers: `NAME=SPEC`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Static routes: `CIDR via ADDR`.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Networks that it is routed to and from.
    #[serde(default)]
    pub connect: Vec<String>,
    /// Number of attached containers.
    pub ports: usize,
    /// Number of addresses in use.
    pub leases: usize,
    /// Number of live flows through the uplink.
    pub flows: usize,
}

/// Frames, bytes and drops of one port. Received is what the container sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersView {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent to the container.
    pub tx_frames: u64,
    /// Bytes sent to the container.
    pub tx_bytes: u64,
    /// Drops by reason.
    pub drops: BTreeMap<String, u64>,
}

/// A port of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// The container's name.
    pub name: String,
    /// The network it is on.
    pub network: String,
    /// The port's number; 0 is the gateway.
    pub port: u32,
    /// The interface's name in the container.
    pub interface: String,
    /// Where it was attached.
    pub target: String,
    /// The container's MAC address.
    pub mac: Mac,
    /// Its address, if it was set or leased.
    pub ip: Option<Ipv4Addr>,
    /// MTU of the port.
    pub mtu: u16,
    /// Whether super-frames pass.
    pub offload: bool,
    /// Seconds since it was attached.
    pub age_s: u64,
    /// Its published ports.
    #[serde(default)]
    pub published: Vec<Published>,
    /// What passed.
    pub counters: CountersView,
}

/// An entry of the FDB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbView {
    /// The network.
    pub network: String,
    /// The station.
    pub mac: Mac,
    /// The port it stands behind.
    pub port: u32,
    /// That port's container.
    pub name: String,
    /// Seconds since a frame came from it; absent for a static entry.
    pub age_s: Option<u64>,
}

/// A neighbour of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArpView {
    /// The network.
    pub network: String,
    /// The neighbour.
    pub ip: IpAddr,
    /// Its MAC address, if it is known.
    pub mac: Option<Mac>,
    /// `incomplete`, `reachable` or `stale`.
    pub state: String,
    /// Seconds since it was confirmed.
    pub age_s: u64,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The network.
    pub network: String,
    /// The address.
    pub ip: Ipv4Addr,
    /// Who has it.
    pub mac: Mac,
    /// The container's name, for a reservation.
    pub name: Option<String>,
    /// The name that the DHCP client gave.
    pub hostname: Option<String>,
    /// `offered`, `bound`, `reserved` or `declined`.
    pub state: String,
    /// Seconds until it ends; absent for one that does not.
    pub expires_s: Option<u64>,
}

/// Drops of one port for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropView {
    /// The network.
    pub network: String,
    /// The container's name; `gateway` for the network's own port.
    pub name: String,
    /// The reason's name.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// How often in a second, over the last 10 to 20 seconds.
    #[serde(default)]
    pub rate: f64,
    /// What it means.
    pub text: String,
    /// The last such frame in one line, as it stood when it was dropped; absent if it was not at hand where it was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
}

/// What happened to one frame, stage by stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JourneyView {
    /// The frame in one line, as it came in.
    pub frame: String,
    /// The container that sent it.
    pub port: String,
    /// What the stages say, in order.
    pub steps: Vec<StepView>,
    /// How it ended, in words.
    pub verdict: String,
}

/// The daemon's own figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsView {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Networks.
    pub networks: usize,
    /// Attached containers.
    pub ports: usize,
    /// Live flows through the uplinks.
    pub flows: usize,
    /// Turns of the poll loop.
    pub turns: u64,
    /// Turns that found nothing ready and slept.
    pub sleeps: u64,
    /// Frames received from containers.
    pub rx_frames: u64,
    /// Frames sent to containers.
    pub tx_frames: u64,
    /// Frames dropped.
    pub drops: u64,
    /// The poll threads. The first owns the gateways.
    #[serde(default)]
    pub threads: Vec<ThreadView>,
}

/// A poll thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadView {
    /// Its number, from 0.
    pub thread: usize,
    /// The CPU that it is kept on; none if it runs where the kernel lets it.
    pub cpu: Option<usize>,
    /// How it reads frames: `epoll` or `io_uring`.
    pub io: String,
    /// What it does when nothing is there: `adaptive`, `busy` or `sleep`.
    pub poll: String,
    /// Microseconds that it looks again after the last frame before it sleeps; none if it never sleeps.
    pub spin_us: Option<u64>,
    /// Ports that it reads; of a port with several queues, each counts.
    pub ports: usize,
    /// Turns of its loop.
    pub turns: u64,
    /// Turns that found nothing ready and slept.
    pub sleeps: u64,
}
