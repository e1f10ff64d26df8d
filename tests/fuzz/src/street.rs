//! The LAN of a packet uplink: what may leave by it, and frames that come from it, most of them answers to what left.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use tapswitch_network::{Addressing, PacketUplink};
use tapswitch_relay::Policy;
use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{DropReason, FrameRef, Gso, GsoKind, L3, L4, Mac, Meta, checksum};

use crate::frames::{GATEWAY, Made, address};
use crate::host::OWN;
use crate::oracle;
use crate::record::Record;

/// The uplink's MAC address.
pub const MAC: Mac = Mac([2, 9, 9, 9, 9, 9]);
/// Less than inside, so that something has to be cut.
pub const MTU: u16 = 1400;
/// Of another device that may come in its place.
pub const NARROW: u16 = 600;
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Who speaks out there.
const HOSTS: [Ipv4Addr; 4] = [ROUTER, Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(198, 51, 100, 4), OWN];
/// Packets that left and may be answered.
const SEEN: usize = 16;

/// The uplink that a world is given.
pub fn uplink(options: u8) -> PacketUplink {
    use tapswitch_conntrack::{Config, Dependence, Limits, PortChoice};
    let subnet = "10.0.0.0/24".parse().expect("a subnet");
    let limits = Limits { sessions: 8, owner_sessions: 5, owner_rate: 50, owner_ports: 4 };
    let filtering = match options & 32 {
        0 => Dependence::AddressDependent,
        _ => Dependence::EndpointIndependent,
    };
    PacketUplink {
        addressing: Addressing::Static { address: "192.0.2.77/24".parse().expect("an address"), router: Some(ROUTER) },
        mtu: None,
        routes: Vec::new(),
        policy: Policy { gateway: GATEWAY.into(), resolver: None, allow: Vec::new(), deny: Vec::new() },
        nat: Config {
            translate: options & 16 == 0,
            filtering,
            ports: PortChoice::Preserve,
            limits,
            ..Config::new(subnet)
        },
    }
}

/// The uplink's end of the cable.
pub struct Street {
    /// Whether what leaves must have our address.
    pub translates: bool,
    /// Whether every frame so far came in with right checksums, so that they must be right when they leave.
    pub right: bool,
    /// Whether the device takes nothing more.
    pub full: bool,
    pub mtu: u16,
    /// Packets that left.
    pub left: u64,
    seen: VecDeque<Vec<u8>>,
}

impl Street {
    pub fn new(translates: bool) -> Street {
        Street { translates, right: true, full: false, mtu: MTU, left: 0, seen: VecDeque::new() }
    }

    /// Takes a frame that leaves.
    pub fn take(&mut self, meta: &Meta, bytes: &[u8]) -> Result<(), DropReason> {
        let frame = FrameRef::parse(*meta, bytes).expect("what leaves can be parsed");
        assert_eq!(frame.src_mac(), MAC, "it is not ours");
        let len = meta.packet_len(usize::from(frame.parsed().l3_start), &bytes[..frame.parsed().end as usize]);
        assert!(len <= usize::from(self.mtu), "{len} bytes leave");
        match frame.parsed().l3 {
            L3::Arp => assert_eq!(bytes[28..32], OWN.octets(), "ARP in another's name"),
            L3::Ipv4 => self.check_packet(&frame),
            other => panic!("{other:?} leaves"),
        }
        if self.full {
            return Err(DropReason::TxFull);
        }
        if frame.parsed().l3 == L3::Ipv4 {
            self.left += 1;
            self.seen.truncate(SEEN - 1);
            self.seen.push_front(bytes.to_vec());
        }
        Ok(())
    }

    fn check_packet(&self, frame: &FrameRef<'_>) {
        let is_inside = |ip: Option<IpAddr>| matches!(ip, Some(IpAddr::V4(ip)) if ip.octets()[..3] == [10, 0, 0]);
        let (src, dst) = (frame.src_ip(), frame.dst_ip());
        assert!(src == Some(OWN.into()) || !self.translates && is_inside(src), "{src:?} leaves");
        assert!(!is_inside(dst), "{dst:?} is inside");
        assert!(frame.ttl() > 0 && frame.ipv4_checksum_ok());
        if self.right && frame.meta().gso.is_none() {
            assert_eq!(oracle::checksums_when_complete(frame.meta(), frame.bytes()), Ok(()));
        }
    }

