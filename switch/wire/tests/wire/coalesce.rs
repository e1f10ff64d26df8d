//! Software coalescing: what belongs together comes out as one frame, and all else as it came.

mod law;
mod streams;

use tapswitch_wire::build::{self, Arp};
use tapswitch_wire::coalesce::Coalescer;
use tapswitch_wire::{ChecksumState, FrameRef, Gso, GsoKind, MAX_FRAME_LEN, Mac, Meta};

use streams::{A, ACK, B, C, FIN, PSH, Run, Sent, Stream, check_law, coalesce, tcp, write_checksums};

#[test]
fn forty_five_full_segments_come_out_as_one_super_frame() {
    for (mut stream, kind) in [(Stream::v4(A, B), GsoKind::Tcp4), (Stream::v6(A, B), GsoKind::Tcp6)] {
        // Sequence number and identification wrap on the way.
        (stream.seq, stream.ip.id) = (0u32.wrapping_sub(30_000), 0xfff0);
        let (mut whole, payload) = (Vec::new(), Stream::payload(stream.seq, 45 * 1448));
        let meta = build::tcp(&mut whole, stream.link, stream.ip, stream.tcp(ACK), payload.len());
        whole.extend_from_slice(&payload);

        let input: Vec<Sent> = (0..45).map(|_| stream.plain(ACK, 1448)).collect();
        let output = coalesce(&input);
        let gso = Some(Gso { kind, size: 1448, ecn: false });
        assert!(
            output == [(Meta { gso, ..meta }, whole)],
            "what a kernel with segmentation offload would have handed over"
        );
        check_law(&input, &output);
    }
}

#[test]
fn a_segment_of_its_own_leaves_as_it_came() {
    for mut stream in [Stream::v4(A, B), Stream::v6(A, B)] {
        let mut run = Run::default();
        let (first, pushed) = (stream.plain(ACK, 1000), stream.plain(ACK | PSH, 7));
        assert_eq!(run.push(&first), []);
        assert_eq!(run.flush(), [first]);
        assert_eq!(run.push(&pushed), std::slice::from_ref(&pushed), "nothing can follow it, so it does not wait");
        assert_eq!(run.flush(), []);
    }
}

#[test]
fn a_short_segment_or_one_with_psh_or_fin_is_the_last_of_its_super_frame() {
    for (flags, len) in [(ACK, 999), (ACK | PSH, 1000), (ACK | FIN, 1000), (ACK | FIN | PSH, 1)] {
        let mut stream = Stream::v4(A, B);
        let mut run = Run::default();
        let input = [stream.plain(ACK, 1000), stream.plain(ACK, 1000), stream.plain(flags, len)];
        assert_eq!([run.push(&input[0]), run.push(&input[1])].concat(), []);
        let output = run.push(&input[2]);
        assert_eq!(output.len(), 1, "it leaves at once");
        assert_eq!(output[0].1[34 + 13], flags);
        check_law(&input, &output);
        // What the stream sends next begins a new one.
        assert_eq!(run.push(&stream.plain(ACK, 1000)), []);
    }
}

