//! Network namespaces with names, and how to do things inside one.

use std::fs::File;
use std::panic;
use std::path::PathBuf;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::command::Cmd;

/// A place with a network of its own.
pub trait Enter: Sync {
    /// The file that holds its network namespace.
    fn netns_path(&self) -> PathBuf;

    /// The words before a command that make it run there.
    fn prefix(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net={}", self.netns_path().display()), "--".into()]
    }

    /// A command that runs there: `cmd("ping -c 1 10.0.0.1")`. Words are split at spaces; use [`Cmd::arg`] for an
    /// argument that contains one.
    fn cmd(&self, line: &str) -> Cmd {
        Cmd::new(self.prefix()).args(line.split_whitespace())
    }

    /// Runs `action` in a thread that has entered the namespace: the sockets that it makes belong there.
    fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let path = self.netns_path();
        thread::scope(|scope| {
            let entered = scope.spawn(move || {
                enter(&path);
                action()
            });
            entered.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter(path: &std::path::Path) {
    let file = File::open(path).unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
    setns(file, CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| panic!("cannot enter {}: {e}", path.display()));
}

/// A namespace with a name, as `ip netns` makes it. Goes when it is dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes it, with its loopback interface up.
    pub fn new(name: impl Into<String>) -> Self {
        let netns = Self { name: name.into() };
        Cmd::new(["ip", "netns", "add", &netns.name]).ok();
        netns.cmd("ip link set lo up").ok();
        netns
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes the name; the namespace itself goes with its last process.
    pub fn delete(&self) {
        Cmd::new(["ip", "netns", "del", &self.name]).ok();
    }
}

impl Enter for Netns {
    fn netns_path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A test may have deleted it already.
        if self.netns_path().exists() {
            Cmd::new(["ip", "netns", "del", &self.name]).run();
        }
    }
}
