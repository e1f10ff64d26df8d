//! One network of the daemon: the pipeline without I/O, and everything it is joined to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use tapswitch_dhcp::State;
use tapswitch_link::capture::CaptureId;
use tapswitch_link::routes::Routes;
use tapswitch_link::socket::{receive_many, send_many, send_room, set_dont_fragment, set_peek_offset};
use tapswitch_link::tap::Tap;
use tapswitch_nat::Peer;
use tapswitch_network::{Config, Network, Ports, Uplink};
use tapswitch_relay::{Lent, Limits, Policy, Sockets};
use tapswitch_wire::{DropReason, Instant, Journey, Mac, Meta, PortId, Verdict};

use super::book::Book;
use super::clock::Clock;
use super::events;
use super::handoff::Handed;
use super::journal::Journal;
use super::reader::Place;
use super::taps::{Capturing, Taps};
use super::trace::Tracing;
use super::uplinks::{self, UplinkPort};
use crate::api::AttachTap;
use crate::config::{NetworkPlan, Side, UplinkPlan};
use crate::publish::Spec;

/// An attached container, or one that an offer was made to.
pub(super) struct Member {
    pub(super) mac: Mac,
    /// The address that was reserved; none if a DHCP client asks for one.
    pub(super) ip: Option<Ipv4Addr>,
    /// What is to be published once it is attached.
    pub(super) publish: Vec<Spec>,
    /// Set once it is attached.
    pub(super) attached: Option<Attached>,
}

/// What an attached container is.
pub(super) struct Attached {
    pub(super) port: PortId,
    pub(super) tap: AttachTap,
    pub(super) offload: bool,
    pub(super) since: Instant,
    /// Tells it from others that have the port's number after it.
    pub(super) serial: u64,
    /// The poll threads that read it, one for each queue.
    pub(super) threads: Vec<usize>,
    /// A hold on each queue, for the one who closes them.
    pub(super) queues: Vec<Tap>,
}

pub(super) struct Lan {
    /// Its place among the daemon's networks.
    pub(super) index: usize,
    pub(super) plan: NetworkPlan,
    pub(super) network: Network<Sockets>,
    pub(super) taps: Taps,
    pub(super) members: HashMap<String, Member>,
    /// The device of the uplink, if it has one.
    pub(super) uplink: Option<UplinkPort>,
    /// What its containers publish.
    pub(super) book: Book,
    /// How many sockets of the host each container may have.
    pub(super) share: usize,
    names: HashMap<PortId, String>,
    journal: Journal,
}

impl Lan {
    #[expect(clippy::too_many_arguments, reason = "what the daemon has in one piece")]
    pub(super) fn new(
        index: usize,
        plan: NetworkPlan,
        subnets: &[Ipv4Net],
        peers: Vec<Peer>,
        limits: Limits,
        registry: mio::Registry,
        token_bits: u64,
        capture: Option<Arc<Capturing>>,
        tracing: &Arc<Tracing>,
        clock: &Clock,
    ) -> Result<Lan, String> {
        let config = Config {
            subnet: plan.subnet,
            gateway: plan.gateway,
            mtu: plan.mtu,
            isolate: plan.isolate,
            lease_time: plan.lease_time,
            dns: plan.dns(),
            search: plan.search.clone(),
            bridged: matches!(plan.uplink, UplinkPlan::Lan { .. }),
            routes: uplinks::routes(&plan, Side::Lan),
            peers,
        };
        let policy = Policy {
            gateway: IpAddr::V4(plan.gateway),
            resolver: plan.resolver,
            allow: plan.allow.clone(),
            // Networks are isolated from each other, through the host's sockets too.
            deny: subnets.iter().copied().map(IpNet::V4).collect(),
        };
        let mut routes = Routes::open().map_err(|e| format!("cannot ask for the host's routes: {e}; try again"))?;
        let is_own = Box::new(move |ip| routes.is_own(ip));
        let lent = Lent { set_peek_offset, send_room, set_dont_fragment, send_many, receive_many, is_own };
        let uplink = match &plan.uplink {
            UplinkPlan::User => Some(Uplink::User { policy, limits, host: Sockets::new(registry, token_bits, lent) }),
            UplinkPlan::Nat(_) | UplinkPlan::Tun(_) => {
                uplinks::packet(&plan, policy).map(|told| Uplink::Packet(Box::new(told)))
            }
            UplinkPlan::Lan { .. } | UplinkPlan::None => None,
        };
        let now = clock.now();
        let mut network =
            Network::new(config, uplink, random(), now, (clock.epoch() + (now - Instant::ZERO)).as_secs());
        let journal = match &plan.state_dir {
            Some(dir) => Journal::open(dir, &plan.name, network.dhcp())?,
            None => Journal::in_memory(),
        };
        let taps = Taps::new(&plan.name, capture, (index, Arc::clone(tracing)));
        let (members, names, book) = (HashMap::new(), HashMap::new(), Book::new(&plan.publish));
        let share = limits.flows_per_container;
        let mut lan = Lan { index, plan, network, taps, members, uplink: None, book, share, names, journal };
        lan.release_orphans(now);
        Ok(lan)
    }

    /// Attached containers lost their interfaces when an earlier daemon ended, so what was reserved for them is free.
    /// Leases of DHCP clients stay: such a client asks for its address again.
    fn release_orphans(&mut self, now: Instant) {
        let names = self.network.leases(now).into_iter().filter(|lease| lease.state == State::Reserved);
        for name in names.filter_map(|lease| lease.name) {
            let journal = &mut self.journal;
            self.network.dhcp().release(&name, now, &mut |line| journal.record(line));
        }
    }

