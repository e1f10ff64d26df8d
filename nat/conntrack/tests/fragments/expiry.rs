//! What never becomes whole is forgotten in time, and its sender is told if it may be.

use std::time::Duration;

use tapswitch_conntrack::fragment::{Fragments, Limits, Track};
use tapswitch_wire::{DropReason, FrameRef, Instant, Mac, Meta};

use crate::world::{Nat, body, datagram, fates, host};

#[test]
fn ip_10_only_the_sender_of_a_first_fragment_is_told_of_a_hole() {
    let frames = datagram(1, 7, &body(1, 5000), 1500);
    for (what, came, is_told) in [
        ("the first only", &[0][..], true),
        ("the first and more", &[0, 1, 3], true),
        ("the first behind another", &[3, 0, 1], true),
        ("all but the first", &[1, 2, 3], false),
        ("the last only", &[3], false),
        ("all", &[0, 1, 2, 3], false),
        ("all, the first last", &[3, 1, 2, 0], false),
    ] {
        let mut nat = Nat::new(Limits::default());
        let start = nat.now;
        for at in came {
            nat.take(1, &frames[*at]);
        }
        if let Some(deadline) = nat.fragments.deadline() {
            assert_eq!(deadline - start, Duration::from_secs(30), "{what}");
            nat.now = start + Duration::from_millis(29_999);
            assert_eq!(nat.fragments.poll(nat.now), None, "{what}: there is time left");
            assert!(!nat.fragments.is_empty(), "{what}");
        }
        nat.now = start + Duration::from_secs(30);
        let told: Vec<_> = std::iter::from_fn(|| nat.fragments.poll(nat.now)).collect();
        assert_eq!(told.len(), usize::from(is_told), "{what}");
        if let [expired] = &told[..] {
            assert_eq!((expired.key.src, expired.key.source, expired.key.id), (host(1), 1, 7));
            assert_eq!(expired.src_mac, Mac([2, 0, 0, 0, 0, 1]));
            assert_eq!(expired.quote, frames[0][14..14 + 28], "as it was received");
        }
        let expired = nat.held.0 - nat.held.1;
        assert_eq!(nat.fragments.drops().get(DropReason::FragmentExpired), expired, "{what}");
        nat.assert_empty();
    }
}

#[test]
fn ip_10_the_hold_time_is_between_15_and_60_seconds() {
    for (asked, kept) in [(0, 15), (15, 15), (30, 30), (60, 60), (3600, 60)] {
        let mut nat = Nat::new(Limits { hold: Duration::from_secs(asked), ..Limits::default() });
        nat.take(1, &datagram(1, 7, &body(1, 5000), 1500)[0]);
        assert_eq!(nat.fragments.deadline(), Some(nat.now + Duration::from_secs(kept)));
    }
}

#[test]
fn ip_10_an_identification_may_be_used_again_once_the_hole_is_forgotten() {
    let mut nat = Nat::new(Limits::default());
    let old = datagram(1, 7, &body(1, 5000), 1500);
    nat.take_all(1, &old[..3]);
    assert_eq!(nat.much_later(), 1);
    // The last one comes all the same: it waits for another first one.
    assert_eq!(fates(&mut nat, 1, &old[3..]), [Ok("held")]);
    assert_eq!(nat.much_later(), 0);
    nat.take_all(1, &datagram(1, 7, &body(2, 5000), 1500));
    assert_eq!(nat.received(), [(1, 7, body(2, 5000))]);
}

#[test]
fn ip_10_each_is_forgotten_at_its_own_time() {
    let mut nat = Nat::new(Limits::default());
    let start = nat.now;
    for at in 0..5u16 {
        nat.now = start + Duration::from_secs(u64::from(at));
        assert!(matches!(nat.take(1, &datagram(1, at, &body(1, 5000), 1500)[0]), Track::First(_)));
    }
    // One in the middle becomes whole.
    nat.take_all(1, &datagram(1, 2, &body(1, 5000), 1500)[1..]);
    for at in [0u16, 1, 3, 4] {
        let deadline = nat.fragments.deadline().unwrap();
        assert_eq!(deadline - start, Duration::from_secs(30 + u64::from(at)));
        assert_eq!(nat.fragments.poll(deadline).map(|expired| expired.key.id), Some(at));
        assert_eq!(nat.fragments.poll(deadline), None);
    }
    nat.assert_empty();
}

#[test]
fn ip_10_nobody_is_told_of_a_datagram_that_is_whole_but_was_never_decided() {
    let mut fragments: Fragments<()> = Fragments::new(Limits::default(), [0; 16]);
    for frame in datagram(1, 7, &body(1, 5000), 1500) {
        fragments.track(0, 1, &FrameRef::parse(Meta::PLAIN, &frame[..]).unwrap(), Instant::ZERO);
    }
    assert_eq!(fragments.poll(Instant::from_secs(30)), None);
    assert_eq!(fragments.drops().iter().collect::<Vec<_>>(), [(DropReason::FragmentExpired, 3)]);
    assert!(fragments.is_empty());
}
