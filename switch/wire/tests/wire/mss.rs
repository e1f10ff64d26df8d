//! The MSS clamp.

use etherparse::{SlicedPacket, TransportSlice};
use proptest::prelude::*;
use tapswitch_wire::{Frame, Meta};

use crate::oracle;
use crate::packets::{Net, Packet, Transport, V4, tcp_options};

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

fn segment(flags: u8, options: &[u8]) -> Packet {
    let transport =
        Transport::Tcp { ports: [1000, 80], seq: 7, flags, options: options.to_vec(), payload: b"odd".to_vec() };
    let (src, dst) = ([10, 0, 0, 2], [192, 0, 2, 1]);
    let net = Net::V4(V4 { src, dst, ttl: 64, tos: 0, id: 0, options: vec![1; 8], fragment: 0x4000, transport });
    Packet { dst_mac: [2; 6], src_mac: [4; 6], tags: vec![], net, padding: 3 }
}

/// The first MSS option in a list: well formed, and before the end of the list.
fn mss(frame: &[u8]) -> Option<u16> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
    let mut options = tcp.options();
    loop {
        options = match *options {
            [1, ref rest @ ..] => rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([high, low])),
            [2..=255, len, ..] if len >= 2 => options.get(usize::from(len)..)?,
            _ => return None,
        };
    }
}

#[test]
fn ip_12_mss_is_lowered_wherever_the_option_stands_and_only_then() {
    let long = [&[254, 36][..], &[0; 34], &[2, 4, 5, 0xb4]].concat();
    let table: [(&str, u8, &[u8], Option<u16>); 14] = [
        ("first", SYN, &[2, 4, 5, 0xb4], Some(1460)),
        ("of a SYN-ACK", SYN_ACK, &[2, 4, 5, 0xb4], Some(1460)),
        ("at an odd offset", SYN, &[1, 2, 4, 5, 0xb4, 1, 1, 1], Some(1460)),
        ("at an odd offset, last", SYN, &[1, 1, 1, 2, 4, 5, 0xb4, 0], Some(1460)),
        ("at the end of a header of 60 bytes", SYN, &long, Some(1460)),
        ("not in a SYN", ACK, &[2, 4, 5, 0xb4], None),
        ("equal", SYN, &[2, 4, 4, 0xb0], None),
        ("lower", SYN, &[2, 4, 2, 0x18], None),
        ("missing", SYN, &[1, 1, 1, 1], None),
        ("no options", SYN, &[], None),
        ("behind the end of the list", SYN, &[0, 0, 0, 0, 2, 4, 5, 0xb4], None),
        ("of a wrong length", SYN, &[2, 3, 5, 1, 1, 1, 1, 1], None),
        ("cut short", SYN, &[1, 1, 2, 4], None),
        ("behind an option of length zero", SYN, &[254, 0, 2, 4, 5, 0xb4, 0, 0], None),
    ];
    for (what, flags, options, changed) in table {
        let packet = segment(flags, options);
        for (meta, before) in [(Meta::PLAIN, packet.bytes()), packet.partial().unwrap()] {
            let mut bytes = before.clone();
            let mut frame = Frame::parse(meta, &mut bytes[..]).unwrap();
            assert_eq!(frame.clamp_mss(1200), changed, "{what}");
            match changed {
                Some(_) => assert_eq!(mss(&bytes), Some(1200), "{what}"),
                None => assert_eq!(bytes, before, "{what}"),
            }
            assert_eq!(oracle::checksums_when_complete(&meta, &bytes), Ok(()), "{what}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn ip_12_mss_clamp_only_lowers_and_keeps_the_checksum(options in tcp_options(), limit in any::<u16>()) {
        let packet = segment(SYN, &options);
        for (meta, before) in [(Meta::PLAIN, packet.bytes()), packet.partial().unwrap()] {
            let mut bytes = before.clone();
            let old = Frame::parse(meta, &mut bytes[..]).unwrap().clamp_mss(limit);
            prop_assert_eq!(mss(&bytes), mss(&before).map(|mss| mss.min(limit)));
            prop_assert_eq!(old, mss(&before).filter(|mss| *mss > limit));
            prop_assert_eq!(oracle::checksums_when_complete(&meta, &bytes), Ok(()));
        }
    }
}