/// Each row changes the second of three segments; with right checksums it still must not be joined to the first.
#[test]
fn what_cutting_would_not_give_back_is_not_joined() {
    type Change = fn(&mut Vec<u8>);
    let both: [(&str, Change); 18] = [
        ("gap", |frame| add(frame, 4, 1)),
        ("overlap", |frame| add(frame, 4, -1)),
        ("source port", |frame| add(frame, 0, 1)),
        ("destination port", |frame| add(frame, 2, 1)),
        ("acknowledgement", |frame| add(frame, 8, 1)),
        ("window", |frame| add(frame, 14, 1)),
        ("urgent pointer", |frame| add(frame, 18, 1)),
        ("timestamp", |frame| add(frame, 24, 1)),
        ("reserved bit", |frame| tcp(frame)[12] |= 1),
        ("SYN", |frame| tcp(frame)[13] |= 2),
        ("RST", |frame| tcp(frame)[13] |= 4),
        ("URG", |frame| tcp(frame)[13] |= 32),
        ("ECE", |frame| tcp(frame)[13] |= 64),
        ("CWR", |frame| tcp(frame)[13] |= 128),
        ("no ACK", |frame| tcp(frame)[13] = 0),
        ("padding", |frame| frame.push(0)),
        ("tag", |frame| drop(frame.splice(12..12, [0x81, 0, 0, 5]))),
        ("no options", |frame| tcp(frame)[12] = 5 << 4),
    ];
    let v4: [(&str, Change); 8] = [
        ("TOS", |frame| frame[15] ^= 1),
        ("TTL", |frame| frame[22] -= 1),
        ("no DF", |frame| frame[20] = 0),
        ("more fragments", |frame| frame[20] = 0x20),
        ("same id", |frame| frame[19] -= 1),
        ("id of the one after", |frame| frame[19] += 1),
        ("source", |frame| frame[29] ^= 1),
        ("destination", |frame| frame[33] ^= 1),
    ];
    let v6: [(&str, Change); 4] = [
        ("flow label", |frame| frame[17] ^= 1),
        ("traffic class", |frame| frame[15] ^= 0x10),
        ("hop limit", |frame| frame[21] -= 1),
        ("source", |frame| frame[37] ^= 1),
    ];
    let rows4 = both.iter().chain(&v4).map(|row| (Stream::v4(A, B), row));
    let rows6 = both.iter().chain(&v6).map(|row| (Stream::v6(A, B), row));
    for (mut stream, (what, change)) in rows4.chain(rows6) {
        let mut input = [0; 3].map(|_| stream.plain(ACK, 1000));
        change(&mut input[1].1);
        write_checksums(&mut input[1].1);
        let output = coalesce(&input);
        assert_eq!(output.len(), 3, "{what}");
        check_law(&input, &output);
    }
}

#[test]
fn only_plain_ip_headers_are_joined_whatever_their_tags() {
    let three = |mut stream: Stream, change: fn(&mut Vec<u8>)| {
        let mut input = [0; 3].map(|_| stream.plain(ACK, 1000));
        input.iter_mut().for_each(|(_, frame)| {
            change(frame);
            write_checksums(frame);
        });
        let output = coalesce(&input);
        check_law(&input, &output);
        output.len()
    };
    let options = |frame: &mut Vec<u8>| {
        frame.splice(34..34, [1; 4]);
        frame[14] = 0x46;
        frame[17] += 4;
    };
    let extension = |frame: &mut Vec<u8>| {
        frame.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
        frame[19] += 8;
        frame[20] = 60;
    };
    let tags = |frame: &mut Vec<u8>| drop(frame.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0x20, 6]));
    assert_eq!(three(Stream::v4(A, B), |_| ()), 1);
    assert_eq!(three(Stream::v4(A, B), options), 3, "options of IPv4");
    assert_eq!(three(Stream::v6(A, B), extension), 3, "an extension header of IPv6");
    assert_eq!(three(Stream::v4(A, B), tags), 1, "the same tags");
    assert_eq!(three(Stream::v6(A, B), tags), 1, "the same tags");
    assert_eq!(three(Stream::v4(A, B), |frame| frame[20] = 0), 1, "without DF");
    assert_eq!(three(Stream::v4(A, B), |frame| frame[20] = 0x20), 3, "first fragments");
    assert_eq!(three(Stream::v4(A, B), |frame| frame[18..20].fill(0)), 3, "an identification that stays at zero");
}

#[test]
fn a_segment_with_a_wrong_checksum_arrives_as_it_came() {
    for (mut stream, field) in
        [(Stream::v4(A, B), 24), (Stream::v4(A, B), 50), (Stream::v4(A, B), 900), (Stream::v6(A, B), 900)]
    {
        let mut input = [0; 5].map(|_| stream.plain(ACK, 1000));
        input[0].1[field] ^= 0x40;
        input[3].1[field] ^= 0x40;
        let output = coalesce(&input);
        assert_eq!([&output[0], &output[2]], [&input[0], &input[3]]);
        assert_eq!(output.len(), 4, "damaged, two as one, damaged, the last");
        check_law(&input, &output);
    }
}

