//! What one container may use, and that it takes nothing from another.

use std::time::Duration;

use tapswitch_relay::Readiness;
use tapswitch_wire::{DropReason, PortId};

use crate::world::{ACK, RST, SYN, World, tcp};

/// Opens a connection of a container from one of its ports, with a window of 1 MiB.
fn open(world: &mut World, port: PortId, src_port: u16) {
    world.port = port;
    world.src_port = src_port;
    world.iss = 0;
    world.window = 0xffff;
    world.open(&[2, 4, 5, 180, 3, 3, 4]);
    world.rx(ACK, 1, 1, b"");
}

#[test]
fn lm_4_a_busy_container_delays_no_other() {
    let mut world = World::new();
    for flow in 0..200 {
        open(&mut world, PortId(1), 10_000 + flow);
    }
    let busy: Vec<_> = world.relay.host().opened.clone();
    open(&mut world, PortId(2), 9_999);
    let single = world.id();
    let readable = Readiness { readable: true, ..Readiness::default() };
    let now = world.now;
    for id in &busy {
        world.relay.host().streams.get_mut(id).expect("a socket").incoming.extend(vec![7; 600_000]);
        world.relay.host_event(*id, readable, now, &mut |_: &_, _: &[u8]| {});
    }
    world.relay.host().streams.get_mut(&single).expect("a socket").incoming.extend(b"answer");
    world.relay.host_event(single, readable, now, &mut |_: &_, _: &[u8]| {});
    // One turn: what stands before the answer is one container's share, not all that it has.
    let (mut before, mut found) = (0, false);
    world.relay.poll(now, &mut |_: &_, frame: &[u8]| {
        found |= frame[36..38] == 9_999u16.to_be_bytes();
        before += usize::from(!found);
    });
    assert!(found && before <= 32, "{before} frames before the answer");
    // And in the end everybody got everything.
    let mut turns = 0;
    while world.relay.is_busy() {
        world.relay.poll(now, &mut |_: &_, _: &[u8]| {});
        turns += 1;
    }
    let sent: u64 = world.relay.flows(now).iter().map(|flow| flow.down_bytes).sum();
    assert!(turns > 50);
    assert_eq!(sent, 200 * 600_000 + 6);
}

#[test]
fn lm_4_a_flood_of_syns_holds_a_bounded_number_of_sockets() {
    let mut world = World::new();
    for port in 0..600 {
        world.src_port = 10_000 + port;
        let refused = world.verdict(SYN, 0, 0, b"").0;
        assert_eq!(refused, (port >= 512).then_some(DropReason::FlowLimit), "{port}");
    }
    assert_eq!(world.relay.host().opened.len(), 512);
    // Another container is not touched.
    world.port = PortId(2);
    world.src_port = 9_999;
    assert_eq!(world.verdict(SYN, 0, 0, b"").0, None);
    // One that the container gives up makes room, one that gets established too.
    world.port = PortId(1);
    world.src_port = 10_000;
    world.verdict(RST, 1, 0, b"");
    world.src_port = 10_600;
    assert_eq!(world.verdict(SYN, 0, 0, b"").0, None);
    world.src_port = 10_601;
    assert_eq!(world.verdict(SYN, 0, 0, b"").0, Some(DropReason::FlowLimit));
    world.src_port = 10_600;
    world.connect();
    world.rx(ACK, 1, 1, b"");
    world.src_port = 10_601;
    assert_eq!(world.verdict(SYN, 0, 0, b"").0, None);
    // Nobody repeats the others: they are gone soon.
    let now = world.now;
    for second in 0..80 {
        world.relay.poll(now + Duration::from_secs(second), &mut |_: &_, _: &[u8]| {});
    }
    assert_eq!(world.relay.len(), 1);
}

#[test]
fn the_host_is_asked_once_a_second_whether_an_address_is_its_own() {
    let mut world = World::new();
    for port in 0..50 {
        world.src_port = 10_000 + port;
        world.rx(SYN, 0, 0, b"");
    }
    // Connections that come and go one by one are no different.
    for port in 0..50 {
        world.src_port = 10_000 + port;
        world.rx(RST, 1, 0, b"");
        world.rx(SYN, 0, 0, b"");
        world.rx(RST, 1, 0, b"");
    }
    assert_eq!((world.relay.host().asked, world.relay.len()), (1, 0));
    world.now = world.now + Duration::from_secs(1);
    world.src_port = 11_000;
    world.rx(SYN, 0, 0, b"");
    assert_eq!(world.relay.host().asked, 2);
}

#[test]
fn a_near_host_is_answered_for_at_once() {
    let mut world = World::new();
    world.relay.host().near = true;
    let sent = tcp(world.rx(SYN, 0, 0, b""));
    assert_eq!(sent.iter().map(|seg| seg.flags).collect::<Vec<_>>(), [SYN | ACK]);
    world.iss = sent[0].seq;
    assert_eq!(world.rx(ACK, 1, 1, b"hello").len(), 1);
    assert_eq!(world.host().written, b"hello");
}

#[test]
fn another_container_that_uses_the_address_neither_sends_nor_hears_for_a_connection() {
    let mut world = World::new();
    open(&mut world, PortId(1), 10_000);
    world.port = PortId(2);
    let (verdict, sent) = world.verdict(ACK, 1, 1, b"it is me");
    assert_eq!((verdict, sent.len()), (Some(DropReason::SpoofedSource), 0));
    assert_eq!(world.verdict(RST, 1, 1, b"").0, Some(DropReason::SpoofedSource));
    world.port = PortId(1);
    assert_eq!(world.verdict(ACK, 1, 1, b"x").0, None, "the connection goes on");
    assert_eq!(world.host().written, b"x");
}
