//! Datagrams: a connected UDP or ping socket for each flow.

use std::io::{self, IoSliceMut, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Sockets, find, retry};
use crate::flow::FlowId;
use crate::host::{DatagramHost, HostError, HostIcmp, Proto};

/// `ee_origin` of an error that the host made itself, and of one that came as ICMP (`linux/errqueue.h`).
const ORIGIN_LOCAL: u8 = 1;
const ORIGIN_ICMP: u8 = 2;

pub(super) struct Endpoint {
    id: FlowId,
    socket: Socket,
    domain: Domain,
    /// Time to live that the socket is set to.
    ttl: u8,
}

impl Sockets {
    fn endpoint(&mut self, id: FlowId) -> io::Result<&mut Endpoint> {
        find(&mut self.datagrams, id, |open| open.id)
    }
}

impl DatagramHost for Sockets {
    fn open(&mut self, id: FlowId, proto: Proto, to: SocketAddr) -> Result<(), HostError> {
        let domain = Domain::for_address(to);
        let protocol = match (proto, to) {
            (Proto::Icmp, SocketAddr::V4(_)) => Protocol::ICMPV4,
            (Proto::Icmp, SocketAddr::V6(_)) => Protocol::ICMPV6,
            _ => Protocol::UDP,
        };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(protocol)).map_err(|error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            if proto == Proto::Icmp && denied { HostError::NoPing } else { HostError::from(&error) }
        })?;
        let setup = || -> io::Result<()> {
            if to.is_ipv4() {
                setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            }
            self.register(id, &socket)?;
            socket.connect(&to.into())
        };
        setup().map_err(|error| HostError::from(&error))?;
        super::put(&mut self.datagrams, id, Endpoint { id, socket, domain, ttl: 0 });
        Ok(())
    }

    fn send(&mut self, id: FlowId, ttl: u8, datagram: &[u8]) -> io::Result<()> {
        let open = self.endpoint(id)?;
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
        retry(|| (&self.endpoint(id)?.socket).read(buffer))
    }

    fn icmp_error(&mut self, id: FlowId) -> Option<HostIcmp> {
        let open = self.endpoint(id).ok()?;
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

    fn close(&mut self, id: FlowId) {
        let Some(place) = self.datagrams.get_mut(id.index()) else { return };
        if let Some(open) = place.take_if(|open| open.id == id) {
            self.forget(&open.socket);
        }
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
