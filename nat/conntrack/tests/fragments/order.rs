//! Datagrams whose fragments come in all orders arrive.

use tapswitch_conntrack::fragment::{Fragments, Limits, Track};
use tapswitch_wire::{ChecksumState, DropReason, FrameRef, Instant, Meta};

use crate::world::{Nat, PIECE, body, datagram, fates};

const LARGEST: usize = 65_507;

#[test]
fn ip_10_the_largest_datagram_arrives_in_order_without_a_copy() {
    let mut nat = Nat::new(Limits::default());
    let frames = datagram(1, 7, &body(1, LARGEST), 1500);
    assert_eq!(frames.len(), 45);
    nat.take_all(1, &frames);
    assert_eq!(nat.received(), [(1, 7, body(1, LARGEST))]);
    assert_eq!(nat.held.0, 0);
    nat.assert_empty();
}

#[test]
fn nu_9_the_largest_datagram_arrives_in_reversed_order() {
    for mtu in [576, 1500, 9000] {
        let mut nat = Nat::new(Limits::default());
        let frames = datagram(1, 7, &body(1, LARGEST), mtu);
        nat.take_all(1, frames.iter().rev());
        assert_eq!(nat.received(), [(1, 7, body(1, LARGEST))], "MTU {mtu}");
        assert_eq!(nat.held, (frames.len() as u64 - 1, frames.len() as u64 - 1));
        nat.assert_empty();
    }
}

#[test]
fn nu_9_what_waited_leaves_behind_the_first_in_the_order_it_came() {
    let mut fragments = Fragments::new(Limits::default(), [0; 16]);
    let frames = datagram(1, 7, &body(1, 5000), 1500);
    let mut take =
        |at: usize| fragments.track(0, 1, &FrameRef::parse(Meta::PLAIN, &frames[at][..]).unwrap(), Instant::ZERO);
    assert_eq!((take(3), take(1)), (Track::Held, Track::Held));
    let Track::First(key) = take(0) else { panic!("the first one") };
    let waited: Vec<_> = fragments.decided(key, Ok("verdict")).collect();
    assert_eq!(waited, [(Meta::PLAIN, frames[3].clone()), (Meta::PLAIN, frames[1].clone())]);
    let last = FrameRef::parse(Meta::PLAIN, &frames[2][..]).unwrap();
    assert_eq!(fragments.track(0, 1, &last, Instant::ZERO), Track::Later("verdict"));
    assert!(fragments.is_empty() && fragments.held_bytes() == 0);
}

#[test]
fn ip_10_fragments_of_several_datagrams_arrive_in_turns() {
    let mut nat = Nat::new(Limits::default());
    let all: Vec<_> = (0..10).map(|at| datagram(at % 3, at as u16, &body(at as usize, 5000), 1500)).collect();
    for turn in 0..4 {
        for (at, frames) in all.iter().enumerate() {
            // Every other one in reversed order.
            nat.take(at as u32 % 3, &frames[if at % 2 == 0 { turn } else { 3 - turn }]);
        }
    }
    let expected: Vec<_> = (0..10).map(|at| (at as u32 % 3, at as u16, body(at, 5000))).collect();
    let mut received = nat.received();
    received.sort();
    let mut sorted = expected;
    sorted.sort();
    assert_eq!(received, sorted);
    nat.assert_empty();
}

#[test]
fn ip_10_each_fragment_twice_arrives_once() {
    let mut nat = Nat::new(Limits::default());
    let frames = datagram(1, 7, &body(1, 4000), 1500);
    let [a, b, c] = &frames[..] else { panic!("three") };
    let twice = [c, c, a, a, c].map(Clone::clone);
    let duplicate = Err(DropReason::FragmentDuplicate);
    assert_eq!(fates(&mut nat, 1, &twice), [Ok("held"), duplicate, Ok("first"), duplicate, duplicate]);
    assert_eq!(fates(&mut nat, 1, std::slice::from_ref(b)), [Ok("later")]);
    assert_eq!(nat.received(), [(1, 7, body(1, 4000))]);
    nat.assert_empty();
}

