//! Values, and the qualifiers that say how to read them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tapswitch_wire::{DropReason, Mac, ethertype};

use crate::ast::{Dir, Family, Layer, Primitive, SCTP};
use crate::error::nearest;
use crate::parse::KEYWORDS;

/// The longest name that a container may have.
const MAX_NAME: usize = 63;

/// All words of a primitive but its value. A bare value takes those of the primitive before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Head {
    Address { dir: Dir, layer: Option<Layer>, net: bool },
    Port { dir: Dir, protocol: Option<u8>, range: bool },
    Mac(Dir),
    EtherType,
    Protocol { family: Option<Family> },
    Container(Dir),
    Reason,
    Flow,
}

/// Why a word is no value of a head.
pub(crate) struct Wrong {
    pub expected: &'static [&'static str],
    pub meant: Option<String>,
}

/// Names of EtherTypes.
const ETHERTYPES: &[(&str, u16)] =
    &[("ip", ethertype::IPV4), ("ip6", ethertype::IPV6), ("arp", ethertype::ARP), ("rarp", 0x8035)];

/// Names of IP protocols, as IANA assigns the numbers.
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp6", 58),
    ("ipv6-icmp", 58),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", SCTP),
];

/// A number as it may stand in a filter: decimal without leading zeros, which elsewhere mean octal, or hexadecimal
/// behind `0x`.
pub(crate) fn read_number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None if word.len() > 1 && word.starts_with('0') => None,
        None if word.bytes().all(|b| b.is_ascii_digit()) => word.parse().ok(),
        None => None,
    }
}

/// The value of that name, or that number if it is in the range.
fn named<T: Copy + TryFrom<u64>>(word: &str, names: &[(&str, T)]) -> Option<T> {
    let name = names.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    name.or_else(|| read_number(word).and_then(|number| T::try_from(number).ok()))
}

fn nearest_name<T>(word: &str, names: &[(&'static str, T)]) -> Option<String> {
    nearest(word, names.iter().map(|(name, _)| *name)).map(str::to_owned)
}

/// Whether the switch takes this for a container's name.
fn is_name(word: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.len() <= MAX_NAME && word.bytes().all(inner)
}

/// An address with the length of its prefix: `10.0.0.0/8`, `fe80::/10`, a single address, or as in tcpdump the first
/// one to three bytes of an IPv4 address.
enum Net {
    Right(IpAddr, u8),
    /// Bits behind the prefix are set; this is the network they lie in.
    NotANet(IpAddr, u8),
}

fn net(word: &str) -> Option<Net> {
    let (text, len) = match word.split_once('/') {
        Some((text, len)) => (text, Some(read_number(len)?)),
        None => (word, None),
    };
    let (address, whole) = match text.parse::<IpAddr>() {
        Ok(address) => (address, if address.is_ipv4() { 32 } else { 128 }),
        Err(_) => {
            let mut octets = [0; 4];
            let mut count = 0;
            for part in text.split('.') {
                *octets.get_mut(count)? = u8::try_from(read_number(part).filter(|_| !part.starts_with("0x"))?).ok()?;
                count += 1;
            }
            (IpAddr::from(octets), count as u8 * 8)
        }
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let len = len.map_or(Some(whole), |len| u8::try_from(len).ok()).filter(|len| *len <= most)?;
    let masked = match address {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask4(len))),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask6(len))),
    };
    Some(if masked == address { Net::Right(address, len) } else { Net::NotANet(masked, len) })
}

/// The netmask of a prefix of at most 32 bits.
pub(crate) fn mask4(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

/// The netmask of a prefix of at most 128 bits.
pub(crate) fn mask6(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

fn port(word: &str) -> Option<u16> {
    read_number(word).and_then(|number| u16::try_from(number).ok())
}

/// Both ends of a range of ports, the lower one first.
fn ports(word: &str) -> Option<(u16, u16)> {
    let (first, last) = match word.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(word)?, port(word)?),
    };
    Some((first.min(last), first.max(last)))
}

/// What primitive this word may be the value of, or a slip for.
pub(crate) fn meant_by(word: &str) -> Option<String> {
    let primitive = if word.parse::<IpAddr>().is_ok() {
        "host"
    } else if word.parse::<Mac>().is_ok() {
        "ether host"
    } else if DropReason::from_name(word).is_some() {
        "reason"
    } else if word.contains('/') && matches!(net(word), Some(Net::Right(..))) {
        "net"
    } else if port(word).is_some() {
        "port"
    } else {
        return nearest(word, KEYWORDS.iter().copied()).map(str::to_owned);
    };
    Some(format!("{primitive} {word}"))
}

