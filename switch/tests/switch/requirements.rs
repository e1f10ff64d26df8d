//! One test or more for each requirement on a learning bridge.

use std::time::Duration;

use tapswitch_switch::Config;
use tapswitch_wire::{DropReason, Mac, Meta, PortId};

use crate::world::*;

#[test]
fn br_1_known_unicast_leaves_by_one_port_and_everything_else_by_every_other_port() {
    let group = Mac([0x01, 0x00, 0x5e, 1, 2, 3]);
    World::usual(3).expect(&[
        (1, A, B, to(&[0, 2, 3])),
        (2, B, A, to(&[1])),
        (1, A, B, to(&[2])),
        (1, A, ALL, to(&[0, 2, 3])),
        (2, B, group, to(&[0, 1, 3])),
        (0, GW, A, to(&[1])),
        (0, GW, ALL, to(&[1, 2, 3])),
        (3, C, GW, to(&[0])),
        (3, C, Mac::ZERO, to(&[0, 1, 2])),
    ]);
}

#[test]
fn br_1_a_frame_never_goes_back_where_it_came_from() {
    let mut world = World::usual(2);
    world.expect(&[
        (1, A, ALL, to(&[0, 2])),
        (1, B, ALL, to(&[0, 2])),
        (1, A, B, Err(DropReason::SameSegment)),
        (1, A, A, Err(DropReason::SameSegment)),
        (0, GW, GW, Err(DropReason::SameSegment)),
    ]);
    assert_eq!(world.drops(1, DropReason::SameSegment), 2);
}

#[test]
fn br_1_a_flood_without_another_port_is_a_drop_with_a_name() {
    let mut world = World::usual(0);
    world.expect(&[(0, GW, ALL, Err(DropReason::NoOtherPort)), (0, GW, A, Err(DropReason::NoOtherPort))]);
    assert_eq!(world.drops(0, DropReason::NoOtherPort), 2);
}

#[test]
fn br_2_only_a_single_station_is_learned_and_only_from_an_attached_port() {
    let group = Mac([0x03, 0, 0, 0, 0, 0xa]);
    let mut world = World::usual(2);
    world.expect(&[
        (1, group, ALL, Err(DropReason::SourceNotStation)),
        (1, ALL, B, Err(DropReason::SourceNotStation)),
        (1, Mac::ZERO, B, Err(DropReason::SourceNotStation)),
        (9, A, ALL, Err(DropReason::UnknownPort)),
    ]);
    assert_eq!(world.known(), [(GW, 0)]);
    assert_eq!(world.drops(1, DropReason::SourceNotStation), 3);
    assert_eq!(world.switch.stray_drops().get(DropReason::UnknownPort), 1);
    // Nor do such frames redirect anything: a group that was a source is flooded to like any other.
    world.expect(&[(2, B, group, to(&[0, 1])), (2, B, ALL, to(&[0, 1]))]);
}

#[test]
fn br_3_the_first_frame_from_another_port_moves_the_station() {
    let mut world = World::usual(3);
    world.expect(&[
        (1, A, ALL, to(&[0, 2, 3])),
        (2, B, A, to(&[1])),
        (3, A, ALL, to(&[0, 1, 2])),
        (2, B, A, to(&[3])),
        (1, C, A, to(&[3])),
        (1, A, B, to(&[2])),
        (2, B, A, to(&[1])),
    ]);
    assert_eq!([1, 2, 3].map(|port| world.counters(port).moves), [1, 0, 1]);
    assert_eq!(world.known(), [(A, 1), (B, 2), (C, 1), (GW, 0)]);
}

#[test]
fn br_4_a_silent_station_is_forgotten_after_300_s_and_frames_to_it_keep_nothing_alive() {
    let mut world = World::usual(3);
    world.expect(&[(1, A, ALL, to(&[0, 2, 3])), (2, B, A, to(&[1]))]);
    for _ in 0..10 {
        world.pass(Duration::from_secs(30));
        world.expect(&[(2, B, A, to(&[1]))]);
    }
    // 300 s after its last frame A is still known; within the next second it is not.
    assert_eq!(world.known(), [(A, 1), (B, 2), (GW, 0)]);
    world.pass(Duration::from_secs(1));
    world.expect(&[(2, B, A, to(&[0, 1, 3]))]);
    assert_eq!(world.known(), [(B, 2), (GW, 0)]);
    // Its next frame makes it known again, and that is no move.
    world.expect(&[(3, A, ALL, to(&[0, 1, 2])), (2, B, A, to(&[3]))]);
    assert_eq!(world.counters(3).moves, 0);
}

