//! Bytes in bulk, in every combination of offloads, and datagrams in pieces.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use tapswitch_tests::{Container, Digest, Enter, INET, Nat, Street, echo_udp, needs, receive, send};

use super::{at, connect, echoes, udp};

/// Carries `len` bytes over one connection, and compares what arrives with what was sent.
#[track_caller]
pub(super) fn carry(from: &Container, server: &impl Enter, ip: &str, up: bool, len: u64) {
    let listener = server.inside(|| TcpListener::bind(at(ip, 0))).expect("binds");
    let port = listener.local_addr().expect("it is bound").port();
    let talk = |mut stream: TcpStream, sends: bool| -> io::Result<Digest> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        let digest = if sends { send(&mut stream, len, len)? } else { receive(&mut stream)? };
        if sends {
            stream.shutdown(Shutdown::Write)?;
        }
        Ok(digest)
    };
    let (there, here) = std::thread::scope(|scope| {
        let there = scope.spawn(|| talk(listener.accept()?.0, !up));
        let here = talk(connect(from, ip, port), up);
        (there.join().expect("the server does not panic"), here)
    });
    let (there, here) = (there.expect("the server's end works"), here.expect("the container's end works"));
    assert_eq!(there, here, "up: {up}");
    assert_eq!(here.len, len);
}

fn bulk(options: &str, offload: bool) {
    needs!("ethtool");
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", options);
    street.offload(offload);
    for up in [true, false] {
        carry(&a, street.inet(), INET, up, 25 << 20);
    }
}

#[test]
fn tcp_is_intact_with_offloads_everywhere() {
    bulk("", true);
}

#[test]
fn tcp_is_intact_with_offloads_in_the_container_only() {
    bulk("", false);
}

#[test]
fn tcp_is_intact_with_offloads_on_the_lan_only() {
    bulk("--no-offload", true);
}

#[test]
fn tcp_is_intact_without_offloads() {
    bulk("--no-offload", false);
}

/// Sizes from 3000 to 65 507 bytes, evenly.
fn sizes(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |n| 3_000 + n * (65_507 - 3_000) / (count - 1))
}

#[test]
fn nu_9_200_datagrams_in_shuffled_fragments_are_echoed_whole() {
    needs!("ethtool");
    let street = Street::shuffled();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let _echo = echo_udp(street.inet(), at(INET, 7000));
    let socket = udp(&a);
    for (number, len) in sizes(200).enumerate() {
        let datagram: Vec<u8> = (0..len).map(|at| (at * 31 + number) as u8).collect();
        echoes(&socket, at(INET, 7000), &datagram);
    }
}

#[test]
fn nu_9_shuffled_fragments_of_two_containers_are_not_mixed() {
    needs!("ethtool");
    let street = Street::shuffled();
    let nat = Nat::up(&street, "");
    let all = [nat.join("a", ""), nat.join("b", "")];
    let _echo = echo_udp(street.inet(), at(INET, 7000));
    std::thread::scope(|scope| {
        for (number, container) in all.iter().enumerate() {
            scope.spawn(move || {
                let socket = udp(container);
                sizes(60).for_each(|len| echoes(&socket, at(INET, 7000), &vec![number as u8; len]));
            });
        }
    });
}

#[test]
fn large_pings_cross_in_shuffled_fragments() {
    needs!("ethtool");
    let street = Street::shuffled();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let said = a.cmd(&format!("ping -n -c 5 -i 0.1 -W 3 -s 20000 {INET}")).ok();
    assert!(said.contains("5 received"), "{said}");
}
