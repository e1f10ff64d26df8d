//! Which frames to show: the filter of `tapswitch trace` and `tapswitch capture`.
//!
//! The language is a part of tcpdump's, with the same words, the same precedence and the same abbreviations, and four
//! primitives for what only the switch knows: `container`, `drop`, `reason` and `flow`. What tcpdump takes and this
//! does not is refused with the place and what could stand there, and nothing is taken in another meaning than those
//! named under [Differences](#differences-from-tcpdump).
//!
//! # Primitives
//!
//! DIR is one of `src`, `dst`, `src or dst` and `src and dst`; without it, `src or dst` is meant.
//!
//! | primitive | true if |
//! |---|---|
//! | `[ip\|ip6\|arp] [DIR] host ADDRESS` | the packet's source or destination is that IPv4 or IPv6 address; in an ARP packet, the sender's or the target's. With a direction, `host` may be left out: `src 10.0.0.1` |
//! | `[ip\|ip6\|arp] [DIR] net ADDRESS/LENGTH` | it lies in that network. `net 10` is `net 10.0.0.0/8`, `net 10.1` is `net 10.1.0.0/16`, `net 10.1.2` is `net 10.1.2.0/24` |
//! | `[tcp\|udp\|sctp] [DIR] port NUMBER` | the TCP, UDP or SCTP port is that one. A port of the switch is a `container` |
//! | `[tcp\|udp\|sctp] [DIR] portrange FIRST-LAST` | it is one of these, both ends included |
//! | `ether [DIR] host MAC` | the MAC address is that one: `ether src 02:42:0a:00:00:02` |
//! | `ether proto TYPE` | the EtherType is `ip`, `ip6`, `arp`, `rarp` or a number from 0x600 to 0xffff |
//! | `[ether] broadcast`, `[ether] multicast` | the destination MAC address is the broadcast address, or has the group bit |
//! | `ip`, `ip6`, `arp` | the frame carries that |
//! | `[ip\|ip6] proto PROTOCOL` | the IP protocol is that one, by number or name: `ip proto 47` |
//! | `tcp`, `udp`, `sctp`, `icmp`, `icmp6` | as `proto tcp`, `proto udp`, `proto sctp`, `ip proto icmp`, `ip6 proto icmp6` |
//! | `ip broadcast` | the IPv4 destination is 255.255.255.255 or 0.0.0.0 |
//! | `ip multicast`, `ip6 multicast` | the first byte of the destination is at least 224; is 255 |
//! | `vlan [ID]` | the frame has a VLAN tag; its outermost one has that identifier |
//! | `less N`, `greater N` | the frame has at most, at least N bytes. A super-frame counts whole |
//! | `[DIR] container NAME` | the frame entered by a port of that container (`src`), left by one (`dst`), either, or both |
//! | `drop` | the frame went no further |
//! | `reason NAME` | it was dropped for that reason, as `ttl-exceeded` |
//! | `flow ID` | it belongs to the flow of that number |
//!
//! Numbers are decimal, or hexadecimal behind `0x`. A backslash makes a value of any word, as in tcpdump: `ether proto
//! \arp` is `ether proto arp`, and a container that is called *not* is `container \not`.
//!
//! # Joining them
//!
//! - `not` or `!` binds tightest.
//! - `and` or `&&`, and `or` or `||`, bind *alike* and *from the left*: `arp or tcp and port 80` means `(arp or tcp) and
//!   port 80`. Parentheses make it `arp or (tcp and port 80)`; a shell wants them quoted.
//! - A bare value takes all qualifiers of the primitive before it: `tcp dst port 80 or 443` is `tcp dst port 80 or tcp
//!   dst port 443`, and `host 10.0.0.1 and not 10.0.0.2` is `host 10.0.0.1 and not host 10.0.0.2`. Behind a parenthesis
//!   these are the qualifiers from before it. A primitive without a value (`tcp`, `drop`) and `vlan`, `less` and
//!   `greater` have none to pass on.
//! - Several values may stand in parentheses: `port (80 or 443)`, `src container (web or db)`.
//! - A filter without a word takes every frame.
//!
//! At most [`MAX_LEN`] bytes, [`MAX_TESTS`] primitives and [`MAX_NESTING`] parentheses within one another.
//!
//! # What is looked at
//!
//! The frame as it entered. A packet that was translated on its way is found by the addresses it had before. Of an
//! ICMP error only the outer header counts, not the packet that it quotes. A fragment other than the first has a
//! protocol but no ports; neither has a transport header that is cut short. An IP header that is broken has a type
//! (`ip`) but neither addresses nor a protocol.
//!
//! # Differences from tcpdump
//!
//! - A VLAN tag hides nothing: `host` and all others look behind up to two tags, and `vlan` changes no meaning of what
//!   follows it.
//! - Behind IPv6 extension headers too, `tcp`, `port` and `ip6 proto` see the transport protocol. `ip6 proto` also sees
//!   the first extension header: `ip6 proto 44` finds fragments.
//! - An ARP packet has addresses only if it speaks of IPv4 on Ethernet, and RARP has none.
//! - What a frame is too short for is not true of it, and no more than that: `not port 80` is true of a packet without
//!   ports, however short. In tcpdump a read behind the end rejects the packet.
//! - `ip broadcast` knows no subnets: for those, ask for `ether broadcast and ip`.
//! - Addresses, ports and networks are numbers; nothing is looked up. `host 10.1` is no address, and `net` has no `mask`.
//! - Not taken: comparisons such as `tcp[13] & 2 != 0`, `gateway`, and all that is about other links and protocols.
//!
//! # Theory of operation
//!
//! [`Filter::parse`] reads an expression; [`Filter::resolve`] asks which ports the containers named in it have, and
//! compiles it. A [`Compiled`] filter judges a frame in two steps, since what became of it is known only at the end:
//! [`Compiled::first`] when it enters, and [`Compiled::last`] when it has ended. [`Tri::Yes`] and [`Tri::No`] are final:
//! the last step would say the same. [`Tri::Later`] comes only from a filter that [needs the
//! outcome](Compiled::needs_outcome), and not if the rest has settled the matter: `tcp and drop` is [`Tri::No`] at once
//! for an ARP packet. Neither step allocates, and neither takes more than one turn per primitive.
//!
//! ```
//! use tapswitch_filter::{Filter, Outcome, Seen, Tri};
//! use tapswitch_wire::{DropReason, FrameRef, Meta, PortId, Verdict};
//!
//! let filter = Filter::parse("arp and src container web and drop")?;
//! let filter = filter.resolve(|name| (name == "web").then(|| vec![PortId(1)]))?;
//!
//! let mut bytes = [0; 60];
//! bytes[12..14].copy_from_slice(&[0x08, 0x06]);
//! let frame = FrameRef::parse(Meta::PLAIN, &bytes).unwrap();
//! assert_eq!(filter.first(&frame, &Seen { port: PortId(2) }), Tri::No);
//! let seen = Seen { port: PortId(1) };
//! assert_eq!(filter.first(&frame, &seen), Tri::Later);
//! let outcome = Outcome { verdict: Verdict::Drop(DropReason::ArpNotForUs), flow: None, out: &[] };
//! assert!(filter.last(&frame, &seen, &outcome));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod ast;
mod error;
mod parse;
mod program;
mod token;
mod value;

