//! The part of a network that every poll thread has: its own switch over the shared FDB.

use std::sync::Arc;

use tapswitch_conntrack::{Conntrack, Realm};
use tapswitch_switch::{self as switch, PortConfig, PortCounters, Switch};
use tapswitch_wire::{
    DropCounters, DropReason, Frame, Instant, Journey, L3, L4, Mac, Meta, Parsed, PortId, Stage, Step, Verdict, render,
};

use crate::fast::Fast;
use crate::lan::{Ports, deliver};

/// UDP ports of DHCP servers and clients.
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

/// What became of a frame at the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hop {
    /// It reached its end.
    Ended(Verdict),
    /// The gateway's port gets it, and has not yet: see [`Network::handed`](crate::Network::handed).
    Gateway(Share),
}

/// Who else got a frame that the gateway gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// Nobody: it was sent to the gateway, or flooded and met nobody else.
    Alone,
    /// So many containers, because it was flooded.
    Flooded(u32),
}

/// One poll thread's part of a network: it forwards between containers, and says what is for the gateway.
///
/// Every forwarder of a network knows every port of it. A port that was removed may be added again, under the same
/// number, only after all of them have removed it.
#[derive(Debug)]
pub struct Forwarder {
    pub(crate) switch: Switch,
    port_config: PortConfig,
    pub(crate) targets: Vec<PortId>,
    pub(crate) fast: Option<Fast>,
    /// The port by which the switch is joined to a LAN of others, whose DHCP servers may speak.
    trusted: Option<PortId>,
}

impl Forwarder {
    /// `bridged`: there is no gateway, as where a LAN has its own.
    pub(crate) fn new(mtu: u16, isolated: bool, bridged: bool) -> Forwarder {
        let mut switch = Switch::new(switch::Config::default());
        if !bridged {
            switch.add_port(PortId::GATEWAY, PortConfig { mtu, isolated: false });
        }
        let port_config = PortConfig { mtu, isolated };
        Forwarder { switch, port_config, targets: Vec::new(), fast: None, trusted: None }
    }

    /// One more, for another thread, with the ports that this one has.
    pub(crate) fn another(&self) -> Forwarder {
        let fdb = Arc::clone(self.switch.shared_fdb());
        let mut switch = Switch::with_fdb(switch::Config::default(), fdb);
        if self.switch.counters(PortId::GATEWAY).is_some() {
            switch.add_port(PortId::GATEWAY, PortConfig { isolated: false, ..self.port_config });
        }
        for port in self.switch.ports() {
            let isolated = self.port_config.isolated && self.trusted != Some(port);
            switch.add_port(port, PortConfig { isolated, ..self.port_config });
        }
        Forwarder {
            switch,
            port_config: self.port_config,
            targets: Vec::new(),
            fast: self.fast.clone(),
            trusted: self.trusted,
        }
    }

    /// One that knows what this one knows, and changes nothing of it. Established sessions are those of `conntrack`.
    pub(crate) fn copy(&self, conntrack: Option<&Arc<Conntrack>>) -> Forwarder {
        let fast = |fast: &Fast| Some(fast.with(Arc::clone(conntrack?)));
        Forwarder {
            switch: self.switch.copy(),
            port_config: self.port_config,
            targets: Vec::new(),
            fast: self.fast.as_ref().and_then(fast),
            trusted: self.trusted,
        }
    }

    /// Attaches the port by which the switch is joined to a LAN of others. What comes from there is trusted as the LAN's
    /// own, so its DHCP servers may answer, and it is isolated from nobody.
    pub fn join_lan(&mut self, port: PortId) {
        self.trusted = Some(port);
        self.switch.add_port(port, PortConfig { isolated: false, ..self.port_config });
    }

    /// The device of the packet uplink came, with this MAC address, or went.
    pub fn set_uplink(&mut self, mac: Option<Mac>) {
        if let Some(fast) = &mut self.fast {
            fast.set_outside(mac);
        }
    }

    /// Attaches a container.
    pub fn add_port(&mut self, port: PortId) {
        self.switch.add_port(port, self.port_config);
    }

    /// Detaches a container, and forgets the stations behind its port.
    pub fn remove_port(&mut self, port: PortId) {
        self.switch.remove_port(port);
    }

    /// What this thread counted for a port; `None` if it is not attached.
    pub fn counters(&self, port: PortId) -> Option<&PortCounters> {
        self.switch.counters(port)
    }

    /// What this thread dropped on account of ports that are not attached.
    pub fn stray_drops(&self) -> &DropCounters {
        self.switch.stray_drops()
    }

    /// Counts a drop that happened outside.
    pub fn dropped(&mut self, port: PortId, reason: DropReason) {
        self.switch.dropped(port, reason);
    }

