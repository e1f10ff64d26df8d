//! One container, one address outside, one port of each: a connection as a transcript.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use tapswitch_relay::{Config, FlowId, Limits, Policy, Readiness, Relay};
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{
    ChecksumState, DropReason, FrameRef, Gso, GsoKind, Instant, Mac, Meta, PortId, Unheard, render, segment,
};

use crate::script::{Script, Stream};

pub const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const MTU: u16 = 1500;
/// What the engine holds for a host that does not read, the largest window that it offers, and the unit of its scale.
pub const HOLD: u32 = 1 << 16;
pub const WINDOW: u32 = 1 << 20;
pub const UNIT: u32 = 32;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// A segment that the engine sent. `seq` and `ack` count from the SYN of each side, which has number 0; the window is as
/// it stands in the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seg {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// The other end, as the container sees it.
    pub dst_of_container: SocketAddr,
    /// Payload of each segment, if the frame is a super-frame.
    pub gso: Option<u16>,
    pub at: Instant,
}

impl Seg {
    /// Flags, numbers and length: what most tests look at.
    pub fn brief(&self) -> (u8, u32, u32, usize) {
        (self.flags & !PSH, self.seq, self.ack, self.payload.len())
    }

    /// Value and echo of the timestamp option.
    pub fn timestamp(&self) -> Option<(u32, u32)> {
        let at = self.options.windows(2).position(|option| option == [8, 10])?;
        let word = |at: usize| u32::from_be_bytes(self.options[at..at + 4].try_into().expect("four bytes"));
        Some((word(at + 2), word(at + 6)))
    }
}

/// What the engine sent: a segment, or an ICMP error with this type and code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    Tcp(Seg),
    Icmp(u8, u8, Vec<u8>),
}

/// What the engine sent in one turn: the number of the first byte, the last acknowledgement, and how many bytes.
pub struct Bulk {
    pub seq: u32,
    pub ack: u32,
    pub payload: u64,
}

pub struct World {
    pub relay: Relay<Script>,
    pub now: Instant,
    /// The container's initial sequence number, and the engine's once it is known.
    pub isn: u32,
    pub iss: u32,
    /// The container's port.
    pub src_port: u16,
    /// The other end, as the container sees it.
    pub remote: SocketAddr,
    /// The window that the container offers, as it stands in the header.
    pub window: u16,
    /// Options of every segment but the SYN.
    pub options: Vec<u8>,
    /// The container.
    pub port: PortId,
    /// Frames are not written down: there will be many.
    pub quiet: bool,
    /// What the container's frames say of their checksum, which is always a partial one.
    pub checksum: Option<ChecksumState>,
    /// Every frame of the engine so far.
    pub frames: Vec<Vec<u8>>,
    /// Every frame so far, one line each.
    lines: Vec<String>,
}

impl World {
    pub fn new() -> World {
        World::with(Limits::default(), &[])
    }

    /// Of containers that may have so many flows.
    pub fn with_flows(flows: usize) -> World {
        World::with(Limits { flows, flows_per_container: flows, ..Limits::default() }, &[])
    }

    /// With networks that nobody reaches through the host.
    pub fn with_deny(deny: &[&str]) -> World {
        World::with(Limits::default(), deny)
    }

