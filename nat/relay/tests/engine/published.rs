//! Connections that begin outside: the host accepts a client, and the engine asks the container.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tapswitch_relay::{Proto, Publication, Readiness};
use tapswitch_wire::{DropReason, Mac, PortId};

use crate::world::{ACK, CONTAINER, FIN, GATEWAY, RST, SYN, Seg, World, brief, tcp};

const CLIENT: &str = "203.0.113.9:50000";
const MSS: [u8; 4] = [2, 4, 5, 180];

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// A container whose port 80 is published as 8080.
pub fn publish(world: &mut World) {
    let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 8_080);
    let inside = SocketAddr::new(CONTAINER.into(), 80);
    let mac = Mac::from_ipv4(CONTAINER);
    let publication = Publication { proto: Proto::Tcp, at, owner: PortId(1), mac, inside };
    assert_eq!(world.relay.publish(publication).expect("a free port"), at);
    world.src_port = 80;
}

/// A client connects; what the engine sends.
pub fn client(world: &mut World, from: &str) -> Vec<Seg> {
    let (id, (_, clients)) = world.relay.host().listening.iter_mut().next().expect("something listens");
    let id = *id;
    clients.push_back(address(from));
    let readable = Readiness { readable: true, ..Readiness::default() };
    let now = world.now;
    world.relay.host_event(id, readable, now, &mut |_: &_, _: &[u8]| panic!("nothing is sent before the turn ends"));
    let mut sent = tcp(world.poll());
    for syn in sent.iter_mut().filter(|seg| seg.flags == SYN) {
        world.iss = world.iss.wrapping_add(syn.seq);
        world.remote = syn.dst_of_container;
        syn.seq = 0;
    }
    sent
}

/// A published connection that the container has accepted, by a SYN-ACK with these options.
fn accepted(options: &[u8]) -> World {
    let mut world = World::new();
    publish(&mut world);
    client(&mut world, CLIENT);
    assert_eq!(brief(&world.rx_with(SYN | ACK, 0, 1, b"", options)), [(ACK, 1, 1, 0)]);
    assert_eq!(world.state(), "established");
    world
}

#[test]
fn tr_13_a_client_is_shown_by_its_own_address() {
    let mut world = World::new();
    publish(&mut world);
    let sent = client(&mut world, CLIENT);
    assert_eq!(brief_of(&sent), [(SYN, 0, 0, 0)]);
    assert_eq!(sent[0].dst_of_container, address(CLIENT));
    assert_eq!(sent[0].options[..8], [2, 4, 5, 180, 1, 3, 3, 5], "MSS and scale are offered, and timestamps");
    assert!(sent[0].timestamp().is_some_and(|(_, echo)| echo == 0));
    let flow = &world.relay.flows(world.now)[0];
    assert_eq!(
        (flow.src, flow.dst, flow.via),
        (SocketAddr::new(CONTAINER.into(), 80), address(CLIENT), address(CLIENT))
    );
    assert_eq!((flow.port, flow.state), (PortId(1), "syn-sent"));
}

fn brief_of(sent: &[Seg]) -> Vec<(u8, u32, u32, usize)> {
    sent.iter().map(Seg::brief).collect()
}

#[test]
fn tr_13_clients_that_a_container_could_not_answer_are_shown_as_the_gateway() {
    for from in
        ["127.0.0.1:50000", "127.8.8.8:50000", "192.0.2.77:50000", "10.0.0.7:50000", "10.0.0.1:50000", "[::1]:50000"]
    {
        let mut world = World::with_deny(&["10.0.0.0/24"]);
        world.relay.host().own = vec![Ipv4Addr::new(192, 0, 2, 77).into()];
        publish(&mut world);
        let sent = client(&mut world, from);
        assert_eq!(sent[0].dst_of_container, SocketAddr::new(GATEWAY.into(), 50_000), "{from}");
        assert_eq!(world.relay.flows(world.now)[0].via, address(from));
    }
}

