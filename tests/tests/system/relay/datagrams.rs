//! Datagrams: of every size, from one socket to many, from strangers, and to everybody.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use tapswitch_tests::{
    Enter, GATEWAY, HOST, INET, Station, Switch, Wire, World, echo_udp, eventually, packet, serve_udp,
};

use super::{SOON, at};

/// Lengths around what fits one frame, and up to the most that UDP has.
const LENGTHS: [usize; 7] = [0, 1, 1472, 1473, 9000, 30_000, 65_507];

fn udp(place: &impl Enter, address: &str) -> UdpSocket {
    let socket = place.inside(|| UdpSocket::bind(address)).expect("binds");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket
}

/// Bytes of which no two parts are alike.
fn payload(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 31 + at / 251 + seed) % 256) as u8).collect()
}

#[test]
fn nu_12_datagrams_of_every_length_are_echoed_whole() {
    let world = World::new();
    let _echo = echo_udp(world.inet(), at(INET, 7000));
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let socket = udp(&a, "0.0.0.0:0");
    socket.connect(at(INET, 7000)).expect("a route");
    let mut buffer = vec![0; 1 << 16];
    for round in 0..3 {
        for len in LENGTHS {
            let datagram = payload(len, round);
            socket.send(&datagram).expect("sends");
            let got = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no echo of {len} bytes: {e}"));
            assert!(buffer[..got] == datagram[..], "{got} bytes for {len}, or others");
        }
    }
}

#[test]
fn nu_12_a_small_question_gets_an_answer_of_every_length() {
    let world = World::new();
    let _server = serve_udp(world.inet(), at(INET, 7000), |question| {
        let len = usize::from(u16::from_be_bytes(question.try_into().ok()?));
        Some(payload(len, 5))
    });
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let socket = udp(&a, "0.0.0.0:0");
    socket.connect(at(INET, 7000)).expect("a route");
    let mut buffer = vec![0; 1 << 16];
    for len in LENGTHS {
        socket.send(&(len as u16).to_be_bytes()).expect("sends");
        let got = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no answer of {len} bytes: {e}"));
        assert!(buffer[..got] == payload(len, 5)[..], "{got} bytes for {len}, or others");
    }
}

/// Ten sockets outside: ports of one address, and other addresses.
fn servers(world: &World) -> Vec<UdpSocket> {
    let others: Vec<_> = (21..=25).map(|last| format!("198.51.100.{last}")).collect();
    for ip in &others {
        world.inet().cmd(&format!("ip addr add {ip}/24 dev eth0")).ok();
    }
    let places = (7001..=7005).map(|port| at(INET, port)).chain(others.iter().map(|ip| at(ip, 7000)));
    places.map(|place| udp(world.inet(), &place.to_string())).collect()
}

/// A container's socket that has talked to all servers; returns what each of them saw as its address.
fn introduced(socket: &UdpSocket, servers: &[UdpSocket]) -> BTreeSet<SocketAddr> {
    let mut seen = BTreeSet::new();
    for server in servers {
        let address = server.local_addr().expect("an address");
        socket.send_to(b"hello", address).expect("sends");
        let mut buffer = [0; 16];
        let (len, from) = server.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{address} hears nothing: {e}"));
        assert_eq!(&buffer[..len], b"hello");
        server.send_to(b"welcome", from).expect("answers");
        let (len, answerer) = socket.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{address} answers: {e}"));
        assert_eq!((&buffer[..len], answerer), (&b"welcome"[..], address));
        seen.insert(from);
    }
    seen
}

#[test]
fn nu_1_a_containers_socket_is_one_socket_to_ten_servers() {
    let world = World::new();
    let servers = servers(&world);
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let (one, other) = (udp(&a, "0.0.0.0:0"), udp(&a, "0.0.0.0:0"));
    let (seen, seen_other) = (introduced(&one, &servers), introduced(&other, &servers));
    assert_eq!(seen.len(), 1, "outside endpoints of one socket: {seen:?}");
    assert_eq!(seen_other.len(), 1, "outside endpoints of one socket: {seen_other:?}");
    assert!(seen.is_disjoint(&seen_other), "two sockets share {seen:?}");
    assert!(seen.iter().all(|endpoint| endpoint.ip().to_string() == HOST), "{seen:?}");
}

