//! The packet uplink: packets leave by an interface of our own, translated or routed.
//!
//! It has two faces. Towards the containers stands the network's gateway, which checked the packet and took one from its
//! TTL. Towards the uplink's LAN stands a second [`Gateway`]: it answers ARP and pings for our address there, finds next
//! hops, and says with ICMP errors why something from outside went no further. Between them [`Conntrack`] decides and
//! translates. All of it is the owner's; what other threads need for established sessions, they have in
//! [`Fast`](crate::fast::Fast).
//!
//! | state | meaning | left when |
//! |---|---|---|
//! | waiting | no device was handed over | one is |
//! | asking | a DHCP client asks for our address | it is bound |
//! | overlapping | our address there lies in a subnet of the inside, or the other way round; by DHCP it was declined | another one is bound |
//! | up | packets pass | the device goes, or the lease is lost: sessions end with the address they used |

mod translate;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tapswitch_conntrack::fragment::{Fragments, Ids, Limits};
use tapswitch_conntrack::{self as conntrack, Conntrack, Realm};
use tapswitch_dhcp::client::{self, Client, Event, Lease};
use tapswitch_nat::{self as nat, Gateway, NeighbourView};
use tapswitch_relay::Policy;
use tapswitch_wire::{
    DropCounters, DropReason, Emit, Frame, FrameRef, Instant, Journey, L3, L4, Mac, Meta, PortId, Rewrite, Verdict,
};

use crate::lan::Ports;
use crate::uplink::Inside;

/// After so long without an answer it is worth a word that nobody answers DHCP.
const PATIENCE: Duration = Duration::from_secs(10);
/// UDP port on which a DHCP client listens.
const DHCP_CLIENT: u16 = 68;

/// How the uplink gets its address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addressing {
    /// It was given one.
    Static {
        /// The address, with the prefix length of its subnet.
        address: Ipv4Net,
        /// The router towards everything else.
        router: Option<Ipv4Addr>,
    },
    /// It asks for one.
    Dhcp,
}

/// What a packet uplink is told.
#[derive(Clone, Debug)]
pub struct PacketUplink {
    /// Our address there.
    pub addressing: Addressing,
    /// The MTU there; the device's own if `None`.
    pub mtu: Option<u16>,
    /// Subnets behind other routers of the uplink's LAN, and those routers' addresses.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Where containers may go. Ports of the gateway that it opens mean nothing here: they are sockets of the host.
    pub policy: Policy,
    /// How packets are translated. Its subnets, its MTU and whether it hairpins are filled in here.
    pub nat: conntrack::Config,
}

/// How far a packet uplink is: the table at the top of this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketState {
    /// It has no device.
    Waiting,
    /// It asks for an address.
    Asking,
    /// Its address would be inside, too.
    Overlapping,
    /// Packets pass.
    Up,
}

/// What is known of a packet uplink, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketView {
    /// How far it is.
    pub state: PacketState,
    /// Our address there.
    pub address: Option<Ipv4Net>,
    /// The router.
    pub router: Option<Ipv4Addr>,
    /// Our MAC address there.
    pub mac: Option<Mac>,
    /// The MTU there.
    pub mtu: u16,
    /// Sessions.
    pub sessions: usize,
    /// Mappings.
    pub mappings: usize,
}

/// What happened to a packet uplink, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UplinkNews {
    /// It has this address and this router now.
    Bound(Ipv4Net, Option<Ipv4Addr>),
    /// No DHCP server answers so far.
    NoAnswer,
    /// It was given an address that would be inside, too.
    Overlap(Ipv4Net),
    /// Its lease is over.
    Lost,
}

/// What a whole datagram's fragments become.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    rewrite: Rewrite,
    egress: Realm,
    /// Another identification, where many senders share an address.
    id: Option<u16>,
}

/// The device.
#[derive(Clone, Copy, Debug)]
struct Device {
    mac: Mac,
    /// The other end's, on a link without addresses.
    peer: Option<Mac>,
}

/// An address outside would be one inside, too.
struct Overlap;