    fn with(limits: Limits, deny: &[&str]) -> World {
        let deny = deny.iter().map(|net| net.parse().expect("a network")).collect();
        let policy = Policy { gateway: GATEWAY.into(), resolver: None, allow: Vec::new(), deny };
        let config = Config { mac: Mac::from_ipv4(GATEWAY), mtu: MTU, policy, limits };
        World {
            relay: Relay::new(config, Script::default()),
            now: Instant::from_secs(100),
            isn: 1_000_000,
            iss: 0,
            src_port: 40_000,
            remote: SocketAddr::new(OUTSIDE.into(), 80),
            window: 60_000,
            options: Vec::new(),
            port: PortId(1),
            quiet: false,
            checksum: None,
            frames: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// An established connection without options: MSS 536, windows not scaled.
    pub fn established() -> World {
        World::established_with(&[])
    }

    /// An established connection whose SYN had these options.
    pub fn established_with(options: &[u8]) -> World {
        let mut world = World::new();
        world.open(options);
        world
    }

    /// Opens the connection: SYN, the host connects, the third segment.
    pub fn open(&mut self, options: &[u8]) {
        assert_eq!(self.rx_with(SYN, 0, 0, b"", options), []);
        let syn_ack = self.connect();
        assert_eq!(syn_ack.brief(), (SYN | ACK, 0, 1, 0));
        assert_eq!(self.rx(ACK, 1, 1, b""), []);
        assert_eq!(self.state(), "established");
    }

    /// The host's connection attempt succeeds. Returns the SYN-ACK.
    pub fn connect(&mut self) -> Seg {
        self.host().connected = Some(Ok(()));
        let mut sent = self.event(Readiness { writable: true, ..Readiness::default() });
        assert_eq!(sent.len(), 1, "{sent:?}");
        let Some(Sent::Tcp(mut seg)) = sent.pop() else { panic!("not a SYN-ACK") };
        self.iss = self.iss.wrapping_add(seg.seq);
        seg.seq = 0;
        seg
    }

    /// The container sends a full segment and the host has some for it: the numbers of the engine's last frame, and how
    /// many bytes its frames carried. Nothing is stored or checked twice.
    pub fn bulk(&mut self, seq: u32, ack: u32, payload: &[u8]) -> Bulk {
        let link = Link { src: Mac::from_ipv4(CONTAINER), dst: Mac::from_ipv4(GATEWAY) };
        let ip = Ip { src: CONTAINER.into(), dst: self.remote.ip(), ttl: 63, tos: 0, id: 0 };
        let (src_port, dst_port, window) = (self.src_port, self.remote.port(), self.window);
        let (seq, ack) = (self.isn.wrapping_add(seq), self.iss.wrapping_add(ack));
        let tcp = build::Tcp { src_port, dst_port, seq, ack, flags: ACK, window, options: &[] };
        let mut bytes = Vec::with_capacity(100 + payload.len());
        let mut meta = build::tcp(&mut bytes, link, ip, tcp, payload.len());
        bytes.extend_from_slice(payload);
        meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1_000, ecn: false });
        let frame = FrameRef::parse(meta, &bytes[..]).expect("a sound frame");
        let id = self.id();
        let mut last = Bulk { seq: 0, ack: 0, payload: 0 };
        let mut first = None;
        let mut emit = |_: &Meta, frame: &[u8]| {
            let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
            first.get_or_insert(word(38));
            last.ack = word(42);
            last.payload += frame.len() as u64 - 54;
        };
        let handled = self.relay.handle(self.port, &frame, self.now, &mut Unheard, &mut emit);
        handled.expect("a segment of the connection");
        let readable = Readiness { readable: true, ..Readiness::default() };
        self.relay.host_event(id, readable, self.now, &mut emit);
        while self.relay.is_busy() {
            self.relay.poll(self.now, &mut emit);
        }
        let seq = first.expect("an acknowledgement at least").wrapping_sub(self.iss);
        Bulk { seq, ack: last.ack.wrapping_sub(self.isn), payload: last.payload }
    }

    /// The latest socket of the host.
    pub fn host(&mut self) -> &mut Stream {
        self.relay.host().last()
    }

    pub fn id(&mut self) -> FlowId {
        *self.relay.host().opened.last().expect("a socket was opened")
    }

