//! A translator around [`Fragments`], and the naive receiver behind it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use tapswitch_conntrack::fragment::{Fragments, Ids, Key, Limits, Track};
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{DropReason, Emit, Frame, FrameRef, Instant, Mac, Meta, checksum, fragment};

pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SHARED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LINK: Link = Link { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };
const UDP: u8 = 17;

/// A container's address.
pub fn host(source: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + source)
}

pub fn body(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 256 + seed * 101) as u8).collect()
}

/// The fragments of a UDP datagram from a container to the server, in order.
pub fn datagram(source: u32, id: u16, payload: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let ip = Ip { src: host(source).into(), dst: SERVER.into(), ttl: 64, tos: 0, id };
    let mut whole = Vec::new();
    build::udp(&mut whole, LINK, ip, 4000, 53, payload);
    whole[20] = 0; // DF
    let mut out = Vec::new();
    let mut emit = |_: &Meta, frame: &[u8]| out.push(frame.to_vec());
    fragment::split(&Meta::PLAIN, &whole, mtu, id, &mut Vec::new(), &mut emit).unwrap();
    out
}

/// One fragment, made by hand.
#[derive(Clone, Copy)]
pub struct Piece {
    pub source: u32,
    pub id: u16,
    pub protocol: u8,
    pub offset: usize,
    pub more: bool,
}

pub const PIECE: Piece = Piece { source: 1, id: 1, protocol: UDP, offset: 0, more: true };

impl Piece {
    pub fn with(self, payload: &[u8]) -> Vec<u8> {
        self.with_options(&[], payload)
    }

    pub fn with_options(self, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let [id_high, id_low] = self.id.to_be_bytes();
        let [high, low] = ((self.offset / 8) as u16 | u16::from(self.more) << 13).to_be_bytes();
        let [len_high, len_low] = ((20 + options.len() + payload.len()) as u16).to_be_bytes();
        let version = 0x45 + (options.len() / 4) as u8;
        let mut frame = [&LINK.dst.0[..], &LINK.src.0, &[8, 0]].concat();
        frame.extend_from_slice(&[version, 0, len_high, len_low, id_high, id_low, high, low, 64, self.protocol, 0, 0]);
        frame.extend_from_slice(&host(self.source).octets());
        frame.extend_from_slice(&SERVER.octets());
        frame.extend_from_slice(options);
        let check = checksum::checksum(0, &frame[14..]);
        frame[24..26].copy_from_slice(&check.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }
}

/// Offset, end and whether more follow, of a frame.
pub fn extent(frame: &[u8]) -> (usize, usize, bool) {
    let word = u16::from_be_bytes([frame[20], frame[21]]);
    let offset = usize::from(word & 0x1fff) * 8;
    (offset, offset + frame.len() - 34, word & 0x2000 != 0)
}

/// What a packet goes by behind the translator: protocol and identification.
type Name = (u8, u16);

/// Puts datagrams together byte by byte.
#[derive(Default)]
pub struct Receiver {
    partial: HashMap<Name, (Vec<Option<u8>>, Option<usize>)>,
    whole: Vec<(Name, Vec<u8>)>,
}

impl Emit for Receiver {
    fn emit(&mut self, _: &Meta, frame: &[u8]) {
        let parsed = FrameRef::parse(Meta::PLAIN, frame).unwrap();
        assert!(parsed.ipv4_checksum_ok());
        assert_eq!((parsed.src_ip(), parsed.dst_ip()), (Some(SHARED.into()), Some(SERVER.into())));
        let id = (frame[23], u16::from_be_bytes([frame[18], frame[19]]));
        let (from, to, more) = extent(frame);
        let (bytes, end) = self.partial.entry(id).or_default();
        bytes.resize(bytes.len().max(to), None);
        for (at, byte) in (from..to).zip(parsed.segment()) {
            assert_eq!(bytes[at].replace(*byte), None, "byte {at} of datagram {id:?} came twice");
        }
        if !more {
            assert_eq!(end.replace(to), None, "datagram {id:?} ends twice");
        }
        assert!(end.is_none_or(|end| bytes.len() <= end), "datagram {id:?} goes on behind its end");
        if *end == Some(bytes.len()) && bytes.iter().all(Option::is_some) {
            let bytes = bytes.iter().flatten().copied().collect();
            self.partial.remove(&id);
            self.whole.push((id, bytes));
        }
    }
}

/// Translates containers' addresses to a shared one.
pub struct Nat {
    pub fragments: Fragments<u16>,
    ids: Ids,
    receiver: Receiver,
    /// What each packet came with, by what it left with.
    names: HashMap<Name, Key>,
    /// Copies that were taken, and those that came back.
    pub held: (u64, u64),
    pub now: Instant,
}

impl Nat {
    pub fn new(limits: Limits) -> Nat {
        Nat {
            fragments: Fragments::new(limits, [1; 16]),
            ids: Ids::new([2; 16]),
            receiver: Receiver::default(),
            names: HashMap::new(),
            held: (0, 0),
            now: Instant::from_secs(1000),
        }
    }

