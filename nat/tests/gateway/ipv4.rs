//! What the gateway checks in every IPv4 packet before it does anything else with it.

use std::net::Ipv4Addr;

use tapswitch_nat::Outcome;
use tapswitch_wire::DropReason::*;
use tapswitch_wire::{DropReason, Gso, GsoKind, Mac, Meta};

use crate::world::*;

fn addr(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

#[test]
fn ip_1_a_header_whose_version_length_or_checksum_is_wrong_is_dropped() {
    let good = ping(A, OUTSIDE, 64);
    assert_eq!(World::new().rx(&good), (UPLINK, vec![]));
    // Offset in the packet, what stands there instead, and why it is dropped; the checksum is right unless it is meant.
    for (at, bytes, reason) in [
        (0, &[0x55][..], Ipv4Malformed),
        (0, &[0x44], Ipv4Malformed),
        (0, &[0x4f], Ipv4Malformed),
        (2, &[0, 19], Ipv4Malformed),
        (2, &[0, 37], Ipv4Malformed),
        (2, &[0xff, 0xff], Ipv4Malformed),
    ] {
        let mut bad = good.clone();
        bad[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(World::new().rx(&bad), (drop(reason), vec![]), "{bytes:?} at {at}");
    }
    for bit in 0..16 {
        let mut bad = good.clone();
        bad[24 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(World::new().rx(&bad), (drop(Ipv4BadChecksum), vec![]), "bit {bit} of the checksum");
    }
    for len in 14..34 {
        assert_eq!(World::new().rx(&good[..len]), (drop(Ipv4Malformed), vec![]), "{len} bytes");
    }
}

#[test]
fn ip_1_padding_is_no_part_of_the_packet() {
    let mut padded = icmp(ip(A, GATEWAY, 64), 8, 0, b"abc");
    padded.resize(60, 0xee);
    let (outcome, sent) = World::new().rx(&padded);
    assert_eq!(outcome, REPLY, "the padding would spoil the ICMP checksum");
    assert!(sent[0].contains("echo reply"), "{sent:?}");
}

#[test]
fn ip_6_addresses_that_are_never_forwarded() {
    // With `verify_source` a source outside of the subnet is spoofed; without, only what can be no host is refused.
    for (src, dst, verified, unverified) in [
        (A, OUTSIDE, UPLINK, UPLINK),
        (addr("10.0.0.254"), OUTSIDE, UPLINK, UPLINK),
        (addr("172.16.0.9"), OUTSIDE, drop(SpoofedSource), UPLINK),
        (GATEWAY, OUTSIDE, drop(SpoofedSource), drop(SpoofedSource)),
        (addr("127.0.0.1"), OUTSIDE, drop(BadSourceAddress), drop(BadSourceAddress)),
        (addr("0.0.0.0"), OUTSIDE, drop(BadSourceAddress), drop(BadSourceAddress)),
        (addr("0.0.0.9"), OUTSIDE, drop(BadSourceAddress), drop(BadSourceAddress)),
        (addr("224.0.0.1"), OUTSIDE, drop(BadSourceAddress), drop(BadSourceAddress)),
        (addr("240.0.0.1"), OUTSIDE, drop(BadSourceAddress), drop(BadSourceAddress)),
        (addr("255.255.255.255"), OUTSIDE, drop(BadSourceAddress), drop(BadSourceAddress)),
        (addr("10.0.0.255"), OUTSIDE, drop(BadSourceAddress), drop(BadSourceAddress)),
        (addr("10.0.0.0"), OUTSIDE, drop(BadSourceAddress), drop(BadSourceAddress)),
        (A, addr("127.0.0.1"), drop(BadDestinationAddress), drop(BadDestinationAddress)),
        (A, addr("0.0.0.0"), drop(BadDestinationAddress), drop(BadDestinationAddress)),
        (A, addr("0.1.2.3"), drop(BadDestinationAddress), drop(BadDestinationAddress)),
        (A, addr("240.0.0.1"), drop(BadDestinationAddress), drop(BadDestinationAddress)),
        (A, addr("10.0.0.0"), drop(BadDestinationAddress), drop(BadDestinationAddress)),
        (A, addr("224.0.0.251"), drop(MulticastNotRouted), drop(MulticastNotRouted)),
        (A, addr("239.1.2.3"), drop(MulticastNotRouted), drop(MulticastNotRouted)),
        (A, addr("255.255.255.255"), drop(MulticastNotRouted), drop(MulticastNotRouted)),
        (A, addr("10.0.0.255"), drop(MulticastNotRouted), drop(MulticastNotRouted)),
    ] {
        // The link's source is a station whatever the packet's is.
        let mut frame = ping(src, dst, 64);
        frame[6..12].copy_from_slice(&mac(A).0);
        let mut world = World::new();
        assert_eq!(world.rx(&frame), (verified, vec![]), "{src} > {dst}, verified");
        let mut world = World::with(|config| config.verify_source = false);
        assert_eq!(world.rx(&frame), (unverified, vec![]), "{src} > {dst}, unverified");
    }
}

#[test]
fn ip_6_a_unicast_packet_in_a_broadcast_frame_is_not_forwarded() {
    for dst in [OUTSIDE, B, GATEWAY] {
        for link in [Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1])] {
            let frame = sent_to(&ping(A, dst, 64), link);
            assert_eq!(World::new().rx(&frame), (drop(LinkBroadcast), vec![]), "{dst} in {link}");
        }
    }
}

#[test]
fn ip_6_dhcp_may_be_broadcast_and_may_come_from_nobody() {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let discover = |src, dst, link| {
        let mut frame = sent_to(&udp(ip(src, dst, 64), 68, 67, &[1; 300]), link);
        frame[6..12].copy_from_slice(&mac(A).0);
        frame
    };
    let everybody = Ipv4Addr::BROADCAST;
    for (src, dst, link, expected) in [
        (nobody, everybody, Mac::BROADCAST, Outcome::Dhcp),
        (nobody, everybody, mac(GATEWAY), Outcome::Dhcp),
        (A, everybody, Mac::BROADCAST, Outcome::Dhcp),
        (A, addr("10.0.0.255"), Mac::BROADCAST, Outcome::Dhcp),
        (A, GATEWAY, mac(GATEWAY), Outcome::Dhcp),
        (nobody, GATEWAY, mac(GATEWAY), Outcome::Dhcp),
        (A, GATEWAY, Mac::BROADCAST, drop(LinkBroadcast)),
        (OUTSIDE, everybody, Mac::BROADCAST, drop(SpoofedSource)),
        (GATEWAY, everybody, Mac::BROADCAST, drop(SpoofedSource)),
        (nobody, OUTSIDE, mac(GATEWAY), drop(BadSourceAddress)),
        (A, OUTSIDE, mac(GATEWAY), UPLINK),
        (nobody, addr("224.0.0.1"), Mac::BROADCAST, drop(BadSourceAddress)),
    ] {
        assert_eq!(World::new().rx(&discover(src, dst, link)), (expected, vec![]), "{src} > {dst} in {link}");
    }
    let mut world = World::with(|config| config.services.clear());
    let refused = world.rx(&discover(A, everybody, Mac::BROADCAST));
    assert_eq!(refused, (drop(MulticastNotRouted), vec![]), "nobody serves DHCP here");
    let mut corrupt = discover(nobody, everybody, Mac::BROADCAST);
    corrupt[60] ^= 1;
    assert_eq!(World::new().rx(&corrupt), (drop(TransportBadChecksum), vec![]));
}

#[test]
fn ip_8_source_routes_are_refused_and_unknown_options_pass() {
    let plain = ping(A, OUTSIDE, 64);
    for (options, expected) in [
        (&[7, 7, 4, 0, 0, 0, 0, 0][..], UPLINK),
        (&[148, 4, 0, 0], UPLINK),
        (&[200, 8, 1, 2, 3, 4, 5, 6], UPLINK),
        (&[131, 7, 4, 192, 0, 2, 1, 0], drop(Ipv4SourceRoute)),
        (&[137, 7, 4, 192, 0, 2, 1, 0], drop(Ipv4SourceRoute)),
        (&[200, 9, 1, 2, 3, 4, 5, 6], drop(Ipv4BadOption)),
        (&[200, 1, 0, 0], drop(Ipv4BadOption)),
    ] {
        assert_eq!(World::new().rx(&with_options(&plain, options)), (expected, vec![]), "{options:?}");
    }
}

#[test]
fn ip_8_the_transport_is_found_behind_the_options() {
    let frame = with_options(&ping(A, GATEWAY, 64), &[200, 8, 1, 2, 3, 4, 5, 6]);
    let (outcome, sent) = World::new().rx(&frame);
    assert_eq!(outcome, REPLY);
    assert!(sent[0].contains("ICMP echo reply id 7 seq 1"), "{sent:?}");
}

#[test]
fn a_partial_checksum_that_would_be_written_into_a_header_is_refused() {
    let frame = udp(ip(A, OUTSIDE, 64), 1000, 2000, b"hello");
    // At offset 12 of the IP header: the source address would change after it was checked.
    for (start, offset, expected) in [
        (14, 12, drop(BadVnetHeader)),
        (33, 0, drop(BadVnetHeader)),
        (34, 6, UPLINK),
        (40, 0, drop(BadVnetHeader)),
        (42, 0, UPLINK),
    ] {
        assert_eq!(World::new().rx_meta(partial(start, offset), &frame), (expected, vec![]), "{start}+{offset}");
    }
}

#[test]
fn only_untagged_frames_are_the_gateways_and_a_priority_is_no_vlan() {
    let frame = ping(A, OUTSIDE, 64);
    assert_eq!(World::new().rx(&tagged(&frame, 0xe000)), (UPLINK, vec![]));
    assert_eq!(World::new().rx(&tagged(&frame, 0x0001)), (drop(UnknownEthertype), vec![]));
    assert_eq!(World::new().rx(&tagged(&tagged(&frame, 5), 0)), (drop(UnknownEthertype), vec![]));
}

#[test]
fn other_network_protocols_are_not_the_gateways() {
    let of_type = |kind: [u8; 2], rest: &[u8]| [&mac(GATEWAY).0[..], &mac(A).0, &kind, rest].concat();
    let mut ipv6 = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    ipv6.resize(40, 0);
    for (frame, reason) in [
        (of_type([0x86, 0xdd], &ipv6), Ipv6NotRouted),
        (of_type([0x86, 0xdd], &ipv6[..39]), Ipv6Malformed),
        (of_type([0x88, 0xb5], &[1; 46]), UnknownEthertype),
        (of_type([0x00, 0x2e], &[1; 46]), UnknownEthertype),
    ] {
        assert_eq!(World::new().rx(&frame), (drop(reason), vec![]));
    }
    let mut world = World::new();
    world.rx(&of_type([0x86, 0xdd], &ipv6));
    assert_eq!(world.journey.steps.last().unwrap().text, DropReason::Ipv6NotRouted.text());
}

#[test]
fn fragments_and_super_frames_reach_the_uplink_whole() {
    let datagram = udp(ip(A, OUTSIDE, 64), 1000, 2000, &[0; 64]);
    for flags_and_offset in [[0x20, 0x00], [0x20, 0x05], [0x00, 0x05]] {
        assert_eq!(World::new().rx(&patched(&datagram, 6, &flags_and_offset)), (UPLINK, vec![]));
    }
    let (meta, frame) = tcp_partial(ip(A, OUTSIDE, 64), 80, 1, 1, 0x10, &[0; 60_000]);
    let meta = Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size: 1460, ecn: false }), ..meta };
    assert_eq!(World::new().rx_meta(meta, &frame), (UPLINK, vec![]));
}
