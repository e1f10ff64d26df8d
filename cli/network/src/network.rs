//! The pipeline.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tapswitch_conntrack::Realm;
use tapswitch_dhcp as dhcp;
use tapswitch_nat::{self as nat, Gateway, IcmpError, NeighbourView, Outcome, Service};
use tapswitch_relay::{
    self as relay, FlowId, FlowView, Host, Limits, Policy, Proto, Publication, Readiness, Refusal, Relay,
};
use tapswitch_switch::{FdbEntry, PortCounters};
use tapswitch_wire::{DropCounters, DropReason, Frame, Instant, Journey, L3, Mac, Meta, PortId, Stage, Step, Verdict};

use crate::fast::Fast;
use crate::forwarder::{Forwarder, Hop, Share, arrived};
use crate::lan::{Lan, Ports};
use crate::packet::{Packet, PacketUplink, arp_sender};
use crate::uplink::{Crossing, Inside, MAX_CROSSING};

/// The way out.
pub enum Uplink<H> {
    /// Each flow becomes a socket of the host.
    User {
        /// Where containers may go.
        policy: Policy,
        /// How many flows there may be.
        limits: Limits,
        /// The host's sockets.
        host: H,
    },
    /// Packets leave by an interface of our own.
    Packet(Box<PacketUplink>),
}

/// What a network is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its addresses.
    pub subnet: Ipv4Net,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// MTU of its ports.
    pub mtu: u16,
    /// Whether its containers are kept from each other.
    pub isolate: bool,
    /// How long a DHCP lease lasts.
    pub lease_time: Duration,
    /// Whom DHCP clients are told to ask for names.
    pub dns: Vec<Ipv4Addr>,
    /// Domains that DHCP clients are told to append.
    pub search: Vec<String>,
    /// Whether it is joined to a LAN that has its own router and address service: then there is no gateway here.
    pub bridged: bool,
    /// Subnets behind routers of the LAN, and those routers' addresses.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Other networks that packets may be passed to.
    pub peers: Vec<nat::Peer>,
}

impl Config {
    /// MAC address of the gateway.
    pub fn gateway_mac(&self) -> Mac {
        Mac::from_ipv4(self.gateway)
    }
}

/// One network.
pub struct Network<H> {
    pub(crate) config: Config,
    pub(crate) forwarder: Forwarder,
    pub(crate) gateway: Gateway,
    pub(crate) dhcp: dhcp::Server,
    pub(crate) relay: Option<Relay<H>>,
    pub(crate) packet: Option<Box<Packet>>,
    /// Packets for other networks.
    pub(crate) crossing: Vec<Crossing>,
    /// Scratch space: where a frame of the gateway goes.
    pub(crate) lan_targets: Vec<PortId>,
}

impl<H: Host> Network<H> {
    /// A network without containers. `wall` is UNIX time in seconds at `now`, `secret` seeds what must not be guessed.
    pub fn new(config: Config, uplink: Option<Uplink<H>>, secret: u64, now: Instant, wall: u64) -> Network<H> {
        let mac = config.gateway_mac();
        let mut forwarder = Forwarder::new(config.mtu, config.isolate, config.bridged);
        if !config.bridged {
            forwarder.switch.pin(mac, PortId::GATEWAY);
        }
        let has_uplink = uplink.is_some();
        let (relay, told) = match uplink {
            Some(Uplink::User { policy, limits, host }) => {
                let relay = relay::Config { mac, mtu: config.mtu, policy, limits };
                (Some(Relay::new(relay, host)), None)
            }
            Some(Uplink::Packet(told)) => (None, Some(told)),
            None => (None, None),
        };
        let mut services = vec![Service::Dhcp];
        if relay.is_some() {
            // Which ports are open at our own address changes with what is published.
            services.push(Service::AnyPort);
        }
        let gateway = nat::Config {
            mac,
            ip: config.gateway,
            subnet: config.subnet,
            mtu: config.mtu,
            uplink: has_uplink,
            services,
            verify_source: true,
            isolate: config.isolate,
            routes: config.routes.clone(),
            peers: config.peers.clone(),
            translated: false,
            point_to_point: None,
        };
        let packet = told.map(|told| Box::new(Packet::new(*told, &gateway, secret.rotate_left(23))));
        forwarder.fast = packet.as_ref().map(|packet| Fast::new(Arc::clone(packet.conntrack()), mac));
        let dhcp = dhcp::Config {
            lease_time: config.lease_time,
            max_lease_time: config.lease_time.max(Duration::from_secs(24 * 3600)),
            mtu: config.mtu,
            dns: config.dns.clone(),
            search: config.search.clone(),
            // A network without a way out has no router to speak of.
            routers: if has_uplink || !config.peers.is_empty() { vec![config.gateway] } else { Vec::new() },
            ..dhcp::Config::new(config.subnet, config.gateway, mac)
        };
        Network {
            forwarder,
            gateway: Gateway::new(gateway, secret),
            dhcp: dhcp::Server::new(dhcp, now, wall),
            relay,
            packet,
            crossing: Vec::new(),
            config,
            lan_targets: Vec::new(),
        }
    }

