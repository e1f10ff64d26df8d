//! Nothing that comes over the wire makes anything panic, and what is emitted keeps its promises.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use tapswitch_wire::{Frame, Mac, Meta, VNET_HEADER_LEN, render, segment};

use crate::packets::packet;

/// Calls everything that can be called on a frame.
fn exercise(header: &[u8; VNET_HEADER_LEN], bytes: &mut [u8]) {
    let decoded = Meta::decode(header, bytes);
    for meta in [decoded.unwrap_or_default(), Meta::PLAIN] {
        render(&meta, bytes);
        meta.encode(bytes);
        meta.packet_len(14, bytes);
        let len = bytes.len();
        let Ok(mut frame) = Frame::parse(meta, &mut *bytes) else { continue };
        assert!(frame.packet().len() >= frame.segment().len());
        assert!(frame.segment().len() >= frame.payload().len());
        let ports = (frame.src_port(), frame.dst_port());
        assert!(frame.src_ip().is_some() == frame.dst_ip().is_some());
        frame.ipv4_checksum_ok();
        frame.transport_checksum_ok();
        for ip in [IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)), Ipv6Addr::LOCALHOST.into()] {
            frame.set_src_ip(ip);
            frame.set_dst_ip(ip);
        }
        frame.set_src_port(ports.1);
        frame.set_dst_port(ports.0);
        frame.set_src_mac(Mac([2; 6]));
        frame.set_dst_mac(Mac([4; 6]));
        frame.decrement_ttl();
        frame.set_ttl(9);
        frame.set_icmp_type(0);
        frame.clamp_mss(536);
        let mut lengths = Vec::new();
        let mut emit = |_: &Meta, segment: &[u8]| lengths.push(segment.len());
        let count = segment::segment(&meta, frame.bytes(), &mut Vec::new(), &mut emit);
        assert!(lengths.iter().all(|each| *each <= len));
        assert!(count.is_err() || count == Ok(lengths.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn at_19_any_bytes_are_taken_without_harm(
        header in any::<[u8; VNET_HEADER_LEN]>(),
        mut bytes in vec(any::<u8>(), 0..120),
    ) {
        exercise(&header, &mut bytes);
    }

    #[test]
    fn at_19_damaged_frames_are_taken_without_harm(
        packet in packet(),
        flags in 0u8..4,
        kind in prop::sample::select(vec![0u8, 1, 4, 5]),
        size in 1u16..100,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let (meta, mut bytes) = packet.partial().unwrap_or_else(|| (Meta::PLAIN, packet.bytes()));
        let mut header = meta.encode(&bytes);
        header[0] = flags;
        header[1] = kind;
        header[4..6].copy_from_slice(&size.to_ne_bytes());
        for (at, value) in damage {
            let at = at.index(bytes.len().min(100));
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        exercise(&header, &mut bytes);
    }
}

/// Every length of every header, with lengths that lie in every byte.
#[test]
fn at_19_each_length_of_a_frame_and_each_lie_in_its_headers_is_taken_without_harm() {
    let mut v4 = [vec![2; 12], vec![8, 0, 0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0]].concat();
    v4.extend_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1, 0, 9, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 1, 0, 0, 0, 0, 0]);
    v4.extend_from_slice(&[2, 4, 5, 0xb4]);
    let mut v6 = [vec![2; 12], vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 44, 64], vec![0xfd; 32]].concat();
    v6.extend_from_slice(&[60, 0, 0, 0, 0, 0, 0, 1, 17, 0, 1, 4, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0]);
    for whole in [v4, v6] {
        for len in 0..=whole.len() {
            exercise(&[0; VNET_HEADER_LEN], &mut whole[..len].to_vec());
            exercise(&[1, 1, 0, 0, 1, 0, 34, 0, 16, 0], &mut whole[..len].to_vec());
        }
        for at in 12..whole.len() {
            for value in 0..=255 {
                let mut bytes = whole.clone();
                bytes[at] = value;
                exercise(&[1, 1, 0, 0, 1, 0, 34, 0, 16, 0], &mut bytes);
            }
        }
    }
}
