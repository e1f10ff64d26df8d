//! What a container may reach, and what not.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use tapswitch_tests::{
    Container, Enter, GATEWAY, HOST, INET, Stopwatch, Switch, World, echo_udp, eventually, serve_tcp,
};

const LIMIT: Duration = Duration::from_secs(5);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn connect(from: &Container, to: &str) -> std::io::Result<TcpStream> {
    from.inside(|| TcpStream::connect_timeout(&address(to), LIMIT))
}

/// Connecting fails at once and with an error, not by silence.
fn refused(from: &Container, to: &str) {
    let watch = Stopwatch::start();
    let error = connect(from, to).expect_err(to);
    assert!(watch.elapsed() < Duration::from_secs(2), "{to}: {error} after {:?}", watch.elapsed());
    assert_ne!(error.kind(), ErrorKind::TimedOut, "{to}");
}

#[test]
fn at_16_the_host_and_metadata_addresses_are_refused() {
    let world = World::new();
    let loopback = world.gw().cmd("ip addr add 169.254.169.254/32 dev lo");
    loopback.ok();
    let _servers = ["127.0.0.1:8000", "10.201.0.2:8000", "169.254.169.254:80"]
        .map(|at| serve_tcp(world.gw(), address(at), |_| Ok(())));
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    // A container's kernel sends nothing to 127/8 by itself: it has to be told that loopback is elsewhere.
    let routed = "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
                  ip route del local 127.0.0.0/8 dev lo table local
                  ip route del local 127.0.0.1 dev lo table local
                  ip route add 127.0.0.0/8 via 10.88.0.1 src 10.88.0.2 dev eth0";
    a.cmd("sh -e").input(routed).ok();
    refused(&a, &format!("{HOST}:8000"));
    refused(&a, "169.254.169.254:80");
    // Those with a loopback address are martians (IP-6), of which no router tells.
    connect(&a, "127.0.0.1:8000").expect_err("the host's loopback");
    refused(&a, &format!("{GATEWAY}:8000"));
    assert!(switch.drops("policy-denied") >= 2);
}

#[test]
fn at_16_datagrams_to_the_host_are_refused() {
    let world = World::new();
    let host = address(&format!("{HOST}:7000"));
    let _echo = echo_udp(world.gw(), host);
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let socket = a.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.connect(host).expect("a route");
    socket.set_read_timeout(Some(LIMIT)).expect("a timeout");
    socket.send(b"anybody?").expect("sends");
    let error = socket.recv(&mut [0; 16]).expect_err("is out of reach");
    assert_ne!(error.kind(), ErrorKind::WouldBlock, "silence instead of an error");
    a.cmd(&format!("ping -n -c 1 -W 1 {HOST}")).fails();
}

#[test]
fn what_is_allowed_on_the_host_is_reached_and_nothing_else() {
    let world = World::new();
    let _servers = [8000, 8001].map(|port| serve_tcp(world.gw(), address(&format!("{HOST}:{port}")), |_| Ok(())));
    let switch = Switch::up_with_capture(&world, &format!("--allow {HOST}:8000"));
    let a = switch.join("a", "");
    connect(&a, &format!("{HOST}:8000")).expect("is allowed");
    refused(&a, &format!("{HOST}:8001"));
}

#[test]
fn an_allowed_loopback_service_is_reached_by_the_gateways_address() {
    let world = World::new();
    let _server = serve_tcp(world.gw(), address("127.0.0.1:8000"), |_| Ok(()));
    let switch = Switch::up_with_capture(&world, "--allow 127.0.0.1:8000");
    let a = switch.join("a", "");
    connect(&a, &format!("{GATEWAY}:8000")).expect("is allowed");
    refused(&a, &format!("{GATEWAY}:8001"));
}

#[test]
fn an_isolated_network_has_a_gateway_and_an_outside_but_no_neighbours() {
    let world = World::new();
    let _server = serve_tcp(world.inet(), address(&format!("{INET}:9000")), |_| Ok(()));
    let switch = Switch::up_with_capture(&world, "--isolate");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    a.cmd(&format!("ping -n -c 1 -W 1 {}", b.ip())).fails();
    // Nor does it help to know the neighbour's MAC address.
    let mac = switch.port("b").expect("a port")["mac"].as_str().expect("a MAC address").to_owned();
    a.cmd(&format!("ip neigh replace {} lladdr {mac} dev eth0", b.ip())).ok();
    a.cmd(&format!("ping -n -c 1 -W 1 {}", b.ip())).fails();
    for container in [&a, &b] {
        container.cmd(&format!("ping -n -c 1 -W 2 {GATEWAY}")).ok();
        connect(container, &format!("{INET}:9000")).expect("the outside");
    }
    assert!(switch.drops("isolated") > 0);
}

#[test]
fn an_internal_network_has_neighbours_but_no_outside() {
    let world = World::new();
    let _server = serve_tcp(world.inet(), address(&format!("{INET}:9000")), |_| Ok(()));
    let switch = Switch::up_with_capture(&world, "--internal");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    a.cmd(&format!("ping -n -c 1 -W 2 {}", b.ip())).ok();
    a.cmd(&format!("ping -n -c 1 -W 2 {GATEWAY}")).ok();
    refused(&a, &format!("{INET}:9000"));
}

#[test]
fn two_networks_of_one_daemon_do_not_see_each_other() {
    let world = World::new();
    let file = world.home().join("two.toml");
    let text = "[[network]]\nname = \"red\"\nsubnet = \"10.88.0.0/24\"\n\n\
                [[network]]\nname = \"blue\"\nsubnet = \"10.89.0.0/24\"\n";
    fs::write(&file, text).expect("a file");
    let switch = Switch::start(&world, &file.display().to_string());
    let red = [switch.join("red1", "--network red"), switch.join("red2", "--network red")];
    let blue = [switch.join("blue1", "--network blue"), switch.join("blue2", "--network blue")];
    for pair in [&red, &blue] {
        pair[0].cmd(&format!("ping -n -c 1 -W 2 {}", pair[1].ip())).ok();
    }
    for (from, to) in [(&red[0], &blue[0]), (&blue[1], &red[1])] {
        from.cmd(&format!("ping -n -c 1 -W 1 {}", to.ip())).fails();
    }
    // Nor does a broadcast cross: blue's neighbour tables know nobody of red.
    red[0].cmd("ip addr add 10.89.0.77/24 dev eth0").ok();
    red[0].cmd(&format!("ping -n -c 1 -W 1 -I 10.89.0.77 {}", blue[0].ip())).fails();
    let neighbours = blue[0].cmd("ip neigh show").ok();
    assert!(!neighbours.contains("10.89.0.77"), "{neighbours}");
    let names = switch.rows("network ls");
    let names: Vec<_> = names.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["red", "blue"]);
}

#[test]
fn a_refused_destination_is_counted_where_the_user_looks() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    refused(&a, &format!("{HOST}:22"));
    let counted = eventually("the drop is listed", LIMIT, || {
        let rows = switch.rows("show drops");
        rows.into_iter().find(|row| row["reason"] == "policy-denied")
    });
    assert_eq!(counted["name"], "a");
    assert!(counted["text"].as_str().is_some_and(|text| text.contains("policy")), "{counted}");
}
