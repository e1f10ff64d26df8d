//! A server in virtual time with its journal, and the messages that clients send it.

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_dhcp::{Config, LeaseView, Restored, Server, State};
use tapswitch_wire::{DropReason, Frame, Instant, Mac, Meta, PortId, Recorded, build};

pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const SERVER_MAC: Mac = Mac([2, 0x42, 10, 0, 0, 1]);
pub const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// UNIX time at the start of every world.
pub const WALL: u64 = 1_800_000_000;

pub const DISCOVER: u8 = 1;
pub const OFFER: u8 = 2;
pub const REQUEST: u8 = 3;
pub const DECLINE: u8 = 4;
pub const ACK: u8 = 5;
pub const NAK: u8 = 6;
pub const RELEASE: u8 = 7;
pub const INFORM: u8 = 8;

/// 10.0.0.`host`.
pub fn ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host)
}

/// The hardware address of test client `number`.
pub fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

pub fn config(subnet: &str) -> Config {
    Config::new(subnet.parse().unwrap(), SERVER, SERVER_MAC)
}

/// What a client sends. Builders change one thing each.
#[derive(Clone, Debug)]
pub struct Msg {
    pub op: u8,
    pub htype: u8,
    pub hlen: u8,
    pub xid: u32,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub chaddr: Mac,
    pub sname: Vec<u8>,
    pub file: Vec<u8>,
    /// All options with code and length; the end option is added unless `end` is cleared.
    pub options: Vec<u8>,
    pub end: bool,
    pub cookie: [u8; 4],
    /// Source and destination of the packet, and source of the frame if it is not `chaddr`.
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub link_src: Option<Mac>,
}

impl Msg {
    pub fn new(kind: u8, chaddr: Mac) -> Msg {
        Msg {
            op: 1,
            htype: 1,
            hlen: 6,
            xid: 0x1234_5678,
            flags: 0,
            ciaddr: ANY,
            giaddr: ANY,
            chaddr,
            sname: Vec::new(),
            file: Vec::new(),
            options: vec![53, 1, kind],
            end: true,
            cookie: [99, 130, 83, 99],
            src: ANY,
            dst: Ipv4Addr::BROADCAST,
            link_src: None,
        }
    }

    pub fn discover(client: u32) -> Msg {
        Msg::new(DISCOVER, mac(client))
    }

    /// SELECTING: takes the offer of `ip`.
    pub fn select(client: u32, ip: Ipv4Addr) -> Msg {
        Msg::new(REQUEST, mac(client)).ip_option(54, SERVER).ip_option(50, ip)
    }

    /// INIT-REBOOT.
    pub fn reboot(client: u32, ip: Ipv4Addr) -> Msg {
        Msg::new(REQUEST, mac(client)).ip_option(50, ip)
    }

    /// RENEWING.
    pub fn renew(client: u32, ip: Ipv4Addr) -> Msg {
        Msg { src: ip, dst: SERVER, ..Msg::new(REQUEST, mac(client)).ciaddr(ip) }
    }

    /// REBINDING.
    pub fn rebind(client: u32, ip: Ipv4Addr) -> Msg {
        Msg { src: ip, ..Msg::new(REQUEST, mac(client)).ciaddr(ip) }
    }

    pub fn decline(client: u32, ip: Ipv4Addr) -> Msg {
        Msg::new(DECLINE, mac(client)).ip_option(54, SERVER).ip_option(50, ip)
    }

    pub fn release(client: u32, ip: Ipv4Addr) -> Msg {
        Msg { src: ip, dst: SERVER, ..Msg::new(RELEASE, mac(client)).ciaddr(ip).ip_option(54, SERVER) }
    }

    pub fn inform(client: u32, ip: Ipv4Addr) -> Msg {
        Msg { src: ip, ..Msg::new(INFORM, mac(client)).ciaddr(ip) }
    }

    pub fn option(mut self, code: u8, value: &[u8]) -> Msg {
        self.options.extend_from_slice(&[code, value.len() as u8]);
        self.options.extend_from_slice(value);
        self
    }

    pub fn ip_option(self, code: u8, ip: Ipv4Addr) -> Msg {
        self.option(code, &ip.octets())
    }

    pub fn id(self, id: &[u8]) -> Msg {
        self.option(61, id)
    }

    pub fn ciaddr(mut self, ip: Ipv4Addr) -> Msg {
        self.ciaddr = ip;
        self
    }

    pub fn giaddr(mut self, ip: Ipv4Addr) -> Msg {
        self.giaddr = ip;
        self
    }

    pub fn broadcast(mut self) -> Msg {
        self.flags = 0x8000;
        self
    }

