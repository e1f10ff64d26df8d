//! A host that does what the test says.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};

use tapswitch_relay::{DatagramHost, FlowId, Host, HostError, HostIcmp, Proto, StreamHost};

/// One socket of the host.
#[derive(Default)]
pub struct Stream {
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
    /// What was written.
    pub written: Vec<u8>,
    pub finished: bool,
    /// Set by `close`: whether it was a reset.
    pub closed: Option<bool>,
}

/// All sockets that were opened, in order.
#[derive(Default)]
pub struct Script {
    pub streams: BTreeMap<FlowId, Stream>,
    pub opened: Vec<FlowId>,
    /// What `open` says.
    pub refuses: Option<HostError>,
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
    fn connect(&mut self, id: FlowId, _: SocketAddr) -> Result<(), HostError> {
        if let Some(error) = self.refuses {
            return Err(error);
        }
        self.streams.insert(id, Stream { room: usize::MAX, ..Stream::default() });
        self.opened.push(id);
        Ok(())
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
        stream.written.extend_from_slice(&bytes[..gulp]);
        Ok(gulp)
    }

    fn peek(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = self.socket(id)?;
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

    fn close_stream(&mut self, id: FlowId, reset: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            // A connection that lingers has closed its socket already.
            stream.closed.get_or_insert(reset);
        }
    }
}

impl DatagramHost for Script {
    fn open(&mut self, _: FlowId, _: Proto, _: SocketAddr) -> Result<(), HostError> {
        Err(HostError::Exhausted)
    }

    fn send(&mut self, _: FlowId, _: u8, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn recv(&mut self, _: FlowId, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn icmp_error(&mut self, _: FlowId) -> Option<HostIcmp> {
        None
    }

    fn close(&mut self, _: FlowId) {}
}

impl Host for Script {
    fn is_own(&mut self, _: IpAddr) -> bool {
        false
    }
}
