//! The present state, as the API shows it.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use tapswitch_dhcp::{ReserveError, State};
use tapswitch_nat::NeighbourState;
use tapswitch_switch::PortCounters;
use tapswitch_wire::{DropCounters, Instant, L3, L4, Parsed, PortId, Recorded, Verdict};

use super::lan::{Attached, Lan, Member};
use super::lane::Lane;
use super::reader::Place;
use super::samples::{Dropped, Key, Rates, Samples};
use super::{Journeyed, Listener, publish, uplinks};
use crate::api::{
    ArpView, CountersView, FdbView, FlowView, JourneyView, LeaseView, NetworkView, PortView, StatsView, StepView,
    ThreadView, WayView,
};
use crate::daemon::command::{Refusal, Reply};

pub(super) fn network(lan: &Lan, now: Instant) -> NetworkView {
    let (plan, network) = (&lan.plan, &lan.network);
    NetworkView {
        name: plan.name.clone(),
        subnet: plan.subnet,
        gateway: plan.gateway,
        gateway_mac: network.config().gateway_mac(),
        mtu: plan.mtu,
        uplink: plan.uplink.to_string(),
        uplink_device: uplinks::view(lan),
        isolate: plan.isolate,
        dns: plan.dns(),
        resolver: plan.resolver.map(|resolver| resolver.to_string()),
        allow: plan.allow.iter().map(ToString::to_string).collect(),
        publish: plan.publish.iter().map(ToString::to_string).collect(),
        routes: plan.routes.iter().map(ToString::to_string).collect(),
        connect: plan.connect.clone(),
        ports: attached(lan).count(),
        leases: network.leases(now).iter().filter(|lease| lease.state != State::Released).count(),
        flows: network.flow_count(),
    }
}

fn attached(lan: &Lan) -> impl Iterator<Item = (&String, &Member, &Attached)> {
    lan.members.iter().filter_map(|(name, member)| Some((name, member, member.attached.as_ref()?)))
}

/// Containers in the order of their ports.
pub(super) fn ports(lan: &Lan, totals: &Totals, now: Instant) -> Vec<PortView> {
    let leases = lan.network.leases(now);
    let leased = |mac| leases.iter().find(|l| l.mac == mac && matches!(l.state, State::Bound | State::Reserved));
    let mut views: Vec<_> = attached(lan)
        .map(|(name, member, attached)| {
            let ip = member.ip.or_else(|| leased(member.mac).map(|lease| lease.ip));
            port(lan, name, member, attached, ip, totals.port(attached.port), now)
        })
        .collect();
    views.sort_by_key(|view| view.port);
    views
}

/// A container that was attached this moment.
pub(super) fn new_port(lan: &Lan, name: &str, now: Instant) -> Option<PortView> {
    let member = lan.members.get(name)?;
    Some(port(lan, name, member, member.attached.as_ref()?, member.ip, None, now))
}

fn port(
    lan: &Lan,
    name: &str,
    member: &Member,
    attached: &Attached,
    ip: Option<Ipv4Addr>,
    total: Option<&PortCounters>,
    now: Instant,
) -> PortView {
    PortView {
        name: name.to_owned(),
        network: lan.plan.name.clone(),
        port: attached.port.0,
        interface: attached.tap.interface.clone(),
        target: attached.tap.target.clone(),
        mac: member.mac,
        ip,
        mtu: lan.plan.mtu,
        offload: attached.offload,
        age_s: (now - attached.since).as_secs(),
        published: publish::published(lan, name),
        counters: total.map(counters).unwrap_or_default(),
    }
}

/// What all threads counted for the ports of a network.
pub(super) struct Totals {
    ports: HashMap<PortId, PortCounters>,
    /// Drops at the gateway's own port.
    gateway: DropCounters,
}

impl Totals {
    /// Each thread is stopped once, for as long as it takes to add its counters up.
    pub(super) fn of(lan: &Lan, lanes: &[Lane]) -> Totals {
        let own = |port| lan.network.counters(port).cloned().unwrap_or_default();
        let ports = attached(lan).map(|(_, _, attached)| (attached.port, own(attached.port))).collect();
        let mut totals = Totals { ports, gateway: lan.network.gateway_drops() };
        for lane in lanes {
            let state = lane.state();
            let forwarder = &state.parts[lan.index].forwarder;
            for (port, total) in &mut totals.ports {
                if let Some(counters) = forwarder.counters(*port) {
                    total.add(counters);
                }
            }
            totals.gateway.add(forwarder.stray_drops());
            if let Some(counters) = forwarder.counters(PortId::GATEWAY) {
                totals.gateway.add(&counters.drops);
            }
        }
        totals
    }

