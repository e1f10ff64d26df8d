//! Datagrams: UDP and ping sockets that are connected to nobody, many datagrams a call.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::control::{Controls, controls};
use super::{Lent, Sockets, find, retry};
use crate::flow::FlowId;
use crate::host::{Arrival, Batch, DatagramHost, HostError, HostIcmp, Marks, Proto, Reported, Run};

/// `ee_origin` of an error that the host made itself, and of one that came as ICMP (`linux/errqueue.h`).
const ORIGIN_LOCAL: u8 = 1;
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;
/// Messages of one call.
const MESSAGES: usize = Batch::MOST;
/// What a packet of unknown time to live is taken to have had.
const UNKNOWN_TTL: u8 = 64;

pub(super) struct Endpoint {
    id: FlowId,
    socket: Socket,
    proto: Proto,
    ipv6: bool,
    /// Whether packets that it sends must not be cut, once that was said.
    dont_fragment: Option<bool>,
    /// Whether the kernel takes many datagrams as one message for the device that they leave by.
    gso: bool,
}

impl Sockets {
    fn endpoint(&mut self, id: FlowId) -> io::Result<&mut Endpoint> {
        find(&mut self.datagrams, id, |open| open.id)
    }

    fn datagram_socket(&self, id: FlowId, proto: Proto, ipv6: bool, at: Option<SocketAddr>) -> io::Result<Socket> {
        let (domain, protocol) = match (ipv6, proto) {
            (false, Proto::Icmp) => (Domain::IPV4, Protocol::ICMPV4),
            (true, Proto::Icmp) => (Domain::IPV6, Protocol::ICMPV6),
            (false, _) => (Domain::IPV4, Protocol::UDP),
            (true, _) => (Domain::IPV6, Protocol::UDP),
        };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(protocol))?;
        if ipv6 {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            socket.set_recv_tclass_v6(true)?;
            socket.set_only_v6(true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            socket.set_recv_tos_v4(true)?;
        }
        if proto == Proto::Udp {
            // Without it datagrams come one by one.
            let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        }
        if let Some(at) = at {
            match ipv6 {
                true => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
                false => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            }
            socket.bind(&at.into())?;
        }
        self.register(id, &socket)?;
        Ok(socket)
    }

    fn put_datagrams(&mut self, id: FlowId, socket: Socket, proto: Proto, ipv6: bool) {
        let gso = proto == Proto::Udp;
        super::put(&mut self.datagrams, id, Endpoint { id, socket, proto, ipv6, dont_fragment: None, gso });
    }
}

