//! A whole run: prepare, measure in rounds, say what came out.

use std::fs::{File, TryLockError};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::measure::{Measure, Test};
use crate::options::Options;
use crate::results::{Described, Outcome, Results, SCHEMA, Sample, Settings};
use crate::world::{Peer, World, peers};
use crate::{cage, cpu, facts, plot, table};

/// MTU of every interface.
const MTU: u32 = 1500;

/// What has to be done, and can be refused, before the namespaces are entered.
///
/// The lock that is returned keeps a second run out for as long as it lives.
pub(crate) fn prepare(options: &Options) -> Result<File, String> {
    options.check()?;
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root, because the peers do; run it with sudo".into());
    }
    peers::check_programs(options)?;
    allow(options.cc.name())?;
    lock()
}

/// Two runs at once would measure each other.
fn lock() -> Result<File, String> {
    const LOCK: &str = "/run/tapswitch-compare.lock";
    let file = File::create(LOCK).map_err(|error| format!("cannot create {LOCK}: {error}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err("another run is under way, and two would disturb each other; wait for it".into())
        }
        Err(TryLockError::Error(error)) => Err(format!("cannot lock {LOCK}: {error}")),
    }
}

/// Lets namespaces choose `cc`: only the machine's own namespace can.
fn allow(cc: &str) -> Result<(), String> {
    const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let allowed = std::fs::read_to_string(ALLOWED).map_err(|error| format!("cannot read {ALLOWED}: {error}"))?;
    if allowed.split_whitespace().any(|name| name == cc) {
        return Ok(());
    }
    std::fs::write(ALLOWED, format!("{} {cc}", allowed.trim())).map_err(|error| {
        format!("the kernel does not allow {cc} ({error}); load it: modprobe tcp_{cc}, or try another --cc")
    })
}

/// The run itself, inside the namespaces.
pub(crate) fn all(options: &Options) -> Result<(), String> {
    cage::furnish()?;
    let facts = facts::gather()?;
    let date = facts.date.split('T').next().unwrap_or_default().to_owned();
    let day = match options.world() {
        World::Switch => date,
        World::Nat => format!("{date}-nat"),
        World::Rootless => format!("{date}-rootless"),
    };
    let out = options.out.clone().unwrap_or_else(|| PathBuf::from("benches/runs").join(day));
    // Before anything is measured: a run must not be lost because it cannot be kept.
    std::fs::create_dir_all(&out).map_err(|error| format!("cannot make {}: {error}", out.display()))?;
    more_files(options.world())?;
    eprintln!("building {} peers", options.peers().len() + options.variants.len());
    let measure = Measure::new(options, facts.cpus);
    let peers = peers::build(options)?;
    let tests = options.tests();
    let flows = match tests.iter().any(|&test| matches!(test, Test::FlowMemory | Test::FlowIdle)) {
        true => Some(measure.find_flows(peers.iter())?),
        false => None,
    };
    let settings = Settings {
        world: options.world(),
        rounds: options.rounds(),
        seconds: options.seconds(),
        congestion_control: options.cc.name().into(),
        mtu: MTU,
        offload: !options.no_offload,
        rcvbuf: options.rcvbuf,
        flows,
    };
    let about = peers.iter().map(|peer| peer.about.clone()).collect();
    let described = tests.iter().map(|&test| Described::of(test, options.world())).collect();
    let mut results = Results { schema: SCHEMA, facts, settings, peers: about, tests: described, samples: Vec::new() };

    let plan = plan(options.rounds(), &tests, &peers);
    let mut progress = Progress::new(plan.len());
    for (round, test, peer) in plan {
        progress.show(&format!("round {round} of {}: {}, {}", options.rounds(), test.name(), peer.name()));
        let background_cpus = background()?;
        let outcome = match measure.once(test, peer) {
            Ok(figures) => Outcome::Measured(figures),
            Err(reason) => Outcome::Failed(peer.obituary().unwrap_or(reason)),
        };
        if let Outcome::Failed(reason) = &outcome {
            progress.remark(&format!("{}, {}, round {round} failed: {reason}", test.name(), peer.name()));
        }
        results.samples.push(Sample { round, test, peer: peer.name().into(), background_cpus, outcome });
        results.write(&out.join("results.json"))?;
    }
    progress.end();
    say(&results, Some(&out))
}

/// Lets relays, and the ends of many connections, open as many files as a process here may: those that do not ask for it
/// shall not lag behind for that.
fn more_files(world: World) -> Result<(), String> {
    if world != World::Rootless {
        return Ok(());
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| format!("RLIMIT_NOFILE: {error}"))?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(|error| format!("RLIMIT_NOFILE: {error}"))
}

/// CPUs that are busy while all peers stand still.
fn background() -> Result<f64, String> {
    let (before, begin) = (cpu::machine()?, Instant::now());
    std::thread::sleep(Duration::from_millis(200));
    Ok((cpu::machine()? - before) / begin.elapsed().as_secs_f64())
}

/// Table and plots of an earlier run.
pub(crate) fn again(options: &Options) -> Result<(), String> {
    let Some(from) = &options.from else { return Ok(()) };
    let results = Results::read(from)?;
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out).map_err(|error| format!("cannot make {}: {error}", out.display()))?;
    }
    say(&results, options.out.as_deref())
}

fn say(results: &Results, out: Option<&Path>) -> Result<(), String> {
    let mut text = table::all(results);
    if let Some(out) = out {
        std::fs::write(out.join("table.txt"), &text).map_err(|error| format!("cannot write the table: {error}"))?;
        plot::all(results, out)?;
        text.push_str(&format!("\nkept in {}: results.json, table.txt, a plot for each test\n", out.display()));
    }
    // A reader that has seen enough (`| head`) is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Every measurement, in order: in each round each test once on each peer, another peer first each time.
fn plan<'a>(rounds: u32, tests: &[Test], peers: &'a [Peer]) -> Vec<(u32, Test, &'a Peer)> {
    let mut plan = Vec::new();
    for round in 1..=rounds {
        for &test in tests {
            let first = (round as usize - 1) % peers.len().max(1);
            let (later, sooner) = peers.split_at(first);
            let able = sooner.iter().chain(later).filter(|peer| peer.can(test));
            plan.extend(able.map(|peer| (round, test, peer)));
        }
    }
    plan
}

/// One line on stderr that says what happens and how long it will take; several lines if stderr is no terminal.
struct Progress {
    begin: Instant,
    done: usize,
    all: usize,
    terminal: bool,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self { begin: Instant::now(), done: 0, all, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, what: &str) {
        let line =
            format!("[{}/{}] {what}{}", self.done + 1, self.all, left(self.begin.elapsed(), self.done, self.all));
        self.done += 1;
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn remark(&self, text: &str) {
        self.end();
        eprintln!("{text}");
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// What is left, if the rest goes as what is done.
fn left(elapsed: Duration, done: usize, all: usize) -> String {
    if done == 0 {
        return String::new();
    }
    let seconds = (elapsed.as_secs_f64() / done as f64 * (all - done) as f64).round() as u64;
    format!(", {}:{:02} left", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_guessed_from_what_is_done() {
        assert_eq!(left(Duration::from_secs(10), 0, 5), "");
        assert_eq!(left(Duration::from_secs(10), 1, 8), ", 1:10 left");
    }
}
