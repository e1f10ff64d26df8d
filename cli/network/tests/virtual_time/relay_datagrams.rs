//! UDP, DNS and pings through the relay.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;
use tapswitch_link::fault::Faults;
use tapswitch_wire::DropReason;

use crate::lan::{ping, seconds};
use crate::outside::{ECHO, NO_HOST, NO_NET, RESOLVER, ROUTER, SERVER, SILENT};
use crate::world::{GATEWAY, Setup, World};

pub fn send(world: &mut World, socket: SocketHandle, to: (Ipv4Addr, u16), data: &[u8]) {
    let socket = world.station(1).sockets.get_mut::<udp::Socket<'_>>(socket);
    socket.send_slice(data, (IpAddr::V4(to.0), to.1)).expect("room for a datagram");
}

fn received(world: &mut World, socket: SocketHandle) -> Vec<(Ipv4Addr, u16, Vec<u8>)> {
    let socket = world.station(1).sockets.get_mut::<udp::Socket<'_>>(socket);
    let mut got = Vec::new();
    while let Ok((data, from)) = socket.recv() {
        let IpAddr::V4(ip) = from.endpoint.addr.into() else { panic!("an answer over IPv6") };
        got.push((ip, from.endpoint.port, data.to_vec()));
    }
    got
}

#[test]
fn datagrams_keep_their_boundaries_and_the_empty_one_is_one() {
    let mut world = World::one();
    let socket = world.station(1).udp(5_000);
    let sizes = [0, 1, 17, 1_000, 1_472, 0, 3];
    for size in sizes {
        send(&mut world, socket, (SERVER, ECHO), &vec![size as u8; size]);
    }
    world.pass(seconds(1));
    let expected: Vec<_> = sizes.iter().map(|size| (SERVER, ECHO, vec![*size as u8; *size])).collect();
    assert_eq!(received(&mut world, socket), expected);
    assert_eq!(world.outside().sockets.len(), 1, "one flow");
}

#[test]
fn what_a_bad_cable_loses_is_lost_and_the_rest_is_right() {
    let faults = Faults { loss: 0.05, duplicate: 0.05, reorder: 0.05, corrupt: 0.05 };
    for seed in 1..=3 {
        let mut world = World::new(Setup { stations: 1, faults, seed, ..Setup::default() });
        let socket = world.station(1).udp(5_000);
        let mut got = Vec::new();
        for number in 0..200u16 {
            send(&mut world, socket, (SERVER, ECHO), &[number.to_be_bytes(), (!number).to_be_bytes()].concat());
            world.pass(Duration::from_millis(20));
            got.extend(received(&mut world, socket));
        }
        assert!((120..280).contains(&got.len()), "{} of 200", got.len());
        for (from, port, data) in got {
            assert_eq!((from, port, data.len()), (SERVER, ECHO, 4));
            assert_eq!([data[0], data[1]], [!data[2], !data[3]], "a damaged datagram went through");
        }
    }
}

#[test]
fn questions_to_the_gateway_go_to_the_hosts_resolver_and_answers_come_from_the_gateway() {
    let mut world = World::one();
    let socket = world.station(1).udp(5_000);
    send(&mut world, socket, (GATEWAY, 53), b"who is it?");
    world.pass(seconds(1));
    assert_eq!(received(&mut world, socket), [(GATEWAY, 53, b"who is it?".to_vec())]);
    assert_eq!(world.outside().socket().to, RESOLVER);
}

#[test]
fn ni_1_pings_are_truly_sent_and_their_replies_come_back() {
    let mut world = World::one();
    let answers = ping(&mut world, SERVER, 3);
    assert_eq!(answers.iter().map(|(from, _)| *from).collect::<Vec<_>>(), [SERVER; 3]);
    for (seq, (_, bytes)) in answers.iter().enumerate() {
        assert_eq!(bytes[4..8], [0x02, 0x2b, 0, seq as u8], "the identifier is the container's own again");
        assert_eq!(&bytes[8..], b"are you there");
    }
    let sent = &world.outside().socket().sent;
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|(ttl, bytes)| *ttl == 63 && bytes[..2] == [8, 0]), "{sent:?}");
}

#[test]
fn ni_1_nobody_answers_for_another() {
    let mut world = World::one();
    assert_eq!(ping(&mut world, SILENT, 3), []);
    assert_eq!(world.outside().socket().sent.len(), 3);
    assert_eq!(world.station(1).icmp_errors(), []);
}

#[test]
fn ni_1_a_host_that_lets_nobody_ping_is_admitted() {
    let mut world = World::one();
    world.outside().pings = false;
    assert_eq!(ping(&mut world, SERVER, 1), []);
    let errors = world.station(1).icmp_errors();
    assert_eq!(errors.iter().map(|(kind, code, _)| (*kind, *code)).collect::<Vec<_>>(), [(3, 13)]);
    let port = world.station(1).port;
    let counters = world.network.counters(port).expect("an attached port");
    assert_eq!(counters.drops.get(DropReason::HostNoPing), 1);
}

#[test]
fn ni_6_errors_of_the_outside_reach_the_container_with_its_own_header() {
    for (to, port, expected, from) in
        [(SERVER, 1, (3, 3), SERVER), (NO_HOST, 53, (3, 1), ROUTER), (NO_NET, 53, (3, 0), GATEWAY)]
    {
        let mut world = World::one();
        let socket = world.station(1).udp(5_000);
        send(&mut world, socket, (to, port), b"is it you?");
        world.pass(seconds(1));
        let errors = world.station(1).icmp_errors();
        assert_eq!(errors.len(), 1, "{to}");
        let (kind, code, quoted) = &errors[0];
        assert_eq!((*kind, *code), expected, "{to}");
        assert_eq!((quoted[9], &quoted[12..16], &quoted[16..20]), (17, &[10, 0, 0, 11][..], &to.octets()[..]));
        assert_eq!(quoted[20..24], [5_000u16.to_be_bytes(), port.to_be_bytes()].concat());
        let sender = world.station(1).frames().find(|frame| frame.segment().first() == Some(&3));
        assert_eq!(sender.and_then(|frame| frame.src_ip()), Some(IpAddr::V4(from)));
    }
}

#[test]
fn ni_6_a_traceroute_sees_the_gateway_the_router_and_the_target() {
    let mut world = World::one();
    let mut hops = Vec::new();
    for ttl in 1..=3 {
        let socket = world.station(1).udp(6_000 + u16::from(ttl));
        world.station(1).sockets.get_mut::<udp::Socket<'_>>(socket).set_hop_limit(Some(ttl));
        let before = world.station(1).icmp_errors().len();
        send(&mut world, socket, (SERVER, 33_434), b"trace");
        world.pass(seconds(1));
        let (kind, code, _) = world.station(1).icmp_errors().remove(before);
        let station = world.station(1);
        let from = station.frames().last().and_then(|frame| frame.src_ip());
        hops.push((from, kind, code));
    }
    let hop = |ip: Ipv4Addr, kind, code| (Some(IpAddr::V4(ip)), kind, code);
    assert_eq!(hops, [hop(GATEWAY, 11, 0), hop(ROUTER, 11, 0), hop(SERVER, 3, 3)]);
}
