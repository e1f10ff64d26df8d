//! Fragments that are meant to do harm (RFC 1858, RFC 3128).

use tapswitch_conntrack::fragment::Limits;
use tapswitch_wire::DropReason::{
    FragmentDuplicate, FragmentLimit, FragmentMalformed, FragmentOverlap, FragmentTooShort, TransportMalformed,
};

use crate::world::{Nat, PIECE, Piece, body, datagram, fates};

const TCP: u8 = 6;
const ICMP: u8 = 1;

fn at(offset: usize) -> Piece {
    Piece { offset, ..PIECE }
}

fn last(offset: usize) -> Piece {
    Piece { offset, more: false, ..PIECE }
}

/// A first fragment of UDP with this many bytes behind the header.
fn first(len: usize) -> Vec<u8> {
    PIECE.with(&[&[0, 1, 0, 2, 0xff, 0, 0, 0][..], &body(1, len)].concat())
}

#[test]
fn at_9_overlaps_and_contradictions_kill_the_datagram() {
    let overlap = Err(FragmentOverlap);
    let table = [
        ("teardrop: an end within the first", vec![first(24), last(24).with(&[9; 4])], vec![Ok("first"), overlap]),
        ("the tail of the first again", vec![first(40), at(40).with(&[9; 16])], vec![Ok("first"), overlap]),
        (
            "the head of what waits",
            vec![at(64).with(&[9; 64]), at(56).with(&[8; 16]), first(40)],
            vec![Ok("held"), overlap, overlap],
        ),
        (
            "around what waits",
            vec![at(64).with(&[9; 64]), at(56).with(&[8; 80]), first(40)],
            vec![Ok("held"), overlap, overlap],
        ),
        (
            "over a hole",
            vec![at(64).with(&[9; 8]), at(80).with(&[9; 8]), at(64).with(&[8; 24])],
            vec![Ok("held"), Ok("held"), overlap],
        ),
        (
            "two ends",
            vec![first(40), last(64).with(&[9; 9]), last(64).with(&[9; 8]), at(48).with(&[9; 16])],
            vec![Ok("first"), Ok("later"), overlap, overlap],
        ),
        (
            "behind the end",
            vec![first(40), last(64).with(&[9; 8]), at(72).with(&[9; 8]), at(48).with(&[9; 16])],
            vec![Ok("first"), Ok("later"), overlap, overlap],
        ),
        (
            "an end before what came",
            vec![first(40), at(72).with(&[9; 8]), last(64).with(&[9; 8]), at(48).with(&[9; 16])],
            vec![Ok("first"), Ok("later"), overlap, overlap],
        ),
        (
            "more behind the end",
            vec![first(40), last(64).with(&[9; 8]), at(64).with(&[9; 8]), at(48).with(&[9; 16])],
            vec![Ok("first"), Ok("later"), overlap, overlap],
        ),
        (
            "an end that had more behind it",
            vec![first(40), at(64).with(&[9; 8]), last(64).with(&[9; 8])],
            vec![Ok("first"), Ok("later"), overlap],
        ),
    ];
    for (what, frames, expected) in table {
        let mut nat = Nat::new(Limits::default());
        assert_eq!(fates(&mut nat, 1, &frames), expected, "{what}");
        assert_eq!(nat.received(), [], "{what}");
        assert_eq!(nat.fragments.held_bytes(), 0, "{what}");
        assert_eq!(nat.much_later(), 0, "{what}: nobody is told");
    }
}

#[test]
fn at_9_other_bytes_for_what_is_known_are_never_passed_on() {
    let mut nat = Nat::new(Limits::default());
    let frames = datagram(1, 7, &body(1, 4000), 1500);
    let mut forged = frames.clone();
    for frame in &mut forged {
        frame[42..].fill(0xee);
    }
    let all = [&frames[0], &forged[0], &frames[1], &forged[1], &frames[2]].map(Clone::clone);
    let duplicate = Err(FragmentDuplicate);
    assert_eq!(fates(&mut nat, 1, &all), [Ok("first"), duplicate, Ok("later"), duplicate, Ok("later")]);
    assert_eq!(nat.received(), [(1, 7, body(1, 4000))]);
}