/// A packet uplink.
pub(crate) struct Packet {
    told: PacketUplink,
    /// The uplink's MTU, which is its device's unless the lease names a smaller one, and the LAN's.
    mtu: u16,
    device_mtu: u16,
    inside_mtu: u16,
    conntrack: Arc<Conntrack>,
    device: Option<Device>,
    outside: Option<Gateway>,
    router: Option<Ipv4Addr>,
    address: Option<Ipv4Net>,
    /// Whether the last address we were given would be inside, too.
    overlaps: bool,
    client: Option<Client>,
    fragments: Fragments<Decided>,
    ids: Ids,
    /// Keys what must not be guessed of fragments.
    key: [u8; 16],
    drops: DropCounters,
    secret: u64,
    /// Since when a DHCP client asks in vain, until that was said.
    asking_since: Option<Instant>,
    news: Vec<UplinkNews>,
    /// Whether sessions are still to be looked at whose time has come.
    is_behind: bool,
}

/// Sends to the uplink's device, and counts what it refuses.
pub(crate) struct Wire<'a, P> {
    pub(crate) ports: &'a mut P,
    pub(crate) drops: &'a mut DropCounters,
}

impl<P: Ports> Emit for Wire<'_, P> {
    fn emit(&mut self, meta: &Meta, frame: &[u8]) {
        if let Err(reason) = self.ports.tx_uplink(meta, frame) {
            self.drops.count(reason);
        }
    }
}

