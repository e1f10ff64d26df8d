//! What a filter asks, and how that is written down.
//!
//! An expression is kept in postfix order, not as a tree: comparing, printing, dropping and compiling it are loops, so
//! no expression is too deep for them.

use std::fmt;
use std::net::IpAddr;

use tapswitch_wire::{DropReason, Mac, ethertype, protocol};

pub(crate) const AND: &str = "and";
pub(crate) const OR: &str = "or";
pub(crate) const NOT: &str = "not";

/// The number of SCTP.
pub(crate) const SCTP: u8 = 132;

/// Which end of a frame's way a primitive asks about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Dir {
    /// `src or dst`, which is also what no word means.
    #[default]
    Either,
    Src,
    Dst,
    /// `src and dst`.
    Both,
}

/// The layer whose addresses are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layer {
    Ip,
    Ip6,
    Arp,
}

/// An IP family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

/// One question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Primitive {
    /// `host`, and `net` with the length of its prefix. The bits behind the prefix are zero.
    Address {
        dir: Dir,
        layer: Option<Layer>,
        net: IpAddr,
        len: u8,
    },
    /// `port` and `portrange`, of one transport protocol or of all that have ports.
    Port {
        dir: Dir,
        protocol: Option<u8>,
        first: u16,
        last: u16,
    },
    /// `ether host`.
    Mac {
        dir: Dir,
        mac: Mac,
    },
    /// `ether proto`.
    EtherType(u16),
    /// `proto`, of one family or both.
    Protocol {
        family: Option<Family>,
        number: u8,
    },
    EtherBroadcast,
    EtherMulticast,
    IpBroadcast,
    IpMulticast(Family),
    /// `vlan`, with or without a VLAN identifier.
    Vlan(Option<u16>),
    /// At most so many bytes.
    Less(u32),
    /// At least so many bytes.
    Greater(u32),
    Container {
        dir: Dir,
        name: String,
    },
    Drop,
    Reason(DropReason),
    Flow(u64),
}

/// One step of an expression in postfix order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Ask(Primitive),
    Not,
    And,
    Or,
}

impl Dir {
    /// What the answers about the source and the destination mean together.
    #[inline]
    pub fn of(self, src: bool, dst: bool) -> bool {
        match self {
            Dir::Either => src || dst,
            Dir::Src => src,
            Dir::Dst => dst,
            Dir::Both => src && dst,
        }
    }
}

/// With the space that parts it from the next word.
impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dir::Either => "",
            Dir::Src => "src ",
            Dir::Dst => "dst ",
            Dir::Both => "src and dst ",
        })
    }
}

impl Layer {
    pub fn name(self) -> &'static str {
        match self {
            Layer::Ip => "ip",
            Layer::Ip6 => "ip6",
            Layer::Arp => "arp",
        }
    }

    /// Whether this layer has addresses of that kind.
    pub fn has(self, address: IpAddr) -> bool {
        (self == Layer::Ip6) == address.is_ipv6()
    }
}

/// The name that a protocol has as a primitive of its own.
fn protocol_name(family: Option<Family>, number: u8) -> Option<&'static str> {
    match (family, number) {
        (None, protocol::TCP) => Some("tcp"),
        (None, protocol::UDP) => Some("udp"),
        (None, SCTP) => Some("sctp"),
        (Some(Family::V4), protocol::ICMP) => Some("icmp"),
        (Some(Family::V6), protocol::ICMPV6) => Some("icmp6"),
        _ => None,
    }
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Primitive::Address { dir, layer, net, len } => {
                if let Some(layer) = layer {
                    write!(f, "{} ", layer.name())?;
                }
                match (net, len) {
                    (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => write!(f, "{dir}host {net}"),
                    _ => write!(f, "{dir}net {net}/{len}"),
                }
            }
            Primitive::Port { dir, protocol, first, last } => {
                if let Some(name) = protocol.and_then(|number| protocol_name(None, number)) {
                    write!(f, "{name} ")?;
                }
                match first == last {
                    true => write!(f, "{dir}port {first}"),
                    false => write!(f, "{dir}portrange {first}-{last}"),
                }
            }
            Primitive::Mac { dir, mac } => write!(f, "ether {dir}host {mac}"),
            Primitive::EtherType(ethertype::IPV4) => f.write_str("ip"),
            Primitive::EtherType(ethertype::IPV6) => f.write_str("ip6"),
            Primitive::EtherType(ethertype::ARP) => f.write_str("arp"),
            Primitive::EtherType(number) => write!(f, "ether proto {number:#06x}"),
            Primitive::Protocol { family, number } => match (protocol_name(*family, *number), family) {
                (Some(name), _) => f.write_str(name),
                (None, None) => write!(f, "proto {number}"),
                (None, Some(Family::V4)) => write!(f, "ip proto {number}"),
                (None, Some(Family::V6)) => write!(f, "ip6 proto {number}"),
            },
            Primitive::EtherBroadcast => f.write_str("ether broadcast"),
            Primitive::EtherMulticast => f.write_str("ether multicast"),
            Primitive::IpBroadcast => f.write_str("ip broadcast"),
            Primitive::IpMulticast(Family::V4) => f.write_str("ip multicast"),
            Primitive::IpMulticast(Family::V6) => f.write_str("ip6 multicast"),
            Primitive::Vlan(None) => f.write_str("vlan"),
            Primitive::Vlan(Some(vid)) => write!(f, "vlan {vid}"),
            Primitive::Less(len) => write!(f, "less {len}"),
            Primitive::Greater(len) => write!(f, "greater {len}"),
            Primitive::Container { dir, name } => {
                // What joins expressions would not be taken for a name.
                let escape = if matches!(name.as_str(), AND | OR | NOT) { "\\" } else { "" };
                write!(f, "{dir}container {escape}{name}")
            }
            Primitive::Drop => f.write_str("drop"),
            Primitive::Reason(reason) => write!(f, "reason {reason}"),
            Primitive::Flow(id) => write!(f, "flow {id}"),
        }
    }
}

/// Writes an expression in canonical form: every qualifier spelled out, the words and not the signs, no parenthesis
/// without need, nothing negated twice.
pub(crate) fn canonical(ops: &[Op]) -> String {
    // Each entry is a part of the expression, and whether an operator joins it.
    let mut parts: Vec<(String, bool)> = Vec::new();
    for op in ops {
        let word = match op {
            Op::Ask(primitive) => {
                parts.push((primitive.to_string(), false));
                continue;
            }
            Op::Not => {
                if let Some((part, joined)) = parts.last_mut() {
                    *part = if *joined { format!("{NOT} ({part})") } else { format!("{NOT} {part}") };
                    *joined = false;
                }
                continue;
            }
            Op::And => AND,
            Op::Or => OR,
        };
        if let (Some((right, right_joined)), Some((left, joined))) = (parts.pop(), parts.last_mut()) {
            *joined = true;
            // The left one needs no parentheses: both operators bind alike and from the left.
            let (open, close) = if right_joined { ("(", ")") } else { ("", "") };
            left.extend([" ", word, " ", open, &right, close]);
        }
    }
    parts.pop().map(|(text, _)| text).unwrap_or_default()
}
