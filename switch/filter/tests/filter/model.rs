//! The obvious filter: a tree of questions about the description of a frame, answered by a function that calls itself.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;
use tapswitch_filter::Outcome;
use tapswitch_wire::{DropReason, Mac, PortId, Verdict};

use crate::frames::{Body, Packet, Sample, ip, mac};

/// Names of containers, and the port of each.
pub const CONTAINERS: &[(&str, u32)] = &[("web", 1), ("db", 2), ("and", 3), ("host", 4)];

/// An expression.
#[derive(Clone, Debug)]
pub enum Expr {
    Ask(Question),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
}

/// What a direction asks: about the source, about the destination, and whether both must hold.
pub type Way = (bool, bool, bool);

#[derive(Clone, Debug)]
pub enum Question {
    Net(&'static str, Way, IpAddr, u8),
    Port(&'static str, Way, u16, u16),
    Mac(Way, Mac),
    EtherType(u16),
    Protocol(&'static str, u8),
    /// Without a value: these words, exactly.
    Plain(&'static str),
    Vlan(u16),
    Less(u32),
    Greater(u32),
    Container(Way, &'static str),
    Reason(DropReason),
    Flow(u64),
}

/// A frame with all that is known about it at the end.
#[derive(Clone, Debug)]
pub struct Case {
    pub sample: Sample,
    pub port: PortId,
    pub verdict: Verdict,
    pub flow: Option<u64>,
    pub out: Vec<PortId>,
}

impl Case {
    pub fn outcome(&self) -> Outcome<'_> {
        Outcome { verdict: self.verdict, flow: self.flow, out: &self.out }
    }
}

pub fn port_of(name: &str) -> Option<Vec<PortId>> {
    CONTAINERS.iter().find(|(known, _)| *known == name).map(|(_, port)| vec![PortId(*port)])
}

fn either((src, dst, both): Way, at_src: bool, at_dst: bool) -> bool {
    if both { at_src && at_dst } else { src && at_src || dst && at_dst }
}

impl Expr {
    /// Whether the frame is wanted.
    pub fn wants(&self, case: &Case) -> bool {
        match self {
            Expr::Ask(question) => question.holds(case),
            Expr::Not(inner) => !inner.wants(case),
            Expr::And(a, b) => a.wants(case) && b.wants(case),
            Expr::Or(a, b) => a.wants(case) || b.wants(case),
        }
    }

    /// Whether anything in it is known at the end only.
    pub fn needs_outcome(&self) -> bool {
        match self {
            Expr::Ask(Question::Container(way, _)) => *way != (true, false, false),
            Expr::Ask(Question::Plain(word)) => *word == "drop",
            Expr::Ask(question) => matches!(question, Question::Reason(_) | Question::Flow(_)),
            Expr::Not(inner) => inner.needs_outcome(),
            Expr::And(a, b) | Expr::Or(a, b) => a.needs_outcome() || b.needs_outcome(),
        }
    }

    /// The expression as somebody might type it. `style` decides wherever there is a choice.
    pub fn text(&self, style: &mut impl Iterator<Item = bool>) -> String {
        self.write(&mut None, style)
    }

    /// `head` is what a bare value would take.
    fn write(&self, head: &mut Option<String>, style: &mut impl Iterator<Item = bool>) -> String {
        let mut coin = || style.next().unwrap_or(false);
        if coin() && coin() && coin() {
            return format!("({})", self.write(&mut head.clone(), style));
        }
        match self {
            Expr::Ask(question) => {
                let (own, value) = question.words();
                let Some(value) = value else {
                    *head = None;
                    return own;
                };
                if head.as_ref() == Some(&own) && coin() {
                    return value;
                }
                let shown = if coin() { Question::other_words(&own) } else { own.clone() };
                // These pass nothing on.
                *head = if matches!(own.as_str(), "vlan" | "less" | "greater") { None } else { Some(own) };
                match head.is_some() && coin() {
                    true => format!("{shown} ({value})"),
                    false => format!("{shown} {value}"),
                }
            }
            Expr::Not(inner) => {
                let not = if coin() { "!" } else { "not " };
                match **inner {
                    Expr::And(..) | Expr::Or(..) => format!("{not}({})", inner.write(&mut head.clone(), style)),
                    _ => format!("{not}{}", inner.write(head, style)),
                }
            }
            Expr::And(a, b) | Expr::Or(a, b) => {
                let left = a.write(head, style);
                let word = match (self, style.next()) {
                    (Expr::And(..), Some(true)) => "&&",
                    (Expr::And(..), _) => " and ",
                    (_, Some(true)) => "||",
                    _ => " or ",
                };
                let right = match **b {
                    Expr::And(..) | Expr::Or(..) => format!("({})", b.write(&mut head.clone(), style)),
                    _ => b.write(head, style),
                };
                format!("{left}{word}{right}")
            }
        }
    }
}

impl Question {
    fn holds(&self, case: &Case) -> bool {
        let sample = &case.sample;
        let packet = match &sample.body {
            Body::Ip(packet) => Some(packet),
            _ => None,
        };
        let ports = packet.filter(|packet| {
            matches!(packet.protocol, 6 | 17 | 132) && packet.fragment.is_none_or(|(offset, _)| offset == 0)
        });
        match *self {
            Question::Net(layer, way, net, len) => match &sample.body {
                Body::Arp { sender, target } if matches!(layer, "" | "arp ") => {
                    either(way, within((*sender).into(), net, len), within((*target).into(), net, len))
                }
                Body::Ip(packet) if layer != "arp " => {
                    either(way, within(packet.src, net, len), within(packet.dst, net, len))
                }
                _ => false,
            },
            Question::Port(name, way, first, last) => ports.is_some_and(|packet| {
                let number = match name {
                    "tcp " => 6,
                    "udp " => 17,
                    "sctp " => 132,
                    _ => packet.protocol,
                };
                let [src, dst] = packet.ports.map(|port| first <= port && port <= last);
                number == packet.protocol && either(way, src, dst)
            }),
            Question::Mac(way, mac) => either(way, sample.src == mac, sample.dst == mac),
            Question::EtherType(kind) => {
                sample.ethertype() == kind || sample.tags.first().is_some_and(|(tag, _)| *tag == kind)
            }
            Question::Protocol(family, number) => packet.is_some_and(|packet| {
                let first_extension = match (packet.options > 0, packet.fragment.is_some()) {
                    _ if packet.src.is_ipv4() => false,
                    (true, _) => number == 60,
                    (false, fragment) => fragment && number == 44,
                };
                let families = match family {
                    "ip " => packet.src.is_ipv4(),
                    "ip6 " => packet.src.is_ipv6(),
                    _ => true,
                };
                families && (packet.protocol == number || first_extension)
            }),
            Question::Plain(word) => match word {
                "ip" => sample.ethertype() == 0x0800,
                "ip6" => sample.ethertype() == 0x86dd,
                "arp" => sample.ethertype() == 0x0806,
                "tcp" => packet.is_some_and(|packet| packet.protocol == 6),
                "udp" => packet.is_some_and(|packet| packet.protocol == 17),
                "icmp" => packet.is_some_and(|packet| packet.protocol == 1 && packet.src.is_ipv4()),
                "icmp6" => packet.is_some_and(|packet| packet.protocol == 58 && packet.src.is_ipv6()),
                "broadcast" => sample.dst == Mac::BROADCAST,
                "ether multicast" => sample.dst.is_multicast(),
                "ip multicast" => packet.is_some_and(|packet| within(packet.dst, ip("224.0.0.0"), 3)),
                "ip6 multicast" => packet.is_some_and(|packet| within(packet.dst, ip("ff00::"), 8)),
                "ip broadcast" => {
                    packet.is_some_and(|packet| packet.dst == ip("255.255.255.255") || packet.dst == ip("0.0.0.0"))
                }
                "vlan" => !sample.tags.is_empty(),
                "drop" => matches!(case.verdict, Verdict::Drop(_)),
                other => panic!("{other} is unknown to the model"),
            },
            Question::Vlan(vid) => sample.tags.first().is_some_and(|(_, tci)| tci & 0x0fff == vid),
            Question::Less(len) => sample.bytes().len() as u32 <= len,
            Question::Greater(len) => sample.bytes().len() as u32 >= len,
            Question::Container(way, name) => {
                let port = port_of(name).unwrap()[0];
                either(way, case.port == port, case.out.contains(&port))
            }
            Question::Reason(reason) => case.verdict == Verdict::Drop(reason),
            Question::Flow(id) => case.flow == Some(id),
        }
    }

    /// Qualifiers and value.
    fn words(&self) -> (String, Option<String>) {
        let way = |way: &Way| match way {
            (_, _, true) => "src and dst ",
            (true, true, false) => "",
            (true, false, false) => "src ",
            _ => "dst ",
        };
        match self {
            Question::Net(layer, dir, net, len) => (format!("{layer}{}net", way(dir)), Some(format!("{net}/{len}"))),
            Question::Port(name, dir, first, last) => {
                (format!("{name}{}portrange", way(dir)), Some(format!("{first}-{last}")))
            }
            Question::Mac(dir, mac) => (format!("ether {}host", way(dir)), Some(mac.to_string())),
            Question::EtherType(kind) => ("ether proto".into(), Some(format!("{kind:#x}"))),
            Question::Protocol(family, number) => (format!("{family}proto"), Some(number.to_string())),
            Question::Plain(word) => ((*word).into(), None),
            Question::Vlan(vid) => ("vlan".into(), Some(vid.to_string())),
            Question::Less(len) => ("less".into(), Some(len.to_string())),
            Question::Greater(len) => ("greater".into(), Some(len.to_string())),
            Question::Container(dir, name) => (format!("{}container", way(dir)), Some(format!("\\{name}"))),
            Question::Reason(reason) => ("reason".into(), Some(reason.name().into())),
            Question::Flow(id) => ("flow".into(), Some(id.to_string())),
        }
    }

    /// The same qualifiers in other words.
    fn other_words(head: &str) -> String {
        match head {
            "net" => "dst or src net".into(),
            "portrange" => "src or dst portrange".into(),
            "container" => "src or dst container".into(),
            "ether src host" => "ether src".into(),
            "src and dst container" => "dst and src container".into(),
            _ => format!(" {head}\t"),
        }
    }
}

fn within(address: IpAddr, net: IpAddr, len: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect(),
        IpAddr::V6(ip) => {
            ip.octets().iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect::<Vec<u8>>()
        }
    };
    let len = usize::from(len);
    address.is_ipv4() == net.is_ipv4() && bits(address)[..len] == bits(net)[..len]
}

fn way() -> impl Strategy<Value = Way> {
    select(vec![(true, true, false), (true, false, false), (false, true, false), (true, true, true)])
}

fn net4() -> impl Strategy<Value = (IpAddr, u8)> {
    let nets =
        [("10.0.0.1", 32), ("10.0.0.2", 32), ("10.0.0.0", 30), ("10.0.0.0", 8), ("0.0.0.0", 0), ("224.0.0.0", 4)];
    select(nets.map(|(net, len)| (ip(net), len)).to_vec())
}

fn net6() -> impl Strategy<Value = (IpAddr, u8)> {
    let nets = [("fd00::1", 128), ("fd00::2", 128), ("fd00::", 8), ("::", 0), ("ff02::1", 128), ("fd00::", 127)];
    select(nets.map(|(net, len)| (ip(net), len)).to_vec())
}

fn port() -> impl Strategy<Value = u16> {
    select(vec![0, 22, 80, 443, 40_000, 65_535])
}

fn reason() -> impl Strategy<Value = DropReason> {
    select(vec![DropReason::TxFull, DropReason::TtlExceeded, DropReason::ArpNotForUs])
}

fn question() -> impl Strategy<Value = Question> {
    let plain = vec![
        "ip",
        "ip6",
        "arp",
        "tcp",
        "udp",
        "icmp",
        "icmp6",
        "broadcast",
        "ether multicast",
        "ip multicast",
        "ip6 multicast",
        "ip broadcast",
        "vlan",
        "drop",
    ];
    let name = || select(CONTAINERS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    prop_oneof![
        3 => (select(vec!["", "ip ", "arp "]), way(), net4()).prop_map(|(l, way, (net, len))| Question::Net(l, way, net, len)),
        2 => (select(vec!["", "ip6 "]), way(), net6()).prop_map(|(l, way, (net, len))| Question::Net(l, way, net, len)),
        4 => (select(vec!["", "tcp ", "udp ", "sctp "]), way(), port(), port())
            .prop_map(|(name, way, a, b)| Question::Port(name, way, a.min(b), a.max(b))),
        2 => (way(), 1u8..4).prop_map(|(way, last)| Question::Mac(way, mac(last))),
        1 => select(vec![0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x88cc]).prop_map(Question::EtherType),
        2 => (select(vec!["", "ip ", "ip6 "]), select(vec![1u8, 6, 17, 44, 47, 58, 60, 132]))
            .prop_map(|(family, number)| Question::Protocol(family, number)),
        5 => select(plain).prop_map(Question::Plain),
        1 => select(vec![0u16, 5, 7, 4095]).prop_map(Question::Vlan),
        1 => (14u32..150).prop_map(Question::Less),
        1 => (14u32..150).prop_map(Question::Greater),
        4 => (way(), name()).prop_map(|(way, name)| Question::Container(way, name)),
        1 => reason().prop_map(Question::Reason),
        1 => (0u64..3).prop_map(Question::Flow),
    ]
}

/// Any expression of up to about thirty questions.
pub fn expr() -> impl Strategy<Value = Expr> {
    question().prop_map(Expr::Ask).prop_recursive(6, 30, 2, |inner| {
        let two = || (inner.clone().prop_map(Box::new), inner.clone().prop_map(Box::new));
        prop_oneof![
            1 => inner.clone().prop_map(|inner| Expr::Not(Box::new(inner))),
            2 => two().prop_map(|(a, b)| Expr::And(a, b)),
            2 => two().prop_map(|(a, b)| Expr::Or(a, b)),
        ]
    })
}

fn address(six: bool) -> impl Strategy<Value = IpAddr> {
    let four =
        ["10.0.0.1", "10.0.0.2", "10.0.0.5", "10.9.0.1", "192.168.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"];
    let sixes = ["fd00::1", "fd00::2", "fe80::1", "ff02::1", "::", "2001:db8::1", "ff02::2", "::1"];
    select(if six { sixes } else { four }.map(ip).to_vec())
}

fn packet() -> impl Strategy<Value = Packet> {
    let pair = any::<bool>().prop_flat_map(|six| (address(six), address(six)));
    let fragment = prop_oneof![4 => Just(None), 1 => Just(Some((0, true))), 1 => Just(Some((3, true)))];
    // Each family has its own ICMP; the other one's number is just some protocol.
    let protocol = select(vec![1u8, 6, 6, 17, 17, 47, 58, 132]);
    (pair, protocol, [port(), port()], fragment, 0u8..3, 0usize..60).prop_map(
        |((src, dst), protocol, ports, fragment, options, payload)| Packet {
            src,
            dst,
            protocol,
            ports,
            fragment,
            options,
            payload,
        },
    )
}

fn sample() -> impl Strategy<Value = Sample> {
    let arp = (address(false), address(false)).prop_filter_map("IPv4", |pair| match pair {
        (IpAddr::V4(sender), IpAddr::V4(target)) => Some(Body::Arp { sender, target }),
        _ => None,
    });
    let body = prop_oneof![6 => packet().prop_map(Body::Ip), 1 => arp, 1 => Just(Body::Other(0x88cc))];
    let station =
        || prop_oneof![4 => (1u8..4).prop_map(mac), 1 => Just(Mac::BROADCAST), 1 => Just(Mac([1, 0, 0x5e, 0, 0, 1]))];
    let vid = || select(vec![0u16, 5, 7, 4095]);
    let tags = prop_oneof![
        4 => Just(Vec::new()),
        1 => vid().prop_map(|vid| vec![(0x8100, vid | 0x4000)]),
        1 => [vid(), vid()].prop_map(|[outer, inner]| vec![(0x88a8, outer), (0x8100, inner)]),
    ];
    (station(), station(), tags, body, 0usize..4).prop_map(|(src, dst, tags, body, padding)| Sample {
        src,
        dst,
        tags,
        body,
        padding,
    })
}

/// Any frame, with any outcome.
pub fn case() -> impl Strategy<Value = Case> {
    let out = || proptest::collection::vec((0u32..6).prop_map(PortId), 0..4);
    let verdict = prop_oneof![
        2 => reason().prop_map(|reason| (Verdict::Drop(reason), Vec::new())),
        2 => (0u32..6).prop_map(|port| (Verdict::Forward(PortId(port)), vec![PortId(port)])),
        1 => out().prop_map(|out| (Verdict::Flood { ports: out.len() as u32 }, out)),
        1 => Just((Verdict::Reply, Vec::new())),
        1 => Just((Verdict::Relay, Vec::new())),
    ];
    (sample(), (0u32..6).prop_map(PortId), verdict, proptest::option::of(0u64..3))
        .prop_map(|(sample, port, (verdict, out), flow)| Case { sample, port, verdict, flow, out })
}