pub use error::{FilterError, UnknownContainer, nearest};

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use tapswitch_wire::{FrameOf, PortId, Verdict};

use ast::Op;
use program::Program;

/// The longest expression, in bytes. The canonical form of any filter fits.
pub const MAX_LEN: usize = 65_536;

/// The most primitives in one expression.
pub const MAX_TESTS: usize = 512;

/// The most parentheses within one another.
pub const MAX_NESTING: usize = 64;

/// An expression that has been understood. Two are equal if they ask the same questions joined in the same way.
///
/// Its [`Display`](fmt::Display) is the canonical form, in which every qualifier is spelled out; parsing that gives the
/// same filter. The default filter takes every frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// In postfix order.
    ops: Vec<Op>,
}

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    /// A [`FilterError`] that shows the first place where it is wrong.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        parse::parse(text).map(|ops| Filter { ops })
    }

    /// Makes it ready to run. `ports` gives the ports of the container of that name, and `None` if there is none; one
    /// that is there without a port is never seen. It is asked again for each time that a name occurs.
    ///
    /// A port that comes or goes later is not noticed: resolve again.
    ///
    /// # Errors
    /// [`UnknownContainer`] with the first name that `ports` does not know.
    pub fn resolve(&self, mut ports: impl FnMut(&str) -> Option<Vec<PortId>>) -> Result<Compiled, UnknownContainer> {
        let mut ports = |name: &str| ports(name).ok_or_else(|| UnknownContainer { name: name.to_owned() });
        Program::compile(&self.ops, &mut ports).map(|program| Compiled { program })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ast::canonical(&self.ops))
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Filter::parse(text)
    }
}

/// What is known of a frame when it enters, beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The port by which it entered.
    pub port: PortId,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome<'a> {
    /// How it ended.
    pub verdict: Verdict,
    /// The flow it belongs to, if it belongs to one.
    pub flow: Option<u64>,
    /// Every port it left by, in any order: that of [`Verdict::Forward`] too, which is not looked at here.
    pub out: &'a [PortId],
}

/// An answer that may have to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tri {
    /// The frame is wanted, whatever becomes of it.
    Yes,
    /// The frame is not wanted, whatever becomes of it.
    No,
    /// Only the outcome tells.
    Later,
}

impl From<bool> for Tri {
    fn from(answer: bool) -> Tri {
        if answer { Tri::Yes } else { Tri::No }
    }
}

/// A filter that is ready to run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compiled {
    program: Program,
}

impl Compiled {
    /// Whether it asks for anything that is known only at the end: `drop`, `reason`, `flow`, or the container that a
    /// frame leaves to. Without that, [`first`](Compiled::first) is never [`Tri::Later`].
    pub fn needs_outcome(&self) -> bool {
        self.program.needs_outcome()
    }

    /// Judges a frame that enters, before anything has changed it.
    #[inline]
    pub fn first<B: Deref<Target = [u8]>>(&self, frame: &FrameOf<B>, seen: &Seen) -> Tri {
        self.program.run(frame, seen, None)
    }

    /// Judges a frame, as it entered, with what became of it.
    #[inline]
    pub fn last<B: Deref<Target = [u8]>>(&self, frame: &FrameOf<B>, seen: &Seen, outcome: &Outcome<'_>) -> bool {
        self.program.run(frame, seen, Some(outcome)) == Tri::Yes
    }
}
