//! Fragments, in any order, both ways; and what we cut ourselves.

use tapswitch_wire::DropReason;

use super::frames::*;
use super::*;

const OUT: (u16, u16) = (4000, 53);
const BACK: (u16, u16) = (53, 4000);

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

/// Puts fragments together: their identification, source, destination, and the datagram behind the IP header.
#[track_caller]
fn joined(frames: &[Vec<u8>]) -> (u16, [u8; 8], Vec<u8>) {
    let first = frames.first().expect("a fragment");
    let (mut body, mut is_last) = (Vec::new(), false);
    let mut pieces: Vec<_> = frames.iter().map(|frame| piece(frame)).collect();
    pieces.sort_by_key(|(offset, ..)| *offset);
    for (offset, more, bytes) in pieces {
        assert_eq!((offset, is_last), (body.len(), false), "a hole, or bytes twice");
        body.extend_from_slice(bytes);
        is_last = !more;
    }
    assert!(is_last, "the end is missing");
    assert!(frames.iter().all(|frame| frame[26..34] == first[26..34] && frame[18..20] == first[18..20]));
    let mut addresses = [0; 8];
    addresses.copy_from_slice(&first[26..34]);
    (identification(first), addresses, body)
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for next in 0..count {
        all = all
            .into_iter()
            .flat_map(|order| {
                (0..=order.len()).map(move |at| {
                    let mut order = order.clone();
                    order.insert(at, next);
                    order
                })
            })
            .collect();
    }
    all
}

#[test]
fn ip_4_nu_8_what_may_be_fragmented_is_in_order_and_with_an_identification_of_our_own() {
    let mut house = House::met(|told| told.mtu = 1280);
    let (body, mut ids) = (data(4000), Vec::new());
    for _ in 0..3 {
        // The container uses one identification for all; it may.
        for (port, src) in [(PORT_A, A), (PORT_B, B)] {
            assert_eq!(house.send(port, &leaving(src, FAR).id(7).udp(OUT, &body[..1400])), Verdict::Relay);
            let frames: Vec<_> = house.take_outside().into_iter().map(|(_, frame)| frame).collect();
            assert_eq!(frames.iter().map(|frame| piece(frame).0).collect::<Vec<_>>(), [0, 1256], "in order");
            let (id, _, sent) = joined(&frames);
            let ports = u16::from_be_bytes([sent[0], sent[1]]);
            assert_eq!(sent, left(OURS, FAR).udp((ports, 53), &body[..1400])[34..]);
            ids.push(id);
        }
    }
    // One that fits has an identification of ours, too.
    for _ in 0..2 {
        house.send(PORT_A, &leaving(A, FAR).id(7).udp(OUT, b"small"));
        ids.push(identification(&house.one_outside()));
    }
    assert!(!ids.contains(&7), "{ids:?}");
    let mut different = ids.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), ids.len(), "{ids:?}");
    // An atomic one keeps what says nothing.
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"small"));
    assert_eq!(house.one_outside(), left(OURS, FAR).udp(OUT, b"small"));
}

#[test]
fn ip_4_what_is_too_big_for_the_inside_is_cut_with_its_own_identification() {
    let mut house = House::met(|told| told.network.mtu = 576);
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.take_outside();
    house.arrive(&coming(FAR, OURS).id(99).udp(BACK, &data(1400)));
    let frames: Vec<_> = house.take_inside().into_iter().map(|(_, _, frame)| frame).collect();
    assert_eq!(frames.len(), 3);
    let (id, _, body) = joined(&frames);
    assert_eq!((id, body), (99, come(FAR, A).udp(BACK, &data(1400))[34..].to_vec()));
    // The same datagram without DF, when it fits.
    house.arrive(&coming(FAR, OURS).id(99).udp(BACK, b"answer"));
    assert_eq!(house.one_inside().1, come(FAR, A).id(99).udp(BACK, b"answer"));
}

#[test]
fn nu_9_fragments_in_every_order_are_translated_both_ways() {
    let body = data(3000);
    let mut last_id = None;
    for order in orders(4) {
        let mut house = House::met(|_| {});
        let fragments = leaving(A, FAR).id(7).udp_fragments(OUT, &body, 752);
        assert_eq!(fragments.len(), 4);
        for at in &order {
            assert_eq!(house.send(PORT_A, &fragments[*at]), Verdict::Relay, "{order:?}");
        }
        let frames: Vec<_> = house.take_outside().into_iter().map(|(_, frame)| frame).collect();
        let (id, addresses, sent) = joined(&frames);
        assert_eq!(addresses[..4], OURS.octets());
        assert_eq!(sent, left(OURS, FAR).udp(OUT, &body)[34..], "{order:?}");
        assert!(last_id.is_none_or(|last| last == id) && id != 7, "the same history, the same identification");
        last_id = Some(id);
        let fragments = coming(FAR, OURS).id(8).udp_fragments(BACK, &body, 752);
        for at in &order {
            assert_eq!(house.arrive(&fragments[*at]), Verdict::Reply, "{order:?}");
        }
        let frames: Vec<_> = house.take_inside().into_iter().map(|(_, _, frame)| frame).collect();
        let (id, addresses, come_in) = joined(&frames);
        assert_eq!((id, &addresses[4..]), (8, &A.octets()[..]));
        assert_eq!(come_in, come(FAR, A).udp(BACK, &body)[34..], "{order:?}");
    }
}

