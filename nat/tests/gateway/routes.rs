//! Static routes by routers of the LAN, and other networks of the same daemon.

use std::net::Ipv4Addr;

use tapswitch_nat::{Config, Outcome, Peer};
use tapswitch_wire::DropReason::*;
use tapswitch_wire::{Gso, GsoKind, Meta};

use crate::world::*;

const TO_A: &str = "02:42:0a:00:00:01 > 02:42:0a:00:00:02 IPv4 10.0.0.1 > 10.0.0.2 ttl 64 ";

/// Behind B lies 172.16.0.0/12, and behind C a part of it.
const BEHIND_B: Ipv4Addr = Ipv4Addr::new(172, 16, 5, 5);
const BEHIND_C: Ipv4Addr = Ipv4Addr::new(172, 16, 9, 5);
/// Two other networks.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 7);
const NARROW: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 7);

fn routed(config: &mut Config) {
    config.routes = vec![("172.16.0.0/12".parse().unwrap(), B), ("172.16.9.0/24".parse().unwrap(), C)];
}

fn peered(config: &mut Config) {
    let peer = |subnet: &str, network, mtu| Peer { subnet: subnet.parse().unwrap(), network, mtu };
    config.peers = vec![peer("10.1.0.0/24", 4, 1500), peer("10.2.0.0/24", 7, 1280)];
}

/// A world in which the routers are known.
fn with_routers() -> World {
    let mut world = World::with(routed);
    world.meet(B);
    world.meet(C);
    world
}

#[test]
fn a_static_route_leads_by_the_router_of_its_longest_prefix() {
    let mut world = with_routers();
    for (dst, hop) in [(BEHIND_B, "03"), (BEHIND_C, "04")] {
        let expected = format!(
            "02:42:0a:00:00:01 > 02:42:0a:00:00:{hop} IPv4 10.0.0.2 > {dst} ttl 63 ICMP echo request id 7 seq 1, 50 bytes"
        );
        assert_eq!(world.rx(&ping(A, dst, 64)), (REPLY, vec![expected]));
    }
    assert_eq!(world.gateway.next_hop(BEHIND_B), Some(B));
    assert_eq!(world.gateway.next_hop(BEHIND_C), Some(C));
    assert_eq!(world.gateway.next_hop(A), Some(A), "what is on the LAN needs no router");
    assert_eq!(world.gateway.next_hop(OUTSIDE), None);
    assert_eq!(world.gateway.next_hop(GATEWAY), None, "we are nobody's next hop");
    assert_eq!(world.rx(&ping(A, OUTSIDE, 64)), (UPLINK, vec![]), "all else still goes out");
}

#[test]
fn who_stands_behind_a_router_of_the_lan_may_send_and_nobody_else() {
    let mut world = with_routers();
    let mut frame = udp(ip(BEHIND_B, OUTSIDE, 64), 1000, 2000, b"hello");
    frame[6..12].copy_from_slice(&mac(B).0);
    assert_eq!(world.rx(&frame), (UPLINK, vec![]));
    let mut frame = ping(BEHIND_B, A, 64);
    frame[6..12].copy_from_slice(&mac(B).0);
    world.meet(A);
    assert_eq!(world.rx(&frame).0, REPLY, "and reaches the LAN");
    let stranger = udp(ip(Ipv4Addr::new(172, 32, 0, 1), OUTSIDE, 64), 1000, 2000, b"hello");
    assert_eq!(world.rx(&stranger), (drop(SpoofedSource), vec![]));
}

#[test]
fn ip_2_ip_3_a_route_by_a_router_counts_as_a_hop() {
    let mut world = with_routers();
    let expected = vec![format!("{TO_A}ICMP type 11 code 0, 78 bytes")];
    assert_eq!(world.rx(&ping(A, BEHIND_B, 1)), (drop(TtlExceeded), expected));
    let large = udp(ip(A, BEHIND_B, 64), 1000, 2000, &[0; 1473]);
    let expected = vec![format!("{TO_A}ICMP type 3 code 4, 590 bytes")];
    assert_eq!(world.rx(&large), (drop(AboveMtu), expected));
}

#[test]
fn isolation_holds_for_routers_of_the_lan_too() {
    let mut world = World::with(|config| {
        routed(config);
        config.isolate = true;
    });
    let expected = vec![format!("{TO_A}ICMP type 3 code 13, 78 bytes")];
    assert_eq!(world.rx(&ping(A, BEHIND_B, 64)), (drop(Isolated), expected));
}

#[test]
fn another_network_gets_the_packet_with_one_taken_from_its_ttl() {
    for (dst, network) in [(NEAR, 4), (NARROW, 7)] {
        let mut world = World::with(peered);
        assert_eq!(world.rx(&ping(A, dst, 2)), (Outcome::Peer(network), vec![]));
        assert_eq!(world.left, ping(A, dst, 1), "and nothing else has changed");
    }
    // An internal network reaches its peers, and nothing else.
    let mut world = World::with(|config| {
        peered(config);
        config.uplink = false;
    });
    assert_eq!(world.rx(&ping(A, NEAR, 2)).0, Outcome::Peer(4));
    assert_eq!(world.rx(&ping(A, OUTSIDE, 2)).0, drop(NoRoute));
}

#[test]
fn ip_2_a_ttl_that_ends_before_another_network_is_told() {
    for ttl in [0, 1] {
        let mut world = World::with(peered);
        let expected = vec![format!("{TO_A}ICMP type 11 code 0, 78 bytes")];
        assert_eq!(world.rx(&ping(A, NEAR, ttl)), (drop(TtlExceeded), expected));
        assert_eq!(world.left, ping(A, NEAR, ttl));
    }
}

#[test]
fn ip_3_what_does_not_fit_another_network_comes_back_with_its_mtu() {
    let fits = udp(ip(A, NARROW, 64), 1000, 2000, &[0; 1252]);
    assert_eq!(World::with(peered).rx(&fits).0, Outcome::Peer(7));
    let large = udp(ip(A, NARROW, 64), 1000, 2000, &[0; 1253]);
    let mut world = World::with(peered);
    let expected = vec![format!("{TO_A}ICMP type 3 code 4, 590 bytes")];
    assert_eq!(world.rx(&large), (drop(AboveMtu), expected));
    assert_eq!(world.last()[38..42], [0, 0, 5, 0], "1280");
    let may_be_cut = patched(&large, 6, &[0, 0]);
    assert_eq!(World::with(peered).rx(&may_be_cut).0, Outcome::Peer(7), "it is cut over there");
    // A super-frame counts by its segments.
    for (size, fits) in [(1240, true), (1241, false)] {
        let (meta, frame) = tcp_partial(ip(A, NARROW, 64), 80, 1, 1, 0x10, &[0; 60_000]);
        let meta = Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size, ecn: false }), ..meta };
        let expected = if fits { Outcome::Peer(7) } else { drop(AboveMtu) };
        assert_eq!(World::with(peered).rx_meta(meta, &frame).0, expected);
    }
}

#[test]
fn what_another_network_passes_on_is_sent_to_the_lan_as_it_is() {
    let mut world = World::knowing(&[A]);
    let frame = udp(ip(NEAR, A, 63), 1000, 2000, b"hello");
    let (result, sent) = world.send(&frame, A);
    let expected =
        "02:42:0a:00:00:01 > 02:42:0a:00:00:02 IPv4 10.1.0.7 > 10.0.0.2 ttl 63 UDP 1000 > 2000 payload 5, 47 bytes";
    assert_eq!((result, sent), (Ok(()), vec![expected.to_string()]));
}
