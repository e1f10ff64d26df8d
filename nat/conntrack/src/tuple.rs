//! What tells sessions apart.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;
use tapswitch_wire::{Endpoint, FrameOf, L3, L4, protocol};

/// Which side of the translator a packet is on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Realm {
    /// The containers' side.
    Inside,
    /// The uplink's side.
    Outside,
}

/// A protocol that has sessions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo: the identifier plays the asking end's port.
    Icmp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];

    /// The protocol with this number.
    pub const fn from_number(number: u8) -> Option<Protocol> {
        match number {
            protocol::TCP => Some(Protocol::Tcp),
            protocol::UDP => Some(Protocol::Udp),
            protocol::ICMP => Some(Protocol::Icmp),
            _ => None,
        }
    }

    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Protocol, source and destination of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Tuple {
    /// The protocol.
    pub protocol: Protocol,
    /// Where it comes from.
    pub src: Endpoint,
    /// Where it goes.
    pub dst: Endpoint,
}

impl Tuple {
    /// The tuple of an answer.
    pub const fn reversed(self) -> Tuple {
        Tuple { protocol: self.protocol, src: self.dst, dst: self.src }
    }

    /// The tuple of an IPv4 packet with its transport header; `None` for anything that has no session: another protocol,
    /// a later fragment, an ICMP message that is no echo.
    #[inline]
    pub fn read<B: Deref<Target = [u8]>>(frame: &FrameOf<B>) -> Option<Tuple> {
        let parsed = frame.parsed();
        if parsed.l3 != L3::Ipv4 {
            return None;
        }
        let header = frame.packet().first_chunk::<20>()?;
        let src = [header[12], header[13], header[14], header[15]].into();
        let dst = [header[16], header[17], header[18], header[19]].into();
        let segment = frame.segment().first_chunk::<8>()?;
        let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let (protocol, src_port, dst_port) = match parsed.l4 {
            L4::Tcp => (Protocol::Tcp, word(0), word(2)),
            L4::Udp => (Protocol::Udp, word(0), word(2)),
            L4::Icmp if segment[..2] == [8, 0] => (Protocol::Icmp, word(4), 0),
            L4::Icmp if segment[..2] == [0, 0] => (Protocol::Icmp, 0, word(4)),
            _ => return None,
        };
        Some(Tuple { protocol, src: Endpoint::new(src, src_port), dst: Endpoint::new(dst, dst_port) })
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.src, self.dst)
    }
}

/// A keyed hash of tuples, so that nobody outside can choose tuples that collide.
///
/// Two folded multiplications over the thirteen bytes, each with a secret factor: as much as a table needs that is probed
/// for every packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    keys: [u64; 4],
}

impl Hasher {
    pub(crate) fn new(secret: u64) -> Hasher {
        let mut state = secret;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) | 1
        };
        Hasher { keys: [next(), next(), next(), next()] }
    }

    #[inline]
    pub(crate) fn words(&self, a: u64, b: u64) -> u64 {
        let [k0, k1, k2, k3] = self.keys;
        fold(fold(a ^ k0, b ^ k1) ^ k2, k3)
    }

    #[inline]
    pub(crate) fn tuple(&self, realm: Realm, tuple: &Tuple) -> u64 {
        let Tuple { protocol, src, dst } = tuple;
        let addresses = u64::from(src.ip.to_bits()) << 32 | u64::from(dst.ip.to_bits());
        let rest = u64::from(src.port) << 32 | u64::from(dst.port) << 16 | (*protocol as u64) << 1 | realm as u64;
        self.words(addresses, rest)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
