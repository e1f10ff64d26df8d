//! A frame with its offsets and metadata, and the only place where header bytes of a frame are changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut};

use crate::{ChecksumState, DropReason, GsoKind, L3, L4, Mac, Meta, Parsed, checksum};

/// One frame on its way: bytes, offsets, metadata.
///
/// The bytes are lent and can be changed only by the setters, so the offsets stay true and the checksums right.
#[derive(Debug)]
pub struct FrameOf<B> {
    bytes: B,
    parsed: Parsed,
    meta: Meta,
}

/// A frame whose headers may be changed.
pub type Frame<'a> = FrameOf<&'a mut [u8]>;

/// A frame that is only looked at.
pub type FrameRef<'a> = FrameOf<&'a [u8]>;

impl<B: Deref<Target = [u8]>> FrameOf<B> {
    /// Parses a frame and checks that its metadata speaks of the same packet.
    ///
    /// # Errors
    /// As [`Parsed::parse`]; [`DropReason::BadVnetHeader`] if segmentation is asked for another protocol or family than
    /// the frame's, or if completing the checksum would overwrite a header.
    #[inline]
    pub fn parse(meta: Meta, bytes: B) -> Result<Self, DropReason> {
        let parsed = Parsed::parse(&bytes)?;
        if let Some(gso) = meta.gso {
            let right = match gso.kind {
                GsoKind::Tcp4 => parsed.l3 == L3::Ipv4 && parsed.l4 == L4::Tcp,
                GsoKind::Tcp6 => parsed.l3 == L3::Ipv6 && parsed.l4 == L4::Tcp,
                GsoKind::Udp => parsed.l4 == L4::Udp,
            };
            let starts = matches!(meta.checksum, ChecksumState::Partial { start, .. } if start == parsed.l4_start);
            if !right || !starts || parsed.fragment.is_some() {
                return Err(DropReason::BadVnetHeader);
            }
        }
        if !spares_headers(&parsed, meta.checksum) {
            return Err(DropReason::BadVnetHeader);
        }
        Ok(Self { bytes, parsed, meta })
    }

    /// The offsets.
    pub fn parsed(&self) -> &Parsed {
        &self.parsed
    }

    /// The metadata.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The whole frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The network-layer packet without the link's padding.
    pub fn packet(&self) -> &[u8] {
        &self.bytes[usize::from(self.parsed.l3_start)..self.parsed.end as usize]
    }

    /// The transport header and its payload; empty if there is none.
    pub fn segment(&self) -> &[u8] {
        &self.bytes[usize::from(self.parsed.l4_start)..self.parsed.end as usize]
    }

    /// The transport's payload. A UDP datagram's ends where its own length says.
    pub fn payload(&self) -> &[u8] {
        let start = usize::from(self.parsed.payload_start);
        let mut end = self.parsed.end as usize;
        if self.parsed.l4 == L4::Udp && self.parsed.fragment.is_none() {
            end = end.min(usize::from(self.parsed.l4_start) + usize::from(self.word(4)));
        }
        &self.bytes[start..end.max(start)]
    }

    /// Puts the first `room` bytes of the packet into `out`, as a wire would have carried them: for an ICMP error.
    ///
    /// A partial checksum is completed. That of a super-frame is no packet's: its quote ends before the field (TCP), or
    /// says that there is none (UDP).
    pub fn quote(&self, room: usize, out: &mut Vec<u8>) {
        let packet = self.packet();
        out.clear();
        out.extend_from_slice(packet.get(..room).unwrap_or(packet));
        let ChecksumState::Partial { start, offset } = self.meta.checksum else { return };
        let (start, l3) = (usize::from(start), usize::from(self.parsed.l3_start));
        let field = (start + usize::from(offset)).saturating_sub(l3);
        let check = match (self.meta.gso, self.parsed.l4) {
            (Some(_), L4::Udp) => 0,
            (Some(_), _) => return out.truncate(field),
            (None, l4) => {
                match !checksum::sum(&self.bytes[start.min(self.parsed.end as usize)..self.parsed.end as usize]) {
                    0 if l4 == L4::Udp => 0xffff,
                    check => check,
                }
            }
        };
        if let Some(place) = out.get_mut(field..field + 2) {
            place.copy_from_slice(&check.to_be_bytes());
        }
    }

