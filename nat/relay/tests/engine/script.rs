//! A host that does what the test says.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};

use tapswitch_relay::{Batch, DatagramHost, FlowId, Host, HostError, Proto, Reported, Run, StreamHost};

/// One socket of the host.
#[derive(Default)]
pub struct Stream {
    /// Where it was connected to.
    pub to: Option<SocketAddr>,
    /// What `connected` says: `None` while it connects.
    pub connected: Option<Result<(), HostError>>,
    /// Bytes that came from the other end, beginning with the first one not consumed.
    pub incoming: VecDeque<u8>,
    /// The other end has finished.
    pub ended: bool,
    /// The other end has broken the connection.
    pub broken: bool,
    /// How much each of the next writes takes; none left: as much as there is `room`.
    pub gulps: VecDeque<usize>,
    pub room: usize,
    /// What `room` says, if not the truth.
    pub claims: Option<usize>,
    pub asked_for_room: usize,
    /// What is written is only counted, and reading gives so many bytes more that nobody stored.
    pub swallows: bool,
    pub endless: usize,
    /// What was written.
    pub written: Vec<u8>,
    pub finished: bool,
    pub kept_alive: bool,
    /// Set by `close`: whether it was a reset.
    pub closed: Option<bool>,
}

/// All sockets that were opened, in order.
#[derive(Default)]
pub struct Script {
    pub streams: BTreeMap<FlowId, Stream>,
    pub opened: Vec<FlowId>,
    /// What `connect` says.
    pub refuses: Option<HostError>,
    /// Whether the other end is so near that connecting takes no time.
    pub near: bool,
    /// What listens, and its clients that were not accepted yet.
    pub listening: BTreeMap<FlowId, (SocketAddr, VecDeque<SocketAddr>)>,
    /// What `accept` says instead, once each.
    pub cannot_accept: VecDeque<io::ErrorKind>,
    /// Addresses of the host itself, and how often that was asked.
    pub own: Vec<IpAddr>,
    pub asked: usize,
}

impl Script {
    /// The latest socket.
    pub fn last(&mut self) -> &mut Stream {
        let id = self.opened.last().expect("a socket was opened");
        self.streams.get_mut(id).expect("an opened socket")
    }

    fn socket(&mut self, id: FlowId) -> io::Result<&mut Stream> {
        let stream = self.streams.get_mut(&id).filter(|stream| stream.closed.is_none());
        Ok(stream.ok_or(io::ErrorKind::NotConnected)?)
    }

    /// A socket that still works in both directions.
    fn get(&mut self, id: FlowId) -> io::Result<&mut Stream> {
        let stream = self.socket(id)?;
        if stream.broken { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(stream) }
    }
}

impl StreamHost for Script {
    fn connect(&mut self, id: FlowId, to: SocketAddr) -> Result<bool, HostError> {
        if let Some(error) = self.refuses {
            return Err(error);
        }
        let connected = self.near.then_some(Ok(()));
        self.streams.insert(id, Stream { to: Some(to), room: usize::MAX, connected, ..Stream::default() });
        self.opened.push(id);
        Ok(self.near)
    }

    fn listen(&mut self, id: FlowId, at: SocketAddr) -> io::Result<SocketAddr> {
        if self.listening.values().any(|(other, _)| *other == at) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let port = if at.port() == 0 { 30_000 } else { at.port() };
        let at = SocketAddr::new(at.ip(), port);
        self.listening.insert(id, (at, VecDeque::new()));
        Ok(at)
    }

    fn accept(&mut self, listener: FlowId, id: FlowId) -> io::Result<SocketAddr> {
        if let Some(error) = self.cannot_accept.pop_front() {
            return Err(error.into());
        }
        let (_, clients) = self.listening.get_mut(&listener).expect("a socket that listens");
        let client = clients.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        self.streams.insert(id, Stream { room: usize::MAX, connected: Some(Ok(())), ..Stream::default() });
        self.opened.push(id);
        Ok(client)
    }

    fn connected(&mut self, id: FlowId) -> Result<bool, HostError> {
        let stream = self.get(id).map_err(|_| HostError::Reset)?;
        match stream.connected {
            None => Ok(false),
            Some(outcome) => outcome.map(|()| true),
        }
    }

    fn write(&mut self, id: FlowId, bytes: &[u8]) -> io::Result<usize> {
        let stream = self.get(id)?;
        assert!(!stream.finished, "nothing is written behind the end");
        let gulp = stream.gulps.pop_front().unwrap_or(usize::MAX).min(stream.room).min(bytes.len());
        if gulp == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        stream.room -= gulp;
        if !stream.swallows {
            stream.written.extend_from_slice(&bytes[..gulp]);
        }
        Ok(gulp)
    }

    fn room(&mut self, id: FlowId) -> usize {
        let stream = self.get(id).expect("a socket that works");
        stream.asked_for_room += 1;
        stream.claims.unwrap_or(stream.room)
    }

    fn peek(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = self.socket(id)?;
        if stream.swallows {
            let len = stream.endless.saturating_sub(offset).min(buffer.len());
            return if len == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(len) };
        }
        let len = stream.incoming.len().saturating_sub(offset).min(buffer.len());
        match len {
            // What came before a reset can still be read.
            0 if stream.broken => Err(io::ErrorKind::ConnectionReset.into()),
            0 if stream.ended => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => {
                for (to, from) in buffer.iter_mut().zip(stream.incoming.range(offset..offset + len)) {
                    *to = *from;
                }
                Ok(len)
            }
        }
    }

    fn consume(&mut self, id: FlowId, len: usize) -> io::Result<()> {
        let stream = self.socket(id)?;
        if stream.swallows {
            return Ok(());
        }
        assert!(len <= stream.incoming.len(), "{len} bytes are consumed, {} are there", stream.incoming.len());
        stream.incoming.drain(..len);
        Ok(())
    }

    fn finish(&mut self, id: FlowId) -> io::Result<()> {
        let stream = self.get(id)?;
        assert!(!stream.finished, "the end comes once");
        stream.finished = true;
        Ok(())
    }

    fn keep_alive(&mut self, id: FlowId) {
        self.get(id).expect("a socket that works").kept_alive = true;
    }

    fn close_stream(&mut self, id: FlowId, reset: bool) {
        self.listening.remove(&id);
        if let Some(stream) = self.streams.get_mut(&id) {
            // A connection that lingers has closed its socket already.
            stream.closed.get_or_insert(reset);
        }
    }
}

impl DatagramHost for Script {
    fn open(&mut self, _: FlowId, _: Proto, _: bool) -> Result<(), HostError> {
        Err(HostError::Exhausted)
    }

    fn bind(&mut self, _: FlowId, _: SocketAddr) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn send(&mut self, _: FlowId, _: &[Run<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn receive(&mut self, _: FlowId, _: &mut Batch) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn icmp_error(&mut self, _: FlowId) -> Option<Reported> {
        None
    }

    fn close(&mut self, _: FlowId) {}
}

impl Host for Script {
    fn is_own(&mut self, ip: IpAddr) -> bool {
        self.asked += 1;
        self.own.contains(&ip)
    }
}
