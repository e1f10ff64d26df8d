//! The API over a socket pair, against a poll thread that follows a script.

mod script;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use tapswitch_link::pass;

use super::*;
use crate::api::*;
use crate::client::Client;
use script::*;

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(5);

#[test]
fn every_listing_goes_round() {
    let daemon = scripted();
    let mut client = daemon.client();
    assert_eq!(client.version().unwrap().pid, std::process::id());
    assert_eq!(client.networks().unwrap(), [network()]);
    assert_eq!(client.network("default").unwrap(), network());
    assert_eq!(client.ports(None).unwrap(), [port()]);
    assert_eq!(client.ports(Some("default")).unwrap(), [port()]);
    assert_eq!(client.fdb(None).unwrap(), []);
    assert_eq!(client.arp(None).unwrap(), []);
    assert_eq!(client.leases(None).unwrap(), []);
    assert_eq!(client.flows(&FlowFilter::default()).unwrap(), []);
    assert_eq!(client.drops(None).unwrap(), []);
    assert_eq!(client.stats().unwrap(), stats());
    client.detach("web").unwrap();
}

#[test]
fn refusals_come_through_with_their_text() {
    let daemon = scripted();
    let mut client = daemon.client();
    let error = client.network("nowhere").unwrap_err();
    assert_eq!(error, Error::failed("there is no network 'nowhere'; there are: default"));
    let error = client.ports(Some("a/b c?&%")).unwrap_err();
    assert_eq!(error, Error::failed("there is no network 'a/b c?&%'"));
    let error = client.detach("x/../y").unwrap_err();
    assert_eq!(error, Error::failed("there is no container 'x/../y'"));
}

#[test]
fn a_journey_is_told_when_its_frame_has_passed() {
    let daemon = scripted();
    let listening = daemon.client().journey("web", Some("tcp")).unwrap();
    daemon.client().networks().unwrap();
    assert_eq!(listening.wait().unwrap(), journey("web"));
    let error = daemon.client().journey("web", Some("udp")).unwrap_err();
    assert_eq!(error, Error::failed("only tcp is heard here"));
}

#[test]
fn events_are_told_and_a_slow_reader_learns_what_it_missed() {
    let daemon = scripted();
    let mut lines = Vec::new();
    let error = daemon.client().events(Some("default"), |line: EventLine, raw| {
        assert_eq!(serde_json::from_str::<EventLine>(raw).unwrap(), line);
        lines.push(line);
        Ok(true)
    });
    assert!(error.unwrap_err().to_string().contains("it has ended"));
    let told = |name| EventLine::Event(Box::new(event(name)));
    assert_eq!(lines, [EventLine::Missed { missed: 1 }, told("two"), told("three")]);
    let error = daemon.client().events(Some("nowhere"), |_, _| Ok(true)).unwrap_err();
    assert_eq!(error, Error::failed("there is no network 'nowhere'"));
}

#[test]
fn metrics_are_served_as_prometheus_wants_them() {
    let daemon = scripted();
    let mut stream = daemon.raw();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let answer = read_until(&mut stream, "the end");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("content-type: text/plain; version=0.0.4"),
        "{answer}"
    );
    assert!(answer.contains("\n# TYPE tapswitch_drops_total counter\n"), "{answer}");
}

#[test]
fn attaching_hands_a_descriptor_over() {
    let daemon = scripted();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let attached = daemon
        .client()
        .attach(&AttachRequest { name: Some("web".into()), ..AttachRequest::default() }, |got| {
            assert_eq!(*got, offer("web"));
            Ok((tap(), vec![writer]))
        })
        .unwrap();
    assert_eq!(attached, port());
    assert_eq!(daemon.next(), "reserve web");
    // The scripted poll thread writes into what it got.
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the poll thread");
    assert_eq!(daemon.next(), "attach default/web eth0 pid 4711");
    daemon.nothing_more();
}

