//! Published ports: from outside, from a neighbour, and from the container itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tapswitch_tests::{
    Container, Enter, INET, INET_OTHER, Nat, Service, Street, Switch, UPLINK, echo_udp, eventually, serve_tcp,
    serve_udp,
};

use super::{SOON, at, echoes, udp};

/// Specifications, each with pairs of outer and inner ports that it must join. All can hold at the same time.
const SPECS: [(&str, &[(u16, u16)]); 5] = [
    ("80:80", &[(80, 80)]),
    ("8080:81", &[(8080, 81)]),
    ("7000-7003:7000-7003", &[(7000, 7000), (7003, 7003)]),
    ("7100-7103:90-93", &[(7100, 90), (7102, 92), (7103, 93)]),
    ("192.0.2.2:9090:82", &[(9090, 82)]),
];

/// A server that says who it thinks asks.
fn who(place: &Container, port: u16) -> Service {
    serve_tcp(place, at(place.ip(), port), move |mut stream| {
        let peer = stream.peer_addr()?.ip();
        write!(stream, "{port} {peer}")
    })
}

fn ask(place: &impl Enter, server: SocketAddr) -> std::io::Result<String> {
    let mut stream = place.inside(|| TcpStream::connect_timeout(&server, SOON))?;
    stream.set_read_timeout(Some(SOON))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// Publishes everything of [`SPECS`] and asks each server from `place(street, web, neighbour)`.
fn matrix(proto: &str, client: &str, asker: &str) {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let (web, neighbour) = (nat.join("web", ""), nat.join("neighbour", ""));
    SPECS.iter().for_each(|(spec, _)| nat.publish(&web, &format!("{spec}/{proto}")));
    for (outer, inner) in SPECS.iter().flat_map(|(_, pairs)| pairs.iter().copied()) {
        let server = at(UPLINK, outer);
        if proto == "tcp" {
            let _server = who(&web, inner);
            let said = match client {
                "outside" => ask(street.inet(), server),
                "neighbour" => ask(&neighbour, server),
                _ => ask(&web, server),
            };
            assert_eq!(said.unwrap_or_else(|e| panic!("{outer} -> {inner}: {e}")), format!("{inner} {asker}"));
        } else {
            let _server = serve_udp(&web, at(web.ip(), inner), move |_| Some(inner.to_string().into()));
            let socket = match client {
                "outside" => udp(street.inet()),
                "neighbour" => udp(&neighbour),
                _ => udp(&web),
            };
            socket.send_to(b"who", server).expect("sends");
            let mut answer = [0; 100];
            let (len, from) = socket.recv_from(&mut answer).unwrap_or_else(|e| panic!("{outer} -> {inner}: {e}"));
            assert_eq!((String::from_utf8_lossy(&answer[..len]).as_ref(), from), (inner.to_string().as_str(), server));
        }
    }
}

#[test]
fn tcp_ports_are_reached_from_outside_and_see_who_asks() {
    matrix("tcp", "outside", INET);
}

#[test]
fn nt_1_tcp_ports_are_reached_by_a_neighbour_who_shows_the_outer_address() {
    matrix("tcp", "neighbour", UPLINK);
}

#[test]
fn nt_1_tcp_ports_are_reached_by_their_own_container() {
    matrix("tcp", "itself", UPLINK);
}

#[test]
fn udp_ports_are_reached_from_outside() {
    matrix("udp", "outside", "");
}

#[test]
fn nu_5_udp_ports_are_reached_by_a_neighbour() {
    matrix("udp", "neighbour", "");
}

#[test]
fn nu_5_udp_ports_are_reached_by_their_own_container() {
    matrix("udp", "itself", "");
}

#[test]
fn a_port_that_nobody_published_is_not_reached() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let web = nat.join("web", "");
    nat.publish(&web, "8080:80/tcp");
    let _server = who(&web, 80);
    let refused = street.inet().inside(|| TcpStream::connect_timeout(&at(UPLINK, 81), Duration::from_secs(2)));
    assert_eq!(refused.expect_err("nothing is published").kind(), ErrorKind::TimedOut, "it stays silent");
}

#[test]
fn attach_publishes_too() {
    let street = Street::new();
    let switch = street.switch("");
    let web = switch.join("web", "-p 8080:80 -p 5353:53/udp");
    let _server = who(&web, 80);
    assert_eq!(ask(street.inet(), at(UPLINK, 8080)).expect("it answers"), format!("80 {INET}"));
    let _echo = echo_udp(&web, at(web.ip(), 53));
    echoes(&udp(street.inet()), at(UPLINK, 5353), b"name?");
}

