//! Links, addresses and routes of the present network namespace, one request and one answer at a time.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVtap, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, MacVtapMode,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use tapswitch_wire::Mac;

/// Room for an answer: an acknowledgement quotes the request, and ours are a few hundred bytes.
const ANSWER_LEN: usize = 8192;

/// What the kernel tells of an interface.
pub(crate) struct Seen {
    pub(crate) index: u32,
    /// `None` for an interface without a driver of its own kind, such as a network card.
    pub(crate) kind: Option<InfoKind>,
    pub(crate) layer: LinkLayerType,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u16,
    /// Of a macvtap.
    pub(crate) mode: Option<MacVtapMode>,
}

/// A conversation with the kernel. It stays with the namespace in which it was opened.
pub(crate) struct Rtnetlink {
    socket: Socket,
    sequence: u32,
}

impl Rtnetlink {
    pub(crate) fn open() -> io::Result<Rtnetlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Rtnetlink { socket, sequence: 0 })
    }

    /// Gives the link its MAC address and MTU.
    pub(crate) fn set_mac_and_mtu(&mut self, index: u32, mac: Mac, mtu: u16) -> io::Result<()> {
        let mut link = link(index);
        link.attributes = vec![LinkAttribute::Address(mac.0.to_vec()), LinkAttribute::Mtu(mtu.into())];
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Moves the link into another network namespace.
    pub(crate) fn move_link(&mut self, index: u32, namespace: impl AsFd) -> io::Result<()> {
        let mut link = link(index);
        link.attributes = vec![LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd())];
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// What the kernel tells of the link.
    pub(crate) fn look_at(&mut self, index: u32) -> io::Result<Seen> {
        match self.exchange(RouteNetlinkMessage::GetLink(link(index)), 0)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(seen(link)),
            _ => Err(unexpected("a link")),
        }
    }

    /// Makes a macvtap on `parent`, a link of this conversation's namespace, in another namespace.
    pub(crate) fn add_macvtap(&mut self, parent: u32, name: &str, mac: Mac, namespace: impl AsFd) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Link(parent),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVtap),
                LinkInfo::Data(InfoData::MacVtap(vec![InfoMacVtap::Mode(MacVtapMode::Bridge)])),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut link = link(index);
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    pub(crate) fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
        if prefix < 31 {
            let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            message.attributes.push(AddressAttribute::Broadcast(Ipv4Addr::from(u32::from(address) | host_bits)));
        }
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// A default route over the link. `onlink` says that the gateway is there although no subnet says so.
    pub(crate) fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr, onlink: bool) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        if onlink {
            message.header.flags = RouteFlags::Onlink;
        }
        message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// What the kernel would do with a packet to this address: deliver it to this machine, or send it somewhere.
    ///
    /// # Errors
    /// What the kernel says; unreachable, if there is no route.
    pub(crate) fn route_kind(&mut self, to: IpAddr) -> io::Result<RouteType> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes = vec![RouteAttribute::Destination(to.into())];
        match self.exchange(RouteNetlinkMessage::GetRoute(message), 0)? {
            Some(RouteNetlinkMessage::NewRoute(route)) => Ok(route.header.kind),
            _ => Err(unexpected("a route")),
        }
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK | flags).map(drop)
    }

    /// Sends a request, and returns the message or, for `None`, the acknowledgement that answers it.
    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let mut answer = Vec::with_capacity(ANSWER_LEN);
            match self.socket.recv(&mut answer, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                // An acknowledgement is an error message with code zero.
                NetlinkPayload::Error(error) => match error.code {
                    None => Ok(None),
                    Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
                },
                NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
                _ => continue,
            };
        }
    }
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kernel answered with something else than {what}"))
}

fn seen(link: LinkMessage) -> Seen {
    let layer = link.header.link_layer_type;
    let mut seen = Seen { index: link.header.index, kind: None, layer, mac: None, mtu: u16::MAX, mode: None };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => seen.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => seen.mtu = mtu.try_into().unwrap_or(u16::MAX),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => seen.kind = Some(kind),
                        LinkInfo::Data(InfoData::MacVtap(data)) => {
                            seen.mode = data.into_iter().find_map(|part| match part {
                                InfoMacVtap::Mode(mode) => Some(mode),
                                _ => None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    seen
}

fn link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// The index of the interface of this name in the present network namespace, if there is one.
pub(crate) fn index_of(name: &str) -> io::Result<Option<u32>> {
    match nix::net::if_::if_nametoindex(name) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::ENODEV | Errno::ENXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