impl DatagramHost for Sockets {
    fn open(&mut self, id: FlowId, proto: Proto, ipv6: bool) -> Result<(), HostError> {
        let socket = self.datagram_socket(id, proto, ipv6, None).map_err(|error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            if proto == Proto::Icmp && denied { HostError::NoPing } else { HostError::from(&error) }
        })?;
        self.put_datagrams(id, socket, proto, ipv6);
        Ok(())
    }

    fn bind(&mut self, id: FlowId, at: SocketAddr) -> io::Result<SocketAddr> {
        let socket = self.datagram_socket(id, Proto::Udp, at.is_ipv6(), Some(at))?;
        let at = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        self.put_datagrams(id, socket, Proto::Udp, at.is_ipv6());
        Ok(at)
    }

    fn send(&mut self, id: FlowId, runs: &[Run<'_>]) -> io::Result<usize> {
        let open = find(&mut self.datagrams, id, |open| open.id)?;
        let Some(first) = runs.first() else { return Ok(0) };
        open.set_dont_fragment(&self.lent, first.marks.dont_fragment)?;
        // One option for all that leaves in one call.
        let like = runs.iter().take(MESSAGES);
        let count = like.take_while(|run| run.marks.dont_fragment == first.marks.dont_fragment).count();
        match open.send_runs(&self.lent, &runs[..count]) {
            // The kernel takes no run if the device computes no checksums, or if a part is larger than the path's MTU.
            Err(error) if first.datagrams() > 1 && is_refused(&error) => {
                open.gso &= error.raw_os_error() != Some(libc::EIO);
                open.send_one_by_one(&self.lent, first)
            }
            result => result,
        }
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EMSGSIZE) => io::ErrorKind::InvalidInput.into(),
            _ => error,
        })
    }

    fn receive(&mut self, id: FlowId, batch: &mut Batch) -> io::Result<bool> {
        let receive_many = self.lent.receive_many;
        let open = self.endpoint(id)?;
        let mut control = [0; Controls::ROOM * MESSAGES];
        let mut arrived = [(None, 0, 0); MESSAGES];
        let socket = open.socket.as_fd();
        let count = retry(|| receive_many(socket, batch.space(), &mut control, &mut arrived))?;
        let is_echo = open.proto == Proto::Icmp;
        for ((from, len, control_len), control) in arrived.iter().take(count).zip(control.chunks(Controls::ROOM)) {
            let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            let mut arrival = arrival(from.unwrap_or(nobody), *len, control.get(..*control_len).unwrap_or_default());
            if is_echo {
                arrival.from.set_port(0);
            }
            batch.push(arrival);
        }
        Ok(count == MESSAGES)
    }

    fn icmp_error(&mut self, id: FlowId) -> Option<Reported> {
        let open = self.endpoint(id).ok()?;
        let mut space = [0; Controls::ROOM];
        let mut payload = [0; 64];
        loop {
            let mut parts = [IoSliceMut::new(&mut payload)];
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            let fd = open.socket.as_raw_fd();
            let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), flags).ok()?;
            let to = message.address.as_ref().and_then(address);
            let found = message.cmsgs().ok()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4RecvErr(error, from) => {
                    let offender = from.map(|from| IpAddr::from(u32::from_be(from.sin_addr.s_addr).to_be_bytes()));
                    icmp(&error, offender)
                }
                ControlMessageOwned::Ipv6RecvErr(error, from) => {
                    icmp(&error, from.map(|from| IpAddr::from(from.sin6_addr.s6_addr)))
                }
                _ => None,
            });
            let is_long = message.bytes >= 8;
            if let (Some(icmp), Some(mut to)) = (found, to) {
                let is_echo = open.proto == Proto::Icmp;
                if is_echo {
                    to.set_port(0);
                }
                let echo = payload.first_chunk().copied().filter(|echo: &[u8; 8]| is_echo && is_long && echo[0] == 8);
                return Some(Reported { to, icmp, echo });
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

impl Endpoint {
    /// Says whether packets may be cut: always, here and by routers, or never.
    fn set_dont_fragment(&mut self, lent: &Lent, dont_fragment: bool) -> io::Result<()> {
        if self.dont_fragment != Some(dont_fragment) && !self.ipv6 {
            (lent.set_dont_fragment)(self.socket.as_fd(), dont_fragment)?;
            self.dont_fragment = Some(dont_fragment);
        }
        Ok(())
    }

    /// Sends runs, each as one message if the kernel takes it like that. Returns the number of datagrams.
    fn send_runs(&self, lent: &Lent, runs: &[Run<'_>]) -> io::Result<usize> {
        if let Some(first) = runs.first().filter(|run| !self.gso && run.datagrams() > 1) {
            return self.send_one_by_one(lent, first);
        }
        // Where runs must be sent one by one, those behind the first of them wait for the next call.
        let count = runs.iter().take_while(|run| self.gso || run.datagrams() == 1).count();
        let mut control = [const { Controls::EMPTY }; MESSAGES];
        control.iter_mut().zip(&runs[..count]).for_each(|(control, run)| self.controls(run, control, true));
        let nothing: &[u8] = &[];
        let mut messages = [(runs[0].to, nothing, nothing); MESSAGES];
        for (message, (run, control)) in messages.iter_mut().zip(runs[..count].iter().zip(&control)) {
            *message = (run.to, run.bytes, control.bytes());
        }
        let sent = retry(|| (lent.send_many)(self.socket.as_fd(), &messages[..count]))?;
        Ok(runs[..sent.min(count)].iter().map(Run::datagrams).sum())
    }

    /// Sends the datagrams of a run, each as a message. Returns their number.
    fn send_one_by_one(&self, lent: &Lent, run: &Run<'_>) -> io::Result<usize> {
        let mut control = Controls::EMPTY;
        self.controls(run, &mut control, false);
        let nothing: &[u8] = &[];
        let mut messages = [(run.to, nothing, control.bytes()); MESSAGES];
        let parts = run.bytes.chunks(run.size.max(1)).take(MESSAGES);
        let count = messages.iter_mut().zip(parts).map(|(message, part)| message.1 = part).count().max(1);
        retry(|| (lent.send_many)(self.socket.as_fd(), &messages[..count]))
    }

    /// What is said to the kernel about one message.
    fn controls(&self, run: &Run<'_>, control: &mut Controls, whole: bool) {
        let Marks { ttl, tos, .. } = run.marks;
        match self.ipv6 {
            true => {
                control.number(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, ttl.into());
                control.number(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, tos.into());
            }
            false => {
                control.number(libc::IPPROTO_IP, libc::IP_TTL, ttl.into());
                control.number(libc::IPPROTO_IP, libc::IP_TOS, tos.into());
            }
        }
        if let (Some(IpAddr::V4(from)), false) = (run.from, self.ipv6) {
            // `struct in_pktinfo`: an interface, the source address, and one that is not looked at.
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&from.octets());
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        if whole && run.datagrams() > 1 {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &(run.size as u16).to_ne_bytes());
        }
    }
}

/// Whether the kernel does not want a run as one message.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}

/// What arrived, and what the kernel said about it.
fn arrival(from: SocketAddr, len: usize, control: &[u8]) -> Arrival {
    let mut arrival = Arrival { from, to: None, ttl: UNKNOWN_TTL, tos: 0, size: len, len };
    for control in controls(control) {
        let number = control.number().unwrap_or(0);
        match (control.level, control.kind) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => arrival.ttl = number as u8,
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => arrival.tos = number as u8,
            (libc::SOL_UDP, libc::UDP_GRO) => arrival.size = usize::try_from(number).unwrap_or(0).clamp(1, len.max(1)),
            // `struct in_pktinfo`: the interface, our address there, and the one that the packet was sent to.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let to = control.data.get(4..8).and_then(|to| <[u8; 4]>::try_from(to).ok());
                arrival.to = to.map(|to| Ipv4Addr::from(to).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let to = control.data.first_chunk::<16>();
                arrival.to = to.map(|to| Ipv6Addr::from(*to).into());
            }
            _ => {}
        }
    }
    arrival
}

fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    match (from.as_sockaddr_in(), from.as_sockaddr_in6()) {
        (Some(from), _) => Some(SocketAddr::from((from.ip(), from.port()))),
        (_, Some(from)) => Some(SocketAddr::V6((*from).into())),
        _ => None,
    }
}

/// What an entry of the error queue says, in terms of ICMP for IPv4.
pub(super) fn icmp(error: &libc::sock_extended_err, offender: Option<IpAddr>) -> Option<HostIcmp> {
    let mtu = u16::try_from(error.ee_info).unwrap_or(0);
    let (kind, code) = match error.ee_origin {
        ORIGIN_ICMP => (error.ee_type, error.ee_code),
        // RFC 4443 3: who asks has no IPv6, and hears what comes closest (RFC 7915 5.2).
        ORIGIN_ICMP6 => match (error.ee_type, error.ee_code) {
            (1, 4) => (3, 3),
            (1, 1 | 5 | 6) => (3, 13),
            (1, _) => (3, 1),
            (2, _) => (3, 4),
            (3, _) => (11, 0),
            _ => return None,
        },
        ORIGIN_LOCAL => return Some(local_error(error.ee_errno, mtu)),
        _ => return None,
    };
    Some(HostIcmp { kind, code, mtu, offender })
}

/// What the host itself said about a datagram that it would not send.
fn local_error(errno: u32, mtu: u16) -> HostIcmp {
    let error = io::Error::from_raw_os_error(errno as i32);
    let (code, mtu) = match (errno as i32 == libc::EMSGSIZE, HostError::from(&error)) {
        (true, _) => (4, mtu),
        (_, HostError::NetUnreachable) => (0, 0),
        (_, HostError::Prohibited) => (13, 0),
        _ => (1, 0),
    };
    HostIcmp { kind: 3, code, mtu, offender: None }
}
