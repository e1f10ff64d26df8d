//! The uplink `user` as its users notice it: each flow of a container is a socket of the host, and must look like none.
//! One module per topic; all of them look at the program from outside only.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tapswitch_tests::{Enter, Stopwatch, Switch, eventually};

mod crowds;
mod datagrams;
mod endings;
mod paths;
mod programs;
mod scans;
mod streams;

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(5);
/// How long any single read or write may take while much else is going on.
const LIMIT: Duration = Duration::from_secs(30);
/// So many flows can be listed without a trace in the daemon's memory.
const FEW: u64 = 400;

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// A connection to the server outside, with a limit to all waiting.
#[track_caller]
fn connect(from: &impl Enter, port: u16) -> TcpStream {
    let stream = from.inside(|| TcpStream::connect_timeout(&at(tapswitch_tests::INET, port), SOON)).expect("connects");
    patient(&stream);
    stream
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(LIMIT)).and(stream.set_write_timeout(Some(LIMIT))).expect("timeouts");
}

/// What the daemon has of the host at a moment.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Open descriptors.
    files: usize,
    /// Resident memory, in bytes.
    rss: u64,
}

impl Held {
    fn by(pid: u32) -> Self {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process has descriptors").count();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process has memory");
        let line = rollup.lines().find(|line| line.starts_with("Rss:")).expect("a part of it is resident");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
        Self { files, rss: kib << 10 }
    }

    /// How much more resident memory this is.
    fn grown_since(self, before: Self) -> u64 {
        self.rss.saturating_sub(before.rss)
    }
}

/// Flows that are still used. Whoever ends a connection first remembers it for a moment, but needs no socket for that.
fn flows(switch: &Switch<'_>) -> u64 {
    // A listing of thousands would itself take memory.
    let all = switch.json("show stats")["flows"].as_u64().expect("a number of flows");
    if all > FEW {
        return all;
    }
    switch.rows("show flows").iter().filter(|flow| flow["state"] != "time-wait").count() as u64
}

/// Waits until the daemon has no flow and as many descriptors as it had, and then about as much memory.
#[track_caller]
fn returns_to(switch: &mut Switch<'_>, before: Held, limit: Duration) {
    let pid = switch.daemon().pid();
    let switch = &*switch;
    eventually("no flow is left", limit, || (flows(switch) == 0).then_some(()));
    let back = |now: Held| now.files <= before.files && now.rss <= before.rss + before.rss / 5 + (1 << 20);
    let watch = Stopwatch::start();
    let last = eventually("it is looked at", 2 * limit, || {
        let now = Held::by(pid);
        (back(now) || watch.elapsed() > limit).then_some(now)
    });
    assert!(back(last), "{before:?} became {last:?}");
}
