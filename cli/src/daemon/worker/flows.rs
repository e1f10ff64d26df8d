//! Flows through the uplinks, and published ports.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use tapswitch_conntrack::{Conntrack, Forward, ForwardError, Protocol, SessionView};
use tapswitch_wire::{Endpoint, Instant, PortId};

use super::lan::Lan;
use super::{Worker, views};
use crate::api::{FlowFilter, FlowView, Published, Spec, WayView};
use crate::daemon::command::{Refusal, Reply};
use crate::publish::{Ports, Proto};

impl Worker {
    /// Tells the flows through the uplinks. There may be a million of them: here they are only copied, and put into words
    /// by a thread of their own, so that frames do not wait for it.
    pub(super) fn flows(&self, filter: FlowFilter, reply: Reply<Result<Vec<FlowView>, Refusal>>, now: Instant) {
        let found = self.listing(filter.network.clone(), |lan| {
            let relayed = lan.network.flows(now);
            let relayed: Vec<_> = relayed.iter().map(|flow| views::relayed(lan, flow)).collect();
            vec![(Names::of(lan), relayed, sessions(lan, now))]
        });
        let tell = move || {
            let told = found.map(|networks| {
                let flows = networks.into_iter().flat_map(|(names, mut flows, sessions)| {
                    flows.retain(|flow| filter.matches(flow));
                    flows.extend(sessions.iter().filter(|s| names.matches(&filter, s)).map(|s| names.view(s)));
                    flows
                });
                flows.collect()
            });
            // Who asked may have gone away.
            let _ = reply.send(told);
        };
        if let Err(error) = std::thread::Builder::new().name("flows".into()).spawn(tell) {
            // The answer is lost with its closure, and who asked hears that there is none.
            tracing::warn!("cannot start a thread to list the flows: {error}; raise the limit (ulimit -u)");
        }
    }

    /// Ends flows. Says how many.
    pub(super) fn flush(&mut self, filter: &FlowFilter, now: Instant) -> Result<u64, Refusal> {
        if let Some(name) = &filter.network {
            self.network(Some(name))?;
        }
        let mut flushed = 0;
        for lan in &mut self.networks {
            if filter.network.as_ref().is_some_and(|name| *name != lan.plan.name) {
                continue;
            }
            if let Some(conntrack) = lan.network.conntrack() {
                let names = Names::of(lan);
                flushed += conntrack.flush(now, |session| names.matches(filter, session)) as u64;
            }
            // Found first, because their names are the network's to tell.
            let relayed: Vec<_> =
                lan.network.flows(now).into_iter().filter(|flow| filter.matches(&views::relayed(lan, flow))).collect();
            flushed += lan.network.end_flows(now, |flow| relayed.contains(flow)) as u64;
        }
        Ok(flushed)
    }

    /// Whether a container that is about to be attached can have these published.
    pub(super) fn may_publish(&self, network: usize, name: &str, specs: &[Spec]) -> Result<(), Refusal> {
        if specs.is_empty() { Ok(()) } else { translator(&self.networks[network], name).map(drop) }
    }

    /// What is to be published of a container as soon as it is attached: what it asked for, and what the network's
    /// description says under its name. All of it, or none.
    pub(super) fn publish_at_attach(&mut self, index: usize, name: &str, now: Instant) -> Result<(), Refusal> {
        let lan = &self.networks[index];
        let planned = lan.plan.publish.iter().filter(|publish| publish.name == name).map(|publish| publish.spec);
        let asked = lan.members.get(name).into_iter().flat_map(|member| member.publish.iter().copied());
        let specs: Vec<Spec> = planned.chain(asked).collect();
        if specs.is_empty() { Ok(()) } else { publish_all(lan, name, &specs, now).map(drop) }
    }

    /// Publishes ports of a container, all of them or none.
    pub(super) fn publish(&mut self, name: &str, specs: &[Spec], now: Instant) -> Result<Vec<Published>, Refusal> {
        publish_all(self.of_container(name)?, name, specs, now)
    }

