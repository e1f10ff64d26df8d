//! A whole network of three containers, driven by records (see [`crate::record`]): frames, time, sockets of the host,
//! containers that come and go.
//!
//! What must hold: nothing panics or spins; every frame that leaves can be parsed, fits the MTU (a super-frame by its
//! segments), leaves by an attached port and never by the one it came from; what the gateway sends has right checksums,
//! by etherparse; flows stay within their limits, and no socket outlives its flow; verdicts, counters and the frames seen
//! agree; a stream arrives whole and in order, both ways.
//!
//! One input in two has a packet uplink in place of sockets (see [`crate::street`]). Then, instead of the last: what leaves
//! by it has our outside address if addresses are translated, and never goes to the inside; fits its MTU; has checksums
//! as right as they came; and when all is over, nothing of any session is left.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tapswitch_conntrack::{Forward, Protocol, Realm, Reason, SessionView};
use tapswitch_network::{Config, Network, Uplink};
use tapswitch_relay::{Limits, Policy};
use tapswitch_wire::{DropReason, Frame, Instant, Meta, PortId, Recorded, VNET_HEADER_LEN, Verdict};

use crate::frames::{GATEWAY, MTU, Made, address};
use crate::host::Script;
use crate::record::{Kind, Record};
use crate::street::{self, Street};
use crate::taps::{Tap, Taps};

const LIMITS: Limits = Limits { flows: 8, flows_per_container: 5, ports: 8 };
/// Containers.
const PORTS: u32 = 3;
/// Records of one input. More would only be slow.
const MAX_RECORDS: usize = 300;
/// Turns in which a network without news must come to rest.
const MAX_TURNS: usize = 5_000;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((options, mut data)) = data.split_first() else { return };
    let mut world = World::new(*options);
    for _ in 0..MAX_RECORDS {
        let Some(record) = Record::take(&mut data) else { break };
        world.play(&record, &mut data);
        world.settle();
        world.check();
    }
    world.end();
}

struct World {
    network: Network<Script>,
    taps: Taps,
    now: Instant,
    /// Damage to the next frame.
    damage: Option<[u8; 7]>,
    /// Lines for the lease journal.
    lines: usize,
}

impl World {
    fn new(options: u8) -> World {
        let config = Config {
            subnet: "10.0.0.0/24".parse().expect("a subnet"),
            gateway: GATEWAY,
            mtu: MTU,
            isolate: options & 1 != 0,
            lease_time: Duration::from_secs(3600),
            dns: vec![GATEWAY],
            search: Vec::new(),
            bridged: false,
            routes: Vec::new(),
            peers: Vec::new(),
        };
        let policy = Policy {
            gateway: GATEWAY.into(),
            resolver: Some("192.0.2.53:53".parse().expect("an address")),
            allow: vec!["127.0.0.1:8080".parse().expect("a rule")],
            deny: vec!["198.51.100.0/24".parse().expect("a network")],
        };
        let sockets = (options & 2 == 0).then(|| Uplink::User { policy, limits: LIMITS, host: Script::new() });
        let packet = || Uplink::Packet(Box::new(street::uplink(options)));
        let is_packet = options & 8 != 0;
        let uplink = if is_packet { Some(packet()) } else { sockets };
        let now = Instant::from_secs(1);
        let network = Network::new(config, uplink, 7, now, 1_700_000_000);
        // Streams are the ends' own business where packets pass.
        let street = is_packet.then(|| Street::new(options & 16 == 0));
        let taps = Taps { counts_up: !is_packet, street, ..Taps::default() };
        let mut world = World { network, taps, now, damage: None, lines: 0 };
        (1..=PORTS).for_each(|port| world.attach(port));
        if is_packet {
            world.network.uplink_up(street::MAC, None, street::MTU, now);
        }
        if options & 4 != 0 {
            world.network.announce(now);
        }
        world
    }

    fn attach(&mut self, port: u32) {
        self.network.add_port(PortId(port));
        self.taps.attached.entry(port).or_default();
    }

