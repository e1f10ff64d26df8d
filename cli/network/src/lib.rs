//! One network without I/O: switch, gateway, address service and uplink, joined to one pipeline.
//!
//! # Theory of operation
//!
//! [`Network::rx`] takes one frame from one port and runs it to completion: parse, decide at the switch, hand it to the
//! ports it leaves by, and, if the gateway's port is among them, through the gateway to the address service or the
//! uplink. It returns the frame's one [`Verdict`](tapswitch_wire::Verdict). What the gateway, the address service and the uplink send of their own
//! accord enters the switch at [`PortId::GATEWAY`](tapswitch_wire::PortId::GATEWAY) like any other frame, so there is one place where frames meet.
//!
//! ```text
//! port -> parse -> switch.decide -+-> other ports
//!                                 +-> gateway -+-> reply ---------------+
//!                                              +-> dhcp -> reply -------+-> switch.decide -> ports
//!                                              +-> relay -> host socket |
//!                       host socket -> relay ---------------------------+
//! ```
//!
//! *Several poll threads.* Everything up to and including the switch is done by the thread that read the frame, with a
//! [`Forwarder`] of its own; all forwarders of a network share one FDB. The gateway and what is behind it have one owner:
//! the thread with the [`Network`]. A frame for it goes there in a batch, and on by [`Network::handed`]. What it answers
//! leaves through its own forwarder, for any thread may write to any port.
//!
//! Ports and sockets are traits ([`Ports`], [`tapswitch_relay::Host`]), time is an argument, lease records go to a
//! closure before the reply leaves. So the whole network runs in virtual time, under a fuzzer, or on a copy of its state.
//!
//! Counters: a frame that came in counts at the port it came from, one that left at the port it left by. A drop of a
//! frame that was meant for one place counts at the port it came from. If one of several places could not take it, that
//! counts at the place; a flooded frame that does not concern the gateway is no drop.
#![forbid(unsafe_code)]

mod explain;
mod fast;
mod forwarder;
mod imagined;
mod lan;
mod network;
mod packet;
mod uplink;

pub use explain::Explained;
pub use forwarder::{Forwarder, Hop, Share};
pub use imagined::{Asked, Imagined};
pub use lan::Ports;
pub use network::{Config, Network, Uplink};
pub use packet::{Addressing, PacketState, PacketUplink, PacketView, UplinkNews};
pub use uplink::Crossing;
