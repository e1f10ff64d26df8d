//! What other programs make of the frames that the switch emits.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tapswitch_tests::{Cmd, Enter, GATEWAY, HOST, INET, NOBODY, Switch, World, echo_udp, needs, send};

use crate::{lan, outside};

/// What no frame of ours may be. An expert note such as a retransmission is allowed, an error is not.
const WRONG: &str = "_ws.malformed || _ws.expert.severity == error || ip.checksum.status == 0 || tcp.checksum.status == 0 \
                     || udp.checksum.status == 0 || icmp.checksum.status == 0";

/// Bytes of each transfer: enough for super-frames, few enough for tshark.
const FEW: u64 = 2 << 20;

const CHECKS: [&str; 3] = ["ip.check_checksum:TRUE", "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE"];

/// What tshark prints for the frames that match `filter`.
pub(crate) fn tshark(capture: &Path, filter: &str, output: &[&str]) -> String {
    let checks = CHECKS.iter().flat_map(|check| ["-o", check]);
    let file = capture.to_str().expect("a path of text");
    let line = Cmd::new(["tshark", "-n", "-r", file, "-Y", filter]).args(checks).args(output);
    line.env("HOME", "/").limit(Duration::from_secs(120)).ok()
}

/// A bit of everything: ARP, DHCP, ping, TCP, UDP, DNS, refusals and errors, among all kinds of ports.
fn everything(world: &World, switch: &Switch<'_>) {
    let (a, b, plain) = (switch.join("a", ""), switch.join("b", ""), switch.join("plain", "--no-offload"));
    let client = switch.join("client", "--dhcp");
    client.cmd("udhcpc -f -q -n -i eth0 -s /bin/true -t 10 -T 1").ok();
    let upload = world.dir().join("upload");
    let mut file = File::create(&upload).expect("a file");
    send(&mut file, 1, FEW).expect("2 MB fit on the disk");
    for container in [&a, &b, &plain] {
        for to in [GATEWAY, INET, a.ip(), plain.ip()] {
            container.cmd(&format!("ping -n -c 2 -i 0.05 -W 3 -s 1000 {to}")).ok();
        }
        container.cmd(&format!("curl -sSf --range 0-{FEW} -o /dev/null http://{INET}/file")).ok();
        container.cmd(&format!("curl -sSf -T {} http://{INET}/up/{}", upload.display(), container.name())).ok();
        container.cmd(&format!("busybox nslookup web.test {GATEWAY}")).run();
        for closed in [format!("{INET}:1"), format!("{NOBODY}:80"), format!("{HOST}:22")] {
            let closed: SocketAddr = closed.parse().expect("an address");
            container
                .inside(|| TcpStream::connect_timeout(&closed, Duration::from_secs(5)))
                .expect_err("no such server");
        }
        container.cmd(&format!("ping -n -c 1 -W 1 -t 1 {INET}")).fails();
        container.cmd(&format!("traceroute -n -m 3 -q 1 -w 1 {INET}")).run();
    }
    lan::transfer(&a, &b, FEW);
    lan::transfer(&a, &plain, FEW);
    lan::transfer(&plain, &b, FEW);
    let echo: SocketAddr = format!("{INET}:7000").parse().expect("an address");
    let _server = echo_udp(world.inet(), echo);
    for container in [&a, &plain] {
        let socket = container.inside(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        for len in [0, 1, 999, 1472] {
            socket.send_to(&vec![7; len], echo).expect("sends");
            assert_eq!(socket.recv(&mut [0; 2000]).expect("an echo"), len);
        }
    }
}

#[test]
fn tshark_finds_nothing_wrong_with_what_the_switch_emits() {
    needs!("tshark", "curl", "nginx", "dnsmasq", "udhcpc", "busybox", "traceroute");
    let world = World::new();
    let _web = outside::web(&world);
    let _dns = outside::name_server(&world);
    let mut switch = Switch::up_with_capture(&world, &format!("--dns {INET}:53"));
    everything(&world, &switch);
    switch.daemon().signal(Signal::SIGTERM);
    switch.daemon().wait(Duration::from_secs(20));
    let capture = switch.capture().expect("a capture").clone();
    let seen = "arp || dhcp || icmp || dns || tcp.flags.reset == 1 || tcp.flags.syn == 1";
    let seen = tshark(&capture, seen, &["-T", "fields", "-e", "_ws.col.Protocol", "-e", "_ws.col.Info"]);
    for expected in
        ["ARP", "DHCP", "ICMP\tDestination", "ICMP\tTime-to-live", "ICMP\tEcho", "DNS", "[RST", "[SYN]", "[SYN, ACK]"]
    {
        assert!(seen.contains(expected), "the capture holds no {expected}");
    }
    let wrong = tshark(&capture, WRONG, &[]);
    let first: Vec<&str> = wrong.lines().take(20).collect();
    assert!(wrong.is_empty(), "{} frames, first of them:\n{}", wrong.lines().count(), first.join("\n"));
}
