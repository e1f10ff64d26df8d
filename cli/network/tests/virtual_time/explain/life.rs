//! Random lives of a network: what containers send, what comes, and the time between.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use tapswitch_conntrack::{self as conntrack, Dependence, PortChoice};
use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{Mac, Meta, PortId, checksum};

use crate::outside::{OWN, SERVER, SILENT};
use crate::packet::{A, B, FAR, GATEWAY, OTHER, OURS, PORT_A, PORT_B, mac};

/// What happens next in a random life.
#[derive(Clone, Debug)]
pub enum Event {
    /// A container sends.
    Frame(Random),
    /// A frame from outside comes, if there is one by packets: to this port, from this one.
    Arrives(u16, u16, bool),
    /// So many seconds pass.
    Pass(u64),
}

#[derive(Clone, Debug)]
pub struct Random {
    pub port: PortId,
    pub src_mac: Mac,
    pub dst_mac: Mac,
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub kind: u8,
    pub ports: (u16, u16),
    pub ttl: u8,
    pub may_fragment: bool,
    /// Fragment offset in units of eight bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
    pub len: usize,
    pub flags: u8,
}

impl Random {
    pub fn frame(&self) -> (Meta, Vec<u8>) {
        let link = Link { src: self.src_mac, dst: self.dst_mac };
        let ip = Ip { src: self.src.into(), dst: self.dst.into(), ttl: self.ttl, tos: 0, id: 77 };
        let payload = vec![7; self.len];
        let (sport, dport) = self.ports;
        let mut out = Vec::new();
        let mut meta = Meta::PLAIN;
        match self.kind {
            0 => {
                let who = Arp { operation: 1, sha: self.src_mac, spa: self.src, tha: Mac::default(), tpa: self.dst };
                build::arp(&mut out, link, who);
                return (meta, out);
            }
            1 | 2 => {
                let tcp = Tcp {
                    src_port: sport,
                    dst_port: dport,
                    seq: 1_000,
                    ack: 0,
                    flags: self.flags,
                    window: 500,
                    options: &[],
                };
                meta = build::tcp(&mut out, link, ip, tcp, payload.len());
                out.extend(payload);
            }
            3 => build::icmp(&mut out, link, ip, 8, 0, [0, sport as u8, 0, 1], &payload),
            // An error about a packet that may be of a session.
            4 => {
                let mut quoted = Vec::new();
                let back = Ip { src: self.dst.into(), dst: self.src.into(), ..ip };
                build::udp(&mut quoted, link, back, dport, sport, &[]);
                build::icmp(&mut out, link, ip, 3, 3, [0; 4], &quoted[14..]);
            }
            5 => build::udp(&mut out, link, ip, 68, 67, &payload),
            _ => build::udp(&mut out, link, ip, sport, dport, &payload),
        }
        if self.may_fragment {
            let (offset, more) = self.fragment.unwrap_or_default();
            let field = offset | if more { 0x2000 } else { 0 };
            out[20..22].copy_from_slice(&field.to_be_bytes());
            out[24..26].copy_from_slice(&[0, 0]);
            let check = checksum::checksum(0, &out[14..34]);
            out[24..26].copy_from_slice(&check.to_be_bytes());
        }
        (meta, out)
    }
}

