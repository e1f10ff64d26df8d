//! ICMP errors that containers get, and what they quote.

use tapswitch_wire::{Emit, FrameOf, Meta, build};

use crate::host::HostIcmp;

/// Header bytes of a container's packet that an ICMP error quotes: the IP header with all its options, and the eight
/// bytes behind it that name the flow (RFC 792).
pub(crate) const QUOTE: usize = 68;

/// The part of a container's packet that an ICMP error about it quotes.
pub(crate) fn quote<B: std::ops::Deref<Target = [u8]>>(frame: &FrameOf<B>) -> &[u8] {
    let packet = frame.packet();
    let header = usize::from(frame.parsed().l4_start - frame.parsed().l3_start);
    &packet[..(header + 8).min(packet.len()).min(QUOTE)]
}

/// Builds the ICMP error that a container gets, from what the host was told.
pub(crate) fn emit_icmp_error(
    error: HostIcmp,
    link: build::Link,
    ip: build::Ip,
    head: &[u8],
    buffer: &mut Vec<u8>,
    out: &mut impl Emit,
) {
    let [high, low] = error.mtu.to_be_bytes();
    // Only "fragmentation needed" has something in the second half of the word (RFC 1191 4).
    let word = if (error.kind, error.code) == (3, 4) { [0, 0, high, low] } else { [0; 4] };
    build::icmp(buffer, link, ip, error.kind, error.code, word, head);
    out.emit(&Meta::PLAIN, buffer);
}
