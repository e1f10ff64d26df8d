//! Receiving: whose it is, and whether it may come in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropReason, Emit, Instant};

use super::incoming::Envelope;
use super::session::{Class, Session};
use super::{MAX_SESSIONS, MAX_SESSIONS_IN_ALL, Side};
use crate::flow::FlowId;
use crate::host::{Arrival, Host, Proto};

/// Failures of one socket in one turn after which it is left alone: each may be the error of an earlier datagram.
const MAX_FAILURES: usize = 8;
/// Ports of the gateway that are tried for a client that cannot be shown as itself.
const ALIASES: u16 = 64;
/// The first of them.
const FIRST_ALIAS: u16 = 49_152;

impl<H: Host> Side<'_, H> {
    /// Receives what one socket has, up to a batch.
    pub(super) fn receive(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        let table = &mut self.datagrams.table;
        let Some(at) = table.by_id(id) else { return };
        if let Some(endpoint) = table.endpoint(at) {
            endpoint.queued = false;
        }
        let mut batch = std::mem::take(&mut self.datagrams.batch);
        batch.clear();
        let mut more = false;
        for _ in 0..MAX_FAILURES {
            match self.host.receive(id, &mut batch) {
                Ok(is_full) => {
                    more = is_full;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.fetch_errors(id, None, now, out);
                }
            }
        }
        for (arrival, bytes) in batch.iter() {
            if let Err(reason) = self.deliver(at, &arrival, bytes, now, out) {
                self.lost(reason, bytes.len().div_ceil(arrival.size.max(1)).max(1));
            }
        }
        let mtu = self.shared.config.mtu;
        if let Err(reason) = self.datagrams.train.finish(mtu, out) {
            self.lost(reason, 1);
        }
        self.datagrams.batch = batch;
        if more {
            self.enqueue(id);
        }
    }

    fn deliver(
        &mut self,
        at: u32,
        arrival: &Arrival,
        bytes: &[u8],
        now: Instant,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        let index = match self.datagrams.table.by_via(at, arrival.from) {
            Some(index) => index,
            None => self.stranger(at, arrival, now, out)?,
        };
        let (session, endpoint) = self.datagrams.table.both(index).ok_or(DropReason::NoSuchFlow)?;
        if let (true, Some(IpAddr::V4(to))) = (endpoint.listens, arrival.to) {
            session.local = to;
        }
        let envelope = Envelope {
            link: Link { src: self.shared.config.mac, dst: endpoint.mac },
            src: session.dst,
            dst: endpoint.src,
            // We are a router. What would end here has come to where it was sent.
            ttl: arrival.ttl.saturating_sub(1).max(1),
            tos: arrival.tos,
        };
        let proto = endpoint.proto;
        session.down_bytes += bytes.len() as u64;
        let class = session.answered(bytes.len().div_ceil(arrival.size.max(1)).max(1));
        self.datagrams.table.used(index, class, now);
        match proto {
            Proto::Icmp => self.deliver_echo(&envelope, bytes, out),
            _ => self.datagrams.train.push(envelope, arrival.size, bytes, self.shared.config.mtu, out),
        }
    }

    /// The kernel's ping socket put an identifier of its own; the container waits for the one it chose.
    fn deliver_echo(&mut self, to: &Envelope, bytes: &[u8], out: &mut impl Emit) -> Result<(), DropReason> {
        let [0, 0, _, _, _, _, seq_high, seq_low, body @ ..] = bytes else { return Err(DropReason::IcmpIgnored) };
        let [id_high, id_low] = to.dst.port().to_be_bytes();
        let word = [id_high, id_low, *seq_high, *seq_low];
        let ip = Ip { src: (*to.src.ip()).into(), dst: (*to.dst.ip()).into(), ttl: to.ttl, tos: to.tos, id: 0 };
        build::icmp(&mut self.shared.headers, to.link, ip, 0, 0, word, body);
        self.datagrams.train.whole(&mut self.shared.headers, self.shared.config.mtu, out)
    }

    /// Somebody with whom an endpoint has no session: whether he may send, and who he is to the container.
    fn stranger(&mut self, at: u32, arrival: &Arrival, now: Instant, out: &mut impl Emit) -> Result<u32, DropReason> {
        let table = &mut self.datagrams.table;
        let endpoint = table.endpoint(at).ok_or(DropReason::NoSuchFlow)?;
        let (proto, src, way, port, listens) =
            (endpoint.proto, endpoint.src, endpoint.way, endpoint.port, endpoint.listens);
        let dst = match (arrival.from, listens) {
            (from, true) => {
                self.make_room(port, true, now, out)?;
                self.shown(src, from)?
            }
            (SocketAddr::V4(from), false)
                if proto == Proto::Udp && !way.redirected && table.knows(at, arrival.from.ip()) =>
            {
                if table.count(port, false) >= MAX_SESSIONS || table.len() >= MAX_SESSIONS_IN_ALL {
                    return Err(DropReason::SessionLimit);
                }
                from
            }
            _ => return Err(DropReason::Filtered),
        };
        // The container knows this other end by another socket, which it had before it was published.
        if let Some(old) = self.datagrams.table.by_tuple(proto, src, dst) {
            self.end_session(old);
        }
        let session = Session::new(at, dst, arrival.from, Class::Udp, now);
        self.datagrams.table.insert_session(session).ok_or(DropReason::NoSuchFlow)
    }

    /// As whom a container sees a client of its published endpoint: as itself, or as a port of the gateway where the
    /// container's answer would go elsewhere.
    fn shown(&mut self, inside: SocketAddrV4, client: SocketAddr) -> Result<SocketAddrV4, DropReason> {
        if let SocketAddr::V4(client) = client
            && !self.is_near(*client.ip())
        {
            return Ok(client);
        }
        let IpAddr::V4(gateway) = self.shared.config.policy.gateway else { return Err(DropReason::Filtered) };
        let others = (0..ALIASES).map(|step| FIRST_ALIAS + client.port().wrapping_add(step) % (u16::MAX - FIRST_ALIAS));
        let mut ports = std::iter::once(client.port()).chain(others);
        let is_free = |port: &u16| {
            let shown = SocketAddrV4::new(gateway, *port);
            // A port of the gateway that leads somewhere is not to be mistaken for a client.
            let serves = self.shared.config.policy.target(shown.into(), |_| true).is_ok();
            let is_published = self.shared.published.near(Proto::Udp, *port).is_some();
            *port > 0 && !serves && !is_published && self.datagrams.table.by_tuple(Proto::Udp, inside, shown).is_none()
        };
        ports.find(is_free).map(|port| SocketAddrV4::new(gateway, port)).ok_or(DropReason::SessionLimit)
    }

    /// Whether a container would look for this address elsewhere than by the uplink.
    fn is_near(&mut self, ip: Ipv4Addr) -> bool {
        let policy = &self.shared.config.policy;
        ip.is_loopback()
            || IpAddr::V4(ip) == policy.gateway
            || policy.deny.iter().any(|net| net.contains(&IpAddr::V4(ip)))
            || self.host.is_own(ip.into())
    }
}
