//! Everything in tapswitch that holds a descriptor: TAP devices, namespaces, the poll loop, captures, cables.
//!
//! # Theory of operation
//!
//! *Goal.* The cores (switch, gateway, relay engine) take frames and the time and give frames; they own no descriptor.
//! This crate is the other side: it gets descriptors, waits on them, and moves frames between them and memory, one
//! system call per frame and nothing else.
//!
//! *A port* ([`Port`]) is whatever frames come from and go to. [`tap::Tap`] is a container's interface, or one of the
//! host that [`uplink`] opened (a packet socket, a macvtap, a TUN); [`cable`] joins two ports in memory, and [`fault`] and
//! [`capture`] wrap any port: the one loses and damages frames with a seeded generator, the other writes all it sees to a
//! pcapng file. Wrappers stack.
//!
//! *How a TAP comes to be.* [`netns`] opens the device in a scratch namespace and moves it into the container's, in a
//! short-lived child ([`pass::in_child`]) that hands the descriptor back over a socket ([`pass`]). [`process`] makes the
//! namespaces of a container of our own. The daemon itself never enters a namespace: it only receives descriptors.
//!
//! *Waiting.* [`poller`] wraps edge-triggered polling with a list of ports that may have more to read, serves them in
//! turns, and blocks only when that list is empty.
//!
//! *State of a port that is a device.*
//!
//! | state | rx | tx | leaves it when |
//! |---|---|---|---|
//! | up | frames, then `WouldBlock` | written | the container sets the interface down, or dies |
//! | down | `WouldBlock` | `PortDown` | the container sets it up again |
//! | gone | `Gone` | `PortDown` | never: the kernel deleted the device, alone or together with its namespace |
//!
//! Of a macvtap and a packet socket the kernel does not tell that they are gone: reading says `WouldBlock`, and a
//! macvtap even takes what is written and loses it. [`intake::Intake`] asks, once a second at the latest, and says `Gone`.
//!
//! *When something is full.* A TAP whose queue is full refuses the frame (`TxFull`); a cable does the same at its bound;
//! nothing here waits for a slow port. Frames that the container sends faster than they are read wait in the kernel
//! (1000 of them) and are then dropped there, counted by the container's own interface.
//!
//! *Unsafe code.* This is the only crate of the workspace that may hold any: ioctls, socket options and control messages
//! that no library wraps, taking ownership of a descriptor that a message brought, memory that io_uring fills, and
//! `fork`. Each block says why it is sound. Kernel behaviour that the design relies on is pinned by `tests/kernel`.

pub mod cable;
pub mod capture;
pub mod doorbell;
mod error;
pub mod fault;
pub mod intake;
pub mod netns;
mod packet;
pub mod pass;
pub mod poller;
mod port;
pub mod process;
mod random;
mod ring;
pub mod routes;
mod rtnetlink;
pub mod socket;
mod sys;
pub mod tap;
#[cfg(test)]
mod testing;
mod tun;
pub mod uplink;

pub use error::LinkError;
pub use port::{Buffer, Port, Rx};