    /// Destination MAC address.
    pub fn dst_mac(&self) -> Mac {
        self.mac(0)
    }

    /// Source MAC address.
    pub fn src_mac(&self) -> Mac {
        self.mac(6)
    }

    fn mac(&self, at: usize) -> Mac {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.bytes[at..at + 6]);
        Mac(mac)
    }

    /// Source IP address; `None` if not IP.
    pub fn src_ip(&self) -> Option<IpAddr> {
        self.ip(12, 8)
    }

    /// Destination IP address; `None` if not IP.
    pub fn dst_ip(&self) -> Option<IpAddr> {
        self.ip(16, 24)
    }

    fn ip(&self, v4: usize, v6: usize) -> Option<IpAddr> {
        let packet = &self.bytes[usize::from(self.parsed.l3_start)..];
        match self.parsed.l3 {
            L3::Ipv4 => {
                let octets: [u8; 4] = packet[v4..v4 + 4].try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            }
            L3::Ipv6 => {
                let octets: [u8; 16] = packet[v6..v6 + 16].try_into().ok()?;
                Some(Ipv6Addr::from(octets).into())
            }
            _ => None,
        }
    }

    /// Time to live or hop limit; 0 if not IP.
    pub fn ttl(&self) -> u8 {
        let start = usize::from(self.parsed.l3_start);
        match self.parsed.l3 {
            L3::Ipv4 => self.bytes[start + 8],
            L3::Ipv6 => self.bytes[start + 7],
            _ => 0,
        }
    }

    /// Source port of TCP or UDP, or the identifier of an ICMP echo; 0 if there is none.
    pub fn src_port(&self) -> u16 {
        match self.parsed.l4 {
            L4::Tcp | L4::Udp => self.word(0),
            L4::Icmp | L4::Icmpv6 => self.echo_id(),
            _ => 0,
        }
    }

    /// Destination port of TCP or UDP, or the identifier of an ICMP echo; 0 if there is none.
    pub fn dst_port(&self) -> u16 {
        match self.parsed.l4 {
            L4::Tcp | L4::Udp => self.word(2),
            L4::Icmp | L4::Icmpv6 => self.echo_id(),
            _ => 0,
        }
    }

    fn echo_id(&self) -> u16 {
        if self.segment().len() >= 8 { self.word(4) } else { 0 }
    }

    /// A big-endian word of the transport header.
    fn word(&self, at: usize) -> u16 {
        let at = usize::from(self.parsed.l4_start) + at;
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Whether the sum over the IPv4 header is right. True for anything that is not IPv4.
    pub fn ipv4_checksum_ok(&self) -> bool {
        if self.parsed.l3 != L3::Ipv4 {
            return true;
        }
        let packet = self.packet();
        match (packet[0] & 0x0f, packet.first_chunk()) {
            (5, Some(header)) => checksum::sum_header(header) == 0xffff,
            (words, _) => checksum::sum(&packet[..usize::from(words) * 4]) == 0xffff,
        }
    }

    /// Whether the transport checksum is right, or need not be looked at: partial, vouched for, absent (UDP over IPv4),
    /// not covering this fragment alone, or of a protocol that has none here.
    pub fn transport_checksum_ok(&self) -> bool {
        if self.meta.checksum != ChecksumState::Complete || self.parsed.fragment.is_some() {
            return true;
        }
        let segment = self.segment();
        let covered = match self.parsed.l4 {
            L4::Tcp => segment,
            L4::Udp if self.word(6) == 0 => return self.parsed.l3 == L3::Ipv4,
            L4::Udp => &segment[..usize::from(self.word(4))],
            L4::Icmp => return checksum::sum(segment) == 0xffff,
            L4::Icmpv6 => segment,
            L4::Other | L4::None | L4::Malformed => return true,
        };
        let (Some(src), Some(dst)) = (self.src_ip(), self.dst_ip()) else { return true };
        let pseudo = checksum::pseudo_header(src, dst, self.parsed.protocol, covered.len() as u32);
        checksum::add(pseudo, checksum::sum(covered)) == 0xffff
    }
}

