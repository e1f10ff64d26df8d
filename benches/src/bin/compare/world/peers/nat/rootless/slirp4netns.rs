//! slirp4netns: a TCP/IP stack in user space (libslirp) behind a TAP in the container.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::process::Process;

use super::super::publish::PORT;
use super::{Launched, RUN, Site, version};

const DEVICE: &str = "tap0";

/// The address that it gives to a container.
const CONTAINER: &str = "10.0.2.100";

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

pub(super) fn start(site: &Site, container: u32, mtu: u32) -> Result<Launched, String> {
    let what = format!("{}, MTU {mtu}, {RUN}", version("slirp4netns", "slirp4netns"));
    let mut command = site.gateway.command_of_user("slirp4netns");
    command.args(["--configure", &format!("--mtu={mtu}"), "--disable-host-loopback"]);
    command.arg("--api-socket").arg(socket(site)).args([&container.to_string(), DEVICE]);
    let begun = SystemTime::now();
    let process = Process::start("slirp4netns", &mut command)?;
    Ok(Launched { what, process: Some(process), control: None, begun })
}

fn socket(site: &Site) -> PathBuf {
    site.dir.join("api")
}

/// Forwards [`PORT`] to the container.
pub(in super::super) fn publish(site: &Site) -> Result<(), String> {
    let broken = |error: std::io::Error| format!("slirp4netns cannot be asked: {error}");
    let mut stream = UnixStream::connect(socket(site)).map_err(broken)?;
    stream.set_read_timeout(Some(ANSWER)).map_err(broken)?;
    let request = format!(
        r#"{{"execute":"add_hostfwd","arguments":{{"proto":"tcp","host_addr":"0.0.0.0","host_port":{PORT},"guest_addr":"{CONTAINER}","guest_port":{PORT}}}}}"#
    );
    stream.write_all(request.as_bytes()).map_err(broken)?;
    stream.shutdown(Shutdown::Write).map_err(broken)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(broken)?;
    if answer.contains("\"return\"") { Ok(()) } else { Err(format!("slirp4netns refuses: {}", answer.trim())) }
}
