//! The same packets through the kernel's masquerade and through us: what passes, what is dropped, what is answered.
//!
//! Both ends are stations whose packets are made by hand, one after the other. Behind each goes a datagram of a flow
//! that always passes, there and back: once that is home, whatever the packet caused has been seen. What differs stands
//! in [`EXPLAINED`], with the reason; anything else that differs fails the test.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddrV4;

use tapswitch_tests::packet::{self, Seen, Segment, flag};
use tapswitch_tests::{Container, GATEWAY, INET, Kernel, Station, Street, UPLINK};

use super::SOON;

/// Step, what the kernel makes of it, what we make of it, and why.
const EXPLAINED: &[(&str, &str, &str, &str)] = &[
    (
        "udp in from another port of the peer",
        "answered icmp 3/3",
        "passes udp 4 bytes",
        "we filter by address (RFC 4787 REQ-8), the kernel by address and port; then its host answers for a closed port",
    ),
    ("udp in to a port nobody has", "answered icmp 3/3", "-", "the kernel's address is a host's, ours a router's only"),
    ("udp in with a wrong checksum", "-", "passes udp 4 bytes", "the receiver judges it: a router does not look"),
    ("udp out to port 0", "passes udp 4 bytes", "-", "no such port exists (RFC 768 reserves it)"),
    ("tcp in SYN to a port nobody has", "answered tcp RA 0 bytes", "-", "RFC 5382 REQ-4: no answer for six seconds"),
    ("tcp in ACK to a port nobody has", "answered tcp R 0 bytes", "-", "as above"),
    ("tcp in SYN-ACK to a port nobody has", "answered tcp R 0 bytes", "-", "as above"),
    (
        "tcp data in, far ahead of the window",
        "answered tcp R 0 bytes",
        "passes tcp A 1 bytes",
        "the receiver judges it; the kernel calls it invalid, translates nothing, and its own host resets the connection",
    ),
    ("tcp RST in, far from the window", "-", "passes tcp R 0 bytes", "the receiver judges it; it ends nothing here"),
    (
        "tcp SYN in on an open connection",
        "answered tcp RA 0 bytes",
        "passes tcp S 0 bytes",
        "the receiver answers with a challenge (RFC 5961 4); the kernel's host resets instead",
    ),
    (
        "tcp out FIN of a connection nobody saw begin",
        "-",
        "passes tcp FA 0 bytes",
        "it is picked up as any other segment with an ACK, so that connections from before a restart can end",
    ),
    ("timestamp request out", "passes icmp 13/0", "-", "of the ICMP queries, only echo is translated (RFC 6918)"),
    ("timestamp request to our outer address", "answered icmp 14/0", "-", "it tells the time to strangers (RFC 6918)"),
    ("gre out", "passes ip 8 bytes", "-", "only TCP, UDP and ICMP are translated"),
];

/// The port, at both ends, of the flow that always passes.
const FENCE: u16 = 1999;

struct Lab {
    a: Station,
    out: Station,
    /// The outer endpoint that each inner one was last seen with, by protocol and inner port.
    outer: HashMap<(u8, u16), SocketAddrV4>,
    fences: u32,
    outcomes: BTreeMap<&'static str, String>,
}

impl Lab {
    fn new(street: &Street, a: &Container) -> Self {
        let a = Station::take(a, "eth0", a.ip(), GATEWAY);
        let out = Station::take(street.inet(), "eth0", INET, "198.51.100.1");
        let mut lab = Self { a, out, outer: HashMap::new(), fences: 0, outcomes: BTreeMap::new() };
        let first = packet::udp(lab.a.at(FENCE), lab.out.at(FENCE), b"first");
        lab.a.send(&first);
        let seen = lab.out.find(SOON, |seen| seen.dst.port() == FENCE).expect("the fence's flow passes");
        lab.outer.insert((seen.proto, FENCE), seen.src);
        lab
    }

    /// Where the outside reaches this inner port.
    fn outer(&self, proto: u8, port: u16) -> SocketAddrV4 {
        let unknown = SocketAddrV4::new(UPLINK.parse().expect("an address"), port);
        *self.outer.get(&(proto, port)).unwrap_or(&unknown)
    }

    /// Sends packets from inside as one step.
    fn goes_out(&mut self, name: &'static str, packets: &[Vec<u8>]) {
        packets.iter().for_each(|packet| self.a.send(packet));
        let far = self.fence(true);
        let near = self.fence(false);
        for (sent, seen) in packets.iter().filter_map(|packet| packet::read(packet)).zip(&far) {
            assert_eq!(seen.src.ip().to_string(), UPLINK, "{name}: {seen:?}");
            self.outer.insert((seen.proto, sent.src.port()), seen.src);
        }
        self.note(name, &far, &near);
    }

