//! pasta: it copies the gateway's addresses and routes into the container, and relays by sockets of the gateway's kernel.
//!
//! The server outside has the address that is the gateway's default route, which pasta would take for the host itself:
//! `--no-map-gw`. The port for the tests of publishing is forwarded from the start, for it cannot be later.

use std::time::SystemTime;

use crate::process::Process;

use super::super::publish::PORT;
use super::{Launched, RUN, Site, version};

pub(super) fn start(site: &Site, container: u32, mtu: u32) -> Result<Launched, String> {
    let what = format!("{}, MTU {mtu}, {RUN}", version("pasta", "passt"));
    let mut command = site.gateway.command_of_user("pasta");
    command.args(["--foreground", "--quiet", "--config-net", "--ipv4-only", "--no-map-gw"]);
    command.args(["--mtu", &mtu.to_string(), "--tcp-ports", &PORT.to_string(), "--udp-ports", "none"]);
    command.args(["--tcp-ns", "none", "--udp-ns", "none", &container.to_string()]);
    let begun = SystemTime::now();
    let process = Process::start("pasta", &mut command)?;
    Ok(Launched { what, process: Some(process), control: None, begun })
}
