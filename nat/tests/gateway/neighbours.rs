//! The neighbour table in virtual time.

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_nat::NeighbourState::{Incomplete, Reachable, Stale};
use tapswitch_nat::NeighbourView;
use tapswitch_wire::DropReason::*;
use tapswitch_wire::build::Arp;
use tapswitch_wire::{Gso, GsoKind, Mac, Meta};

use crate::world::*;

const ASK_B: &str = "02:42:0a:00:00:01 > ff:ff:ff:ff:ff:ff ARP who-has 10.0.0.3 tell 10.0.0.1, 42 bytes";
const POLL_B: &str = "02:42:0a:00:00:01 > 02:42:0a:00:00:03 ARP who-has 10.0.0.3 tell 10.0.0.1, 42 bytes";
const TOLD_A: &str =
    "02:42:0a:00:00:01 > 02:42:0a:00:00:02 IPv4 10.0.0.1 > 10.0.0.2 ttl 64 ICMP type 3 code 1, 78 bytes";

fn from_a(seq: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let [high, low] = seq.to_be_bytes();
    let header = ip(A, B, 64);
    tapswitch_wire::build::icmp(&mut frame, to_gateway(A), header, 8, 0, [0, 7, high, low], b"abcdefgh");
    frame
}

fn at_b(seq: u16) -> String {
    let addresses = "02:42:0a:00:00:01 > 02:42:0a:00:00:03 IPv4 10.0.0.2 > 10.0.0.3";
    format!("{addresses} ttl 63 ICMP echo request id 7 seq {seq}, 50 bytes")
}

fn from_outside() -> Vec<u8> {
    udp(ip(OUTSIDE, B, 60), 53, 1000, b"answer")
}

const FROM_OUTSIDE: &str =
    "02:42:0a:00:00:01 > 02:42:0a:00:00:03 IPv4 192.0.2.7 > 10.0.0.3 ttl 60 DNS 53 > 1000 payload 6, 48 bytes";

#[test]
fn ar_4_a_packet_waits_while_its_next_hop_is_asked_for() {
    let mut world = World::new();
    assert_eq!(world.rx(&from_a(1)), (REPLY, vec![ASK_B.into()]));
    assert_eq!(world.rx(&from_a(2)), (REPLY, vec![]), "it is asked for only once a second");
    assert_eq!(world.neighbours(), [(B.into(), Incomplete, 0)]);
    assert_eq!(world.rx(&is_at(B, mac(B))), (REPLY, vec![at_b(1), at_b(2)]));
    assert_eq!(world.neighbours(), [(B.into(), Reachable, 0)]);
    assert_eq!(world.rx(&from_a(3)), (REPLY, vec![at_b(3)]));
    assert_eq!(world.gateway.deadline(), None);
}

#[test]
fn ar_4_any_arp_of_the_neighbour_ends_the_wait() {
    let mut world = World::new();
    world.rx(&from_a(1));
    assert_eq!(world.rx(&who_has(A, B)), (drop(ArpNotForUs), vec![at_b(1)]));
}

#[test]
fn ar_4_the_latest_packets_are_kept_and_each_that_gives_way_is_counted() {
    let mut world = World::new();
    for seq in 1..=5 {
        assert_eq!(world.rx(&from_a(seq)).0, REPLY);
    }
    assert_eq!(world.gateway.late_drops().get(NeighbourQueueFull), 2);
    assert_eq!(world.rx(&is_at(B, mac(B))).1, [at_b(3), at_b(4), at_b(5)]);
}

#[test]
fn ar_7_a_silent_next_hop_is_asked_for_once_a_second_and_given_up_after_three() {
    let mut world = World::new();
    world.rx(&from_a(1));
    world.pass(Duration::from_millis(500));
    world.rx(&from_a(2));
    let expected =
        [format!("500 {ASK_B}"), format!("1500 {ASK_B}"), format!("2500 {TOLD_A}"), format!("2500 {TOLD_A}")];
    assert_eq!(world.pass_secs(60), expected);
    assert_eq!(world.neighbours(), []);
    assert_eq!(world.gateway.late_drops().get(NeighbourUnresolved), 2);
    assert_eq!(world.rx(&from_a(3)), (REPLY, vec![ASK_B.into()]), "the next packet asks anew");
}

