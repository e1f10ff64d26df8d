//! Links without addresses, neighbours that move, routers of the inside, and what policy forbids.

use tapswitch_wire::{DropReason, Stage};

use super::frames::*;
use super::*;

const OUT: (u16, u16) = (4000, 53);
const BACK: (u16, u16) = (53, 4000);

#[test]
fn a_link_without_addresses_needs_no_arp_and_carries_any_destination() {
    let other_end = Mac([2, 8, 8, 8, 8, 8]);
    let mut house = House::met(|_| {});
    house.network.uplink_down(house.now);
    house.network.uplink_up(UPLINK_MAC, Some(other_end), 1500, house.now);
    house.pass(seconds(5));
    assert_eq!(house.wires.outside, [], "nothing is announced");
    for dst in [FAR, OTHER, ROUTER, Ipv4Addr::new(172, 16, 0, 1)] {
        for _ in 0..2 {
            house.send(PORT_A, &leaving(A, dst).udp(OUT, b"question"));
            let mut expected = left(OURS, dst).udp(OUT, b"question");
            expected[..6].copy_from_slice(&other_end.0);
            assert_eq!(house.one_outside(), expected);
            let mut answer = coming(dst, OURS).udp(BACK, b"answer");
            answer[6..12].copy_from_slice(&other_end.0);
            house.arrive(&answer);
            assert_eq!(house.one_inside(), (PORT_A, come(dst, A).udp(BACK, b"answer")));
        }
    }
    assert!(house.network.neighbours(house.now).iter().all(|neighbour| neighbour.ip != IpAddr::V4(ROUTER)));
}

#[test]
fn a_frame_of_a_vlan_is_not_ours_even_if_its_packet_is_of_a_session() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.arrive(&coming(FAR, OURS).udp(BACK, b"answer"));
    house.take_outside();
    house.take_inside();
    let mut tagged = coming(FAR, OURS).udp(BACK, b"answer");
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(house.arrive(&tagged), drop(DropReason::UnknownEthertype));
    assert_eq!((house.wires.inside.len(), house.wires.outside.len()), (0, 0));
}

#[test]
fn a_router_that_moves_to_another_mac_address_is_followed_by_the_very_next_packet() {
    let mut house = House::met(|_| {});
    let question = leaving(A, FAR).udp(OUT, b"question");
    for _ in 0..2 {
        house.send(PORT_A, &question);
        house.one_outside();
    }
    let moved = Mac([2, 8, 8, 8, 8, 8]);
    let mut announcement = who_has(ROUTER, ROUTER);
    announcement[6..12].copy_from_slice(&moved.0);
    announcement[22..28].copy_from_slice(&moved.0);
    house.arrive(&announcement);
    for _ in 0..2 {
        house.send(PORT_A, &question);
        assert_eq!(house.one_outside()[..6], moved.0);
    }
}

#[test]
fn a_container_that_takes_its_address_to_another_port_is_followed() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    let answer = coming(FAR, OURS).udp(BACK, b"answer");
    for _ in 0..2 {
        house.arrive(&answer);
        assert_eq!(house.one_inside().0, PORT_A);
    }
    // The same station speaks from the other port.
    house.send(PORT_B, &who_has(GATEWAY, A));
    house.take_inside();
    for _ in 0..2 {
        house.arrive(&answer);
        assert_eq!(house.one_inside().0, PORT_B);
    }
}

#[test]
fn a_container_that_changes_its_mac_address_is_followed_by_the_very_next_packet() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    let answer = coming(FAR, OURS).udp(BACK, b"answer");
    for _ in 0..2 {
        house.arrive(&answer);
        assert_eq!(house.one_inside().1[..6], mac(A).0);
    }
    let other = Mac([2, 8, 8, 8, 8, 8]);
    let mut announcement = who_has(A, A);
    announcement[6..12].copy_from_slice(&other.0);
    announcement[22..28].copy_from_slice(&other.0);
    house.send(PORT_A, &announcement);
    house.take_inside();
    for _ in 0..2 {
        house.arrive(&answer);
        assert_eq!(house.one_inside().1[..6], other.0);
    }
}

