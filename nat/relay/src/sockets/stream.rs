//! Streams: connected TCP sockets, read by peeking.

use std::io::{self, IoSliceMut, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Sockets, find, retry};
use crate::flow::FlowId;
use crate::host::{HostError, StreamHost};

/// The most that is read and thrown away in one call.
const DISCARD: usize = 1 << 16;

pub(super) struct Stream {
    id: FlowId,
    socket: Socket,
    /// Where the next peek begins, behind the first byte not consumed; `None` before the first peek.
    peek_at: Option<usize>,
}

/// What all streams share.
pub(super) struct Streams {
    open: Vec<Option<Stream>>,
    scratch: Vec<u8>,
    /// The kernel has no SO_PEEK_OFF for streams.
    peeks_over: bool,
}

impl Streams {
    pub(super) fn new() -> Streams {
        Streams { open: Vec::new(), scratch: vec![0; DISCARD], peeks_over: false }
    }

    fn get(&mut self, id: FlowId) -> io::Result<&mut Stream> {
        find(&mut self.open, id, |stream| stream.id)
    }
}

impl StreamHost for Sockets {
    fn connect(&mut self, id: FlowId, to: SocketAddr) -> Result<(), HostError> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
            // The container's own stack has decided already what goes into one segment.
            socket.set_tcp_nodelay(true)?;
            socket.set_out_of_band_inline(true)?;
            self.register(id, &socket)?;
            match socket.connect(&to.into()) {
                Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
                _ => Ok(socket),
            }
        };
        let socket = open().map_err(|error| HostError::from(&error))?;
        super::put(&mut self.streams.open, id, Stream { id, socket, peek_at: None });
        Ok(())
    }

    fn connected(&mut self, id: FlowId) -> Result<bool, HostError> {
        let open = self.streams.get(id).map_err(|_| HostError::Reset)?;
        match open.socket.take_error() {
            Ok(None) => Ok(open.socket.peer_addr().is_ok()),
            Ok(Some(error)) | Err(error) => Err(HostError::from(&error)),
        }
    }

    fn write(&mut self, id: FlowId, bytes: &[u8]) -> io::Result<usize> {
        retry(|| (&self.streams.get(id)?.socket).write(bytes))
    }

    fn peek(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let set_peek_offset = self.lent.set_peek_offset;
        let open = self.streams.get(id)?;
        if open.peek_at != Some(offset) {
            let wanted = i32::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
            if set_peek_offset(open.socket.as_fd(), wanted).is_err() {
                return self.peek_over(id, offset, buffer);
            }
            open.peek_at = Some(offset);
        }
        // The kernel moves its offset forward by what it handed out.
        let got = retry(|| Ok(recv(open.socket.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?))?;
        open.peek_at = Some(offset + got);
        Ok(got)
    }

    fn consume(&mut self, id: FlowId, len: usize) -> io::Result<()> {
        let mut scratch = std::mem::take(&mut self.streams.scratch);
        let result = self.streams.get(id).and_then(|open| {
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
            // Reading moves the kernel's offset back by as much.
            open.peek_at = open.peek_at.and_then(|at| at.checked_sub(len));
            Ok(())
        });
        self.streams.scratch = scratch;
        result
    }

    fn must_ask_again(&self) -> bool {
        self.streams.peeks_over
    }

    fn finish(&mut self, id: FlowId) -> io::Result<()> {
        self.streams.get(id)?.socket.shutdown(std::net::Shutdown::Write)
    }

    fn close_stream(&mut self, id: FlowId, reset: bool) {
        let Some(place) = self.streams.open.get_mut(id.index()) else { return };
        if let Some(stream) = place.take_if(|stream| stream.id == id) {
            if reset {
                // Closing with no time to linger sends a RST; if it cannot be set, the close is merely more polite.
                let _ = stream.socket.set_linger(Some(Duration::ZERO));
            }
            self.forget(&stream.socket);
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