#[test]
fn x3_nu_5_a_stranger_gets_nothing_in_and_an_acquaintance_does_from_any_port() {
    let world = World::new();
    let servers = servers(&world);
    world.inet().cmd("ip addr add 198.51.100.30/24 dev eth0").ok();
    let (stranger, acquaintance) =
        (udp(world.inet(), "198.51.100.30:7000"), udp(world.inet(), &format!("{INET}:7999")));
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let socket = udp(&a, "0.0.0.0:0");
    let seen = introduced(&socket, &servers);
    let mut buffer = [0; 16];
    for endpoint in &seen {
        let before = switch.drops("filtered");
        stranger.send_to(b"let me in", endpoint).expect("sends");
        eventually("the stranger's datagram is counted", SOON, || (switch.drops("filtered") > before).then_some(()));
    }
    let endpoint = seen.first().expect("at least one endpoint");
    acquaintance.send_to(b"it is me", endpoint).expect("sends");
    // What the stranger sent would be first.
    let (len, from) = socket.recv_from(&mut buffer).expect("the acquaintance gets in");
    assert_eq!((&buffer[..len], from), (&b"it is me"[..], at(INET, 7999)));
    // The way back works, too.
    socket.send_to(b"indeed", from).expect("sends");
    let (len, from) = acquaintance.recv_from(&mut buffer).expect("an answer");
    assert_eq!((&buffer[..len], from), (&b"indeed"[..], *endpoint));
}

#[test]
fn ip_6_what_is_for_everybody_does_not_leave_and_has_a_name() {
    const PORT: u16 = 9999;
    const GROUPS: [&str; 5] = ["255.255.255.255", "10.88.0.255", "224.0.0.251", "239.1.2.3", "10.201.0.255"];
    let world = World::new();
    let mut outside = Wire::open(world.rt(), "lan");
    let switch = Switch::up_with_capture(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    // A container's kernel sends them to everybody on its LAN, where they belong; the last one only to its router.
    a.cmd("ip route add 224.0.0.0/4 dev eth0").ok();
    let mut neighbour = Wire::open(&b, "eth0");
    let socket = udp(&a, "0.0.0.0:0");
    socket.set_broadcast(true).and(socket.set_multicast_ttl_v4(64)).expect("options");
    for group in GROUPS {
        // That it is refused may be told at once.
        let _ = socket.send_to(b"everybody", at(group, PORT));
        let found = |frame: &[u8]| {
            let seen = packet::in_frame(frame).and_then(packet::read)?;
            (seen.dst.ip().to_string() == group).then_some(())
        };
        if !group.starts_with("10.201.") {
            neighbour.find(SOON, found).unwrap_or_else(|| panic!("{group} reaches no neighbour"));
        }
    }
    // Whoever sends them to the gateway wants them outside.
    let station = Station::take(&a, "eth0", a.ip(), GATEWAY);
    let refused = || {
        let rows = switch.rows("show drops");
        rows.iter().filter(|row| row["name"] == "a").filter_map(|row| row["count"].as_u64()).sum::<u64>()
    };
    for group in GROUPS {
        let before = refused();
        let to = SocketAddrV4::new(group.parse().expect("an address"), PORT);
        station.send(&packet::udp(station.at(5000), to, b"everybody"));
        eventually(&format!("{group} is refused by name"), SOON, || (refused() > before).then_some(()));
    }
    assert!(switch.drops("multicast-not-routed") >= 4, "{:?}", switch.rows("show drops"));
    let leaked = outside.find(Duration::from_millis(100), |frame| {
        let seen = packet::in_frame(frame).and_then(packet::read)?;
        (seen.is_udp() && seen.dst.port() == PORT).then_some(seen)
    });
    assert!(leaked.is_none(), "{leaked:?}");
}
