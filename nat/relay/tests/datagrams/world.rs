//! Containers that send datagrams, and what they get.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use tapswitch_relay::{Arrival, Config, FlowView, Limits, Policy, Readiness, Refusal, Relay};
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{
    ChecksumState, DropReason, Emit, FrameRef, Gso, GsoKind, Instant, Mac, Meta, PortId, Unheard, checksum, fragment,
    render, segment,
};

use crate::script::{Script, Sent};

pub const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const RESOLVER: &str = "127.0.0.53:53";
pub const PORT: PortId = PortId(1);
pub const MTU: u16 = 1500;

/// A packet that a container got, after a port without offloads has cut it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    Udp {
        from: SocketAddrV4,
        to: SocketAddrV4,
        ttl: u8,
        tos: u8,
        payload: Vec<u8>,
    },
    /// Type, code, who sent it, time to live, and everything behind the first four bytes.
    Icmp {
        kind: u8,
        code: u8,
        from: Ipv4Addr,
        ttl: u8,
        rest: Vec<u8>,
    },
    /// Offset, whether more follow, payload.
    Fragment {
        offset: usize,
        more: bool,
        bytes: Vec<u8>,
    },
}

/// What a container sends, beside the addresses.
#[derive(Clone, Copy)]
pub struct How {
    pub src: SocketAddrV4,
    pub port: PortId,
    pub ttl: u8,
    pub tos: u8,
    pub dont_fragment: bool,
    /// Datagrams of so many bytes, as one super-frame.
    pub gso: Option<u16>,
}

pub const HOW: How =
    How { src: SocketAddrV4::new(CONTAINER, 5_000), port: PORT, ttl: 63, tos: 0, dont_fragment: true, gso: None };

/// From another port of the container.
pub fn from(port: u16) -> How {
    How { src: SocketAddrV4::new(CONTAINER, port), ..HOW }
}

pub struct World {
    pub relay: Relay<Script>,
    pub now: Instant,
    /// Frames that the engine sent, as it sent them.
    pub frames: Vec<(Meta, Vec<u8>)>,
}

impl World {
    pub fn new() -> World {
        World::limited(Limits::default())
    }

    pub fn limited(limits: Limits) -> World {
        let policy = Policy {
            gateway: GATEWAY.into(),
            resolver: Some(RESOLVER.parse().expect("an address")),
            allow: vec!["127.0.0.1:8080".parse().expect("a rule")],
            deny: vec!["10.0.0.0/24".parse().expect("a network")],
        };
        let config = Config { mac: Mac::from_ipv4(GATEWAY), mtu: MTU, policy, limits };
        World { relay: Relay::new(config, Script::default()), now: Instant::from_secs(100), frames: Vec::new() }
    }

    /// A container sends a UDP datagram, or a super-frame. The turn does not end.
    pub fn put(&mut self, how: How, to: (Ipv4Addr, u16), payload: &[u8]) -> Result<(), Refusal> {
        let (meta, frame) = udp(how, SocketAddrV4::new(to.0, to.1), payload);
        self.frame(how.port, meta, &frame)
    }

    /// The same, and the turn ends.
    #[track_caller]
    pub fn send(&mut self, how: How, to: (Ipv4Addr, u16), payload: &[u8]) {
        self.put(how, to, payload).expect("a datagram that may pass");
        self.turn();
    }

    /// A container sends a ping. The turn does not end.
    pub fn ping(&mut self, id: u16, seq: u16, to: Ipv4Addr, body: &[u8]) -> Result<(), Refusal> {
        let ip = Ip { src: CONTAINER.into(), dst: to.into(), ttl: 63, tos: 0x10, id: 0 };
        let ([a, b], [c, d]) = (id.to_be_bytes(), seq.to_be_bytes());
        let mut frame = Vec::new();
        build::icmp(&mut frame, link(), ip, 8, 0, [a, b, c, d], body);
        self.frame(PORT, Meta::PLAIN, &frame)
    }

    pub fn frame(&mut self, port: PortId, meta: Meta, bytes: &[u8]) -> Result<(), Refusal> {
        let frame = FrameRef::parse(meta, bytes).expect("a sound frame");
        let frames = &mut self.frames;
        let mut emit = |meta: &Meta, frame: &[u8]| frames.push((*meta, frame.to_vec()));
        self.relay.handle(port, &frame, self.now, &mut Unheard, &mut emit)
    }

