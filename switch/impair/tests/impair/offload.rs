//! Super-frames and partial checksums.

use tapswitch_impair::Link;
use tapswitch_wire::build::{self, Ip, Link as Macs, Tcp};
use tapswitch_wire::{ChecksumState, DropReason, Gso, GsoKind, Instant, Mac, Meta, Parsed, checksum};

use crate::world::{ms, words};

const SIZE: usize = 1460;

/// A TCP segment of so many bytes, its checksum partial; a super-frame if that is more than one.
fn tcp(payload: usize) -> (Meta, Vec<u8>) {
    let macs = Macs { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };
    let ip = Ip { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into(), ttl: 64, tos: 0, id: 7 };
    let header = Tcp { src_port: 1, dst_port: 2, seq: 1000, ack: 5, flags: 0x18, window: 500, options: &[] };
    let mut frame = Vec::new();
    let mut meta = build::tcp(&mut frame, macs, ip, header, payload);
    frame.extend((0..payload).map(|at| at as u8));
    if payload > SIZE {
        meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: SIZE as u16, ecn: false });
    }
    (meta, frame)
}

/// The sum over the TCP segment and its pseudo header: all ones if the checksum is right.
fn tcp_sum(frame: &[u8]) -> u16 {
    let parsed = Parsed::parse(frame).unwrap();
    let segment = &frame[usize::from(parsed.l4_start)..parsed.end as usize];
    let pseudo = checksum::pseudo_header([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 6, segment.len() as u32);
    checksum::add(pseudo, checksum::sum(segment))
}

fn pop_all(link: &mut Link, now: Instant) -> Vec<(Meta, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(due) = link.pop(now) {
        frames.push((due.meta, due.bytes.to_vec()));
    }
    frames
}

#[test]
fn each_segment_of_a_super_frame_has_a_fate_of_its_own() {
    let (meta, frame) = tcp(40 * SIZE);
    let mut link = Link::new(words("loss 50%"), 1);
    let outcome = link.push(Instant::ZERO, &meta, &frame).unwrap();
    assert_eq!(outcome.frames, 40);
    assert!((10..30).contains(&outcome.lost));
    let frames = pop_all(&mut link, Instant::ZERO);
    assert_eq!(frames.len() as u64, outcome.queued);
    for (meta, bytes) in frames {
        assert_eq!((meta, bytes.len(), tcp_sum(&bytes)), (Meta::PLAIN, 54 + SIZE, 0xffff));
    }
}

#[test]
fn segments_go_out_one_by_one_at_the_rate() {
    let (meta, frame) = tcp(3 * SIZE);
    let mut link = Link::new(words("rate 1514kbit"), 1);
    link.push(Instant::ZERO, &meta, &frame).unwrap();
    for due in [8, 16, 24] {
        assert_eq!(link.deadline(), Some(Instant::ZERO + ms(due)));
        assert!(link.pop(Instant::ZERO + ms(due)).is_some());
    }
    assert_eq!(link.deadline(), None);
}

#[test]
fn without_impairment_a_super_frame_stays_whole() {
    let (meta, frame) = tcp(3 * SIZE);
    let mut link = Link::new(words("none"), 1);
    assert_eq!(link.push(Instant::ZERO, &meta, &frame).unwrap().frames, 1);
    assert_eq!(pop_all(&mut link, Instant::ZERO), [(meta, frame)]);
}

#[test]
fn a_partial_checksum_stays_partial_unless_the_frame_is_corrupted() {
    let (meta, frame) = tcp(100);
    let mut link = Link::new(words("delay 1ms"), 1);
    link.push(Instant::ZERO, &meta, &frame).unwrap();
    assert_eq!(pop_all(&mut link, Instant::ZERO + ms(1)), [(meta, frame)]);
}

#[test]
fn the_receiver_notices_a_flipped_bit_whatever_the_sender_promised() {
    for checksum in [true, false] {
        let (mut meta, mut frame) = tcp(1000);
        if checksum {
            let end = frame.len();
            checksum::complete(&mut meta, &mut frame, end).unwrap();
            meta.checksum = ChecksumState::Verified;
        }
        for seed in 0..300 {
            let mut link = Link::new(words("corrupt 100%"), seed);
            link.push(Instant::ZERO, &meta, &frame).unwrap();
            let (meta, bytes) = pop_all(&mut link, Instant::ZERO).remove(0);
            assert_eq!(meta, Meta::PLAIN, "nobody vouches for it, and nothing will be filled in");
            // Behind the Ethernet and IP headers the TCP checksum covers every bit; before, the IP header's or nothing.
            let in_segment = bytes[..34] == frame[..34];
            assert_eq!(tcp_sum_behind(&bytes) != 0xffff, in_segment, "seed {seed}");
        }
    }
}

/// As [`tcp_sum`], but with the lengths and addresses that the frame had when it was sent.
fn tcp_sum_behind(frame: &[u8]) -> u16 {
    let segment = &frame[34..];
    let pseudo = checksum::pseudo_header([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 6, segment.len() as u32);
    checksum::add(pseudo, checksum::sum(segment))
}

#[test]
fn nonsense_from_a_vnet_header_is_refused_or_passed_but_never_a_panic() {
    let (mut meta, frame) = tcp(3 * SIZE);
    meta.gso = Some(Gso { kind: GsoKind::Udp, size: 100, ecn: false });
    let mut link = Link::new(words("corrupt 100%"), 1);
    assert_eq!(link.push(Instant::ZERO, &meta, &frame), Err(DropReason::CannotSegment));
    assert_eq!(link.under_way(), 0);
    let beyond = Meta { checksum: ChecksumState::Partial { start: 60_000, offset: 60_000 }, gso: None };
    link.push(Instant::ZERO, &beyond, &frame).unwrap();
    assert_eq!(pop_all(&mut link, Instant::ZERO)[0].0, Meta::PLAIN);
}
