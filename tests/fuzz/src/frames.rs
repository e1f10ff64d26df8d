//! Plausible frames from a few bytes: right addresses, right lengths, right sequence numbers, so that they come far. What
//! is wrong about them is wrong on purpose.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{ChecksumState, FrameRef, Gso, GsoKind, Mac, Meta, Parsed, checksum};

use crate::host;
use crate::record::Record;

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const MTU: u16 = 1500;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;

/// Whom packets are for.
const DESTINATIONS: [Ipv4Addr; 16] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 2),
    GATEWAY,
    Ipv4Addr::new(10, 0, 0, 2),
    Ipv4Addr::new(10, 0, 0, 3),
    Ipv4Addr::new(10, 0, 0, 4),
    Ipv4Addr::new(10, 0, 0, 99),
    Ipv4Addr::new(10, 0, 0, 255),
    Ipv4Addr::BROADCAST,
    Ipv4Addr::new(224, 0, 0, 251),
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::new(169, 254, 169, 254),
    host::OWN,
    Ipv4Addr::new(240, 0, 0, 1),
    Ipv4Addr::new(198, 51, 100, 4),
];

/// Ports that somebody may answer at.
const PORTS: [u16; 8] = [80, 53, 8080, 67, 68, 443, 0, 9999];

/// The container behind a port, which is also the last byte of its address less one.
pub fn address(who: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, who + 1)
}

/// A TCP connection as its container sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub src_port: u16,
    pub dst_port: u16,
}

/// What a container remembers of a connection.
#[derive(Default)]
pub struct Connection {
    /// The next byte it sends.
    next: u32,
    /// The next byte it expects, as far as the frames that came tell.
    pub expected: u32,
    /// The other end's first sequence number, once it was told.
    pub other: Option<u32>,
}

/// Makes frames, and remembers what the numbers of the next ones depend on.
#[derive(Default)]
pub struct Frames {
    pub connections: HashMap<Tuple, Connection>,
}

/// A frame that is sent by a container.
pub struct Made {
    /// Which one.
    pub port: u8,
    pub meta: Meta,
    pub bytes: Vec<u8>,
}

