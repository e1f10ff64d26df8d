//! The host's sockets, played from the records, and suspicious of the relay: it may use only what it opened, consume only
//! what is there, and write nothing after the end.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tapswitch_relay::{
    Arrival, Batch, DatagramHost, FlowId, Host, HostError, HostIcmp, Proto, Readiness, Reported, Run, StreamHost,
};

use crate::record::Record;

/// An address that the host calls its own.
pub const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// The errors of a host, by number.
const ERRORS: [HostError; 8] = [
    HostError::Refused,
    HostError::Reset,
    HostError::HostUnreachable,
    HostError::NetUnreachable,
    HostError::TimedOut,
    HostError::Prohibited,
    HostError::NoPing,
    HostError::Exhausted,
];

struct Socket {
    proto: Proto,
    /// Whether a stream is connected, is not yet, or failed.
    connected: Result<bool, HostError>,
    /// Bytes of a stream not consumed yet, and how many came before them.
    inbound: VecDeque<u8>,
    inbound_total: u64,
    datagrams: VecDeque<Vec<u8>>,
    finished_by_peer: bool,
    finished_by_us: bool,
    /// Bytes or datagrams that can be written before it would block.
    room: usize,
    /// Where the latest datagram went, and the errors about what was sent.
    to: SocketAddr,
    icmp: VecDeque<Reported>,
    /// The last byte of a stream that the relay wrote.
    last_written: Option<u8>,
}

/// The host.
pub struct Script {
    sockets: BTreeMap<u64, Socket>,
    /// What the next attempt to open a socket meets.
    refuse_next: Option<HostError>,
    /// Whether containers send only bytes that count up, so that what is written can be checked.
    pub counts_up: bool,
}

impl Script {
    /// A host without sockets.
    pub fn new() -> Script {
        Script { sockets: BTreeMap::new(), refuse_next: None, counts_up: true }
    }

    /// Sockets that are open.
    pub fn open_sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Plays one record. Returns the flow that is to hear of it and what it hears.
    ///
    /// `args`: which socket, what happens, how much (two bytes), which error.
    pub fn play(&mut self, record: &Record) -> Option<(FlowId, Readiness)> {
        let [which, what, _, _, error, ..] = record.args;
        let error = ERRORS[usize::from(error) % ERRORS.len()];
        if what % 10 == 9 {
            self.refuse_next = Some(error);
            return None;
        }
        let index = usize::from(which).checked_rem(self.sockets.len())?;
        let (bits, socket) = self.sockets.iter_mut().nth(index)?;
        let mut ready = Readiness::default();
        match what % 10 {
            0 => (socket.connected, ready.writable) = (Ok(true), true),
            1 => (socket.connected, ready.error) = (Err(error), true),
            2 if socket.proto == Proto::Tcp && !socket.finished_by_peer => {
                for _ in 0..record.word(2) {
                    socket.inbound.push_back(socket.inbound_total as u8);
                    socket.inbound_total += 1;
                }
                ready.readable = true;
            }
            2 | 3 if socket.proto != Proto::Tcp => {
                // An echo reply as a ping socket gives it, or a datagram of any length.
                let mut datagram = vec![0; usize::from(record.word(2) % 2000)];
                if what % 10 == 3 {
                    datagram.resize(12, 7);
                }
                socket.datagrams.push_back(datagram);
                ready.readable = true;
            }
            4 => (socket.finished_by_peer, ready.readable) = (true, true),
            5 => (socket.room, ready.writable) = (usize::from(record.word(2)), true),
            6 => {
                let offender = Some(IpAddr::from(Ipv4Addr::new(198, 51, 100, record.args[3])));
                let (kind, code) = if record.args[2] & 1 == 0 { (3, record.args[4] % 14) } else { (11, 0) };
                let icmp = HostIcmp { kind, code, mtu: 1400, offender };
                let echo = (record.args[3] & 1 == 0).then_some([8, 0, 1, 2, 3, 4, 5, 6]);
                socket.icmp.push_back(Reported { to: socket.to, icmp, echo });
                ready.error = true;
            }
            7 => (ready.readable, ready.writable) = (true, true),
            8 => (ready.readable, ready.writable, ready.error) = (true, true, true),
            _ => return None,
        }
        ready.ended = socket.finished_by_peer;
        Some((FlowId::from_bits(*bits), ready))
    }

    fn socket(&mut self, id: FlowId) -> &mut Socket {
        self.sockets.get_mut(&id.to_bits()).expect("the relay uses a socket that it has not open")
    }
}

impl StreamHost for Script {
    fn connect(&mut self, id: FlowId, to: SocketAddr) -> Result<bool, HostError> {
        self.open(id, Proto::Tcp, to.is_ipv6()).map(|()| false)
    }

