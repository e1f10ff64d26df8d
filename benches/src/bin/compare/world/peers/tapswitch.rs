//! A tapswitch daemon in a namespace of its own, and the two containers attached to it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::options::Variant;
use crate::process::{Process, output};

use super::{Peer, START, Site};

/// A way to ask the daemon.
pub(super) struct Control {
    bin: PathBuf,
    socket: PathBuf,
}

/// A row of `show drops --json`.
#[derive(Deserialize)]
struct Drop {
    name: String,
    reason: String,
    count: u64,
}

impl Control {
    fn ask<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, String> {
        output("tapswitch", Command::new(&self.bin).args(args).arg("--socket").arg(&self.socket))
    }

    pub(super) fn drops(&self) -> Result<BTreeMap<String, u64>, String> {
        let answer = self.ask(["show", "drops", "--json"])?;
        let rows: Vec<Drop> =
            serde_json::from_str(&answer).map_err(|error| format!("cannot read `show drops --json`: {error}"))?;
        Ok(rows.into_iter().map(|row| (format!("{} {}", row.name, row.reason), row.count)).collect())
    }
}

pub(super) fn build(site: Site, variant: &Variant, default: &Path) -> Result<Peer, String> {
    let bin = variant.bin.as_deref().unwrap_or(default);
    // A copy: the client has to fit the daemon even if somebody builds a new one during a long run.
    let copy = site.dir.join("tapswitch");
    std::fs::copy(bin, &copy).map_err(|error| format!("cannot copy {}: {error}", bin.display()))?;
    let control = Control { bin: copy, socket: site.dir.join("control") };
    let middle = site.middle()?;
    let mut command = middle.command(&control.bin.to_string_lossy());
    command.args(["up", "--json", "--internal", "--subnet", &format!("{}/24", site.addr(0))]);
    command.arg("--socket").arg(&control.socket).arg("--leases").arg(site.dir.join("leases")).args(&variant.args);
    let mut daemon = Process::start(format!("tapswitch up ({})", site.name), &mut command)?;
    daemon.expect("\"networks\"", START)?;
    for (name, (end, addr)) in ["a", "b"].into_iter().zip(site.ends()) {
        let addr = addr.to_string();
        let mut args = vec!["attach", end.name(), "--name", name, "--ip", &addr];
        if !site.offload {
            args.push("--no-offload");
        }
        control.ask(args)?;
    }
    let version = output("tapswitch", Command::new(&control.bin).arg("--version"))?;
    let version = version.lines().next().unwrap_or_default();
    let args = if variant.args.is_empty() { "default options".into() } else { variant.args.join(" ") };
    let peer = site.peer(format!("{version}, {args}"), vec![daemon]);
    Ok(Peer { control: Some(control), ..peer })
}
