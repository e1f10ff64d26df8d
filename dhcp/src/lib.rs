//! What a container asks its gateway for: addresses and leases (DHCP for IPv4, RFC 2131 and 2132).
//!
//! # Theory of operation
//!
//! **Goal.** Every station of one network gets an address of its subnet, the same one each time, and keeps it over any
//! crash of this program; no address is ever given to two. [`Server`] takes frames, names, and the time, and gives
//! journal lines, reply frames and the next deadline. It has no descriptor, thread or clock.
//!
//! **Who is who.** A DHCP client is its option 61 or, without it, hardware type and address (4.2). That claim is
//! not proof: the hardware address must be the source of the frame, and a lease is honoured behind another port than
//! its holder's only for the same hardware address. A container that the switch configures itself has a *reservation*,
//! which goes by name, and by hardware address for DHCP.
//!
//! **Data structures.** One table with a row for each address in use or remembered, found by address, client, hardware
//! address, name and expiry; addresses never used are kept as ranges, so a /8 costs no more than a /30. The journal is
//! one JSON object per line, the last one about an address holds; it is written before the reply leaves, and
//! an offer is not written. [`Server::snapshot`] gives a journal that replaces a grown one.
//!
//! **States of an address.**
//!
//! | state | enters by | leaves by |
//! |---|---|---|
//! | (no row) | never used, forgotten | offered, bound, reserved |
//! | offered | DISCOVER | bound: REQUEST; declined: DECLINE; back: time over, REQUEST to another server, port gone |
//! | bound | REQUEST | released: RELEASE, time over; declined: DECLINE; reserved: same hardware address |
//! | bound, port gone | port gone, restart | as bound; offered, reserved: nothing else left |
//! | reserved | [`Server::reserve`] | released: [`Server::release`] |
//! | declined | DECLINE | released: time over |
//! | released | as above | any of the above; no row: too many remembered |
//!
//! **Timers.** An offer lasts [`Config::offer_time`] (RFC 2131 leaves it open; 60 s). A lease lasts what the client
//! asks for, clamped to [`Config::max_lease_time`], or [`Config::lease_time`]; T1 is 0.5 and T2 0.875 of it (4.4.5). A
//! quarantine lasts [`Config::quarantine`]. They run in monotonic time; the journal has calendar time, rounded up, and
//! a restart believes it only as far as the lease was granted for.
//!
//! **Which address.** The client's own, present or past; the one it asks for, if free; the lowest never used; the one
//! released longest ago (4.3.1); and when none of these is left, the bound one whose port has been gone longest: its
//! station has lost its interface, so it cannot use the address. After a restart no station has a port until it is heard
//! of again. Addresses are not probed, see `reserve`.
//!
//! **When full.** A port holds at most [`Config::max_leases_per_port`] offered, bound and declined addresses
//! ([`DropReason::DhcpLimit`](tapswitch_wire::DropReason::DhcpLimit)); without a free address a DISCOVER is not
//! answered ([`DropReason::DhcpPoolExhausted`](tapswitch_wire::DropReason::DhcpPoolExhausted)). Nothing that a station behind a
//! port holds is ever taken away to make room. At most 4096 released addresses are remembered, the one released longest
//! ago is forgotten.
//!
//! **Messages.** What is not well formed is dropped without an answer, what is for another server is ignored. A reply
//! is never larger than the client accepts (option 57, 576 if it says nothing) or the MTU; options that do not fit go
//! into `file` and `sname`, and at last are left out, the least wanted first. A client that renews an address which
//! nobody holds keeps it, even if its lease is not on record.
//!
//! **The other end.** Where our router is itself a guest, on the LAN that its uplink leads to, [`client`] gets it an
//! address and keeps it. It shares no state with the server; its theory stands there.
#![forbid(unsafe_code)]

mod answer;
pub mod client;
mod config;
mod journal;
mod lease;
mod message;
mod ranges;
mod reply;
mod reserve;
mod server;
mod table;

pub use config::Config;
pub use lease::{LeaseView, State};
pub use reserve::{Reservation, ReserveError};
pub use server::{Restored, Server};