    /// Ends what of a container is published and named by one of `specs`; nothing, if one of them names nothing.
    pub(super) fn unpublish(&mut self, name: &str, specs: &[Spec], now: Instant) -> Result<Vec<Published>, Refusal> {
        let lan = self.of_container(name)?;
        let conntrack = translator(lan, name)?;
        let (port, _) = container(lan, name, now)?;
        let mut ended = Vec::new();
        for spec in specs {
            let named: Vec<Forward> = conntrack
                .forwards()
                .into_iter()
                .filter(|forward| forward.owner == port.0 && spec.names(&published_as(forward)))
                .collect();
            if named.is_empty() {
                return Err(Refusal::NotFound(format!(
                    "container {name} does not publish {spec}; see what it publishes with: tapswitch ls"
                )));
            }
            ended.extend(named);
        }
        ended.sort_unstable();
        ended.dedup();
        for forward in &ended {
            conntrack.unpublish(forward, now);
        }
        Ok(ended.iter().map(published_as).collect())
    }

    /// The network of an attached container.
    fn of_container(&self, name: &str) -> Result<&Lan, Refusal> {
        let has = |lan: &&Lan| lan.members.get(name).is_some_and(|member| member.attached.is_some());
        self.networks.iter().find(has).ok_or_else(|| super::commands::unknown_container(name))
    }
}

/// Published ports of a container.
pub(super) fn published(lan: &Lan, name: &str) -> Vec<Published> {
    let Some(attached) = lan.members.get(name).and_then(|member| member.attached.as_ref()) else { return Vec::new() };
    let forwards = lan.network.conntrack().map(|conntrack| conntrack.forwards()).unwrap_or_default();
    forwards.iter().filter(|forward| forward.owner == attached.port.0).map(published_as).collect()
}

/// The sessions of a network with an uplink of packets.
fn sessions(lan: &Lan, now: Instant) -> Vec<SessionView> {
    lan.network.conntrack().map(|conntrack| conntrack.sessions(now)).unwrap_or_default()
}

fn translator<'a>(lan: &'a Lan, name: &str) -> Result<&'a Conntrack, Refusal> {
    let conntrack = lan.network.conntrack().map(AsRef::as_ref);
    conntrack.filter(|conntrack| conntrack.config().translate).ok_or_else(|| {
        Refusal::Invalid(format!(
            "cannot publish ports of {name}: network {} has uplink {}, and only nat:IFACE and tun:NAME with translation \
             forward ports; describe the network with one of them",
            lan.plan.name, lan.plan.uplink
        ))
    })
}

/// An attached container's port and address.
fn container(lan: &Lan, name: &str, now: Instant) -> Result<(PortId, Ipv4Addr), Refusal> {
    let member = lan.members.get(name);
    let port = member.and_then(|member| member.attached.as_ref()).map(|attached| attached.port);
    let (Some(member), Some(port)) = (member, port) else { return Err(super::commands::unknown_container(name)) };
    let leased = || lan.network.leases(now).into_iter().find(|lease| lease.mac == member.mac).map(|lease| lease.ip);
    let ip = member.ip.or_else(leased).ok_or_else(|| {
        Refusal::Invalid(format!(
            "container {name} has no address yet, because its DHCP client has not asked for one; publish its ports once \
             it has: tapswitch publish {name} ..."
        ))
    })?;
    Ok((port, ip))
}

fn publish_all(lan: &Lan, name: &str, specs: &[Spec], now: Instant) -> Result<Vec<Published>, Refusal> {
    let conntrack = translator(lan, name)?;
    let (port, ip) = container(lan, name, now)?;
    let mut done: Vec<Forward> = Vec::new();
    for spec in specs {
        match publish_one(lan, conntrack, name, port, ip, spec, now) {
            Ok(forward) => done.push(forward),
            Err(refused) => {
                for forward in &done {
                    conntrack.unpublish(forward, now);
                }
                return Err(refused);
            }
        }
    }
    Ok(done.iter().map(published_as).collect())
}

