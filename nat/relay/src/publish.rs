//! Ports of the host that lead to containers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tapswitch_wire::{Mac, PortId};

use crate::host::Proto;

/// One port of the host that leads to one port of a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publication {
    /// TCP or UDP.
    pub proto: Proto,
    /// Where the host listens: 0.0.0.0 for all of its addresses.
    pub at: SocketAddr,
    /// The container's port of the switch.
    pub owner: PortId,
    /// The container's MAC address, for the first frame.
    pub mac: Mac,
    /// Where it leads.
    pub inside: SocketAddr,
}

/// What is published in a network.
#[derive(Clone, Default)]
pub(crate) struct Published {
    by_port: HashMap<(Proto, u16), Vec<Publication>>,
}

impl Published {
    pub(crate) fn insert(&mut self, publication: Publication) {
        self.by_port.entry((publication.proto, publication.at.port())).or_default().push(publication);
    }

    /// Forgets what listens at exactly this place.
    pub(crate) fn remove(&mut self, proto: Proto, at: SocketAddr) -> Option<Publication> {
        let same_port = self.by_port.get_mut(&(proto, at.port()))?;
        let found = same_port.iter().position(|publication| publication.at == at)?;
        let publication = same_port.swap_remove(found);
        if same_port.is_empty() {
            self.by_port.remove(&(proto, at.port()));
        }
        Some(publication)
    }

    /// What answers at this address of the host.
    pub(crate) fn find(&self, proto: Proto, at: SocketAddr) -> Option<&Publication> {
        let listens =
            |publication: &&Publication| publication.at.ip().is_unspecified() || publication.at.ip() == at.ip();
        self.by_port.get(&(proto, at.port()))?.iter().find(listens)
    }

    /// How the host itself reaches what is published to others under this port. What listens on its loopback is the
    /// host's own affair.
    pub(crate) fn near(&self, proto: Proto, port: u16) -> Option<SocketAddr> {
        let for_others = |publication: &&Publication| !publication.at.ip().is_loopback();
        let at = self.by_port.get(&(proto, port))?.iter().find(for_others)?.at;
        Some(match at.ip() {
            ip if !ip.is_unspecified() => at,
            IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Publication> {
        self.by_port.values().flatten()
    }
}