impl Frames {
    /// `args`: who; to whom (low) and from which port (high); port (low 3 bits) and options (high); flags; where the
    /// segment begins, relative to where it should; how much payload; what is wrong.
    pub fn tcp(&mut self, record: &Record) -> Made {
        let [who, to, port, flags, shift, len, wrong] = record.args;
        let who = who % 3 + 1;
        let dst = DESTINATIONS[usize::from(to & 15)];
        let (src_port, dst_port) = (1000 + u16::from(to >> 4), PORTS[usize::from(port & 7)]);
        let tuple = Tuple { src: address(who).into(), dst: dst.into(), src_port, dst_port };
        let connection = self.connections.entry(tuple).or_default();
        // More than fits a packet goes as a super-frame.
        let len = if len < 200 { usize::from(len) } else { (usize::from(len) - 199) * 1100 };
        let len = if flags & SYN != 0 { len.min(600) } else { len };
        let options: &[u8] = match port >> 3 & 7 {
            0 => &[],
            1 => &[2, 4, 5, 0xb4],
            2 => &[2, 4, 5, 0xb4, 1, 3, 3, 7],
            3 => &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 14],
            4 => &[2, 4, 0, 1],
            5 => &[1, 1, 1, 0],
            6 => &[3, 0, 0, 0],
            _ => &[254, 20, 0, 0],
        };
        let shift = i32::from(shift as i8);
        let seq = connection.next.wrapping_add_signed(if wrong & 1 == 0 { shift } else { shift << 12 });
        let ack = connection.expected.wrapping_sub(if wrong & 2 == 0 { 0 } else { u32::from(port) << 4 });
        let window = if wrong & 4 == 0 { 0xffff } else { u16::from(port >> 5) };
        let tcp = Tcp { src_port, dst_port, seq, ack, flags, window, options };
        let mut bytes = Vec::new();
        let mut meta = build::tcp(&mut bytes, link(who, dst), ip(who, dst), tcp, len);
        // The sequence number of each byte is its value, so the other end can see that none is missing.
        let first = seq.wrapping_add(u32::from(flags & SYN != 0));
        bytes.extend((0..len as u32).map(|at| first.wrapping_add(at) as u8));
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let end = seq.wrapping_add(len as u32 + control);
        if end.wrapping_sub(connection.next) as i32 > 0 && wrong & 1 == 0 {
            connection.next = end;
        }
        if len > 1400 {
            meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1000 + u16::from(wrong), ecn: false });
        } else {
            checksum_state(wrong >> 4, &mut meta, &mut bytes);
        }
        Made { port: who, meta, bytes }
    }

    /// `args`: who; to whom and from which port; to which port; TTL; how much payload (two bytes); what is wrong.
    pub fn udp(&self, record: &Record) -> Made {
        let [who, to, port, ttl, _, _, wrong] = record.args;
        let who = who % 3 + 1;
        let dst = DESTINATIONS[usize::from(to & 15)];
        let payload = vec![port; usize::from(record.word(4) % 20_000)];
        let mut bytes = Vec::new();
        let (src_port, dst_port) = (1000 + u16::from(to >> 4), PORTS[usize::from(port & 7)]);
        let ip = Ip { ttl, ..ip(who, dst) };
        build::udp(&mut bytes, link(who, dst), ip, src_port, dst_port, &payload);
        let mut meta = Meta::PLAIN;
        partial(&mut meta, &mut bytes, 6);
        if payload.len() > 1472 {
            meta.gso = Some(Gso { kind: GsoKind::Udp, size: 500 + u16::from(wrong) * 4, ecn: false });
        } else {
            checksum_state(wrong >> 4, &mut meta, &mut bytes);
        }
        Made { port: who, meta, bytes }
    }

    /// `args`: who; to whom; type; code; TTL; how much; what is wrong (high) and identifier (low).
    pub fn icmp(&self, record: &Record) -> Made {
        let [who, to, kind, code, ttl, len, wrong] = record.args;
        let who = who % 3 + 1;
        let dst = DESTINATIONS[usize::from(to & 15)];
        let mut bytes = Vec::new();
        let kind = if kind > 20 { 8 } else { kind };
        let ip = Ip { ttl, ..ip(who, dst) };
        let word = [0, wrong & 15, 0, len];
        build::icmp(&mut bytes, link(who, dst), ip, kind, code % 16, word, &vec![len; usize::from(len)]);
        let mut meta = Meta::PLAIN;
        checksum_state(wrong >> 4, &mut meta, &mut bytes);
        Made { port: who, meta, bytes }
    }

    /// `args`: who; operation; claimed sender; target; to everybody or whom; claimed hardware address.
    pub fn arp(&self, record: &Record) -> Made {
        let [who, operation, sender, target, to, hardware, _] = record.args;
        let who = who % 3 + 1;
        let own = Mac::from_ipv4(address(who));
        let mac = |which: u8| match which % 8 {
            0 => own,
            1 => Mac::BROADCAST,
            2 => Mac::from_ipv4(GATEWAY),
            3 => Mac::ZERO,
            other => Mac::from_ipv4(address(other - 3)),
        };
        let ip = |which: u8| if which & 15 == 0 { address(who) } else { DESTINATIONS[usize::from(which & 15)] };
        let (spa, tpa) = (ip(sender), ip(target));
        let arp = Arp { operation: u16::from(operation % 4), sha: mac(hardware), spa, tha: Mac::ZERO, tpa };
        let mut bytes = Vec::new();
        build::arp(&mut bytes, Link { src: own, dst: mac(to) }, arp);
        Made { port: who, meta: Meta::PLAIN, bytes }
    }

    /// `args`: who; message type; address that is asked for; which fields hold it (bits); transaction; claimed hardware
    /// address; server.
    pub fn dhcp(&self, record: &Record) -> Made {
        let [who, kind, last, fields, transaction, hardware, server] = record.args;
        let who = who % 3 + 1;
        let own = Mac::from_ipv4(address(who));
        // One container may play many clients.
        let chaddr = if hardware == 0 { own } else { Mac([2, 0, 0, 0, who, hardware]) };
        let wanted = Ipv4Addr::new(10, 0, 0, last);
        let mut message = vec![0; 240];
        message[..8].copy_from_slice(&[1, 1, 6, 0, 0, 0, who, transaction]);
        message[10] = fields & 0x80;
        if fields & 1 != 0 {
            message[12..16].copy_from_slice(&wanted.octets());
        }
        message[28..34].copy_from_slice(&chaddr.0);
        message[236..240].copy_from_slice(&[99, 130, 83, 99]);
        message.extend_from_slice(&[53, 1, kind % 10]);
        if fields & 2 != 0 {
            message.extend_from_slice(&[50, 4]);
            message.extend_from_slice(&wanted.octets());
        }
        if fields & 4 != 0 {
            let server = if server & 1 == 0 { GATEWAY } else { Ipv4Addr::new(10, 0, 0, server) };
            message.extend_from_slice(&[54, 4]);
            message.extend_from_slice(&server.octets());
        }
        if fields & 8 != 0 {
            message.extend_from_slice(&[61, 3, 0, b'c', hardware]);
        }
        if fields & 16 != 0 {
            message.extend_from_slice(&[12, 3, b'b', b'o', b'x', 55, 4, 1, 3, 6, 51]);
        }
        message.push(if fields & 32 == 0 { 255 } else { 12 });
        let unicast = fields & 64 != 0;
        let (src, dst) = if unicast { (wanted, GATEWAY) } else { (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST) };
        let to = if unicast { Mac::from_ipv4(GATEWAY) } else { Mac::BROADCAST };
        let mut bytes = Vec::new();
        let ip = Ip { src: src.into(), dst: dst.into(), ttl: 64, tos: 0, id: 0 };
        build::udp(
            &mut bytes,
            Link { src: if hardware & 1 == 0 { own } else { chaddr }, dst: to },
            ip,
            68,
            67,
            &message,
        );
        Made { port: who, meta: Meta::PLAIN, bytes }
    }

    /// `args`: who; to whom; from whom; EtherType; how long (two bytes); tag.
    pub fn lan(&self, record: &Record) -> Made {
        let [who, to, from, kind, _, _, tag] = record.args;
        let who = who % 3 + 1;
        let dst = match to % 12 {
            0 => Mac::BROADCAST,
            1 => Mac::from_ipv4(GATEWAY),
            2 => Mac([1, 0x80, 0xc2, 0, 0, tag]),
            3 => Mac([0x33, 0x33, 0, 0, 0, 1]),
            4 => Mac([2, 9, 9, 9, 9, tag]),
            other => Mac::from_ipv4(address(other % 3 + 1)),
        };
        let src = match from % 8 {
            0 => Mac::from_ipv4(GATEWAY),
            1 => Mac([1, 0, 0, 0, 0, tag]),
            2 => Mac([2, 8, 8, 8, who, tag]),
            3 => Mac::from_ipv4(address(tag % 3 + 1)),
            _ => Mac::from_ipv4(address(who)),
        };
        let mut bytes = [dst.0, src.0].concat();
        if tag & 0x80 != 0 {
            bytes.extend_from_slice(&[
                0x81,
                0,
                if tag & 0x40 == 0 { 0 } else { 0x0f },
                if tag & 0x20 == 0 { 5 } else { 0xff },
            ]);
        }
        let kinds =
            [[0x08, 0x00], [0x08, 0x06], [0x86, 0xdd], [0x88, 0x08], [0x88, 0xcc], [0, 38], [0x81, 0], [0x12, 0x34]];
        bytes.extend_from_slice(&kinds[usize::from(kind % 8)]);
        bytes.resize(bytes.len() + usize::from(record.word(4) % 2000), kind);
        Made { port: who, meta: Meta::PLAIN, bytes }
    }

    /// `args`: who; to whom; ICMPv6 type; how long; hop limit; UDP in its place; what is wrong.
    pub fn ipv6(&self, record: &Record) -> Made {
        let [who, to, kind, len, hops, udp, wrong] = record.args;
        let who = who % 3 + 1;
        let ip = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
        let dst = if to & 1 == 0 { ip(u16::from(to)) } else { IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]) };
        let mac = if to & 1 == 0 { Mac::from_ipv4(address(to % 4)) } else { Mac([0x33, 0x33, 0, 0, 0, 1]) };
        let link = Link { src: Mac::from_ipv4(address(who)), dst: mac };
        let header = Ip { src: ip(u16::from(who)), dst, ttl: hops, tos: 0, id: 0 };
        let (mut bytes, payload) = (Vec::new(), vec![wrong; usize::from(len)]);
        if udp & 1 == 0 {
            build::icmp(&mut bytes, link, header, kind, 0, [0, 0, 0, who], &payload);
        } else {
            build::udp(&mut bytes, link, header, u16::from(kind), PORTS[usize::from(udp >> 1 & 7)], &payload);
        }
        let mut meta = Meta::PLAIN;
        checksum_state(wrong >> 4, &mut meta, &mut bytes);
        Made { port: who, meta, bytes }
    }
}