    /// Sends packets from outside as one step.
    fn comes_in(&mut self, name: &'static str, packets: &[Vec<u8>]) {
        packets.iter().for_each(|packet| self.out.send(packet));
        let far = self.fence(false);
        let near = self.fence(true);
        self.note(name, &far, &near);
    }

    /// Sends a datagram that always passes. Returns what came before it.
    fn fence(&mut self, outwards: bool) -> Vec<Seen> {
        self.fences += 1;
        let mark = self.fences.to_be_bytes();
        let outer = self.outer(17, FENCE);
        let receiver = if outwards {
            self.a.send(&packet::udp(self.a.at(FENCE), self.out.at(FENCE), &mark));
            &mut self.out
        } else {
            self.out.send(&packet::udp(self.out.at(FENCE), outer, &mark));
            &mut self.a
        };
        let mut before = Vec::new();
        let fence = receiver.find(SOON, |seen| {
            let is_fence = seen.is_udp() && seen.dst.port() == FENCE;
            if !is_fence {
                before.push(seen.clone());
            }
            is_fence && seen.data == mark
        });
        assert!(fence.is_some(), "the flow that always passes does not, after {:?}", self.outcomes);
        before
    }

    fn note(&mut self, name: &'static str, far: &[Seen], near: &[Seen]) {
        let kinds =
            |word: &str, seen: &[Seen]| seen.iter().map(|seen| format!("{word} {}", seen.kind())).collect::<Vec<_>>();
        let all = [kinds("passes", far), kinds("answered", near)].concat();
        let outcome = if all.is_empty() { "-".to_owned() } else { all.join(", ") };
        assert!(self.outcomes.insert(name, outcome).is_none(), "{name} is there twice");
    }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ACK: u8 = flag::ACK;

fn udp(lab: &mut Lab) {
    let (a, peer) = (lab.a.at(4000), lab.out.at(7));
    let other_port = lab.out.at(8);
    let stranger: SocketAddrV4 = "198.51.100.77:7".parse().expect("an address");
    lab.goes_out("udp out", &[packet::udp(a, peer, b"data")]);
    let outer = lab.outer(UDP, 4000);
    lab.comes_in("udp in", &[packet::udp(peer, outer, b"data")]);
    lab.comes_in("udp in from another port of the peer", &[packet::udp(other_port, outer, b"data")]);
    lab.comes_in("udp in from a stranger", &[packet::udp(stranger, outer, b"data")]);
    let nobody = SocketAddrV4::new(*outer.ip(), 33);
    lab.comes_in("udp in to a port nobody has", &[packet::udp(peer, nobody, b"data")]);
    lab.goes_out("udp out, empty", &[packet::udp(a, peer, b"")]);
    lab.comes_in("udp in, empty", &[packet::udp(peer, outer, b"")]);
    let with_sum = |mut packet: Vec<u8>, sum: u16| {
        packet[26..28].copy_from_slice(&sum.to_be_bytes());
        vec![packet]
    };
    lab.goes_out("udp out without a checksum", &with_sum(packet::udp(a, peer, b"data"), 0));
    lab.comes_in("udp in without a checksum", &with_sum(packet::udp(peer, outer, b"data"), 0));
    lab.comes_in("udp in with a wrong checksum", &with_sum(packet::udp(peer, outer, b"data"), 0x1234));
    lab.goes_out("udp out to port 0", &[packet::udp(a, lab.out.at(0), b"data")]);
    let whole = packet::udp(a, peer, &[7; 2000]);
    let parts = packet::fragments(&whole, 1500);
    lab.goes_out("udp out in fragments", &parts);
    lab.goes_out("udp out in fragments, last first", &[parts[1].clone(), parts[0].clone()]);
    let parts = packet::fragments(&packet::udp(peer, outer, &[7; 2000]), 1500);
    lab.comes_in("udp in in fragments", &parts);
    lab.comes_in("udp in in fragments, last first", &[parts[1].clone(), parts[0].clone()]);
}

fn tcp(lab: &mut Lab) {
    let (a, peer) = (lab.a.at(4100), lab.out.at(80));
    let segment = |flags, seq, ack, data: &'static [u8]| Segment { flags, seq, ack, data };
    let up = |s| [packet::tcp(a, peer, s)];
    lab.goes_out("tcp SYN", &up(segment(flag::SYN, 1000, 0, b"")));
    let outer = lab.outer(TCP, 4100);
    let down = |s| [packet::tcp(peer, outer, s)];
    lab.goes_out("tcp SYN again", &up(segment(flag::SYN, 1000, 0, b"")));
    lab.comes_in("tcp SYN-ACK", &down(segment(flag::SYN | ACK, 5000, 1001, b"")));
    lab.goes_out("tcp ACK", &up(segment(ACK, 1001, 5001, b"")));
    lab.goes_out("tcp data out", &up(segment(ACK, 1001, 5001, b"hello")));
    lab.goes_out("tcp data out again", &up(segment(ACK, 1001, 5001, b"hello")));
    lab.comes_in("tcp data in", &down(segment(ACK, 5001, 1006, b"world")));
    lab.comes_in("tcp data in, acknowledged long ago", &down(segment(ACK, 5001, 1001, b"world")));
    lab.goes_out("tcp keep-alive", &up(segment(ACK, 1005, 5006, b"")));
    lab.goes_out("tcp duplicate ACK", &up(segment(ACK, 1006, 5001, b"")));
    lab.comes_in("tcp data in, far ahead of the window", &down(segment(ACK, 50_005_000, 1006, b"x")));
    lab.comes_in("tcp RST in, far from the window", &down(segment(flag::RST, 90_005_000, 0, b"")));
    lab.comes_in("tcp RST in, inside the window but not exact", &down(segment(flag::RST, 5100, 0, b"")));
    lab.comes_in("tcp SYN in on an open connection", &down(segment(flag::SYN, 7000, 0, b"")));
    lab.goes_out("tcp data out after all that", &up(segment(ACK, 1006, 5006, b"still")));
    lab.comes_in("tcp data in after all that", &down(segment(ACK, 5006, 1011, b"here")));
    lab.comes_in("tcp FIN in", &down(segment(flag::FIN | ACK, 5010, 1011, b"")));
    lab.goes_out("tcp data out while half closed", &up(segment(ACK, 1011, 5011, b"half")));
    lab.goes_out("tcp FIN out", &up(segment(flag::FIN | ACK, 1015, 5011, b"")));
    lab.comes_in("tcp last ACK", &down(segment(ACK, 5011, 1016, b"")));
    lab.comes_in("tcp FIN in again", &down(segment(flag::FIN | ACK, 5010, 1016, b"")));
    lab.goes_out("tcp SYN on the same ports after the end", &up(segment(flag::SYN, 900_000, 0, b"")));
    let nobody = SocketAddrV4::new(*outer.ip(), 33);
    let lost = |flags| [packet::tcp(peer, nobody, segment(flags, 1, 1, b""))];
    lab.comes_in("tcp in SYN to a port nobody has", &lost(flag::SYN));
    lab.comes_in("tcp in ACK to a port nobody has", &lost(ACK));
    lab.comes_in("tcp in SYN-ACK to a port nobody has", &lost(flag::SYN | ACK));
    lab.comes_in("tcp in RST to a port nobody has", &lost(flag::RST));
    let strays: [(&'static str, u16, u8); 6] = [
        ("tcp out ACK of a connection nobody saw begin", 4200, ACK),
        ("tcp out RST of a connection nobody saw begin", 4201, flag::RST),
        ("tcp out FIN of a connection nobody saw begin", 4202, flag::FIN | ACK),
        ("tcp out SYN-ACK of a connection nobody saw begin", 4203, flag::SYN | ACK),
        ("tcp out without any flag", 4204, 0),
        ("tcp out SYN and FIN at once", 4205, flag::SYN | flag::FIN),
    ];
    for (name, port, flags) in strays {
        lab.goes_out(name, &[packet::tcp(lab.a.at(port), peer, segment(flags, 77, 88, b""))]);
    }
    lab.goes_out("tcp SYN that will be refused", &[packet::tcp(lab.a.at(4300), peer, segment(flag::SYN, 1, 0, b""))]);
    let outer = lab.outer(TCP, 4300);
    lab.comes_in("tcp RST as a refusal", &[packet::tcp(peer, outer, segment(flag::RST | ACK, 0, 2, b""))]);
    lab.goes_out("tcp SYN again after a refusal", &[packet::tcp(lab.a.at(4300), peer, segment(flag::SYN, 1, 0, b""))]);
}

fn icmp(lab: &mut Lab) {
    let (inner, peer) = (lab.a.ip(), lab.out.ip());
    let id = 600;
    lab.goes_out("ping out", &[packet::echo(inner, peer, false, id, 1)]);
    let outer = lab.outer(ICMP, id);
    let ours = *outer.ip();
    lab.comes_in("ping reply", &[packet::echo(peer, ours, true, outer.port(), 1)]);
    lab.comes_in("ping reply again", &[packet::echo(peer, ours, true, outer.port(), 1)]);
    lab.comes_in("ping reply that nobody asked for", &[packet::echo(peer, ours, true, outer.port() ^ 0x55, 1)]);
    lab.comes_in("ping to our outer address", &[packet::echo(peer, ours, false, 9, 1)]);
    lab.goes_out(
        "ping out with its last hop",
        &[{
            let mut packet = packet::echo(inner, peer, false, id, 2);
            packet[8] = 1;
            packet::seal(&mut packet);
            packet
        }],
    );
    lab.goes_out("timestamp request out", &[packet::icmp(inner, peer, (13, 0), 7, &[0; 12])]);
    lab.comes_in("timestamp request to our outer address", &[packet::icmp(peer, ours, (13, 0), 7, &[0; 12])]);

    let (a, b) = (lab.a.at(4400), lab.out.at(9));
    lab.goes_out("udp out that errors are about", &[packet::udp(a, b, b"quoted")]);
    let about = packet::udp(lab.outer(UDP, 4400), b, b"quoted");
    let errors: [(&'static str, (u8, u8), u32); 6] = [
        ("error in: port unreachable", (3, 3), 0),
        ("error in: fragmentation needed", (3, 4), 1280),
        ("error in: prohibited", (3, 13), 0),
        ("error in: time exceeded", (11, 0), 0),
        ("error in: parameter problem", (12, 0), 0),
        ("error in: redirect", (5, 1), 0xc000_0209),
    ];
    for (name, kind, word) in errors {
        lab.comes_in(name, &[packet::error(peer, ours, kind, word, &about)]);
    }
    let hop = "198.51.100.77".parse().expect("an address");
    lab.comes_in("error in from a router on the way", &[packet::error(hop, ours, (11, 0), 0, &about)]);
    let mut stray = about.clone();
    stray[20] ^= 0x55;
    lab.comes_in("error in about a flow that is none", &[packet::error(peer, ours, (3, 3), 0, &stray)]);
    lab.comes_in("udp in after all errors", &[packet::udp(b, lab.outer(UDP, 4400), b"data")]);
    let received = packet::udp(b, a, b"data");
    lab.goes_out("error out: port unreachable", &[packet::error(inner, peer, (3, 3), 0, &received)]);
    lab.goes_out("error out about a flow that is none", &[packet::error(inner, peer, (3, 3), 0, &stray)]);
    lab.comes_in("udp in after our error", &[packet::udp(b, lab.outer(UDP, 4400), b"data")]);
}

fn other(lab: &mut Lab) {
    let mut gre = packet::udp(lab.a.at(0), lab.out.at(0), b"");
    gre[9] = 47;
    packet::seal(&mut gre);
    lab.goes_out("gre out", &[gre]);
    let mut wrong = packet::udp(lab.a.at(4500), lab.out.at(7), b"data");
    wrong[10] ^= 1;
    lab.goes_out("ip out with a wrong header checksum", &[wrong]);
    let mut short = packet::udp(lab.a.at(4500), lab.out.at(7), b"data");
    short[24..26].copy_from_slice(&100_u16.to_be_bytes());
    lab.goes_out("udp out longer than its packet", &[short]);
    let martian = SocketAddrV4::new([127, 0, 0, 1].into(), 7);
    lab.goes_out("udp out to loopback", &[packet::udp(lab.a.at(4500), martian, b"data")]);
}

fn run(street: &Street, a: &Container) -> BTreeMap<&'static str, String> {
    let mut lab = Lab::new(street, a);
    udp(&mut lab);
    tcp(&mut lab);
    icmp(&mut lab);
    other(&mut lab);
    lab.outcomes
}

fn kernel() -> BTreeMap<&'static str, String> {
    let street = Street::new();
    let kernel = Kernel::up(&street);
    let a = kernel.join("a");
    run(&street, &a)
}

#[test]
fn the_kernel_does_what_the_table_of_differences_says() {
    let outcomes = kernel();
    if std::env::var_os("TAPSWITCH_TESTS_SHOW").is_some() {
        outcomes.iter().for_each(|(step, outcome)| println!("{step}: {outcome}"));
    }
    for (step, expected, _, _) in EXPLAINED {
        assert_eq!(outcomes.get(step).map(String::as_str), Some(*expected), "{step}");
    }
}

#[test]
fn nt_7_what_the_kernel_lets_pass_we_let_pass_and_the_rest_is_explained() {
    let kernel = kernel();
    let street = Street::new();
    let switch = street.switch("");
    let a = switch.join("a", "");
    let ours = run(&street, &a);
    let mut unexplained = Vec::new();
    for (step, theirs) in &kernel {
        let expected = EXPLAINED.iter().find(|row| row.0 == *step).map_or(theirs.as_str(), |row| row.2);
        if ours[step] != expected {
            unexplained.push(format!("{step}: kernel {theirs:?}, ours {:?}, expected {expected:?}", ours[step]));
        }
    }
    assert!(unexplained.is_empty(), "{} differences:\n{}", unexplained.len(), unexplained.join("\n"));
}
