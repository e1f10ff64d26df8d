//! Streams: connected TCP sockets, read by peeking, and sockets that listen.
//!
//! System calls of a connection that the host opens: `socket`, two options, `connect`, `connect` again (which tells at
//! once if the other end is near), `epoll_ctl`, and `getpeername` if it was not near. Of one that it accepts: `accept4`
//! and `epoll_ctl`, because options are inherited from the socket that listens. Closing it is `close`, with `shutdown`
//! before or an option for a reset; the poller forgets a closed descriptor by itself.

use std::io::{self, IoSliceMut, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, net::TcpListener};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recv, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::datagram::icmp;
use super::{Sockets, retry};
use crate::flow::FlowId;
use crate::host::{HostError, HostIcmp, StreamHost};
use crate::pages::Pages;

/// The most that is read and thrown away in one call.
const DISCARD: usize = 1 << 16;
/// Clients that the kernel lets wait; it lowers that to its own limit.
const BACKLOG: i32 = 4_096;
/// The kernel was not told yet where to begin a peek: at the first byte then.
const FROM_START: u32 = u32::MAX;

/// Twelve bytes: there is one for each flow.
pub(super) struct Stream {
    socket: OwnedFd,
    /// Where the next peek begins, behind the first byte not consumed.
    peek_at: u32,
    generation: u16,
    connected: bool,
}

/// What all streams share.
pub(super) struct Streams {
    open: Pages<Stream>,
    listeners: Vec<(FlowId, TcpListener)>,
    scratch: Vec<u8>,
    /// The kernel has no SO_PEEK_OFF for streams.
    peeks_over: bool,
}

impl Streams {
    pub(super) fn new() -> Streams {
        Streams { open: Pages::new(), listeners: Vec::new(), scratch: vec![0; DISCARD], peeks_over: false }
    }

    fn get(&mut self, id: FlowId) -> io::Result<&mut Stream> {
        let stream = self.open.get_mut(id.index()).filter(|stream| stream.generation == id.generation());
        stream.ok_or(io::ErrorKind::NotConnected.into())
    }

    fn put(&mut self, id: FlowId, socket: impl Into<OwnedFd>, connected: bool) {
        let stream = Stream { socket: socket.into(), peek_at: FROM_START, generation: id.generation(), connected };
        self.open.put(id.index(), stream);
    }
}

impl Sockets {
    /// Asks for news of a socket, urgent data included: before that a read stops.
    fn register_stream(&self, id: FlowId, socket: impl AsFd, interest: Interest) -> io::Result<()> {
        self.registry.register(&mut SourceFd(&socket.as_fd().as_raw_fd()), self.token(id), interest)
    }
}

const NEWS: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// The container's own stack has decided already what goes into one segment. Urgent data stays in line.
fn set_up(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)
}

fn stream_socket(to: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))
}

/// What a call of `connect` that does not wait says: whether the stream is connected.
fn outcome(result: io::Result<()>) -> io::Result<bool> {
    use nix::libc::{EALREADY, EINPROGRESS, EISCONN};
    match result {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(EINPROGRESS | EALREADY) => Ok(false),
            Some(EISCONN) => Ok(true),
            _ => Err(error),
        },
    }
}

impl Sockets {
    /// Opens a stream; a probe has a time to live of its own, and keeps the errors that it meets.
    fn open_stream(&mut self, id: FlowId, to: SocketAddr, probe: Option<u8>) -> Result<bool, HostError> {
        let open = || -> io::Result<(Socket, bool)> {
            let socket = stream_socket(to)?;
            set_up(&socket)?;
            if let Some(ttl) = probe.filter(|_| to.is_ipv4()) {
                socket.set_ttl_v4(ttl.into())?;
                setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            }
            let to = to.into();
            // On a near path the other end has answered before the first call returned.
            let connected = outcome(socket.connect(&to))? || outcome(socket.connect(&to))?;
            self.register_stream(id, &socket, NEWS)?;
            Ok((socket, connected))
        };
        let (socket, connected) = open().map_err(|error| HostError::from(&error))?;
        self.streams.put(id, socket, connected);
        Ok(connected)
    }
}

impl StreamHost for Sockets {
    fn connect(&mut self, id: FlowId, to: SocketAddr) -> Result<bool, HostError> {
        self.open_stream(id, to, None)
    }

    fn probe(&mut self, id: FlowId, to: SocketAddr, ttl: u8) -> Result<bool, HostError> {
        self.open_stream(id, to, Some(ttl))
    }

