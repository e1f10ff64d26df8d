//! Containers among themselves and with their gateway: ARP, DHCP, ping, TCP.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use smoltcp::socket::{icmp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr};
use tapswitch_dhcp::State;
use tapswitch_link::fault::Faults;
use tapswitch_network::Ports;
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropReason, Mac, Meta, PortId, Unheard, Verdict};

use crate::outside::pattern;
use crate::world::{GATEWAY, Setup, Talk, World, address};

pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Every way in which the cables may fail, each with the seeds it is run with.
pub fn weathers() -> impl Iterator<Item = (Faults, u64)> {
    let lossy = Faults { loss: 0.05, ..Faults::default() };
    let jumbled = Faults { reorder: 0.05, duplicate: 0.05, ..Faults::default() };
    let all = Faults { loss: 0.03, reorder: 0.03, duplicate: 0.03, corrupt: 0.03 };
    let seeds = |faults: Faults, count: u64| (1..=count).map(move |seed| (faults, seed));
    seeds(Faults::default(), 1).chain(seeds(lossy, 4)).chain(seeds(jumbled, 3)).chain(seeds(all, 2))
}

/// One ping from station 1; the answering addresses as they come.
pub fn ping(world: &mut World, to: Ipv4Addr, count: u16) -> Vec<(Ipv4Addr, Vec<u8>)> {
    let handle = world.station(1).ping(0x22b);
    let mut answers = Vec::new();
    for seq in 0..count {
        let repr = Icmpv4Repr::EchoRequest { ident: 0x22b, seq_no: seq, data: b"are you there" };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &Default::default());
        let socket = world.station(1).sockets.get_mut::<icmp::Socket<'_>>(handle);
        socket.send_slice(&bytes, IpAddr::V4(to).into()).expect("room for a ping");
        world.pass(seconds(1));
        let socket = world.station(1).sockets.get_mut::<icmp::Socket<'_>>(handle);
        while let Ok((bytes, from)) = socket.recv() {
            let IpAddr::V4(from) = from.into() else { panic!("an answer over IPv6") };
            answers.push((from, bytes.to_vec()));
        }
    }
    world.station(1).sockets.remove(handle);
    answers
}

/// The verdict and the counters agree: what is counted nowhere was not dropped.
#[test]
fn a_group_frame_that_only_the_gateway_hears_is_a_flood_and_no_drop() {
    struct Nobody;
    impl Ports for Nobody {
        fn tx(&mut self, _: PortId, _: &Meta, _: &[u8]) -> Result<(), DropReason> {
            Err(DropReason::PortDown)
        }
    }
    let mut world = World::one();
    let (port, mac) = (world.station(1).port, world.station(1).mac);
    let link = Link { src: mac, dst: Mac([0x01, 0, 0x5e, 0, 0, 0xfb]) };
    let group = Ipv4Addr::new(224, 0, 0, 251).into();
    let mut frame = Vec::new();
    build::udp(&mut frame, link, Ip { src: address(1).into(), dst: group, ttl: 1, tos: 0, id: 0 }, 5353, 5353, b"who");
    let drops = |world: &World| {
        let counters = world.network.counters(port).expect("an attached port");
        counters.drops.total() + world.network.gateway_drops().total()
    };
    let before = drops(&world);
    let verdict = world.network.rx(port, Meta::PLAIN, &mut frame, world.now, &mut Unheard, &mut Nobody, &mut |_| {});
    assert_eq!(verdict, Verdict::Flood { ports: 1 });
    assert_eq!(drops(&world), before);
}

#[test]
fn ar_1_stations_find_each_other_and_the_gateway_and_nobody_else() {
    let mut world = World::one();
    assert_eq!(ping(&mut world, GATEWAY, 1).len(), 1);
    let neighbours = world.network.neighbours(world.now);
    assert_eq!(neighbours.len(), 1, "{neighbours:?}");
    assert_eq!(neighbours[0].mac, Some(world.station(1).mac));
    assert_eq!(ping(&mut world, address(9), 1), [], "an address that nobody has stays silent");
    assert_eq!(world.station(1).icmp_errors(), []);
}