    /// Takes one frame of a container as far as the containers' ports go.
    ///
    /// # Errors
    /// Why it was dropped, which is counted.
    #[inline]
    pub fn rx(
        &mut self,
        port: PortId,
        meta: Meta,
        bytes: &mut [u8],
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
    ) -> Result<Hop, DropReason> {
        arrived(port, meta, bytes, journey);
        let mut frame = match self.parse(port, meta, bytes, journey) {
            Ok(frame) => frame,
            Err(reason) => {
                ports.lost(port, reason, &meta, bytes);
                return Err(reason);
            }
        };
        self.forward(port, &mut frame, now, journey, ports)
    }

    /// Takes a frame that the uplink's device brought, if it is of an established session. `None`: it is as it came, and
    /// the owner's.
    #[inline]
    pub fn from_uplink(
        &mut self,
        meta: Meta,
        bytes: &mut [u8],
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
    ) -> Option<Result<Verdict, DropReason>> {
        let mut frame = Frame::parse(meta, bytes).ok()?;
        self.pass(Realm::Outside, &mut frame, now, journey, ports)
    }

    /// Reads the headers, and refuses what no container may send.
    pub(crate) fn parse<'a>(
        &mut self,
        port: PortId,
        meta: Meta,
        bytes: &'a mut [u8],
        journey: &mut impl Journey,
    ) -> Result<Frame<'a>, DropReason> {
        let parsed = match Frame::parse(meta, bytes) {
            Ok(frame) if self.trusted != Some(port) && is_rogue_dhcp(&frame) => Err(DropReason::DhcpFromClient),
            parsed => parsed,
        };
        match parsed {
            Ok(frame) => {
                journey.note(|| Step::looked_up(Stage::Parse, layout(frame.parsed())));
                Ok(frame)
            }
            Err(reason) => {
                self.switch.dropped(port, reason);
                Err(reason)
            }
        }
    }

    /// Decides, and delivers to the containers among the targets.
    pub(crate) fn forward(
        &mut self,
        port: PortId,
        frame: &mut Frame<'_>,
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
    ) -> Result<Hop, DropReason> {
        if let Err(reason) = self.switch.decide(port, frame, now, journey, &mut self.targets) {
            ports.lost(port, reason, frame.meta(), frame.bytes());
            return Err(reason);
        }
        match self.targets[..] {
            [PortId::GATEWAY] => match self.pass(Realm::Inside, frame, now, journey, ports) {
                None => Ok(Hop::Gateway(Share::Alone)),
                Some(Ok(verdict)) => Ok(Hop::Ended(verdict)),
                Some(Err(reason)) => {
                    self.switch.dropped(port, reason);
                    ports.lost(port, reason, frame.meta(), frame.bytes());
                    Err(reason)
                }
            },
            [to] => {
                deliver(&mut self.switch, ports, to, frame.meta(), frame.bytes())?;
                Ok(Hop::Ended(Verdict::Forward(to)))
            }
            _ => {
                let mut sent = 0;
                let mut gateway = false;
                for to in &self.targets {
                    if *to == PortId::GATEWAY {
                        gateway = true;
                    } else {
                        sent += u32::from(deliver(&mut self.switch, ports, *to, frame.meta(), frame.bytes()).is_ok());
                    }
                }
                Ok(if gateway {
                    Hop::Gateway(Share::Flooded(sent))
                } else {
                    Hop::Ended(Verdict::Flood { ports: sent })
                })
            }
        }
    }
}

/// Tells of a frame's arrival.
pub(crate) fn arrived(port: PortId, meta: Meta, bytes: &[u8], journey: &mut impl Journey) {
    journey.note(|| Step::looked_up(Stage::Port, format!("came in by port {port}: {}", render(&meta, bytes))));
}

/// Where the layers of a frame begin, in words.
fn layout(parsed: &Parsed) -> String {
    let network = match parsed.l3 {
        L3::Arp => "ARP",
        L3::Ipv4 => "IPv4",
        L3::Ipv6 => "IPv6",
        L3::Other => return format!("EtherType {:#06x}, which is only switched", parsed.ethertype),
        L3::Malformed(reason) => return format!("not sound at layer 3: {}", reason.text()),
    };
    let transport = match parsed.l4 {
        L4::Tcp => "TCP",
        L4::Udp => "UDP",
        L4::Icmp => "ICMP",
        L4::Icmpv6 => "ICMPv6",
        L4::Other | L4::None => return format!("{network} at byte {}", parsed.l3_start),
        L4::Malformed => return format!("{network} at byte {}, a broken transport header", parsed.l3_start),
    };
    let (start, payload) = (parsed.l4_start, parsed.payload_start);
    format!("{network} at byte {}, {transport} at byte {start}, its payload at byte {payload}", parsed.l3_start)
}

