//! Reading segments from frames.

use proptest::prelude::*;
use tapswitch_conntrack::tcp::{Segment, flag};
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{FrameRef, Mac, Meta};

fn frame(flags: u8, options: &[u8], payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let link = Link { dst: Mac([2; 6]), src: Mac([4; 6]) };
    let ip = Ip { src: [10, 0, 0, 2].into(), dst: [192, 0, 2, 1].into(), ttl: 64, tos: 0, id: 0 };
    let tcp = Tcp { src_port: 1000, dst_port: 80, seq: 0xfedc_ba98, ack: 7, flags, window: 0x1234, options };
    build::tcp(&mut bytes, link, ip, tcp, payload);
    bytes.resize(bytes.len() + payload, 0x55);
    bytes
}

fn read(bytes: &[u8]) -> Option<Segment> {
    Segment::read(&FrameRef::parse(Meta::PLAIN, bytes).ok()?)
}

#[test]
fn a_segment_is_read_with_its_payload_and_without_the_padding_of_the_link() {
    for len in [0, 1, 1460, 65_480] {
        let mut bytes = frame(flag::ACK | 0xe8, &[1; 12][..if len > 1460 { 0 } else { 12 }], len);
        bytes.extend_from_slice(&[0; 4]);
        let expected = Segment { flags: 0xf8, seq: 0xfedc_ba98, ack: 7, window: 0x1234, len: len as u32, scale: None };
        assert_eq!(read(&bytes), Some(expected));
    }
    let mut udp = Vec::new();
    let link = Link { dst: Mac([2; 6]), src: Mac([4; 6]) };
    let ip = Ip { src: [10, 0, 0, 2].into(), dst: [192, 0, 2, 1].into(), ttl: 64, tos: 0, id: 0 };
    build::udp(&mut udp, link, ip, 1, 2, &[0; 40]);
    assert_eq!(read(&udp), None);
    let mut cut = frame(flag::ACK, &[], 0);
    cut[46] = 0xf0;
    assert_eq!(read(&cut), None, "the header is longer than the packet");
}

#[test]
fn nt_8_the_window_scale_is_read_wherever_it_stands_but_only_in_a_syn() {
    let long = [&[254, 36][..], &[0; 34], &[3, 3, 7, 0]].concat();
    let table: [(&str, u8, &[u8], Option<u8>); 10] = [
        ("first", flag::SYN, &[3, 3, 7, 0], Some(7)),
        ("of a SYN-ACK", flag::SYN | flag::ACK, &[1, 3, 3, 9], Some(9)),
        ("behind others", flag::SYN, &[2, 4, 5, 0xb4, 4, 2, 3, 3, 14, 0, 0, 0], Some(14)),
        ("at the end of a header of 60 bytes", flag::SYN, &long, Some(7)),
        ("not in a SYN", flag::ACK, &[3, 3, 7, 0], None),
        ("behind the end of the list", flag::SYN, &[0, 3, 3, 7], None),
        ("of a wrong length", flag::SYN, &[3, 4, 7, 7], None),
        ("cut short", flag::SYN, &[1, 1, 3, 3], None),
        ("behind an option of length zero", flag::SYN, &[254, 0, 3, 3, 7, 0, 0, 0], None),
        ("behind an option that is too long", flag::SYN, &[254, 40, 3, 3, 7, 0, 0, 0], None),
    ];
    for (what, flags, options, scale) in table {
        assert_eq!(read(&frame(flags, options, 3)).map(|segment| segment.scale), Some(scale), "{what}");
    }
}

proptest! {
    #[test]
    fn nonsense_is_read_without_harm(words in prop::collection::vec(any::<u8>(), 0..=10), tail in any::<[u8; 20]>()) {
        let option = |word: &u8| [*word, tail[usize::from(*word) % 20] % 8, *word, 3];
        let options: Vec<u8> = words.iter().flat_map(option).collect();
        let mut bytes = frame(flag::SYN, &options, 0);
        let _ = read(&bytes);
        let at = bytes.len().saturating_sub(20);
        let len = bytes.len() - at;
        bytes[at..].copy_from_slice(&tail[..len]);
        let _ = read(&bytes);
    }
}
