//! Frames of all kinds, as values that proptest makes and shrinks, written out byte by byte. Nothing of the crate under
//! test is used for it; the sums are etherparse's.

use etherparse::checksum::Sum16BitWords;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tapswitch_wire::{ChecksumState, Meta};

use crate::oracle::{pseudo4, pseudo6};

#[derive(Clone, Debug)]
pub struct Packet {
    pub dst_mac: [u8; 6],
    pub src_mac: [u8; 6],
    /// EtherType of each tag, and its TCI.
    pub tags: Vec<(u16, u16)>,
    pub net: Net,
    /// Bytes behind the packet.
    pub padding: usize,
}

#[derive(Clone, Debug)]
pub enum Net {
    V4(V4),
    V6(V6),
    Arp([u8; 28]),
    Other(u16, Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct V4 {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub ttl: u8,
    pub tos: u8,
    pub id: u16,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    /// Flags and fragment offset as in the header.
    pub fragment: u16,
    pub transport: Transport,
}

#[derive(Clone, Debug)]
pub struct V6 {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub hops: u8,
    pub extensions: Vec<Extension>,
    pub transport: Transport,
}

#[derive(Clone, Copy, Debug)]
pub enum Extension {
    /// Hop-by-hop (0), routing (43) or destination options (60), with so many eights of bytes beside the first.
    Options(u8, u8),
    /// Offset and "more" as in the header.
    Fragment(u16),
    /// With so many words of integrity check value.
    Authentication(u8),
}

#[derive(Clone, Debug)]
pub enum Transport {
    Tcp {
        ports: [u16; 2],
        seq: u32,
        flags: u8,
        options: Vec<u8>,
        payload: Vec<u8>,
    },
    Udp {
        ports: [u16; 2],
        without_checksum: bool,
        payload: Vec<u8>,
    },
    /// ICMP over IPv4, ICMPv6 over IPv6.
    Icmp {
        kind: u8,
        code: u8,
        word: [u8; 4],
        payload: Vec<u8>,
    },
    Other(u8, Vec<u8>),
}

impl Packet {
    /// The bytes, with a complete checksum.
    pub fn bytes(&self) -> Vec<u8> {
        self.write(false).0
    }

    /// The bytes with a partial checksum and the metadata that says so; `None` for a transport without one.
    pub fn partial(&self) -> Option<(Meta, Vec<u8>)> {
        let (bytes, start) = self.write(true);
        let offset = match self.transport()? {
            Transport::Tcp { .. } => 16,
            Transport::Udp { without_checksum: false, .. } => 6,
            Transport::Icmp { .. } if matches!(self.net, Net::V6(_)) => 2,
            _ => return None,
        };
        Some((Meta { checksum: ChecksumState::Partial { start, offset }, gso: None }, bytes))
    }

    pub fn transport(&self) -> Option<&Transport> {
        match &self.net {
            Net::V4(ip) => Some(&ip.transport),
            Net::V6(ip) => Some(&ip.transport),
            Net::Arp(_) | Net::Other(..) => None,
        }
    }

    pub fn transport_mut(&mut self) -> Option<&mut Transport> {
        match &mut self.net {
            Net::V4(ip) => Some(&mut ip.transport),
            Net::V6(ip) => Some(&mut ip.transport),
            Net::Arp(_) | Net::Other(..) => None,
        }
    }

    pub fn is_fragment(&self) -> bool {
        match &self.net {
            Net::V4(ip) => ip.fragment & 0x3fff != 0,
            Net::V6(ip) => {
                ip.extensions.iter().any(|ext| matches!(ext, Extension::Fragment(word) if word & 0xfff9 != 0))
            }
            Net::Arp(_) | Net::Other(..) => false,
        }
    }

    /// The bytes, and where the transport begins.
    fn write(&self, partial: bool) -> (Vec<u8>, u16) {
        let mut out = [self.dst_mac, self.src_mac].concat();
        let word = |out: &mut Vec<u8>, word: u16| out.extend_from_slice(&word.to_be_bytes());
        for (kind, tci) in &self.tags {
            word(&mut out, *kind);
            word(&mut out, *tci);
        }
        let mut transport = out.len() + 2;
        match &self.net {
            Net::Arp(body) => {
                word(&mut out, 0x0806);
                out.extend_from_slice(body);
            }
            Net::Other(kind, body) => {
                word(&mut out, *kind);
                out.extend_from_slice(body);
            }
            Net::V4(ip) => {
                word(&mut out, 0x0800);
                let header = 20 + ip.options.len();
                let pseudo = |number, len: usize| pseudo4(ip.src, ip.dst, number, len as u16);
                let (number, segment) = ip.transport.bytes(1, partial, pseudo);
                let start = out.len();
                out.extend_from_slice(&[0x40 | (header / 4) as u8, ip.tos]);
                word(&mut out, (header + segment.len()) as u16);
                word(&mut out, ip.id);
                word(&mut out, ip.fragment);
                out.extend_from_slice(&[ip.ttl, number, 0, 0]);
                out.extend_from_slice(&ip.src);
                out.extend_from_slice(&ip.dst);
                out.extend_from_slice(&ip.options);
                let check = Sum16BitWords::new().add_slice(&out[start..]).ones_complement();
                out[start + 10..start + 12].copy_from_slice(&check.to_ne_bytes());
                transport = out.len();
                out.extend_from_slice(&segment);
            }
            Net::V6(ip) => {
                word(&mut out, 0x86dd);
                let pseudo = |number, len: usize| pseudo6(ip.src, ip.dst, number, len as u32);
                let (number, segment) = ip.transport.bytes(58, partial, pseudo);
                let mut next = number;
                let mut extensions = Vec::new();
                for extension in ip.extensions.iter().rev() {
                    let (kind, bytes) = extension.bytes(next);
                    extensions.splice(..0, bytes);
                    next = kind;
                }
                out.extend_from_slice(&[0x60, 0, 0, 0]);
                word(&mut out, (extensions.len() + segment.len()) as u16);
                out.extend_from_slice(&[next, ip.hops]);
                out.extend_from_slice(&ip.src);
                out.extend_from_slice(&ip.dst);
                out.extend_from_slice(&extensions);
                transport = out.len();
                out.extend_from_slice(&segment);
            }
        }
        out.resize(out.len() + self.padding, 0xa5);
        (out, transport as u16)
    }
}

impl Extension {
    /// Its number and its bytes.
    fn bytes(self, next: u8) -> (u8, Vec<u8>) {
        match self {
            Extension::Options(kind, units) => {
                // One option that fills it: PadN (RFC 8200 4.2). For a routing header: type 253, no segments left.
                let len = (usize::from(units) + 1) * 8;
                let mut bytes = vec![0; len];
                bytes[..4].copy_from_slice(&[next, units, if kind == 43 { 253 } else { 1 }, 0]);
                if kind != 43 {
                    bytes[3] = (len - 4).min(255) as u8;
                }
                (kind, bytes)
            }
            Extension::Fragment(word) => (44, [&[next, 0][..], &word.to_be_bytes(), &[0, 0, 0, 9]].concat()),
            Extension::Authentication(words) => {
                let mut bytes = vec![7; 12 + usize::from(words) * 4];
                bytes[..4].copy_from_slice(&[next, words + 1, 0, 0]);
                (51, bytes)
            }
        }
    }
}

impl Transport {
    /// Whether there is not one byte of it.
    pub fn is_empty(&self) -> bool {
        matches!(self, Transport::Other(_, payload) if payload.is_empty())
    }

    /// Protocol number and bytes, with the checksum over what `pseudo` gives and the segment.
    fn bytes(&self, icmp: u8, partial: bool, pseudo: impl Fn(u8, usize) -> Sum16BitWords) -> (u8, Vec<u8>) {
        let (number, field, mut out, payload) = match self {
            Transport::Tcp { ports, seq, flags, options, payload } => {
                let mut out = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
                out.extend_from_slice(&seq.to_be_bytes());
                out.extend_from_slice(&[
                    0,
                    0,
                    0,
                    77,
                    (((20 + options.len()) / 4) << 4) as u8,
                    *flags,
                    1,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]);
                out.extend_from_slice(options);
                (6, 16, out, payload)
            }
            Transport::Udp { ports, payload, .. } => {
                let len = (8 + payload.len()) as u16;
                let words = [ports[0], ports[1], len, 0].map(u16::to_be_bytes);
                (17, 6, words.concat(), payload)
            }
            Transport::Icmp { kind, code, word, payload } => {
                (icmp, 2, [&[*kind, *code, 0, 0][..], word].concat(), payload)
            }
            Transport::Other(number, payload) => return (*number, payload.clone()),
        };
        out.extend_from_slice(payload);
        let initial = if number == 1 { Sum16BitWords::new() } else { pseudo(number, out.len()) };
        let check = match self {
            Transport::Udp { without_checksum: true, .. } => 0,
            _ if partial => !initial.ones_complement(),
            Transport::Udp { .. } => initial.add_slice(&out).to_ones_complement_with_no_zero(),
            _ => initial.add_slice(&out).ones_complement(),
        };
        out[field..field + 2].copy_from_slice(&check.to_ne_bytes());
        (number, out)
    }
}

/// TCP options of at most 40 bytes: known and unknown ones and no-operations in any order, padded to whole words.
pub fn tcp_options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        2 => Just(vec![1]),
        2 => any::<u16>().prop_map(|mss| [&[2, 4][..], &mss.to_be_bytes()].concat()),
        1 => any::<u8>().prop_map(|shift| vec![3, 3, shift]),
        1 => Just(vec![4, 2]),
        1 => any::<u64>().prop_map(|times| [&[8, 10][..], &times.to_be_bytes()].concat()),
        1 => vec(any::<u8>(), 0..8).prop_map(|body| [&[254, body.len() as u8 + 2][..], &body].concat()),
    ];
    vec(option, 0..8).prop_map(|options| {
        let mut out = Vec::new();
        for option in options {
            if out.len() + option.len() <= 40 {
                out.extend_from_slice(&option);
            }
        }
        out.resize(out.len().next_multiple_of(4), 1);
        out
    })
}