#[test]
fn ar_7_a_loop_that_comes_late_neither_asks_faster_nor_waits_longer() {
    let mut world = World::new();
    world.rx(&from_a(1));
    let mut poll_after = |millis, expected: &[&str]| {
        world.now = world.now + Duration::from_millis(millis);
        let mut lines = Vec::new();
        let mut out = |meta: &Meta, frame: &[u8]| lines.push(tapswitch_wire::render(meta, frame));
        world.gateway.poll(world.now, &mut out);
        assert_eq!(lines, expected, "{millis} ms later");
    };
    poll_after(900, &[]);
    poll_after(1000, &[ASK_B]);
    poll_after(900, &[]);
    poll_after(200, &[TOLD_A]);
    poll_after(5000, &[]);
}

#[test]
fn ar_7_nobody_is_told_about_what_the_uplink_sent_or_about_an_icmp_error() {
    let mut world = World::new();
    assert_eq!(world.send(&from_outside(), B), (Ok(()), vec![ASK_B.into()]));
    world.rx(&icmp(ip(A, B, 64), 3, 3, &[0; 28]));
    assert_eq!(world.pass_secs(60), [format!("1000 {ASK_B}"), format!("2000 {ASK_B}")]);
    assert_eq!(world.gateway.late_drops().get(NeighbourUnresolved), 2);
}

#[test]
fn ar_4_an_entry_goes_stale_after_60_seconds_and_is_then_asked_directly_when_used() {
    let mut world = World::knowing(&[B]);
    world.pass_secs(59);
    assert_eq!(world.send(&from_outside(), B), (Ok(()), vec![FROM_OUTSIDE.into()]));
    world.pass_secs(1);
    assert_eq!(world.neighbours(), [(B.into(), Stale, 60)]);
    assert_eq!(world.gateway.deadline(), None, "an idle entry costs nothing");
    assert_eq!(world.send(&from_outside(), B).1, [POLL_B, FROM_OUTSIDE]);
    assert_eq!(world.send(&from_outside(), B).1, [FROM_OUTSIDE], "once a second");
    assert_eq!(world.rx(&is_at(B, mac(B))), (REPLY, vec![]));
    assert_eq!(world.neighbours(), [(B.into(), Reachable, 0)]);
    world.pass_secs(1);
    assert_eq!(world.send(&from_outside(), B).1, [FROM_OUTSIDE]);
}

#[test]
fn ar_4_a_stale_neighbour_that_left_is_forgotten_after_three_unanswered_questions() {
    let mut world = World::knowing(&[B]);
    world.pass_secs(60);
    for _ in 0..3 {
        assert_eq!(world.send(&from_outside(), B).1, [POLL_B, FROM_OUTSIDE]);
        world.pass_secs(1);
    }
    assert_eq!(world.send(&from_outside(), B).1, [ASK_B]);
    assert_eq!(world.neighbours(), [(B.into(), Incomplete, 0)]);
    assert_eq!(world.pass_secs(60).len(), 2);
    assert_eq!(world.neighbours(), []);
}

#[test]
fn send_takes_only_hosts_of_the_lan_and_frames_that_fit() {
    let mut world = World::knowing(&[B]);
    for hop in [OUTSIDE, GATEWAY, Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255), Ipv4Addr::UNSPECIFIED] {
        assert_eq!(world.send(&from_outside(), hop), (Err(NoRoute), vec![]), "{hop}");
    }
    assert_eq!(world.send(&udp(ip(OUTSIDE, B, 60), 53, 1000, &[0; 1473]), B), (Err(AboveMtu), vec![]));
    assert_eq!(world.send(&[0; 5], B), (Err(FrameTooShort), vec![]));
}

#[test]
fn a_container_that_leaves_is_forgotten_with_all_that_waits_for_it() {
    let mut world = World::knowing(&[A, B]);
    world.gateway.forget(B);
    assert_eq!(world.neighbours(), [(A.into(), Reachable, 0)]);
    world.rx(&from_a(1));
    world.gateway.forget(B);
    assert_eq!(world.gateway.late_drops().get(NeighbourUnresolved), 1);
    assert_eq!(world.pass_secs(60), [] as [String; 0]);
    assert_eq!(world.rx(&is_at(B, mac(B))).1, [] as [String; 0]);
}

#[test]
fn neighbours_are_shown_in_the_order_of_their_addresses() {
    let mut world = World::knowing(&[C, A]);
    world.rx(&from_a(1));
    let views = world.gateway.neighbours(world.now);
    let of = |ip: Ipv4Addr, mac, state| NeighbourView { ip: ip.into(), mac, state, age: 0 };
    let expected = [of(A, Some(mac(A)), Reachable), of(B, None, Incomplete), of(C, Some(mac(C)), Reachable)];
    assert_eq!(views, expected);
}

/// A network large enough to fill the table.
fn large() -> World {
    World::with(|config| config.subnet = "10.0.0.0/16".parse().unwrap())
}

