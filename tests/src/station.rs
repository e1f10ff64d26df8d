//! Hosts whose packets are made by hand.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::kernel::mute;
use crate::namespace::Enter;
use crate::packet::{self, Seen};
use crate::wire::{Mac, Wire};

/// An interface whose kernel only answers ARP; what else is said there, the test says.
pub struct Station {
    wire: Wire,
    ip: Ipv4Addr,
    next_hop: Mac,
}

impl Station {
    /// Takes over `interface` of `place`, which has the address `ip` and sends everything to `router`.
    pub fn take(place: &impl Enter, interface: &str, ip: &str, router: &str) -> Self {
        let mut station = Self::beside(place, interface, ip, router);
        mute(place);
        // What the kernel had still to say has been said.
        while station.wire.frame().is_some() {}
        station.wire = Wire::open(place, interface);
        station
    }

    /// The same, but the kernel of `place` goes on: for packets among those that it sends.
    pub fn beside(place: &impl Enter, interface: &str, ip: &str, router: &str) -> Self {
        let ip = ip.parse().expect("an address");
        let mut wire = Wire::open(place, interface);
        let next_hop = wire.resolve(ip, router.parse().expect("an address"));
        Self { wire, ip, next_hop }
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// A port at its address.
    pub fn at(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip, port)
    }

    /// Sends a packet.
    pub fn send(&self, packet: &[u8]) {
        self.wire.send(&packet::frame(self.next_hop, self.wire.mac(), packet));
    }

    /// The first packet to this interface within `limit` that `pick` accepts.
    pub fn find(&mut self, limit: Duration, mut pick: impl FnMut(&Seen) -> bool) -> Option<Seen> {
        let mac = self.wire.mac();
        self.wire.find(limit, |frame| {
            let to_us = frame.starts_with(&mac);
            let seen = packet::in_frame(frame).filter(|_| to_us).and_then(packet::read)?;
            pick(&seen).then_some(seen)
        })
    }

    /// The next packet to this interface within `limit`.
    pub fn next(&mut self, limit: Duration) -> Option<Seen> {
        self.find(limit, |_| true)
    }
}
