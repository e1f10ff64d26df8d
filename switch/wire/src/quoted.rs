//! The packet that an ICMP error quotes: read, and translated together with the error around it (RFC 5508 4, RFC 792).

use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};

use crate::{Endpoint, FrameOf, L4, checksum, protocol};

/// Bytes of an ICMP header, in front of the quote.
const ICMP_HEADER: usize = 8;
const IP_HEADER: usize = 20;

/// What an ICMP error says, and of which packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Type of the error: 3, 11 or 12.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The next hop's MTU, of "fragmentation needed"; 0 from routers that do not say (RFC 1191 4).
    pub mtu: u16,
    /// Protocol of the quoted packet.
    pub protocol: u8,
    /// Its source.
    pub src: Endpoint,
    /// Its destination.
    pub dst: Endpoint,
    /// Its sequence number, if it is TCP.
    pub seq: u32,
}

/// Why an ICMP error cannot be translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unquotable {
    /// It is no error that is ever translated: a redirect, a source quench (RFC 6633), something unknown.
    NotAnError,
    /// Its checksum, or that of the quoted IP header, is wrong.
    BadChecksum,
    /// The quote is too short, or no packet that can belong to a session: less than eight bytes of transport header, a
    /// later fragment, an ICMP error itself.
    Unusable,
}

/// Where the quoted packet's parts lie in the ICMP message.
struct Place {
    l4: usize,
    protocol: u8,
}

impl<B: Deref<Target = [u8]>> FrameOf<B> {
    /// Reads an ICMP error over IPv4 and the packet it quotes.
    ///
    /// The checksums of the message and of the quoted IP header are verified, the quoted transport checksum is not (RFC
    /// 5508, REQ-3): the quote rarely holds all that it covers.
    ///
    /// # Errors
    /// [`Unquotable`].
    pub fn quoted(&self) -> Result<Quoted, Unquotable> {
        let message = self.segment();
        let [kind @ (3 | 11 | 12), code, _, _, _, _, mtu_high, mtu_low, ..] = *message else {
            return Err(Unquotable::NotAnError);
        };
        if self.parsed().l4 != L4::Icmp || self.parsed().fragment.is_some() {
            return Err(Unquotable::NotAnError);
        }
        if checksum::sum(message) != 0xffff {
            return Err(Unquotable::BadChecksum);
        }
        let Place { l4, protocol } = place(message)?;
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(message[at], message[at + 1], message[at + 2], message[at + 3]);
        let (src, dst) = (address(ICMP_HEADER + 12), address(ICMP_HEADER + 16));
        let (src_port, dst_port) = match (protocol, message[l4]) {
            (protocol::TCP | protocol::UDP, _) => (word(l4), word(l4 + 2)),
            // The identifier stands at the asking end: a request's source, a reply's destination.
            (protocol::ICMP, 8) => (word(l4 + 4), 0),
            (protocol::ICMP, 0) => (0, word(l4 + 4)),
            _ => return Err(Unquotable::Unusable),
        };
        let seq = if protocol == protocol::TCP { u32::from(word(l4 + 4)) << 16 | u32::from(word(l4 + 6)) } else { 0 };
        let mtu = if (kind, code) == (3, 4) { u16::from_be_bytes([mtu_high, mtu_low]) } else { 0 };
        let (src, dst) = (Endpoint::new(src, src_port), Endpoint::new(dst, dst_port));
        Ok(Quoted { kind, code, mtu, protocol, src, dst, seq })
    }
}

/// Finds the quoted transport header. At least eight bytes of it are there.
fn place(message: &[u8]) -> Result<Place, Unquotable> {
    let quote = message.get(ICMP_HEADER..).ok_or(Unquotable::Unusable)?;
    let header = quote.first_chunk::<IP_HEADER>().ok_or(Unquotable::Unusable)?;
    let len = usize::from(header[0] & 0x0f) * 4;
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    if header[0] >> 4 != 4 || len < IP_HEADER || quote.len() < len + 8 || later_fragment {
        return Err(Unquotable::Unusable);
    }
    if checksum::sum(&quote[..len]) != 0xffff {
        return Err(Unquotable::BadChecksum);
    }
    Ok(Place { l4: ICMP_HEADER + len, protocol: header[9] })
}

impl<B: DerefMut<Target = [u8]>> FrameOf<B> {
    /// Translates an ICMP error: the quoted packet becomes one from `src` to `dst`, the error itself goes from
    /// `outer_src` to the quoted packet's source. Type and code stay.
    ///
    /// The quoted IP header's checksum stays right, and a quoted transport checksum stays as right as it was where the
    /// quote is long enough to hold it. Call it only after [`FrameOf::quoted`] said what is quoted.
    pub fn translate_quoted(&mut self, src: Endpoint, dst: Endpoint, outer_src: Ipv4Addr) {
        let start = usize::from(self.parsed().l4_start);
        let end = self.parsed().end as usize;
        self.set_src_ip(outer_src.into());
        self.set_dst_ip(src.ip.into());
        let message = &mut self.bytes_mut()[start..end];
        let Ok(Place { l4, protocol }) = place(message) else { return };
        let mut before = [0; 8];
        before.copy_from_slice(&message[ICMP_HEADER + 12..ICMP_HEADER + 20]);
        message[ICMP_HEADER + 12..ICMP_HEADER + 16].copy_from_slice(&src.ip.octets());
        message[ICMP_HEADER + 16..ICMP_HEADER + 20].copy_from_slice(&dst.ip.octets());
        let mut after = [0; 8];
        after.copy_from_slice(&message[ICMP_HEADER + 12..ICMP_HEADER + 20]);
        patch(message, ICMP_HEADER + 10, &before, &after);
        let (field, covers_addresses) = match protocol {
            protocol::TCP => (l4 + 16, true),
            protocol::UDP => (l4 + 6, true),
            _ => (l4 + 2, false),
        };
        let ports = if covers_addresses { l4..l4 + 4 } else { l4 + 4..l4 + 6 };
        let mut old = [0; 4];
        old[..ports.len()].copy_from_slice(&message[ports.clone()]);
        if covers_addresses {
            message[l4..l4 + 2].copy_from_slice(&src.port.to_be_bytes());
            message[l4 + 2..l4 + 4].copy_from_slice(&dst.port.to_be_bytes());
        } else {
            message[l4 + 4..l4 + 6].copy_from_slice(&(src.port | dst.port).to_be_bytes());
        }
        let mut new = [0; 4];
        new[..ports.len()].copy_from_slice(&message[ports]);
        let absent = protocol == protocol::UDP && message.get(field..field + 2) == Some(&[0, 0]);
        if field + 2 <= message.len() && !absent {
            patch(message, field, &old, &new);
            if covers_addresses {
                patch(message, field, &before, &after);
            }
            if protocol == protocol::UDP && message[field..field + 2] == [0, 0] {
                message[field..field + 2].copy_from_slice(&[0xff, 0xff]);
            }
        }
        message[2..4].copy_from_slice(&[0, 0]);
        let check = checksum::checksum(0, message);
        message[2..4].copy_from_slice(&check.to_be_bytes());
    }
}

fn patch(message: &mut [u8], field: usize, old: &[u8], new: &[u8]) {
    let check = u16::from_be_bytes([message[field], message[field + 1]]);
    message[field..field + 2].copy_from_slice(&checksum::update_bytes(check, old, new).to_be_bytes());
}