    /// The attached ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = (PortId, &PortCounters)> {
        self.ports.iter().map(|(port, counters)| (*port, counters))
    }

    /// Drops at the gateway's own port.
    pub(super) fn gateway(&self) -> &DropCounters {
        &self.gateway
    }

    fn port(&self, port: PortId) -> Option<&PortCounters> {
        self.ports.get(&port)
    }
}

fn counters(counters: &PortCounters) -> CountersView {
    CountersView {
        rx_frames: counters.rx_frames,
        rx_bytes: counters.rx_bytes,
        tx_frames: counters.tx_frames,
        tx_bytes: counters.tx_bytes,
        drops: counters.drops.iter().map(|(reason, count)| (reason.name().to_string(), count)).collect(),
    }
}

pub(super) fn fdb(lan: &Lan, now: Instant) -> Vec<FdbView> {
    let view = |entry: tapswitch_switch::FdbEntry| FdbView {
        network: lan.plan.name.clone(),
        mac: entry.mac,
        port: entry.port.0,
        name: lan.name_of(entry.port),
        age_s: (!entry.is_static).then_some(entry.age),
    };
    lan.network.fdb(now).into_iter().map(view).collect()
}

pub(super) fn arp(lan: &Lan, now: Instant) -> Vec<ArpView> {
    let view = |neighbour: tapswitch_nat::NeighbourView| ArpView {
        network: lan.plan.name.clone(),
        ip: neighbour.ip,
        mac: neighbour.mac,
        state: match neighbour.state {
            NeighbourState::Incomplete => "incomplete",
            NeighbourState::Reachable => "reachable",
            NeighbourState::Stale => "stale",
        }
        .into(),
        age_s: neighbour.age,
    };
    lan.network.neighbours(now).into_iter().map(view).collect()
}

pub(super) fn leases(lan: &Lan, now: Instant) -> Vec<LeaseView> {
    let view = |lease: tapswitch_dhcp::LeaseView| LeaseView {
        network: lan.plan.name.clone(),
        ip: lease.ip,
        mac: lease.mac,
        name: lease.name,
        hostname: lease.hostname,
        state: super::metrics::state_name(lease.state).into(),
        expires_s: lease.expires_in,
    };
    // A released address is remembered for its last holder, but it is nobody's.
    lan.network.leases(now).into_iter().filter(|lease| lease.state != State::Released).map(view).collect()
}

/// A flow that is a socket of the host.
pub(super) fn relayed(lan: &Lan, flow: &tapswitch_relay::FlowView) -> FlowView {
    // An echo has an identifier, not ports.
    let end = |end: std::net::SocketAddr| match flow.proto {
        "icmp" if end.port() == 0 => end.ip().to_string(),
        "icmp" => format!("{} id {}", end.ip(), end.port()),
        _ => end.to_string(),
    };
    let way = |src, dst, bytes| WayView { src: end(src), dst: end(dst), packets: None, bytes };
    let (up, down) = (way(flow.src, flow.dst, flow.up_bytes), way(flow.dst, flow.src, flow.down_bytes));
    let (reason, original, reply) = if flow.published { ("forward", down, up) } else { ("relayed", up, down) };
    FlowView {
        network: lan.plan.name.clone(),
        name: Some(lan.name_of(flow.port)),
        id: None,
        proto: flow.proto.into(),
        state: flow.state.into(),
        reason: reason.into(),
        original,
        reply,
        via: (flow.via != flow.dst).then(|| end(flow.via)),
        idle_s: flow.idle_s,
        expires_s: Some(flow.expires_s),
    }
}

