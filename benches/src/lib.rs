//! What the benches in memory share: frames, a switch, networks and a translator for them to cross, and the order in which
//! many stations speak.
//!
//! Everything is the same in every run but the key of the FDB's hashes, which the FDB draws for itself.

pub mod nat;

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_network::{Config, Network, Ports};
use tapswitch_relay::Sockets;
use tapswitch_switch::{PortConfig, Switch};
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{DropReason, Emit, FrameRef, Gso, GsoKind, Instant, Mac, Meta, PortId, Unheard};

/// Bytes of the frames that are measured, from the Ethernet header on. The last is a super-frame.
pub const LENGTHS: [usize; 4] = [64, 512, 1500, 65_536];

/// MTU of every port.
pub const MTU: u16 = 1500;

/// Payload bytes of a segment at that MTU: Linux sends timestamps.
pub const SEGMENT: u16 = MTU - 40 - TIMESTAMPS.len() as u16;

/// The time at which everything happens.
pub const NOW: Instant = Instant::from_secs(1);

/// Two containers and the ports they are attached to.
pub const A: PortId = PortId(1);
/// The other one.
pub const B: PortId = PortId(2);

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Two fillers and the timestamps option (RFC 7323 appendix A).
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1];

/// Bytes of the headers before the options of a TCP segment.
const HEADERS: usize = 54;

fn address(port: PortId) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(GATEWAY) + port.0)
}

/// The address of the container that is attached to this port.
pub fn mac(port: PortId) -> Mac {
    Mac::from_ipv4(address(port))
}

/// One TCP segment of an established connection, as a TAP with offloads hands it over: with a partial checksum, and above
/// the MTU as a super-frame. It has timestamps if they fit. `len` is at least 54.
pub fn segment(from: PortId, to: PortId, len: usize) -> (Meta, Vec<u8>) {
    let (src, dst) = (address(from), address(to));
    let link = Link { src: mac(from), dst: mac(to) };
    let ip = Ip { src: src.into(), dst: dst.into(), ttl: 64, tos: 0, id: 1 };
    let options: &[u8] = if len < HEADERS + TIMESTAMPS.len() { &[] } else { &TIMESTAMPS };
    let tcp = Tcp { src_port: 40_000, dst_port: 80, seq: 1, ack: 1, flags: 0x18, window: 512, options };
    let mut frame = Vec::with_capacity(len);
    let mut meta = build::tcp(&mut frame, link, ip, tcp, len.saturating_sub(HEADERS + options.len()));
    frame.resize(len, 0xa5);
    meta.gso = super_frame(len);
    (meta, frame)
}

/// How a TCP segment of so many bytes is to be cut, if it is longer than the MTU.
fn super_frame(len: usize) -> Option<Gso> {
    (len > usize::from(MTU) + 14).then_some(Gso { kind: GsoKind::Tcp4, size: SEGMENT, ecn: false })
}

/// Writes who sends to whom into a frame's Ethernet header.
pub fn readdress(frame: &mut [u8], src: Mac, dst: Mac) {
    frame[..6].copy_from_slice(&dst.0);
    frame[6..12].copy_from_slice(&src.0);
}

/// A switch that knows where both containers are.
///
/// # Panics
/// If a frame of this module cannot be parsed.
pub fn switch() -> Switch {
    let mut switch = Switch::new(Default::default());
    for port in [PortId::GATEWAY, A, B] {
        switch.add_port(port, PortConfig { mtu: MTU, isolated: false });
    }
    let mut out = Vec::new();
    for (from, to) in [(A, B), (B, A)] {
        let (meta, bytes) = segment(from, to, 64);
        let frame = FrameRef::parse(meta, &bytes[..]).expect("a frame that was just made");
        // The first is flooded, the second finds its way.
        let _ = switch.decide(from, &frame, NOW, &mut Unheard, &mut out);
    }
    switch
}

/// A network without a way out that knows where each of its containers is. They are attached to the ports from 1 to
/// `containers`, at most 4000.
///
/// # Panics
/// Never: the subnet is one.
pub fn network(containers: u32) -> Network<Sockets> {
    let config = Config {
        subnet: "10.0.0.0/20".parse().expect("a subnet"),
        gateway: GATEWAY,
        mtu: MTU,
        isolate: false,
        lease_time: Duration::from_secs(3600),
        dns: Vec::new(),
        search: Vec::new(),
        bridged: false,
        routes: Vec::new(),
        peers: Vec::new(),
    };
    let mut network = Network::new(config, None, 1, NOW, 0);
    (1..=containers).for_each(|port| network.add_port(PortId(port)));
    for port in 1..=containers {
        let (meta, mut bytes) = segment(PortId(port), PortId::GATEWAY, 64);
        network.rx(PortId(port), meta, &mut bytes, NOW, &mut Unheard, &mut Count::default(), &mut |_| {});
    }
    network
}

/// Takes frames and forgets them: what a frame costs before it is written.
#[derive(Default)]
pub struct Count(pub u64);

impl Ports for Count {
    fn tx(&mut self, _port: PortId, _meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        self.0 += frame.len() as u64;
        Ok(())
    }
}

impl Emit for Count {
    fn emit(&mut self, _meta: &Meta, frame: &[u8]) {
        self.0 += frame.len() as u64;
    }
}

/// Numbers that look random and are the same in every run (xorshift64*). A turn costs about a nanosecond and no memory,
/// which a table of them would.
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// The next number below `bound`.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * u64::from(bound)) >> 32) as u32
    }

    /// Two different ones of the ports from 1 to `ports`, which is at least 2.
    #[inline]
    pub fn pair(&mut self, ports: u32) -> (PortId, PortId) {
        let from = self.below(ports);
        let other = self.below(ports - 1);
        let to = if other < from { other } else { other + 1 };
        (PortId(from + 1), PortId(to + 1))
    }
}

#[cfg(test)]
mod tests {
    use tapswitch_wire::Verdict;

    use super::*;

    #[test]
    fn every_pair_of_a_crowd_finds_its_way() {
        let (mut network, mut random, mut ports) = (network(300), Random::default(), Count::default());
        let (meta, mut bytes) = segment(A, B, 64);
        let mut seen = [false; 301];
        for _ in 0..10_000 {
            let (from, to) = random.pair(300);
            readdress(&mut bytes, mac(from), mac(to));
            let verdict = network.rx(from, meta, &mut bytes, NOW, &mut Unheard, &mut ports, &mut |_| {});
            assert_eq!(verdict, Verdict::Forward(to));
            seen[to.0 as usize] = true;
        }
        assert!(seen[1..].iter().all(|seen| *seen), "some port got nothing");
    }

    #[test]
    fn segments_have_the_length_that_was_asked_for_and_fit_the_mtu() {
        for len in LENGTHS {
            let (meta, bytes) = segment(A, B, len);
            let frame = FrameRef::parse(meta, &bytes[..]).expect("a sound frame");
            let parsed = frame.parsed();
            assert_eq!((bytes.len(), parsed.end as usize), (len, len));
            assert!(frame.meta().packet_len(usize::from(parsed.l3_start), &bytes) <= usize::from(MTU));
        }
        assert_eq!(SEGMENT, 1448);
    }
}
