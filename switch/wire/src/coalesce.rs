//! Joining the segments of a TCP stream into a super-frame: software coalescing (generic receive offload) for frames that
//! come from a port without offloads and go to ports that have them.
//!
//! # Theory of operation
//!
//! Whoever reads such a port pushes each frame of one turn and flushes at the turn's end, so there is no timer, and no
//! frame waits for another that may never come. Consecutive segments of a stream are collected in one buffer behind the
//! headers of the first; what differs from segment to segment need not be kept, for it can be computed.
//!
//! **The law**: [`segment::segment`](crate::segment::segment) makes of what comes out exactly the frames that went in,
//! byte for byte, and those from one MAC address to another in the order in which they came (IEEE 802.1Q 6.5.3). So
//! coalescing cannot be noticed behind a port that cuts again, and whatever would break the law is passed on as it is:
//!
//! * *Joined* are segments of TCP over IPv4 without options, or over IPv6 without extension headers, with payload, whole
//!   and without padding. All their headers are equal, tags and TCP options included, but for what follows.
//! * *Follows*: lengths and checksums; the sequence number, which continues; the IPv4 identification, which counts up by
//!   one for each segment, DF or not. A sender that leaves it at one value is not coalesced over IPv4.
//! * *Flags*: ACK. A segment with FIN or PSH, or a shorter one, is the last of its super-frame, which then leaves at once.
//!   SYN, RST, URG, ECE and CWR are never part of one.
//! * *Checksums* are verified before a segment is joined, for a super-frame's are made anew and would hide damage. They
//!   must also be spelled as a sender computes them: all ones is a zero that no sum over these headers gives.
//! * *Metadata*: only an ordinary frame that says nothing of its checksum. All others come from a port with offloads.
//! * *Size*: an IP packet of 65 535 bytes and a frame of [`MAX_FRAME_LEN`] at most.
//!
//! At most one super-frame is in the making between two MAC addresses: that is what keeps their order. A frame that cannot
//! be joined to it, be it of another stream, an acknowledgement, damaged or not TCP at all, first sends it off. This costs
//! little, for a kernel cuts what a stream hands it in one go, so segments of one stream arrive in runs. A super-frame of
//! one segment leaves as the frame it was.
//!
//! **Bound**: eight super-frames, each in a buffer that is made at first use and used again. When all are taken the oldest
//! leaves. A segment costs one pass over its payload for the checksum and one to copy it.
//!
//! UDP is not coalesced: a datagram is a message of its own, and a receiver's kernel joins datagrams only for a socket that
//! asked for it (UDP_GRO), which cannot be seen from here.

use std::ops::Range;

use crate::parse::protocol;
use crate::{ChecksumState, FrameRef, Gso, GsoKind, L3, L4, MAX_FRAME_LEN, Meta, checksum};

/// How many super-frames may be in the making.
const MAX_HELD: usize = 8;

/// The longest IP packet.
const MAX_PACKET_LEN: usize = 65_535;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Joins the frames of one port; see the [module](self).
#[derive(Debug)]
pub struct Coalescer {
    /// Super-frames in the making, oldest first, no two between the same MAC addresses.
    held: Vec<Held>,
    /// Buffers that wait for the next one.
    spare: Vec<Vec<u8>>,
}

impl Coalescer {
    /// One that holds nothing and has no buffers yet.
    pub fn new() -> Coalescer {
        Coalescer { held: Vec::with_capacity(MAX_HELD), spare: Vec::with_capacity(MAX_HELD) }
    }