    fn play(&mut self, record: &Record, rest: &mut &[u8]) {
        let frames = &mut self.taps.frames;
        let made = match record.kind {
            Kind::Tcp => frames.tcp(record),
            Kind::Udp => frames.udp(record),
            Kind::Icmp => frames.icmp(record),
            Kind::Arp => frames.arp(record),
            Kind::Dhcp => frames.dhcp(record),
            Kind::Lan => frames.lan(record),
            Kind::Ipv6 => frames.ipv6(record),
            Kind::Raw => return self.raw(record, rest),
            Kind::Time => {
                let millis = u64::from(record.word(0)) << (record.args[2] % 13);
                self.now = self.now + Duration::from_millis(millis);
                return;
            }
            Kind::Host if self.taps.street.is_some() => return self.outside(record),
            Kind::Host => {
                let heard = self.network.host().and_then(|host| host.play(record));
                if let Some((flow, ready)) = heard {
                    self.network.host_event(flow, ready, self.now, &mut self.taps);
                }
                return;
            }
            Kind::Port => return self.change_port(record),
            Kind::Damage => {
                self.damage = Some(record.args);
                return;
            }
        };
        self.send(made);
    }

    /// Something happens outside of a packet uplink. `args[0]`: what; the others: see [`crate::street`].
    fn outside(&mut self, record: &Record) {
        let Some(street) = &mut self.taps.street else { return };
        let frame = match record.args[0] % 12 {
            0..4 => street.answer(record),
            4 => street.error(record),
            5 => Some(street.arp(record)),
            6 => Some(street.stranger(record)),
            7 => street.fragment(record),
            8 => return self.send(street::fragment_of_container(record)),
            9 => return self.change_forwards(record),
            10 => return self.change_device(record),
            _ => {
                street.full = record.args[1] & 1 != 0;
                None
            }
        };
        if let Some((meta, bytes)) = frame {
            self.arrive(meta, bytes);
        }
    }

    /// `args[1..]`: what; which container; a port.
    fn change_forwards(&mut self, record: &Record) {
        let Some(nat) = self.network.conntrack() else { return };
        let [_, what, who, port, ..] = record.args;
        let owner = u32::from(who) % PORTS + 1;
        let protocol = if port & 1 == 0 { Protocol::Tcp } else { Protocol::Udp };
        let (ip, inside) = (address(owner as u8), 80 + u16::from(port >> 4));
        let forward = Forward { owner, protocol, bound: None, outside: 8080, ip, inside, count: 1 };
        match what % 4 {
            0 | 1 if self.taps.attached.contains_key(&owner) => {
                // The port may be taken.
                let _ = nat.publish(forward, self.now);
            }
            2 => {
                nat.unpublish(&forward, self.now);
            }
            3 => {
                nat.flush(self.now, |session| session.owner == owner);
            }
            _ => {}
        }
    }

    /// `args[1]`: whether it comes, goes, or is another one.
    fn change_device(&mut self, record: &Record) {
        let mtu = match record.args[1] % 4 {
            0 => return self.network.uplink_down(self.now),
            1 => street::NARROW,
            _ => street::MTU,
        };
        if record.args[1] & 4 != 0 {
            self.network.uplink_down(self.now);
        }
        if let Some(street) = &mut self.taps.street {
            street.mtu = mtu;
        }
        self.network.uplink_up(street::MAC, None, mtu, self.now);
    }

    /// A frame comes in from outside.
    fn arrive(&mut self, meta: Meta, mut bytes: Vec<u8>) {
        let before = self.drops();
        if let Some(street) = &mut self.taps.street {
            street.heard(&meta, &bytes);
        }
        let mut journey = Recorded::default();
        let verdict = self.network.uplink_rx(meta, &mut bytes, self.now, &mut journey, &mut self.taps);
        assert!(!journey.steps.is_empty(), "a frame without a story");
        match verdict {
            Verdict::Forward(to) => assert!(self.taps.attached.contains_key(&to.0)),
            Verdict::Reply => {}
            Verdict::Drop(reason) => self.was_counted(reason, &before),
            other => panic!("{other:?} of a frame from outside"),
        }
    }

    fn was_counted(&self, reason: DropReason, before: &HashMap<DropReason, u64>) {
        let count = |drops: &HashMap<DropReason, u64>| drops.get(&reason).copied().unwrap_or(0);
        assert!(count(&self.drops()) > count(before), "nobody counted {reason}");
    }

