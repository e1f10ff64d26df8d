//! The world of these tests: the gateway 10.0.0.1/24 with MTU 1500, containers A (.2), B (.3) and C (.4), a clock, and
//! the frames that come out, each as one line.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tapswitch_nat::{Config, Gateway, NeighbourState, Outcome, Service};
use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{ChecksumState, DropReason, Frame, Instant, Mac, Meta, Recorded, Unheard, checksum, render};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
pub const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// How a frame that is taken in, passed on or dropped is expected to end.
pub const UPLINK: Outcome = Outcome::Uplink;
pub const REPLY: Outcome = Outcome::Reply;
pub const fn drop(reason: DropReason) -> Outcome {
    Outcome::Drop(reason)
}

pub fn config() -> Config {
    Config {
        mac: mac(GATEWAY),
        ip: GATEWAY,
        subnet: "10.0.0.0/24".parse().unwrap(),
        mtu: 1500,
        uplink: true,
        services: vec![Service::Dhcp, Service::Port(53)],
        verify_source: true,
        isolate: false,
        routes: Vec::new(),
        peers: Vec::new(),
        translated: false,
        point_to_point: None,
    }
}

pub struct World {
    pub gateway: Gateway,
    pub now: Instant,
    pub sent: Vec<(Meta, Vec<u8>)>,
    pub journey: Recorded,
    /// The last frame that was handed in, as the gateway left it.
    pub left: Vec<u8>,
}

