//! The law, over streams in which everything goes wrong that may.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tapswitch_wire::{ChecksumState, Meta, Parsed};

use super::streams::{A, ACK, B, C, FIN, PSH, Run, Sent, Stream, check_law, coalesce, tcp, write_checksums};
use crate::packets::packet;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Streams whose segments meet, in turns of any length, with everything that may go wrong.
    #[test]
    fn br_8_cutting_what_comes_out_gives_back_what_went_in(steps in vec(step(), 1..30)) {
        let mut streams = [
            Stream::v4(A, B),
            Stream { src_port: 9, ..Stream::v4(A, B) },
            Stream::v6(A, B),
            Stream::v4(A, C),
            Stream { tags: 1, ..Stream::v6(B, A) },
        ];
        let mut run = Run::default();
        let (mut input, mut output) = (Vec::new(), Vec::new());
        for Step { stream, count, len, last, twist } in steps {
            for left in (0..count).rev() {
                let before = streams[stream].clone();
                let flags = if left == 0 { last } else { ACK };
                let mut frame = streams[stream].plain(flags, len);
                if left == 0 {
                    match &twist {
                        Twist::Flush => output.extend(run.flush()),
                        Twist::Again => streams[stream] = before,
                        twist => twist.apply(&mut streams[stream], &mut frame),
                    }
                }
                output.extend(run.push(&frame));
                input.push(frame);
            }
        }
        output.extend(run.flush());
        check_law(&input, &output);
    }

    #[test]
    fn at_19_any_frames_are_taken_without_harm_and_come_out(
        frames in vec(prop_oneof![
            packet().prop_map(|packet| packet.partial().unwrap_or_else(|| (Meta::PLAIN, packet.bytes()))),
            packet().prop_map(|packet| (Meta::PLAIN, packet.bytes())),
            vec(any::<u8>(), 0..100).prop_map(|bytes| (Meta::PLAIN, bytes)),
        ], 0..8),
        cut in any::<Index>(),
    ) {
        let mut input: Vec<Sent> = frames.iter().chain(&frames).cloned().collect();
        if let Some((_, frame)) = input.last_mut() {
            frame.truncate(cut.index(frame.len() + 1));
        }
        check_law(&input, &coalesce(&input));
    }
}

#[derive(Clone, Debug)]
struct Step {
    stream: usize,
    /// How many segments the stream sends in a row.
    count: usize,
    len: usize,
    /// Flags of the last of them, and what happens to it.
    last: u8,
    twist: Twist,
}

#[derive(Clone, Debug)]
enum Twist {
    None,
    /// A turn ends in front of it.
    Flush,
    /// The next one is the same once more.
    Again,
    /// So much is missing behind it.
    Gap(u8),
    /// The identification behind it is not the next one.
    Id(u16),
    /// A header byte is another one; and whether the checksums know.
    Header(Index, u8, bool),
    /// A payload byte is damaged.
    Payload(Index),
    /// A checksum field, IPv4's or TCP's, is all ones or all zeros.
    Checksum(bool, u8),
    /// Bytes follow the packet.
    Padding(usize),
    /// Metadata of a port with offloads.
    Offload,
}

fn step() -> impl Strategy<Value = Step> {
    let twist = prop_oneof![
        8 => Just(Twist::None),
        1 => Just(Twist::Flush),
        1 => Just(Twist::Again),
        1 => any::<u8>().prop_map(Twist::Gap),
        1 => any::<u16>().prop_map(Twist::Id),
        4 => any::<(Index, u8, bool)>().prop_map(|(at, value, known)| Twist::Header(at, value, known)),
        1 => any::<Index>().prop_map(Twist::Payload),
        1 => (any::<bool>(), select(vec![0u8, 0xff])).prop_map(|(ip, value)| Twist::Checksum(ip, value)),
        1 => (1usize..9).prop_map(Twist::Padding),
        1 => Just(Twist::Offload),
    ];
    let len = select(vec![100usize, 100, 100, 100, 60, 101, 1, 0, 1448]);
    let last = prop_oneof![6 => Just(ACK), 2 => Just(ACK | PSH), 1 => Just(ACK | FIN), 1 => any::<u8>()];
    (0usize..5, 1usize..9, len, last, twist).prop_map(|(stream, count, len, last, twist)| Step {
        stream,
        count,
        len,
        last,
        twist,
    })
}

impl Twist {
    fn apply(&self, stream: &mut Stream, (meta, frame): &mut Sent) {
        let parsed = Parsed::parse(frame).unwrap();
        let (l3, payload) = (usize::from(parsed.l3_start), usize::from(parsed.payload_start));
        match self {
            Twist::None | Twist::Flush | Twist::Again => {}
            Twist::Gap(bytes) => stream.seq = stream.seq.wrapping_add(u32::from(*bytes)),
            Twist::Id(id) => stream.ip.id = *id,
            Twist::Header(at, value, known) => {
                frame[at.index(payload)] = *value;
                if *known {
                    write_checksums(frame);
                }
            }
            Twist::Payload(at) => {
                if let body @ [_, ..] = &mut frame[payload..] {
                    body[at.index(body.len())] ^= 0x10;
                }
            }
            Twist::Checksum(true, value) => frame[l3 + 10..l3 + 12].fill(*value),
            Twist::Checksum(false, value) => tcp(frame)[16..18].fill(*value),
            Twist::Padding(bytes) => frame.resize(frame.len() + bytes, 0),
            Twist::Offload => meta.checksum = ChecksumState::Verified,
        }
    }
}