/// Whether a container answers in place of the address service.
fn is_rogue_dhcp(frame: &Frame<'_>) -> bool {
    frame.parsed().l4 == L4::Udp && frame.src_port() == DHCP_SERVER && frame.dst_port() == DHCP_CLIENT
}

#[cfg(test)]
mod tests {
    use tapswitch_wire::build::{self, Ip, Link, Tcp};
    use tapswitch_wire::{Gso, GsoKind, Mac, Unheard};

    use super::*;

    /// Ports that note where the bytes lie that they are given. One of them is stuck.
    struct Noting {
        stuck: PortId,
        seen: Vec<(PortId, *const u8, usize)>,
    }

    impl Ports for Noting {
        fn tx(&mut self, port: PortId, _meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
            if port == self.stuck {
                return Err(DropReason::TxFull);
            }
            self.seen.push((port, frame.as_ptr(), frame.len()));
            Ok(())
        }
    }

    /// Ports that take everything.
    struct Taking;

    impl Ports for Taking {
        fn tx(&mut self, _port: PortId, _meta: &Meta, _frame: &[u8]) -> Result<(), DropReason> {
            Ok(())
        }
    }

    #[test]
    fn a_frame_on_its_way_through_allocates_nothing() {
        let mut forwarder = Forwarder::new(1500, false, false);
        (1..=6).map(PortId).for_each(|port| forwarder.add_port(port));
        let mut frames = [Mac([0xff; 6]), Mac([2, 0, 0, 0, 0, 99]), Mac([2, 0, 0, 0, 0, 2])].map(super_frame);
        let station = PortId(2);
        let mut answer = super_frame(Mac([2, 0, 0, 0, 0, 1]));
        answer.1[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        let mut pass = |port, (meta, frame): &mut (Meta, Vec<u8>)| {
            forwarder.rx(port, *meta, frame, Instant::ZERO, &mut Unheard, &mut Taking)
        };
        let learned = allocation_counter::measure(|| {
            pass(PortId(1), &mut frames[0]).unwrap();
            pass(station, &mut answer).unwrap();
        });
        assert!(learned.count_total > 0, "learning takes room, or nothing is counted");
        assert_eq!(pass(PortId(1), &mut frames[2]), Ok(Hop::Ended(Verdict::Forward(station))));
        let counted = allocation_counter::measure(|| {
            for _ in 0..1_000 {
                frames.iter_mut().for_each(|frame| assert!(pass(PortId(1), frame).is_ok()));
            }
        });
        assert_eq!(counted.count_total, 0);
    }

    fn super_frame(dst: Mac) -> (Meta, Vec<u8>) {
        let link = Link { src: Mac([2, 0, 0, 0, 0, 1]), dst };
        let ip = Ip { src: [10, 0, 0, 2].into(), dst: [10, 0, 0, 3].into(), ttl: 64, tos: 0, id: 0 };
        let tcp = Tcp { src_port: 1, dst_port: 2, seq: 0, ack: 1, flags: 16, window: 5, options: &[] };
        let mut frame = Vec::new();
        let meta = build::tcp(&mut frame, link, ip, tcp, 60_000);
        frame.resize(frame.len() + 60_000, 7);
        (Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size: 1460, ecn: false }), ..meta }, frame)
    }

    #[test]
    fn a_flooded_super_frame_is_lent_to_every_port_and_a_stuck_port_loses_only_its_own() {
        let mut forwarder = Forwarder::new(1500, false, false);
        let ports: Vec<_> = (1..=6).map(PortId).collect();
        ports.iter().for_each(|port| forwarder.add_port(*port));
        for dst in [Mac([0xff; 6]), Mac([1, 0, 0x5e, 1, 2, 3]), Mac([2, 0, 0, 0, 0, 99])] {
            let (meta, mut frame) = super_frame(dst);
            let mut noting = Noting { stuck: PortId(4), seen: Vec::new() };
            let hop = forwarder.rx(PortId(1), meta, &mut frame, Instant::ZERO, &mut Unheard, &mut noting);
            assert_eq!(hop, Ok(Hop::Gateway(Share::Flooded(4))), "to {dst}");
            // Each was given the very bytes that came in.
            let wanted: Vec<_> = [2, 3, 5, 6].map(|port| (PortId(port), frame.as_ptr(), frame.len())).into();
            assert_eq!(noting.seen, wanted, "to {dst}");
        }
        let drops = |port| forwarder.counters(PortId(port)).unwrap().drops.get(DropReason::TxFull);
        assert_eq!([1, 2, 3, 4, 5, 6].map(drops), [0, 0, 0, 3, 0, 0]);
    }
}
