//! Streams as a port without offloads hands them over, and the law that coalescing them must keep.

use std::collections::BTreeMap;

use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::coalesce::Coalescer;
use tapswitch_wire::{
    ChecksumState, Frame, FrameRef, L3, L4, MAX_FRAME_LEN, Mac, Meta, Parsed, checksum, protocol, segment,
};

use crate::oracle;

pub const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub const C: Mac = Mac([2, 0, 0, 0, 0, 3]);
pub const FIN: u8 = 0x01;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];

pub type Sent = (Meta, Vec<u8>);

/// One side of a connection: what its next segment will look like.
#[derive(Clone)]
pub struct Stream {
    pub link: Link,
    pub ip: Ip,
    pub src_port: u16,
    pub seq: u32,
    /// 802.1Q tags in front of the packet.
    pub tags: usize,
}

impl Stream {
    pub fn v4(src: Mac, dst: Mac) -> Stream {
        let [from, to] = [[10, 0, 0, 2], [10, 0, 0, 3]].map(Into::into);
        let ip = Ip { src: from, dst: to, ttl: 64, tos: 2, id: 1000 };
        Stream { link: Link { src, dst }, ip, src_port: 8, seq: 5, tags: 0 }
    }

    pub fn v6(src: Mac, dst: Mac) -> Stream {
        let [from, to] = ["fd00::2", "fd00::3"].map(|ip| ip.parse().unwrap());
        let ip = Ip { src: from, dst: to, ttl: 64, tos: 2, id: 0 };
        Stream { ip, ..Stream::v4(src, dst) }
    }

    pub fn tcp(&self, flags: u8) -> Tcp<'static> {
        Tcp { src_port: self.src_port, dst_port: 80, seq: self.seq, ack: 77, flags, window: 500, options: &TIMESTAMPS }
    }

    /// The bytes of a stream from this one on.
    pub fn payload(seq: u32, len: usize) -> Vec<u8> {
        (0..len as u32).map(|at| seq.wrapping_add(at)).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
    }

    pub fn partial(&mut self, flags: u8, len: usize) -> Sent {
        let mut frame = Vec::new();
        let mut meta = build::tcp(&mut frame, self.link, self.ip, self.tcp(flags), len);
        frame.extend(Stream::payload(self.seq, len));
        for _ in 0..self.tags {
            frame.splice(12..12, [0x81, 0, 0, 5]);
        }
        if let ChecksumState::Partial { start, .. } = &mut meta.checksum {
            *start += 4 * self.tags as u16;
        }
        self.seq = self.seq.wrapping_add(len as u32);
        self.ip.id = self.ip.id.wrapping_add(1);
        (meta, frame)
    }

    /// The next segment, as a port without offloads hands it over.
    pub fn plain(&mut self, flags: u8, len: usize) -> Sent {
        let (mut meta, mut frame) = self.partial(flags, len);
        let end = frame.len();
        checksum::complete(&mut meta, &mut frame, end).unwrap();
        (meta, frame)
    }
}

/// The TCP header and what is behind it.
pub fn tcp(frame: &mut [u8]) -> &mut [u8] {
    let start = usize::from(Parsed::parse(frame).unwrap().l4_start);
    &mut frame[start..]
}

/// Makes the checksums right again, of whatever the frame is now.
pub fn write_checksums(frame: &mut [u8]) {
    let Ok(parsed) = Parsed::parse(frame) else { return };
    let (l3, l4) = (usize::from(parsed.l3_start), usize::from(parsed.l4_start));
    if parsed.l3 == L3::Ipv4 {
        let header = usize::from(frame[l3] & 15) * 4;
        frame[l3 + 10..l3 + 12].fill(0);
        let check = checksum::checksum(0, &frame[l3..l3 + header]);
        frame[l3 + 10..l3 + 12].copy_from_slice(&check.to_be_bytes());
    }
    if parsed.l4 == L4::Tcp {
        frame[l4 + 16..l4 + 18].fill(0);
        let found = FrameRef::parse(Meta::PLAIN, &*frame).unwrap();
        let (segment, ips) = (found.segment(), found.src_ip().zip(found.dst_ip()).unwrap());
        let pseudo = checksum::pseudo_header(ips.0, ips.1, protocol::TCP, segment.len() as u32);
        let check = checksum::checksum(pseudo, segment);
        frame[l4 + 16..l4 + 18].copy_from_slice(&check.to_be_bytes());
    }
}

/// A coalescer, and what came out of it.
#[derive(Default)]
pub struct Run {
    coalescer: Coalescer,
}

impl Run {
    pub fn push(&mut self, (meta, frame): &Sent) -> Vec<Sent> {
        let mut out = Vec::new();
        self.coalescer.push(*meta, &mut frame.clone(), &mut take(&mut out));
        out
    }

    pub fn flush(&mut self) -> Vec<Sent> {
        let mut out = Vec::new();
        self.coalescer.flush(&mut take(&mut out));
        out
    }
}

/// Keeps what is handed over, and does with the bytes as it pleases.
fn take(out: &mut Vec<Sent>) -> impl FnMut(Meta, &mut [u8]) {
    |meta, frame| {
        out.push((meta, frame.to_vec()));
        frame.fill(0xee);
    }
}

/// What comes out of one turn.
pub fn coalesce(input: &[Sent]) -> Vec<Sent> {
    let mut run = Run::default();
    let mut out: Vec<Sent> = input.iter().flat_map(|frame| run.push(frame)).collect();
    out.extend(run.flush());
    out
}

/// Between each two stations, what comes out becomes what went in when it is cut; and each super-frame is one that a
/// kernel takes.
pub fn check_law(input: &[Sent], output: &[Sent]) {
    let mut parts: Vec<Sent> = Vec::new();
    for (meta, frame) in output {
        if meta.gso.is_none() {
            parts.push((*meta, frame.clone()));
            continue;
        }
        let parsed = *Frame::parse(*meta, &mut frame.clone()).expect("metadata that fits").parsed();
        assert!(frame.len() <= MAX_FRAME_LEN && frame.len() - usize::from(parsed.l3_start) <= 65_535);
        assert_eq!(Meta::decode(&meta.encode(frame), frame), Ok(*meta));
        assert_eq!(oracle::checksums_when_complete(&Meta { gso: None, ..*meta }, frame), Ok(()));
        let mut keep = |meta: &Meta, frame: &[u8]| parts.push((*meta, frame.to_vec()));
        let count = segment::segment(meta, frame, &mut Vec::new(), &mut keep);
        assert!(count.is_ok_and(|count| count > 1), "a super-frame of {count:?}");
    }
    assert!(by_stations(input) == by_stations(&parts), "{:#?}\n{:#?}", by_stations(input), by_stations(&parts));
}

fn by_stations(frames: &[Sent]) -> BTreeMap<&[u8], Vec<&Sent>> {
    let mut found: BTreeMap<&[u8], Vec<&Sent>> = BTreeMap::new();
    for sent in frames {
        found.entry(&sent.1[..sent.1.len().min(12)]).or_default().push(sent);
    }
    found
}
