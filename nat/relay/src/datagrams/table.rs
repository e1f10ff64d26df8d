//! Endpoints and sessions of one network: who they are, which is found by what, and who must go.
//!
//! An endpoint is a container's address and port, and one socket of the host; its sessions are the destinations that it
//! exchanges datagrams with. A session is found by the container's tuple, and by its endpoint and the other end.
//!
//! Sessions of one class stand in one chain in order of use, so those whose time is over stand at its head. The endpoints
//! of a container stand in three: those that wait for something, those whose sessions are all answered questions, and
//! those that are published.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use tapswitch_wire::{Instant, PortId};

use super::errors::Bucket;
use super::session::{BUSY, BY_CLASS, BY_ENDPOINT, Class, Endpoint, LISTENING, SPENT, Session, Way};
use super::slab::{Chain, Slab};
use crate::flow::FlowId;
use crate::host::Proto;

/// What one container has.
pub(super) struct Container {
    lists: [Chain; 3],
    endpoints: u32,
    /// Sessions of its own endpoints, and of those that are published.
    own: usize,
    published: usize,
    pub errors: Bucket,
}

impl Container {
    fn new() -> Container {
        Container { lists: [Chain::EMPTY; 3], endpoints: 0, own: 0, published: 0, errors: Bucket::default() }
    }

    /// The sessions of its endpoints, of those that are published or of the others.
    fn count(&mut self, listens: bool) -> &mut usize {
        if listens { &mut self.published } else { &mut self.own }
    }
}

