//! tcpdump beside us: the same frames, the same expressions, the same choice.

use std::io::Write;
use std::process::{Command, Stdio};

use tapswitch_filter::{Filter, Seen, Tri};
use tapswitch_wire::{Mac, PortId};

use crate::frames::{Body, Sample, frame, mac};

/// Bytes of the header of a capture, and of that of a record.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Frames that both read alike. Tags and IPv6 extension headers are left to the other tests: there we see more.
fn frames() -> Vec<Sample> {
    let mut samples = Vec::new();
    let (a, b, c) = ("10.0.0.1", "10.0.0.2", "192.168.7.9");
    for (src, dst) in [(a, b), (b, a), (a, c), (c, b), ("fd00::1", "fd00::2"), ("fd00::2", "fe80::1")] {
        for protocol in [6, 17, 132] {
            samples.push(Sample::ip(src, dst, protocol));
            samples.push(Sample::ip(src, dst, protocol).ports(443, 50_000).payload(100));
        }
        samples.push(Sample::ip(src, dst, 47).from(mac(3)));
    }
    samples.extend([
        Sample::ip(a, b, 1),
        Sample::ip(b, c, 1).padded(10),
        Sample::ip("fd00::1", "ff02::1", 58).to(Mac([0x33, 0x33, 0, 0, 0, 1])),
        Sample::ip("fd00::2", "fd00::1", 58),
        // The other family's ICMP.
        Sample::ip(a, b, 58),
        Sample::ip("fd00::1", "fd00::2", 1),
        Sample::ip(a, "255.255.255.255", 17).ports(68, 67).to(Mac::BROADCAST),
        Sample::ip("0.0.0.0", "0.0.0.0", 17).to(Mac::BROADCAST),
        Sample::ip(a, "224.0.0.5", 89).to(Mac([1, 0, 0x5e, 0, 0, 5])),
        Sample::ip(a, "10.0.0.255", 17).to(Mac::BROADCAST),
        Sample::ip(a, b, 6).ports(22, 80).options(5),
        Sample::ip(a, b, 17).ports(53, 53).options(10),
        Sample::ip(a, b, 6).fragment(0, true),
        Sample::ip(a, b, 6).fragment(100, true),
        Sample::ip(a, b, 17).fragment(8, false),
        Sample::arp([10, 0, 0, 1], [10, 0, 0, 2]),
        Sample::arp([10, 0, 0, 2], [10, 0, 0, 1]).to(mac(1)).from(mac(2)).padded(18),
        Sample::arp([192, 168, 7, 9], [10, 0, 0, 1]),
        Sample::new(Body::Other(0x88cc)).to(Mac([1, 0x80, 0xc2, 0, 0, 0xe])),
        Sample::new(Body::Other(0x9000)).from(mac(3)),
    ]);
    samples
}

const EXPRESSIONS: &[&str] = &[
    "host 10.0.0.1",
    "src host 10.0.0.1",
    "src 10.0.0.1",
    "dst 10.0.0.2",
    "src or dst host 192.168.7.9",
    "dst or src 192.168.7.9",
    "src and dst net 10.0.0.0/8",
    "ip host 10.0.0.2",
    "arp host 10.0.0.2",
    "arp src 10.0.0.2",
    "ip src 10.0.0.1",
    "host fd00::1",
    "ip6 dst host fd00::2",
    "net 10.0.0.0/30",
    "net 10",
    "net 192.168",
    "net 192.168.7",
    "src net 10.0.0.0/31",
    "dst net fd00::/16",
    "ip6 net fe80::/10",
    "arp net 192.168.0.0/16",
    "net 0.0.0.0/0",
    "net 10.0.0.2",
    "port 80",
    "src port 443",
    "dst port 80",
    "src or dst port 443",
    "src and dst port 53",
    "tcp port 80",
    "udp port 80",
    "sctp dst port 80",
    "tcp src port 22",
    "portrange 50-100",
    "portrange 100-50",
    "udp src portrange 400-500",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "ip",
    "ip6",
    "arp",
    "ip proto 47",
    r"ip proto \tcp",
    r"ip proto \udp or 47",
    "ip6 proto 17",
    "proto 58",
    r"proto \sctp",
    "ether host 02:00:00:00:00:03",
    "ether src 02:00:00:00:00:03",
    "ether dst host ff:ff:ff:ff:ff:ff",
    "ether src 02:00:00:00:00:03 or 02:00:00:00:00:02",
    r"ether proto \arp",
    "ether proto 0x88cc or 0x806",
    "ether broadcast",
    "broadcast",
    "ether multicast",
    "multicast",
    "ip broadcast",
    "ip multicast",
    "ip6 multicast",
    "vlan",
    "vlan 5",
    "less 74",
    "greater 74",
    "less 60 or greater 150",
    "not arp",
    "!arp",
    "not not tcp",
    "not host 10.0.0.1 and 10.0.0.2",
    "not (host 10.0.0.1 and 10.0.0.2)",
    "host 10.0.0.1 and not 10.0.0.2",
    "host not 10.0.0.1",
    "port not (80 or 443)",
    "port 80 or 443",
    "tcp dst port 80 or 443 or 22",
    "port (80 or 443)",
    "port 80 or (443 or 22)",
    "port 53 or (80)",
    "host 10.0.0.1 and port 80 or 443",
    "port 80 and (host 10.0.0.1 or 10.0.0.2) or 443",
    "host 10.0.0.1 and (10.0.0.2 or 192.168.7.9)",
    "arp or tcp and port 80",
    "arp or (tcp and port 80)",
    "tcp and port 80 or arp",
    "arp or icmp or udp and host 10.0.0.1 and not port 67",
    "arp||tcp&&port 80",
    "ip and not (tcp or udp or icmp)",
    "(((arp)))",
    "(ip or ip6) and (tcp or udp) and (port 80 or port 443)",
    "not (not (ip and tcp) or not port 80)",
    "",
];