#[test]
fn at_9_a_datagram_beyond_the_largest_is_dropped() {
    // Sixty bytes of header, which the receiver will add to the length of the whole.
    let with_options = PIECE.with_options(&[1; 40], &first(40)[34..]);
    let malformed = Err(FragmentMalformed);
    let table = [
        ("ping of death", vec![first(40), last(65_528).with(&[9; 800])], vec![Ok("first"), malformed]),
        ("one byte too many", vec![first(40), last(65_512).with(&[9; 4])], vec![Ok("first"), malformed]),
        ("the largest", vec![first(40), last(65_512).with(&[9; 3])], vec![Ok("first"), Ok("later")]),
        (
            "too large with the header of its first",
            vec![with_options.clone(), last(65_472).with(&[9; 4])],
            vec![Ok("first"), malformed],
        ),
        (
            "the same in the other order",
            vec![last(65_472).with(&[9; 4]), with_options.clone()],
            vec![Ok("held"), malformed],
        ),
        ("the largest with it", vec![with_options, last(65_472).with(&[9; 3])], vec![Ok("first"), Ok("later")]),
        ("more follow an odd length", vec![first(40), at(48).with(&[9; 12])], vec![Ok("first"), malformed]),
        ("nothing in it", vec![first(40), last(48).with(&[])], vec![Ok("first"), malformed]),
    ];
    for (what, frames, expected) in table {
        let mut nat = Nat::new(Limits::default());
        assert_eq!(fates(&mut nat, 1, &frames), expected, "{what}");
        assert_eq!(nat.received(), [], "{what}");
        let is_dead = expected.contains(&malformed);
        let next = fates(&mut nat, 1, &[at(640).with(&[9; 8])]);
        assert_eq!(next, [if is_dead { malformed } else { Ok("later") }], "{what}: afterwards");
    }
}

#[test]
fn at_9_a_first_fragment_without_the_transport_header_is_dropped() {
    let tcp = |words: u8, len: usize| {
        let mut segment = body(0, len);
        if let Some(byte) = segment.get_mut(12) {
            *byte = words << 4;
        }
        Piece { protocol: TCP, ..PIECE }.with(&segment)
    };
    let icmp = Piece { protocol: ICMP, ..PIECE };
    let udp = |len: u8, payload: usize| PIECE.with(&[&[0, 1, 0, 2, 0, len, 0, 0][..], &body(1, payload)].concat());
    for (what, frame, expected) in [
        ("TCP, ports only", tcp(5, 8), Err(FragmentTooShort)),
        ("TCP without the flags' neighbours", tcp(5, 16), Err(FragmentTooShort)),
        ("TCP with its header", tcp(5, 24), Ok("first")),
        ("TCP without all of its options", tcp(7, 24), Err(FragmentTooShort)),
        ("TCP with all of its options", tcp(6, 24), Ok("first")),
        ("TCP with a header of sixteen bytes", tcp(4, 24), Err(TransportMalformed)),
        ("TCP at offset 8", Piece { protocol: TCP, offset: 8, ..PIECE }.with(&[9; 16]), Err(FragmentTooShort)),
        ("UDP at offset 8", at(8).with(&[9; 16]), Ok("held")),
        ("UDP, the header only", udp(99, 0), Ok("first")),
        ("UDP with a length that cannot be", udp(7, 8), Err(TransportMalformed)),
        ("ICMP, the header only", icmp.with(&[8, 0, 0, 0, 0, 1, 0, 1]), Ok("first")),
        ("a protocol without ports", Piece { protocol: 47, ..PIECE }.with(&[9; 8]), Ok("first")),
    ] {
        let mut nat = Nat::new(Limits::default());
        assert_eq!(fates(&mut nat, 1, &[frame]), [expected], "{what}");
        assert_eq!(nat.fragments.is_empty(), expected.is_err(), "{what}: junk costs no memory");
    }
}

/// RFC 3128: a first fragment that may pass, and one at offset 8 that turns it into another.
#[test]
fn at_9_flags_of_tcp_cannot_be_overwritten() {
    let mut header = body(0, 24);
    (header[12], header[13]) = (0x50, 0x10);
    let tcp = |offset, more| Piece { protocol: TCP, offset, more, ..PIECE };
    let mut nat = Nat::new(Limits::default());
    let frames = [tcp(0, true).with(&header), tcp(8, true).with(&[2; 16]), tcp(24, false).with(&[7; 10])];
    let hidden = Err(FragmentTooShort);
    assert_eq!(fates(&mut nat, 1, &frames), [Ok("first"), hidden, hidden]);
    // At offset 16, which nobody forbids, it overlaps.
    let mut nat = Nat::new(Limits::default());
    let frames = [tcp(16, true).with(&[2; 16]), tcp(0, true).with(&header), tcp(24, false).with(&[7; 10])];
    assert_eq!(fates(&mut nat, 1, &frames), [Ok("held"), Err(FragmentOverlap), Err(FragmentOverlap)]);
    assert_eq!(nat.received(), []);
}

#[test]
fn at_9_more_holes_than_are_kept_kill_the_datagram() {
    let limits = Limits::default();
    let mut nat = Nat::new(limits);
    let every_other: Vec<_> = (1..=limits.ranges).map(|n| at(n * 16).with(&[9; 8])).collect();
    assert!(fates(&mut nat, 1, &every_other).iter().all(|fate| *fate == Ok("held")));
    let limit = Err(FragmentLimit);
    assert_eq!(fates(&mut nat, 1, &[at(65_000).with(&[9; 8]), first(8)]), [limit, limit]);
    assert_eq!(nat.fragments.held_bytes(), 0);
    assert_eq!(nat.much_later(), 0);
}