    /// Ends turns until nothing is left to do at this moment.
    pub fn turn(&mut self) {
        for turn in 0.. {
            assert!(turn < 1_000, "the engine runs in circles");
            let frames = &mut self.frames;
            let mut emit = |meta: &Meta, frame: &[u8]| frames.push((*meta, frame.to_vec()));
            self.relay.poll(self.now, &mut emit);
            if !self.relay.is_busy() {
                return;
            }
        }
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.relay.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.turn();
        }
        self.now = end;
    }

    /// Something arrives at the latest socket. The engine is told, and the turn ends.
    pub fn arrive(&mut self, from: impl Into<SocketAddr>, bytes: &[u8]) -> Vec<Got> {
        let arrival = arrival(from.into(), bytes.len());
        self.relay.host().last().inbox.push_back((arrival, bytes.to_vec()));
        self.event()
    }

    /// The latest socket has something. What the containers get.
    pub fn event(&mut self) -> Vec<Got> {
        let id = *self.relay.host().opened.last().expect("a socket was opened");
        self.told(id);
        self.got()
    }

    /// A socket has something.
    pub fn told(&mut self, id: tapswitch_relay::FlowId) {
        let frames = &mut self.frames;
        let mut emit = |meta: &Meta, frame: &[u8]| frames.push((*meta, frame.to_vec()));
        let ready = Readiness { readable: true, error: true, ..Readiness::default() };
        self.relay.host_event(id, ready, self.now, &mut emit);
        self.turn();
    }

    /// What the containers got since this was asked last.
    pub fn got(&mut self) -> Vec<Got> {
        let mut all = Vec::new();
        for (meta, frame) in std::mem::take(&mut self.frames) {
            let mut read = |_: &Meta, frame: &[u8]| all.push(read(frame));
            segment::segment(&meta, &frame, &mut Vec::new(), &mut read).expect("a frame that can be cut");
        }
        all
    }

    /// What the latest socket was given.
    pub fn sent(&mut self) -> Vec<Sent> {
        self.relay.host().last().sent.clone()
    }

    pub fn sockets(&mut self) -> usize {
        self.relay.host().sockets.len()
    }

    pub fn flows(&self) -> Vec<FlowView> {
        self.relay.flows(self.now)
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.relay.drops().get(reason)
    }
}

pub fn arrival(from: SocketAddr, size: usize) -> Arrival {
    Arrival { from, to: None, ttl: 57, tos: 0x2e, size, len: 0 }
}

pub fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((ip, port))
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Bytes in which no two neighbourhoods look alike.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8).wrapping_mul(31)) as u8).collect()
}

fn link() -> Link {
    Link { src: Mac::from_ipv4(CONTAINER), dst: Mac::from_ipv4(GATEWAY) }
}

/// A frame of a container.
pub fn udp(how: How, to: SocketAddrV4, payload: &[u8]) -> (Meta, Vec<u8>) {
    let src = how.src;
    let ip = Ip { src: (*src.ip()).into(), dst: (*to.ip()).into(), ttl: how.ttl, tos: how.tos, id: 9 };
    let mut frame = Vec::new();
    build::udp(&mut frame, link(), ip, src.port(), to.port(), payload);
    if !how.dont_fragment {
        frame[20] &= !0x40;
        frame[24..26].fill(0);
        let check = checksum::checksum(0, &frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_be_bytes());
    }
    let mut meta = Meta::PLAIN;
    if let Some(size) = how.gso {
        meta.gso = Some(Gso { kind: GsoKind::Udp, size, ecn: false });
        meta.checksum = ChecksumState::Partial { start: 34, offset: 6 };
        let pseudo = checksum::pseudo_header(ip.src, ip.dst, 17, 8 + payload.len() as u32);
        frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
    }
    (meta, frame)
}

/// The same in fragments.
pub fn fragments(how: How, to: SocketAddrV4, payload: &[u8], id: u16) -> Vec<Vec<u8>> {
    let (_, frame) = udp(How { dont_fragment: false, ..how }, to, payload);
    let mut all = Vec::new();
    let mut keep = |_: &Meta, frame: &[u8]| all.push(frame.to_vec());
    cut(&frame, id, &mut keep);
    all
}

fn cut(frame: &[u8], id: u16, out: &mut impl Emit) {
    fragment::split(&Meta::PLAIN, frame, MTU, id, &mut Vec::new(), out).expect("a frame that can be cut");
}

/// What a container may believe: sound by a parser that is not ours, each checksum right, nothing above the MTU.
fn read(frame: &[u8]) -> Got {
    let shown = || render(&Meta::PLAIN, frame);
    assert!(frame.len() <= usize::from(MTU) + 14, "above the MTU: {}", shown());
    let packet = SlicedPacket::from_ethernet(frame).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("not IPv4: {}", shown()) };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "{}", shown());
    let (src, dst) = (Ipv4Addr::from(header.source), Ipv4Addr::from(header.destination));
    if header.is_fragmenting_payload() {
        assert!(!header.dont_fragment, "a fragment that must not be one");
        return Got::Fragment {
            offset: usize::from(header.fragment_offset.value()) * 8,
            more: header.more_fragments,
            bytes: ip.payload().payload.to_vec(),
        };
    }
    match packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            let check = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).expect("no larger than a packet");
            assert_eq!(check, udp.checksum(), "{}", shown());
            Got::Udp {
                from: SocketAddrV4::new(src, udp.source_port()),
                to: SocketAddrV4::new(dst, udp.destination_port()),
                ttl: header.time_to_live,
                tos: frame[15],
                payload: udp.payload().to_vec(),
            }
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            assert_eq!(checksum::sum(icmp.slice()), 0xffff, "{}", shown());
            assert_eq!(dst, CONTAINER);
            let rest = icmp.slice()[4..].to_vec();
            let (kind, code) = (icmp.type_u8(), icmp.code_u8());
            Got::Icmp { kind, code, from: src, ttl: header.time_to_live, rest }
        }
        _ => panic!("neither UDP nor ICMP: {}", shown()),
    }
}

/// The payloads of datagrams from this source to the container's usual port.
#[track_caller]
pub fn payloads(got: &[Got], source: SocketAddr) -> Vec<Vec<u8>> {
    let payload = |got: &Got| match got {
        Got::Udp { from, to, payload, .. } => {
            assert_eq!((SocketAddr::V4(*from), *to), (source, HOW.src));
            payload.clone()
        }
        other => panic!("{other:?}"),
    };
    got.iter().map(payload).collect()
}
