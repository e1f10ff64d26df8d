//! A client in virtual time, and what servers say to it, byte by byte.

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_dhcp::client::{Client, Config, Event};
use tapswitch_wire::{DropReason, FrameRef, Instant, Mac, Meta, build};

use crate::world::*;

pub const ME: Mac = Mac([2, 0, 0, 0, 0, 7]);
/// Where every client begins.
pub const START: Instant = Instant::from_secs(1000);

pub fn config() -> Config {
    Config { mac: ME, hostname: Some("router".into()), client_id: None, secret: 1 }
}

/// What a client sent, taken apart by a reader of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    pub at: Instant,
    pub kind: u8,
    pub xid: u32,
    pub secs: u16,
    pub ciaddr: Ipv4Addr,
    pub link_dst: Mac,
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub options: Vec<(u8, Vec<u8>)>,
    pub frame: Vec<u8>,
}

impl Said {
    pub fn read(at: Instant, bytes: &[u8]) -> Said {
        let frame = FrameRef::parse(Meta::PLAIN, bytes).unwrap();
        assert!(frame.ipv4_checksum_ok() && frame.transport_checksum_ok());
        assert_eq!((frame.src_port(), frame.dst_port()), (68, 67));
        let payload = frame.payload();
        assert!(payload.len() >= 300, "below the minimum of BOOTP");
        assert_eq!(payload[..4], [1, 1, 6, 0], "BOOTREQUEST of an Ethernet host");
        assert_eq!(payload[10..12], [0, 0], "flags");
        assert_eq!(payload[16..28], [0; 12], "yiaddr, siaddr and giaddr are not ours to set");
        assert_eq!(payload[28..34], frame.src_mac().0, "chaddr");
        assert_eq!(payload[236..240], [99, 130, 83, 99]);
        let mut options = Vec::new();
        let mut rest = &payload[240..];
        while rest[0] != 255 {
            let len = usize::from(rest[1]);
            options.push((rest[0], rest[2..2 + len].to_vec()));
            rest = &rest[2 + len..];
        }
        let address = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
        Said {
            at,
            kind: options[0].1[0],
            xid: u32::from_be_bytes(payload[4..8].try_into().unwrap()),
            secs: u16::from_be_bytes([payload[8], payload[9]]),
            ciaddr: address(&payload[12..16]),
            link_dst: frame.dst_mac(),
            src: address(&frame.packet()[12..16]),
            dst: address(&frame.packet()[16..20]),
            options,
            frame: bytes.to_vec(),
        }
    }

    pub fn find(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }

    pub fn ip(&self, code: u8) -> Option<Ipv4Addr> {
        self.find(code).map(|value| Ipv4Addr::from(<[u8; 4]>::try_from(value).unwrap()))
    }

    /// Whether it went to everybody.
    pub fn is_broadcast(&self) -> bool {
        (self.link_dst, self.dst) == (Mac::BROADCAST, Ipv4Addr::BROADCAST)
    }

    /// A server's answer to it. Builders change one thing each.
    pub fn answer(&self, kind: u8, yiaddr: Ipv4Addr) -> Reply {
        Reply {
            yiaddr,
            msg: Msg { op: 2, xid: self.xid, ..Msg::new(kind, ME) },
            link: (SERVER_MAC, ME),
            ports: (67, 68),
        }
        .ip_option(54, SERVER)
    }
}

/// What a server sends.
#[derive(Clone, Debug)]
pub struct Reply {
    pub yiaddr: Ipv4Addr,
    pub msg: Msg,
    /// Source and destination of the frame.
    pub link: (Mac, Mac),
    pub ports: (u16, u16),
}

impl Reply {
    pub fn option(mut self, code: u8, value: &[u8]) -> Reply {
        self.msg = self.msg.option(code, value);
        self
    }

    pub fn ip_option(self, code: u8, ip: Ipv4Addr) -> Reply {
        self.option(code, &ip.octets())
    }

    /// Puts an option in the place of one that is there already; an empty value takes it out.
    pub fn instead(mut self, code: u8, value: &[u8]) -> Reply {
        let old = std::mem::take(&mut self.msg.options);
        let mut rest = &old[..];
        while let [known, len, ..] = rest {
            let (option, tail) = rest.split_at(2 + usize::from(*len));
            if *known != code {
                self.msg.options.extend_from_slice(option);
            }
            rest = tail;
        }
        if value.is_empty() { self } else { self.option(code, value) }
    }