    /// `args`: port; length of what follows (two bytes).
    fn raw(&mut self, record: &Record, rest: &mut &[u8]) {
        let len = usize::from(record.word(1) % 2048).min(rest.len());
        let (bytes, after) = rest.split_at(len);
        *rest = after;
        let Some((header, bytes)) = bytes.split_first_chunk::<VNET_HEADER_LEN>() else { return };
        self.taint();
        let port = u32::from(record.args[0]) % (PORTS + 1) + 1;
        match Meta::decode(header, bytes) {
            Ok(meta) => self.receive(port, meta, bytes.to_vec()),
            Err(reason) => self.network.dropped(PortId(port), reason),
        }
    }

    /// `args`: which container; what happens.
    fn change_port(&mut self, record: &Record) {
        let port = u32::from(record.args[0]) % PORTS + 1;
        match record.args[1] % 4 {
            0 => self.attach(port),
            1 => {
                let lines = &mut self.lines;
                let ip = Some(address(port as u8));
                self.network.remove_port(PortId(port), ip, self.now, &mut |_| *lines += 1);
                self.taps.attached.remove(&port);
                let flows = self.network.flows(self.now);
                assert!(flows.iter().all(|flow| flow.port != PortId(port)), "a flow outlives its port");
                let sessions = self.network.conntrack().map(|nat| nat.sessions(self.now)).unwrap_or_default();
                assert!(sessions.iter().all(|session| session.owner != port), "a session outlives its port");
            }
            full => {
                if let Some(tap) = self.taps.attached.get_mut(&port) {
                    tap.full = full == 2;
                }
            }
        }
    }

    /// Streams can be checked no more: somebody may have put any bytes into them.
    fn taint(&mut self) {
        self.taps.counts_up = false;
        if let Some(street) = &mut self.taps.street {
            street.right = false;
        }
        if let Some(host) = self.network.host() {
            host.counts_up = false;
        }
    }

    fn send(&mut self, made: Made) {
        let Made { port, mut meta, mut bytes } = made;
        let port = u32::from(port);
        // `args`: where (two bytes) and what; where to cut (two bytes, never if zero); padding; another port.
        if let Some([high, low, value, cut_high, cut_low, padding, other]) = self.damage.take() {
            self.taint();
            let at = usize::from(u16::from_be_bytes([high, low])) % bytes.len().clamp(1, 128);
            bytes[at] = value;
            bytes.resize(bytes.len() + usize::from(padding), value);
            match usize::from(u16::from_be_bytes([cut_high, cut_low])) {
                0 => {}
                cut => bytes.truncate(cut),
            }
            meta = match Meta::decode(&meta.encode(&bytes), &bytes) {
                Ok(meta) => meta,
                Err(reason) => return self.network.dropped(PortId(port), reason),
            };
            // One port more than there are.
            let port = if other == 0 { port } else { u32::from(other) % (PORTS + 1) + 1 };
            return self.receive(port, meta, bytes);
        }
        self.receive(port, meta, bytes);
    }

    /// A frame comes in, and its verdict must be what was seen.
    fn receive(&mut self, port: u32, meta: Meta, mut bytes: Vec<u8>) {
        let before = self.drops();
        if let Some(street) = &mut self.taps.street {
            street.heard(&meta, &bytes);
        }
        let parsed = Frame::parse(meta, &mut bytes[..])
            .map(|frame| (frame.src_port(), frame.dst_port(), frame.parsed().l4) == (67, 68, tapswitch_wire::L4::Udp));
        self.taps.ingress = Some(port);
        self.taps.forwarded = 0;
        let (lines, mut journey) = (&mut self.lines, Recorded::default());
        let mut record = |_: &[u8]| *lines += 1;
        let verdict =
            self.network.rx(PortId(port), meta, &mut bytes, self.now, &mut journey, &mut self.taps, &mut record);
        self.taps.ingress = None;
        assert!(!journey.steps.is_empty(), "a frame without a story");
        if let (Ok(false), Some(tap)) = (parsed, self.taps.attached.get_mut(&port)) {
            tap.sent += 1;
        }
        match verdict {
            // By our outside address, and maybe to itself.
            Verdict::Forward(to) if self.taps.street.is_some() && self.taps.forwarded == 0 => {
                assert!(self.taps.attached.contains_key(&to.0));
            }
            Verdict::Forward(to) => {
                assert_eq!(self.taps.forwarded, 1);
                assert!(self.taps.attached.contains_key(&to.0) && to.0 != port);
            }
            Verdict::Flood { ports } => assert!(ports <= self.taps.forwarded + 1, "{ports} ports were counted"),
            Verdict::Reply | Verdict::Relay => assert_eq!(self.taps.forwarded, 0),
            Verdict::Drop(reason) => self.was_counted(reason, &before),
        }
    }

