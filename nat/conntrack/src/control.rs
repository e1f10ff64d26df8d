//! What only a session's first and last packet need: policy, mappings, ports, quotas, timers. One lock for all of it.

use std::net::Ipv4Addr;

use tapswitch_wire::{DropReason, Endpoint, Instant, Rewrite};

use crate::conntrack::{INBOUND, NO_HOPS};
use crate::mapping::{Inner, Mappings};
use crate::pool::Pool;
use crate::quota::Quotas;
use crate::session::{Bytes, NO_MAPPING, Reason, Session, SessionId, SessionView};
use crate::tcp::{Segment, Tracker};
use crate::tuple::Hasher;
use crate::wheel::Wheel;
use crate::{Config, Conntrack, Dependence, Direction, Forward, PortChoice, Protocol, Realm, Refusal, Tuple};

/// Where a tuple was found: the session's number, and which of its tuples it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) number: u32,
    pub(crate) direction: Direction,
}

impl Place {
    #[inline]
    pub(crate) fn from_bits(bits: u32) -> Place {
        let direction = if bits & 1 == 0 { Direction::Original } else { Direction::Reply };
        Place { number: bits >> 1, direction }
    }

    pub(crate) fn to_bits(self) -> u32 {
        self.number << 1 | self.direction as u32
    }
}

/// Why a port forward was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardError {
    /// Another forward has this outside port.
    Taken {
        /// The port.
        port: u16,
        /// That forward's owner.
        owner: u32,
    },
    /// A session of this owner uses this outside port at this moment.
    InUse {
        /// The port.
        port: u16,
        /// The session's owner.
        owner: u32,
    },
    /// The range runs past port 65535, or holds port 0 or no port.
    BadRange,
}

pub(crate) struct Control {
    pub(crate) outside: Option<Ipv4Addr>,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) mappings: Mappings,
    pub(crate) quotas: Quotas,
    pub(crate) wheel: Wheel,
    pub(crate) pool: Pool,
    /// Places that are free again, and the first that never was used.
    free: Vec<u32>,
    fresh: u32,
    capacity: u32,
    generation: u32,
}

/// A session that is to be.
struct Plan {
    original: Tuple,
    reply: Tuple,
    realms: [Realm; 2],
    reason: Reason,
    mapping: u32,
    target: u32,
    owner: u32,
}

impl Control {
    pub(crate) fn new(config: &Config, hasher: Hasher, secret: u64) -> Control {
        Control {
            outside: None,
            forwards: Vec::new(),
            mappings: Mappings::new(config.filtering, hasher),
            quotas: Quotas::default(),
            wheel: Wheel::new(),
            pool: Pool::new(config.port_range.clone(), secret),
            free: Vec::new(),
            fresh: 0,
            capacity: config.limits.sessions,
            generation: 0,
        }
    }

    pub(crate) fn sessions(&self) -> usize {
        self.fresh as usize - self.free.len()
    }

    /// The forward of an outside endpoint.
    fn forward_of(&self, protocol: Protocol, outside: Endpoint) -> Option<(Forward, Endpoint)> {
        self.forwards.iter().find_map(|forward| {
            let bound = forward.bound.is_none_or(|ip| ip == outside.ip);
            let port = forward.to_inside(outside.port).filter(|_| bound && forward.protocol == protocol)?;
            Some((*forward, Endpoint::new(forward.ip, port)))
        })
    }

    /// The outside endpoint by which an inside endpoint is published.
    fn published(&self, protocol: Protocol, inside: Endpoint, ip: Ipv4Addr) -> Option<Endpoint> {
        self.forwards.iter().find_map(|forward| {
            let ours = forward.protocol == protocol && forward.ip == inside.ip && forward.bound.is_none_or(|b| b == ip);
            Some(Endpoint::new(ip, forward.to_outside(inside.port).filter(|_| ours)?))
        })
    }

