//! What `explain` says is what then happens, and asking changes nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proptest::prelude::*;
use tapswitch_conntrack::{self as conntrack, Dependence, Forward, PortChoice, Protocol};
use tapswitch_network::{Asked, Config, Explained, Network, Ports, Uplink};
use tapswitch_relay::{Limits, Policy};
use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{DropReason, Instant, Mac, Meta, PortId, Recorded, Verdict, checksum, render};

use crate::outside::{ECHO, OWN, Outside, RESOLVER, SERVER, SILENT};
use crate::packet::{A, B, FAR, GATEWAY, House, OTHER, OURS, PORT_A, PORT_B, ROUTER, mac, seconds};
use crate::trace::Trace;

/// Notes what is sent.
#[derive(Default, PartialEq, Debug)]
struct Noted(Vec<(PortId, Vec<u8>)>);

impl Ports for Noted {
    fn tx(&mut self, port: PortId, _: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        self.0.push((port, frame.to_vec()));
        Ok(())
    }

    fn tx_uplink(&mut self, _: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        self.0.push((PortId::UPLINK, frame.to_vec()));
        Ok(())
    }
}

/// All that is known of a network, in words.
fn state(network: &Network<Outside>, now: Instant) -> String {
    let mut sessions = network.conntrack().map(|conntrack| conntrack.sessions(now)).unwrap_or_default();
    sessions.sort_by_key(|session| session.id);
    let usage = network.conntrack().map(|conntrack| (conntrack.usage(1), conntrack.usage(2), conntrack.helpers()));
    let counters = (network.counters(PORT_A), network.counters(PORT_B), network.counters(PortId::GATEWAY));
    format!(
        "{:?}\n{:?}\n{:?}\n{sessions:?}\n{usage:?}\n{counters:?}\n{:?}\n{:?}\n{:?} {:?} {}",
        network.fdb(now),
        network.neighbours(now),
        network.leases(now),
        network.gateway_drops(),
        network.flows(now),
        network.packet(),
        network.deadline(),
        network.flow_count()
    )
}

fn explained(
    network: &mut Network<Outside>,
    port: PortId,
    meta: Meta,
    frame: &[u8],
    now: Instant,
) -> (Explained, Noted) {
    let mut noted = Noted::default();
    let before = state(network, now);
    let explained = network.explain(port, meta, &mut frame.to_vec(), now, &mut noted);
    assert_eq!(before, state(network, now), "explaining changed something: {}", render(&meta, frame));
    (explained, noted)
}

/// Explains a frame, then sends it, and holds the one against the other.
fn agree(network: &mut Network<Outside>, port: PortId, meta: Meta, frame: &[u8], now: Instant) -> Verdict {
    let (said, would_be_sent) = explained(network, port, meta, frame, now);
    let (mut journey, mut sent) = (Recorded::default(), Noted::default());
    let verdict = network.rx(port, meta, &mut frame.to_vec(), now, &mut journey, &mut sent, &mut |_| {});
    let line = render(&meta, frame);
    assert_eq!((said.verdict, said.steps), (verdict, journey.steps), "{line}");
    if network.conntrack().is_some() {
        assert_eq!(would_be_sent, sent, "{line}");
    }
    assert_eq!(said.crossing, network.take_crossing(), "{line}");
    verdict
}

/// What happens next in a random life.
#[derive(Clone, Debug)]
enum Event {
    /// A container sends.
    Frame(Random),
    /// A frame from outside comes, if there is one by packets: to this port, from this one.
    Arrives(u16, u16, bool),
    /// So many seconds pass.
    Pass(u64),
}

#[derive(Clone, Debug)]
struct Random {
    port: PortId,
    src_mac: Mac,
    dst_mac: Mac,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    kind: u8,
    ports: (u16, u16),
    ttl: u8,
    may_fragment: bool,
    /// Fragment offset in units of eight bytes, and whether more follow.
    fragment: Option<(u16, bool)>,
    len: usize,
    flags: u8,
}

