//! The host's side of a flow, as the engine sees it. The daemon gives it sockets, a test gives it a script.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::flow::FlowId;

/// What kind of socket a flow needs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Proto {
    /// A stream.
    Tcp,
    /// Datagrams.
    Udp,
    /// Echo requests and replies.
    Icmp,
}

impl Proto {
    /// The name users see.
    pub fn name(self) -> &'static str {
        match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Icmp => "icmp",
        }
    }
}

/// Why the host could not reach the other end. Each becomes what a router or the other end itself would have said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostError {
    /// Nobody listens there.
    Refused,
    /// The other end broke the connection.
    Reset,
    /// The host, or a router, knows no such machine.
    HostUnreachable,
    /// There is no route.
    NetUnreachable,
    /// Nobody answered.
    TimedOut,
    /// The host's own policy forbids it.
    Prohibited,
    /// The host lets this user send no pings.
    NoPing,
    /// Out of descriptors, memory or ports.
    Exhausted,
}

impl From<&io::Error> for HostError {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => HostError::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                HostError::Reset
            }
            io::ErrorKind::HostUnreachable => HostError::HostUnreachable,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => HostError::NetUnreachable,
            io::ErrorKind::TimedOut => HostError::TimedOut,
            io::ErrorKind::PermissionDenied => HostError::Prohibited,
            _ => HostError::Exhausted,
        }
    }
}

/// An ICMP error that the host received about a datagram or a ping of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostIcmp {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The next hop's MTU, for "fragmentation needed".
    pub mtu: u16,
    /// Who sent the error; absent if the host made it itself.
    pub offender: Option<IpAddr>,
}

/// What became possible on a flow's socket. Readiness is edge-triggered: each is told once, until it was used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// There is something to read, or the other end has finished.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// There is an error to fetch.
    pub error: bool,
}

/// Streams of the host. Nothing here blocks: what cannot be done now fails with [`io::ErrorKind::WouldBlock`].
pub trait StreamHost {
    /// Makes a socket and starts connecting it. Readiness tells when it is done.
    ///
    /// # Errors
    /// What the host says at once.
    fn connect(&mut self, id: FlowId, to: SocketAddr) -> Result<(), HostError>;

    /// Whether a stream that was connecting is connected now: `Ok(false)` if it still is not.
    ///
    /// # Errors
    /// Why it failed.
    fn connected(&mut self, id: FlowId) -> Result<bool, HostError>;

    /// Writes to a stream, and says how much it took.
    fn write(&mut self, id: FlowId, bytes: &[u8]) -> io::Result<usize>;

    /// Reads from a stream beginning `offset` bytes behind the last one consumed, and leaves it there to be read again.
    /// Zero bytes mean that the other end has finished.
    fn peek(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize>;

    /// Forgets the next `len` bytes of a stream.
    fn consume(&mut self, id: FlowId, len: usize) -> io::Result<()>;

    /// Whether [`StreamHost::peek`] cannot tell the end of a stream from a wait while earlier bytes are unconsumed, so
    /// that it must be asked again once they are consumed.
    fn must_ask_again(&self) -> bool {
        false
    }

    /// Says to the other end of a stream that no more will be written.
    fn finish(&mut self, id: FlowId) -> io::Result<()>;

    /// Closes a stream's socket; `reset` breaks it instead of finishing it.
    fn close_stream(&mut self, id: FlowId, reset: bool);
}

/// Sockets of the host that take datagrams. Nothing here blocks, as with [`StreamHost`].
pub trait DatagramHost {
    /// Makes a socket for a flow and connects it.
    ///
    /// # Errors
    /// What the host says at once.
    fn open(&mut self, id: FlowId, proto: Proto, to: SocketAddr) -> Result<(), HostError>;

    /// Sends one datagram or one ICMP echo message with this time to live.
    fn send(&mut self, id: FlowId, ttl: u8, datagram: &[u8]) -> io::Result<()>;

    /// Receives one datagram or one ICMP echo message into `buffer`; its true length may be larger.
    fn recv(&mut self, id: FlowId, buffer: &mut [u8]) -> io::Result<usize>;

    /// The next ICMP error about this flow.
    fn icmp_error(&mut self, id: FlowId) -> Option<HostIcmp>;

    /// Closes a socket.
    fn close(&mut self, id: FlowId);
}

/// The sockets of the host.
pub trait Host: StreamHost + DatagramHost {
    /// Whether this is an address of the host itself.
    fn is_own(&mut self, ip: IpAddr) -> bool;
}
