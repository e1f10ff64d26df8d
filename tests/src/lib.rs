//! The harness of the system tests: real kernels in network namespaces around a running `tapswitch`.
//!
//! # Theory of operation
//!
//! Goal: a system test reads like what a user does (`up`, `attach`, `ping`, `curl`) and harms nobody. `tests/run` starts
//! the test binary inside mount, process and network namespaces of its own (as an ordinary user in a user namespace,
//! too). So the tests cannot reach any real network, and whatever they might leave behind ends with them.
//!
//! Inside, every test builds its own [`World`]:
//!
//! ```text
//!  c1 c2 ...                gw                        rt                 inet
//!  containers     the switch runs here,         kernel router      servers, closed and
//!  10.88.0.0/24 - no kernel forwarding  10.201.0.0/24    198.51.100.0/24   silent ports
//! ```
//!
//! The packet uplinks have a world of their own, a [`Street`]. There a [`Kernel`] can stand in for the switch: so a test
//! is proved, and so both are compared. A [`Wire`] and a [`Station`] send and see single packets.
//!
//! A [`Switch`] is the daemon in `gw`; [`Switch::join`] makes a container and attaches it. Small servers and clients are
//! closures that run in a thread inside a namespace ([`Enter::inside`]), so a test can assert on each byte; where the
//! real tools matter (`curl`, `nmap`, `dhclient`, `tshark`, ...) they are commands with a time limit ([`Cmd`]).
//!
//! Nothing waits by sleeping: [`eventually`] polls for a condition until a deadline. Everything undoes itself when it
//! is dropped, also when the test panics; then the switch first prints its tables and the end of its log, and keeps
//! both the log and the capture.
#![forbid(unsafe_code)]

mod bytes;
mod cable;
mod clock;
mod command;
mod kernel;
mod namespace;
mod needs;
pub mod packet;
mod recorder;
mod service;
mod station;
mod street;
mod switch;
mod wire;
mod world;

pub use bytes::{Digest, receive, send};
pub use clock::{Stopwatch, eventually, holds_for};
pub use command::{Cmd, Done, Running};
pub use kernel::{Kernel, Nat, mute};
pub use namespace::{Enter, Netns};
pub use needs::{installed, skip};
pub use recorder::Recorder;
pub use service::{Service, echo_udp, serve_tcp, serve_udp};
pub use station::Station;
pub use street::Street;
pub use switch::{Container, Switch};
pub use wire::{Mac, Wire};
pub use world::{Person, World};

/// The switch's subnet in every test that names no other.
pub const SUBNET: &str = "10.88.0.0/24";
/// The switch's gateway address.
pub const GATEWAY: &str = "10.88.0.1";
/// The address of `gw`, the host that the switch runs on.
pub const HOST: &str = "10.201.0.2";
/// The router's address towards `gw`.
pub const ROUTER: &str = "10.201.0.1";
/// The server in `inet`.
pub const INET: &str = "198.51.100.10";
/// The server's second address, on a [`Street`] only.
pub const INET_OTHER: &str = "198.51.100.11";
/// The host behind a link with an MTU of 1280 bytes, on a [`Street`] only.
pub const FAR: &str = "203.0.113.1";
/// The address of whoever translates between containers and a [`Street`].
pub const UPLINK: &str = "192.0.2.2";
/// The router on a [`Street`].
pub const NEXT_HOP: &str = "192.0.2.1";
/// An address on the server's LAN at which there is nobody.
pub const NOBODY: &str = "198.51.100.99";
/// A TCP and UDP port of the server at which a firewall drops everything.
pub const SILENT_PORT: u16 = 7777;
