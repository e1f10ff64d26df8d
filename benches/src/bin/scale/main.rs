//! What one switch costs as containers are attached to it: time, memory, processor, and the traffic of two of them.
//!
//! Run as root, `cargo build --release && cargo run --release -p tapswitch-benches --bin scale`. Everything happens in
//! network namespaces of its own, which are removed at the end and after Ctrl-C.
//!
//! Beside the switch that grows stands another with two containers. Each figure of traffic is measured on both, one after
//! the other, so that what else the machine does meanwhile disturbs both alike; their ratio is what size costs.
#![allow(clippy::disallowed_methods, reason = "this measures time, and waits for processes that are not its own")]

mod report;
mod traffic;
mod world;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use report::{Figure, Run, Step, median};
use world::{Container, Daemon, Stop, World};

/// Whatever goes wrong ends the run, with words for who started it.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// How long the daemon has, after containers were attached, to become as idle as it gets: their kernels ask for routers
/// for a quarter of a minute (RFC 4861 6.3.7).
const SETTLE: Duration = Duration::from_secs(30);

/// Measure attach time, memory, idle CPU and traffic of a tapswitch with more and more containers. Needs root
#[derive(Debug, Parser)]
#[command(name = "scale")]
struct Args {
    /// Numbers of attached containers, ascending
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256,1000", value_parser = clap::value_parser!(u32).range(1..=4000))]
    steps: Vec<u32>,
    /// How often each figure of traffic is taken; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// The binary to measure
    #[arg(long, default_value = "target/release/tapswitch")]
    tapswitch: PathBuf,
    /// Also write all figures into this file [default: only print a table]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress("");
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    if !args.steps.is_sorted() {
        return Err("--steps must be ascending: containers are only added".into());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root to make network namespaces; run it with sudo".into());
    }
    if !args.tapswitch.exists() {
        let path = args.tapswitch.display();
        return Err(format!("there is no {path}; build it: cargo build --release, or name another with --tapswitch"));
    }
    let mut world = World::new(Stop::on_signals()?)?;
    let pair = Daemon::start(&mut world, &args.tapswitch, "pair", "10.95.0.0/16")?;
    let crowd = Daemon::start(&mut world, &args.tapswitch, "crowd", "10.96.0.0/16")?;
    let mut two = Vec::new();
    grow(&mut world, &pair, &mut two, 2)?;

    let mut run = Run::new(args.rounds, args.seconds, crowd.soft_limit()?);
    let mut containers = Vec::new();
    let mut before = crowd.memory()?;
    for &step in &args.steps {
        let attach = grow(&mut world, &crowd, &mut containers, step)?;
        let added = attach.len();
        progress(&format!("{step} attached: waiting until all is quiet"));
        settle(&world, &crowd)?;
        progress(&format!("{step} attached: idle for 5 s"));
        let idle = load(&world, &crowd, Duration::from_secs(5))?;
        let memory = crowd.memory()?;
        let per_port = (added > 0).then(|| (memory.rss as f64 - before.rss as f64) / added as f64);
        before = memory;
        let traffic = match (&containers[..], &two[..]) {
            ([a, b, ..], [c, d]) => Some(compare(args, &world, (&crowd, [a, b]), (&pair, [c, d]), step)?),
            _ => None,
        };
        let attach_max = attach.iter().copied().max().unwrap_or_default().as_secs_f64();
        let attach_median = median(attach.iter().map(|time| time.as_secs_f64()).collect());
        let descriptors = crowd.descriptors()?;
        run.steps.push(Step {
            containers: step,
            attach_median,
            attach_max,
            rss: memory.rss,
            peak_rss: memory.peak,
            bytes_per_port: per_port,
            descriptors,
            idle,
            traffic,
        });
    }
    progress("removing everything");
    drop((crowd, pair, world));
    progress("");
    print!("{run}");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&run).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(())
}

/// Attaches containers until there are `count`; how long each took.
fn grow(world: &mut World, daemon: &Daemon, containers: &mut Vec<Container>, count: u32) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for index in containers.len() as u32 + 1..=count {
        progress(&format!("attaching {index} of {count}"));
        let (container, time) = daemon.attach(world, index)?;
        containers.push(container);
        times.push(time);
    }
    Ok(times)
}

/// Waits until the daemon uses no processor for a second, or has had its time.
fn settle(world: &World, daemon: &Daemon) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < SETTLE && load(world, daemon, Duration::from_secs(1))? > 0.0 {}
    Ok(())
}

/// The share of one core that the daemon takes.
fn load(world: &World, daemon: &Daemon, time: Duration) -> Result<f64> {
    let (start, before) = (Instant::now(), daemon.cpu()?);
    while start.elapsed() < time {
        world.stop.check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok((daemon.cpu()? - before).as_secs_f64() / start.elapsed().as_secs_f64())
}

type Side<'a> = (&'a Daemon, [&'a Container; 2]);

/// The traffic of two containers of the crowd, and in turn that of two that are alone.
fn compare(args: &Args, world: &World, crowd: Side<'_>, pair: Side<'_>, step: u32) -> Result<report::Traffic> {
    let time = Duration::from_secs(args.seconds);
    let mut samples: [[Vec<f64>; 2]; 4] = Default::default();
    for round in 1..=args.rounds {
        for (side, (daemon, [a, b])) in [pair, crowd].into_iter().enumerate() {
            progress(&format!("{step} attached: traffic, round {round} of {}", args.rounds));
            world.stop.check()?;
            let before = daemon.cpu()?;
            let turns = traffic::tcp_turns(a, b, time)?;
            // One frame each way: data and acknowledgement travel together.
            let frames = turns.count * 2.0;
            samples[0][side].push(turns.rate());
            samples[1][side].push((daemon.cpu()? - before).as_secs_f64() * 1e6 / frames.max(1.0));
            samples[2][side].push(traffic::udp_packets(a, b, time)?.rate());
            samples[3][side].push(traffic::tcp_bytes(a, b, time)?.rate() * 8.0);
        }
    }
    let [turns, cpu, packets, bits] = samples.map(|[pair, crowd]| Figure::new(crowd, pair));
    Ok(report::Traffic { turns, cpu, packets, bits })
}

/// Says on one line of a terminal what is being done.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}
