//! Order, and nothing lost or doubled, whatever happens at other ports.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use tapswitch_tests::{Container, Enter, Switch, World, eventually};

use super::{Numbered, PORT, WINDOW, count, drops, quiet, receiver, silence};

const BROADCAST: &str = "10.88.0.255";
const HERE: &[u8] = b"here";
/// How often each of the guests comes and goes.
const VISITS: u32 = 6;

both_ways!(
    br_8_order_holds_while_others_attach_and_detach,
    br_3_a_station_moves_under_load_and_nothing_is_lost_or_doubled,
    br_8_a_stuck_port_loses_only_its_own,
    br_8_order_holds_with_queues_shared_out_and_answers_on_the_way,
);

fn names(switch: &Switch<'_>, listing: &str) -> Vec<String> {
    let mut names: Vec<_> =
        switch.rows(listing).iter().filter_map(|row| row["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

fn br_8_order_holds_while_others_attach_and_detach(options: &str) {
    let world = World::new();
    let switch = Switch::up(&world, options);
    let (a, b) = (quiet(&world, &switch, "a", ""), quiet(&world, &switch, "b", ""));
    let receiver = receiver(&b);
    // A kernel may let datagrams overtake those that wait for its neighbour's address.
    a.cmd(&format!("ping -n -c 1 -W 5 {}", b.ip())).ok();
    let mut numbers = Numbered::new(&a, b.ip());
    let guests: Vec<_> = (0..4).map(|at| Container::new(&world, &format!("guest{at}"))).collect();
    guests.iter().for_each(silence);
    thread::scope(|scope| {
        let visits = guests.iter().map(|guest| scope.spawn(|| (0..VISITS).for_each(|_| visit(&switch, guest, a.ip()))));
        let visits: Vec<_> = visits.collect();
        while !visits.iter().all(thread::ScopedJoinHandle::is_finished) {
            numbers.window(&[&receiver]);
        }
    });
    numbers.window(&[&receiver]);
    assert_eq!(names(&switch, "show ports"), ["a", "b"]);
    eventually("no guest is remembered", Duration::from_secs(2), || {
        (names(&switch, "show fdb") == ["a", "b", "gateway"]).then_some(())
    });
    assert_eq!(drops(&switch), []);
    numbers.end(&[&receiver]);
}

fn visit(switch: &Switch<'_>, guest: &Container, to: &str) {
    switch.cli(&format!("attach {} --name {}", guest.target(), guest.name())).ok();
    guest.cmd(&format!("ping -n -c 1 -W 5 {to}")).ok();
    switch.cli(&format!("detach {}", guest.name())).ok();
    assert_eq!(guest.interfaces(), ["lo"], "it was said that the interface is gone");
}

/// Says by a broadcast that its address is here now.
fn claim(socket: &UdpSocket) {
    socket.send_to(HERE, (BROADCAST, PORT + 1)).expect("sends");
}

fn br_3_a_station_moves_under_load_and_nothing_is_lost_or_doubled(options: &str) {
    let world = World::new();
    let switch = Switch::up(&world, options);
    let [a, first, second] = ["a", "first", "second"].map(|name| quiet(&world, &switch, name, ""));
    let port = switch.port("first").expect("a port");
    let (mac, ip) = (port["mac"].as_str().expect("an address"), first.ip());
    // No neighbour is asked for in the middle of it: an answer would be a move, too.
    a.cmd(&format!("ip neigh replace {ip} lladdr {mac} nud permanent dev eth0")).ok();
    let witness = a.inside(|| UdpSocket::bind(("0.0.0.0", PORT + 1))).expect("binds");
    witness.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let moved = || assert_eq!(witness.recv(&mut [0; 8]).expect("the claim arrives"), HERE.len());
    let speaker = |container: &Container| {
        let socket = container.inside(|| UdpSocket::bind((ip, 0))).expect("binds");
        socket.set_broadcast(true).expect("a socket may broadcast");
        socket
    };
    let sinks = [receiver(&first), receiver(&second)];
    let sinks = [&sinks[0], &sinks[1]];
    let mut numbers = Numbered::new(&a, ip);
    let all = WINDOW as usize;

    let here = speaker(&first);
    claim(&here);
    moved();
    assert_eq!(numbers.window(&sinks), [all, 0]);
    let there = thread::scope(|scope| {
        let takeover = scope.spawn(|| {
            let script = format!(
                "ip addr flush dev eth0
                 ip addr add {ip}/24 dev eth0
                 ip link set eth0 address {mac}"
            );
            second.cmd("sh -e").input(script).ok();
            let there = speaker(&second);
            claim(&there);
            moved();
            there
        });
        while !takeover.is_finished() {
            numbers.window(&sinks);
        }
        takeover.join().expect("the second takes over")
    });
    assert_eq!(numbers.window(&sinks), [0, all]);

    let mut came = [0, 0];
    thread::scope(|scope| {
        let moves = scope.spawn(|| {
            for at in 0..500 {
                claim(if at % 2 == 0 { &here } else { &there });
                moved();
            }
        });
        while !moves.is_finished() {
            let window = numbers.window(&sinks);
            came = [came[0] + window[0], came[1] + window[1]];
        }
    });
    assert!(came[0] > 0 && came[1] > 0, "{came:?}");
    assert_eq!(numbers.window(&sinks), [0, all]);
    numbers.end(&sinks);
    assert_eq!(drops(&switch), []);
}

/// Datagrams that the container's kernel dropped because a socket was full.
fn overflows(container: &Container) -> u64 {
    let table = container.cmd("cat /proc/net/snmp").ok();
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("Udp: ")).map(str::split_whitespace);
    let (names, mut counts) = (rows.next().expect("the names"), rows.next().expect("the counts"));
    let count = names.zip(&mut counts).find(|(name, _)| *name == "RcvbufErrors").expect("it is counted").1;
    count.parse().expect("a number")
}

fn br_8_a_stuck_port_loses_only_its_own(options: &str) {
    const WINDOWS: u32 = 100;
    let world = World::new();
    let switch = Switch::up(&world, options);
    let [a, b, deaf, down] = ["a", "b", "deaf", "down"].map(|name| quiet(&world, &switch, name, ""));
    let sink = receiver(&b);
    // Nobody ever reads it, as of a process that is stopped.
    let _stuck = receiver(&deaf);
    down.cmd("ip link set eth0 down").ok();
    let before = count(&switch, "deaf", "tx_frames");
    let mut numbers = Numbered::new(&a, BROADCAST);
    for _ in 0..WINDOWS {
        numbers.window(&[&sink]);
    }
    numbers.end(&[&sink]);
    assert!(overflows(&deaf) > 0, "its socket took everything");
    let sent = u64::from(WINDOWS * WINDOW);
    assert_eq!(count(&switch, "deaf", "tx_frames") - before, sent, "the switch has no part in that loss");
    assert_eq!(drops(&switch), [("down".into(), "port-down".into(), sent)]);
}

/// A kernel sends a flow by the queue by which its answers come. Where the queues of both ends are shared out alike, that
/// is where it was anyway.
fn br_8_order_holds_with_queues_shared_out_and_answers_on_the_way(options: &str) {
    const FLOWS: u32 = 40;
    let world = World::new();
    let switch = Switch::up(&world, &format!("{options} --queues 2"));
    let [a, b] = ["a", "b"].map(|name| quiet(&world, &switch, name, ""));
    let sink = receiver(&b);
    a.cmd(&format!("ping -n -c 1 -W 5 {}", b.ip())).ok();
    for _ in 0..FLOWS {
        let mut numbers = Numbered::new(&a, b.ip());
        let to = (a.ip(), numbers.socket.local_addr().expect("a bound socket").port());
        numbers.window(&[&sink]);
        thread::scope(|scope| {
            let answers = scope.spawn(|| (0..200).for_each(|_| assert!(sink.send_to(b"answer", to).is_ok())));
            while !answers.is_finished() {
                numbers.window(&[&sink]);
            }
        });
        numbers.window(&[&sink]);
        numbers.end(&[&sink]);
    }
}
