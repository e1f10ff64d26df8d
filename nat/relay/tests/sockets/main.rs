//! The real sockets of the host, over loopback: what the engine relies on is what the kernel does.

mod datagrams;
mod listening;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use mio::{Events, Poll, Token};
use tapswitch_link::routes::Routes;
use tapswitch_link::socket::{receive_many, send_many, send_room, set_dont_fragment, set_peek_offset};
use tapswitch_relay::{FlowId, Host, HostError, Lent, SetPeekOffset, Sockets, StreamHost};

/// Nothing on loopback takes as long as this.
const LIMIT: Duration = Duration::from_secs(20);
const TOKEN_BITS: u64 = 3 << 48;

/// A kernel before 6.9: streams have no offset to peek at.
fn no_peek_offset(_: BorrowedFd<'_>, _: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

struct World {
    poll: Poll,
    events: Events,
    sockets: Sockets,
}

impl World {
    fn new(set_peek_offset: SetPeekOffset) -> World {
        let poll = Poll::new().expect("a poller");
        let registry = poll.registry().try_clone().expect("its registry");
        let mut routes = Routes::open().expect("a way to ask for routes");
        let is_own = Box::new(move |ip| routes.is_own(ip));
        let lent = Lent { set_peek_offset, send_room, set_dont_fragment, send_many, receive_many, is_own };
        let sockets = Sockets::new(registry, TOKEN_BITS, lent);
        World { poll, events: Events::with_capacity(16), sockets }
    }

    /// Waits until the poller has news of this flow.
    #[track_caller]
    fn wait(&mut self, id: FlowId) {
        let token = Token((TOKEN_BITS | id.to_bits()) as usize);
        loop {
            match self.poll.poll(&mut self.events, Some(LIMIT)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.expect("a poller that works"),
            }
            assert!(!self.events.is_empty(), "nothing happens");
            if self.events.iter().any(|event| event.token() == token) {
                return;
            }
        }
    }

    /// Opens a stream to `to` and waits for how that ends.
    #[track_caller]
    fn connect(&mut self, id: FlowId, to: SocketAddr) -> Result<(), HostError> {
        if self.sockets.connect(id, to)? {
            return Ok(());
        }
        while !self.sockets.connected(id)? {
            self.wait(id);
        }
        Ok(())
    }

    /// A stream, and its other end.
    fn pair(&mut self, id: FlowId) -> TcpStream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        self.connect(id, listener.local_addr().expect("its address")).expect("a connection");
        let (server, _) = listener.accept().expect("the connection's other end");
        server.set_read_timeout(Some(LIMIT)).expect("a limit");
        server.set_write_timeout(Some(LIMIT)).expect("a limit");
        server
    }
}

fn flow(number: u64) -> FlowId {
    FlowId::from_bits(number | 7 << 32)
}

fn stream(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8).wrapping_mul(31) ^ (i >> 16).wrapping_mul(7)) as u8).collect()
}

