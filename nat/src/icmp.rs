//! ICMP errors: which there are, when one may be sent (RFC 1812 4.3.2.7), and what it holds.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;

use tapswitch_wire::{DropReason, Emit, FrameOf, Instant, L3, L4, Meta, build, protocol};

use crate::address::Destination;
use crate::gateway::Gateway;

/// The largest ICMP error as an IP packet (RFC 1812 4.3.2.3).
const MAX_PACKET: usize = 576;
/// IP and ICMP header in front of the quote.
const HEADERS: usize = 20 + 8;
/// Precedence 6, internetwork control (RFC 1812 4.3.2.5).
const TOS: u8 = 6 << 5;

/// Why a packet could not be delivered, as its sender is told (RFC 792, RFC 1812 5.2.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpError {
    /// Type 3, code 0: there is no route.
    NetUnreachable,
    /// Type 3, code 1: the host does not answer.
    HostUnreachable,
    /// Type 3, code 2: the host does not speak this protocol.
    ProtocolUnreachable,
    /// Type 3, code 3: nobody listens.
    PortUnreachable,
    /// Type 3, code 4: the packet is too big for the next link, and must not be fragmented.
    FragmentationNeeded {
        /// The largest IP packet that the next link takes (RFC 1191 4).
        mtu: u16,
    },
    /// Type 3, code 13: forbidden.
    AdminProhibited,
    /// Type 11, code 0: the time to live ran out on the way.
    TimeExceeded,
}

impl IcmpError {
    /// Type and code.
    pub const fn type_and_code(self) -> (u8, u8) {
        match self {
            IcmpError::NetUnreachable => (3, 0),
            IcmpError::HostUnreachable => (3, 1),
            IcmpError::ProtocolUnreachable => (3, 2),
            IcmpError::PortUnreachable => (3, 3),
            IcmpError::FragmentationNeeded { .. } => (3, 4),
            IcmpError::AdminProhibited => (3, 13),
            IcmpError::TimeExceeded => (11, 0),
        }
    }

    /// The four bytes behind the checksum.
    const fn word(self) -> [u8; 4] {
        match self {
            IcmpError::FragmentationNeeded { mtu } => {
                let [high, low] = mtu.to_be_bytes();
                [0, 0, high, low]
            }
            _ => [0; 4],
        }
    }
}

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, code) = self.type_and_code();
        let text = match self {
            IcmpError::NetUnreachable => "network unreachable",
            IcmpError::HostUnreachable => "host unreachable",
            IcmpError::ProtocolUnreachable => "protocol unreachable",
            IcmpError::PortUnreachable => "port unreachable",
            IcmpError::FragmentationNeeded { mtu } => {
                return write!(f, "fragmentation needed, MTU {mtu} (ICMP {kind}/{code})");
            }
            IcmpError::AdminProhibited => "administratively prohibited",
            IcmpError::TimeExceeded => "time exceeded",
        };
        write!(f, "{text} (ICMP {kind}/{code})")
    }
}

impl Gateway {
    /// Sends an ICMP error about a packet that could not be delivered to the station it came from.
    ///
    /// `original` is the container's frame as it was received; a TTL that was decremented since does no harm.
    ///
    /// # Errors
    /// Why there is none: the packet is not IPv4 ([`DropReason::Ipv6NotRouted`], [`DropReason::UnknownEthertype`]), came
    /// as a broadcast or multicast ([`DropReason::LinkBroadcast`], [`DropReason::MulticastNotRouted`]), is a fragment
    /// other than the first ([`DropReason::FragmentNotSupported`]), is an ICMP error itself or may be one
    /// ([`DropReason::IcmpIgnored`]), its source is not one host or is us ([`DropReason::BadSourceAddress`]), or the
    /// source has had enough of them ([`DropReason::IcmpRateLimited`]).
    pub fn icmp_error<B: Deref<Target = [u8]>>(
        &mut self,
        original: &FrameOf<B>,
        error: IcmpError,
        now: Instant,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        let source = self.check_may_be_told(original)?;
        if !self.limiter.take(source, now) {
            return Err(DropReason::IcmpRateLimited);
        }
        let room = MAX_PACKET.min(usize::from(self.config.mtu)).saturating_sub(HEADERS);
        original.quote(room, &mut self.quote);
        let (link, header) = (self.link_to(original.src_mac()), self.ip_to(source, TOS));
        let (kind, code) = error.type_and_code();
        build::icmp(&mut self.buffer, link, header, kind, code, error.word(), &self.quote);
        out.emit(&Meta::PLAIN, &self.buffer);
        Ok(())
    }

    /// Whether anybody may be told about this packet; returns whom.
    fn check_may_be_told<B: Deref<Target = [u8]>>(&self, original: &FrameOf<B>) -> Result<IpAddr, DropReason> {
        let parsed = original.parsed();
        let (Some(IpAddr::V4(src)), Some(IpAddr::V4(dst))) = (original.src_ip(), original.dst_ip()) else {
            let ipv6 = parsed.l3 == L3::Ipv6;
            return Err(if ipv6 { DropReason::Ipv6NotRouted } else { DropReason::UnknownEthertype });
        };
        if original.dst_mac().is_multicast() {
            return Err(DropReason::LinkBroadcast);
        }
        if matches!(self.lan.destination(dst), Destination::Broadcast | Destination::Multicast) {
            return Err(DropReason::MulticastNotRouted);
        }
        if parsed.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return Err(DropReason::FragmentNotSupported);
        }
        if parsed.protocol == protocol::ICMP && !is_icmp_query(original) {
            return Err(DropReason::IcmpIgnored);
        }
        if !self.lan.is_single_host(src) || src == self.lan.ip || !original.src_mac().is_station() {
            return Err(DropReason::BadSourceAddress);
        }
        Ok(src.into())
    }
}

/// Whether an ICMP message is certainly no error: echo, router discovery, timestamp, information, address mask (RFC 792,
/// 1256, 950). What is unknown or cut short may be one.
fn is_icmp_query<B: Deref<Target = [u8]>>(frame: &FrameOf<B>) -> bool {
    frame.parsed().l4 == L4::Icmp && matches!(frame.segment().first(), Some(0 | 8 | 9 | 10 | 13..=18))
}
