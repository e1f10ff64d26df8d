//! Cutting an IPv4 packet into fragments that fit the next link (RFC 791 3.2), and completing its checksum on the way.
//!
//! The packet is copied once, into the scratch buffer. Each fragment but the first gets its headers written right in
//! front of its payload, over the end of the fragment before it, which has been handed over by then. So however many
//! fragments there are, each byte is copied once.

use crate::{ChecksumState, DropReason, Emit, L3, Meta, Parsed, checksum};

/// Bit of the word with the fragment offset: there is one more fragment behind.
const MORE_FRAGMENTS: u16 = 0x2000;
/// Bit of the same word: the packet must not be cut.
const DONT_FRAGMENT: u16 = 0x4000;
/// Bits of the same word that hold the offset, in units of eight bytes.
const OFFSET: u16 = 0x1fff;
/// Bit of an option's type: it stands in every fragment, not only in the first.
const COPIED: u8 = 0x80;

/// Ethernet header with two tags, and the longest IPv4 header.
const MAX_HEADERS: usize = 22 + 60;

/// Hands `frame`, an IPv4 packet without DF, to `out` in fragments of at most `mtu` bytes each, in order, with the
/// identification `id`. `buffer` is scratch space. Returns the number of fragments.
///
/// A packet that fits comes out once, with that identification and its checksum completed. So does one with DF. What is
/// a fragment already is cut further: `id` must be that of its other fragments then.
///
/// # Errors
/// What [`Parsed::parse`] says. [`DropReason::CannotSegment`] for a super-frame, whose segments are packets of their
/// own. [`DropReason::AboveMtu`] if the packet does not fit and has DF, or if `mtu` has no room for eight bytes behind
/// the header. [`DropReason::Ipv4Malformed`] if it is not IPv4; [`DropReason::Ipv4BadOption`] for an option that runs
/// past the header; [`DropReason::FragmentMalformed`] for a fragment that is none: of a length that is no multiple of
/// eight although more follow, or reaching past the end of the largest packet. [`DropReason::BadVnetHeader`] for a
/// partial checksum in a fragment, which nobody could complete.
pub fn split(
    meta: &Meta,
    frame: &[u8],
    mtu: u16,
    id: u16,
    buffer: &mut Vec<u8>,
    out: &mut impl Emit,
) -> Result<usize, DropReason> {
    let parsed = Parsed::parse(frame)?;
    if meta.gso.is_some() {
        return Err(DropReason::CannotSegment);
    }
    if parsed.l3 != L3::Ipv4 {
        return Err(DropReason::Ipv4Malformed);
    }
    if parsed.fragment.is_some() && matches!(meta.checksum, ChecksumState::Partial { .. }) {
        return Err(DropReason::BadVnetHeader);
    }
    let (mtu, l3, l4, end) =
        (usize::from(mtu), usize::from(parsed.l3_start), usize::from(parsed.l4_start), parsed.end as usize);
    let flags = u16::from_be_bytes([frame[l3 + 6], frame[l3 + 7]]);
    let mut meta = *meta;
    buffer.clear();
    buffer.extend_from_slice(&frame[..end]);
    checksum::complete(&mut meta, buffer, end)?;
    if end - l3 <= mtu {
        write_lengths(&mut buffer[l3..], l4 - l3, id, flags);
        out.emit(&Meta::PLAIN, buffer);
        return Ok(1);
    }
    if flags & DONT_FRAGMENT != 0 || mtu < l4 - l3 + 8 {
        return Err(DropReason::AboveMtu);
    }
    let (offset, more) = parsed.fragment.map_or((0, false), |f| (usize::from(f.offset), f.more));
    if (more && !(end - l4).is_multiple_of(8)) || l4 - l3 + offset + (end - l4) > usize::from(u16::MAX) {
        return Err(DropReason::FragmentMalformed);
    }
    let mut later = [0; MAX_HEADERS];
    let later_len = later_headers(&frame[..l4], l3, &mut later)?;

    // The first one keeps the headers as they are.
    let (mut headers_len, mut at, mut count) = (l4, l4, 0);
    while at < end {
        let room = mtu + l3 - headers_len;
        let is_last = end - at <= room;
        let len = if is_last { end - at } else { room & !7 };
        let start = at - headers_len;
        if count > 0 {
            buffer[start..at].copy_from_slice(&later[..headers_len]);
        }
        let units = ((offset + at - l4) / 8) as u16;
        let follow = if !is_last || more { MORE_FRAGMENTS } else { 0 };
        let word = flags & !(MORE_FRAGMENTS | OFFSET) | follow | units;
        write_lengths(&mut buffer[start + l3..at + len], headers_len - l3, id, word);
        out.emit(&Meta::PLAIN, &buffer[start..at + len]);
        headers_len = later_len;
        at += len;
        count += 1;
    }
    Ok(count)
}

/// Writes what differs between fragments into the header of `packet`, which is `header` bytes long, and its checksum.
fn write_lengths(packet: &mut [u8], header: usize, id: u16, flags: u16) {
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet[10..12].copy_from_slice(&[0, 0]);
    let check = checksum::checksum(0, &packet[..header]);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
}

/// Writes the headers of all fragments but the first into `later`: those of the packet without the options that stand in
/// the first one only. Returns their length.
fn later_headers(headers: &[u8], l3: usize, later: &mut [u8; MAX_HEADERS]) -> Result<usize, DropReason> {
    let mut len = l3 + 20;
    later[..len].copy_from_slice(&headers[..len]);
    let mut options = &headers[len..];
    while let Some(kind) = options.first() {
        let size = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(*options.get(1).ok_or(DropReason::Ipv4BadOption)?).max(1),
        };
        let option = options.get(..size).ok_or(DropReason::Ipv4BadOption)?;
        if *kind != 1 && size < 2 {
            return Err(DropReason::Ipv4BadOption);
        }
        if kind & COPIED != 0 {
            later[len..len + size].copy_from_slice(option);
            len += size;
        }
        options = &options[size..];
    }
    // What is left of the last word is zero: the end of the options.
    let words = (len - l3).div_ceil(4);
    later[l3] = 0x40 | words as u8;
    Ok(l3 + words * 4)
}
