//! Echoes and errors.

use tapswitch_conntrack::{Refusal, Tuple};
use tapswitch_wire::{DropReason, Endpoint};

use crate::world::{
    ACK, ICMP, Inside, OURS, Outside, Packet, SYN, Segment, TCP, UDP, World, config, container, end, hairpin, inbound,
    outbound, remote,
};

#[test]
fn ni_1_echoes_are_translated_by_their_identifier_and_live_a_minute() {
    let mut world = World::new(config());
    let there = outbound(ICMP, (2, 77), (1, 0));
    let asked = world.out(there).unwrap();
    assert_eq!((asked.src.ip, asked.dst), (OURS, end(remote(1), 0)));
    assert_eq!(world.incoming(asked.reversed()), Ok(there.reversed()));
    assert_eq!(world.mapped(outbound(ICMP, (2, 77), (2, 0))), asked.src, "the same identifier for everybody");
    assert_ne!(world.mapped(outbound(ICMP, (3, 77), (1, 0))), asked.src, "and for one container only");
    world.wait(59.0);
    assert_eq!(world.incoming(asked.reversed()), Ok(there.reversed()));
    world.wait(59.0);
    assert_eq!(world.sessions().len(), 1);
    world.wait(2.0);
    assert!(world.is_blank());
    assert_eq!(world.incoming(asked.reversed()), Err(Refusal::Silent(DropReason::NoSuchSession)));
}

#[test]
fn ni_1_an_answer_that_nobody_asked_for_begins_nothing() {
    let world = World::new(config());
    let asked = world.out(outbound(ICMP, (2, 77), (1, 0))).unwrap();
    let refused = Err(Refusal::Silent(DropReason::NoSuchSession));
    let answer = |host: u32, id: u16| Tuple { protocol: ICMP, src: end(remote(host), 0), dst: end(OURS, id) };
    assert_eq!(world.incoming(answer(2, asked.src.port)), refused, "from another host");
    assert_eq!(world.incoming(answer(1, asked.src.port ^ 1)), refused, "to another identifier");
    let unasked = Tuple { protocol: ICMP, src: end(container(2), 0), dst: end(remote(1), 77) };
    assert_eq!(world.out(unasked), refused, "from inside");
}

#[test]
fn an_echo_request_to_our_own_address_is_ours_from_either_side() {
    let world = World::new(config());
    let asked = world.out(outbound(ICMP, (2, 77), (1, 0))).unwrap();
    for id in [0, 1, 77, asked.src.port] {
        let from_outside = Tuple { protocol: ICMP, src: end(remote(1), id), dst: end(OURS, 0) };
        assert_eq!(world.incoming(from_outside), Err(Refusal::Own), "identifier {id}");
        let from_inside = Tuple { protocol: ICMP, src: end(container(3), id), dst: end(OURS, 0) };
        assert_eq!(world.out(from_inside), Err(Refusal::Own), "identifier {id}");
    }
}

const ERRORS: [(u8, u8, u16); 7] = [(3, 0, 0), (3, 1, 0), (3, 3, 0), (3, 4, 1280), (3, 13, 0), (11, 0, 0), (12, 0, 0)];

/// What an error says, after a translator had it in hand.
fn check(packet: &Packet, kind: u8, code: u8, mtu: u16, src: Endpoint, dst: Endpoint) {
    assert!(packet.has_right_checksums(), "{packet:?}");
    let quoted = packet.frame(|frame| frame.quoted()).unwrap();
    assert_eq!((quoted.kind, quoted.code, quoted.mtu), (kind, code, mtu));
    assert_eq!((quoted.src, quoted.dst), (src, dst));
}

fn outer(packet: &Packet) -> (std::net::IpAddr, std::net::IpAddr) {
    packet.frame(|frame| (frame.src_ip().unwrap(), frame.dst_ip().unwrap()))
}

