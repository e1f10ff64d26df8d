//! Sockets of a host that takes everything and does nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tapswitch_relay::{Batch, DatagramHost, FlowId, Host, HostError, Proto, Reported, Run, StreamHost};

/// What the host would be asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To connect a stream.
    Connect {
        /// Where to.
        to: SocketAddr,
    },
    /// To write to a stream that it has.
    Write {
        /// How many bytes.
        bytes: usize,
    },
    /// To send datagrams, or a ping.
    Send {
        /// Where to.
        to: SocketAddr,
        /// How many bytes of payload.
        bytes: usize,
    },
}

/// The host as a copy of a network sees it: streams connect for ever, datagrams are taken, nothing comes.
#[derive(Debug, Default)]
pub struct Imagined {
    /// An address of the real host's own.
    own: Option<IpAddr>,
    asked: Vec<Asked>,
}

impl Imagined {
    pub(crate) fn new(own: Option<IpAddr>) -> Imagined {
        Imagined { own, asked: Vec::new() }
    }

    pub(crate) fn take_asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asked)
    }
}

impl StreamHost for Imagined {
    fn connect(&mut self, _: FlowId, to: SocketAddr) -> Result<bool, HostError> {
        self.asked.push(Asked::Connect { to });
        Ok(false)
    }

    fn listen(&mut self, _: FlowId, at: SocketAddr) -> io::Result<SocketAddr> {
        Ok(at)
    }

    fn accept(&mut self, _: FlowId, _: FlowId) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn connected(&mut self, _: FlowId) -> Result<bool, HostError> {
        Ok(false)
    }

    fn write(&mut self, _: FlowId, bytes: &[u8]) -> io::Result<usize> {
        self.asked.push(Asked::Write { bytes: bytes.len() });
        Ok(bytes.len())
    }

    fn room(&mut self, _: FlowId) -> usize {
        usize::from(u16::MAX)
    }

    fn peek(&mut self, _: FlowId, _: usize, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn consume(&mut self, _: FlowId, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: FlowId) -> io::Result<()> {
        Ok(())
    }

    fn close_stream(&mut self, _: FlowId, _: bool) {}
}

impl DatagramHost for Imagined {
    fn open(&mut self, _: FlowId, _: Proto, _: bool) -> Result<(), HostError> {
        Ok(())
    }

    fn bind(&mut self, _: FlowId, at: SocketAddr) -> io::Result<SocketAddr> {
        Ok(at)
    }

    fn send(&mut self, _: FlowId, runs: &[Run<'_>]) -> io::Result<usize> {
        self.asked.extend(runs.iter().map(|run| Asked::Send { to: run.to, bytes: run.bytes.len() }));
        Ok(runs.iter().map(Run::datagrams).sum::<usize>().max(1))
    }

    fn receive(&mut self, _: FlowId, _: &mut Batch) -> io::Result<bool> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn icmp_error(&mut self, _: FlowId) -> Option<Reported> {
        None
    }

    fn close(&mut self, _: FlowId) {}
}

impl Host for Imagined {
    fn is_own(&mut self, ip: IpAddr) -> bool {
        self.own == Some(ip)
    }
}
