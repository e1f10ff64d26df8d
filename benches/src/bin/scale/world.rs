//! Namespaces, the daemons in them, and what `/proc` says of those.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::Result;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Whether somebody wants the run to end.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Waits for SIGINT and SIGTERM in a thread. To be made before any other thread.
    pub(crate) fn on_signals() -> Result<Stop> {
        let stop = Stop(Arc::default());
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        // Commands start with no signal blocked, whatever is blocked here.
        signals.thread_block().map_err(|e| format!("cannot block signals: {e}"))?;
        let flag = Arc::clone(&stop.0);
        thread::spawn(move || {
            let _ = signals.wait();
            flag.store(true, Ordering::Relaxed);
        });
        Ok(stop)
    }

    /// An error if so.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
    }
}

/// Everything that was made and has to go.
pub(crate) struct World {
    pub(crate) stop: Stop,
    tag: String,
    directory: PathBuf,
    namespaces: Vec<String>,
}

impl World {
    pub(crate) fn new(stop: Stop) -> Result<World> {
        let tag = format!("scale{}", std::process::id());
        let directory = std::env::temp_dir().join(&tag);
        fs::create_dir(&directory).map_err(|e| format!("cannot make {}: {e}", directory.display()))?;
        Ok(World { stop, tag, directory, namespaces: Vec::new() })
    }

    fn namespace(&mut self, name: &str) -> Result<String> {
        let name = format!("{}-{name}", self.tag);
        // Noted before it is made: it goes even if somebody interrupts.
        self.namespaces.push(name.clone());
        self.run(Command::new("ip").args(["netns", "add", &name]))?;
        Ok(name)
    }

    /// Runs a command to its end, which comes soon, and says how long it took.
    fn run(&self, command: &mut Command) -> Result<Duration> {
        self.stop.check()?;
        run(command, || self.stop.check())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.namespaces {
            // One that was never made is no loss.
            let _ = run(Command::new("ip").args(["netns", "del", name]), || Ok(()));
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn run(command: &mut Command, go_on: impl Fn() -> Result<()>) -> Result<Duration> {
    let line = format!("{command:?}");
    let start = Instant::now();
    // A group of its own: Ctrl-C is ours.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().map_err(|e| format!("cannot start {line}: {e}"))?;
    let pid = Pid::from_raw(child.id() as i32);
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output().map(|output| (output, start.elapsed()))));
    let (output, time) = loop {
        match end.recv_timeout(Duration::from_millis(100)) {
            Ok(result) => break result.map_err(|e| format!("cannot wait for {line}: {e}"))?,
            Err(RecvTimeoutError::Timeout) => {
                let verdict = if start.elapsed() > LIMIT { Err(format!("{line} takes too long")) } else { go_on() };
                if let Err(reason) = verdict {
                    let _ = kill(pid, Signal::SIGKILL);
                    return Err(reason);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Err(format!("nobody waits for {line}")),
        }
    };
    if !output.status.success() {
        return Err(format!("{line}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(time)
}

/// One namespace with an interface on a switch.
pub(crate) struct Container {
    pub(crate) namespace: String,
    pub(crate) address: Ipv4Addr,
}

/// Bytes of memory that are in use.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    pub(crate) peak: u64,
}

/// A tapswitch in a namespace of its own, with one network.
pub(crate) struct Daemon {
    child: Child,
    binary: PathBuf,
    name: String,
    socket: PathBuf,
    subnet: Ipv4Addr,
    ticks: f64,
}

impl Daemon {
    /// Starts one with a /16 of addresses.
    pub(crate) fn start(world: &mut World, binary: &Path, name: &str, subnet: &str) -> Result<Daemon> {
        let namespace = world.namespace(name)?;
        let directory = world.directory.join(name);
        let made = fs::create_dir(&directory).and_then(|()| File::create(directory.join("log")));
        let log = made.map_err(|e| format!("cannot write into {}: {e}", directory.display()))?;
        let (socket, leases) = (directory.join("socket"), directory.join("leases"));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace]).arg(binary).args(["up", "--internal", "--subnet", subnet]);
        command.arg("--socket").arg(&socket).arg("--leases").arg(leases);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = command.spawn().map_err(|e| format!("cannot start ip: {e}"))?;
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        let subnet = subnet.split('/').next().and_then(|ip| ip.parse().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let (binary, name) = (binary.to_owned(), name.to_owned());
        let mut daemon = Daemon { child, binary, name, socket, subnet, ticks };
        let start = Instant::now();
        while !daemon.socket.exists() {
            world.stop.check()?;
            let has_ended = daemon.child.try_wait().is_ok_and(|status| status.is_some());
            if has_ended || start.elapsed() > LIMIT {
                let said = fs::read_to_string(directory.join("log")).unwrap_or_default();
                return Err(format!("the daemon did not start: {}", said.trim()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// Attaches a new container, the `index`th from 1 on. How long it took from start to end of `tapswitch attach`.
    pub(crate) fn attach(&self, world: &mut World, index: u32) -> Result<(Container, Duration)> {
        let namespace = world.namespace(&format!("{}{index}", self.name))?;
        let address = Ipv4Addr::from(u32::from(self.subnet) + 10 + index);
        let mut command = Command::new(&self.binary);
        command.args(["attach", &namespace, "--name", &format!("c{index}"), "--ip", &address.to_string()]);
        let time = world.run(command.arg("--socket").arg(&self.socket))?;
        Ok((Container { namespace, address }, time))
    }

    fn proc(&self, file: &str) -> Result<String> {
        // `ip netns exec` became the daemon.
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).map_err(|e| format!("cannot read {path}, has the daemon ended? {e}"))
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = self.proc("status")?;
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib: Option<u64> =
                line.and_then(|line| line.trim_start_matches(':').split_whitespace().next()?.parse().ok());
            kib.map(|kib| kib * 1024).ok_or_else(|| format!("the daemon has no {key}"))
        };
        Ok(Memory { rss: bytes("VmRSS")?, peak: bytes("VmHWM")? })
    }

    /// Processor time so far, to a hundredth of a second.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        // The name of the program stands in brackets and may hold anything. utime and stime are fields 14 and 15.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
        let ticks: u64 = fields.into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / self.ticks))
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.child.id());
        Ok(fs::read_dir(&path).map_err(|e| format!("cannot read {path}: {e}"))?.count())
    }

    /// How many it may open.
    pub(crate) fn soft_limit(&self) -> Result<u64> {
        let limits = self.proc("limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        Ok(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(u64::MAX))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
