//! A frame that is dropped is told once where its drop is counted, so that whoever asks can see what was lost.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tapswitch_network::Ports;
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropReason, Mac, Meta, PortId, Unheard};

use crate::lan::seconds;
use crate::world::{Setup, World, address};

/// A datagram of the first container.
fn datagram(world: &World, src: Ipv4Addr, dst: Ipv4Addr, ports: (u16, u16), ttl: u8) -> Vec<u8> {
    let link = Link { src: world.stations[0].mac, dst: world.gateway_mac() };
    let mut frame = Vec::new();
    build::udp(
        &mut frame,
        link,
        Ip { src: src.into(), dst: dst.into(), ttl, tos: 0, id: 0 },
        ports.0,
        ports.1,
        b"hello",
    );
    frame
}

#[test]
fn every_drop_at_a_containers_port_is_told_with_its_frame() {
    let mut world = World::new(Setup::default());
    let (own, far) = (address(1), Ipv4Addr::new(198, 51, 100, 9));
    let mut broken = datagram(&world, own, far, (1, 2), 64);
    broken[24] ^= 0xff;
    let mut from_gateway = datagram(&world, own, far, (1, 2), 64);
    from_gateway[6..12].copy_from_slice(&world.gateway_mac().0);
    let mut reserved = datagram(&world, own, far, (1, 2), 64);
    reserved[..6].copy_from_slice(&Mac([1, 0x80, 0xc2, 0, 0, 3]).0);
    let frames = [
        datagram(&world, own, Ipv4Addr::new(169, 254, 169, 254), (1, 80), 64),
        datagram(&world, Ipv4Addr::new(192, 0, 2, 7), far, (1, 2), 64),
        datagram(&world, own, far, (1, 2), 1),
        datagram(&world, own, far, (67, 68), 64),
        broken,
        from_gateway,
        reserved,
    ];
    for frame in &frames {
        world.station(1).send_raw(&Meta::PLAIN, frame);
    }
    world.pass(seconds(1));
    let counted = tally(&world, &[1, 2]);
    assert_eq!(counted.values().sum::<u64>(), frames.len() as u64, "{counted:?}");
    assert!(counted.len() >= 6, "{counted:?}");
    assert!(world.lost().iter().all(|(.., bytes)| *bytes == frames[0].len()), "{:?}", world.lost());
}

/// Ports that take nothing.
#[derive(Default)]
struct Full(Vec<(PortId, DropReason)>);

impl Ports for Full {
    fn tx(&mut self, _: PortId, _: &Meta, _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::TxFull)
    }

    fn lost(&mut self, port: PortId, reason: DropReason, _: &Meta, _: &[u8]) {
        self.0.push((port, reason));
    }
}

#[test]
fn a_frame_that_a_port_cannot_take_is_told_as_that_ports() {
    let mut world = World::new(Setup { stations: 3, ..Setup::default() });
    let mut frame = datagram(&world, address(1), address(2), (1, 2), 64);
    frame[..6].copy_from_slice(&[0xff; 6]);
    let (now, mut full) = (world.now, Full::default());
    world.network.rx(PortId(1), Meta::PLAIN, &mut frame, now, &mut Unheard, &mut full, &mut |_| {});
    let told: Vec<_> = full.0.iter().filter(|(port, _)| *port != PortId::GATEWAY).copied().collect();
    assert_eq!(told, [(PortId(2), DropReason::TxFull), (PortId(3), DropReason::TxFull)]);
}

/// Drops at these ports as they were counted, which is as they were told.
fn tally(world: &World, ports: &[u32]) -> BTreeMap<(PortId, DropReason), u64> {
    let mut counted = BTreeMap::new();
    for port in ports.iter().copied().map(PortId) {
        let counters = world.network.counters(port).expect("an attached port");
        counted.extend(counters.drops.iter().map(|(reason, count)| ((port, reason), count)));
    }
    let mut told = BTreeMap::new();
    for (port, reason, _) in world.lost().iter().filter(|(port, ..)| *port != PortId::GATEWAY) {
        *told.entry((*port, *reason)).or_default() += 1;
    }
    assert_eq!(told, counted);
    counted
}
