//! Time to live, the way out, and the way back onto the LAN.

use tapswitch_wire::DropReason::*;
use tapswitch_wire::{Frame, Gso, GsoKind, Meta};

use crate::world::*;

const TO_A: &str = "02:42:0a:00:00:01 > 02:42:0a:00:00:02 IPv4 10.0.0.1 > 10.0.0.2 ttl 64 ";
const TO_B: &str = "02:42:0a:00:00:01 > 02:42:0a:00:00:03 IPv4 10.0.0.2 > 10.0.0.3 ttl ";

fn probes(dst: std::net::Ipv4Addr, ttl: u8) -> [Vec<u8>; 3] {
    [ping(A, dst, ttl), udp(ip(A, dst, ttl), 40_000, 33434, b"12345678"), tcp(ip(A, dst, ttl), 80, 1, 0, 2, b"")]
}

#[test]
fn ip_2_a_ttl_of_zero_or_one_ends_here_and_two_goes_on_with_one() {
    for dst in [OUTSIDE, B] {
        for ttl in [0, 1] {
            for probe in probes(dst, ttl) {
                let expected = vec![format!("{TO_A}ICMP type 11 code 0, {} bytes", 42 + probe.len() - 14)];
                let mut world = World::knowing(&[B]);
                assert_eq!(world.rx(&probe), (drop(TtlExceeded), expected), "{dst} with TTL {ttl}");
                assert_eq!(&world.last()[42..], &probe[14..], "the error quotes what was sent");
                assert_eq!(world.left, probe);
            }
        }
    }
    for probe in probes(OUTSIDE, 2) {
        let mut world = World::new();
        assert_eq!(world.rx(&probe), (UPLINK, vec![]));
        assert_eq!(world.left[22], 1);
    }
    for probe in probes(B, 2) {
        let (outcome, sent) = World::knowing(&[B]).rx(&probe);
        assert_eq!((outcome, sent.len()), (REPLY, 1));
        assert!(sent[0].starts_with(&format!("{TO_B}1 ")), "{sent:?}");
    }
}

#[test]
fn ip_5_the_checksum_is_right_after_every_decrement_and_nothing_else_changes() {
    for ttl in 2..=255 {
        let frame = udp(ip(A, OUTSIDE, ttl), 1000, 2000, b"hello");
        let mut world = World::new();
        assert_eq!(world.rx(&frame).0, UPLINK);
        assert_eq!(world.left, udp(ip(A, OUTSIDE, ttl - 1), 1000, 2000, b"hello"), "TTL {ttl}");
    }
}

#[test]
fn without_an_uplink_the_network_beyond_is_unreachable() {
    let mut world = World::with(|config| config.uplink = false);
    let expected = vec![format!("{TO_A}ICMP type 3 code 0, 78 bytes")];
    assert_eq!(world.rx(&ping(A, OUTSIDE, 64)), (drop(NoRoute), expected));
}

#[test]
fn ip_6_what_is_for_the_lan_is_routed_back_onto_it() {
    let mut world = World::knowing(&[B]);
    let expected = vec![format!("{TO_B}63 ICMP echo request id 7 seq 1, 50 bytes")];
    assert_eq!(world.rx(&ping(A, B, 64)), (REPLY, expected));
    let mut sent = world.last().to_vec();
    assert!(Frame::parse(Meta::PLAIN, &mut sent[..]).unwrap().ipv4_checksum_ok());
}

#[test]
fn ip_9_no_redirect_is_sent_to_a_sender_that_should_know_its_neighbour() {
    let (outcome, sent) = World::knowing(&[B]).rx(&ping(A, B, 64));
    assert_eq!((outcome, sent.len()), (REPLY, 1), "only the packet itself: {sent:?}");
}

#[test]
fn ip_3_what_does_not_fit_the_lan_comes_back_with_its_mtu_if_it_may_not_be_cut() {
    let fits = udp(ip(A, B, 64), 1000, 2000, &[0; 1472]);
    assert_eq!(World::knowing(&[B]).rx(&fits).0, REPLY);
    let large = udp(ip(A, B, 64), 1000, 2000, &[0; 1473]);
    let mut world = World::knowing(&[B]);
    let expected = vec![format!("{TO_A}ICMP type 3 code 4, 590 bytes")];
    assert_eq!(world.rx(&large), (drop(AboveMtu), expected));
    assert_eq!(world.last()[38..42], [0, 0, 0x05, 0xdc], "the next hop's MTU, 1500");
    let may_be_cut = patched(&large, 6, &[0, 0]);
    assert_eq!(World::knowing(&[B]).rx(&may_be_cut), (drop(AboveMtu), vec![]));
}

#[test]
fn ip_3_a_super_frame_is_measured_by_its_segments() {
    for (size, fits) in [(1460, true), (1461, false)] {
        let (meta, frame) = tcp_partial(ip(A, B, 64), 80, 1, 1, 0x10, &[0; 60_000]);
        let meta = Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size, ecn: false }), ..meta };
        let mut world = World::knowing(&[B]);
        let (outcome, sent) = world.rx_meta(meta, &frame);
        if fits {
            assert_eq!(outcome, REPLY);
            assert_eq!(world.sent.last().unwrap().0, meta, "it stays whole");
        } else {
            assert_eq!((outcome, sent), (drop(AboveMtu), vec![format!("{TO_A}ICMP type 3 code 4, 78 bytes")]));
        }
    }
}

#[test]
fn padding_does_not_count_against_the_mtu() {
    let mut world = World::with(|config| config.mtu = 40);
    world.meet(B);
    let mut frame = udp(ip(A, B, 64), 1000, 2000, b"");
    frame.resize(60, 0);
    assert_eq!(world.rx(&frame).0, REPLY);
}

#[test]
fn the_gateway_is_no_way_around_isolation() {
    let mut world = World::with(|config| config.isolate = true);
    let expected = vec![format!("{TO_A}ICMP type 3 code 13, 78 bytes")];
    assert_eq!(world.rx(&ping(A, B, 64)), (drop(Isolated), expected));
    assert_eq!(world.rx(&ping(A, OUTSIDE, 64)).0, UPLINK, "the way out stays open");
}
