//! A network with its translator, packets to send through it, and what became of them.

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_conntrack::{Config, Conntrack, Forward, Protocol, Realm, Refusal, SessionView, Tuple, Way};
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{DropReason, Endpoint, Frame, FrameRef, Instant, Mac, Meta, checksum};

pub use tapswitch_conntrack::Protocol::{Icmp as ICMP, Tcp as TCP, Udp as UDP};
pub use tapswitch_conntrack::Realm::{Inside, Outside};

/// Our address on the outside, and the one that we get when it changes.
pub const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OURS_LATER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// The address of a container, whose owner's number is the same.
pub fn container(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + number)
}

/// The address of a host outside.
pub fn remote(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes([198, 51, 0, 0]) + number)
}

pub fn end(ip: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint::new(ip, port)
}

/// From a container's port to one of an outside host.
pub fn outbound(protocol: Protocol, from: (u32, u16), to: (u32, u16)) -> Tuple {
    Tuple { protocol, src: end(container(from.0), from.1), dst: end(remote(to.0), to.1) }
}

/// From an outside host's port to one of our outside address.
pub fn inbound(protocol: Protocol, from: (u32, u16), port: u16) -> Tuple {
    Tuple { protocol, src: end(remote(from.0), from.1), dst: end(OURS, port) }
}

/// From a container's port to one of our outside address.
pub fn hairpin(protocol: Protocol, from: (u32, u16), port: u16) -> Tuple {
    Tuple { protocol, src: end(container(from.0), from.1), dst: end(OURS, port) }
}

pub fn config() -> Config {
    Config::new("10.0.0.0/24".parse().unwrap())
}

/// A forward of one TCP or UDP port.
pub fn forward(protocol: Protocol, owner: u32, outside: u16, inside: u16) -> Forward {
    Forward { owner, protocol, bound: None, outside, ip: container(owner), inside, count: 1 }
}

/// What a TCP segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub len: usize,
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    pub meta: Meta,
    pub bytes: Vec<u8>,
}

fn header(tuple: &Tuple) -> Ip {
    Ip { src: tuple.src.ip.into(), dst: tuple.dst.ip.into(), ttl: 64, tos: 0, id: 7 }
}

const LINK: Link = Link { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };

impl Packet {
    pub fn udp(tuple: Tuple, payload: &[u8]) -> Packet {
        let mut bytes = Vec::new();
        build::udp(&mut bytes, LINK, header(&tuple), tuple.src.port, tuple.dst.port, payload);
        Packet { meta: Meta::PLAIN, bytes }
    }

    /// With a partial checksum, as containers send it.
    pub fn tcp(tuple: Tuple, segment: Segment) -> Packet {
        let mut bytes = Vec::new();
        let Segment { flags, seq, ack, len } = segment;
        let (src_port, dst_port) = (tuple.src.port, tuple.dst.port);
        let options: &[u8] = if flags & SYN != 0 { &[2, 4, 5, 0xb4] } else { &[] };
        let tcp = Tcp { src_port, dst_port, seq, ack, flags, window: 60_000, options };
        let meta = build::tcp(&mut bytes, LINK, header(&tuple), tcp, len);
        bytes.resize(bytes.len() + len, 0x5a);
        Packet { meta, bytes }
    }

    /// A request if the source has the identifier, else a reply.
    pub fn echo(tuple: Tuple) -> Packet {
        let (kind, id) = if tuple.dst.port == 0 { (8, tuple.src.port) } else { (0, tuple.dst.port) };
        let [high, low] = id.to_be_bytes();
        let mut bytes = Vec::new();
        build::icmp(&mut bytes, LINK, header(&tuple), kind, 0, [high, low, 0, 1], b"data");
        Packet { meta: Meta::PLAIN, bytes }
    }

    /// Something that may begin a session.
    pub fn first(tuple: Tuple) -> Packet {
        match tuple.protocol {
            TCP => Packet::tcp(tuple, Segment { flags: SYN, seq: 1000, ack: 0, len: 0 }),
            UDP => Packet::udp(tuple, b"hello"),
            ICMP => Packet::echo(tuple),
        }
    }

    /// An ICMP error about this packet, from this address to this packet's source.
    pub fn error(&self, from: Ipv4Addr, kind: u8, code: u8, mtu: u16, quote: usize) -> Packet {
        let tuple = self.tuple();
        let about = self.frame(|frame| {
            let mut out = Vec::new();
            frame.quote(quote, &mut out);
            out
        });
        let [high, low] = mtu.to_be_bytes();
        let (mut bytes, ip) = (Vec::new(), Ip { src: from.into(), dst: tuple.src.ip.into(), ttl: 64, tos: 0, id: 7 });
        build::icmp(&mut bytes, LINK, ip, kind, code, [0, 0, high, low], &about);
        Packet { meta: Meta::PLAIN, bytes }
    }

