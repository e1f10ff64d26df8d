//! What is left when something ends, and what is never touched.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tapswitch_tests::{Container, Done, Enter, Switch, World, eventually};

const LIMIT: Duration = Duration::from_secs(10);

/// Everything of the host that a switch could have changed. Its own sockets and processes are not part of it.
pub(crate) fn host_state(world: &World) -> String {
    let look = |line: &str| world.gw().cmd(line).ok();
    let parts = [
        look("nft list ruleset"),
        look("ip -o link show"),
        look("ip -o link show type bridge"),
        look("ip -o addr show"),
        look("ip route show table all"),
        look("ip rule show"),
        look("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"),
        look("cat /proc/sys/net/ipv4/conf/all/proxy_arp /proc/sys/net/ipv4/conf/all/rp_filter"),
    ];
    // Neither life times nor traffic-dependent flags are configuration.
    parts.concat().replace("valid_lft forever preferred_lft forever", "")
}

/// Command lines of the processes that belong to the program and this world.
fn leftovers(world: &World) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    let home = world.home().display().to_string();
    let socket = world.socket().display().to_string();
    lines.filter(|line| line.contains("tapswitch ") && (line.contains(&home) || line.contains(&socket))).collect()
}

fn until_without_interface(container: &Container) {
    eventually("the interface is gone", LIMIT, || (!container.interfaces().contains(&"eth0".to_owned())).then_some(()));
}

#[test]
fn the_hosts_own_network_is_never_touched() {
    let world = World::new();
    world.gw().cmd("nft add table inet mine").ok();
    let before = host_state(&world);
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    a.cmd(&format!("ping -n -c 1 -W 2 {}", b.ip())).ok();
    a.cmd(&format!("ping -n -c 1 -W 2 {}", tapswitch_tests::INET)).ok();
    assert_eq!(host_state(&world), before, "while it runs");
    drop(switch);
    assert_eq!(host_state(&world), before, "after it was killed");
}

#[test]
fn a_killed_daemon_leaves_nothing_and_can_be_started_again_at_once() {
    let world = World::new();
    let mut switch = Switch::up(&world, "");
    let mut a = switch.join("a", "");
    assert!(a.interfaces().contains(&"eth0".to_owned()));
    switch.daemon().kill_9();
    until_without_interface(&a);
    assert_eq!(leftovers(&world), [] as [String; 0]);
    let again = Switch::up(&world, "");
    assert!(again.rows("ls").is_empty());
    a.attach(&again, "");
    a.cmd(&format!("ping -n -c 1 -W 2 {}", tapswitch_tests::GATEWAY)).ok();
}

#[test]
fn a_daemon_that_is_asked_to_end_takes_its_socket_along() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new();
        let mut switch = Switch::up(&world, "");
        let a = switch.join("a", "");
        switch.daemon().signal(signal);
        let status = switch.daemon().wait(LIMIT);
        assert!(status.success(), "{signal}: {status}\n{}", switch.daemon().output());
        until_without_interface(&a);
        assert!(!world.socket().exists(), "{signal}");
    }
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_harms_nothing() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    world.tapswitch("up --subnet 10.90.0.0/24").fails().says("tapswitch.sock");
    a.cmd(&format!("ping -n -c 1 -W 2 {}", tapswitch_tests::GATEWAY)).ok();
    assert_eq!(switch.rows("ls").len(), 1);
}

#[test]
fn a_container_that_is_deleted_disappears_from_the_list() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let b = switch.join("b", "");
    let address = a.ip().to_owned();
    a.destroy();
    eventually("the port is gone", LIMIT, || switch.port("a").is_none().then_some(()));
    b.cmd(&format!("ping -n -c 1 -W 2 {}", tapswitch_tests::GATEWAY)).ok();
    // Name and address can be had again.
    let again = switch.join("a", &format!("--ip {address}"));
    assert_eq!(again.ip(), address);
}

#[test]
fn br_4_detach_removes_interface_port_and_stations() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    a.cmd(&format!("ping -n -c 1 -W 2 {}", tapswitch_tests::GATEWAY)).ok();
    switch.cli("detach a").ok();
    until_without_interface(&a);
    assert!(switch.port("a").is_none());
    let stations = switch.rows("show fdb");
    assert!(stations.iter().all(|row| row["name"] != "a"), "{stations:?}");
    switch.cli("detach a").fails().says("a");
}

#[test]
fn a_killed_run_leaves_nothing() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let marker = world.home().join("inside");
    // `run` itself is killed: its container has to go, too.
    let mut run = world
        .tapswitch("run --name victim -- sh -c")
        .arg(format!("echo up > {0}; exec sleep 4711", marker.display()))
        .spawn(&world.dir().join("run.log"));
    until_exists(&marker, &run.output());
    assert!(switch.port("victim").is_some());
    run.kill_9();
    eventually("the port is gone", LIMIT, || switch.port("victim").is_none().then_some(()));
    eventually("the command is gone", LIMIT, || (!runs("sleep\x004711\0")).then_some(()));
}

#[test]
fn a_killed_command_ends_its_run() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let mut run = world.tapswitch("run --name victim -- sleep 4712").spawn(&world.dir().join("run.log"));
    let pid = eventually("the command runs", LIMIT, || pid_of("sleep\x004712\0"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("it can be killed");
    let status = run.wait(LIMIT);
    assert_eq!(status.code(), Some(128 + 9), "{}", run.output());
    eventually("the port is gone", LIMIT, || switch.port("victim").is_none().then_some(()));
}

#[test]
fn at_21_a_container_survives_link_changes_and_is_served_again() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    let ping = |expect: fn(tapswitch_tests::Cmd) -> Done| expect(b.cmd(&format!("ping -n -c 1 -W 1 {}", a.ip())));
    a.cmd("ip link set eth0 down").ok();
    ping(|cmd| cmd.fails());
    a.cmd("ip link set eth0 up").ok();
    eventually("a answers again", LIMIT, || ping(|cmd| cmd.run()).status.success().then_some(()));
    a.cmd("ip link set eth0 address 02:00:00:00:00:77").ok();
    eventually("a answers with its new MAC address", LIMIT, || {
        a.cmd(&format!("ping -n -c 1 -W 1 {}", b.ip())).run().status.success().then_some(())
    });
    a.cmd("ip link del eth0").ok();
    eventually("the port is gone", LIMIT, || switch.port("a").is_none().then_some(()));
}

fn until_exists(file: &Path, log: &str) {
    eventually(&format!("{} appears ({log})", file.display()), LIMIT, || file.exists().then_some(()));
}

fn pid_of(cmdline: &str) -> Option<i32> {
    let processes = fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let mut found =
        processes.filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == cmdline.as_bytes()));
    found.next()?.file_name().to_str()?.parse().ok()
}

fn runs(cmdline: &str) -> bool {
    pid_of(cmdline).is_some()
}
