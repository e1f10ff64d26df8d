//! What an IPv4 address means on this LAN.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Where a packet's destination lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Destination {
    /// The gateway's own address.
    Own,
    /// Another host of the LAN.
    OnLink,
    /// A host elsewhere.
    OffLink,
    /// Everybody on the LAN: the limited broadcast or the subnet's own.
    Broadcast,
    /// A group.
    Multicast,
    /// An address that no packet on a wire may be sent to.
    Never,
}

/// The gateway's place in its subnet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lan {
    /// The gateway's own address.
    pub(crate) ip: Ipv4Addr,
    /// The subnet.
    pub(crate) subnet: Ipv4Net,
}

impl Lan {
    pub(crate) fn destination(&self, ip: Ipv4Addr) -> Destination {
        if ip == self.ip {
            Destination::Own
        } else if ip.is_broadcast() || self.is_directed_broadcast(ip) {
            Destination::Broadcast
        } else if ip.is_multicast() {
            Destination::Multicast
        } else if is_never_on_a_wire(ip) || self.is_network(ip) {
            Destination::Never
        } else if self.subnet.contains(&ip) {
            Destination::OnLink
        } else {
            Destination::OffLink
        }
    }

    /// Whether `ip` can be one host, as a source must be (RFC 1812 5.3.7).
    pub(crate) fn is_single_host(&self, ip: Ipv4Addr) -> bool {
        matches!(self.destination(ip), Destination::Own | Destination::OnLink | Destination::OffLink)
    }

    /// Whether `ip` can be another host of this LAN.
    pub(crate) fn is_neighbour(&self, ip: Ipv4Addr) -> bool {
        self.destination(ip) == Destination::OnLink
    }

    /// A subnet of two addresses has neither network nor broadcast address (RFC 3021).
    fn has_ends(&self) -> bool {
        self.subnet.prefix_len() < 31
    }

    fn is_directed_broadcast(&self, ip: Ipv4Addr) -> bool {
        self.has_ends() && ip == self.subnet.broadcast()
    }

    fn is_network(&self, ip: Ipv4Addr) -> bool {
        self.has_ends() && ip == self.subnet.network()
    }
}

/// 0/8, 127/8 and 240/4 (RFC 1812 4.2.2.11 and 5.3.7); the limited broadcast, too, lies in the last.
fn is_never_on_a_wire(ip: Ipv4Addr) -> bool {
    matches!(ip.octets()[0], 0 | 127 | 240..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_6_every_class_of_address_has_its_place() {
        let lan = Lan { ip: Ipv4Addr::new(10, 0, 0, 1), subnet: "10.0.0.0/24".parse().unwrap() };
        for (ip, expected) in [
            ("10.0.0.1", Destination::Own),
            ("10.0.0.2", Destination::OnLink),
            ("10.0.0.254", Destination::OnLink),
            ("10.0.1.0", Destination::OffLink),
            ("192.0.2.255", Destination::OffLink),
            ("223.255.255.255", Destination::OffLink),
            ("10.0.0.255", Destination::Broadcast),
            ("255.255.255.255", Destination::Broadcast),
            ("224.0.0.1", Destination::Multicast),
            ("239.255.255.255", Destination::Multicast),
            ("10.0.0.0", Destination::Never),
            ("0.0.0.0", Destination::Never),
            ("0.1.2.3", Destination::Never),
            ("127.0.0.1", Destination::Never),
            ("240.0.0.1", Destination::Never),
            ("255.255.255.254", Destination::Never),
        ] {
            assert_eq!(lan.destination(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    #[test]
    fn a_subnet_of_two_addresses_has_two_hosts() {
        let lan = Lan { ip: Ipv4Addr::new(10, 0, 0, 0), subnet: "10.0.0.0/31".parse().unwrap() };
        assert_eq!(lan.destination(Ipv4Addr::new(10, 0, 0, 0)), Destination::Own);
        assert_eq!(lan.destination(Ipv4Addr::new(10, 0, 0, 1)), Destination::OnLink);
    }
}