#[test]
fn the_description_of_a_network_publishes_for_a_container_that_comes_later() {
    let street = Street::new();
    let switch = street.switch_with("publish = [\"web=8080:80/tcp\"]");
    let web = switch.join("web", "");
    let _server = who(&web, 80);
    assert_eq!(ask(street.inet(), at(UPLINK, 8080)).expect("it answers"), format!("80 {INET}"));
}

#[test]
fn an_outer_port_has_one_owner() {
    let street = Street::new();
    let switch = street.switch("");
    let _both = [switch.join("a", "-p 8080:80"), switch.join("b", "")];
    switch.cli("publish b 8080:80").fails().says("8080");
    switch.cli("publish b 203.0.113.77:8081:80").fails().says("203.0.113.77");
    switch.cli("publish nobody 8082:80").fails().says("nobody");
    switch.cli("publish b 8080:80/udp").ok();
}

/// A connection from outside to an echo server behind `port`, which has worked once.
fn talking(street: &Street, port: u16) -> TcpStream {
    let server = at(UPLINK, port);
    let stream = street.inet().inside(|| TcpStream::connect_timeout(&server, SOON)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    assert!(answers(&stream), "the connection works");
    stream
}

fn answers(mut stream: &TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && matches!(stream.read(&mut [0; 1]), Ok(1))
}

fn echo_tcp(place: &Container, port: u16) -> Service {
    serve_tcp(place, at(place.ip(), port), |mut stream| {
        let mut reader = stream.try_clone()?;
        std::io::copy(&mut reader, &mut stream).map(drop)
    })
}

#[test]
fn nt_10_unpublish_ends_the_flows_and_answers_no_new_one() {
    let street = Street::new();
    let switch = street.switch("");
    let web = switch.join("web", "-p 8080:80 -p 8081:80");
    let _server = echo_tcp(&web, 80);
    let (ended, goes_on) = (talking(&street, 8080), talking(&street, 8081));
    switch.cli("unpublish web 8080:80").ok();
    assert!(!answers(&ended), "the flow through the port that went is over");
    assert!(answers(&goes_on), "the other one is not");
    assert!(ask(street.inet(), at(UPLINK, 8080)).is_err());
    let flows = switch.rows("show flows");
    assert!(!flows.iter().any(|flow| flow.to_string().contains(":8080")), "{flows:?}");
}

#[test]
fn nt_10_a_port_that_moves_takes_its_udp_flows_along() {
    let street = Street::new();
    let switch = street.switch("");
    let (old, new) = (switch.join("old", "-p 5000:5000/udp"), switch.join("new", ""));
    let _servers = [(&old, "old"), (&new, "new")]
        .map(|(place, name)| serve_udp(place, at(place.ip(), 5000), move |_| Some(name.into())));
    // The same source port all the time: a stale entry would keep the old target.
    let client = udp(street.inet());
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let ask = || {
        client.send_to(b"who", (UPLINK, 5000)).expect("sends");
        let mut answer = [0; 10];
        client.recv(&mut answer).ok().map(|len| String::from_utf8_lossy(&answer[..len]).into_owned())
    };
    eventually("the old one answers", SOON, || (ask()? == "old").then_some(()));
    switch.cli("unpublish old 5000:5000/udp").ok();
    switch.cli("publish new 5000:5000/udp").ok();
    eventually("the new one answers", SOON, || (ask()? == "new").then_some(()));
    assert_eq!(ask().as_deref(), Some("new"));
}

#[test]
fn a_forward_goes_with_its_container() {
    let street = Street::new();
    let switch = street.switch("");
    let web = switch.join("web", "-p 8080:80");
    let _server = who(&web, 80);
    ask(street.inet(), at(UPLINK, 8080)).expect("it answers");
    switch.cli("detach web").ok();
    assert!(ask(street.inet(), at(UPLINK, 8080)).is_err());
    let other = switch.join("other", "-p 8080:80");
    let _server = who(&other, 80);
    assert_eq!(ask(street.inet(), at(UPLINK, 8080)).expect("it answers"), format!("80 {INET}"));
}

#[test]
fn a_server_behind_a_port_answers_two_addresses_of_one_host_apart() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let web = nat.join("web", "");
    nat.publish(&web, "5000:5000/udp");
    let _echo = echo_udp(&web, at(web.ip(), 5000));
    for ip in [INET, INET_OTHER] {
        echoes(&super::udp_at(street.inet(), ip, 6000), at(UPLINK, 5000), ip.as_bytes());
    }
}

#[test]
fn ls_names_what_is_published() {
    let street = Street::new();
    let switch: Switch<'_> = street.switch("");
    let _web = switch.join("web", "-p 8080:80");
    let said = switch.cli("ls").ok();
    assert!(said.contains("8080"), "{said}");
}
