//! What leaves by the uplink: tshark finds nothing wrong in it, and no source there is not ours.

use tapswitch_tests::{
    Enter, FAR, INET, NOBODY, Nat, Recorder, Station, Street, UPLINK, Wire, echo_udp, needs, packet,
};

use super::{SOON, at, bulk, echoes, mac, udp};
use crate::capture::tshark;
use crate::outside;

/// What no frame of ours may be. A payload of random bytes may look like any protocol, and then like a wrong one.
const WRONG: &str = "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 || \
                     icmp.checksum.status == 0 || \
                     ((_ws.malformed || _ws.expert.severity == error) && !tcp.payload && !udp.payload)";

/// The hardware address that the street's router has for ours.
fn ours(street: &Street) -> String {
    street.rt().cmd(&format!("ping -n -c 1 -W 3 {UPLINK}")).ok();
    let neighbour = street.rt().cmd(&format!("ip neigh show {UPLINK}")).ok();
    let mac = neighbour.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    mac.unwrap_or_else(|| panic!("nobody has {UPLINK}: {neighbour}")).to_owned()
}

/// Packets with sources that are not the container's.
fn forge(a: &tapswitch_tests::Container) {
    let station = Station::beside(a, "eth0", a.ip(), tapswitch_tests::GATEWAY);
    let to = format!("{INET}:7000").parse().expect("an address");
    for source in ["1.2.3.4", "192.0.2.77", "10.88.0.200", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1"] {
        let from = format!("{source}:5000").parse().expect("an address");
        station.send(&packet::udp(from, to, b"forged"));
        station.send(&packet::echo(*from.ip(), *to.ip(), false, 7, 1));
        let segment = packet::Segment { flags: packet::flag::SYN, seq: 1, ack: 0, data: b"" };
        station.send(&packet::tcp(from, to, segment));
    }
    // The container's own address with another hardware address.
    let mut wire = Wire::open(a, "eth0");
    let router = wire.resolve(station.ip(), tapswitch_tests::GATEWAY.parse().expect("an address"));
    wire.send(&packet::frame(router, [2, 9, 9, 9, 9, 9], &packet::udp(station.at(5001), to, b"forged")));
}

#[test]
fn nothing_leaves_that_is_wrong_or_not_ours() {
    needs!("tshark", "curl", "nginx", "traceroute", "tracepath", "ethtool");
    let street = Street::new();
    let _web = outside::web(&street);
    // So whatever the uplink leaves to the device is done by the time the recorder sees it.
    street.offload(false);
    let recorder = Recorder::start(street.rt(), "street", &street.dir().join("uplink.pcap"));
    let mut nat = Nat::up(&street, "");
    let all = [nat.join("a", ""), nat.join("plain", "--no-offload")];
    let _echo = echo_udp(street.inet(), at(INET, 7000));
    for container in &all {
        bulk::carry(container, street.inet(), INET, true, 1 << 20);
        bulk::carry(container, street.inet(), INET, false, 1 << 20);
        bulk::carry(container, street.far(), FAR, true, 200_000);
        container.cmd(&format!("curl -sSf -o /dev/null http://{INET}/small")).ok();
        container.cmd(&format!("ping -n -c 2 -i 0.05 -W 3 -s 5000 {INET}")).ok();
        container.cmd(&format!("ping -n -c 1 -W 1 {NOBODY}")).run();
        container.cmd(&format!("traceroute -n -q 1 -w 1 -m 4 {FAR}")).run();
        container.cmd(&format!("tracepath -n -m 4 {FAR}")).run();
        let socket = udp(container);
        [0, 1, 999, 1472, 20_000].into_iter().for_each(|len| echoes(&socket, at(INET, 7000), &vec![7; len]));
        forge(container);
    }
    nat.publish(&all[0], "5000:5000/udp");
    let _forward = echo_udp(&all[0], at(all[0].ip(), 5000));
    echoes(&udp(street.inet()), at(UPLINK, 5000), &[7; 3000]);
    let ours = ours(&street);
    let (file, count) = recorder.stop();
    assert!(count > 500, "{count} frames");
    let first = |found: String| found.lines().take(20).map(|line| format!("\n{line}")).collect::<String>();
    let own = format!("eth.src == {ours}");
    let seen = tshark(&file, &own, &["-T", "fields", "-e", "_ws.col.Protocol"]);
    assert!(["ARP", "ICMP", "TCP", "UDP"].iter().all(|proto| seen.contains(proto)), "the recording lacks some of ours");
    let wrong = tshark(&file, &format!("{own} && ({WRONG})"), &[]);
    assert!(wrong.is_empty(), "{} are wrong, as{}", wrong.lines().count(), first(wrong.clone()));
    let foreign = tshark(&file, &format!("{own} && ip && !icmp && ip.src != {UPLINK}"), &[]);
    assert!(foreign.is_empty(), "not from our address:{}", first(foreign));
    // An ICMP message has a second source, in what it quotes.
    let foreign = tshark(&file, &format!("{own} && icmp"), &["-T", "fields", "-E", "occurrence=f", "-e", "ip.src"]);
    assert!(foreign.lines().all(|source| source == UPLINK), "not from our address:{}", first(foreign));
    // The kernel rewrites later fragments in the very memory that the recorder still has to read.
    let later = if nat.switch().is_none() { "&& !(ip.frag_offset > 0)" } else { "" };
    let inside = tshark(
        &file,
        &format!("{own} && (ip.addr == 10.88.0.0/24 || arp.src.proto_ipv4 == 10.88.0.0/24) {later}"),
        &[],
    );
    assert!(inside.is_empty(), "inside addresses show:{}", first(inside));
    let (router, host) = (mac(street.rt(), "street"), mac(street.gw(), "eth1"));
    let others = format!("eth.src != {ours} && eth.src != {router} && eth.src != {host} {later}");
    let others = tshark(&file, &others, &[]);
    assert!(others.is_empty(), "hardware addresses that are not ours:{}", first(others));
}

