//! The way out: pings, web pages, names, datagrams and routes, with the usual programs.

use std::time::Duration;

use tapswitch_tests::{
    Container, Enter, FAR, GATEWAY, HOST, INET, INET_OTHER, NEXT_HOP, NOBODY, Nat, Running, SILENT_PORT, Street,
    Switch, UPLINK, echo_udp, eventually, needs, serve_tcp,
};

use super::{SOON, at, connect, echoes, pings, udp};
use crate::outside;

#[test]
fn ni_1_pings_reach_the_router_the_outside_and_what_lies_behind_a_narrow_link() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    for to in [GATEWAY, NEXT_HOP, INET, INET_OTHER, FAR] {
        pings(&a, to);
    }
    a.cmd(&format!("ping -n -c 1 -W 1 {NOBODY}")).fails();
}

#[test]
fn two_containers_ping_the_same_host_with_the_same_identifier() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let all = [nat.join("a", ""), nat.join("b", "")];
    for container in &all {
        container.cmd(&format!("ping -n -e 77 -c 1 -W 3 {INET}")).ok();
    }
    std::thread::scope(|scope| {
        for container in &all {
            let line = format!("ping -n -e 77 -c 20 -i 0.02 -W 3 {INET}");
            scope.spawn(move || assert!(container.cmd(&line).ok().contains("20 received")));
        }
    });
}

#[test]
fn curl_downloads_50_mb_intact_through_a_nat() {
    needs!("curl", "nginx");
    let street = Street::new();
    let _web = outside::web(&street);
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let copy = street.dir().join("copy");
    a.cmd(&format!("curl -sSf -o {} http://{INET}/file", copy.display())).limit(Duration::from_secs(60)).ok();
    outside::same(&copy, &street.dir().join("web/html/file"));
}

#[test]
fn many_small_requests_each_find_a_port() {
    needs!("curl", "nginx");
    let street = Street::new();
    let _web = outside::web(&street);
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let request = format!("curl -sSf --no-keepalive -H Connection:close http://{INET}/small?[1-300]");
    assert_eq!(a.cmd(&request).limit(Duration::from_secs(60)).ok(), "small\n".repeat(300));
}

#[test]
fn nu_12_datagrams_of_all_sizes_are_echoed_whole() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let _echo = echo_udp(street.inet(), at(INET, 7000));
    let socket = udp(&a);
    for len in [0, 1, 17, 999, 1472, 1473, 4000, 65_507] {
        echoes(&socket, at(INET, 7000), &vec![len as u8; len]);
    }
}

#[test]
fn the_server_sees_the_uplinks_address() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    assert_eq!(uplink_seen(&street, &a), UPLINK);
}

#[test]
fn the_gateway_answers_pings_to_the_uplinks_address() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    pings(street.rt(), UPLINK);
    pings(street.inet(), UPLINK);
    pings(&a, UPLINK);
}

#[test]
fn the_host_goes_on_using_its_own_address_beside_ours() {
    let street = Street::new();
    let switch = street.switch("");
    let a = switch.join("a", "");
    pings(&a, INET);
    pings(street.gw(), NEXT_HOP);
    let forwards = street.gw().cmd("cat /proc/sys/net/ipv4/ip_forward").ok();
    assert_eq!(forwards, "0\n", "the host's own stack takes no part");
}

#[test]
fn an_address_from_dhcp_serves_as_well() {
    needs!("busybox");
    let street = Street::new();
    let server = street.dhcp_server();
    let switch = Switch::up(&street, "--uplink nat:eth1 --uplink-ip dhcp");
    let a = switch.join("a", "");
    eventually("the lease is used", 2 * SOON, || {
        a.cmd(&format!("ping -n -c 1 -W 1 {INET}")).run().status.success().then_some(())
    });
    let leased = leased(&server).expect("the server gave an address");
    pings(street.rt(), &leased);
    assert_eq!(uplink_seen(&street, &a), leased);
}

/// The address that the street's DHCP server gave away last.
fn leased(server: &Running) -> Option<String> {
    let said = server.output();
    let line = said.lines().rev().find(|line| line.to_lowercase().contains("ack to"))?;
    line.split_whitespace().last().map(str::to_owned)
}

#[test]
fn the_street_has_a_dhcp_server_where_one_is_started() {
    needs!("busybox", "udhcpc");
    let street = Street::new();
    let server = street.dhcp_server();
    street.gw().cmd("udhcpc -f -q -n -i eth1 -s /bin/true -t 10 -T 1").ok();
    assert!(leased(&server).is_some_and(|ip| ip.starts_with("192.0.2.1")), "{}", server.output());
}

