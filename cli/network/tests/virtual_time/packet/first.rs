//! A flow's first packets, and the two ways that the others may take.

use tapswitch_conntrack::Reason;
use tapswitch_wire::{DropReason, Gso, GsoKind, Instant, Meta, Recorded, Stage, Verdict, checksum};

use super::frames::*;
use super::*;

const OUT: (u16, u16) = (4000, 53);
const BACK: (u16, u16) = (53, 4000);

fn arp_only(frames: &[Sent]) -> Vec<String> {
    frames.iter().map(|(meta, frame)| render(meta, frame)).collect()
}

#[test]
fn ar_4_the_first_packet_of_a_flow_waits_for_arp_on_both_sides_and_is_not_lost() {
    let mut house = House::new(|_| {});
    assert_eq!(house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question")), Verdict::Relay);
    let asked = "02:09:09:09:09:09 > ff:ff:ff:ff:ff:ff ARP who-has 192.0.2.1 tell 192.0.2.10, 42 bytes";
    assert_eq!(arp_only(&std::mem::take(&mut house.wires.outside)), [asked]);
    house.router_answers();
    assert_eq!(house.one_outside(), left(OURS, FAR).udp(OUT, b"question"));
    // The way back: the gateway never heard of A by ARP.
    assert_eq!(house.arrive(&coming(FAR, OURS).udp(BACK, b"answer")), Verdict::Reply);
    let asked = "02:42:0a:00:00:01 > ff:ff:ff:ff:ff:ff ARP who-has 10.0.0.2 tell 10.0.0.1, 42 bytes";
    let all = std::mem::take(&mut house.wires.inside);
    assert!(all.iter().all(|(_, meta, frame)| render(meta, frame) == asked) && all.len() == 2, "every port is asked");
    house.send(PORT_A, &is_at(A, GATEWAY));
    assert_eq!(house.one_inside(), (PORT_A, come(FAR, A).udp(BACK, b"answer")));
    assert_eq!(house.sessions(), 1);
}

#[test]
fn a_router_that_does_not_answer_is_asked_three_times_and_the_packet_counted() {
    let mut house = House::new(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.pass(seconds(10));
    assert_eq!(house.wires.outside.len(), 3);
    assert_eq!(house.network.gateway_drops().get(DropReason::NeighbourUnresolved), 1);
}

#[test]
fn udp_tcp_and_pings_go_out_from_our_address_and_their_answers_find_back() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).tcp((4001, 80), SYN, &[], b""));
    assert_eq!(house.one_outside(), left(OURS, FAR).tcp((4001, 80), SYN, &[], b""));
    house.arrive(&coming(FAR, OURS).tcp((80, 4001), SYN | ACK, &[], b""));
    assert_eq!(house.one_inside(), (PORT_A, come(FAR, A).tcp((80, 4001), SYN | ACK, &[], b"")));
    house.send(PORT_B, &leaving(B, FAR).ping(7700, b"are you there"));
    assert_eq!(house.one_outside(), left(OURS, FAR).ping(7700, b"are you there"));
    house.arrive(&coming(FAR, OURS).pong(7700, b"are you there"));
    assert_eq!(house.one_inside(), (PORT_B, come(FAR, B).pong(7700, b"are you there")));
    // Without a checksum it stays without one.
    house.send(PORT_A, &leaving(A, FAR).udp_plain(OUT, b"question"));
    assert_eq!(house.one_outside(), left(OURS, FAR).udp_plain(OUT, b"question"));
    house.arrive(&coming(FAR, OURS).udp_plain(BACK, b"answer"));
    assert_eq!(house.one_inside(), (PORT_A, come(FAR, A).udp_plain(BACK, b"answer")));
    let sessions = house.network.conntrack().expect("a packet uplink").sessions(house.now);
    assert_eq!(sessions.len(), 3);
    assert!(sessions.iter().all(|session| session.reason == Reason::Outbound && session.answered));
}

/// What both ways are compared with: every kind of packet there is, in both directions.
fn packets() -> Vec<(bool, Meta, Vec<u8>)> {
    let mut all = Vec::new();
    for is_out in [true, false] {
        let ports = |inside, outside| if is_out { (inside, outside) } else { (outside, inside) };
        let base = if is_out { leaving(A, FAR) } else { coming(FAR, OURS) };
        let mut add = |meta: Meta, frame: Vec<u8>| all.push((is_out, meta, frame));
        for ttl in [2, 64, 255] {
            for tos in [0, 0x03, 0xb8] {
                for len in [0, 1, 2, 700, 1460] {
                    let (packet, data) = (base.ttl(ttl).tos(tos), vec![len as u8; len]);
                    add(Meta::PLAIN, packet.udp(ports(4000, 53), &data));
                    add(Meta::PLAIN, packet.udp_plain(ports(4000, 53), &data));
                    add(Meta::PLAIN, packet.tcp(ports(4001, 80), ACK, &[], &data));
                    let (meta, frame) = packet.tcp_partial(ports(4001, 80), ACK, &[], &data);
                    add(meta, frame);
                    add(Meta::PLAIN, if is_out { packet.ping(7700, &data) } else { packet.pong(7700, &data) });
                }
            }
        }
        if !is_out {
            // Outbound, it gets another identification, which only the slow way has.
            add(Meta::PLAIN, base.id(7).udp(ports(4000, 53), b"may be fragmented"));
        }
        for (size, len) in [(1460, 60_000), (1460, 1461), (536, 5_000)] {
            let (meta, frame) = base.tcp_super(ports(4001, 80), size, &vec![7; len]);
            add(meta, frame);
            let (meta, frame) = base.udp_super(ports(4000, 53), size, &vec![7; len]);
            add(meta, frame);
        }
        // Padding, a sum that happens to be zero, and a frame that a device has verified.
        let mut padded = base.udp(ports(4000, 53), b"");
        padded.resize(60, 0);
        add(Meta::PLAIN, padded);
        for data in 0..=u16::MAX / 64 {
            let data = (data * 64 + 63).to_be_bytes();
            add(Meta::PLAIN, base.udp(ports(4000, 53), &data));
        }
        add(
            Meta { checksum: tapswitch_wire::ChecksumState::Verified, gso: None },
            base.tcp(ports(4001, 80), ACK, &[], b"verified"),
        );
        // Segments that say something of the connection.
        for flags in [ACK | 8, ACK | 32, ACK | 64, ACK | 128] {
            add(Meta::PLAIN, base.tcp(ports(4001, 80), flags, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1], b"data"));
        }
    }
    all
}