pub(super) fn drops(lan: &Lan, lanes: &[Lane], rates: &Rates, now: Instant) -> Vec<Dropped> {
    let totals = Totals::of(lan, lanes);
    let mut samples = Samples::default();
    samples.add(lan.taps.samples());
    lanes.iter().for_each(|lane| samples.add(lane.state().parts[lan.index].taps.samples()));
    let mut ports: Vec<_> = attached(lan).map(|(name, _, attached)| (attached, name.as_str())).collect();
    ports.sort_by_key(|(attached, _)| attached.port);
    let gateway = (PortId::GATEWAY, 0, "gateway", &totals.gateway);
    let ports = ports.into_iter().filter_map(|(attached, name)| {
        Some((attached.port, attached.serial, name, &totals.port(attached.port)?.drops))
    });
    let mut rows = Vec::new();
    for (port, serial, name, drops) in std::iter::once(gateway).chain(ports) {
        rows.extend(drops.iter().map(|(reason, count)| Dropped {
            network: lan.plan.name.clone(),
            name: name.to_owned(),
            reason,
            count,
            rate: rates.rate((lan.index, serial, reason), count, now),
            sample: samples.take(port, reason),
        }));
    }
    rows
}

/// All drops that were counted so far.
pub(super) fn drop_counts(networks: &[Lan], lanes: &[Lane]) -> HashMap<Key, u64> {
    let mut counts = HashMap::new();
    for lan in networks {
        let totals = Totals::of(lan, lanes);
        counts.extend(totals.gateway.iter().map(|(reason, count)| ((lan.index, 0, reason), count)));
        for (_, _, attached) in attached(lan) {
            let drops = totals.port(attached.port).into_iter().flat_map(|counters| counters.drops.iter());
            counts.extend(drops.map(|(reason, count)| ((lan.index, attached.serial, reason), count)));
        }
    }
    counts
}

pub(super) fn stats(networks: &[Lan], lanes: &[Lane], threads: Vec<ThreadView>, now: Instant) -> StatsView {
    let mut stats = StatsView {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_s: now.as_secs(),
        networks: networks.len(),
        ports: 0,
        flows: 0,
        turns: threads.iter().map(|thread| thread.turns).sum(),
        sleeps: threads.iter().map(|thread| thread.sleeps).sum(),
        rx_frames: 0,
        tx_frames: 0,
        drops: 0,
        threads,
    };
    for lan in networks {
        stats.flows += lan.network.flow_count();
        let totals = Totals::of(lan, lanes);
        stats.drops += totals.gateway.total();
        for counters in totals.ports.values() {
            stats.ports += 1;
            stats.rx_frames += counters.rx_frames;
            stats.tx_frames += counters.tx_frames;
            stats.drops += counters.drops.total();
        }
    }
    stats
}

/// Takes out whoever waits for a frame like this.
pub(super) fn take_listener(listeners: &mut Vec<Listener>, place: Place, frame: &[u8]) -> Option<Reply<Journeyed>> {
    let hears = |listener: &Listener| {
        listener.place == place && listener.proto.as_deref().is_none_or(|proto| is_proto(proto, frame))
    };
    while let Some(at) = listeners.iter().position(hears) {
        // It may have heard of another thread already.
        let reply = listeners.swap_remove(at).reply.lock().take();
        if reply.is_some() {
            return reply;
        }
    }
    None
}

/// Whether a frame carries this protocol.
fn is_proto(proto: &str, frame: &[u8]) -> bool {
    let Ok(parsed) = Parsed::parse(frame) else { return false };
    match proto {
        "tcp" => parsed.l4 == L4::Tcp,
        "udp" => parsed.l4 == L4::Udp,
        "icmp" => parsed.l4 == L4::Icmp,
        "arp" => parsed.l3 == L3::Arp,
        _ => false,
    }
}

pub(super) fn journey(frame: String, port: String, journey: Recorded, verdict: Verdict, lan: &Lan) -> JourneyView {
    let verdict = match verdict {
        Verdict::Forward(to) => format!("forwarded to {}", lan.name_of(to)),
        Verdict::Flood { ports } => format!("flooded to {ports} ports"),
        Verdict::Reply => format!("taken in by the {}", lan.name_of(PortId::GATEWAY)),
        Verdict::Relay => "handed to the uplink: a socket of the host".into(),
        Verdict::Drop(reason) => format!("dropped, {reason}: {}", reason.text()),
    };
    JourneyView { frame, port, steps: journey.steps.into_iter().map(StepView::from).collect(), verdict }
}

/// A refused reservation, with the status it deserves.
pub(super) fn reserve_refusal(name: &str, network: &str, error: ReserveError) -> Refusal {
    let text = format!("cannot attach '{name}' to network {network}: {error}");
    match error {
        ReserveError::SubnetFull { .. } => Refusal::Full(text),
        ReserveError::AddressTaken { .. } | ReserveError::MacTaken { .. } => Refusal::Conflict(text),
        _ => Refusal::Invalid(text),
    }
}