/// Whether filling in the checksum writes where a checksum belongs: into the checksum field of the transport header, or
/// behind all headers that are known here (a tunnel's inner checksum). Otherwise the frame that leaves would not be the
/// one that was judged: another EtherType, another port, or a broken header made whole.
fn spares_headers(parsed: &Parsed, checksum: ChecksumState) -> bool {
    let ChecksumState::Partial { start, offset } = checksum else { return true };
    match (parsed.l3, parsed.l4) {
        (L3::Other, _) => start >= parsed.l3_start,
        (L3::Arp | L3::Malformed(_), _) | (_, L4::Malformed) => false,
        (L3::Ipv4 | L3::Ipv6, L4::Other | L4::None) => start >= parsed.l4_start,
        (L3::Ipv4 | L3::Ipv6, l4) => {
            let is_own = start == parsed.l4_start && checksum_offset(l4) == Some(usize::from(offset));
            is_own || start >= parsed.payload_start
        }
    }
}

/// Offset of the checksum field in a transport header; `None` if there is none to keep right.
fn checksum_offset(l4: L4) -> Option<usize> {
    match l4 {
        L4::Tcp => Some(16),
        L4::Udp => Some(6),
        L4::Icmp | L4::Icmpv6 => Some(2),
        L4::Other | L4::None | L4::Malformed => None,
    }
}

impl<B: DerefMut<Target = [u8]>> FrameOf<B> {
    /// The bytes, for the other setters of this crate.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Sets the destination MAC address.
    pub fn set_dst_mac(&mut self, mac: Mac) {
        self.bytes[..6].copy_from_slice(&mac.0);
    }

    /// Sets the source MAC address.
    pub fn set_src_mac(&mut self, mac: Mac) {
        self.bytes[6..12].copy_from_slice(&mac.0);
    }

    /// Takes one from the time to live or hop limit. Returns what is left; at 0 nothing is changed.
    pub fn decrement_ttl(&mut self) -> u8 {
        let Some(left) = self.ttl().checked_sub(1) else { return 0 };
        self.set_ttl(left);
        left
    }

    /// Sets the time to live or hop limit.
    pub fn set_ttl(&mut self, ttl: u8) {
        let start = usize::from(self.parsed.l3_start);
        match self.parsed.l3 {
            L3::Ipv4 => {
                let header = &mut self.bytes[start + 8..start + 12];
                let (old, new) = ([header[0], header[1]], [ttl, header[1]]);
                let check = u16::from_be_bytes([header[2], header[3]]);
                let check = checksum::update(check, u16::from_be_bytes(old), u16::from_be_bytes(new));
                header[0] = ttl;
                header[2..4].copy_from_slice(&check.to_be_bytes());
            }
            L3::Ipv6 => self.bytes[start + 7] = ttl,
            _ => {}
        }
    }

    /// Sets the identification of an IPv4 packet; anything else is left alone.
    pub fn set_ip_id(&mut self, id: u16) {
        if self.parsed.l3 == L3::Ipv4 {
            let start = usize::from(self.parsed.l3_start);
            let old = [self.bytes[start + 4], self.bytes[start + 5]];
            self.bytes[start + 4..start + 6].copy_from_slice(&id.to_be_bytes());
            self.patch(start + 10, &old, &id.to_be_bytes());
        }
    }

    /// Sets the type of an ICMP message of either family; anything else is left alone.
    pub fn set_icmp_type(&mut self, kind: u8) {
        if !matches!(self.parsed.l4, L4::Icmp | L4::Icmpv6) {
            return;
        }
        let at = usize::from(self.parsed.l4_start);
        let old = [self.bytes[at], self.bytes[at + 1]];
        let new = [kind, old[1]];
        self.bytes[at] = kind;
        if let (false, Some(field)) = (self.is_partial(), self.transport_field()) {
            self.patch_field(field, &old, &new);
        }
    }

    /// Sets the source IP address. An address of the other family changes nothing.
    pub fn set_src_ip(&mut self, ip: IpAddr) {
        self.set_ip(ip, 12, 8);
    }

