//! One pass over a frame, giving offsets.
//!
//! Parsing never fails on what is inside an Ethernet frame: a bridge forwards packets it does not understand. What is
//! wrong at layer 3 or 4 is recorded, and whoever needs that layer (gateway, relay) drops with that reason.

use crate::{DropReason, ETHERNET_HEADER_LEN, MAX_FRAME_LEN};

/// EtherType values used here.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// MAC control: PAUSE.
    pub const PAUSE: u16 = 0x8808;
}

/// IP protocol numbers used here.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// How many IPv6 extension headers are walked before the packet counts as malformed.
const MAX_EXTENSIONS: usize = 8;

/// The outermost 802.1Q tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vlan {
    /// Priority, drop eligibility and VLAN, as on the wire.
    pub tci: u16,
}

impl Vlan {
    /// The VLAN identifier, 0 to 4095.
    pub fn vid(self) -> u16 {
        self.tci & 0x0fff
    }
}

/// The network layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L3 {
    /// An ARP packet, unchecked.
    Arp,
    /// An IPv4 header whose lengths hold. Its checksum is not looked at.
    Ipv4,
    /// An IPv6 header whose lengths hold.
    Ipv6,
    /// Something else.
    Other,
    /// IP by its EtherType, but broken.
    Malformed(DropReason),
}

/// The transport layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L4 {
    /// TCP with a whole header.
    Tcp,
    /// UDP with a whole header and a length that fits.
    Udp,
    /// ICMP for IPv4, at least four bytes.
    Icmp,
    /// ICMP for IPv6, at least four bytes.
    Icmpv6,
    /// Another IP protocol.
    Other,
    /// There is none: not IP, or a fragment other than the first.
    None,
    /// The header is cut short or its lengths contradict the packet.
    Malformed,
}

/// An IP fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Offset of this fragment's payload in the whole packet, in bytes.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
}

