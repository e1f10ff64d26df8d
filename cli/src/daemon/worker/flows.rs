//! Flows through the uplinks.

use std::collections::HashMap;

use tapswitch_conntrack::{Protocol, SessionView};
use tapswitch_wire::{Endpoint, Instant, PortId};

use super::lan::Lan;
use super::{Worker, views};
use crate::api::{FlowFilter, FlowView, WayView};
use crate::daemon::command::{Refusal, Reply};

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
}

/// The sessions of a network with an uplink of packets.
fn sessions(lan: &Lan, now: Instant) -> Vec<SessionView> {
    lan.network.conntrack().map(|conntrack| conntrack.sessions(now)).unwrap_or_default()
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
