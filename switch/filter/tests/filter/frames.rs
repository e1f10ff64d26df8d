//! Frames by what is in them, so that a test knows the truth without reading bytes.

use std::net::{IpAddr, Ipv4Addr};

use tapswitch_wire::{FrameRef, Mac, Meta};

/// A frame.
#[derive(Clone, Debug)]
pub struct Sample {
    pub src: Mac,
    pub dst: Mac,
    /// EtherType and TCI of each tag, the outermost first.
    pub tags: Vec<(u16, u16)>,
    pub body: Body,
    /// Zeros behind the packet.
    pub padding: usize,
}

/// What it carries.
#[derive(Clone, Debug)]
pub enum Body {
    Arp { sender: Ipv4Addr, target: Ipv4Addr },
    Ip(Packet),
    Other(u16),
}

/// An IP packet; both addresses are of one family.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    /// Of TCP, UDP and SCTP.
    pub ports: [u16; 2],
    /// Offset in units of eight bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
    /// Words of IPv4 options, or eights of bytes of IPv6 destination options.
    pub options: u8,
    pub payload: usize,
}

pub fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Sample {
    pub fn new(body: Body) -> Sample {
        Sample { src: mac(1), dst: mac(2), tags: Vec::new(), body, padding: 0 }
    }

    pub fn arp(sender: [u8; 4], target: [u8; 4]) -> Sample {
        let body = Body::Arp { sender: sender.into(), target: target.into() };
        Sample { dst: Mac::BROADCAST, ..Sample::new(body) }
    }

    /// A packet of a protocol between `ADDRESS`es, with ports 40000 and 80.
    pub fn ip(src: &str, dst: &str, protocol: u8) -> Sample {
        let (src, dst) = (ip(src), ip(dst));
        let packet = Packet { src, dst, protocol, ports: [40_000, 80], fragment: None, options: 0, payload: 20 };
        Sample::new(Body::Ip(packet))
    }

    fn packet(mut self, change: impl FnOnce(&mut Packet)) -> Sample {
        if let Body::Ip(packet) = &mut self.body {
            change(packet);
        }
        self
    }

    pub fn ports(self, src: u16, dst: u16) -> Sample {
        self.packet(|packet| packet.ports = [src, dst])
    }

    pub fn fragment(self, offset: u16, more: bool) -> Sample {
        self.packet(|packet| packet.fragment = Some((offset, more)))
    }

    pub fn options(self, options: u8) -> Sample {
        self.packet(|packet| packet.options = options)
    }

    pub fn payload(self, payload: usize) -> Sample {
        self.packet(|packet| packet.payload = payload)
    }

    pub fn to(self, dst: Mac) -> Sample {
        Sample { dst, ..self }
    }

    pub fn from(self, src: Mac) -> Sample {
        Sample { src, ..self }
    }

    pub fn tagged(mut self, vid: u16) -> Sample {
        let kind = if self.tags.is_empty() { 0x8100 } else { 0x88a8 };
        self.tags.insert(0, (kind, 0x6000 | vid));
        self
    }

    pub fn padded(self, padding: usize) -> Sample {
        Sample { padding, ..self }
    }

    /// The EtherType behind all tags.
    pub fn ethertype(&self) -> u16 {
        match &self.body {
            Body::Arp { .. } => 0x0806,
            Body::Ip(packet) if packet.src.is_ipv4() => 0x0800,
            Body::Ip(_) => 0x86dd,
            Body::Other(kind) => *kind,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [self.dst.0, self.src.0].concat();
        for (kind, tci) in &self.tags {
            out.extend([kind.to_be_bytes(), tci.to_be_bytes()].concat());
        }
        out.extend(self.ethertype().to_be_bytes());
        match &self.body {
            Body::Arp { sender, target } => {
                out.extend([0, 1, 8, 0, 6, 4, 0, 1]);
                out.extend(self.src.0);
                out.extend(sender.octets());
                out.extend([0; 6]);
                out.extend(target.octets());
            }
            Body::Ip(packet) => out.extend(packet.bytes()),
            // Looks like an IPv4 header to whoever does not mind the EtherType.
            Body::Other(_) => out.extend(Sample::ip("10.0.0.1", "10.0.0.2", 6).bytes().split_off(14)),
        }
        out.resize(out.len() + self.padding, 0);
        out
    }
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let [[a, b], [c, d]] = self.ports.map(u16::to_be_bytes);
        // A later fragment begins with what looks like ports too.
        let header = match self.protocol {
            6 => 20,
            17 => 8,
            132 => 12,
            1 | 58 => 8,
            _ => 4,
        };
        let mut segment = vec![0; header + self.payload];
        segment[..4].copy_from_slice(&[a, b, c, d]);
        if self.fragment.is_none_or(|(offset, _)| offset == 0) {
            match self.protocol {
                6 => segment[12] = 0x50,
                17 => {
                    let len = segment.len() as u16;
                    segment[4..6].copy_from_slice(&len.to_be_bytes());
                }
                _ => {}
            }
        }
        let mut out = Vec::new();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = 20 + usize::from(self.options) * 4;
                let fragment = self.fragment.map_or(0x4000, |(offset, more)| offset | u16::from(more) << 13);
                out.extend([0x40 | (header / 4) as u8, 0]);
                out.extend(((header + segment.len()) as u16).to_be_bytes());
                out.extend([0, 7]);
                out.extend(fragment.to_be_bytes());
                out.extend([64, self.protocol, 0, 0]);
                out.extend(src.octets());
                out.extend(dst.octets());
                out.resize(header, 1);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut extensions = Vec::new();
                let mut next = self.protocol;
                if let Some((offset, more)) = self.fragment {
                    extensions = vec![next, 0];
                    extensions.extend((offset << 3 | u16::from(more)).to_be_bytes());
                    extensions.extend([0, 0, 0, 9]);
                    next = 44;
                }
                if let Some(units) = self.options.checked_sub(1) {
                    let mut options = vec![0; usize::from(self.options) * 8];
                    options[..2].copy_from_slice(&[next, units]);
                    extensions.splice(..0, options);
                    next = 60;
                }
                out.extend([0x60, 0, 0, 0]);
                out.extend(((extensions.len() + segment.len()) as u16).to_be_bytes());
                out.extend([next, 64]);
                out.extend(src.octets());
                out.extend(dst.octets());
                out.extend(extensions);
            }
            mixed => panic!("no packet has these addresses: {mixed:?}"),
        }
        out.extend(segment);
        out
    }
}

/// The frame of these bytes.
pub fn frame(bytes: &[u8]) -> FrameRef<'_> {
    FrameRef::parse(Meta::PLAIN, bytes).unwrap()
}