    /// All drops of all places.
    fn drops(&self) -> HashMap<DropReason, u64> {
        let ports = (1..=PORTS).filter_map(|port| self.network.counters(PortId(port)));
        let mut all = self.network.gateway_drops();
        ports.for_each(|counters| all.add(&counters.drops));
        all.iter().collect()
    }

    /// Runs the turns that are due, as the loop does.
    fn settle(&mut self) {
        let lines = &mut self.lines;
        let mut record = |_: &[u8]| *lines += 1;
        for turn in 0.. {
            self.network.poll(self.now, &mut self.taps, &mut record);
            if !self.network.is_busy() {
                break;
            }
            assert!(turn < MAX_TURNS, "the network does not come to rest");
        }
        let deadline = self.network.deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "a deadline stays over, so the loop would spin");
    }

    fn check(&mut self) {
        for (port, Tap { taken, sent, .. }) in &self.taps.attached {
            let counters = self.network.counters(PortId(*port)).expect("an attached port has counters");
            assert_eq!((counters.tx_frames, counters.rx_frames), (*taken, *sent), "port {port}");
        }
        assert!(self.network.fdb(self.now).len() <= 8192);
        if let Some(nat) = self.network.conntrack() {
            return check_sessions(&nat.sessions(self.now), nat.len());
        }
        let flows = self.network.flows(self.now);
        assert_eq!(flows.len(), self.network.flow_count());
        for flow in &flows {
            assert!(self.taps.attached.contains_key(&flow.port.0), "a flow of nobody");
            // Datagrams of one source have one socket, or one more for what a port of the gateway stands for.
            let same = flows.iter().filter(|other| other.src.ip() == flow.src.ip());
            let ends: HashSet<_> =
                same.map(|other| (other.proto, other.src, (other.proto == "tcp").then_some(other.dst))).collect();
            assert!(ends.len() <= LIMITS.flows_per_container);
        }
        let sockets = self.network.host().map_or(0, |host| host.open_sockets());
        assert!(sockets <= flows.len(), "{sockets} sockets for {} flows", flows.len());
        assert!(sockets <= LIMITS.flows);
    }

    /// Nobody speaks any more: all flows end by themselves, and their sockets with them.
    fn end(&mut self) {
        for _ in 0..200 {
            let Some(deadline) = self.network.deadline() else { break };
            self.now = self.now.max(deadline);
            self.settle();
        }
        self.now = self.now + Duration::from_secs(1_000_000);
        self.settle();
        self.settle();
        assert_eq!(self.network.flow_count(), 0, "a flow lives for ever");
        if let Some(nat) = self.network.conntrack() {
            assert_eq!((nat.mappings(), nat.helpers()), (0, (0, 0)), "something is left");
        }
        self.check();
    }
}

/// Sessions keep to their limits, and no two have a packet in common.
fn check_sessions(sessions: &[SessionView], count: usize) {
    assert!(sessions.len() <= count && count <= 8);
    let mut ends = HashSet::new();
    for session in sessions {
        let outbound = |other: &&SessionView| other.owner == session.owner && other.from == session.from;
        assert!(sessions.iter().filter(outbound).count() <= 5, "above the quota");
        let back = if session.reason == Reason::Hairpin { Realm::Inside } else { other(session.from) };
        assert!(ends.insert((session.from, session.original)) && ends.insert((back, session.reply)), "{session:?}");
    }
}

