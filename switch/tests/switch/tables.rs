//! What the requirements leave to us: isolation, tags, counters, journeys, and what people and programs read.

use std::time::Duration;

use tapswitch_switch::{Config, FdbEntry, MAX_PORTS, PortCounters, Switch};
use tapswitch_wire::{DropReason, Instant, Mac, Meta, PortId};

use crate::world::*;

#[test]
fn isolated_ports_reach_the_gateway_and_open_ports_but_not_each_other() {
    let mut world = World::usual(4);
    for port in [0, 1, 2] {
        world.switch.add_port(PortId(port), ISOLATED);
    }
    world.expect(&[
        (1, A, ALL, to(&[0, 3, 4])),
        (2, B, ALL, to(&[0, 3, 4])),
        (3, C, ALL, to(&[0, 1, 2, 4])),
        (0, GW, ALL, to(&[1, 2, 3, 4])),
        (1, A, B, Err(DropReason::Isolated)),
        (1, A, C, to(&[3])),
        (3, C, A, to(&[1])),
        (1, A, GW, to(&[0])),
        (0, GW, B, to(&[2])),
        (1, A, D, to(&[0, 3, 4])),
    ]);
    assert_eq!(world.drops(1, DropReason::Isolated), 1);
}

#[test]
fn isolated_ports_alone_have_nobody_to_flood_to() {
    let mut switch = Switch::new(Config::default());
    switch.add_port(PortId(1), ISOLATED);
    switch.add_port(PortId(2), ISOLATED);
    World { switch, now: Instant::ZERO }.expect(&[(1, A, ALL, Err(DropReason::NoOtherPort))]);
}

#[test]
fn tags_make_no_difference_but_vlan_4095_is_reserved() {
    let mut world = World::usual(2);
    for vid in [0, 1, 100, 4094] {
        for priority in [0, 7] {
            let tci = priority << 13 | vid;
            assert_eq!(world.send(1, &mut tagged(A, ALL, tci, 46)), to(&[0, 2]));
            assert_eq!(world.send(2, &mut tagged(B, A, tci, 46)), to(&[1]));
        }
    }
    // A station is the same station in every VLAN.
    assert_eq!(world.known(), [(A, 1), (B, 2), (GW, 0)]);
    for tci in [0x0fff, 0xefff] {
        assert_eq!(world.send(1, &mut tagged(C, ALL, tci, 46)), Err(DropReason::ReservedVlan));
    }
    assert_eq!(world.drops(1, DropReason::ReservedVlan), 2);
    assert_eq!(world.known().len(), 3);
}

#[test]
fn every_counter_that_moves() {
    let mut world = World::usual(2);
    world.expect(&[
        (1, A, ALL, to(&[0, 2])),
        (2, B, A, to(&[1])),
        (1, A, A, Err(DropReason::SameSegment)),
        (9, A, B, Err(DropReason::UnknownPort)),
    ]);
    world.switch.sent(PortId(1), 60);
    world.switch.sent(PortId(9), 60);
    world.switch.dropped(PortId(2), DropReason::TxFull);
    world.switch.dropped(PortId(9), DropReason::TxFull);

    let mut one = PortCounters { rx_frames: 2, rx_bytes: 120, flooded: 1, learned: 1, ..PortCounters::default() };
    (one.tx_frames, one.tx_bytes) = (1, 60);
    one.drops.count(DropReason::SameSegment);
    let mut two = PortCounters { rx_frames: 1, rx_bytes: 60, learned: 1, ..PortCounters::default() };
    two.drops.count(DropReason::TxFull);
    assert_eq!((world.counters(1), world.counters(2)), (&one, &two));
    assert_eq!(world.counters(0), &PortCounters::default());
    let stray: Vec<_> = world.switch.stray_drops().iter().collect();
    assert_eq!(stray, [(DropReason::TxFull, 1), (DropReason::UnknownPort, 1)]);
}

#[test]
fn a_pinned_station_behind_a_port_that_is_not_attached_is_out_of_reach() {
    let mut world = World::usual(2);
    world.switch.pin(D, PortId(7));
    world.expect(&[(1, A, D, Err(DropReason::UnknownPort))]);
    world.switch.add_port(PortId(7), OPEN);
    world.expect(&[(1, A, D, to(&[7]))]);
}

#[test]
fn port_numbers_are_bounded() {
    let mut world = World::usual(1);
    let (last, beyond) = (PortId(MAX_PORTS as u32 - 1), PortId(MAX_PORTS as u32));
    for port in [last, beyond, PortId(u32::MAX)] {
        world.switch.add_port(port, OPEN);
    }
    assert_eq!(world.switch.ports().collect::<Vec<_>>(), [PortId(0), PortId(1), last]);
    world.expect(&[
        (beyond.0, A, ALL, Err(DropReason::UnknownPort)),
        (last.0, A, ALL, to(&[0, 1])),
        (1, B, A, to(&[last.0])),
    ]);
    world.switch.remove_port(last);
    world.switch.remove_port(beyond);
    assert_eq!(world.known(), [(B, 1), (GW, 0)]);
}

