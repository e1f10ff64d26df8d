//! The uplink's side: what is from outside is the translator's to judge, and strangers learn nothing. And a link without
//! addresses.

use tapswitch_nat::{Config, Outcome};
use tapswitch_wire::DropReason::*;
use tapswitch_wire::{Frame, Mac, Meta, Unheard, render};

use crate::world::*;

const IS_AT: &str = "02:42:0a:00:00:01 > 02:42:0a:00:00:02 ARP 10.0.0.1 is-at 02:42:0a:00:00:01, 42 bytes";
const PONG: &str =
    "02:42:0a:00:00:01 > 02:42:0a:00:00:02 IPv4 10.0.0.1 > 10.0.0.2 ttl 64 ICMP echo reply id 7 seq 1, 50 bytes";

/// As a packet uplink tells its outer gateway.
fn translated(config: &mut Config) {
    config.uplink = false;
    config.services.clear();
    config.verify_source = false;
    config.translated = true;
}

/// Hands a packet to the gateway that the translator gave back as nobody's.
fn own(world: &mut World, frame: &[u8]) -> (Outcome, Vec<String>) {
    let (mut bytes, mut sent) = (frame.to_vec(), Vec::new());
    let mut frame = Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap();
    let mut out = |meta: &Meta, frame: &[u8]| sent.push(render(meta, frame));
    let outcome = world.gateway.handle_own(&mut frame, GATEWAY, world.now, &mut Unheard, &mut out);
    (outcome, sent)
}

#[test]
fn whatever_comes_from_outside_is_the_translators_to_judge_and_keeps_its_ttl() {
    for ttl in [0, 1, 2, 64] {
        for dst in [GATEWAY, B, OUTSIDE] {
            let header = ip(A, dst, ttl);
            for frame in [
                ping(A, dst, ttl),
                udp(header, 1000, 67, b"hello"),
                udp(header, 1000, 33434, b"hello"),
                tcp(header, 22, 1, 0, 2, b""),
                patched(&udp(header, 1000, 2000, b"hello"), 9, &[132]),
                patched(&udp(header, 1000, 2000, &[0; 16]), 6, &[0x20, 0]),
            ] {
                let mut world = World::with(translated);
                assert_eq!(world.rx(&frame), (Outcome::Inbound, vec![]), "to {dst}, TTL {ttl}");
                assert_eq!(world.left, frame, "as it came");
            }
        }
    }
}

#[test]
fn ip_6_what_no_wire_may_carry_does_not_reach_the_translator() {
    let frame = ping(A, GATEWAY, 64);
    for (frame, reason) in [
        (patched(&frame, 12, &[224, 0, 0, 1]), BadSourceAddress),
        (patched(&frame, 12, &[127, 0, 0, 1]), BadSourceAddress),
        (patched(&frame, 12, &[10, 0, 0, 255]), BadSourceAddress),
        (patched(&frame, 12, &GATEWAY.octets()), SpoofedSource),
        (patched(&frame, 16, &[127, 0, 0, 1]), BadDestinationAddress),
        (patched(&frame, 16, &[10, 0, 0, 255]), MulticastNotRouted),
        (patched(&frame, 16, &[224, 0, 0, 1]), MulticastNotRouted),
        (sent_to(&frame, Mac::BROADCAST), LinkBroadcast),
        (sent_to(&frame, mac(B)), NotForUs),
        (with_options(&frame, &[131, 3, 4, 0]), Ipv4SourceRoute),
    ] {
        assert_eq!(World::with(translated).rx(&frame), (drop(reason), vec![]));
    }
    let mut broken = frame.clone();
    broken[25] ^= 1;
    assert_eq!(World::with(translated).rx(&broken), (drop(Ipv4BadChecksum), vec![]));
}

#[test]
fn ar_1_our_address_on_the_uplink_is_answered_for() {
    let mut world = World::with(translated);
    assert_eq!(world.rx(&who_has(GATEWAY, A)), (REPLY, vec![IS_AT.into()]));
    assert_eq!(world.rx(&who_has(B, A)), (drop(ArpNotForUs), vec![]), "nobody else's");
}

#[test]
fn strangers_get_an_answer_to_a_ping_and_to_nothing_else() {
    let mut world = World::with(translated);
    assert_eq!(own(&mut world, &ping(A, GATEWAY, 1)), (REPLY, vec![PONG.into()]));
    let header = ip(A, GATEWAY, 64);
    for frame in [
        udp(header, 1000, 33434, b"hello"),
        udp(header, 68, 67, &[0; 300]),
        tcp(header, 22, 1, 0, 2, b""),
        tcp(header, 22, 1, 1, 16, b""),
        patched(&udp(header, 1000, 2000, b"hello"), 9, &[132]),
        patched(&ping(A, GATEWAY, 64), 6, &[0x20, 0]),
    ] {
        assert_eq!(own(&mut world, &frame), (drop(Filtered), vec![]));
    }
    for kind in [0, 3, 5, 8 + 5, 17] {
        assert_eq!(own(&mut world, &icmp(header, kind, 0, &[0; 28])), (drop(IcmpIgnored), vec![]), "type {kind}");
    }
}

#[test]
fn a_link_without_addresses_needs_no_arp() {
    let other_end = Mac([2, 0, 0, 0, 0, 9]);
    let mut world = World::with(|config| {
        translated(config);
        config.point_to_point = Some(other_end);
    });
    assert_eq!(world.gateway.resolved(OUTSIDE, world.now), Some(other_end));
    for to in [A, OUTSIDE] {
        let (result, sent) = world.send(&udp(ip(GATEWAY, to, 64), 1000, 53, b"question"), to);
        let expected = format!(
            "02:42:0a:00:00:01 > 02:00:00:00:00:09 IPv4 10.0.0.1 > {to} ttl 64 DNS 1000 > 53 payload 8, 50 bytes"
        );
        assert_eq!((result, sent), (Ok(()), vec![expected]));
    }
    assert_eq!(world.neighbours(), []);
    assert_eq!(world.gateway.deadline(), None, "nobody is asked for");
    let large = udp(ip(GATEWAY, A, 64), 1000, 2000, &[0; 1473]);
    assert_eq!(world.send(&large, A), (Err(AboveMtu), vec![]));
}

#[test]
fn a_neighbour_is_resolved_only_while_it_was_heard_of_lately() {
    let mut world = World::knowing(&[B]);
    assert_eq!(world.gateway.resolved(B, world.now), Some(mac(B)));
    assert_eq!(world.gateway.resolved(C, world.now), None);
    world.pass_secs(61);
    assert_eq!(world.gateway.resolved(B, world.now), None, "a stale one is to be asked again");
}
