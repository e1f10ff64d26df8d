//! `show flows`, its filters, and `flush flows`.

use std::time::Duration;

use serde_json::Value;
use tapswitch_tests::{Enter, INET, Stopwatch, Street, Switch, UPLINK, echo_udp, eventually, serve_tcp};

use super::{SOON, at, connect, echoes, pings, udp};

fn text<'r>(row: &'r Value, field: &str) -> &'r str {
    row[field].as_str().unwrap_or_default()
}

fn all<'r>(rows: &'r [Value], field: &str) -> Vec<&'r str> {
    let mut all: Vec<_> = rows.iter().map(|row| text(row, field)).collect();
    all.sort_unstable();
    all
}

/// One flow of each reason, for as long as `look` looks.
fn with_flows(look: impl FnOnce(&Switch<'_>)) {
    let street = Street::new();
    let switch = street.switch("");
    let (web, b) = (switch.join("web", "-p 5000:5000/udp"), switch.join("b", ""));
    let _echo = echo_udp(&web, at(web.ip(), 5000));
    let _server = serve_tcp(street.inet(), at(INET, 9000), |mut stream| {
        std::io::copy(&mut stream.try_clone()?, &mut stream).map(drop)
    });
    let _open = connect(&b, INET, 9000);
    pings(&b, INET);
    echoes(&udp(street.inet()), at(UPLINK, 5000), b"forward");
    echoes(&udp(&b), at(UPLINK, 5000), b"hairpin");
    look(&switch);
}

#[test]
fn nt_4_show_flows_names_state_reason_counters_and_lifetime_of_each_session() {
    with_flows(|switch| {
        let rows = switch.rows("show flows");
        assert_eq!(all(&rows, "reason"), ["forward", "hairpin", "outbound", "outbound"], "{rows:#?}");
        assert_eq!(all(&rows, "proto"), ["icmp", "tcp", "udp", "udp"]);
        let tcp = rows.iter().find(|row| row["proto"] == "tcp").expect("the connection");
        assert_eq!(
            (text(tcp, "name"), text(tcp, "state"), text(&tcp["original"], "dst")),
            ("b", "established", "198.51.100.10:9000")
        );
        let left = tcp["expires_s"].as_u64().expect("a lifetime");
        assert!((7_400..=7_440).contains(&left), "{left}");
        let way = |name: &str, counter: &str| tcp[name][counter].as_u64().unwrap_or_default();
        assert!(way("original", "packets") >= 2 && way("reply", "packets") >= 1, "{tcp}");
        assert!(way("original", "bytes") > 0 && way("reply", "bytes") > 0, "{tcp}");
        assert!(text(&tcp["reply"], "dst").starts_with(&format!("{UPLINK}:")), "the outer endpoint is shown: {tcp}");
        for (proto, limit) in [("udp", 300), ("icmp", 60)] {
            let left = rows.iter().find(|row| row["proto"] == proto).and_then(|row| row["expires_s"].as_u64());
            assert!(left.is_some_and(|left| left > limit - 30 && left <= limit), "{proto}: {left:?}");
        }
        let said = switch.cli("show flows").ok();
        for word in ["outbound", "forward", "hairpin", "established", "198.51.100.10:9000"] {
            assert!(said.contains(word), "{word} is missing: {said}");
        }
    });
}

#[test]
fn show_flows_is_filtered_by_container_address_and_port() {
    with_flows(|switch| {
        let protos = |filter: &str| all(&switch.rows(&format!("show flows {filter}")), "proto").join(" ");
        assert_eq!(protos("--container nobody"), "");
        assert_eq!(protos(&format!("--address {INET}")), "icmp tcp udp");
        assert_eq!(protos("--port 9000"), "tcp");
        assert_eq!(protos("--container b --port 9000"), "tcp");
        assert_eq!(protos("--container web --port 9000"), "");
        assert_eq!(protos("--port 5000"), "udp udp");
    });
}

#[test]
fn flush_flows_forgets_what_the_filter_names_and_nothing_else() {
    with_flows(|switch| {
        switch.cli("flush flows --port 9000").ok();
        assert_eq!(all(&switch.rows("show flows"), "proto"), ["icmp", "udp", "udp"]);
        switch.cli("flush flows").ok();
        assert!(switch.rows("show flows").is_empty());
    });
}

#[test]
fn a_detached_container_leaves_no_flow() {
    with_flows(|switch| {
        switch.cli("detach b").ok();
        eventually("its flows are gone", SOON, || {
            let rows = switch.rows("show flows");
            rows.iter().all(|row| row["name"] != "b" && row["reason"] != "hairpin").then_some(())
        });
        assert_eq!(all(&switch.rows("show flows"), "reason"), ["forward"]);
    });
}

#[test]
fn x4_a_reset_connection_is_kept_for_the_transitory_time() {
    let street = Street::new();
    let switch = street.switch("");
    let a = switch.join("a", "");
    let _server = serve_tcp(street.inet(), at(INET, 9000), |stream| {
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))
    });
    drop(connect(&a, INET, 9000));
    eventually("the reset was seen", SOON, || {
        let rows = switch.rows("show flows --port 9000");
        let left = rows.first()?["expires_s"].as_u64()?;
        (left <= 240).then_some(())
    });
    a.cmd(&format!("ping -n -c 1 -W 3 {INET}")).ok();
}

#[test]
fn x8_ni_1_a_ping_that_is_over_is_forgotten_after_a_minute_by_the_real_clock() {
    let street = Street::new();
    let switch = street.switch("");
    let a = switch.join("a", "");
    pings(&a, INET);
    let watch = Stopwatch::start();
    let is_there = || !switch.rows("show flows").is_empty();
    assert!(is_there(), "the last echo prolonged it");
    eventually("the session ends", Duration::from_secs(90), || (!is_there()).then_some(()));
    let lived = watch.elapsed();
    assert!(lived > Duration::from_secs(58), "it ended after {lived:?}");
    assert_eq!(switch.json("network inspect default")["flows"], 0);
}
