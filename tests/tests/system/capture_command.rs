//! `tapswitch capture`: what Wireshark's own reader finds in the files, and how a capture ends.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tapswitch_tests::{Cmd, Container, Enter, INET, Running, Switch, World, eventually, needs};

const SOON: Duration = Duration::from_secs(20);
/// One line for each packet.
const FIELDS: [&str; 10] = [
    "-T",
    "fields",
    "-e",
    "frame.interface_name",
    "-e",
    "frame.packet_flags_direction",
    "-e",
    "ip.src",
    "-e",
    "frame.comment",
];
/// As tshark prints it.
const INBOUND: &str = "0x00000001";

fn tshark(file: &Path, fields: &[&str]) -> Vec<String> {
    let file = file.to_str().expect("a path of text");
    // A file that is not whole makes tshark fail.
    let text = Cmd::new(["tshark", "-n", "-r", file]).args(fields).env("HOME", "/").limit(SOON).ok();
    text.lines().map(str::to_owned).collect()
}

fn begin(world: &World, switch: &Switch<'_>, line: &str) -> Running {
    let mut capture = switch.cli(line).spawn(&world.dir().join("capture.log"));
    capture.until_says("capturing into", SOON);
    capture
}

fn ping(from: &Container, count: usize, to: &str) {
    from.cmd(&format!("ping -n -c {count} -i 0.05 -W 3 {to}")).ok();
}

#[test]
fn wireshark_shows_port_direction_and_what_became_of_each_packet() {
    needs!("tshark");
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    let file = world.home().join("icmp.pcapng");
    let mut capture = begin(&world, &switch, &format!("capture -w {} icmp", file.display()));
    ping(&a, 2, b.ip());
    a.cmd(&format!("ping -n -c 1 -W 1 -t 1 {INET}")).fails();
    let echoes = |lines: &[String]| lines.iter().filter(|line| !line.contains("gateway\t")).count();
    let lines = eventually("all packets are in the file", SOON, || {
        let lines = tshark(&file, &FIELDS);
        (echoes(&lines) >= 5).then_some(lines)
    });
    assert_eq!(echoes(&lines), 5, "{lines:#?}");
    for (port, address, to, count) in [("default/a", a.ip(), "b", 2), ("default/b", b.ip(), "a", 2)] {
        let begins = format!("{port}\t{INBOUND}\t{address}\tforwarded to {to}");
        assert_eq!(lines.iter().filter(|line| line.starts_with(&begins)).count(), count, "{begins}: {lines:#?}");
    }
    let dropped: Vec<_> = lines.iter().filter(|line| line.contains("dropped, ttl-exceeded: ")).collect();
    assert_eq!(dropped.len(), 1, "{lines:#?}");
    assert!(dropped[0].starts_with("default/a\t") && dropped[0].contains("gateway: "), "{dropped:?}");
    capture.signal(Signal::SIGINT);
    assert!(capture.wait(SOON).success(), "{}", capture.output());
    assert!(capture.output().contains(&format!("{} packets in {}", lines.len(), file.display())));
    assert_eq!(tshark(&file, &FIELDS), lines, "whole after the end too");
}

#[test]
fn packets_have_complete_checksums_although_the_containers_leave_them_open() {
    needs!("tshark", "curl", "busybox");
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    let file = world.home().join("tcp.pcapng");
    let mut capture = begin(&world, &switch, &format!("capture -w {} --port a -c 8 tcp", file.display()));
    fs::write(world.dir().join("page"), vec![b'x'; 200_000]).expect("fits");
    let serve = format!("busybox httpd -f -p 80 -h {}", world.dir().display());
    let _server = b.cmd(&serve).spawn(&world.dir().join("httpd.log"));
    let get = format!("curl -sSf --retry 20 --retry-delay 1 --retry-connrefused -o /dev/null http://{}/page", b.ip());
    a.cmd(&get).ok();
    assert!(capture.wait(SOON).success(), "{}", capture.output());
    let wrong = ["-o", "tcp.check_checksum:TRUE", "-Y", "tcp.checksum.status != \"Good\" || _ws.malformed"];
    assert_eq!(tshark(&file, &wrong), [""; 0]);
    assert_eq!(tshark(&file, &FIELDS).len(), 8);
}

#[test]
fn a_pipe_into_tshark_shows_packets_as_they_pass() {
    needs!("tshark");
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    let pipe = Cmd::new(["sh", "-c", "\"$@\" | HOME=/ tshark -n -l -r - -T fields -e frame.comment", "sh"]);
    let mut pipe = pipe.then(switch.cli("capture -w - icmp")).spawn(&world.dir().join("pipe.log"));
    pipe.until_says("capturing into stdout", SOON);
    ping(&a, 1, b.ip());
    pipe.until_says("forwarded to b", SOON);
    pipe.until_says("forwarded to a", SOON);
}

#[test]
fn a_ring_of_files_is_bounded_and_each_file_can_be_read_alone() {
    needs!("tshark");
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    let file = world.home().join("ring");
    let line = format!("capture -w {} --size 3kb --files 3 -c 30 --json icmp", file.display());
    let mut capture = switch.cli(&line).spawn(&world.dir().join("capture.log"));
    // With --json nothing is said at the beginning, but the first file is there.
    eventually("the capture has begun", SOON, || file.exists().then_some(()));
    ping(&a, 15, b.ip());
    assert!(capture.wait(SOON).success(), "{}", capture.output());
    let said: serde_json::Value = serde_json::from_str(&capture.output()).expect("JSON");
    assert_eq!((&said["packets"], &said["missed"]), (&30.into(), &0.into()));
    let files: Vec<&str> = said["files"].as_array().expect("a list").iter().filter_map(|name| name.as_str()).collect();
    assert_eq!(files.len(), 3);
    let mut times = Vec::new();
    for name in &files {
        assert!(fs::metadata(name).expect("is there").len() <= 3_000, "{name}");
        times.extend(tshark(Path::new(name), &["-T", "fields", "-e", "frame.time_epoch"]));
    }
    assert!(times.len() < 30 && times.is_sorted(), "oldest first, and the very first are gone: {times:?}");
    assert!(!world.home().join("ring.3").exists());
}

#[test]
fn a_capture_ends_when_its_time_is_over_and_says_why_it_cannot_begin() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let file = world.home().join("a.pcapng");
    let line = format!("capture -w {} --seconds 1", file.display());
    switch.cli(&line).ok();
    fs::write(&file, "precious").expect("a file");
    switch.cli(&format!("capture -w {} prot tcp", file.display())).fails().says("prot");
    assert_eq!(fs::read_to_string(&file).expect("a file"), "precious", "a wrong filter empties no file");
    switch.cli("capture -w /no/such/directory/a.pcapng").fails().says("/no/such/directory/a.pcapng");
    switch.cli("capture -w /dev/full").fails().says("no space left");
    let done = switch.cli("capture -w - --size 1mb --files 2").fails();
    assert_eq!(done.status.code(), Some(2), "{}", done.report());
}