#[test]
fn ip_10_a_datagram_with_the_same_identification_arrives_once_the_one_before_is_whole() {
    let mut nat = Nat::new(Limits::default());
    for seed in 0..5 {
        nat.take_all(1, &datagram(1, 7, &body(seed, 4000), 1500));
        nat.take_all(1, datagram(1, 7, &body(seed + 50, 4000), 1400).iter().rev());
        assert_eq!(nat.received(), [(1, 7, body(seed, 4000)), (1, 7, body(seed + 50, 4000))]);
        nat.assert_empty();
    }
}

/// A duplicate that comes too late to be known as one is passed on under another identification, so it cannot meet what
/// comes next.
#[test]
fn ip_10_a_late_duplicate_does_no_harm_to_what_was_received() {
    let mut nat = Nat::new(Limits::default());
    let frames = datagram(1, 7, &body(1, 4000), 1500);
    nat.take_all(1, &frames);
    assert_eq!(fates(&mut nat, 1, &frames[1..2]), [Ok("held")]);
    assert_eq!(nat.received().len(), 1);
    assert_eq!(nat.much_later(), 0);
}

#[test]
fn nu_9_the_rest_of_a_refused_datagram_is_dropped_for_the_same_reason() {
    let mut fragments: Fragments<()> = Fragments::new(Limits::default(), [0; 16]);
    let frames = datagram(1, 7, &body(1, 5000), 1500);
    let take = |fragments: &mut Fragments<()>, at: usize| {
        fragments.track(0, 1, &FrameRef::parse(Meta::PLAIN, &frames[at][..]).unwrap(), Instant::ZERO)
    };
    assert_eq!(take(&mut fragments, 1), Track::Held);
    let Track::First(key) = take(&mut fragments, 0) else { panic!("the first one") };
    assert_eq!(fragments.decided(key, Err(DropReason::PolicyDenied)).count(), 0);
    assert_eq!(fragments.drops().iter().collect::<Vec<_>>(), [(DropReason::PolicyDenied, 1)]);
    assert_eq!(take(&mut fragments, 2), Track::Drop(DropReason::PolicyDenied));
    assert_eq!(fragments.held_bytes(), 0);
    assert_eq!(fragments.poll(Instant::from_secs(30)), None, "its sender knows already");
    assert!(fragments.is_empty());

    // Refused when all the rest was there: nothing is left to be dropped.
    for at in 1..4 {
        assert_eq!(take(&mut fragments, at), Track::Held);
    }
    let Track::First(key) = take(&mut fragments, 0) else { panic!("the first one") };
    assert_eq!(fragments.decided(key, Err(DropReason::PolicyDenied)).count(), 0);
    assert!(fragments.is_empty());
}

#[test]
fn nu_9_realms_and_sources_do_not_meet() {
    let mut fragments: Fragments<u8> = Fragments::new(Limits::default(), [0; 16]);
    let frames = datagram(1, 7, &body(1, 2000), 1500);
    let mut take = |realm, source, at: usize| {
        fragments.track(realm, source, &FrameRef::parse(Meta::PLAIN, &frames[at][..]).unwrap(), Instant::ZERO)
    };
    let Track::First(_) = take(0, 1, 0) else { panic!("the first one") };
    assert_eq!(take(1, 1, 1), Track::Held, "of another realm");
    assert_eq!(take(0, 2, 1), Track::Held, "of a container that forged the address");
}

#[test]
fn what_is_no_fragment_does_not_belong_here() {
    let mut fragments: Fragments<u8> = Fragments::new(Limits::default(), [0; 16]);
    let whole = &datagram(1, 7, &[1; 100], 1500)[0];
    let frame = FrameRef::parse(Meta::PLAIN, &whole[..]).unwrap();
    assert_eq!(fragments.track(0, 1, &frame, Instant::ZERO), Track::Drop(DropReason::FragmentNotSupported));
    // Nor a fragment whose checksum nobody can complete.
    let first = PIECE.with(&[0, 1, 0, 2, 0, 99, 0, 0]);
    let meta = Meta { checksum: ChecksumState::Partial { start: 34, offset: 6 }, gso: None };
    let frame = FrameRef::parse(meta, &first[..]).unwrap();
    assert_eq!(fragments.track(0, 1, &frame, Instant::ZERO), Track::Drop(DropReason::BadVnetHeader));
    assert!(fragments.is_empty());
}