fn host(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 1, 0)) + index)
}

#[test]
fn a_full_table_gives_up_its_oldest_stale_entry_and_no_other() {
    let mut world = large();
    for index in 0..4096 {
        world.meet(host(index));
        world.now = world.now + Duration::from_millis(1);
    }
    assert_eq!(world.neighbours().len(), 4096);
    // None is stale yet: ARP is answered all the same, but there is no entry, and no packet can wait for a new one.
    let (late, later) = (host(5000), host(5001));
    assert_eq!(world.rx(&who_has(GATEWAY, late)).1.len(), 1);
    assert_eq!(world.rx(&udp(ip(A, later, 64), 1, 9, b"")), (drop(NeighbourTableFull), vec![]));
    assert_eq!(world.neighbours().len(), 4096);
    assert!(world.neighbours().iter().all(|(ip, ..)| *ip != late));
    // Host 0 is renewed, so host 1 goes stale first.
    world.meet(host(0));
    world.pass(Duration::from_millis(60_000 - 4096 + 1));
    assert_eq!(world.neighbours().iter().filter(|(_, state, _)| *state == Stale).count(), 1);
    world.meet(late);
    let has = |world: &World, host: Ipv4Addr| world.neighbours().iter().any(|(ip, ..)| *ip == host);
    assert!(has(&world, host(0)) && !has(&world, host(1)) && has(&world, host(2)) && has(&world, late));
    assert_eq!(world.rx(&udp(ip(A, later, 64), 1, 9, b"")), (drop(NeighbourTableFull), vec![]));
    world.pass(Duration::from_millis(1));
    assert_eq!(world.rx(&udp(ip(A, later, 64), 1, 9, b"")).0, REPLY);
    assert!(!has(&world, host(2)) && has(&world, later));
    assert_eq!(world.neighbours().len(), 4096);
}

#[test]
fn one_station_that_claims_the_whole_subnet_only_loses_its_own_entries() {
    let mut world = large();
    world.meet(A);
    let own = Mac([2, 0, 0, 0, 0, 9]);
    for index in 0..5000 {
        let arp = Arp { operation: 1, sha: own, spa: host(index), tha: Mac::ZERO, tpa: GATEWAY };
        assert_eq!(world.rx(&arp_frame(Mac::BROADCAST, arp)).0, REPLY);
        world.now = world.now + Duration::from_micros(1);
    }
    let mut expected: Vec<std::net::IpAddr> = (5000 - 64..5000).map(|index| host(index).into()).collect();
    expected.insert(0, A.into());
    assert_eq!(world.neighbours().into_iter().map(|(ip, ..)| ip).collect::<Vec<_>>(), expected);
}

#[test]
fn one_station_cannot_fill_the_queue_for_others() {
    let mut world = large();
    let to_silent = |src, index| udp(ip(src, host(index), 64), 1, 9, b"");
    for index in 0..16 {
        assert_eq!(world.rx(&to_silent(A, index)).0, REPLY);
    }
    assert_eq!(world.rx(&to_silent(A, 16)), (drop(NeighbourQueueFull), vec![]));
    assert_eq!(world.rx(&to_silent(C, 16)).0, REPLY, "others may still wait");
    // Many stations together may fill half of the queue; the uplink has the rest.
    let mut admitted = 17;
    for station in 0..50 {
        let src = Ipv4Addr::new(10, 0, 200, station);
        for index in 0..16 {
            admitted += usize::from(world.rx(&to_silent(src, 1000 + u32::from(station) * 16 + index)).0 == REPLY);
        }
    }
    assert_eq!(admitted, 128);
    let of_uplink = (0..500).filter(|index| world.send(&from_outside(), host(9000 + index)).0.is_ok()).count();
    assert_eq!(of_uplink, 128);
    assert_eq!(world.neighbours().len(), 256);
}

#[test]
fn the_bytes_that_wait_are_bounded_too() {
    let mut world = large();
    let mut admitted = 0;
    for index in 0..30 {
        let (src, dst) = (Ipv4Addr::new(10, 0, 200, index), host(index.into()));
        let (meta, frame) = tcp_partial(ip(src, dst, 64), 80, 1, 1, 0x10, &[0; 60_000]);
        let meta = Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size: 1460, ecn: false }), ..meta };
        admitted += usize::from(world.rx_meta(meta, &frame).0 == REPLY);
    }
    assert_eq!(admitted, (1 << 19) / 60_054);
    world.pass_secs(4);
    assert_eq!(world.neighbours(), [], "what was given up makes room again");
    assert_eq!(world.rx(&from_a(1)).0, REPLY);
}