    /// Takes one whole Ethernet frame.
    ///
    /// What has to leave now is handed to `out` in its order: what it cannot be joined to, the super-frame that it
    /// completes, or the frame itself. The rest is copied, so `frame` may be used again.
    pub fn push(&mut self, meta: Meta, frame: &mut [u8], out: &mut impl FnMut(Meta, &mut [u8])) {
        let segment = Segment::read(meta, frame);
        if let Some(at) = self.lookup(frame) {
            if let Some(segment) = &segment
                && self.held[at].is_continued_by(segment)
                && segment.has_right_checksums()
            {
                self.held[at].append(segment);
                if segment.is_last() || segment.payload_len() < self.held[at].size {
                    self.release(at, out);
                }
                return;
            }
            self.release(at, out);
        }
        match segment {
            Some(segment) if !segment.is_last() && segment.has_right_checksums() => {
                if self.held.len() == MAX_HELD {
                    self.release(0, out);
                }
                let buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(MAX_FRAME_LEN));
                self.held.push(Held::begin(&segment, buffer));
            }
            _ => out(meta, frame),
        }
    }

    /// Hands everything that is still held to `out`, oldest first.
    pub fn flush(&mut self, out: &mut impl FnMut(Meta, &mut [u8])) {
        while !self.held.is_empty() {
            self.release(0, out);
        }
    }

    /// Which super-frame goes the way of this frame.
    fn lookup(&self, frame: &[u8]) -> Option<usize> {
        let macs = frame.get(..12)?;
        self.held.iter().position(|held| held.bytes.starts_with(macs))
    }

    fn release(&mut self, at: usize, out: &mut impl FnMut(Meta, &mut [u8])) {
        let mut held = self.held.remove(at);
        let meta = held.finish();
        out(meta, &mut held.bytes);
        self.spare.push(held.bytes);
    }
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the headers stand. Two segments whose headers stand elsewhere are never joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layout {
    kind: GsoKind,
    l3: usize,
    l4: usize,
    payload: usize,
}

impl Layout {
    fn is_ipv4(self) -> bool {
        self.kind == GsoKind::Tcp4
    }

    /// The header bytes that are equal in all segments of a super-frame. Left out are the IP header's length,
    /// identification and checksum, and the TCP header's sequence number, flags and checksum.
    fn constant(self) -> [Range<usize>; 6] {
        let Layout { l3, l4, payload, .. } = self;
        let [upper, middle, ends] = match self.is_ipv4() {
            true => [0..l3 + 2, l3 + 6..l3 + 10, l3 + 12..l4 + 4],
            false => [0..l3 + 4, l3 + 6..l3 + 8, l3 + 8..l4 + 4],
        };
        [upper, middle, ends, l4 + 8..l4 + 13, l4 + 14..l4 + 16, l4 + 18..payload]
    }

    /// Both IP addresses, which a pseudo header begins with.
    fn addresses(self) -> Range<usize> {
        self.l3 + if self.is_ipv4() { 12 } else { 8 }..self.l4
    }
}

/// A frame that may be part of a super-frame, as far as it can be told from its headers.
struct Segment<'a> {
    frame: FrameRef<'a>,
    layout: Layout,
}