    /// Sets the destination IP address. An address of the other family changes nothing.
    pub fn set_dst_ip(&mut self, ip: IpAddr) {
        self.set_ip(ip, 16, 24);
    }

    fn set_ip(&mut self, ip: IpAddr, v4: usize, v6: usize) {
        let start = usize::from(self.parsed.l3_start);
        match (self.parsed.l3, ip) {
            (L3::Ipv4, IpAddr::V4(new)) => {
                let at = start + v4;
                let mut old = [0; 4];
                old.copy_from_slice(&self.bytes[at..at + 4]);
                self.bytes[at..at + 4].copy_from_slice(&new.octets());
                self.patch(start + 10, &old, &new.octets());
                self.patch_transport_address(&old, &new.octets());
            }
            (L3::Ipv6, IpAddr::V6(new)) => {
                let at = start + v6;
                let mut old = [0; 16];
                old.copy_from_slice(&self.bytes[at..at + 16]);
                self.bytes[at..at + 16].copy_from_slice(&new.octets());
                self.patch_transport_address(&old, &new.octets());
            }
            _ => {}
        }
    }

    /// Sets the source port of TCP or UDP, or the identifier of an ICMP echo.
    pub fn set_src_port(&mut self, port: u16) {
        self.set_port(port, 0);
    }

    /// Sets the destination port of TCP or UDP, or the identifier of an ICMP echo.
    pub fn set_dst_port(&mut self, port: u16) {
        self.set_port(port, 2);
    }

    fn set_port(&mut self, port: u16, at: usize) {
        let at = match self.parsed.l4 {
            L4::Tcp | L4::Udp => usize::from(self.parsed.l4_start) + at,
            L4::Icmp | L4::Icmpv6 if self.segment().len() >= 8 => usize::from(self.parsed.l4_start) + 4,
            _ => return,
        };
        let old = [self.bytes[at], self.bytes[at + 1]];
        let new = port.to_be_bytes();
        self.bytes[at..at + 2].copy_from_slice(&new);
        // A partial checksum covers the pseudo header only, and ports are not in it.
        if let (false, Some(field)) = (self.is_partial(), self.transport_field()) {
            self.patch_field(field, &old, &new);
        }
    }

    /// Lowers the MSS option of a TCP SYN to `mss`; leaves a lower one, a missing one and any other segment alone.
    ///
    /// Returns the old value if it was changed.
    pub fn clamp_mss(&mut self, mss: u16) -> Option<u16> {
        const SYN: u8 = 0x02;
        let start = usize::from(self.parsed.l4_start);
        if self.parsed.l4 != L4::Tcp || self.bytes[start + 13] & SYN == 0 {
            return None;
        }
        let end = usize::from(self.parsed.payload_start);
        let mut at = start + 20;
        while at < end {
            match self.bytes[at] {
                0 => return None,
                1 => at += 1,
                kind => {
                    let len = usize::from(*self.bytes[..end].get(at + 1)?);
                    if len < 2 || at + len > end {
                        return None;
                    }
                    if kind == 2 && len == 4 {
                        let old = u16::from_be_bytes([self.bytes[at + 2], self.bytes[at + 3]]);
                        if old <= mss {
                            return None;
                        }
                        // The option may stand at an odd offset: patch the aligned words that hold it.
                        let from = start + ((at + 2 - start) & !1);
                        let to = (from + 4).min(end);
                        let mut before = [0; 4];
                        before[..to - from].copy_from_slice(&self.bytes[from..to]);
                        self.bytes[at + 2..at + 4].copy_from_slice(&mss.to_be_bytes());
                        let mut after = [0; 4];
                        after[..to - from].copy_from_slice(&self.bytes[from..to]);
                        if !self.is_partial() {
                            self.patch_field(start + 16, &before, &after);
                        }
                        return Some(old);
                    }
                    at += len;
                }
            }
        }
        None
    }

    /// Whether the transport header's own checksum is partial. A partial checksum of an inner header (a tunnel) says
    /// nothing of the outer one.
    pub(crate) fn is_partial(&self) -> bool {
        matches!(self.meta.checksum, ChecksumState::Partial { start, .. } if start == self.parsed.l4_start)
    }

