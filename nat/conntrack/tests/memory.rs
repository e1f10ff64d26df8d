//! What sessions cost, and that their packets allocate nothing: counted, not believed.
//!
//! A binary of its own, because the counting allocator is everybody's.

use std::net::Ipv4Addr;

use allocation_counter::measure;
use tapswitch_conntrack::{Config, Conntrack, Limits, Protocol, Realm, Tuple};
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{Endpoint, Frame, Instant, Mac, Meta};

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LINK: Link = Link { src: Mac([2; 6]), dst: Mac([4; 6]) };
/// With optimisation a million sessions take a second or two to make, and without it half a minute.
const SESSIONS: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const OWNERS: u32 = 16;
/// Other ends of each inside port.
const REMOTES: u32 = 16;

fn container(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + number)
}

fn udp(bytes: &mut Vec<u8>, src: Endpoint, dst: Endpoint) {
    let ip = Ip { src: src.ip.into(), dst: dst.ip.into(), ttl: 64, tos: 0, id: 0 };
    build::udp(bytes, LINK, ip, src.port, dst.port, b"");
}

fn translator() -> Conntrack {
    let limits = Limits { sessions: SESSIONS, owner_sessions: SESSIONS, owner_rate: SESSIONS, ..Limits::default() };
    let config = Config { limits, ..Config::new("10.0.0.0/24".parse().unwrap()) };
    let nat = Conntrack::new(config, 7);
    nat.set_outside(Some(OURS), Instant::ZERO);
    nat
}

#[test]
fn lm_1_a_session_costs_at_most_two_hundred_bytes() {
    let now = Instant::from_secs(10);
    let mut bytes = Vec::with_capacity(100);
    let mut nat = None;
    let counted = measure(|| {
        let table = translator();
        for n in 0..SESSIONS {
            // All owners at once, so that they share the ports.
            let (owner, rest) = (2 + n % OWNERS, n / OWNERS);
            let src = Endpoint::new(container(owner), 1 + (rest / REMOTES) as u16);
            let dst = Endpoint::new(Ipv4Addr::from_bits(u32::from_be_bytes([198, 18, 0, 0]) + rest % REMOTES), 53);
            udp(&mut bytes, src, dst);
            let frame = Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap();
            table.admit(Realm::Inside, &frame, owner, now).unwrap();
        }
        nat = Some(table);
    });
    let nat = nat.unwrap();
    assert_eq!(nat.len(), SESSIONS as usize);
    assert_eq!(nat.mappings(), (OWNERS * (SESSIONS / OWNERS).div_ceil(REMOTES)) as usize);
    let (kept, most) = (counted.bytes_current as f64, counted.bytes_max as f64);
    let each = |bytes: f64| bytes / f64::from(SESSIONS);
    println!("{SESSIONS} sessions: {:.1} bytes each, {:.1} while tables grew", each(kept), each(most));
    assert!(each(kept) <= 200.0, "{:.1} bytes", each(kept));
    // Nor is anything left of them when their time is over.
    let later = Instant::from_secs(1_000);
    while !nat.poll(later) {}
    assert!(nat.is_empty() && nat.mappings() == 0 && nat.helpers() == (0, 0));
}

/// Both ends' frames of an established session, as they come in.
struct Established {
    nat: Conntrack,
    frames: [Vec<u8>; 2],
    meta: Meta,
}

fn established(protocol: Protocol) -> Established {
    let (nat, now) = (translator(), Instant::from_secs(10));
    let src = Endpoint::new(container(2), 4000);
    let dst = Endpoint::new(Ipv4Addr::new(198, 51, 100, 1), 80);
    let mut meta = Meta::PLAIN;
    let mut frame = |src: Endpoint, dst: Endpoint, flags: u8, numbers: [u32; 2], len: usize| {
        let mut bytes = Vec::new();
        let ip = Ip { src: src.ip.into(), dst: dst.ip.into(), ttl: 64, tos: 0, id: 0 };
        match protocol {
            Protocol::Tcp => {
                let [seq, ack] = numbers;
                let (src_port, dst_port) = (src.port, dst.port);
                let tcp = Tcp { src_port, dst_port, seq, ack, flags, window: 60_000, options: &[] };
                meta = build::tcp(&mut bytes, LINK, ip, tcp, len);
                bytes.resize(bytes.len() + len, 0);
            }
            Protocol::Udp => build::udp(&mut bytes, LINK, ip, src.port, dst.port, &vec![0; len]),
            Protocol::Icmp => {
                let (kind, id) = if flags & 0x10 == 0 { (8, src.port) } else { (0, dst.port) };
                let [high, low] = id.to_be_bytes();
                build::icmp(&mut bytes, LINK, ip, kind, 0, [high, low, 0, 1], &vec![0; len]);
            }
        }
        bytes
    };
    let admit = |bytes: &[u8], meta: Meta, realm: Realm| {
        let mut bytes = bytes.to_vec();
        let mut frame = Frame::parse(meta, &mut bytes[..]).unwrap();
        let way = nat.admit(realm, &frame, 2, now).unwrap();
        nat.note_hop(&way, container(9), Mac([2; 6]), now);
        frame.rewrite(&way.rewrite);
        Tuple::read(&frame).unwrap()
    };
    let (syn, ack) = (0x02, 0x10);
    let first = frame(src, dst, syn, [1000, 0], 0);
    let out = admit(&first, if protocol == Protocol::Tcp { partial() } else { Meta::PLAIN }, Realm::Inside);
    let answer = frame(out.dst, out.src, syn | ack, [9000, 1001], 0);
    admit(&answer, if protocol == Protocol::Tcp { partial() } else { Meta::PLAIN }, Realm::Outside);
    let there = if protocol == Protocol::Icmp { syn } else { ack };
    let frames = [frame(src, dst, there, [1001, 9001], 100), frame(out.dst, out.src, ack, [9001, 1001], 100)];
    Established { nat, frames, meta }
}

/// Of a TCP segment behind an Ethernet and an IPv4 header.
fn partial() -> Meta {
    Meta { checksum: tapswitch_wire::ChecksumState::Partial { start: 34, offset: 16 }, gso: None }
}

#[test]
fn a_packet_of_an_established_session_allocates_nothing() {
    assert!(measure(|| drop(vec![1u8; 10])).count_total > 0, "allocations are counted");
    for protocol in Protocol::ALL {
        let Established { nat, frames, meta } = established(protocol);
        let mut buffer = [0; 200];
        let now = Instant::from_secs(11);
        for (realm, frame) in [Realm::Inside, Realm::Outside].into_iter().zip(&frames) {
            let bytes = &mut buffer[..frame.len()];
            let counted = measure(|| {
                for _ in 0..1_000 {
                    bytes.copy_from_slice(frame);
                    let mut frame = Frame::parse(meta, &mut *bytes).unwrap();
                    assert!(nat.pass(realm, &mut frame, 1500, now).is_some(), "{protocol} from {realm:?}");
                }
            });
            assert_eq!(counted.count_total, 0, "{protocol} from {realm:?}");
        }
        assert_eq!(nat.sessions(now)[0].packets, [1_001, 1_001]);
    }
}
