//! How the two kinds of uplink that have ports open and close them.
//!
//! The relay listens on ports of the host, with one socket for each. The translator of a packet uplink has ports of its
//! own address, and one rule for a whole range. A range is open as a whole or not at all.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tapswitch_conntrack::{Conntrack, Forward, ForwardError, Protocol};
use tapswitch_network::Network;
use tapswitch_relay::{self as relay, Host, Publication};
use tapswitch_wire::{Instant, Mac, PortId};

use super::lan::{Lan, random};
use crate::publish::{Ports, Proto, Published};

/// Ports that nobody is assigned (RFC 6335 6): those that are picked are among them, as long as they suffice.
const DYNAMIC: u16 = 49_152;
/// The lowest that is picked.
const LOWEST: u16 = 1_024;

/// The container that ports lead to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    pub(super) port: PortId,
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
}

/// Why ports were not opened.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A container of this daemon publishes this port.
    Published(u16, String),
    /// A flow of this container goes by this port at this moment.
    InUse(u16, String),
    /// The host refuses this port.
    Host(u16, io::Error),
    /// It is no range of ports.
    BadRange,
    /// It would be more sockets than the so many that one container may have.
    TooMany(usize),
    /// No free ports were found in a row.
    NoneFree,
}

impl Trouble {
    /// Whether other ports may be free.
    pub(super) fn is_taken(&self) -> bool {
        match self {
            Trouble::Published(..) | Trouble::InUse(..) => true,
            Trouble::Host(_, error) => error.kind() == io::ErrorKind::AddrInUse,
            Trouble::BadRange | Trouble::TooMany(_) | Trouble::NoneFree => false,
        }
    }
}

/// Opens a range of ports to a container.
pub(super) fn open(lan: &mut Lan, guest: &Guest, published: &Published, now: Instant) -> Result<(), Trouble> {
    let Some(conntrack) = lan.network.conntrack() else {
        // Before thousands are opened to be closed again. The relay counts flows as well.
        let listening = lan.book.open_to(guest.port).chain([*published]);
        if listening.map(|published| usize::from(published.host_ports.count())).sum::<usize>() > lan.share {
            return Err(Trouble::TooMany(lan.share));
        }
        return listen(&mut lan.network, guest, published);
    };
    let named = |owner| lan.name_of(PortId(owner));
    conntrack.publish(forward(guest, published), now).map_err(|error| match error {
        ForwardError::Taken { port, owner } => Trouble::Published(port, named(owner)),
        ForwardError::InUse { port, owner } => Trouble::InUse(port, named(owner)),
        ForwardError::BadRange => Trouble::BadRange,
    })
}

/// Closes what [`open`] opened to the container at this port.
pub(super) fn close(lan: &mut Lan, owner: PortId, published: &Published, now: Instant) {
    let Some(conntrack) = lan.network.conntrack() else {
        return leave(&mut lan.network, published, published.host_ports.count());
    };
    let is_it = |forward: &Forward| {
        forward.owner == owner.0
            && forward.protocol == protocol(published.proto)
            && forward.outside == published.host_ports.first()
            && forward.bound == bound(published)
    };
    if let Some(forward) = conntrack.forwards().into_iter().find(is_it) {
        conntrack.unpublish(&forward, now);
    }
}

/// Ports that may be free, so many in a row, none of them `kept` for somebody else.
pub(super) fn free(lan: &Lan, proto: Proto, count: u16, kept: impl Fn(Ports) -> bool, now: Instant) -> Option<Ports> {
    match lan.network.conntrack() {
        Some(conntrack) => free_outside(conntrack, protocol(proto), count, kept, now),
        None => (0..64).filter_map(|_| drawn(count, random())).find(|ports| !kept(*ports)),
    }
}

/// Ports of the host, drawn by lot: who is elsewhere told of a port shall not guess the next one's.
fn drawn(count: u16, lot: u64) -> Option<Ports> {
    let end = 1 + u32::from(u16::MAX);
    let lowest = if u32::from(DYNAMIC) + u32::from(count) <= end { DYNAMIC } else { LOWEST };
    let bases = (end + 1).checked_sub(u32::from(lowest) + u32::from(count)).filter(|bases| *bases > 0)?;
    let first = lowest + u16::try_from(lot % u64::from(bases)).ok()?;
    in_a_row(first, count)
}

