//! The way of an IPv4 packet: checked, then taken in, routed back onto the LAN, or handed to the uplink.

use std::net::{IpAddr, Ipv4Addr};

use tapswitch_wire::{DropReason, Emit, Frame, Journey, L4, Stage, Step};

use crate::IcmpError;
use crate::address::Destination;
use crate::gateway::{Gateway, Outcome, Service, Turn, packet_len};
use crate::local::{DHCP_PORT, check_transport};

/// Time to live of the gateway's own packets: the default that RFC 1700 recommends.
pub(crate) const OWN_TTL: u8 = 64;

/// Loose and strict source routing (RFC 791 3.1).
const LSRR: u8 = 131;
const SSRR: u8 = 137;

impl Gateway {
    pub(crate) fn handle_ipv4(
        &mut self,
        frame: &mut Frame<'_>,
        turn: &mut Turn<'_, impl Journey, impl Emit>,
    ) -> Result<Outcome, DropReason> {
        check_header(frame)?;
        let (Some(IpAddr::V4(src)), Some(IpAddr::V4(dst))) = (frame.src_ip(), frame.dst_ip()) else {
            return Err(DropReason::Ipv4Malformed);
        };
        let destination = self.lan.destination(dst);
        let is_dhcp = self.is_dhcp(frame, destination);
        self.check_source(src, is_dhcp)?;
        if destination == Destination::Never {
            return Err(DropReason::BadDestinationAddress);
        }
        if matches!(destination, Destination::Broadcast | Destination::Multicast) && !is_dhcp {
            return Err(DropReason::MulticastNotRouted);
        }
        if destination != Destination::Broadcast && frame.dst_mac().is_multicast() {
            return Err(DropReason::LinkBroadcast);
        }
        if is_dhcp {
            check_transport(frame)?;
            turn.journey.note(|| Step::decided(Stage::Gateway, "the address service's turn"));
            return Ok(Outcome::Dhcp);
        }
        match destination {
            _ if self.config.translated => Ok(Outcome::Inbound),
            Destination::Own => self.handle_local(frame, src, turn),
            Destination::OnLink => self.route_back(frame, dst, dst, turn),
            _ => self.route_out(frame, dst, turn),
        }
    }

    /// UDP to port 67 of ours or of everybody, if that is served.
    fn is_dhcp(&self, frame: &Frame<'_>, destination: Destination) -> bool {
        frame.parsed().l4 == L4::Udp
            && frame.dst_port() == DHCP_PORT
            && frame.parsed().fragment.is_none()
            && matches!(destination, Destination::Own | Destination::Broadcast)
            && self.serves(Service::Dhcp)
    }

    /// Only DHCP may come from a host that has no address yet.
    fn check_source(&self, src: Ipv4Addr, is_dhcp: bool) -> Result<(), DropReason> {
        if is_dhcp && src.is_unspecified() {
            return Ok(());
        }
        if !self.lan.is_single_host(src) {
            return Err(DropReason::BadSourceAddress);
        }
        let is_ours =
            |ip| self.lan.subnet.contains(ip) || self.config.routes.iter().any(|(prefix, _)| prefix.contains(ip));
        let outside = self.config.verify_source && !is_ours(&src);
        if outside || src == self.lan.ip { Err(DropReason::SpoofedSource) } else { Ok(()) }
    }

    /// A packet from the LAN for the LAN, by a sender that does not know its neighbour is one, or for a router of the LAN.
    fn route_back(
        &mut self,
        frame: &mut Frame<'_>,
        dst: Ipv4Addr,
        hop: Ipv4Addr,
        turn: &mut Turn<'_, impl Journey, impl Emit>,
    ) -> Result<Outcome, DropReason> {
        turn.journey.note(|| match dst == hop {
            true => Step::decided(Stage::Route, format!("{dst} is on the LAN")),
            false => Step::decided(Stage::Route, format!("{dst} is reached via {hop} of the LAN")),
        });
        if self.config.isolate {
            // The switch keeps isolated containers apart; the gateway must not be a way around it.
            return Err(self.refuse(frame, IcmpError::AdminProhibited, DropReason::Isolated, turn));
        }
        self.check_ttl(frame, turn)?;
        self.check_mtu(frame, self.config.mtu, turn)?;
        self.pass_on(frame, turn);
        let sender = frame.src_mac();
        self.deliver(frame, hop.into(), Some(sender), turn)?;
        Ok(Outcome::Reply)
    }

