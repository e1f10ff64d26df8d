//! The real host: non-blocking sockets, their readiness told by mio.

mod control;
mod datagram;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;

use crate::flow::FlowId;
use crate::host::Host;

/// Sets SO_PEEK_OFF of a socket: a call that no safe crate offers.
pub type SetPeekOffset = fn(BorrowedFd<'_>, i32) -> io::Result<()>;

/// How many bytes a socket's send buffer has room for: a question that no safe crate asks.
pub type SendRoom = fn(BorrowedFd<'_>) -> io::Result<usize>;

/// Whether an address is the host's own, as its routing table has it.
pub type IsOwn = Box<dyn FnMut(IpAddr) -> io::Result<bool> + Send>;

/// Sets IP_MTU_DISCOVER of a socket: a call that no safe crate offers.
pub type SetDontFragment = fn(BorrowedFd<'_>, bool) -> io::Result<()>;

/// Sends several messages in one call: to whom, what, and with which control messages (cmsg(3)). Says how many were sent.
pub type SendMany = fn(BorrowedFd<'_>, &[(SocketAddr, &[u8], &[u8])]) -> io::Result<usize>;

/// Receives as many messages in one call as the last argument has places, without waiting, into equal parts of memory for
/// what they hold and of memory for control messages. Of each it tells the sender and the two lengths. Says how many came.
pub type ReceiveMany =
    fn(BorrowedFd<'_>, &mut [u8], &mut [u8], &mut [(Option<SocketAddr>, usize, usize)]) -> io::Result<usize>;

/// What is lent by the crate that owns descriptors.
pub struct Lent {
    /// Where the next peek of a stream begins.
    pub set_peek_offset: SetPeekOffset,
    /// What a stream can take.
    pub send_room: SendRoom,
    /// Whether packets of a socket for IPv4 must not be cut on their way.
    pub set_dont_fragment: SetDontFragment,
    /// Sends many datagrams at once.
    pub send_many: SendMany,
    /// Receives many datagrams at once.
    pub receive_many: ReceiveMany,
    /// Asked once for each new flow.
    pub is_own: IsOwn,
}

/// The sockets of one network's flows.
pub struct Sockets {
    registry: Registry,
    /// Set in the token of every event, beside the flow's number.
    token_bits: u64,
    lent: Lent,
    streams: stream::Streams,
    datagrams: Vec<Option<datagram::Endpoint>>,
}

impl Sockets {
    /// Sockets that register with `registry`; their tokens are the flow's number and `token_bits` (above bit 47).
    pub fn new(registry: Registry, token_bits: u64, lent: Lent) -> Sockets {
        Sockets { registry, token_bits, lent, streams: stream::Streams::new(), datagrams: Vec::new() }
    }

    fn token(&self, id: FlowId) -> Token {
        Token((self.token_bits | id.to_bits()) as usize)
    }

    /// Asks for news of a socket.
    fn register(&self, id: FlowId, socket: &Socket) -> io::Result<()> {
        let token = self.token(id);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut SourceFd(&socket.as_raw_fd()), token, both)
    }

    /// Asks for no more news of a socket that is about to be closed.
    fn forget(&self, socket: &Socket) {
        // Closing the last descriptor removes it from the poller; this only says so to mio.
        let _ = self.registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
    }
}

impl Host for Sockets {
    fn is_own(&mut self, ip: IpAddr) -> bool {
        // If the question fails, the answer that opens nothing is the right one.
        (self.lent.is_own)(ip).unwrap_or(true)
    }
}

/// What stands at a place, if it is what the number means.
fn find<T>(places: &mut [Option<T>], id: FlowId, number: impl Fn(&T) -> FlowId) -> io::Result<&mut T> {
    match places.get_mut(id.index()) {
        Some(Some(open)) if number(open) == id => Ok(open),
        _ => Err(io::ErrorKind::NotConnected.into()),
    }
}

/// Puts something at the place of a number.
fn put<T>(places: &mut Vec<Option<T>>, id: FlowId, what: T) {
    if places.len() <= id.index() {
        places.resize_with(id.index() + 1, || None);
    }
    places[id.index()] = Some(what);
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
