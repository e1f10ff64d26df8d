//! Many sessions at once: one datagram for each, with an address and ports of its own.
//!
//! As a NAT whose mappings depend on the inside end alone has no more than 65 536 of them for an address, the sessions
//! differ by their far end: [`PORTS`] source ports, to as many addresses as it takes. The packets are made here and sent
//! as they are (IPPROTO_RAW), for no kernel likes to hold so many sockets. Nobody answers, and nobody is there to.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg, socket,
};
use serde::{Deserialize, Serialize};
use tapswitch_wire::Mac;
use tapswitch_wire::build::{self, Ip, Link};

use super::SMALL;

/// Source ports, from the first one on: no more than tapswitch grants a container by default.
const PORTS: u32 = 20_000;
const FIRST_PORT: u16 = 20_000;

/// Where the addresses of the far ends begin: those set aside for benchmarks (RFC 2544).
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FAR_PORT: u16 = 5304;

/// Datagrams for one system call.
const BATCH: usize = 32;

/// How long the first datagram gets to open the path (ARP).
const OPENING: Duration = Duration::from_millis(300);

const ETHERNET: usize = 14;

/// What the sender did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub sent: u64,
    pub seconds: f64,
}

/// Sends a datagram of each session, `rate` of them a second, from the address `from`, which is this container's.
pub(super) fn open(sessions: u32, from: Ipv4Addr, rate: u32) -> Result<Opened, String> {
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)
        .map_err(|error| format!("cannot open a raw socket: {error}"))?;
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut send = |first: u32, count: u32| -> Result<(), String> {
        let packets: Vec<Vec<u8>> = (first..first + count).map(|session| packet(session, from)).collect();
        let slices: Vec<[std::io::IoSlice<'_>; 1]> =
            packets.iter().map(|packet| [std::io::IoSlice::new(packet)]).collect();
        let to = |session| Some(SockaddrIn::from(std::net::SocketAddrV4::new(far(session), 0)));
        let addresses: Vec<Option<SockaddrIn>> = (first..first + count).map(to).collect();
        let mut done = 0;
        while done < packets.len() {
            let rest = done..;
            match sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &slices[rest.clone()],
                &addresses[rest],
                [],
                MsgFlags::empty(),
            ) {
                Ok(sent) => done += sent.count(),
                Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(format!("cannot send: {error}")),
            }
        }
        Ok(())
    };
    send(0, 1)?;
    std::thread::sleep(OPENING);
    let begin = Instant::now();
    let mut sent = 0;
    while sent < sessions {
        let count = (BATCH as u32).min(sessions - sent);
        send(sent, count)?;
        sent += count;
        let due = begin + Duration::from_secs_f64(f64::from(sent) / f64::from(rate));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(Opened { sent: sent.into(), seconds: begin.elapsed().as_secs_f64() })
}

/// The far end of a session.
fn far(session: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FAR) + session / PORTS)
}

/// The IP packet of a session.
fn packet(session: u32, from: Ipv4Addr) -> Vec<u8> {
    let link = Link { src: Mac([0; 6]), dst: Mac([0; 6]) };
    let ip = Ip { src: from.into(), dst: far(session).into(), ttl: 64, tos: 0, id: 0 };
    let mut frame = Vec::with_capacity(ETHERNET + 28 + SMALL);
    // Below `PORTS`, so it fits.
    let port = FIRST_PORT + (session % PORTS) as u16;
    build::udp(&mut frame, link, ip, port, FAR_PORT, &[0x5a; SMALL]);
    frame.split_off(ETHERNET)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_sessions_are_the_same() {
        let from = Ipv4Addr::new(10, 0, 0, 2);
        // Addresses and ports stand from the twelfth byte of the packet to the twenty-fourth.
        let tuples: HashSet<Vec<u8>> = (0..100_000).map(|session| packet(session, from)[12..24].to_vec()).collect();
        assert_eq!(tuples.len(), 100_000);
        assert_eq!(far(999_999), Ipv4Addr::new(198, 18, 0, 50));
    }
}