/// Offsets into one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// The outermost VLAN tag.
    pub vlan: Option<Vlan>,
    /// The EtherType behind all tags.
    pub ethertype: u16,
    /// The network layer.
    pub l3: L3,
    /// Where it begins.
    pub l3_start: u16,
    /// The IP protocol of the transport header (behind all extension headers); 0 if not IP.
    pub protocol: u8,
    /// The transport layer.
    pub l4: L4,
    /// Where it begins. Equal to `l3_start` if there is no network layer.
    pub l4_start: u16,
    /// Where the transport's payload begins.
    pub payload_start: u16,
    /// Where the IP packet ends: what follows is padding of the link. The frame's length if not IP.
    pub end: u32,
    /// Set for an IP fragment (not for an atomic one).
    pub fragment: Option<Fragment>,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl Parsed {
    /// Parses a whole Ethernet frame.
    ///
    /// # Errors
    /// [`DropReason::FrameTooShort`] below 14 bytes (or inside a VLAN tag), [`DropReason::FrameTooLong`] above
    /// [`MAX_FRAME_LEN`].
    #[inline(always)]
    pub fn parse(frame: &[u8]) -> Result<Parsed, DropReason> {
        if frame.len() < ETHERNET_HEADER_LEN {
            return Err(DropReason::FrameTooShort);
        }
        if frame.len() > MAX_FRAME_LEN {
            return Err(DropReason::FrameTooLong);
        }
        let mut at = ETHERNET_HEADER_LEN;
        let mut kind = word(frame, 12);
        let mut vlan = None;
        // Two tags at most: a service tag and a customer tag. A third one is payload.
        for _ in 0..2 {
            if kind != ethertype::VLAN && kind != ethertype::QINQ {
                break;
            }
            if frame.len() < at + 4 {
                return Err(DropReason::FrameTooShort);
            }
            vlan = vlan.or(Some(Vlan { tci: word(frame, at) }));
            kind = word(frame, at + 2);
            at += 4;
        }
        let mut parsed = Parsed {
            vlan,
            ethertype: kind,
            l3: L3::Other,
            l3_start: at as u16,
            protocol: 0,
            l4: L4::None,
            l4_start: at as u16,
            payload_start: at as u16,
            end: frame.len() as u32,
            fragment: None,
        };
        match kind {
            ethertype::IPV4 => parsed.ipv4(frame),
            ethertype::IPV6 => parsed.ipv6(frame),
            ethertype::ARP => parsed.l3 = L3::Arp,
            _ => {}
        }
        Ok(parsed)
    }

    #[inline(always)]
    fn ipv4(&mut self, frame: &[u8]) {
        let start = usize::from(self.l3_start);
        let packet = &frame[start..];
        self.l3 = L3::Malformed(DropReason::Ipv4Malformed);
        // As an array, so that nothing below is checked for its bounds again.
        let Some(fixed) = packet.first_chunk::<20>() else { return };
        let header = usize::from(fixed[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if fixed[0] >> 4 != 4 || header < 20 || total < header || total > packet.len() {
            return;
        }
        self.l3 = L3::Ipv4;
        self.protocol = fixed[9];
        self.end = (start + total) as u32;
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        if fragment & 0x3fff != 0 {
            self.fragment = Some(Fragment { offset: (fragment & 0x1fff) * 8, more: fragment & 0x2000 != 0 });
        }
        self.transport(frame, start + header);
    }

    // Out of line, which makes the other families' way shorter.
    #[inline(never)]
    fn ipv6(&mut self, frame: &[u8]) {
        let start = usize::from(self.l3_start);
        let packet = &frame[start..];
        self.l3 = L3::Malformed(DropReason::Ipv6Malformed);
        if packet.len() < 40 || packet[0] >> 4 != 6 {
            return;
        }
        let total = 40 + usize::from(word(packet, 4));
        if total > packet.len() {
            return;
        }
        let mut next = packet[6];
        let mut at = 40;
        // One turn for each extension header and one for what follows the last.
        for _ in 0..=MAX_EXTENSIONS {
            let len = match next {
                // Hop-by-hop, routing, destination options: length in units of 8 bytes, not counting the first.
                0 | 43 | 60 => match packet.get(at + 1) {
                    Some(units) => (usize::from(*units) + 1) * 8,
                    None => return,
                },
                44 => 8,
                // Authentication: length in units of 4 bytes, not counting the first two (RFC 4302 2.2).
                51 => match packet.get(at + 1) {
                    Some(units) => (usize::from(*units) + 2) * 4,
                    None => return,
                },
                _ => {
                    self.l3 = L3::Ipv6;
                    self.protocol = next;
                    self.end = (start + total) as u32;
                    self.transport(frame, start + at);
                    return;
                }
            };
            if at + len > total {
                return;
            }
            if next == 44 {
                let (offset, more) = (word(packet, at + 2) & 0xfff8, word(packet, at + 2) & 1 != 0);
                if offset > 0 || more {
                    self.fragment = Some(Fragment { offset, more });
                }
            }
            next = packet[at];
            at += len;
            if self.fragment.is_some_and(|f| f.offset > 0) {
                self.l3 = L3::Ipv6;
                self.protocol = next;
                self.end = (start + total) as u32;
                self.transport(frame, start + at);
                return;
            }
        }
    }

    #[inline(always)]
    fn transport(&mut self, frame: &[u8], start: usize) {
        let end = self.end as usize;
        self.l4_start = start as u16;
        self.payload_start = start as u16;
        if self.fragment.is_some_and(|f| f.offset > 0) {
            self.l4 = L4::None;
            return;
        }
        let Some(segment) = frame.get(start..end) else {
            self.l4 = L4::Malformed;
            return;
        };
        let (kind, header) = match (self.l3, self.protocol) {
            (_, protocol::TCP) => match segment.get(12) {
                Some(offset) if offset >> 4 >= 5 => (L4::Tcp, usize::from(offset >> 4) * 4),
                _ => (L4::Malformed, 0),
            },
            (_, protocol::UDP) if segment.len() >= 8 => {
                let len = usize::from(word(segment, 4));
                // The first fragment of a datagram holds less than its length says.
                let fits = len >= 8 && (len <= segment.len() || self.fragment.is_some());
                if fits { (L4::Udp, 8) } else { (L4::Malformed, 0) }
            }
            (_, protocol::UDP) => (L4::Malformed, 0),
            (L3::Ipv4, protocol::ICMP) => (L4::Icmp, 4),
            (L3::Ipv6, protocol::ICMPV6) => (L4::Icmpv6, 4),
            _ => (L4::Other, 0),
        };
        if header > segment.len() {
            self.l4 = L4::Malformed;
            return;
        }
        self.l4 = kind;
        self.payload_start = (start + header) as u16;
    }
}
