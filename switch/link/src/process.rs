//! The namespaces and the first process of a container of our own.
//!
//! # Theory of operation
//!
//! `run` forks a child of one thread, and that child goes through these steps:
//!
//! ```text
//! child   die_with_parent           SIGKILL when `run` is gone, however it went
//!         enter_new_namespaces      user (if not root), net, mount, UTS, IPC, PID; hostname, resolv.conf, ping range
//!         netns::create_here        the TAP, whose descriptor it passes on
//!         spawn_init ---- fork ---> init (pid 1 of the new PID namespace): reaps whatever is orphaned there
//!            |           `- fork ---> CMD (pid 2): mounts its /proc and /sys, executes
//!            | waits for CMD, forwards signals
//!         kills init, and all that is left in the namespace with it; exits with CMD's status
//! ```
//!
//! `run` and its child each die with the one before, init with the child, and the end of pid 1 kills all that is left
//! in the namespace. Nothing outlives `run`, not even after `kill -9`: the namespaces are nobody's and vanish.
//!
//! *Without root* the user namespace maps one id: root inside is the caller outside. *No file is touched*: what the
//! container sees as /etc/resolv.conf is a bind mount from a tmpfs that has no name any more.
//!
//! *Signals.* INT and QUIT come from the terminal to CMD by itself, and the others wait for what CMD makes of them. TERM,
//! HUP, USR1, USR2 and WINCH are forwarded.
//!
//! *The terminal.* A process group outside of the PID namespace has no number inside: a shell there could not give the
//! terminal back to it. So CMD gets a group of its own, and the terminal if `run` has it. When CMD stops, the child stops
//! the group of `run` in its turn, as Ctrl-Z would have done, and the shell outside takes over; when that continues the
//! group, in the foreground or not, so does CMD.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Pid, fork, getegid, geteuid, getpgrp, getpid, pipe2, sethostname, setpgid, tcgetpgrp, tcsetpgrp,
};

use crate::{LinkError, pass, sys};

/// Directories that exist nearly everywhere, over which a tmpfs may be mounted for a moment.
const SCRATCH: [&str; 5] = ["/tmp", "/var/tmp", "/mnt", "/media", "/run"];
const RESOLV_CONF: &str = "/etc/resolv.conf";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Exit status of a shell for a command that cannot be executed, and for one that is not there (POSIX, 2.8.2).
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// How the container is to see itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Isolation {
    /// Its host name; `None` keeps the host's.
    pub hostname: Option<String>,
    /// The text of its /etc/resolv.conf; `None` keeps the host's. Where there is none to lay it over, the container does
    /// without, and a line on standard error says so.
    pub resolv_conf: Option<String>,
}

/// Has the kernel kill this process when its parent ends.
///
/// `parent` is the pid that the parent had before it forked: if it is gone already, this process ends at once.
///
/// # Errors
/// [`LinkError::System`], which no kernel is known to give.
pub fn die_with_parent(parent: u32) -> Result<(), LinkError> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|e| LinkError::system("ask for a signal at the parent's end", e, "please report this"))?;
    if nix::unistd::getppid().as_raw().cast_unsigned() != parent {
        sys::exit_now(1);
    }
    Ok(())
}

/// Puts this process into namespaces of its own, and its future children into a PID namespace of their own.
///
/// # Errors
/// [`LinkError::Threads`] in a process of several, [`LinkError::NoUserNamespaces`] if the kernel grants this user none,
/// [`LinkError::System`] for any other step.
pub fn enter_new_namespaces(isolation: &Isolation) -> Result<(), LinkError> {
    require_one_thread()?;
    let (uid, gid) = (geteuid(), getegid());
    let rootless = !uid.is_root();
    if rootless {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| LinkError::NoUserNamespaces(e.into()))?;
        // A single group can be mapped without privilege only by one who has given up changing groups.
        for (file, text) in
            [("setgroups", "deny".into()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
        {
            let path = format!("/proc/self/{file}");
            fs::write(&path, text)
                .map_err(|e| LinkError::system(format!("write {path}"), e, "see that /proc is real"))?;
        }
    }
    let rest = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID;
    unshare(rest).map_err(|e| match e {
        // Ubuntu lets anybody make a user namespace, but strips it of its rights.
        Errno::EPERM if rootless => LinkError::NoUserNamespaces(e.into()),
        e => LinkError::system("make namespaces for the container", e, "see the limits: sysctl user"),
    })?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|e| LinkError::system("make the container's mounts private", e, "please report this"))?;
    if let Some(hostname) = &isolation.hostname {
        sethostname(hostname)
            .map_err(|e| LinkError::system(format!("set the host name '{hostname}'"), e, "choose at most 64 bytes"))?;
    }
    if let Some(text) = &isolation.resolv_conf {
        // It can run without names, and a host that has no such file resolves none itself.
        if let Err(error) = replace_resolv_conf(text) {
            eprintln!("tapswitch: warning: the container keeps the host's {RESOLV_CONF}: {error}");
        }
    }
    // Ping sockets are for groups in this range, and a new namespace's is empty. The container can live without.
    let range = if rootless { "0 0" } else { "0 2147483647" };
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", range);
    Ok(())
}

