//! Packets of these tests, made from what is to be in them.

use std::net::Ipv4Addr;

use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{ChecksumState, Gso, GsoKind, Mac, Meta, checksum};

use super::{GATEWAY, OURS, ROUTER, mac};

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;

/// The link and IP headers of a packet.
#[derive(Clone, Copy)]
pub struct Packet {
    link: Link,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ttl: u8,
    tos: u8,
    /// Identification of a packet that may be fragmented; others have DF.
    id: Option<u16>,
}

const fn packet(link: Link, src: Ipv4Addr, dst: Ipv4Addr) -> Packet {
    Packet { link, src, dst, ttl: 64, tos: 0, id: None }
}

/// A container sends it to the gateway.
pub fn leaving(src: Ipv4Addr, dst: Ipv4Addr) -> Packet {
    packet(Link { src: mac(src), dst: mac(GATEWAY) }, src, dst)
}

/// We send it to the router of the uplink, one hop later.
pub fn left(src: Ipv4Addr, dst: Ipv4Addr) -> Packet {
    packet(Link { src: mac(OURS), dst: mac(ROUTER) }, src, dst).ttl(63)
}

/// The router of the uplink sends it to us.
pub fn coming(src: Ipv4Addr, dst: Ipv4Addr) -> Packet {
    packet(Link { src: mac(ROUTER), dst: mac(OURS) }, src, dst)
}

/// The gateway sends it to a container, one hop later.
pub fn come(src: Ipv4Addr, dst: Ipv4Addr) -> Packet {
    packet(Link { src: mac(GATEWAY), dst: mac(dst) }, src, dst).ttl(63)
}

impl Packet {
    pub fn ttl(self, ttl: u8) -> Packet {
        Packet { ttl, ..self }
    }

    pub fn tos(self, tos: u8) -> Packet {
        Packet { tos, ..self }
    }

    /// It may be fragmented.
    pub fn id(self, id: u16) -> Packet {
        Packet { id: Some(id), ..self }
    }

    fn header(self) -> Ip {
        let Packet { src, dst, ttl, tos, .. } = self;
        Ip { src: src.into(), dst: dst.into(), ttl, tos, id: 0x1234 }
    }

    fn finished(self, mut frame: Vec<u8>) -> Vec<u8> {
        if let Some(id) = self.id {
            let [high, low] = id.to_be_bytes();
            frame[18..22].copy_from_slice(&[high, low, 0, 0]);
            fix_header(&mut frame);
        }
        frame
    }

    pub fn udp(self, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        build::udp(&mut frame, self.link, self.header(), ports.0, ports.1, payload);
        self.finished(frame)
    }

    /// UDP without a checksum.
    pub fn udp_plain(self, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut frame = self.udp(ports, payload);
        frame[40..42].copy_from_slice(&[0, 0]);
        frame
    }

    /// A segment whose checksum is left to be completed.
    pub fn tcp_partial(self, ports: (u16, u16), flags: u8, options: &[u8], payload: &[u8]) -> (Meta, Vec<u8>) {
        let tcp = Tcp { src_port: ports.0, dst_port: ports.1, seq: 1000, ack: 2000, flags, window: 500, options };
        let mut frame = Vec::new();
        let meta = build::tcp(&mut frame, self.link, self.header(), tcp, payload.len());
        frame.extend_from_slice(payload);
        (meta, self.finished(frame))
    }

    /// An empty segment with these sequence and acknowledgement numbers.
    pub fn tcp_at(self, ports: (u16, u16), flags: u8, (seq, ack): (u32, u32)) -> Vec<u8> {
        let tcp = Tcp { src_port: ports.0, dst_port: ports.1, seq, ack, flags, window: 500, options: &[] };
        let mut frame = Vec::new();
        let mut meta = build::tcp(&mut frame, self.link, self.header(), tcp, 0);
        let end = frame.len();
        checksum::complete(&mut meta, &mut frame, end).expect("a checksum to complete");
        frame
    }

    pub fn tcp(self, ports: (u16, u16), flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let (mut meta, mut frame) = self.tcp_partial(ports, flags, options, payload);
        let end = frame.len();
        checksum::complete(&mut meta, &mut frame, end).expect("a checksum to complete");
        frame
    }

