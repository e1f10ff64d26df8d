//! How connections end: half by half, or at once, and always on the other side too.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use tapswitch_tests::{Container, Digest, INET, Stopwatch, Switch, World, receive, send, serve_tcp};

use super::{Held, LIMIT, SOON, at, connect, returns_to};

/// Connections one after the other, in each of as many threads.
const ROUNDS: u64 = 50;
const THREADS: u64 = 6;

/// Lengths from nothing to several windows, of which each thread has others.
fn len(number: u64) -> u64 {
    match number % 5 {
        0 => number % 3,
        1 => 1460,
        2 => 65_537 + number,
        3 => 7 * number,
        _ => 150_000 + 11 * number,
    }
}

/// Numbers of connections, `THREADS` at a time.
fn at_once(one: impl Fn(u64) + Sync) {
    let one = &one;
    thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || (0..ROUNDS).for_each(|round| one(first * ROUNDS + round)));
        }
    });
}

/// An answer that only who knows the whole question can give.
fn answer(to: &mut impl Write, question: &Digest) -> io::Result<Digest> {
    let seed = u64::from_le_bytes(question.sha256[..8].try_into().expect("eight bytes"));
    send(to, seed, question.len / 2 + u64::from(question.sha256[9]))
}

#[test]
fn tr_3_three_hundred_questions_that_end_get_their_whole_answers() {
    let world = World::new();
    let _server = serve_tcp(world.inet(), at(INET, 9000), |mut stream| {
        let question = receive(&mut stream)?;
        answer(&mut stream, &question).map(drop)
    });
    let mut switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let before = Held::by(switch.daemon().pid());
    at_once(|number| {
        let mut stream = connect(&a, 9000);
        let question = send(&mut stream, number, len(number)).expect("sends");
        stream.shutdown(Shutdown::Write).expect("half closes");
        let expected = answer(&mut io::sink(), &question).expect("a sink takes all");
        assert_eq!(receive(&mut stream).expect("the answer"), expected, "connection {number}");
    });
    returns_to(&mut switch, before, LIMIT);
}

#[test]
fn tr_3_three_hundred_servers_that_have_ended_hear_the_rest() {
    let world = World::new();
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let _server = serve_tcp(world.inet(), at(INET, 9000), move |mut stream| {
        let mut number = [0; 8];
        stream.read_exact(&mut number)?;
        let number = u64::from_le_bytes(number);
        send(&mut stream, number, len(number))?;
        stream.shutdown(Shutdown::Write)?;
        let heard = receive(&mut stream)?;
        tell.lock().expect("no panic").send((number, heard)).map_err(io::Error::other)
    });
    let mut switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let before = Held::by(switch.daemon().pid());
    let sent = Mutex::new(Vec::new());
    at_once(|number| {
        let mut stream = connect(&a, 9000);
        stream.write_all(&number.to_le_bytes()).expect("sends");
        let expected = send(&mut io::sink(), number, len(number)).expect("a sink takes all");
        assert_eq!(receive(&mut stream).expect("the server's half"), expected, "connection {number}");
        let rest = send(&mut stream, number + 1, len(number + 1)).expect("the other half still works");
        sent.lock().expect("no panic").push((number, rest));
    });
    let mut sent = sent.into_inner().expect("no panic");
    let mut heard: Vec<_> = sent.iter().map(|_| told.recv_timeout(LIMIT).expect("the server hears the end")).collect();
    sent.sort_by_key(|(number, _)| *number);
    heard.sort_by_key(|(number, _)| *number);
    assert!(sent == heard, "what was sent last is not what was heard");
    returns_to(&mut switch, before, LIMIT);
}

/// What stands in the way of a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Amid {
    /// Nothing.
    Silence,
    /// Either end has something that it has not read.
    Unread,
    /// The end that is going to hear of it has already ended its half.
    HalfClosed,
    /// Either end sends until nothing more is taken, and neither reads.
    FullBuffers,
}

const AMID: [Amid; 4] = [Amid::Silence, Amid::Unread, Amid::HalfClosed, Amid::FullBuffers];

/// Sends until the other side takes no more for a moment.
fn fill(mut stream: &TcpStream) {
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let block = vec![0x5a; 1 << 16];
    while stream.write(&block).is_ok() {}
}

/// One end breaks the connection; the other one must learn it at once, as a reset.
fn breaks(amid: Amid, breaker: TcpStream, mut other: TcpStream) {
    match amid {
        Amid::Silence => {}
        Amid::Unread => {
            for mut end in [&breaker, &other] {
                end.write_all(&[7; 5000]).expect("sends");
            }
            // Both have it, and leave it where it is.
            for end in [&breaker, &other] {
                end.peek(&mut [0]).expect("something to read");
            }
        }
        Amid::HalfClosed => {
            other.shutdown(Shutdown::Write).expect("half closes");
            let mut breaker = &breaker;
            assert_eq!(breaker.read(&mut [0]).expect("an end"), 0);
        }
        Amid::FullBuffers => thread::scope(|scope| {
            scope.spawn(|| fill(&breaker));
            fill(&other);
        }),
    }
    SockRef::from(&breaker).set_linger(Some(Duration::ZERO)).expect("a lingering time");
    let watch = Stopwatch::start();
    drop(breaker);
    let mut block = vec![0; 1 << 16];
    // What had come before may still be read; then comes the reset, and no orderly end.
    let error = loop {
        match other.read(&mut block) {
            Ok(0) => panic!("{amid:?}: an orderly end after {:?}", watch.elapsed()),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{amid:?}: {error} after {:?}", watch.elapsed());
    assert!(watch.elapsed() < Duration::from_secs(2), "{amid:?}: only after {:?}", watch.elapsed());
}

/// Each kind of reset, several times.
fn resets(by_container: bool) {
    let world = World::new();
    let (hand, handed) = mpsc::channel();
    let _server = serve_tcp(world.inet(), at(INET, 9000), move |stream| hand.send(stream).map_err(io::Error::other));
    let mut switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let pair = |a: &Container| (connect(a, 9000), handed.recv_timeout(SOON).expect("the server accepts"));
    drop(pair(&a));
    let before = Held::by(switch.daemon().pid());
    for amid in AMID {
        for _ in 0..if amid == Amid::FullBuffers { 2 } else { 10 } {
            let (inner, outer) = pair(&a);
            if by_container { breaks(amid, inner, outer) } else { breaks(amid, outer, inner) }
        }
    }
    // Nor does the daemon keep anything of it.
    let before = Held { rss: before.rss + (4 << 20), ..before };
    returns_to(&mut switch, before, LIMIT);
}

#[test]
fn tr_4_a_container_that_aborts_resets_the_server_whatever_is_under_way() {
    resets(true);
}

#[test]
fn tr_4_a_server_that_aborts_resets_the_container_whatever_is_under_way() {
    resets(false);
}

#[test]
fn tr_4_a_server_that_closes_behind_a_closed_window_leaves_nothing_once_the_container_goes() {
    let world = World::new();
    let (hand, handed) = mpsc::channel();
    let _server = serve_tcp(world.inet(), at(INET, 9000), move |stream| hand.send(stream).map_err(io::Error::other));
    let mut switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let before = Held::by(switch.daemon().pid());
    let inner = connect(&a, 9000);
    let outer = handed.recv_timeout(SOON).expect("the server accepts");
    fill(&outer);
    drop(outer);
    // With data unread, closing is a reset.
    inner.peek(&mut [0]).expect("something to read");
    drop(inner);
    let before = Held { rss: before.rss + (4 << 20), ..before };
    returns_to(&mut switch, before, LIMIT);
}
