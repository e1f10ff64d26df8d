//! Published ports of the uplink `user`: which port of the host leads where, who is seen to ask, how long it lasts, and what
//! is said where it cannot be.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use tapswitch_tests::{
    Container, Enter, GATEWAY, HOST, INET, Netns, Person, Service, Stopwatch, Street, Switch, UPLINK, World,
    eventually, needs, serve_tcp,
};

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(5);
/// The host, as it calls itself.
const LOOPBACK: &str = "127.0.0.1";

/// Specifications, each with pairs of outer and inner ports that it must join. All can hold at the same time.
const SPECS: [(&str, &[(u16, u16)]); 5] = [
    ("8080:8080", &[(8080, 8080)]),
    ("8081:80", &[(8081, 80)]),
    ("7000-7003:7000-7003", &[(7000, 7000), (7002, 7002), (7003, 7003)]),
    ("7100-7103:90-93", &[(7100, 90), (7101, 91), (7103, 93)]),
    ("10.201.0.2:9090:82", &[(9090, 82)]),
];

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// Binds a socket. A process that another test starts holds ours for a moment, until it executes its program; so what was
/// closed this moment may be in the way.
#[track_caller]
fn bound<T: Send>(place: &impl Enter, ip: &str, port: u16, bind: impl Fn(SocketAddr) -> io::Result<T> + Sync) -> T {
    let to = at(ip, port);
    eventually(&format!("{to} is free"), SOON, || place.inside(|| bind(to)).ok())
}

/// Asks a server in `web` by `to`, and says whom the server sees and whom the client is.
fn over_tcp(web: &Container, inner: u16, from: &Place<'_>, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let server = bound(web, "0.0.0.0", inner, TcpListener::bind);
    server.set_nonblocking(true).expect("an option");
    let mut client = from.inside(|| TcpStream::connect_timeout(&to, SOON)).unwrap_or_else(|e| panic!("{to}: {e}"));
    client.set_read_timeout(Some(SOON)).expect("an option");
    let (mut served, seen) = eventually(&format!("{to} leads to the server"), SOON, || server.accept().ok());
    served.set_nonblocking(false).and(served.set_read_timeout(Some(SOON))).expect("options");
    for word in [&b"question"[..], b"another"] {
        let mut heard = [0; 10];
        client.write_all(word).expect("sends");
        served.read_exact(&mut heard[..word.len()]).expect("arrives");
        served.write_all(&heard[..word.len()]).expect("answers");
        client.read_exact(&mut heard[..word.len()]).expect("the answer arrives");
        assert_eq!(&heard[..word.len()], word);
    }
    (seen, client.local_addr().expect("an address"))
}

/// The same over UDP. The client takes answers from where it asked only.
fn over_udp(web: &Container, inner: u16, from: &Place<'_>, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let server = bound(web, "0.0.0.0", inner, UdpSocket::bind);
    let client = from.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to).map(|()| socket)
    });
    let client = client.unwrap_or_else(|e| panic!("{to}: {e}"));
    server.set_read_timeout(Some(SOON)).and(client.set_read_timeout(Some(SOON))).expect("options");
    let mut seen = None;
    for word in [&b"question"[..], b"another", b""] {
        let mut heard = [0; 10];
        client.send(word).expect("sends");
        let (len, peer) = server.recv_from(&mut heard).unwrap_or_else(|e| panic!("{to} does not lead there: {e}"));
        assert_eq!(&heard[..len], word);
        assert_eq!(*seen.get_or_insert(peer), peer, "one client is one peer");
        server.send_to(word, peer).expect("answers");
        let len = client.recv(&mut heard).unwrap_or_else(|e| panic!("no answer from {to}: {e}"));
        assert_eq!(&heard[..len], word);
    }
    (seen.expect("a peer"), client.local_addr().expect("an address"))
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    /// The host, by its loopback and by its address.
    Host,
    Outside,
    Neighbour,
    Itself,
}