impl Head {
    /// What its value looks like.
    pub fn expected(self) -> &'static [&'static str] {
        match self {
            Head::Address { layer: None, net: false, .. } => &["an IPv4 or IPv6 address"],
            Head::Address { layer: Some(Layer::Ip6), net: false, .. } => &["an IPv6 address"],
            Head::Address { layer: Some(_), net: false, .. } => &["an IPv4 address"],
            Head::Address { layer: None, .. } => &["an IPv4 or IPv6 network as ADDRESS/LENGTH"],
            Head::Address { layer: Some(Layer::Ip6), .. } => &["an IPv6 network as ADDRESS/LENGTH"],
            Head::Address { layer: Some(_), .. } => &["an IPv4 network as ADDRESS/LENGTH"],
            Head::Port { range: false, .. } => &["a port number from 0 to 65535"],
            Head::Port { .. } => &["a range of port numbers as FIRST-LAST"],
            Head::Mac(_) => &["a MAC address as 02:42:0a:00:00:02"],
            Head::EtherType => &["an EtherType from 0x600 to 0xffff", "'ip'", "'ip6'", "'arp'"],
            Head::Protocol { .. } => &["an IP protocol by name", "its number from 0 to 255"],
            Head::Container(_) => &["a container's name"],
            Head::Reason => &["the name of a drop reason"],
            Head::Flow => &["the number of a flow"],
        }
    }

    /// The primitive that these words and this value make.
    pub fn value(self, word: &str) -> Result<Primitive, Wrong> {
        self.read(word).ok_or_else(|| Wrong { expected: self.expected(), meant: self.meant(word) })
    }

    fn read(self, word: &str) -> Option<Primitive> {
        Some(match self {
            Head::Address { dir, layer, net: is_net } => {
                let (address, len) = match word.parse::<IpAddr>() {
                    Ok(address) => (address, if address.is_ipv4() { 32 } else { 128 }),
                    Err(_) if !is_net => return None,
                    Err(_) => match net(word)? {
                        Net::Right(address, len) => (address, len),
                        Net::NotANet(..) => return None,
                    },
                };
                if layer.is_some_and(|layer| !layer.has(address)) {
                    return None;
                }
                Primitive::Address { dir, layer, net: address, len }
            }
            Head::Port { dir, protocol, range } => {
                let (first, last) = if range { ports(word)? } else { (port(word)?, port(word)?) };
                Primitive::Port { dir, protocol, first, last }
            }
            Head::Mac(dir) => Primitive::Mac { dir, mac: word.parse().ok()? },
            // Below are lengths, not types (IEEE 802.3 3.2.6).
            Head::EtherType => Primitive::EtherType(named(word, ETHERTYPES).filter(|number| *number >= 0x600)?),
            Head::Protocol { family } => Primitive::Protocol { family, number: named(word, PROTOCOLS)? },
            Head::Container(dir) if is_name(word) => Primitive::Container { dir, name: word.to_owned() },
            Head::Container(_) => return None,
            Head::Reason => Primitive::Reason(DropReason::from_name(word)?),
            Head::Flow => Primitive::Flow(read_number(word)?),
        })
    }

    /// What may be meant by a word that is no value here.
    fn meant(self, word: &str) -> Option<String> {
        match self {
            Head::Address { net: false, .. } if word.contains('/') => match net(word)? {
                Net::Right(..) => Some(format!("net {word}")),
                Net::NotANet(net, len) => Some(format!("net {net}/{len}")),
            },
            // A name where an address should be, and it is not a slip for another keyword.
            Head::Address { net: false, .. }
                if word.starts_with(|c: char| c.is_ascii_alphabetic()) && is_name(word) =>
            {
                match KEYWORDS.contains(&word) || nearest(word, KEYWORDS.iter().copied()).is_some() {
                    true => None,
                    false => Some(format!("container {word}")),
                }
            }
            Head::Address { net: true, .. } => match net(word)? {
                Net::NotANet(net, len) => Some(format!("{net}/{len}")),
                Net::Right(..) => None,
            },
            Head::Port { range: false, .. } if word.contains('-') => ports(word).map(|_| format!("portrange {word}")),
            Head::EtherType => nearest_name(word, ETHERTYPES),
            Head::Protocol { .. } => nearest_name(word, PROTOCOLS),
            Head::Reason => nearest(word, DropReason::ALL.iter().map(|reason| reason.name())).map(str::to_owned),
            _ => None,
        }
    }
}