fn other(realm: Realm) -> Realm {
    match realm {
        Realm::Inside => Realm::Outside,
        Realm::Outside => Realm::Inside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(world: &mut World, kind: Kind, args: [u8; 7]) {
        world.play(&Record { kind, args }, &mut &[][..]);
        world.settle();
        world.check();
    }

    /// The target is worth something only if its records come this far.
    #[test]
    fn records_open_a_connection_move_bytes_both_ways_and_close_it() {
        const ACK: u8 = 0x10;
        let mut world = World::new(0);
        play(&mut world, Kind::Tcp, [0, 0, 2 << 3, 2, 0, 0, 0]);
        assert_eq!(world.network.flows(world.now)[0].state, "connecting");
        play(&mut world, Kind::Host, [0; 7]);
        play(&mut world, Kind::Tcp, [0, 0, 0, ACK, 0, 0, 0]);
        play(&mut world, Kind::Tcp, [0, 0, 0, ACK, 0, 99, 0]);
        play(&mut world, Kind::Tcp, [0, 0, 0, ACK, 0, 230, 0]);
        play(&mut world, Kind::Host, [0, 2, 1, 0, 0, 0, 0]);
        play(&mut world, Kind::Tcp, [0, 0, 0, ACK, 0, 0, 0]);
        let flow = &world.network.flows(world.now)[0];
        assert_eq!((flow.up_bytes, flow.down_bytes), (99 + 31 * 1100, 256));
        play(&mut world, Kind::Host, [0, 4, 0, 0, 0, 0, 0]);
        play(&mut world, Kind::Tcp, [0, 0, 0, ACK | 1, 0, 0, 0]);
        assert_eq!(world.network.host().map(|host| host.open_sockets()), Some(0));
        world.end();
    }

    #[test]
    fn records_get_a_lease_and_a_ping_reply_and_reach_a_neighbour() {
        let mut world = World::new(0);
        play(&mut world, Kind::Dhcp, [0, 1, 0, 16, 1, 0, 0]);
        play(&mut world, Kind::Dhcp, [0, 3, 2, 2 | 4 | 16, 1, 0, 0]);
        assert_eq!((world.network.leases(world.now).len(), world.lines), (1, 1));
        let taken = world.taps.attached[&1].taken;
        play(&mut world, Kind::Icmp, [0, 2, 8, 0, 64, 56, 0]);
        assert_eq!(world.taps.attached[&1].taken, taken + 1);
        let taken = world.taps.attached[&2].taken;
        play(&mut world, Kind::Tcp, [0, 4, 0, 0x10, 0, 230, 0]);
        assert_eq!(world.taps.attached[&2].taken, taken + 1);
    }

    #[test]
    fn records_pass_a_translator_and_find_back_by_its_sessions_and_forwards() {
        let mut world = World::new(8);
        let left = |world: &World| world.taps.street.as_ref().map(|street| street.left);
        play(&mut world, Kind::Udp, [0, 15, 0, 64, 0, 9, 0]);
        assert_eq!((world.network.flow_count(), left(&world)), (1, Some(0)), "it waits for the router");
        play(&mut world, Kind::Host, [5, 2, 0, 4, 7, 0, 0]);
        assert_eq!(left(&world), Some(1));
        play(&mut world, Kind::Arp, [0, 1, 0, 2, 1, 0, 0]);
        let taken = world.taps.attached[&1].taken;
        play(&mut world, Kind::Host, [0, 0, 0, 0, 0, 9, 1]);
        play(&mut world, Kind::Host, [4, 0, 3, 3, 0, 0, 60]);
        assert_eq!(world.taps.attached[&1].taken, taken + 2, "an answer and an error");
        // A datagram too big for the uplink, in pieces.
        play(&mut world, Kind::Host, [8, 0, 0, 5, 0xb0, 8, 2]);
        assert_eq!(left(&world), Some(3));
        // A stranger, before and after a port is published.
        let stranger = [6, 2, 4, 0, 9, 0, 2];
        play(&mut world, Kind::Host, stranger);
        assert_eq!(world.network.flow_count(), 1);
        play(&mut world, Kind::Host, [9, 0, 0, 0, 0, 0, 0]);
        play(&mut world, Kind::Host, stranger);
        assert_eq!(world.network.flow_count(), 2);
        assert!(world.taps.street.as_ref().is_some_and(|street| street.right));
        world.end();
    }
}
