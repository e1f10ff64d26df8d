//! What the gateway and the relay make from nothing is accepted by etherparse, with right checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{Frame, FrameRef, Mac, Meta};

use crate::oracle;
use crate::packets::{address4, address6, payload, port, tcp_options};

fn link() -> impl Strategy<Value = Link> {
    any::<[[u8; 6]; 2]>().prop_map(|[src, dst]| Link { src: Mac(src), dst: Mac(dst) })
}

fn ip() -> impl Strategy<Value = Ip> {
    let v4 = (address4(), address4()).prop_map(|(src, dst)| [src, dst].map(|ip| IpAddr::from(Ipv4Addr::from(ip))));
    let v6 = (address6(), address6()).prop_map(|(src, dst)| [src, dst].map(|ip| IpAddr::from(Ipv6Addr::from(ip))));
    (prop_oneof![v4, v6], any::<(u8, u8, u16)>()).prop_map(|([src, dst], (ttl, tos, id))| Ip { src, dst, ttl, tos, id })
}

/// Addresses, TTL and class as etherparse reads them.
fn check_ip(packet: &SlicedPacket<'_>, ip: Ip) {
    match packet.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(found) => {
            let header = found.header();
            assert_eq!(IpAddr::from(header.source_addr()), ip.src);
            assert_eq!(IpAddr::from(header.destination_addr()), ip.dst);
            assert_eq!((header.ttl(), header.identification(), header.dont_fragment()), (ip.ttl, ip.id, true));
            assert_eq!(header.dcp().value() << 2 | header.ecn().value(), ip.tos);
        }
        NetSlice::Ipv6(found) => {
            let header = found.header();
            assert_eq!(IpAddr::from(header.source_addr()), ip.src);
            assert_eq!(IpAddr::from(header.destination_addr()), ip.dst);
            assert_eq!((header.hop_limit(), header.traffic_class()), (ip.ttl, ip.tos));
        }
        NetSlice::Arp(_) => panic!("ARP"),
    }
}

proptest! {
    #[test]
    fn udp_is_what_was_asked_for(link in link(), ip in ip(), ports in [port(), port()], payload in payload()) {
        let mut out = vec![1, 2, 3];
        build::udp(&mut out, link, ip, ports[0], ports[1], &payload);
        prop_assert_eq!(oracle::checksums(&out), Ok(()));
        let packet = SlicedPacket::from_ethernet(&out).unwrap();
        check_ip(&packet, ip);
        let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
        prop_assert_eq!([udp.source_port(), udp.destination_port()], ports);
        prop_assert_ne!(udp.checksum(), 0, "zero says that there is none");
        prop_assert_eq!(udp.payload(), payload);
    }

    #[test]
    fn icmp_is_what_was_asked_for(link in link(), ip in ip(), kind in 0u8..13, code: u8, word: [u8; 4], body in payload()) {
        let mut out = vec![1, 2, 3];
        build::icmp(&mut out, link, ip, kind, code, word, &body);
        prop_assert_eq!(oracle::checksums(&out), Ok(()));
        let packet = SlicedPacket::from_ethernet(&out).unwrap();
        check_ip(&packet, ip);
        let message = match packet.transport {
            Some(TransportSlice::Icmpv4(icmp)) => icmp.slice(),
            Some(TransportSlice::Icmpv6(icmp)) => icmp.slice(),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(&message[..2], [kind, code]);
        prop_assert_eq!(&message[4..], [&word[..], &body].concat());
    }

    #[test]
    fn tcp_is_what_was_asked_for(
        link in link(),
        ip in ip(),
        ports in [port(), port()],
        numbers in any::<(u32, u32, u16, u8)>(),
        options in tcp_options(),
        payload in payload(),
    ) {
        let mut out = vec![1, 2, 3];
        let (seq, ack, window, flags) = numbers;
        let [src_port, dst_port] = ports;
        let tcp = Tcp { src_port, dst_port, seq, ack, flags, window, options: &options };
        let meta = build::tcp(&mut out, link, ip, tcp, payload.len());
        out.extend_from_slice(&payload);
        prop_assert!(Frame::parse(meta, &mut out.clone()[..]).is_ok());
        prop_assert_eq!(oracle::checksums_when_complete(&meta, &out), Ok(()));
        let packet = SlicedPacket::from_ethernet(&out).unwrap();
        check_ip(&packet, ip);
        let Some(TransportSlice::Tcp(found)) = packet.transport else { panic!("no TCP") };
        prop_assert_eq!([found.source_port(), found.destination_port()], ports);
        prop_assert_eq!((found.sequence_number(), found.acknowledgment_number()), (seq, ack));
        prop_assert_eq!((found.window_size(), found.slice()[13]), (window, flags));
        prop_assert_eq!(found.options(), options);
        prop_assert_eq!(found.payload(), payload);
    }

    #[test]
    fn arp_is_what_was_asked_for(link in link(), operation: u16, macs: [[u8; 6]; 2], ips: [[u8; 4]; 2]) {
        let mut out = vec![1, 2, 3];
        let (sha, tha, spa, tpa) = (Mac(macs[0]), Mac(macs[1]), ips[0].into(), ips[1].into());
        build::arp(&mut out, link, Arp { operation, sha, spa, tha, tpa });
        let packet = SlicedPacket::from_ethernet(&out).unwrap();
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP") };
        prop_assert_eq!(arp.operation().0, operation);
        prop_assert_eq!(arp.sender_hw_addr(), macs[0]);
        prop_assert_eq!(arp.sender_protocol_addr(), ips[0]);
        prop_assert_eq!(arp.target_hw_addr(), macs[1]);
        prop_assert_eq!(arp.target_protocol_addr(), ips[1]);
        let frame = FrameRef::parse(Meta::PLAIN, &out[..]).unwrap();
        prop_assert_eq!((frame.src_mac(), frame.dst_mac()), (link.src, link.dst));
    }
}