/// Of the two zeros of ones' complement a sender computes one; the other is right too, but cutting would not give it.
#[test]
fn a_checksum_spelled_as_all_ones_is_not_joined() {
    let zero = |frame: &mut [u8], field: usize, free: usize| {
        // The free word takes what the sum lacks, so that the checksum becomes zero.
        frame[free..free + 2].fill(0);
        write_checksums(frame);
        frame.copy_within(field..field + 2, free);
        write_checksums(frame);
        assert_eq!(frame[field..field + 2], [0, 0]);
        let ones = [&frame[..field], &[0xff; 2], &frame[field + 2..]].concat();
        assert!(FrameRef::parse(Meta::PLAIN, &ones[..]).unwrap().transport_checksum_ok());
        ones
    };
    let mut stream = Stream::v4(A, B);
    let mut input = [0; 2].map(|_| stream.plain(ACK, 1000));
    let ones = zero(&mut input[1].1, 50, 1000);
    assert_eq!(coalesce(&input).len(), 1, "TCP, zero");
    input[1].1 = ones;
    assert_eq!(coalesce(&input), input, "TCP, all ones");

    // The identification is the free word of an IPv4 header.
    let mut input = [0; 2].map(|_| stream.plain(ACK, 1000));
    let ones = zero(&mut input[1].1, 24, 18);
    let id = u16::from_be_bytes([ones[18], ones[19]]).wrapping_sub(1);
    input[0].1[18..20].copy_from_slice(&id.to_be_bytes());
    write_checksums(&mut input[0].1);
    assert_eq!(coalesce(&input).len(), 1, "IPv4, zero");
    input[1].1 = ones;
    assert!(FrameRef::parse(Meta::PLAIN, &input[1].1[..]).unwrap().ipv4_checksum_ok());
    assert_eq!(coalesce(&input), input, "IPv4, all ones");
}

#[test]
fn br_8_whatever_is_not_joined_leaves_behind_what_is_held_between_the_same_stations() {
    let mut stream = Stream::v4(A, B);
    let mut other = Stream { src_port: 9, ..Stream::v6(A, B) };
    let mut elsewhere = Stream::v4(A, C);
    let mut datagram = Vec::new();
    build::udp(&mut datagram, stream.link, stream.ip, 1, 2, b"UDP");
    let mut reply = Vec::new();
    let (spa, tpa) = ([10, 0, 0, 2].into(), [10, 0, 0, 3].into());
    build::arp(&mut reply, stream.link, Arp { operation: 2, sha: A, spa, tha: B, tpa });
    let (partial, bytes) = other.partial(ACK, 100);
    let verified = Meta { checksum: ChecksumState::Verified, gso: None };
    let table = [
        ("an acknowledgement", stream.clone().plain(ACK, 0)),
        ("an acknowledgement of another stream", other.plain(ACK, 0)),
        ("pushed data of another stream", other.plain(ACK | PSH, 10)),
        ("a SYN", other.plain(2, 0)),
        ("a datagram", (Meta::PLAIN, datagram)),
        ("an ARP reply", (Meta::PLAIN, reply)),
        ("a partial checksum", (partial, bytes)),
        ("a checksum that is vouched for", (verified, other.plain(ACK, 100).1)),
        ("an empty frame between them", (Meta::PLAIN, stream.plain(ACK, 0).1[..14].to_vec())),
    ];
    let mut run = Run::default();
    assert_eq!(run.push(&elsewhere.plain(ACK, 100)), []);
    for (what, frame) in table {
        let held = [stream.plain(ACK, 500), stream.plain(ACK, 500)];
        assert_eq!([run.push(&held[0]), run.push(&held[1])].concat(), []);
        let output = run.push(&frame);
        assert_eq!(output.len(), 2, "{what}");
        assert_eq!(output[1], frame, "{what}");
        check_law(&held, &output[..1]);
    }
    // Data of another stream has its turn after them.
    assert_eq!(run.push(&stream.plain(ACK, 500)), []);
    assert_eq!(run.push(&other.plain(ACK, 500)).len(), 1);
    // What goes elsewhere was not disturbed by all that.
    assert_eq!(run.push(&elsewhere.plain(ACK | PSH, 100)).len(), 1);
    assert_eq!(run.flush().len(), 1);
}