/// A house in which the flows of [`packets`] are established.
fn established() -> House {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b""));
    house.arrive(&coming(FAR, OURS).udp(BACK, b""));
    house.send(PORT_A, &leaving(A, FAR).tcp_at((4001, 80), SYN, (1000, 0)));
    house.arrive(&coming(FAR, OURS).tcp_at((80, 4001), SYN | ACK, (2000, 1001)));
    house.send(PORT_A, &leaving(A, FAR).tcp_at((4001, 80), ACK, (1001, 2001)));
    house.send(PORT_A, &leaving(A, FAR).ping(7700, b""));
    house.arrive(&coming(FAR, OURS).pong(7700, b""));
    house.wires.inside.clear();
    house.wires.outside.clear();
    house
}

/// Whether the gateway or the outer one had a part in it.
fn was_slow(journey: &Recorded) -> bool {
    journey.steps.iter().any(|step| matches!(step.stage, Stage::Neighbour))
}

#[test]
fn a_packet_is_byte_for_byte_the_same_by_the_fast_way_and_by_the_slow_one() {
    let (mut fast, mut slow) = (established(), established());
    for (is_out, meta, frame) in packets() {
        let mut journeys = [Recorded::default(), Recorded::default()];
        slow.forget_hops();
        for (house, journey) in [&mut fast, &mut slow].into_iter().zip(&mut journeys) {
            match is_out {
                true => house.send_told(PORT_A, meta, &frame, journey),
                false => house.arrive_told(meta, &frame, journey),
            };
        }
        let line = render(&meta, &frame);
        assert_eq!(journeys.each_ref().map(was_slow), [false, true], "{line}");
        let (outside, inside) = (fast.take_outside(), fast.take_inside());
        assert_eq!(outside.len() + inside.len(), 1, "{line}");
        assert_eq!((outside, inside), (slow.take_outside(), slow.take_inside()), "{line}");
    }
    let sessions = |house: &House| house.network.conntrack().expect("a packet uplink").sessions(house.now);
    assert_eq!(sessions(&fast), sessions(&slow), "and both have counted the same");
    let frames = |house: &House, port| {
        let counters = house.network.counters(port).expect("an attached port");
        [counters.rx_frames, counters.tx_frames, counters.rx_bytes, counters.tx_bytes]
    };
    for port in [PORT_A, PORT_B, PortId::GATEWAY] {
        assert_eq!(frames(&fast, port), frames(&slow, port), "port {port}");
    }
}

#[test]
fn ip_5_headers_are_right_after_every_rewrite() {
    let mut house = established();
    for (is_out, meta, frame) in packets().into_iter().filter(|(_, meta, _)| meta.gso.is_none()) {
        if is_out {
            house.send_meta(PORT_A, meta, &frame)
        } else {
            house.arrive_meta(meta, &frame)
        };
        let sent = house.take_outside().pop().map(|(_, frame)| frame);
        let sent = sent.or_else(|| house.take_inside().pop().map(|(_, _, frame)| frame)).expect("a packet");
        assert_eq!(checksum::checksum(0, &sent[14..34]), 0);
        assert_eq!((&sent[12..22], sent[22], sent[23]), (&frame[12..22], frame[22] - 1, frame[23]));
    }
}

/// A segment of a connection that nobody saw begin is taken for one of its middle, as after a restart of ours.
#[test]
fn a_connection_is_picked_up_in_its_middle_from_inside_and_not_from_outside() {
    let mut house = House::met(|_| {});
    let (meta, frame) = leaving(A, FAR).tcp_super((4001, 80), 1460, &[7; 30_000]);
    assert_eq!(house.send_meta(PORT_A, meta, &frame), Verdict::Relay);
    let sent = house.take_outside();
    let (expected_meta, expected) = left(OURS, FAR).tcp_super((4001, 80), 1460, &[7; 30_000]);
    assert_eq!(sent, [(expected_meta, expected)]);
    assert_eq!(sent[0].0.gso, Some(Gso { kind: GsoKind::Tcp4, size: 1460, ecn: false }));
    let stranger = coming(OTHER, OURS).tcp((80, 4001), ACK, &[], b"data");
    assert_eq!(house.arrive(&stranger), drop(DropReason::NoSuchSession));
    assert_eq!(house.sessions(), 1);
}

#[test]
fn an_idle_session_ends_and_leaves_nothing() {
    let mut house = established();
    house.pass(seconds(59));
    assert_eq!(house.sessions(), 3);
    house.pass(seconds(3));
    assert_eq!(house.sessions(), 2, "the ping");
    house.pass(seconds(240));
    assert_eq!(house.sessions(), 1, "the datagrams");
    house.pass(seconds(7440));
    assert_eq!(house.sessions(), 0);
    assert!(house.now > Instant::from_secs(8_000));
    assert_eq!(house.arrive(&coming(FAR, OURS).udp(BACK, b"late")), drop(DropReason::Filtered));
}
