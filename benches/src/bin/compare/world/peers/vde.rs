//! vde_switch, and a vde_plug2tap in each container that ties a TAP there to it.
//!
//! The plugs run in the containers' namespaces because they make the TAP where they are; their CPU time counts as the
//! switch's, for without them nothing is switched.

use std::process::Command;

use crate::process::{Process, output};

use super::{INTERFACE, Peer, START, Site};

pub(super) fn build(site: Site) -> Result<Peer, String> {
    let socket = site.dir.join("ctl");
    // It reads commands from stdin, and ends when that does.
    let mut switch = Process::start("vde_switch", site.middle()?.command("vde_switch").arg("--sock").arg(&socket))?;
    switch.until(|| socket.join("ctl").exists(), START)?;
    let mut processes = vec![switch];
    for (end, _) in site.ends() {
        let mut command = end.command("vde_plug2tap");
        let mut plug = Process::start("vde_plug2tap", command.arg("--sock").arg(&socket).arg(INTERFACE))?;
        plug.until(|| end.ip(&format!("link show {INTERFACE}")).is_ok(), START)?;
        processes.push(plug);
    }
    site.configure()?;
    let version = output("vde_switch", Command::new("vde_switch").arg("--version"))?;
    let version = version.lines().next().unwrap_or_default().to_owned();
    Ok(site.peer(format!("vde_switch ({version}), vde_plug2tap in each container"), processes))
}
