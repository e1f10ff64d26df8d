//! Datagrams, pings and traceroutes to the outside.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tapswitch_tests::{Enter, GATEWAY, INET, NOBODY, Switch, World, echo_udp, needs};

#[test]
fn nu_12_datagrams_keep_their_boundaries_empty_ones_too() {
    let world = World::new();
    let server: SocketAddr = format!("{INET}:7000").parse().expect("an address");
    let _echo = echo_udp(world.inet(), server);
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let socket = a.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.connect(server).expect("a route");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut buffer = [0; 2000];
    for len in [0, 1, 18, 1000, 1471, 1472, 0] {
        let datagram: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        socket.send(&datagram).expect("sends");
        let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no echo of {len} bytes: {e}"));
        assert_eq!(buffer[..n], datagram[..], "{len} bytes");
    }
}

#[test]
fn one_socket_talks_to_many_ports_and_hears_each() {
    let world = World::new();
    let servers: Vec<SocketAddr> =
        (7001..7011).map(|port| format!("{INET}:{port}").parse().expect("an address")).collect();
    let _echoes: Vec<_> = servers.iter().map(|server| echo_udp(world.inet(), *server)).collect();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let socket = a.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    for server in &servers {
        socket.send_to(&server.port().to_be_bytes(), server).expect("sends");
    }
    let mut heard: Vec<SocketAddr> = servers
        .iter()
        .map(|_| {
            let mut buffer = [0; 16];
            let (n, from) = socket.recv_from(&mut buffer).expect("an echo");
            assert_eq!(buffer[..n], from.port().to_be_bytes());
            from
        })
        .collect();
    heard.sort();
    assert_eq!(heard, servers);
}

#[test]
fn ni_6_a_datagram_to_a_closed_port_is_refused() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let socket = a.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.connect((INET, 9)).expect("a route");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    socket.send(b"anybody?").expect("sends");
    let error = socket.recv(&mut [0; 16]).expect_err("nobody listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
}

#[test]
fn ni_1_pings_are_really_sent() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    for size in [0, 56, 1472] {
        a.cmd(&format!("ping -n -c 3 -i 0.05 -W 3 -s {size} {INET}")).ok();
    }
    a.cmd(&format!("ping -n -c 1 -W 2 {NOBODY}")).fails();
    a.cmd(&format!("ping -n -c 1 -W 2 {INET}")).ok();
}

#[test]
fn ip_9_the_gateway_answers_pings_and_nothing_old() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    a.cmd(&format!("ping -n -c 3 -i 0.05 -W 3 -s 1472 {GATEWAY}")).ok();
    a.cmd(&format!("ping -n -c 1 -W 1 -T tsonly {GATEWAY}")).run();
    if tapswitch_tests::installed(&["nmap"]) {
        // The two host discovery probes of ICMP that nobody should answer.
        let scan = a.cmd(&format!("nmap -n -sn -PP -PM --disable-arp-ping --send-ip --max-retries 1 {GATEWAY}")).ok();
        assert!(scan.contains("0 hosts up"), "{scan}");
    }
}

#[test]
fn ip_2_ttl_ends_at_the_gateway_first() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let near = a.cmd(&format!("ping -n -c 1 -W 2 -t 1 {INET}")).fails();
    near.says(&format!("From {GATEWAY}")).says("Time to live exceeded");
    a.cmd(&format!("ping -n -c 1 -W 2 -t 1 {GATEWAY}")).ok();
    a.cmd(&format!("ping -n -c 1 -W 2 -t 2 {INET}")).run();
}

#[test]
fn ip_2_every_kind_of_traceroute_shows_the_gateway_first() {
    needs!("traceroute");
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    for kind in ["", "-I", "-T -p 80"] {
        let route = a.cmd(&format!("traceroute -n -m 1 -q 1 -w 2 {kind} {INET}")).ok();
        let first = route.lines().nth(1).unwrap_or_default();
        assert!(first.contains(GATEWAY), "traceroute {kind}: {route}");
    }
}
