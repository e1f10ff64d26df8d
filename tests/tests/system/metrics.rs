//! What the switch tells programs about itself: metrics, events, and drops with what was dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;
use tapswitch_tests::{Cmd, Container, Enter, HOST, Switch, World, eventually, needs};

const LIMIT: Duration = Duration::from_secs(10);

/// Asks the control socket for something.
fn ask(world: &World, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(world.socket()).expect("the control socket");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nhost: tapswitch\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    stream
}

fn metrics(world: &World) -> String {
    let mut answer = String::new();
    ask(world, "/metrics").read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

/// The value of one sample.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Connects to where it may not.
fn be_refused(container: &Container) {
    let to: SocketAddr = format!("{HOST}:22").parse().expect("an address");
    container.inside(|| TcpStream::connect_timeout(&to, LIMIT)).expect_err("out of reach by policy");
}

#[test]
fn a_drop_is_told_with_its_rate_and_the_frame_and_so_are_metrics() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    be_refused(&a);
    let row = eventually("the drop is listed", LIMIT, || {
        switch.rows("show drops").into_iter().find(|row| row["reason"] == "policy-denied")
    });
    assert_eq!((&row["network"], &row["name"]), (&Value::from("default"), &Value::from("a")));
    assert!(row["rate"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
    let frame = row["sample"].as_str().unwrap_or_default();
    assert!(frame.contains(a.ip()) && frame.contains(HOST) && frame.contains("> 22 [S]"), "{row}");
    let text = switch.cli("show drops").ok();
    assert!(text.starts_with("NETWORK  NAME") && text.contains("help drop REASON"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");

    let text = metrics(&world);
    let drops = "tapswitch_drops_total{network=\"default\",port=\"a\",reason=\"policy-denied\"}";
    for (name, least) in [
        (drops, 1.0),
        ("tapswitch_ports{network=\"default\"}", 1.0),
        ("tapswitch_port_receive_bytes_total{network=\"default\",port=\"a\"}", 60.0),
        ("tapswitch_leases{network=\"default\",state=\"reserved\"}", 1.0),
        ("tapswitch_fdb_entries{network=\"default\"}", 2.0),
        ("tapswitch_poll_turns_total{thread=\"0\"}", 1.0),
    ] {
        assert!(sample(&text, name).is_some_and(|value| value >= least), "{name} in\n{text}");
    }
    // With several threads, any of them may have read the frames.
    let sums = text.lines().filter(|line| line.starts_with("tapswitch_poll_batch_frames_sum{"));
    let read: f64 = sums.filter_map(|line| line.split_once(' ')?.1.parse::<f64>().ok()).sum();
    assert!(read >= 1.0, "{text}");
}

#[test]
fn promtool_finds_nothing_to_say_of_a_running_switch() {
    needs!("promtool");
    let world = World::new();
    let switch = Switch::up(&world, "");
    be_refused(&switch.join("a", ""));
    let done = Cmd::new(["promtool", "check", "metrics"]).input(metrics(&world)).run();
    assert!(done.status.success() && done.stdout.is_empty() && done.stderr.is_empty(), "{}", done.report());
}

/// Reads events until one is as wanted.
fn until(events: &mut impl BufRead, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let mut line = String::new();
        let read = events.read_line(&mut line).unwrap_or_else(|error| panic!("no {kind} came: {error}"));
        assert!(read > 0, "no {kind} came before the end");
        // Between the lines stand the sizes of the chunks that they come in.
        if let Ok(event @ Value::Object(_)) = serde_json::from_str(&line)
            && event["kind"] == kind
            && wanted(&event)
        {
            assert!(event["time_ns"].as_u64().is_some_and(|time| time > 1_700_000_000_000_000_000), "{event}");
            assert_eq!(event["network"], "default", "{event}");
            return event;
        }
    }
}

/// Asks for an address, as a DHCP client with this MAC address does.
fn discover(from: &Container, mac: &str) {
    // An interface without an address sends from 0.0.0.0, as it should.
    from.cmd("sh -e").input("ip link set eth0 up\nip route add 255.255.255.255 dev eth0").ok();
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    let mac: Vec<u8> = mac.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    message[28..34].copy_from_slice(&mac);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, 1, 255]);
    let socket = from.inside(|| UdpSocket::bind("0.0.0.0:68")).expect("a socket");
    socket.set_broadcast(true).expect("broadcasts");
    socket.send_to(&message, "255.255.255.255:67").expect("a route");
}

#[test]
fn events_tell_who_comes_and_goes_what_is_published_and_which_limit_is_reached() {
    let world = World::new();
    // One address beside the gateway's.
    let switch = Switch::start(&world, "--subnet 10.88.0.0/30");
    let mut events = BufReader::new(ask(&world, "/v1/events?network=default"));
    let mut head = String::new();
    while head != "\r\n" {
        head.clear();
        events.read_line(&mut head).expect("the head comes when the switch listens");
    }
    let a = switch.join("a", "-p 8080:80");
    let lease = until(&mut events, "lease", |event| event["state"] == "reserved");
    assert_eq!((&lease["name"], &lease["ip"]), (&Value::from("a"), &Value::from(a.ip())));
    let attach = until(&mut events, "attach", |event| event["name"] == "a");
    assert_eq!(attach["ip"], a.ip());
    let publish = until(&mut events, "publish", |event| event["name"] == "a");
    assert!(publish["published"][0].to_string().contains("8080"), "{publish}");
    switch.cli("unpublish a 8080:80").ok();
    until(&mut events, "unpublish", |event| event["name"] == "a");

    let b = switch.join("b", "--dhcp");
    until(&mut events, "attach", |event| event["name"] == "b" && event["ip"].is_null());
    let mac = switch.port("b").expect("a port")["mac"].as_str().expect("a MAC address").to_owned();
    discover(&b, &mac);
    // It asked everybody, so it is the gateway that refused.
    let limit = until(&mut events, "limit", |event| event["name"] == "gateway");
    assert_eq!((&limit["reason"], &limit["mac"]), (&Value::from("dhcp-pool-exhausted"), &Value::from(mac)));

    switch.cli("detach a").ok();
    until(&mut events, "detach", |event| event["name"] == "a");
    until(&mut events, "lease", |event| event["state"] == "released" && event["ip"] == a.ip());
}
