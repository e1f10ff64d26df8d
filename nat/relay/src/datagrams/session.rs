//! What is remembered of an endpoint and of a session.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Deref;
use std::time::Duration;

use tapswitch_wire::{ChecksumState, FrameOf, Instant, Mac, PortId, checksum};

use super::slab::{Chain, Link, Linked};
use crate::host::Proto;
use crate::policy::DNS_PORT;

const NTP_PORT: u16 = 123;

/// How long a session lives when nothing passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Class {
    /// A question, and all its answers have come.
    Answered,
    /// A question to a name server.
    Dns,
    /// A question to a time server.
    Ntp,
    /// Pings.
    Ping,
    /// Anything else.
    Udp,
}

impl Class {
    pub(super) const ALL: [Class; 5] = [Class::Answered, Class::Dns, Class::Ntp, Class::Ping, Class::Udp];

    /// What a session of a container to `dst` begins as.
    pub(super) fn of(proto: Proto, dst: SocketAddrV4) -> Class {
        match (proto, dst.port()) {
            (Proto::Icmp, _) => Class::Ping,
            (_, DNS_PORT) => Class::Dns,
            (_, NTP_PORT) => Class::Ntp,
            _ => Class::Udp,
        }
    }

    /// RFC 4787 REQ-5 wants five minutes, and allows less for the well-known ports of protocols that need less; RFC 5508
    /// REQ-2 wants a minute.
    pub(super) fn idle(self) -> Duration {
        Duration::from_secs(match self {
            Class::Answered => 3,
            Class::Dns => 20,
            Class::Ntp => 30,
            Class::Ping => 60,
            Class::Udp => 300,
        })
    }

    fn is_question(self) -> bool {
        matches!(self, Class::Dns | Class::Ntp)
    }
}

/// By what kind of socket an endpoint sends. Each kind has a socket of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Way {
    /// To what a port of the gateway stands for. Such a socket takes nothing but answers.
    pub redirected: bool,
    /// Over IPv6, which containers do not see.
    pub ipv6: bool,
}

/// Chains of endpoints of one container.
pub(super) const BUSY: usize = 0;
pub(super) const SPENT: usize = 1;
pub(super) const LISTENING: usize = 2;

/// One socket, and whose it is.
pub(super) struct Endpoint {
    pub proto: Proto,
    pub src: SocketAddrV4,
    pub way: Way,
    /// The port it belongs to.
    pub port: PortId,
    /// The container's MAC address, from its latest frame.
    pub mac: Mac,
    /// Whether it is published: anybody may send to it, and it stays without sessions.
    pub listens: bool,
    /// Whether it stands on the list of those to serve this turn.
    pub queued: bool,
    /// In which chain of its container it is.
    pub list: usize,
    pub link: Link,
    /// Its sessions.
    pub sessions: Chain,
    pub count: u32,
    /// Those of them that are more than an answered question.
    pub unspent: u32,
    pub last: Instant,
}

impl Linked for Endpoint {
    fn link(&mut self, _: usize) -> &mut Link {
        &mut self.link
    }
}

/// The chain of all sessions of a class, and that of all sessions of an endpoint.
pub(super) const BY_CLASS: usize = 0;
pub(super) const BY_ENDPOINT: usize = 1;

/// One destination of an endpoint.
pub(super) struct Session {
    pub endpoint: u32,
    /// The other end, as the container sees it.
    pub dst: SocketAddrV4,
    /// The other end, as the host reaches it.
    pub via: SocketAddr,
    /// The address of the host that the other end knows; unspecified if any will do.
    pub local: Ipv4Addr,
    /// What it is when it waits for something.
    base: Class,
    pub class: Class,
    /// Questions that are not answered.
    pending: u8,
    pub links: [Link; 2],
    pub last: Instant,
    pub up_bytes: u64,
    pub down_bytes: u64,
    pub head: Head,
}

const _: () = assert!(size_of::<Session>() <= 200, "there may be many of them");
const _: () = assert!(size_of::<Endpoint>() <= 100, "there may be many of them");

impl Linked for Session {
    fn link(&mut self, chain: usize) -> &mut Link {
        &mut self.links[chain]
    }
}

impl Session {
    pub(super) fn new(endpoint: u32, dst: SocketAddrV4, via: SocketAddr, class: Class, now: Instant) -> Session {
        Session {
            endpoint,
            dst,
            via,
            local: Ipv4Addr::UNSPECIFIED,
            base: class,
            class,
            pending: 0,
            links: [Link::LOOSE; 2],
            last: now,
            up_bytes: 0,
            down_bytes: 0,
            head: Head::default(),
        }
    }

    /// The container has sent so many datagrams. Returns the class that it is of now.
    pub(super) fn asked(&mut self, datagrams: usize) -> Class {
        self.pending = self.pending.saturating_add(datagrams.min(255) as u8);
        self.base
    }

    /// So many have come for it.
    pub(super) fn answered(&mut self, datagrams: usize) -> Class {
        self.pending = self.pending.saturating_sub(datagrams.min(255) as u8);
        if self.base.is_question() && self.pending == 0 { Class::Answered } else { self.base }
    }

    pub(super) fn expires(&self) -> Instant {
        self.last + self.class.idle()
    }
}

/// The beginning of a container's latest packet, which an ICMP error about it quotes: the IP header, and the eight bytes
/// behind it that name the flow (RFC 792). Options are left out, so the header of the quote says that it has none.
#[derive(Clone, Copy, Default)]
pub(super) struct Head {
    bytes: [u8; Head::LEN],
    is_known: bool,
}

impl Head {
    const LEN: usize = 28;

    pub(super) fn of<B: Deref<Target = [u8]>>(frame: &FrameOf<B>) -> Head {
        let (packet, segment) = (frame.packet(), frame.segment());
        let (Some(ip), Some(transport)) = (packet.first_chunk::<20>(), segment.first_chunk::<8>()) else {
            return Head::default();
        };
        let mut bytes = [0; Head::LEN];
        bytes[..20].copy_from_slice(ip);
        bytes[20..].copy_from_slice(transport);
        if ip[0] != 0x45 {
            bytes[0] = 0x45;
            bytes[10..12].fill(0);
            let check = checksum::checksum(0, &bytes[..20]);
            bytes[10..12].copy_from_slice(&check.to_be_bytes());
        }
        // A checksum that is still partial would be a wrong one in a quote; zero says that there is none (RFC 768).
        if ip[9] == 17 && matches!(frame.meta().checksum, ChecksumState::Partial { .. }) {
            bytes[26..].fill(0);
        }
        Head { bytes, is_known: true }
    }

    /// What is quoted; `None` if the container has sent nothing yet. `echo` is the header of the echo request in question,
    /// if it is another one than the latest: its identifier is the host's own.
    pub(super) fn quote(&self, echo: Option<[u8; 8]>) -> Option<[u8; Head::LEN]> {
        let mut bytes = self.bytes;
        if let (Some(echo), 1) = (echo, bytes[9]) {
            let id = [bytes[24], bytes[25]];
            let check = u16::from_be_bytes([echo[2], echo[3]]);
            let check = checksum::update_bytes(check, &echo[4..6], &id);
            bytes[22..24].copy_from_slice(&check.to_be_bytes());
            bytes[26..].copy_from_slice(&echo[6..]);
        }
        self.is_known.then_some(bytes)
    }
}
