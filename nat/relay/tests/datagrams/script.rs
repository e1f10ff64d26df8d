//! A host that does what the test says.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tapswitch_relay::{Arrival, Batch, DatagramHost, FlowId, Host, HostError, Marks, Proto, Reported, Run, StreamHost};

/// An address of the host.
pub const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// One datagram that the host was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    pub to: SocketAddr,
    pub from: Option<IpAddr>,
    pub marks: Marks,
    pub bytes: Vec<u8>,
}

/// One socket.
pub struct Socket {
    pub ipv6: bool,
    /// Where it is bound to, if that was asked for.
    pub at: Option<SocketAddr>,
    pub sent: Vec<Sent>,
    /// Datagrams of each message, and messages of each call.
    pub messages: Vec<usize>,
    pub calls: Vec<usize>,
    pub inbox: VecDeque<(Arrival, Vec<u8>)>,
    pub errors: VecDeque<Reported>,
    /// How the next calls of `send` fail.
    pub failures: VecDeque<io::ErrorKind>,
    /// Datagrams that it takes until it is full, and in one call.
    pub room: usize,
    pub most: usize,
}

#[derive(Default)]
pub struct Script {
    /// Sockets that are open.
    pub sockets: BTreeMap<FlowId, Socket>,
    pub opened: Vec<FlowId>,
    pub no_pings: bool,
}

impl Script {
    /// The latest socket that was opened.
    pub fn last(&mut self) -> &mut Socket {
        let id = *self.opened.last().expect("a socket was opened");
        self.sockets.get_mut(&id).expect("it is still open")
    }

    fn put(&mut self, id: FlowId, ipv6: bool, at: Option<SocketAddr>) {
        let socket = Socket {
            ipv6,
            at,
            sent: Vec::new(),
            messages: Vec::new(),
            calls: Vec::new(),
            inbox: VecDeque::new(),
            errors: VecDeque::new(),
            failures: VecDeque::new(),
            room: usize::MAX,
            most: usize::MAX,
        };
        assert!(self.sockets.insert(id, socket).is_none(), "two sockets with one number");
        self.opened.push(id);
    }
}

impl DatagramHost for Script {
    fn open(&mut self, id: FlowId, proto: Proto, ipv6: bool) -> Result<(), HostError> {
        if proto == Proto::Icmp && self.no_pings {
            return Err(HostError::NoPing);
        }
        self.put(id, ipv6, None);
        Ok(())
    }

    fn bind(&mut self, id: FlowId, at: SocketAddr) -> io::Result<SocketAddr> {
        let at = if at.port() == 0 { SocketAddr::new(at.ip(), 61_000) } else { at };
        if self.sockets.values().any(|socket| socket.at == Some(at)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.put(id, at.is_ipv6(), Some(at));
        Ok(at)
    }

    fn send(&mut self, id: FlowId, runs: &[Run<'_>]) -> io::Result<usize> {
        let socket = self.sockets.get_mut(&id).ok_or(io::ErrorKind::NotConnected)?;
        if let Some(kind) = socket.failures.pop_front() {
            return Err(kind.into());
        }
        socket.calls.push(runs.len());
        let mut taken = 0;
        for run in runs {
            assert_eq!(run.to.is_ipv6(), socket.ipv6, "an address of the other family");
            assert!(run.datagrams() <= 64 && run.bytes.len() <= 65_507, "more than a kernel takes as one message");
            socket.messages.push(run.datagrams());
            for number in 0..run.datagrams() {
                if taken == socket.most {
                    return Ok(taken);
                }
                if socket.room == 0 {
                    return if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::WouldBlock.into()) };
                }
                let end = run.bytes.len().min((number + 1) * run.size);
                let bytes = run.bytes[number * run.size..end].to_vec();
                socket.sent.push(Sent { to: run.to, from: run.from, marks: run.marks, bytes });
                socket.room -= 1;
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn receive(&mut self, id: FlowId, batch: &mut Batch) -> io::Result<bool> {
        let socket = self.sockets.get_mut(&id).ok_or(io::ErrorKind::NotConnected)?;
        if socket.inbox.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        while !batch.is_full()
            && let Some((arrival, bytes)) = socket.inbox.pop_front()
        {
            batch.copy(arrival, &bytes);
        }
        Ok(batch.is_full())
    }

    fn icmp_error(&mut self, id: FlowId) -> Option<Reported> {
        self.sockets.get_mut(&id)?.errors.pop_front()
    }

    fn close(&mut self, id: FlowId) {
        assert!(self.sockets.remove(&id).is_some(), "closed twice");
    }
}

impl StreamHost for Script {
    fn connect(&mut self, _: FlowId, _: SocketAddr) -> Result<bool, HostError> {
        Err(HostError::Exhausted)
    }

    fn listen(&mut self, _: FlowId, _: SocketAddr) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, _: FlowId, _: FlowId) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connected(&mut self, _: FlowId) -> Result<bool, HostError> {
        Err(HostError::Reset)
    }

    fn write(&mut self, _: FlowId, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn room(&mut self, _: FlowId) -> usize {
        0
    }

    fn peek(&mut self, _: FlowId, _: usize, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn consume(&mut self, _: FlowId, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn finish(&mut self, _: FlowId) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close_stream(&mut self, _: FlowId, _: bool) {}
}

impl Host for Script {
    fn is_own(&mut self, ip: IpAddr) -> bool {
        ip == OWN
    }
}