    pub(crate) fn publish(&mut self, nat: &Conntrack, forward: Forward, now: Instant) -> Result<(), ForwardError> {
        let end = u32::from(forward.outside) + u32::from(forward.count);
        let inner_end = u32::from(forward.inside) + u32::from(forward.count);
        if forward.count == 0 || forward.outside == 0 || forward.inside == 0 || end > 65_536 || inner_end > 65_536 {
            return Err(ForwardError::BadRange);
        }
        for other in self.forwards.iter().filter(|other| other.protocol == forward.protocol) {
            let apart = matches!((other.bound, forward.bound), (Some(a), Some(b)) if a != b);
            let mut shared = forward.outside_ports().filter(|port| other.to_inside(*port).is_some());
            if let (false, Some(port)) = (apart, shared.next()) {
                return Err(ForwardError::Taken { port, owner: other.owner });
            }
        }
        if nat.config.translate {
            for port in forward.outside_ports() {
                if let Some((_, mapping)) = self.mappings.of_port(forward.protocol, port) {
                    return Err(ForwardError::InUse { port, owner: mapping.owner });
                }
            }
        }
        for port in forward.outside_ports() {
            self.pool.take_this(forward.protocol, port);
        }
        self.forwards.push(forward);
        // Flows of the container's port that go by a mapping begin anew, by the rule that holds now.
        let replaced = self.mappings.numbers(|inner| {
            inner.protocol == forward.protocol
                && inner.endpoint.ip == forward.ip
                && forward.to_outside(inner.endpoint.port).is_some()
        });
        if !replaced.is_empty() {
            nat.end_where(self, now, |session| {
                replaced.contains(&session.mapping) || replaced.contains(&session.target)
            });
        }
        Ok(())
    }

    pub(crate) fn unpublish(&mut self, nat: &Conntrack, forward: &Forward, now: Instant) -> bool {
        let before = self.forwards.len();
        self.forwards.retain(|other| other != forward);
        if self.forwards.len() == before {
            return false;
        }
        for port in forward.outside_ports() {
            let still = self.forwards.iter().any(|f| f.protocol == forward.protocol && f.to_inside(port).is_some());
            if !still {
                self.pool.free(forward.protocol, port, forward.owner, now);
            }
        }
        nat.end_where(self, now, |session| {
            let by_it =
                |end: Endpoint| forward.bound.is_none_or(|ip| ip == end.ip) && forward.to_inside(end.port).is_some();
            let original = session.tuple(Direction::Original);
            let came = || by_it(original.dst);
            // What left by the published port.
            let left = || session.mapping == NO_MAPPING && by_it(session.tuple(Direction::Reply).dst);
            session.protocol == forward.protocol
                && match session.reason {
                    Reason::Forward => came(),
                    Reason::Hairpin => came() || left(),
                    Reason::Outbound | Reason::Inbound => left(),
                    // What the outside began where nothing is translated, and the filter let in for the forward's sake.
                    Reason::Routed => {
                        session.realms[0] == Realm::Outside
                            && original.dst.ip == forward.ip
                            && forward.to_outside(original.dst.port).is_some()
                    }
                }
        });
        true
    }

    pub(crate) fn free_ports(&self, protocol: Protocol, count: u16, now: Instant) -> Option<u16> {
        let fits = |first: &u16| (0..count).all(|at| self.pool.is_rested(protocol, first.saturating_add(at), now));
        let last = 65_535 - count.saturating_sub(1);
        (49_152..=last).find(fits).or_else(|| (1024..=last).find(fits))
    }

    /// Decides about a packet without a session.
    fn plan(&mut self, config: &Config, realm: Realm, tuple: Tuple, owner: u32, now: Instant) -> Result<Plan, Refusal> {
        match realm {
            Realm::Inside => self.plan_outbound(config, tuple, owner, now),
            Realm::Outside => self.plan_inbound(config, tuple),
        }
    }