/// Publishes all of [`SPECS`] and asks each server.
fn matrix(proto: &str, asker: Asker) {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (web, neighbour) = (switch.join("web", ""), switch.join("neighbour", ""));
    for (spec, _) in SPECS {
        switch.cli(&format!("publish web {spec}/{proto}")).ok();
    }
    let ask = if proto == "tcp" { over_tcp } else { over_udp };
    let (from, also) = match asker {
        Asker::Host => (Place::Netns(world.gw()), Some(LOOPBACK)),
        Asker::Outside => (Place::Netns(world.inet()), None),
        Asker::Neighbour => (Place::Container(&neighbour), Some(GATEWAY)),
        Asker::Itself => (Place::Container(&web), Some(GATEWAY)),
    };
    let pairs = SPECS.iter().flat_map(|(spec, pairs)| pairs.iter().map(move |pair| (spec, pair.0, pair.1)));
    for (spec, outer, inner) in pairs {
        // What is bound to the host's address is not at its loopback.
        let by = [HOST].into_iter().chain(also.filter(|also| !spec.starts_with(HOST) || *also == GATEWAY));
        for by in by {
            let (seen, client) = ask(&web, inner, &from, at(by, outer));
            match asker {
                Asker::Outside => assert_eq!((seen, client.ip()), (client, at(INET, 0).ip()), "{spec} by {by}"),
                _ => assert_eq!(seen.ip(), at(GATEWAY, 0).ip(), "{spec} by {by}"),
            }
        }
    }
}

/// Where somebody asks from.
#[derive(Clone, Copy)]
enum Place<'a> {
    Netns(&'a Netns),
    Container(&'a Container),
}

impl Enter for Place<'_> {
    fn netns_path(&self) -> PathBuf {
        match self {
            Place::Netns(netns) => netns.netns_path(),
            Place::Container(container) => container.netns_path(),
        }
    }
}

#[test]
fn tr_13_tcp_from_outside_shows_the_real_client() {
    matrix("tcp", Asker::Outside);
}

#[test]
fn tr_13_tcp_from_the_host_shows_the_gateway() {
    matrix("tcp", Asker::Host);
}

#[test]
fn tr_13_tcp_from_a_neighbour_shows_the_gateway() {
    matrix("tcp", Asker::Neighbour);
}

#[test]
fn tr_13_tcp_from_itself_shows_the_gateway() {
    matrix("tcp", Asker::Itself);
}

#[test]
fn tr_13_udp_from_outside_shows_the_real_client() {
    matrix("udp", Asker::Outside);
}

#[test]
fn tr_13_udp_from_the_host_shows_the_gateway() {
    matrix("udp", Asker::Host);
}

#[test]
fn tr_13_udp_from_a_neighbour_shows_the_gateway() {
    matrix("udp", Asker::Neighbour);
}

#[test]
fn tr_13_udp_from_itself_shows_the_gateway() {
    matrix("udp", Asker::Itself);
}

#[test]
fn a_port_of_the_loopback_is_the_hosts_alone() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let web = switch.join("web", "-p 127.0.0.1:8080:80 -p 127.0.0.1:8080:80/udp");
    for over in [over_tcp, over_udp] {
        assert_eq!(over(&web, 80, &Place::Netns(world.gw()), at(LOOPBACK, 8080)).0.ip(), at(GATEWAY, 0).ip());
    }
    assert_eq!(refused(world.inet(), at(HOST, 8080)), ErrorKind::ConnectionRefused);
    assert_eq!(refused(world.gw(), at(HOST, 8080)), ErrorKind::ConnectionRefused);
    let other = switch.join("other", "");
    assert_eq!(refused(&other, at(GATEWAY, 8080)), ErrorKind::ConnectionRefused);
}

