//! UDP and ping sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use tapswitch_link::socket::set_peek_offset;
use tapswitch_relay::{Arrival, Batch, DatagramHost, FlowId, HostError, HostIcmp, Marks, Proto, Reported, Run};

use super::{LIMIT, World, flow};

const PLAIN: Marks = Marks { ttl: 64, tos: 0, dont_fragment: false };

fn peer() -> (UdpSocket, SocketAddr) {
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    peer.set_read_timeout(Some(LIMIT)).expect("a limit");
    let at = peer.local_addr().expect("its address");
    (peer, at)
}

fn run(to: SocketAddr, size: usize, bytes: &[u8]) -> Run<'_> {
    Run { to, from: None, marks: PLAIN, size, bytes }
}

impl World {
    fn udp(&mut self, id: FlowId) {
        self.sockets.open(id, Proto::Udp, false).expect("a socket");
    }

    #[track_caller]
    fn send(&mut self, id: FlowId, run: Run<'_>) {
        assert_eq!(self.sockets.send(id, &[run]).expect("datagrams that leave"), run.datagrams());
    }

    /// Receives until so many bytes came.
    #[track_caller]
    fn receive(&mut self, id: FlowId, bytes: usize) -> Vec<(Arrival, Vec<u8>)> {
        let (mut got, mut batch) = (Vec::new(), Batch::default());
        loop {
            match self.sockets.receive(id, &mut batch) {
                Ok(_) => got.extend(batch.iter().map(|(arrival, bytes)| (arrival, bytes.to_vec()))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(id),
                Err(error) => panic!("{error}"),
            }
            if got.iter().map(|(_, got)| got.len()).sum::<usize>() >= bytes && !got.is_empty() {
                return got;
            }
        }
    }

    #[track_caller]
    fn error(&mut self, id: FlowId) -> Reported {
        loop {
            match self.sockets.icmp_error(id) {
                Some(error) => return error,
                None => self.wait(id),
            }
        }
    }
}

/// The datagrams of what arrived.
fn cut(got: &[(Arrival, Vec<u8>)]) -> Vec<Vec<u8>> {
    let parts = |(arrival, bytes): &(Arrival, Vec<u8>)| match bytes.len() {
        0 => vec![Vec::new()],
        _ => bytes.chunks(arrival.size).map(<[u8]>::to_vec).collect(),
    };
    got.iter().flat_map(parts).collect()
}

#[test]
fn nu_12_datagrams_keep_their_boundaries_from_none_to_the_largest() {
    let (peer, to) = peer();
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.udp(id);
    let mut buffer = vec![0; 66_000];
    for size in [0, 1, 1_472, 9_000, 65_507] {
        world.send(id, run(to, size, &vec![9; size]));
        let (len, from) = peer.recv_from(&mut buffer).expect("the datagram");
        assert_eq!(len, size);
        peer.send_to(&buffer[..len], from).expect("an answer");
        let got = world.receive(id, size);
        assert_eq!((got.len(), got[0].1.len(), got[0].0.from), (1, size, to));
    }
}

#[test]
fn nu_1_one_socket_sends_to_many_and_hears_from_each_of_them() {
    let peers: Vec<_> = (0..10).map(|_| peer()).collect();
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.udp(id);
    let runs: Vec<_> = peers.iter().map(|(_, to)| run(*to, 5, b"hello")).collect();
    assert_eq!(world.sockets.send(id, &runs).expect("datagrams that leave"), 10, "in one call");
    let mut buffer = [0; 10];
    let mut sources = Vec::new();
    for (peer, _) in &peers {
        let (_, from) = peer.recv_from(&mut buffer).expect("the datagram");
        peer.send_to(b"answer", from).expect("an answer");
        sources.push(from);
    }
    sources.dedup();
    assert_eq!(sources.len(), 1, "one address and port for all");
    let mut from: Vec<_> = world.receive(id, 60).iter().map(|(arrival, _)| arrival.from).collect();
    let mut all: Vec<_> = peers.iter().map(|(_, at)| *at).collect();
    from.sort();
    all.sort();
    assert_eq!(from, all);
}

#[test]
fn nu_12_runs_of_many_datagrams_are_one_message_and_arrive_as_many() {
    let (peer, to) = peer();
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.udp(id);
    let bytes: Vec<u8> = (0..40_000usize).map(|at| (at % 251) as u8).collect();
    for size in [1_000, 1_472, 39_999] {
        world.send(id, run(to, size, &bytes));
        let mut buffer = vec![0; 66_000];
        for part in bytes.chunks(size) {
            let len = peer.recv(&mut buffer).expect("a datagram");
            assert!(buffer[..len] == *part, "{len} of {}", part.len());
        }
    }
    // What is larger than a device carries at once is refused as a run, and sent one by one.
    let large = vec![1; 60_000];
    let sent = world.sockets.send(id, &[run(to, 30_000, &large)]).expect("datagrams that leave");
    assert_eq!(sent, 2);
}

#[test]
fn nu_12_datagrams_of_equal_size_arrive_together_and_can_be_told_apart() {
    let (peer, to) = peer();
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.udp(id);
    world.send(id, run(to, 1, b"x"));
    let (_, from) = peer.recv_from(&mut [0; 10]).expect("the datagram");
    // The peer sends as we do, so the kernel hands over what it never cut.
    setsockopt(&peer, sockopt::UdpGsoSegment, &1_000).expect("a kernel with UDP GSO");
    let bytes: Vec<u8> = (0..10_500usize).map(|at| (at % 251) as u8).collect();
    peer.send_to(&bytes, from).expect("room");
    setsockopt(&peer, sockopt::UdpGsoSegment, &0).expect("a kernel with UDP GSO");
    peer.send_to(b"alone", from).expect("room");
    let got = world.receive(id, 10_505);
    let expected: Vec<_> = bytes.chunks(1_000).map(<[u8]>::to_vec).chain([b"alone".to_vec()]).collect();
    assert_eq!(cut(&got), expected);
    assert!(got.len() < expected.len(), "some came together: {}", got.len());
}

#[test]
fn many_that_wait_are_received_in_batches() {
    let (peer, to) = peer();
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.udp(id);
    world.send(id, run(to, 1, b"x"));
    let (_, from) = peer.recv_from(&mut [0; 10]).expect("the datagram");
    // Sizes that differ, so that none come together.
    for number in 1..=50 {
        peer.send_to(&vec![7; number], from).expect("room");
    }
    world.wait(id);
    let mut batch = Batch::default();
    assert!(world.sockets.receive(id, &mut batch).expect("datagrams"), "there is more");
    assert_eq!(batch.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), (1..=32).collect::<Vec<_>>());
    assert!(!world.sockets.receive(id, &mut batch).expect("the rest"));
    assert_eq!(batch.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), (33..=50).collect::<Vec<_>>());
}

