//! UDP and ping sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use tapswitch_link::socket::set_peek_offset;
use tapswitch_relay::{DatagramHost, HostError, HostIcmp, Proto};

use super::{LIMIT, World, flow};

#[test]
fn datagrams_keep_their_boundaries() {
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    peer.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.sockets.open(id, Proto::Udp, peer.local_addr().expect("its address")).expect("a socket");
    let mut buffer = [0; 2_000];
    for size in [0, 1, 1_472] {
        world.sockets.send(id, 64, &vec![9; size]).expect("a datagram that leaves");
        let (len, from) = peer.recv_from(&mut buffer).expect("the datagram");
        assert_eq!(len, size);
        peer.send_to(&buffer[..len], from).expect("an answer");
        let len = loop {
            match world.sockets.recv(id, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => world.wait(id),
                result => break result.expect("the answer"),
            }
        };
        assert_eq!(len, size);
    }
}

#[test]
fn ni_6_a_closed_port_is_told_by_the_error_queue() {
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let to = peer.local_addr().expect("its address");
    drop(peer);
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.sockets.open(id, Proto::Udp, to).expect("a socket");
    world.sockets.send(id, 64, b"anybody?").expect("a datagram that leaves");
    let error = loop {
        match world.sockets.icmp_error(id) {
            Some(error) => break error,
            None => world.wait(id),
        }
    };
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    assert_eq!(error, HostIcmp { kind: 3, code: 3, mtu: 0, offender: Some(from) });
    assert_eq!(world.sockets.icmp_error(id), None, "it is told once");
    world.sockets.send(id, 64, b"anybody now?").expect("the socket still works");
}

#[test]
fn ni_6_a_datagram_too_large_for_the_host_says_how_large_it_may_be() {
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    world.sockets.open(id, Proto::Udp, peer.local_addr().expect("its address")).expect("a socket");
    let error = world.sockets.send(id, 64, &vec![0; 65_508]).expect_err("no datagram is as large");
    assert_eq!(HostError::from(&error), HostError::Exhausted, "and it is no error of the network: {error}");
}

#[test]
fn ni_1_pings_are_sent_where_the_host_lets_its_user() {
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    match world.sockets.open(id, Proto::Icmp, to) {
        Ok(()) => {}
        Err(HostError::NoPing) => {
            println!("skipped: net.ipv4.ping_group_range lets this user send no pings");
            return;
        }
        Err(error) => panic!("{error:?}"),
    }
    let request = [8, 0, 0, 0, 0x12, 0x34, 0, 5, b'h', b'i'];
    world.sockets.send(id, 64, &request).expect("a ping that leaves");
    let mut reply = [0; 100];
    let len = loop {
        match world.sockets.recv(id, &mut reply) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => world.wait(id),
            result => break result.expect("a reply"),
        }
    };
    assert_eq!((len, reply[0], &reply[6..10]), (10, 0, &[0, 5, b'h', b'i'][..]));
}
