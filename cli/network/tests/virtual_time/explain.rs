//! What `explain` says is what then happens, and asking changes nothing.

mod life;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use tapswitch_conntrack::{Forward, Protocol, Realm};
use tapswitch_network::{Asked, Config, Explained, Network, Ports, Uplink};
use tapswitch_relay::{Limits, Policy};
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{DropReason, FrameRef, Instant, Mac, Meta, PortId, Recorded, Verdict, render};

use crate::outside::{ECHO, OWN, Outside, RESOLVER, SERVER};
use crate::packet::{A, B, FAR, GATEWAY, House, OTHER, OURS, PORT_A, PORT_B, ROUTER, mac, seconds};
use crate::trace::Trace;
use life::{AROUND, Event, OUTSIDE, Random, life, syn, told};

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
        let mut user = User::new(Limits { flows, flows_per_container: per_container, ..Limits::default() });
        for event in life {
            match event {
                Event::Frame(random) => {
                    let (meta, frame) = random.frame();
                    agree(&mut user.network, random.port, meta, &frame, user.now);
                    drop(user.turn());
                }
                Event::Arrives(..) => drop(user.pass(0)),
                Event::Pass(time) => drop(user.pass(time)),
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

    /// One turn of the loop. Returns what was sent.
    fn turn(&mut self) -> Noted {
        let now = self.now;
        let mut sent = Noted::default();
        let events = self.network.host().map(|outside| outside.poll(now)).unwrap_or_default();
        for (flow, ready) in events {
            self.network.host_event(flow, ready, now, &mut sent);
        }
        self.network.poll(now, &mut sent, &mut |_| {});
        sent
    }

    /// A moment passes, so that the host's answers come, and then so many seconds. Returns what was sent.
    fn pass(&mut self, time: u64) -> Noted {
        let mut all = Noted::default();
        for step in [seconds(0), Duration::from_millis(20), seconds(time)] {
            self.now = self.now + step;
            all.0.append(&mut self.turn().0);
        }
        all
    }

    fn explained(&mut self, meta: Meta, frame: &[u8]) -> (Explained, Noted) {
        explained(&mut self.network, PORT_A, meta, frame, self.now)
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

    let mut user = User::new(Limits { flows: 10, flows_per_container: 1, ..Limits::default() });
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

#[test]
fn every_segment_of_a_connection_is_explained_as_it_then_goes() {
    const LATER: u32 = 1_001;
    let mut user = User::new(Limits::default());
    let segment = |seq, ack, flags, payload: &[u8]| {
        let ip = Ip { src: A.into(), dst: SERVER.into(), ttl: 64, tos: 0, id: 0 };
        let tcp = Tcp { src_port: 40_000, dst_port: ECHO, seq, ack, flags, window: 9_000, options: &[] };
        let mut frame = Vec::new();
        let meta = build::tcp(&mut frame, Link { src: mac(A), dst: mac(GATEWAY) }, ip, tcp, payload.len());
        frame.extend_from_slice(payload);
        (meta, frame)
    };
    let who = Random { kind: 0, dst: GATEWAY, ..syn(A, GATEWAY, 0) }.frame().1;
    agree(&mut user.network, PORT_A, Meta::PLAIN, &who, user.now);
    let (meta, frame) = segment(1_000, 0, 2, &[]);
    agree(&mut user.network, PORT_A, meta, &frame, user.now);
    let sent = user.pass(0);
    let syn_ack = sent.0.iter().map(|(_, frame)| frame).find(|frame| frame[12] == 8 && frame[47] == 0x12);
    let syn_ack = syn_ack.unwrap_or_else(|| panic!("no answer to the SYN: {sent:?}"));
    let ack = u32::from_be_bytes([syn_ack[38], syn_ack[39], syn_ack[40], syn_ack[41]]) + 1;
    for (seq, flags, payload, bytes) in [
        (LATER, 0x10, &b""[..], None),
        (LATER, 0x18, b"hello", Some(5)),
        // Out of order, then what was missing, then all of it again.
        (LATER + 15, 0x18, b"world", None),
        (LATER + 5, 0x18, b"0123456789", Some(10)),
        (LATER, 0x18, b"hello", None),
        // Far outside of the window.
        (LATER.wrapping_sub(5_000_000), 0x18, b"?", None),
    ] {
        let (meta, frame) = segment(seq, ack, flags, payload);
        let (said, _) = user.explained(meta, &frame);
        let written = bytes.map(|bytes| Asked::Write { bytes });
        assert_eq!(said.asked, written.into_iter().collect::<Vec<_>>(), "{}", render(&meta, &frame));
        agree(&mut user.network, PORT_A, meta, &frame, user.now);
        user.pass(0);
    }
    let (meta, frame) = segment(LATER + 15, ack, 0x14, &[]);
    agree(&mut user.network, PORT_A, meta, &frame, user.now);
    user.pass(0);
    let (meta, frame) = segment(LATER + 15, ack, 0x10, &[]);
    assert_eq!(agree(&mut user.network, PORT_A, meta, &frame, user.now), Verdict::Drop(DropReason::NoSuchFlow));
}

#[test]
fn a_copy_holds_the_session_of_the_packet_and_none_of_the_thousand_others() {
    let mut house = House::met(|_| {});
    for dport in 1..=1_000 {
        let (_, frame) = Random { kind: 6, len: 8, ..syn(A, FAR, dport) }.frame();
        house.send(PORT_A, &frame);
    }
    assert_eq!(house.sessions(), 1_000);
    let conntrack = house.network.conntrack().expect("a packet uplink");
    let sessions_for = |dst, dport| {
        let (meta, frame) = Random { kind: 6, len: 8, ..syn(A, dst, dport) }.frame();
        let frame = FrameRef::parse(meta, &frame[..]).expect("a frame");
        conntrack.copy_for(Realm::Inside, &frame, PORT_A.0, house.now).len()
    };
    assert_eq!((sessions_for(FAR, 7), sessions_for(FAR, 2_000), sessions_for(OTHER, 7)), (1, 0, 0));
}
