//! What the virtio-net header says about a frame, and how it is read and written.
//!
//! The header is ten bytes, in the byte order of the host: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
//! (virtio 1.2, 5.1.6; `struct virtio_net_hdr`). `hdr_len` is a hint that senders get wrong: it is never read, and what
//! is written is computed from the frame.

use crate::{DropReason, ETHERNET_HEADER_LEN};

/// Bytes of the virtio-net header in front of each frame of a port with offloads.
pub const VNET_HEADER_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// How far the transport checksum of a frame has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChecksumState {
    /// The field is complete, and nobody vouches for it.
    #[default]
    Complete,
    /// The field is complete, and the sender's kernel vouches for the packet.
    Verified,
    /// The field holds the uncomplemented sum of the pseudo header; the rest is still to be added.
    Partial {
        /// Offset in the frame at which summing begins: the transport header.
        start: u16,
        /// Offset of the field from `start`.
        offset: u16,
    },
}

/// What kind of packet a super-frame is to be cut into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of equal size (USO), over either family.
    Udp,
}

/// Segmentation that is still to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gso {
    /// The kind of segments.
    pub kind: GsoKind,
    /// Payload bytes of each segment but the last.
    pub size: u16,
    /// Whether the CWR flag belongs to the first segment only (RFC 3168).
    pub ecn: bool,
}

/// What is known about a frame beside its bytes. It stays with the frame all the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// State of the transport checksum.
    pub checksum: ChecksumState,
    /// Segmentation still to be done; `None` for an ordinary frame.
    pub gso: Option<Gso>,
}

impl Meta {
    /// An ordinary frame with a complete checksum.
    pub const PLAIN: Meta = Meta { checksum: ChecksumState::Complete, gso: None };

    /// Reads the header that came with `frame`.
    ///
    /// # Errors
    /// [`DropReason::BadVnetHeader`] for unknown flags or types, a segment size of zero, offsets that point outside the
    /// frame, and segmentation without a partial checksum.
    pub fn decode(header: &[u8; VNET_HEADER_LEN], frame: &[u8]) -> Result<Meta, DropReason> {
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let (flags, gso_type, gso_size) = (header[0], header[1], word(4));
        let checksum = match flags {
            0 => ChecksumState::Complete,
            DATA_VALID => ChecksumState::Verified,
            NEEDS_CSUM | 3 => {
                let (start, offset) = (word(6), word(8));
                let field = usize::from(start) + usize::from(offset);
                if usize::from(start) < ETHERNET_HEADER_LEN || field + 2 > frame.len() {
                    return Err(DropReason::BadVnetHeader);
                }
                ChecksumState::Partial { start, offset }
            }
            _ => return Err(DropReason::BadVnetHeader),
        };
        let kind = match gso_type & !GSO_ECN {
            0 if gso_type == 0 => return Ok(Meta { checksum, gso: None }),
            GSO_TCPV4 => GsoKind::Tcp4,
            GSO_TCPV6 => GsoKind::Tcp6,
            GSO_UDP_L4 if gso_type == GSO_UDP_L4 => GsoKind::Udp,
            _ => return Err(DropReason::BadVnetHeader),
        };
        let field = if kind == GsoKind::Udp { 6 } else { 16 };
        match checksum {
            ChecksumState::Partial { offset, .. } if offset == field && gso_size > 0 => {}
            _ => return Err(DropReason::BadVnetHeader),
        }
        Ok(Meta { checksum, gso: Some(Gso { kind, size: gso_size, ecn: gso_type & GSO_ECN != 0 }) })
    }

    /// Writes the header that goes in front of `frame`.
    pub fn encode(&self, frame: &[u8]) -> [u8; VNET_HEADER_LEN] {
        let mut header = [0; VNET_HEADER_LEN];
        let mut word = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        let mut flags = 0;
        match self.checksum {
            // DATA_VALID is ignored by a TAP, so nothing is claimed that nobody reads.
            ChecksumState::Complete | ChecksumState::Verified => {}
            ChecksumState::Partial { start, offset } => {
                flags = NEEDS_CSUM;
                word(6, start);
                word(8, offset);
            }
        }
        let mut gso_type = 0;
        if let Some(gso) = self.gso {
            gso_type = match gso.kind {
                GsoKind::Tcp4 => GSO_TCPV4,
                GsoKind::Tcp6 => GSO_TCPV6,
                GsoKind::Udp => GSO_UDP_L4,
            };
            if gso.ecn {
                gso_type |= GSO_ECN;
            }
            word(4, gso.size);
            word(2, self.header_len(frame).unwrap_or(0));
        }
        header[0] = flags;
        header[1] = gso_type;
        header
    }

    /// Bytes of all headers of a super-frame, up to the end of its transport header.
    ///
    /// `None` if the frame is not one with a partial checksum or is cut short.
    pub fn header_len(&self, frame: &[u8]) -> Option<u16> {
        let (ChecksumState::Partial { start, .. }, Some(gso)) = (self.checksum, self.gso) else { return None };
        match gso.kind {
            GsoKind::Udp => start.checked_add(8),
            GsoKind::Tcp4 | GsoKind::Tcp6 => {
                let words = frame.get(usize::from(start) + 12)? >> 4;
                start.checked_add(u16::from(words) * 4)
            }
        }
    }

    /// The largest IP packet that this frame becomes on a wire: for a super-frame, that of its segments.
    ///
    /// `l3_start` is the offset of the IP header. This is what an MTU is compared with (802.1Q 6.5.8).
    pub fn packet_len(&self, l3_start: usize, frame: &[u8]) -> usize {
        match (self.gso, self.header_len(frame)) {
            (Some(gso), Some(headers)) => {
                let segment = (usize::from(headers) + usize::from(gso.size)).min(frame.len());
                segment.saturating_sub(l3_start)
            }
            _ => frame.len().saturating_sub(l3_start),
        }
    }
}
