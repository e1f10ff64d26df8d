//! The packet vocabulary of tapswitch. No I/O, no clock, no allocation on the forwarding path.
//!
//! # Theory of operation
//!
//! A frame is read once into a buffer and parsed once into [`Parsed`], a small set of offsets. Everything after that
//! (switch, gateway, address service, relay) looks at the frame through [`Frame`], which pairs the bytes with those
//! offsets and with [`Meta`], what the virtio-net header said about checksum and segmentation. Only the setters of
//! [`Frame`] write header bytes, and each leaves the checksums right, in both states:
//!
//! * *complete*: the transport checksum covers the pseudo header and the segment; a change is patched in by RFC 1624.
//! * *partial*: the field holds the uncomplemented sum of the pseudo header only, and the port that finally needs a
//!   complete one fills it in ([`checksum::complete`]). A change of address patches that sum with the opposite sign; a
//!   change of port leaves it alone.
//!
//! A frame ends in exactly one [`Verdict`]. A drop has a [`DropReason`], and every reason has a counter and a text.
//! Whoever wants to know why passes a [`Journey`]; whoever does not passes [`Unheard`], which costs nothing.
//!
//! Super-frames (up to 64 KiB with [`Gso`] in their metadata) stay whole; [`segment`] cuts them for a port that lacks
//! the capability, and [`coalesce`] makes them of what comes from one.
#![forbid(unsafe_code)]

mod addr;
pub mod build;
pub mod checksum;
pub mod coalesce;
mod drop;
pub mod fragment;
mod frame;
mod journey;
mod meta;
mod parse;
mod quoted;
mod render;
mod rewrite;
pub mod segment;
mod time;

pub use addr::Mac;
pub use drop::{DropCounters, DropReason, Help};
pub use frame::{Frame, FrameOf, FrameRef};
pub use journey::{Change, Journey, Kind, Recorded, Stage, Step, Unheard};
pub use meta::{ChecksumState, Gso, GsoKind, Meta, VNET_HEADER_LEN};
pub use parse::{Fragment, L3, L4, Parsed, Vlan, ethertype, protocol};
pub use quoted::{Quoted, Unquotable};
pub use render::render;
pub use rewrite::{Endpoint, Rewrite};
pub use time::Instant;

use serde::Serialize;

/// Bytes of an Ethernet header without a VLAN tag.
pub const ETHERNET_HEADER_LEN: usize = 14;

/// The longest frame that a TAP with segmentation offload hands over: a 64 KiB IP packet behind a tagged Ethernet
/// header.
pub const MAX_FRAME_LEN: usize = 65_535 + ETHERNET_HEADER_LEN + 4;

/// A port of one switch. Port 0 is the gateway of the network itself; containers count from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct PortId(pub u32);

impl PortId {
    /// The port behind which the gateway of the network stands.
    pub const GATEWAY: PortId = PortId(0);
    /// What a packet uplink brings comes from here. It is no port of the switch.
    pub const UPLINK: PortId = PortId(u32::MAX);
}

impl std::fmt::Display for PortId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How a frame ended. Each frame that enters gets exactly one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It left by this one port.
    Forward(PortId),
    /// It left by so many ports: broadcast, multicast or unknown unicast.
    Flood {
        /// Number of ports it was handed to.
        ports: u32,
    },
    /// The gateway answered it or took it in (ARP, echo, DHCP).
    Reply,
    /// The uplink took it.
    Relay,
    /// It went no further, and this is why.
    Drop(DropReason),
}

/// Takes the frames that a core makes or passes on. The frame is only lent: whoever needs it longer copies it.
pub trait Emit {
    /// Hands over one whole Ethernet frame with its metadata.
    fn emit(&mut self, meta: &Meta, frame: &[u8]);
}

impl<F: FnMut(&Meta, &[u8])> Emit for F {
    fn emit(&mut self, meta: &Meta, frame: &[u8]) {
        self(meta, frame);
    }
}
