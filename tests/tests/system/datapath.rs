//! The datapath of several poll threads: what users count on (order, intact bytes), and what they pay for it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use tapswitch_tests::{Container, Enter, Switch, World};

/// Makes two tests of each law: one with frames read by epoll, one by io_uring.
macro_rules! both_ways {
    ($($law:ident),+ $(,)?) => {
        mod epoll {
            $(#[test] fn $law() { super::$law("--workers 2 --io epoll"); })+
        }
        mod uring {
            $(#[test] fn $law() { super::$law("--workers 2 --io uring"); })+
        }
    };
}

mod cost;
mod order;
mod segments;
mod threads;

/// Datagrams that may be under way: the smallest socket buffer takes more, so whatever is lost, the switch lost.
const WINDOW: u32 = 64;
/// Milliseconds until a datagram that did not come counts as lost.
const LOST: u16 = 5_000;
const PORT: u16 = 5_000;

/// Attaches a container that never speaks of its own accord, so that tests can count its frames.
fn quiet(world: &World, switch: &Switch<'_>, name: &str, options: &str) -> Container {
    let mut container = Container::new(world, name);
    silence(&container);
    container.attach(switch, options);
    container
}

/// Without IPv6, an interface asks for no router and joins no group.
fn silence(container: &Container) {
    container.cmd("sh -e").input("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6").ok();
}

/// A socket at [`PORT`].
fn receiver(container: &Container) -> UdpSocket {
    let socket = container.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))).expect("binds");
    socket.set_nonblocking(true).expect("a socket need not block");
    socket
}

/// Numbered datagrams to one address, a window at a time.
struct Numbered {
    socket: UdpSocket,
    to: SocketAddr,
    next: u32,
}

impl Numbered {
    fn new(from: &Container, to: &str) -> Self {
        let socket = from.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("binds");
        socket.set_broadcast(true).expect("a socket may broadcast");
        Self { socket, to: format!("{to}:{PORT}").parse().expect("an address"), next: 0 }
    }

    /// Sends a window, and takes each datagram from the receiver that it comes to. Returns how many came to each.
    ///
    /// Panics if one does not come, comes twice, or overtakes another on the way to the same receiver.
    #[track_caller]
    fn window(&mut self, receivers: &[&UdpSocket]) -> Vec<usize> {
        let numbers = self.next..self.next + WINDOW;
        self.next = numbers.end;
        for number in numbers.clone() {
            let mut datagram = [0; 100];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            self.socket.send_to(&datagram, self.to).expect("sends");
        }
        let mut missing: BTreeSet<u32> = numbers.collect();
        let mut came: Vec<Vec<u32>> = vec![Vec::new(); receivers.len()];
        while !missing.is_empty() {
            let mut fds: Vec<_> = receivers.iter().map(|r| PollFd::new(r.as_fd(), PollFlags::POLLIN)).collect();
            let news = poll(&mut fds, PollTimeout::from(LOST)).expect("polls");
            assert!(news > 0, "lost: {missing:?}; came: {came:?}");
            for (receiver, came) in receivers.iter().zip(&mut came) {
                while let Some(number) = number(receiver) {
                    assert!(missing.remove(&number), "{number} came twice: after {came:?}, and {missing:?} not yet");
                    assert!(came.last().is_none_or(|last| *last < number), "{number} came after {came:?}");
                    came.push(number);
                }
            }
        }
        came.iter().map(Vec::len).collect()
    }

    /// Panics if anything more has come.
    #[track_caller]
    fn end(self, receivers: &[&UdpSocket]) {
        for receiver in receivers {
            assert_eq!(number(receiver), None, "of {}", self.next);
        }
    }
}

fn number(receiver: &UdpSocket) -> Option<u32> {
    let mut datagram = [0; 100];
    let len = receiver.recv(&mut datagram).ok()?;
    assert_eq!(len, datagram.len());
    datagram.first_chunk().map(|number| u32::from_be_bytes(*number))
}

/// A counter of a port.
fn count(switch: &Switch<'_>, name: &str, counter: &str) -> u64 {
    let port = switch.port(name).unwrap_or_else(|| panic!("{name} is attached"));
    port["counters"][counter].as_u64().unwrap_or_else(|| panic!("{counter} of {port}"))
}

/// Drops as (port, reason, count).
fn drops(switch: &Switch<'_>) -> Vec<(String, String, u64)> {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let rows = switch.rows("show drops");
    rows.iter().map(|row| (text(row, "name"), text(row, "reason"), row["count"].as_u64().unwrap_or(0))).collect()
}
