//! What cannot be reached looks to the container as it is: refused, unreachable, silent, or forbidden.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::socket::tcp::State;
use tapswitch_wire::DropReason;

use crate::lan::seconds;
use crate::outside::{ECHO, NO_HOST, NO_NET, OWN, SERVER, SILENT};
use crate::relay_tcp::talk;
use crate::world::{GATEWAY, World};

const RST_ACK: u8 = 0x14;

/// What a container hears that connects to `to`, within the first `time`.
fn connect(world: &mut World, to: (Ipv4Addr, u16), time: Duration) -> (State, Vec<u8>, Vec<(u8, u8)>) {
    let talk = talk(world, to, Vec::new(), false);
    world.pass(time);
    let state = talk.state(world);
    let errors = world.station(1).icmp_errors().into_iter().map(|(kind, code, _)| (kind, code)).collect();
    (state, world.station(1).tcp_flags(), errors)
}

#[test]
fn tr_1_a_closed_port_is_refused_with_a_reset() {
    let mut world = World::one();
    let (state, flags, errors) = connect(&mut world, (SERVER, 1), Duration::from_millis(100));
    assert_eq!((state, &flags[..], &errors[..]), (State::Closed, &[RST_ACK][..], &[][..]));
    assert_eq!((world.network.flow_count(), world.outside().open()), (0, 0));
}

#[test]
fn tr_1_unreachable_is_told_by_icmp_that_quotes_the_syn() {
    for (to, code) in [(NO_HOST, 1), (NO_NET, 0)] {
        let mut world = World::one();
        let (_, flags, errors) = connect(&mut world, (to, 80), Duration::from_millis(3_500));
        assert!(flags.is_empty(), "neither connected nor refused");
        assert_eq!(errors.first(), Some(&(3, code)), "{to}");
        let (.., quoted) = world.station(1).icmp_errors().remove(0);
        assert_eq!(quoted[9], 6);
        assert_eq!((&quoted[12..16], &quoted[16..20]), (&[10, 0, 0, 11][..], &to.octets()[..]));
        assert_eq!(&quoted[20..24], [40_000u16.to_be_bytes(), 80u16.to_be_bytes()].concat());
    }
}

#[test]
fn tr_1_silence_stays_silence() {
    let mut world = World::one();
    let (state, flags, errors) = connect(&mut world, (SILENT, 80), seconds(60));
    assert_eq!((state, &flags[..], &errors[..]), (State::SynSent, &[][..], &[][..]));
    assert_eq!(world.outside().streams.len(), 1, "one attempt, however often the SYN is repeated");
}

#[test]
fn at_16_the_host_and_its_metadata_are_out_of_reach() {
    let forbidden = [
        Ipv4Addr::new(127, 0, 0, 1),
        Ipv4Addr::new(127, 5, 5, 5),
        Ipv4Addr::UNSPECIFIED,
        OWN,
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(240, 0, 0, 1),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(100, 100, 100, 200),
    ];
    for to in forbidden {
        let mut world = World::one();
        let ((mac, gateway), now) = ((world.station(1).mac, world.gateway_mac()), world.now);
        for (number, udp) in [true, false].into_iter().enumerate() {
            let link = tapswitch_wire::build::Link { src: mac, dst: gateway };
            let ip = tapswitch_wire::build::Ip {
                src: crate::world::address(1).into(),
                dst: to.into(),
                ttl: 64,
                tos: 0,
                id: 0,
            };
            let mut frame = Vec::new();
            let tcp = tapswitch_wire::build::Tcp {
                src_port: 4_000 + number as u16,
                dst_port: 80,
                seq: 1,
                ack: 0,
                flags: 2,
                window: 1_000,
                options: &[],
            };
            let meta = if udp {
                tapswitch_wire::build::udp(&mut frame, link, ip, 4_000, 80, b"x");
                tapswitch_wire::Meta::PLAIN
            } else {
                tapswitch_wire::build::tcp(&mut frame, link, ip, tcp, 0)
            };
            world.station(1).send_raw(&meta, &frame);
        }
        world.pass(seconds(1));
        assert_eq!(world.outside().streams.len() + world.outside().sockets.len(), 0, "{to}");
        assert_eq!(world.network.flows(now), [], "{to}");
    }
}

#[test]
fn at_16_a_forbidden_destination_says_so_at_once() {
    for to in [OWN, Ipv4Addr::new(169, 254, 169, 254)] {
        let mut world = World::one();
        let (_, flags, errors) = connect(&mut world, (to, 80), Duration::from_millis(10));
        assert_eq!((&flags[..], &errors[..]), (&[][..], &[(3, 13)][..]), "administratively prohibited: {to}");
        let port = world.station(1).port;
        let counters = world.network.counters(port).expect("an attached port");
        assert_eq!(counters.drops.get(DropReason::PolicyDenied), 1);
    }
}

#[test]
fn at_16_a_port_of_the_gateway_that_leads_nowhere_is_closed() {
    let mut world = World::one();
    let (state, _, errors) = connect(&mut world, (GATEWAY, 80), Duration::from_millis(100));
    assert!(state == State::Closed || errors == [(3, 3)], "{state:?} {errors:?}");
    assert_eq!(world.outside().streams.len(), 0);
}

#[test]
fn tr_10_a_connection_that_the_relay_does_not_know_is_reset() {
    let mut world = World::one();
    let mut talk = talk(&mut world, (SERVER, ECHO), Vec::new(), false);
    world.run(seconds(1), |world| {
        talk.go_on(world);
        talk.state(world) == State::Established
    });
    // The daemon began anew, and knows nothing of it.
    std::mem::swap(&mut world.network, &mut World::one().network);
    world.station(1).tcp(talk.socket).send_slice(b"still there?").expect("room");
    world.pass(Duration::from_millis(100));
    assert_eq!(talk.state(&mut world), State::Closed);
}