    fn listen(&mut self, _: FlowId, _: SocketAddr) -> io::Result<SocketAddr> {
        Err(ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, _: FlowId, _: FlowId) -> io::Result<SocketAddr> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connected(&mut self, id: FlowId) -> Result<bool, HostError> {
        self.socket(id).connected
    }

    fn write(&mut self, id: FlowId, bytes: &[u8]) -> io::Result<usize> {
        let counts_up = self.counts_up;
        let socket = self.socket(id);
        assert!(!socket.finished_by_us, "written after the end");
        if let Err(error) = socket.connected {
            return Err(io::Error::other(format!("{error:?}")));
        }
        let len = bytes.len().min(socket.room);
        if len == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        for byte in &bytes[..len] {
            if let (true, Some(last)) = (counts_up, socket.last_written) {
                assert_eq!(*byte, last.wrapping_add(1), "a byte of the stream was lost, doubled or moved");
            }
            socket.last_written = Some(*byte);
        }
        socket.room -= len;
        Ok(len)
    }

    fn room(&mut self, id: FlowId) -> usize {
        // Sometimes more than there is.
        self.socket(id).room * 2
    }

    fn peek(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = self.socket(id);
        if let Err(error) = socket.connected {
            return Err(io::Error::other(format!("{error:?}")));
        }
        if offset >= socket.inbound.len() {
            return if socket.finished_by_peer { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let len = buffer.len().min(socket.inbound.len() - offset);
        for (to, from) in buffer.iter_mut().zip(socket.inbound.range(offset..offset + len)) {
            *to = *from;
        }
        Ok(len)
    }

    fn consume(&mut self, id: FlowId, len: usize) -> io::Result<()> {
        let socket = self.socket(id);
        assert!(len <= socket.inbound.len(), "more was acknowledged than was sent");
        socket.inbound.drain(..len);
        Ok(())
    }

    fn finish(&mut self, id: FlowId) -> io::Result<()> {
        let socket = self.socket(id);
        assert!(!socket.finished_by_us, "ended twice");
        socket.finished_by_us = true;
        Ok(())
    }

    fn close_stream(&mut self, id: FlowId, _reset: bool) {
        self.sockets.remove(&id.to_bits());
    }
}

impl DatagramHost for Script {
    fn open(&mut self, id: FlowId, proto: Proto, _ipv6: bool) -> Result<(), HostError> {
        if let Some(error) = self.refuse_next.take() {
            return Err(error);
        }
        let socket = Socket {
            proto,
            connected: Ok(false),
            inbound: VecDeque::new(),
            inbound_total: 0,
            datagrams: VecDeque::new(),
            finished_by_peer: false,
            finished_by_us: false,
            room: 1 << 20,
            to: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            icmp: VecDeque::new(),
            last_written: None,
        };
        let before = self.sockets.insert(id.to_bits(), socket);
        assert!(before.is_none(), "two sockets for one number");
        Ok(())
    }

    fn bind(&mut self, id: FlowId, at: SocketAddr) -> io::Result<SocketAddr> {
        self.open(id, Proto::Udp, at.is_ipv6()).map_err(|error| io::Error::other(format!("{error:?}")))?;
        Ok(at)
    }

    fn send(&mut self, id: FlowId, runs: &[Run<'_>]) -> io::Result<usize> {
        let socket = self.socket(id);
        assert!(!runs.is_empty(), "a call for nothing");
        if !socket.icmp.is_empty() {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let mut sent = 0;
        for run in runs {
            assert!(
                run.size <= 65_507 && run.bytes.len() <= 65_507 && run.datagrams() <= 64,
                "more than a kernel takes"
            );
            assert!(run.marks.ttl > 0, "a packet that is dead already");
            let room = run.datagrams().min(socket.room);
            sent += room;
            socket.room -= room;
            if room > 0 {
                socket.to = run.to;
            }
            if room < run.datagrams() {
                break;
            }
        }
        if sent == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(sent) }
    }

    fn receive(&mut self, id: FlowId, batch: &mut Batch) -> io::Result<bool> {
        let socket = self.socket(id);
        if !socket.icmp.is_empty() {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        if socket.datagrams.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        while !batch.is_full()
            && let Some(datagram) = socket.datagrams.pop_front()
        {
            // Some come from another port of the same host, and some as many datagrams at once.
            let mut from = socket.to;
            if datagram.len() % 7 == 6 {
                from.set_port(9);
            }
            let size = if datagram.len() % 5 == 4 { datagram.len() / 3 } else { datagram.len() };
            let arrival = Arrival { from, to: None, ttl: datagram.len() as u8, tos: 3, size, len: 0 };
            batch.copy(arrival, &datagram);
        }
        Ok(batch.is_full())
    }

    fn icmp_error(&mut self, id: FlowId) -> Option<Reported> {
        self.socket(id).icmp.pop_front()
    }

    fn close(&mut self, id: FlowId) {
        self.sockets.remove(&id.to_bits());
    }
}

impl Host for Script {
    fn is_own(&mut self, ip: IpAddr) -> bool {
        ip == OWN
    }
}
