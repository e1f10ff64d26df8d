//! UDP and ping flows: a datagram in is a datagram out, and the host's ICMP errors go back to who caused them.

use std::io;
use std::ops::Deref;

use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropReason, Emit, FrameOf, Instant, Journey, Meta, PortId, Stage, Step};

use super::{Refusal, Relay, unreachable_code};
use crate::datagram::Datagram;
use crate::host::{Host, HostError, Proto};
use crate::table::{Body, Flow, FlowId, Key};

/// Datagrams that one flow receives in one turn.
const DATAGRAM_BUDGET: usize = 64;

impl<H: Host> Relay<H> {
    pub(super) fn handle_datagram<B: Deref<Target = [u8]>>(
        &mut self,
        port: PortId,
        key: Key,
        frame: &FrameOf<B>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> Result<(), Refusal> {
        let id = match self.table.find(&key) {
            Some(id) => {
                journey.note(|| Step::looked_up(Stage::Relay, format!("a known {} flow", key.proto.name())));
                id
            }
            None => {
                let via = self.admit(&key, journey)?;
                let id = self.table.next_id();
                self.host.open(id, key.proto, via).map_err(|error| match error {
                    HostError::NoPing => Refusal { reason: DropReason::HostNoPing, unreachable: Some(13) },
                    error => Refusal { reason: DropReason::HostSocketFailed, unreachable: unreachable_code(error) },
                })?;
                let body = Body::Datagram(Datagram::new(&key));
                self.table.insert(Flow::new(key, via, frame.src_mac(), port, now, body));
                self.arm(id);
                id
            }
        };
        let Some(Flow { body: Body::Datagram(datagram), mac, last, up_bytes, .. }) = self.table.get(id) else {
            return Err(DropReason::NoSuchFlow.into());
        };
        *mac = frame.src_mac();
        *last = now;
        datagram.remember(frame);
        let payload = if key.proto == Proto::Icmp { frame.segment() } else { frame.payload() };
        *up_bytes += payload.len() as u64;
        // A USO super-frame is many datagrams; each becomes one.
        let size = frame.meta().gso.map_or(payload.len().max(1), |gso| usize::from(gso.size));
        let mut parts = payload.chunks(size);
        let mut part = parts.next().unwrap_or_default();
        loop {
            if let Err(error) = self.send_datagram(id, frame.ttl(), part, now, out) {
                return Err(error.into());
            }
            match parts.next() {
                Some(next) => part = next,
                None => return Ok(()),
            }
        }
    }

    pub(super) fn send_datagram(
        &mut self,
        id: FlowId,
        ttl: u8,
        payload: &[u8],
        now: Instant,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        // The first failure may be that of an earlier datagram: its ICMP error is fetched, and this one sent again.
        for last_try in [false, true] {
            match self.host.send(id, ttl, payload) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(DropReason::HostBufferFull),
                Err(_) if last_try => return Err(DropReason::HostSendFailed),
                Err(_) => self.fetch_errors(id, now, out),
            }
        }
        Ok(())
    }

    /// Sends the ICMP errors that the host received about a datagram flow.
    pub(super) fn fetch_errors(&mut self, id: FlowId, _now: Instant, out: &mut impl Emit) {
        while let Some(error) = self.host.icmp_error(id) {
            self.emit_error(id, error, out);
        }
    }

    /// Receives datagrams of one flow.
    pub(super) fn receive(&mut self, id: FlowId, now: Instant, out: &mut impl Emit) {
        let Some(flow) = self.table.get(id) else { return };
        let link = Link { src: self.config.mac, dst: flow.mac };
        let ip = Ip { src: flow.key.dst.ip(), dst: flow.key.src.ip(), ttl: 64, tos: 0, id: 0 };
        let headers = if flow.key.src.is_ipv4() { 20 } else { 40 };
        let mut failed = false;
        for _ in 0..DATAGRAM_BUDGET {
            self.frame.resize(1 << 16, 0);
            let len = match self.host.recv(id, &mut self.frame) {
                Ok(len) => len.min(self.frame.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The error of an earlier datagram; it stands in the error queue too.
                Err(_) => match self.host.icmp_error(id) {
                    Some(error) => {
                        self.emit_error(id, error, out);
                        continue;
                    }
                    // Fetched already; what comes after it is still to be read. Twice means that it will not end.
                    None if failed => return,
                    None => {
                        failed = true;
                        continue;
                    }
                },
            };
            let Some(flow) = self.table.get(id) else { return };
            let transport = if flow.key.proto == Proto::Udp { 8 } else { 0 };
            if headers + transport + len > usize::from(self.config.mtu) {
                self.drops.count(DropReason::AboveMtu);
                continue;
            }
            let payload = &self.frame[..len];
            match (flow.key.proto, payload) {
                (Proto::Udp, payload) => {
                    build::udp(&mut self.headers, link, ip, flow.key.dst.port(), flow.key.src.port(), payload);
                }
                // The kernel's ping socket put an identifier of its own; the container waits for the one it chose.
                (_, [0, 0, _, _, _, _, seq_high, seq_low, body @ ..]) => {
                    let [id_high, id_low] = flow.key.src.port().to_be_bytes();
                    let word = [id_high, id_low, *seq_high, *seq_low];
                    build::icmp(&mut self.headers, link, ip, 0, 0, word, body);
                }
                _ => {
                    self.drops.count(DropReason::IcmpIgnored);
                    continue;
                }
            }
            flow.down_bytes += len as u64;
            flow.last = now;
            out.emit(&Meta::PLAIN, &self.headers);
        }
        self.enqueue(id);
    }
}
