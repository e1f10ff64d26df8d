//! `tapswitch explain`: why a container does not reach something, said by one command that sends nothing.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tapswitch_tests::{Enter, HOST, Recorder, Switch, Wire, World, serve_tcp};

/// What is said of a packet, by name where it is dropped.
fn outcome(said: &Value) -> (&str, &str) {
    (said["outcome"].as_str().unwrap_or_default(), said["reason"].as_str().unwrap_or_default())
}

#[test]
fn each_usual_case_is_answered_and_nothing_is_sent() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    a.cmd(&format!("ping -n -c 1 -W 3 {}", b.ip())).ok();
    let mut wires = [Wire::open(&a, "eth0"), Wire::open(&b, "eth0")];
    for (packet, expected) in [
        (format!("--to {HOST} --dport 22"), ("dropped", "policy-denied")),
        ("--to 169.254.169.254 --dport 80".into(), ("dropped", "policy-denied")),
        (format!("--to {HOST} --src 192.168.7.7"), ("dropped", "spoofed-source")),
        ("--to 10.88.0.99".into(), ("unsent", "neighbour-unresolved")),
        ("--to 10.88.0.1 --dport 81".into(), ("dropped", "no-such-service")),
        ("--to no-such-name.invalid --dport 80".into(), ("unsent", "name-not-resolved")),
        ("--to b --proto icmp".into(), ("forwarded", "")),
        ("--to b --dport 80".into(), ("forwarded", "")),
        ("--to b --proto udp --size 9000 --df".into(), ("dropped", "above-mtu")),
        ("--to 10.88.0.1".into(), ("taken-in", "")),
        ("--to 198.51.100.200 --dport 443".into(), ("relayed", "")),
    ] {
        let said = switch.json(&format!("explain --from a {packet}"));
        assert_eq!(outcome(&said), expected, "{packet}: {said:#}");
        let text = switch.cli(&format!("explain --from a {packet}")).ok();
        let ends = said["verdict"].as_str().and_then(|verdict| verdict.split(':').next()).unwrap_or_default();
        assert!(text.contains(&format!("  = {ends}")), "{text}");
        assert_eq!(text.contains("  to do"), said["remedy"].is_string(), "{text}");
        assert_eq!(said["remedy"].is_string(), !expected.1.is_empty(), "{said:#}");
    }
    for reason in ["policy-denied", "spoofed-source", "no-such-service", "above-mtu"] {
        assert_eq!(switch.drops(reason), 0, "{reason}: asking is no drop");
    }
    assert_eq!(switch.rows("show flows"), Vec::<Value>::new());
    for wire in &mut wires {
        let packet = wire.find(Duration::from_millis(300), |frame| (frame[12..14] == [8, 0]).then(|| frame.to_vec()));
        assert_eq!(packet, None, "a packet passed");
    }
}

#[test]
fn what_is_explained_is_what_then_happens() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let file = world.home().join("a.pcap");
    let recorder = Recorder::start(&a, "eth0", &file);
    a.cmd(&format!("ping -n -c 1 -W 1 {HOST}")).fails();
    let (_, frames) = recorder.stop();
    assert_eq!(switch.drops("policy-denied"), 1);
    let explain = |number| switch.json(&format!("explain --from a --pcap {} --packet {number}", file.display()));
    let said: Vec<Value> = (1..=frames).map(explain).collect();
    let request = said.iter().find(|said| said["frame"].as_str().is_some_and(|frame| frame.contains("echo request")));
    let request = request.unwrap_or_else(|| panic!("no ping in {said:#?}"));
    assert_eq!(outcome(request), ("dropped", "policy-denied"));
    assert_eq!(switch.drops("policy-denied"), 1, "none was dropped by asking");
    let none = switch.cli(&format!("explain --from a --pcap {} --packet {}", file.display(), frames + 1)).fails();
    none.says(&format!("there are {frames} packets"));
    fs::remove_file(&file).expect("it is there");
}

#[test]
fn probing_finds_out_whether_somebody_listens() {
    let world = World::new();
    let open: SocketAddr = format!("{HOST}:8000").parse().expect("an address");
    let _server = serve_tcp(world.gw(), open, |_| Ok(()));
    let switch = Switch::up(&world, &format!("--allow {HOST}"));
    let _a = switch.join("a", "");
    let note = |options: &str| switch.json(&format!("explain --from a {options}"))["notes"].to_string();
    assert!(note(&format!("--to {HOST} --dport 8000")).contains("add --probe"));
    assert!(note(&format!("--to {HOST} --dport 8000 --probe")).contains("somebody listens"));
    assert!(note(&format!("--to {HOST} --dport 8001 --probe")).contains("nobody listens"));
    assert!(note("--to 10.88.0.1 --probe").contains("nothing was tried"));
}