#[test]
fn dh_1_a_station_gets_its_lease_and_renews_it_at_half_time() {
    let mut world = World::new(Setup { stations: 3, dhcp: true, ..Setup::default() });
    world.run(seconds(60), |world| world.stations.iter().all(|station| station.ip().is_some()));
    let mut leases = world.network.leases(world.now);
    leases.sort_by_key(|lease| lease.mac);
    for (station, lease) in world.stations.iter().zip(&leases) {
        assert_eq!((Some(lease.ip), lease.mac, lease.state), (station.ip(), station.mac, State::Bound));
    }
    let first = leases[0].clone();
    world.pass(seconds(1_790));
    let before = world.network.leases(world.now)[0].clone();
    assert!(before.expires_in.expect("a lease that ends") < 1_820, "{before:?}");
    world.pass(seconds(30));
    let after = world.network.leases(world.now)[0].clone();
    assert_eq!(after.ip, first.ip);
    assert!(after.expires_in.expect("a lease that ends") > 3_500, "renewed at T1: {after:?}");
    world.pass(seconds(24 * 3600));
    assert_eq!(world.station(1).ip(), Some(first.ip), "a day later it is still the same");
    assert_eq!(world.station(1).leases.len(), 1, "and was never lost");
}

#[test]
fn dh_1_leases_are_granted_and_kept_on_bad_cables() {
    for (faults, seed) in weathers() {
        let mut world = World::new(Setup { stations: 3, dhcp: true, faults, seed, ..Setup::default() });
        world.run(seconds(300), |world| world.stations.iter().all(|station| station.ip().is_some()));
        let mut addresses: Vec<_> = world.stations.iter().filter_map(|station| station.ip()).collect();
        world.pass(seconds(3 * 3600));
        let later: Vec<_> = world.stations.iter().filter_map(|station| station.ip()).collect();
        assert_eq!(later, addresses);
        addresses.dedup();
        assert_eq!(addresses.len(), 3, "nobody shares an address");
    }
}

#[test]
fn ip_9_the_gateway_and_the_other_container_answer_pings() {
    for (faults, seed) in weathers() {
        let mut world = World::new(Setup { faults, seed, ..Setup::default() });
        for to in [GATEWAY, address(2)] {
            let answers = ping(&mut world, to, 20);
            assert!(answers.len() >= 12, "{} of 20 from {to}", answers.len());
            for (from, bytes) in &answers {
                assert_eq!((*from, &bytes[8..]), (to, &b"are you there"[..]));
            }
        }
    }
}

#[test]
fn br_1_tcp_between_containers_arrives_whole_on_any_cable() {
    for offload in [true, false] {
        for (faults, seed) in weathers() {
            let mut world = World::new(Setup { faults, seed, offload, ..Setup::default() });
            let data = pattern(128 << 10);
            let server = world.station(2).listen(80, 65_535);
            let client = world.station(1).connect((address(2), 80), 40_000, 65_535);
            let mut server = Talk::new(2, server, data.iter().rev().copied().collect(), true);
            let mut client = Talk::new(1, client, data.clone(), true);
            world.run(seconds(600), |world| {
                client.go_on(world);
                server.go_on(world);
                client.heard_all(world) && server.heard_all(world)
            });
            assert!(server.received == data, "up, seed {seed}, {faults:?}");
            assert!(client.received.iter().rev().eq(&data), "down, seed {seed}, {faults:?}");
            let fdb = world.network.fdb(world.now);
            assert_eq!(fdb.iter().filter(|entry| entry.port != PortId::GATEWAY).count(), 2, "{fdb:?}");
        }
    }
}

#[test]
fn br_8_datagrams_between_containers_keep_their_order() {
    let mut world = World::new(Setup::default());
    let from = world.station(1).udp(5_000);
    let to = world.station(2).udp(6_000);
    for number in 0..50u32 {
        let target = (IpAddr::V4(address(2)), 6_000);
        let socket = world.station(1).sockets.get_mut::<udp::Socket<'_>>(from);
        socket.send_slice(&number.to_be_bytes(), target).expect("room for a datagram");
        world.pass(Duration::from_millis(1));
    }
    world.pass(seconds(1));
    let socket = world.station(2).sockets.get_mut::<udp::Socket<'_>>(to);
    let mut got = Vec::new();
    while let Ok((bytes, _)) = socket.recv() {
        got.push(u32::from_be_bytes(bytes.try_into().expect("four bytes")));
    }
    assert_eq!(got, (0..50).collect::<Vec<_>>());
    assert_eq!(world.network.gateway_drops().get(DropReason::FaultInjected), 0);
}
