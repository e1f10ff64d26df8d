//! The learning switch of tapswitch: learn, age, move, forward, flood, isolate (IEEE 802.1D-2004 clause 7). No I/O.
//!
//! # Theory of operation
//!
//! **Goal.** [`Switch::decide`] takes one frame and names the ports that it leaves by. The caller moves the bytes and
//! reports back ([`Switch::sent`], [`Switch::dropped`]), so every counter of a port is kept in one place. A frame ends
//! either in at least one port or in one [`DropReason`]; it names no port twice and never the one it came from.
//!
//! **Steps.** In this order, and the first that objects ends the frame:
//!
//! 1. *Ingress*: the port is attached; VLAN 4095 is reserved. Tags are neither read further nor changed: all VLANs are
//!    one, and the tag is relayed as it came.
//! 2. *Source*: it is a single station.
//! 3. *Reserved*: 01-80-C2-00-00-00 to -0F and MAC control frames (PAUSE) belong to the link and are not relayed.
//! 4. *Learn*: the source stands behind this port, unless it is pinned to another one: then somebody impersonates it,
//!    and the frame ends here. A frame that was dropped before this step teaches nothing.
//! 5. *Look up*: a known unicast destination has one port. Everything else is flooded: broadcast, every other
//!    multicast, unknown unicast.
//! 6. *Egress*: two isolated ports never exchange frames (the gateway is never isolated), and a packet, or each
//!    segment of a super-frame, fits the port's MTU. Nothing is cut and nothing fragmented. A flood leaves out the
//!    ports that cannot take the frame and counts [`DropReason::AboveMtu`] on each of those.
//!
//! **Data.** [`Fdb`] maps an address to its port. Poll threads share one, each through a [`Switch`] of its own. It is a
//! sharded concurrent map out of which entries are copied; no guard is held over a second call into the map. In front
//! of it each switch has a small direct-mapped cache. The FDB counts a *generation* up after every change that could
//! make a cached entry wrong, and a cached entry holds only for the generation read before it was copied. So a frame
//! between two known stations costs two cache hits and no lock. Whoever makes the generation run (a station that flaps
//! between two ports) costs the others a shard's read lock for each look-up, and nothing else. Both hashes are keyed at
//! random, so nobody can choose addresses that meet in one shard or one slot.
//!
//! **States of an address.**
//!
//! | state | seen from port P | seen from port Q | nothing for the ageing time | `pin` | `unpin` |
//! |---|---|---|---|---|---|
//! | unknown | learned on P | learned on Q | - | static | - |
//! | learned on P | refreshed | learned on Q: a move | unknown | static | - |
//! | static on P | - | frame dropped | - | static on the new port | unknown |
//!
//! Removing a port makes every address behind it unknown at once, static ones too, for the port's number may be
//! given to somebody else.
//!
//! **Timers.** A learned entry is forgotten 300 s ([`Config::ageing`]) after the last frame *from* the station (7.9.2,
//! Table 7-5); frames *to* it do not keep it alive. Times have a resolution of one second: an entry is never forgotten
//! early and at most one second late, and a station's entry is written at most once a second. [`Switch::deadline`] is
//! the earliest second in which an entry can run out; without learned entries there is none. An entry that ran out is
//! not used any more even if [`Switch::poll`] comes late.
//!
//! **When full.** At most [`Config::max_entries`] addresses are learned, at most [`Config::max_entries_per_port`] of them
//! behind one port. Both bounds are exact, also with several threads. A new address beyond them is not learned, which is
//! counted; its frames are forwarded all the same, and frames to it are flooded. Nobody's entry is evicted to make
//! room. Known stations stay known and may move to a port that has room. Static entries are the owner's and count
//! against neither bound. There are at most [`MAX_PORTS`] ports.
//!
//! **Order.** A decision depends on nothing but the frames before it, and hands on one frame at a time, so frames of
//! one station to another stay in order as long as one thread reads the station's port.
//!
//! ```
//! use tapswitch_switch::{Config, PortConfig, Switch};
//! use tapswitch_wire::{Frame, Instant, Meta, PortId, Unheard};
//!
//! let mut switch = Switch::new(Config::default());
//! for port in 1..=3 {
//!     switch.add_port(PortId(port), PortConfig { mtu: 1500, isolated: false });
//! }
//! let mut bytes = [0; 60];
//! bytes[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1]);
//! let frame = Frame::parse(Meta::PLAIN, &mut bytes).unwrap();
//! let mut out = Vec::new();
//! switch.decide(PortId(1), &frame, Instant::ZERO, &mut Unheard, &mut out).unwrap();
//! assert_eq!(out, [PortId(2), PortId(3)]);
//! assert_eq!(switch.fdb(Instant::ZERO)[0].port, PortId(1));
//! ```
//!
//! [`DropReason`]: tapswitch_wire::DropReason
//! [`DropReason::AboveMtu`]: tapswitch_wire::DropReason::AboveMtu
#![forbid(unsafe_code)]

mod cache;
mod fdb;
mod ports;
mod switch;

pub use fdb::{Fdb, FdbEntry};
pub use ports::{MAX_PORTS, PortConfig, PortCounters};
pub use switch::{Config, Switch};