/// Binds a file with this text over /etc/resolv.conf. The mount namespace must be our own, with private mounts.
fn replace_resolv_conf(text: &str) -> Result<(), LinkError> {
    const NEXT: &str = "names may not resolve in it";
    let doing = |what: String| move |e: Errno| LinkError::system(what, e, NEXT);
    // It is often a symbolic link into /run. Where it leads has to be known before anything is mounted.
    let target = fs::canonicalize(RESOLV_CONF)
        .map_err(|e| LinkError::system(format!("replace {RESOLV_CONF}"), e, "make an empty one"))?;
    let scratch = scratch_directory(&target).ok_or_else(|| {
        let missing = io::Error::from(Errno::ENOENT);
        LinkError::system(format!("find one of the directories {}", SCRATCH.join(", ")), missing, "make one of them")
    })?;
    mount(
        Some("tapswitch"),
        &scratch,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0755,size=64k"),
    )
    .map_err(doing(format!("mount a tmpfs over {}", scratch.display())))?;
    let file = scratch.join("resolv.conf");
    let bound = fs::write(&file, text)
        .map_err(|e| LinkError::system(format!("write {}", file.display()), e, NEXT))
        .and_then(|()| {
            mount(Some(&file), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(doing(format!("bind a file over {}", target.display())))
        });
    let detached =
        umount2(&scratch, MntFlags::MNT_DETACH).map_err(doing(format!("detach the tmpfs at {}", scratch.display())));
    bound.and(detached)
}

/// The first existing directory that does not hide `target` when something is mounted over it.
fn scratch_directory(target: &Path) -> Option<PathBuf> {
    let mut real = SCRATCH.iter().filter_map(|directory| fs::canonicalize(directory).ok());
    real.find(|directory| directory.is_dir() && !target.starts_with(directory))
}

/// Starts an init of the new PID namespace, starts `command` beside it, and waits. Returns the exit status to end with:
/// that of the command, 128 + n if signal n killed it, 127 if there is no such command, 126 if it cannot be executed.
///
/// Call it after [`enter_new_namespaces`]. The signal mask is the caller's again for the command.
///
/// # Errors
/// [`LinkError::Threads`] in a process of several; [`LinkError::System`] if no process can be made.
pub fn spawn_init<S: AsRef<OsStr>>(command: &[S]) -> Result<i32, LinkError> {
    let Some((program, arguments)) = command.split_first() else {
        let empty = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(LinkError::system("start an empty command", empty, "name one: tapswitch run -- CMD [ARG...]"));
    };
    require_one_thread()?;
    let no_process = |e: Errno| LinkError::system("start a process for the container", e, "see the limits: ulimit -u");
    let mut before = SigSet::empty();
    // Blocked from before the first fork, so that none is lost: `wait_for` takes them up with `sigwait`.
    let mut blocked = handled();
    // Who moves the terminal on from the background is stopped by this.
    blocked.add(Signal::SIGTTOU);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before)).map_err(no_process)?;
    let (alive, holder) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(no_process)?;
    // SAFETY: this process has one thread, so the child finds no lock taken; it never returns from this function.
    let init = match unsafe { fork() }.map_err(no_process)? {
        ForkResult::Child => {
            drop(holder);
            sys::exit_now(init(alive))
        }
        ForkResult::Parent { child } => child,
    };
    drop(alive);
    let terminal = has_terminal();
    // SAFETY: as above.
    let status = match unsafe { fork() } {
        Ok(ForkResult::Child) => sys::exit_now(execute(program.as_ref(), arguments, &before, terminal)),
        Ok(ForkResult::Parent { child }) => Ok(wait_for(child, terminal)),
        Err(error) => Err(no_process(error)),
    };
    let _ = kill(init, Signal::SIGKILL);
    // It ends after all others of its namespace.
    while waitpid(init, None) == Err(Errno::EINTR) {}
    // Init reads from this until it has asked to die with us.
    drop(holder);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    status
}

/// Pid 1: reaps whatever the namespace leaves to it, until it is killed.
fn init(alive: OwnedFd) -> i32 {
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || is_closed(alive) {
        return CANNOT_EXECUTE;
    }
    let mut orphaned = SigSet::empty();
    orphaned.add(Signal::SIGCHLD);
    loop {
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
        if orphaned.wait().is_err() {
            return CANNOT_EXECUTE;
        }
    }
}

