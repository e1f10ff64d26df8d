//! ICMP errors, and what they quote.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use tapswitch_relay::{HostIcmp, Reported};
use tapswitch_wire::DropReason;

use crate::world::{CONTAINER, GATEWAY, Got, HOW, OTHER, RESOLVER, SERVER, World, at, seconds};

const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

fn reported(to: std::net::SocketAddr, kind: u8, code: u8) -> Reported {
    let icmp = HostIcmp { kind, code, mtu: 1_400, offender: Some(IpAddr::V4(ROUTER)) };
    Reported { to, icmp, echo: None }
}

impl World {
    fn report(&mut self, reported: Reported) -> Vec<Got> {
        self.relay.host().last().errors.push_back(reported);
        self.event()
    }
}

/// Type, code, sender, and the quoted packet.
#[track_caller]
fn only_error(got: Vec<Got>) -> (u8, u8, Ipv4Addr, Vec<u8>) {
    match &got[..] {
        [Got::Icmp { kind, code, from, rest, .. }] => (*kind, *code, *from, rest[4..].to_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ni_6_an_error_quotes_what_the_container_sent_to_that_destination() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 33_434), b"first");
    world.send(HOW, (OTHER, 33_435), b"second one");
    for (to, len) in [(at(SERVER, 33_434), 5), (at(OTHER, 33_435), 10)] {
        let (kind, code, from, quote) = only_error(world.report(reported(to, 11, 0)));
        assert_eq!((kind, code, from), (11, 0, ROUTER), "the router's own address");
        let IpAddr::V4(dst) = to.ip() else { panic!("IPv4") };
        assert_eq!((quote.len(), &quote[12..16], &quote[16..20]), (28, &CONTAINER.octets()[..], &dst.octets()[..]));
        let words: Vec<_> = quote[20..26].chunks(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect();
        assert_eq!(words, [5_000, to.port(), 8 + len]);
    }
    assert_eq!(world.report(reported(at(SERVER, 1), 3, 3)), []);
    assert_eq!(world.drops(DropReason::NoSuchSession), 1, "nothing was sent there");
}

#[test]
fn ni_6_an_error_about_a_question_to_the_gateway_quotes_the_gateway() {
    let mut world = World::new();
    world.send(HOW, (GATEWAY, 53), b"who?");
    let (kind, code, _, quote) = only_error(world.report(reported(RESOLVER.parse().expect("an address"), 3, 3)));
    assert_eq!((kind, code, &quote[16..20]), (3, 3, &GATEWAY.octets()[..]));
}

#[test]
fn nu_8_what_does_not_fit_the_path_is_told_with_the_mtu() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"x");
    let host = world.relay.host().last();
    host.failures.push_back(io::ErrorKind::InvalidInput);
    let icmp = HostIcmp { kind: 3, code: 4, mtu: 1_400, offender: None };
    // Twice, as a kernel does that was asked for a run first.
    for _ in 0..2 {
        host.errors.push_back(Reported { to: at(SERVER, 0), icmp, echo: None });
    }
    world.send(HOW, (SERVER, 7), &[0; 1_450]);
    match &world.got()[..] {
        [Got::Icmp { kind: 3, code: 4, from: GATEWAY, rest, .. }] => assert_eq!(rest[..4], [0, 0, 5, 120]),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.drops(DropReason::HostSendFailed), 1);
}

#[test]
fn ni_6_what_the_host_refuses_is_told_and_the_error_of_an_earlier_datagram_harms_none() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"x");
    world.relay.host().last().failures.push_back(io::ErrorKind::ConnectionRefused);
    world.send(HOW, (SERVER, 7), b"again");
    assert_eq!((world.got(), world.sent().len()), (vec![], 2), "it was sent again");
    for (error, code) in [
        (io::ErrorKind::NetworkUnreachable, 0),
        (io::ErrorKind::HostUnreachable, 1),
        (io::ErrorKind::PermissionDenied, 13),
    ] {
        world.relay.host().last().failures.extend([error; 2]);
        world.put(HOW, (SERVER, 7), b"lost").expect("a datagram that may pass");
        world.put(HOW, (OTHER, 7), b"not lost").expect("a datagram that may pass");
        world.turn();
        let (kind, said, from, _) = only_error(world.got());
        assert_eq!((kind, said, from), (3, code, GATEWAY));
        assert_eq!(world.sent().last().map(|sent| sent.to), Some(at(OTHER, 7)));
    }
}

#[test]
fn nu_7_errors_end_and_prolong_nothing() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"x");
    for _ in 0..29 {
        world.pass(seconds(10));
        only_error(world.report(reported(at(SERVER, 7), 3, 3)));
    }
    assert_eq!(world.flows().len(), 1);
    world.pass(seconds(10));
    assert_eq!(world.flows().len(), 0);
}

#[test]
fn a_container_gets_a_bounded_number_of_errors() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"x");
    for _ in 0..200 {
        world.relay.host().last().errors.push_back(reported(at(SERVER, 7), 3, 3));
    }
    assert_eq!(world.event().len(), 50);
    assert_eq!(world.drops(DropReason::IcmpRateLimited), 150);
}

#[test]
fn ni_6_an_error_about_a_ping_quotes_that_ping() {
    let mut world = World::new();
    for seq in 1..=3 {
        world.ping(0x1234, seq, SERVER, b"body").expect("a ping that may pass");
    }
    world.turn();
    // As the host sent it: with an identifier of its own.
    let checksum = |id: u16, seq: u16| {
        let mut echo = [8, 0, 0, 0, (id >> 8) as u8, id as u8, (seq >> 8) as u8, seq as u8, b'b', b'o', b'd', b'y'];
        let check = tapswitch_wire::checksum::checksum(0, &echo);
        echo[2..4].copy_from_slice(&check.to_be_bytes());
        *echo.first_chunk::<8>().expect("a header")
    };
    let icmp = HostIcmp { kind: 11, code: 0, mtu: 0, offender: Some(IpAddr::V4(ROUTER)) };
    let (kind, _, from, quote) =
        only_error(world.report(Reported { to: at(SERVER, 0), icmp, echo: Some(checksum(0x7777, 2)) }));
    assert_eq!((kind, from), (11, ROUTER));
    assert_eq!(quote[20..], checksum(0x1234, 2), "the container's own identifier and checksum");
}

#[test]
fn ni_6_messages_that_are_no_errors_for_containers_are_dropped() {
    let mut world = World::new();
    world.send(HOW, (SERVER, 7), b"x");
    for kind in [0, 4, 5, 8] {
        assert_eq!(world.report(reported(at(SERVER, 7), kind, 0)), []);
    }
    assert_eq!(world.drops(DropReason::IcmpIgnored), 4);
}