    /// The payload of the datagram.
    pub fn payload(&self) -> Vec<u8> {
        let mut bytes = vec![self.op, self.htype, self.hlen, 3];
        bytes.extend_from_slice(&self.xid.to_be_bytes());
        bytes.extend_from_slice(&[0, 9]);
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        for ip in [self.ciaddr, ANY, ANY, self.giaddr] {
            bytes.extend_from_slice(&ip.octets());
        }
        for (content, size) in [(&self.chaddr.0[..], 16), (&self.sname, 64), (&self.file, 128)] {
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len() + size - content.len(), 0);
        }
        bytes.extend_from_slice(&self.cookie);
        bytes.extend_from_slice(&self.options);
        if self.end {
            bytes.push(255);
        }
        bytes
    }

    pub fn frame(&self) -> Vec<u8> {
        frame(self.link_src.unwrap_or(self.chaddr), self.src, self.dst, &self.payload())
    }
}

/// A frame to port 67.
pub fn frame(link_src: Mac, src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let link = build::Link { src: link_src, dst: if dst == SERVER { SERVER_MAC } else { Mac::BROADCAST } };
    let header = build::Ip { src: src.into(), dst: dst.into(), ttl: 64, tos: 0, id: 0 };
    let mut out = Vec::new();
    build::udp(&mut out, link, header, 68, 67, payload);
    out
}

/// A reply, taken apart by a reader of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub kind: u8,
    pub yiaddr: Ipv4Addr,
    pub dst_mac: Mac,
    pub dst: Ipv4Addr,
    pub dst_port: u16,
    pub payload: Vec<u8>,
    /// Options in the order of the message: options field, then `file` and `sname` if overloaded. Parts are joined.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Answer {
        let mut bytes = bytes.to_vec();
        let frame = Frame::parse(Meta::PLAIN, &mut bytes).unwrap();
        assert!(frame.ipv4_checksum_ok() && frame.transport_checksum_ok());
        assert_eq!((frame.src_mac(), frame.src_ip(), frame.ttl()), (SERVER_MAC, Some(SERVER.into()), 64));
        assert_eq!(frame.src_port(), 67);
        let payload = frame.payload().to_vec();
        assert!(payload.len() >= 300, "below the minimum of BOOTP");
        assert_eq!(payload[0], 2, "not a BOOTREPLY");
        let mut options: Vec<(u8, Vec<u8>)> = Vec::new();
        let mut walk = |area: &[u8]| {
            let mut at = 0;
            while area[at] != 255 {
                if area[at] == 0 {
                    at += 1;
                    continue;
                }
                let (code, value) = (area[at], &area[at + 2..at + 2 + usize::from(area[at + 1])]);
                at += 2 + value.len();
                match options.iter_mut().find(|(known, _)| *known == code) {
                    Some((_, known)) => known.extend_from_slice(value),
                    None => options.push((code, value.to_vec())),
                }
            }
            assert!(area[at + 1..].iter().all(|byte| *byte == 0), "something behind the end option");
        };
        walk(&payload[240..]);
        let overload = payload[240..].windows(3).find(|w| w[..2] == [52, 1]).map_or(0, |w| w[2]);
        if overload & 1 != 0 {
            walk(&payload[108..236]);
        }
        if overload & 2 != 0 {
            walk(&payload[44..108]);
        }
        let dst = match frame.dst_ip() {
            Some(std::net::IpAddr::V4(ip)) => ip,
            other => panic!("sent to {other:?}"),
        };
        let mut answer = Answer {
            kind: 0,
            yiaddr: Ipv4Addr::from(<[u8; 4]>::try_from(&payload[16..20]).unwrap()),
            dst_mac: frame.dst_mac(),
            dst,
            dst_port: frame.dst_port(),
            payload,
            options,
        };
        answer.kind = answer.get(53)[0];
        answer
    }

    /// The value of an option; it must be there.
    pub fn get(&self, code: u8) -> &[u8] {
        self.find(code).unwrap_or_else(|| panic!("no option {code} in {:?}", self.codes()))
    }

    pub fn find(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }

    pub fn codes(&self) -> Vec<u8> {
        self.options.iter().map(|(code, _)| *code).collect()
    }

    pub fn secs(&self, code: u8) -> u32 {
        u32::from_be_bytes(self.get(code).try_into().unwrap())
    }

    pub fn text(&self, code: u8) -> &str {
        std::str::from_utf8(self.get(code)).unwrap()
    }

    /// A field of the fixed header.
    pub fn field(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.payload[range]
    }
}

/// A server, its journal, and the time.
#[derive(Clone)]
pub struct World {
    pub config: Config,
    pub server: Server,
    pub now: Instant,
    pub journal: Vec<u8>,
    pub said: Vec<String>,
}

impl World {
    /// A /24 with default settings.
    pub fn new() -> World {
        World::with(config("10.0.0.0/24"))
    }

