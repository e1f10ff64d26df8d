//! The host itself, from a container: under the gateway's address and by name, where a rule opens a port, and else not.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use tapswitch_tests::{
    Container, Done, Enter, GATEWAY, HOST, INET, Person, Service, Stopwatch, Switch, World, echo_udp, needs, serve_tcp,
};

use crate::outside;

const NAME: &str = "host.tapswitch.internal";
/// How long any answer may take. Errors have to come sooner.
const LIMIT: Duration = Duration::from_secs(5);
/// No resolver waits shorter than that before it asks again, so nothing was lost or left without an answer.
const AT_ONCE: Duration = Duration::from_secs(3);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A web server on the host that says where it listens.
fn web(world: &World, at: &'static str) -> Service {
    serve_tcp(world.gw(), address(at), move |stream| hello(&stream, at))
}

fn hello(mut stream: &TcpStream, text: &str) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let length = text.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
}

/// `curl` in a container that `run` makes, with the resolver that it gives.
fn curl(world: &World, url: &str) -> Done {
    world.tapswitch(&format!("run -- curl -sSf --max-time 10 {url}")).run()
}

fn connect(from: &Container, to: &str) -> io::Result<TcpStream> {
    from.inside(|| TcpStream::connect_timeout(&address(to), LIMIT))
}

/// Connecting fails at once and with an error, not by silence.
#[track_caller]
fn refused(from: &Container, to: &str) {
    let watch = Stopwatch::start();
    let error = connect(from, to).expect_err(to);
    assert!(watch.elapsed() < AT_ONCE, "{to}: {error} after {:?}", watch.elapsed());
    assert_ne!(error.kind(), ErrorKind::TimedOut, "{to}");
}

