//! Packet uplinks: `nat:`, `lan:` and `tun:`, and what a NAT owes to both of its sides. One module per topic.
//!
//! What holds for any good NAT is asked of [`Nat`], so that the kernel can prove the test: with
//! `TAPSWITCH_TESTS_NAT=kernel`, `tests/run system nat::` holds those laws against nft's masquerade.
//! It is expected to fail where it is no such NAT: it answers for ports that nobody published, ends a connection by a
//! guessed reset inside the window, relays a container's DHCP offers, and leads no container back to itself.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use tapswitch_tests::{Container, Enter, Netns};

mod basics;
mod behaviour;
mod bulk;
mod differential;
mod flows;
mod injection;
mod lan;
mod policy;
mod publish;
mod purity;
mod quotas;
mod routes;
mod tun;
mod unsolicited;
mod user;

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(5);

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// A connection from a container, with a limit to all waiting.
#[track_caller]
fn connect(from: &Container, ip: &str, port: u16) -> TcpStream {
    let stream = from.inside(|| TcpStream::connect_timeout(&at(ip, port), SOON)).expect("connects");
    stream.set_read_timeout(Some(4 * SOON)).and(stream.set_write_timeout(Some(4 * SOON))).expect("timeouts");
    stream
}

/// A UDP socket at any port, with a limit to its waiting.
fn udp(place: &impl Enter) -> UdpSocket {
    udp_at(place, "0.0.0.0", 0)
}

fn udp_at(place: &impl Enter, ip: &str, port: u16) -> UdpSocket {
    let socket = place.inside(|| UdpSocket::bind(at(ip, port))).expect("binds");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket
}

/// Sends `datagram` until its echo comes, which is the whole of it.
#[track_caller]
fn echoes(socket: &UdpSocket, to: SocketAddr, datagram: &[u8]) {
    let mut back = vec![0; 65_536];
    socket.send_to(datagram, to).expect("sends");
    let (len, from) = socket.recv_from(&mut back).expect("an echo");
    assert_eq!((from, &back[..len] == datagram), (to, true), "{len} of {} bytes", datagram.len());
}

/// Panics if a ping does not get through, or more than `count` are needed.
#[track_caller]
fn pings(from: &impl Enter, to: &str) {
    from.cmd(&format!("ping -n -c 2 -i 0.05 -W 3 {to}")).ok();
}

/// The hardware address of a device.
fn mac(place: &impl Enter, device: &str) -> String {
    let link = place.cmd(&format!("ip -brief link show dev {device}")).ok();
    link.split_whitespace().nth(2).unwrap_or_else(|| panic!("{device} has no address: {link}")).to_owned()
}

/// A route at `place` towards `net`.
fn route(place: &Netns, net: &str, via: &str) {
    place.cmd(&format!("ip route replace {net} via {via}")).ok();
}
