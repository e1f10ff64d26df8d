//! Long streams: readers that pause, what that costs the daemon, and what must not get lost.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tapswitch_tests::{INET, Stopwatch, Switch, World, eventually, holds_for, receive, send, serve_tcp};

use super::{Held, LIMIT, at, connect};

/// More than all buffers on the way can take.
const MUCH: u64 = 1 << 30;

/// Set where tests may take minutes.
const LONG: &str = "TAPSWITCH_TESTS_LONG";
/// What the daemon may need for one connection that stands still.
const WAITING: u64 = 8 << 20;

/// Counts what it wrote.
struct Counting {
    stream: TcpStream,
    sent: Arc<AtomicU64>,
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.stream.write(bytes)?;
        self.sent.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Waits until nothing more can be sent: the count stands still for so long.
fn stands_still(sent: &AtomicU64, time: Duration) {
    let mut last = (sent.load(Ordering::Relaxed), Stopwatch::start());
    eventually("the sender is held up", LIMIT, || {
        let now = sent.load(Ordering::Relaxed);
        if now != last.0 || now == 0 {
            last = (now, Stopwatch::start());
        }
        (last.1.elapsed() >= time).then_some(())
    });
}

/// A sender meets a reader who does not read for two seconds. Everything arrives; meanwhile nothing piles up.
fn pauses(outwards: bool) {
    let world = World::new();
    let (hand, handed) = mpsc::channel();
    let _server = serve_tcp(world.inet(), at(INET, 9000), move |stream| hand.send(stream).map_err(io::Error::other));
    let mut switch = Switch::up(&world, "");
    let pid = switch.daemon().pid();
    let a = switch.join("a", "");
    let pair = || (connect(&a, 9000), handed.recv_timeout(LIMIT).expect("the server accepts"));
    // What the first connection of all needs is not the second one's.
    let _first = pair();
    let before = Held::by(pid);
    let (inner, outer) = pair();
    let (from, mut to) = if outwards { (inner, outer) } else { (outer, inner) };
    let sent = Arc::new(AtomicU64::new(0));
    let counting = Counting { stream: from, sent: Arc::clone(&sent) };
    let sender = thread::spawn(move || {
        let mut counting = counting;
        let digest = send(&mut counting, 4, MUCH).expect("sends everything");
        counting.stream.shutdown(Shutdown::Write).expect("ends");
        digest
    });
    stands_still(&sent, Duration::from_secs(2));
    let held_up = sent.load(Ordering::Relaxed);
    assert!(held_up < MUCH, "all of it was taken");
    let waiting = Held::by(pid);
    assert!(waiting.grown_since(before) < WAITING, "{before:?} became {waiting:?}");
    let received = receive(&mut to).expect("everything arrives");
    assert_eq!(sender.join().expect("no panic"), received);
    assert!(Held::by(pid).grown_since(before) < WAITING, "{before:?} became {:?}", Held::by(pid));
}

#[test]
fn tr_5_a_container_that_does_not_read_holds_the_outside_up_and_costs_no_memory() {
    pauses(false);
}

#[test]
fn tr_5_a_server_that_does_not_read_holds_the_container_up_and_costs_no_memory() {
    pauses(true);
}

#[test]
fn tr_11_urgent_bytes_stay_in_their_place_both_ways() {
    let world = World::new();
    // Each end says the same, one urgent byte amid each part, and reads the other's.
    let expected: Vec<u8> = (0..200_u32).flat_map(|n| [&[b'<', n as u8][..], b"!", b">"].concat()).collect();
    let talk = |mut stream: TcpStream| -> io::Result<Vec<u8>> {
        SockRef::from(&stream).set_out_of_band_inline(true)?;
        for part in 0..200_u32 {
            stream.write_all(&[b'<', part as u8])?;
            SockRef::from(&stream).send_out_of_band(b"!")?;
            stream.write_all(b">")?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard)?;
        Ok(heard)
    };
    let (tell, told) = mpsc::channel();
    let _server =
        serve_tcp(world.inet(), at(INET, 9000), move |stream| tell.send(talk(stream)?).map_err(io::Error::other));
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    assert_eq!(talk(connect(&a, 9000)).expect("both ways end"), expected);
    assert_eq!(told.recv_timeout(LIMIT).expect("the server heard all"), expected);
}

#[test]
fn tr_10_keepalive_probes_are_answered_while_nothing_passes() {
    let world = World::new();
    let _server = serve_tcp(world.inet(), at(INET, 9000), |mut stream| {
        let mut back = stream.try_clone()?;
        io::copy(&mut stream, &mut back).map(drop)
    });
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let mut stream = connect(&a, 9000);
    let probes =
        TcpKeepalive::new().with_time(Duration::from_secs(1)).with_interval(Duration::from_secs(1)).with_retries(3);
    SockRef::from(&stream).set_tcp_keepalive(&probes).expect("an option");
    // Without answers the container's kernel would give up after four seconds.
    holds_for("the connection stays", Duration::from_millis(5_500), || {
        SockRef::from(&stream).take_error().is_ok_and(|error| error.is_none())
    });
    stream.write_all(b"x").expect("is still open");
    stream.read_exact(&mut [0]).expect("is still answered");
}

/// Whether somebody asked for tests that take minutes.
fn long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// Does nothing unless long tests are asked for.
#[test]
fn tr_12_one_connection_carries_more_than_four_gibibytes_each_way() {
    if !long() {
        return;
    }
    const LEN: u64 = (4 << 30) + (64 << 20);
    let world = World::new();
    let (hand, handed) = mpsc::channel();
    let _server = serve_tcp(world.inet(), at(INET, 9000), move |stream| hand.send(stream).map_err(io::Error::other));
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let inner = connect(&a, 9000);
    let outer = handed.recv_timeout(LIMIT).expect("the server accepts");
    for (mut from, mut to) in [(&inner, &outer), (&outer, &inner)] {
        let (sent, received) = thread::scope(|scope| {
            let sender = scope.spawn(move || {
                let digest = send(&mut from, 5, LEN);
                from.shutdown(Shutdown::Write).and(digest)
            });
            let received = receive(&mut to);
            (sender.join().expect("no panic"), received)
        });
        assert_eq!(sent.expect("sends"), received.expect("receives"));
    }
}
