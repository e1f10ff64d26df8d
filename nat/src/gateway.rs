//! The gateway: what it is made of, and the way of a frame through it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use tapswitch_wire::{
    DropCounters, DropReason, Emit, Frame, Instant, Journey, L3, L4, Mac, Meta, Parsed, Stage, Step, Unheard, build,
    fragment,
};

use crate::IcmpError;
use crate::address::Lan;
use crate::ipv4::has_df;
use crate::limit::Limiter;
use crate::neighbour::{Found, NeighbourView, Neighbours};
use crate::waiting::Waiting;

/// Between two announcements of our address (RFC 5227 1.1, ANNOUNCE_INTERVAL), and how many there are (ANNOUNCE_NUM).
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const ANNOUNCEMENTS: u8 = 2;

/// What a gateway is told about its network.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gateway's own MAC address.
    pub mac: Mac,
    /// The gateway's own address in `subnet`.
    pub ip: Ipv4Addr,
    /// The subnet of the LAN.
    pub subnet: Ipv4Net,
    /// The largest IP packet of the LAN, in bytes.
    pub mtu: u16,
    /// Whether there is a way out; an internal network has none.
    pub uplink: bool,
    /// Ports of the gateway's own address that somebody else serves.
    pub services: Vec<Service>,
    /// Whether a source outside of `subnet` is refused.
    pub verify_source: bool,
    /// Whether containers are kept from each other: then nothing is routed from the LAN back onto it.
    pub isolate: bool,
    /// Subnets behind routers of the LAN, and those routers' addresses.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Subnets of other networks that packets may be passed to: see [`Outcome::Peer`].
    pub peers: Vec<Peer>,
    /// Whether what is addressed to us, or elsewhere, is a translator's first: this is the uplink's side. Then nothing is
    /// routed here, and nothing but pings is answered to strangers.
    pub translated: bool,
    /// The one neighbour there is, on a link without addresses.
    pub point_to_point: Option<Mac>,
}

/// Another network of the same router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// Its number.
    pub network: usize,
    /// The largest IP packet of its LAN, in bytes.
    pub mtu: u16,
}

/// A service at the gateway's own address, answered by somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// UDP port 67: [`Outcome::Dhcp`].
    Dhcp,
    /// This port over UDP and TCP, as 53 for DNS: [`Outcome::Uplink`].
    Port(u16),
    /// Any other port over UDP and TCP: [`Outcome::Uplink`]. Who serves them knows best which are open at this moment, and
    /// leaves what is for a closed one to [`Gateway::refuse_closed`].
    AnyPort,
}

/// How a frame ended at the gateway, or who goes on with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Answered, taken in, or sent on to the LAN (or waiting for ARP to be).
    Reply,
    /// UDP for port 67 of ours or of everybody: the address service's turn. Its checksum is right.
    Dhcp,
    /// To be relayed. The IP header is checked and the TTL decremented, the transport checksum not looked at. A packet
    /// for a service at our own address keeps its TTL.
    Uplink,
    /// From the uplink, and the translator's to judge. The IP header is checked, the TTL is as it came.
    Inbound,
    /// To be passed to the gateway of this network. The TTL is decremented, and it fits the MTU there, or may be fragmented.
    Peer(usize),
    /// It goes no further.
    Drop(DropReason),
}

/// The gateway of one network. See the crate's theory of operation.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub(crate) config: Config,
    pub(crate) lan: Lan,
    pub(crate) neighbours: Neighbours,
    pub(crate) limiter: Limiter,
    /// Scratch space for frames of our own.
    pub(crate) buffer: Vec<u8>,
    /// Scratch space for what an ICMP error quotes.
    pub(crate) quote: Vec<u8>,
    pub(crate) drops: DropCounters,
    /// Packets of the translator's whose next hop stayed silent.
    given_up: Vec<(Meta, Vec<u8>)>,
    /// When our address was last defended.
    pub(crate) defended: Option<Instant>,
    announcements: u8,
    announce_at: Instant,
}

/// What surrounds one call: the time, who listens, and where frames go.
pub(crate) struct Turn<'a, J, E> {
    pub(crate) now: Instant,
    pub(crate) journey: &'a mut J,
    pub(crate) out: &'a mut E,
}

