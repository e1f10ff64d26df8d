//! Writes what the corpora grew from: `cargo run --example seeds`, in the directory of this package.

use std::path::Path;
use std::{fs, io};

use tapswitch_fuzz::parse::PREFIX;
use tapswitch_fuzz::record::{Kind, Record};
use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{ChecksumState, Gso, GsoKind, Mac, Meta};

const LINK: Link = Link { src: Mac([2, 0x42, 10, 0, 0, 2]), dst: Mac([2, 0x42, 10, 0, 0, 1]) };

fn main() -> io::Result<()> {
    for (at, seed) in frames().iter().enumerate() {
        write("parse", at, seed)?;
    }
    for (at, seed) in histories().iter().enumerate() {
        write("pipeline", at, seed)?;
    }
    Ok(())
}

fn write(target: &str, at: usize, seed: &[u8]) -> io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(format!("seed-{at:02}")), seed)
}

/// Inputs of `parse`: one frame of each kind, with all setters called.
fn frames() -> Vec<Vec<u8>> {
    let ip = |v6: bool| {
        let (src, dst) = if v6 { ("fd00::2", "fd00::1") } else { ("10.0.0.2", "192.0.2.1") };
        Ip { src: src.parse().expect("an address"), dst: dst.parse().expect("an address"), ttl: 64, tos: 0, id: 9 }
    };
    let mut out = Vec::new();
    let mut add = |meta: Meta, frame: &[u8]| {
        let arguments: [u8; PREFIX - 10] = [5, 0xb4, 192, 0, 2, 9, 10, 0, 0, 9, 1, 0xff, 3, 64, 0, 2];
        out.push([&meta.encode(frame)[..], &arguments, frame].concat());
    };
    let mut frame = Vec::new();
    for v6 in [false, true] {
        let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
        let tcp = Tcp { src_port: 1000, dst_port: 80, seq: 1, ack: 0, flags: 2, window: 512, options: &options };
        let meta = build::tcp(&mut frame, LINK, ip(v6), tcp, 0);
        add(meta, &frame);
        let tcp = Tcp { flags: 0x19, options: &[], ..tcp };
        let meta = build::tcp(&mut frame, LINK, ip(v6), tcp, 300);
        frame.resize(frame.len() + 300, 7);
        let kind = if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
        add(Meta { gso: Some(Gso { kind, size: 100, ecn: true }), ..meta }, &frame);
        build::udp(&mut frame, LINK, ip(v6), 1000, 53, &[7; 99]);
        add(Meta::PLAIN, &frame);
        let start = if v6 { 54 } else { 34 };
        let checksum = ChecksumState::Partial { start, offset: 6 };
        add(Meta { checksum, gso: Some(Gso { kind: GsoKind::Udp, size: 40, ecn: false }) }, &frame);
        build::icmp(&mut frame, LINK, ip(v6), if v6 { 128 } else { 8 }, 0, [0, 7, 0, 1], &[0; 20]);
        add(Meta::PLAIN, &frame);
        frame.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
        frame.extend_from_slice(&[0; 6]);
        add(Meta::PLAIN, &frame);
    }
    let (spa, tpa) = ([10, 0, 0, 2].into(), [10, 0, 0, 1].into());
    build::arp(&mut frame, LINK, Arp { operation: 1, sha: LINK.src, spa, tha: Mac::ZERO, tpa });
    add(Meta::PLAIN, &frame);
    // IPv6 with hop-by-hop, routing, fragment (atomic) and destination options in front of UDP.
    let mut chain = vec![43, 0, 1, 4, 0, 0, 0, 0, 44, 0, 253, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 1];
    chain.extend_from_slice(&[17, 0, 1, 4, 0, 0, 0, 0, 0, 9, 0, 53, 0, 8, 0, 0]);
    let mut long = [&LINK.dst.0[..], &LINK.src.0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 0, 64], &[0xfd; 32]].concat();
    long.extend_from_slice(&chain);
    add(Meta::PLAIN, &long);
    // IPv4 with options, and the first fragment of two.
    let mut fragment = [&LINK.dst.0[..], &LINK.src.0, &[8, 0, 0x46, 0, 0, 40, 0, 1, 0x20, 0, 64, 17, 0, 0]].concat();
    fragment.extend_from_slice(&[
        10, 0, 0, 2, 192, 0, 2, 1, 0x94, 4, 0, 0, 0, 9, 0, 53, 0, 99, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8,
    ]);
    add(Meta::PLAIN, &fragment);
    out
}

