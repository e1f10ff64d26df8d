//! New addresses and ports, worked out once and applied to every packet of a flow.

use std::net::Ipv4Addr;
use std::ops::DerefMut;

use crate::{FrameOf, L3, L4, checksum};

/// An address and a port of it. The identifier of an ICMP echo plays the port at the asking end, and 0 at the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    /// The address.
    pub ip: Ipv4Addr,
    /// The port, or the identifier of an echo.
    pub port: u16,
}

impl Endpoint {
    /// An endpoint.
    pub const fn new(ip: Ipv4Addr, port: u16) -> Endpoint {
        Endpoint { ip, port }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.ip, self.port)
    }
}

/// What a packet from `src` to `dst` becomes, and by how much its checksums change.
///
/// The differences are sums in ones' complement (RFC 1624, equation 3): of the addresses, which stand in the IP header
/// and in the pseudo header, and of the ports, which a partial transport checksum does not cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewrite {
    src: Endpoint,
    dst: Endpoint,
    addresses: u16,
    ports: u16,
}

impl Rewrite {
    /// The rewrite that makes packets from `old.0` to `old.1` packets from `new.0` to `new.1`.
    pub fn new(old: (Endpoint, Endpoint), new: (Endpoint, Endpoint)) -> Rewrite {
        let change = |old: u16, new: u16| checksum::add(!old, new);
        let address =
            |old: Endpoint, new: Endpoint| change(checksum::sum(&old.ip.octets()), checksum::sum(&new.ip.octets()));
        Rewrite {
            src: new.0,
            dst: new.1,
            addresses: checksum::add(address(old.0, new.0), address(old.1, new.1)),
            ports: checksum::add(change(old.0.port, new.0.port), change(old.1.port, new.1.port)),
        }
    }

    /// The new source.
    pub fn src(&self) -> Endpoint {
        self.src
    }

    /// The new destination.
    pub fn dst(&self) -> Endpoint {
        self.dst
    }

    /// The identifier that an ICMP echo gets: that of the asking end, which is the one that is not 0.
    fn echo_id(&self) -> u16 {
        self.src.port | self.dst.port
    }
}

impl<B: DerefMut<Target = [u8]>> FrameOf<B> {
    /// Gives an IPv4 packet its new addresses, and its transport header, if it has one, its new ports. All checksums stay
    /// as right as they were, complete or partial.
    ///
    /// The packet must have the addresses and ports that the rewrite was made for. Anything but IPv4 is left alone. Of a
    /// later fragment the addresses change, of an ICMP message the identifier.
    #[inline]
    pub fn rewrite(&mut self, rewrite: &Rewrite) {
        let Rewrite { src, dst, addresses, ports } = *rewrite;
        let (l3, l4) = (usize::from(self.parsed().l3_start), usize::from(self.parsed().l4_start));
        if self.parsed().l3 != L3::Ipv4 {
            return;
        }
        let transport = self.parsed().l4;
        let partial = self.is_partial();
        {
            let header = &mut self.bytes_mut()[l3..l3 + 20];
            let check = u16::from_be_bytes([header[10], header[11]]);
            header[10..12].copy_from_slice(&(!checksum::add(!check, addresses)).to_be_bytes());
            header[12..16].copy_from_slice(&src.ip.octets());
            header[16..20].copy_from_slice(&dst.ip.octets());
        }
        let field = match transport {
            L4::Tcp => 16,
            L4::Udp => 6,
            L4::Icmp => return self.set_src_port(rewrite.echo_id()),
            L4::Icmpv6 | L4::Other | L4::None | L4::Malformed => return,
        };
        let segment = &mut self.bytes_mut()[l4..];
        segment[..2].copy_from_slice(&src.port.to_be_bytes());
        segment[2..4].copy_from_slice(&dst.port.to_be_bytes());
        let check = u16::from_be_bytes([segment[field], segment[field + 1]]);
        let check = if partial {
            checksum::add(check, addresses)
        } else if transport == L4::Udp && check == 0 {
            // There is none (RFC 768).
            0
        } else {
            match !checksum::add(!check, checksum::add(addresses, ports)) {
                0 if transport == L4::Udp => 0xffff,
                check => check,
            }
        };
        segment[field..field + 2].copy_from_slice(&check.to_be_bytes());
    }
}
