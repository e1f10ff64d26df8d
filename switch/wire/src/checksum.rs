//! The internet checksum (RFC 1071), patched (RFC 1624, equation 3) and completed.

use std::net::IpAddr;

use crate::{ChecksumState, DropReason, Meta};

/// Ones' complement sum of big-endian words, folded to 16 bits, not complemented. An odd last byte is the high half of
/// a word.
pub fn sum(bytes: &[u8]) -> u16 {
    // The sum may be taken in any byte order and any width (RFC 1071, 2 (B) and (C)): native words of eight bytes,
    // split into two accumulators so that no carry is ever lost.
    let mut low = 0u64;
    let mut high = 0u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let rest = chunks.remainder();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let word = u64::from_ne_bytes(last);
    low += word & 0xffff_ffff;
    high += word >> 32;
    let native = fold(fold32(low) + fold32(high));
    u16::from_be_bytes(native.to_ne_bytes())
}

fn fold32(sum: u64) -> u64 {
    (sum & 0xffff) + ((sum >> 16) & 0xffff) + ((sum >> 32) & 0xffff) + (sum >> 48)
}

/// Folds a sum of 16-bit words to 16 bits with end-around carry.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Ones' complement sum of two folded sums.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    // One carry at most, and what it is added to is then below 0xffff.
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// As [`sum`], over an IPv4 header without options.
#[inline]
pub fn sum_header(header: &[u8; 20]) -> u16 {
    let mut total = 0u64;
    for word in header.chunks_exact(4) {
        total += u64::from(u32::from_ne_bytes(word.try_into().unwrap_or_default()));
    }
    u16::from_be_bytes(fold(fold32(total)).to_ne_bytes())
}

/// The complete checksum of `bytes`, whose own field holds zero, on top of `initial` (a pseudo header's sum, or 0).
pub fn checksum(initial: u16, bytes: &[u8]) -> u16 {
    !add(initial, sum(bytes))
}

/// Uncomplemented sum of the pseudo header (RFC 9293 3.1, RFC 768, RFC 8200 8.1).
///
/// Addresses of different families sum whatever they hold: the caller takes both from one header.
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> u16 {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => sum(&ip.octets()),
        IpAddr::V6(ip) => sum(&ip.octets()),
    };
    let length = add((len >> 16) as u16, len as u16);
    add(add(address(src), address(dst)), add(u16::from(protocol), length))
}

/// The checksum after one word of what it covers changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub const fn update(check: u16, old: u16, new: u16) -> u16 {
    !add(add(!check, !old), new)
}

/// The checksum after several words changed.
pub fn update_bytes(check: u16, old: &[u8], new: &[u8]) -> u16 {
    !add(add(!check, !sum(old)), sum(new))
}

/// An uncomplemented sum after several of its words changed: what a partial checksum field needs.
pub fn update_partial(field: u16, old: &[u8], new: &[u8]) -> u16 {
    add(add(field, !sum(old)), sum(new))
}

/// Completes a partial checksum in place, and says so in `meta`. A frame with a complete one is left as it is.
///
/// # Errors
/// [`DropReason::BadVnetHeader`] if the offsets lie outside the frame; [`DropReason::CannotSegment`] for a super-frame,
/// whose segments each need one of their own.
pub fn complete(meta: &mut Meta, frame: &mut [u8], end: usize) -> Result<(), DropReason> {
    let ChecksumState::Partial { start, offset } = meta.checksum else { return Ok(()) };
    if meta.gso.is_some() {
        return Err(DropReason::CannotSegment);
    }
    let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
    let end = end.min(frame.len());
    if start > end || field + 2 > end {
        return Err(DropReason::BadVnetHeader);
    }
    // The field itself holds the pseudo header's sum, so summing over it includes that sum.
    let check = match !sum(&frame[start..end]) {
        0 if offset == 6 => 0xffff, // UDP: a zero says "none" (RFC 768)
        check => check,
    };
    frame[field..field + 2].copy_from_slice(&check.to_be_bytes());
    meta.checksum = ChecksumState::Complete;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut total = 0u64;
        for pair in bytes.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        fold(total)
    }

    /// IP-5: the sum of all other words, the old and the new value of one word: each takes every value while the other
    /// two take those at which carries and the two zeros meet.
    #[test]
    fn ip_5_patching_one_word_equals_summing_anew_for_every_value() {
        const EDGES: [u16; 8] = [0, 1, 0x00ff, 0x1234, 0x7fff, 0x8000, 0xfffe, 0xffff];
        let same = |a: u16, b: u16| a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0);
        let check = |rest: u16, old: u16, new: u16| {
            let full = !add(rest, new);
            let patched = update(!add(rest, old), old, new);
            // Only where all words are zero the two representations of zero can be confused.
            let right = if rest == 0 { same(patched, full) } else { patched == full };
            assert!(right, "rest {rest:#x}: {old:#x} -> {new:#x}: {patched:#x} instead of {full:#x}");
        };
        for value in 0..=0xffff {
            for a in EDGES {
                for b in EDGES {
                    check(value, a, b);
                    check(a, value, b);
                    check(a, b, value);
                }
            }
        }
    }

    #[test]
    fn wide_sum_equals_the_definition_at_every_length() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i * 197 + 13) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(sum(&bytes[..len]), slow(&bytes[..len]), "length {len}");
        }
        let ones = vec![0xff; 65_536];
        assert_eq!(sum(&ones), slow(&ones));
    }

    proptest::proptest! {
        #[test]
        fn sum_of_a_header_is_that_of_its_bytes(header in proptest::array::uniform20(proptest::num::u8::ANY)) {
            proptest::prop_assert_eq!(sum_header(&header), slow(&header));
        }

        #[test]
        fn partial_update_then_complete_equals_complete_then_update(
            body in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            old in proptest::array::uniform4(proptest::num::u8::ANY),
            new in proptest::array::uniform4(proptest::num::u8::ANY),
        ) {
            let partial = update_partial(sum(&old), &old, &new);
            let completed = !add(partial, sum(&body));
            let patched = update_bytes(!add(sum(&old), sum(&body)), &old, &new);
            // Both zeros mean the same; only their representation may differ.
            proptest::prop_assert!(completed == patched || completed ^ patched == 0xffff && (completed == 0 || patched == 0));
        }
    }
}