    /// Several segments as one super-frame.
    pub fn tcp_super(self, ports: (u16, u16), size: u16, payload: &[u8]) -> (Meta, Vec<u8>) {
        let (meta, frame) = self.tcp_partial(ports, ACK, &[], payload);
        (Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size, ecn: false }), ..meta }, frame)
    }

    /// Several datagrams as one super-frame.
    pub fn udp_super(self, ports: (u16, u16), size: u16, payload: &[u8]) -> (Meta, Vec<u8>) {
        let mut frame = self.udp(ports, payload);
        let sum = checksum::pseudo_header(self.src.into(), self.dst.into(), 17, 8 + payload.len() as u32);
        frame[40..42].copy_from_slice(&sum.to_be_bytes());
        let checksum = ChecksumState::Partial { start: 34, offset: 6 };
        (Meta { checksum, gso: Some(Gso { kind: GsoKind::Udp, size, ecn: false }) }, frame)
    }

    pub fn ping(self, id: u16, data: &[u8]) -> Vec<u8> {
        self.icmp(8, 0, id, data)
    }

    pub fn pong(self, id: u16, data: &[u8]) -> Vec<u8> {
        self.icmp(0, 0, id, data)
    }

    fn icmp(self, kind: u8, code: u8, id: u16, body: &[u8]) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        let mut frame = Vec::new();
        build::icmp(&mut frame, self.link, self.header(), kind, code, [high, low, 0, 1], body);
        self.finished(frame)
    }

    /// An ICMP error about a frame, of which it quotes so many bytes of transport header and payload.
    pub fn error(self, (kind, code): (u8, u8), mtu: u16, about: &[u8], quoted: usize) -> Vec<u8> {
        let [high, low] = mtu.to_be_bytes();
        let quote = &about[14..about.len().min(34 + quoted)];
        let mut frame = Vec::new();
        build::icmp(&mut frame, self.link, self.header(), kind, code, [0, 0, high, low], quote);
        self.finished(frame)
    }

    /// The fragments of a UDP datagram, each with so many bytes behind the IP header at most.
    pub fn udp_fragments(self, ports: (u16, u16), payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let whole = self.udp(ports, payload);
        let body = &whole[34..];
        let pieces = body.chunks(size).enumerate().map(|(at, piece)| {
            let more = if (at + 1) * size < body.len() { 0x2000 } else { 0 };
            let mut frame = [&whole[..34], piece].concat();
            frame[16..18].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
            let word: u16 = more | (at * size / 8) as u16;
            frame[20..22].copy_from_slice(&word.to_be_bytes());
            fix_header(&mut frame);
            frame
        });
        pieces.collect()
    }
}

/// Makes the checksum of an IPv4 header right again.
pub fn fix_header(frame: &mut [u8]) {
    let header = 14..14 + usize::from(frame[14] & 0x0f) * 4;
    frame[24..26].copy_from_slice(&[0, 0]);
    let check = checksum::checksum(0, &frame[header]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}

pub fn who_has(target: Ipv4Addr, from: Ipv4Addr) -> Vec<u8> {
    let arp = Arp { operation: 1, sha: mac(from), spa: from, tha: Mac::ZERO, tpa: target };
    let mut frame = Vec::new();
    build::arp(&mut frame, Link { src: mac(from), dst: Mac::BROADCAST }, arp);
    frame
}

pub fn is_at(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let arp = Arp { operation: 2, sha: mac(from), spa: from, tha: mac(to), tpa: to };
    let mut frame = Vec::new();
    build::arp(&mut frame, Link { src: mac(from), dst: mac(to) }, arp);
    frame
}

/// Address and payload of a packet's identification: what tells fragments of one datagram from another's.
pub fn identification(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[18], frame[19]])
}

/// Offset in bytes, whether more follow, and the bytes behind the IP header.
pub fn piece(frame: &[u8]) -> (usize, bool, &[u8]) {
    let word = u16::from_be_bytes([frame[20], frame[21]]);
    let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0, &frame[34..end])
}
