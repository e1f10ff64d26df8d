//! Connection tracking and translation of one network's packets (RFC 4787, 5382, 5508, 6888, 7857).
//!
//! # Theory of operation
//!
//! **Goal.** A packet comes in from one of two realms, inside or outside, and [`Conntrack`] says what becomes of it:
//! new addresses and ports, and the realm where it goes out; or that it goes no further, and whether its sender is
//! told. It owns no descriptor, clock or thread. The time is an argument, random choices follow from a secret, and the
//! same calls give the same answers. Every poll thread calls it at the same time as the others.
//!
//! **Limits.** IPv4 only; one outside address; TCP, UDP and ICMP echo, with ICMP errors about them. No payload is
//! looked at. It routes nothing and knows no neighbours: whoever calls it finds the next hop, and may note its MAC
//! address here.
//!
//! # Words
//!
//! A *session* is a flow with its two tuples, one for each direction, each as its packets come in. A *mapping* is an
//! inside endpoint with the outside port that stands for it; several sessions use one, and it goes with the last of
//! them. A *forward* is a range of outside ports that leads to a container. The *owner* of a session is the container
//! that pays for it; what the outside begins towards a container is paid for from an allowance of its own.
//!
//! # The way of a packet
//!
//! *The fast way*, [`Conntrack::pass`]: nearly every packet. Its tuple is looked up, the session found is counted and its
//! time to live noted, and the rewrite that was worked out when it began is applied: addresses, ports and two
//! additions for each checksum. The next hop's MAC address comes with it. A packet that needs more gets `None` and is
//! untouched: no session, a fragment, options, a TTL at its end, too large, a wrong header checksum, a next hop not
//! heard of for a few seconds, or leaving without DF, since it gets another identification then.
//!
//! *The slow way*: [`Conntrack::admit`] finds the session or makes one. A packet without a session is held, in this order,
//! against: may it begin one at all (from outside TCP needs a SYN); the forwards, the mappings and their filter; the
//! owner's quotas and the size of the table; the free ports. What is refused has taken nothing. ICMP errors go by
//! [`Conntrack::related`], which changes nothing. Fragments go by [`fragment`], which asks here for the first one of a
//! datagram only. What was rewritten and could not be sent after all, [`Conntrack::restore`] makes what it was, for an
//! error to its sender.
//!
//! # Data
//!
//! | what | holds | guarded by |
//! |---|---|---|
//! | index | both tuples of each session, as numbers: 64 shards by a keyed hash | a read-write lock for each shard |
//! | slots | the sessions, by number, in chunks that never move | a mutex for each session |
//! | next hops | MAC addresses, good for 4 s; their numbers | atomics; a mutex for numbers |
//! | control | forwards, mappings, ports, quotas, timers, free slots | one mutex |
//!
//! **Order of locks**: control, then a shard of the index, then a session; never the other way. The fast way reads a
//! shard and holds one session meanwhile. It takes the control lock only after both are released, and only for the few
//! packets that make a TCP session's timer shorter: the second FIN, a RST that is believed, a SYN that begins
//! anew. Two threads that both see the first packet of a flow make one session, since all
//! of `admit` is one step under the control lock.
//!
//! **No timer work per packet.** A packet writes into its session the second until which that lives, and that is all.
//! Each session hangs on a wheel of seconds, where it was hung last; when that second has come, [`Conntrack::poll`]
//! ends it or hangs it up again where its last packet meant. A session thus moves once in each idle time, however
//! many packets it has. Only a timer that becomes shorter moves it at once. A session whose second
//! has passed counts as gone, whether or not it was looked at yet.
//!
//! **Memory.** A session takes 128 bytes with its lock: two rewrites, which hold its tuples, counters, and for TCP 40
//! bytes of tracker. With its two entries in the index, its link on the wheel and its part of a mapping that is 194.5
//! bytes, counted at a million sessions by `tests/memory.rs`, which allows 200.
//!
//! # What happens when it is full
//!
//! Nothing is ever evicted: what is new is refused. Who is inside is told, the outside is not.
//!
//! | what | bound | when full |
//! |---|---|---|
//! | sessions | [`Limits::sessions`] | `session-table-full` |
//! | sessions of an owner; those begun by the outside apart | [`Limits::owner_sessions`] | `session-limit` |
//! | new sessions of an owner in a second | [`Limits::owner_rate`] | `session-rate` |
//! | outside ports of an owner, for each protocol | [`Limits::owner_ports`] | `port-limit` |
//! | outside ports, for each protocol; so mappings, too | [`Config::port_range`] | `ports-exhausted` |
//! | a tuple that another session has | - | `ports-exhausted` |
//! | peers of mappings, for address-dependent filtering | one for each session at most | - |
//! | forwards | the ports they take, none of which two have | an error for whoever asks |
//! | next hops that are noted | 8192 | later ones ask the neighbour table for each packet |
//! | fragments | [`fragment::Limits`] | see [`fragment`] |
//!
//! # States of a session
//!
//! UDP and echo have none. TCP's, and which timer each deserves, stand in [`tcp`].
//!
//! # Timers
//!
//! | timer | default | required by |
//! |---|---|---|
//! | UDP | 300 s | RFC 4787 REQ-5: at least 120 s, 300 s recommended |
//! | TCP, established or closed by one side | 7440 s | RFC 5382 REQ-5: at least that |
//! | TCP, opening, closing or reset | 240 s | RFC 5382 REQ-5, RFC 7857 2: at least that |
//! | ICMP echo | 60 s | RFC 5508 REQ-2: at least that |
//! | a freed port rests before another owner gets it | 120 s | RFC 6888 REQ-8 |
//! | a next hop's MAC address | 4 s | our own: its neighbour entry must be asked before it goes stale |
//!
//! The packets of both directions prolong a session. A RST does not (RFC 7857 7.1), nor does an ICMP error (RFC 5508
//! REQ-6), nor anything that the filter or a limit refuses.
#![forbid(unsafe_code)]

mod config;
mod conntrack;
mod control;
mod copy;
pub mod fragment;
mod hops;
mod index;
mod mapping;
mod pool;
mod quota;
mod session;
pub mod tcp;
mod tuple;
mod wheel;

pub use config::{Config, Dependence, Forward, Limits, PortChoice, Timers};
pub use conntrack::{Conntrack, Passed, Refusal, Related, Way};
pub use control::ForwardError;
pub use quota::Usage;
pub use session::{Reason, SessionId, SessionView};
pub use tuple::{Protocol, Realm, Tuple};

/// Which way a packet of a session goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// As the packet that began the session.
    Original,
    /// The other way.
    Reply,
}

impl Direction {
    /// The other one.
    pub const fn other(self) -> Direction {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }
}