    fn pass(&mut self, id: u16, meta: Meta, mut bytes: Vec<u8>) {
        let mut frame = Frame::parse(meta, &mut bytes[..]).unwrap();
        frame.set_src_ip(IpAddr::V4(SHARED));
        frame.set_ip_id(id);
        self.receiver.emit(&Meta::PLAIN, &bytes);
    }

    /// Takes one fragment; returns what became of it, the verdict of a later one left out.
    pub fn take(&mut self, source: u32, bytes: &[u8]) -> Track<()> {
        let frame = FrameRef::parse(Meta::PLAIN, bytes).unwrap();
        let track = self.fragments.track(0, source, &frame, self.now);
        match track {
            Track::First(key) => {
                let id = self.ids.next(SHARED, key.dst, key.protocol);
                self.names.insert((key.protocol, id), key);
                self.pass(id, Meta::PLAIN, bytes.to_vec());
                for (meta, waited) in self.fragments.decided(key, Ok(id)) {
                    self.held.1 += 1;
                    self.pass(id, meta, waited);
                }
                Track::First(key)
            }
            Track::Later(id) => {
                self.pass(id, Meta::PLAIN, bytes.to_vec());
                Track::Later(())
            }
            Track::Held => {
                self.held.0 += 1;
                Track::Held
            }
            Track::Drop(reason) => Track::Drop(reason),
        }
    }

    pub fn take_all<'a>(&mut self, source: u32, frames: impl IntoIterator<Item = &'a Vec<u8>>) {
        for frame in frames {
            self.take(source, frame);
        }
    }

    /// The datagrams that the receiver got since the last call: source and identification as they were sent, and payload.
    pub fn received(&mut self) -> Vec<(u32, u16, Vec<u8>)> {
        let whole = std::mem::take(&mut self.receiver.whole);
        let names = &self.names;
        let read = |(name, bytes): (Name, Vec<u8>)| {
            let key = names[&name];
            let pseudo = checksum::pseudo_header(SHARED.into(), SERVER.into(), key.protocol, bytes.len() as u32);
            if key.protocol == UDP {
                assert_eq!(checksum::checksum(pseudo, &bytes), 0, "the checksum that the receiver computes");
            }
            (key.source, key.id, bytes[8..].to_vec())
        };
        whole.into_iter().map(read).collect()
    }

    /// Long enough later for everything to be forgotten. Returns how many senders are to be told.
    pub fn much_later(&mut self) -> usize {
        self.now = self.now + std::time::Duration::from_secs(60);
        let told = std::iter::from_fn(|| self.fragments.poll(self.now)).count();
        self.assert_empty();
        told
    }

    pub fn assert_empty(&self) {
        assert!(self.fragments.is_empty());
        assert_eq!((self.fragments.held_bytes(), self.fragments.deadline()), (0, None));
        assert_eq!(self.held.0, self.held.1 + self.fragments.drops().total(), "each copy came back or was counted");
    }
}

/// What [`Nat::take`] says of each of these.
pub fn fates(nat: &mut Nat, source: u32, frames: &[Vec<u8>]) -> Vec<Result<&'static str, DropReason>> {
    let name = |track| match track {
        Track::First(_) => Ok("first"),
        Track::Later(()) => Ok("later"),
        Track::Held => Ok("held"),
        Track::Drop(reason) => Err(reason),
    };
    frames.iter().map(|frame| name(nat.take(source, frame))).collect()
}
