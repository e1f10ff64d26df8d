//! What a translator does, said as plainly as possible: vectors, and a look at everything each time.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_conntrack::tcp::{Lifetime, State};
use tapswitch_conntrack::{
    Config, Dependence, Direction, Forward, ForwardError, PortChoice, Protocol, Realm, Reason, Refusal, Tuple,
};
use tapswitch_wire::{DropReason, Endpoint, Instant};

use super::session::{Session, flags, is_tcp};
use crate::world::{ACK, FIN, ICMP, Inside, Outside, Packet, RST, SYN, Sent, TCP, UDP, end};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    pub protocol: Protocol,
    pub port: u16,
    pub owner: u32,
    inner: Endpoint,
    /// What of the other end it is for.
    remote: (Option<Ipv4Addr>, Option<u16>),
}

struct Resting {
    protocol: Protocol,
    port: u16,
    owner: u32,
    until: Instant,
}

/// By what a container's packet leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Source {
    /// As it is, by a forward, or by a mapping that exists.
    Known(Endpoint),
    /// By a mapping that is to be made.
    New(Mapping),
}

/// A session to be.
#[derive(Clone, Debug)]
pub struct Plan {
    from: Realm,
    pub to: Realm,
    reason: Reason,
    payer: (u32, bool),
    original: Tuple,
    /// The packet's new ends.
    source: Source,
    target: Endpoint,
    uses: Vec<u16>,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Known(usize, Direction),
    New(Plan),
    Refused(Refusal),
}

pub struct Reference {
    config: Config,
    now: Instant,
    pub outside: Option<Ipv4Addr>,
    pub forwards: Vec<Forward>,
    pub sessions: Vec<Session>,
    pub mappings: Vec<Mapping>,
    resting: Vec<Resting>,
    /// When each payer has all of its allowance of new sessions again.
    full_at: HashMap<(u32, bool), Instant>,
}

impl Reference {
    pub fn new(config: Config, outside: Ipv4Addr, now: Instant) -> Reference {
        let (forwards, sessions, mappings, resting) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Reference {
            config,
            now,
            outside: Some(outside),
            forwards,
            sessions,
            mappings,
            resting,
            full_at: HashMap::new(),
        }
    }