#[test]
fn br_4_frames_from_the_station_keep_it_known() {
    let mut world = World::usual(2);
    for _ in 0..20 {
        world.expect(&[(1, A, GW, to(&[0]))]);
        world.pass(Duration::from_secs(299));
        world.expect(&[(0, GW, A, to(&[1]))]);
    }
    assert_eq!(world.counters(1).learned, 1);
}

#[test]
fn br_4_nobody_is_forgotten_early_for_the_fraction_of_a_second() {
    let ageing = Duration::from_millis(2500);
    let mut world = World::new(Config { ageing, ..Config::default() }, 2);
    world.pass(Duration::from_millis(999));
    world.expect(&[(1, A, ALL, to(&[0, 2]))]);
    world.pass(ageing);
    world.expect(&[(0, GW, A, to(&[1]))]);
    world.pass(Duration::from_secs(2));
    world.expect(&[(0, GW, A, to(&[1, 2]))]);
}

#[test]
fn br_4_an_entry_that_ran_out_is_not_used_even_if_the_sweep_is_late() {
    let mut world = World::usual(3);
    world.expect(&[(1, A, ALL, to(&[0, 2, 3])), (2, B, A, to(&[1]))]);
    // The loop was busy: nobody polled.
    world.now = world.now + Duration::from_secs(301);
    assert_eq!(world.known(), [(GW, 0)]);
    world.expect(&[
        (3, C, A, to(&[0, 1, 2])),
        (1, A, ALL, to(&[0, 2, 3])),
        (3, C, A, to(&[1])),
        (1, B, ALL, to(&[0, 2, 3])),
        (3, C, B, to(&[1])),
    ]);
    assert_eq!([1, 2, 3].map(|port| world.counters(port).learned), [3, 1, 1]);
    assert_eq!(world.counters(1).moves, 0);
}

#[test]
fn br_4_the_deadline_is_the_second_in_which_the_first_entry_can_run_out() {
    let mut world = World::usual(2);
    assert_eq!(world.switch.deadline(), None, "an idle switch wakes nobody");
    world.expect(&[(1, A, ALL, to(&[0, 2]))]);
    assert_eq!(world.switch.deadline(), Some(world.now + Duration::from_secs(301)));
    world.pass(Duration::from_secs(100));
    world.expect(&[(1, A, ALL, to(&[0, 2])), (2, B, ALL, to(&[0, 1]))]);
    world.pass(Duration::from_secs(250));
    assert_eq!(world.known(), [(A, 1), (B, 2), (GW, 0)]);
    world.pass(Duration::from_secs(51));
    assert_eq!((world.known(), world.switch.deadline()), (vec![(GW, 0)], None));
}

#[test]
fn br_4_removing_a_port_forgets_its_stations_at_once() {
    let mut world = World::usual(3);
    world.expect(&[(1, A, ALL, to(&[0, 2, 3])), (1, B, ALL, to(&[0, 2, 3])), (2, C, A, to(&[1]))]);
    world.switch.pin(D, PortId(1));
    world.expect(&[(2, C, D, to(&[1]))]);
    world.switch.remove_port(PortId(1));
    assert_eq!(world.known(), [(C, 2), (GW, 0)]);
    assert!(world.switch.counters(PortId(1)).is_none());
    world.expect(&[
        (2, C, A, to(&[0, 3])),
        (2, C, D, to(&[0, 3])),
        (1, A, ALL, Err(DropReason::UnknownPort)),
        // The container comes back elsewhere.
        (3, D, C, to(&[2])),
    ]);
}

#[test]
fn br_5_reserved_addresses_are_never_relayed_and_other_groups_are() {
    let mut world = World::usual(2);
    for last in 0x00..=0x0f {
        world.expect(&[(1, A, Mac([0x01, 0x80, 0xc2, 0, 0, last]), Err(DropReason::ReservedMulticast))]);
    }
    assert_eq!(world.drops(1, DropReason::ReservedMulticast), 16);
    assert_eq!(world.known(), [(GW, 0)], "a frame that is not relayed teaches nothing");
    for last in 0x10..=0x2f {
        world.expect(&[(1, A, Mac([0x01, 0x80, 0xc2, 0, 0, last]), to(&[0, 2]))]);
    }
}

