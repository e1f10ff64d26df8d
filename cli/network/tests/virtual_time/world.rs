//! The world: one network, its containers, the outside, and the clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::wire::Ipv4Cidr;
use tapswitch_link::cable::{Cable, cable};
use tapswitch_link::fault::{Fault, Faults};
use tapswitch_link::{Buffer, Port, Rx};
use tapswitch_network::{Config, Network, Ports, Uplink};
use tapswitch_relay::{Limits, Policy};
use tapswitch_wire::{DropReason, Instant, Mac, Meta, PortId, Unheard, segment};

use crate::outside::{Outside, RESOLVER};
use crate::station::Station;
use crate::trace::{Trace, check_frame};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const MTU: u16 = 1500;
/// What one turn of the loop takes.
const TURN: Duration = Duration::from_micros(10);
/// How often a program in a container or outside looks again, though nothing has happened.
const LOOK: Duration = Duration::from_millis(100);
/// Turns without the clock's jumping, after which the world is taken to run in circles.
const CIRCLES: u32 = 200_000;

/// How a world differs from the plain one.
#[derive(Clone, Copy)]
pub struct Setup {
    pub stations: u32,
    pub faults: Faults,
    pub seed: u64,
    /// Whether the cables carry partial checksums and super-frames.
    pub offload: bool,
    /// Whether the stations get their addresses by DHCP; else they have 10.0.0.11, .12 and so on.
    pub dhcp: bool,
    pub limits: Limits,
    pub lease_time: Duration,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            stations: 2,
            faults: Faults::default(),
            seed: 1,
            offload: true,
            dhcp: false,
            limits: Limits::default(),
            lease_time: Duration::from_secs(3600),
        }
    }
}

/// The network's ends of the cables.
struct Wires {
    ends: BTreeMap<PortId, Fault<Cable>>,
    offload: bool,
    scratch: Vec<u8>,
    trace: Trace,
    now: Instant,
    /// What was told of drops: the reason, and the bytes of the frame.
    lost: Vec<(PortId, DropReason, usize)>,
}

impl Wires {
    /// Sends one frame as this kind of cable carries it.
    fn send(&mut self, port: PortId, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        let end = self.ends.get_mut(&port).ok_or(DropReason::UnknownPort)?;
        let sent = end.tx(meta, frame);
        self.trace.frame(self.now, '<', port, meta, frame, if sent.is_err() { " LOST" } else { "" });
        sent
    }
}

impl Ports for Wires {
    fn tx(&mut self, port: PortId, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        // What containers send each other may be damaged, and is theirs to look at.
        if frame.get(6..12) == Some(&Mac::from_ipv4(GATEWAY).0) {
            check_frame(meta, frame, usize::from(MTU));
        }
        if self.offload {
            return self.send(port, meta, frame);
        }
        // Cut first, so that each segment meets a fate of its own.
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut sent = Ok(());
        let mut cut = |meta: &Meta, frame: &[u8]| sent = sent.and(self.send(port, meta, frame));
        segment::segment(meta, frame, &mut scratch, &mut cut)?;
        self.scratch = scratch;
        sent
    }

    fn lost(&mut self, port: PortId, reason: DropReason, _: &Meta, frame: &[u8]) {
        self.lost.push((port, reason, frame.len()));
    }
}

pub struct World {
    pub now: Instant,
    pub network: Network<Outside>,
    pub stations: Vec<Station>,
    wires: Wires,
    buffer: Buffer,
    trace: Trace,
    circles: u32,
}

impl World {
    pub fn new(setup: Setup) -> World {
        let now = Instant::from_secs(1_000);
        let trace = Trace::default();
        let config = Config {
            subnet: "10.0.0.0/24".parse().expect("a subnet"),
            gateway: GATEWAY,
            mtu: MTU,
            isolate: false,
            lease_time: setup.lease_time,
            dns: vec![GATEWAY],
            search: Vec::new(),
            bridged: false,
            routes: Vec::new(),
            peers: Vec::new(),
        };
        let policy =
            Policy { gateway: IpAddr::V4(GATEWAY), resolver: Some(RESOLVER), allow: Vec::new(), deny: Vec::new() };
        let uplink = Uplink::User { policy, limits: setup.limits, host: Outside::new(trace.clone()) };
        let mut network = Network::new(config, Some(uplink), setup.seed, now, 1_700_000_000);
        let mut ends = BTreeMap::new();
        let mut stations = Vec::new();
        for number in 1..=setup.stations {
            let port = PortId(number);
            let (near, far) = cable(1_000, setup.offload);
            ends.insert(port, Fault::new(near, setup.faults, setup.seed * 100 + u64::from(number)));
            let mut station = Station::new(port, far, usize::from(MTU), now);
            if setup.dhcp {
                station.start_dhcp();
            } else {
                station.configure(Ipv4Cidr::new(address(number), 24), Some(GATEWAY));
            }
            network.add_port(port);
            stations.push(station);
        }
        let (scratch, lost) = (Vec::new(), Vec::new());
        let wires = Wires { ends, offload: setup.offload, scratch, trace: trace.clone(), now, lost };
        World { now, network, stations, wires, buffer: Buffer::new(), trace, circles: 0 }
    }

    /// The only container.
    pub fn one() -> World {
        World::new(Setup { stations: 1, ..Setup::default() })
    }

    pub fn outside(&mut self) -> &mut Outside {
        self.network.host().expect("an uplink")
    }

    pub fn station(&mut self, number: usize) -> &mut Station {
        &mut self.stations[number - 1]
    }

    pub fn gateway_mac(&self) -> Mac {
        self.network.config().gateway_mac()
    }

