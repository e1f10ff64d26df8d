//! Whole frames, made from nothing: what the gateway and the relay send of their own accord.
//!
//! Each function clears `out` and writes one frame into it, so one buffer serves many frames.

use std::net::{IpAddr, Ipv4Addr};

use crate::parse::{ethertype, protocol};
use crate::{ChecksumState, Mac, Meta, checksum};

/// Who sends to whom at layer 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Source address.
    pub src: Mac,
    /// Destination address.
    pub dst: Mac,
}

/// What goes into an IP header beside lengths and protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address; of the same family as `src`.
    pub dst: IpAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// IPv4 identification; IPv4 packets are sent with DF, for which any value will do (RFC 6864 4.1).
    pub id: u16,
}

/// A TCP header without ports' owner addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tcp<'a> {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The flag bits of byte 13: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    pub flags: u8,
    /// Window as it stands in the header.
    pub window: u16,
    /// Options; their length is a multiple of 4, at most 40.
    pub options: &'a [u8],
}

/// An ARP packet for Ethernet and IPv4 (RFC 826).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// 1 for a request, 2 for a reply.
    pub operation: u16,
    /// Sender's hardware address.
    pub sha: Mac,
    /// Sender's protocol address.
    pub spa: Ipv4Addr,
    /// Target's hardware address.
    pub tha: Mac,
    /// Target's protocol address.
    pub tpa: Ipv4Addr,
}

fn ethernet(out: &mut Vec<u8>, link: Link, kind: u16) {
    out.clear();
    out.extend_from_slice(&link.dst.0);
    out.extend_from_slice(&link.src.0);
    out.extend_from_slice(&kind.to_be_bytes());
}

/// An ARP frame.
pub fn arp(out: &mut Vec<u8>, link: Link, arp: Arp) {
    ethernet(out, link, ethertype::ARP);
    out.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    out.extend_from_slice(&arp.operation.to_be_bytes());
    out.extend_from_slice(&arp.sha.0);
    out.extend_from_slice(&arp.spa.octets());
    out.extend_from_slice(&arp.tha.0);
    out.extend_from_slice(&arp.tpa.octets());
}

/// Ethernet and IP header in front of `len` bytes of `protocol`, which the caller appends.
fn ip(out: &mut Vec<u8>, link: Link, ip: Ip, protocol: u8, len: usize) {
    match (ip.src, ip.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ethernet(out, link, ethertype::IPV4);
            let start = out.len();
            out.extend_from_slice(&[0x45, ip.tos]);
            out.extend_from_slice(&((20 + len) as u16).to_be_bytes());
            out.extend_from_slice(&ip.id.to_be_bytes());
            out.extend_from_slice(&[0x40, 0, ip.ttl, protocol, 0, 0]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            let check = checksum::checksum(0, &out[start..]);
            out[start + 10..start + 12].copy_from_slice(&check.to_be_bytes());
        }
        (src, dst) => {
            ethernet(out, link, ethertype::IPV6);
            let v6 = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            out.extend_from_slice(&(0x6000_0000 | u32::from(ip.tos) << 20).to_be_bytes());
            out.extend_from_slice(&(len as u16).to_be_bytes());
            out.extend_from_slice(&[protocol, ip.ttl]);
            out.extend_from_slice(&v6(src).octets());
            out.extend_from_slice(&v6(dst).octets());
        }
    }
}

/// A UDP datagram with a complete checksum. `payload` holds at most 65 507 bytes (65 487 over IPv6).
pub fn udp(out: &mut Vec<u8>, link: Link, header: Ip, src_port: u16, dst_port: u16, payload: &[u8]) {
    let len = 8 + payload.len();
    ip(out, link, header, protocol::UDP, len);
    let start = out.len();
    for word in [src_port, dst_port, len as u16, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(payload);
    let pseudo = checksum::pseudo_header(header.src, header.dst, protocol::UDP, len as u32);
    let check = match checksum::checksum(pseudo, &out[start..]) {
        0 => 0xffff,
        check => check,
    };
    out[start + 6..start + 8].copy_from_slice(&check.to_be_bytes());
}

/// An ICMP message: type, code, the four bytes behind the checksum, and the rest. Over IPv6 it is ICMPv6.
pub fn icmp(out: &mut Vec<u8>, link: Link, header: Ip, kind: u8, code: u8, word: [u8; 4], body: &[u8]) {
    let len = 8 + body.len();
    let number = if header.src.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    ip(out, link, header, number, len);
    let start = out.len();
    out.extend_from_slice(&[kind, code, 0, 0]);
    out.extend_from_slice(&word);
    out.extend_from_slice(body);
    let pseudo = match header.src {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => checksum::pseudo_header(header.src, header.dst, number, len as u32),
    };
    let check = checksum::checksum(pseudo, &out[start..]);
    out[start + 2..start + 4].copy_from_slice(&check.to_be_bytes());
}

/// Headers of a TCP segment whose payload of `payload_len` bytes the caller appends, with a partial checksum.
///
/// Returns the metadata (without segmentation) that says so. Headers and payload together must fit an IP packet.
pub fn tcp(out: &mut Vec<u8>, link: Link, header: Ip, tcp: Tcp<'_>, payload_len: usize) -> Meta {
    debug_assert!(tcp.options.len().is_multiple_of(4) && tcp.options.len() <= 40);
    let len = 20 + tcp.options.len() + payload_len;
    ip(out, link, header, protocol::TCP, len);
    let start = out.len();
    out.extend_from_slice(&tcp.src_port.to_be_bytes());
    out.extend_from_slice(&tcp.dst_port.to_be_bytes());
    out.extend_from_slice(&tcp.seq.to_be_bytes());
    out.extend_from_slice(&tcp.ack.to_be_bytes());
    out.extend_from_slice(&[((20 + tcp.options.len()) as u8 / 4) << 4, tcp.flags]);
    out.extend_from_slice(&tcp.window.to_be_bytes());
    let pseudo = checksum::pseudo_header(header.src, header.dst, protocol::TCP, len as u32);
    out.extend_from_slice(&pseudo.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(tcp.options);
    Meta { checksum: ChecksumState::Partial { start: start as u16, offset: 16 }, gso: None }
}