#[test]
fn an_uplinks_device_is_handed_over() {
    let daemon = scripted();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let given = daemon.client().uplink("default", |offer| {
        assert_eq!(*offer, wanted());
        Ok((device(1500), writer))
    });
    assert_eq!(given.unwrap(), network());
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the poll thread");
    assert_eq!((daemon.next(), daemon.next()), ("wanted default".into(), "uplink default eth0".into()));
    daemon.nothing_more();
}

#[test]
fn an_uplink_that_is_refused_or_cannot_be_opened_says_why() {
    let daemon = scripted();
    let error = daemon.client().uplink("default", |_| Ok((device(68), some_fd()))).unwrap_err();
    assert_eq!(error, Error::failed("it has one already"));
    assert_eq!((daemon.next(), daemon.next()), ("wanted default".into(), "uplink default eth0".into()));
    let error = daemon.client().uplink("default", |_| Err(Error::failed("not permitted"))).unwrap_err();
    assert_eq!(error, Error::failed("not permitted"));
    assert_eq!(daemon.next(), "wanted default");
    let error = daemon.client().uplink("no/where", |_| unreachable!("nothing is wanted")).unwrap_err();
    assert_eq!(error, Error::failed("there is no network 'no/where'"));
    assert_eq!(daemon.next(), "wanted no/where");
    daemon.nothing_more();
}

#[test]
fn ports_are_published_and_unpublished() {
    let daemon = scripted();
    let mut client = daemon.client();
    let specs = ["8080:80".parse().unwrap(), "53/udp".parse().unwrap()];
    let answer = client.publish("web", &specs).unwrap();
    let shown: Vec<String> = answer.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["0.0.0.0:8080->80/tcp", "0.0.0.0:40000->53/udp"]);
    assert_eq!(client.unpublish("web", &specs).unwrap(), []);
    assert_eq!(daemon.next(), "unpublish 2");
    assert_eq!(client.publish("no/body", &specs).unwrap_err(), Error::failed("there is no container 'no/body'"));
    let error = client.publish("web", &["80:80".parse().unwrap(), "79-81:79-81".parse().unwrap()]).unwrap_err();
    assert!(error.to_string().contains("80:80/tcp and 79-81:79-81/tcp would both have one port"), "{error}");
    let error = client.publish("web", &[]).unwrap_err();
    assert!(error.to_string().contains("name at least one"), "{error}");
    let request = AttachRequest { publish: vec!["80:80".parse().unwrap(); 2], ..AttachRequest::default() };
    let error = daemon.client().attach(&request, |_| unreachable!("nothing was offered")).unwrap_err();
    assert!(error.to_string().contains("would both have one port"), "{error}");
    daemon.nothing_more();
}

#[test]
fn flows_are_narrowed_and_flushed() {
    let daemon = scripted();
    let mut client = daemon.client();
    let filter = FlowFilter {
        network: Some("default".into()),
        container: Some("we b&".into()),
        address: Some("2001:db8::1".parse().unwrap()),
        port: Some(443),
    };
    assert_eq!(client.flows(&filter).unwrap(), []);
    assert_eq!(daemon.next(), format!("flows {filter:?}"));
    assert_eq!(client.flush(&filter).unwrap(), 3);
    assert_eq!(daemon.next(), format!("flush {filter:?}"));
    assert_eq!(client.flush(&FlowFilter::default()).unwrap(), 3);
    assert_eq!(daemon.next(), format!("flush {:?}", FlowFilter::default()));
    let error = client.flush(&FlowFilter::network(Some("nowhere"))).unwrap_err();
    assert_eq!(error, Error::failed("there is no network 'nowhere'"));
}

#[test]
fn a_refused_reservation_says_why_and_makes_nothing() {
    let daemon = scripted();
    let request = AttachRequest { name: Some("taken".into()), ..AttachRequest::default() };
    let error = daemon.client().attach(&request, |_| unreachable!("nothing was offered")).unwrap_err();
    assert_eq!(error, Error::failed("the name 'taken' is taken"));
    assert_eq!(daemon.next(), "reserve taken");
    daemon.nothing_more();
}

