//! Ports of the host that lead to containers: clients outside are accepted, and the container is asked.
//!
//! The host accepts a connection before the container was asked, so the client believes to be connected while the engine
//! sends the container a SYN. A container that refuses, or is silent, means a reset for the client. What the client sends
//! meanwhile waits in the kernel.
//!
//! The container sees the client's own address and port. Where it could not answer that, because the address is the
//! host's, loopback, or one of a network of this daemon, it sees the gateway. If the port is taken, by another client or by
//! another published port that leads to the same place, it sees another port.
//!
//! Readiness is edge-triggered: a listener that has more than [`ACCEPTS`] clients waiting, or whose clients must wait
//! until the container answered some, is remembered here and asked again, in the next turn or after [`PAUSE`].

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tapswitch_wire::{DropReason, Emit, Instant};

use super::tcp::{State, Tcp};
use super::{MAX_HALF_OPEN, Side};
use crate::flow::{FlowId, Key};
use crate::host::{Host, HostError, Proto};
use crate::publish::Publication;

/// Clients that one listener accepts in one turn.
const ACCEPTS: usize = 64;
/// A listener that cannot accept now is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);
/// Ports that are tried for a client whose own is taken.
const TRIES: u16 = 256;

#[derive(Default)]
pub(super) struct Listeners {
    open: Vec<(FlowId, Publication)>,
    /// Those that may have clients waiting, each once.
    ready: VecDeque<FlowId>,
    /// Those that have, and cannot accept them now; and when they are asked again.
    paused: Vec<FlowId>,
    again: Option<Instant>,
}

impl Listeners {
    /// Clients may be waiting.
    pub(super) fn ready(&mut self, id: FlowId) {
        let known = self.open.iter().any(|(listener, _)| *listener == id);
        if known && !self.ready.contains(&id) && !self.paused.contains(&id) {
            self.ready.push_back(id);
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again
    }

    fn pause(&mut self, id: FlowId, now: Instant) {
        self.paused.push(id);
        self.again.get_or_insert(now + PAUSE);
    }
}

/// What a listener does next.
enum After {
    /// It waits for news.
    Sleep,
    /// It may have more.
    More,
    /// It has more, and cannot accept them now.
    Pause,
}

impl<H: Host> Side<'_, H> {
    /// Listens on the host for a container.
    pub(crate) fn publish(&mut self, publication: &Publication) -> io::Result<SocketAddr> {
        self.shared.budget.check(publication.owner).map_err(|_| io::Error::from(io::ErrorKind::QuotaExceeded))?;
        let id = self.streams.table.reserve();
        match self.host.listen(id, publication.at) {
            Ok(at) => {
                self.shared.budget.take(publication.owner);
                self.streams.listeners.open.push((id, Publication { at, ..*publication }));
                Ok(at)
            }
            Err(error) => {
                self.streams.table.release(id);
                Err(error)
            }
        }
    }

    /// Listens no more. What was accepted goes on.
    pub(crate) fn unpublish(&mut self, publication: &Publication) {
        let listeners = &mut self.streams.listeners;
        let Some(found) = listeners.open.iter().position(|(_, other)| other.at == publication.at) else { return };
        let (id, Publication { owner, .. }) = listeners.open.swap_remove(found);
        self.shared.budget.give(owner);
        listeners.ready.retain(|other| *other != id);
        listeners.paused.retain(|other| *other != id);
        self.host.close_stream(id, false);
        self.streams.table.release(id);
    }

    /// Accepts clients, each listener its share.
    pub(super) fn accept(&mut self, now: Instant, out: &mut impl Emit) {
        let listeners = &mut self.streams.listeners;
        if listeners.again.is_some_and(|at| at <= now) {
            listeners.again = None;
            listeners.ready.extend(listeners.paused.drain(..));
        }
        for _ in 0..listeners.ready.len() {
            let listeners = &mut self.streams.listeners;
            let Some(id) = listeners.ready.pop_front() else { break };
            let Some((_, publication)) = listeners.open.iter().find(|(listener, _)| *listener == id) else { continue };
            let publication = *publication;
            let after = self.accept_from(id, &publication, now, out);
            let listeners = &mut self.streams.listeners;
            match after {
                After::Sleep => {}
                After::More => listeners.ready.push_back(id),
                After::Pause => listeners.pause(id, now),
            }
        }
    }

    fn accept_from(&mut self, listener: FlowId, publication: &Publication, now: Instant, out: &mut impl Emit) -> After {
        for _ in 0..ACCEPTS {
            if self.streams.lanes.half_open(publication.owner, true) >= MAX_HALF_OPEN {
                // The kernel keeps the others until the container has answered some of these.
                return After::Pause;
            }
            let id = self.streams.table.reserve();
            match self.host.accept(listener, id) {
                Ok(client) => self.begin(id, client, publication, now, out),
                Err(error) => {
                    self.streams.table.release(id);
                    match (error.kind(), HostError::from(&error)) {
                        (io::ErrorKind::WouldBlock, _) => return After::Sleep,
                        (_, HostError::Exhausted) => return After::Pause,
                        // That client is gone already.
                        _ => {}
                    }
                }
            }
        }
        After::More
    }

    /// A client was accepted: asks the container.
    fn begin(&mut self, id: FlowId, client: SocketAddr, publication: &Publication, now: Instant, out: &mut impl Emit) {
        let room = self.shared.budget.check(publication.owner);
        let key = room.and_then(|()| self.shown(client, publication, now).ok_or(DropReason::FlowLimit));
        let key = match key {
            Ok(key) => key,
            Err(reason) => {
                self.shared.drops.count(reason);
                self.host.close_stream(id, true);
                return self.streams.table.release(id);
            }
        };
        let start = self.start(&key, now);
        self.insert(id, publication.owner, &key, publication.mac, client, now, Tcp::active_open(&start));
        self.with_tcp(id, now, out, |tcp, path, out| tcp.send_syn(path, out));
        self.streams.table.arm(id, now);
    }

    /// The connection as the container is to see it; `None` if all ports that were tried are taken.
    fn shown(&mut self, client: SocketAddr, publication: &Publication, now: Instant) -> Option<Key> {
        let inside = publication.inside;
        let policy = &self.shared.config.policy;
        let gateway = policy.gateway;
        let ours = client.ip().is_loopback()
            || client.ip().is_unspecified()
            || client.is_ipv4() != inside.is_ipv4()
            || client.ip() == gateway
            || policy.deny.iter().any(|net| net.contains(&client.ip()))
            || self.streams.is_own(client.ip(), self.host, now);
        let ip: IpAddr = if ours { gateway } else { client.ip() };
        let ports = (0..TRIES).map(|n| match n {
            0 => client.port(),
            // Spread over all ports that are not reserved.
            n => 1_024 + ((u32::from(client.port()) + u32::from(n) * 7_919) % 64_512) as u16,
        });
        for port in ports {
            let key = Key { proto: Proto::Tcp, src: inside, dst: SocketAddr::new(ip, port) };
            let Some(other) = self.streams.table.find(&key) else { return Some(key) };
            // One that is over makes place, as a kernel does for a later SYN (RFC 6191).
            if self.streams.table.get(other).is_some_and(|flow| flow.tcp.state == State::Lingering) {
                self.remove(other, false);
                return Some(key);
            }
        }
        None
    }
}