#[test]
fn at_7_inside_addresses_that_come_by_the_uplink_go_nowhere() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    nat.publish(&a, "5000:5000/udp");
    let mut inside = Wire::open(&a, "eth0");
    let station = Station::beside(street.rt(), "street", tapswitch_tests::NEXT_HOP, UPLINK);
    let forged = |from: &str, to: &str| {
        let (from, to) = (format!("{from}:4000").parse(), format!("{to}:5000").parse());
        station.send(&packet::udp(from.expect("an address"), to.expect("an address"), b"forged"));
    };
    for (from, to) in [
        ("10.88.0.3", a.ip()),
        ("10.88.0.3", UPLINK),
        ("10.88.0.1", UPLINK),
        (a.ip(), UPLINK),
        ("198.51.100.10", a.ip()),
        ("127.0.0.1", UPLINK),
        (UPLINK, UPLINK),
        ("0.0.0.0", UPLINK),
        ("224.0.0.1", UPLINK),
    ] {
        forged(from, to);
    }
    // What is allowed comes last, so that nothing more is under way.
    station.send(&packet::udp(station.at(4000), format!("{UPLINK}:5000").parse().expect("an address"), b"true"));
    let first = inside.find(SOON, |frame| {
        packet::in_frame(frame).and_then(packet::read).filter(|seen| seen.is_udp() && seen.dst.port() == 5000)
    });
    assert_eq!(first.map(|seen| seen.data), Some(b"true".to_vec()));
}

#[test]
fn ip_2_ip_11_dscp_and_ecn_cross_unchanged_and_each_hop_costs_one() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let mut inside = Station::take(&a, "eth0", a.ip(), tapswitch_tests::GATEWAY);
    let mut outside = Station::take(street.inet(), "eth0", INET, "198.51.100.1");
    let (from, to) = (inside.at(4000), outside.at(7));
    let marked = |mut packet: Vec<u8>, tos: u8| {
        packet[1] = tos;
        packet::seal(&mut packet);
        packet
    };
    for tos in [0, 0xb8, 0x03, 0xff] {
        inside.send(&marked(packet::udp(from, to, b"out"), tos));
        let seen = outside.find(SOON, |seen| seen.dst == to).expect("it leaves");
        assert_eq!((seen.bytes[1], seen.bytes[8]), (tos, 62), "two routers were passed");
        outside.send(&marked(packet::udp(to, seen.src, b"in"), tos));
        let seen = inside.find(SOON, |seen| seen.dst == from).expect("it comes in");
        assert_eq!((seen.bytes[1], seen.bytes[8]), (tos, 62));
    }
}
