//! Segments that nobody asked for, and connections that both sides open.

use std::net::SocketAddrV4;
use std::time::Duration;

use tapswitch_tests::packet::{Seen, Segment, flag, tcp};
use tapswitch_tests::{Container, GATEWAY, INET, INET_OTHER, Nat, Station, Street, UPLINK};

use super::SOON;

const SYN: u8 = flag::SYN;
const ACK: u8 = flag::ACK;

/// A container and the server, both with packets made by hand.
struct Pair {
    a: Station,
    out: Station,
}

impl Pair {
    fn new(street: &Street, a: &Container) -> Self {
        let a = Station::take(a, "eth0", a.ip(), GATEWAY);
        let out = Station::take(street.inet(), "eth0", INET, "198.51.100.1");
        Self { a, out }
    }

    /// Sends a segment from inside. Returns it as it arrives outside.
    fn goes_out(&mut self, from: u16, to: SocketAddrV4, flags: u8, seq: u32, ack: u32) -> Option<Seen> {
        self.a.send(&tcp(self.a.at(from), to, Segment { flags, seq, ack, data: b"" }));
        self.out.find(SOON, |seen| seen.is_tcp() && seen.dst == to)
    }

    /// Sends a segment from outside. Returns it as it arrives inside within `limit`.
    fn comes_in(&mut self, to: SocketAddrV4, flags: u8, seq: u32, ack: u32, limit: Duration) -> Option<Seen> {
        self.out.send(&tcp(self.out.at(5555), to, Segment { flags, seq, ack, data: b"" }));
        self.a.find(limit, Seen::is_tcp)
    }
}

fn server(port: u16) -> SocketAddrV4 {
    format!("{INET}:{port}").parse().expect("an address")
}

#[test]
fn x5_nt_3_an_unsolicited_syn_meets_silence_for_six_seconds() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let mut pair = Pair::new(&street, &a);
    let other = format!("{INET_OTHER}:80").parse().expect("an address");
    let mapped = pair.goes_out(4000, other, SYN, 1, 0).expect("it leaves").src;
    // To a port that nobody has, and to one that a container uses with somebody else.
    for port in [33, mapped.port()] {
        let to = SocketAddrV4::new(*mapped.ip(), port);
        pair.out.send(&tcp(pair.out.at(5555), to, Segment { flags: SYN, seq: 7, ack: 0, data: b"" }));
    }
    let answer = pair.out.next(Duration::from_secs(6));
    assert_eq!(answer.map(|seen| seen.kind()), None, "nothing is said in six seconds");
}

#[test]
fn nt_2_both_sides_may_open_at_once() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let mut pair = Pair::new(&street, &a);
    let outer = pair.goes_out(4000, server(5555), SYN, 100, 0).expect("our SYN leaves").src;
    assert_eq!(outer.ip().to_string(), UPLINK);
    let syn = pair.comes_in(outer, SYN, 900, 0, SOON).expect("their SYN comes in");
    assert_eq!((syn.flags, syn.number, syn.dst.port()), (SYN, 900, 4000));
    let reply = pair.goes_out(4000, server(5555), SYN | ACK, 100, 901).expect("our SYN-ACK leaves");
    assert_eq!((reply.src, reply.flags), (outer, SYN | ACK));
    let reply = pair.comes_in(outer, SYN | ACK, 900, 101, SOON).expect("their SYN-ACK comes in");
    assert_eq!((reply.flags, reply.ack), (SYN | ACK, 101));
    pair.goes_out(4000, server(5555), ACK, 101, 901).expect("the connection works outwards");
    pair.comes_in(outer, ACK, 901, 101, SOON).expect("and inwards");
}

#[test]
fn nt_3_a_syn_that_came_too_early_does_not_spoil_the_connection() {
    let street = Street::new();
    let switch = street.switch("");
    let a = switch.join("a", "");
    let mut pair = Pair::new(&street, &a);
    // One mapping for all destinations: so the peer can know where to send before we ever sent to it.
    let other = format!("{INET_OTHER}:80").parse().expect("an address");
    let outer = pair.goes_out(4000, other, SYN, 1, 0).expect("it leaves").src;
    let early = pair.comes_in(outer, SYN, 900, 0, Duration::from_millis(200));
    assert_eq!(early, None, "it is filtered");
    let ours = pair.goes_out(4000, server(5555), SYN, 100, 0).expect("our SYN leaves");
    assert_eq!(ours.src, outer, "nt_1: one inner endpoint, one outer endpoint");
    let again = pair.comes_in(outer, SYN, 900, 0, SOON).expect("their SYN, sent again, comes in");
    assert_eq!(again.number, 900);
    pair.goes_out(4000, server(5555), SYN | ACK, 100, 901).expect("we agree");
    pair.comes_in(outer, ACK, 901, 101, SOON).expect("so do they");
    let refused =
        pair.out.find(Duration::from_millis(200), |seen| seen.flags & flag::RST != 0 || seen.icmp().is_some());
    assert_eq!(refused, None);
}

#[test]
fn nt_2_half_closed_connections_and_late_segments_pass() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let a = nat.join("a", "");
    let mut pair = Pair::new(&street, &a);
    let fin = flag::FIN | ACK;
    let outer = pair.goes_out(4000, server(5555), SYN, 100, 0).expect("SYN").src;
    pair.comes_in(outer, SYN | ACK, 900, 101, SOON).expect("SYN-ACK");
    pair.goes_out(4000, server(5555), ACK, 101, 901).expect("ACK");
    pair.goes_out(4000, server(5555), fin, 101, 901).expect("our FIN");
    pair.comes_in(outer, ACK, 901, 102, SOON).expect("its ACK");
    pair.comes_in(outer, ACK, 901, 102, SOON).expect("an ACK again");
    pair.goes_out(4000, server(5555), fin, 101, 901).expect("our FIN again");
    pair.comes_in(outer, fin, 901, 102, SOON).expect("their FIN");
    pair.goes_out(4000, server(5555), ACK, 102, 902).expect("the last ACK");
    pair.comes_in(outer, fin, 901, 102, SOON).expect("their FIN again");
    pair.goes_out(4000, server(5555), ACK, 102, 902).expect("the last ACK again");
    // The same ports once more, with a later number, as a client in a hurry does.
    let again = pair.goes_out(4000, server(5555), SYN, 90_000, 0).expect("a new SYN");
    pair.comes_in(again.src, SYN | ACK, 5_000_000, 90_001, SOON).expect("a new SYN-ACK");
}