#[test]
fn when_all_places_are_taken_the_oldest_super_frame_leaves() {
    let mut run = Run::default();
    let mut streams: Vec<Stream> = (0..9).map(|at| Stream::v4(Mac([2, 0, 0, 0, 1, at]), B)).collect();
    let first: Vec<Sent> = streams.iter_mut().map(|stream| stream.plain(ACK, 100)).collect();
    for frame in &first[..8] {
        assert_eq!(run.push(frame), []);
    }
    // The first two grow, which does not make them younger.
    assert_eq!([run.push(&streams[0].plain(ACK, 100)), run.push(&streams[1].plain(ACK, 100))].concat(), []);
    let output = run.push(&first[8]);
    assert_eq!(output.len(), 1);
    assert_eq!(FrameRef::parse(output[0].0, &output[0].1[..]).unwrap().src_mac(), streams[0].link.src);
    let sources: Vec<u8> = run.flush().iter().map(|(_, frame)| frame[11]).collect();
    assert_eq!(sources, [1, 2, 3, 4, 5, 6, 7, 8], "in the order in which they began");
}

#[test]
fn no_super_frame_is_longer_than_an_ip_packet_can_be() {
    // With 5 times 13 097 or 13 093 bytes a packet would be too long by less than five bytes, with 8 times 8 185 only a
    // frame with two tags.
    for size in [1, 7, 1448, 8_185, 13_093, 13_097, 21_000, 32_747, 40_000, 65_400] {
        for (tags, stream) in (0..6).map(|at| (at / 2, [Stream::v4(A, B), Stream::v6(A, B)][at % 2].clone())) {
            let mut stream = Stream { tags, ..stream };
            let headers = stream.clone().plain(ACK, 0).1.len();
            let most = (MAX_FRAME_LEN.min(65_535 + 14 + 4 * tags) - headers) / size;
            // Segments of one byte need tens of thousands to fill it; fewer will do for the law.
            let count = (2 * most + 1).min(2_000);
            let input: Vec<Sent> = (0..count).map(|_| stream.plain(ACK, size)).collect();
            let output = coalesce(&input);
            check_law(&input, &output);
            assert_eq!(output.len(), count.div_ceil(most), "{size} bytes behind {tags} tags");
        }
    }
}

#[test]
fn a_steady_stream_needs_one_buffer() {
    let mut stream = Stream::v4(A, B);
    let mut coalescer = Coalescer::new();
    let (mut places, mut hoard) = (Vec::new(), Vec::new());
    for step in 0..1000 {
        let mut out = |meta: Meta, frame: &mut [u8]| {
            if meta.gso.is_some() {
                places.push(frame.as_ptr());
            }
        };
        let (meta, mut frame) = stream.plain(ACK, 1448);
        coalescer.push(meta, &mut frame, &mut out);
        if step % 64 == 63 {
            coalescer.flush(&mut out);
            // Whatever was given back to the allocator does not come from there again.
            hoard.push(Vec::<u8>::with_capacity(MAX_FRAME_LEN));
        }
    }
    assert_eq!(places.len(), 15 * 2, "in each turn 45 segments and the rest");
    assert!(places.iter().all(|place| *place == places[0]));
}

/// Adds to the lower half of a field of the TCP header: its last byte stands at `at` or, in a longer one, behind it.
fn add(frame: &mut [u8], at: usize, by: i8) {
    let last = if matches!(at, 4 | 8 | 24) { at + 3 } else { at + 1 };
    let byte = &mut tcp(frame)[last];
    *byte = byte.wrapping_add_signed(by);
}
