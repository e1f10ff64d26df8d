//! What the container may send, and how it gets to the host's socket (RFC 9293 3.8.6).

use std::collections::VecDeque;
use std::io;

use tapswitch_wire::Instant;

use super::{HOLD, Tcp, WINDOW, WINDOW_SCALE, before};
use crate::flow::FlowId;
use crate::host::StreamHost;

impl Tcp {
    /// Room for data of the container: what the socket is believed to take, and what may be held beside.
    fn window(&self) -> u32 {
        let room = self.active.as_ref().map_or(HOLD, |active| active.room + HOLD - active.held.len() as u32);
        room.min(self.reach())
    }

    /// Whether the container should hear of more room before the turn ends: it has used half of what it may send, and
    /// would otherwise stand still before the frames that are there are worked off.
    pub(crate) fn wants_update(&self) -> bool {
        let half = self.reach() / 2;
        self.ack_due && self.offered() < half && self.window() >= self.offered() + half / 2
    }

    /// The largest window that can be offered.
    fn reach(&self) -> u32 {
        if self.scaling { WINDOW } else { 0xffff }
    }

    /// What is left of the window that was offered.
    pub(super) fn offered(&self) -> u32 {
        if before(self.rcv_nxt, self.edge) { self.edge.wrapping_sub(self.rcv_nxt) } else { 0 }
    }

    /// The window field, remembering what was offered. The edge moves by a segment at least (RFC 9293 3.8.6.2.2).
    ///
    /// What the scale cannot express is not offered, so the edge may seem to go back by less than one unit; a segment up
    /// to the edge that was offered before is still taken (RFC 7323 2.4).
    pub(super) fn take_window(&mut self) -> u16 {
        let (window, offered) = (self.window(), self.offered());
        if window >= offered.saturating_add(self.mss()) {
            self.edge = self.rcv_nxt.wrapping_add(window);
        }
        let scale = if self.scaling { WINDOW_SCALE } else { 0 };
        (self.offered() >> scale).min(0xffff) as u16
    }

    /// The window of a SYN, which is never scaled (RFC 7323 2.2).
    pub(super) fn take_first_window(&mut self) -> u16 {
        let window = self.window().min(0xffff);
        self.edge = self.rcv_nxt.wrapping_add(window);
        window as u16
    }

    /// Hands data to the socket, and holds what it cannot take, up to [`HOLD`]. Returns how much was accepted. A broken
    /// socket takes it all to nowhere.
    pub(super) fn deliver(&mut self, id: FlowId, bytes: &[u8], host: &mut impl StreamHost, now: Instant) -> usize {
        let mut rest = bytes;
        while self.writable && self.host_reset().is_none() && self.held() == 0 && !rest.is_empty() {
            match host.write(id, rest) {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(_) => self.host_broke(now),
            }
        }
        if self.host_reset().is_some() {
            return bytes.len();
        }
        let (written, writable) = (bytes.len() - rest.len(), self.writable);
        let active = self.active();
        active.room = if writable { active.room.saturating_sub(written as u32) } else { 0 };
        active.unasked = active.unasked.saturating_sub(written as u32);
        if active.unasked == 0 && writable {
            self.ask_for_room(id, host);
        }
        let active = self.active();
        let free = (HOLD as usize).saturating_sub(active.held.len());
        let held = &rest[..rest.len().min(free)];
        if !held.is_empty() {
            active.held.extend(held);
        }
        written + held.len()
    }

    fn ask_for_room(&mut self, id: FlowId, host: &mut impl StreamHost) {
        let room = u32::try_from(host.room(id)).unwrap_or(u32::MAX).min(WINDOW);
        let active = self.active();
        active.room = room;
        active.unasked = (room + HOLD) / 2;
    }

    /// The socket has room again.
    pub(crate) fn host_writable(&mut self, id: FlowId, host: &mut impl StreamHost, now: Instant) {
        self.writable = true;
        if self.held() > 0 {
            self.write_held(id, host, now);
        }
        self.pass_fin(id, host, now);
        self.settle();
    }

    fn write_held(&mut self, id: FlowId, host: &mut impl StreamHost, now: Instant) {
        while self.writable && self.held() > 0 {
            let held = &mut self.active().held;
            match host.write(id, held.as_slices().0) {
                Ok(taken) => drop(held.drain(..taken.min(held.len()))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(_) => self.host_broke(now),
            }
        }
        if self.held() == 0 {
            // Memory is kept only while it is needed.
            self.active().held = VecDeque::new();
            if self.host_reset().is_none() {
                self.ask_for_room(id, host);
            }
        }
        // The container waits for an update only if it was told of a small window.
        let (window, offered) = (self.window(), self.offered());
        if offered < HOLD / 2 && window >= offered + HOLD / 2 {
            self.ack_due = true;
        }
    }

    /// Passes the container's FIN on once every earlier byte is written.
    pub(super) fn pass_fin(&mut self, id: FlowId, host: &mut impl StreamHost, now: Instant) {
        if self.peer_fin && !self.finished && self.held() == 0 {
            self.finished = true;
            if host.finish(id).is_err() {
                self.host_broke(now);
            }
        }
    }
}
