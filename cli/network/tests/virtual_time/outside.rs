//! The host's sockets and the outside behind them, as a model in virtual time.
//!
//! A byte, an end or a reset takes [`LATENCY`] from one side to the other. A socket's two buffers hold [`BUFFER`] bytes
//! each. What a service does is decided by its address and port:
//!
//! | where | what |
//! |---|---|
//! | [`SERVER`] | answers pings; TCP and UDP by port: [`ECHO`], [`SINK`], [`SOURCE`], [`MANUAL`], [`DEAF`]; anything else is refused |
//! | [`NO_HOST`], [`NO_NET`] | unreachable |
//! | [`SILENT`] | never answers |
//! | [`RESOLVER`] | UDP echo |

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tapswitch_relay::{
    Arrival, Batch, DatagramHost, FlowId, Host, HostError, HostIcmp, Proto, Readiness, Reported, Run, StreamHost,
};
use tapswitch_wire::Instant;

use crate::trace::Trace;

pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const NO_HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const NO_NET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
pub const SILENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 4);
pub const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53)), 53);
/// An address of the host itself.
pub const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// The router that a datagram passes first.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// Sends everything back, and ends when the other side has ended.
pub const ECHO: u16 = 7;
/// Takes everything, and ends when the other side has ended.
pub const SINK: u16 = 9;
/// Sends [`Outside::source_len`] bytes of [`pattern`] and ends; takes everything.
pub const SOURCE: u16 = 19;
/// Does what the test says, and takes everything.
pub const MANUAL: u16 = 80;
/// Accepts and never reads.
pub const DEAF: u16 = 81;
const SERVED: [u16; 5] = [ECHO, SINK, SOURCE, MANUAL, DEAF];

pub const LATENCY: Duration = Duration::from_millis(5);
pub const BUFFER: usize = 256 << 10;

/// Bytes in which no two neighbourhoods look alike.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8).wrapping_mul(31) ^ (i >> 16).wrapping_mul(7)) as u8).collect()
}

/// What travels between the two sides of a stream.
enum Passing {
    Data(Vec<u8>),
    End,
    Reset,
}

/// How the engine closed a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    Orderly,
    Reset,
}

/// One stream: the host's socket, and the service at its other end.
pub struct Stream {
    pub to: SocketAddr,
    /// When the connection attempt ends, and how; `None` once it has.
    connecting: Option<(Instant, Result<(), HostError>)>,
    up: VecDeque<(Instant, Passing)>,
    down: VecDeque<(Instant, Passing)>,
    /// The service did not take it yet.
    unread: VecDeque<u8>,
    /// What the service took.
    pub taken: Vec<u8>,
    /// The service saw the end of the stream.
    pub saw_end: bool,
    /// The service saw a reset.
    pub saw_reset: bool,
    /// The service has yet to send it.
    to_send: VecDeque<u8>,
    ends: bool,
    end_sent: bool,
    /// In the socket, not consumed by the engine.
    arrived: VecDeque<u8>,
    arrived_end: bool,
    broken: bool,
    was_full: bool,
    pub closed: Option<Closed>,
}

impl Stream {
    fn up_bytes(&self) -> usize {
        bytes(&self.up) + self.unread.len()
    }
}

fn bytes(lane: &VecDeque<(Instant, Passing)>) -> usize {
    lane.iter().map(|(_, passing)| if let Passing::Data(data) = passing { data.len() } else { 0 }).sum()
}

/// One socket for datagrams.
pub struct Socket {
    pub proto: Proto,
    /// Where the latest datagram went.
    pub to: SocketAddr,
    /// Datagrams of the container, with their time to live.
    pub sent: Vec<(u8, Vec<u8>)>,
    answers: VecDeque<(Instant, SocketAddr, Result<Vec<u8>, HostIcmp>)>,
    arrived: VecDeque<(SocketAddr, Vec<u8>)>,
    errors: VecDeque<Reported>,
    pub closed: bool,
}