    /// What it was told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Attaches a container.
    pub fn add_port(&mut self, port: PortId) {
        self.forwarder.add_port(port);
    }

    /// Detaches a container: everything that was known of it goes. `ip` is its address, if there is one to forget.
    pub fn remove_port(&mut self, port: PortId, ip: Option<Ipv4Addr>, now: Instant, record: &mut impl FnMut(&[u8])) {
        self.forwarder.switch.remove_port(port);
        self.dhcp.port_gone(port, now, record);
        if let Some(relay) = &mut self.relay {
            relay.port_gone(port);
        }
        if let Some(packet) = &mut self.packet {
            packet.port_gone(port.0, now);
        }
        if let Some(ip) = ip {
            self.gateway.forget(ip);
            if let Some(packet) = &self.packet {
                packet.conntrack().forget_hop(Realm::Inside, ip);
            }
        }
    }

    /// One more forwarder, for another thread.
    pub fn forwarder(&self) -> Forwarder {
        self.forwarder.another()
    }

    /// Takes one frame of a container all the way.
    #[expect(clippy::too_many_arguments, reason = "everything that one frame needs on its way")]
    pub fn rx(
        &mut self,
        port: PortId,
        meta: Meta,
        bytes: &mut [u8],
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
        record: &mut impl FnMut(&[u8]),
    ) -> Verdict {
        arrived(port, meta, bytes, journey);
        let verdict = self.run(port, meta, bytes, now, journey, ports, record).unwrap_or_else(Verdict::Drop);
        concluded(verdict, journey);
        verdict
    }

    #[expect(clippy::too_many_arguments, reason = "everything that one frame needs on its way")]
    fn run(
        &mut self,
        port: PortId,
        meta: Meta,
        bytes: &mut [u8],
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
        record: &mut impl FnMut(&[u8]),
    ) -> Result<Verdict, DropReason> {
        let mut frame = match self.forwarder.parse(port, meta, bytes, journey) {
            Ok(frame) => frame,
            Err(reason) => {
                ports.lost(port, reason, &meta, bytes);
                return Err(reason);
            }
        };
        match self.forwarder.forward(port, &mut frame, now, journey, ports)? {
            Hop::Ended(verdict) => Ok(verdict),
            Hop::Gateway(share) => self.at_gateway(port, &mut frame, share, now, journey, ports, record),
        }
    }

