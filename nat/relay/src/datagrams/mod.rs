//! UDP and ICMP echo: one socket of the host for each endpoint of a container.
//!
//! # Theory of operation
//!
//! *Endpoint and session.* An endpoint is a container's address and port, or the identifier of its pings. It has one
//! socket that is connected to nobody, whichever hosts it talks to: the outside sees one address and port of it (RFC 4787
//! REQ-1). Each of these hosts is a session, which holds what is known of it: the timer, the counts, and the beginning of
//! the container's latest packet, which ICMP errors quote. Questions to a port of the gateway, which leads somewhere else,
//! go by a socket of their own, for the same reason as those to IPv6: no other end may be mistaken for another.
//!
//! *Filtering* is address-dependent (RFC 4787 REQ-8): who sends to an endpoint must have an address that the endpoint has
//! sent to. What comes from another port of such a host begins a session of its own. Anybody may send to a published
//! endpoint; the container sees who it is, unless it is an address that the container would look for elsewhere. Such
//! clients have a port of the gateway.
//!
//! *Timers.* A session ends when nothing has passed in either direction for the time of its [`Class`]; a question to a
//! name or time server is worth little once it is answered. A socket is closed when its last session ends.
//!
//! *When there is no room.* A container that has used up its sockets gets another one only in place of one of its own:
//! the least recently used one whose questions are answered, or that was idle for [`IDLE`]. If there is none it is refused.
//! Sessions are bounded for each container ([`MAX_SESSIONS`]); a new one ends the oldest. What the outside begins at
//! published endpoints is bounded apart, and a stranger at any other endpoint displaces nobody. In all there are
//! [`MAX_SESSIONS_IN_ALL`].
//!
//! *In batches.* What containers send waits until the end of the turn ([`Runs`]) and leaves in few system calls. What
//! arrives is read many at a time and handed on as super-frames ([`Train`]). A socket is read once in a turn; one that had
//! more is read in the next.
//!
//! *Errors* come from the error queue of the socket, which says about which destination they are. They end and prolong
//! nothing (RFC 4787 REQ-12, RFC 5508 REQ-6), and a container gets a bounded number of them.

mod errors;
mod incoming;
mod outgoing;
mod publish;
mod receive;
mod send;
mod session;
mod slab;
mod table;

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::ops::Deref;
use std::time::Duration;

use tapswitch_names::{Answer, answer};
use tapswitch_wire::build::{self, Ip};
use tapswitch_wire::{DropReason, Emit, FrameOf, Instant, Journey, Mac, Meta, PortId, Stage, Step};

use crate::budget::Budget;
use crate::flow::{FlowId, FlowView, Key};
use crate::host::{Batch, Host, HostError, HostIcmp, Marks, Proto, Readiness, Reported};
use crate::policy::DNS_PORT;
use crate::relay::{Refusal, Shared, unreachable_code};
use errors::Bucket;
use incoming::Train;
use outgoing::Runs;
use session::{Class, Endpoint, Head, Session, Way};
use slab::{Chain, Link};
use table::Table;

/// Sessions that one container has at most by its own endpoints, and as many by published ones.
const MAX_SESSIONS: usize = 16_384;
/// Sessions of all containers.
const MAX_SESSIONS_IN_ALL: usize = 262_144;
/// An endpoint on which nothing passed for so long may go when its container needs another.
const IDLE: Duration = Duration::from_secs(5);

/// The endpoints of one network that exchange datagrams with the outside.
pub(crate) struct Datagrams {
    table: Table,
    runs: Runs,
    train: Train,
    batch: Batch,
    /// Sockets that have something to receive at the end of this turn.
    turn: Vec<FlowId>,
    spare: Vec<FlowId>,
    /// What is published, by where the host listens.
    listening: HashMap<SocketAddr, u32>,
    /// Endpoints and sessions that had to make room.
    evicted: u64,
    /// ICMP errors about packets that came in fragments and were refused: of these no session knows.
    refusals: Bucket,
}

impl Datagrams {
    pub(crate) fn new() -> Datagrams {
        Datagrams {
            table: Table::new(),
            runs: Runs::default(),
            train: Train::default(),
            batch: Batch::default(),
            turn: Vec::new(),
            spare: Vec::new(),
            listening: HashMap::new(),
            evicted: 0,
            refusals: Bucket::default(),
        }
    }