/// How connecting fails.
#[track_caller]
fn refused(from: &impl Enter, to: SocketAddr) -> ErrorKind {
    let connected = from.inside(|| TcpStream::connect_timeout(&to, SOON));
    connected.expect_err("nothing listens there any more").kind()
}

/// What `ls` says of a container: `0.0.0.0:8080->80/tcp`, sorted.
fn listed(switch: &Switch<'_>, name: &str) -> Vec<String> {
    let port = switch.port(name).unwrap_or_else(|| panic!("{name} is attached"));
    let words = |published: &serde_json::Value| {
        let text = |field: &str| published[field].as_str().unwrap_or_else(|| panic!("{published}")).to_owned();
        format!("{}:{}->{}/{}", text("host"), text("host_ports"), text("ports"), text("proto"))
    };
    let mut all: Vec<String> = port["published"].as_array().expect("a list").iter().map(words).collect();
    all.sort();
    all
}

fn echo_tcp(place: &Container, port: u16) -> Service {
    serve_tcp(place, at("0.0.0.0", port), |mut stream| {
        let mut reader = stream.try_clone()?;
        std::io::copy(&mut reader, &mut stream).map(drop)
    })
}

/// A connection to an echo server, which has worked once.
#[track_caller]
fn talking(from: &impl Enter, to: SocketAddr) -> TcpStream {
    let stream = from.inside(|| TcpStream::connect_timeout(&to, SOON)).unwrap_or_else(|e| panic!("{to}: {e}"));
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    assert!(answers(&stream), "the connection works");
    stream
}

fn answers(mut stream: &TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && matches!(stream.read(&mut [0; 1]), Ok(1))
}

/// The one port of the host that a container publishes.
fn only_port(switch: &Switch<'_>, name: &str) -> u16 {
    let all = listed(switch, name);
    assert_eq!(all.len(), 1, "{all:?}");
    let port = all[0].split([':', '-']).nth(1).and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("{all:?}"))
}

#[test]
fn a_free_port_is_picked_and_named_wherever_one_asks_for_it() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let a = Container::new(&world, "a");
    let said = switch.cli(&format!("attach {} --name a -p 80", a.target())).ok();
    let port = only_port(&switch, "a");
    assert!(said.contains(&format!("tcp port {port} of every address -> port 80 of a")), "{said}");
    let _server = echo_tcp(&a, 80);
    talking(world.inet(), at(HOST, port));
    let b = switch.join("b", "");
    let said = switch.cli("publish b 127.0.0.1:0:53/udp").ok();
    let port = only_port(&switch, "b");
    assert!(said.contains(&format!("udp port {port} of 127.0.0.1 -> port 53 of b")), "{said}");
    over_udp(&b, 53, &Place::Netns(world.gw()), at(LOOPBACK, port));
    // Free ones in a row.
    switch.cli("unpublish b 53/udp").ok();
    switch.cli("publish b 0:8000-8009").ok();
    let first = only_port(&switch, "b");
    assert_eq!(listed(&switch, "b"), [format!("0.0.0.0:{first}-{}->8000-8009/tcp", first + 9)]);
    let _servers = [8000, 8009].map(|port| echo_tcp(&b, port));
    for port in [first, first + 9] {
        talking(world.inet(), at(HOST, port));
    }
    let shown = switch.cli("ls").ok();
    assert!(shown.contains(&format!("0.0.0.0:{first}-{}->8000-8009/tcp", first + 9)), "{shown}");
}

