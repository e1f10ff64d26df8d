//! Datagrams of the outside, gathered into super-frames for containers, or cut into fragments.

use std::net::SocketAddrV4;

use tapswitch_wire::build::Link;
use tapswitch_wire::{ChecksumState, DropReason, Emit, Gso, GsoKind, Meta, checksum, fragment, protocol};

/// Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Payload of the largest UDP datagram over IPv4.
const MOST_BYTES: usize = 65_507;
/// Datagrams of one super-frame; a TAP takes twice as many.
const MOST_DATAGRAMS: usize = 64;

/// Who sends to whom, and what the headers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Envelope {
    pub link: Link,
    pub src: SocketAddrV4,
    pub dst: SocketAddrV4,
    pub ttl: u8,
    pub tos: u8,
}

/// Datagrams of one session that came one behind the other, with room for the headers in front.
#[derive(Default)]
pub(super) struct Train {
    frame: Vec<u8>,
    envelope: Option<Envelope>,
    size: usize,
    count: usize,
    is_closed: bool,
    /// Scratch space, and the identification of the next packet that is cut.
    pieces: Vec<u8>,
    id: u16,
}

impl Train {
    /// Takes datagrams of `size` bytes each, of which the last may be shorter, and hands on what they cannot be put
    /// behind.
    pub(super) fn push(
        &mut self,
        envelope: Envelope,
        size: usize,
        bytes: &[u8],
        mtu: u16,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        // What must be cut travels alone, and so does what is empty.
        let together = match size {
            0 => 1,
            size if 28 + size > usize::from(mtu) => 1,
            size => MOST_DATAGRAMS.min(MOST_BYTES / size),
        };
        let mut rest = bytes;
        loop {
            let len = rest.len().min(together * size);
            let (part, behind) = rest.split_at(len);
            self.add(envelope, size, part, together, mtu, out)?;
            rest = behind;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn add(
        &mut self,
        envelope: Envelope,
        size: usize,
        bytes: &[u8],
        together: usize,
        mtu: u16,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        let count = bytes.len().div_ceil(size.max(1)).max(1);
        let fits = self.envelope == Some(envelope)
            && !self.is_closed
            && (size == self.size || count == 1 && size < self.size && size > 0)
            && self.count + count <= together.min(MOST_DATAGRAMS)
            && self.frame.len() + bytes.len() <= HEADERS + MOST_BYTES;
        if !fits {
            self.finish(mtu, out)?;
            self.frame.clear();
            self.frame.resize(HEADERS, 0);
            (self.envelope, self.size, self.count) = (Some(envelope), size, 0);
        }
        self.frame.extend_from_slice(bytes);
        self.count += count;
        self.is_closed = size == 0 || size < self.size || !bytes.len().is_multiple_of(size);
        Ok(())
    }

    /// Hands on what is there.
    pub(super) fn finish(&mut self, mtu: u16, out: &mut impl Emit) -> Result<(), DropReason> {
        let Some(envelope) = self.envelope.take() else { return Ok(()) };
        self.is_closed = false;
        let packet = self.frame.len() - 14;
        let is_large = self.count == 1 && packet > usize::from(mtu);
        headers(&mut self.frame, envelope, !is_large);
        let mut meta = Meta { checksum: ChecksumState::Partial { start: 34, offset: 6 }, gso: None };
        if is_large {
            self.id = self.id.wrapping_add(1);
            return fragment::split(&meta, &self.frame, mtu, self.id, &mut self.pieces, out).map(drop);
        }
        if self.count > 1 {
            meta.gso = Some(Gso { kind: GsoKind::Udp, size: self.size as u16, ecn: false });
        }
        out.emit(&meta, &self.frame);
        Ok(())
    }

    /// Hands on a whole frame of ICMP, in fragments if it is too large.
    pub(super) fn whole(&mut self, frame: &mut [u8], mtu: u16, out: &mut impl Emit) -> Result<(), DropReason> {
        if frame.len() - 14 <= usize::from(mtu) {
            out.emit(&Meta::PLAIN, frame);
            return Ok(());
        }
        frame[20] &= !0x40;
        self.id = self.id.wrapping_add(1);
        fragment::split(&Meta::PLAIN, frame, mtu, self.id, &mut self.pieces, out).map(drop)
    }
}

/// Writes the headers of a frame, with a partial UDP checksum.
fn headers(frame: &mut [u8], envelope: Envelope, dont_fragment: bool) {
    let Envelope { link, src, dst, ttl, tos } = envelope;
    let (packet, segment) = ((frame.len() - 14) as u16, (frame.len() - 34) as u16);
    frame[..6].copy_from_slice(&link.dst.0);
    frame[6..12].copy_from_slice(&link.src.0);
    frame[12..16].copy_from_slice(&[8, 0, 0x45, tos]);
    frame[16..18].copy_from_slice(&packet.to_be_bytes());
    // Any identification will do where nothing is cut (RFC 6864 4.1).
    frame[18..26].copy_from_slice(&[0, 0, if dont_fragment { 0x40 } else { 0 }, 0, ttl, protocol::UDP, 0, 0]);
    frame[26..30].copy_from_slice(&src.ip().octets());
    frame[30..34].copy_from_slice(&dst.ip().octets());
    let check = checksum::checksum(0, &frame[14..34]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame[34..36].copy_from_slice(&src.port().to_be_bytes());
    frame[36..38].copy_from_slice(&dst.port().to_be_bytes());
    frame[38..40].copy_from_slice(&segment.to_be_bytes());
    let (src, dst) = ((*src.ip()).into(), (*dst.ip()).into());
    let pseudo = checksum::pseudo_header(src, dst, protocol::UDP, u32::from(segment));
    frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
}
