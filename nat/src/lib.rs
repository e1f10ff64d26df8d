//! The gateway of one network: what answers at its address, and what routes between the LAN and the uplink.
//!
//! # Theory of operation
//!
//! **Goal.** Containers see an ordinary router: it answers ARP and ping for its own address, decrements the time to
//! live, says with ICMP errors why a packet went no further, and finds the hosts of its LAN by ARP. It owns no
//! descriptor, clock or thread: frames and the time go in, frames and an [`Outcome`] come out, and
//! [`Gateway::deadline`] says when [`Gateway::poll`] has something to do. The same inputs give the same outputs.
//!
//! **A frame** that the switch hands to the gateway's port passes, in this order: the link (is it for our MAC address
//! or for everybody?), the IPv4 header (lengths, checksum, options), the destination's class, the source, and then
//! either a service of our own address or a route. It ends in one [`Outcome`]. What the gateway answers itself is
//! answered in the frame's own buffer (echo) or in one scratch buffer that serves all frames; nothing is allocated for
//! a frame that is forwarded.
//!
//! **Routes.** What is for a host of the LAN, or for a subnet behind a router of the LAN ([`Config::routes`]), goes
//! back onto it. What is for another network that may be reached ([`Config::peers`]) ends as [`Outcome::Peer`]. All
//! else is the uplink's.
//!
//! **Uplink.** [`Outcome::Uplink`] means that addresses, header checksum and options were checked and that the time to
//! live was decremented, unless the packet is for a service at our own address. The transport checksum was *not*
//! looked at. The uplink reports a failure through [`Gateway::icmp_error`], so that the rules for ICMP errors hold in
//! one place.
//!
//! **The other side.** A packet uplink has a second gateway, at our address on the uplink's LAN
//! ([`Config::translated`]). There nothing is routed: every packet that is sound ends as [`Outcome::Inbound`], with
//! its time to live as it came, and is the translator's to judge. What the translator finds to be for our own address
//! comes back by [`Gateway::handle_own`], which answers pings and is silent to all else. Packets whose next hop stays
//! silent go back to the translator ([`Gateway::take_given_up`]): only there is known whom to tell. On a link without
//! addresses ([`Config::point_to_point`]) there is one neighbour and no ARP.
//!
//! **Limits.** IPv4 only; IPv6 frames end as [`Ipv6NotRouted`](tapswitch_wire::DropReason::Ipv6NotRouted), though the
//! tables could hold either family. Nothing is fragmented or reassembled: a packet above the MTU of the LAN that is
//! routed back onto it is dropped, with an ICMP error if it carries DF, and fragments for our own address are refused.
//! No redirects, source quench, timestamp or mask replies are sent (RFC 6633, RFC 6918). Frames of a VLAN other than
//! the untagged one are not the gateway's.
//!
//! # Data and what happens when it is full
//!
//! | what | bound | when full |
//! |---|---|---|
//! | neighbour entries | 4096 | the stale one that was confirmed longest ago gives way; if none is stale, ARP is answered without an entry, and a packet for a new neighbour is refused: `neighbour-table-full` |
//! | entries with one MAC address | 64 | that station's own oldest entry gives way |
//! | packets waiting for one neighbour | 3 that stations of the LAN sent, and 128 others | the oldest of its kind gives way, since the latest is to be kept (RFC 1122 2.3.2.2): `neighbour-queue-full` |
//! | packets waiting that one station sent | 16 | the new one is refused: `neighbour-queue-full` |
//! | packets waiting in all | 256 and 1 MiB, half of both once the sender is on the LAN | the new one is refused: `neighbour-queue-full` |
//! | ICMP error budgets | 1024 buckets, found by a keyed hash of the source | sources whose hashes collide share a budget |
//!
//! # States of a neighbour
//!
//! | state | meaning | left when |
//! |---|---|---|
//! | incomplete | asked for by broadcast, at least one packet waits | ARP from it: reachable, and the packets go out; 3 s without: forgotten, and each packet's sender on the LAN gets ICMP 3/1 |
//! | reachable | ARP came from it less than 60 s ago | 60 s without ARP from it: stale |
//! | stale | still used, but each use asks it directly, at most once a second | ARP from it: reachable; used again after three unanswered questions: incomplete |
//!
//! A new entry is made only by our own question or by ARP that asks for us; any ARP of its owner completes it, renews it
//! or changes its MAC address (RFC 826, "merge").
//!
//! # Timers
//!
//! | timer | value | required by |
//! |---|---|---|
//! | neighbour goes stale | 60 s | RFC 1122 2.3.2.1 |
//! | between requests to one neighbour | 1 s | RFC 1122 2.3.2.1 |
//! | packets wait at most | 3 s | RFC 1812 4.3.3.1 leaves the time open |
//! | between defences of our address | 10 s | RFC 5227 2.4 |
//! | between two announcements | 2 s | RFC 5227 1.1, `ANNOUNCE_INTERVAL` |
//! | ICMP errors to one source | 50 at once, then 100 a second | RFC 1812 4.3.2.8 |
#![forbid(unsafe_code)]

mod address;
mod arp;
mod gateway;
mod icmp;
mod ipv4;
mod limit;
mod local;
mod neighbour;
mod waiting;

pub use gateway::{Config, Gateway, Outcome, Peer, Service};
pub use icmp::IcmpError;
pub use neighbour::{NeighbourState, NeighbourView};
