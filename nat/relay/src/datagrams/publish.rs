//! UDP ports of the host that lead to containers.

use std::io;
use std::net::SocketAddr;

use super::Side;
use super::session::{Endpoint, Way};
use crate::host::{Host, Proto};
use crate::publish::Publication;

impl<H: Host> Side<'_, H> {
    /// Listens on the host for a container. What that sends from there leaves by this socket from now on, unless it is
    /// one of the host's loopback.
    pub(crate) fn publish(&mut self, publication: &Publication) -> io::Result<SocketAddr> {
        let &Publication { owner, mac, .. } = publication;
        let SocketAddr::V4(inside) = publication.inside else { return Err(io::ErrorKind::InvalidInput.into()) };
        if self.shared.budget.check_port(owner).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the container has as many sockets as it may have",
            ));
        }
        let table = &mut self.datagrams.table;
        let id = table.next_id();
        let at = self.host.bind(id, publication.at)?;
        self.shared.budget.take_port(owner);
        let way = Way { redirected: false, ipv6: at.is_ipv6() };
        let endpoint = Endpoint::new(Proto::Udp, inside, way, owner, mac, tapswitch_wire::Instant::ZERO);
        let is_source = at.is_ipv4() && !at.ip().is_loopback();
        let index = table.insert_endpoint(Endpoint { listens: true, ..endpoint }, is_source);
        self.datagrams.listening.insert(at, index);
        Ok(at)
    }

    /// Listens no more. The sessions of those who came by it end, for the socket was theirs.
    pub(crate) fn unpublish(&mut self, publication: &Publication) {
        if let Some(index) = self.datagrams.listening.remove(&publication.at) {
            self.close(index);
        }
    }
}