#[test]
fn what_is_unpublished_takes_no_new_connection_and_keeps_the_old() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (web, neighbour) = (switch.join("web", ""), switch.join("neighbour", ""));
    let _server = echo_tcp(&web, 80);
    assert_eq!(refused(world.inet(), at(HOST, 8080)), ErrorKind::ConnectionRefused);
    switch.cli("publish web 8080:80").ok();
    let all = [talking(world.inet(), at(HOST, 8080)), talking(&neighbour, at(GATEWAY, 8080))];
    let said = switch.cli("unpublish web 80").ok();
    assert!(said.contains("0.0.0.0:8080->80/tcp of web is published no longer"), "{said}");
    assert!(all.iter().all(answers), "what is open stays open");
    assert_eq!(refused(world.inet(), at(HOST, 8080)), ErrorKind::ConnectionRefused);
    assert_eq!(refused(&neighbour, at(GATEWAY, 8080)), ErrorKind::ConnectionRefused);
    assert!(listed(&switch, "web").is_empty());
    // It can be published again.
    switch.cli("publish web 8080:80").ok();
    talking(world.inet(), at(HOST, 8080));
    assert!(all.iter().all(answers), "they did not notice");
}

/// Detaches and kills a container of which ports are published, and looks what it has when it comes again.
fn comes_again(switch: &Switch<'_>) -> (Container, Vec<String>) {
    let mut web = switch.join("web", "-p 443");
    switch.cli("publish web 8080:80 5353:53/udp 0:9000-9009").ok();
    let before = listed(switch, "web");
    assert_eq!(before.len(), 4, "{before:?}");
    switch.cli("detach web").ok();
    web.attach(switch, "-p 443");
    assert_eq!(listed(switch, "web"), before, "the picked ones, too");
    // What came with the attachment comes with the next one only if it is asked for; what was published comes by itself.
    switch.cli("detach web").ok();
    web.attach(switch, "");
    assert_eq!(listed(switch, "web").len(), 3);
    // Killed, not detached. Meanwhile another one is given no port that is kept.
    web.destroy();
    eventually("the container has gone", SOON, || switch.port("web").is_none().then_some(()));
    let _other = switch.join("other", "-p 80 -p 81 -p 82-99");
    let web = switch.join("web", "");
    let after = listed(switch, "web");
    assert!(after.iter().all(|one| before.contains(one)) && after.len() == 3, "{after:?}");
    (web, after)
}

#[test]
fn a_container_that_comes_again_has_its_ports_of_the_host_again() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (mut web, before) = comes_again(&switch);
    let server = echo_tcp(&web, 80);
    talking(world.inet(), at(HOST, 8080));
    over_udp(&web, 53, &Place::Netns(world.inet()), at(HOST, 5353));
    drop(server);
    switch.cli("detach web").ok();
    // While it is away, nothing listens.
    assert_eq!(refused(world.gw(), at(LOOPBACK, 8080)), ErrorKind::ConnectionRefused);
    web.attach(&switch, "");
    assert_eq!(listed(&switch, "web"), before);
}

#[test]
fn a_container_that_comes_again_has_its_ports_of_a_packet_uplink_again() {
    let street = Street::new();
    let switch = street.switch("");
    let (web, _) = comes_again(&switch);
    let _server = echo_tcp(&web, 80);
    talking(street.inet(), at(UPLINK, 8080));
}

#[test]
fn a_container_whose_port_was_taken_meanwhile_hears_by_whom_and_can_do_without() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let mut web = switch.join("web", "");
    switch.cli("publish web 8080:80 8081:81").ok();
    switch.cli("detach web").ok();
    let mut other = switch.join("other", "-p 8080:80");
    let attach = |switch: &Switch<'_>, web: &Container| switch.cli(&format!("attach {} --name web", web.target()));
    attach(&switch, &web).fails().says("8080").says("published for other").says("tapswitch unpublish web 8080:80");
    assert!(switch.port("web").is_none(), "all or nothing");
    assert_eq!(refused(world.gw(), at(LOOPBACK, 8081)), ErrorKind::ConnectionRefused, "what it had opened is closed");
    switch.cli("unpublish web 8080:80").ok();
    web.attach(&switch, "");
    assert_eq!(listed(&switch, "web"), ["0.0.0.0:8081->81/tcp"]);
    switch.cli("unpublish web 8080:80").fails().says("does not publish");
    // Another process likewise.
    switch.cli("detach web").ok();
    let held = bound(world.gw(), LOOPBACK, 8081, TcpListener::bind);
    attach(&switch, &web).fails().says("8081").says("in use by");
    drop(held);
    eventually("the port is free, and it is attached", SOON, || {
        attach(&switch, &web).run().status.success().then_some(())
    });
    switch.cli("detach other").ok();
    other.attach(&switch, "");
    assert!(listed(&switch, "other").is_empty());
}