impl<'a> Segment<'a> {
    fn read(meta: Meta, bytes: &'a [u8]) -> Option<Segment<'a>> {
        if meta != Meta::PLAIN {
            return None;
        }
        let frame = FrameRef::parse(meta, bytes).ok()?;
        let parsed = frame.parsed();
        let [l3, l4, payload] = [parsed.l3_start, parsed.l4_start, parsed.payload_start].map(usize::from);
        let kind = match (parsed.l3, l4 - l3) {
            (L3::Ipv4, 20) => GsoKind::Tcp4,
            (L3::Ipv6, 40) => GsoKind::Tcp6,
            _ => return None,
        };
        let is_whole = parsed.l4 == L4::Tcp && parsed.fragment.is_none() && parsed.end as usize == bytes.len();
        let segment = Segment { layout: Layout { kind, l3, l4, payload }, frame };
        (is_whole && segment.payload_len() > 0 && segment.flags() & !(FIN | PSH) == ACK).then_some(segment)
    }

    fn bytes(&self) -> &[u8] {
        self.frame.bytes()
    }

    fn payload_len(&self) -> usize {
        self.bytes().len() - self.layout.payload
    }

    fn flags(&self) -> u8 {
        self.bytes()[self.layout.l4 + 13]
    }

    /// Whether nothing may follow it in a super-frame.
    fn is_last(&self) -> bool {
        self.flags() & (FIN | PSH) != 0
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes()[at], self.bytes()[at + 1]])
    }

    fn seq(&self) -> u32 {
        let at = self.layout.l4 + 4;
        u32::from(self.word(at)) << 16 | u32::from(self.word(at + 2))
    }

    /// The identification of an IPv4 packet; `None` over IPv6.
    fn id(&self) -> Option<u16> {
        self.layout.is_ipv4().then(|| self.word(self.layout.l3 + 4))
    }

    /// What the segment behind it has to have.
    fn next(&self) -> (u32, Option<u16>) {
        (self.seq().wrapping_add(self.payload_len() as u32), self.id().map(|id| id.wrapping_add(1)))
    }

    /// Whether all checksums are what computing them anew would give, bit by bit.
    fn has_right_checksums(&self) -> bool {
        let is_computed = |at: usize| self.word(at) != 0xffff;
        (!self.layout.is_ipv4() || is_computed(self.layout.l3 + 10))
            && is_computed(self.layout.l4 + 16)
            && self.frame.ipv4_checksum_ok()
            && self.frame.transport_checksum_ok()
    }
}

/// A super-frame in the making.
#[derive(Debug)]
struct Held {
    /// The first segment, and behind it the payload of the others. The headers are untouched but for FIN and PSH.
    bytes: Vec<u8>,
    layout: Layout,
    /// Payload bytes of each segment but the last.
    size: usize,
    /// Sequence number and IPv4 identification that the next segment has to have.
    next: (u32, Option<u16>),
}

impl Held {
    fn begin(first: &Segment<'_>, mut buffer: Vec<u8>) -> Held {
        buffer.clear();
        buffer.extend_from_slice(first.bytes());
        Held { bytes: buffer, layout: first.layout, size: first.payload_len(), next: first.next() }
    }

    fn is_continued_by(&self, next: &Segment<'_>) -> bool {
        let len = self.bytes.len() + next.payload_len();
        next.layout == self.layout
            && (next.seq(), next.id()) == self.next
            && next.payload_len() <= self.size
            && len <= MAX_FRAME_LEN.min(self.layout.l3 + MAX_PACKET_LEN)
            && self.layout.constant().into_iter().all(|part| self.bytes[part.clone()] == next.bytes()[part])
    }

    fn append(&mut self, next: &Segment<'_>) {
        self.bytes.extend_from_slice(&next.bytes()[next.layout.payload..]);
        self.bytes[next.layout.l4 + 13] |= next.flags();
        self.next = next.next();
    }

    /// Makes the headers those of the whole, and says what they leave undone. A single segment is left as it came.
    fn finish(&mut self) -> Meta {
        if self.bytes.len() == self.layout.payload + self.size {
            return Meta::PLAIN;
        }
        let Layout { kind, l3, l4, .. } = self.layout;
        let packet_len = (self.bytes.len() - l3) as u16;
        let segment_len = (self.bytes.len() - l4) as u16;
        let mut put = |at: usize, word: u16| self.bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
        if self.layout.is_ipv4() {
            put(l3 + 2, packet_len);
            put(l3 + 10, 0);
            let check = checksum::checksum(0, &self.bytes[l3..l4]);
            self.bytes[l3 + 10..l3 + 12].copy_from_slice(&check.to_be_bytes());
        } else {
            put(l3 + 4, segment_len);
        }
        let addresses = checksum::sum(&self.bytes[self.layout.addresses()]);
        let pseudo = checksum::add(addresses, checksum::add(u16::from(protocol::TCP), segment_len));
        self.bytes[l4 + 16..l4 + 18].copy_from_slice(&pseudo.to_be_bytes());
        Meta {
            checksum: ChecksumState::Partial { start: l4 as u16, offset: 16 },
            gso: Some(Gso { kind, size: self.size as u16, ecn: false }),
        }
    }
}