    /// Offset in the frame of the transport's checksum field; `None` if there is none to keep right.
    fn transport_field(&self) -> Option<usize> {
        checksum_offset(self.parsed.l4).map(|field| usize::from(self.parsed.l4_start) + field)
    }

    /// After a change of address: the transport checksum covers it through the pseudo header (not ICMP for IPv4).
    fn patch_transport_address(&mut self, old: &[u8], new: &[u8]) {
        if self.parsed.l4 == L4::Icmp {
            return;
        }
        let Some(field) = self.transport_field() else { return };
        if self.is_partial() {
            let now = u16::from_be_bytes([self.bytes[field], self.bytes[field + 1]]);
            let patched = checksum::update_partial(now, old, new);
            self.bytes[field..field + 2].copy_from_slice(&patched.to_be_bytes());
        } else {
            self.patch_field(field, old, new);
        }
    }

    /// Patches a complete transport checksum, minding UDP's two special values, and that an ICMP message may be all
    /// zeros: then the two zeros of ones' complement differ, and patching cannot tell which one is right.
    fn patch_field(&mut self, field: usize, old: &[u8], new: &[u8]) {
        if self.parsed.l4 != L4::Udp {
            self.patch(field, old, new);
            let all_zero = || self.parsed.fragment.is_none() && self.segment().iter().all(|byte| *byte == 0);
            if self.parsed.l4 == L4::Icmp && self.bytes[field..field + 2] == [0, 0] && all_zero() {
                self.bytes[field..field + 2].copy_from_slice(&[0xff, 0xff]);
            }
        } else if self.bytes[field..field + 2] != [0, 0] {
            self.patch(field, old, new);
            if self.bytes[field..field + 2] == [0, 0] {
                self.bytes[field..field + 2].copy_from_slice(&[0xff, 0xff]);
            }
        }
    }