#[test]
fn ni_3_nu_7_an_error_from_outside_reaches_the_container_from_whoever_sent_it() {
    let world = World::new(config());
    for there in [outbound(UDP, (2, 4000), (1, 53)), outbound(TCP, (2, 4000), (1, 80)), outbound(ICMP, (2, 77), (1, 0))]
    {
        let sent = world.through(Inside, &Packet::first(there)).unwrap();
        // From the host itself, and from a router that nobody has heard of, with short and with whole quotes.
        for from in [remote(1), remote(99)] {
            for (kind, code, mtu) in ERRORS {
                for quote in [28, 60, 1500] {
                    let error = sent.packet.error(from, kind, code, mtu, quote);
                    let (egress, error) = world.error(Outside, &error).unwrap();
                    assert_eq!((egress, outer(&error)), (Inside, (from.into(), container(2).into())));
                    check(&error, kind, code, mtu, there.src, there.dst);
                }
            }
        }
    }
}

#[test]
fn ni_3_an_error_from_inside_leaves_in_our_name() {
    let world = World::new(config());
    for protocol in [UDP, TCP] {
        let sent = world.through(Inside, &Packet::first(outbound(protocol, (2, 4000), (1, 53)))).unwrap();
        let segment = Segment { flags: SYN | ACK, seq: 9000, ack: 1001, len: 0 };
        let answer = match protocol {
            TCP => Packet::tcp(sent.tuple.reversed(), segment),
            _ => Packet::udp(sent.tuple.reversed(), b"answer"),
        };
        let arrived = world.through(Outside, &answer).unwrap();
        for (kind, code, mtu) in ERRORS {
            for quote in [28, 60, 1500] {
                let error = arrived.packet.error(container(2), kind, code, mtu, quote);
                let (egress, error) = world.error(Inside, &error).unwrap();
                assert_eq!((egress, outer(&error)), (Outside, (OURS.into(), remote(1).into())));
                check(&error, kind, code, mtu, end(remote(1), 53), sent.tuple.src);
            }
        }
    }
}

#[test]
fn ni_3_ni_4_errors_pass_between_the_ends_of_a_hairpin() {
    let world = World::new(config());
    let b = world.mapped(outbound(UDP, (3, 5000), (1, 53)));
    let there = hairpin(UDP, (2, 4000), b.port);
    let arrived = world.through(Inside, &Packet::first(there)).unwrap();
    let (egress, error) = world.error(Inside, &arrived.packet.error(container(3), 3, 3, 0, 28)).unwrap();
    assert_eq!((egress, outer(&error)), (Inside, (OURS.into(), container(2).into())));
    check(&error, 3, 3, 0, there.src, there.dst);
    let back = world.through(Inside, &Packet::first(arrived.tuple.reversed())).unwrap();
    let (egress, error) = world.error(Inside, &back.packet.error(container(2), 3, 3, 0, 28)).unwrap();
    assert_eq!((egress, outer(&error)), (Inside, (OURS.into(), container(3).into())));
    check(&error, 3, 3, 0, end(container(3), 5000), arrived.tuple.src);
}

#[test]
fn nu_7_nt_5_ni_4_no_error_ends_or_changes_anything() {
    let world = World::new(config());
    for there in [outbound(UDP, (2, 4000), (1, 53)), outbound(TCP, (2, 4000), (1, 80)), outbound(ICMP, (2, 77), (1, 0))]
    {
        let sent = world.through(Inside, &Packet::first(there)).unwrap();
        let before = world.sessions();
        for kind in 0..=18 {
            // etherparse and others know no timestamp of this form; nobody sends one as an error either.
            for code in 0..16 {
                let _ = world.error(Outside, &sent.packet.error(remote(9), kind, code, 0, 28));
            }
        }
        assert_eq!(world.sessions(), before);
        assert_eq!(world.mapped(there), sent.tuple.src);
    }
}

#[test]
fn ni_3_at_12_an_error_about_nothing_that_was_sent_is_dropped() {
    let world = World::new(config());
    let sent = world.through(Inside, &Packet::first(outbound(UDP, (2, 4000), (1, 53)))).unwrap();
    let about = |src, dst| Packet::udp(Tuple { protocol: UDP, src, dst }, b"hello");
    let (src, dst) = (sent.tuple.src, sent.tuple.dst);
    for packet in [
        about(end(OURS, src.port ^ 1), dst),
        about(src, end(remote(2), 53)),
        about(src, end(remote(1), 54)),
        about(end(container(2), 4000), dst),
        // The answer was not sent by us.
        about(dst, src),
    ] {
        let refused = world.error(Outside, &packet.error(remote(9), 3, 3, 0, 28)).map(|_| ());
        assert_eq!(refused, Err(DropReason::NoSuchSession), "{}", packet.tuple());
    }
    let wrong_protocol = Packet::tcp(Tuple { protocol: TCP, src, dst }, Segment { flags: ACK, seq: 1, ack: 1, len: 0 });
    assert!(world.error(Outside, &wrong_protocol.error(remote(9), 3, 3, 0, 28)).is_err());
    assert!(world.error(Inside, &sent.packet.error(remote(9), 3, 3, 0, 28)).is_err(), "from the other side");
}

