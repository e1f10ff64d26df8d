//! Super-frames: cut for ports that need it, made of segments for ports that gain by it.

use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use serde_json::Value;
use tapswitch_tests::{Container, Enter, Switch, World, eventually, needs};

use super::{PORT, count, quiet};
use crate::lan::transfer;

const BYTES: u64 = 20 << 20;
const SEGMENTS: usize = 30;

both_ways!(
    br_9_segments_of_a_plain_port_are_coalesced_and_super_frames_cut_for_it,
    br_9_plain_ports_among_themselves,
    br_9_one_send_of_many_datagrams_crosses_as_one_frame_and_arrives_as_many,
    br_9_a_super_frame_counts_by_its_segments,
);

/// Frames and bytes that the switch sent to a port.
fn received(switch: &Switch<'_>, name: &str) -> [u64; 2] {
    ["tx_frames", "tx_bytes"].map(|counter| count(switch, name, counter))
}

/// Frames and bytes that a container's kernel handed to its interface.
fn sent(container: &Container) -> [u64; 2] {
    let links = container.cmd("ip -statistics -json link show dev eth0").ok();
    let links: Value = serde_json::from_str(&links).expect("ip speaks JSON");
    ["packets", "bytes"].map(|counter| links[0]["stats64"]["tx"][counter].as_u64().expect("a counter"))
}

/// Bytes of a frame on average.
fn mean(before: [u64; 2], after: [u64; 2]) -> u64 {
    (after[1] - before[1]) / (after[0] - before[0])
}

fn br_9_segments_of_a_plain_port_are_coalesced_and_super_frames_cut_for_it(options: &str) {
    let world = World::new();
    let switch = Switch::up(&world, options);
    let (fast, plain) = (quiet(&world, &switch, "fast", ""), quiet(&world, &switch, "plain", "--no-offload"));
    let before = (sent(&plain), received(&switch, "fast"));
    transfer(&plain, &fast, BYTES);
    let (single, joined) = (mean(before.0, sent(&plain)), mean(before.1, received(&switch, "fast")));
    // At least two were joined on average; it is some twenty where nobody else wants the processors.
    assert!(single <= 1_514 && joined > 3_000, "frames of {joined} bytes, of segments of {single}");
    transfer(&fast, &plain, BYTES);
    assert_eq!(switch.drops("above-mtu") + switch.drops("cannot-segment"), 0);
}

fn br_9_plain_ports_among_themselves(options: &str) {
    let world = World::new();
    let switch = Switch::up(&world, options);
    let (a, b) = (quiet(&world, &switch, "a", "--no-offload"), quiet(&world, &switch, "b", "--no-offload"));
    transfer(&a, &b, BYTES);
    transfer(&b, &a, BYTES);
}

/// Where datagrams of one send are counted as they come out.
struct Datagrams {
    from: UdpSocket,
    into: UdpSocket,
}

impl Datagrams {
    /// Between two containers that know each other's address.
    fn new(from: &Container, to: &Container) -> Self {
        let into = to.inside(|| UdpSocket::bind((to.ip(), PORT))).expect("binds");
        into.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let socket = from.inside(|| UdpSocket::bind((from.ip(), 0))).expect("binds");
        socket.connect((to.ip(), PORT)).expect("connects");
        let datagrams = Self { from: socket, into };
        datagrams.send(1, 1);
        datagrams.receive(1, 1);
        datagrams
    }

    /// Sends `count` datagrams of `size` bytes in one call.
    fn send(&self, size: usize, count: usize) {
        setsockopt(&self.from, UdpGsoSegment, &i32::try_from(size).expect("a small number")).expect("sets the size");
        let bytes: Vec<u8> = (0..count).flat_map(|number| vec![number as u8; size]).collect();
        assert_eq!(self.from.send(&bytes).expect("sends"), bytes.len());
    }

    #[track_caller]
    fn receive(&self, size: usize, count: usize) {
        let mut datagram = [0; 65_536];
        for number in 0..count {
            let len = self.into.recv(&mut datagram).unwrap_or_else(|e| panic!("datagram {number} of {count}: {e}"));
            assert_eq!(len, size);
            assert!(datagram[..len].iter().all(|byte| *byte == number as u8), "datagram {number} is another");
        }
    }
}

/// Whether this container's kernel leaves it to the switch to cut datagrams (Linux 6.2).
fn has_uso(container: &Container) -> bool {
    container.cmd("ethtool -k eth0").ok().contains("tx-udp-segmentation: on")
}

fn br_9_one_send_of_many_datagrams_crosses_as_one_frame_and_arrives_as_many(options: &str) {
    needs!("ethtool");
    let world = World::new();
    let switch = Switch::up(&world, options);
    let [a, b] = ["a", "b"].map(|name| quiet(&world, &switch, name, ""));
    let plain = quiet(&world, &switch, "plain", "--no-offload");
    let frames = if has_uso(&a) { 1 } else { SEGMENTS as u64 };
    for to in [&b, &plain] {
        let datagrams = Datagrams::new(&a, to);
        let (sent, received) = (count(&switch, "a", "rx_frames"), count(&switch, to.name(), "tx_frames"));
        datagrams.send(1_000, SEGMENTS);
        datagrams.receive(1_000, SEGMENTS);
        // The port counts what it was given, before it cuts.
        let crossed = [count(&switch, "a", "rx_frames") - sent, count(&switch, to.name(), "tx_frames") - received];
        assert_eq!(crossed, [frames; 2], "to {}", to.name());
    }
    // The other way round, the datagrams come one by one, and stay so.
    let datagrams = Datagrams::new(&plain, &a);
    datagrams.send(1_000, SEGMENTS);
    datagrams.receive(1_000, SEGMENTS);
}

fn br_9_a_super_frame_counts_by_its_segments(options: &str) {
    const COUNT: usize = 10;
    needs!("ethtool");
    let world = World::new();
    let switch = Switch::up(&world, options);
    let [a, b] = ["a", "b"].map(|name| quiet(&world, &switch, name, ""));
    a.cmd("ip link set eth0 mtu 4000").ok();
    let datagrams = Datagrams::new(&a, &b);
    // 28 bytes of headers.
    datagrams.send(1_472, COUNT);
    datagrams.receive(1_472, COUNT);
    assert_eq!(switch.drops("above-mtu"), 0);
    datagrams.send(1_473, COUNT);
    let dropped = if has_uso(&a) { 1 } else { COUNT as u64 };
    eventually("the drop is counted", Duration::from_secs(5), || (switch.drops("above-mtu") == dropped).then_some(()));
    datagrams.send(1_000, 1);
    // What comes first is what was sent last.
    datagrams.receive(1_000, 1);
}
