//! A port scanner in a container must find what the same scanner finds on the host itself.

use std::collections::BTreeMap;
use std::time::Duration;

use tapswitch_tests::{Enter, INET, NOBODY, SILENT_PORT, Service, Switch, World, echo_udp, needs, serve_tcp};

use super::at;

/// Addresses to which the router has no way, and says so: by a rule, and by a route.
const REJECTED: &str = "203.0.113.7";
const NO_ROUTE: &str = "203.0.113.8";

/// Ports of the server: who answers, and how those that do not.
const OPEN: u16 = 9000;
const CLOSED: u16 = 9001;
const NO_HOST: u16 = 9002;
const PROHIBITED: u16 = 9003;

/// A server with a port of each kind, and a router that says where it has no way.
fn target(world: &World) -> Vec<Service> {
    let rules = format!(
        "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
         nft -f - <<'RULES'
         table inet refusals {{
             chain input {{
                 type filter hook input priority filter
                 tcp dport {NO_HOST} reject with icmp host-unreachable
                 udp dport {NO_HOST} reject with icmp host-unreachable
                 tcp dport {PROHIBITED} reject with icmp admin-prohibited
                 udp dport {PROHIBITED} reject with icmp admin-prohibited
             }}
         }}\nRULES\n"
    );
    world.inet().cmd("sh -e").input(rules).ok();
    let router = format!(
        "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
         ip route add {REJECTED} dev wan
         nft -f - <<'RULES'
         table ip refusals {{
             chain forward {{
                 type filter hook forward priority filter
                 ip daddr {REJECTED} reject with icmp net-unreachable
             }}
         }}
RULES\n"
    );
    world.rt().cmd("sh -e").input(router).ok();
    vec![serve_tcp(world.inet(), at(INET, OPEN), |_| Ok(())), echo_udp(world.inet(), at(INET, OPEN))]
}

/// Address and port, with their state and whether silence was the reason.
fn scan(from: &impl Enter, kind: &str) -> BTreeMap<String, (String, bool)> {
    let ports = format!("{OPEN},{CLOSED},{NO_HOST},{PROHIBITED},{SILENT_PORT}");
    let line = format!(
        "nmap -n -Pn {kind} --reason --max-retries 1 --initial-rtt-timeout 200ms --max-rtt-timeout 500ms \
         --host-timeout 30s -p {ports} {INET} {REJECTED}"
    );
    let report = from.cmd(&line).limit(Duration::from_secs(60)).ok();
    let mut found = BTreeMap::new();
    let mut host = "";
    for line in report.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["Nmap", "scan", "report", "for", name] => host = name,
            [port, state, _, reason, ..] if port.contains("/tcp") || port.contains("/udp") => {
                found.insert(format!("{host} {port}"), (state.to_owned(), reason == "no-response"));
            }
            _ => {}
        }
    }
    assert_eq!(found.len(), 10, "five ports of two hosts: {report}");
    found
}

/// What the host sees is what there is; what the container sees is what the host sees.
fn agrees(kind: &str, expected: &[(u16, &str)]) {
    let world = World::new();
    let _servers = target(&world);
    let truth = scan(world.gw(), kind);
    let proto = if kind == "-sU" { "udp" } else { "tcp" };
    for (port, state) in expected {
        assert_eq!(truth[&format!("{INET} {port}/{proto}")].0, *state, "the world is another: {truth:?}");
    }
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let seen = scan(&a, kind);
    for (port, truth) in &truth {
        assert_eq!(seen[port], *truth, "{port}, by {kind}: its state, and whether for silence\n{seen:#?}");
    }
}

const TCP: [(u16, &str); 5] =
    [(OPEN, "open"), (CLOSED, "closed"), (NO_HOST, "filtered"), (PROHIBITED, "filtered"), (SILENT_PORT, "filtered")];

#[test]
fn tr_1_ni_6_nmaps_connect_scan_finds_what_it_finds_on_the_host() {
    needs!("nmap");
    agrees("-sT", &TCP);
}

#[test]
fn tr_1_ni_6_nmaps_syn_scan_finds_what_it_finds_on_the_host() {
    needs!("nmap");
    agrees("-sS", &TCP);
}

#[test]
fn ni_6_nmaps_udp_scan_finds_what_it_finds_on_the_host() {
    needs!("nmap");
    let expected = [
        (OPEN, "open"),
        (CLOSED, "closed"),
        (NO_HOST, "filtered"),
        (PROHIBITED, "filtered"),
        (SILENT_PORT, "open|filtered"),
    ];
    agrees("-sU", &expected);
}

#[test]
fn ni_6_a_scanner_hears_of_hosts_and_networks_that_are_not_there() {
    needs!("nmap");
    let world = World::new();
    world.rt().cmd(&format!("ip route add unreachable {NO_ROUTE}")).ok();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    // The router gives up asking for an absent host's hardware address after some seconds.
    for (host, kind, timeout) in [(NOBODY, "-sS", "4s"), (NO_ROUTE, "-sS", "2s"), (NO_ROUTE, "-sU", "2s")] {
        let line = format!("nmap -n -Pn {kind} --reason --max-retries 1 --initial-rtt-timeout {timeout} -p 80 {host}");
        let report = a.cmd(&line).limit(Duration::from_secs(60)).ok();
        assert!(report.contains("host-unreach"), "{kind} {host}: {report}");
    }
}
