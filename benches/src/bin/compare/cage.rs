//! Namespaces that the whole benchmark lives in.
//!
//! The program starts itself once more as the first process of a new PID namespace, in new mount and network namespaces.
//! When that process ends, the kernel kills every other one in there; `/run`, with the names of the network namespaces
//! on it, is a file system of its own, so the network namespaces go with the last process. The machine's own network
//! namespace is never entered.
//!
//! Signals: the outer process answers SIGINT, SIGTERM and SIGHUP by killing the inner one, which ends all. Should the
//! outer one itself be killed, the inner one dies by its parent-death signal.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};

/// Set for the inner process.
const INSIDE: &str = "TAPSWITCH_COMPARE_INSIDE";

/// Whether this is the inner process.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some() && std::process::id() == 1
}

/// Runs this program once more, with the same arguments, inside, until it ends or a signal says stop.
pub(crate) fn run() -> Result<ExitCode, String> {
    let mut awaited = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        awaited.add(signal);
    }
    awaited.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("cannot make namespaces: {error}"))?;
    let mut inner = Command::new("/proc/self/exe")
        .arg0("compare")
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .spawn()
        .map_err(|error| format!("cannot start inside the namespaces: {error}"))?;
    loop {
        match awaited.wait() {
            Ok(Signal::SIGCHLD) => match inner.try_wait() {
                Ok(Some(status)) => {
                    return Ok(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)));
                }
                Ok(None) => {}
                Err(error) => return Err(format!("cannot wait for what runs in the namespaces: {error}")),
            },
            Ok(signal) => return Ok(stop(&mut inner, signal)),
            Err(error) => return Err(format!("cannot wait for signals: {error}")),
        }
    }
}

fn stop(inner: &mut Child, signal: Signal) -> ExitCode {
    // A failure here means that it has ended already.
    let _ = inner.kill();
    let _ = inner.wait();
    eprintln!("\ncompare: stopped by {signal}; all that it had started is gone");
    ExitCode::from(128 + signal as u8)
}

/// Makes the inside habitable: the first thing that the inner process does.
pub(crate) fn furnish() -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("cannot ask to die with the parent: {error}"))?;
    SigSet::all().thread_unblock().map_err(|error| format!("cannot unblock signals: {error}"))?;
    let attach = |source: &str, target: &str, kind: Option<&str>, flags: MsFlags| {
        mount(Some(source), target, kind, flags, None::<&str>)
            .map_err(|error| format!("cannot mount {source} on {target}: {error}"))
    };
    attach("none", "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    attach("proc", "/proc", Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)?;
    attach("tmpfs", "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    std::fs::create_dir_all("/run/netns").map_err(|error| format!("cannot make /run/netns: {error}"))
}