impl Gateway {
    /// A gateway with an empty neighbour table. `secret` keys the hash by which ICMP errors are budgeted.
    pub fn new(config: Config, secret: u64) -> Gateway {
        Gateway {
            lan: Lan { ip: config.ip, subnet: config.subnet },
            config,
            neighbours: Neighbours::default(),
            limiter: Limiter::new(secret),
            buffer: Vec::new(),
            quote: Vec::new(),
            drops: DropCounters::default(),
            given_up: Vec::new(),
            defended: None,
            announcements: 0,
            announce_at: Instant::ZERO,
        }
    }

    /// Takes a frame that the switch forwarded or flooded to the gateway's port. What the gateway sends goes to `out`
    /// as whole Ethernet frames.
    ///
    /// After [`Outcome::Reply`] the frame may have become the answer; after [`Outcome::Uplink`] its TTL is decremented;
    /// otherwise it is as it came.
    #[inline]
    pub fn handle(
        &mut self,
        frame: &mut Frame<'_>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Outcome {
        let mut turn = Turn { now, journey, out };
        let result = self.check_link(frame).and_then(|()| match frame.parsed().l3 {
            L3::Ipv4 => self.handle_ipv4(frame, &mut turn),
            L3::Arp => self.handle_arp(frame, &mut turn),
            L3::Ipv6 => Err(DropReason::Ipv6NotRouted),
            L3::Malformed(reason) => Err(reason),
            L3::Other => Err(DropReason::UnknownEthertype),
        });
        result.unwrap_or_else(|reason| {
            turn.journey.note(|| Step::decided(Stage::Gateway, reason.text()));
            Outcome::Drop(reason)
        })
    }

    /// Sends an IP packet to an address of the LAN. `frame` is a whole, untagged Ethernet frame; its MAC addresses are
    /// filled in here. If the neighbour's is unknown, a copy waits for it.
    ///
    /// The packet counts as the uplink's: if the neighbour stays silent, nobody is told.
    ///
    /// # Errors
    /// [`DropReason::NoRoute`] if `next_hop` is not a host of the LAN, [`DropReason::AboveMtu`],
    /// [`DropReason::NeighbourQueueFull`], [`DropReason::NeighbourTableFull`], and what [`Frame::parse`] says.
    pub fn send(
        &mut self,
        frame: &mut [u8],
        meta: &Meta,
        next_hop: Ipv4Addr,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        self.send_frame(&mut Frame::parse(*meta, frame)?, next_hop, now, journey, out)
    }

    /// As [`Gateway::send`], of a frame that was parsed already.
    ///
    /// # Errors
    /// As [`Gateway::send`].
    pub fn send_frame(
        &mut self,
        frame: &mut Frame<'_>,
        next_hop: Ipv4Addr,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        if self.config.point_to_point.is_none() && !self.lan.is_neighbour(next_hop) {
            return Err(DropReason::NoRoute);
        }
        if self.is_above_mtu(frame) {
            return Err(DropReason::AboveMtu);
        }
        self.deliver(frame, next_hop.into(), None, &mut Turn { now, journey, out })
    }

    /// As [`Gateway::send_frame`], but a packet that does not fit and may be fragmented is cut, each piece with the packet's
    /// identification.
    ///
    /// # Errors
    /// As [`Gateway::send`], and what [`fragment::split`] says.
    pub fn send_cut(
        &mut self,
        frame: &mut Frame<'_>,
        next_hop: Ipv4Addr,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        let may_be_cut = !has_df(frame) && frame.meta().gso.is_none();
        if self.fits(frame) || !may_be_cut {
            return self.send_frame(frame, next_hop, now, journey, out);
        }
        let id = frame.packet().get(4..6).and_then(|id| id.first_chunk()).map_or(0, |id| u16::from_be_bytes(*id));
        let mut pieces = Vec::new();
        let keep = &mut |meta: &Meta, piece: &[u8]| pieces.push((*meta, piece.to_vec()));
        fragment::split(frame.meta(), frame.bytes(), self.config.mtu, id, &mut self.buffer, keep)?;
        pieces.iter_mut().try_for_each(|(meta, piece)| self.send(piece, meta, next_hop, now, journey, out))
    }

    /// The MAC address of a neighbour that was heard of within the last minute.
    pub fn resolved(&self, ip: Ipv4Addr, now: Instant) -> Option<Mac> {
        self.config.point_to_point.or_else(|| self.neighbours.reachable(ip.into(), now))
    }