#[test]
fn br_5_pause_goes_nowhere_whomever_it_is_addressed_to() {
    let mut world = World::usual(2);
    world.expect(&[(2, B, ALL, to(&[0, 1]))]);
    for dst in [Mac([0x01, 0x80, 0xc2, 0, 0, 0x01]), B, ALL] {
        let mut pause = ethernet(A, dst, 46);
        pause[12..14].copy_from_slice(&[0x88, 0x08]);
        assert_eq!(world.send(1, &mut pause), Err(DropReason::ReservedMulticast));
    }
}

#[test]
fn br_6_a_full_table_refuses_to_learn_but_forwards_and_evicts_nobody() {
    let mut world = World::new(Config { max_entries: 2, ..Config::default() }, 3);
    world.expect(&[
        (1, A, ALL, to(&[0, 2, 3])),
        (2, B, A, to(&[1])),
        // The table is full.
        (3, C, A, to(&[1])),
        (1, A, C, to(&[0, 2, 3])),
        (2, B, A, to(&[1])),
        // Who is known may still move.
        (3, A, B, to(&[2])),
        (2, B, A, to(&[3])),
    ]);
    assert_eq!(world.counters(3).learn_refused, 1);
    assert_eq!(world.known(), [(A, 3), (B, 2), (GW, 0)]);
    // B falls silent, and its place is free.
    world.pass(Duration::from_secs(200));
    world.expect(&[(3, A, GW, to(&[0]))]);
    world.pass(Duration::from_secs(150));
    world.expect(&[(3, C, A, Err(DropReason::SameSegment)), (2, B, C, to(&[3]))]);
    assert_eq!(world.known(), [(A, 3), (C, 3), (GW, 0)]);
}

#[test]
fn br_6_one_port_cannot_use_up_the_table() {
    let mut world = World::new(Config { max_entries: 100, max_entries_per_port: 2, ..Config::default() }, 3);
    world.expect(&[(2, B, ALL, to(&[0, 1, 3]))]);
    for host in 0..200 {
        world.expect(&[(1, Mac([6, 0, 0, 0, 0, host]), B, to(&[2]))]);
    }
    assert_eq!((world.counters(1).learned, world.counters(1).learn_refused), (2, 198));
    // Others still learn, and a station does not move to the port that is full.
    world.expect(&[(3, C, B, to(&[2])), (1, B, C, to(&[3])), (3, C, B, to(&[2]))]);
    assert_eq!((world.counters(1).moves, world.counters(1).learn_refused), (0, 199));
}

#[test]
fn br_6_300_000_made_up_sources_do_not_make_a_conversation_public() {
    let mut world = World::usual(3);
    world.expect(&[(1, A, ALL, to(&[0, 2, 3])), (2, B, A, to(&[1]))]);
    for host in 0..300_000u32 {
        let [_, x, y, z] = host.to_be_bytes();
        world.send(3, &mut ethernet(Mac([6, 6, 6, x, y, z]), GW, 46)).unwrap();
        if host % 1000 == 0 {
            world.expect(&[(1, A, B, to(&[2])), (2, B, A, to(&[1]))]);
        }
    }
    assert_eq!((world.counters(3).learned, world.counters(3).learn_refused), (1024, 298_976));
    assert_eq!(world.known().len(), 1024 + 3);
}

#[test]
fn br_7_nobody_takes_the_gateways_address() {
    let mut world = World::usual(2);
    world.expect(&[
        (1, GW, ALL, Err(DropReason::SourceIsOurs)),
        (1, GW, B, Err(DropReason::SourceIsOurs)),
        (2, B, GW, to(&[0])),
        (0, GW, B, to(&[2])),
    ]);
    assert_eq!(world.drops(1, DropReason::SourceIsOurs), 2);
    world.pass(Duration::from_secs(1_000_000));
    world.expect(&[(2, B, GW, to(&[0]))]);
}

#[test]
fn br_7_a_pinned_container_stays_on_its_port_and_needs_no_room() {
    let mut world = World::new(Config { max_entries: 1, max_entries_per_port: 1, ..Config::default() }, 3);
    world.expect(&[(2, A, ALL, to(&[0, 1, 3]))]);
    // A had been learned on the wrong port. Pinning corrects that and gives the place back.
    world.switch.pin(A, PortId(1));
    world.expect(&[
        (3, C, A, to(&[1])),
        (2, A, C, Err(DropReason::SourceIsOurs)),
        (1, A, C, to(&[3])),
        (3, C, A, to(&[1])),
    ]);
    assert_eq!(world.known(), [(A, 1), (C, 3), (GW, 0)]);
    world.switch.unpin(A);
    world.expect(&[(3, C, A, to(&[0, 1, 2])), (2, B, C, to(&[3]))]);
    assert_eq!(world.counters(2).learn_refused, 1);
    // Only static entries are unpinned, and only stations are pinned.
    world.switch.unpin(C);
    world.switch.pin(ALL, PortId(1));
    world.switch.pin(Mac::ZERO, PortId(1));
    assert_eq!(world.known(), [(C, 3), (GW, 0)]);
}

