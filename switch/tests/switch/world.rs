//! A network of named stations, and frames as one-liners.

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_switch::{Config, PortConfig, PortCounters, Switch};
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{DropReason, Frame, Gso, GsoKind, Instant, Mac, Meta, PortId, Recorded};

/// The gateway's address, pinned to port 0.
pub const GW: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
/// Stations; nothing is known of them before they speak.
pub const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
pub const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
pub const C: Mac = Mac([2, 0, 0, 0, 0, 0xc]);
pub const D: Mac = Mac([2, 0, 0, 0, 0, 0xd]);
pub const ALL: Mac = Mac::BROADCAST;

pub const OPEN: PortConfig = PortConfig { mtu: 1500, isolated: false };
pub const ISOLATED: PortConfig = PortConfig { mtu: 1500, isolated: true };

/// A frame's way: the ports it left by, or why it left by none.
pub type Way = Result<Vec<u32>, DropReason>;

/// The ports a frame leaves by.
pub fn to(ports: &[u32]) -> Way {
    Ok(ports.to_vec())
}

/// A switch and the time.
pub struct World {
    pub switch: Switch,
    pub now: Instant,
}

impl World {
    /// The gateway and ports 1 to `ports`, all alike.
    pub fn new(config: Config, ports: u32) -> World {
        let mut switch = Switch::new(config);
        for port in 0..=ports {
            switch.add_port(PortId(port), OPEN);
        }
        switch.pin(GW, PortId::GATEWAY);
        World { switch, now: Instant::from_secs(1000) }
    }

    /// The same with the configuration that users get.
    pub fn usual(ports: u32) -> World {
        World::new(Config::default(), ports)
    }

    /// Sends frames one after the other: port, source, destination, and the way it must take.
    #[track_caller]
    pub fn expect(&mut self, table: &[(u32, Mac, Mac, Way)]) {
        for (row, (port, src, dst, way)) in table.iter().enumerate() {
            let taken = self.send(*port, &mut ethernet(*src, *dst, 46));
            assert_eq!(&taken, way, "row {row}: {src} > {dst} from port {port}; FDB: {:#?}", self.switch.fdb(self.now));
        }
    }

    pub fn send(&mut self, port: u32, bytes: &mut [u8]) -> Way {
        self.send_with(port, Meta::PLAIN, bytes).0
    }

    /// Sends one frame, and tells what its journey was.
    pub fn send_with(&mut self, port: u32, meta: Meta, bytes: &mut [u8]) -> (Way, Vec<String>) {
        // What is in the vector before must not matter.
        let mut out = vec![PortId(77)];
        let mut journey = Recorded::default();
        let before = bytes.to_vec();
        let frame = Frame::parse(meta, bytes).unwrap();
        let decision = self.switch.decide(PortId(port), &frame, self.now, &mut journey, &mut out);
        assert!(decision.is_ok() != out.is_empty(), "{decision:?} with {out:?}");
        assert_eq!(frame.bytes(), before, "a switch changes no frame");
        let way = decision.map(|()| out.iter().map(|port| port.0).collect());
        (way, journey.steps.into_iter().map(|step| step.text).collect())
    }

    /// Lets time pass, as an idle loop would: with a poll at each deadline.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.switch.deadline().filter(|deadline| *deadline <= until) {
            self.switch.poll(deadline);
            assert!(self.switch.deadline().is_none_or(|next| next > deadline), "poll at {deadline:?} did nothing");
        }
        self.now = until;
    }

    /// Who stands where, by the FDB.
    pub fn known(&self) -> Vec<(Mac, u32)> {
        self.switch.fdb(self.now).iter().map(|entry| (entry.mac, entry.port.0)).collect()
    }

    #[track_caller]
    pub fn counters(&self, port: u32) -> &PortCounters {
        self.switch.counters(PortId(port)).unwrap()
    }

    #[track_caller]
    pub fn drops(&self, port: u32, reason: DropReason) -> u64 {
        self.counters(port).drops.get(reason)
    }
}

/// An untagged frame with `len` bytes behind the Ethernet header, of an EtherType for experiments.
pub fn ethernet(src: Mac, dst: Mac, len: usize) -> Vec<u8> {
    let mut frame = [&dst.0[..], &src.0[..], &[0x88, 0xb5]].concat();
    frame.resize(14 + len, 0);
    frame
}

/// The same with an 802.1Q tag in front.
pub fn tagged(src: Mac, dst: Mac, tci: u16, len: usize) -> Vec<u8> {
    let mut frame = ethernet(src, dst, len);
    let [high, low] = tci.to_be_bytes();
    frame.splice(12..12, [0x81, 0x00, high, low]);
    frame
}

/// A super-frame of TCP whose segments are IP packets of `segment` bytes.
pub fn super_frame(src: Mac, dst: Mac, segment: u16) -> (Meta, Vec<u8>) {
    const PAYLOAD: usize = 60_000;
    let ip =
        Ip { src: Ipv4Addr::new(10, 0, 0, 1).into(), dst: Ipv4Addr::new(10, 0, 0, 2).into(), ttl: 64, tos: 0, id: 0 };
    let tcp = Tcp { src_port: 1, dst_port: 2, seq: 0, ack: 0, flags: 16, window: 1024, options: &[] };
    let mut frame = Vec::new();
    let meta = build::tcp(&mut frame, Link { src, dst }, ip, tcp, PAYLOAD);
    frame.resize(frame.len() + PAYLOAD, 0);
    (Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size: segment - 40, ecn: false }), ..meta }, frame)
}
