//! IPv4 packets made by hand and read by eye: what the raw stations of the tests send and compare. Nothing of the
//! product is used here, so that both cannot share a mistake.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::wire::Mac;

/// TCP flags.
pub mod flag {
    /// No more from the sender.
    pub const FIN: u8 = 1;
    /// Opens a connection.
    pub const SYN: u8 = 2;
    /// Ends one at once.
    pub const RST: u8 = 4;
    /// Hand over to the reader.
    pub const PSH: u8 = 8;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What a TCP segment holds beside its ports.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// See [`flag`].
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Payload.
    pub data: &'a [u8],
}

/// The sum of RFC 1071, complemented.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn pseudo(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, len: usize) -> Vec<u8> {
    let mut bytes = [src.octets(), dst.octets()].concat();
    bytes.extend([0, proto]);
    bytes.extend((len as u16).to_be_bytes());
    bytes
}

fn ip(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((20 + body.len()) as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, proto, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(body);
    seal(&mut packet);
    packet
}

/// Makes the header checksum right again after a change.
pub fn seal(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A UDP datagram.
pub fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for word in [from.port(), to.port(), (8 + payload.len()) as u16, 0] {
        body.extend(word.to_be_bytes());
    }
    body.extend(payload);
    let sum = match checksum(&[&pseudo(*from.ip(), *to.ip(), UDP, body.len()), &body]) {
        0 => 0xffff,
        sum => sum,
    };
    body[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(*from.ip(), *to.ip(), UDP, &body)
}

/// A TCP segment with a window of 64 000 bytes and no options.
pub fn tcp(from: SocketAddrV4, to: SocketAddrV4, segment: Segment<'_>) -> Vec<u8> {
    let mut body = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    body.extend(segment.seq.to_be_bytes());
    body.extend(segment.ack.to_be_bytes());
    body.extend([0x50, segment.flags]);
    body.extend(64_000_u16.to_be_bytes());
    body.extend([0; 4]);
    body.extend(segment.data);
    let sum = checksum(&[&pseudo(*from.ip(), *to.ip(), TCP, body.len()), &body]);
    body[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(*from.ip(), *to.ip(), TCP, &body)
}

/// An ICMP message: type and code, the word behind the checksum, and the rest.
pub fn icmp(from: Ipv4Addr, to: Ipv4Addr, (kind, code): (u8, u8), word: u32, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, code, 0, 0];
    body.extend(word.to_be_bytes());
    body.extend(rest);
    let sum = checksum(&[&body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, ICMP, &body)
}

/// An echo request or reply.
pub fn echo(from: Ipv4Addr, to: Ipv4Addr, reply: bool, id: u16, number: u16) -> Vec<u8> {
    let kind = if reply { 0 } else { 8 };
    icmp(from, to, (kind, 0), u32::from(id) << 16 | u32::from(number), b"tapswitch")
}

/// The error `(type, code)` about `packet`, of which it quotes the header and eight bytes.
pub fn error(from: Ipv4Addr, to: Ipv4Addr, kind: (u8, u8), word: u32, packet: &[u8]) -> Vec<u8> {
    icmp(from, to, kind, word, &packet[..packet.len().min(28)])
}

/// The packet in fragments that fit `mtu`, in order.
pub fn fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let room = (mtu - 20) / 8 * 8;
    let body = &packet[20..];
    let count = body.len().div_ceil(room);
    let parts = body.chunks(room).enumerate().map(|(number, part)| {
        let mut fragment = [&packet[..20], part].concat();
        fragment[2..4].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
        let more = if number + 1 < count { 0x2000 } else { 0 };
        fragment[6..8].copy_from_slice(&((number * room / 8) as u16 | more).to_be_bytes());
        seal(&mut fragment);
        fragment
    });
    parts.collect()
}

/// An Ethernet frame around an IPv4 packet.
pub fn frame(to: Mac, from: Mac, packet: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[8, 0], packet].concat()
}

/// The IPv4 packet in a frame without a tag, without padding.
pub fn in_frame(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..)?;
    let len = usize::from(word(packet, 2)?);
    (word(frame, 12)? == 0x0800).then_some(packet)?.get(..len)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

pub(crate) fn arp_request(mac: Mac, ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    [&head[..], &mac, &ip.octets(), &[0; 6], &target.octets()].concat()
}

pub(crate) fn arp_reply(frame: &[u8], target: Ipv4Addr) -> Option<Mac> {
    let is_reply = word(frame, 12)? == 0x0806 && word(frame, 20)? == 2 && frame.get(28..32)? == target.octets();
    is_reply.then(|| frame[22..28].try_into().expect("six bytes"))
}

/// What the fragments of one datagram have in common; `None` for a frame that holds none.
pub(crate) fn fragment_key(frame: &[u8]) -> Option<[u8; 11]> {
    let packet = in_frame(frame)?;
    if word(packet, 6)? & 0x3fff == 0 {
        return None;
    }
    let mut key = [0; 11];
    key[..8].copy_from_slice(packet.get(12..20)?);
    key[8..10].copy_from_slice(packet.get(4..6)?);
    key[10] = packet[9];
    Some(key)
}

/// Whether these frames are all fragments of a datagram.
pub(crate) fn complete(frames: &[Vec<u8>]) -> bool {
    let (mut total, mut sum) = (None, 0);
    for packet in frames.iter().filter_map(|frame| in_frame(frame)) {
        let field = word(packet, 6).unwrap_or_default();
        let len = packet.len() - 20;
        sum += len;
        if field & 0x2000 == 0 {
            total = Some(usize::from(field & 0x1fff) * 8 + len);
        }
    }
    total == Some(sum)
}

/// What a raw station looks at in a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Protocol number.
    pub proto: u8,
    /// Source; the port is that of TCP and UDP, or the identifier of an echo.
    pub src: SocketAddrV4,
    /// Destination; its port is 0 for ICMP.
    pub dst: SocketAddrV4,
    /// TCP flags; 0 otherwise.
    pub flags: u8,
    /// TCP sequence number, or ICMP type << 8 | code.
    pub number: u32,
    /// TCP acknowledgement number, or the word behind the ICMP checksum.
    pub ack: u32,
    /// Where a fragment begins in its datagram, and whether more follow it.
    pub fragment: Option<(u16, bool)>,
    /// Payload of TCP, UDP and ICMP.
    pub data: Vec<u8>,
    /// The packet itself.
    pub bytes: Vec<u8>,
}

