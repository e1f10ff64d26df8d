//! ICMP errors: when there is one, and what it holds.

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_nat::IcmpError;
use tapswitch_wire::DropReason::*;
use tapswitch_wire::{DropReason, FrameRef, Instant, Mac, Meta};

use crate::world::*;

/// Asks for an ICMP error as the uplink does; how it ended, and the error.
fn tell(world: &mut World, frame: &[u8], error: IcmpError) -> (Result<(), DropReason>, Vec<u8>) {
    let mut sent = Vec::new();
    let original = FrameRef::parse(Meta::PLAIN, frame).unwrap();
    let mut out = |meta: &Meta, frame: &[u8]| {
        assert_eq!(*meta, Meta::PLAIN);
        sent.extend_from_slice(frame);
    };
    let told = world.gateway.icmp_error(&original, error, world.now, &mut out);
    (told, sent)
}

#[test]
fn every_error_has_its_type_and_code() {
    for (error, kind, code, word, text) in [
        (IcmpError::NetUnreachable, 3, 0, [0; 4], "network unreachable (ICMP 3/0)"),
        (IcmpError::HostUnreachable, 3, 1, [0; 4], "host unreachable (ICMP 3/1)"),
        (IcmpError::ProtocolUnreachable, 3, 2, [0; 4], "protocol unreachable (ICMP 3/2)"),
        (IcmpError::PortUnreachable, 3, 3, [0; 4], "port unreachable (ICMP 3/3)"),
        (
            IcmpError::FragmentationNeeded { mtu: 1400 },
            3,
            4,
            [0, 0, 0x05, 0x78],
            "fragmentation needed, MTU 1400 (ICMP 3/4)",
        ),
        (IcmpError::AdminProhibited, 3, 13, [0; 4], "administratively prohibited (ICMP 3/13)"),
        (IcmpError::TimeExceeded, 11, 0, [0; 4], "time exceeded (ICMP 11/0)"),
    ] {
        let (told, sent) = tell(&mut World::new(), &ping(A, OUTSIDE, 64), error);
        assert_eq!(told, Ok(()));
        assert_eq!((sent[34], sent[35], &sent[38..42]), (kind, code, &word[..]));
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn ip_7_the_error_comes_from_the_gateway_and_quotes_up_to_576_bytes() {
    for (payload, quoted) in [(0, 28), (8, 36), (520, 548), (521, 548), (1472, 548), (60_000, 548)] {
        let frame = udp(ip(A, OUTSIDE, 64), 1000, 2000, &vec![7; payload]);
        let (told, sent) = tell(&mut World::new(), &frame, IcmpError::HostUnreachable);
        assert_eq!(told, Ok(()));
        assert_eq!(sent.len(), 14 + 20 + 8 + quoted);
        assert_eq!(sent[42..], frame[14..14 + quoted]);
        assert_eq!(sent[..12], [mac(A).0, mac(GATEWAY).0].concat());
        let reply = FrameRef::parse(Meta::PLAIN, &sent[..]).unwrap();
        assert!(reply.ipv4_checksum_ok() && reply.transport_checksum_ok());
        assert_eq!((reply.src_ip(), reply.dst_ip(), reply.ttl()), (Some(GATEWAY.into()), Some(A.into()), 64));
        assert_eq!(sent[15], 0xc0, "precedence 6");
        assert_eq!(sent[18..20], [0, 0], "the identification counts nothing");
    }
}

#[test]
fn ip_7_options_are_quoted_and_padding_is_not() {
    let mut frame = with_options(&udp(ip(A, OUTSIDE, 64), 1000, 2000, b""), &[7, 7, 4, 0, 0, 0, 0, 0]);
    let packet = frame[14..].to_vec();
    frame.resize(60, 0xee);
    assert_eq!(tell(&mut World::new(), &frame, IcmpError::HostUnreachable).1[42..], packet);
}

#[test]
fn ip_7_there_is_no_error_about_what_nobody_may_be_told() {
    let good = udp(ip(A, OUTSIDE, 64), 1000, 2000, b"hello");
    let from = |src: &str| patched(&good, 12, &src.parse::<Ipv4Addr>().unwrap().octets());
    let to = |dst: &str| patched(&good, 16, &dst.parse::<Ipv4Addr>().unwrap().octets());
    let kind = |kind| icmp(ip(A, OUTSIDE, 64), kind, 0, &[0; 28]);
    for (what, frame, expected) in [
        ("a datagram", good.clone(), Ok(())),
        ("an echo request", kind(8), Ok(())),
        ("an echo reply", kind(0), Ok(())),
        ("a timestamp", kind(13), Ok(())),
        ("the first fragment", patched(&good, 6, &[0x20, 0]), Ok(())),
        ("unreachable", kind(3), Err(IcmpIgnored)),
        ("source quench", kind(4), Err(IcmpIgnored)),
        ("redirect", kind(5), Err(IcmpIgnored)),
        ("time exceeded", kind(11), Err(IcmpIgnored)),
        ("parameter problem", kind(12), Err(IcmpIgnored)),
        ("unknown ICMP", kind(99), Err(IcmpIgnored)),
        ("ICMP cut short", patched(&patched(&good[..36], 9, &[1]), 2, &[0, 22]), Err(IcmpIgnored)),
        ("a later fragment", patched(&good, 6, &[0, 1]), Err(FragmentNotSupported)),
        ("a later fragment of many", patched(&good, 6, &[0x20, 1]), Err(FragmentNotSupported)),
        ("a broadcast frame", sent_to(&good, Mac::BROADCAST), Err(LinkBroadcast)),
        ("a multicast frame", sent_to(&good, Mac([1, 0, 0x5e, 0, 0, 1])), Err(LinkBroadcast)),
        ("to everybody", to("255.255.255.255"), Err(MulticastNotRouted)),
        ("to the subnet", to("10.0.0.255"), Err(MulticastNotRouted)),
        ("to a group", to("224.0.0.1"), Err(MulticastNotRouted)),
        ("from nobody", from("0.0.0.0"), Err(BadSourceAddress)),
        ("from loopback", from("127.0.0.1"), Err(BadSourceAddress)),
        ("from a group", from("224.0.0.1"), Err(BadSourceAddress)),
        ("from class E", from("240.0.0.1"), Err(BadSourceAddress)),
        ("from everybody", from("255.255.255.255"), Err(BadSourceAddress)),
        ("from the subnet", from("10.0.0.255"), Err(BadSourceAddress)),
        ("from ourselves", from("10.0.0.1"), Err(BadSourceAddress)),
        ("ARP", who_has(GATEWAY, A), Err(UnknownEthertype)),
    ] {
        let (told, sent) = tell(&mut World::new(), &frame, IcmpError::HostUnreachable);
        assert_eq!(told, expected, "{what}");
        assert_eq!(sent.is_empty(), told.is_err(), "{what}");
    }
}

#[test]
fn ip_7_errors_are_limited_for_each_source_and_what_is_withheld_is_counted() {
    let mut world = World::new();
    let closed = |src| udp(ip(src, GATEWAY, 64), 1000, 9, b"");
    let told = |world: &mut World, src| {
        let answers = (0..200).map(|_| world.rx(&closed(src)));
        answers.inspect(|(outcome, _)| assert_eq!(*outcome, drop(NoSuchService))).filter(|(_, o)| o.len() == 1).count()
    };
    assert_eq!(told(&mut world, A), 50);
    assert_eq!(told(&mut world, A), 0);
    assert_eq!(told(&mut world, B), 50, "B has not had any");
    assert_eq!(world.gateway.late_drops().get(IcmpRateLimited), 150 + 200 + 150);
    assert_eq!(tell(&mut world, &ping(A, OUTSIDE, 64), IcmpError::HostUnreachable).0, Err(IcmpRateLimited));
    world.pass(Duration::from_millis(200));
    assert_eq!(told(&mut world, A), 20);
}

#[test]
fn an_error_never_exceeds_a_small_mtu() {
    let mut world = World::with(|config| config.mtu = 68);
    let frame = udp(ip(A, OUTSIDE, 64), 1000, 2000, &[0; 100]);
    assert_eq!(tell(&mut world, &frame, IcmpError::HostUnreachable).1.len(), 14 + 68);
}

#[test]
fn nothing_the_gateway_says_depends_on_anything_but_its_inputs() {
    let run = || {
        let mut world = World::new();
        world.now = Instant::from_secs(5);
        for index in 0..200u8 {
            let hop = Ipv4Addr::new(10, 0, 0, index);
            world.rx(&udp(ip(A, hop, 64), 1000, 9, b""));
            world.rx(&ping(A, OUTSIDE, index));
        }
        world.pass_secs(10);
        world.sent
    };
    assert_eq!(run(), run());
}
