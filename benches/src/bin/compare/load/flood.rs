//! Datagrams as fast as the sender can, and how many of them arrive.
//!
//! The sender first says hello until the receiver answers: that opens the path, so that the flood does not begin with
//! frames waiting for ARP, and a path that does not work is a failure instead of a rate of zero. The receiver is done
//! when nothing has come for a while. Both tell what their own kernel dropped meanwhile.
//!
//! The other way round ([`pour`], [`fetch`]) the receiver says hello: it is behind a translator, and the sender answers.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::{Kind, SEGMENT, SMALL, at, kernel};

const PORT: u16 = 5302;

/// Messages for one system call.
const BATCH: usize = 64;

/// Datagrams in one send with UDP_SEGMENT.
const SEGMENTS: usize = 22;

/// The largest that one receive can bring with UDP_GRO.
const LARGEST: usize = 65_536;

const HELLO: &[u8] = b"hello";

/// How long the receiver waits for more before it is done.
const QUIET: Duration = Duration::from_millis(500);

/// What the sending side saw. `interface_drops` are frames, each of which may hold many datagrams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub datagrams: u64,
    pub seconds: f64,
    pub interface_drops: u64,
}

/// What the receiving side saw. `socket_errors` and `interface_drops` as in [`Sent`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub datagrams: u64,
    pub seconds: f64,
    pub interface_drops: u64,
    pub socket_errors: u64,
}

impl Kind {
    /// Bytes of one datagram.
    fn datagram(self) -> usize {
        match self {
            Self::Small => SMALL,
            Self::Gso => SEGMENT,
        }
    }

    /// Bytes and number of the messages handed to the kernel at once.
    fn batch(self) -> (usize, usize) {
        match self {
            Self::Small => (SMALL, BATCH),
            Self::Gso => (SEGMENTS * SEGMENT, 1),
        }
    }
}

pub(super) fn send(kind: Kind, to: Ipv4Addr, seconds: u64) -> Result<Sent, String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(at("cannot bind"))?;
    socket.connect((to, PORT)).map_err(at("cannot connect"))?;
    greet(&socket)?;
    flood(&socket, kind, seconds)
}

/// To whoever says hello first.
pub(super) fn pour(kind: Kind, seconds: u64) -> Result<Sent, String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(at("cannot bind"))?;
    super::ready();
    let mut hello = [0; HELLO.len()];
    let (_, from) = socket.recv_from(&mut hello).map_err(at("cannot receive"))?;
    socket.connect(from).map_err(at("cannot connect"))?;
    socket.send(&hello).map_err(at("cannot answer the hello"))?;
    flood(&socket, kind, seconds)
}

fn flood(socket: &UdpSocket, kind: Kind, seconds: u64) -> Result<Sent, String> {
    if kind == Kind::Gso {
        let size = i32::try_from(SEGMENT).map_err(|error| error.to_string())?;
        setsockopt(socket, sockopt::UdpGsoSegment, &size).map_err(|error| format!("UDP_SEGMENT: {error}"))?;
    }
    let (size, count) = kind.batch();
    let payload = vec![0x5a; size];
    let slices = vec![[IoSlice::new(&payload)]; count];
    let addresses = vec![None; count];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(count, None);
    let before = kernel::interface_drops()?;
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    let mut messages = 0;
    let mut now = begin;
    while now < end {
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &addresses, [], MsgFlags::empty()) {
            Ok(sent) => messages += sent.count() as u64,
            // The queue of the device is full: a container would try again, too.
            // So would it after word that something on the way, or the receiver, would not take one.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED) => {}
            Err(error) => return Err(format!("cannot send: {error}")),
        }
        now = Instant::now();
    }
    Ok(Sent {
        datagrams: messages * (size / kind.datagram()) as u64,
        seconds: (now - begin).as_secs_f64(),
        interface_drops: kernel::interface_drops()?.tx - before.tx,
    })
}

fn greet(socket: &UdpSocket) -> Result<(), String> {
    socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(at("SO_RCVTIMEO"))?;
    for _ in 0..30 {
        // A port that is not open yet answers with an error, which the next attempt gets over.
        if socket.send(HELLO).is_ok() && socket.recv(&mut [0; HELLO.len()]).is_ok() {
            return Ok(());
        }
    }
    Err("the receiver cannot be reached".into())
}

pub(super) fn receive(kind: Kind, rcvbuf: Option<usize>) -> Result<Received, String> {
    let socket = receiver(PORT, rcvbuf)?;
    super::ready();
    let mut hello = [0; HELLO.len()];
    let (_, from) = socket.recv_from(&mut hello).map_err(at("cannot receive"))?;
    count(&socket, kind, || socket.send_to(&hello, from).map(drop).map_err(at("cannot answer the hello")))
}

/// From a sender that waits for a hello.
pub(super) fn fetch(kind: Kind, to: Ipv4Addr, rcvbuf: Option<usize>) -> Result<Received, String> {
    let socket = receiver(0, rcvbuf)?;
    socket.connect((to, PORT)).map_err(at("cannot connect"))?;
    count(&socket, kind, || greet(&socket))
}

fn receiver(port: u16, rcvbuf: Option<usize>) -> Result<UdpSocket, String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).map_err(at("cannot bind"))?;
    if let Some(bytes) = rcvbuf {
        setsockopt(&socket, sockopt::RcvBufForce, &bytes).map_err(|error| format!("SO_RCVBUFFORCE: {error}"))?;
    }
    Ok(socket)
}

/// What comes after `begin`, until nothing has come for a while.
fn count(socket: &UdpSocket, kind: Kind, begin: impl FnOnce() -> Result<(), String>) -> Result<Received, String> {
    if kind == Kind::Gso {
        setsockopt(socket, sockopt::UdpGroSegment, &true).map_err(|error| format!("UDP_GRO: {error}"))?;
    }
    let before = (kernel::interface_drops()?, kernel::udp_errors()?);
    begin()?;
    socket.set_read_timeout(Some(QUIET)).map_err(at("SO_RCVTIMEO"))?;

    let (size, count) = match kind {
        Kind::Small => (2 * SMALL, BATCH),
        Kind::Gso => (LARGEST, BATCH / 4),
    };
    let mut buffer = vec![0; size * count];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(count, None);
    let mut datagrams = 0;
    let mut span: Option<(Instant, Instant)> = None;
    loop {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            buffer.chunks_mut(size).map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None);
        let counted = match received {
            // Nothing smaller than a datagram of ours is one: the last of the hellos, sent twice.
            Ok(messages) => messages.map(|message| (message.bytes / kind.datagram()) as u64).sum::<u64>(),
            Err(Errno::EAGAIN) => break,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(format!("cannot receive: {error}")),
        };
        let now = Instant::now();
        datagrams += counted;
        span = Some((span.map_or(now, |(first, _)| first), now));
    }
    let after = (kernel::interface_drops()?, kernel::udp_errors()?);
    Ok(Received {
        datagrams,
        seconds: span.map_or(0.0, |(first, last)| (last - first).as_secs_f64()),
        interface_drops: after.0.rx - before.0.rx,
        socket_errors: after.1 - before.1,
    })
}