    /// The rest of the way of a frame that another thread's [`Forwarder`] found to be for the gateway. The container must
    /// still be attached.
    #[expect(clippy::too_many_arguments, reason = "everything that one frame needs on its way")]
    pub fn handed(
        &mut self,
        port: PortId,
        meta: Meta,
        bytes: &mut [u8],
        share: Share,
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
        record: &mut impl FnMut(&[u8]),
    ) -> Verdict {
        let verdict = match Frame::parse(meta, bytes) {
            Ok(mut frame) => self.at_gateway(port, &mut frame, share, now, journey, ports, record),
            Err(reason) => {
                self.forwarder.dropped(port, reason);
                ports.lost(port, reason, &meta, bytes);
                Err(reason)
            }
        };
        let verdict = verdict.unwrap_or_else(Verdict::Drop);
        concluded(verdict, journey);
        verdict
    }

    /// What the gateway makes of a frame, alone or beside others.
    #[expect(clippy::too_many_arguments, reason = "everything that one frame needs on its way")]
    fn at_gateway(
        &mut self,
        port: PortId,
        frame: &mut Frame<'_>,
        share: Share,
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
        record: &mut impl FnMut(&[u8]),
    ) -> Result<Verdict, DropReason> {
        let to_all = frame.dst_mac().is_multicast();
        let verdict = self.serve(port, frame, now, journey, ports, record);
        match (share, verdict) {
            (Share::Alone, Verdict::Drop(reason)) if to_all && is_for_others(reason) => {
                // A flood that met nobody else.
                Ok(Verdict::Flood { ports: 1 })
            }
            (Share::Alone, Verdict::Drop(reason)) => {
                self.forwarder.dropped(port, reason);
                ports.lost(port, reason, frame.meta(), frame.bytes());
                Err(reason)
            }
            (Share::Alone, verdict) => Ok(verdict),
            (Share::Flooded(others), verdict) => {
                if let Verdict::Drop(reason) = verdict
                    && !is_for_others(reason)
                {
                    self.forwarder.dropped(PortId::GATEWAY, reason);
                    ports.lost(PortId::GATEWAY, reason, frame.meta(), frame.bytes());
                }
                Ok(Verdict::Flood { ports: others + 1 })
            }
        }
    }

    /// The gateway's port got the frame.
    fn serve(
        &mut self,
        port: PortId,
        frame: &mut Frame<'_>,
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
        record: &mut impl FnMut(&[u8]),
    ) -> Verdict {
        self.forwarder.switch.sent(PortId::GATEWAY, frame.bytes().len());
        if let Some(packet) = &self.packet
            && frame.parsed().l3 == L3::Arp
            && let Some(sender) = arp_sender(frame)
        {
            packet.conntrack().forget_hop(Realm::Inside, sender);
        }
        let mut lan = Lan { switch: &mut self.forwarder.switch, ports, targets: &mut self.lan_targets, now };
        match self.gateway.handle(frame, now, journey, &mut lan) {
            Outcome::Reply => Verdict::Reply,
            Outcome::Dhcp => match self.dhcp.handle(port, frame, now, journey, record, &mut lan) {
                Ok(()) => Verdict::Reply,
                Err(reason) => Verdict::Drop(reason),
            },
            Outcome::Inbound => Verdict::Drop(DropReason::NoRoute),
            Outcome::Peer(network) => {
                if self.crossing.len() >= MAX_CROSSING {
                    return Verdict::Drop(DropReason::GatewayBusy);
                }
                self.crossing.push(Crossing { network, meta: *frame.meta(), frame: frame.bytes().to_vec() });
                Verdict::Relay
            }
            Outcome::Uplink => {
                if let Some(packet) = &mut self.packet {
                    let Lan { switch, ports, targets, now } = lan;
                    let mut inside = Inside { gateway: &mut self.gateway, switch, ports, targets, now };
                    return packet.outbound(port, frame, &mut inside, journey).unwrap_or_else(Verdict::Drop);
                }
                let Some(relay) = &mut self.relay else { return Verdict::Drop(DropReason::NoRoute) };
                match relay.handle(port, frame, now, journey, &mut lan) {
                    Ok(()) => Verdict::Relay,
                    Err(Refusal { reason: DropReason::NoSuchService, .. }) => {
                        Verdict::Drop(self.gateway.refuse_closed(frame, now, journey, &mut lan))
                    }
                    Err(Refusal { reason, unreachable }) => {
                        if let Some(code) = unreachable {
                            // What cannot be said (too often, or about an error) is counted by its own reason.
                            if let Err(reason) = self.gateway.icmp_error(frame, icmp_error(code), now, &mut lan) {
                                lan.switch.dropped(PortId::GATEWAY, reason);
                                lan.ports.lost(PortId::GATEWAY, reason, frame.meta(), frame.bytes());
                            }
                        }
                        Verdict::Drop(reason)
                    }
                }
            }
            Outcome::Drop(reason) => Verdict::Drop(reason),
        }
    }

