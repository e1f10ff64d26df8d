//! A network's packet uplink, its way to other networks of the same daemon, and the LAN that it may be joined to.

use std::net::IpAddr;
use std::sync::Arc;

use tapswitch_conntrack::Conntrack;
use tapswitch_nat::Gateway;
use tapswitch_relay::Host;
use tapswitch_switch::Switch;
use tapswitch_wire::{DropReason, Frame, Instant, Journey, Mac, Meta, PortId, Unheard, Verdict};

use crate::forwarder::arrived;
use crate::lan::{Lan, Ports};
use crate::network::{Network, concluded};
use crate::packet::{PacketView, UplinkNews};

/// A packet that one network passes to another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crossing {
    /// The other network's number.
    pub network: usize,
    /// What is known of it.
    pub meta: Meta,
    /// The whole frame; its MAC addresses mean nothing there.
    pub frame: Vec<u8>,
}

/// Packets that may wait to be passed to other networks; more are dropped.
pub(crate) const MAX_CROSSING: usize = 1024;

/// A network's own side, as its uplink sees it.
pub(crate) struct Inside<'a, P> {
    pub(crate) gateway: &'a mut Gateway,
    pub(crate) switch: &'a mut Switch,
    pub(crate) ports: &'a mut P,
    pub(crate) targets: &'a mut Vec<PortId>,
    pub(crate) now: Instant,
}

impl<P: Ports> Inside<'_, P> {
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn ports(&mut self) -> &mut P {
        self.ports
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateway
    }

    /// The gateway, and the LAN that it sends to.
    pub(crate) fn parts(&mut self) -> (&mut Gateway, Lan<'_, P>) {
        let lan = Lan { switch: self.switch, ports: self.ports, targets: self.targets, now: self.now };
        (self.gateway, lan)
    }
}

impl<H: Host> Network<H> {
    /// The device of the packet uplink is there. Its MAC address is ours; `peer` is the other end's on a link without
    /// addresses, as a TUN device is one; `mtu` is the device's.
    pub fn uplink_up(&mut self, mac: Mac, peer: Option<Mac>, mtu: u16, now: Instant) {
        if let Some(packet) = &mut self.packet {
            packet.up(mac, peer, mtu, now);
            self.forwarder.set_uplink(Some(mac));
        }
    }

    /// The device of the packet uplink has gone.
    pub fn uplink_down(&mut self, now: Instant) {
        if let Some(packet) = &mut self.packet {
            packet.down(now);
            self.forwarder.set_uplink(None);
        }
    }

    /// Before the end: gives back what the uplink was lent.
    pub fn release(&mut self, ports: &mut impl Ports) {
        if let Some(packet) = &mut self.packet {
            packet.release(ports);
        }
    }

    /// Takes one frame that the uplink's device brought, all the way.
    pub fn uplink_rx(
        &mut self,
        meta: Meta,
        bytes: &mut [u8],
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
    ) -> Verdict {
        arrived(PortId::UPLINK, meta, bytes, journey);
        let verdict = match self.forwarder.from_uplink(meta, bytes, now, journey, ports) {
            Some(passed) => passed,
            None => {
                let Some(packet) = &mut self.packet else { return Verdict::Drop(DropReason::UplinkDown) };
                let (switch, targets) = (&mut self.forwarder.switch, &mut self.lan_targets);
                let mut inside = Inside { gateway: &mut self.gateway, switch, ports, targets, now };
                packet.rx(meta, bytes, &mut inside, journey)
            }
        };
        let verdict = verdict.unwrap_or_else(|reason| {
            self.uplink_dropped(reason);
            ports.lost(PortId::GATEWAY, reason, &meta, bytes);
            Verdict::Drop(reason)
        });
        concluded(verdict, journey);
        verdict
    }

    /// Counts a drop of what came from, or should have left by, the packet uplink.
    pub fn uplink_dropped(&mut self, reason: DropReason) {
        if let Some(packet) = &mut self.packet {
            packet.count_drop(reason);
        }
    }

    /// Packets for other networks, in the order they came. Nothing is left here.
    pub fn take_crossing(&mut self) -> Vec<Crossing> {
        std::mem::take(&mut self.crossing)
    }

    /// Takes a packet that another network passes on.
    pub fn cross(&mut self, crossing: &mut Crossing, now: Instant, ports: &mut impl Ports) {
        let mut lan = Lan { switch: &mut self.forwarder.switch, ports, targets: &mut self.lan_targets, now };
        let sent = Frame::parse(crossing.meta, &mut crossing.frame[..]).and_then(|mut frame| {
            let hop = match frame.dst_ip() {
                Some(IpAddr::V4(dst)) => self.gateway.next_hop(dst),
                _ => None,
            };
            self.gateway.send_cut(&mut frame, hop.ok_or(DropReason::NoRoute)?, now, &mut Unheard, &mut lan)
        });
        if let Err(reason) = sent {
            self.forwarder.dropped(PortId::GATEWAY, reason);
            ports.lost(PortId::GATEWAY, reason, &crossing.meta, &crossing.frame);
        }
    }

    /// What happened to the packet uplink since this was asked last.
    pub fn take_uplink_news(&mut self) -> Vec<UplinkNews> {
        self.packet.as_mut().map(|packet| packet.take_news()).unwrap_or_default()
    }

    /// The sessions of the packet uplink; none if the uplink is of another kind.
    pub fn conntrack(&self) -> Option<&Arc<Conntrack>> {
        self.packet.as_ref().map(|packet| packet.conntrack())
    }

    /// What is known of the packet uplink.
    pub fn packet(&self) -> Option<PacketView> {
        self.packet.as_ref().map(|packet| packet.view())
    }

    /// Joins the switch to a LAN by this port: see [`Forwarder::join_lan`](crate::Forwarder::join_lan).
    pub fn join_lan(&mut self, port: PortId) {
        self.forwarder.join_lan(port);
    }

    /// The port by which a LAN was joined has gone.
    pub fn leave_lan(&mut self, port: PortId) {
        self.forwarder.switch.remove_port(port);
    }
}