/// What comes back for a datagram.
fn exchange(from: &Container, to: &str) -> io::Result<Vec<u8>> {
    let socket = from.inside(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.connect(address(to))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send(b"anybody?")?;
    let mut answer = vec![0; 64];
    let len = socket.recv(&mut answer)?;
    answer.truncate(len);
    Ok(answer)
}

/// The error comes as an ICMP message, not as silence.
#[track_caller]
fn refuses_datagrams(from: &Container, to: &str) {
    let error = exchange(from, to).expect_err(to);
    assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{to}: silence instead of an error");
}

#[test]
fn an_allowed_port_of_the_host_is_reached_by_name() {
    needs!("curl", "dnsmasq");
    for person in [Person::Root, Person::User] {
        let world = World::of(person);
        let _dns = outside::name_server(&world);
        let _web = web(&world, "127.0.0.1:8080");
        let _switch = Switch::up_with_capture(&world, &format!("--dns {INET} --allow 127.0.0.1:8080"));
        let done = curl(&world, &format!("http://{NAME}:8080/"));
        assert_eq!(done.stdout, "127.0.0.1:8080", "{person:?}: {}", done.report());
        done.within(AT_ONCE);
        let done = curl(&world, &format!("http://{GATEWAY}:8080/"));
        assert_eq!(done.stdout, "127.0.0.1:8080", "{person:?}: {}", done.report());
    }
}

#[test]
fn without_a_rule_the_host_has_no_name_and_no_open_port() {
    needs!("curl", "dnsmasq");
    for person in [Person::Root, Person::User] {
        let world = World::of(person);
        let _dns = outside::name_server(&world);
        let _web = web(&world, "127.0.0.1:8080");
        let _echo = echo_udp(world.gw(), address("127.0.0.1:8080"));
        let switch = Switch::up_with_capture(&world, &format!("--dns {INET}"));
        let done = curl(&world, &format!("http://{NAME}:8080/"));
        assert_eq!(done.status.code(), Some(6), "{person:?}: no such host: {}", done.report());
        done.within(AT_ONCE);
        let done = curl(&world, &format!("http://{GATEWAY}:8080/"));
        assert_eq!(done.status.code(), Some(7), "{person:?}: refused: {}", done.report());
        let a = switch.join("a", "");
        refused(&a, &format!("{GATEWAY}:8080"));
        refuses_datagrams(&a, &format!("{GATEWAY}:8080"));
    }
}

#[test]
fn a_rule_opens_one_port_for_tcp_and_udp_and_no_other() {
    for person in [Person::Root, Person::User] {
        let world = World::of(person);
        let ports = ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:9090"];
        let _webs = ports.map(|at| web(&world, at));
        let _echoes = ports.map(|at| echo_udp(world.gw(), address(at)));
        let switch = Switch::up_with_capture(&world, "--allow 127.0.0.1:8080 --allow 127.0.0.1:9090");
        let a = switch.join("a", "");
        for port in [8080, 9090] {
            connect(&a, &format!("{GATEWAY}:{port}")).expect("is allowed");
            assert_eq!(exchange(&a, &format!("{GATEWAY}:{port}")).expect("is allowed"), b"anybody?");
        }
        for port in [8081, 22, 631] {
            refused(&a, &format!("{GATEWAY}:{port}"));
            refuses_datagrams(&a, &format!("{GATEWAY}:{port}"));
        }
    }
}

#[test]
fn an_allowed_port_is_open_under_the_gateways_address_and_no_other_of_the_hosts() {
    for person in [Person::Root, Person::User] {
        let world = World::of(person);
        world.gw().cmd("ip addr add 192.0.2.77/32 dev lo").ok();
        let _web = web(&world, "0.0.0.0:8080");
        let _echo = echo_udp(world.gw(), address("0.0.0.0:8080"));
        let switch = Switch::up_with_capture(&world, "--allow 127.0.0.1:8080");
        let a = switch.join("a", "");
        connect(&a, &format!("{GATEWAY}:8080")).expect("is allowed");
        for ip in [HOST, "192.0.2.77"] {
            refused(&a, &format!("{ip}:8080"));
            refuses_datagrams(&a, &format!("{ip}:8080"));
        }
        assert!(switch.drops("policy-denied") >= 4);
    }
}

#[test]
fn the_gateways_own_names_are_answered_and_others_by_the_resolver() {
    needs!("busybox", "dnsmasq");
    let world = World::new();
    let _dns = outside::name_server(&world);
    let switch = Switch::up_with_capture(&world, &format!("--dns {INET} --allow 127.0.0.1:8080"));
    let a = switch.join("a", "");
    let look_up = |name: &str| a.cmd(&format!("busybox nslookup {name} {GATEWAY}")).run();
    for name in [NAME, "HOST.TapSwitch.Internal", "gateway.tapswitch.internal"] {
        let done = look_up(name);
        // The server's own address is listed with its port.
        assert!(done.stdout.contains(&format!("Address: {GATEWAY}\n")), "{}", done.report());
        assert!(done.status.success(), "AAAA is answered, too: {}", done.report());
    }
    look_up("other.tapswitch.internal").says("NXDOMAIN");
    look_up(GATEWAY).says("gateway.tapswitch.internal");
    look_up("web.test").says(INET);
    look_up("absent.test").says("NXDOMAIN");
    // Our names cost no socket of the host.
    let asked = switch.rows("show flows").iter().filter(|flow| flow["proto"] == "udp").count();
    assert!(asked <= 4, "{asked} flows for two names of the resolver");
}

#[test]
fn without_a_rule_the_gateway_still_has_its_name() {
    needs!("busybox", "dnsmasq");
    let world = World::new();
    let _dns = outside::name_server(&world);
    let switch = Switch::up_with_capture(&world, &format!("--dns {INET}"));
    let a = switch.join("a", "");
    a.cmd(&format!("busybox nslookup {NAME} {GATEWAY}")).fails().says("NXDOMAIN");
    a.cmd(&format!("busybox nslookup gateway.tapswitch.internal {GATEWAY}")).ok();
}