impl World {
    pub fn new() -> World {
        World::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> World {
        let mut config = config();
        change(&mut config);
        World {
            gateway: Gateway::new(config, 7),
            now: Instant::from_secs(1000),
            sent: Vec::new(),
            journey: Recorded::default(),
            left: Vec::new(),
        }
    }

    /// A world in which these hosts have just asked for the gateway, and so are known to it.
    pub fn knowing(hosts: &[Ipv4Addr]) -> World {
        let mut world = World::new();
        for host in hosts {
            world.meet(*host);
        }
        world
    }

    pub fn meet(&mut self, host: Ipv4Addr) {
        assert_eq!(self.rx(&who_has(GATEWAY, host)).0, REPLY);
    }

    /// Hands in a frame; what comes out, as lines.
    pub fn rx(&mut self, frame: &[u8]) -> (Outcome, Vec<String>) {
        self.rx_meta(Meta::PLAIN, frame)
    }

    pub fn rx_meta(&mut self, meta: Meta, frame: &[u8]) -> (Outcome, Vec<String>) {
        let mut bytes = frame.to_vec();
        let mut parsed = match Frame::parse(meta, &mut bytes[..]) {
            Ok(parsed) => parsed,
            // Refused before the gateway sees it.
            Err(reason) => return (Outcome::Drop(reason), Vec::new()),
        };
        let (sent, mut new) = (&mut self.sent, Vec::new());
        let mut out = |meta: &Meta, frame: &[u8]| {
            sent.push((*meta, frame.to_vec()));
            new.push(render(meta, frame));
        };
        let outcome = self.gateway.handle(&mut parsed, self.now, &mut self.journey, &mut out);
        self.left = bytes;
        (outcome, new)
    }

    /// Sends as the uplink does.
    pub fn send(&mut self, frame: &[u8], hop: Ipv4Addr) -> (Result<(), DropReason>, Vec<String>) {
        let (mut frame, mut new) = (frame.to_vec(), Vec::new());
        let mut out = |meta: &Meta, frame: &[u8]| new.push(render(meta, frame));
        let result = self.gateway.send(&mut frame, &Meta::PLAIN, hop, self.now, &mut Unheard, &mut out);
        (result, new)
    }

    /// Lets time pass, polling whenever the gateway asks for it; each line begins with the milliseconds passed.
    pub fn pass(&mut self, time: Duration) -> Vec<String> {
        let (start, end) = (self.now, self.now + time);
        let mut lines = Vec::new();
        while let Some(next) = self.gateway.deadline().filter(|next| *next <= end) {
            assert!(next >= self.now, "the deadline lies in the past");
            self.now = next;
            let at = (next - start).as_millis();
            let mut out = |meta: &Meta, frame: &[u8]| {
                self.sent.push((*meta, frame.to_vec()));
                lines.push(format!("{at} {}", render(meta, frame)));
            };
            self.gateway.poll(next, &mut out);
            assert!(self.gateway.deadline() != Some(next), "polling at the deadline must move it");
        }
        self.now = end;
        lines
    }

    pub fn pass_secs(&mut self, secs: u64) -> Vec<String> {
        self.pass(Duration::from_secs(secs))
    }

    /// The neighbour table: address, state, age.
    pub fn neighbours(&self) -> Vec<(IpAddr, NeighbourState, u64)> {
        self.gateway.neighbours(self.now).into_iter().map(|n| (n.ip, n.state, n.age)).collect()
    }

    pub fn last(&self) -> &[u8] {
        &self.sent.last().expect("nothing was sent").1
    }
}

pub fn mac(ip: Ipv4Addr) -> Mac {
    Mac::from_ipv4(ip)
}

/// From a host to the gateway.
pub fn to_gateway(from: Ipv4Addr) -> Link {
    Link { src: mac(from), dst: mac(GATEWAY) }
}

pub fn ip(src: Ipv4Addr, dst: Ipv4Addr, ttl: u8) -> Ip {
    Ip { src: src.into(), dst: dst.into(), ttl, tos: 0, id: 0x1234 }
}

pub fn who_has(target: Ipv4Addr, from: Ipv4Addr) -> Vec<u8> {
    let arp = Arp { operation: 1, sha: mac(from), spa: from, tha: Mac::ZERO, tpa: target };
    arp_frame(Mac::BROADCAST, arp)
}

pub fn is_at(from: Ipv4Addr, mac_address: Mac) -> Vec<u8> {
    let arp = Arp { operation: 2, sha: mac_address, spa: from, tha: mac(GATEWAY), tpa: GATEWAY };
    arp_frame(mac(GATEWAY), arp)
}

pub fn arp_frame(dst: Mac, arp: Arp) -> Vec<u8> {
    let mut frame = Vec::new();
    build::arp(&mut frame, Link { src: arp.sha, dst }, arp);
    frame
}

pub fn udp(header: Ip, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let IpAddr::V4(src) = header.src else { panic!("IPv4 only") };
    let mut frame = Vec::new();
    build::udp(&mut frame, to_gateway(src), header, src_port, dst_port, payload);
    frame
}

pub fn icmp(header: Ip, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let IpAddr::V4(src) = header.src else { panic!("IPv4 only") };
    let mut frame = Vec::new();
    build::icmp(&mut frame, to_gateway(src), header, kind, code, [0, 7, 0, 1], body);
    frame
}

pub fn ping(src: Ipv4Addr, dst: Ipv4Addr, ttl: u8) -> Vec<u8> {
    icmp(ip(src, dst, ttl), 8, 0, b"abcdefgh")
}

/// A TCP segment with a complete checksum.
pub fn tcp(header: Ip, dst_port: u16, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (meta, mut frame) = tcp_partial(header, dst_port, seq, ack, flags, payload);
    let (mut meta, end) = (meta, frame.len());
    checksum::complete(&mut meta, &mut frame, end).unwrap();
    frame
}

pub fn tcp_partial(header: Ip, dst_port: u16, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> (Meta, Vec<u8>) {
    let IpAddr::V4(src) = header.src else { panic!("IPv4 only") };
    let tcp = Tcp { src_port: 40_000, dst_port, seq, ack, flags, window: 1000, options: &[] };
    let mut frame = Vec::new();
    let meta = build::tcp(&mut frame, to_gateway(src), header, tcp, payload.len());
    frame.extend_from_slice(payload);
    (meta, frame)
}

/// Gives the IPv4 header these options, a multiple of four bytes.
pub fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(34..34, options.iter().copied());
    let total = (frame.len() - 14) as u16;
    frame[14] += (options.len() / 4) as u8;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    fix_header(frame)
}

/// Changes bytes of the IPv4 packet, counted from its beginning, and makes the header checksum right again.
pub fn patched(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
    fix_header(frame)
}

fn fix_header(mut frame: Vec<u8>) -> Vec<u8> {
    let header = 14..14 + usize::from(frame[14] & 0x0f) * 4;
    frame[24..26].copy_from_slice(&[0, 0]);
    let check = checksum::checksum(0, &frame[header]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame
}

/// With another destination MAC address.
pub fn sent_to(frame: &[u8], dst: Mac) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&dst.0);
    frame
}

/// With an 802.1Q tag.
pub fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let [high, low] = tci.to_be_bytes();
    frame.splice(12..12, [0x81, 0x00, high, low]);
    frame
}

pub fn partial(start: u16, offset: u16) -> Meta {
    Meta { checksum: ChecksumState::Partial { start, offset }, gso: None }
}
