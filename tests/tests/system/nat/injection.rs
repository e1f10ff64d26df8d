//! Somebody off the path who knows addresses and ports, but not the numbers, tries to end a connection.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use tapswitch_tests::packet::{self, Seen, Segment, flag};
use tapswitch_tests::{INET, Nat, Service, Station, Street, UPLINK, Wire, serve_tcp};

use super::{at, connect};

const PORT: u16 = 9000;

/// A connection between two kernels, and somebody who can send as if he were its server.
struct Target {
    stream: TcpStream,
    attacker: Station,
    server: SocketAddrV4,
    /// The container's outer endpoint.
    outer: SocketAddrV4,
    /// What the container sends next, and what it expects next.
    next: (u32, u32),
    _service: Service,
}

impl Target {
    fn new(street: &Street, nat: &Nat<'_>) -> Self {
        let a = nat.join("a", "");
        let service = serve_tcp(street.inet(), at(INET, PORT), |mut stream| {
            let mut reader = stream.try_clone()?;
            std::io::copy(&mut reader, &mut stream).map(drop)
        });
        let mut tap = Wire::open(street.inet(), "eth0");
        let stream = connect(&a, INET, PORT);
        let mut target = Self {
            stream,
            attacker: Station::beside(street.inet(), "eth0", INET, "198.51.100.1"),
            server: format!("{INET}:{PORT}").parse().expect("an address"),
            outer: SocketAddrV4::new(UPLINK.parse().expect("an address"), 0),
            next: (0, 0),
            _service: service,
        };
        target.works();
        // All data came and went; the last acknowledgement has the numbers of the end.
        tap.find(Duration::from_millis(300), |frame| {
            let seen = packet::in_frame(frame).and_then(packet::read).filter(Seen::is_tcp)?;
            if seen.dst == target.server && seen.flags & flag::SYN == 0 {
                target.outer = seen.src;
                let end = seen.number.wrapping_add(seen.data.len() as u32);
                target.next = (end, seen.ack);
            }
            None::<()>
        });
        assert_ne!(target.outer.port(), 0, "the connection was seen outside");
        target
    }

    /// Panics unless a few hundred kilobytes go there and back.
    #[track_caller]
    fn works(&self) {
        let mut writer = &self.stream;
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n * 7) as u8).collect();
        let mut back = vec![0; sent.len()];
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| (&self.stream).read_exact(&mut back));
            writer.write_all(&sent).expect("the connection takes data");
            reader.join().expect("the reader does not panic").expect("the data comes back");
        });
        assert!(back == sent, "the data comes back as it was");
    }

    fn reset(&self, seq: u32, flags: u8) {
        let segment = Segment { flags, seq, ack: self.next.0, data: b"" };
        self.attacker.send(&packet::tcp(self.server, self.outer, segment));
    }

    /// A segment of ours as a forger imagines it.
    fn guess(&self, seq: u32) -> Vec<u8> {
        packet::tcp(self.outer, self.server, Segment { flags: flag::ACK, seq, ack: self.next.1, data: b"" })
    }
}

#[test]
fn nt_6_at_11_2000_guessed_resets_do_not_end_a_connection() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let target = Target::new(&street, &nat);
    let mut guess = 0x1234_5678_u32;
    for _ in 0..2000 {
        guess = guess.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Never the one number that is right.
        target.reset(if guess == target.next.1 { guess + 1 } else { guess }, flag::RST);
    }
    target.works();
}

#[test]
fn nt_6_at_11_resets_and_syns_inside_the_window_but_not_exact_do_not_end_a_connection() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let target = Target::new(&street, &nat);
    for ahead in [1, 2, 100, 1460, 20_000] {
        target.reset(target.next.1.wrapping_add(ahead), flag::RST);
        target.reset(target.next.1.wrapping_add(ahead), flag::RST | flag::ACK);
        target.reset(target.next.1.wrapping_add(ahead), flag::SYN);
    }
    target.works();
}

#[test]
fn nt_6_the_exact_reset_ends_it() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let target = Target::new(&street, &nat);
    target.reset(target.next.1, flag::RST);
    let ended = (&target.stream).read(&mut [0; 1]);
    assert_eq!(ended.map_err(|e| e.kind()), Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn nt_5_at_12_forged_icmp_errors_do_not_end_a_connection() {
    let street = Street::new();
    let nat = Nat::up(&street, "");
    let target = Target::new(&street, &nat);
    let (forger, ours) = (target.attacker.ip(), *target.outer.ip());
    for (kind, word) in [
        ((3, 0), 0),
        ((3, 1), 0),
        ((3, 2), 0),
        ((3, 3), 0),
        ((3, 4), 68),
        ((3, 13), 0),
        ((11, 0), 0),
        ((12, 0), 0),
        ((4, 0), 0),
    ] {
        for seq in [0, target.next.0.wrapping_add(0x4000_0000), target.next.0.wrapping_sub(0x1000_0000)] {
            target.attacker.send(&packet::error(forger, ours, kind, word, &target.guess(seq)));
        }
        let mut other = target.guess(target.next.0);
        other[20] ^= 0x55;
        target.attacker.send(&packet::error(forger, ours, kind, word, &other));
    }
    target.works();
}
