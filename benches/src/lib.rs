//! What the benches share: the frames that are measured, and a network in memory for them to cross.

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

/// The time at which everything happens.
pub const NOW: Instant = Instant::from_secs(1);

/// Two containers and the ports they are attached to.
pub const A: PortId = PortId(1);
/// The other one.
pub const B: PortId = PortId(2);

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn address(port: PortId) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, port.0 as u8 + 1)
}

/// One TCP segment of an established connection, as a TAP with offloads hands it over: with a partial checksum, and above
/// the MTU as a super-frame. `len` is at least 54.
pub fn segment(from: PortId, to: PortId, len: usize) -> (Meta, Vec<u8>) {
    let (src, dst) = (address(from), address(to));
    let link = Link { src: Mac::from_ipv4(src), dst: Mac::from_ipv4(dst) };
    let ip = Ip { src: src.into(), dst: dst.into(), ttl: 64, tos: 0, id: 1 };
    let tcp = Tcp { src_port: 40_000, dst_port: 80, seq: 1, ack: 1, flags: 0x18, window: 512, options: &[] };
    let mut frame = Vec::with_capacity(len);
    let mut meta = build::tcp(&mut frame, link, ip, tcp, len.saturating_sub(54));
    frame.resize(len, 0xa5);
    if len > usize::from(MTU) + 14 {
        meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: MTU - 40, ecn: false });
    }
    (meta, frame)
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

/// A network that knows where both containers are, without a way out.
///
/// # Panics
/// Never: the subnet is one.
pub fn network() -> Network<Sockets> {
    let config = Config {
        subnet: "10.0.0.0/24".parse().expect("a subnet"),
        gateway: GATEWAY,
        mtu: MTU,
        isolate: false,
        lease_time: Duration::from_secs(3600),
        dns: false,
        search: Vec::new(),
    };
    let mut network = Network::new(config, None, 1, NOW, 0);
    [A, B].into_iter().for_each(|port| network.add_port(port));
    for (from, to) in [(A, B), (B, A)] {
        let (meta, mut bytes) = segment(from, to, 64);
        network.rx(from, meta, &mut bytes, NOW, &mut Unheard, &mut Count::default(), &mut |_| {});
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
