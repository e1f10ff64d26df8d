//! Frames as they are: a socket that sees and sends whatever passes an interface.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};

use crate::clock::Stopwatch;
use crate::namespace::Enter;
use crate::packet;

/// A hardware address.
pub type Mac = [u8; 6];

/// Bytes of frames that may wait to be read.
const BACKLOG: usize = 32 << 20;

/// An interface, read and written frame by frame. It sees what others send there, not what it sends itself.
pub struct Wire {
    socket: OwnedFd,
    mac: Mac,
    buffer: Vec<u8>,
}

impl Wire {
    /// Opens `interface` in `place`. Every frame from now on can be read.
    pub fn open(place: &impl Enter, interface: &str) -> Self {
        let (socket, mac) = place.inside(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).expect("a socket");
            let link = link(interface);
            // The address names no protocol: the socket keeps its own, which is all of them.
            bind(socket.as_raw_fd(), &link).expect("binds to an interface");
            setsockopt(&socket, sockopt::RcvBuf, &BACKLOG).expect("a socket has a buffer");
            // Root may have all of it; in a user namespace the system's limit has to do.
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &BACKLOG);
            (socket, link.addr().expect("an interface has a hardware address"))
        });
        let mut wire = Self { socket, mac, buffer: vec![0; 1 << 17] };
        // Before it was bound, it saw all interfaces.
        while wire.frame().is_some() {}
        wire
    }

    /// The same socket once more: neither of both sees what the other sends.
    pub(crate) fn share(&self) -> Self {
        let socket = self.socket.try_clone().expect("a socket can be shared");
        Self { socket, mac: self.mac, buffer: self.buffer.clone() }
    }

    /// The interface's hardware address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends a frame. Waits while the interface has no room.
    pub fn send(&self, frame: &[u8]) {
        loop {
            match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(n) => return assert_eq!(n, frame.len()),
                Err(e) if matches!(std::io::Error::from(e).kind(), ErrorKind::WouldBlock) => {
                    self.wait(PollFlags::POLLOUT, 100)
                }
                Err(nix::errno::Errno::ENOBUFS) => self.wait(PollFlags::POLLOUT, 1),
                Err(e) => panic!("sending {} bytes: {e}", frame.len()),
            }
        }
    }

    /// The next frame, if there is one already.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        let n = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()).ok()?;
        Some(self.buffer[..n].to_vec())
    }

    /// The first frame within `limit` of which `pick` makes something.
    pub fn find<T>(&mut self, limit: Duration, mut pick: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let watch = Stopwatch::start();
        loop {
            while let Some(frame) = self.frame() {
                if let Some(found) = pick(&frame) {
                    return Some(found);
                }
            }
            let left = limit.checked_sub(watch.elapsed())?;
            self.wait(PollFlags::POLLIN, u16::try_from(left.as_millis()).unwrap_or(u16::MAX).max(1));
        }
    }

    /// Asks by ARP, as `ip`, who has `target`. Panics if nobody answers.
    pub fn resolve(&mut self, ip: Ipv4Addr, target: Ipv4Addr) -> Mac {
        let mac = self.mac;
        for _ in 0..5 {
            self.send(&packet::arp_request(mac, ip, target));
            let answer = self.find(Duration::from_secs(1), |frame| packet::arp_reply(frame, target));
            if let Some(found) = answer {
                return found;
            }
        }
        panic!("nobody has {target}");
    }

    /// Waits at most so many milliseconds for the socket.
    fn wait(&self, events: PollFlags, millis: u16) {
        // An early end of the wait does no harm: the caller looks again.
        let _ = poll(&mut [PollFd::new(self.socket.as_fd(), events)], PollTimeout::from(millis));
    }
}

fn link(interface: &str) -> LinkAddr {
    let mut all = getifaddrs().expect("interfaces can be listed").filter(|found| found.interface_name == interface);
    let link = all.find_map(|found| found.address?.as_link_addr().copied());
    link.unwrap_or_else(|| panic!("there is no interface {interface}"))
}
