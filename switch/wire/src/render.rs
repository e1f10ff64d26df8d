//! One line for one frame, for logs, journeys and failing tests.

use std::fmt::Write;
use std::net::Ipv4Addr;

use etherparse::{IcmpEchoHeader, Icmpv4Type, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use crate::{ChecksumState, Mac, Meta};

/// The frame as one line: addresses, what it is, its length, and what its metadata says.
///
/// ```
/// # use tapswitch_wire::{render, Meta};
/// assert_eq!(render(&Meta::PLAIN, &[0; 4]), "cut short: 4 bytes");
/// ```
pub fn render(meta: &Meta, frame: &[u8]) -> String {
    if frame.len() < 14 {
        return format!("cut short: {} bytes", frame.len());
    }
    let mac = |at: usize| {
        let mut bytes = [0; 6];
        bytes.copy_from_slice(&frame[at..at + 6]);
        Mac(bytes)
    };
    let mut line = format!("{} > {} ", mac(6), mac(0));
    match LaxSlicedPacket::from_ethernet(frame) {
        Ok(packet) => describe(&mut line, &packet, frame),
        Err(_) => line.push_str("unreadable"),
    }
    let _ = write!(line, ", {} bytes", frame.len());
    if let Some(gso) = meta.gso {
        let _ = write!(line, ", {:?} segments of {}", gso.kind, gso.size);
    }
    if let ChecksumState::Partial { .. } = meta.checksum {
        line.push_str(", partial checksum");
    }
    line
}

fn describe(line: &mut String, packet: &LaxSlicedPacket<'_>, frame: &[u8]) {
    for vlan in packet.vlan_ids() {
        let _ = write!(line, "vlan {} ", vlan.value());
    }
    match &packet.net {
        Some(LaxNetSlice::Arp(arp)) => {
            let ip = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).unwrap_or(Ipv4Addr::UNSPECIFIED);
            let (spa, tpa) = (ip(arp.sender_protocol_addr()), ip(arp.target_protocol_addr()));
            let _ = match arp.operation().0 {
                1 => write!(line, "ARP who-has {tpa} tell {spa}"),
                2 => {
                    let sha = <[u8; 6]>::try_from(arp.sender_hw_addr()).map(Mac).unwrap_or_default();
                    write!(line, "ARP {spa} is-at {sha}")
                }
                other => write!(line, "ARP operation {other}"),
            };
        }
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let _ = write!(line, "IPv4 {} > {} ttl {} ", header.source_addr(), header.destination_addr(), header.ttl());
            if header.is_fragmenting_payload() {
                let _ = write!(line, "fragment at {} ", header.fragments_offset().value() * 8);
            }
            transport(line, packet, header.protocol().0);
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (src, dst) = (header.source_addr(), header.destination_addr());
            let _ = write!(line, "IPv6 {src} > {dst} hops {} ", header.hop_limit());
            transport(line, packet, header.next_header().0);
        }
        None => {
            let _ = write!(line, "ethertype {:02x}{:02x}", frame[12], frame[13]);
        }
    }
}

fn transport(line: &mut String, packet: &LaxSlicedPacket<'_>, protocol: u8) {
    let _ = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let mut flags = String::new();
            let set = [
                (tcp.syn(), 'S'),
                (tcp.fin(), 'F'),
                (tcp.rst(), 'R'),
                (tcp.psh(), 'P'),
                (tcp.ack(), '.'),
                (tcp.urg(), 'U'),
                (tcp.ece(), 'E'),
                (tcp.cwr(), 'W'),
            ];
            flags.extend(set.iter().filter(|(on, _)| *on).map(|(_, letter)| letter));
            write!(
                line,
                "TCP {} > {} [{flags}] seq {} ack {} win {} payload {}",
                tcp.source_port(),
                tcp.destination_port(),
                tcp.sequence_number(),
                tcp.acknowledgment_number(),
                tcp.window_size(),
                tcp.payload().len()
            )
        }
        Some(TransportSlice::Udp(udp)) => {
            let (src, dst) = (udp.source_port(), udp.destination_port());
            let name = match (src, dst) {
                (67 | 68, 67 | 68) => "DHCP",
                (53, _) | (_, 53) => "DNS",
                _ => "UDP",
            };
            write!(line, "{name} {src} > {dst} payload {}", udp.payload().len())
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            let echo = |line: &mut String, what: &str, echo: &IcmpEchoHeader| {
                write!(line, "ICMP echo {what} id {} seq {}", echo.id, echo.seq)
            };
            match icmp.icmp_type() {
                Icmpv4Type::EchoRequest(header) => echo(line, "request", &header),
                Icmpv4Type::EchoReply(header) => echo(line, "reply", &header),
                _ => write!(line, "ICMP type {} code {}", icmp.type_u8(), icmp.code_u8()),
            }
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            write!(line, "ICMPv6 type {} code {}", icmp.type_u8(), icmp.code_u8())
        }
        _ => write!(line, "protocol {protocol}"),
    };
}