    /// Something became possible on a socket of the uplink.
    pub fn host_event(&mut self, flow: FlowId, ready: Readiness, now: Instant, ports: &mut impl Ports) {
        let mut lan = Lan { switch: &mut self.forwarder.switch, ports, targets: &mut self.lan_targets, now };
        if let Some(relay) = &mut self.relay {
            relay.host_event(flow, ready, now, &mut lan);
        }
    }

    /// Once a turn: lets the uplink send what it owes, and all timers end that are due.
    pub fn poll(&mut self, now: Instant, ports: &mut impl Ports, record: &mut impl FnMut(&[u8])) {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if is_due(self.forwarder.switch.deadline()) {
            self.forwarder.switch.poll(now);
        }
        if is_due(self.dhcp.deadline()) {
            self.dhcp.poll(now, record);
        }
        let mut lan = Lan { switch: &mut self.forwarder.switch, ports, targets: &mut self.lan_targets, now };
        if is_due(self.gateway.deadline()) {
            self.gateway.poll(now, &mut lan);
        }
        if let Some(packet) = &mut self.packet
            && (packet.is_busy() || is_due(packet.deadline()))
        {
            let Lan { switch, ports, targets, now } = &mut lan;
            packet.poll(&mut Inside { gateway: &mut self.gateway, switch, ports: *ports, targets, now: *now });
        }
        if let Some(relay) = &mut self.relay
            && (relay.is_busy() || is_due(relay.deadline()))
        {
            relay.poll(now, &mut lan);
        }
    }

    /// Whether something is left to be sent this very moment.
    pub fn is_busy(&self) -> bool {
        self.relay.as_ref().is_some_and(Relay::is_busy)
            || !self.crossing.is_empty()
            || self.packet.as_ref().is_some_and(|packet| packet.is_busy())
    }

    /// When [`Network::poll`] has something to do although nothing comes.
    pub fn deadline(&self) -> Option<Instant> {
        let relay = self.relay.as_ref().and_then(Relay::deadline);
        let packet = self.packet.as_ref().and_then(|packet| packet.deadline());
        [self.forwarder.switch.deadline(), self.dhcp.deadline(), self.gateway.deadline(), relay, packet]
            .into_iter()
            .flatten()
            .min()
    }

    /// Says to the LAN where the gateway is.
    pub fn announce(&mut self, now: Instant) {
        self.gateway.announce(now);
    }

    /// The address service.
    pub fn dhcp(&mut self) -> &mut dhcp::Server {
        &mut self.dhcp
    }

    /// Leases and reservations.
    pub fn leases(&self, now: Instant) -> Vec<dhcp::LeaseView> {
        self.dhcp.leases(now)
    }

    /// Stations and the ports they stand behind.
    pub fn fdb(&self, now: Instant) -> Vec<FdbEntry> {
        self.forwarder.switch.fdb(now)
    }

    /// The gateway's neighbours.
    pub fn neighbours(&self, now: Instant) -> Vec<NeighbourView> {
        let mut all = self.gateway.neighbours(now);
        all.extend(self.packet.iter().flat_map(|packet| packet.neighbours(now)));
        all
    }