#[test]
fn at_12_a_forged_path_mtu_or_sequence_number_is_ignored() {
    let world = World::new(config());
    let there = outbound(TCP, (2, 4000), (1, 80));
    let sent = world.through(Inside, &Packet::first(there)).unwrap();
    for mtu in [1, 68, 551] {
        let error = sent.packet.error(remote(9), 3, 4, mtu, 28);
        assert_eq!(world.error(Outside, &error).map(|_| ()), Err(DropReason::IcmpForged), "{mtu}");
    }
    for mtu in [0, 552, 1280, 1500] {
        assert!(world.error(Outside, &sent.packet.error(remote(9), 3, 4, mtu, 28)).is_ok(), "{mtu}");
    }
    for (seq, passes) in [(1000, true), (999, false), (1002, false), (5_000_000, false)] {
        let quoted = Packet::tcp(sent.tuple, Segment { flags: SYN, seq, ack: 0, len: 0 });
        let right = if passes { Ok(()) } else { Err(DropReason::IcmpForged) };
        assert_eq!(world.error(Outside, &quoted.error(remote(9), 3, 4, 1280, 28)).map(|_| ()), right, "{seq}");
    }
}

#[test]
fn ni_2_ni_5_damaged_and_foreign_messages_are_dropped_for_their_own_reasons() {
    let world = World::new(config());
    let sent = world.through(Inside, &Packet::first(outbound(UDP, (2, 4000), (1, 53)))).unwrap();
    let reason = |error: &Packet| world.error(Outside, error).map(|_| ()).unwrap_err();
    for kind in [1, 4, 5, 6, 9, 10, 40] {
        assert_eq!(reason(&sent.packet.error(remote(9), kind, 0, 0, 28)), DropReason::IcmpIgnored, "type {kind}");
    }
    let mut damaged = sent.packet.error(remote(9), 3, 3, 0, 28);
    damaged.bytes[40] ^= 1;
    assert_eq!(reason(&damaged), DropReason::TransportBadChecksum);
    assert_eq!(reason(&sent.packet.error(remote(9), 3, 3, 0, 27)), DropReason::NoSuchSession, "too short a quote");
    // Nor do they begin anything as packets.
    for (kind, refusal) in [(3, DropReason::IcmpIgnored), (5, DropReason::IcmpIgnored), (13, DropReason::IcmpIgnored)] {
        let error = sent.packet.error(remote(9), kind, 0, 0, 28);
        assert_eq!(error.read(), None, "type {kind} has no session");
        assert_eq!(world.admit(Outside, &error), Err(Refusal::Silent(refusal)));
    }
}

impl World {
    fn admit(&self, realm: tapswitch_conntrack::Realm, packet: &Packet) -> Result<(), Refusal> {
        let Packet { meta, mut bytes } = packet.clone();
        let frame = tapswitch_wire::Frame::parse(meta, &mut bytes[..]).unwrap();
        self.nat.admit(realm, &frame, 2, self.now).map(|_| ())
    }
}

#[test]
fn nu_5_a_stranger_who_was_let_in_is_told_of_errors_as_a_peer_is() {
    let filtering = tapswitch_conntrack::Dependence::EndpointIndependent;
    let world = World::new(tapswitch_conntrack::Config { filtering, ..config() });
    let mapped = world.mapped(outbound(UDP, (2, 4000), (1, 53)));
    let arrived = world.through(Outside, &Packet::first(inbound(UDP, (7, 7), mapped.port))).unwrap();
    let (egress, error) = world.error(Inside, &arrived.packet.error(container(2), 3, 3, 0, 28)).unwrap();
    assert_eq!((egress, outer(&error)), (Outside, (OURS.into(), remote(7).into())));
    check(&error, 3, 3, 0, end(remote(7), 7), mapped);
}
