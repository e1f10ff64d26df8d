//! What idle connections cost in this process: counted, with real sockets, not believed.
//!
//! A binary of its own, because the counting allocator is everybody's.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use allocation_counter::measure;
use mio::Poll;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tapswitch_link::socket::{receive_many, send_many, send_room, set_dont_fragment, set_peek_offset};
use tapswitch_relay::{Allow, Config, Lent, Limits, Policy, Relay, Sockets};
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{FrameRef, Instant, Mac, Meta, PortId, Unheard};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVERS: usize = 5;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Listens on loopback, and accepts nobody: the kernel keeps the connections, so each costs one descriptor only.
fn server() -> (TcpListener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0).into()).expect("a free port");
    socket.listen(4_096).expect("a listener");
    let listener = TcpListener::from(socket);
    let at = listener.local_addr().expect("its address");
    (listener, at)
}

/// How many connections the limits of this process allow.
fn flows() -> u32 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("an ordinary user may raise it as far");
    10_000.min(u32::try_from(hard.saturating_sub(200)).unwrap_or(10_000))
}

struct World {
    relay: Relay<Sockets>,
    now: Instant,
    to: Vec<SocketAddr>,
    bytes: Vec<u8>,
    /// The number behind the SYN-ACK that came last.
    next: u32,
}

impl World {
    /// The container sends a segment of a connection.
    fn rx(&mut self, number: u32, flags: u8, numbers: (u32, u32), payload: &[u8]) {
        let src = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 2).to_bits() + number / 5_000);
        let to = self.to[number as usize % SERVERS];
        let link = Link { src: Mac::from_ipv4(src), dst: Mac::from_ipv4(GATEWAY) };
        let ip = Ip { src: src.into(), dst: to.ip(), ttl: 63, tos: 0, id: 0 };
        let (src_port, (seq, ack)) = (10_000 + (number % 5_000) as u16, numbers);
        let options: &[u8] = if flags == SYN { &[2, 4, 5, 180, 1, 3, 3, 7] } else { &[] };
        let tcp = build::Tcp { src_port, dst_port: to.port(), seq, ack, flags, window: 60_000, options };
        let meta = build::tcp(&mut self.bytes, link, ip, tcp, payload.len());
        self.bytes.extend_from_slice(payload);
        let frame = FrameRef::parse(meta, &self.bytes[..]).expect("a sound frame");
        let next = &mut self.next;
        let mut out = |_: &Meta, frame: &[u8]| {
            *next = u32::from_be_bytes(frame[38..42].try_into().expect("four bytes")).wrapping_add(1);
        };
        self.relay.handle(PortId(1), &frame, self.now, &mut Unheard, &mut out).expect("a frame of a connection");
    }

    /// A connection is opened and used.
    fn open(&mut self, number: u32) {
        self.rx(number, SYN, (1_000, 0), b"");
        let next = self.next;
        self.rx(number, ACK, (1_001, next), b"");
        self.rx(number, ACK, (1_001, next), &[7; 100]);
        self.relay.poll(self.now, &mut |_: &Meta, _: &[u8]| {});
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now = self.now + Duration::from_millis(100);
            self.relay.poll(self.now, &mut |_: &Meta, _: &[u8]| {});
        }
    }
}

#[test]
fn lm_4_an_idle_connection_costs_at_most_two_hundred_bytes_and_leaves_none() {
    let flows = flows();
    let servers: Vec<_> = (0..SERVERS).map(|_| server()).collect();
    let to: Vec<SocketAddr> = servers.iter().map(|(_, at)| *at).collect();
    let poll = Poll::new().expect("a poller");
    let is_own = Box::new(|_| Ok(false));
    let lent = Lent { set_peek_offset, send_room, set_dont_fragment, send_many, receive_many, is_own };
    let sockets = Sockets::new(poll.registry().try_clone().expect("its registry"), 1 << 48, lent);
    let allow = to.iter().map(|at| at.to_string().parse::<Allow>().expect("a rule")).collect();
    let policy = Policy { gateway: GATEWAY.into(), resolver: None, allow, deny: Vec::new() };
    let limits = Limits { flows: 1 << 20, flows_per_container: 1 << 20, ..Limits::default() };
    let relay = Relay::new(Config { mac: Mac::from_ipv4(GATEWAY), mtu: 1_500, policy, limits }, sockets);
    let mut world = World { relay, now: Instant::from_secs(10), to, bytes: Vec::new(), next: 0 };
    // What is allocated once, whatever comes.
    world.open(0);
    world.rx(0, RST, (1_101, 0), b"");
    let opened = measure(|| {
        for number in 0..flows {
            world.open(number);
        }
        world.pass(3);
    });
    assert_eq!(world.relay.len(), flows as usize);
    assert!(world.relay.flows(world.now).iter().all(|flow| flow.state == "established" && flow.up_bytes == 100));
    let each = |bytes: i64| bytes as f64 / f64::from(flows);
    println!(
        "{flows} flows: {:.1} bytes each, {:.1} at most",
        each(opened.bytes_current),
        each(opened.bytes_max as i64)
    );
    assert!(each(opened.bytes_current) <= 200.0, "{:.1} bytes", each(opened.bytes_current));
    let closed = measure(|| {
        for number in 0..flows {
            world.rx(number, RST, (1_101, 0), b"");
        }
        world.pass(3);
    });
    assert!(world.relay.is_empty() && world.relay.deadline().is_none());
    let left = opened.bytes_current + closed.bytes_current;
    assert!(left < 16 << 10, "{left} bytes are left");
}