    /// A copy with at most the session of this flow, and the endpoints by which its source sends. Sockets that would be
    /// closed to make room are given back to the `budget`.
    pub(crate) fn copy_for(&self, port: PortId, key: Option<&Key>, now: Instant, budget: &mut Budget) -> Datagrams {
        let mut copy = Datagrams::new();
        let Some(Key { proto, src: SocketAddr::V4(src), dst: SocketAddr::V4(dst) }) = key else { return copy };
        let same = |endpoint: &Endpoint| {
            let Endpoint { proto, src, way, port, mac, listens, last, .. } = *endpoint;
            Endpoint { listens, ..Endpoint::new(proto, src, way, port, mac, last) }
        };
        for (redirected, ipv6) in [(false, false), (false, true), (true, false), (true, true)] {
            let source = self.table.by_source(*proto, *src, Way { redirected, ipv6 });
            if let Some(endpoint) = source.and_then(|at| self.table.look(at)) {
                copy.table.insert_endpoint(same(endpoint), true);
            }
        }
        if let Some(session) = self.table.look_for(*proto, *src, *dst)
            && let Some(endpoint) = self.table.look(session.endpoint)
        {
            let known = copy.table.by_source(*proto, *src, endpoint.way);
            let at = known.unwrap_or_else(|| copy.table.insert_endpoint(same(endpoint), false));
            let class = Class::of(*proto, *dst);
            copy.table.insert_session(Session::new(at, session.dst, session.via, class, session.last));
        }
        let mut idle = None;
        while budget.check_port(port).is_err() {
            let left = idle.get_or_insert_with(|| self.table.idle_endpoints(port, now, IDLE));
            if *left == 0 {
                break;
            }
            *left -= 1;
            budget.give_port(port);
        }
        copy
    }

    /// Number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Endpoints and sessions that had to make room for others of their container, since the beginning.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Whether one more container may be told that a packet of fragments was refused.
    pub(crate) fn may_tell(&mut self, now: Instant) -> bool {
        self.refusals.take(now)
    }

    /// Whether something is to be sent or received this very moment.
    pub(crate) fn is_busy(&self) -> bool {
        !self.turn.is_empty() || !self.runs.is_empty()
    }

    /// When [`Side::poll`] has something to do although nothing comes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.table.deadline()
    }

    /// The sessions, oldest place first.
    pub(crate) fn flows(&self, now: Instant) -> Vec<FlowView> {
        self.table.iter().map(|(_, session, endpoint)| view(session, endpoint, now)).collect()
    }
}

fn view(session: &Session, endpoint: &Endpoint, now: Instant) -> FlowView {
    FlowView {
        port: endpoint.port,
        proto: endpoint.proto.name(),
        src: endpoint.src.into(),
        dst: session.dst.into(),
        via: session.via,
        published: endpoint.listens,
        state: if session.class == Class::Answered { "answered" } else { "active" },
        up_bytes: session.up_bytes,
        down_bytes: session.down_bytes,
        idle_s: (now - session.last).as_secs(),
        expires_s: (session.expires() - now).as_secs(),
    }
}

/// The datagrams at work, with what they need.
pub(crate) struct Side<'a, H> {
    pub datagrams: &'a mut Datagrams,
    pub shared: &'a mut Shared,
    pub host: &'a mut H,
}

