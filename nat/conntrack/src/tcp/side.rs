//! The sequence state of one side.

use super::segment::{Segment, after, earliest, flag, latest};

/// How far behind the newest acknowledgement an old one may still be, for a window of shift 0 (RFC 5961 5: the largest
/// window that the other side was ever offered).
const REACH: u32 = 0x1_0000;

/// What one side has said. The other side's record is always needed to judge it: what `A` may send, `B` has allowed.
///
/// In order: `peer.ack <= next <= sent`, and `sent` is at most one beyond `peer.edge` (the byte of a zero-window probe,
/// or a FIN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Side {
    /// Up to here all was sent without a gap, or acknowledged: RCV.NXT of a peer that lost nothing.
    pub next: u32,
    /// The highest end of what was sent: SND.NXT.
    pub sent: u32,
    /// The highest acknowledgement: RCV.NXT as this side itself has told it.
    pub ack: u32,
    /// The highest right edge of the window that was offered to the peer.
    pub edge: u32,
}

impl Side {
    /// Whether a segment from the peer touches what this side may take: from its last acknowledgement to the edge of
    /// its window, both included. RFC 9293 excludes a segment that ends where the window begins; hosts take its
    /// acknowledgement all the same (a FIN that is repeated). And a peer that has filled the window sends its empty
    /// segments at the edge.
    #[inline]
    pub fn admits(&self, seq: u32, end: u32) -> bool {
        !after(self.ack, end) && !after(seq, self.edge)
    }

    /// Records a segment from this side to `peer`, if it is plausible: it has an acknowledgement, lies in the window,
    /// and acknowledges neither what was never sent nor what was acknowledged long ago (RFC 5961 5). `shift` is the
    /// scale of the segment's window field.
    ///
    /// Anything else records nothing: a guess from off the path must not move what the next guess is held against.
    #[inline]
    pub fn record(&mut self, peer: &mut Side, segment: &Segment, shift: u8) -> bool {
        let end = segment.end();
        let oldest = self.ack.wrapping_sub(REACH << shift);
        let is_known = segment.ack.wrapping_sub(oldest) <= peer.sent.wrapping_sub(oldest);
        if !(segment.has(flag::ACK) && is_known && peer.admits(segment.seq, end)) {
            return false;
        }
        let end = earliest(end, peer.edge.wrapping_add(1));
        self.sent = latest(self.sent, end);
        if !after(segment.seq, self.next) {
            self.next = latest(self.next, end);
        }
        self.ack = latest(self.ack, segment.ack);
        peer.next = latest(peer.next, segment.ack);
        self.edge = latest(self.edge, segment.ack.wrapping_add(u32::from(segment.window) << shift));
        true
    }
}
