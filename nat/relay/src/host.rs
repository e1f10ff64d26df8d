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
    /// A read that gives less than was asked for is not the end of what there is: behind it comes the end of a stream, or
    /// something urgent before which the kernel stops.
    pub ended: bool,
}

/// Streams of the host. Nothing here blocks: what cannot be done now fails with [`io::ErrorKind::WouldBlock`].
pub trait StreamHost {
    /// Makes a socket and starts connecting it. `Ok(true)` if it is connected already; else readiness tells when it is.
    ///
    /// # Errors
    /// What the host says at once.
    fn connect(&mut self, id: FlowId, to: SocketAddr) -> Result<bool, HostError>;

    /// Makes a socket that listens. Readiness tells when a client may be waiting. Port 0 lets the host choose one; returns
    /// the address that it has. It is closed as a stream is.
    ///
    /// # Errors
    /// What the host says: the port is taken, or not for this user.
    fn listen(&mut self, id: FlowId, at: SocketAddr) -> io::Result<SocketAddr>;

    /// Takes the next client of a listening socket, under a number of its own, and returns its address.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if none waits; else what the host says.
    fn accept(&mut self, listener: FlowId, id: FlowId) -> io::Result<SocketAddr>;

    /// As [`StreamHost::connect`], with a time to live that may not reach: somebody looks for the routers on the way, and
    /// [`StreamHost::probe_error`] tells who it was.
    ///
    /// # Errors
    /// What the host says at once.
    fn probe(&mut self, id: FlowId, to: SocketAddr, ttl: u8) -> Result<bool, HostError> {
        let _ = ttl;
        self.connect(id, to)
    }

    /// The ICMP error that ended a probe.
    fn probe_error(&mut self, id: FlowId) -> Option<HostIcmp> {
        let _ = id;
        None
    }

    /// Whether a stream that was connecting is connected now: `Ok(false)` if it still is not. Of one that is connected it
    /// tells whether it still works.
    ///
    /// # Errors
    /// Why it failed.
    fn connected(&mut self, id: FlowId) -> Result<bool, HostError>;

    /// Writes to a stream, and says how much it took.
    fn write(&mut self, id: FlowId, bytes: &[u8]) -> io::Result<usize>;

    /// How many bytes a stream will take that has taken all so far: rather too few than too many.
    fn room(&mut self, id: FlowId) -> usize;

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

    /// Asks the other end of a stream, on which nothing passed for hours, from time to time whether it still exists.
    fn keep_alive(&mut self, _id: FlowId) {}

    /// Says to the other end of a stream that no more will be written.
    fn finish(&mut self, id: FlowId) -> io::Result<()>;

    /// Closes a stream's socket; `reset` breaks it instead of finishing it.
    fn close_stream(&mut self, id: FlowId, reset: bool);
}

/// What an IP header says beside addresses, as far as a socket can say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    /// Time to live, 1 to 255.
    pub ttl: u8,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Whether the packet must not be cut on its way.
    pub dont_fragment: bool,
}

/// Datagrams for one destination, one behind the other: all of `size` bytes, but the last, which may be shorter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// The address of the host that they are to come from; whichever the host likes if absent.
    pub from: Option<IpAddr>,
    /// What their headers say.
    pub marks: Marks,
    /// Bytes of each; 0 for one empty datagram.
    pub size: usize,
    /// All of them, or one ICMP echo message.
    pub bytes: &'a [u8],
}

impl Run<'_> {
    /// How many datagrams it is.
    pub fn datagrams(&self) -> usize {
        self.bytes.len().div_ceil(self.size.max(1)).max(1)
    }

    /// Takes the first `count` datagrams away.
    pub fn advance(&mut self, count: usize) {
        self.bytes = self.bytes.get(count * self.size..).unwrap_or_default();
    }
}

/// What arrived at a socket at once: datagrams of one sender, all of `size` bytes but the last, which may be shorter; or
/// one ICMP echo message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Who sent it. Port 0 for ICMP.
    pub from: SocketAddr,
    /// The address of the host that it came to, if that is known.
    pub to: Option<IpAddr>,
    /// Time to live on arrival.
    pub ttl: u8,
    /// Type of service on arrival.
    pub tos: u8,
    /// Bytes of each datagram; 0 for one empty datagram.
    pub size: usize,
    /// Bytes of all of them.
    pub len: usize,
}