    pub fn frame<T>(&self, look: impl FnOnce(&FrameRef<'_>) -> T) -> T {
        look(&FrameRef::parse(self.meta, &self.bytes[..]).unwrap())
    }

    /// Its tuple, if it may have a session.
    pub fn read(&self) -> Option<Tuple> {
        Tuple::read(&FrameRef::parse(self.meta, &self.bytes[..]).unwrap())
    }

    pub fn tuple(&self) -> Tuple {
        self.read().unwrap()
    }

    pub fn payload(&self) -> Vec<u8> {
        self.frame(|frame| frame.payload().to_vec())
    }

    /// Once completed, as a port without offloads would.
    pub fn has_right_checksums(&self) -> bool {
        let Packet { mut meta, mut bytes } = self.clone();
        let end = bytes.len();
        checksum::complete(&mut meta, &mut bytes, end).unwrap();
        let frame = FrameRef::parse(meta, &bytes[..]).unwrap();
        frame.ipv4_checksum_ok() && frame.transport_checksum_ok()
    }
}

/// A packet that went through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    pub egress: Realm,
    pub tuple: Tuple,
    pub packet: Packet,
    /// How the slow way decided, if it had to.
    pub way: Option<Way>,
}

pub struct World {
    pub nat: Conntrack,
    pub now: Instant,
}

/// Large enough for every packet here.
const MTU: u16 = 1500;

impl World {
    pub fn new(config: Config) -> World {
        World::keyed(config, 7)
    }

    pub fn keyed(config: Config, secret: u64) -> World {
        let world = World { nat: Conntrack::new(config, secret), now: Instant::from_millis(5_250) };
        world.nat.set_outside(Some(OURS), world.now);
        world
    }

    /// Lets time pass as a loop would: timers that run out are looked at in their second.
    pub fn wait(&mut self, seconds: f64) {
        let until = self.now + Duration::from_secs_f64(seconds);
        while let Some(at) = self.nat.deadline().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            while !self.nat.poll(self.now) {}
        }
        self.now = until;
        while !self.nat.poll(self.now) {}
    }

    /// By the fast way if it takes the packet, else by the slow one.
    pub fn send(&self, realm: Realm, owner: u32, packet: &Packet) -> Result<Sent, Refusal> {
        let Packet { meta, mut bytes } = packet.clone();
        let mut frame = Frame::parse(meta, &mut bytes[..]).unwrap();
        match self.nat.pass(realm, &mut frame, MTU, self.now) {
            Some(passed) => {
                assert_eq!(passed.mac, MAC);
                let packet = Packet { meta, bytes };
                Ok(Sent { egress: passed.egress, tuple: packet.tuple(), packet, way: None })
            }
            None => self.send_slowly(realm, owner, packet),
        }
    }

    /// By the slow way.
    pub fn send_slowly(&self, realm: Realm, owner: u32, packet: &Packet) -> Result<Sent, Refusal> {
        let Packet { meta, mut bytes } = packet.clone();
        let mut frame = Frame::parse(meta, &mut bytes[..]).unwrap();
        let way = self.nat.admit(realm, &frame, owner, self.now)?;
        let hop = Ipv4Addr::new(10, 0, 0, 250);
        self.nat.note_hop(&way, hop, MAC, self.now);
        if packet.tuple().protocol == TCP {
            self.nat.clamp(&mut frame);
        }
        frame.rewrite(&way.rewrite);
        frame.decrement_ttl();
        let packet = Packet { meta, bytes };
        Ok(Sent { egress: way.egress, tuple: packet.tuple(), packet, way: Some(way) })
    }

    /// What a container sends, if its packet gets through: with right checksums, and back inside the reverse of it is
    /// what reaches the container.
    pub fn out(&self, tuple: Tuple) -> Result<Tuple, Refusal> {
        self.through(Inside, &Packet::first(tuple)).map(|sent| sent.tuple)
    }

    /// What reaches a container of a packet from outside.
    pub fn incoming(&self, tuple: Tuple) -> Result<Tuple, Refusal> {
        self.through(Outside, &Packet::first(tuple)).map(|sent| sent.tuple)
    }

    /// Sends from a container, which is the owner too, or from outside.
    pub fn through(&self, realm: Realm, packet: &Packet) -> Result<Sent, Refusal> {
        let sent = self.send(realm, owner_of(packet.tuple().src.ip), packet)?;
        assert!(sent.packet.has_right_checksums(), "{packet:?} became {sent:?}");
        Ok(sent)
    }

    /// What a container's packets look like outside; the packet must get through.
    pub fn mapped(&self, tuple: Tuple) -> Endpoint {
        self.out(tuple).unwrap_or_else(|why| panic!("{tuple}: {why:?}")).src
    }

    /// An ICMP error, and where it goes out.
    pub fn error(&self, realm: Realm, packet: &Packet) -> Result<(Realm, Packet), DropReason> {
        let Packet { meta, mut bytes } = packet.clone();
        let mut frame = Frame::parse(meta, &mut bytes[..]).unwrap();
        let related = self.nat.related(realm, &frame, self.now)?;
        related.apply(&mut frame);
        assert_eq!(frame.dst_ip(), Some(related.addressee().into()));
        Ok((related.egress, Packet { meta, bytes }))
    }

    pub fn sessions(&self) -> Vec<SessionView> {
        self.nat.sessions(self.now)
    }

    /// The session of packets that come in like this.
    pub fn session(&self, tuple: Tuple) -> Option<SessionView> {
        self.sessions().into_iter().find(|view| view.original == tuple || view.reply == tuple)
    }

    /// Whether there is nothing left of anything.
    pub fn is_blank(&self) -> bool {
        let nat = &self.nat;
        nat.is_empty() && nat.mappings() == 0 && nat.helpers() == (0, 0) && nat.deadline().is_none()
    }
}

/// The number of the container that has this address; 0 if none has.
pub fn owner_of(ip: Ipv4Addr) -> u32 {
    let number = ip.to_bits().wrapping_sub(container(0).to_bits());
    if number < 256 { number } else { 0 }
}