/// From the container, to the gateway or to the neighbour that is meant.
fn link(who: u8, dst: Ipv4Addr) -> Link {
    let next = match dst.octets() {
        [255, ..] | [10, 0, 0, 255] => Mac::BROADCAST,
        [224, ..] => Mac([1, 0, 0x5e, 0, 0, 0xfb]),
        [10, 0, 0, _] => Mac::from_ipv4(dst),
        _ => Mac::from_ipv4(GATEWAY),
    };
    Link { src: Mac::from_ipv4(address(who)), dst: next }
}

fn ip(who: u8, dst: Ipv4Addr) -> Ip {
    Ip { src: address(who).into(), dst: dst.into(), ttl: 64, tos: 0, id: 7 }
}

/// Takes a complete checksum back to a partial one.
fn partial(meta: &mut Meta, bytes: &mut [u8], offset: u16) {
    let Ok(frame) = FrameRef::parse(Meta::PLAIN, &*bytes) else { return };
    let (Some(src), Some(dst)) = (frame.src_ip(), frame.dst_ip()) else { return };
    let parsed = *frame.parsed();
    let sum = checksum::pseudo_header(src, dst, parsed.protocol, frame.segment().len() as u32);
    let field = usize::from(parsed.l4_start + offset);
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    meta.checksum = ChecksumState::Partial { start: parsed.l4_start, offset };
}

/// Leaves the checksum as it is, completes it, or gets it or its metadata wrong.
fn checksum_state(wrong: u8, meta: &mut Meta, bytes: &mut [u8]) {
    let end = Parsed::parse(bytes).map_or(bytes.len(), |parsed| parsed.end as usize);
    match wrong {
        0..8 => {}
        8..12 => {
            let _ = checksum::complete(meta, bytes, end);
        }
        12 => {
            let _ = checksum::complete(meta, bytes, end);
            meta.checksum = ChecksumState::Verified;
        }
        13 => {
            let _ = checksum::complete(meta, bytes, end);
            bytes[end - 1] ^= 1;
        }
        14 => meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: 100, ecn: true }),
        _ => meta.checksum = ChecksumState::Partial { start: 20, offset: 2 },
    }
}