#[test]
fn br_8_a_frame_leaves_at_most_once_by_each_port_and_the_same_frames_take_the_same_ways() {
    let run = || {
        let mut world = World::usual(4);
        // A port that is added twice is still one port.
        world.switch.add_port(PortId(2), OPEN);
        let stations = [A, B, C, D, GW, ALL, Mac([0x33, 0x33, 0, 0, 0, 1])];
        let mut ways = Vec::new();
        for step in 0..2000usize {
            let (src, dst) = (stations[step * 5 % 4], stations[step * 11 % stations.len()]);
            let ingress = (step * 3 % 5) as u32;
            let way = world.send(ingress, &mut ethernet(src, dst, 46));
            for ports in way.iter() {
                assert!(ports.is_sorted_by(|a, b| a < b) && !ports.contains(&ingress), "{ports:?} from {ingress}");
            }
            ways.push(way);
        }
        ways
    };
    assert_eq!(run(), run());
}

#[test]
fn br_9_a_packet_above_the_mtu_of_its_way_out_is_dropped_and_counted() {
    let mut world = World::usual(3);
    world.expect(&[(2, B, ALL, to(&[0, 1, 3]))]);
    assert_eq!(world.send(1, &mut ethernet(A, B, 1500)), to(&[2]));
    assert_eq!(world.send(1, &mut ethernet(A, B, 1501)), Err(DropReason::AboveMtu));
    // A tag is not part of the packet.
    assert_eq!(world.send(1, &mut tagged(A, B, 5, 1500)), to(&[2]));
    assert_eq!(world.send(1, &mut tagged(A, B, 5, 1501)), Err(DropReason::AboveMtu));
    assert_eq!(world.drops(1, DropReason::AboveMtu), 2);
    assert_eq!(world.drops(2, DropReason::AboveMtu), 0);
}

#[test]
fn br_9_a_flood_leaves_out_the_ports_that_cannot_take_it_and_counts_there() {
    let mut world = World::usual(3);
    world.switch.add_port(PortId(2), tapswitch_switch::PortConfig { mtu: 1400, isolated: false });
    assert_eq!(world.send(1, &mut ethernet(A, ALL, 1450)), to(&[0, 3]));
    assert_eq!([0, 1, 2, 3].map(|port| world.drops(port, DropReason::AboveMtu)), [0, 0, 1, 0]);
    // If no port can take it, the frame itself is dropped too.
    assert_eq!(world.send(1, &mut ethernet(A, ALL, 9000)), Err(DropReason::AboveMtu));
    assert_eq!([0, 1, 2, 3].map(|port| world.drops(port, DropReason::AboveMtu)), [1, 1, 2, 1]);
}

#[test]
fn br_9_a_super_frame_counts_by_the_size_of_its_segments() {
    let mut world = World::usual(2);
    world.expect(&[(2, B, ALL, to(&[0, 1]))]);
    for (segment, dst, way) in [
        (1500, B, to(&[2])),
        (1501, B, Err(DropReason::AboveMtu)),
        (1500, ALL, to(&[0, 2])),
        (1501, ALL, Err(DropReason::AboveMtu)),
    ] {
        let (meta, mut frame) = super_frame(A, dst, segment);
        assert_eq!(world.send_with(1, meta, &mut frame).0, way, "segments of {segment}");
        // Without the metadata it is one packet of 60 000 bytes.
        assert_eq!(world.send_with(1, Meta::PLAIN, &mut frame).0, Err(DropReason::AboveMtu));
    }
}

#[test]
fn br_14_link_local_multicast_is_always_flooded() {
    let mut world = World::usual(3);
    for group in ["01:00:5e:00:00:01", "01:00:5e:00:00:fb", "33:33:00:00:00:01", "33:33:ff:00:00:02"] {
        let group = group.parse().unwrap();
        for _ in 0..2 {
            world.expect(&[(1, A, group, to(&[0, 2, 3])), (2, B, group, to(&[0, 1, 3]))]);
        }
    }
}