impl<H: Host> Side<'_, H> {
    pub(crate) fn handle<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        key: Key,
        frame: &FrameOf<B>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        if self.answer(&key, frame, out) {
            journey.note(|| Step::decided(Stage::Relay, "a question about a name of the gateway: answered here"));
            return Ok(());
        }
        let (SocketAddr::V4(src), SocketAddr::V4(dst)) = (key.src, key.dst) else {
            return Err(DropReason::Ipv6NotRouted.into());
        };
        let index = match self.datagrams.table.by_tuple(key.proto, src, dst) {
            Some(index) => {
                journey.note(|| Step::looked_up(Stage::Relay, format!("a known {} flow", key.proto.name())));
                index
            }
            None => self.begin(port, &key, (src, dst), frame.src_mac(), now, journey, out)?,
        };
        let payload = if key.proto == Proto::Icmp { frame.segment() } else { frame.payload() };
        // A USO super-frame is many datagrams; each becomes one.
        let size = frame.meta().gso.map_or(payload.len(), |gso| usize::from(gso.size));
        let Some((session, endpoint)) = self.datagrams.table.both(index) else {
            return Err(DropReason::NoSuchFlow.into());
        };
        if endpoint.port != port {
            // Another container uses the address.
            return Err(DropReason::SpoofedSource.into());
        }
        endpoint.mac = frame.src_mac();
        session.head = Head::of(frame);
        session.up_bytes += payload.len() as u64;
        let class = session.asked(payload.len().div_ceil(size.max(1)).max(1));
        self.datagrams.table.used(index, class, now);
        let header = frame.packet();
        let marks = Marks { ttl: frame.ttl().max(1), tos: header[1], dont_fragment: header[6] & 0x40 != 0 };
        match frame.meta().gso {
            Some(_) => self.send_at_once(index, marks, size, payload, now, out),
            None => self.send_later(index, key.proto, marks, payload, now, out),
        }
        Ok(())
    }

    /// Answers a question about one of the gateway's own names. That takes no session and no socket. A super-frame of
    /// questions, which nobody is known to send, is the resolver's.
    fn answer<B: Deref<Target = [u8]>>(&mut self, key: &Key, frame: &FrameOf<B>, out: &mut impl Emit) -> bool {
        let shared = &mut *self.shared;
        let asks = key.proto == Proto::Udp && key.dst == SocketAddr::new(shared.config.policy.gateway, DNS_PORT);
        if !asks
            || frame.meta().gso.is_some()
            || answer(frame.payload(), &shared.names, &mut shared.frame) == Answer::NotOurs
        {
            return false;
        }
        let link = build::Link { src: shared.config.mac, dst: frame.src_mac() };
        let ip = Ip { src: key.dst.ip(), dst: key.src.ip(), ttl: 64, tos: 0, id: 0 };
        build::udp(&mut shared.headers, link, ip, DNS_PORT, key.src.port(), &shared.frame);
        out.emit(&Meta::PLAIN, &shared.headers);
        true
    }

    /// Begins a session of a container.
    #[allow(clippy::too_many_arguments, reason = "a session is made of all of them")]
    fn begin(
        &mut self,
        port: PortId,
        key: &Key,
        (src, dst): (SocketAddrV4, SocketAddrV4),
        mac: Mac,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<u32, Refusal> {
        let host = &mut self.host;
        let via = self.shared.lead(key, |ip| host.is_own(ip), journey)?;
        let way = Way { redirected: via != key.dst, ipv6: via.is_ipv6() };
        let table = &mut self.datagrams.table;
        let source = table.by_source(key.proto, src, way);
        let endpoint = source.and_then(|at| table.endpoint(at));
        if endpoint.as_ref().is_some_and(|endpoint| endpoint.port != port) {
            return Err(DropReason::SpoofedSource.into());
        }
        let listens = endpoint.is_some_and(|endpoint| endpoint.listens);
        let no_room = |reason| Refusal { reason, unreachable: Some(13) };
        self.make_room(port, listens, now, out).map_err(no_room)?;
        let endpoint = match self.datagrams.table.by_source(key.proto, src, way) {
            Some(endpoint) => {
                journey.note(|| Step::decided(Stage::Relay, format!("{} goes by the socket that {src} has", via)));
                endpoint
            }
            None => {
                self.make_room_for_socket(port, now, out).map_err(no_room)?;
                let id = self.datagrams.table.next_id();
                self.host.open(id, key.proto, way.ipv6).map_err(|error| match error {
                    HostError::NoPing => Refusal { reason: DropReason::HostNoPing, unreachable: Some(13) },
                    error => Refusal { reason: DropReason::HostSocketFailed, unreachable: unreachable_code(error) },
                })?;
                journey.note(|| Step::decided(Stage::Relay, format!("{via} goes by a new socket of the host")));
                self.shared.budget.take_port(port);
                self.datagrams.table.insert_endpoint(Endpoint::new(key.proto, src, way, port, mac, now), true)
            }
        };
        let session = Session::new(endpoint, dst, via, Class::of(key.proto, dst), now);
        self.datagrams.table.insert_session(session).ok_or(DropReason::NoSuchFlow.into())
    }

    /// Sees to it that there is room for one more session of a container, by an endpoint that is published or not.
    fn make_room(&mut self, port: PortId, listens: bool, now: Instant, out: &mut impl Emit) -> Result<(), DropReason> {
        let own = self.datagrams.table.count(port, listens);
        if own < MAX_SESSIONS && self.datagrams.table.len() < MAX_SESSIONS_IN_ALL {
            return Ok(());
        }
        let reason = if own < MAX_SESSIONS { DropReason::SessionTableFull } else { DropReason::SessionLimit };
        let oldest = self.datagrams.table.oldest_session(port, listens).ok_or(reason)?;
        self.flush(now, out);
        self.datagrams.evicted += 1;
        self.end_session(oldest);
        Ok(())
    }

    /// Sees to it that a container may have one more socket.
    pub(crate) fn make_room_for_socket(
        &mut self,
        port: PortId,
        now: Instant,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        while let Err(reason) = self.shared.budget.check_port(port) {
            let idle = self.datagrams.table.idle_endpoint(port, now, IDLE).ok_or(reason)?;
            self.flush(now, out);
            self.datagrams.evicted += 1;
            self.close(idle);
        }
        Ok(())
    }

    /// Sends the ICMP errors that the host received about what a socket sent. Whether one was about this destination.
    fn fetch_errors(&mut self, id: FlowId, about: Option<SocketAddr>, now: Instant, out: &mut impl Emit) -> bool {
        let mut found = false;
        while let Some(mut reported) = self.host.icmp_error(id) {
            // Of what it refused itself the host tells the address only. It refuses one datagram at a time.
            if let Some(about) = about.filter(|about| reported.to.port() == 0 && about.ip() == reported.to.ip()) {
                if found {
                    continue;
                }
                reported.to = about;
            }
            found |= about == Some(reported.to);
            if let Err(reason) = self.report(id, reported, now, out) {
                self.shared.drops.count(reason);
            }
        }
        found
    }

    /// Tells a container of an ICMP error about its datagram.
    fn report(&mut self, id: FlowId, it: Reported, now: Instant, out: &mut impl Emit) -> Result<(), DropReason> {
        let table = &mut self.datagrams.table;
        let index = table.by_id(id).and_then(|endpoint| table.by_via(endpoint, it.to));
        let index = index.ok_or(DropReason::NoSuchSession)?;
        self.emit_error(index, it.icmp, it.echo, now, out)
    }

    fn emit_error(
        &mut self,
        index: u32,
        icmp: HostIcmp,
        echo: Option<[u8; 8]>,
        now: Instant,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        if !matches!(icmp.kind, 3 | 11 | 12) {
            return Err(DropReason::IcmpIgnored);
        }
        let (session, endpoint) = self.datagrams.table.both(index).ok_or(DropReason::NoSuchSession)?;
        let (mac, src, port) = (endpoint.mac, *endpoint.src.ip(), endpoint.port);
        // Nothing that the container sent is meant: it cannot be told.
        let quote = session.head.quote(echo).ok_or(DropReason::NoSuchSession)?;
        let container = self.datagrams.table.container(port).ok_or(DropReason::NoSuchSession)?;
        if !container.errors.take(now) {
            return Err(DropReason::IcmpRateLimited);
        }
        self.shared.emit_error(mac, src.into(), &quote, icmp, out);
        Ok(())
    }

    /// Once a turn: sends what waits, receives what is there, lets timers end.
    pub(crate) fn poll(&mut self, now: Instant, out: &mut impl Emit) {
        self.flush(now, out);
        let mut turn = std::mem::replace(&mut self.datagrams.turn, std::mem::take(&mut self.datagrams.spare));
        for id in turn.drain(..) {
            self.receive(id, now, out);
        }
        self.datagrams.spare = turn;
        while let Some(index) = self.datagrams.table.due(now) {
            self.end_session(index);
        }
    }

    /// Puts a socket on the list of this turn, once.
    fn enqueue(&mut self, id: FlowId) {
        let table = &mut self.datagrams.table;
        if let Some(endpoint) = table.by_id(id).and_then(|index| table.endpoint(index))
            && !endpoint.queued
        {
            endpoint.queued = true;
            self.datagrams.turn.push(id);
        }
    }

    /// Something became possible on a socket.
    pub(crate) fn host_event(&mut self, id: FlowId, ready: Readiness, now: Instant, out: &mut impl Emit) {
        if self.datagrams.table.by_id(id).is_none() {
            return;
        }
        if ready.error {
            self.fetch_errors(id, None, now, out);
        }
        if ready.readable || ready.error {
            self.enqueue(id);
        }
    }

    /// A port is gone: its sessions end, and its sockets are closed.
    pub(crate) fn port_gone(&mut self, port: PortId) {
        for endpoint in self.datagrams.table.of_container(port) {
            self.close(endpoint);
        }
    }

    /// Ends the sessions that `matches` says. Returns how many.
    pub(crate) fn end_where(&mut self, now: Instant, matches: impl Fn(&FlowView) -> bool) -> usize {
        let all = self.datagrams.table.iter();
        let ended =
            all.filter(|(_, session, endpoint)| matches(&view(session, endpoint, now))).map(|(index, ..)| index);
        let ended: Vec<u32> = ended.collect();
        ended.iter().for_each(|index| self.end_session(*index));
        ended.len()
    }

    /// Ends a session, and closes the socket if it was the last one.
    fn end_session(&mut self, index: u32) {
        if let Some(endpoint) = self.datagrams.table.remove_session(index) {
            self.close(endpoint);
        }
    }

    /// Closes a socket. Its sessions end.
    fn close(&mut self, endpoint: u32) {
        let Some(id) = self.datagrams.table.id_of(endpoint) else { return };
        if let Some(port) = self.datagrams.table.remove_endpoint(endpoint) {
            self.shared.budget.give_port(port);
            self.host.close(id);
        }
    }
}

impl Endpoint {
    fn new(proto: Proto, src: SocketAddrV4, way: Way, port: PortId, mac: Mac, now: Instant) -> Endpoint {
        Endpoint {
            proto,
            src,
            way,
            port,
            mac,
            listens: false,
            queued: false,
            list: session::BUSY,
            link: Link::LOOSE,
            sessions: Chain::EMPTY,
            count: 0,
            unspent: 0,
            last: now,
        }
    }
}
