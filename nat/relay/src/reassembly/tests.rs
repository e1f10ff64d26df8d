//! Against a map of bytes.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{FrameRef, Mac, Meta, fragment};

use super::*;

const NOW: Instant = Instant::from_secs(1_000);

/// A UDP datagram without DF.
fn datagram(len: usize) -> Vec<u8> {
    let link = Link { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };
    let ip = Ip {
        src: Ipv4Addr::new(10, 0, 0, 2).into(),
        dst: Ipv4Addr::new(198, 51, 100, 1).into(),
        ttl: 63,
        tos: 0,
        id: 7,
    };
    let mut frame = Vec::new();
    let payload: Vec<u8> = (0..len).map(|at| (at * 7 + at / 251) as u8).collect();
    build::udp(&mut frame, link, ip, 5_000, 7, &payload);
    frame[20] &= !0x40;
    let mut whole = Vec::new();
    // Its identification, and the header's checksum.
    let mut keep = |_: &Meta, frame: &[u8]| whole = frame.to_vec();
    fragment::split(&Meta::PLAIN, &frame, u16::MAX, 7, &mut Vec::new(), &mut keep).expect("a sound frame");
    whole
}

fn cut(frame: &[u8], mtu: u16, id: u16) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut keep = |_: &Meta, frame: &[u8]| pieces.push(frame.to_vec());
    fragment::split(&Meta::PLAIN, frame, mtu, id, &mut Vec::new(), &mut keep).expect("a sound frame");
    pieces
}

