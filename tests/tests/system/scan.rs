//! What a port scanner makes of the outside, through the switch.

use std::net::SocketAddr;
use std::time::Duration;

use tapswitch_tests::{Enter, INET, NOBODY, SILENT_PORT, Switch, World, needs, serve_tcp};

/// Open, closed and silent ports of the server must look to a container as they look to the host itself.
fn scan(kind: &str) {
    let world = World::new();
    let open: SocketAddr = format!("{INET}:9000").parse().expect("an address");
    let _server = serve_tcp(world.inet(), open, |_| Ok(()));
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let line = format!("nmap -n -Pn {kind} --max-retries 1 --host-timeout 30s -p 9000,9001,{SILENT_PORT} {INET}");
    let found = a.cmd(&line).limit(Duration::from_secs(60)).ok();
    for expected in ["9000/tcp open", "9001/tcp closed", &format!("{SILENT_PORT}/tcp filtered")] {
        assert!(found.contains(expected), "{expected} is missing: {found}");
    }
    let absent = format!("nmap -n -Pn {kind} --max-retries 1 --host-timeout 30s -p 9000 {NOBODY}");
    let found = a.cmd(&absent).limit(Duration::from_secs(60)).ok();
    assert!(found.contains("9000/tcp filtered"), "{found}");
}

#[test]
fn nmap_connect_scan_sees_ports_as_they_are() {
    needs!("nmap");
    scan("-sT");
}

#[test]
fn nmap_syn_scan_sees_ports_as_they_are() {
    needs!("nmap");
    scan("-sS");
}