/// Peeks, peeks again, consumes in parts that end anywhere: the same bytes at the same places, each time.
fn peek_and_consume(set_peek_offset: SetPeekOffset) {
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    let mut server = world.pair(id);
    let data = stream(1 << 20);
    let sender = thread::spawn({
        let data = data.clone();
        move || {
            for piece in data.chunks(10_007) {
                server.write_all(piece).expect("a reader");
            }
        }
    });
    let (mut consumed, mut peeked, mut round) = (0, 0, 0usize);
    let mut buffer = vec![0; 65_536];
    loop {
        round += 1;
        let room = 1 + (round * 7_919) % buffer.len();
        match world.sockets.peek(id, peeked - consumed, &mut buffer[..room]) {
            Ok(0) => break,
            Ok(len) => {
                assert!(buffer[..len] == data[peeked..peeked + len], "at {peeked}, {consumed} of it consumed");
                peeked += len;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && peeked == consumed => world.wait(id),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        let under_way = peeked - consumed;
        match round % 5 {
            // Acknowledged in part.
            0 | 1 => {
                let len = under_way / 2 + under_way % 2;
                world.sockets.consume(id, len).expect("bytes that were peeked");
                consumed += len;
            }
            // All of it, once there is much.
            2 if under_way > 200_000 => {
                world.sockets.consume(id, under_way).expect("bytes that were peeked");
                consumed = peeked;
            }
            // Lost: it is sent again.
            3 if round % 3 == 0 => peeked = consumed,
            _ => {}
        }
    }
    sender.join().expect("everything was sent");
    assert_eq!(peeked, data.len(), "the end comes behind the last byte");
    world.sockets.consume(id, peeked - consumed).expect("the rest");
    assert_eq!(world.sockets.peek(id, 0, &mut buffer).expect("the end"), 0);
}

#[test]
fn peeked_bytes_stay_until_they_are_consumed() {
    peek_and_consume(set_peek_offset);
    assert!(!World::new(set_peek_offset).sockets.must_ask_again());
}

#[test]
fn peeked_bytes_stay_until_they_are_consumed_on_a_kernel_without_peek_offset() {
    peek_and_consume(no_peek_offset);
    let mut world = World::new(no_peek_offset);
    let mut server = world.pair(flow(1));
    server.write_all(b"word").expect("a reader");
    world.wait(flow(1));
    while world.sockets.peek(flow(1), 0, &mut [0; 10]).is_err() {
        world.wait(flow(1));
    }
    drop(server);
    let behind = world.sockets.peek(flow(1), 4, &mut [0; 10]).expect_err("nothing to read");
    assert_eq!(behind.kind(), io::ErrorKind::WouldBlock);
    assert!(world.sockets.must_ask_again(), "the end cannot be seen behind what is not consumed");
}

#[test]
fn tr_1_a_closed_port_is_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let to = listener.local_addr().expect("its address");
    drop(listener);
    let mut world = World::new(set_peek_offset);
    assert_eq!(world.connect(flow(1), to), Err(HostError::Refused));
    world.sockets.close_stream(flow(1), true);
}

#[test]
fn tr_3_an_end_goes_one_way_and_data_the_other() {
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    let mut server = world.pair(id);
    assert_eq!(world.sockets.write(id, b"question").expect("room"), 8);
    world.sockets.finish(id).expect("an open stream");
    let mut question = Vec::new();
    server.read_to_end(&mut question).expect("the question and the end");
    assert_eq!(question, b"question");
    server.write_all(b"answer").expect("a reader");
    let mut answer = [0; 20];
    let len = loop {
        match world.sockets.peek(id, 0, &mut answer) {
            Ok(len) => break len,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        world.wait(id);
    };
    assert_eq!(&answer[..len], b"answer");
}

#[test]
fn tr_4_a_reset_is_seen_as_one_and_an_end_as_one() {
    let mut world = World::new(set_peek_offset);
    let mut server = world.pair(flow(1));
    world.sockets.close_stream(flow(1), true);
    let error = server.read(&mut [0; 10]).expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    let mut server = world.pair(flow(1));
    world.sockets.close_stream(flow(1), false);
    assert_eq!(server.read(&mut [0; 10]).expect("the end"), 0);
}

#[test]
fn tr_4_a_reset_of_the_other_end_is_an_error() {
    let mut world = World::new(set_peek_offset);
    let server = world.pair(flow(1));
    world.sockets.write(flow(1), b"never read").expect("room");
    // Linux answers with a reset when bytes are left unread.
    while server.peek(&mut [0; 10]).expect("the bytes") < 10 {}
    drop(server);
    let error = loop {
        match world.sockets.peek(flow(1), 0, &mut [0; 10]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => world.wait(flow(1)),
            result => break result.expect_err("a reset"),
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn tr_5_a_stream_that_is_full_says_when_it_has_room() {
    let mut world = World::new(set_peek_offset);
    let id = flow(1);
    let mut server = world.pair(id);
    let block = vec![7; 1 << 16];
    let mut written = 0;
    while let Ok(len) = world.sockets.write(id, &block) {
        written += len;
        assert!(written < 1 << 30, "a socket that never fills");
    }
    let reader = thread::spawn(move || {
        let mut read = 0;
        let mut buffer = vec![0; 1 << 16];
        while read < written {
            read += server.read(&mut buffer).expect("bytes");
        }
        server
    });
    world.wait(id);
    while world.sockets.write(id, b"more").is_err() {
        world.wait(id);
    }
    reader.join().expect("everything was read");
}

#[test]
fn numbers_of_flows_that_ended_reach_no_socket() {
    let mut world = World::new(set_peek_offset);
    let (old, new) = (FlowId::from_bits(5), FlowId::from_bits(5 | 1 << 32));
    let _server = world.pair(new);
    assert!(world.sockets.write(old, b"x").is_err());
    world.sockets.close_stream(old, true);
    assert_eq!(world.sockets.write(new, b"x").expect("the new one is still open"), 1);
}

#[test]
fn at_16_an_address_that_cannot_be_asked_for_counts_as_the_hosts_own() {
    let mut world = World::new(set_peek_offset);
    assert!(world.sockets.is_own(Ipv4Addr::LOCALHOST.into()));
    assert!(!world.sockets.is_own(Ipv4Addr::new(192, 0, 2, 1).into()));
    assert!(world.sockets.is_own(Ipv6Addr::LOCALHOST.into()), "the question failed");
}