#[test]
fn tr_13_clients_with_the_same_port_are_told_apart() {
    let mut world = World::new();
    publish(&mut world);
    let shown: Vec<SocketAddr> = ["127.0.0.1:50000", "127.0.0.2:50000", "127.0.0.3:50000"]
        .into_iter()
        .flat_map(|from| client(&mut world, from))
        .map(|syn| syn.dst_of_container)
        .collect();
    assert_eq!(shown[0].port(), 50_000);
    assert!(shown[1] != shown[0] && shown[2] != shown[1] && shown[2] != shown[0], "{shown:?}");
    assert!(shown.iter().all(|shown| shown.ip() == GATEWAY && shown.port() >= 1_024));
}

#[test]
fn tr_7_a_published_connection_uses_only_what_the_container_offers() {
    let mut world = accepted(&MSS);
    let sent = tcp(world.incoming(&[7; 4_000]));
    assert_eq!(sent.iter().map(|seg| (seg.gso, seg.options.len())).collect::<Vec<_>>(), [(Some(1_460), 0)]);
    assert!(sent[0].window > 0x8000, "not scaled");

    let mut world = World::new();
    publish(&mut world);
    client(&mut world, CLIENT);
    let stamp = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0];
    world.options = stamp.to_vec();
    let sent = tcp(world.rx_with(SYN | ACK, 0, 1, b"", &[&MSS[..], &[3, 3, 7], &stamp].concat()));
    assert_eq!(sent[0].timestamp().map(|(_, echo)| echo), Some(9));
    world.window = 1_000;
    world.rx(ACK, 1, 1, b"");
    let sent = tcp(world.incoming(&[7; 10_000]));
    assert_eq!(sent[0].gso, Some(1_448), "128 units of the window are more than this");

    let mut world = accepted(&[]);
    assert_eq!(tcp(world.incoming(&[7; 4_000]))[0].gso, Some(536), "RFC 9293 3.7.1");
}

#[test]
fn tr_3_a_published_connection_carries_both_streams_to_their_ends() {
    let mut world = accepted(&MSS);
    // What the client said before the container answered.
    assert_eq!(brief(&world.incoming(b"question")), [(ACK, 1, 1, 8)]);
    assert_eq!(brief(&world.rx(ACK, 1, 9, b"answer")), [(ACK, 9, 7, 0)]);
    assert_eq!(world.host().written, b"answer");
    assert_eq!(brief(&world.end()), [(FIN | ACK, 9, 7, 0)]);
    assert_eq!(brief(&world.rx(FIN | ACK, 7, 10, b"")), [(ACK, 10, 8, 0)]);
    assert_eq!((world.state(), world.host().closed, world.host().finished), ("time-wait", Some(false), true));
}

#[test]
fn what_a_client_says_early_waits_and_is_sent_when_the_container_answers() {
    let mut world = World::new();
    publish(&mut world);
    client(&mut world, CLIENT);
    assert_eq!(world.incoming(b"early"), []);
    assert_eq!(brief(&world.rx_with(SYN | ACK, 0, 1, b"", &MSS)), [(ACK, 1, 1, 5)]);
}