    fn plan_outbound(&mut self, config: &Config, tuple: Tuple, owner: u32, now: Instant) -> Result<Plan, Refusal> {
        let (inside, outside) = (Realm::Inside, Realm::Outside);
        let is_untranslated = || config.untranslated.iter().any(|net| net.contains(&tuple.dst.ip));
        // Our own address is ours, whatever it lies in.
        if !config.translate || (Some(tuple.dst.ip) != self.outside && is_untranslated()) {
            let reason = Reason::Routed;
            let reply = tuple.reversed();
            let realms = [inside, outside];
            return Ok(Plan { original: tuple, reply, realms, reason, mapping: NO_MAPPING, target: NO_MAPPING, owner });
        }
        let ip = self.outside.ok_or(Refusal::Told(DropReason::UplinkDown))?;
        if tuple.dst.ip != ip {
            let (source, mapping) = self.map(config, tuple, ip, owner, now)?;
            let reply = Tuple { protocol: tuple.protocol, src: tuple.dst, dst: source };
            let (realms, reason) = ([inside, outside], Reason::Outbound);
            return Ok(Plan { original: tuple, reply, realms, reason, mapping, target: NO_MAPPING, owner });
        }
        // To our own outside address: back inside, by whatever stands behind that port.
        let (end, _, target, _) = self.behind(config, tuple.protocol, tuple.dst, tuple.src.ip, true)?;
        if !config.hairpin {
            return Err(Refusal::Told(DropReason::Filtered));
        }
        let (source, mapping) = self.map(config, tuple, ip, owner, now)?;
        let reply = Tuple { protocol: tuple.protocol, src: end, dst: source };
        Ok(Plan { original: tuple, reply, realms: [inside, inside], reason: Reason::Hairpin, mapping, target, owner })
    }

    fn plan_inbound(&mut self, config: &Config, tuple: Tuple) -> Result<Plan, Refusal> {
        let (inside, outside) = (Realm::Inside, Realm::Outside);
        // Neither a container nor we ourselves send from out there.
        if config.is_inside(tuple.src.ip) || Some(tuple.src.ip) == self.outside {
            return Err(Refusal::Silent(DropReason::InsideFromOutside));
        }
        let realms = [outside, inside];
        if config.is_inside(tuple.dst.ip) {
            let untranslated = config.untranslated.iter().any(|net| net.contains(&tuple.src.ip));
            if config.translate && !untranslated {
                return Err(Refusal::Silent(DropReason::InsideFromOutside));
            }
            let forward = self.forwards.iter().find(|f| {
                f.protocol == tuple.protocol && f.ip == tuple.dst.ip && f.to_outside(tuple.dst.port).is_some()
            });
            let open = config.filtering == Dependence::EndpointIndependent;
            let owner = match forward {
                Some(forward) => forward.owner,
                None if open => tuple.dst.ip.to_bits() & !INBOUND,
                None => return Err(Refusal::Silent(DropReason::Filtered)),
            } | INBOUND;
            let reply = tuple.reversed();
            let reason = Reason::Routed;
            return Ok(Plan { original: tuple, reply, realms, reason, mapping: NO_MAPPING, target: NO_MAPPING, owner });
        }
        if Some(tuple.dst.ip) != self.outside {
            return Err(Refusal::Silent(DropReason::Filtered));
        }
        let (target, reason, mapping, owner) = self.behind(config, tuple.protocol, tuple.dst, tuple.src.ip, false)?;
        let reply = Tuple { protocol: tuple.protocol, src: target, dst: tuple.src };
        Ok(Plan { original: tuple, reply, realms, reason, mapping, target: NO_MAPPING, owner: owner | INBOUND })
    }

    /// What stands behind an outside endpoint of ours, for a packet from `from`. The filter keeps strangers out; who is
    /// inside may pass by the outside endpoint as it may directly.
    fn behind(
        &self,
        config: &Config,
        protocol: Protocol,
        outside: Endpoint,
        from: Ipv4Addr,
        is_hairpin: bool,
    ) -> Result<(Endpoint, Reason, u32, u32), Refusal> {
        if let Some((forward, target)) = self.forward_of(protocol, outside) {
            return Ok((target, Reason::Forward, NO_MAPPING, forward.owner));
        }
        // An echo request to our own address is for ourselves, whatever its identifier.
        if protocol == Protocol::Icmp {
            return Err(Refusal::Own);
        }
        let (number, mapping) = self.mappings.of_port(protocol, outside.port).ok_or(Refusal::Own)?;
        let passes = match config.filtering {
            _ if is_hairpin => true,
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => self.mappings.knows(number, from),
            Dependence::AddressAndPortDependent => false,
        };
        match passes {
            true => Ok((mapping.inner.endpoint, Reason::Inbound, number, mapping.owner)),
            false => Err(Refusal::Silent(DropReason::Filtered)),
        }
    }