#[test]
fn x7_time_to_live_and_type_of_service_pass_both_ways() {
    let mut world = World::new(set_peek_offset);
    let (here, there) = (flow(1), flow(2));
    world.udp(here);
    let at = world.sockets.bind(there, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    for (ttl, tos) in [(1, 0), (63, 0xb8), (255, 0x03)] {
        let marks = Marks { ttl, tos, dont_fragment: true };
        world.send(here, Run { marks, ..run(at, 5, b"hello") });
        let (arrival, _) = world.receive(there, 5).remove(0);
        assert_eq!((arrival.ttl, arrival.tos), (ttl, tos));
        // And back to where it came from.
        world.send(there, Run { marks, ..run(arrival.from, 5, b"hello") });
        let (arrival, _) = world.receive(here, 5).remove(0);
        assert_eq!((arrival.ttl, arrival.tos, arrival.from), (ttl, tos, at));
    }
}

#[test]
fn a_listener_knows_to_which_address_it_was_sent_and_answers_from_there() {
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    let at = world.sockets.bind(id, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).expect("a free port");
    let (client, client_at) = peer();
    for own in [Ipv4Addr::new(127, 0, 0, 5), Ipv4Addr::new(127, 7, 7, 7)] {
        client.send_to(b"hello", (own, at.port())).expect("room");
        let (arrival, bytes) = world.receive(id, 5).remove(0);
        assert_eq!((arrival.from, arrival.to, &bytes[..]), (client_at, Some(own.into()), &b"hello"[..]));
        world.send(id, Run { from: arrival.to, ..run(client_at, 5, b"reply") });
        let (_, from) = client.recv_from(&mut [0; 10]).expect("the answer");
        assert_eq!(from, SocketAddr::from((own, at.port())));
    }
    let taken = world.sockets.bind(flow(2), at).expect_err("a port that is taken");
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn ni_6_a_closed_port_is_told_by_the_error_queue_with_its_destination() {
    let (peer, open) = peer();
    let (closing, to) = self::peer();
    drop(closing);
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.udp(id);
    world.send(id, run(to, 8, b"anybody?"));
    let error = world.error(id);
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let icmp = HostIcmp { kind: 3, code: 3, mtu: 0, offender: Some(from) };
    assert_eq!(error, Reported { to, icmp, echo: None });
    assert_eq!(world.sockets.icmp_error(id), None, "it is told once");
    world.send(id, run(open, 3, b"you"));
    assert_eq!(peer.recv(&mut [0; 10]).expect("others are not harmed"), 3);
}

#[test]
fn nu_8_a_datagram_that_must_not_be_cut_says_how_large_it_may_be() {
    let (peer, to) = peer();
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.udp(id);
    let too_large = world.sockets.send(id, &[run(to, 65_508, &vec![0; 65_508])]).expect_err("no datagram is as large");
    assert_eq!(too_large.kind(), io::ErrorKind::InvalidInput);
    // A path of this machine's loopback, with the smallest MTU that it might have: the largest datagram fits 65,535 bytes.
    let marks = Marks { dont_fragment: true, ..PLAIN };
    let whole = vec![0; 65_507];
    match world.sockets.send(id, &[Run { marks, ..run(to, 65_507, &whole) }]) {
        Ok(_) => assert_eq!(peer.recv(&mut vec![0; 66_000]).expect("the datagram"), 65_507),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let told = world.error(id);
            // The kernel has forgotten the port.
            let told_to = (told.to.ip(), told.icmp.kind, told.icmp.code, told.icmp.offender);
            assert_eq!(told_to, (to.ip(), 3, 4, None));
            assert!(told.icmp.mtu >= 1_280, "{told:?}");
        }
    }
}

#[test]
fn a_broadcast_is_refused_by_the_host() {
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.udp(id);
    let to = SocketAddr::from((Ipv4Addr::new(127, 255, 255, 255), 9));
    let error = world.sockets.send(id, &[run(to, 1, b"x")]).expect_err("nobody asked the kernel to allow it");
    assert_eq!(HostError::from(&error), HostError::Prohibited);
}

#[test]
fn numbers_of_endpoints_that_ended_reach_no_socket() {
    let mut world = World::new(set_peek_offset);
    let (old, new) = (FlowId::from_bits(5), FlowId::from_bits(5 | 1 << 32));
    let (_peer, to) = peer();
    world.udp(new);
    assert!(world.sockets.send(old, &[run(to, 1, b"x")]).is_err());
    world.sockets.close(old);
    world.send(new, run(to, 1, b"x"));
}

#[test]
fn ni_1_pings_are_sent_where_the_host_lets_its_user() {
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    match world.sockets.open(id, Proto::Icmp, false) {
        Ok(()) => {}
        Err(HostError::NoPing) => {
            println!("skipped: net.ipv4.ping_group_range lets this user send no pings");
            return;
        }
        Err(error) => panic!("{error:?}"),
    }
    let request = [8, 0, 0, 0, 0x12, 0x34, 0, 5, b'h', b'i'];
    let marks = Marks { ttl: 17, tos: 0x28, dont_fragment: false };
    world.send(id, Run { marks, ..run(to, 10, &request) });
    let (arrival, reply) = world.receive(id, 10).remove(0);
    assert_eq!((reply.len(), reply[0], &reply[6..10]), (10, 0, &[0, 5, b'h', b'i'][..]));
    assert_eq!(arrival.from, to);
    assert!(arrival.ttl >= 64, "the real one: {}", arrival.ttl);
}
