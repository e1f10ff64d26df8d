//! An ordinary user's container, and what he can start to give it a way out.
//!
//! The user has no capabilities and no group that means anything. His container is a process in a user and a network
//! namespace of its own, made inside the gateway's namespaces; what is measured joins it by the id of that process. The
//! program that measures stays root: it gives the container's namespace a name, so that load generators run there as
//! they do everywhere else. Of TUN there is a node that everybody may open, as on most systems.

mod pasta;
mod slirp4netns;

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::options::PeerKind;
use crate::process::{Process, output};
use crate::world::netns::USER;

use super::{Launched, Netns, START, Site};

pub(super) use slirp4netns::publish;

/// How all of it is run, for people.
pub(super) const RUN: &str = "run by uid 65533 without capabilities, container in user and network namespaces of his";

/// The MTU at which pasta and slirp4netns do best: almost the largest that an IP packet can have.
const LARGE: u32 = 65_520;
const SMALL: u32 = 1500;

/// Lets the user own `dir`.
pub(super) fn own(dir: &Path) -> Result<(), String> {
    chown(dir, Some(USER), Some(USER)).map_err(|error| format!("cannot give {} away: {error}", dir.display()))
}

/// A container of the user's, and the process that keeps its namespaces.
pub(super) fn container(gateway: &Netns, name: String, cc: &str) -> Result<(Netns, Process), String> {
    open_tun()?;
    let mut command = gateway.command_of_user("unshare");
    command.args(["--user", "--map-root-user", "--net", "sleep", "infinity"]);
    let mut holder = Process::start("the container", &mut command)?;
    let comm = format!("/proc/{}/comm", holder.id());
    // Which it becomes after the namespaces are made.
    holder.until(|| std::fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() == "sleep"), START)?;
    Ok((Netns::of(name, holder.id(), cc)?, holder))
}

/// A node of TUN that everybody may open, for this program's mount namespace only.
fn open_tun() -> Result<(), String> {
    const DIR: &str = "/run/tun";
    const NODE: &str = "/run/tun/tun";
    if Path::new(NODE).exists() {
        return Ok(());
    }
    let run = |command: &str| {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap_or_default();
        output(command, Command::new(program).args(words)).map(drop)
    };
    run(&format!("mkdir -p {DIR} /dev/net"))?;
    // The /run of this program takes no devices.
    run(&format!("mount -t tmpfs -o mode=755 tmpfs {DIR}"))?;
    run(&format!("mknod -m 666 {NODE} c 10 200"))?;
    if !Path::new("/dev/net/tun").exists() {
        run("touch /dev/net/tun")?;
    }
    run(&format!("mount --bind {NODE} /dev/net/tun"))
}

/// Starts one of the peers, which joins the container and configures it in its own time.
pub(super) fn start(site: &Site, kind: PeerKind) -> Result<Launched, String> {
    let holder = site.holder.as_ref().ok_or("there is no container of a user's")?.id();
    site.kernel_outside()?;
    match kind {
        PeerKind::Pasta => pasta::start(site, holder, LARGE),
        PeerKind::Pasta1500 => pasta::start(site, holder, SMALL),
        PeerKind::Slirp4netns => slirp4netns::start(site, holder, LARGE),
        PeerKind::Slirp4netns1500 => slirp4netns::start(site, holder, SMALL),
        other => Err(format!("{} is no program of an ordinary user", other.name())),
    }
}

/// What `program` calls its version, or the distribution that of `package`, where it calls it nothing.
fn version(program: &str, package: &str) -> String {
    let said = output(program, Command::new(program).arg("--version")).unwrap_or_default();
    let first = said.lines().next().unwrap_or_default().trim().to_owned();
    if !first.is_empty() && !first.contains("unknown") {
        return first;
    }
    let packaged = output("dpkg-query", Command::new("dpkg-query").args(["-W", "-f=${Version}", package]));
    match packaged {
        Ok(version) => format!("{program} (package {package} {})", version.trim()),
        Err(_) => format!("{program}, version unknown"),
    }
}