pub fn random(destinations: &'static [Ipv4Addr]) -> impl Strategy<Value = Random> {
    let stations = vec![mac(A), mac(A), mac(B), mac(GATEWAY), Mac([2, 5, 5, 5, 5, 5])];
    let to = vec![mac(GATEWAY), mac(GATEWAY), mac(GATEWAY), mac(A), mac(B), Mac::BROADCAST, Mac([2, 6, 6, 6, 6, 6])];
    let link = (prop_oneof![Just(PORT_A), Just(PORT_B)], prop::sample::select(stations), prop::sample::select(to));
    let src = prop::sample::select(vec![A, A, A, B, Ipv4Addr::new(10, 9, 9, 9), Ipv4Addr::UNSPECIFIED]);
    let ends = (src, prop::sample::select(destinations));
    let ports = (prop::sample::select(vec![40_000, 40_001, 40_003]), prop::sample::select(vec![7, 53, 80, 9_000]));
    let fragment = prop::option::weighted(0.3, (prop::sample::select(vec![0, 1, 2, 100]), any::<bool>()));
    let ttl = prop::sample::select(vec![64, 64, 64, 2, 1]);
    let len = prop::sample::select(vec![0, 8, 100, 1_372, 1_460, 1_500]);
    let flags = prop::sample::select(vec![2, 2, 2, 16, 17, 4, 18]);
    (link, ends, 0u8..9, ports, (ttl, any::<bool>(), fragment, len, flags)).prop_map(
        |((port, src_mac, dst_mac), (src, dst), kind, ports, (ttl, may_fragment, fragment, len, flags))| Random {
            port,
            src_mac: if src == A && port == PORT_A { mac(A) } else { src_mac },
            dst_mac,
            src,
            dst,
            kind,
            ports,
            ttl,
            may_fragment,
            fragment,
            len,
            flags,
        },
    )
}

pub fn life(destinations: &'static [Ipv4Addr]) -> impl Strategy<Value = Vec<Event>> {
    let ports = (prop::sample::select(vec![40_000, 40_001, 40_003, 8_080]), prop::sample::select(vec![7, 80, 9_000]));
    let event = prop_oneof![
        12 => random(destinations).prop_map(Event::Frame),
        2 => (ports, any::<bool>()).prop_map(|((to, from), tcp)| Event::Arrives(to, from, tcp)),
        1 => prop::sample::select(vec![0, 1, 5, 70, 130, 400, 8_000]).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..40)
}

/// How a packet uplink is told to be.
pub fn told() -> impl Strategy<Value = (conntrack::Config, bool, bool)> {
    let dependence = || prop::sample::select(Dependence::ALL.to_vec());
    let limits = prop::sample::select(vec![
        conntrack::Limits::default(),
        conntrack::Limits { sessions: 3, ..conntrack::Limits::default() },
        conntrack::Limits { owner_sessions: 2, ..conntrack::Limits::default() },
        conntrack::Limits { owner_ports: 1, ..conntrack::Limits::default() },
        conntrack::Limits { owner_rate: 2, ..conntrack::Limits::default() },
    ]);
    let choice = prop::sample::select(PortChoice::ALL.to_vec());
    let range = prop::sample::select(vec![1_024..=65_535, 40_000..=40_001]);
    (dependence(), dependence(), limits, choice, range, any::<[bool; 4]>()).prop_map(
        |(mapping, filtering, limits, ports, port_range, [hairpin, isolate, publish, translate])| {
            let subnet = "10.0.0.0/24".parse().expect("a subnet");
            let config = conntrack::Config {
                mapping,
                filtering,
                limits,
                ports,
                port_range,
                hairpin,
                translate: translate || publish,
                ..conntrack::Config::new(subnet)
            };
            (config, isolate, publish)
        },
    )
}

pub const AROUND: &[Ipv4Addr] = &[
    GATEWAY,
    A,
    B,
    OURS,
    FAR,
    FAR,
    FAR,
    OTHER,
    OTHER,
    Ipv4Addr::new(10, 0, 0, 99),
    Ipv4Addr::new(10, 0, 0, 255),
    Ipv4Addr::new(224, 0, 0, 251),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::LOCALHOST,
];

pub const OUTSIDE: &[Ipv4Addr] =
    &[GATEWAY, GATEWAY, A, B, SERVER, SERVER, SERVER, SILENT, OWN, Ipv4Addr::new(169, 254, 169, 254)];

/// A container opens a connection.
pub fn syn(src: Ipv4Addr, dst: Ipv4Addr, dport: u16) -> Random {
    Random {
        port: PORT_A,
        src_mac: mac(A),
        dst_mac: mac(GATEWAY),
        src,
        dst,
        kind: 1,
        ports: (40_000, dport),
        ttl: 64,
        may_fragment: false,
        fragment: None,
        len: 0,
        flags: 2,
    }
}