    /// The outside endpoint of an inside one: published, mapped already, or newly mapped.
    fn map(
        &mut self,
        config: &Config,
        tuple: Tuple,
        ip: Ipv4Addr,
        owner: u32,
        now: Instant,
    ) -> Result<(Endpoint, u32), Refusal> {
        let Tuple { protocol, src, dst } = tuple;
        if let Some(published) = self.published(protocol, src, ip) {
            return Ok((published, NO_MAPPING));
        }
        let inner = Inner::new(protocol, src, dst, config.mapping);
        if let Some((number, mapping)) = self.mappings.of_inner(&inner) {
            return Ok((Endpoint::new(ip, mapping.outside), number));
        }
        // A port that was taken for a session that is then refused would rest, and nobody had used it. So whatever may
        // refuse the session is asked before.
        self.quotas.check_session(owner, &config.limits, now).map_err(Refusal::Told)?;
        if self.is_full() {
            return Err(Refusal::Told(DropReason::SessionTableFull));
        }
        self.quotas.take_port(owner, protocol, &config.limits).map_err(Refusal::Told)?;
        let preserve = config.ports == PortChoice::Preserve;
        let Some(port) = self.pool.take(protocol, src.port, preserve, owner, now) else {
            self.quotas.give_port(owner, protocol, now);
            return Err(Refusal::Told(DropReason::PortsExhausted));
        };
        Ok((Endpoint::new(ip, port), self.mappings.insert(inner, port, owner)))
    }

    fn leave(&mut self, mapping: u32, remote: Ipv4Addr, now: Instant) {
        if let Some(gone) = self.mappings.leave(mapping, remote) {
            self.pool.free(gone.inner.protocol, gone.outside, gone.owner, now);
            self.quotas.give_port(gone.owner, gone.inner.protocol, now);
        }
    }

    fn is_full(&self) -> bool {
        self.free.is_empty() && self.fresh >= self.capacity
    }

    /// Number of free places.
    pub(crate) fn room(&self) -> u32 {
        self.free.len() as u32 + (self.capacity - self.fresh)
    }

    /// Number of places.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Makes it that of a table whose first places are taken and that has `room` more. What is new is numbered as in `other`.
    pub(crate) fn begin_at(&mut self, taken: u32, room: u32, other: &Control) {
        self.free.clear();
        self.fresh = taken;
        self.capacity = taken + room;
        self.generation = other.generation;
    }

    /// Where the answers to a packet without a session would come in, and their tuple, if it may begin one. The port that
    /// it would have is taken: for use on a copy.
    pub(crate) fn reply_of_new(
        &mut self,
        config: &Config,
        realm: Realm,
        tuple: Tuple,
        owner: u32,
        now: Instant,
    ) -> Option<(Realm, Tuple)> {
        let plan = self.plan(config, realm, tuple, owner, now).ok()?;
        Some((plan.realms[1], plan.reply))
    }

    fn place(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let number = self.fresh;
            (number < self.capacity).then(|| {
                self.fresh += 1;
                number
            })
        })
    }
}

