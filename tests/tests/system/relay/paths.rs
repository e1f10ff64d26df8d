//! What containers learn about the way: hops, times to live, and how large a packet may be.

use std::net::{SocketAddrV4, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use tapswitch_tests::{
    Container, Enter, GATEWAY, INET, NOBODY, Person, ROUTER, Station, Switch, World, echo_udp, eventually, needs,
    packet, receive, send, serve_tcp,
};

use super::{LIMIT, SOON, at, connect};

/// The router's link to the server is narrower than all others.
const NARROW: u32 = 1280;

#[test]
fn ni_1_a_ping_to_nobody_fails_and_the_router_says_why() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let dead = a.cmd(&format!("ping -n -c 1 -W 10 {NOBODY}")).fails();
    dead.says(&format!("From {ROUTER}")).says("Destination Host Unreachable");
    a.cmd(&format!("ping -n -c 3 -i 0.05 -W 2 {INET}")).ok();
}

#[test]
fn ip_2_each_ttl_of_a_ping_ends_where_it_should() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    for (ttl, hop) in [(1, GATEWAY), (2, ROUTER)] {
        let line = format!("ping -n -c 1 -W 3 -t {ttl} {INET}");
        a.cmd(&line).fails().says(&format!("From {hop}")).says("Time to live exceeded");
    }
    a.cmd(&format!("ping -n -c 1 -W 3 -t 3 {INET}")).ok();
}

/// The `ttl=` of the replies to pings.
fn reply_ttl(from: &impl Enter) -> u32 {
    let said = from.cmd(&format!("ping -n -c 3 -i 0.05 -W 3 {INET}")).ok();
    let mut seen = said.lines().filter_map(|line| line.split_once("ttl=")?.1.split_whitespace().next()?.parse().ok());
    let first = seen.next().unwrap_or_else(|| panic!("no TTL: {said}"));
    assert!(seen.all(|ttl| ttl == first), "{said}");
    first
}

/// The gateway is a hop for what comes in too: a reply has one less than it has at the host.
#[test]
fn ip_2_replies_show_the_time_to_live_that_is_left_of_the_servers() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    for ttl in [77, 200] {
        let script = format!("echo {ttl} > /proc/sys/net/ipv4/ip_default_ttl");
        world.inet().cmd("sh -e").input(script).ok();
        let at_host = reply_ttl(world.gw());
        assert_eq!(at_host, ttl - 1, "the world has one router");
        let at_container = reply_ttl(&a);
        // What a socket hands over has passed no forwarding host; whether the gateway counts itself, the documentation
        // says.
        assert!(
            (at_host - 1..=at_host).contains(&at_container),
            "{at_container} in the container, {at_host} at the host"
        );
    }
}

/// The hops that a traceroute lists; a hop that did not answer is `*`.
fn hops(from: &Container, kind: &str) -> Vec<String> {
    let report = from.cmd(&format!("traceroute -n -q 2 -w 2 -m 6 {kind} {INET}")).limit(LIMIT).ok();
    let second = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    report.lines().skip(1).filter_map(second).collect()
}

fn traceroute(person: Person, kinds: &[&str]) {
    let world = World::of(person);
    for place in [world.rt(), world.inet()] {
        place.cmd("sh -e").input("echo 0 > /proc/sys/net/ipv4/icmp_ratelimit").ok();
    }
    let _server = serve_tcp(world.inet(), at(INET, 80), |_| Ok(()));
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    for kind in kinds {
        assert_eq!(hops(&a, kind), [GATEWAY, ROUTER, INET], "traceroute {kind}");
    }
}

#[test]
fn ip_2_ni_6_traceroute_by_udp_shows_every_hop() {
    needs!("traceroute");
    traceroute(Person::Root, &["", "-U -p 53", "-N 1", "--sport=40000"]);
}

#[test]
fn ip_2_ni_6_traceroute_by_pings_shows_every_hop() {
    needs!("traceroute");
    traceroute(Person::Root, &["-I", "-I -N 1"]);
}

#[test]
fn ip_2_ni_6_traceroute_by_tcp_shows_every_hop() {
    needs!("traceroute");
    traceroute(Person::Root, &["-T -p 80", "-T -p 81"]);
}

/// The daemon needs no right for any of this.
#[test]
fn ip_2_ni_6_an_ordinary_users_traceroutes_show_every_hop() {
    needs!("traceroute");
    traceroute(Person::User, &["", "-I"]);
}

