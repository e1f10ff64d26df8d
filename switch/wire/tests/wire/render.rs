//! What people read.

use std::net::Ipv4Addr;

use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{ChecksumState, Gso, GsoKind, Mac, Meta, render};

const A: Mac = Mac([2, 0x42, 10, 0, 0, 2]);
const B: Mac = Mac([2, 0x42, 10, 0, 0, 1]);
const LINK: Link = Link { src: A, dst: B };

fn ip(src: &str, dst: &str) -> Ip {
    Ip { src: src.parse().unwrap(), dst: dst.parse().unwrap(), ttl: 64, tos: 0, id: 0 }
}

fn made(make: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    make(&mut out);
    out
}

fn arp(operation: u16) -> Vec<u8> {
    let (spa, tpa) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1));
    made(|out| build::arp(out, LINK, Arp { operation, sha: A, spa, tha: B, tpa }))
}

fn udp(src: u16, dst: u16) -> Vec<u8> {
    made(|out| build::udp(out, LINK, ip("10.0.0.2", "192.0.2.1"), src, dst, b"hello"))
}

fn icmp(kind: u8, code: u8) -> Vec<u8> {
    made(|out| build::icmp(out, LINK, ip("10.0.0.2", "10.0.0.1"), kind, code, [0, 7, 0, 1], &[0; 56]))
}

fn icmp6() -> Vec<u8> {
    made(|out| build::icmp(out, LINK, ip("fd00::2", "fd00::1"), 135, 0, [0; 4], &[0; 16]))
}

fn tcp(flags: u8) -> Vec<u8> {
    let header = Tcp { src_port: 40_000, dst_port: 80, seq: 1, ack: 2, flags, window: 512, options: &[] };
    made(|out| {
        build::tcp(out, LINK, ip("10.0.0.2", "192.0.2.1"), header, 0);
    })
}

fn changed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    frame
}

#[test]
fn each_kind_of_frame_is_one_line() {
    let table: Vec<(Vec<u8>, &str)> = vec![
        (arp(1), "ARP who-has 10.0.0.1 tell 10.0.0.2, 42 bytes"),
        (arp(2), "ARP 10.0.0.2 is-at 02:42:0a:00:00:02, 42 bytes"),
        (arp(9), "ARP operation 9, 42 bytes"),
        (udp(1000, 2000), "IPv4 10.0.0.2 > 192.0.2.1 ttl 64 UDP 1000 > 2000 payload 5, 47 bytes"),
        (udp(1000, 53), "IPv4 10.0.0.2 > 192.0.2.1 ttl 64 DNS 1000 > 53 payload 5, 47 bytes"),
        (udp(68, 67), "IPv4 10.0.0.2 > 192.0.2.1 ttl 64 DHCP 68 > 67 payload 5, 47 bytes"),
        (icmp(8, 0), "IPv4 10.0.0.2 > 10.0.0.1 ttl 64 ICMP echo request id 7 seq 1, 98 bytes"),
        (icmp(0, 0), "IPv4 10.0.0.2 > 10.0.0.1 ttl 64 ICMP echo reply id 7 seq 1, 98 bytes"),
        (icmp(3, 13), "IPv4 10.0.0.2 > 10.0.0.1 ttl 64 ICMP type 3 code 13, 98 bytes"),
        (icmp6(), "IPv6 fd00::2 > fd00::1 hops 64 ICMPv6 type 135 code 0, 78 bytes"),
        (tcp(2), "IPv4 10.0.0.2 > 192.0.2.1 ttl 64 TCP 40000 > 80 [S] seq 1 ack 2 win 512 payload 0, 54 bytes"),
        (
            tcp(0xff),
            "IPv4 10.0.0.2 > 192.0.2.1 ttl 64 TCP 40000 > 80 [SFRP.UEW] seq 1 ack 2 win 512 payload 0, 54 bytes",
        ),
        (changed(tcp(2), |out| out[23] = 47), "IPv4 10.0.0.2 > 192.0.2.1 ttl 64 protocol 47, 54 bytes"),
        (
            changed(udp(1, 2), |out| out[21] = 2),
            "IPv4 10.0.0.2 > 192.0.2.1 ttl 64 fragment at 16 protocol 17, 47 bytes",
        ),
        (changed(tcp(2), |out| out.truncate(40)), "IPv4 10.0.0.2 > 192.0.2.1 ttl 64 protocol 6, 40 bytes"),
        (
            changed(arp(1), |out| drop(out.splice(12..12, [0x81, 0, 0x20, 5]))),
            "vlan 5 ARP who-has 10.0.0.1 tell 10.0.0.2, 46 bytes",
        ),
        (changed(arp(1), |out| out[12..14].copy_from_slice(&[0x88, 0xcc])), "ethertype 88cc, 42 bytes"),
        (changed(udp(1, 2), |out| out.truncate(20)), "ethertype 0800, 20 bytes"),
    ];
    for (frame, line) in table {
        assert_eq!(render(&Meta::PLAIN, &frame), format!("{A} > {B} {line}"));
    }
    assert_eq!(render(&Meta::PLAIN, &[0; 13]), "cut short: 13 bytes");
}

#[test]
fn metadata_is_told_too() {
    let partial = ChecksumState::Partial { start: 34, offset: 16 };
    let end = |meta| render(&meta, &tcp(2)).split(", ").skip(1).collect::<Vec<_>>().join(", ");
    assert_eq!(end(Meta { checksum: partial, gso: None }), "54 bytes, partial checksum");
    let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1448, ecn: false });
    assert_eq!(end(Meta { checksum: partial, gso }), "54 bytes, Tcp4 segments of 1448, partial checksum");
    assert_eq!(end(Meta { checksum: ChecksumState::Verified, gso: None }), "54 bytes");
}