#[test]
fn tr_1_a_port_that_is_closed_in_the_container_is_a_reset_for_the_client() {
    let mut world = World::new();
    publish(&mut world);
    client(&mut world, CLIENT);
    assert_eq!(world.rx(RST | ACK, 0, 2, b""), [], "of something else");
    assert_eq!(world.rx(RST, 0, 0, b""), []);
    assert_eq!(world.state(), "syn-sent");
    assert_eq!(world.rx(RST | ACK, 0, 1, b""), []);
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_2_a_silent_container_is_asked_again_and_the_client_reset_after_fifteen_seconds() {
    let mut world = World::new();
    publish(&mut world);
    let begun = world.now;
    client(&mut world, CLIENT);
    let sent = world.pass(Duration::from_secs(60));
    let said: Vec<_> = sent.iter().map(|seg| (seg.flags, seg.seq, (seg.at - begun).as_secs())).collect();
    assert_eq!(said, [(SYN, 0, 1), (SYN, 0, 3), (SYN, 0, 7), (RST, 1, 15)]);
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_9_a_container_that_believes_in_an_earlier_connection_is_reset_and_asked_again() {
    let mut world = World::new();
    publish(&mut world);
    client(&mut world, CLIENT);
    let sent = tcp(world.rx(ACK, 500, 70_000, b""));
    assert_eq!(sent.iter().map(|seg| (seg.flags, seg.seq)).collect::<Vec<_>>(), [(RST, 70_000)]);
    assert_eq!(world.state(), "syn-sent");
    assert_eq!(world.pass(Duration::from_secs(1)).len(), 1, "the SYN again");
    assert_eq!(brief(&world.rx_with(SYN | ACK, 0, 1, b"", &MSS)), [(ACK, 1, 1, 0)]);
    assert_eq!(world.state(), "established");
}

#[test]
fn tr_9_nothing_but_an_answer_to_the_syn_opens_a_published_connection() {
    for flags in [SYN, ACK, FIN, FIN | ACK, 0] {
        let mut world = World::new();
        publish(&mut world);
        client(&mut world, CLIENT);
        assert_eq!(world.rx(flags, 0, 1, b"data"), []);
        assert_eq!((world.state(), world.host().written.len()), ("syn-sent", 0));
    }
}

#[test]
fn tr_4_a_client_that_breaks_off_while_the_container_is_asked_is_a_reset_there() {
    let mut world = World::new();
    publish(&mut world);
    client(&mut world, CLIENT);
    world.host().broken = true;
    let sent = world.event(Readiness { error: true, readable: true, writable: true, ended: true });
    assert_eq!(brief(&sent), [(RST, 1, 0, 0)]);
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_2_a_repeated_answer_is_acknowledged() {
    let mut world = accepted(&MSS);
    world.now = world.now + Duration::from_secs(1);
    assert_eq!(brief(&world.rx_with(SYN | ACK, 0, 1, b"", &MSS)), [(ACK, 1, 1, 0)], "ours was lost");
    assert_eq!(world.state(), "established");
}

#[test]
fn many_clients_at_once_are_accepted_over_turns_and_all_of_them() {
    let mut world = World::new();
    publish(&mut world);
    let (id, (_, clients)) = world.relay.host().listening.iter_mut().next().expect("something listens");
    let id = *id;
    clients.extend((0..300).map(|n| SocketAddr::new(Ipv4Addr::new(203, 0, 113, 9).into(), 10_000 + n)));
    let now = world.now;
    let mut syns = 0;
    world.relay.host_event(id, Readiness { readable: true, ..Readiness::default() }, now, &mut |_: &_, _: &[u8]| {});
    let mut turns = 0;
    while world.relay.is_busy() {
        world.relay.poll(now, &mut |_: &_, _: &[u8]| syns += 1);
        turns += 1;
    }
    assert_eq!((syns, world.relay.len()), (300, 300));
    assert!((2..20).contains(&turns), "one listener does not take a whole turn: {turns}");
}

#[test]
fn lm_4_clients_beyond_the_containers_share_are_reset_by_name() {
    // One of them is what listens.
    let mut world = World::with_flows(3);
    publish(&mut world);
    for port in 50_000..50_003 {
        client(&mut world, &format!("203.0.113.9:{port}"));
    }
    assert_eq!((world.relay.len(), world.host().closed), (2, Some(true)), "the third");
    assert_eq!(world.relay.drops().get(DropReason::FlowLimit), 1);
}

#[test]
fn lm_4_clients_of_a_container_that_does_not_answer_wait_in_the_kernel() {
    let mut world = World::new();
    publish(&mut world);
    let (id, (_, clients)) = world.relay.host().listening.iter_mut().next().expect("something listens");
    let id = *id;
    clients.extend((0..600).map(|n| SocketAddr::new(Ipv4Addr::new(203, 0, 113, 9).into(), 10_000 + n)));
    let now = world.now;
    let readable = Readiness { readable: true, ..Readiness::default() };
    world.relay.host_event(id, readable, now, &mut |_: &_, _: &[u8]| {});
    world.poll();
    assert_eq!(world.relay.len(), 512);
    assert!(!world.relay.is_busy(), "it does not spin");
    // The first ones are given up, and make room.
    world.pass(Duration::from_secs(20));
    assert_eq!(world.relay.len(), 88);
}

#[test]
fn a_host_that_cannot_accept_now_is_asked_again_soon_and_not_at_once() {
    let mut world = World::new();
    publish(&mut world);
    // Out of descriptors.
    world.relay.host().cannot_accept.push_back(io::ErrorKind::Other);
    assert_eq!(client(&mut world, CLIENT), []);
    assert!(!world.relay.is_busy());
    let sent = world.pass(Duration::from_millis(200));
    assert_eq!(sent.iter().map(|seg| seg.flags).collect::<Vec<_>>(), [SYN]);
    // A client that was gone before it was accepted hides nobody.
    world.relay.host().cannot_accept.push_back(io::ErrorKind::ConnectionAborted);
    assert_eq!(client(&mut world, "203.0.113.10:50000").len(), 1);
}

#[test]
fn what_is_published_no_more_is_closed_and_its_connections_go_on() {
    let mut world = accepted(&MSS);
    let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 8_080);
    assert!(world.relay.unpublish(Proto::Tcp, at).is_some());
    assert!(world.relay.host().listening.is_empty());
    assert_eq!(brief(&world.incoming(b"question")), [(ACK, 1, 1, 8)]);
    assert!(world.relay.unpublish(Proto::Tcp, at).is_none());
}

#[test]
fn a_container_that_goes_takes_what_it_published_along() {
    let mut world = accepted(&MSS);
    world.relay.port_gone(PortId(1));
    assert!(world.relay.host().listening.is_empty());
    assert_eq!((world.relay.len(), world.host().closed), (0, Some(true)));
}

#[test]
fn tr_12_a_later_client_from_the_same_port_begins_anew_where_an_ended_one_lingers() {
    let mut world = accepted(&MSS);
    world.end();
    world.rx(FIN | ACK, 1, 2, b"");
    assert_eq!(world.state(), "time-wait");
    let first = world.iss;
    world.now = world.now + Duration::from_secs(1);
    world.iss = 0;
    let sent = client(&mut world, CLIENT);
    assert_eq!((sent[0].flags, sent[0].dst_of_container), (SYN, address(CLIENT)));
    assert_eq!(world.iss.wrapping_sub(first), 250_000, "with a later number (RFC 6191)");
    assert_eq!(world.relay.len(), 1);
}

#[test]
fn containers_reach_what_is_published_by_the_hosts_address_and_by_the_gateways() {
    let own = Ipv4Addr::new(192, 0, 2, 77);
    let mut world = World::new();
    world.relay.host().own = vec![own.into()];
    publish(&mut world);
    world.src_port = 40_000;
    for (dst, via) in [("192.0.2.77:8080", "192.0.2.77:8080"), ("10.0.0.1:8080", "127.0.0.1:8080")] {
        world.remote = address(dst);
        assert_eq!(world.verdict(SYN, 0, 0, b"").0, None, "{dst}");
        assert_eq!(world.host().to, Some(address(via)));
        world.rx(RST, 1, 0, b"");
    }
    for (dst, reason) in [
        ("192.0.2.77:8081", DropReason::PolicyDenied),
        ("10.0.0.1:8081", DropReason::NoSuchService),
        ("127.0.0.1:8080", DropReason::PolicyDenied),
        ("169.254.169.254:8080", DropReason::PolicyDenied),
    ] {
        world.remote = address(dst);
        assert_eq!(world.verdict(SYN, 0, 0, b"").0, Some(reason), "{dst}");
    }
}