    pub fn with(config: Config) -> World {
        let now = Instant::from_secs(1000);
        let server = Server::new(config.clone(), now, WALL);
        World { config, server, now, journal: Vec::new(), said: Vec::new() }
    }

    /// What the server would be after a crash now, `pause` seconds later, with this much of the journal left.
    pub fn restarted(&self, journal: &[u8], pause: u64) -> (World, Restored) {
        let wall = WALL + (self.now - Instant::from_secs(1000)).as_secs() + pause;
        // Another uptime on purpose: monotonic time means nothing across a restart.
        let now = Instant::from_secs(5);
        let mut server = Server::new(self.config.clone(), now, wall);
        let restored = server.restore(journal);
        let world = World { config: self.config.clone(), server, now, journal: journal.to_vec(), said: Vec::new() };
        (world, restored)
    }

    pub fn wait(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
    }

    pub fn poll(&mut self) {
        let World { server, now, journal, .. } = self;
        server.poll(*now, &mut |line: &[u8]| journal.extend_from_slice(line));
    }

    /// Sends a message in at port 1.
    pub fn send(&mut self, msg: &Msg) -> Result<Option<Answer>, DropReason> {
        self.send_at(1, msg)
    }

    pub fn send_at(&mut self, port: u32, msg: &Msg) -> Result<Option<Answer>, DropReason> {
        self.send_frame(port, &msg.frame())
    }

    pub fn send_frame(&mut self, port: u32, bytes: &[u8]) -> Result<Option<Answer>, DropReason> {
        let mut bytes = bytes.to_vec();
        let frame = Frame::parse(Meta::PLAIN, &mut bytes).unwrap();
        let mut heard = Recorded::default();
        // `None` marks the reply among the records, to see that nothing is recorded after it.
        let order = std::cell::RefCell::new(Vec::new());
        let mut answer = None;
        let result = self.server.handle(
            PortId(port),
            &frame,
            self.now,
            &mut heard,
            &mut |line: &[u8]| order.borrow_mut().push(Some(line.to_vec())),
            &mut |meta: &Meta, bytes: &[u8]| {
                assert_eq!(*meta, Meta::PLAIN);
                assert!(answer.is_none(), "two replies to one message");
                answer = Some(Answer::read(bytes));
                order.borrow_mut().push(None);
            },
        );
        self.said.extend(heard.steps.into_iter().map(|step| step.text));
        let order = order.into_inner();
        assert!(order.iter().rev().skip(1).all(Option::is_some), "a record after the reply");
        self.journal.extend(order.into_iter().flatten().flatten());
        assert!(result.is_ok() || answer.is_none(), "a reply to a dropped message");
        result.map(|()| answer)
    }

    /// The reply to a message that must have one.
    pub fn ask(&mut self, msg: &Msg) -> Answer {
        self.ask_at(1, msg)
    }

    pub fn ask_at(&mut self, port: u32, msg: &Msg) -> Answer {
        match self.send_at(port, msg) {
            Ok(Some(answer)) => answer,
            other => panic!("{other:?} to {msg:?}\n{}", self.leases()),
        }
    }

    /// DISCOVER, OFFER, REQUEST, ACK. Returns the address.
    pub fn lease(&mut self, port: u32, client: u32) -> Ipv4Addr {
        let offer = self.ask_at(port, &Msg::discover(client));
        assert_eq!(offer.kind, OFFER);
        let ack = self.ask_at(port, &Msg::select(client, offer.yiaddr));
        assert_eq!((ack.kind, ack.yiaddr), (ACK, offer.yiaddr));
        ack.yiaddr
    }

    pub fn row(&self, ip: Ipv4Addr) -> Option<LeaseView> {
        self.server.leases(self.now).into_iter().find(|row| row.ip == ip)
    }

    pub fn state(&self, ip: Ipv4Addr) -> Option<State> {
        self.row(ip).map(|row| row.state)
    }

    /// The table as text, for failing tests.
    pub fn leases(&self) -> String {
        self.server.leases(self.now).iter().map(|row| format!("{row:?}\n")).collect()
    }

    pub fn reserve(
        &mut self,
        name: &str,
        mac: Option<Mac>,
        ip: Option<Ipv4Addr>,
    ) -> Result<tapswitch_dhcp::Reservation, tapswitch_dhcp::ReserveError> {
        let World { server, now, journal, .. } = self;
        server.reserve(name, mac, ip, *now, &mut |line: &[u8]| journal.extend_from_slice(line))
    }

    pub fn release_name(&mut self, name: &str) {
        let World { server, now, journal, .. } = self;
        server.release(name, *now, &mut |line: &[u8]| journal.extend_from_slice(line));
    }

    pub fn port_gone(&mut self, port: u32) {
        let World { server, now, journal, .. } = self;
        server.port_gone(PortId(port), *now, &mut |line: &[u8]| journal.extend_from_slice(line));
    }
}
