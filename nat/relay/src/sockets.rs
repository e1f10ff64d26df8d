//! The real host: non-blocking sockets, their readiness told by mio.

use std::io::{self, IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recv, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::host::{Host, HostError, HostIcmp, Proto};
use crate::table::FlowId;

/// Sets SO_PEEK_OFF of a socket: a call that no safe crate offers.
pub type SetPeekOffset = fn(BorrowedFd<'_>, i32) -> io::Result<()>;

/// Whether an address is the host's own, as its routing table has it.
pub type IsOwn = Box<dyn FnMut(IpAddr) -> io::Result<bool> + Send>;

/// What is lent by the crate that owns descriptors.
pub struct Lent {
    /// Where the next peek of a stream begins.
    pub set_peek_offset: SetPeekOffset,
    /// Asked once for each new flow.
    pub is_own: IsOwn,
}

/// The most that is read and thrown away in one call.
const DISCARD: usize = 1 << 16;
/// `ee_origin` of an error that the host made itself, and of one that came as ICMP (`linux/errqueue.h`).
const ORIGIN_LOCAL: u8 = 1;
const ORIGIN_ICMP: u8 = 2;

struct Open {
    id: FlowId,
    socket: Socket,
    proto: Proto,
    domain: Domain,
    /// Time to live that the socket is set to.
    ttl: u8,
    /// Where the next peek begins, behind the first byte not consumed; `None` before the first peek.
    peek_at: Option<usize>,
}

/// The sockets of one network's flows.
pub struct Sockets {
    registry: Registry,
    /// Set in the token of every event, beside the flow's number.
    token_bits: u64,
    lent: Lent,
    open: Vec<Option<Open>>,
    scratch: Vec<u8>,
    /// The kernel has no SO_PEEK_OFF for streams.
    peeks_over: bool,
}

impl Sockets {
    /// Sockets that register with `registry`; their tokens are the flow's number and `token_bits` (above bit 47).
    pub fn new(registry: Registry, token_bits: u64, lent: Lent) -> Sockets {
        Sockets { registry, token_bits, lent, open: Vec::new(), scratch: vec![0; DISCARD], peeks_over: false }
    }

    fn get(&mut self, id: FlowId) -> io::Result<&mut Open> {
        match self.open.get_mut(id.index()) {
            Some(Some(open)) if open.id == id => Ok(open),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn connect(&self, id: FlowId, proto: Proto, to: SocketAddr) -> Result<Socket, HostError> {
        let domain = Domain::for_address(to);
        let (kind, protocol) = match (proto, to) {
            (Proto::Tcp, _) => (Type::STREAM, Protocol::TCP),
            (Proto::Udp, _) => (Type::DGRAM, Protocol::UDP),
            (Proto::Icmp, SocketAddr::V4(_)) => (Type::DGRAM, Protocol::ICMPV4),
            (Proto::Icmp, SocketAddr::V6(_)) => (Type::DGRAM, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol)).map_err(|error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            if proto == Proto::Icmp && denied { HostError::NoPing } else { HostError::from(&error) }
        })?;
        let setup = || -> io::Result<()> {
            match proto {
                Proto::Tcp => {
                    // The container's own stack has decided already what goes into one segment.
                    socket.set_tcp_nodelay(true)?;
                    socket.set_out_of_band_inline(true)
                }
                Proto::Udp | Proto::Icmp if to.is_ipv4() => Ok(setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?),
                Proto::Udp | Proto::Icmp => Ok(()),
            }
        };
        setup().map_err(|error| HostError::from(&error))?;
        let token = Token((self.token_bits | id.to_bits()) as usize);
        self.registry
            .register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| HostError::from(&error))?;
        match socket.connect(&to.into()) {
            Ok(()) => Ok(socket),
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => Ok(socket),
            Err(error) => Err(HostError::from(&error)),
        }
    }
}

impl Host for Sockets {
    fn open(&mut self, id: FlowId, proto: Proto, to: SocketAddr) -> Result<(), HostError> {
        let socket = self.connect(id, proto, to)?;
        if self.open.len() <= id.index() {
            self.open.resize_with(id.index() + 1, || None);
        }
        self.open[id.index()] =
            Some(Open { id, socket, proto, domain: Domain::for_address(to), ttl: 0, peek_at: None });
        Ok(())
    }

    fn connected(&mut self, id: FlowId) -> Result<bool, HostError> {
        let open = self.get(id).map_err(|_| HostError::Reset)?;
        match open.socket.take_error() {
            Ok(None) => Ok(open.socket.peer_addr().is_ok()),
            Ok(Some(error)) | Err(error) => Err(HostError::from(&error)),
        }
    }

    fn write(&mut self, id: FlowId, bytes: &[u8]) -> io::Result<usize> {
        retry(|| (&self.get(id)?.socket).write(bytes))
    }

    fn peek(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let set_peek_offset = self.lent.set_peek_offset;
        let open = self.get(id)?;
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
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.get(id).and_then(|open| {
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
        self.scratch = scratch;
        result
    }

    fn must_ask_again(&self) -> bool {
        self.peeks_over
    }

    fn finish(&mut self, id: FlowId) -> io::Result<()> {
        self.get(id)?.socket.shutdown(std::net::Shutdown::Write)
    }

    fn send(&mut self, id: FlowId, ttl: u8, datagram: &[u8]) -> io::Result<()> {
        let open = self.get(id)?;
        if open.ttl != ttl && ttl > 0 {
            let hops = u32::from(ttl);
            match open.domain {
                Domain::IPV6 => open.socket.set_unicast_hops_v6(hops)?,
                _ => open.socket.set_ttl_v4(hops)?,
            }
            open.ttl = ttl;
        }
        retry(|| open.socket.send(datagram)).map(drop)
    }

    fn recv(&mut self, id: FlowId, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| (&self.get(id)?.socket).read(buffer))
    }

    fn icmp_error(&mut self, id: FlowId) -> Option<HostIcmp> {
        let open = self.get(id).ok().filter(|open| open.proto != Proto::Tcp)?;
        let mut space = nix::cmsg_space!(nix::libc::sock_extended_err, nix::libc::sockaddr_in);
        let mut payload = [0; 64];
        loop {
            let mut parts = [IoSliceMut::new(&mut payload)];
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            let message = recvmsg::<SockaddrIn>(open.socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
            for control in message.cmsgs().ok()? {
                if let ControlMessageOwned::Ipv4RecvErr(error, from) = control {
                    let offender = from.filter(|_| error.ee_origin == ORIGIN_ICMP);
                    let offender = offender.map(|from| IpAddr::from(u32::from_be(from.sin_addr.s_addr).to_be_bytes()));
                    return match error.ee_origin {
                        ORIGIN_ICMP => Some(HostIcmp {
                            kind: error.ee_type,
                            code: error.ee_code,
                            mtu: u16::try_from(error.ee_info).unwrap_or(0),
                            offender,
                        }),
                        ORIGIN_LOCAL => Some(local_error(error.ee_errno, error.ee_info)),
                        _ => continue,
                    };
                }
            }
        }
    }

    fn close(&mut self, id: FlowId, reset: bool) {
        let Some(place) = self.open.get_mut(id.index()) else { return };
        if let Some(open) = place.take_if(|open| open.id == id) {
            if reset && open.proto == Proto::Tcp {
                // Closing with no time to linger sends a RST; if it cannot be set, the close is merely more polite.
                let _ = open.socket.set_linger(Some(Duration::ZERO));
            }
            // Closing the last descriptor removes it from the poller; this only says so to mio.
            let _ = self.registry.deregister(&mut SourceFd(&open.socket.as_raw_fd()));
        }
    }

    fn is_own(&mut self, ip: IpAddr) -> bool {
        // If the question fails, the answer that opens nothing is the right one.
        (self.lent.is_own)(ip).unwrap_or(true)
    }
}

impl Sockets {
    /// Peeks without SO_PEEK_OFF (kernels before 6.9): what was read before is read again, and thrown away.
    ///
    /// Behind bytes that were read before, nothing new and the end look alike; see [`Host::must_ask_again`].
    fn peek_over(&mut self, id: FlowId, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.peeks_over = true;
        let mut scratch = std::mem::take(&mut self.scratch);
        if scratch.len() < offset {
            scratch.resize(offset, 0);
        }
        let result = self.get(id).and_then(|open| {
            let mut parts = [IoSliceMut::new(&mut scratch[..offset]), IoSliceMut::new(buffer)];
            let fd = open.socket.as_raw_fd();
            let got = retry(|| Ok(recvmsg::<()>(fd, &mut parts, None, MsgFlags::MSG_PEEK)?.bytes))?;
            match got.saturating_sub(offset) {
                0 if offset > 0 => Err(io::ErrorKind::WouldBlock.into()),
                new => Ok(new),
            }
        });
        self.scratch = scratch;
        result
    }
}

/// What the host itself said about a datagram that it would not send.
fn local_error(errno: u32, mtu: u32) -> HostIcmp {
    let error = io::Error::from_raw_os_error(errno as i32);
    let (code, mtu) = match (errno as i32 == nix::libc::EMSGSIZE, HostError::from(&error)) {
        (true, _) => (4, u16::try_from(mtu).unwrap_or(0)),
        (_, HostError::NetUnreachable) => (0, 0),
        (_, HostError::Prohibited) => (13, 0),
        _ => (1, 0),
    };
    HostIcmp { kind: 3, code, mtu, offender: None }
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