    pub fn state(&self) -> &'static str {
        let flows = self.relay.flows(self.now);
        flows.iter().find(|flow| flow.src.port() == self.src_port).map_or("gone", |flow| flow.state)
    }

    /// The container sends a segment; what the engine sends in this turn.
    pub fn rx(&mut self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<Sent> {
        let options = self.options.clone();
        self.rx_with(flags, seq, ack, payload, &options)
    }

    pub fn rx_with(&mut self, flags: u8, seq: u32, ack: u32, payload: &[u8], options: &[u8]) -> Vec<Sent> {
        let mut out = Vec::new();
        let _ = self.handle(flags, seq, ack, payload, options, &mut out);
        out.extend(self.poll());
        out
    }

    /// The container sends a segment: what becomes of it. The turn does not end.
    pub fn verdict(&mut self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> (Option<DropReason>, Vec<Sent>) {
        let (mut out, options) = (Vec::new(), self.options.clone());
        let verdict = self.handle(flags, seq, ack, payload, &options, &mut out);
        (verdict.err(), out)
    }

    fn handle(
        &mut self,
        flags: u8,
        seq: u32,
        ack: u32,
        payload: &[u8],
        options: &[u8],
        out: &mut Vec<Sent>,
    ) -> Result<(), DropReason> {
        let link = Link { src: Mac::from_ipv4(CONTAINER), dst: Mac::from_ipv4(GATEWAY) };
        let ip = Ip { src: CONTAINER.into(), dst: self.remote.ip(), ttl: 63, tos: 0, id: 0 };
        let ack = if flags & ACK == 0 { 0 } else { self.iss.wrapping_add(ack) };
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 1);
        let tcp = build::Tcp {
            src_port: self.src_port,
            dst_port: self.remote.port(),
            seq: self.isn.wrapping_add(seq),
            ack,
            flags,
            window: self.window,
            options: &options,
        };
        let mut bytes = Vec::new();
        let mut meta = build::tcp(&mut bytes, link, ip, tcp, payload.len());
        bytes.extend_from_slice(payload);
        if bytes.len() > usize::from(MTU) + 14 {
            meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1_000, ecn: false });
        }
        meta.checksum = self.checksum.unwrap_or(meta.checksum);
        if !self.quiet {
            self.lines.push(format!("{:?} > {}", self.now, render(&meta, &bytes)));
        }
        let frame = FrameRef::parse(meta, &bytes[..]).expect("a sound frame");
        let mut frames = Vec::new();
        let mut emit = |meta: &Meta, frame: &[u8]| frames.push((*meta, frame.to_vec()));
        let result = self.relay.handle(self.port, &frame, self.now, &mut Unheard, &mut emit);
        out.extend(frames.iter().map(|(meta, frame)| self.read(meta, frame)));
        result.map_err(|refusal| refusal.reason)
    }

    /// Something happens on the host's latest socket; what the engine sends in this turn.
    pub fn event(&mut self, ready: Readiness) -> Vec<Sent> {
        let id = self.id();
        let mut frames = Vec::new();
        let mut emit = |meta: &Meta, frame: &[u8]| frames.push((*meta, frame.to_vec()));
        self.relay.host_event(id, ready, self.now, &mut emit);
        let mut out: Vec<_> = frames.iter().map(|(meta, frame)| self.read(meta, frame)).collect();
        out.extend(self.poll());
        out
    }

    /// The outside sends this.
    pub fn incoming(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.host().incoming.extend(bytes);
        self.event(Readiness { readable: true, ..Readiness::default() })
    }

    /// The outside ends its side.
    pub fn end(&mut self) -> Vec<Sent> {
        self.host().ended = true;
        self.event(Readiness { readable: true, ended: true, ..Readiness::default() })
    }

    /// The host can write so much more.
    pub fn room(&mut self, room: usize) -> Vec<Sent> {
        self.host().room = room;
        self.event(Readiness { writable: true, ..Readiness::default() })
    }

    /// Ends turns until nothing is left to be sent at this moment.
    pub fn poll(&mut self) -> Vec<Sent> {
        let mut out = Vec::new();
        for turn in 0.. {
            assert!(turn < 10_000, "the engine runs in circles\n{}", self.transcript());
            let mut frames = Vec::new();
            let mut emit = |meta: &Meta, frame: &[u8]| frames.push((*meta, frame.to_vec()));
            self.relay.poll(self.now, &mut emit);
            out.extend(frames.iter().map(|(meta, frame)| self.read(meta, frame)));
            if !self.relay.is_busy() {
                break;
            }
        }
        out
    }

    /// Lets time pass, from deadline to deadline; what the engine sends meanwhile.
    pub fn pass(&mut self, time: Duration) -> Vec<Seg> {
        let end = self.now + time;
        let mut out = Vec::new();
        while let Some(at) = self.relay.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            out.extend(self.poll());
        }
        self.now = end;
        tcp(out)
    }

    pub fn transcript(&self) -> String {
        let from = self.lines.len().saturating_sub(60);
        self.lines[from..].join("\n")
    }

    /// Checks a frame of the engine, and reads it.
    fn read(&mut self, meta: &Meta, frame: &[u8]) -> Sent {
        self.lines.push(format!("{:?} < {}", self.now, render(meta, frame)));
        check_frame(meta, frame);
        self.frames.push(frame.to_vec());
        let packet = SlicedPacket::from_ethernet(frame).expect("a sound frame");
        match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                assert_eq!(tcp.destination_port(), self.src_port);
                let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("not IPv4") };
                let remote = SocketAddr::new(ip.header().source_addr().into(), tcp.source_port());
                let header = tcp.slice();
                Sent::Tcp(Seg {
                    flags: header[13],
                    seq: tcp.sequence_number().wrapping_sub(self.iss),
                    ack: if tcp.ack() { tcp.acknowledgment_number().wrapping_sub(self.isn) } else { 0 },
                    window: tcp.window_size(),
                    options: tcp.options().to_vec(),
                    payload: tcp.payload().to_vec(),
                    dst_of_container: remote,
                    gso: meta.gso.map(|gso| gso.size),
                    at: self.now,
                })
            }
            Some(TransportSlice::Icmpv4(icmp)) => Sent::Icmp(icmp.type_u8(), icmp.code_u8(), icmp.payload().to_vec()),
            _ => panic!("neither TCP nor ICMP: {}", render(meta, frame)),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.transcript());
            for flow in self.relay.flows(self.now) {
                eprintln!("{flow:?}");
            }
        }
    }
}

