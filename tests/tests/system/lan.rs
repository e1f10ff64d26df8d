//! Containers among themselves.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tapswitch_tests::{Container, Digest, Enter, GATEWAY, Switch, World, needs, receive, send};

const MANY: u64 = 100 << 20;

/// Sends `len` bytes each way, one connection after the other, and compares what arrives.
pub(crate) fn transfer(from: &Container, to: &Container, len: u64) {
    let address: SocketAddr = format!("{}:5001", to.ip()).parse().expect("an address");
    let listener = to.inside(|| TcpListener::bind(address)).expect("a listener");
    let (sent, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| accept(&listener));
        let sent = from.inside(|| push(address, len));
        (sent, receiver.join().expect("the receiver does not panic"))
    });
    assert_eq!(sent, received, "{} -> {}", from.name(), to.name());
    assert_eq!(received.len, len);
}

fn push(address: SocketAddr, len: u64) -> Digest {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("connects");
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    send(&mut stream, len, len).expect("sends all")
}

fn accept(listener: &TcpListener) -> Digest {
    let (mut stream, _) = listener.accept().expect("accepts");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    receive(&mut stream).expect("receives all")
}

fn offloads(container: &Container, state: &str) {
    container
        .cmd(&format!("ethtool -K eth0 tso {state} gso {state} gro {state} tx {state} rx {state} sg {state}"))
        .ok();
}

#[test]
fn br_1_three_containers_ping_each_other_and_the_gateway() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let all = ["a", "b", "c"].map(|name| switch.join(name, ""));
    for from in &all {
        for to in all.iter().map(Container::ip).chain([GATEWAY]) {
            from.cmd(&format!("ping -n -c 2 -i 0.05 -W 3 {to}")).ok();
        }
    }
    let stations = switch.rows("show fdb");
    for container in &all {
        let found = stations.iter().any(|row| row["name"] == container.name());
        assert!(found, "{} was not learned: {stations:?}", container.name());
    }
}

#[test]
fn tcp_between_containers_carries_100_mb_intact_with_offloads() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    transfer(&a, &b, MANY);
    transfer(&b, &a, MANY);
}

#[test]
fn tcp_between_containers_carries_100_mb_intact_with_kernel_offloads_off() {
    needs!("ethtool");
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    offloads(&a, "off");
    offloads(&b, "off");
    transfer(&a, &b, MANY);
    offloads(&b, "on");
    transfer(&a, &b, MANY);
    transfer(&b, &a, MANY);
}

#[test]
fn br_9_super_frames_are_segmented_for_a_plain_tap() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (fast, plain) = (switch.join("fast", ""), switch.join("plain", "--no-offload"));
    let offload = |name| switch.port(name).expect("a port")["offload"].clone();
    assert_eq!((offload("fast"), offload("plain")), (true.into(), false.into()));
    transfer(&fast, &plain, MANY);
    transfer(&plain, &fast, MANY);
    assert_eq!(switch.drops("above-mtu") + switch.drops("cannot-segment"), 0);
}

#[test]
fn br_9_a_frame_above_the_mtu_is_dropped_and_counted() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    a.cmd("ip link set eth0 mtu 4000").ok();
    a.cmd(&format!("ping -n -c 1 -W 1 -s 3000 -M do {}", b.ip())).fails();
    assert_eq!(switch.drops("above-mtu"), 1);
    a.cmd(&format!("ping -n -c 1 -W 3 -s 1472 -M do {}", b.ip())).ok();
}

#[test]
fn a_network_carries_its_own_mtu() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "--mtu 9000");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    a.cmd(&format!("ping -n -c 1 -W 3 -s 8972 -M do {}", b.ip())).ok();
    a.cmd(&format!("ping -n -c 1 -W 1 -s 8973 -M do {}", b.ip())).fails();
}

#[test]
fn ar_1_probing_finds_free_addresses_free_and_the_gateway_taken() {
    needs!("busybox");
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    // With -D, arping succeeds if nobody answers.
    a.cmd("busybox arping -q -D -I eth0 -c 2 -w 2 10.88.0.77").ok();
    a.cmd(&format!("busybox arping -q -D -I eth0 -c 2 -w 2 {GATEWAY}")).fails();
}