/// Expressions that tcpdump refuses, and we too.
const REFUSED: &[&str] = &[
    "10.0.0.1",
    "tcp 80",
    "ip 10.0.0.1",
    "(host 10.0.0.1) and 10.0.0.2",
    "tcp and 80",
    "port 80 and tcp or 443",
    "vlan 5 or 6",
    "src 10.0.0.0/8",
    "net 10.0.0.1/8",
    "tcp src 80",
    "src tcp port 80",
    "tcp host 10.0.0.1",
    "ether port 3",
    "ip port 3",
    "ip host ::1",
    "ip6 net 10.0.0.0/8",
    "host 02:00:00:00:00:01",
    "port 65536",
    "port 80 443",
    "src (port 80)",
    "tcp port 80 host 10.0.0.1",
    "arp not ip",
    "(arp",
    "arp)",
    "not",
    "ip6 broadcast",
];

/// A capture whose records have their own index as the time.
fn capture(samples: &[Sample]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(0xa1b2_c3d4_u32.to_le_bytes());
    out.extend([2u16, 4].map(u16::to_le_bytes).concat());
    out.extend([0u32, 0, 65_535, 1].map(u32::to_le_bytes).concat());
    for (index, sample) in samples.iter().enumerate() {
        let bytes = sample.bytes();
        out.extend([index, 0, bytes.len(), bytes.len()].map(|word| (word as u32).to_le_bytes()).concat());
        out.extend(bytes);
    }
    out
}

/// The indices of the frames that tcpdump keeps, or what it says against the expression.
fn kept_by_tcpdump(capture: &[u8], expression: &str) -> Result<Vec<usize>, String> {
    let mut command = Command::new("tcpdump");
    command.args(["-n", "-r", "-", "-w", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.arg(expression).spawn().map_err(|error| error.to_string())?;
    // One that refuses the expression may have gone without reading.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(capture));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let word = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let mut rest = output.stdout.get(FILE_HEADER..).unwrap_or_default();
    let mut kept = Vec::new();
    while let (Some(index), Some(len)) = (word(rest), rest.get(8..).and_then(word)) {
        kept.push(index);
        rest = rest.get(RECORD_HEADER + len..).unwrap_or_default();
    }
    Ok(kept)
}

fn installed() -> bool {
    let ran = Command::new("tcpdump").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if ran.is_err() {
        println!("skipped: tcpdump is not installed");
    }
    ran.is_ok()
}

#[test]
fn tcpdump_keeps_the_same_frames() {
    if !installed() {
        return;
    }
    let samples = frames();
    let capture = capture(&samples);
    let mut nothing_to_choose = Vec::new();
    for expression in EXPRESSIONS {
        let theirs = kept_by_tcpdump(&capture, expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let filter = Filter::parse(expression).unwrap_or_else(|error| panic!("{error}")).resolve(|_| None).unwrap();
        let wants = |sample: &&Sample| filter.first(&frame(&sample.bytes()), &Seen { port: PortId(1) }) == Tri::Yes;
        let ours: Vec<usize> =
            (0..).zip(&samples).filter(|(_, sample)| wants(sample)).map(|(index, _)| index).collect();
        let differ = samples.iter().enumerate().filter(|(index, _)| theirs.contains(index) != ours.contains(index));
        assert_eq!(ours, theirs, "{expression}: {:#?}", differ.collect::<Vec<_>>());
        if ours.is_empty() || ours.len() == samples.len() {
            nothing_to_choose.push(*expression);
        }
    }
    assert_eq!(nothing_to_choose, ["vlan", "vlan 5", ""], "these would agree whatever they mean");
}

#[test]
fn what_tcpdump_refuses_is_refused_here_too() {
    if !installed() {
        return;
    }
    let capture = capture(&[]);
    for expression in REFUSED {
        let theirs = kept_by_tcpdump(&capture, expression);
        assert!(theirs.is_err(), "tcpdump takes {expression}");
        assert!(Filter::parse(expression).is_err(), "{expression} is taken here");
    }
}
