//! The world itself: what the other tests take for granted about it.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use tapswitch_tests::{Enter, INET, NOBODY, Person, SILENT_PORT, World, echo_udp, serve_tcp};

#[test]
fn the_host_reaches_the_outside_and_sees_it_as_it_is() {
    let world = World::new();
    let open = format!("{INET}:9000").parse().expect("an address");
    let _server = serve_tcp(world.inet(), open, |_| Ok(()));
    let _echo = echo_udp(world.inet(), open);
    world.gw().cmd(&format!("ping -n -c 1 -W 2 {INET}")).ok();
    let connect = |ip: &str, port: u16| {
        let address = format!("{ip}:{port}").parse().expect("an address");
        let connected = world.gw().inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)));
        connected.map(drop).map_err(|e| e.kind())
    };
    assert_eq!(connect(INET, 9000), Ok(()));
    assert_eq!(connect(INET, 9001), Err(ErrorKind::ConnectionRefused));
    assert_eq!(connect(NOBODY, 80), Err(ErrorKind::HostUnreachable));
    assert_eq!(connect(INET, SILENT_PORT), Err(ErrorKind::TimedOut));
    assert_eq!(world.gw().cmd("cat /proc/sys/net/ipv4/ip_forward").ok(), "0\n");
}

#[test]
fn only_the_world_is_in_reach() {
    let links = World::new().gw().cmd("ip -brief link show").ok();
    let names: Vec<&str> = links.lines().filter_map(|line| line.split(['@', ' ']).next()).collect();
    assert_eq!(names, ["lo", "up0"]);
    let here = tapswitch_tests::Cmd::new(["ip", "-brief", "link", "show"]).ok();
    assert_eq!(here.lines().count(), 1, "{here}");
}

#[test]
fn an_ordinary_user_has_no_capability_and_may_ping() {
    let world = World::of(Person::User);
    let status = world.person_cmd("cat /proc/self/status").ok();
    let effective = status.lines().find(|line| line.starts_with("CapEff")).expect("a process has capabilities");
    assert!(effective.ends_with("0000000000000000"), "{effective}");
    assert_ne!(world.person_cmd("id -u").ok(), "0\n");
    world.person_cmd(&format!("ping -n -c 1 -W 2 {INET}")).ok();
    world.person_cmd("touch /etc/mine").fails();
}

#[test]
fn a_world_leaves_nothing() {
    let list = || tapswitch_tests::Cmd::new(["ip", "netns", "list"]).ok();
    let world = World::of(Person::User);
    let dir = world.dir().to_owned();
    let name = world.gw().name().to_owned();
    assert!(list().contains(&name));
    drop(world);
    assert!(!list().contains(&name));
    assert!(!dir.exists());
}
