//! A flood of fragments stays within bounds, and harms nobody but who sends it.

use tapswitch_conntrack::fragment::{Limits, Track};
use tapswitch_wire::DropReason;

use crate::world::{Nat, PIECE, Piece, body, datagram, fates};

const FLOOD: u32 = 100_000;

/// Lone fragments of one source, among them datagrams of another; all of the latter arrive.
fn flood(count: u32, lone: impl Fn(Piece) -> Vec<u8>) -> Nat {
    let limits = Limits::default();
    let mut nat = Nat::new(limits);
    let mut expected = Vec::new();
    let mut pending = Vec::new();
    for at in 0..count {
        nat.take(1, &lone(Piece { id: at as u16, protocol: 17 + (at >> 15) as u8, ..PIECE }));
        if at % 400 == 0 {
            let id = (at / 400) as u16;
            let mut frames = datagram(2, id, &body(usize::from(id), 5000), 1500);
            if id.is_multiple_of(2) {
                frames.reverse();
            }
            pending = frames;
            expected.push((2, id, body(usize::from(id), 5000)));
        }
        // One of its fragments with each fiftieth of the flood.
        if at % 50 == 0 && !pending.is_empty() {
            nat.take(2, &pending.remove(0));
        }
        assert!(nat.fragments.len() <= limits.per_source + 1);
        assert!(nat.fragments.held_bytes() <= limits.held_per_source + 4 * 1600);
    }
    assert_eq!(nat.received(), expected);
    nat
}

#[test]
fn nu_9_at_9_a_flood_of_first_fragments_harms_nobody_else() {
    let mut nat = flood(FLOOD, |piece| piece.with(&[0, 1, 0, 2, 0, 99, 0, 0]));
    assert_eq!(nat.much_later(), Limits::default().per_source, "those that were left");
}

#[test]
fn nu_9_at_9_a_flood_of_last_fragments_harms_nobody_else() {
    let mut nat = flood(FLOOD, |piece| Piece { offset: 1480, more: false, ..piece }.with(&[9; 1000]));
    let dropped = nat.fragments.drops().get(DropReason::FragmentLimit);
    assert_eq!(dropped, u64::from(FLOOD) - Limits::default().per_source as u64);
    assert_eq!(nat.much_later(), 0);
}

#[test]
fn nu_9_at_9_a_flood_of_large_fragments_harms_nobody_else() {
    let large = body(1, 20_000);
    let mut nat = flood(FLOOD / 10, |piece| Piece { offset: 8000, ..piece }.with(&large));
    assert_eq!(nat.much_later(), 0);
}

#[test]
fn nu_9_at_9_a_flood_of_overlaps_harms_nobody_else() {
    let mut nat = Nat::new(Limits::default());
    for at in 0..10_000u16 {
        let piece = Piece { id: at, ..PIECE };
        nat.take(1, &piece.with(&[0, 1, 0, 2, 0, 99, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5]));
        let overlap = nat.take(1, &Piece { offset: 8, ..piece }.with(&[9; 16]));
        assert_eq!(overlap, Track::Drop(DropReason::FragmentOverlap));
        assert!(nat.fragments.len() <= Limits::default().per_source);
    }
    nat.take_all(2, datagram(2, 1, &body(1, 5000), 1500).iter().rev());
    assert_eq!(nat.received(), [(2, 1, body(1, 5000))]);
    assert_eq!(nat.much_later(), 0);
}

/// So many sources that none exceeds its share, and the table is full all the time.
#[test]
fn nu_9_at_9_a_flood_of_many_sources_leaves_room_for_one_that_has_less() {
    let limits = Limits::default();
    let mut nat = Nat::new(limits);
    let (mut expected, mut pending) = (Vec::new(), Vec::new());
    for at in 0..20_000u32 {
        let source = 100 + at % 40;
        let piece = Piece { source, id: (at / 40) as u16, offset: 1480, ..PIECE };
        nat.take(source, &piece.with(&[9; 1400]));
        if at % 100 == 0 {
            let id = (at / 100) as u16;
            pending = datagram(2, id, &body(usize::from(id), 5000), 1500);
            pending.reverse();
            expected.push((2, id, body(usize::from(id), 5000)));
        }
        if at % 20 == 0 && !pending.is_empty() {
            nat.take(2, &pending.remove(0));
        }
        assert!(nat.fragments.len() <= limits.datagrams && nat.fragments.held_bytes() <= limits.held_bytes);
    }
    assert!(nat.fragments.len() > limits.datagrams - 8, "it is full");
    assert_eq!(nat.received(), expected);
    assert_eq!(nat.much_later(), 0);
}