#[test]
fn absurd_configurations_do_no_harm() {
    let never = Config { ageing: Duration::MAX, max_entries: usize::MAX, max_entries_per_port: usize::MAX };
    let mut world = World::new(never, 2);
    world.expect(&[(1, A, ALL, to(&[0, 2]))]);
    world.now = Instant::from_nanos(u64::MAX);
    world.switch.poll(world.now);
    world.expect(&[(0, GW, A, to(&[1]))]);

    let nothing = Config { ageing: Duration::ZERO, max_entries: 0, max_entries_per_port: 0 };
    World::new(nothing, 2).expect(&[(1, A, ALL, to(&[0, 2])), (0, GW, A, to(&[1, 2]))]);
}

#[test]
fn the_fdb_lists_age_and_kind() {
    let mut world = World::usual(2);
    world.expect(&[(2, B, ALL, to(&[0, 1]))]);
    world.pass(Duration::from_millis(12_500));
    let entry = |mac, port, age, is_static| FdbEntry { mac, port: PortId(port), age, is_static };
    assert_eq!(world.switch.fdb(world.now), [entry(B, 2, 12, false), entry(GW, 0, 0, true)]);
    // Programs read these names.
    let lines = serde_json::to_value(world.switch.fdb(world.now)).unwrap();
    assert_eq!(lines[0], serde_json::json!({"mac": "02:00:00:00:00:0b", "port": 2, "age": 12, "static": false}));
}

#[test]
fn the_journey_tells_what_was_learned_and_where_the_frame_went() {
    let mut world = World::new(Config { max_entries: 2, ..Config::default() }, 3);
    world.switch.add_port(PortId(3), tapswitch_switch::PortConfig { mtu: 1000, isolated: false });
    let pause = Mac([0x01, 0x80, 0xc2, 0, 0, 1]);
    let rows: [(u32, Mac, Mac, &[&str]); 11] = [
        (
            1,
            A,
            ALL,
            &[
                "learned: 02:00:00:00:00:0a is behind port 1",
                "ff:ff:ff:ff:ff:ff is everybody",
                "port 3 takes packets of 1000 bytes, this one has 1200",
                "flood to port 0, 2",
            ],
        ),
        (
            2,
            B,
            A,
            &[
                "learned: 02:00:00:00:00:0b is behind port 2",
                "02:00:00:00:00:0a is known to be behind port 1",
                "forward to port 1",
            ],
        ),
        (
            1,
            A,
            GW,
            &[
                "refreshed: 02:00:00:00:00:0a is still behind port 1",
                "02:00:00:00:00:fe is pinned to port 0",
                "forward to port 0",
            ],
        ),
        (
            3,
            A,
            B,
            &[
                "moved: 02:00:00:00:00:0a went from port 1 to port 3",
                "02:00:00:00:00:0b is known to be behind port 2",
                "forward to port 2",
            ],
        ),
        (
            2,
            C,
            A,
            &[
                "not learned: no room for 02:00:00:00:00:0c in the FDB, or in port 2's share",
                "02:00:00:00:00:0a is known to be behind port 3",
                "port 3 takes packets of 1000 bytes, this one has 1200",
                "drop, above-mtu: The frame, or a segment of it, is larger than the MTU of the port it should leave by.",
            ],
        ),
        (
            1,
            GW,
            ALL,
            &[
                "02:00:00:00:00:fe is pinned to port 0, but the frame came from port 1",
                "drop, source-is-ours: The frame claims a MAC address as its source that belongs to another port for good, such as the gateway's.",
            ],
        ),
        (
            0,
            GW,
            B,
            &[
                "02:00:00:00:00:fe is pinned to port 0",
                "02:00:00:00:00:0b is known to be behind port 2",
                "forward to port 2",
            ],
        ),
        (
            0,
            GW,
            C,
            &[
                "02:00:00:00:00:fe is pinned to port 0",
                "nobody knows where 02:00:00:00:00:0c is",
                "port 3 takes packets of 1000 bytes, this one has 1200",
                "flood to port 1, 2",
            ],
        ),
        (
            2,
            B,
            B,
            &[
                "refreshed: 02:00:00:00:00:0b is still behind port 2",
                "02:00:00:00:00:0b is known to be behind port 2",
                "drop, same-segment: The destination stands behind the port the frame came from.",
            ],
        ),
        (1, A, pause, &["drop, reserved-multicast: Addresses 01-80-C2-00-00-00 to -0F are never relayed by a bridge."]),
        (8, A, ALL, &["drop, unknown-port: The frame names a port that is not attached any more."]),
    ];
    for (row, (port, src, dst, steps)) in rows.into_iter().enumerate() {
        let (_, told) = world.send_with(port, Meta::PLAIN, &mut ethernet(src, dst, 1200));
        assert_eq!(told, steps, "row {row}");
    }
}