#[test]
fn what_a_file_publishes_is_there_whenever_its_container_is_until_it_is_unpublished() {
    let world = World::new();
    let file = world.home().join("networks.toml");
    let networks = "[[network]]\nname = 'one'\nsubnet = '10.88.0.0/24'\npublish = ['web=8080:80', 'web=443']\n\
                    [[network]]\nname = 'two'\nsubnet = '10.89.0.0/24'\n";
    std::fs::write(&file, networks).expect("a file");
    let switch = Switch::start(&world, file.to_str().expect("a path of text"));
    let mut web = switch.join("web", "");
    let before = listed(&switch, "web");
    assert_eq!(before.len(), 2, "{before:?}");
    let _server = echo_tcp(&web, 80);
    talking(world.inet(), at(HOST, 8080));
    // Both networks have the ports of one host.
    let _other = switch.join("other", "--network two");
    switch.cli("publish other 8080:80").fails().says("published for web");
    switch.cli("detach web").ok();
    switch.cli("unpublish web 80").ok();
    web.attach(&switch, "");
    let picked = before.iter().find(|one| one.ends_with("->443/tcp")).cloned();
    assert_eq!(listed(&switch, "web"), picked.into_iter().collect::<Vec<_>>());
}

#[test]
fn who_has_a_port_is_named() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (_a, _b) = (switch.join("a", "-p 8080:80 -p 8080:80/udp"), switch.join("b", ""));
    for proto in ["tcp", "udp"] {
        switch.cli(&format!("publish b 8080:81/{proto}")).fails().says("8080").says("published for a already");
        switch.cli(&format!("publish b 127.0.0.1:8080:81/{proto}")).fails().says("published for a already");
        switch.cli(&format!("publish a 8080:82/{proto}")).fails().says("published for it already");
    }
    // Whether the process may be seen depends on its rights; its user can be seen anyway.
    let _tcp = bound(world.gw(), LOOPBACK, 8081, TcpListener::bind);
    let _udp = bound(world.gw(), HOST, 8081, UdpSocket::bind);
    for proto in ["tcp", "udp"] {
        switch.cli(&format!("publish b 8081:81/{proto}")).fails().says("port 8081").says("in use by");
    }
    assert!(listed(&switch, "b").is_empty());
}

#[test]
fn a_process_of_the_same_user_is_named_with_its_number() {
    needs!("busybox");
    let world = World::of(Person::User);
    let switch = Switch::up(&world, "");
    let _web = switch.join("web", "");
    let holder = world.person_cmd("busybox nc -l -p 8080").spawn(&world.dir().join("nc.log"));
    // Port 8080 in the kernel's own table of sockets: whoever tried the port itself could take it first.
    eventually("it listens", SOON, || {
        let table = world.gw().cmd("cat /proc/net/tcp /proc/net/tcp6").ok();
        table.contains(":1F90 ").then_some(())
    });
    switch.cli("publish web 8080:80").fails().says("busybox (pid").says("8080").says("choose another");
    drop(holder);
}

#[test]
fn root_publishes_a_privileged_port() {
    let world = World::of(Person::Root);
    let switch = Switch::up(&world, "");
    let web = switch.join("web", "");
    switch.cli("publish web 80:8080").ok();
    let _server = echo_tcp(&web, 8080);
    talking(world.inet(), at(HOST, 80));
}