    /// The next hop on this LAN towards an address: itself, or the router of the longest prefix; `None` if it is elsewhere.
    pub fn next_hop(&self, dst: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.lan.is_neighbour(dst) {
            return Some(dst);
        }
        let routes = self.config.routes.iter().filter(|(prefix, _)| prefix.contains(&dst));
        routes.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, hop)| *hop)
    }

    /// Whether a packet fits the LAN; a super-frame counts by its segments.
    pub fn fits(&self, frame: &Frame<'_>) -> bool {
        !self.is_above_mtu(frame)
    }

    /// What it was told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Answers what the translator found to be for our own address: a ping. All else is dropped in silence, so that
    /// strangers learn nothing (RFC 5382 REQ-4 lets a translator do so).
    pub fn handle_own(
        &mut self,
        frame: &mut Frame<'_>,
        own: Ipv4Addr,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Outcome {
        let Some(IpAddr::V4(src)) = frame.src_ip() else { return Outcome::Drop(DropReason::Filtered) };
        let turn = &mut Turn { now, journey, out };
        let outcome = match frame.parsed().l4 {
            L4::Icmp if frame.parsed().fragment.is_none() => self.handle_echo(frame, own, src, turn),
            _ => Err(DropReason::Filtered),
        };
        outcome.unwrap_or_else(Outcome::Drop)
    }

    /// Does what is due: asks again for silent neighbours, gives up on them, announces our address.
    pub fn poll(&mut self, now: Instant, out: &mut impl Emit) {
        if self.announcements > 0 && self.announce_at <= now {
            self.announcements -= 1;
            self.announce_at = now + ANNOUNCE_INTERVAL;
            self.emit_announcement(out);
        }
        let due = self.neighbours.take_due(now);
        for ip in due.ask {
            self.emit_request(ip, Mac::BROADCAST, out);
        }
        for mut packet in due.given_up {
            let reason = DropReason::NeighbourUnresolved;
            self.drops.count(reason);
            if self.config.translated {
                // Whom to tell, only the translator knows.
                self.given_up.push((packet.meta, packet.frame));
                continue;
            }
            if let (Some(_), Ok(frame)) = (packet.sender, Frame::parse(packet.meta, &mut packet.frame[..])) {
                self.refuse(&frame, IcmpError::HostUnreachable, reason, &mut Turn { now, journey: &mut Unheard, out });
            }
        }
    }

    /// Packets whose next hop did not answer, as they were to be sent; only of a gateway that is `translated`. Nothing is
    /// left here.
    pub fn take_given_up(&mut self) -> Vec<(Meta, Vec<u8>)> {
        std::mem::take(&mut self.given_up)
    }

    /// When [`Gateway::poll`] is to be called next; `None` if nothing is pending.
    pub fn deadline(&self) -> Option<Instant> {
        let announcement = (self.announcements > 0).then_some(self.announce_at);
        self.neighbours.deadline().into_iter().chain(announcement).min()
    }

    /// Announces our address from the next [`Gateway::poll`] on: twice, 2 s apart (RFC 5227 2.3). For a gateway that
    /// takes over an address which the LAN may know under another MAC address.
    pub fn announce(&mut self, now: Instant) {
        self.announcements = ANNOUNCEMENTS;
        self.announce_at = now;
    }

    /// Every neighbour, in the order of their addresses.
    pub fn neighbours(&self, now: Instant) -> Vec<NeighbourView> {
        self.neighbours.views(now)
    }

    /// Forgets a neighbour, as when its container leaves. Packets that wait for it are dropped.
    pub fn forget(&mut self, ip: impl Into<IpAddr>) {
        for _ in self.neighbours.forget(ip.into()) {
            self.drops.count(DropReason::NeighbourUnresolved);
        }
    }

    /// Packets that were given up while they waited for a neighbour, after the call that brought them had ended well;
    /// and, as [`DropReason::IcmpRateLimited`], the ICMP errors that `handle` and `poll` withheld.
    pub fn late_drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Whether the frame is for us at layer 2, and from somebody else.
    fn check_link(&self, frame: &Frame<'_>) -> Result<(), DropReason> {
        let (src, dst) = (frame.src_mac(), frame.dst_mac());
        if dst != self.config.mac && !dst.is_multicast() {
            return Err(DropReason::NotForUs);
        }
        if src == self.config.mac {
            return Err(DropReason::SourceIsOurs);
        }
        if !src.is_station() {
            return Err(DropReason::SourceNotStation);
        }
        if is_of_a_vlan(frame.parsed()) { Err(DropReason::UnknownEthertype) } else { Ok(()) }
    }

    /// Whether the packet, or a segment of it, does not fit the LAN.
    pub(crate) fn is_above_mtu(&self, frame: &Frame<'_>) -> bool {
        packet_len(frame) > usize::from(self.config.mtu)
    }

    /// Sends a frame to a neighbour, or lets a copy of it wait. `sender` is the station of the LAN that sent it.
    pub(crate) fn deliver(
        &mut self,
        frame: &mut Frame<'_>,
        hop: IpAddr,
        sender: Option<Mac>,
        turn: &mut Turn<'_, impl Journey, impl Emit>,
    ) -> Result<(), DropReason> {
        let found = match self.config.point_to_point {
            Some(mac) => Found::At(mac),
            None => self.neighbours.lookup(hop, turn.now),
        };
        let mac = match found {
            Found::At(mac) => mac,
            Found::AtIfStill(mac) => {
                turn.journey.note(|| Step::decided(Stage::Neighbour, format!("{hop} is stale: ask it again")));
                self.emit_request(hop, mac, turn.out);
                mac
            }
            Found::Unknown => {
                self.neighbours.admit(hop, sender, frame.bytes().len(), turn.now)?;
                let packet = Waiting { hop, sender, meta: *frame.meta(), frame: frame.bytes().to_vec() };
                let queued = self.neighbours.wait(packet, turn.now);
                turn.journey.note(|| Step::looked_up(Stage::Neighbour, format!("{hop} is unknown: the packet waits")));
                if queued.displaced {
                    self.drops.count(DropReason::NeighbourQueueFull);
                }
                if queued.ask {
                    turn.journey.note(|| Step::decided(Stage::Neighbour, format!("ask everybody for {hop}")));
                    self.emit_request(hop, Mac::BROADCAST, turn.out);
                }
                return Ok(());
            }
        };
        turn.journey.note(|| Step::looked_up(Stage::Neighbour, format!("{hop} is at {mac}")));
        self.emit_to(frame, mac, turn.out);
        Ok(())
    }

    /// Sends the frame from our MAC address to `mac`.
    pub(crate) fn emit_to(&self, frame: &mut Frame<'_>, mac: Mac, out: &mut impl Emit) {
        frame.set_src_mac(self.config.mac);
        frame.set_dst_mac(mac);
        out.emit(frame.meta(), frame.bytes());
    }

    /// Refuses a packet with an ICMP error to its sender, if one is due. Returns `reason`.
    pub(crate) fn refuse(
        &mut self,
        frame: &Frame<'_>,
        error: IcmpError,
        reason: DropReason,
        turn: &mut Turn<'_, impl Journey, impl Emit>,
    ) -> DropReason {
        let told = self.icmp_error(frame, error, turn.now, turn.out);
        if told == Err(DropReason::IcmpRateLimited) {
            self.drops.count(DropReason::IcmpRateLimited);
        }
        turn.journey.note(|| match told {
            Ok(()) => Step::decided(Stage::Gateway, format!("tell the sender: {error}")),
            Err(why) => Step::decided(Stage::Gateway, format!("no ICMP error: {}", why.text())),
        });
        reason
    }

    /// Ethernet addresses of a frame of our own.
    pub(crate) fn link_to(&self, dst: Mac) -> build::Link {
        build::Link { src: self.config.mac, dst }
    }

    /// IP header of a packet of our own, sent with DF. Its identification tells nothing, as RFC 6864 4.1 lets it.
    pub(crate) fn ip_to(&self, dst: IpAddr, tos: u8) -> build::Ip {
        build::Ip { src: self.config.ip.into(), dst, ttl: crate::ipv4::OWN_TTL, tos, id: 0 }
    }
}

/// The IP packet's length, or that of a super-frame's segments; without the link's padding.
pub(crate) fn packet_len(frame: &Frame<'_>) -> usize {
    match frame.meta().gso {
        Some(_) => frame.meta().packet_len(usize::from(frame.parsed().l3_start), frame.bytes()),
        None => frame.packet().len(),
    }
}

/// Whether the frame belongs to a VLAN other than the untagged one. A tag of VLAN 0 only carries a priority.
fn is_of_a_vlan(parsed: &Parsed) -> bool {
    const ONE_TAG: u16 = 14 + 4;
    parsed.vlan.is_some_and(|tag| tag.vid() != 0 || parsed.l3_start > ONE_TAG)
}