#[test]
fn a_refused_tap_gives_the_reservation_back() {
    let daemon = scripted();
    let request = AttachRequest { name: Some("bad-tap".into()), ..AttachRequest::default() };
    let error = daemon.client().attach(&request, |_| Ok((tap(), vec![some_fd()]))).unwrap_err();
    assert_eq!(error, Error::failed("that is no TAP"));
    assert_eq!(daemon.next(), "reserve bad-tap");
    assert_eq!(daemon.next(), "attach default/bad-tap eth0 pid 4711");
    assert_eq!(daemon.next(), "cancel default/bad-tap");
}

#[test]
fn a_client_that_cannot_make_the_interface_gives_the_reservation_back() {
    let daemon = scripted();
    let request = AttachRequest { name: Some("web".into()), ..AttachRequest::default() };
    let error = daemon.client().attach(&request, |_| Err(Error::failed("no /dev/net/tun"))).unwrap_err();
    assert_eq!(error, Error::failed("no /dev/net/tun"));
    assert_eq!(daemon.next(), "reserve web");
    assert_eq!(daemon.next(), "cancel default/web");
    daemon.nothing_more();
}

#[test]
fn a_peer_that_breaks_the_hand_over_gives_the_reservation_back() {
    let two_steps: &[u8] = br#"{"interface":"eth0","#;
    for (what, with_fd) in [
        (&b""[..], false),
        (two_steps, true),
        (b"{\"interface\":\"eth0\",\"target\":\"t\"}\n", false),
        (b"nonsense\n", true),
        (&[b'x'; 5000], true),
    ] {
        let daemon = scripted();
        let mut stream = daemon.raw();
        stream.write_all(&raw_attach(r#"{"name":"web"}"#)).unwrap();
        let answer = read_until(&mut stream, "\"mtu\":1500,\"queues\":1}\n");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        if with_fd {
            assert_eq!(pass::send_fds(stream.as_fd(), what, &[some_fd()]).unwrap(), what.len());
        } else {
            stream.write_all(what).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(daemon.next(), "reserve web");
        assert_eq!(daemon.next(), "cancel default/web", "after {}", String::from_utf8_lossy(what));
        let said = read_until(&mut stream, "\n");
        assert!(said.starts_with("{\"refused\":"), "{said}");
        daemon.nothing_more();
    }
}

#[test]
fn bytes_sent_before_the_offer_give_the_reservation_back() {
    let daemon = scripted();
    let mut stream = daemon.raw();
    let mut request = raw_attach(r#"{"name":"web"}"#);
    request.extend(b"{\"interface\":\"eth0\",\"target\":\"t\"}\n");
    stream.write_all(&request).unwrap();
    assert_eq!(daemon.next(), "reserve web");
    assert_eq!(daemon.next(), "cancel default/web");
}

#[test]
fn a_peer_that_goes_away_at_once_leaves_nothing_reserved() {
    let daemon = scripted();
    let mut stream = daemon.raw();
    stream.write_all(&raw_attach(r#"{"name":"web"}"#)).unwrap();
    drop(stream);
    // Whether it was reserved at all is a race; if it was, it is given back.
    let mut client = daemon.client();
    if let Ok(first) = daemon.events.recv_timeout(Duration::from_millis(200)) {
        assert_eq!(first, "reserve web");
        assert_eq!(daemon.next(), "cancel default/web");
    }
    client.networks().unwrap();
}

#[test]
fn garbage_is_answered_with_a_reason() {
    let daemon = scripted();
    let long = "x".repeat(20_000);
    for (request, status, text) in [
        ("GET /v2/ports HTTP/1.1\r\nhost: x\r\n\r\n".into(), 404, "no /v2/ports"),
        ("PUT /v1/ports HTTP/1.1\r\nhost: x\r\n\r\n".into(), 405, "does not take PUT"),
        ("GET /v1/ports?net=x HTTP/1.1\r\nhost: x\r\n\r\n".into(), 400, "net"),
        ("POST /v1/attach HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}".into(), 426, "upgrade"),
        ("POST /v1/networks/default/uplink HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".into(), 426, "upgrade"),
        ("GET /v1/flows?addres=1.2.3.4 HTTP/1.1\r\nhost: x\r\n\r\n".into(), 400, "addres"),
        ("DELETE /v1/flows?port=http HTTP/1.1\r\nhost: x\r\n\r\n".into(), 400, "port"),
        (text(raw_attach(r#"{"publish":["80/sctp"]}"#)), 422, "write tcp or udp"),
        (text(raw_attach("{")), 400, "JSON"),
        (text(raw_attach(r#"{"ip":"10.0.0"}"#)), 422, "ip"),
        (text(raw_attach(r#"{"mac":"no"}"#)), 422, "MAC"),
        (text(raw_attach(r#"{"mac":"01:00:5e:00:00:01"}"#)), 400, "MAC"),
        (text(raw_attach(r#"{"name":"a\nb"}"#)), 400, "cannot be a name"),
        (text(raw_attach(&format!("{{\"name\":\"{long}\"}}"))), 413, "limit"),
    ] {
        let mut stream = daemon.raw();
        stream.write_all(request.as_bytes()).unwrap();
        let answer = read_until(&mut stream, "\"}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains("{\"error\":\"") && answer.contains(text), "{request}: {answer}");
    }
    for garbage in ["\0\0\0\0\r\n\r\n".to_owned(), format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000))] {
        let mut stream = daemon.raw();
        // The server may hang up before all of it is written.
        let _ = stream.write_all(garbage.as_bytes());
        let answer = read_until(&mut stream, "\r\n\r\n");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    daemon.client().networks().unwrap();
    daemon.nothing_more();
}

#[test]
fn attack_2_22_half_written_requests_do_not_hold_up_others() {
    let daemon = scripted();
    let half: Vec<UnixStream> = (0..10)
        .map(|_| {
            let mut stream = daemon.raw();
            stream.write_all(b"GET /v1/po").unwrap();
            stream
        })
        .collect();
    daemon.client().networks().unwrap();
    drop(half);
}

#[test]
fn stopping_waits_for_nobody() {
    let daemon = scripted();
    // More than are served at a time, so that the daemon waits for a place to get free.
    let mut busy: Vec<UnixStream> = Vec::new();
    while busy.len() < server::MAX_CONNECTIONS + 2 {
        match daemon.daemon.connect() {
            Ok(stream) => busy.push(stream),
            Err(_) => std::thread::yield_now(),
        }
    }
    daemon.daemon.stop();
    assert!(daemon.events.recv().is_err(), "the poll thread still runs");
    let mut byte = [0];
    assert!(matches!(busy[0].read(&mut byte), Ok(0)), "a connection was not closed");
}

#[test]
fn a_switch_that_has_ended_is_an_error_and_is_noticed() {
    let mut daemon = scripted();
    let mut client = daemon.client();
    daemon.daemon.control.stop();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(daemon.daemon.ended());
    assert!(error.to_string().contains("ended by itself"), "{error}");
    let error = client.networks().unwrap_err();
    assert!(error.to_string().contains("the switch has stopped"), "{error}");
}

#[test]
fn over_the_socket_until_it_stops() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/tapswitch.sock");
    let error = Client::connect(&path).unwrap_err();
    assert!(matches!(&error, Error::NoDaemon(text) if text.contains("tapswitch up")), "{error}");

    let daemon = scripted_on(Some(ControlSocket::bind(&path).unwrap()));
    assert_eq!(daemon.daemon.socket(), Some(path.as_path()));
    assert_eq!(Client::connect(&path).unwrap().networks().unwrap(), [network()]);
    let error = ControlSocket::bind(&path).unwrap_err().to_string();
    assert!(error.contains("already listens on"), "{error}");

    daemon.daemon.stop();
    assert!(!path.exists(), "the socket file was left behind");
    assert!(matches!(Client::connect(&path), Err(Error::NoDaemon(_))));
}

fn raw_attach(body: &str) -> Vec<u8> {
    format!(
        "POST /v1/attach HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: tapswitch-attach\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Reads until this text, or the end.
fn read_until(stream: &mut UnixStream, end: &str) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(end.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1) => read.extend(byte),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&read)),
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}
