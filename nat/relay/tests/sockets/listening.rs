//! Sockets that listen, and what they accept.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use tapswitch_link::socket::set_peek_offset;
use tapswitch_relay::StreamHost;

use crate::{LIMIT, World, flow};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[test]
fn clients_are_accepted_and_what_they_said_before_is_not_lost() {
    let mut world = World::new(set_peek_offset);
    let at = world.sockets.listen(flow(1), ANY_PORT).expect("a free port");
    assert_ne!(at.port(), 0);
    assert_eq!(world.sockets.accept(flow(1), flow(2)).expect_err("nobody yet").kind(), io::ErrorKind::WouldBlock);
    let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(at).expect("a connection")).collect();
    clients[0].write_all(b"early").expect("room");
    world.wait(flow(1));
    for (number, client) in clients.iter().enumerate() {
        let peer = loop {
            match world.sockets.accept(flow(1), flow(2 + number as u64)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => world.wait(flow(1)),
                result => break result.expect("a client"),
            }
        };
        assert_eq!(peer, client.local_addr().expect("its address"));
    }
    world.wait(flow(2));
    let mut early = [0; 10];
    assert_eq!(world.sockets.peek(flow(2), 0, &mut early).expect("what it said"), 5);
    assert_eq!(world.sockets.write(flow(4), b"answer").expect("room"), 6);
    let mut answer = [0; 6];
    clients[2].set_read_timeout(Some(LIMIT)).expect("a limit");
    clients[2].read_exact(&mut answer).expect("the answer");
    assert_eq!(&answer, b"answer");
    // What was accepted goes on without the listener.
    world.sockets.close_stream(flow(1), false);
    assert!(TcpStream::connect(at).is_err(), "nobody listens");
    assert_eq!(world.sockets.write(flow(3), b"x").expect("room"), 1);
    // A reset is one for the client.
    world.sockets.close_stream(flow(3), true);
    clients[1].set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut rest = Vec::new();
    assert_eq!(clients[1].read_to_end(&mut rest).expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_port_that_is_taken_is_refused_and_one_that_lingers_is_not() {
    let mut world = World::new(set_peek_offset);
    let taken = TcpListener::bind(ANY_PORT).expect("a free port");
    let at = taken.local_addr().expect("its address");
    assert_eq!(world.sockets.listen(flow(1), at).expect_err("it is taken").kind(), io::ErrorKind::AddrInUse);
    let _client = TcpStream::connect(at).expect("a connection");
    // The listening end closes first, so that it is the one that lingers.
    drop(taken.accept().expect("the client"));
    drop(taken);
    assert_eq!(world.sockets.listen(flow(1), at).expect("nobody listens there now"), at);
}

#[test]
fn a_near_service_is_connected_at_once_and_a_closed_port_refused_at_once() {
    let mut world = World::new(set_peek_offset);
    let listener = TcpListener::bind(ANY_PORT).expect("a free port");
    let to = listener.local_addr().expect("its address");
    assert_eq!(world.sockets.connect(flow(1), to), Ok(true), "loopback answers within the call");
    drop(listener);
    assert_eq!(world.sockets.connect(flow(2), to), Err(tapswitch_relay::HostError::Refused));
}

#[test]
fn tr_5_room_is_what_the_socket_takes_and_none_when_it_is_full() {
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    let _server = world.pair(id);
    let mut claims = Vec::new();
    loop {
        let room = world.sockets.room(id);
        claims.push(room);
        let mut written = 0;
        // What it claims, it takes.
        while written < room {
            match world.sockets.write(id, &vec![7; (room - written).min(65_000)]) {
                Ok(len) => written += len,
                Err(error) => panic!("{error} behind {written} of {room} bytes, after {claims:?}"),
            }
        }
        if room < 1_000 {
            break;
        }
    }
    assert!(claims[0] > 10_000, "an empty socket takes something: {claims:?}");
    // A socket that cannot be asked takes nothing.
    assert_eq!(world.sockets.room(flow(9)), 0);
}

#[test]
fn a_finished_stream_is_seen_behind_a_short_read() {
    let mut world = World::new(set_peek_offset);
    let mut server = world.pair(flow(1));
    server.write_all(b"last words").expect("room");
    drop(server);
    // Both came before anybody looked: the event says that there is more than the bytes.
    let mut ended = false;
    while !ended {
        world.wait(flow(1));
        ended = world.events.iter().any(|event| event.is_read_closed());
    }
    let mut buffer = [0; 100];
    assert_eq!(world.sockets.peek(flow(1), 0, &mut buffer).expect("the words"), 10);
    assert_eq!(world.sockets.peek(flow(1), 10, &mut buffer).expect("the end"), 0);
}

#[test]
fn tr_11_urgent_data_of_the_outside_is_told_and_read_in_line() {
    let mut world = World::new(set_peek_offset);
    let server = world.pair(flow(1));
    (&server).write_all(b"before").expect("room");
    let urgent = socket2::SockRef::from(&server);
    urgent.send_out_of_band(b"!").expect("room");
    (&server).write_all(b"after").expect("room");
    // A reader that stops at a short read must be told that it is not all.
    let mut told = false;
    while !told {
        world.wait(flow(1));
        told = world.events.iter().any(|event| event.is_priority());
    }
    let mut got = Vec::new();
    while got.len() < 12 {
        let mut buffer = [0; 100];
        match world.sockets.peek(flow(1), got.len(), &mut buffer) {
            Ok(len) => got.extend_from_slice(&buffer[..len]),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                world.wait(flow(1));
            }
        }
    }
    assert_eq!(got, b"before!after");
}
