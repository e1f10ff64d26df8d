//! The one door of the relay: whose frame it is, and whether what it begins may begin.

mod copy;

use std::hash::RandomState;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;

use tapswitch_names::Names;
use tapswitch_wire::build::{Ip, Link};
use tapswitch_wire::{
    DropCounters, DropReason, Emit, FrameOf, FrameRef, Instant, Journey, L4, Mac, Meta, PortId, Stage, Step,
};

use crate::budget::{Budget, Limits};
use crate::datagrams::{self, Datagrams};
use crate::flow::{FlowId, FlowView, Key};
use crate::host::{Host, HostError, HostIcmp, Proto, Readiness};
use crate::policy::Policy;
use crate::publish::{Publication, Published};
use crate::quote::{emit_icmp_error, quote};
use crate::reassembly::Reassembly;
use crate::streams::{self, Streams};

/// What the relay of one network is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// MAC address of the gateway.
    pub mac: Mac,
    /// MTU of the network.
    pub mtu: u16,
    /// Where containers may go.
    pub policy: Policy,
    /// How many sockets there may be.
    pub limits: Limits,
}

/// A flow was refused, or a frame of one was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: DropReason,
    /// What a router would say about it: ICMP type 3 with this code. The gateway sends it.
    pub unreachable: Option<u8>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Refusal { reason, unreachable: None }
    }
}

/// What streams and datagrams have in common.
pub(crate) struct Shared {
    pub config: Config,
    pub budget: Budget,
    pub published: Published,
    /// What the gateway answers for itself.
    pub names: Names,
    /// Drops of frames that came from the outside.
    pub drops: DropCounters,
    /// Scratch space for headers, and for whole frames.
    pub headers: Vec<u8>,
    pub frame: Vec<u8>,
    /// Keys of initial sequence numbers (RFC 6528).
    pub isn: RandomState,
}

impl Shared {
    /// Looks where a new flow leads.
    pub(crate) fn lead(
        &self,
        key: &Key,
        is_own: impl FnOnce(IpAddr) -> bool,
        journey: &mut impl Journey,
    ) -> Result<SocketAddr, Refusal> {
        self.target(key, is_own).map_err(|reason| {
            journey.note(|| Step::decided(Stage::Relay, format!("{} is refused: {}", key.dst, reason.text())));
            // 13: administratively prohibited; 3: port unreachable (RFC 1812 5.2.7.1).
            Refusal { reason, unreachable: Some(if reason == DropReason::PolicyDenied { 13 } else { 3 }) }
        })
    }

    /// Looks where a new flow leads and whether there is room for it.
    pub(crate) fn admit(
        &mut self,
        port: PortId,
        key: &Key,
        is_own: impl FnOnce(IpAddr) -> bool,
        journey: &mut impl Journey,
    ) -> Result<SocketAddr, Refusal> {
        let via = self.lead(key, is_own, journey)?;
        self.budget.check(port).map_err(|reason| {
            journey.note(|| Step::decided(Stage::Relay, "no room for another flow of this container"));
            Refusal { reason, unreachable: Some(13) }
        })?;
        journey.note(|| {
            Step::decided(
                Stage::Relay,
                match via == key.dst {
                    true => format!("a new {} flow to {}: the host opens a socket", key.proto.name(), key.dst),
                    false => {
                        format!("a new {} flow to {}, which leads to {via} on the host", key.proto.name(), key.dst)
                    }
                },
            )
        });
        Ok(via)
    }

    /// Where the policy lets a flow go; and what is published on the host may be reached by containers too, under the
    /// host's own addresses and under the gateway's.
    fn target(&self, key: &Key, is_own: impl FnOnce(IpAddr) -> bool) -> Result<SocketAddr, DropReason> {
        let mut own = false;
        let denied = match self.config.policy.target(key.dst, |ip| {
            own = is_own(ip);
            own
        }) {
            Err(reason) => reason,
            target => return target,
        };
        let published = match denied {
            _ if key.dst.ip() == self.config.policy.gateway => self.published.near(key.proto, key.dst.port()),
            // An address that is denied for another reason was not asked for.
            _ if own => self.published.find(key.proto, key.dst).map(|_| key.dst),
            _ => None,
        };
        published.ok_or(denied)
    }

    /// Sends an ICMP error about a packet of a container that began with `head`.
    pub(crate) fn emit_error(&mut self, to: Mac, container: IpAddr, head: &[u8], error: HostIcmp, out: &mut impl Emit) {
        let link = Link { src: self.config.mac, dst: to };
        let src = match error.offender {
            Some(offender) if offender.is_ipv4() == container.is_ipv4() => offender,
            _ => self.config.policy.gateway,
        };
        let ip = Ip { src, dst: container, ttl: 64, tos: 0xc0, id: 0 };
        emit_icmp_error(error, link, ip, head, &mut self.frame, out);
    }
}