impl Socket {
    /// One datagram leaves, and something comes of it.
    fn send(&mut self, now: Instant, to: SocketAddr, ttl: u8, datagram: &[u8]) {
        self.to = to;
        self.sent.push((ttl, datagram.to_vec()));
        let icmp = |kind, code, from: Ipv4Addr| HostIcmp { kind, code, mtu: 0, offender: Some(from.into()) };
        let answer = match (to.ip(), self.proto, to.port()) {
            _ if ttl <= 1 => Err(icmp(11, 0, ROUTER)),
            (IpAddr::V4(NO_HOST), ..) => Err(icmp(3, 1, ROUTER)),
            (IpAddr::V4(SILENT), ..) => return,
            (IpAddr::V4(SERVER), Proto::Icmp, _) => {
                let mut reply = datagram.to_vec();
                // A ping socket has an identifier of the kernel's choice.
                reply[..8].copy_from_slice(&[0, 0, 0, 0, 0x77, 0x77, datagram[6], datagram[7]]);
                Ok(reply)
            }
            (IpAddr::V4(SERVER), _, ECHO) => Ok(datagram.to_vec()),
            _ if to == RESOLVER => Ok(datagram.to_vec()),
            _ => Err(icmp(3, 3, SERVER)),
        };
        self.answers.push_back((now + LATENCY * 2, to, answer));
    }
}

pub struct Outside {
    now: Instant,
    trace: Trace,
    /// Every stream and socket that was ever opened. The engine's numbers are never used twice in these tests.
    pub streams: BTreeMap<FlowId, Stream>,
    pub sockets: BTreeMap<FlowId, Socket>,
    events: VecDeque<(FlowId, Readiness)>,
    pub source_len: usize,
    /// Whether the host lets its user send pings.
    pub pings: bool,
}

impl Outside {
    pub fn new(trace: Trace) -> Outside {
        Outside {
            now: Instant::ZERO,
            trace,
            streams: BTreeMap::new(),
            sockets: BTreeMap::new(),
            events: VecDeque::new(),
            source_len: 0,
            pings: true,
        }
    }

    /// The only stream that was opened.
    pub fn stream(&mut self) -> &mut Stream {
        assert_eq!(self.streams.len(), 1, "one stream");
        self.streams.values_mut().next().expect("one stream")
    }

    /// The only socket for datagrams that was opened.
    pub fn socket(&mut self) -> &mut Socket {
        assert_eq!(self.sockets.len(), 1, "one socket");
        self.sockets.values_mut().next().expect("one socket")
    }

    /// Sockets that the engine did not close.
    pub fn open(&self) -> usize {
        self.streams.values().filter(|stream| stream.closed.is_none()).count()
            + self.sockets.values().filter(|socket| !socket.closed).count()
    }

    /// The service of the only stream sends this.
    pub fn send(&mut self, data: &[u8]) {
        self.stream().to_send.extend(data);
    }

    /// The service of the only stream ends its side.
    pub fn end(&mut self) {
        self.stream().ends = true;
    }

    /// The service of the only stream breaks the connection.
    pub fn reset(&mut self) {
        let at = self.now + LATENCY;
        self.stream().down.push_back((at, Passing::Reset));
    }

    /// The service of the only stream takes this much of what it did not read.
    pub fn read(&mut self, len: usize) {
        let stream = self.stream();
        let len = len.min(stream.unread.len());
        stream.taken.extend(stream.unread.drain(..len));
    }

    /// Lets everything that is due happen, and tells what became possible.
    pub fn poll(&mut self, now: Instant) -> Vec<(FlowId, Readiness)> {
        self.now = now;
        for (id, stream) in &mut self.streams {
            let ready = turn(stream, now, self.source_len);
            if stream.closed.is_none() && ready != Readiness::default() {
                self.events.push_back((*id, ready));
            }
        }
        for (id, socket) in &mut self.sockets {
            let mut ready = Readiness::default();
            while let Some((_, from, answer)) = socket.answers.pop_front_if(|(at, ..)| *at <= now) {
                match answer {
                    Ok(datagram) => {
                        ready.readable = true;
                        socket.arrived.push_back((from, datagram));
                    }
                    Err(icmp) => {
                        ready.error = true;
                        socket.errors.push_back(Reported { to: from, icmp, echo: None });
                    }
                }
            }
            if !socket.closed && ready != Readiness::default() {
                self.events.push_back((*id, ready));
            }
        }
        for (id, ready) in &self.events {
            self.trace.line(now, format!("socket {} is {ready:?}", id.to_bits()));
        }
        self.events.drain(..).collect()
    }

    /// When something happens although nobody does anything.
    pub fn deadline(&self) -> Option<Instant> {
        let streams = self.streams.values().flat_map(|stream| {
            let connecting = stream.connecting.as_ref().map(|(at, _)| *at);
            let lanes = [&stream.up, &stream.down].into_iter().filter_map(|lane| lane.front().map(|(at, _)| *at));
            connecting.into_iter().chain(lanes)
        });
        let sockets = self.sockets.values().filter_map(|socket| socket.answers.front().map(|(at, ..)| *at));
        streams.chain(sockets).min()
    }