/// What one call received, with its memory, which is used again and again.
#[derive(Default)]
pub struct Batch {
    space: Vec<u8>,
    arrivals: Vec<Arrival>,
}

impl Batch {
    /// Arrivals that one batch holds at most.
    pub const MOST: usize = 32;
    /// Bytes that one arrival has at most.
    pub const EACH: usize = 1 << 16;

    /// Forgets what came before, and lends the memory: [`Batch::MOST`] times [`Batch::EACH`] bytes. What is never written
    /// to costs address space only.
    pub fn space(&mut self) -> &mut [u8] {
        self.arrivals.clear();
        if self.space.is_empty() {
            self.space = vec![0; Batch::MOST * Batch::EACH];
        }
        &mut self.space
    }

    /// Notes what lies in the next part of the memory.
    pub fn push(&mut self, arrival: Arrival) {
        self.arrivals.push(Arrival { len: arrival.len.min(Batch::EACH), ..arrival });
    }

    /// Copies something into the next part of the memory and notes it.
    pub fn copy(&mut self, arrival: Arrival, bytes: &[u8]) {
        if self.space.is_empty() {
            self.space();
        }
        let at = self.arrivals.len() * Batch::EACH;
        self.space[at..at + bytes.len()].copy_from_slice(bytes);
        self.push(Arrival { len: bytes.len(), ..arrival });
    }

    /// Forgets what is in it.
    pub fn clear(&mut self) {
        self.arrivals.clear();
    }

    /// Whether no more fits.
    pub fn is_full(&self) -> bool {
        self.arrivals.len() >= Batch::MOST
    }

    /// What arrived, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Arrival, &[u8])> {
        let parts = self.space.chunks_exact(Batch::EACH);
        self.arrivals.iter().zip(parts).map(|(arrival, bytes)| (*arrival, &bytes[..arrival.len]))
    }
}

/// An ICMP error that the host received, or made itself, about something that a socket sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reported {
    /// Where that was sent. Port 0 for ICMP, and for a datagram that the host itself refused in the last call.
    pub to: SocketAddr,
    /// The error.
    pub icmp: HostIcmp,
    /// The header of the echo request that it quotes, as the host sent it.
    pub echo: Option<[u8; 8]>,
}

/// Sockets of the host that take datagrams, connected to nobody. Nothing here blocks, as with [`StreamHost`].
pub trait DatagramHost {
    /// Makes a socket that sends to addresses of one family.
    ///
    /// # Errors
    /// What the host says at once.
    fn open(&mut self, id: FlowId, proto: Proto, ipv6: bool) -> Result<(), HostError>;

    /// Makes a UDP socket that receives at this address of the host; port 0 lets the host choose one. Returns where.
    ///
    /// # Errors
    /// What the host says.
    fn bind(&mut self, id: FlowId, at: SocketAddr) -> io::Result<SocketAddr>;

    /// Sends runs in order, as many as it can at once, and says how many *datagrams* it took: at least one.
    ///
    /// # Errors
    /// What the host says to the first datagram, which may be the error of an earlier one.
    /// [`io::ErrorKind::InvalidInput`] if it is too large.
    fn send(&mut self, id: FlowId, runs: &[Run<'_>]) -> io::Result<usize>;

    /// Receives what is there, up to a whole batch. Whether the batch is full, and there may be more.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing is there; anything else may be the error of an earlier datagram.
    fn receive(&mut self, id: FlowId, batch: &mut Batch) -> io::Result<bool>;

    /// The next ICMP error about what this socket sent.
    fn icmp_error(&mut self, id: FlowId) -> Option<Reported>;

    /// Closes a socket.
    fn close(&mut self, id: FlowId);
}

/// The sockets of the host.
pub trait Host: StreamHost + DatagramHost {
    /// Whether this is an address of the host itself.
    fn is_own(&mut self, ip: IpAddr) -> bool;
}
