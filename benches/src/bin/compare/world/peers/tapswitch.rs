//! A tapswitch daemon in a namespace of its own, and the two containers attached to it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde::Deserialize;

use crate::options::Variant;
use crate::process::{Process, output};

use super::{Netns, Peer, START, Site};

/// A way to ask the daemon.
pub(super) struct Control {
    bin: PathBuf,
    socket: PathBuf,
    /// Where the daemon is an ordinary user's: he asks it from here.
    of_user: Option<Netns>,
}

/// A row of `show drops --json`.
#[derive(Deserialize)]
struct Drop {
    name: String,
    reason: String,
    count: u64,
}

/// What is read of `show stats --json`.
#[derive(Deserialize)]
struct Stats {
    flows: u64,
}

impl Control {
    fn ask<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, String> {
        let mut command = match &self.of_user {
            Some(netns) => netns.command_of_user(&self.bin.to_string_lossy()),
            None => Command::new(&self.bin),
        };
        output("tapswitch", command.args(args).arg("--socket").arg(&self.socket))
    }

    /// Gives `container`, the name of a namespace or the id of a process, an interface with this address.
    pub(super) fn attach(&self, container: &str, name: &str, addr: Ipv4Addr, offload: bool) -> Result<(), String> {
        let addr = addr.to_string();
        let mut args = vec!["attach", container, "--name", name, "--ip", &addr];
        if !offload {
            args.push("--no-offload");
        }
        self.ask(args).map(drop)
    }

    /// Leads a port of the host, by what `spec` says, to the container called `name`.
    pub(super) fn publish(&self, name: &str, spec: &str) -> Result<(), String> {
        self.ask(["publish", name, spec]).map(drop)
    }

    /// Sessions, or flows of a relay, that live.
    pub(super) fn flows(&self) -> Result<u64, String> {
        let answer = self.ask(["show", "stats", "--json"])?;
        let stats: Stats =
            serde_json::from_str(&answer).map_err(|error| format!("cannot read `show stats --json`: {error}"))?;
        Ok(stats.flows)
    }

    pub(super) fn drops(&self) -> Result<BTreeMap<String, u64>, String> {
        let answer = self.ask(["show", "drops", "--json"])?;
        let rows: Vec<Drop> =
            serde_json::from_str(&answer).map_err(|error| format!("cannot read `show drops --json`: {error}"))?;
        Ok(rows.into_iter().map(|row| (format!("{} {}", row.name, row.reason), row.count)).collect())
    }
}

pub(super) fn build(site: Site, variant: &Variant, default: &Path) -> Result<Peer, String> {
    let network = ["--internal".to_owned(), "--subnet".into(), format!("{}/24", site.addr(0))];
    let host = Host { netns: &site.middle()?, of_user: false };
    let up = start(host, &site.dir, variant, default, &network)?;
    for (name, (end, addr)) in ["a", "b"].into_iter().zip(site.ends()) {
        up.control.attach(end.name(), name, addr, site.offload)?;
    }
    let peer = site.peer(up.what, vec![up.daemon]);
    Ok(Peer { control: Some(up.control), ..peer })
}

/// A daemon that is ready.
pub(super) struct Up {
    pub daemon: Process,
    pub control: Control,
    /// Version and options, for people.
    pub what: String,
    /// Just before it was started.
    pub begun: SystemTime,
}

/// Where a daemon is started, and by whom.
pub(super) struct Host<'a> {
    pub netns: &'a Netns,
    /// Whether by an ordinary user, who owns its directory, instead of by root.
    pub of_user: bool,
}

/// Starts one, with `network` and the variant's arguments on its command line and its files in `dir`.
pub(super) fn start(
    host: Host<'_>,
    dir: &Path,
    variant: &Variant,
    default: &Path,
    network: &[String],
) -> Result<Up, String> {
    let bin = variant.bin.as_deref().unwrap_or(default);
    // A copy: the client has to fit the daemon even if somebody builds a new one during a long run.
    let copy = dir.join("tapswitch");
    std::fs::copy(bin, &copy).map_err(|error| format!("cannot copy {}: {error}", bin.display()))?;
    let version = output("tapswitch", Command::new(&copy).arg("--version"))?;
    let Host { netns, of_user } = host;
    let control = Control { bin: copy, socket: dir.join("control"), of_user: of_user.then(|| netns.clone()) };
    let bin = control.bin.to_string_lossy();
    let mut command = if of_user { netns.command_of_user(&bin) } else { netns.command(&bin) };
    command.args(["up", "--json"]).args(network);
    command.arg("--socket").arg(&control.socket).arg("--leases").arg(dir.join("leases")).args(&variant.args);
    let begun = SystemTime::now();
    let mut daemon = Process::start(format!("tapswitch up ({})", variant.name), &mut command)?;
    daemon.expect("\"networks\"", START)?;
    let version = version.lines().next().unwrap_or_default();
    let args = if variant.args.is_empty() { "default options".into() } else { variant.args.join(" ") };
    Ok(Up { daemon, control, begun, what: format!("{version}, {args}") })
}