    fn socket_of(&mut self, id: FlowId) -> io::Result<&mut Stream> {
        let stream = self.streams.get_mut(&id).filter(|stream| stream.closed.is_none());
        Ok(stream.ok_or(io::ErrorKind::NotConnected)?)
    }

    /// A stream that still works in both directions.
    fn stream_of(&mut self, id: FlowId) -> io::Result<&mut Stream> {
        let stream = self.socket_of(id)?;
        if stream.broken { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(stream) }
    }
}

/// One turn of one stream: what travels arrives, and the service does its work.
fn turn(stream: &mut Stream, now: Instant, source_len: usize) -> Readiness {
    let mut ready = Readiness::default();
    if let Some((at, _)) = stream.connecting {
        ready.writable = at <= now;
        return ready;
    }
    while let Some((_, passing)) = stream.up.pop_front_if(|(at, _)| *at <= now) {
        match passing {
            Passing::Data(data) => stream.unread.extend(data),
            Passing::End => stream.saw_end = true,
            Passing::Reset => stream.saw_reset = true,
        }
    }
    let deaf = stream.to.port() == DEAF;
    if !deaf {
        let from = stream.taken.len();
        stream.taken.extend(stream.unread.drain(..));
        if stream.to.port() == ECHO {
            stream.to_send.extend(&stream.taken[from..]);
        }
    }
    if matches!(stream.to.port(), ECHO | SINK) && stream.saw_end && stream.unread.is_empty() {
        stream.ends = true;
    }
    if stream.to.port() == SOURCE && !stream.ends {
        stream.to_send.extend(pattern(source_len));
        stream.ends = true;
    }
    if stream.closed.is_some() {
        return ready;
    }
    let room = BUFFER.saturating_sub(bytes(&stream.down) + stream.arrived.len());
    let len = room.min(stream.to_send.len());
    if len > 0 {
        let data = stream.to_send.drain(..len).collect();
        stream.down.push_back((now + LATENCY, Passing::Data(data)));
    }
    if stream.ends && stream.to_send.is_empty() && !stream.end_sent {
        stream.end_sent = true;
        stream.down.push_back((now + LATENCY, Passing::End));
    }
    while let Some((_, passing)) = stream.down.pop_front_if(|(at, _)| *at <= now) {
        ready.readable = true;
        match passing {
            Passing::Data(data) => stream.arrived.extend(data),
            Passing::End => stream.arrived_end = true,
            Passing::Reset => {
                stream.broken = true;
                ready.error = true;
            }
        }
    }
    ready.ended = ready.readable && (stream.arrived_end || stream.broken);
    // As a kernel does, room is told once there is enough of it.
    if stream.was_full && stream.up_bytes() <= BUFFER / 2 {
        stream.was_full = false;
        ready.writable = true;
    }
    ready
}

impl StreamHost for Outside {
    fn connect(&mut self, id: FlowId, to: SocketAddr) -> Result<bool, HostError> {
        self.trace.line(self.now, format!("socket {} opened to tcp {to}", id.to_bits()));
        let round_trip = self.now + LATENCY * 2;
        let connecting = match to.ip() {
            IpAddr::V4(NO_NET) => return Err(HostError::NetUnreachable),
            IpAddr::V4(NO_HOST) => (self.now + Duration::from_secs(3), Err(HostError::HostUnreachable)),
            IpAddr::V4(SILENT) => (self.now + Duration::from_secs(130), Err(HostError::TimedOut)),
            IpAddr::V4(SERVER) if SERVED.contains(&to.port()) => (round_trip, Ok(())),
            _ => (round_trip, Err(HostError::Refused)),
        };
        let stream = Stream {
            to,
            connecting: Some(connecting),
            up: VecDeque::new(),
            down: VecDeque::new(),
            unread: VecDeque::new(),
            taken: Vec::new(),
            saw_end: false,
            saw_reset: false,
            to_send: VecDeque::new(),
            ends: false,
            end_sent: false,
            arrived: VecDeque::new(),
            arrived_end: false,
            broken: false,
            was_full: false,
            closed: None,
        };
        self.streams.insert(id, stream);
        Ok(false)
    }