    /// Changes what happens to frames on every cable from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.wires.ends.values_mut().for_each(|end| end.set_faults(faults));
    }

    /// The drops that were told with their frames: the port, the reason, and the bytes of the frame.
    pub fn lost(&self) -> &[(PortId, DropReason, usize)] {
        &self.wires.lost
    }

    /// Frames that the cables lost, doubled and reordered.
    pub fn injected(&self) -> u64 {
        self.wires.ends.values().map(Fault::injected).map(|i| i.lost + i.duplicated + i.reordered + i.corrupted).sum()
    }

    /// Detaches a container, as when it dies.
    pub fn unplug(&mut self, number: usize) {
        let ip = self.station(number).ip();
        let port = self.station(number).port;
        self.network.remove_port(port, ip, self.now, &mut |_| {});
        self.wires.ends.remove(&port);
    }

    /// One turn of the loop, as the daemon's. True if anything moved.
    fn turn(&mut self) -> bool {
        let World { now, network, wires, buffer, trace, .. } = self;
        let now = *now;
        wires.now = now;
        let events = network.host().map(|outside| outside.poll(now)).unwrap_or_default();
        let mut moved = !events.is_empty();
        for (flow, ready) in events {
            network.host_event(flow, ready, now, wires);
        }
        let ports: Vec<PortId> = wires.ends.keys().copied().collect();
        for port in ports {
            while let Some(end) = wires.ends.get_mut(&port) {
                match end.rx(buffer) {
                    Rx::Frame(meta, len) => {
                        trace.frame(now, '>', port, &meta, buffer.frame(len), "");
                        network.rx(port, meta, buffer.frame(len), now, &mut Unheard, wires, &mut |_| {});
                    }
                    Rx::Bad(reason) => {
                        trace.line(now, format!("port {port} > a frame is lost: {reason}"));
                        network.dropped(port, reason);
                    }
                    Rx::WouldBlock | Rx::Gone => break,
                }
                moved = true;
            }
        }
        network.poll(now, wires, &mut |_| {});
        moved |= network.is_busy();
        for station in &mut self.stations {
            moved |= station.poll(now);
        }
        moved || self.wires.ends.values().any(|end| end.inner().waiting() > 0)
    }

    /// Runs until `done` says so, which is asked after each turn.
    ///
    /// # Panics
    /// If that takes longer than `limit` of virtual time.
    #[track_caller]
    pub fn run(&mut self, limit: Duration, mut done: impl FnMut(&mut World) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "nothing came of it within {limit:?}");
            self.step(end.min(self.now + LOOK));
        }
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    /// One turn, and the clock moves on: by a little while things move, to the next deadline otherwise.
    fn step(&mut self, end: Instant) {
        let moved = self.turn();
        let soon = self.now + TURN;
        self.circles = if moved { self.circles + 1 } else { 0 };
        assert!(self.circles < CIRCLES, "the world runs in circles");
        if moved {
            self.now = soon;
            return;
        }
        let now = self.now;
        let stations = self.stations.iter_mut().filter_map(|station| station.deadline(now));
        let outside = self.network.host().and_then(|outside| outside.deadline());
        let next = stations.chain(outside).chain(self.network.deadline()).min();
        // Stacks count in microseconds, so a deadline inside of one is met at its end.
        let next = next.map_or(end, |at| Instant::from_micros(at.as_nanos().div_ceil(1_000)));
        self.now = next.min(end).max(soon);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The last frames and events, and the flows at {:.6}:", self.now.as_micros() as f64 / 1e6);
            self.trace.print();
            for flow in self.network.flows(self.now) {
                eprintln!("{flow:?}");
            }
        }
    }
}

/// The address of a station without DHCP.
pub fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 10 + number as u8)
}

/// What a program in a container does with a connection: sends all it has, ends if it is to, and reads all that comes.
pub struct Talk {
    station: usize,
    pub socket: SocketHandle,
    to_send: Vec<u8>,
    sent: usize,
    ends: bool,
    /// Whether it reads.
    pub reads: bool,
    pub received: Vec<u8>,
}

impl Talk {
    pub fn new(station: usize, socket: SocketHandle, to_send: Vec<u8>, ends: bool) -> Talk {
        Talk { station, socket, to_send, sent: 0, ends, reads: true, received: Vec::new() }
    }

    /// Does what can be done now.
    pub fn go_on(&mut self, world: &mut World) {
        let socket = world.station(self.station).tcp(self.socket);
        while socket.can_send() && self.sent < self.to_send.len() {
            self.sent += socket.send_slice(&self.to_send[self.sent..]).expect("a socket that can send");
        }
        // smoltcp forgets a FIN that comes ahead of a lost segment, and does not repeat one whose data was acknowledged: so
        // that two of them can talk under loss, the end comes when everything before it has arrived.
        if self.ends && self.sent == self.to_send.len() && socket.may_send() && socket.send_queue() == 0 {
            socket.close();
            self.ends = false;
        }
        while self.reads && socket.can_recv() {
            let received = &mut self.received;
            let taken = socket.recv(|data| {
                received.extend_from_slice(data);
                (data.len(), data.len())
            });
            if taken.expect("a socket that can receive") == 0 {
                break;
            }
        }
    }

    pub fn state(&self, world: &mut World) -> smoltcp::socket::tcp::State {
        world.station(self.station).tcp(self.socket).state()
    }

    /// Everything came that will come: the other side has ended.
    pub fn heard_all(&self, world: &mut World) -> bool {
        let socket = world.station(self.station).tcp(self.socket);
        !socket.may_recv() && socket.recv_queue() == 0 && socket.state() != smoltcp::socket::tcp::State::SynSent
    }
}