    /// A lease of so many seconds in a /24 with a router.
    pub fn terms(self, secs: u32) -> Reply {
        self.option(51, &secs.to_be_bytes()).option(1, &[255, 255, 255, 0]).ip_option(3, SERVER)
    }

    /// Another server says it.
    pub fn from(mut self, server: Ipv4Addr, mac: Mac) -> Reply {
        self.link.0 = mac;
        self.instead(54, &server.octets())
    }

    pub fn payload(&self) -> Vec<u8> {
        let mut payload = self.msg.payload();
        payload[16..20].copy_from_slice(&self.yiaddr.octets());
        payload
    }

    pub fn frame(&self) -> Vec<u8> {
        reply_frame(self.link, self.ports, &self.payload())
    }
}

/// A datagram of the server.
pub fn reply_frame((src, dst): (Mac, Mac), (from, to): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let header = build::Ip { src: SERVER.into(), dst: Ipv4Addr::BROADCAST.into(), ttl: 64, tos: 0, id: 0 };
    let mut out = Vec::new();
    build::udp(&mut out, build::Link { src, dst }, header, from, to, payload);
    out
}

/// A client and its time.
#[derive(Clone)]
pub struct Guest {
    pub client: Client,
    pub now: Instant,
    /// What it sent and nobody took yet.
    pub said: Vec<Said>,
}

impl Guest {
    pub fn new() -> Guest {
        Guest::with(config())
    }

    pub fn with(config: Config) -> Guest {
        Guest { client: Client::new(config, START), now: START, said: Vec::new() }
    }

    /// One that has 10.0.0.9/24 for so many seconds, since now.
    pub fn bound(secs: u32) -> Guest {
        let mut guest = Guest::new();
        guest.bind(secs);
        guest
    }

    /// DISCOVER, OFFER, REQUEST, ACK.
    pub fn bind(&mut self, secs: u32) {
        let discover = self.next();
        assert_eq!(discover.kind, DISCOVER);
        assert_eq!(self.hear(&discover.answer(OFFER, ip(9)).terms(secs)), Ok(None));
        let request = self.take();
        assert_eq!(request.kind, REQUEST);
        let event = self.hear(&request.answer(ACK, ip(9)).terms(secs));
        assert!(matches!(event, Ok(Some(Event::Bound(_)))), "{event:?}");
    }

    pub fn poll(&mut self) -> Option<Event> {
        let Guest { client, now, said } = self;
        client.poll(*now, &mut |meta: &Meta, bytes: &[u8]| {
            assert_eq!(*meta, Meta::PLAIN);
            said.push(Said::read(*now, bytes));
        })
    }

    /// Lets time pass until something happens: an event, or one message that it sends.
    pub fn step(&mut self) -> Option<Event> {
        let due = self.client.deadline().expect("nothing will happen");
        self.now = self.now.max(due);
        let event = self.poll();
        assert!(self.client.deadline().is_none_or(|due| due > self.now), "busy at {:?}", self.now);
        event
    }

    /// The next message, without an event before it.
    pub fn next(&mut self) -> Said {
        assert_eq!(self.step(), None);
        self.take()
    }

    /// The one message that it has sent.
    pub fn take(&mut self) -> Said {
        assert_eq!(self.said.len(), 1, "{:?}", self.said);
        self.said.remove(0)
    }

    pub fn hear(&mut self, reply: &Reply) -> Result<Option<Event>, DropReason> {
        self.hear_frame(&reply.frame())
    }

    pub fn hear_frame(&mut self, bytes: &[u8]) -> Result<Option<Event>, DropReason> {
        let frame = FrameRef::parse(Meta::PLAIN, bytes).unwrap();
        let Guest { client, now, said } = self;
        client.handle(&frame, *now, &mut |_: &Meta, bytes: &[u8]| said.push(Said::read(*now, bytes)))
    }

    pub fn decline(&mut self) -> Vec<Said> {
        let Guest { client, now, said } = self;
        client.decline(*now, &mut |_: &Meta, bytes: &[u8]| said.push(Said::read(*now, bytes)));
        std::mem::take(said)
    }

    pub fn release(&mut self) -> Vec<Said> {
        let Guest { client, now, said } = self;
        client.release(&mut |_: &Meta, bytes: &[u8]| said.push(Said::read(*now, bytes)));
        std::mem::take(said)
    }

    pub fn wait(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
    }

    pub fn state(&self) -> &'static str {
        self.client.state_name()
    }
}