/// Pid 2: becomes the command, with signals blocked as in `mask`, or gives the status that tells why it could not.
fn execute<S: AsRef<OsStr>>(program: &OsStr, arguments: &[S], mask: &SigSet, terminal: bool) -> i32 {
    if terminal {
        // Neither fails while the terminal is there, and without one nobody asks whose it is.
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        let _ = tcsetpgrp(io::stdin().as_fd(), getpid());
    }
    mount_own_views();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
    let error = Command::new(program).args(arguments).exec();
    eprintln!("tapswitch: cannot run '{}': {error}; see that it is installed and executable", program.display());
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE }
}

/// Mounts a /proc and a /sys that show this PID and this network namespace, where the others' still are. Where the kernel
/// refuses (in a container that masks parts of its own) programs such as ps see too much, and all else works.
fn mount_own_views() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>);
    // The cgroups are mounted beneath /sys, and tell programs their limits.
    let cgroups = fs::File::open(CGROUPS);
    let read_only = statvfs("/sys").is_ok_and(|now| now.flags().contains(FsFlags::ST_RDONLY));
    let flags = if read_only { flags | MsFlags::MS_RDONLY } else { flags };
    let mounted = mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>);
    if let (Ok(()), Ok(cgroups)) = (mounted, cgroups) {
        let before = format!("/proc/self/fd/{}", cgroups.as_raw_fd());
        let _ = mount(Some(before.as_str()), CGROUPS, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>);
    }
}

/// Whether the parent, which holds the other end of this pipe, was gone before it could be asked to take us with it.
fn is_closed(alive: OwnedFd) -> bool {
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    if nix::fcntl::fcntl(&alive, flags).is_err() {
        return true;
    }
    matches!(fs::File::from(alive).read(&mut [0; 1]), Ok(0))
}

/// The signals that [`wait_for`] takes up. INT and QUIT are among them so that they do not kill us before CMD decided.
fn handled() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGQUIT].into_iter().chain(FORWARDED) {
        set.add(signal);
    }
    set
}

const FORWARDED: [Signal; 5] = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH];

/// Waits for the end of the command and gives its status; forwards signals meanwhile. With `terminal`, the command leads
/// a process group, and the caller's group stops when it does.
fn wait_for(command: Pid, terminal: bool) -> i32 {
    let flags = if terminal { WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED } else { WaitPidFlag::WNOHANG };
    loop {
        loop {
            match waitpid(command, Some(flags)) {
                Ok(WaitStatus::Exited(_, status)) => return status,
                Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
                Ok(WaitStatus::Stopped(..)) => stop_with(command),
                Err(Errno::EINTR) => {}
                Ok(_) => break,
                // It is gone although it was not seen to end: somebody has the kernel reap our children.
                Err(_) => return CANNOT_EXECUTE,
            }
        }
        if let Ok(signal) = handled().wait()
            && FORWARDED.contains(&signal)
        {
            let _ = kill(command, signal);
        }
    }
}

/// Stops the caller's process group because the command has stopped, and continues the command afterwards.
fn stop_with(command: Pid) {
    // If our group has the terminal already, somebody has continued it before the command stopped for want of it.
    if !hand_terminal_to(command) {
        // Takes effect before it returns; none at all if no shell is there to continue us.
        let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
        hand_terminal_to(command);
    }
    let _ = killpg(command, Signal::SIGCONT);
}

/// Gives the terminal to the command's group if ours has it. Tells whether it was so.
fn hand_terminal_to(command: Pid) -> bool {
    has_terminal() && tcsetpgrp(io::stdin().as_fd(), command).is_ok()
}

/// Whether standard input is a terminal with our process group in its foreground.
fn has_terminal() -> bool {
    let stdin = io::stdin();
    stdin.is_terminal() && tcgetpgrp(stdin.as_fd()) == Ok(getpgrp())
}

fn require_one_thread() -> Result<(), LinkError> {
    let count =
        pass::thread_count().map_err(|e| LinkError::system("read /proc/self/task", e, "see that /proc is mounted"))?;
    if count == 1 { Ok(()) } else { Err(LinkError::Threads { count }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_directory_never_hides_the_file_it_is_for() {
        let directory = scratch_directory(Path::new("/tmp/resolv.conf")).unwrap();
        assert_ne!(directory, Path::new("/tmp"));
    }

    #[test]
    fn process_of_several_threads_and_empty_command_are_refused() {
        crate::testing::with_a_second_thread(|| {
            let error = enter_new_namespaces(&Isolation::default()).unwrap_err();
            assert!(matches!(error, LinkError::Threads { .. }), "{error}");
        });
        let error = spawn_init::<&str>(&[]).unwrap_err().to_string();
        assert!(error.contains("tapswitch run -- CMD"), "{error}");
    }
}
