//! What a server grants, checked, and the lease that it makes.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use tapswitch_wire::{DropReason, Instant, Mac};

use crate::client::message::Reply;
use crate::config::INFINITE;

/// The prefix for an address that came without a mask; the module's theory says why.
const DEFAULT_PREFIX: u8 = 24;
/// How many name servers are kept.
const MAX_DNS: usize = 8;
/// What every host must be able to take in (RFC 791 3.1). A link with less is not one that DHCP works on.
const MIN_MTU: u16 = 576;

/// An address and what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The address, with the prefix length of its subnet.
    pub address: Ipv4Net,
    /// The first router that can be one (option 3). It may stand outside the subnet, but always on the link.
    pub router: Option<Ipv4Addr>,
    /// Name servers (option 6), best first, at most 8.
    pub dns: Vec<Ipv4Addr>,
    /// The MTU of the link (option 26), at least 576.
    pub mtu: Option<u16>,
    /// The server (option 54).
    pub server: Ipv4Addr,
    /// When it is over unless extended; [`Lease::FOREVER`] if never.
    pub until: Instant,
}

impl Lease {
    /// The end of a lease that has none (RFC 2131 3.3).
    pub const FOREVER: Instant = Instant::from_nanos(u64::MAX);
}

/// The lease that a client holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    /// Whence the ACK came.
    pub(super) server_mac: Mac,
    pub(super) phase: Phase,
    /// When rebinding begins.
    pub(super) t2: Instant,
    /// When the REQUEST that is under way was sent.
    pub(super) asked: Instant,
    /// When the next REQUEST is due, or the lease is over.
    pub(super) next: Instant,
}

/// What a client does about the lease that it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Bound,
    Renewing,
    Rebinding,
}

/// The terms of an OFFER or ACK, found to be usable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Grant {
    pub(super) address: Ipv4Net,
    pub(super) server: Ipv4Addr,
    router: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    mtu: Option<u16>,
    /// `None` for ever.
    time: Option<Duration>,
    t1: Duration,
    t2: Duration,
}

impl Grant {
    /// Reads the terms.
    ///
    /// # Errors
    /// [`DropReason::DhcpMalformed`] if the time is missing or zero, or no host can have the address.
    pub(super) fn of(reply: &Reply) -> Result<Grant, DropReason> {
        const MALFORMED: DropReason = DropReason::DhcpMalformed;
        let secs = reply.lease_secs.filter(|secs| *secs > 0).ok_or(MALFORMED)?;
        let address = subnet(reply.yiaddr, reply.mask);
        if !is_host(address.addr()) || !is_host_of(address.addr(), address) {
            return Err(MALFORMED);
        }
        let router = |ip: &Ipv4Addr| is_host(*ip) && *ip != address.addr() && is_host_of(*ip, address);
        let time = Duration::from_secs(secs.into());
        let given = |secs: Option<u32>| secs.map(|secs| Duration::from_secs(secs.into())).filter(|t| !t.is_zero());
        let t2 = given(reply.t2_secs).filter(|t2| *t2 < time).unwrap_or(time * 7 / 8);
        let t1 = given(reply.t1_secs).filter(|t1| *t1 <= t2).unwrap_or((time / 2).min(t2));
        Ok(Grant {
            address,
            server: reply.server,
            router: reply.routers.iter().copied().find(router),
            dns: reply.dns.iter().copied().filter(|ip| is_host(*ip)).take(MAX_DNS).collect(),
            mtu: reply.mtu.filter(|mtu| *mtu >= MIN_MTU),
            time: (secs != INFINITE).then_some(time),
            t1,
            t2,
        })
    }

    /// The lease on these terms: it was asked for at `asked` and acknowledged by a frame from `server_mac`.
    pub(super) fn held(self, asked: Instant, server_mac: Mac) -> Held {
        let Grant { address, server, router, dns, mtu, time, t1, t2 } = self;
        let until = time.map_or(Lease::FOREVER, |time| asked + time);
        let lease = Lease { address, router, dns, mtu, server, until };
        Held { lease, server_mac, phase: Phase::Bound, t2: asked + t2, asked, next: asked + t1 }
    }
}

/// The address with its mask, or with the default prefix if the mask is missing, has gaps, or spans everything.
fn subnet(ip: Ipv4Addr, mask: Option<Ipv4Addr>) -> Ipv4Net {
    let masked = mask.and_then(|mask| Ipv4Net::with_netmask(ip, mask).ok()).filter(|net| net.prefix_len() > 0);
    masked.unwrap_or(Ipv4Net::new_assert(ip, DEFAULT_PREFIX))
}

/// Whether an address can be a single host's on a LAN: not 0/8, loopback, multicast, reserved or broadcast.
pub(super) fn is_host(ip: Ipv4Addr) -> bool {
    matches!(ip.octets()[0], 1..=126 | 128..=223)
}

/// Whether an address can be a host's as far as this subnet is concerned: it is not its first or last one. Those of a
/// /31 can (RFC 3021).
fn is_host_of(ip: Ipv4Addr, subnet: Ipv4Net) -> bool {
    subnet.prefix_len() >= 31 || (ip != subnet.network() && ip != subnet.broadcast())
}