/// The address that a container has for a server outside.
fn uplink_seen(street: &Street, from: &Container) -> String {
    let _server = serve_tcp(street.inet(), at(INET, 9000), |mut stream| {
        let peer = stream.peer_addr()?.ip().to_string();
        std::io::Write::write_all(&mut stream, peer.as_bytes())
    });
    let mut seen = String::new();
    std::io::Read::read_to_string(&mut connect(from, INET, 9000), &mut seen).expect("an answer");
    seen
}

#[test]
fn a_router_that_answers_no_dhcp_is_named_in_the_log() {
    let street = Street::new();
    let mut switch = Switch::up(&street, "--uplink nat:eth1 --uplink-ip dhcp");
    switch.daemon().until_says("no DHCP server answers", Duration::from_secs(30));
}

#[test]
fn a_dhcp_server_that_comes_late_is_used() {
    needs!("busybox");
    let street = Street::new();
    let switch = Switch::up(&street, "--uplink nat:eth1 --uplink-ip dhcp");
    let a = switch.join("a", "");
    // Among themselves the containers do not need it.
    pings(&a, GATEWAY);
    let _late = street.dhcp_server();
    eventually("the late server's lease is used", Duration::from_secs(60), || {
        a.cmd(&format!("ping -n -c 1 -W 1 {INET}")).run().status.success().then_some(())
    });
}

#[test]
fn ip_2_every_kind_of_traceroute_shows_the_gateway_and_each_hop() {
    needs!("traceroute");
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let _server = serve_tcp(street.far(), at(FAR, 80), |_| Ok(()));
    for kind in ["-I", "-U", "-T -p 80"] {
        let path = a.cmd(&format!("traceroute -n {kind} -q 1 -w 3 -m 6 {FAR}")).ok();
        let hops: Vec<_> = path.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(hops, [GATEWAY, NEXT_HOP, FAR], "{kind}: {path}");
    }
}

#[test]
fn ip_3_nu_7_tracepath_finds_the_narrow_link() {
    needs!("tracepath");
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let path = a.cmd(&format!("tracepath -n -m 6 {FAR}")).ok();
    assert!(path.contains("pmtu 1280"), "{path}");
    assert!(path.contains("Resume: pmtu 1280 hops 3"), "{path}");
}

#[test]
fn ip_3_nu_7_a_transfer_comes_and_goes_through_the_narrow_link() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    for way in ["up", "down"] {
        super::bulk::carry(&a, street.far(), FAR, way == "up", 2 << 20);
    }
}

#[test]
fn nmap_sees_ports_as_they_are_through_a_nat() {
    needs!("nmap");
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let _server = serve_tcp(street.inet(), at(INET, 9000), |_| Ok(()));
    for kind in ["-sT", "-sS"] {
        let line = format!("nmap -n -Pn {kind} --max-retries 1 --host-timeout 30s -p 9000,9001,{SILENT_PORT} {INET}");
        let found = a.cmd(&line).limit(Duration::from_secs(60)).ok();
        for expected in ["9000/tcp open", "9001/tcp closed", &format!("{SILENT_PORT}/tcp filtered")] {
            assert!(found.contains(expected), "{kind}: {expected} is missing: {found}");
        }
    }
    let found = a.cmd(&format!("nmap -n -Pn -sU --max-retries 1 -p 9001,{SILENT_PORT} {INET}")).ok();
    assert!(found.contains("9001/udp closed") && found.contains("open|filtered"), "{found}");
}

#[test]
fn iperf3_runs_both_ways_through_a_nat() {
    needs!("iperf3");
    let street = Street::new();
    let mut server = street.server(&format!("iperf3 --server --bind {INET} --forceflush"));
    server.until_says("listening", Duration::from_secs(10));
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    for way in ["", "--reverse", "--parallel 4", "--parallel 4 --reverse", "--bidir", "--udp --bitrate 50M"] {
        a.cmd(&format!("iperf3 --client {INET} --time 1 {way}")).ok();
    }
}

#[test]
fn nothing_of_the_old_way_out_is_left() {
    // The host itself has no route to the outside here: whatever reaches it went by the packet uplink.
    let street = Street::new();
    street.gw().cmd(&format!("ping -n -c 1 -W 1 {INET}")).fails();
    street.gw().cmd(&format!("ping -n -c 1 -W 1 {HOST}")).fails();
}