    fn listen(&mut self, _: FlowId, _: SocketAddr) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, _: FlowId, _: FlowId) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn connected(&mut self, id: FlowId) -> Result<bool, HostError> {
        let now = self.now;
        let stream = self.stream_of(id).map_err(|error| HostError::from(&error))?;
        match stream.connecting {
            None => Ok(true),
            Some((at, _)) if at > now => Ok(false),
            Some((_, outcome)) => {
                stream.connecting = None;
                outcome.map(|()| true)
            }
        }
    }

    fn write(&mut self, id: FlowId, data: &[u8]) -> io::Result<usize> {
        let at = self.now + LATENCY;
        let stream = self.stream_of(id)?;
        let room = BUFFER.saturating_sub(stream.up_bytes()).min(data.len());
        if room == 0 {
            stream.was_full = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        stream.up.push_back((at, Passing::Data(data[..room].to_vec())));
        Ok(room)
    }

    fn room(&mut self, id: FlowId) -> usize {
        self.stream_of(id).map_or(0, |stream| BUFFER.saturating_sub(stream.up_bytes()))
    }

    fn peek(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = self.socket_of(id)?;
        let len = stream.arrived.len().saturating_sub(offset).min(buffer.len());
        match len {
            // As a kernel does: what came before a reset can still be read.
            0 if stream.broken => Err(io::ErrorKind::ConnectionReset.into()),
            0 if stream.arrived_end => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => {
                for (to, from) in buffer.iter_mut().zip(stream.arrived.range(offset..offset + len)) {
                    *to = *from;
                }
                Ok(len)
            }
        }
    }

    fn consume(&mut self, id: FlowId, len: usize) -> io::Result<()> {
        let stream = self.socket_of(id)?;
        assert!(len <= stream.arrived.len(), "the engine consumes {len} bytes of {}", stream.arrived.len());
        stream.arrived.drain(..len);
        Ok(())
    }

    fn finish(&mut self, id: FlowId) -> io::Result<()> {
        let at = self.now + LATENCY;
        self.stream_of(id)?.up.push_back((at, Passing::End));
        Ok(())
    }

    fn close_stream(&mut self, id: FlowId, reset: bool) {
        self.trace.line(self.now, format!("socket {} closed{}", id.to_bits(), if reset { ", reset" } else { "" }));
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.closed.is_none()
        {
            stream.closed = Some(if reset { Closed::Reset } else { Closed::Orderly });
            stream.connecting = None;
            stream.down.clear();
            stream.to_send.clear();
            if reset {
                stream.up.push_back((self.now + LATENCY, Passing::Reset));
            }
        }
    }
}

impl DatagramHost for Outside {
    fn open(&mut self, id: FlowId, proto: Proto, _: bool) -> Result<(), HostError> {
        self.trace.line(self.now, format!("socket {} opened for {}", id.to_bits(), proto.name()));
        if proto == Proto::Icmp && !self.pings {
            return Err(HostError::NoPing);
        }
        self.sockets.insert(
            id,
            Socket {
                proto,
                to: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                sent: Vec::new(),
                answers: VecDeque::new(),
                arrived: VecDeque::new(),
                errors: VecDeque::new(),
                closed: false,
            },
        );
        Ok(())
    }

    fn bind(&mut self, id: FlowId, at: SocketAddr) -> io::Result<SocketAddr> {
        self.open(id, Proto::Udp, false).map_err(|error| io::Error::other(format!("{error:?}")))?;
        Ok(at)
    }

    fn send(&mut self, id: FlowId, runs: &[Run<'_>]) -> io::Result<usize> {
        let now = self.now;
        let socket = self.sockets.get_mut(&id).ok_or(io::ErrorKind::NotConnected)?;
        if runs[0].to.ip() == NO_NET {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        let mut sent = 0;
        for run in runs.iter().take_while(|run| run.to.ip() != NO_NET) {
            let size = run.size.max(1);
            for number in 0..run.datagrams() {
                let end = run.bytes.len().min((number + 1) * size);
                socket.send(now, run.to, run.marks.ttl, &run.bytes[number * size..end]);
                sent += 1;
            }
        }
        Ok(sent)
    }

    fn receive(&mut self, id: FlowId, batch: &mut Batch) -> io::Result<bool> {
        let socket = self.sockets.get_mut(&id).ok_or(io::ErrorKind::NotConnected)?;
        if socket.arrived.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        while !batch.is_full()
            && let Some((from, datagram)) = socket.arrived.pop_front()
        {
            batch.copy(Arrival { from, to: None, ttl: 60, tos: 0, size: datagram.len(), len: 0 }, &datagram);
        }
        Ok(batch.is_full())
    }

    fn icmp_error(&mut self, id: FlowId) -> Option<Reported> {
        self.sockets.get_mut(&id)?.errors.pop_front()
    }

    fn close(&mut self, id: FlowId) {
        self.trace.line(self.now, format!("socket {} closed", id.to_bits()));
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.closed = true;
        }
    }
}

impl Host for Outside {
    fn is_own(&mut self, ip: IpAddr) -> bool {
        ip == OWN
    }
}