fn publish_one(
    lan: &Lan,
    conntrack: &Conntrack,
    name: &str,
    port: PortId,
    ip: Ipv4Addr,
    spec: &Spec,
    now: Instant,
) -> Result<Forward, Refusal> {
    crate::config::check_publish(spec, &lan.plan.uplink)
        .map_err(|why| Refusal::Invalid(format!("cannot publish {spec} of {name}: {why}")))?;
    let protocol = match spec.proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
    };
    let count = spec.ports.count();
    let outside =
        spec.host_ports.map(Ports::first).or_else(|| conntrack.free_ports(protocol, count, now)).ok_or_else(|| {
            Refusal::Full(format!(
                "cannot publish {spec} of {name}: no {count} outside ports in a row are free; name some"
            ))
        })?;
    let bound = spec.host.filter(|host| !host.is_unspecified());
    let forward = Forward { owner: port.0, protocol, bound, outside, ip, inside: spec.ports.first(), count };
    let refused = |taken: u16, why: String| {
        Err(Refusal::Conflict(format!("cannot publish {spec} of {name}: outside port {taken} {why}; choose another")))
    };
    match conntrack.publish(forward, now) {
        Ok(()) => Ok(forward),
        Err(ForwardError::Taken { port, owner }) => {
            refused(port, format!("is published for {} already", lan.name_of(PortId(owner))))
        }
        Err(ForwardError::InUse { port, owner }) => {
            refused(port, format!("is in use by a flow of {}", lan.name_of(PortId(owner))))
        }
        Err(ForwardError::BadRange) => refused(outside, "begins a range that is no range of ports".into()),
    }
}

fn published_as(forward: &Forward) -> Published {
    let range = |first: u16| Ports::new(first, first.saturating_add(forward.count.saturating_sub(1)));
    let any = Ports::new(1, u16::MAX);
    Published {
        host: forward.bound.unwrap_or(Ipv4Addr::UNSPECIFIED),
        // A forward's ranges were checked when it was made.
        host_ports: range(forward.outside).or(any).unwrap_or_else(|| unreachable!("1 to 65535 is a range")),
        ports: range(forward.inside).or(any).unwrap_or_else(|| unreachable!("1 to 65535 is a range")),
        proto: if forward.protocol == Protocol::Udp { Proto::Udp } else { Proto::Tcp },
    }
}

/// The names of a network's containers, away from the network.
struct Names {
    network: String,
    containers: HashMap<PortId, String>,
}

impl Names {
    fn of(lan: &Lan) -> Names {
        Names { network: lan.plan.name.clone(), containers: lan.names().clone() }
    }

    fn name(&self, session: &SessionView) -> Option<&String> {
        self.containers.get(&PortId(session.owner))
    }

    /// Whether a session is one of those that a filter names: as [`FlowFilter::matches`], without putting it into words.
    fn matches(&self, filter: &FlowFilter, session: &SessionView) -> bool {
        let SessionView { original, reply, .. } = session;
        let is_end = |end: &Endpoint| {
            let has_port = original.protocol != Protocol::Icmp;
            filter.address.is_none_or(|wanted| wanted == end.ip)
                && filter.port.is_none_or(|wanted| has_port && wanted == end.port)
        };
        filter.network.as_ref().is_none_or(|network| *network == self.network)
            && filter.container.as_ref().is_none_or(|name| Some(name) == self.name(session))
            && [original.src, original.dst, reply.src, reply.dst].iter().any(is_end)
    }

    /// A session as users see it.
    fn view(&self, session: &SessionView) -> FlowView {
        let SessionView { original, reply, .. } = session;
        let end = |end: Endpoint| match (original.protocol, end.port) {
            (Protocol::Icmp, 0) => end.ip.to_string(),
            (Protocol::Icmp, id) => format!("{} id {id}", end.ip),
            _ => end.to_string(),
        };
        let way = |at: usize, src, dst| WayView {
            src: end(src),
            dst: end(dst),
            packets: Some(u64::from(session.packets[at])),
            bytes: session.bytes[at],
        };
        let state = match session.tcp {
            Some(state) => state.name(),
            None if session.answered => "answered",
            None => "unanswered",
        };
        FlowView {
            network: self.network.clone(),
            name: self.name(session).cloned(),
            id: Some(session.id.to_bits()),
            proto: original.protocol.name().into(),
            state: state.into(),
            reason: session.reason.name().into(),
            original: way(0, original.src, original.dst),
            reply: way(1, reply.src, reply.dst),
            via: None,
            idle_s: u64::from(session.idle),
            expires_s: Some(u64::from(session.expires)),
        }
    }
}