#[test]
fn nu_9_the_oldest_goes_of_the_source_that_has_most() {
    let mut nat = Nat::new(Limits { datagrams: 6, per_source: 4, ..Limits::default() });
    let lone = |source, id| Piece { source, id, ..PIECE }.with(&[0, 1, 0, 2, 0, 99, 0, 0]);
    for (source, id) in [(1, 1), (2, 2), (2, 3), (2, 4), (3, 5), (3, 6)] {
        nat.take(source, &lone(source, id));
    }
    nat.take(1, &lone(1, 7));
    assert_eq!(nat.fragments.len(), 6);
    // The second source had most, and its oldest had to go; asking for it would bring it back.
    let mut probe =
        |ids: &[(u32, u16)]| ids.iter().map(|(source, id)| nat.take(*source, &lone(*source, *id))).collect::<Vec<_>>();
    let known = Track::Drop(DropReason::FragmentDuplicate);
    assert_eq!(probe(&[(1, 1), (2, 3), (2, 4), (3, 5), (3, 6), (1, 7)]), vec![known; 6]);
    assert!(matches!(probe(&[(2, 2)])[..], [Track::First(_)]), "forgotten");
}

#[test]
fn nu_9_two_large_datagrams_in_reversed_order_arrive_from_two_sources() {
    let mut nat = Nat::new(Limits::default());
    let all = [datagram(1, 1, &body(1, 65_507), 1500), datagram(2, 2, &body(2, 65_507), 1500)];
    for at in (0..45).rev() {
        nat.take(1, &all[0][at]);
        nat.take(2, &all[1][at]);
    }
    assert_eq!(nat.received(), [(1, 1, body(1, 65_507)), (2, 2, body(2, 65_507))]);
    nat.assert_empty();
}

/// Nobody gains from taking what a source with as much has.
#[test]
fn nu_9_among_those_that_have_most_the_newcomer_pays() {
    let mut nat = Nat::new(Limits { datagrams: 4, ..Limits::default() });
    let lone = |source, id| Piece { source, id, ..PIECE }.with(&[0, 1, 0, 2, 0, 99, 0, 0]);
    for (source, id) in [(1, 1), (1, 2), (2, 3), (2, 4), (2, 5)] {
        nat.take(source, &lone(source, id));
    }
    let left = [(1, 1), (1, 2), (2, 4), (2, 5)].map(|(source, id)| lone(source, id));
    assert_eq!(fates(&mut nat, 2, &left[2..]), [Err(DropReason::FragmentDuplicate); 2]);
    assert_eq!(fates(&mut nat, 1, &left[..2]), [Err(DropReason::FragmentDuplicate); 2]);
}

#[test]
fn nu_9_what_left_no_longer_counts_as_waiting() {
    let mut nat = Nat::new(Limits::default());
    // One that stays, so that the source is never forgotten.
    nat.take(1, &PIECE.with(&[0, 1, 0, 2, 0, 99, 0, 0]));
    for id in 2..100 {
        nat.take_all(1, datagram(1, id, &body(1, 5000), 1500).iter().rev());
        assert_eq!((nat.received().len(), nat.fragments.held_bytes()), (1, 0), "datagram {id}");
    }
}

#[test]
fn nu_9_a_datagram_that_alone_exceeds_the_share_is_dropped() {
    let large = datagram(1, 1, &body(1, 5000), 1500);
    for limits in
        [Limits { held_per_source: 3000, ..Limits::default() }, Limits { held_bytes: 3000, ..Limits::default() }]
    {
        let mut nat = Nat::new(limits);
        let backwards: Vec<_> = large.iter().rev().cloned().collect();
        let limit = Err(DropReason::FragmentLimit);
        assert_eq!(fates(&mut nat, 1, &backwards), [Ok("held"), Ok("held"), limit, limit]);
        assert_eq!((nat.fragments.held_bytes(), nat.received().len()), (0, 0));
        nat.take_all(1, &datagram(1, 2, &body(1, 5000), 1500));
        assert_eq!(nat.received().len(), 1, "what comes in order needs no share");
        assert_eq!(nat.much_later(), 0);
    }
}