    /// Notes a frame that comes in, from either side.
    pub fn heard(&mut self, meta: &Meta, bytes: &[u8]) {
        self.right &= meta.gso.is_some() || oracle::checksums_when_complete(meta, bytes).is_ok();
    }

    fn seen(&self, which: u8) -> Option<FrameRef<'_>> {
        let at = usize::from(which).checked_rem(self.seen.len())?;
        FrameRef::parse(Meta::PLAIN, &self.seen[at][..]).ok()
    }

    /// An answer to a packet that left. `args[1..]`: which; flags, or how much ICMP; where the segment begins; length
    /// (two bytes); TTL, whether it may be fragmented, and whether it is a super-frame.
    pub fn answer(&self, record: &Record) -> Option<(Meta, Vec<u8>)> {
        let [_, which, flags, shift, _, _, how] = record.args;
        let question = self.seen(which)?;
        let (Some(dst), Some(src)) = (question.src_ip(), question.dst_ip()) else { return None };
        let ip = Ip { src, dst, ttl: if how & 15 == 0 { 1 } else { 64 }, tos: how, id: u16::from(shift) };
        let (src_port, dst_port) = (question.dst_port(), question.src_port());
        let len = usize::from(record.word(4) % 3000);
        let mut bytes = Vec::new();
        let mut meta = Meta::PLAIN;
        match question.parsed().l4 {
            L4::Tcp => {
                let word =
                    |at: usize| question.segment()[at..at + 4].iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
                let control = u32::from(question.segment()[13] & 3 != 0);
                let ack = word(4).wrapping_add(question.payload().len() as u32 + control);
                let seq = word(8).wrapping_add_signed(i32::from(shift as i8));
                let options: &[u8] = if flags & 2 != 0 { &[2, 4, 0x22, 0xb8] } else { &[] };
                let tcp = Tcp { src_port, dst_port, seq, ack, flags, window: 0xffff, options };
                meta = build::tcp(&mut bytes, link(), ip, tcp, len);
                bytes.resize(bytes.len() + len, flags);
                if how & 32 != 0 && len > 0 {
                    meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1000, ecn: false });
                }
            }
            L4::Udp => build::udp(&mut bytes, link(), ip, src_port, dst_port, &vec![flags; len]),
            L4::Icmp => {
                let id = question.segment().get(4..6)?;
                let body = vec![shift; len];
                build::icmp(&mut bytes, link(), ip, flags & 8, 0, [id[0], id[1], 0, shift], &body);
            }
            _ => return None,
        }
        if how & 16 != 0 {
            fragment(&mut bytes, u16::from(shift), 0);
        }
        Some((meta, bytes))
    }

    /// An ICMP error about a packet that left. `args[1..]`: which; type; code; MTU (two bytes); how much is quoted.
    pub fn error(&self, record: &Record) -> Option<(Meta, Vec<u8>)> {
        let [_, which, kind, code, high, low, quoted] = record.args;
        let about = self.seen(which)?;
        let dst = about.src_ip()?;
        let kind = [3, 3, 11, 12, 5, 4, 3, 3][usize::from(kind % 8)];
        let ip = Ip { src: HOSTS[usize::from(code >> 4 & 3)].into(), dst, ttl: 60, tos: 0, id: 0 };
        let quote = about.packet().get(..usize::from(quoted).max(20)).unwrap_or(about.packet());
        let mut bytes = Vec::new();
        build::icmp(&mut bytes, link(), ip, kind, code & 15, [0, 0, high, low], quote);
        Some((Meta::PLAIN, bytes))
    }

    /// ARP. `args[1..]`: operation; claimed sender; target; claimed hardware address; to everybody or us.
    pub fn arp(&self, record: &Record) -> (Meta, Vec<u8>) {
        let [_, operation, sender, target, hardware, to, _] = record.args;
        let ip = |which: u8| match which % 6 {
            4 => OWN,
            5 => address(1),
            other => HOSTS[usize::from(other % 4)],
        };
        let own = Mac([2, 7, 7, 7, 7, hardware]);
        let sha = if hardware == 255 { MAC } else { own };
        let arp = Arp { operation: u16::from(operation % 4), sha, spa: ip(sender), tha: MAC, tpa: ip(target) };
        let mut bytes = Vec::new();
        build::arp(&mut bytes, Link { src: own, dst: if to & 1 == 0 { MAC } else { Mac::BROADCAST } }, arp);
        (Meta::PLAIN, bytes)
    }

    /// A packet of a stranger. `args[1..]`: who; to whom; protocol; ports (two bytes); flags or ICMP type.
    pub fn stranger(&self, record: &Record) -> (Meta, Vec<u8>) {
        let [_, who, to, protocol, from, port, what] = record.args;
        let dst = match to % 8 {
            0 => address(1),
            1 => HOSTS[1],
            2 => Ipv4Addr::BROADCAST,
            _ => OWN,
        };
        let src = if who == 255 { address(2) } else { HOSTS[usize::from(who % 4)] };
        let ip = Ip { src: src.into(), dst: dst.into(), ttl: 64, tos: 0, id: 0 };
        let (src_port, dst_port) = (5000 + u16::from(from), if port & 1 == 0 { 8080 } else { 1000 + u16::from(port) });
        let mut bytes = Vec::new();
        let mut meta = Meta::PLAIN;
        match protocol % 4 {
            0 => {
                let tcp = Tcp { src_port, dst_port, seq: 9, ack: 0, flags: what, window: 99, options: &[] };
                meta = build::tcp(&mut bytes, link(), ip, tcp, 0);
            }
            1 => build::udp(&mut bytes, link(), ip, src_port, dst_port, b"stranger"),
            2 => build::icmp(&mut bytes, link(), ip, what % 20, 0, [0, from, 0, 1], &[0; 40]),
            _ => {
                build::udp(&mut bytes, link(), ip, src_port, dst_port, b"stranger");
                bytes[23] = what;
                fix_header(&mut bytes);
            }
        }
        (meta, bytes)
    }

    /// A fragment from outside, to whoever sent a packet. `args[1..]`: which; offset; length (two bytes); more follow (1)
    /// and identification.
    pub fn fragment(&self, record: &Record) -> Option<(Meta, Vec<u8>)> {
        let [_, which, offset, _, _, how, _] = record.args;
        let question = self.seen(which)?;
        let (Some(dst), Some(src)) = (question.src_ip(), question.dst_ip()) else { return None };
        let ip = Ip { src, dst, ttl: 64, tos: 0, id: 0 };
        let len = usize::from(record.word(3) % 1400) & !7;
        let mut bytes = Vec::new();
        build::udp(&mut bytes, link(), ip, question.dst_port(), question.src_port(), &vec![how; len]);
        fragment(&mut bytes, u16::from(how >> 1), u16::from(how & 1) << 13 | u16::from(offset));
        Some((Meta::PLAIN, bytes))
    }
}