#[test]
fn fragments_of_two_containers_with_the_same_identification_are_kept_apart() {
    let mut house = House::met(|_| {});
    let (of_a, of_b) = (data(2000), vec![9; 2000]);
    let a = leaving(A, FAR).id(7).udp_fragments(OUT, &of_a, 1000);
    let b = leaving(B, FAR).id(7).udp_fragments(OUT, &of_b, 1000);
    // Later ones first, and interleaved.
    for at in (0..a.len()).rev() {
        house.send(PORT_A, &a[at]);
        house.send(PORT_B, &b[at]);
    }
    let frames: Vec<_> = house.take_outside().into_iter().map(|(_, frame)| frame).collect();
    let first = identification(&frames[0]);
    let (one, other): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| identification(frame) == first);
    let ((_, _, one), (_, _, other)) = (joined(&one), joined(&other));
    assert_eq!((&one[8..], &other[8..]), (&of_a[..], &of_b[..]));
    // So are fragments that may not be cut further, of which there are some.
    let with_df = |fragments: &[Vec<u8>]| {
        let mut fragments = fragments.to_vec();
        for frame in &mut fragments {
            frame[20] |= 0x40;
            fix_header(frame);
        }
        fragments
    };
    let (a, b) = (with_df(&a), with_df(&b));
    for at in 0..a.len() {
        house.send(PORT_A, &a[at]);
        house.send(PORT_B, &b[at]);
    }
    let frames: Vec<_> = house.take_outside().into_iter().map(|(_, frame)| frame).collect();
    let ids: std::collections::BTreeSet<_> = frames.iter().map(|frame| identification(frame)).collect();
    assert_eq!((frames.len(), ids.len()), (2 * a.len(), 2));
}

#[test]
fn nu_9_a_flood_of_lone_fragments_harms_only_its_own_sender() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.take_outside();
    let flood = |house: &mut House| {
        for id in 0..1000 {
            house.arrive(&coming(OTHER, OURS).id(id).udp_fragments(BACK, &data(2000), 1000)[1]);
            house.send(PORT_B, &leaving(B, FAR).id(id).udp_fragments(OUT, &data(2000), 1000)[1]);
        }
    };
    for fragment in coming(FAR, OURS).id(8).udp_fragments(BACK, &data(2000), 1000).iter().rev() {
        flood(&mut house);
        assert_eq!(house.arrive(fragment), Verdict::Reply);
    }
    assert_eq!(house.take_inside().len(), 3);
    for fragment in leaving(A, FAR).id(8).udp_fragments(OUT, &data(2000), 1000).iter().rev() {
        flood(&mut house);
        assert_eq!(house.send(PORT_A, fragment), Verdict::Relay);
    }
    assert_eq!(house.take_outside().len(), 3);
}

#[test]
fn a_fragment_that_is_too_big_is_cut_further() {
    let mut house = House::met(|told| told.mtu = 576);
    let body = data(4000);
    for fragment in leaving(A, FAR).id(7).udp_fragments(OUT, &body, 1480) {
        house.send(PORT_A, &fragment);
    }
    let frames: Vec<_> = house.take_outside().into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(joined(&frames).2, left(OURS, FAR).udp(OUT, &body)[34..]);
}

#[test]
fn fragments_whose_first_is_refused_or_never_comes_are_dropped_and_counted() {
    let mut house = House::met(|_| {});
    let stranger = coming(FAR, OURS).id(8).udp_fragments(BACK, &data(2000), 1000);
    assert_eq!(house.arrive(&stranger[1]), Verdict::Reply, "it waits");
    assert_eq!(house.arrive(&stranger[0]), drop(DropReason::Filtered));
    assert_eq!(house.arrive(&stranger[2]), drop(DropReason::Filtered));
    let alone = leaving(A, FAR).id(9).udp_fragments(OUT, &data(2000), 1000);
    house.send(PORT_A, &alone[1]);
    house.pass(seconds(31));
    house.nothing_came();
    assert_eq!(house.network.gateway_drops().get(DropReason::FragmentExpired), 1);
    // The first comes too late for it, and opens a datagram of its own.
    house.send(PORT_A, &alone[0]);
    house.one_outside();
}

#[test]
fn no_fragment_leaves_from_an_address_that_is_ours_no_more() {
    let mut house = House::met(|_| {});
    let fragments = leaving(A, FAR).id(7).udp_fragments(OUT, &data(2000), 1000);
    house.send(PORT_A, &fragments[0]);
    house.one_outside();
    house.network.uplink_down(house.now);
    assert_eq!(house.send(PORT_A, &fragments[1]), Verdict::Relay, "it waits for a first one");
    house.network.uplink_up(UPLINK_MAC, None, 1500, house.now);
    house.arrive(&who_has(OURS, ROUTER));
    house.send(PORT_A, &fragments[2]);
    house.nothing_came();
}

#[test]
fn at_9_datagrams_of_two_containers_are_not_mixed_through_a_hairpin() {
    let mut house = House::met(|_| {});
    // B is reached by its mapping, from A and from itself: both seem to come from our address.
    house.send(PORT_B, &leaving(B, FAR).udp((9998, 53), b"question"));
    let sent = house.one_outside();
    let port = u16::from_be_bytes([sent[34], sent[35]]);
    let mut ids = Vec::new();
    for (from, src) in [(PORT_A, A), (PORT_B, B)] {
        for fragment in leaving(src, OURS).id(777).udp_fragments((4000, port), &data(2000), 1000) {
            house.send(from, &fragment);
        }
        let frames: Vec<_> = house.take_inside().into_iter().map(|(_, _, frame)| frame).collect();
        let (id, addresses, _) = joined(&frames);
        assert_eq!(addresses[..4], OURS.octets());
        ids.push(id);
        // A whole one that may be fragmented later takes one of ours, too.
        house.send(from, &leaving(src, OURS).id(777).udp((4000, port), b"small"));
        ids.push(identification(&house.one_inside().1));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), ids.contains(&777)), (4, false), "{ids:?}");
}
