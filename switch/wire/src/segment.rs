//! Cutting a super-frame into the frames it stands for, and completing checksums on the way: software segmentation for a
//! port that lacks the capability.
//!
//! Each segment repeats the headers. What differs: lengths, the IPv4 identification, the TCP sequence number; FIN and
//! PSH belong to the last segment, CWR to the first (RFC 3168 6.1.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::parse::protocol;
use crate::{ChecksumState, DropReason, Emit, GsoKind, L3, L4, Meta, Parsed, checksum};

/// Hands each segment of `frame` to `out` as an ordinary frame with complete checksums. `buffer` is scratch space.
///
/// A frame without segmentation comes out once, its checksum completed. Returns the number of frames.
///
/// # Errors
/// What [`Parsed::parse`] says; [`DropReason::CannotSegment`] if the frame is not of the kind its metadata names.
pub fn segment(meta: &Meta, frame: &[u8], buffer: &mut Vec<u8>, out: &mut impl Emit) -> Result<usize, DropReason> {
    let parsed = Parsed::parse(frame)?;
    let Some(gso) = meta.gso else {
        if let ChecksumState::Partial { .. } = meta.checksum {
            buffer.clear();
            buffer.extend_from_slice(frame);
            let mut meta = *meta;
            checksum::complete(&mut meta, buffer, parsed.end as usize)?;
            out.emit(&meta, buffer);
        } else {
            out.emit(&Meta::PLAIN, frame);
        }
        return Ok(1);
    };
    let wanted = match gso.kind {
        GsoKind::Tcp4 | GsoKind::Tcp6 => L4::Tcp,
        GsoKind::Udp => L4::Udp,
    };
    if parsed.l4 != wanted || gso.size == 0 || parsed.fragment.is_some() {
        return Err(DropReason::CannotSegment);
    }
    let (l3, l4) = (usize::from(parsed.l3_start), usize::from(parsed.l4_start));
    let (payload_start, end) = (usize::from(parsed.payload_start), parsed.end as usize);
    let (headers, payload) = (&frame[..payload_start], &frame[payload_start..end]);
    let size = usize::from(gso.size);
    let count = payload.len().div_ceil(size).max(1);
    for index in 0..count {
        let part = &payload[(index * size).min(payload.len())..((index + 1) * size).min(payload.len())];
        buffer.clear();
        buffer.extend_from_slice(headers);
        buffer.extend_from_slice(part);
        let packet_len = buffer.len() - l3;
        let (src, dst) = addresses(&parsed, &mut buffer[l3..], packet_len, l4 - l3, index)?;
        let segment_len = buffer.len() - l4;
        let segment = &mut buffer[l4..];
        let (number, field) = if wanted == L4::Tcp {
            let seq = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
            segment[4..8].copy_from_slice(&seq.wrapping_add((index * size) as u32).to_be_bytes());
            if index + 1 < count {
                segment[13] &= !0x09; // FIN, PSH
            }
            if index > 0 {
                segment[13] &= !0x80; // CWR
            }
            (protocol::TCP, 16)
        } else {
            segment[4..6].copy_from_slice(&(segment_len as u16).to_be_bytes());
            (protocol::UDP, 6)
        };
        segment[field..field + 2].copy_from_slice(&[0, 0]);
        let pseudo = checksum::pseudo_header(src, dst, number, segment_len as u32);
        let check = match checksum::checksum(pseudo, segment) {
            0 if number == protocol::UDP => 0xffff,
            check => check,
        };
        segment[field..field + 2].copy_from_slice(&check.to_be_bytes());
        out.emit(&Meta::PLAIN, buffer);
    }
    Ok(count)
}

/// Writes the IP header's length (and the IPv4 identification and checksum); returns the addresses.
fn addresses(
    parsed: &Parsed,
    packet: &mut [u8],
    packet_len: usize,
    header_len: usize,
    index: usize,
) -> Result<(IpAddr, IpAddr), DropReason> {
    let octets4 = |at: usize, packet: &[u8]| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let octets6 = |at: usize, packet: &[u8]| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&packet[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    match parsed.l3 {
        L3::Ipv4 => {
            packet[2..4].copy_from_slice(&(packet_len as u16).to_be_bytes());
            let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(index as u16);
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[10..12].copy_from_slice(&[0, 0]);
            let check = checksum::checksum(0, &packet[..header_len]);
            packet[10..12].copy_from_slice(&check.to_be_bytes());
            Ok((octets4(12, packet).into(), octets4(16, packet).into()))
        }
        L3::Ipv6 => {
            packet[4..6].copy_from_slice(&((packet_len - 40) as u16).to_be_bytes());
            Ok((octets6(8, packet).into(), octets6(24, packet).into()))
        }
        _ => Err(DropReason::CannotSegment),
    }
}