    /// Refuses a packet that does not fit the next link. Only one that says so must not be fragmented is answered.
    fn check_mtu(
        &mut self,
        frame: &Frame<'_>,
        mtu: u16,
        turn: &mut Turn<'_, impl Journey, impl Emit>,
    ) -> Result<(), DropReason> {
        if packet_len(frame) <= usize::from(mtu) {
            return Ok(());
        }
        Err(match has_df(frame) {
            true => self.refuse(frame, IcmpError::FragmentationNeeded { mtu }, DropReason::AboveMtu, turn),
            false => DropReason::AboveMtu,
        })
    }

    fn route_out(
        &mut self,
        frame: &mut Frame<'_>,
        dst: Ipv4Addr,
        turn: &mut Turn<'_, impl Journey, impl Emit>,
    ) -> Result<Outcome, DropReason> {
        if let Some(hop) = self.next_hop(dst) {
            return self.route_back(frame, dst, hop, turn);
        }
        if let Some(peer) = self.config.peers.iter().find(|peer| peer.subnet.contains(&dst)).copied() {
            turn.journey
                .note(|| Step::decided(Stage::Route, format!("{dst} is on another network that may be reached")));
            self.check_ttl(frame, turn)?;
            // What may be fragmented is, over there.
            if has_df(frame) {
                self.check_mtu(frame, peer.mtu, turn)?;
            }
            self.pass_on(frame, turn);
            return Ok(Outcome::Peer(peer.network));
        }
        if !self.config.uplink {
            turn.journey.note(|| Step::decided(Stage::Route, format!("{dst} is elsewhere, and there is no uplink")));
            return Err(self.refuse(frame, IcmpError::NetUnreachable, DropReason::NoRoute, turn));
        }
        turn.journey.note(|| Step::decided(Stage::Route, format!("{dst} is elsewhere: the uplink's turn")));
        self.check_ttl(frame, turn)?;
        self.pass_on(frame, turn);
        Ok(Outcome::Uplink)
    }

    fn check_ttl(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Journey, impl Emit>) -> Result<(), DropReason> {
        if frame.ttl() > 1 {
            return Ok(());
        }
        Err(self.refuse(frame, IcmpError::TimeExceeded, DropReason::TtlExceeded, turn))
    }

    fn pass_on(&self, frame: &mut Frame<'_>, turn: &mut Turn<'_, impl Journey, impl Emit>) {
        let left = frame.decrement_ttl();
        turn.journey.note(|| Step::changed(Stage::Gateway, format!("TTL {} -> {left}", u16::from(left) + 1)));
    }
}

/// Whether a packet must not be fragmented.
pub(crate) fn has_df(frame: &Frame<'_>) -> bool {
    frame.packet().get(6).is_some_and(|flags| flags & 0x40 != 0)
}

/// Checksum and options of a header whose lengths the parser found right, and whether the rest of the checksum may be
/// left to be written by whoever receives the packet.
fn check_header(frame: &Frame<'_>) -> Result<(), DropReason> {
    if !frame.ipv4_checksum_ok() {
        return Err(DropReason::Ipv4BadChecksum);
    }
    let start = usize::from(frame.parsed().l3_start);
    let header = usize::from(frame.parsed().l4_start).saturating_sub(start);
    check_options(frame.packet().get(20..header).unwrap_or_default())
}

/// Walks the options: each must lie within the header, and none may route by the source's will (RFC 7126 4.3, 4.4).
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    while let [kind, rest @ ..] = options {
        options = match *kind {
            END => return Ok(()),
            NO_OPERATION => rest,
            LSRR | SSRR => return Err(DropReason::Ipv4SourceRoute),
            _ => match rest.first() {
                Some(len @ 2..) => options.get(usize::from(*len)..).ok_or(DropReason::Ipv4BadOption)?,
                _ => return Err(DropReason::Ipv4BadOption),
            },
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_8_options_keep_to_their_header_and_do_not_route() {
        for (options, expected) in [
            (&[][..], Ok(())),
            (&[0, 0xff, 0xff, 0xff], Ok(())),
            (&[1, 1, 1, 1], Ok(())),
            (&[1, 7, 3, 4], Ok(())),
            (&[200, 4, 9, 9], Ok(())),
            (&[200, 4, 9, 9, 222, 2, 0, 0], Ok(())),
            (&[1, 1, 1, 7], Err(DropReason::Ipv4BadOption)),
            (&[7, 0, 0, 0], Err(DropReason::Ipv4BadOption)),
            (&[7, 1, 0, 0], Err(DropReason::Ipv4BadOption)),
            (&[7, 5, 4, 0], Err(DropReason::Ipv4BadOption)),
            (&[131, 3, 4, 0], Err(DropReason::Ipv4SourceRoute)),
            (&[1, 137, 3, 4], Err(DropReason::Ipv4SourceRoute)),
            (&[7, 3, 4, 131], Err(DropReason::Ipv4SourceRoute)),
        ] {
            assert_eq!(check_options(options), expected, "{options:?}");
        }
    }
}