    /// Patches a complete checksum.
    fn patch(&mut self, field: usize, old: &[u8], new: &[u8]) {
        let now = u16::from_be_bytes([self.bytes[field], self.bytes[field + 1]]);
        let patched = checksum::update_bytes(now, old, new);
        self.bytes[field..field + 2].copy_from_slice(&patched.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gso, build};

    fn echo(id: u16, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let link = build::Link { src: Mac([2; 6]), dst: Mac([4; 6]) };
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 2).into(), Ipv4Addr::new(10, 0, 0, 1).into());
        let [hi, lo] = id.to_be_bytes();
        build::icmp(&mut out, link, build::Ip { src, dst, ttl: 1, tos: 0, id: 0 }, 8, 0, [hi, lo, 0, 0], body);
        out
    }

    #[test]
    fn ip_5_ttl_and_icmp_type_keep_both_checksums_right_even_when_all_else_is_zero() {
        for (id, body) in [(0, &[][..]), (0, &[0; 56]), (7, b"hello"), (0xfff7, &[0, 0]), (0xf7ff, &[])] {
            let mut bytes = echo(id, body);
            let mut frame = Frame::parse(Meta::PLAIN, &mut bytes).unwrap();
            frame.set_icmp_type(0);
            frame.set_ttl(64);
            assert_eq!((frame.ttl(), frame.segment()[0]), (64, 0));
            assert!(frame.ipv4_checksum_ok() && frame.transport_checksum_ok(), "id {id:#x}");
            assert_eq!((frame.decrement_ttl(), frame.ttl()), (63, 63));
            assert!(frame.ipv4_checksum_ok());
        }
    }

    #[test]
    fn ip_4_the_identification_is_set_with_the_header_checksum_right() {
        for (old, new) in [(0, 0xffff), (0xffff, 0), (0x1234, 0x1234), (1, 0x8000)] {
            let mut bytes = echo(9, b"x");
            let before = bytes.clone();
            let mut frame = Frame::parse(Meta::PLAIN, &mut bytes).unwrap();
            frame.set_ip_id(old);
            assert!(frame.ipv4_checksum_ok());
            frame.set_ip_id(new);
            assert!(frame.ipv4_checksum_ok() && frame.transport_checksum_ok(), "{old:#x} to {new:#x}");
            assert_eq!((&bytes[..18], &bytes[18..20]), (&before[..18], &new.to_be_bytes()[..]));
            assert_eq!((&bytes[20..24], &bytes[26..]), (&before[20..24], &before[26..]), "nothing else is touched");
        }
        let mut arp = Vec::new();
        let ip = Ipv4Addr::LOCALHOST;
        let request = build::Arp { operation: 1, sha: Mac([2; 6]), spa: ip, tha: Mac([0; 6]), tpa: ip };
        build::arp(&mut arp, build::Link { src: Mac([2; 6]), dst: Mac::BROADCAST }, request);
        let before = arp.clone();
        Frame::parse(Meta::PLAIN, &mut arp[..]).unwrap().set_ip_id(7);
        assert_eq!(arp, before);
    }

    #[test]
    fn quote_is_what_a_wire_would_have_carried() {
        let link = build::Link { src: Mac([2; 6]), dst: Mac([4; 6]) };
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 2).into(), Ipv4Addr::new(192, 0, 2, 1).into());
        let ip = build::Ip { src, dst, ttl: 9, tos: 0, id: 0 };
        let tcp = build::Tcp { src_port: 1, dst_port: 2, seq: 3, ack: 4, flags: 16, window: 5, options: &[1, 1, 1, 0] };
        let mut bytes = Vec::new();
        let mut meta = build::tcp(&mut bytes, link, ip, tcp, 3_000);
        bytes.resize(bytes.len() + 3_000, 0xa5);

        let mut quote = Vec::new();
        FrameRef::parse(meta, &bytes).unwrap().quote(usize::MAX, &mut quote);
        bytes.splice(14.., quote.iter().copied());
        let completed = FrameRef::parse(Meta::PLAIN, &bytes).unwrap();
        assert!(completed.transport_checksum_ok() && completed.ipv4_checksum_ok());
        let whole = quote.clone();
        FrameRef::parse(meta, &bytes).unwrap().quote(28, &mut quote);
        assert_eq!(quote[..], whole[..28], "cut before the checksum");

        meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1_000, ecn: false });
        FrameRef::parse(meta, &bytes).unwrap().quote(576, &mut quote);
        assert_eq!(quote[..], whole[..36], "a super-frame's checksum is no packet's");
    }

    #[test]
    fn at_20_a_partial_checksum_that_would_overwrite_a_header_is_refused() {
        let (l4, payload) = (34, 38);
        let table = [
            (l4, 2, true, "the checksum of ICMP"),
            (l4, 6, false, "the sequence number of ICMP"),
            (14, 10, false, "the checksum of the IPv4 header"),
            (l4 - 2, 4, false, "reaches back into the IPv4 header"),
            (l4 + 1, 1, false, "the checksum of ICMP, summed from elsewhere"),
            (payload, 0, true, "something in the payload"),
        ];
        let taken = |start: u16, offset: u16, bytes: &mut [u8]| {
            let meta = Meta { checksum: ChecksumState::Partial { start, offset }, gso: None };
            Frame::parse(meta, bytes).map(|_| ())
        };
        let refused = Err(DropReason::BadVnetHeader);
        for (start, offset, is_taken, what) in table {
            let result = taken(start, offset, &mut echo(1, &[0; 56]));
            assert_eq!(result, if is_taken { Ok(()) } else { refused }, "{what}");
        }
        // What is broken must not be made whole, nor what was read be changed: TCP, IPv4, ARP, a VLAN tag.
        let mut broken = echo(1, &[0; 56]);
        broken[23] = 6;
        assert_eq!(taken(l4, 16, &mut broken), refused);
        broken[14] = 0x44;
        assert_eq!(taken(l4, 16, &mut broken), refused);
        broken[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(taken(l4, 16, &mut broken), refused);
        broken[12..14].copy_from_slice(&[0x81, 0]);
        assert_eq!(taken(14, 2, &mut broken), refused);
        // What is behind an unknown EtherType is not read.
        assert_eq!(taken(14, 0, &mut [0; 60]), Ok(()));
    }
}
