//! Who has which socket, and who may send to it.

use std::net::Ipv4Addr;

use tapswitch_wire::{DropReason, PortId};

use crate::script::OWN;
use crate::world::{CONTAINER, GATEWAY, HOW, How, OTHER, RESOLVER, SERVER, World, at, from, payloads};

#[test]
fn nu_1_ten_destinations_of_one_source_have_one_socket() {
    let mut world = World::new();
    for number in 0..10 {
        world.send(HOW, (Ipv4Addr::new(198, 51, 100, number), 1_000 + u16::from(number)), b"hello");
    }
    assert_eq!((world.sockets(), world.flows().len()), (1, 10));
    let to: Vec<_> = world.sent().iter().map(|sent| sent.to).collect();
    let expected: Vec<_> =
        (0..10).map(|number| at(Ipv4Addr::new(198, 51, 100, number), 1_000 + u16::from(number))).collect();
    assert_eq!(to, expected);
    world.send(from(5_001), (SERVER, 1_000), b"hello");
    assert_eq!(world.sockets(), 2, "another source is another endpoint");
    world.ping(5_000, 1, SERVER, b"").expect("a ping that may pass");
    assert_eq!(world.sockets(), 3, "and so is another protocol");
    world.ping(5_000, 1, OTHER, b"").expect("a ping that may pass");
    assert_eq!(world.sockets(), 3);
}

#[test]
fn nu_5_only_hosts_that_were_sent_to_may_send_whatever_their_port() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 53_000), b"hello");
    assert_eq!(payloads(&world.arrive(at(SERVER, 53_000), b"answer"), at(SERVER, 53_000)), [b"answer"]);
    assert_eq!(world.arrive(at(OTHER, 53_000), b"let me in"), []);
    assert_eq!(world.drops(DropReason::Filtered), 1);
    // Another port of the same host begins a session of its own.
    assert_eq!(payloads(&world.arrive(at(SERVER, 4), b"me too"), at(SERVER, 4)), [b"me too"]);
    let flows: Vec<_> = world.flows().iter().map(|flow| (flow.src, flow.dst, flow.down_bytes)).collect();
    let src = at(CONTAINER, 5_000);
    assert_eq!(flows, [(src, at(SERVER, 53_000), 6), (src, at(SERVER, 4), 6)]);
    // The container's answer to it goes by the same socket.
    world.send(HOW, (SERVER, 4), b"welcome");
    assert_eq!((world.sockets(), world.sent()[1].to), (1, at(SERVER, 4)));
}

#[test]
fn nu_3_what_is_filtered_prolongs_nothing() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"hello");
    for _ in 0..29 {
        world.pass(crate::world::seconds(10));
        world.arrive(at(OTHER, 7), b"still there?");
    }
    assert_eq!(world.sockets(), 1);
    world.pass(crate::world::seconds(10));
    assert_eq!((world.sockets(), world.flows().len()), (0, 0));
}

#[test]
fn what_a_port_of_the_gateway_stands_for_answers_as_the_gateway_and_nobody_else_does() {
    let mut world = World::new();
    world.send(HOW, (GATEWAY, 53), b"who?");
    let resolver = RESOLVER.parse().expect("an address");
    assert_eq!(world.sent()[0].to, resolver);
    assert_eq!(payloads(&world.arrive(resolver, b"he"), at(GATEWAY, 53)), [b"he"]);
    assert_eq!(world.arrive(at(resolver.ip().to_string().parse().expect("IPv4"), 54), b"me"), []);
    assert_eq!(world.drops(DropReason::Filtered), 1, "it is no host that the container knows");
    // The same source has another socket for everybody else.
    world.send(HOW, (SERVER, 53), b"who?");
    assert_eq!(world.sockets(), 2);
    world.send(HOW, (GATEWAY, 8_080), b"hello");
    assert_eq!(world.sockets(), 2);
    let host = world.relay.host();
    let first = host.opened[0];
    assert_eq!(host.sockets[&first].sent[1].to, at(Ipv4Addr::LOCALHOST, 8_080));
}

#[test]
fn at_16_multicast_broadcast_and_the_hosts_own_addresses_are_denied() {
    let mut world = World::new();
    let denied = [
        Ipv4Addr::new(224, 0, 0, 251),
        Ipv4Addr::new(239, 255, 255, 250),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST,
        // The routing table calls the broadcast addresses of the host's subnets its own.
        OWN,
    ];
    for to in denied {
        let refusal = world.put(HOW, (to, 1_900), b"anybody?").expect_err("out of reach");
        assert_eq!((refusal.reason, refusal.unreachable), (DropReason::PolicyDenied, Some(13)), "{to}");
    }
    assert_eq!(world.sockets(), 0);
}

#[test]
fn containers_do_not_share_sockets_and_one_that_goes_takes_only_its_own() {
    let mut world = World::new();
    let other = How { src: "10.0.0.3:5000".parse().expect("an address"), port: PortId(2), ..HOW };
    world.send(HOW, (SERVER, 7), b"a");
    world.send(other, (SERVER, 7), b"b");
    assert_eq!((world.sockets(), world.flows().len()), (2, 2));
    world.put(HOW, (SERVER, 7), b"too late").expect("a datagram that may pass");
    world.relay.port_gone(PortId(1));
    world.turn();
    assert_eq!(world.flows().iter().map(|flow| flow.port).collect::<Vec<_>>(), [PortId(2)]);
    assert_eq!((world.sockets(), world.drops(DropReason::NoSuchFlow)), (1, 1));
}

#[test]
fn another_container_that_uses_the_address_neither_sends_nor_hears_for_it() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"hello");
    let forged = How { port: PortId(2), ..HOW };
    for to in [(SERVER, 7), (OTHER, 7)] {
        let refusal = world.put(forged, to, b"it is me").expect_err("another container's address");
        assert_eq!(refusal.reason, DropReason::SpoofedSource);
    }
    world.turn();
    assert_eq!((world.sent().len(), world.sockets(), world.flows().len()), (1, 1, 1));
    assert_eq!(payloads(&world.arrive(at(SERVER, 7), b"answer"), at(SERVER, 7)), [b"answer"]);
}