/// Inputs of `pipeline`: short histories that each reach one part of the network.
fn histories() -> Vec<Vec<u8>> {
    use Kind::{Arp, Damage, Dhcp, Host, Icmp, Ipv6, Lan, Port, Raw, Tcp, Time, Udp};
    const SYN: u8 = 2;
    const ACK: u8 = 0x10;
    const FIN_ACK: u8 = 0x11;
    const RST: u8 = 4;
    let history = |options: u8, records: &[(Kind, [u8; 7])]| {
        let mut out = vec![options];
        records.iter().for_each(|(kind, args)| out.extend_from_slice(&Record { kind: *kind, args: *args }.bytes()));
        out
    };
    let open = [(Tcp, [0, 0, 2 << 3, SYN, 0, 0, 0]), (Host, [0, 0, 0, 0, 0, 0, 0]), (Tcp, [0, 0, 0, ACK, 0, 0, 0])];
    let then = |more: &[(Kind, [u8; 7])]| history(0, &[&open[..], more].concat());
    let mut raw = history(0, &[(Raw, [1, 0, 70, 0, 0, 0, 0])]);
    raw.extend_from_slice(&[0; 10]);
    raw.extend_from_slice(&[0xff; 6]);
    raw.extend_from_slice(&[2, 0, 0, 0, 0, 1, 8, 6]);
    raw.extend_from_slice(&[0; 46]);
    vec![
        history(0, &[(Arp, [0, 1, 0, 2, 1, 0, 0]), (Arp, [1, 1, 0, 3, 1, 0, 0]), (Arp, [0, 2, 0, 4, 5, 0, 0])]),
        history(4, &[(Time, [0x10, 0, 0, 0, 0, 0, 0]), (Arp, [0, 2, 2, 2, 1, 0, 0])]),
        history(
            0,
            &[
                (Dhcp, [0, 1, 0, 16, 1, 0, 0]),
                (Dhcp, [0, 3, 2, 2 | 4 | 16, 1, 0, 0]),
                (Dhcp, [0, 7, 2, 4 | 65, 2, 0, 0]),
            ],
        ),
        history(
            0,
            &[(Dhcp, [0, 1, 0, 8, 1, 2, 0]), (Dhcp, [1, 3, 9, 2 | 8, 1, 2, 0]), (Dhcp, [2, 4, 9, 2 | 4, 3, 0, 0])],
        ),
        history(0, &[(Icmp, [0, 2, 8, 0, 64, 56, 0]), (Icmp, [0, 0, 8, 0, 64, 56, 1]), (Icmp, [0, 0, 8, 0, 1, 9, 1])]),
        history(0, &[(Icmp, [0, 0, 8, 0, 64, 56, 1]), (Host, [0, 3, 0, 0, 0, 0, 0]), (Host, [0, 6, 1, 9, 0, 0, 0])]),
        history(0, &[(Udp, [0, 0, 0, 64, 0, 99, 0]), (Host, [0, 2, 1, 0, 0, 0, 0]), (Host, [0, 6, 0, 9, 3, 0, 0])]),
        history(0, &[(Udp, [0, 2, 1, 64, 0, 40, 0]), (Udp, [1, 0, 0, 64, 30, 0, 0]), (Udp, [0, 10, 2, 64, 0, 9, 0])]),
        history(0, &[(Udp, [0, 12, 0, 64, 0, 9, 0]), (Udp, [0, 13, 0, 64, 0, 9, 0]), (Udp, [0, 2, 2, 64, 0, 9, 0])]),
        history(2, &[(Udp, [0, 0, 0, 64, 0, 9, 0]), (Tcp, [0, 0, 0, SYN, 0, 0, 0])]),
        history(1, &[(Lan, [0, 5, 4, 0, 0, 60, 0]), (Lan, [1, 6, 4, 0, 0, 60, 0]), (Lan, [0, 0, 4, 1, 0, 60, 0])]),
        history(
            0,
            &[(Lan, [0, 0, 4, 7, 0, 60, 0]), (Lan, [1, 6, 4, 7, 5, 0xdc, 0x80]), (Lan, [0, 7, 0, 7, 0, 60, 0xe0])],
        ),
        history(
            0,
            &[(Tcp, [0, 4, 0, ACK, 0, 230, 0]), (Tcp, [1, 3, 0, ACK, 0, 100, 0]), (Tcp, [0, 4, 0, ACK, 0, 250, 0])],
        ),
        history(
            0,
            &[(Ipv6, [0, 1, 135, 24, 255, 0, 0]), (Ipv6, [1, 2, 128, 56, 64, 0, 0]), (Ipv6, [2, 1, 9, 30, 64, 3, 0])],
        ),
        history(0, &[(Port, [0, 1, 0, 0, 0, 0, 0]), (Lan, [1, 0, 4, 7, 0, 60, 0]), (Port, [0, 0, 0, 0, 0, 0, 0])]),
        history(0, &[(Port, [1, 2, 0, 0, 0, 0, 0]), (Lan, [0, 0, 4, 7, 0, 60, 0]), (Lan, [0, 6, 4, 7, 0, 60, 0])]),
        history(0, &[(Damage, [0, 22, 1, 0, 0, 0, 0]), (Icmp, [0, 0, 8, 0, 64, 56, 0])]),
        history(0, &[(Host, [0, 9, 0, 0, 0, 0, 0]), (Tcp, [0, 0, 0, SYN, 0, 0, 0]), (Tcp, [0, 0, 0, ACK, 0, 9, 0])]),
        history(0, &[(Tcp, [0, 0, 8, SYN, 0, 0, 0]), (Host, [0, 1, 0, 0, 2, 0, 0]), (Tcp, [0, 12, 0, SYN, 0, 0, 0])]),
        then(&[(Tcp, [0, 0, 0, ACK, 0, 99, 0]), (Host, [0, 2, 0, 200, 0, 0, 0]), (Tcp, [0, 0, 0, ACK, 0, 0, 0])]),
        then(&[(Tcp, [0, 0, 0, ACK, 0, 230, 0]), (Host, [0, 2, 0xff, 0, 0, 0, 0]), (Tcp, [0, 0, 0, ACK, 0, 0, 0])]),
        then(&[
            (Host, [0, 4, 0, 0, 0, 0, 0]),
            (Tcp, [0, 0, 0, ACK, 0, 9, 0]),
            (Tcp, [0, 0, 0, FIN_ACK, 0, 0, 0]),
            (Time, [4, 0, 5, 0, 0, 0, 0]),
        ]),
        then(&[
            (Tcp, [0, 0, 0, FIN_ACK, 0, 9, 0]),
            (Host, [0, 2, 1, 0, 0, 0, 0]),
            (Host, [0, 4, 0, 0, 0, 0, 0]),
            (Tcp, [0, 0, 0, ACK, 0, 0, 0]),
        ]),
        then(&[
            (Host, [0, 5, 0, 5, 0, 0, 0]),
            (Tcp, [0, 0, 0, ACK, 0, 99, 0]),
            (Host, [0, 5, 0, 200, 0, 0, 0]),
            (Time, [1, 0, 2, 0, 0, 0, 0]),
        ]),
        then(&[
            (Host, [0, 2, 9, 0, 0, 0, 0]),
            (Time, [3, 0xe8, 0, 0, 0, 0, 0]),
            (Time, [3, 0xe8, 1, 0, 0, 0, 0]),
            (Tcp, [0, 0, 0, ACK, 0, 0, 0]),
        ]),
        then(&[
            (Tcp, [0, 0, 0, ACK, 0, 0, 4]),
            (Host, [0, 2, 1, 0, 0, 0, 0]),
            (Time, [3, 0xe8, 3, 0, 0, 0, 0]),
            (Tcp, [0, 0, 0, ACK, 0, 0, 0]),
        ]),
        then(&[(Tcp, [0, 0, 0, ACK, 9, 50, 0]), (Tcp, [0, 0, 0, RST, 0, 0, 0]), (Tcp, [0, 0, 0, SYN, 5, 0, 0])]),
        then(&[(Host, [0, 1, 0, 0, 1, 0, 0]), (Tcp, [0, 0, 0, ACK, 0, 9, 0])]),
        then(&[(Port, [0, 1, 0, 0, 0, 0, 0]), (Host, [0, 2, 1, 0, 0, 0, 0])]),
        raw,
    ]
    .into_iter()
    .chain(packet_histories())
    .collect()
}

