//! UDP ports of the host that lead to containers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use tapswitch_relay::{Arrival, Limits, Proto, Publication};
use tapswitch_wire::{Mac, PortId};

use crate::script::OWN;
use crate::world::{CONTAINER, GATEWAY, Got, HOW, OTHER, PORT, SERVER, World, arrival, at, from, payloads, seconds};

const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8_053);

fn publication(at: SocketAddr) -> Publication {
    let inside = SocketAddr::V4(HOW.src);
    Publication { proto: Proto::Udp, at, owner: PORT, mac: Mac::from_ipv4(CONTAINER), inside }
}

impl World {
    fn published() -> World {
        let mut world = World::new();
        assert_eq!(world.relay.publish(publication(ANYWHERE)).expect("a free port"), ANYWHERE);
        world
    }

    /// A client sends to the published port, at this address of the host. Who it is to the container.
    #[track_caller]
    fn client(&mut self, client: SocketAddr, to: Ipv4Addr) -> SocketAddrV4 {
        let arrival = Arrival { to: Some(to.into()), ..arrival(client, 5) };
        self.relay.host().last().inbox.push_back((arrival, b"hello".to_vec()));
        match &self.event()[..] {
            [Got::Udp { from, to, payload, .. }] => {
                assert_eq!((*to, &payload[..]), (HOW.src, &b"hello"[..]));
                *from
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_published_port_is_open_to_all_and_the_container_sees_who_they_are() {
    let mut world = World::published();
    for (number, host) in [OWN, Ipv4Addr::new(192, 0, 2, 78)].into_iter().enumerate() {
        for ip in [SERVER, OTHER] {
            let client = at(ip, 40_000 + number as u16);
            let shown = world.client(client, host);
            assert_eq!(SocketAddr::V4(shown), client, "its real address");
            world.send(HOW, (*shown.ip(), shown.port()), b"answer");
            let sent = world.sent().pop().expect("an answer");
            assert_eq!((sent.to, sent.from), (client, Some(host.into())), "from where it was asked");
        }
    }
    assert_eq!((world.sockets(), world.flows().len()), (1, 4));
    let first = world.frames.is_empty();
    assert!(first);
}

#[test]
fn the_first_frame_goes_to_the_mac_address_that_was_told() {
    let mut world = World::published();
    world.relay.host().last().inbox.push_back((arrival(at(SERVER, 9), 1), vec![1]));
    let id = world.relay.host().opened[0];
    world.told(id);
    assert_eq!(world.frames[0].1[..6], Mac::from_ipv4(CONTAINER).0);
}

#[test]
fn clients_that_a_container_would_look_for_elsewhere_are_ports_of_the_gateway() {
    let mut world = World::published();
    let near = [Ipv4Addr::LOCALHOST, OWN, Ipv4Addr::new(10, 0, 0, 9), GATEWAY];
    let mut shown = Vec::new();
    for ip in near {
        let seen = world.client(at(ip, 40_000), Ipv4Addr::LOCALHOST);
        assert_eq!(*seen.ip(), GATEWAY);
        world.send(HOW, (GATEWAY, seen.port()), b"answer");
        assert_eq!(world.sent().pop().map(|sent| sent.to), Some(at(ip, 40_000)));
        shown.push(seen.port());
    }
    assert_eq!(shown[0], 40_000, "the same port, if it is free");
    shown.sort_unstable();
    shown.dedup();
    assert_eq!(shown.len(), 4, "and no two are one");
    // The name server's port stays the name server's.
    assert_ne!(world.client(at(Ipv4Addr::LOCALHOST, 53), Ipv4Addr::LOCALHOST).port(), 53);
}

#[test]
fn what_the_published_endpoint_sends_itself_leaves_by_its_socket() {
    let mut world = World::published();
    world.send(HOW, (SERVER, 7), b"hello");
    assert_eq!((world.sockets(), world.sent()[0].to), (1, at(SERVER, 7)));
    world.send(from(5_001), (SERVER, 7), b"hello");
    assert_eq!(world.sockets(), 2, "another source is not published");
    // Not by one that only the host itself can reach.
    let mut world = World::new();
    world.relay.publish(publication(at(Ipv4Addr::LOCALHOST, 8_053))).expect("a free port");
    world.send(HOW, (SERVER, 7), b"hello");
    assert_eq!(world.sockets(), 2);
}

#[test]
fn what_an_endpoint_had_before_it_was_published_goes_on() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"hello");
    let old = world.relay.host().opened[0];
    world.relay.publish(publication(ANYWHERE)).expect("a free port");
    world.send(HOW, (SERVER, 7), b"more");
    assert_eq!(world.relay.host().sockets[&old].sent.len(), 2);
    world.send(HOW, (OTHER, 7), b"new");
    assert_eq!(world.sent()[0].to, at(OTHER, 7));
    world.pass(seconds(300));
    assert_eq!((world.sockets(), world.flows().len()), (1, 0), "what listens stays");
}

#[test]
fn a_port_that_is_taken_back_is_closed_and_can_be_given_again() {
    let mut world = World::published();
    world.client(at(SERVER, 9), OWN);
    let taken = world.relay.publish(publication(ANYWHERE)).expect_err("it is taken");
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    assert!(world.relay.unpublish(Proto::Udp, ANYWHERE).is_some());
    assert_eq!((world.sockets(), world.flows().len(), world.relay.unpublish(Proto::Udp, ANYWHERE)), (0, 0, None));
    world.relay.publish(publication(ANYWHERE)).expect("it is free again");
    world.relay.port_gone(PORT);
    assert_eq!((world.sockets(), world.relay.published().count()), (0, 0));
    let chosen = world.relay.publish(publication(at(Ipv4Addr::UNSPECIFIED, 0))).expect("a free port");
    assert_ne!(chosen.port(), 0);
}

#[test]
fn lm_4_what_listens_counts_as_its_owners_socket_and_is_never_displaced() {
    let mut world = World::limited(Limits { flows: 1_000, flows_per_container: 2, ..Limits::default() });
    world.relay.publish(publication(ANYWHERE)).expect("a free port");
    world.pass(seconds(100));
    world.send(from(1), (SERVER, 7), b"x");
    world.put(from(2), (SERVER, 7), b"x").expect_err("two sockets are all");
    let refused = world.relay.publish(publication(at(Ipv4Addr::UNSPECIFIED, 9))).expect_err("two sockets are all");
    assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
    world.pass(seconds(10));
    world.send(from(2), (SERVER, 7), b"x");
    assert_eq!((world.sockets(), world.relay.published().count()), (2, 1));
}

#[test]
fn a_flood_of_clients_is_bounded_and_displaces_nothing_that_the_container_began() {
    let mut world = World::published();
    world.send(from(5_001), (SERVER, 7), b"mine");
    let own = *world.relay.host().opened.last().expect("a socket");
    let listener = world.relay.host().opened[0];
    for number in 0..20_000u32 {
        let client = at(Ipv4Addr::from(0x0b00_0000 + number), 1_000);
        let host = world.relay.host().sockets.get_mut(&listener).expect("it listens");
        host.inbox.push_back((arrival(client, 1), vec![1]));
    }
    world.told(listener);
    assert_eq!(world.flows().len(), 16_384 + 1);
    assert!(world.relay.host().sockets.contains_key(&own));
    // The latest client is answered.
    let latest = Ipv4Addr::from(0x0b00_0000 + 19_999);
    world.send(HOW, (latest, 1_000), b"answer");
    assert_eq!(world.relay.host().sockets[&listener].sent.last().map(|sent| sent.to), Some(at(latest, 1_000)));
    let published = world.flows().iter().filter(|flow| flow.port == PortId(1)).count();
    assert_eq!(published, 16_385);
}

#[test]
fn a_client_may_send_from_any_port_at_any_time() {
    let mut world = World::published();
    for port in [1, 53, 123, 65_535] {
        assert_eq!(world.client(at(SERVER, port), OWN), SocketAddrV4::new(SERVER, port));
    }
    assert_eq!(payloads(&world.arrive(at(SERVER, 53), b"more"), at(SERVER, 53)), [b"more"]);
    assert!(world.flows().iter().all(|flow| flow.expires_s == 300), "a client is no name server");
}
