//! A container's stack: a smoltcp interface at the far end of a cable.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, icmp, tcp, udp};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};
use tapswitch_link::cable::Cable;
use tapswitch_link::{Buffer, Port, Rx};
use tapswitch_wire::{ChecksumState, FrameRef, Instant, L4, Mac, Meta, PortId, checksum, segment};

/// Frames that are remembered for a test to look at.
const SEEN: usize = 4_096;

/// The station's interface card.
struct Card {
    cable: Cable,
    buffer: Buffer,
    mtu: usize,
    /// Frames that came, cut and completed as a wire would carry them.
    incoming: VecDeque<Vec<u8>>,
    /// The latest frames that came.
    seen: VecDeque<Vec<u8>>,
    /// Super-frames that came.
    super_frames: usize,
    failed: usize,
}

impl Card {
    fn fetch(&mut self) {
        while let Rx::Frame(meta, len) = self.cable.rx(&mut self.buffer) {
            self.super_frames += usize::from(meta.gso.is_some());
            let (incoming, seen) = (&mut self.incoming, &mut self.seen);
            let mut take = |_: &Meta, frame: &[u8]| {
                incoming.push_back(frame.to_vec());
                seen.push_back(frame.to_vec());
            };
            let frame = self.buffer.frame(len);
            segment::segment(&meta, frame, &mut Vec::new(), &mut take).expect("a frame that can be cut");
            while self.seen.len() > SEEN {
                self.seen.pop_front();
            }
        }
    }

    /// Sends as a kernel does over this kind of cable: with offload, TCP checksums are left partial.
    fn send(&mut self, frame: &mut [u8]) {
        let mut meta = Meta::PLAIN;
        if self.cable.offload()
            && let Ok(parsed) = FrameRef::parse(Meta::PLAIN, &*frame)
            && parsed.parsed().l4 == L4::Tcp
            && let (Some(src), Some(dst)) = (parsed.src_ip(), parsed.dst_ip())
        {
            let start = parsed.parsed().l4_start;
            let sum = checksum::pseudo_header(src, dst, parsed.parsed().protocol, parsed.segment().len() as u32);
            meta.checksum = ChecksumState::Partial { start, offset: 16 };
            let field = usize::from(start) + 16;
            frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.failed += usize::from(self.cable.tx(&meta, frame).is_err());
    }
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut Card);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(&mut frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Incoming, Outgoing<'_>)> {
        self.fetch();
        let frame = self.incoming.pop_front()?;
        Some((Incoming(frame), Outgoing(self)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// One container.
pub struct Station {
    pub port: PortId,
    pub mac: Mac,
    card: Card,
    iface: Interface,
    pub sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    /// The address it was given, how often that happened, and when last.
    pub leases: Vec<(Instant, Ipv4Addr)>,
}

fn smol(now: Instant) -> SmolInstant {
    SmolInstant::from_micros(now.as_micros() as i64)
}

impl Station {
    pub fn new(port: PortId, cable: Cable, mtu: usize, now: Instant) -> Station {
        let mac = Mac([2, 0, 0, 0, 0, port.0 as u8]);
        let mut card = Card {
            cable,
            buffer: Buffer::new(),
            mtu,
            incoming: VecDeque::new(),
            seen: VecDeque::new(),
            super_frames: 0,
            failed: 0,
        };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        config.random_seed = u64::from(port.0) * 7_919;
        let iface = Interface::new(config, &mut card, smol(now));
        Station { port, mac, card, iface, sockets: SocketSet::new(Vec::new()), dhcp: None, leases: Vec::new() }
    }

    /// Sets address and default route.
    pub fn configure(&mut self, address: Ipv4Cidr, router: Option<Ipv4Addr>) {
        self.iface.update_ip_addrs(|addresses| {
            addresses.clear();
            addresses.push(IpCidr::Ipv4(address)).expect("room for one address");
        });
        match router {
            Some(router) => drop(self.iface.routes_mut().add_default_ipv4_route(router).expect("room for a route")),
            None => drop(self.iface.routes_mut().remove_default_ipv4_route()),
        }
    }

    /// Asks for an address from now on.
    pub fn start_dhcp(&mut self) {
        self.dhcp = Some(self.sockets.add(dhcpv4::Socket::new()));
    }

    pub fn ip(&self) -> Option<Ipv4Addr> {
        self.iface.ipv4_addr()
    }

    /// Lets the stack work. True if anything moved.
    pub fn poll(&mut self, now: Instant) -> bool {
        let waiting = self.card.cable.waiting() > 0;
        self.iface.poll(smol(now), &mut self.card, &mut self.sockets);
        let Some(handle) = self.dhcp else { return waiting };
        let event = match self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            Some(dhcpv4::Event::Configured(lease)) => Some((lease.address, lease.router)),
            Some(dhcpv4::Event::Deconfigured) => {
                self.iface.update_ip_addrs(|addresses| addresses.clear());
                None
            }
            None => None,
        };
        if let Some((address, router)) = event {
            self.configure(address, router);
            self.leases.push((now, address.address()));
        }
        waiting
    }

    pub fn deadline(&mut self, now: Instant) -> Option<Instant> {
        self.iface.poll_at(smol(now), &self.sockets).map(|at| Instant::from_micros(at.total_micros().max(0) as u64))
    }

    /// A socket that connects to `to` from a port of its own.
    pub fn connect(&mut self, to: (Ipv4Addr, u16), from: u16, buffer: usize) -> SocketHandle {
        let mut socket = tcp_socket(buffer);
        socket.connect(self.iface.context(), (IpAddr::V4(to.0), to.1), from).expect("a socket that can connect");
        self.sockets.add(socket)
    }

    /// A socket that listens.
    pub fn listen(&mut self, port: u16, buffer: usize) -> SocketHandle {
        let mut socket = tcp_socket(buffer);
        socket.listen(port).expect("a socket that can listen");
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// A UDP socket at this port.
    pub fn udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 65_536]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).expect("a free port");
        self.sockets.add(socket)
    }

    /// A socket for pings with this identifier.
    pub fn ping(&mut self, ident: u16) -> SocketHandle {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 64], vec![0; 65_536]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(ident)).expect("a free identifier");
        self.sockets.add(socket)
    }

    /// Sends a frame of the test's own making.
    pub fn send_raw(&mut self, meta: &Meta, frame: &[u8]) {
        self.card.cable.tx(meta, frame).expect("a cable with room");
    }

    /// Type, code and quoted packet of each ICMP error that came.
    pub fn icmp_errors(&self) -> Vec<(u8, u8, Vec<u8>)> {
        self.frames()
            .filter(|frame| frame.parsed().l4 == L4::Icmp && matches!(frame.segment()[0], 3 | 11))
            .map(|frame| (frame.segment()[0], frame.segment()[1], frame.segment()[8..].to_vec()))
            .collect()
    }

    /// The latest frames that came.
    pub fn frames(&self) -> impl Iterator<Item = FrameRef<'_>> {
        self.card.seen.iter().filter_map(|frame| FrameRef::parse(Meta::PLAIN, &frame[..]).ok())
    }

    /// Flag bits of the TCP segments that came.
    pub fn tcp_flags(&self) -> Vec<u8> {
        self.frames().filter(|frame| frame.parsed().l4 == L4::Tcp).map(|frame| frame.segment()[13]).collect()
    }

    pub fn super_frames(&self) -> usize {
        self.card.super_frames
    }
}

fn tcp_socket(buffer: usize) -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; buffer]), tcp::SocketBuffer::new(vec![0; buffer]));
    // The test says when it ends.
    socket.set_ack_delay(None);
    socket
}