/// A neighbour in use is asked again before it goes stale unnoticed, and nothing is lost meanwhile.
#[test]
fn a_flow_that_goes_on_for_minutes_never_waits_for_arp() {
    let mut house = House::met(|_| {});
    for second in 0..300 {
        house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
        house.arrive(&coming(FAR, OURS).udp(BACK, b"answer"));
        let asked = |frames: &[&[u8]]| frames.iter().filter(|frame| frame[12..14] == [8, 6]).count();
        let outside: Vec<_> = house.wires.outside.iter().map(|(_, frame)| &frame[..]).collect();
        let inside: Vec<_> = house.wires.inside.iter().map(|(_, _, frame)| &frame[..]).collect();
        let (ask_router, ask_a) = (asked(&outside) > 0, asked(&inside) > 0);
        assert_eq!((house.take_outside().len(), house.take_inside().len()), (1, 1), "second {second}");
        if ask_router {
            house.router_answers();
        }
        if ask_a {
            house.send(PORT_A, &is_at(A, GATEWAY));
        }
        house.pass(seconds(1));
    }
}

#[test]
fn a_subnet_behind_a_router_of_the_lan_is_translated_and_found_again() {
    let behind = Ipv4Addr::new(172, 16, 5, 5);
    let mut house = House::met(|told| told.network.routes = vec![("172.16.0.0/12".parse().expect("a net"), B)]);
    // B sends on what its host sends.
    let mut question = leaving(behind, FAR).udp(OUT, b"question");
    question[6..12].copy_from_slice(&mac(B).0);
    let mut expected = come(FAR, behind).udp(BACK, b"answer");
    expected[..6].copy_from_slice(&mac(B).0);
    for _ in 0..2 {
        house.send(PORT_B, &question);
        assert_eq!(house.one_outside(), left(OURS, FAR).udp(OUT, b"question"));
        house.arrive(&coming(FAR, OURS).udp(BACK, b"answer"));
        assert_eq!(house.one_inside(), (PORT_B, expected.clone()));
    }
    // And nobody outside may claim to stand there.
    let lie = coming(behind, OURS).udp(BACK, b"answer");
    assert_eq!(house.arrive(&lie), drop(DropReason::InsideFromOutside));
}

#[test]
fn at_16_what_policy_forbids_does_not_leave_and_the_sender_is_told() {
    let mut house = House::met(|told| told.packet.policy.deny = vec!["198.51.100.8/32".parse().expect("a net")]);
    for dst in [OTHER, Ipv4Addr::new(169, 254, 169, 254)] {
        let frame = leaving(A, dst).udp((4000, 80), b"question");
        assert_eq!(house.send(PORT_A, &frame), drop(DropReason::PolicyDenied), "{dst}");
        let answer = house.one_inside().1;
        assert_eq!(answer[34..36], [3, 13]);
        // Fragments are no way around it.
        for fragment in leaving(A, dst).id(7).udp_fragments((4000, 80), &[0; 2000], 1000) {
            assert_eq!(house.send(PORT_A, &fragment), drop(DropReason::PolicyDenied));
        }
        house.take_inside();
    }
    house.nothing_came();
    assert_eq!(house.sessions(), 0);
    assert_eq!(house.send(PORT_A, &leaving(A, FAR).udp((4000, 80), b"question")), Verdict::Relay);
}

#[test]
fn a_packets_story_tells_what_it_became_by_either_way() {
    let mut house = House::met(|_| {});
    for expected in ["10.0.0.2 -> 198.51.100.7 becomes 192.0.2.10:4000 -> 198.51.100.7:53", "becomes"] {
        let mut journey = tapswitch_wire::Recorded::default();
        house.send_told(PORT_A, Meta::PLAIN, &leaving(A, FAR).udp(OUT, b"question"), &mut journey);
        let told: Vec<_> =
            journey.steps.iter().filter(|step| step.stage == Stage::Nat).map(|step| &step.text).collect();
        assert!(told.iter().any(|text| text.contains(expected)), "{told:?}");
        assert!(journey.steps.iter().any(|step| step.stage == Stage::Verdict));
    }
}