/// A fragment of so many units of eight bytes at such an offset.
fn piece(start: usize, units: usize, is_last: bool, id: u16) -> Vec<u8> {
    let pattern = datagram(2_000);
    let (start, len) = (start * 8, units * 8);
    let mut frame = pattern[..34].to_vec();
    frame.extend_from_slice(&pattern[34 + start..34 + start + len]);
    frame[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    let word = (start / 8) as u16 | if is_last { 0 } else { 0x2000 };
    frame[20..22].copy_from_slice(&word.to_be_bytes());
    frame[24..26].fill(0);
    let check = tapswitch_wire::checksum::checksum(0, &frame[14..34]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame
}

fn take(table: &mut Reassembly, port: u32, frame: &[u8], now: Instant) -> Result<Option<Vec<u8>>, DropReason> {
    let frame = FrameRef::parse(Meta::PLAIN, frame).expect("a sound frame");
    let mut whole = Vec::new();
    let is_whole = table.take(PortId(port), &frame, now, &mut whole)?;
    Ok(is_whole.then_some(whole))
}

proptest! {
    /// Whatever the cuts and the order, and however often some come twice, the packet is what it was.
    #[test]
    fn nu_9_fragments_in_any_order_and_twice_become_the_packet(
        len in 1_500usize..9_000,
        mtu in 68u16..1_500,
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..400),
    ) {
        let frame = datagram(len);
        let mut left = cut(&frame, mtu, 7);
        prop_assume!(left.len() > 1);
        let mut table = Reassembly::default();
        let mut seen = Vec::new();
        for index in order {
            let again = !seen.is_empty() && index.index(3) == 0;
            if again {
                let old: &Vec<u8> = index.get(&seen);
                prop_assert_eq!(take(&mut table, 1, old, NOW), Err(DropReason::FragmentDuplicate));
            } else if left.len() > 1 {
                let next = left.swap_remove(index.index(left.len()));
                prop_assert_eq!(take(&mut table, 1, &next, NOW), Ok(None));
                seen.push(next);
            }
        }
        while left.len() > 1 {
            prop_assert_eq!(take(&mut table, 1, &left.pop().unwrap(), NOW), Ok(None));
        }
        prop_assert_eq!(take(&mut table, 1, &left[0], NOW), Ok(Some(frame)));
        prop_assert!(table.partials.is_empty() && table.order.is_empty() && table.costs.is_empty());
        prop_assert_eq!(table.cost, 0);
    }

    /// Overlapping ones against a map of bytes: either the packet is right, or it never comes.
    #[test]
    fn nu_9_overlaps_kill_the_packet(
        parts in proptest::collection::vec((0usize..12, 1usize..5, proptest::bool::weighted(0.2)), 1..30),
    ) {
        let (mut table, mut map, mut end, mut is_dead) = (Reassembly::default(), [false; 32], None, false);
        let mut known = std::collections::HashSet::new();
        for (start, units, is_last) in parts {
            if start == 0 && is_last {
                // That is a whole packet.
                continue;
            }
            let stop = start + units;
            let got = take(&mut table, 1, &piece(start, units, is_last, 9), NOW);
            let covered = map[start..stop].iter().filter(|unit| **unit).count();
            let top = map.iter().rposition(|unit| *unit).map_or(0, |at| at + 1);
            if is_dead {
                prop_assert_eq!(got, Err(DropReason::FragmentOverlap));
                continue;
            }
            if known.contains(&(start, stop, is_last)) {
                prop_assert_eq!(got, Err(DropReason::FragmentDuplicate));
                continue;
            }
            let contradicts = match (end, is_last) {
                (Some(_), true) => true,
                (Some(end), false) => stop >= end,
                (None, true) => top > stop,
                (None, false) => false,
            };
            if covered > 0 || contradicts {
                prop_assert_eq!(got, Err(DropReason::FragmentOverlap));
                is_dead = true;
                continue;
            }
            map[start..stop].fill(true);
            known.insert((start, stop, is_last));
            end = end.or(is_last.then_some(stop));
            let is_whole = end.is_some_and(|end| map[..end].iter().all(|unit| *unit));
            let whole = got.expect("a piece that fits");
            prop_assert_eq!(whole.is_some(), is_whole);
            if let (Some(whole), Some(end)) = (whole, end) {
                prop_assert_eq!(&whole[34..], &datagram(2_000)[34..34 + end * 8]);
                return Ok(());
            }
        }
    }
}

#[test]
fn nu_9_packets_of_one_identification_from_two_containers_are_never_mixed() {
    let mut table = Reassembly::default();
    assert_eq!(take(&mut table, 1, &piece(0, 2, false, 5), NOW), Ok(None));
    assert_eq!(take(&mut table, 2, &piece(2, 2, true, 5), NOW), Ok(None));
    assert_eq!(take(&mut table, 1, &piece(2, 2, true, 6), NOW), Ok(None));
    assert!(take(&mut table, 1, &piece(2, 2, true, 5), NOW).is_ok_and(|whole| whole.is_some()));
}

#[test]
fn nu_9_a_packet_that_stays_incomplete_is_forgotten_after_thirty_seconds() {
    let mut table = Reassembly::default();
    assert_eq!(take(&mut table, 1, &piece(0, 2, false, 5), NOW), Ok(None));
    assert_eq!(table.deadline(), Some(NOW + HOLD));
    table.expire(NOW + HOLD);
    assert_eq!((table.deadline(), table.cost), (None, 0));
    let drops = table.take_drops().expect("it is counted");
    assert_eq!(drops.get(DropReason::FragmentExpired), 1);
    assert_eq!(take(&mut table, 1, &piece(2, 2, true, 5), NOW + HOLD), Ok(None), "the rest begins another one");
}

#[test]
fn nu_9_a_flood_of_lone_fragments_displaces_its_own_and_nobody_elses() {
    let mut table = Reassembly::default();
    assert_eq!(take(&mut table, 2, &piece(0, 2, false, 5), NOW), Ok(None));
    for id in 0..60_000 {
        let _ = take(&mut table, 1, &piece(0, 100, false, id), NOW);
        assert!(table.costs[&PortId(1)] <= COST && table.cost <= COST + 1_000);
    }
    assert!(table.partials.len() <= PACKETS + 1);
    assert!(take(&mut table, 2, &piece(2, 2, true, 5), NOW).is_ok_and(|whole| whole.is_some()));
}

#[test]
fn nu_9_the_largest_datagram_is_put_together_and_a_larger_one_is_not() {
    let frame = datagram(65_507);
    let mut table = Reassembly::default();
    let mut pieces = cut(&frame, 1_500, 7);
    let last = pieces.pop().expect("many");
    for piece in &pieces {
        assert_eq!(take(&mut table, 1, piece, NOW), Ok(None));
    }
    assert_eq!(take(&mut table, 1, &last, NOW), Ok(Some(frame)));
    let mut beyond = piece(0, 4, false, 8);
    beyond[20..22].copy_from_slice(&0x1fffu16.to_be_bytes());
    assert_eq!(take(&mut table, 1, &beyond, NOW), Err(DropReason::FragmentMalformed));
}