impl Conntrack {
    /// Makes a session, if policy and limits let it.
    pub(crate) fn begin(
        &self,
        control: &mut Control,
        realm: Realm,
        tuple: Tuple,
        segment: Option<&Segment>,
        owner: u32,
        now: Instant,
    ) -> Result<Place, Refusal> {
        let limits = &self.config.limits;
        let told = |reason| if realm == Realm::Inside { Refusal::Told(reason) } else { Refusal::Silent(reason) };
        let plan = control.plan(&self.config, realm, tuple, owner, now)?;
        let remote = plan.remote();
        // Two sessions never share a tuple (RFC 7857 3 lets ports overlap; here they do not).
        if self.find(plan.realms[1], &plan.reply).is_some() {
            return Err(told(DropReason::PortsExhausted));
        }
        let allowance = control.quotas.check_session(plan.owner, limits, now).map_err(told)?;
        let number = control.place().ok_or(told(DropReason::SessionTableFull))?;
        control.quotas.take_session(plan.owner, allowance);
        // A hairpin keeps the mappings of both its ends: none may become another's while it lasts.
        for mapping in [plan.mapping, plan.target].into_iter().filter(|mapping| *mapping != NO_MAPPING) {
            control.mappings.join(mapping, remote);
        }
        control.generation = control.generation.wrapping_add(1);
        let after = |tuple: Tuple| (tuple.dst, tuple.src);
        let ends = |tuple: Tuple| (tuple.src, tuple.dst);
        let mut session = Session {
            rewrites: [
                Rewrite::new(ends(plan.original), after(plan.reply)),
                Rewrite::new(ends(plan.reply), after(plan.original)),
            ],
            tracker: segment.map(Tracker::open),
            bytes: [Bytes::default(); 2],
            packets: [0; 2],
            expires: 0,
            owner: plan.owner,
            mapping: plan.mapping,
            target: plan.target,
            generation: control.generation,
            hops: NO_HOPS,
            protocol: tuple.protocol,
            realms: plan.realms,
            reason: plan.reason,
        };
        session.expires = now.as_secs() as u32 + self.lifetime(&session);
        self.slots.put(number, session);
        for direction in [Direction::Original, Direction::Reply] {
            let hash = self.hash(&session, direction);
            self.index.insert(hash, Place { number, direction }.to_bits(), |other| {
                let place = Place::from_bits(other);
                self.slots.get(place.number).map_or(0, |session| self.hash(&session, place.direction))
            });
        }
        control.wheel.hang(number, u64::from(session.expires) + 1);
        Ok(Place { number, direction: Direction::Original })
    }

    pub(crate) fn hash(&self, session: &Session, direction: Direction) -> u64 {
        self.hasher.tuple(session.ingress(direction), &session.tuple(direction))
    }

    /// Ends a session.
    pub(crate) fn end(&self, control: &mut Control, number: u32, now: Instant) {
        let Some(session) = self.slots.get(number) else { return };
        for direction in [Direction::Original, Direction::Reply] {
            self.index.remove(self.hash(&session, direction), Place { number, direction }.to_bits());
        }
        self.slots.take(number);
        control.wheel.unhang(number);
        control.free.push(number);
        control.quotas.give_session(session.owner, now);
        let remote = remote(&session.realms, session.tuple(Direction::Original));
        for mapping in [session.mapping, session.target].into_iter().filter(|mapping| *mapping != NO_MAPPING) {
            control.leave(mapping, remote, now);
        }
    }

    pub(crate) fn end_where(&self, control: &mut Control, now: Instant, matches: impl Fn(&Session) -> bool) {
        for number in 0..control.fresh {
            if self.slots.get(number).is_some_and(|session| matches(&session)) {
                self.end(control, number, now);
            }
        }
    }

    pub(crate) fn live(&self, control: &Control, now: Instant) -> impl Iterator<Item = SessionView> {
        (0..control.fresh).filter_map(move |number| {
            let session = self.slots.get(number).filter(|session| session.is_live(now))?;
            let expires = session.expires - now.as_secs() as u32;
            Some(SessionView {
                id: SessionId { number, generation: session.generation },
                owner: session.owner & !INBOUND,
                original: session.tuple(Direction::Original),
                reply: session.tuple(Direction::Reply),
                from: session.ingress(Direction::Original),
                tcp: session.tracker.map(|tracker| tracker.state()),
                answered: session.bytes[1].get() > 0,
                reason: session.reason,
                packets: session.packets,
                bytes: session.bytes.map(Bytes::get),
                idle: self.lifetime(&session).saturating_sub(expires),
                expires,
            })
        })
    }
}

impl Plan {
    fn remote(&self) -> Ipv4Addr {
        remote(&self.realms, self.original)
    }
}

/// The other end of a session's mapping, as the mapping's filter knows it.
fn remote(realms: &[Realm; 2], original: Tuple) -> Ipv4Addr {
    match realms[0] {
        Realm::Inside => original.dst.ip,
        Realm::Outside => original.src.ip,
    }
}
