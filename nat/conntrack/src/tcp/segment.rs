//! What the tracker reads of a segment, and arithmetic on sequence numbers.

use std::ops::Deref;

use tapswitch_wire::{FrameOf, L4};

/// The flag bits of a TCP header that the tracker looks at.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
}

/// The largest shift that the window scale option may ask for (RFC 7323 2.3).
pub(super) const MAX_SCALE: u8 = 14;

/// What the tracker reads of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The flag byte, with bits as in [`flag`]; the others are ignored.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; meaningless without [`flag::ACK`].
    pub ack: u32,
    /// The window field as it stands, unscaled.
    pub window: u16,
    /// Bytes of payload. A super-frame counts whole; a first fragment counts what it holds.
    pub len: u32,
    /// The shift of the window scale option, as offered. Read in SYN segments only.
    pub scale: Option<u8>,
}

impl Segment {
    /// Reads a frame. `None` if it is not TCP with a whole header.
    #[inline]
    pub fn read<B: Deref<Target = [u8]>>(frame: &FrameOf<B>) -> Option<Segment> {
        let parsed = frame.parsed();
        if parsed.l4 != L4::Tcp {
            return None;
        }
        let bytes = frame.segment();
        let header = bytes.first_chunk::<20>()?;
        let flags = header[13];
        let scale = if flags & flag::SYN == 0 { None } else { scale(bytes, usize::from(header[12] >> 4) * 4) };
        Some(Segment {
            flags,
            seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            window: u16::from_be_bytes([header[14], header[15]]),
            len: parsed.end.saturating_sub(u32::from(parsed.payload_start)),
            scale,
        })
    }

    /// Whether all of `flags` are set.
    #[inline]
    pub(super) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether it ends the sender's data. A FIN beside a SYN does not.
    #[inline]
    pub(super) fn is_fin(&self) -> bool {
        self.flags & (flag::FIN | flag::SYN) == flag::FIN
    }

    /// The sequence number behind the segment: SYN and FIN take one each, but a FIN beside a SYN is ignored.
    #[inline]
    pub(super) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len).wrapping_add(u32::from(self.flags & (flag::SYN | flag::FIN) != 0))
    }
}

/// The shift of the first window scale option that is well formed. The walk ends with the header, of 60 bytes at most.
#[inline(never)]
fn scale(segment: &[u8], header: usize) -> Option<u8> {
    let mut options = segment.get(20..header)?;
    loop {
        options = match *options {
            [3, 3, shift, ..] => return Some(shift),
            [1, ref rest @ ..] => rest,
            [2..=255, len, ..] if len >= 2 => options.get(usize::from(len)..)?,
            _ => return None,
        };
    }
}

/// Whether `a` comes after `b`, modulo 2^32 (RFC 9293 3.4).
#[inline]
pub(super) fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// The later of two sequence numbers.
#[inline]
pub(super) fn latest(a: u32, b: u32) -> u32 {
    if after(a, b) { a } else { b }
}

/// The earlier of two sequence numbers.
#[inline]
pub(super) fn earliest(a: u32, b: u32) -> u32 {
    if after(a, b) { b } else { a }
}