#[test]
fn a_privileged_port_says_what_to_do() {
    let world = World::of(Person::User);
    let switch = Switch::up(&world, "");
    let _web = switch.join("web", "");
    let done = switch.cli("publish web 80:80").fails();
    done.says("net.ipv4.ip_unprivileged_port_start=80").says("as 8080:80/tcp").says("below 1024");
    world.gw().cmd("sh -e").input("echo 80 > /proc/sys/net/ipv4/ip_unprivileged_port_start").ok();
    switch.cli("publish web 80:80").ok();
}

#[test]
fn an_address_that_the_host_has_not_is_said_to_be_none() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let web = Container::new(&world, "web");
    let attach = |spec| switch.cli(&format!("attach {} --name web -p {spec}", web.target()));
    attach("203.0.113.77:8081:80").fails().says("no address 203.0.113.77");
    assert!(switch.port("web").is_none(), "it was not attached without its port");
    attach("8081:80").ok();
}

#[test]
fn of_a_range_that_meets_a_taken_port_nothing_is_left() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let _web = switch.join("web", "");
    for proto in ["tcp", "udp"] {
        let both = |to| Ok((TcpListener::bind(to)?, UdpSocket::bind(to)?));
        let _held = bound(world.gw(), HOST, 7005, both);
        let done = switch.cli(&format!("publish web 6000:80/{proto} 7000-7009:7000-7009/{proto}")).fails();
        done.says("port 7005").says("in use by");
        for port in [6000].into_iter().chain(7000..7005).chain(7006..7010) {
            drop(bound(world.gw(), HOST, port, both));
        }
        assert!(listed(&switch, "web").is_empty());
    }
}

#[test]
fn a_range_is_no_larger_than_its_containers_share() {
    let world = World::new();
    let mut switch = Switch::up(&world, "");
    let _web = switch.join("web", "");
    let pid = switch.daemon().pid();
    let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
    let before = files();
    for proto in ["tcp", "udp"] {
        let done = switch.cli(&format!("publish web 1024-65535:1024-65535/{proto}")).fails();
        done.says("raise the limit of the daemon (ulimit -n)").within(Duration::from_secs(5));
        eventually("nothing of it is left", SOON, || (files() <= before + 4).then_some(()));
    }
    assert!(listed(&switch, "web").is_empty());
}

#[test]
fn a_thousand_ports_need_no_thread_no_process_and_little_time() {
    let world = World::new();
    let mut switch = Switch::up(&world, "");
    let web = switch.join("web", "");
    let pid = switch.daemon().pid();
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).expect("a process").count();
    let children = || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
        tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default()).collect::<String>()
    };
    let before = (count("task"), children());
    let files = count("fd");
    for proto in ["tcp", "udp"] {
        let watch = Stopwatch::start();
        switch.cli(&format!("publish web 20000-20999:30000-30999/{proto}")).ok();
        assert!(watch.elapsed() < Duration::from_secs(2), "took {:?}", watch.elapsed());
    }
    assert_eq!((count("task"), children()), before);
    let _servers = [30_000, 30_999].map(|port| echo_tcp(&web, port));
    for port in [20_000, 20_999] {
        talking(world.inet(), at(HOST, port));
    }
    over_udp(&web, 30_999, &Place::Netns(world.inet()), at(HOST, 20_999));
    let watch = Stopwatch::start();
    switch.cli("unpublish web 30000-30999 30000-30999/udp").ok();
    assert!(watch.elapsed() < Duration::from_secs(2), "took {:?}", watch.elapsed());
    assert_eq!(refused(world.inet(), at(HOST, 20_500)), ErrorKind::ConnectionRefused);
    eventually("its descriptors are given back", SOON, || (count("fd") <= files + 4).then_some(()));
}

#[test]
fn a_network_without_ports_of_a_host_says_so() {
    let world = World::new();
    let switch = Switch::up(&world, "--internal");
    let web = Container::new(&world, "web");
    switch.cli(&format!("attach {} --name web -p 8080:80", web.target())).fails().says("internal network");
}