    /// Runs one frame of a container to its end.
    #[inline]
    pub(super) fn frame(
        &mut self,
        port: PortId,
        meta: Meta,
        frame: &mut [u8],
        now: Instant,
        journey: &mut impl Journey,
    ) -> Verdict {
        let journal = &mut self.journal;
        self.network.rx(port, meta, frame, now, journey, &mut self.taps.at(now), &mut |line| journal.record(line))
    }

    /// Runs one frame that the uplink's device brought to its end.
    #[inline]
    pub(super) fn uplink_frame(
        &mut self,
        meta: Meta,
        frame: &mut [u8],
        now: Instant,
        journey: &mut impl Journey,
    ) -> Verdict {
        self.taps.record_uplink(now, &meta, frame);
        self.network.uplink_rx(meta, frame, now, journey, &mut self.taps.at(now))
    }

    /// The names of the ports.
    pub(super) fn names(&self) -> &HashMap<PortId, String> {
        &self.names
    }

    /// Names a port, or forgets its name.
    pub(super) fn name_port(&mut self, port: PortId, name: Option<String>) {
        self.taps.name_port(port, name.as_deref());
        match name {
            Some(name) => self.names.insert(port, name),
            None => self.names.remove(&port),
        };
    }

    /// The end of a turn.
    pub(super) fn poll(&mut self, now: Instant) {
        let journal = &mut self.journal;
        self.network.poll(now, &mut self.taps.at(now), &mut |line| journal.record(line));
        self.taps.tell_later();
        for news in self.network.take_uplink_news() {
            uplinks::log(&self.plan, news);
        }
        self.journal.tidy(|| self.network.dhcp().snapshot());
        let teller = &self.taps.tracing().events;
        let lines = self.journal.take_news(teller.is_heard());
        events::tell_leases(teller, self, &lines, now);
    }

    /// Reserves an address under a container's name.
    pub(super) fn reserve(
        &mut self,
        name: &str,
        mac: Option<Mac>,
        ip: Option<Ipv4Addr>,
        now: Instant,
    ) -> Result<tapswitch_dhcp::Reservation, tapswitch_dhcp::ReserveError> {
        let journal = &mut self.journal;
        self.network.dhcp().reserve(name, mac, ip, now, &mut |line| journal.record(line))
    }

    /// Gives back what was reserved under a name.
    pub(super) fn forget(&mut self, name: &str, now: Instant) {
        if self.members.remove(name).is_some_and(|member| member.ip.is_some()) {
            let journal = &mut self.journal;
            self.network.dhcp().release(name, now, &mut |line| journal.record(line));
        }
    }

    /// Makes a port work. Its number is free.
    pub(super) fn add_port(&mut self, port: PortId, name: &str, tap: Tap, captured: Option<CaptureId>, now: Instant) {
        self.network.add_port(port);
        self.taps.insert(port, tap, captured);
        self.name_port(port, Some(name.to_string()));
        if !self.network.config().bridged {
            // Stations that knew another gateway at this address hear of this one.
            self.network.announce(now);
        }
    }

    /// The rest of the way of a frame that another thread read.
    pub(super) fn handed(
        &mut self,
        handed: &Handed,
        frame: &mut [u8],
        now: Instant,
        journey: &mut impl Journey,
    ) -> Verdict {
        let Handed { place, meta, share, .. } = *handed;
        // The port's number may be another container's by now.
        if !self.is_at(place) {
            self.network.dropped(PortId::GATEWAY, DropReason::UnknownPort);
            self.taps.at(now).lost(PortId::GATEWAY, DropReason::UnknownPort, &meta, frame);
            return Verdict::Drop(DropReason::UnknownPort);
        }
        let journal = &mut self.journal;
        let record = &mut |line: &[u8]| journal.record(line);
        self.network.handed(place.port, meta, frame, share, now, journey, &mut self.taps.at(now), record)
    }

    /// Whether this very port is attached.
    pub(super) fn is_at(&self, place: Place) -> bool {
        self.attached(place).is_some()
    }

    /// What this very port is attached by.
    pub(super) fn attached(&self, place: Place) -> Option<&Attached> {
        let member = self.names.get(&place.port).and_then(|name| self.members.get(name))?;
        member.attached.as_ref().filter(|attached| attached.serial == place.serial)
    }

    /// Detaches a container and forgets it. Returns what it was attached by.
    pub(super) fn remove_port(&mut self, port: PortId, now: Instant) -> Option<Attached> {
        let name = self.names.remove(&port);
        self.taps.name_port(port, None);
        let member = name.as_ref().and_then(|name| self.members.get_mut(name));
        let (mac, attached) = match member {
            Some(member) => (Some(member.mac), member.attached.take()),
            None => (None, None),
        };
        let ip = self.network.leases(now).into_iter().find(|lease| Some(lease.mac) == mac).map(|lease| lease.ip);
        let journal = &mut self.journal;
        self.network.remove_port(port, ip, now, &mut |line| journal.record(line));
        self.book.gone(port);
        self.taps.remove(port);
        if let Some(name) = name {
            self.forget(&name, now);
        }
        attached
    }

    /// The name of the container at a port.
    pub(super) fn name_of(&self, port: PortId) -> String {
        match (port, self.names.get(&port)) {
            (PortId::GATEWAY, _) => "gateway".into(),
            (_, Some(name)) => name.clone(),
            (port, None) => format!("port {port}"),
        }
    }

    pub(super) fn flush_capture(&mut self) {
        self.taps.flush_capture();
    }
}

/// A number that nobody can guess: the seed of the standard library's hash maps comes from the system.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