/// The relay of one network.
pub struct Relay<H> {
    shared: Shared,
    host: H,
    streams: Streams,
    datagrams: Datagrams,
    fragments: Reassembly,
    /// Memory for a packet that came in fragments.
    whole: Vec<u8>,
}

impl<H: Host> Relay<H> {
    /// A relay without flows.
    pub fn new(config: Config, host: H) -> Relay<H> {
        Relay {
            shared: Shared {
                budget: Budget::new(config.limits),
                published: Published::default(),
                names: config.policy.names(),
                config,
                drops: DropCounters::default(),
                headers: Vec::with_capacity(128),
                frame: Vec::with_capacity(1 << 16),
                isn: RandomState::new(),
            },
            host,
            streams: Streams::new(),
            datagrams: Datagrams::new(),
            fragments: Reassembly::default(),
            whole: Vec::new(),
        }
    }

    fn streams(&mut self) -> streams::Side<'_, H> {
        streams::Side { streams: &mut self.streams, shared: &mut self.shared, host: &mut self.host }
    }

    fn datagrams(&mut self) -> datagrams::Side<'_, H> {
        datagrams::Side { datagrams: &mut self.datagrams, shared: &mut self.shared, host: &mut self.host }
    }

    /// The host's side.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// Drops of frames that came from the outside.
    pub fn drops(&self) -> &DropCounters {
        &self.shared.drops
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.streams.len() + self.datagrams.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sockets and sessions for datagrams that had to make room for others of their container, since the beginning.
    pub fn evicted(&self) -> u64 {
        self.datagrams.evicted()
    }

    /// Takes a frame that leaves the network by this uplink.
    ///
    /// # Errors
    /// Why it went no further, and what to say to the container about it.
    pub fn handle<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        frame: &FrameOf<B>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        if frame.parsed().fragment.is_some() {
            return self.handle_fragment(port, frame, now, journey, out);
        }
        if !frame.transport_checksum_ok() {
            return Err(DropReason::TransportBadChecksum.into());
        }
        let (Some(src), Some(dst)) = (frame.src_ip(), frame.dst_ip()) else {
            return Err(DropReason::UnknownEthertype.into());
        };
        let (proto, src_port, dst_port) = match frame.parsed().l4 {
            L4::Tcp => (Proto::Tcp, frame.src_port(), frame.dst_port()),
            L4::Udp if frame.dst_port() == 0 => return Err(DropReason::TransportMalformed.into()),
            L4::Udp => (Proto::Udp, frame.src_port(), frame.dst_port()),
            L4::Icmp if frame.segment().len() >= 8 && frame.segment()[..2] == [8, 0] => {
                (Proto::Icmp, frame.src_port(), 0)
            }
            L4::Icmp | L4::Icmpv6 => return Err(DropReason::IcmpIgnored.into()),
            L4::Malformed => return Err(DropReason::TransportMalformed.into()),
            L4::Other | L4::None => {
                return Err(Refusal { reason: DropReason::UnknownProtocol, unreachable: Some(2) });
            }
        };
        let key = Key { proto, src: SocketAddr::new(src, src_port), dst: SocketAddr::new(dst, dst_port) };
        match proto {
            Proto::Tcp => {
                // What begins may have the place of an endpoint that the same container does not need.
                if streams::begins(frame) && self.shared.budget.check(port).is_err() {
                    // If there is none, the budget says so again.
                    let _ = self.datagrams().make_room_for_socket(port, now, out);
                }
                self.streams().handle(port, key, frame, now, journey, out)
            }
            Proto::Udp | Proto::Icmp => self.datagrams().handle(port, key, frame, now, journey, out),
        }
    }

    /// Takes a fragment, and handles the packet once it is whole.
    fn handle_fragment<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        frame: &FrameOf<B>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        let mut whole = std::mem::take(&mut self.whole);
        let is_whole = self.fragments.take(port, frame, now, &mut whole);
        let result = match is_whole {
            Ok(false) => {
                journey.note(|| Step::decided(Stage::Relay, "a fragment waits for the others of its packet"));
                Ok(())
            }
            Ok(true) => {
                journey.note(|| Step::decided(Stage::Relay, "the last fragment of a packet, which is whole now"));
                FrameRef::parse(Meta::PLAIN, &whole[..])
                    .map_err(Refusal::from)
                    .and_then(|frame| self.handle_whole(port, &frame, now, journey, out))
            }
            Err(reason) => Err(reason.into()),
        };
        self.whole = whole;
        result
    }

    /// Handles a packet that came in fragments. What is said about it quotes the packet, not its last fragment.
    fn handle_whole(
        &mut self,
        port: PortId,
        frame: &FrameRef<'_>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        if frame.parsed().fragment.is_some() {
            return Err(DropReason::FragmentMalformed.into());
        }
        let Err(Refusal { reason, unreachable }) = self.handle(port, frame, now, journey, out) else { return Ok(()) };
        if let (Some(code), Some(src)) = (unreachable, frame.src_ip()) {
            if !self.datagrams.may_tell(now) {
                self.shared.drops.count(DropReason::IcmpRateLimited);
                return Err(reason.into());
            }
            let error = HostIcmp { kind: 3, code, mtu: 0, offender: None };
            self.shared.emit_error(frame.src_mac(), src, quote(frame), error, out);
        }
        Err(reason.into())
    }

    /// Something became possible on a socket.
    pub fn host_event(&mut self, id: FlowId, ready: Readiness, now: Instant, out: &mut impl Emit) {
        match id.is_stream() {
            true => self.streams().host_event(id, ready, now, out),
            false => self.datagrams().host_event(id, ready, now, out),
        }
    }

    /// Once a turn: sends what flows owe, lets timers end.
    pub fn poll(&mut self, now: Instant, out: &mut impl Emit) {
        self.streams().poll(now, out);
        self.datagrams().poll(now, out);
        self.fragments.expire(now);
        if let Some(drops) = self.fragments.take_drops() {
            self.shared.drops.add(&drops);
        }
    }

    /// Whether a flow still has something to send this very moment.
    pub fn is_busy(&self) -> bool {
        self.streams.is_busy() || self.datagrams.is_busy()
    }

    /// When [`Relay::poll`] has something to do although nothing comes.
    pub fn deadline(&self) -> Option<Instant> {
        [self.streams.deadline(), self.datagrams.deadline(), self.fragments.deadline()].into_iter().flatten().min()
    }

    /// Opens a port of the host that leads to a container. Port 0 lets the host choose one. Returns where it listens.
    ///
    /// # Errors
    /// What the host says.
    pub fn publish(&mut self, publication: Publication) -> io::Result<SocketAddr> {
        let at = match publication.proto {
            Proto::Tcp => self.streams().publish(&publication)?,
            _ => self.datagrams().publish(&publication)?,
        };
        self.shared.published.insert(Publication { at, ..publication });
        Ok(at)
    }

    /// Closes what listens at exactly this place. Connections that came by it go on. Returns what it was.
    pub fn unpublish(&mut self, proto: Proto, at: SocketAddr) -> Option<Publication> {
        let publication = self.shared.published.remove(proto, at)?;
        match proto {
            Proto::Tcp => self.streams().unpublish(&publication),
            _ => self.datagrams().unpublish(&publication),
        }
        Some(publication)
    }

    /// What is published.
    pub fn published(&self) -> impl Iterator<Item = &Publication> {
        self.shared.published.iter()
    }

    /// A port is gone: its flows end, and the other ends are told. What it publishes is closed.
    pub fn port_gone(&mut self, port: PortId) {
        let of_port = |publication: &&Publication| publication.owner == port;
        let closed: Vec<Publication> = self.published().filter(of_port).copied().collect();
        for publication in closed {
            self.unpublish(publication.proto, publication.at);
        }
        self.streams().port_gone(port);
        self.datagrams().port_gone(port);
        self.fragments.port_gone(port);
    }

    /// The flows, streams first.
    pub fn flows(&self, now: Instant) -> Vec<FlowView> {
        let mut flows = self.streams.flows(now);
        flows.extend(self.datagrams.flows(now));
        flows
    }

    /// Ends the flows that `matches` says, at once. Nobody is told: what the container sends next finds no flow, and is
    /// answered as such. Returns how many.
    pub fn end_where(&mut self, now: Instant, matches: impl Fn(&FlowView) -> bool) -> usize {
        self.streams().end_where(now, &matches) + self.datagrams().end_where(now, &matches)
    }
}

/// The code of ICMP type 3 that says what the host said; `None` where a TCP end answers with a RST instead.
pub(crate) fn unreachable_code(error: HostError) -> Option<u8> {
    match error {
        HostError::Refused | HostError::Reset => None,
        HostError::NetUnreachable => Some(0),
        HostError::HostUnreachable | HostError::TimedOut => Some(1),
        HostError::Prohibited | HostError::NoPing | HostError::Exhausted => Some(13),
    }
}