/// Mostly arbitrary, sometimes all zeros or all ones, where the two zeros of ones' complement meet.
pub fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => vec(any::<u8>(), 0..120),
        1 => (0usize..60).prop_map(|len| vec![0; len]),
        1 => (0usize..60).prop_map(|len| vec![0xff; len]),
    ]
}

pub fn port() -> impl Strategy<Value = u16> {
    prop_oneof![3 => any::<u16>(), 1 => select(vec![0, 1, 53, 67, 68, 0xff00, 0xffff])]
}

fn transport() -> impl Strategy<Value = Transport> {
    let ports = || [port(), port()];
    prop_oneof![
        3 => (ports(), any::<u32>(), any::<u8>(), tcp_options(), payload())
            .prop_map(|(ports, seq, flags, options, payload)| Transport::Tcp { ports, seq, flags, options, payload }),
        3 => (ports(), prop::bool::weighted(0.2), payload())
            .prop_map(|(ports, without_checksum, payload)| Transport::Udp { ports, without_checksum, payload }),
        // No timestamp messages: etherparse takes them at one length only.
        3 => (any::<u8>(), any::<u8>(), any::<[u8; 4]>(), payload())
            .prop_filter("timestamp", |(kind, ..)| !matches!(kind, 13 | 14))
            .prop_map(|(kind, code, word, payload)| Transport::Icmp { kind, code, word, payload }),
        1 => Just(Transport::Icmp { kind: 0, code: 0, word: [0; 4], payload: vec![0; 6] }),
        1 => (select(vec![47u8, 50, 89, 132, 253]), payload())
            .prop_map(|(number, payload)| Transport::Other(number, payload)),
    ]
}