/// Inputs of `pipeline` with a packet uplink.
fn packet_histories() -> Vec<Vec<u8>> {
    use Kind::{Arp, Host, Icmp, Port, Tcp, Time, Udp};
    const SYN: u8 = 2;
    const ACK: u8 = 0x10;
    // The first packet waits for the router, which answers; then the container makes itself known.
    let met = [(Host, [5, 1, 0, 4, 7, 1, 0]), (Arp, [0, 1, 0, 2, 1, 0, 0]), (Arp, [1, 1, 0, 2, 1, 0, 0])];
    type Records<'a> = &'a [(Kind, [u8; 7])];
    let histories: &[(u8, Records<'_>)] = &[
        (8, &[(Udp, [0, 15, 0, 64, 0, 9, 0]), (Host, [0, 0, 0, 0, 0, 9, 1]), (Udp, [0, 15, 0, 64, 0, 9, 0])]),
        (8, &[(Udp, [0, 15, 0, 64, 0, 9, 0]), (Host, [4, 0, 3, 3, 0, 0, 60]), (Host, [4, 0, 3, 4, 5, 0, 28])]),
        (
            8,
            &[
                (Tcp, [0, 15, 1 << 3, SYN, 0, 0, 0]),
                (Host, [0, 0, SYN | ACK, 0, 0, 0, 1]),
                (Tcp, [0, 15, 0, ACK, 0, 250, 0]),
            ],
        ),
        (8, &[(Tcp, [0, 15, 1 << 3, SYN, 0, 0, 0]), (Host, [0, 0, ACK, 0, 11, 0, 33]), (Tcp, [0, 15, 0, 4, 0, 0, 0])]),
        (8, &[(Icmp, [0, 15, 8, 0, 64, 56, 1]), (Host, [0, 0, 0, 0, 0, 9, 1]), (Icmp, [0, 15, 8, 0, 1, 9, 1])]),
        (8, &[(Host, [8, 0, 0, 5, 0xb0, 8, 2]), (Host, [8, 0, 0, 2, 0xf8, 9, 2]), (Host, [8, 0, 94, 0, 99, 8, 2])]),
        (
            8,
            &[
                (Host, [8, 0, 94, 0, 99, 8, 2]),
                (Host, [8, 0, 0, 2, 0xe8, 9, 2]),
                (Host, [7, 0, 9, 0, 64, 3, 0]),
                (Host, [7, 0, 0, 0, 64, 3, 0]),
            ],
        ),
        (
            8,
            &[
                (Host, [9, 0, 1, 0, 0, 0, 0]),
                (Host, [6, 2, 4, 0, 9, 0, SYN]),
                (Tcp, [0, 13, 2, SYN, 0, 0, 0]),
                (Host, [9, 2, 1, 0, 0, 0, 0]),
            ],
        ),
        (
            8,
            &[
                (Host, [10, 5, 0, 0, 0, 0, 0]),
                (Udp, [0, 15, 0, 64, 4, 9, 0]),
                (Host, [10, 0, 0, 0, 0, 0, 0]),
                (Udp, [0, 15, 0, 64, 0, 9, 0]),
            ],
        ),
        (24, &[(Udp, [0, 15, 0, 64, 0, 9, 0]), (Host, [0, 0, 0, 0, 0, 9, 1]), (Host, [6, 2, 0, 1, 9, 3, 0])]),
        (40, &[(Udp, [0, 15, 0, 64, 0, 9, 0]), (Udp, [1, 13, 0, 64, 0, 9, 0]), (Host, [6, 1, 4, 1, 9, 3, 0])]),
        (
            8,
            &[
                (Udp, [0, 15, 0, 64, 0, 9, 0]),
                (Port, [0, 1, 0, 0, 0, 0, 0]),
                (Host, [0, 0, 0, 0, 0, 9, 1]),
                (Time, [4, 0, 9, 0, 0, 0, 0]),
            ],
        ),
    ];
    let write = |(options, records): &(u8, Records<'_>)| {
        let records = met.iter().chain(*records).flat_map(|(kind, args)| Record { kind: *kind, args: *args }.bytes());
        std::iter::once(*options).chain(records).collect()
    };
    histories.iter().map(write).collect()
}
