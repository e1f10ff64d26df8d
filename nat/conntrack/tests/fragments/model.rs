//! Random datagrams, cut, shuffled, duplicated, interleaved and overlapped: each arrives as it was sent or not at all.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tapswitch_conntrack::fragment::Limits;

use crate::world::{Nat, PIECE, Piece, body, datagram, extent};

#[derive(Clone, Debug)]
struct Plan {
    source: u32,
    id: u16,
    len: usize,
    mtu: u16,
    /// Places of its fragments in the order of all; a duplicate has a place of its own.
    places: Vec<u16>,
    duplicates: Vec<(Index, u16)>,
    /// One at most: two could be a datagram of their own.
    overlap: Option<(Index, Index, bool, u16)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    // In order, in reversed order, in any.
    let places = prop_oneof![
        any::<u16>().prop_map(|place| vec![place; 64]),
        Just((0..64u16).rev().collect()),
        vec(any::<u16>(), 64),
    ];
    let overlap = (any::<Index>(), any::<Index>(), any::<bool>(), any::<u16>());
    let overlap = prop::option::weighted(0.4, overlap);
    let sizes = prop_oneof![5 => (1500usize..6000, 150u16..1500), 1 => (60_000usize..65_508, 1400u16..1501)];
    (1u32..4, sizes, places, vec((any::<Index>(), any::<u16>()), 0..5), overlap).prop_map(
        |(source, (len, mtu), places, duplicates, overlap)| Plan {
            source,
            id: 0,
            len,
            mtu,
            places,
            duplicates,
            overlap,
        },
    )
}

/// A fragment that overlaps those of a datagram in part: what begins and ends as theirs do, or is the last and begins as
/// one of theirs, could as well be the original.
fn forged(source: u32, id: u16, frames: &[Vec<u8>], from: Index, len: Index, more: bool) -> Option<Vec<u8>> {
    let total = extent(&frames[frames.len() - 1]).1;
    let start = from.index(total / 8 + 1) * 8;
    let end = (start + 8 + len.index(180) * 8).min(65_000);
    let is_cut = |at: usize| at == total || frames.iter().any(|frame| extent(frame).0 == at);
    if start >= end || is_cut(start) && (is_cut(end) || !more) {
        return None;
    }
    let mut payload = vec![0xee; end - start];
    if start == 0 {
        payload[..8].copy_from_slice(&[0, 1, 0, 2, 0xff, 0, 0, 0]);
    }
    Some(Piece { source, id, offset: start, more, ..PIECE }.with(&payload))
}

/// Sends all of it through; returns what the receiver got: source, identification, payload.
fn run(plans: &mut [Plan], limits: Limits) -> Vec<(u32, u16, Vec<u8>)> {
    let mut queue = Vec::new();
    for (at, plan) in plans.iter_mut().enumerate() {
        plan.id = at as u16;
        let frames = datagram(plan.source, plan.id, &body(at, plan.len), plan.mtu);
        for (index, place) in &plan.duplicates {
            queue.push((*place, plan.source, index.get(&frames).clone()));
        }
        if let Some((from, len, more, place)) = plan.overlap {
            match forged(plan.source, plan.id, &frames, from, len, more) {
                Some(frame) => queue.push((place, plan.source, frame)),
                None => plan.overlap = None,
            }
        }
        queue.extend(frames.into_iter().zip(&plan.places).map(|(frame, place)| (*place, plan.source, frame)));
    }
    queue.sort_by_key(|(place, ..)| *place);
    let mut nat = Nat::new(limits);
    for (_, source, frame) in queue {
        nat.take(source, &frame);
        assert!(nat.fragments.held_bytes() <= limits.held_bytes && nat.fragments.len() <= limits.datagrams);
    }
    let received = nat.received();
    nat.much_later();
    received
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn ip_10_nu_9_at_9_each_datagram_arrives_as_it_was_sent_or_not_at_all(mut plans in vec(plan(), 1..8)) {
        // All of it fits, so whatever nobody tampers with arrives.
        let limits = Limits { held_per_source: 1 << 20, ..Limits::default() };
        let received = run(&mut plans, limits);
        for (source, id, payload) in &received {
            let plan = &plans[usize::from(*id)];
            prop_assert_eq!(plan.source, *source);
            prop_assert!(*payload == body(usize::from(*id), plan.len), "datagram {} is a mixture", id);
        }
        for plan in plans.iter().filter(|plan| plan.overlap.is_none()) {
            prop_assert!(received.iter().any(|(_, id, _)| *id == plan.id), "datagram {} is missing", plan.id);
        }
    }

    /// With hardly any room there is never a mixture either, and the bounds hold.
    #[test]
    fn nu_9_at_9_no_mixture_arrives_when_all_is_full(mut plans in vec(plan(), 4..12)) {
        let limits = Limits {
            datagrams: 4,
            per_source: 3,
            held_bytes: 9000,
            held_per_source: 5000,
            ranges: 3,
            ..Limits::default()
        };
        let received = run(&mut plans, limits);
        for (_, id, payload) in &received {
            prop_assert!(*payload == body(usize::from(*id), plans[usize::from(*id)].len), "datagram {} is a mixture", id);
        }
    }
}