/// Reads a packet. Of a later fragment, only the addresses.
pub fn read(packet: &[u8]) -> Option<Seen> {
    let header = usize::from(packet.first()? & 15) * 4;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let (src, dst, proto) = (address(12)?, address(16)?, packet[9]);
    let body = packet.get(header..)?;
    let long = |at: usize| Some(u32::from(word(body, at)?) << 16 | u32::from(word(body, at + 2)?));
    let mut seen = Seen {
        proto,
        src: SocketAddrV4::new(src, 0),
        dst: SocketAddrV4::new(dst, 0),
        flags: 0,
        number: 0,
        ack: 0,
        fragment: None,
        data: Vec::new(),
        bytes: packet.to_vec(),
    };
    let field = word(packet, 6)?;
    seen.fragment = (field & 0x3fff != 0).then_some(((field & 0x1fff) * 8, field & 0x2000 != 0));
    match proto {
        _ if field & 0x1fff != 0 => seen.data = body.to_vec(),
        ICMP => {
            seen.number = u32::from(word(body, 0)?);
            seen.ack = long(4)?;
            seen.src.set_port((seen.ack >> 16) as u16);
            seen.data = body.get(8..)?.to_vec();
        }
        TCP | UDP => {
            seen.src.set_port(word(body, 0)?);
            seen.dst.set_port(word(body, 2)?);
            if proto == TCP {
                (seen.number, seen.ack, seen.flags) = (long(4)?, long(8)?, *body.get(13)?);
            }
            let start = if proto == UDP { 8 } else { usize::from(body[12] >> 4) * 4 };
            seen.data = body.get(start..)?.to_vec();
        }
        _ => seen.data = body.to_vec(),
    }
    Some(seen)
}

impl Seen {
    /// Whether it is a TCP segment.
    pub fn is_tcp(&self) -> bool {
        self.proto == TCP
    }

    /// Whether it is a UDP datagram.
    pub fn is_udp(&self) -> bool {
        self.proto == UDP
    }

    /// Type and code, if it is an ICMP message.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        (self.proto == ICMP).then_some(((self.number >> 8) as u8, self.number as u8))
    }

    /// One line without addresses: `tcp SA 0 bytes`, `udp 4 bytes`, `icmp 3/4`.
    pub fn kind(&self) -> String {
        if let Some((at @ 1.., _)) = self.fragment {
            return format!("fragment at {at}");
        }
        match self.icmp() {
            Some((kind, code)) => format!("icmp {kind}/{code}"),
            None if self.proto == TCP => {
                let mut flags = String::new();
                for (bit, letter) in "FSRPA".chars().enumerate().filter(|(bit, _)| self.flags >> bit & 1 == 1) {
                    let _ = (bit, flags.write_char(letter));
                }
                format!("tcp {flags} {} bytes", self.data.len())
            }
            None => format!("{} {} bytes", if self.proto == UDP { "udp" } else { "ip" }, self.data.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_read_and_its_sums_are_right() {
        let (from, to) = (SocketAddrV4::new([10, 0, 0, 1].into(), 5), SocketAddrV4::new([10, 0, 0, 2].into(), 6));
        let packet = tcp(from, to, Segment { flags: flag::SYN | flag::ACK, seq: 7, ack: 8, data: b"abc" });
        let seen = read(&packet).expect("it is whole");
        assert_eq!((seen.src, seen.dst, seen.number, seen.ack, seen.data.as_slice()), (from, to, 7, 8, &b"abc"[..]));
        assert_eq!(seen.kind(), "tcp SA 3 bytes");
        assert_eq!(checksum(&[&packet[..20]]), 0);
        assert_eq!(checksum(&[&pseudo(*from.ip(), *to.ip(), TCP, packet.len() - 20), &packet[20..]]), 0);
        let datagram = udp(from, to, &[9; 4000]);
        let parts: Vec<_> = fragments(&datagram, 1500).iter().map(|part| frame([0; 6], [0; 6], part)).collect();
        assert_eq!(parts.len(), 3);
        assert!(complete(&parts) && !complete(&parts[..2]) && !complete(&parts[1..]));
        assert_eq!(read(&datagram).map(|seen| seen.kind()).as_deref(), Some("udp 4000 bytes"));
    }
}
