//! Shares: who has used up his own is refused, is told so at once, and harms nobody else.

use std::io::ErrorKind;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use tapswitch_tests::{Container, Enter, INET, Stopwatch, Street, Switch, echo_udp, serve_tcp};

use super::{SOON, at, connect, echoes, pings, udp};

fn switch<'w>(street: &'w Street, nat: &str) -> Switch<'w> {
    street.switch_with(&format!("[network.nat]\n{nat}\n"))
}

/// Opens flows to a silent port until one is refused. Panics if that takes more than `most`.
#[track_caller]
fn until_refused(from: &Container, most: usize) -> Vec<UdpSocket> {
    let mut sockets = Vec::new();
    for _ in 0..most {
        let socket = udp(from);
        socket.connect((INET, 9)).expect("a destination");
        socket.send(b"x").expect("sends");
        sockets.push(socket);
    }
    let refused = sockets.iter().filter(|socket| {
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        let error = socket.recv(&mut [0; 10]).expect_err("nobody answers");
        error.kind() == ErrorKind::HostUnreachable || error.raw_os_error() == Some(13)
    });
    assert!(refused.count() > 0, "none of {most} was refused");
    sockets
}

/// Panics unless a connection is refused within 3 s, with an error that is not silence.
#[track_caller]
fn refuses_tcp(from: &Container) {
    let watch = Stopwatch::start();
    let error = from.inside(|| TcpStream::connect_timeout(&at(INET, 9000), 4 * SOON)).expect_err("it is refused");
    assert!(watch.elapsed() < Duration::from_secs(3), "{error} after {:?}", watch.elapsed());
    assert_ne!(error.kind(), ErrorKind::TimedOut);
}

/// The neighbour's flows begin and go on while `greedy` has used up what `nat` gives it.
fn exhausts(nat: &str, most: usize, also_tcp: bool) {
    let street = Street::new();
    let _echo = echo_udp(street.inet(), at(INET, 7000));
    let _server = serve_tcp(street.inet(), at(INET, 9000), |_| Ok(()));
    let switch = switch(&street, nat);
    let (greedy, other) = (switch.join("greedy", ""), switch.join("other", ""));
    let (mine, theirs) = (udp(&greedy), udp(&other));
    echoes(&mine, at(INET, 7000), b"before");
    echoes(&theirs, at(INET, 7000), b"before");
    let _sockets = until_refused(&greedy, most);
    if also_tcp {
        refuses_tcp(&greedy);
    }
    echoes(&mine, at(INET, 7000), b"its old flow goes on");
    echoes(&theirs, at(INET, 7000), b"so does the neighbour's");
    for _ in 0..20 {
        echoes(&udp(&other), at(INET, 7000), b"and new ones begin");
        drop(connect(&other, INET, 9000));
    }
}

#[test]
fn x1_lm_1_lm_2_a_share_of_sessions_is_a_limit_for_its_owner_alone() {
    exhausts("container_sessions = 64", 80, true);
}

#[test]
fn x1_lm_1_lm_2_a_share_of_ports_is_a_limit_for_its_owner_alone() {
    // Ports are counted for each protocol, so connections still find one.
    exhausts("container_ports = 64", 80, false);
}

#[test]
fn lm_1_a_share_of_new_flows_a_second_is_a_limit_for_its_owner_alone() {
    exhausts("container_rate = 100", 400, false);
}

#[test]
fn lm_1_after_its_second_a_container_begins_flows_again() {
    let street = Street::new();
    let _echo = echo_udp(street.inet(), at(INET, 7000));
    let switch = switch(&street, "container_rate = 100");
    let a = switch.join("a", "");
    let _sockets = until_refused(&a, 400);
    tapswitch_tests::eventually("a new flow begins", SOON, || {
        let socket = udp(&a);
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        socket.send_to(b"x", (INET, 7000)).ok()?;
        socket.recv(&mut [0; 10]).ok()
    });
}

#[test]
fn x2_lm_2_a_full_table_refuses_new_flows_and_takes_nobodys_old_one() {
    let street = Street::new();
    let _echo = echo_udp(street.inet(), at(INET, 7000));
    let switch = switch(&street, "max_sessions = 256");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    let (mine, theirs) = (udp(&a), udp(&b));
    echoes(&mine, at(INET, 7000), b"before");
    echoes(&theirs, at(INET, 7000), b"before");
    let _sockets = until_refused(&a, 300);
    refuses_tcp(&b);
    echoes(&mine, at(INET, 7000), b"after");
    echoes(&theirs, at(INET, 7000), b"after");
    switch.cli("flush flows --container a").ok();
    pings(&b, INET);
}

#[test]
fn refusals_are_counted_by_their_reason() {
    let street = Street::new();
    let switch = switch(&street, "container_sessions = 64");
    let a = switch.join("a", "");
    let _sockets = until_refused(&a, 80);
    assert!(switch.drops("session-limit") >= 16, "{:?}", switch.rows("show drops"));
}
