//! Sending: runs leave in few system calls, and what the host says about them goes back.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tapswitch_wire::{DropReason, Emit, Instant};

use super::Side;
use super::outgoing::{RUN_BYTES, RUN_DATAGRAMS, RUNS, Runs};
use crate::flow::FlowId;
use crate::host::{Host, HostError, HostIcmp, Marks, Proto, Run};
use crate::relay::unreachable_code;

/// Headers of a datagram over IPv4.
const HEADERS: usize = 28;

impl<H: Host> Side<'_, H> {
    /// Keeps a datagram until the end of the turn.
    pub(super) fn send_later(
        &mut self,
        index: u32,
        proto: Proto,
        marks: Marks,
        datagram: &[u8],
        now: Instant,
        out: &mut impl Emit,
    ) {
        if self.datagrams.runs.is_full() {
            self.flush(now, out);
        }
        let Some(generation) = self.datagrams.table.generation(index) else { return };
        // Each ping is a message of its own.
        let largest = match proto {
            Proto::Icmp => 0,
            _ => usize::from(self.shared.config.mtu).saturating_sub(HEADERS),
        };
        self.datagrams.runs.push(index, generation, marks, datagram, largest);
    }

    /// Sends the datagrams of a super-frame, behind all that waits.
    pub(super) fn send_at_once(
        &mut self,
        index: u32,
        marks: Marks,
        size: usize,
        bytes: &[u8],
        now: Instant,
        out: &mut impl Emit,
    ) {
        self.flush(now, out);
        let Some((id, to, from)) = self.path(index) else { return };
        let most = size * RUN_DATAGRAMS.min(RUN_BYTES / size.max(1)).max(1);
        let mut rest = bytes;
        loop {
            let (part, behind) = rest.split_at(rest.len().min(most));
            self.send(id, &mut [(index, Run { to, from, marks, size, bytes: part })], now, out);
            rest = behind;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// By which socket a session sends, where to and from where.
    fn path(&mut self, index: u32) -> Option<(FlowId, SocketAddr, Option<IpAddr>)> {
        let session = self.datagrams.table.session(index)?;
        let (at, to) = (session.endpoint, session.via);
        let from = Some(session.local).filter(|local| !local.is_unspecified() && to.is_ipv4()).map(IpAddr::V4);
        Some((self.datagrams.table.id_of(at)?, to, from))
    }

    /// Sends what waits: the runs of one socket in one call.
    pub(super) fn flush(&mut self, now: Instant, out: &mut impl Emit) {
        if self.datagrams.runs.is_empty() {
            return;
        }
        let mut runs = std::mem::take(&mut self.datagrams.runs);
        // The socket of each run; `None` once it was sent.
        let mut sockets = [None; RUNS];
        for (socket, run) in sockets.iter_mut().zip(runs.iter()) {
            let is_there = self.datagrams.table.generation(run.session) == Some(run.generation);
            *socket = self.path(run.session).filter(|_| is_there);
            if socket.is_none() {
                self.lost(DropReason::NoSuchFlow, run.count);
            }
        }
        for first in 0..RUNS {
            let Some((id, ..)) = sockets[first] else { continue };
            self.flush_socket(id, &runs, &mut sockets, now, out);
        }
        runs.clear();
        self.datagrams.runs = runs;
    }

    /// Sends the runs of one socket.
    fn flush_socket(
        &mut self,
        id: FlowId,
        runs: &Runs,
        sockets: &mut [Option<(FlowId, SocketAddr, Option<IpAddr>)>; RUNS],
        now: Instant,
        out: &mut impl Emit,
    ) {
        let nothing = Marks { ttl: 1, tos: 0, dont_fragment: false };
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut group = [(0, Run { to: nobody, from: None, marks: nothing, size: 0, bytes: &[] }); RUNS];
        let mut len = 0;
        for (socket, run) in sockets.iter_mut().zip(runs.iter()) {
            if let Some((_, to, from)) = socket.take_if(|(other, ..)| *other == id) {
                group[len] = (run.session, Run { to, from, marks: run.marks, size: run.size, bytes: run.bytes });
                len += 1;
            }
        }
        self.send(id, &mut group[..len], now, out);
    }

    /// Sends runs of one socket, each with its session.
    fn send(&mut self, id: FlowId, group: &mut [(u32, Run<'_>)], now: Instant, out: &mut impl Emit) {
        let mut first = 0;
        let mut is_again = false;
        while let Some((index, run)) = group.get(first).copied() {
            let mut runs = [run; RUNS];
            let waiting = &group[first..];
            runs.iter_mut().zip(waiting).for_each(|(run, (_, waiting))| *run = *waiting);
            match self.host.send(id, &runs[..waiting.len().min(RUNS)]) {
                Ok(sent) => {
                    first = advance(group, first, sent);
                    is_again = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let lost = group[first..].iter().map(|(_, run)| run.datagrams()).sum();
                    return self.lost(DropReason::HostBufferFull, lost);
                }
                Err(error) => {
                    let was_told = self.fetch_errors(id, Some(run.to), now, out);
                    let is_large = error.kind() == io::ErrorKind::InvalidInput;
                    // The first failure may be that of an earlier datagram. It has been fetched now.
                    if !is_again && !is_large {
                        is_again = true;
                        continue;
                    }
                    is_again = false;
                    self.lost(DropReason::HostSendFailed, 1);
                    if !was_told && !is_large {
                        self.told_at_once(index, &error, now, out);
                    }
                    first = advance(group, first, 1);
                }
            }
        }
    }

    /// The host itself refused a datagram: the container hears what a router would have said.
    fn told_at_once(&mut self, index: u32, error: &io::Error, now: Instant, out: &mut impl Emit) {
        let Some(code) = unreachable_code(HostError::from(error)) else { return };
        let icmp = HostIcmp { kind: 3, code, mtu: 0, offender: None };
        if let Err(reason) = self.emit_error(index, icmp, None, now, out) {
            self.shared.drops.count(reason);
        }
    }

    pub(super) fn lost(&mut self, reason: DropReason, datagrams: usize) {
        (0..datagrams).for_each(|_| self.shared.drops.count(reason));
    }
}

/// Takes so many datagrams away, beginning with the run at `first`. Returns the first run of which something is left.
fn advance(group: &mut [(u32, Run<'_>)], mut first: usize, mut datagrams: usize) -> usize {
    while let Some((_, run)) = group.get_mut(first).filter(|_| datagrams > 0) {
        let has = run.datagrams();
        if datagrams < has {
            run.advance(datagrams);
            return first;
        }
        datagrams -= has;
        first += 1;
    }
    first
}
