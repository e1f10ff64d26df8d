//! A TUN device carries packets; the rest of the program speaks Ethernet. So a header is made up and taken off.
//!
//! A packet that was read gets a header in front of it: to the MAC address that its owner goes by, from [`PEER`], with
//! the EtherType of its IP version. A frame that is written loses its own. What the virtio-net header counts from the
//! beginning of the packet (`csum_start`, `hdr_len`) moves by these 14 bytes, both ways.

use tapswitch_wire::{DropReason, ETHERNET_HEADER_LEN, Mac, VNET_HEADER_LEN, ethertype};

/// Where every frame of a TUN device comes from, and the address to send to: what stands behind the device has no MAC
/// address and answers no ARP.
pub const PEER: Mac = Mac([0x02, 0x42, 0, 0, 0, 0x01]);

/// Where the virtio-net header has its `hdr_len` and `csum_start`.
const HDR_LEN: usize = 2;
const CSUM_START: usize = 6;
const NEEDS_CSUM: u8 = 1;

/// The header that goes in front of a packet.
///
/// # Errors
/// [`DropReason::FrameTooShort`] for an empty packet, [`DropReason::UnknownEthertype`] if it is no IP packet.
pub(crate) fn header(ours: Mac, packet: &[u8]) -> Result<[u8; ETHERNET_HEADER_LEN], DropReason> {
    let ethertype = match packet.first().ok_or(DropReason::FrameTooShort)? >> 4 {
        4 => ethertype::IPV4,
        6 => ethertype::IPV6,
        _ => return Err(DropReason::UnknownEthertype),
    };
    let mut header = [0; ETHERNET_HEADER_LEN];
    header[..6].copy_from_slice(&ours.0);
    header[6..12].copy_from_slice(&PEER.0);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    Ok(header)
}

/// The packet in a frame.
///
/// # Errors
/// [`DropReason::FrameTooShort`] for less than an Ethernet header, [`DropReason::UnknownEthertype`] for ARP, VLAN tags and
/// all else that is not an untagged IP packet.
pub(crate) fn packet(frame: &[u8]) -> Result<&[u8], DropReason> {
    let (header, packet) = frame.split_at_checked(ETHERNET_HEADER_LEN).ok_or(DropReason::FrameTooShort)?;
    match u16::from_be_bytes([header[12], header[13]]) {
        ethertype::IPV4 | ethertype::IPV6 => Ok(packet),
        _ => Err(DropReason::UnknownEthertype),
    }
}

/// Makes the virtio-net header of a packet that of its frame.
pub(crate) fn to_frame(vnet: &mut [u8; VNET_HEADER_LEN]) {
    shift(vnet, |offset| offset.checked_add(ETHERNET_HEADER_LEN as u16));
}

/// Makes the virtio-net header of a frame that of its packet.
pub(crate) fn to_packet(vnet: &mut [u8; VNET_HEADER_LEN]) {
    shift(vnet, |offset| offset.checked_sub(ETHERNET_HEADER_LEN as u16));
}

/// An offset that cannot be moved becomes one beyond every frame, which whoever reads the header refuses.
fn shift(vnet: &mut [u8; VNET_HEADER_LEN], by: impl Fn(u16) -> Option<u16>) {
    let needs_checksum = vnet[0] & NEEDS_CSUM != 0;
    for (at, is_said) in [(HDR_LEN, false), (CSUM_START, needs_checksum)] {
        let offset = u16::from_ne_bytes([vnet[at], vnet[at + 1]]);
        // A header length of zero says nothing, and neither does the start of a checksum that is not needed.
        if is_said || (at == HDR_LEN && offset != 0) {
            vnet[at..at + 2].copy_from_slice(&by(offset).unwrap_or(u16::MAX).to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tapswitch_wire::{ChecksumState, Meta};

    use super::*;
    use crate::testing::{plain_frame, super_frame};

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[test]
    fn packet_gets_the_header_of_its_ip_version_and_anything_else_is_refused() {
        let header_of = |first: u8| header(OURS, &[first, 0]);
        assert_eq!(header_of(0x45).unwrap(), [2, 0, 0, 0, 0, 9, 2, 0x42, 0, 0, 0, 1, 8, 0]);
        assert_eq!(header_of(0x60).unwrap()[12..], [0x86, 0xdd]);
        assert_eq!(header_of(0x00), Err(DropReason::UnknownEthertype));
        assert_eq!(header(OURS, &[]), Err(DropReason::FrameTooShort));
    }

    #[test]
    fn only_untagged_ip_frames_become_packets() {
        let mut frame = plain_frame(1);
        assert_eq!(packet(&frame), Ok(&frame[14..]));
        for not_ip in [ethertype::ARP, ethertype::VLAN, ethertype::QINQ, 0x0026] {
            frame[12..14].copy_from_slice(&not_ip.to_be_bytes());
            assert_eq!(packet(&frame), Err(DropReason::UnknownEthertype), "{not_ip:#x}");
        }
        assert_eq!(packet(&frame[..13]), Err(DropReason::FrameTooShort));
    }

    #[test]
    fn offsets_of_a_super_frame_count_from_the_packet() {
        let (meta, frame) = super_frame(3000, 1000);
        let mut vnet = meta.encode(&frame);
        to_packet(&mut vnet);
        let word = |at: usize| u16::from_ne_bytes([vnet[at], vnet[at + 1]]);
        assert_eq!((word(2), word(4), word(6), word(8)), (40, 1000, 20, 16));
        to_frame(&mut vnet);
        assert_eq!(Meta::decode(&vnet, &frame), Ok(meta));
    }

    #[test]
    fn offset_that_cannot_be_moved_points_at_nothing() {
        let meta = Meta { checksum: ChecksumState::Partial { start: 13, offset: 0 }, gso: None };
        let mut vnet = meta.encode(&[]);
        to_packet(&mut vnet);
        assert_eq!(vnet[6..8], [0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn to_packet_undoes_to_frame(header: [u8; VNET_HEADER_LEN]) {
            let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
            prop_assume!(word(2) <= u16::MAX - 14 && word(6) <= u16::MAX - 14);
            let mut there_and_back = header;
            to_frame(&mut there_and_back);
            to_packet(&mut there_and_back);
            prop_assert_eq!(there_and_back, header);
        }
    }
}