    /// Opens a port of the host that leads to a container: see [`Relay::publish`].
    ///
    /// # Errors
    /// What the host says; [`io::ErrorKind::Unsupported`] if the uplink is not the host's sockets.
    pub fn publish(&mut self, publication: Publication) -> io::Result<SocketAddr> {
        self.relay.as_mut().ok_or(io::ErrorKind::Unsupported)?.publish(publication)
    }

    /// Closes a port of the host. Connections that came by it go on. Returns where it led.
    pub fn unpublish(&mut self, proto: Proto, at: SocketAddr) -> Option<Publication> {
        self.relay.as_mut()?.unpublish(proto, at)
    }

    /// Ports of the host that lead to containers.
    pub fn published(&self) -> impl Iterator<Item = &Publication> {
        self.relay.iter().flat_map(Relay::published)
    }

    /// Flows through the uplink.
    pub fn flows(&self, now: Instant) -> Vec<FlowView> {
        self.relay.as_ref().map(|relay| relay.flows(now)).unwrap_or_default()
    }

    /// Ends flows that are sockets of the host. Returns how many.
    pub fn end_flows(&mut self, now: Instant, matches: impl Fn(&FlowView) -> bool) -> usize {
        self.relay.as_mut().map_or(0, |relay| relay.end_where(now, matches))
    }

    /// Number of flows through the uplink.
    pub fn flow_count(&self) -> usize {
        let sessions = self.packet.as_ref().map_or(0, |packet| packet.conntrack().len());
        self.relay.as_ref().map_or(sessions, Relay::len)
    }

    /// The host's side of the uplink.
    pub fn host(&mut self) -> Option<&mut H> {
        self.relay.as_mut().map(Relay::host)
    }

    /// Counters of a port; `None` if it is not attached.
    pub fn counters(&self, port: PortId) -> Option<&PortCounters> {
        self.forwarder.switch.counters(port)
    }

    /// Drops at the gateway's own port: of the switch, of packets that waited for a neighbour, and of what came from the
    /// outside.
    pub fn gateway_drops(&self) -> DropCounters {
        let mut drops = self.gateway.late_drops().clone();
        drops.add(self.forwarder.switch.stray_drops());
        if let Some(relay) = &self.relay {
            drops.add(relay.drops());
        }
        if let Some(packet) = &self.packet {
            drops.add(&packet.drops());
        }
        if let Some(counters) = self.forwarder.switch.counters(PortId::GATEWAY) {
            drops.add(&counters.drops);
        }
        drops
    }

    /// Counts a drop that happened before the frame could be read.
    pub fn dropped(&mut self, port: PortId, reason: DropReason) {
        self.forwarder.switch.dropped(port, reason);
    }
}

/// Tells how a frame ended.
pub(crate) fn concluded(verdict: Verdict, journey: &mut impl Journey) {
    journey.note(|| {
        Step::decided(
            Stage::Verdict,
            match verdict {
                Verdict::Forward(to) => format!("forwarded to port {to}"),
                Verdict::Flood { ports } => format!("flooded to {ports} ports"),
                Verdict::Reply => "taken in by the gateway".to_string(),
                Verdict::Relay => "handed to the uplink".to_string(),
                Verdict::Drop(reason) => format!("dropped, {reason}: {}", reason.text()),
            },
        )
    });
}

/// Whether a flooded frame was merely not meant for the gateway. The others got it, so it was not dropped.
fn is_for_others(reason: DropReason) -> bool {
    use DropReason::{ArpNotForUs, Ipv6NotRouted, MulticastNotRouted, NotForUs, UnknownEthertype};
    matches!(reason, ArpNotForUs | Ipv6NotRouted | MulticastNotRouted | NotForUs | UnknownEthertype)
}

/// The error with this code of "destination unreachable".
fn icmp_error(code: u8) -> IcmpError {
    match code {
        0 => IcmpError::NetUnreachable,
        1 => IcmpError::HostUnreachable,
        2 => IcmpError::ProtocolUnreachable,
        3 => IcmpError::PortUnreachable,
        _ => IcmpError::AdminProhibited,
    }
}