/// Ports of the uplink's address. The translator knows which are free and have rested, but not which are kept.
fn free_outside(
    conntrack: &Conntrack,
    protocol: Protocol,
    count: u16,
    kept: impl Fn(Ports) -> bool,
    now: Instant,
) -> Option<Ports> {
    let mut run = count;
    while let Some(first) = conntrack.free_ports(protocol, run, now) {
        let mut within = (first..=first + (run - count)).filter_map(|first| in_a_row(first, count));
        if let Some(found) = within.find(|ports| !kept(*ports)) {
            return Some(found);
        }
        run = run.checked_mul(2)?;
    }
    None
}

fn in_a_row(first: u16, count: u16) -> Option<Ports> {
    Ports::new(first, first.checked_add(count.checked_sub(1)?)?)
}

fn listen<H: Host>(network: &mut Network<H>, guest: &Guest, published: &Published) -> Result<(), Trouble> {
    let Published { host, host_ports, ports, proto } = *published;
    for (at, (outer, inner)) in (0..).zip(host_ports.iter().zip(ports.iter())) {
        let opened = network.publish(Publication {
            proto: relayed(proto),
            at: SocketAddr::new(IpAddr::V4(host), outer),
            owner: guest.port,
            mac: guest.mac,
            inside: SocketAddr::new(IpAddr::V4(guest.ip), inner),
        });
        if let Err(error) = opened {
            leave(network, published, at);
            return Err(Trouble::Host(outer, error));
        }
    }
    Ok(())
}

/// Closes the first so many of a range.
fn leave<H: Host>(network: &mut Network<H>, published: &Published, count: u16) {
    for port in published.host_ports.iter().take(usize::from(count)) {
        network.unpublish(relayed(published.proto), SocketAddr::new(IpAddr::V4(published.host), port));
    }
}

fn relayed(proto: Proto) -> relay::Proto {
    match proto {
        Proto::Tcp => relay::Proto::Tcp,
        Proto::Udp => relay::Proto::Udp,
    }
}

fn protocol(proto: Proto) -> Protocol {
    match proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
    }
}

fn bound(published: &Published) -> Option<Ipv4Addr> {
    Some(published.host).filter(|host| !host.is_unspecified())
}

fn forward(guest: &Guest, published: &Published) -> Forward {
    Forward {
        owner: guest.port.0,
        protocol: protocol(published.proto),
        bound: bound(published),
        outside: published.host_ports.first(),
        ip: guest.ip,
        inside: published.ports.first(),
        count: published.host_ports.count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_drawn_are_dynamic_ones_unless_too_many_are_wanted() {
        for (count, lowest) in [(1, DYNAMIC), (1_000, DYNAMIC), (16_384, DYNAMIC), (16_385, LOWEST), (64_512, LOWEST)] {
            let bases = 65_536 - u64::from(count) - u64::from(lowest) + 1;
            for lot in [0, 1, bases - 1, bases, u64::MAX] {
                let ports = drawn(count, lot).unwrap();
                assert!(ports.first() >= lowest && ports.count() == count, "{count} {lot}: {ports}");
            }
            assert_eq!(drawn(count, bases - 1).unwrap().last(), u16::MAX, "the last of them, too");
        }
        assert_eq!((drawn(64_513, 0), drawn(u16::MAX, 7), drawn(0, 0)), (None, None, None));
    }

    #[test]
    fn free_outside_ports_are_none_that_are_kept() {
        let nat = Conntrack::new(tapswitch_conntrack::Config::new("10.0.0.0/24".parse().unwrap()), 1);
        let kept = |last: u16| move |ports: Ports| ports.overlaps(Ports::new(49_152, last).unwrap());
        for (count, last) in [(1, 49_152), (3, 49_200), (100, 49_152)] {
            let found = free_outside(&nat, Protocol::Tcp, count, kept(last), Instant::ZERO).unwrap();
            assert_eq!((found.first(), found.count()), (last + 1, count));
        }
    }
}