    pub fn pick(&self, at: u8) -> Option<&Session> {
        (!self.sessions.is_empty()).then(|| &self.sessions[usize::from(at) % self.sessions.len()])
    }

    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        let second = self.now.as_secs();
        // Mappings end in the second in which their last session does, and rest from then on.
        let mut ends: Vec<u64> =
            self.sessions.iter().map(|session| session.expires + 1).filter(|at| *at <= second).collect();
        ends.sort_unstable();
        let until = self.now;
        for at in ends {
            self.now = Instant::from_secs(at);
            self.end_where(|session| session.expires < at);
        }
        self.now = until;
    }

    pub fn is_untranslated(&self, ip: Ipv4Addr) -> bool {
        !self.config.translate || self.config.untranslated.iter().any(|net| net.contains(&ip))
    }

    pub fn is_published(&self, protocol: Protocol, inside: Endpoint) -> bool {
        self.forwards.iter().any(|f| f.protocol == protocol && f.ip == inside.ip && f.to_outside(inside.port).is_some())
    }

    fn find(&self, realm: Realm, tuple: Tuple) -> Option<(usize, Direction)> {
        let ways = [Direction::Original, Direction::Reply];
        let is = |at: usize, way: Direction| {
            (self.sessions[at].ingress(way), self.sessions[at].tuple(way)) == (realm, tuple)
        };
        (0..self.sessions.len()).find_map(|at| Some((at, ways.into_iter().find(|way| is(at, *way))?)))
    }

    /// What becomes of a packet.
    pub fn decide(&self, realm: Realm, packet: &Packet, owner: u32) -> Outcome {
        let tuple = packet.tuple();
        if let Some((at, direction)) = self.find(realm, tuple) {
            return Outcome::Known(at, direction);
        }
        let silent = |reason| Outcome::Refused(Refusal::Silent(reason));
        let begins = match tuple.protocol {
            UDP => true,
            ICMP => tuple.dst.port == 0,
            TCP => {
                let flags = flags(packet);
                flags & (SYN | ACK | RST | FIN) == SYN || realm == Inside && flags & (SYN | RST | ACK) == ACK
            }
        };
        if !begins {
            return silent(DropReason::NoSuchSession);
        }
        let plan = match if realm == Inside { self.plan_out(tuple, owner) } else { self.plan_in(tuple) } {
            Ok(plan) => plan,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let refuse =
            |reason| Outcome::Refused(if realm == Inside { Refusal::Told(reason) } else { Refusal::Silent(reason) });
        if let Source::Known(source) = plan.source {
            let reply = Tuple { protocol: tuple.protocol, src: plan.target, dst: source };
            if self.find(plan.to, reply).is_some() {
                return refuse(DropReason::PortsExhausted);
            }
        }
        let limits = &self.config.limits;
        let count = self.sessions.iter().filter(|session| session.payer == plan.payer).count();
        if count >= limits.owner_sessions as usize {
            return refuse(DropReason::SessionLimit);
        }
        if self.after_one_more(plan.payer) > self.now + Duration::from_secs(1) {
            return refuse(DropReason::SessionRate);
        }
        if self.sessions.len() >= limits.sessions as usize {
            return refuse(DropReason::SessionTableFull);
        }
        if let Source::New(Mapping { protocol, inner, .. }) = plan.source {
            if self.mappings.iter().filter(|m| (m.owner, m.protocol) == (owner, protocol)).count()
                >= limits.owner_ports as usize
            {
                return refuse(DropReason::PortLimit);
            }
            if self.candidates(protocol, inner.port, owner).next().is_none() {
                return refuse(DropReason::PortsExhausted);
            }
        }
        Outcome::New(plan)
    }

    fn after_one_more(&self, payer: (u32, bool)) -> Instant {
        let full_at = self.full_at.get(&payer).copied().unwrap_or_default().max(self.now);
        full_at + Duration::from_secs(1) / self.config.limits.owner_rate
    }

    fn plan_out(&self, tuple: Tuple, owner: u32) -> Result<Plan, Refusal> {
        let payer = (owner, false);
        if self.is_untranslated(tuple.dst.ip) {
            let (source, target) = (Source::Known(tuple.src), tuple.dst);
            let (reason, uses) = (Reason::Routed, Vec::new());
            return Ok(Plan { from: Inside, to: Outside, reason, payer, original: tuple, source, target, uses });
        }
        let ours = self.outside.ok_or(Refusal::Told(DropReason::UplinkDown))?;
        let (mut target, mut to, mut reason, mut uses) = (tuple.dst, Outside, Reason::Outbound, Vec::new());
        if tuple.dst.ip == ours {
            let (inside, mapping, _) = self.behind(tuple.protocol, tuple.dst).ok_or(Refusal::Own)?;
            if !self.config.hairpin {
                return Err(Refusal::Told(DropReason::Filtered));
            }
            (target, to, reason) = (inside, Inside, Reason::Hairpin);
            uses.extend(mapping);
        }
        let (source, mapping) = self.source(tuple, ours, owner);
        uses.extend(mapping);
        Ok(Plan { from: Inside, to, reason, payer, original: tuple, source, target, uses })
    }

    fn source(&self, tuple: Tuple, ours: Ipv4Addr, owner: u32) -> (Source, Option<u16>) {
        let Tuple { protocol, src, dst } = tuple;
        let published = self.forwards.iter().find(|f| {
            f.protocol == protocol
                && f.ip == src.ip
                && f.bound.is_none_or(|ip| ip == ours)
                && f.to_outside(src.port).is_some()
        });
        if let Some(port) = published.and_then(|forward| forward.to_outside(src.port)) {
            return (Source::Known(end(ours, port)), None);
        }
        let remote = match self.config.mapping {
            Dependence::EndpointIndependent => (None, None),
            Dependence::AddressDependent => (Some(dst.ip), None),
            Dependence::AddressAndPortDependent => (Some(dst.ip), Some(dst.port)),
        };
        match self.mappings.iter().find(|m| (m.protocol, m.inner, m.remote) == (protocol, src, remote)) {
            Some(mapping) => (Source::Known(end(ours, mapping.port)), Some(mapping.port)),
            None => (Source::New(Mapping { protocol, port: 0, owner, inner: src, remote }), None),
        }
    }

    /// Who stands behind an outside endpoint: inside, by which mapping, and whose it is.
    fn behind(&self, protocol: Protocol, outside: Endpoint) -> Option<(Endpoint, Option<u16>, u32)> {
        if protocol == ICMP {
            return None;
        }
        let forward = self.forwards.iter().find(|f| {
            f.protocol == protocol && f.bound.is_none_or(|ip| ip == outside.ip) && f.to_inside(outside.port).is_some()
        });
        if let Some(forward) = forward {
            return Some((end(forward.ip, forward.to_inside(outside.port)?), None, forward.owner));
        }
        let mapping = self.mappings.iter().find(|m| (m.protocol, m.port) == (protocol, outside.port))?;
        Some((mapping.inner, Some(mapping.port), mapping.owner))
    }

    fn plan_in(&self, tuple: Tuple) -> Result<Plan, Refusal> {
        let Tuple { protocol, src, dst } = tuple;
        let is_inside = |ip: Ipv4Addr| self.config.inside.iter().any(|net| net.contains(&ip));
        if is_inside(src.ip) || Some(src.ip) == self.outside {
            return Err(Refusal::Silent(DropReason::InsideFromOutside));
        }
        let is_open = self.config.filtering == Dependence::EndpointIndependent;
        let plan = |target, reason, owner, mapping: Option<u16>| Plan {
            from: Outside,
            to: Inside,
            reason,
            payer: (owner, true),
            original: tuple,
            source: Source::Known(src),
            target,
            uses: mapping.into_iter().collect(),
        };
        if is_inside(dst.ip) {
            if !self.is_untranslated(src.ip) {
                return Err(Refusal::Silent(DropReason::InsideFromOutside));
            }
            let forward = self
                .forwards
                .iter()
                .find(|f| f.protocol == protocol && f.ip == dst.ip && f.to_outside(dst.port).is_some());
            return match forward {
                Some(forward) => Ok(plan(dst, Reason::Routed, forward.owner, None)),
                None if is_open => Ok(plan(dst, Reason::Routed, dst.ip.to_bits(), None)),
                None => Err(Refusal::Silent(DropReason::Filtered)),
            };
        }
        if Some(dst.ip) != self.outside {
            return Err(Refusal::Silent(DropReason::Filtered));
        }
        let (inside, mapping, owner) = self.behind(protocol, dst).ok_or(Refusal::Own)?;
        let Some(port) = mapping else { return Ok(plan(inside, Reason::Forward, owner, None)) };
        let knows = self.sessions.iter().any(|session| {
            let peer = if session.from == Inside { session.original.dst.ip } else { session.original.src.ip };
            session.original.protocol == protocol && session.uses.contains(&port) && peer == src.ip
        });
        let passes = match self.config.filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => knows,
            Dependence::AddressAndPortDependent => false,
        };
        match passes {
            true => Ok(plan(inside, Reason::Inbound, owner, mapping)),
            false => Err(Refusal::Silent(DropReason::Filtered)),
        }
    }

    /// Ports that an owner may get for an inside port: if any has the right parity, only such.
    fn candidates(&self, protocol: Protocol, inside: u16, owner: u32) -> impl Iterator<Item = u16> {
        let free = move |port: &u16| self.may_take(protocol, *port, owner);
        let all = self.config.port_range.clone();
        let parity = move |port: &u16| protocol != UDP || port & 1 == inside & 1;
        let has_parity = all.clone().filter(parity).any(|port| free(&port));
        let preserve = self.config.ports == PortChoice::Preserve && all.contains(&inside) && free(&inside);
        all.filter(free).filter(move |port| if preserve { *port == inside } else { !has_parity || parity(port) })
    }

    fn may_take(&self, protocol: Protocol, port: u16, owner: u32) -> bool {
        let used = self.mappings.iter().any(|m| (m.protocol, m.port) == (protocol, port))
            || self.forwards.iter().any(|f| f.protocol == protocol && f.to_inside(port).is_some());
        let rests = |r: &Resting| (r.protocol, r.port) == (protocol, port) && r.owner != owner && r.until > self.now;
        !used && !self.resting.iter().any(rests)
    }

    /// Whether a new session's first packet may have become this.
    pub fn allows(&self, plan: &Plan, is: &Tuple) -> bool {
        let source = match &plan.source {
            Source::Known(source) => is.src == *source,
            Source::New(mapping) => {
                Some(is.src.ip) == self.outside
                    && self
                        .candidates(mapping.protocol, mapping.inner.port, mapping.owner)
                        .any(|port| port == is.src.port)
            }
        };
        source && is.dst == plan.target
    }

    /// Notes what a packet did that went through.
    pub fn note(&mut self, outcome: &Outcome, sent: &Sent, packet: &Packet, state: Option<State>) {
        let is_tcp = is_tcp(&packet.tuple());
        let at = match outcome {
            Outcome::Refused(_) => return,
            Outcome::Known(at, _) => *at,
            Outcome::New(plan) => {
                let mut plan = plan.clone();
                if let Source::New(mapping) = plan.source {
                    let port = sent.tuple.src.port;
                    self.resting.retain(|r| (r.protocol, r.port) != (mapping.protocol, port));
                    self.mappings.push(Mapping { port, ..mapping });
                    plan.uses.push(port);
                }
                let full_at = self.after_one_more(plan.payer);
                self.full_at.insert(plan.payer, full_at);
                let Plan { from, to, reason, payer, original, uses, .. } = plan;
                let (id, reply) = (sent.way.unwrap().session, sent.tuple.reversed());
                let (state, next, closed, opener) = (None, [0, 9_000], [false; 2], Direction::Original);
                self.sessions.push(Session {
                    id,
                    original,
                    reply,
                    from,
                    to,
                    payer,
                    reason,
                    uses,
                    expires: 0,
                    state,
                    next,
                    closed,
                    opener,
                });
                self.sessions.len() - 1
            }
        };
        let direction = sent.way.unwrap().direction;
        let timers = self.config.timers;
        let session = &mut self.sessions[at];
        let lifetime = |state: Option<State>| state.map(State::lifetime);
        let is_reset = is_tcp && flags(packet) & RST != 0;
        if !is_reset || lifetime(state) != lifetime(session.state) {
            let lasts = match (packet.tuple().protocol, lifetime(state)) {
                (UDP, _) => timers.udp,
                (ICMP, _) => timers.icmp,
                (TCP, Some(Lifetime::Established)) => timers.tcp_established,
                (TCP, _) => timers.tcp_transitory,
            };
            session.expires = self.now.as_secs() + lasts.as_secs();
        }
        if is_tcp {
            session.track(packet, direction, state);
        }
    }

    pub fn end_where(&mut self, ends: impl Fn(&Session) -> bool) {
        self.sessions.retain(|session| !ends(session));
        let (sessions, now) = (&self.sessions, self.now);
        let used = |m: &Mapping| {
            sessions.iter().any(|session| session.original.protocol == m.protocol && session.uses.contains(&m.port))
        };
        let (kept, gone): (Vec<_>, Vec<_>) = self.mappings.drain(..).partition(used);
        self.mappings = kept;
        let until = now + Duration::from_secs(120);
        self.resting.extend(gone.into_iter().map(|m| Resting {
            protocol: m.protocol,
            port: m.port,
            owner: m.owner,
            until,
        }));
    }

    pub fn set_outside(&mut self, ip: Option<Ipv4Addr>) {
        if self.outside != ip {
            self.outside = ip;
            self.end_where(|_| true);
        }
    }

    pub fn publish(&mut self, forward: Forward) -> Result<(), ForwardError> {
        if forward.count == 0 {
            return Err(ForwardError::BadRange);
        }
        for other in self.forwards.iter().filter(|other| other.protocol == forward.protocol) {
            if let Some(port) = forward.outside_ports().find(|port| other.to_inside(*port).is_some()) {
                return Err(ForwardError::Taken { port, owner: other.owner });
            }
        }
        for port in forward.outside_ports() {
            if let Some(mapping) = self.mappings.iter().find(|m| (m.protocol, m.port) == (forward.protocol, port)) {
                return Err(ForwardError::InUse { port, owner: mapping.owner });
            }
        }
        self.forwards.push(forward);
        self.resting.retain(|r| r.protocol != forward.protocol || forward.to_inside(r.port).is_none());
        // What uses a mapping of the published port begins anew.
        let covered = |m: &&Mapping| {
            m.protocol == forward.protocol && m.inner.ip == forward.ip && forward.to_outside(m.inner.port).is_some()
        };
        let ports: Vec<u16> = self.mappings.iter().filter(covered).map(|m| m.port).collect();
        self.end_where(|session| {
            session.original.protocol == forward.protocol && session.uses.iter().any(|port| ports.contains(port))
        });
        Ok(())
    }

    pub fn unpublish(&mut self, forward: &Forward) -> bool {
        let before = self.forwards.len();
        self.forwards.retain(|other| other != forward);
        if self.forwards.len() == before {
            return false;
        }
        let until = self.now + Duration::from_secs(120);
        let rest = |port| Resting { protocol: forward.protocol, port, owner: forward.owner, until };
        self.resting.extend(forward.outside_ports().map(rest));
        // Whatever has the outside endpoint at one of its ends, or came in because of it.
        self.end_where(|session| {
            let by =
                |end: Endpoint| forward.bound.is_none_or(|ip| ip == end.ip) && forward.to_inside(end.port).is_some();
            let (came, left) = (by(session.original.dst), by(session.reply.dst));
            session.original.protocol == forward.protocol
                && match session.reason {
                    Reason::Forward => came,
                    Reason::Outbound => left,
                    Reason::Hairpin => came || left,
                    Reason::Inbound => false,
                    Reason::Routed => {
                        let dst = session.original.dst;
                        session.from == Outside && dst.ip == forward.ip && forward.to_outside(dst.port).is_some()
                    }
                }
        });
        true
    }

    pub fn remove_owner(&mut self, owner: u32) {
        let forwards: Vec<Forward> = self.forwards.iter().filter(|forward| forward.owner == owner).copied().collect();
        forwards.iter().for_each(|forward| _ = self.unpublish(forward));
        self.end_where(|session| session.payer.0 == owner);
        // Its number may be another's soon, who must not have what rests of it.
        for resting in self.resting.iter_mut().filter(|resting| resting.owner == owner) {
            resting.owner = u32::MAX;
        }
    }
}
