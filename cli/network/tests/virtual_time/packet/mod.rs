//! A network with a packet uplink: containers of raw frames on one side, a LAN with a router on the other.
//!
//! ```text
//! A 10.0.0.2, B 10.0.0.3 -- 10.0.0.1 Network 192.0.2.10 -- 192.0.2.1 router -- 198.51.100.0/24
//! ```
//!
//! Nothing moves by itself: a test sends a frame, looks at what came out, and lets time pass. Each frame that comes out is
//! held against etherparse and the MTU of its side. What is expected on the other side is built as what was sent is, only
//! with other addresses, so a byte that changes and should not is seen.

mod dhcp;
mod errors;
mod first;
mod fragments;
mod frames;
mod lanes;
mod links;
mod rules;
mod transport;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tapswitch_conntrack::{self as conntrack, PortChoice};
use tapswitch_network::{Addressing, Config, Network, PacketUplink, Ports, Uplink};
use tapswitch_relay::Policy;
use tapswitch_wire::{DropReason, Instant, Journey, Mac, Meta, PortId, Unheard, Verdict, render};

use crate::outside::Outside;
use crate::trace::check_frame;
pub use frames::coming;
use frames::{is_at, who_has};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// Our address on the uplink's LAN, its router, and hosts behind that.
pub const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
pub const PORT_A: PortId = PortId(1);
pub const PORT_B: PortId = PortId(2);
/// The uplink's MAC address.
pub const UPLINK_MAC: Mac = Mac([2, 9, 9, 9, 9, 9]);

pub fn mac(ip: Ipv4Addr) -> Mac {
    if ip == OURS { UPLINK_MAC } else { Mac::from_ipv4(ip) }
}

/// What is to be different.
#[derive(Clone)]
pub struct Told {
    pub network: Config,
    pub packet: PacketUplink,
    /// The MTU of the uplink's device.
    pub mtu: u16,
}

impl Default for Told {
    fn default() -> Told {
        let subnet = "10.0.0.0/24".parse().expect("a subnet");
        let network = Config {
            subnet,
            gateway: GATEWAY,
            mtu: 1500,
            isolate: false,
            lease_time: Duration::from_secs(3600),
            dns: vec![ROUTER],
            search: Vec::new(),
            bridged: false,
            routes: Vec::new(),
            peers: Vec::new(),
        };
        let packet = PacketUplink {
            addressing: Addressing::Static {
                address: "192.0.2.10/24".parse().expect("an address"),
                router: Some(ROUTER),
            },
            mtu: None,
            routes: Vec::new(),
            policy: Policy { gateway: IpAddr::V4(GATEWAY), resolver: None, allow: Vec::new(), deny: Vec::new() },
            // So that a test knows the outside port.
            nat: conntrack::Config { ports: PortChoice::Preserve, ..conntrack::Config::new(subnet) },
        };
        Told { network, packet, mtu: 1500 }
    }
}

pub type Sent = (Meta, Vec<u8>);

/// Both sides' wires.
#[derive(Default)]
pub struct Wires {
    pub inside: Vec<(PortId, Meta, Vec<u8>)>,
    pub outside: Vec<Sent>,
    inside_mtu: usize,
    outside_mtu: usize,
    /// Whether what comes out is not looked at, because what went in is wrong on purpose.
    pub unchecked: bool,
}

impl Ports for Wires {
    fn tx(&mut self, port: PortId, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        if !self.unchecked {
            check_frame(meta, frame, self.inside_mtu);
        }
        self.inside.push((port, *meta, frame.to_vec()));
        Ok(())
    }

    fn tx_uplink(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        if !self.unchecked {
            check_frame(meta, frame, self.outside_mtu);
        }
        self.outside.push((*meta, frame.to_vec()));
        Ok(())
    }
}

pub struct House {
    pub network: Network<Outside>,
    pub wires: Wires,
    pub now: Instant,
}

impl House {
    /// One that knows nobody yet.
    pub fn new(change: impl FnOnce(&mut Told)) -> House {
        let mut told = Told::default();
        change(&mut told);
        let Told { network, packet, mtu } = told;
        let now = Instant::from_secs(1_000);
        let wires = Wires {
            inside_mtu: usize::from(network.mtu),
            outside_mtu: usize::from(packet.mtu.unwrap_or(mtu)),
            ..Wires::default()
        };
        let uplink = Uplink::Packet(Box::new(packet));
        let mut network = Network::new(network, Some(uplink), 7, now, 1_700_000_000);
        network.add_port(PORT_A);
        network.add_port(PORT_B);
        network.uplink_up(UPLINK_MAC, None, mtu, now);
        let mut house = House { network, wires, now };
        // The address is announced.
        house.pass(Duration::from_secs(5));
        house.wires.outside.clear();
        house
    }