/// The segments among what was sent.
pub fn tcp(sent: Vec<Sent>) -> Vec<Seg> {
    let seg = |sent| match sent {
        Sent::Tcp(seg) => Some(seg),
        Sent::Icmp(..) => None,
    };
    sent.into_iter().filter_map(seg).collect()
}

/// Flags, numbers and length of what was sent.
pub fn brief(sent: &[Sent]) -> Vec<(u8, u32, u32, usize)> {
    tcp(sent.to_vec()).iter().map(Seg::brief).collect()
}

/// The address of the container's end.
pub fn container() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(CONTAINER), 40_000)
}

/// What a peer may believe: sound by a parser that is not ours, each checksum right once completed, nothing above the MTU.
fn check_frame(meta: &Meta, frame: &[u8]) {
    let mut sound = |_: &Meta, frame: &[u8]| {
        assert!(frame.len() <= usize::from(MTU) + 14, "above the MTU: {}", render(meta, frame));
        let packet = SlicedPacket::from_ethernet(frame).unwrap_or_else(|e| panic!("{e}: {}", render(meta, frame)));
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("not IPv4: {}", render(meta, frame)) };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "{}", render(meta, frame));
        let right = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                tcp.calc_checksum_ipv4(header.source, header.destination).ok() == Some(tcp.checksum())
            }
            Some(TransportSlice::Icmpv4(icmp)) => icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum(),
            _ => true,
        };
        assert!(right, "transport checksum: {}", render(meta, frame));
    };
    segment::segment(meta, frame, &mut Vec::new(), &mut sound)
        .unwrap_or_else(|e| panic!("{e:?}: {}", render(meta, frame)));
}