impl Packet {
    pub(crate) fn new(mut told: PacketUplink, inside: &nat::Config, secret: u64) -> Packet {
        told.nat.inside = std::iter::once(inside.subnet).chain(inside.routes.iter().map(|(net, _)| *net)).collect();
        let mtu = told.mtu.unwrap_or(inside.mtu);
        told.nat.mtu = inside.mtu.min(mtu);
        told.nat.hairpin &= !inside.isolate;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&secret.to_be_bytes());
        key[8..].copy_from_slice(&secret.rotate_left(17).to_be_bytes());
        Packet {
            conntrack: Arc::new(Conntrack::new(told.nat.clone(), secret)),
            told,
            mtu,
            device_mtu: mtu,
            inside_mtu: inside.mtu,
            device: None,
            outside: None,
            router: None,
            address: None,
            overlaps: false,
            client: None,
            fragments: Fragments::new(Limits::default(), key),
            ids: Ids::new(key),
            key,
            drops: DropCounters::default(),
            secret,
            asking_since: None,
            news: Vec::new(),
            is_behind: false,
        }
    }

    pub(crate) fn conntrack(&self) -> &Arc<Conntrack> {
        &self.conntrack
    }

    /// One that treats this frame of a container as this one would, and changes nothing here.
    pub(crate) fn copy_for(&self, port: PortId, frame: &FrameRef<'_>, now: Instant) -> Packet {
        let is_fragment = frame.parsed().fragment.is_some();
        let fragments = if is_fragment { self.fragments.clone() } else { Fragments::new(Limits::default(), self.key) };
        Packet {
            told: self.told.clone(),
            conntrack: Arc::new(self.conntrack.copy_for(Realm::Inside, frame, port.0, now)),
            outside: self.outside.clone(),
            // What comes from outside is not explained.
            client: None,
            fragments,
            ids: self.ids.clone(),
            drops: DropCounters::default(),
            news: Vec::new(),
            ..*self
        }
    }

    /// The device is there: its MAC address is ours, `peer` the other end's on a link without addresses.
    pub(crate) fn up(&mut self, mac: Mac, peer: Option<Mac>, mtu: u16, now: Instant) {
        self.device = Some(Device { mac, peer });
        // Another device may have another MAC address and another MTU, though ours stays the same.
        self.address = None;
        self.device_mtu = self.told.mtu.unwrap_or(mtu);
        self.set_mtu(self.device_mtu);
        match self.told.addressing {
            Addressing::Static { address, router } => {
                // If it overlaps, the state says so.
                let _ = self.bind(address, router, now);
            }
            Addressing::Dhcp => {
                let config = client::Config { mac, hostname: None, client_id: None, secret: self.secret };
                self.client = Some(Client::new(config, now));
                self.asking_since = Some(now);
            }
        }
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.conntrack.set_mtu(mtu.min(self.inside_mtu));
    }

    /// The device has gone.
    pub(crate) fn down(&mut self, now: Instant) {
        self.device = None;
        self.client = None;
        self.asking_since = None;
        self.overlaps = false;
        self.unbind(now);
    }

    /// Before the end: gives a lease back.
    pub(crate) fn release(&mut self, ports: &mut impl Ports) {
        if let Some(client) = &mut self.client {
            client.release(&mut Wire { ports, drops: &mut self.drops });
        }
    }

    /// Takes an address, unless it cannot be ours: then it says so.
    fn bind(&mut self, address: Ipv4Net, router: Option<Ipv4Addr>, now: Instant) -> Result<(), Overlap> {
        let Some(device) = self.device else { return Ok(()) };
        // What is inside must not be outside too (RFC 4787 REQ-7).
        let is_inside = |net: &Ipv4Net| net.contains(&address.network()) || address.contains(&net.network());
        self.overlaps = self.told.nat.inside.iter().any(is_inside);
        if self.overlaps {
            self.unbind(now);
            self.news.push(UplinkNews::Overlap(address));
            return Err(Overlap);
        }
        self.router = router;
        let is_same = self.outside.as_ref().is_some_and(|outside| outside.config().mtu == self.mtu);
        if self.address == Some(address) && is_same {
            return Ok(());
        }
        // What was decided of a datagram holds the address that is ours no more.
        self.forget_fragments();
        self.address = Some(address);
        self.asking_since = None;
        self.news.push(UplinkNews::Bound(address, router));
        let config = nat::Config {
            mac: device.mac,
            ip: address.addr(),
            subnet: address.trunc(),
            mtu: self.mtu,
            uplink: false,
            services: Vec::new(),
            verify_source: false,
            isolate: false,
            routes: Vec::new(),
            peers: Vec::new(),
            translated: true,
            point_to_point: device.peer,
        };
        let mut outside = Gateway::new(config, self.secret.rotate_left(7));
        if device.peer.is_none() {
            outside.announce(now);
        }
        self.outside = Some(outside);
        self.conntrack.set_outside(self.told.nat.translate.then(|| address.addr()), now);
        Ok(())
    }

    fn unbind(&mut self, now: Instant) {
        self.outside = None;
        self.router = None;
        self.address = None;
        self.forget_fragments();
        self.conntrack.set_outside(None, now);
    }

    fn forget_fragments(&mut self) {
        self.drops.add(self.fragments.drops());
        self.fragments = Fragments::new(Limits::default(), self.key);
    }

    fn client_said(&mut self, event: Option<Event>, now: Instant, ports: &mut impl Ports) {
        match event {
            Some(Event::Bound(lease) | Event::Renewed(lease)) => {
                let Lease { address, router, mtu, .. } = lease;
                self.set_mtu(mtu.map_or(self.device_mtu, |mtu| mtu.min(self.device_mtu)));
                if let (Err(Overlap), Some(client)) = (self.bind(address, router, now), &mut self.client) {
                    client.decline(now, &mut Wire { ports, drops: &mut self.drops });
                }
            }
            Some(Event::Lost) => {
                self.news.push(UplinkNews::Lost);
                self.asking_since = Some(now);
                self.unbind(now);
            }
            None => {}
        }
    }

    /// Once a turn, if something is due.
    pub(crate) fn poll(&mut self, inside: &mut Inside<'_, impl Ports>) {
        let now = inside.now();
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if self.is_behind || is_due(self.conntrack.deadline()) {
            self.is_behind = !self.conntrack.poll(now);
        }
        self.forget_late_fragments(now);
        if let Some(client) = &mut self.client
            && is_due(client.deadline())
        {
            let event = client.poll(now, &mut Wire { ports: inside.ports(), drops: &mut self.drops });
            self.client_said(event, now, inside.ports());
        }
        if let Some(outside) = &mut self.outside
            && is_due(outside.deadline())
        {
            outside.poll(now, &mut Wire { ports: inside.ports(), drops: &mut self.drops });
            for (meta, mut bytes) in outside.take_given_up() {
                self.tell_unreachable(meta, &mut bytes, inside);
            }
        }
        if self.asking_since.is_some_and(|since| now - since >= PATIENCE) {
            self.asking_since = None;
            self.news.push(UplinkNews::NoAnswer);
        }
    }

    /// Nobody is told of fragments that did not all come: the destination got the first one, and says so itself.
    fn forget_late_fragments(&mut self, now: Instant) {
        while self.fragments.deadline().is_some_and(|at| at <= now) && self.fragments.poll(now).is_some() {}
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.is_behind
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let client = self.client.as_ref().and_then(Client::deadline);
        let outside = self.outside.as_ref().and_then(Gateway::deadline);
        let asking = self.asking_since.map(|since| since + PATIENCE);
        [asking, self.conntrack.deadline(), self.fragments.deadline(), client, outside].into_iter().flatten().min()
    }

    /// Takes a frame that the uplink's device brought, all the way.
    pub(crate) fn rx(
        &mut self,
        meta: Meta,
        bytes: &mut [u8],
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<Verdict, DropReason> {
        let now = inside.now();
        let mut frame = Frame::parse(meta, bytes)?;
        if let Some(client) = &mut self.client
            && is_for_dhcp_client(&frame)
        {
            let event = client.handle(&frame, now, &mut Wire { ports: inside.ports(), drops: &mut self.drops })?;
            self.client_said(event, now, inside.ports());
            return Ok(Verdict::Reply);
        }
        let Some(outside) = &mut self.outside else { return Err(DropReason::UplinkDown) };
        if frame.parsed().l3 == L3::Arp
            && let Some(sender) = arp_sender(&frame)
        {
            self.conntrack.forget_hop(Realm::Outside, sender);
        }
        let wire = &mut Wire { ports: inside.ports(), drops: &mut self.drops };
        match outside.handle(&mut frame, now, journey, wire) {
            nat::Outcome::Inbound => self.inbound(&mut frame, inside, journey),
            nat::Outcome::Drop(reason) => Err(reason),
            nat::Outcome::Reply | nat::Outcome::Dhcp | nat::Outcome::Uplink | nat::Outcome::Peer(_) => {
                Ok(Verdict::Reply)
            }
        }
    }

    /// A container left: what it had ends.
    pub(crate) fn port_gone(&mut self, owner: u32, now: Instant) {
        self.conntrack.remove_owner(owner, now);
    }

    pub(crate) fn neighbours(&self, now: Instant) -> Vec<NeighbourView> {
        self.outside.as_ref().map(|outside| outside.neighbours(now)).unwrap_or_default()
    }

    /// What happened since it was asked last.
    pub(crate) fn take_news(&mut self) -> Vec<UplinkNews> {
        std::mem::take(&mut self.news)
    }

    pub(crate) fn view(&self) -> PacketView {
        let state = match (&self.device, &self.outside) {
            (None, _) => PacketState::Waiting,
            (Some(_), None) if self.overlaps => PacketState::Overlapping,
            (Some(_), None) => PacketState::Asking,
            (Some(_), Some(_)) => PacketState::Up,
        };
        PacketView {
            state,
            address: self.address,
            router: self.router,
            mac: self.device.map(|device| device.mac),
            mtu: self.mtu,
            sessions: self.conntrack.len(),
            mappings: self.conntrack.mappings(),
        }
    }

    /// What was dropped without a port of the switch to count it at.
    pub(crate) fn drops(&self) -> DropCounters {
        let mut drops = self.drops.clone();
        drops.add(self.fragments.drops());
        if let Some(outside) = &self.outside {
            drops.add(outside.late_drops());
        }
        drops
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    /// The next hop outside: the router of the longest prefix, the destination itself if it is on the link, or the
    /// default router.
    fn hop_outside(&self, dst: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.device?.peer.is_some() || self.address?.contains(&dst) {
            return Some(dst);
        }
        let routes = self.told.routes.iter().filter(|(prefix, _)| prefix.contains(&dst));
        routes.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, hop)| *hop).or(self.router)
    }
}

fn is_for_dhcp_client(frame: &Frame<'_>) -> bool {
    frame.parsed().vlan.is_none()
        && frame.parsed().l4 == L4::Udp
        && frame.dst_port() == DHCP_CLIENT
        && frame.src_port() == DHCP_CLIENT - 1
}

/// The protocol address of an ARP packet's sender.
pub(crate) fn arp_sender(frame: &Frame<'_>) -> Option<Ipv4Addr> {
    let [a, b, c, d] = *frame.packet().get(14..18)?.first_chunk()?;
    Some(Ipv4Addr::new(a, b, c, d))
}