    /// One that everybody near has just spoken with.
    pub fn met(change: impl FnOnce(&mut Told)) -> House {
        let mut house = House::new(change);
        house.meet();
        house
    }

    pub fn meet(&mut self) {
        self.send(PORT_A, &who_has(GATEWAY, A));
        self.send(PORT_B, &who_has(GATEWAY, B));
        self.arrive(&who_has(OURS, ROUTER));
        self.wires.inside.clear();
        self.wires.outside.clear();
    }

    /// A container sends.
    pub fn send(&mut self, port: PortId, frame: &[u8]) -> Verdict {
        self.send_meta(port, Meta::PLAIN, frame)
    }

    pub fn send_meta(&mut self, port: PortId, meta: Meta, frame: &[u8]) -> Verdict {
        self.send_told(port, meta, frame, &mut Unheard)
    }

    pub fn send_told(&mut self, port: PortId, meta: Meta, frame: &[u8], journey: &mut impl Journey) -> Verdict {
        let mut bytes = frame.to_vec();
        self.network.rx(port, meta, &mut bytes, self.now, journey, &mut self.wires, &mut |_| {})
    }

    /// Somebody outside sends.
    pub fn arrive(&mut self, frame: &[u8]) -> Verdict {
        self.arrive_meta(Meta::PLAIN, frame)
    }

    pub fn arrive_meta(&mut self, meta: Meta, frame: &[u8]) -> Verdict {
        self.arrive_told(meta, frame, &mut Unheard)
    }

    pub fn arrive_told(&mut self, meta: Meta, frame: &[u8], journey: &mut impl Journey) -> Verdict {
        self.network.uplink_rx(meta, &mut frame.to_vec(), self.now, journey, &mut self.wires)
    }

    /// Lets time pass, polling whenever the network asks for it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.network.deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.network.poll(self.now, &mut self.wires, &mut |_| {});
            assert!(self.network.deadline().is_none_or(|at| at > self.now), "a deadline stays over");
        }
        self.now = end;
    }

    /// The packets that came out inside since this was last asked; ARP is left out.
    pub fn take_inside(&mut self) -> Vec<(PortId, Meta, Vec<u8>)> {
        std::mem::take(&mut self.wires.inside).into_iter().filter(|(_, _, frame)| frame[12..14] == [8, 0]).collect()
    }

    pub fn take_outside(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.wires.outside).into_iter().filter(|(_, frame)| frame[12..14] == [8, 0]).collect()
    }

    /// The one packet that came out inside, without its metadata.
    #[track_caller]
    pub fn one_inside(&mut self) -> (PortId, Vec<u8>) {
        let mut all = self.take_inside();
        let lines: Vec<_> = all.iter().map(|(port, meta, frame)| format!("{port}: {}", render(meta, frame))).collect();
        assert_eq!(all.len(), 1, "{lines:#?}");
        let (port, _, frame) = all.remove(0);
        (port, frame)
    }

    #[track_caller]
    pub fn one_outside(&mut self) -> Vec<u8> {
        let mut all = self.take_outside();
        let lines: Vec<_> = all.iter().map(|(meta, frame)| render(meta, frame)).collect();
        assert_eq!(all.len(), 1, "{lines:#?}");
        all.remove(0).1
    }

    #[track_caller]
    pub fn nothing_came(&mut self) {
        let outside: Vec<_> = self.take_outside().iter().map(|(meta, frame)| render(meta, frame)).collect();
        let inside: Vec<_> = self.take_inside().iter().map(|(_, meta, frame)| render(meta, frame)).collect();
        assert_eq!((outside, inside), (Vec::new(), Vec::new()));
    }

    pub fn sessions(&self) -> usize {
        self.network.flow_count()
    }

    /// Whatever was noted of next hops is forgotten, so the next packet takes the slow way.
    pub fn forget_hops(&mut self) {
        let conntrack = self.network.conntrack().expect("a packet uplink");
        for ip in [A, B, ROUTER] {
            conntrack.forget_hop(conntrack::Realm::Inside, ip);
            conntrack.forget_hop(conntrack::Realm::Outside, ip);
        }
    }

    /// The router says again where it is.
    pub fn router_answers(&mut self) {
        self.arrive(&is_at(ROUTER, OURS));
    }
}

pub fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