    fn probe_error(&mut self, id: FlowId) -> Option<HostIcmp> {
        let fd = self.streams.get(id).ok()?.socket.as_raw_fd();
        let (mut space, mut payload) = ([0; 128], [0; 64]);
        let mut parts = [IoSliceMut::new(&mut payload)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), flags).ok()?;
        message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let offender = from.map(|from| IpAddr::from(u32::from_be(from.sin_addr.s_addr).to_be_bytes()));
                icmp(&error, offender)
            }
            _ => None,
        })
    }

    fn listen(&mut self, id: FlowId, at: SocketAddr) -> io::Result<SocketAddr> {
        let socket = stream_socket(at)?;
        // What was accepted before a restart of the daemon may linger.
        socket.set_reuse_address(true)?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        set_up(&socket)?;
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into());
        let at = listener.local_addr()?;
        self.register_stream(id, &listener, Interest::READABLE)?;
        self.streams.listeners.push((id, listener));
        Ok(at)
    }

    fn accept(&mut self, listener: FlowId, id: FlowId) -> io::Result<SocketAddr> {
        let found = self.streams.listeners.iter().find(|(other, _)| *other == listener);
        let (_, listener) = found.ok_or(io::ErrorKind::NotConnected)?;
        let (stream, client) = retry(|| listener.accept())?;
        let socket = OwnedFd::from(std::net::TcpStream::from(stream));
        self.register_stream(id, &socket, NEWS)?;
        self.streams.put(id, socket, true);
        Ok(client)
    }

    fn connected(&mut self, id: FlowId) -> Result<bool, HostError> {
        let open = self.streams.get(id).map_err(|_| HostError::Reset)?;
        let socket = SockRef::from(&open.socket);
        if !open.connected && socket.peer_addr().is_ok() {
            open.connected = true;
            return Ok(true);
        }
        match socket.take_error() {
            Ok(None) => Ok(open.connected),
            Ok(Some(error)) | Err(error) => Err(HostError::from(&error)),
        }
    }

    fn write(&mut self, id: FlowId, bytes: &[u8]) -> io::Result<usize> {
        retry(|| (&*SockRef::from(&self.streams.get(id)?.socket)).write(bytes))
    }

    fn room(&mut self, id: FlowId) -> usize {
        let send_room = self.lent.send_room;
        // If the question fails, what is held beside the socket is window enough.
        self.streams.get(id).and_then(|open| send_room(open.socket.as_fd())).unwrap_or(0)
    }

    fn peek(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let set_peek_offset = self.lent.set_peek_offset;
        let open = self.streams.get(id)?;
        let at = u32::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        if open.peek_at != at && (open.peek_at, at) != (FROM_START, 0) {
            let wanted = i32::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
            if set_peek_offset(open.socket.as_fd(), wanted).is_err() {
                return self.peek_over(id, offset, buffer);
            }
            open.peek_at = at;
        }
        let got = retry(|| Ok(recv(open.socket.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?))?;
        if open.peek_at != FROM_START {
            // The kernel moves its offset forward by what it handed out.
            open.peek_at += got as u32;
        }
        Ok(got)
    }

    fn consume(&mut self, id: FlowId, len: usize) -> io::Result<()> {
        let Sockets { streams, .. } = self;
        let mut scratch = std::mem::take(&mut streams.scratch);
        let result = streams.get(id).and_then(|open| {
            let mut left = len;
            while left > 0 {
                let part = &mut scratch[..left.min(DISCARD)];
                // On a stream MSG_TRUNC throws the bytes away without copying them (tcp(7)).
                let got = retry(|| Ok(recv(open.socket.as_raw_fd(), part, MsgFlags::MSG_TRUNC)?))?;
                if got == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left -= got.min(left);
            }
            if open.peek_at != FROM_START {
                // Reading moves the kernel's offset back by as much.
                open.peek_at = open.peek_at.saturating_sub(len as u32);
            }
            Ok(())
        });
        streams.scratch = scratch;
        result
    }

    fn must_ask_again(&self) -> bool {
        self.streams.peeks_over
    }

    fn keep_alive(&mut self, id: FlowId) {
        if let Ok(open) = self.streams.get(id) {
            // Without it a connection merely lives for longer than it could.
            let _ = SockRef::from(&open.socket).set_keepalive(true);
        }
    }

    fn finish(&mut self, id: FlowId) -> io::Result<()> {
        SockRef::from(&self.streams.get(id)?.socket).shutdown(std::net::Shutdown::Write)
    }

    fn close_stream(&mut self, id: FlowId, reset: bool) {
        if self.streams.get(id).is_err() {
            return self.streams.listeners.retain(|(listener, _)| *listener != id);
        }
        if let Some(stream) = self.streams.open.free(id.index())
            && reset
        {
            // Closing with no time to linger sends a RST; if it cannot be set, the close is merely more polite.
            let _ = SockRef::from(&stream.socket).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Sockets {
    /// Peeks without SO_PEEK_OFF (kernels before 6.9): what was read before is read again, and thrown away.
    ///
    /// Behind bytes that were read before, nothing new and the end look alike; see [`StreamHost::must_ask_again`].
    fn peek_over(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.streams.peeks_over = true;
        let mut scratch = std::mem::take(&mut self.streams.scratch);
        if scratch.len() < offset {
            scratch.resize(offset, 0);
        }
        let result = self.streams.get(id).and_then(|open| {
            let mut parts = [IoSliceMut::new(&mut scratch[..offset]), IoSliceMut::new(buffer)];
            let fd = open.socket.as_raw_fd();
            let got = retry(|| Ok(recvmsg::<()>(fd, &mut parts, None, MsgFlags::MSG_PEEK)?.bytes))?;
            match got.saturating_sub(offset) {
                0 if offset > 0 => Err(io::ErrorKind::WouldBlock.into()),
                new => Ok(new),
            }
        });
        self.streams.scratch = scratch;
        result
    }
}