pub fn address4() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![4 => any::<[u8; 4]>(), 1 => select(vec![[0; 4], [0xff; 4], [10, 0, 0, 1]])]
}

pub fn address6() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![4 => any::<[u8; 16]>(), 1 => select(vec![[0; 16], [0xff; 16]])]
}

fn v4() -> impl Strategy<Value = V4> {
    let options = (0usize..=10).prop_map(|words| vec![1; words * 4]);
    let fragment = prop_oneof![6 => Just(0x4000), 2 => Just(0), 1 => Just(0x2000), 1 => any::<u16>()];
    (address4(), address4(), any::<(u8, u8, u16)>(), options, fragment, transport()).prop_map(
        |(src, dst, (ttl, tos, id), options, fragment, transport)| V4 {
            src,
            dst,
            ttl,
            tos,
            id,
            options,
            fragment,
            transport,
        },
    )
}

fn v6() -> impl Strategy<Value = V6> {
    // In the order that RFC 8200 4.1 recommends; each may be missing.
    let options =
        |kind, most| prop::option::weighted(0.3, (0u8..most).prop_map(move |len| Extension::Options(kind, len)));
    let fragment = prop_oneof![2 => Just(0), 1 => Just(1), 1 => any::<u16>()].prop_map(Extension::Fragment);
    let extensions = (
        options(0, 4),
        options(60, 2),
        options(43, 8),
        prop::option::weighted(0.25, fragment),
        prop::option::weighted(0.2, (0u8..6).prop_map(Extension::Authentication)),
        options(60, 40),
    );
    (address6(), address6(), any::<u8>(), extensions, transport()).prop_map(|(src, dst, hops, found, mut transport)| {
        // Over IPv6 a datagram has a checksum (RFC 8200 8.1).
        if let Transport::Udp { without_checksum, .. } = &mut transport {
            *without_checksum = false;
        }
        let (hop, first, routing, fragment, auth, last) = found;
        let extensions = [hop, first, routing, fragment, auth, last].into_iter().flatten().collect();
        V6 { src, dst, hops, extensions, transport }
    })
}

pub fn packet() -> impl Strategy<Value = Packet> {
    let tags = prop_oneof![
        4 => Just(Vec::new()),
        1 => any::<u16>().prop_map(|tci| vec![(0x8100, tci)]),
        1 => any::<[u16; 2]>().prop_map(|[outer, inner]| vec![(0x88a8, outer), (0x8100, inner)]),
    ];
    let net = prop_oneof![
        6 => v4().prop_map(Net::V4),
        5 => v6().prop_map(Net::V6),
        1 => any::<[u8; 20]>().prop_map(|tail| {
            let mut body = [0; 28];
            body[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
            body[8..].copy_from_slice(&tail);
            Net::Arp(body)
        }),
        1 => (select(vec![0x0027u16, 0x8808, 0x88cc, 0x9000]), payload()).prop_map(|(kind, body)| Net::Other(kind, body)),
    ];
    let padding = prop_oneof![3 => Just(0usize), 1 => 1usize..50];
    (any::<[u8; 6]>(), any::<[u8; 6]>(), tags, net, padding).prop_map(|(dst_mac, src_mac, tags, net, padding)| Packet {
        dst_mac,
        src_mac,
        tags,
        net,
        padding,
    })
}