/// A world in which the router's link to the server carries [`NARROW`] bytes, and neither end of a connection knows.
fn narrow() -> World {
    let world = World::new();
    world.rt().cmd(&format!("ip link set wan mtu {NARROW}")).ok();
    let inet = format!(
        "ip link set eth0 mtu {NARROW}
         ip route replace default via 198.51.100.1 advmss 1460"
    );
    world.inet().cmd("sh -e").input(inet).ok();
    world
}

#[test]
fn ip_3_ni_6_a_ping_that_must_not_be_cut_learns_the_path_mtu() {
    needs!("tracepath");
    let world = narrow();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    a.cmd(&format!("ping -n -c 3 -i 0.2 -W 2 -M do -s 1400 {INET}")).fails().says(&format!("mtu = {NARROW}"));
    a.cmd(&format!("ping -n -c 3 -i 0.2 -W 2 -M do -s {} {INET}", NARROW - 28)).ok();
    let path = a.cmd(&format!("tracepath -n -m 6 {INET}")).limit(LIMIT).ok();
    assert!(path.contains(&format!("pmtu {NARROW}")) && path.contains("reached"), "{path}");
}

#[test]
fn ip_3_ni_6_a_datagram_that_must_not_be_cut_is_answered_with_the_path_mtu() {
    let world = narrow();
    let _echo = echo_udp(world.inet(), at(INET, 7000));
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let mut station = Station::take(&a, "eth0", a.ip(), GATEWAY);
    let server = SocketAddrV4::new(INET.parse().expect("an address"), 7000);
    let datagram = |len: usize| {
        let mut datagram = packet::udp(station.at(5000), server, &vec![9; len]);
        datagram[6] = 0x40;
        packet::seal(&mut datagram);
        datagram
    };
    let (large, fitting) = (datagram(1400), datagram(NARROW as usize - 28));
    station.send(&large);
    let error = station.find(SOON, |seen| seen.icmp() == Some((3, 4))).expect("an error about it");
    assert_eq!(error.ack & 0xffff, NARROW, "the MTU that fits");
    // It quotes what was sent: the addresses and ports are the container's own.
    assert_eq!(error.data[12..20], large[12..20], "{error:?}");
    assert_eq!(error.data[20..24], large[20..24], "{error:?}");
    station.send(&fitting);
    station.find(SOON, |seen| seen.is_udp() && seen.data.len() == NARROW as usize - 28).expect("its echo");
    // From now on whoever sends for the container knows, too: it may say so again, or cut, but lose nothing in silence.
    for _ in 0..3 {
        station.send(&large);
        let heard = station.find(SOON, |seen| seen.icmp() == Some((3, 4)) || seen.is_udp() && seen.fragment.is_none());
        let heard = heard.expect("an error or its echo");
        assert!(heard.icmp().is_some() || heard.data.len() == 1400, "{}", heard.kind());
    }
}

#[test]
fn ip_3_nu_12_datagrams_pass_a_narrow_path_once_its_mtu_is_known() {
    let world = narrow();
    let _echo = echo_udp(world.inet(), at(INET, 7000));
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let socket = a.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.connect(at(INET, 7000)).expect("a route");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let datagram: Vec<u8> = (0..1400_u32).map(|n| (n % 251) as u8).collect();
    // The first one may be lost for the error that tells the MTU, as on any path.
    let mut buffer = [0; 2000];
    let echo = eventually("an echo comes", SOON, || {
        // An error about an earlier one may be reported here.
        let _ = socket.send(&datagram);
        socket.recv(&mut buffer).ok()
    });
    assert_eq!(buffer[..echo], datagram[..]);
    // Either somebody before it cuts for the container, or the container's own kernel knows.
    let known = getsockopt(&socket, sockopt::IpMtu).expect("a route has an MTU");
    assert!(known == 1500 || known == NARROW as i32, "{known}");
}

#[test]
fn bulk_passes_a_narrow_path_both_ways() {
    const LEN: u64 = 20 << 20;
    let world = narrow();
    let (tell, told) = mpsc::channel();
    let _server = serve_tcp(world.inet(), at(INET, 9000), move |mut stream| {
        tell.send(receive(&mut stream)?).map_err(std::io::Error::other)?;
        send(&mut stream, 8, LEN).map(drop)
    });
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let mut stream = connect(&a, 9000);
    let sent = send(&mut stream, 7, LEN).expect("sends");
    stream.shutdown(std::net::Shutdown::Write).expect("half closes");
    assert_eq!(told.recv_timeout(LIMIT).expect("the server gets all"), sent);
    let expected = send(&mut std::io::sink(), 8, LEN).expect("a sink takes all");
    assert_eq!(receive(&mut stream).expect("receives"), expected);
}
