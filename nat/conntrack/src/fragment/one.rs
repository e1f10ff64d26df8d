//! What one fragment says by itself.

use std::ops::Deref;

use tapswitch_wire::{ChecksumState, DropReason, Fragment, FrameOf, L4, Mac, Parsed, protocol};

/// The longest IPv4 header and the eight bytes behind it.
const MAX_QUOTE: usize = 60 + 8;
/// The largest IPv4 packet.
pub(super) const MAX_PACKET: usize = u16::MAX as usize;

/// What is left of a first fragment.
#[derive(Clone, Copy)]
pub(super) struct First {
    pub(super) src_mac: Mac,
    quote: [u8; MAX_QUOTE],
    len: u8,
}

impl First {
    pub(super) fn of<B: Deref<Target = [u8]>>(frame: &FrameOf<B>) -> First {
        let packet = frame.packet();
        let len = packet.len().min(header_len(frame.parsed()) + 8).min(MAX_QUOTE);
        let mut quote = [0; MAX_QUOTE];
        quote[..len].copy_from_slice(&packet[..len]);
        First { src_mac: frame.src_mac(), quote, len: len as u8 }
    }

    /// Its IPv4 header and eight bytes more, as received.
    pub(super) fn quote(&self) -> &[u8] {
        &self.quote[..usize::from(self.len)]
    }
}

/// Bytes of the IPv4 header.
pub(super) fn header_len(parsed: &Parsed) -> usize {
    usize::from(parsed.l4_start - parsed.l3_start)
}

/// What can be said of a fragment by itself.
pub(super) fn check<B: Deref<Target = [u8]>>(fragment: Fragment, frame: &FrameOf<B>) -> Result<(), DropReason> {
    let (parsed, segment) = (frame.parsed(), frame.segment());
    if matches!(frame.meta().checksum, ChecksumState::Partial { .. }) {
        // Nobody could complete it.
        return Err(DropReason::BadVnetHeader);
    }
    let end = header_len(parsed) + usize::from(fragment.offset) + segment.len();
    if segment.is_empty() || (fragment.more && !segment.len().is_multiple_of(8)) || end > MAX_PACKET {
        return Err(DropReason::FragmentMalformed);
    }
    if fragment.offset > 0 {
        let hides = parsed.protocol == protocol::TCP && fragment.offset == 8;
        return if hides { Err(DropReason::FragmentTooShort) } else { Ok(()) };
    }
    let whole = match parsed.protocol {
        protocol::TCP => match segment.get(12) {
            Some(words) if segment.len() >= 20 => usize::from(words >> 4) * 4,
            _ => 20,
        },
        protocol::UDP | protocol::ICMP => 8,
        _ => 0,
    };
    match parsed.l4 {
        _ if segment.len() < whole => Err(DropReason::FragmentTooShort),
        L4::Malformed => Err(DropReason::TransportMalformed),
        _ => Ok(()),
    }
}