impl Random {
    fn frame(&self) -> (Meta, Vec<u8>) {
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

fn random(destinations: &'static [Ipv4Addr]) -> impl Strategy<Value = Random> {
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

fn life(destinations: &'static [Ipv4Addr]) -> impl Strategy<Value = Vec<Event>> {
    let ports = (prop::sample::select(vec![40_000, 40_001, 40_003, 8_080]), prop::sample::select(vec![7, 80, 9_000]));
    let event = prop_oneof![
        12 => random(destinations).prop_map(Event::Frame),
        2 => (ports, any::<bool>()).prop_map(|((to, from), tcp)| Event::Arrives(to, from, tcp)),
        1 => prop::sample::select(vec![0, 1, 5, 70, 130, 400, 8_000]).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..40)
}

/// How a packet uplink is told to be.
fn told() -> impl Strategy<Value = (conntrack::Config, bool, bool)> {
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

const AROUND: &[Ipv4Addr] = &[
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

const OUTSIDE: &[Ipv4Addr] =
    &[GATEWAY, GATEWAY, A, B, SERVER, SERVER, SERVER, SILENT, OWN, Ipv4Addr::new(169, 254, 169, 254)];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn what_explain_says_of_a_packet_uplink_is_what_then_happens(
        (nat, isolate, publish) in told(),
        life in life(AROUND),
        mtu in prop::sample::select(vec![1_500u16, 1_400]),
    ) {
        let mut house = House::new(|told| {
            told.packet.nat = nat;
            told.network.isolate = isolate;
            told.mtu = mtu;
        });
        house.wires.unchecked = true;
        house.meet();
        if publish {
            let forward = Forward {
                protocol: Protocol::Udp, bound: None, outside: 8_080, ip: A, inside: 40_000, count: 1, owner: PORT_A.0,
            };
            house.network.conntrack().expect("a packet uplink").publish(forward, house.now).expect("a free port");
        }
        for event in life {
            match event {
                Event::Frame(random) => {
                    let (meta, frame) = random.frame();
                    agree(&mut house.network, random.port, meta, &frame, house.now);
                }
                Event::Arrives(to, from, true) => {
                    let syn_ack = crate::packet::coming(FAR, OURS).tcp((from, to), 18, &[], &[]);
                    house.arrive(&syn_ack);
                }
                Event::Arrives(to, from, false) => drop(house.arrive(&crate::packet::coming(FAR, OURS).udp((from, to), b"x"))),
                Event::Pass(time) => house.pass(seconds(time)),
            }
        }
    }

    #[test]
    fn what_explain_says_of_a_user_uplink_is_what_then_happens(
        life in life(OUTSIDE),
        flows in prop::sample::select(vec![1usize, 2, 5, 1_000]),
        per_container in prop::sample::select(vec![1usize, 3, 1_000]),
    ) {
        let mut user = User::new(Limits { flows, flows_per_container: per_container });
        for event in life {
            match event {
                Event::Frame(random) => {
                    let (meta, frame) = random.frame();
                    agree(&mut user.network, random.port, meta, &frame, user.now);
                    user.turn();
                }
                Event::Arrives(..) => user.pass(0),
                Event::Pass(time) => user.pass(time),
            }
        }
    }
}

/// A network whose flows are sockets of a modelled host.
struct User {
    network: Network<Outside>,
    now: Instant,
}

fn config() -> Config {
    Config {
        subnet: "10.0.0.0/24".parse().expect("a subnet"),
        gateway: GATEWAY,
        mtu: 1500,
        isolate: false,
        lease_time: seconds(3_600),
        dns: vec![GATEWAY],
        search: Vec::new(),
        bridged: false,
        routes: Vec::new(),
        peers: Vec::new(),
    }
}

impl User {
    fn new(limits: Limits) -> User {
        let policy =
            Policy { gateway: IpAddr::V4(GATEWAY), resolver: Some(RESOLVER), allow: Vec::new(), deny: Vec::new() };
        User::with(Some(Uplink::User { policy, limits, host: Outside::new(Trace::default()) }))
    }

    fn with(uplink: Option<Uplink<Outside>>) -> User {
        let now = Instant::from_secs(1_000);
        let mut network = Network::new(config(), uplink, 7, now, 1_700_000_000);
        network.add_port(PORT_A);
        network.add_port(PORT_B);
        User { network, now }
    }

    /// One turn of the loop.
    fn turn(&mut self) {
        let now = self.now;
        let sent = &mut Noted::default();
        let events = self.network.host().map(|outside| outside.poll(now)).unwrap_or_default();
        for (flow, ready) in events {
            self.network.host_event(flow, ready, now, sent);
        }
        self.network.poll(now, sent, &mut |_| {});
    }

    /// A moment passes, so that the host's answers come, and then so many seconds.
    fn pass(&mut self, time: u64) {
        for step in [seconds(0), std::time::Duration::from_millis(20), seconds(time)] {
            self.now = self.now + step;
            self.turn();
        }
    }

    fn explained(&mut self, meta: Meta, frame: &[u8]) -> (Explained, Noted) {
        explained(&mut self.network, PORT_A, meta, frame, self.now)
    }
}

fn syn(src: Ipv4Addr, dst: Ipv4Addr, dport: u16) -> Random {
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

#[track_caller]
fn is_dropped(said: &Explained, reason: DropReason) {
    assert_eq!(said.verdict, Verdict::Drop(reason), "{:#?}", said.steps);
    let last = &said.steps.last().expect("a verdict").text;
    assert!(last.contains(reason.name()) && last.contains(reason.text()), "{last}");
    assert!(!reason.help().causes.is_empty() && !reason.help().remedy.is_empty());
    assert_eq!(said.asked, [], "the host is asked for nothing");
}

#[test]
fn why_not_wrong_subnet_and_address_spoofed() {
    let mut user = User::new(Limits::default());
    let (meta, frame) = syn(Ipv4Addr::new(10, 9, 9, 9), SERVER, 80).frame();
    is_dropped(&user.explained(meta, &frame).0, DropReason::SpoofedSource);
    let (meta, frame) = Random { src_mac: mac(GATEWAY), ..syn(A, SERVER, 80) }.frame();
    is_dropped(&user.explained(meta, &frame).0, DropReason::SourceIsOurs);
}

#[test]
fn why_not_no_route_and_the_sender_would_be_told() {
    let mut user = User::with(None);
    agree(
        &mut user.network,
        PORT_A,
        Meta::PLAIN,
        &Random { kind: 0, dst: GATEWAY, ..syn(A, GATEWAY, 0) }.frame().1,
        user.now,
    );
    let (meta, frame) = syn(A, SERVER, 80).frame();
    let (said, sent) = user.explained(meta, &frame);
    is_dropped(&said, DropReason::NoRoute);
    let [(PORT_A, error)] = &sent.0[..] else { panic!("{sent:?}") };
    assert_eq!(error[34..36], [3, 0], "network unreachable");
}

#[test]
fn why_not_a_port_of_the_gateway_on_which_nobody_listens() {
    let mut user = User::new(Limits::default());
    let (meta, frame) = syn(A, GATEWAY, 80).frame();
    is_dropped(&user.explained(meta, &frame).0, DropReason::NoSuchService);
}

#[test]
fn why_not_filtered_by_policy() {
    let mut user = User::new(Limits::default());
    for to in [OWN, Ipv4Addr::new(169, 254, 169, 254)] {
        let (meta, frame) = syn(A, to, 80).frame();
        is_dropped(&user.explained(meta, &frame).0, DropReason::PolicyDenied);
    }
}

#[test]
fn why_not_the_mtu_of_the_uplink_is_too_small() {
    let mut house = House::met(|told| told.mtu = 1_400);
    let (meta, frame) = Random { kind: 6, len: 1_460, ..syn(A, FAR, 9_000) }.frame();
    let (said, sent) = explained(&mut house.network, PORT_A, meta, &frame, house.now);
    is_dropped(&said, DropReason::AboveMtu);
    let [(PORT_A, error)] = &sent.0[..] else { panic!("{sent:?}") };
    assert_eq!((&error[34..36], &error[40..42]), (&[3, 4][..], &1_400u16.to_be_bytes()[..]));
}

#[test]
fn why_not_the_fdb_is_full_so_the_answer_is_flooded() {
    let mut user = User::new(Limits::default());
    for station in 0..1_024u16 {
        let [high, low] = station.to_be_bytes();
        let frame = Random { src_mac: Mac([2, 7, 0, 0, high, low]), kind: 0, ..syn(A, B, 0) }.frame().1;
        user.network.rx(
            PORT_A,
            Meta::PLAIN,
            &mut frame.clone(),
            user.now,
            &mut Recorded::default(),
            &mut Noted::default(),
            &mut |_| {},
        );
    }
    let (meta, frame) = Random { src_mac: Mac([2, 8, 0, 0, 0, 1]), ..syn(A, SERVER, 80) }.frame();
    let (said, _) = user.explained(meta, &frame);
    let said: Vec<&str> = said.steps.iter().map(|step| &step.text[..]).collect();
    assert!(said.iter().any(|text| text.starts_with("not learned: no room for 02:08:00:00:00:01")), "{said:#?}");
}

#[test]
fn why_not_a_quota_is_reached() {
    let mut house = House::met(|told| told.packet.nat.limits.owner_sessions = 1);
    let (meta, frame) = syn(A, FAR, 80).frame();
    assert_eq!(agree(&mut house.network, PORT_A, meta, &frame, house.now), Verdict::Relay);
    let (meta, frame) = syn(A, OTHER, 80).frame();
    is_dropped(&explained(&mut house.network, PORT_A, meta, &frame, house.now).0, DropReason::SessionLimit);

    let mut user = User::new(Limits { flows: 10, flows_per_container: 1 });
    let (meta, frame) = syn(A, SERVER, ECHO).frame();
    assert_eq!(agree(&mut user.network, PORT_A, meta, &frame, user.now), Verdict::Relay);
    let (meta, frame) = syn(A, SERVER, 80).frame();
    is_dropped(&user.explained(meta, &frame).0, DropReason::FlowLimit);
}

#[test]
fn why_not_nobody_answers_for_the_next_hop_is_said_as_it_would_be() {
    let mut house = House::new(|_| {});
    let (meta, frame) = syn(A, FAR, 80).frame();
    let (said, sent) = explained(&mut house.network, PORT_A, meta, &frame, house.now);
    assert_eq!(said.verdict, Verdict::Relay);
    let waits = format!("{ROUTER} is unknown: the packet waits");
    assert!(said.steps.iter().any(|step| step.text == waits), "{:#?}", said.steps);
    assert_eq!(sent.0.len(), 1, "the question");
}

#[test]
fn a_packet_that_passes_names_what_the_host_would_be_asked_to_do() {
    let mut user = User::new(Limits::default());
    let to = SocketAddr::from((SERVER, ECHO));
    let (meta, frame) = syn(A, SERVER, ECHO).frame();
    let (said, sent) = user.explained(meta, &frame);
    assert_eq!((said.verdict, &said.asked[..]), (Verdict::Relay, &[Asked::Connect { to }][..]));
    assert_eq!(sent, Noted::default());
    let (meta, frame) = Random { kind: 6, len: 100, ..syn(A, SERVER, ECHO) }.frame();
    assert_eq!(user.explained(meta, &frame).0.asked, [Asked::Send { to, bytes: 100 }]);
    // A question to the gateway's DNS port leads to the resolver.
    let (meta, frame) = Random { kind: 6, len: 30, ..syn(A, GATEWAY, 53) }.frame();
    assert_eq!(user.explained(meta, &frame).0.asked, [Asked::Send { to: RESOLVER, bytes: 30 }]);
    assert_eq!(user.network.host().expect("an uplink").open(), 0, "nothing was opened");
}

#[test]
fn a_dhcp_client_would_get_the_offer_that_it_then_gets_and_no_address_is_taken_by_asking() {
    let mut user = User::new(Limits::default());
    let mut discover = vec![0; 244];
    discover[..4].copy_from_slice(&[1, 1, 6, 0]);
    discover[28..34].copy_from_slice(&mac(A).0);
    discover[236..].copy_from_slice(&[99, 130, 83, 99, 53, 1, 1, 255]);
    let link = Link { src: mac(A), dst: Mac::BROADCAST };
    let (src, dst) = (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into());
    let mut frame = Vec::new();
    build::udp(&mut frame, link, Ip { src, dst, ttl: 64, tos: 0, id: 0 }, 68, 67, &discover);
    let (said, would_be_sent) = user.explained(Meta::PLAIN, &frame);
    assert!(user.network.leases(user.now).is_empty());
    let (mut journey, mut sent) = (Recorded::default(), Noted::default());
    user.network.rx(PORT_A, Meta::PLAIN, &mut frame, user.now, &mut journey, &mut sent, &mut |_| {});
    assert_eq!((said.steps, would_be_sent), (journey.steps, sent));
    assert_eq!(user.network.leases(user.now).len(), 1);
}