pub(super) struct Table {
    endpoints: Slab<Endpoint>,
    sessions: Slab<Session>,
    by_source: HashMap<(Proto, SocketAddrV4, Way), u32>,
    by_tuple: HashMap<(Proto, SocketAddrV4, SocketAddrV4), u32>,
    by_via: HashMap<(u32, SocketAddr), u32>,
    /// With how many ports of an address an endpoint has sessions.
    addresses: HashMap<(u32, IpAddr), u32>,
    containers: HashMap<PortId, Container>,
    classes: [Chain; Class::ALL.len()],
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            endpoints: Slab::new(),
            sessions: Slab::new(),
            by_source: HashMap::new(),
            by_tuple: HashMap::new(),
            by_via: HashMap::new(),
            addresses: HashMap::new(),
            containers: HashMap::new(),
            classes: [Chain::EMPTY; Class::ALL.len()],
        }
    }

    /// Number of sessions.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Sessions in the order of their places, each with its endpoint.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Session, &Endpoint)> {
        self.sessions
            .iter()
            .filter_map(|(index, session)| Some((index, session, self.endpoints.get(session.endpoint)?)))
    }

    pub(super) fn session(&mut self, index: u32) -> Option<&mut Session> {
        self.sessions.get_mut(index)
    }

    /// What tells this session from others that had its place.
    pub(super) fn generation(&self, index: u32) -> Option<u16> {
        self.sessions.generation(index)
    }

    pub(super) fn endpoint(&mut self, index: u32) -> Option<&mut Endpoint> {
        self.endpoints.get_mut(index)
    }

    pub(super) fn container(&mut self, port: PortId) -> Option<&mut Container> {
        self.containers.get_mut(&port)
    }

    /// A session and its endpoint.
    pub(super) fn both(&mut self, index: u32) -> Option<(&mut Session, &mut Endpoint)> {
        let session = self.sessions.get_mut(index)?;
        let endpoint = self.endpoints.get_mut(session.endpoint)?;
        Some((session, endpoint))
    }

    /// The endpoint whose socket has this number.
    pub(super) fn by_id(&self, id: FlowId) -> Option<u32> {
        let index = id.index() as u32;
        (self.endpoints.generation(index)? == id.generation()).then_some(index)
    }

    /// The number of an endpoint's socket.
    pub(super) fn id_of(&self, index: u32) -> Option<FlowId> {
        Some(FlowId::datagram(index, self.endpoints.generation(index)?))
    }

    /// The number that the next endpoint's socket will have.
    pub(super) fn next_id(&mut self) -> FlowId {
        let (index, generation) = self.endpoints.next();
        FlowId::datagram(index, generation)
    }

    /// The session of a container's tuple.
    pub(super) fn by_tuple(&self, proto: Proto, src: SocketAddrV4, dst: SocketAddrV4) -> Option<u32> {
        self.by_tuple.get(&(proto, src, dst)).copied()
    }

    /// The session of an endpoint with this other end.
    pub(super) fn by_via(&self, endpoint: u32, via: SocketAddr) -> Option<u32> {
        self.by_via.get(&(endpoint, via)).copied()
    }

    /// Whether an endpoint has a session with any port of this address.
    pub(super) fn knows(&self, endpoint: u32, ip: IpAddr) -> bool {
        self.addresses.contains_key(&(endpoint, ip))
    }

    /// The endpoint by which a container's source sends.
    pub(super) fn by_source(&self, proto: Proto, src: SocketAddrV4, way: Way) -> Option<u32> {
        self.by_source.get(&(proto, src, way)).copied()
    }

    /// Puts an endpoint where [`Table::next_id`] said. `is_source` says that what its container sends leaves by it from
    /// now on, whatever else there was.
    pub(super) fn insert_endpoint(&mut self, mut endpoint: Endpoint, is_source: bool) -> u32 {
        let (key, port) = ((endpoint.proto, endpoint.src, endpoint.way), endpoint.port);
        endpoint.list = if endpoint.listens { LISTENING } else { BUSY };
        let list = endpoint.list;
        let index = self.endpoints.insert(endpoint);
        if is_source {
            self.by_source.insert(key, index);
        }
        let container = self.containers.entry(port).or_insert_with(Container::new);
        container.endpoints += 1;
        self.endpoints.join(&mut container.lists[list], 0, index);
        index
    }

    /// Closes an endpoint, and ends its sessions. Returns whose it was.
    pub(super) fn remove_endpoint(&mut self, index: u32) -> Option<PortId> {
        let sessions = self.endpoints.get(index)?.sessions;
        for session in self.sessions.chained(sessions, BY_ENDPOINT) {
            self.remove_session(session);
        }
        let Endpoint { proto, src, way, port, list, .. } = *self.endpoints.get(index)?;
        if self.by_source.get(&(proto, src, way)) == Some(&index) {
            self.by_source.remove(&(proto, src, way));
        }
        if let Some(container) = self.containers.get_mut(&port) {
            self.endpoints.leave(&mut container.lists[list], 0, index);
            container.endpoints -= 1;
            if container.endpoints == 0 {
                self.containers.remove(&port);
            }
        }
        self.endpoints.remove(index);
        Some(port)
    }

    /// Puts a session of an endpoint that is there into all tables.
    pub(super) fn insert_session(&mut self, session: Session) -> Option<u32> {
        let (at, dst, via, class) = (session.endpoint, session.dst, session.via, session.class);
        let Endpoint { proto, src, port, listens, .. } = *self.endpoints.get(at)?;
        let index = self.sessions.insert(session);
        self.by_tuple.insert((proto, src, dst), index);
        self.by_via.insert((at, via), index);
        *self.addresses.entry((at, via.ip())).or_insert(0) += 1;
        self.sessions.join(&mut self.classes[class as usize], BY_CLASS, index);
        if let Some(endpoint) = self.endpoints.get_mut(at) {
            self.sessions.join(&mut endpoint.sessions, BY_ENDPOINT, index);
            endpoint.count += 1;
            endpoint.unspent += u32::from(class != Class::Answered);
        }
        if let Some(container) = self.containers.get_mut(&port) {
            *container.count(listens) += 1;
        }
        self.place(at);
        Some(index)
    }

    /// Ends a session. Returns its endpoint, if that has no more and is to be closed.
    pub(super) fn remove_session(&mut self, index: u32) -> Option<u32> {
        let Session { endpoint: at, dst, via, class, .. } = *self.sessions.get(index)?;
        self.sessions.leave(&mut self.classes[class as usize], BY_CLASS, index);
        if self.by_via.get(&(at, via)) == Some(&index) {
            self.by_via.remove(&(at, via));
        }
        if let Some(count) = self.addresses.get_mut(&(at, via.ip())) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&(at, via.ip()));
            }
        }
        let endpoint = self.endpoints.get_mut(at)?;
        self.sessions.leave(&mut endpoint.sessions, BY_ENDPOINT, index);
        self.sessions.remove(index);
        endpoint.count -= 1;
        endpoint.unspent -= u32::from(class != Class::Answered);
        let Endpoint { proto, src, port, listens, count, .. } = *endpoint;
        if self.by_tuple.get(&(proto, src, dst)) == Some(&index) {
            self.by_tuple.remove(&(proto, src, dst));
        }
        if let Some(container) = self.containers.get_mut(&port) {
            *container.count(listens) -= 1;
        }
        self.place(at);
        (count == 0 && !listens).then_some(at)
    }

    /// Something passed in a session, which is of this class now.
    pub(super) fn used(&mut self, index: u32, class: Class, now: Instant) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        let (at, before, last) = (session.endpoint, session.class, session.last);
        (session.class, session.last) = (class, now);
        if class != before {
            self.sessions.leave(&mut self.classes[before as usize], BY_CLASS, index);
            self.sessions.join(&mut self.classes[class as usize], BY_CLASS, index);
        } else if last != now {
            self.sessions.renew(&mut self.classes[class as usize], BY_CLASS, index);
        }
        let Some(endpoint) = self.endpoints.get_mut(at) else { return };
        endpoint.unspent += u32::from(class != Class::Answered);
        endpoint.unspent -= u32::from(before != Class::Answered);
        if last != now {
            self.sessions.renew(&mut endpoint.sessions, BY_ENDPOINT, index);
        }
        let renewed = endpoint.last != now;
        endpoint.last = now;
        let (list, port) = (endpoint.list, endpoint.port);
        self.place(at);
        if renewed && let Some(container) = self.containers.get_mut(&port) {
            let list = self.endpoints.get(at).map_or(list, |endpoint| endpoint.list);
            self.endpoints.renew(&mut container.lists[list], 0, at);
        }
    }

    /// Puts an endpoint into the list where it belongs now.
    fn place(&mut self, at: u32) {
        let Some(endpoint) = self.endpoints.get_mut(at) else { return };
        let (is, port) = (endpoint.list, endpoint.port);
        let belongs = match (endpoint.listens, endpoint.count > 0 && endpoint.unspent == 0) {
            (true, _) => LISTENING,
            (_, true) => SPENT,
            (_, false) => BUSY,
        };
        endpoint.list = belongs;
        if is != belongs
            && let Some(container) = self.containers.get_mut(&port)
        {
            self.endpoints.leave(&mut container.lists[is], 0, at);
            self.endpoints.join(&mut container.lists[belongs], 0, at);
        }
    }

    /// How many sessions a container has by its own endpoints, or by its published ones.
    pub(super) fn count(&mut self, port: PortId, listens: bool) -> usize {
        self.containers.get_mut(&port).map_or(0, |container| *container.count(listens))
    }

    /// The endpoint of a container that can go first: one whose questions are all answered, or else one that was not used
    /// for so long; of several, the one that was used least recently.
    pub(super) fn idle_endpoint(&self, port: PortId, now: Instant, idle: Duration) -> Option<u32> {
        let container = self.containers.get(&port)?;
        let busy = container.lists[BUSY].head();
        let is_idle = |at: &u32| self.endpoints.get(*at).is_some_and(|endpoint| now - endpoint.last >= idle);
        container.lists[SPENT].head().or(busy.filter(is_idle))
    }

    /// How many endpoints [`Table::idle_endpoint`] would name, one after the other.
    pub(super) fn idle_endpoints(&self, port: PortId, now: Instant, idle: Duration) -> usize {
        let may_go =
            |endpoint: &Endpoint| endpoint.list == SPENT || endpoint.list == BUSY && now - endpoint.last >= idle;
        self.endpoints.iter().filter(|(_, endpoint)| endpoint.port == port && may_go(endpoint)).count()
    }

    /// An endpoint, for a look at it.
    pub(super) fn look(&self, endpoint: u32) -> Option<&Endpoint> {
        self.endpoints.get(endpoint)
    }

    /// The session of a container's tuple, for a look at it.
    pub(super) fn look_for(&self, proto: Proto, src: SocketAddrV4, dst: SocketAddrV4) -> Option<&Session> {
        self.sessions.get(self.by_tuple(proto, src, dst)?)
    }

    /// The session of a container that can go first: of the endpoint that was used least recently, the one that was.
    pub(super) fn oldest_session(&self, port: PortId, listens: bool) -> Option<u32> {
        let container = self.containers.get(&port)?;
        let of = |list: usize| container.lists[list].head().and_then(|at| self.endpoints.get(at)?.sessions.head());
        if listens {
            let first = of(LISTENING);
            // The one used least recently may have none.
            return first.or_else(|| self.oldest_published(port));
        }
        of(SPENT).or_else(|| of(BUSY))
    }

    fn oldest_published(&self, port: PortId) -> Option<u32> {
        let published = self.endpoints.iter().filter(|(_, endpoint)| endpoint.port == port && endpoint.listens);
        published.filter(|(_, endpoint)| endpoint.count > 0).min_by_key(|(_, e)| e.last)?.1.sessions.head()
    }

    /// A session whose time is over.
    pub(super) fn due(&self, now: Instant) -> Option<u32> {
        let heads = self.classes.iter().filter_map(Chain::head);
        heads.into_iter().find(|head| self.sessions.get(*head).is_some_and(|session| session.expires() <= now))
    }

    /// When the next session's time is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let heads = self.classes.iter().filter_map(Chain::head);
        heads.filter_map(|head| self.sessions.get(head)).map(Session::expires).min()
    }

    /// The endpoints of a container.
    pub(super) fn of_container(&self, port: PortId) -> Vec<u32> {
        let of_port = self.endpoints.iter().filter(|(_, endpoint)| endpoint.port == port);
        of_port.map(|(index, _)| index).collect()
    }
}