/// A fragment of a container, or a datagram that may be fragmented. `args[1..]`: who; offset; length (two bytes); more
/// follow (1), DF (2), and identification; to whom.
pub fn fragment_of_container(record: &Record) -> Made {
    let [_, who, offset, _, _, how, to] = record.args;
    let who = who % 3 + 1;
    let ip = Ip { src: address(who).into(), dst: HOSTS[usize::from(to % 4)].into(), ttl: 64, tos: 0, id: 0 };
    let link = Link { src: Mac::from_ipv4(address(who)), dst: Mac::from_ipv4(GATEWAY) };
    let len = usize::from(record.word(3) % 1472);
    let mut bytes = Vec::new();
    build::udp(&mut bytes, link, ip, 1000 + u16::from(to >> 4), 80, &vec![how; len]);
    let word = u16::from(how & 1) << 13 | u16::from(how & 2) << 13 | u16::from(offset);
    fragment(&mut bytes, u16::from(how >> 2), word);
    Made { port: who, meta: Meta::PLAIN, bytes }
}

/// From the router to us.
fn link() -> Link {
    Link { src: Mac([2, 7, 7, 7, 7, 7]), dst: MAC }
}

/// Makes a packet a fragment, or one that may be fragmented.
fn fragment(bytes: &mut [u8], id: u16, word: u16) {
    bytes[18..20].copy_from_slice(&id.to_be_bytes());
    bytes[20..22].copy_from_slice(&word.to_be_bytes());
    fix_header(bytes);
}

fn fix_header(bytes: &mut [u8]) {
    bytes[24..26].copy_from_slice(&[0, 0]);
    let check = checksum::checksum(0, &bytes[14..34]);
    bytes[24..26].copy_from_slice(&check.to_be_bytes());
}
