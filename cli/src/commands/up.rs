//! `up`: the daemon, in the foreground.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::geteuid;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;

use super::uplink;
use crate::args::{Global, IoArg, LogLevel, PollArg, UpArgs};
use crate::client::Client;
use crate::config::{Config, Host, NetworkPlan, UplinkPlan};
use crate::daemon::{Daemon, Io, Options, PollPolicy, socket_path};
use crate::error::Error;
use crate::output;
use crate::threads;

pub(super) fn execute(global: &Global, args: &UpArgs) -> Result<(), Error> {
    start_log(args.log);
    let (workers, cpus) = threads::plan(args.workers.map(usize::from), args.cpus.as_ref())?;
    let config = match &args.file {
        Some(file) => Config::read(file)?,
        None => Config::from_args(&args.network),
    };
    let socket = socket_path(global.socket.as_deref())?;
    let state = match &args.leases {
        Some(directory) => directory.clone(),
        None => default_state_dir()?,
    };
    let plans = config.plan(&Host::read(), Some(&state))?;
    make_state_dir(&state)?;
    // Nothing that the daemon might ever execute gains a privilege by it.
    if let Err(error) = nix::sys::prctl::set_no_new_privs() {
        tracing::warn!("cannot give up new privileges: {error}");
    }

    let failed = |error| Error::failed(format!("cannot wait for signals: {error}; try again"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    // Before anything is made, so that a signal in between does not leave it behind.
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    let options = Options {
        socket: Some(socket.clone()),
        capture: args.capture.clone(),
        workers,
        cpus,
        queues: usize::from(args.queues),
        io: match args.io {
            IoArg::Auto => Io::Auto,
            IoArg::Epoll => Io::Epoll,
            IoArg::Uring => Io::Uring,
        },
        poll: match args.poll {
            PollArg::Adaptive => PollPolicy::Adaptive,
            PollArg::Busy => PollPolicy::Busy,
            PollArg::Sleep => PollPolicy::Sleep,
        },
        spin: args.spin.map(Duration::from_micros),
    };
    let opened: Vec<_> = plans.iter().filter_map(|plan| Some((plan, uplink::open_early(plan)?))).collect();
    // What needed a right is done, and before there are threads, each of which has rights of its own.
    give_up_rights(plans.iter().any(|plan| plan.uplink == UplinkPlan::User));
    let mut daemon = Daemon::start(plans.clone(), options)?;
    give_uplinks(&daemon, opened);
    say_ready(global, &plans, &socket)?;
    let outcome = runtime.block_on(wait(&mut daemon, &mut interrupt, &mut terminate));
    daemon.stop();
    outcome
}

/// Gives up every capability, for good, but the one to publish ports below 1024 if this process has it and a network
/// publishes on the host. Containers' interfaces are opened by those who attach them.
fn give_up_rights(publishes: bool) {
    let low_ports = Capability::CAP_NET_BIND_SERVICE;
    let keeps = publishes && caps::has_cap(None, CapSet::Permitted, low_ports).unwrap_or(false);
    let kept: CapsHashSet = keeps.then_some(low_ports).into_iter().collect();
    let none = CapsHashSet::new();
    let sets = [
        (CapSet::Ambient, &none),
        (CapSet::Inheritable, &none),
        (CapSet::Effective, &kept),
        (CapSet::Permitted, &kept),
    ];
    for (set, value) in sets {
        if let Err(error) = caps::set(None, set, value) {
            tracing::warn!("cannot give up capabilities: {error}");
        }
    }
}

/// Takes the devices of the uplinks into use, as far as this process could open them. The other networks wait for somebody
/// who can.
fn give_uplinks(daemon: &Daemon, opened: Vec<(&NetworkPlan, uplink::Opening)>) {
    for (plan, opening) in opened {
        let given =
            daemon.connect().and_then(Client::over).and_then(|client| uplink::give(client, &plan.name, opening));
        if let Err(why) = given {
            tracing::warn!("{}", waits(&plan.name, &plan.uplink, &why));
        }
    }
}

fn waits(network: &str, uplink: &UplinkPlan, why: &Error) -> String {
    format!(
        "network {network} waits for its uplink {uplink}, and its containers do not get out: {why}; once that is mended, \
         or as somebody who may, hand it over: tapswitch network uplink {network}"
    )
}

/// Until a signal asks to stop, or the switch fails.
async fn wait(daemon: &mut Daemon, interrupt: &mut Signal, terminate: &mut Signal) -> Result<(), Error> {
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        error = daemon.ended() => return Err(error),
    };
    tracing::info!("stopped by {name}");
    Ok(())
}

fn start_log(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(false)
        .init();
}

fn default_state_dir() -> Result<PathBuf, Error> {
    if geteuid().is_root() {
        return Ok("/var/lib/tapswitch".into());
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("tapswitch")).ok_or_else(|| {
        Error::failed("there is no place for the leases, because neither XDG_STATE_HOME nor HOME is set; name one with --leases DIR")
    })
}

fn make_state_dir(directory: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
        let shown = directory.display();
        Error::failed(format!(
            "cannot make {shown} for the leases: {error}; choose another directory with --leases DIR"
        ))
    })
}

/// What is said, once, when containers can be attached.
#[derive(Serialize)]
struct Ready<'a> {
    pid: u32,
    socket: &'a Path,
    networks: Vec<ReadyNetwork<'a>>,
}

#[derive(Serialize)]
struct ReadyNetwork<'a> {
    name: &'a str,
    subnet: ipnet::Ipv4Net,
    gateway: std::net::Ipv4Addr,
    uplink: String,
}

/// One line on stderr for people, or one line of JSON on stdout for whoever started this.
fn say_ready(global: &Global, plans: &[NetworkPlan], socket: &Path) -> Result<(), Error> {
    let networks = plans.iter().map(|plan| ReadyNetwork {
        name: &plan.name,
        subnet: plan.subnet,
        gateway: plan.gateway,
        uplink: plan.uplink.to_string(),
    });
    let ready = Ready { pid: std::process::id(), socket, networks: networks.collect() };
    if global.json {
        let line = serde_json::to_string(&ready)
            .map_err(|error| Error::failed(format!("cannot write as JSON that the daemon is ready: {error}")))?;
        return output::print(&(line + "\n"));
    }
    eprintln!("{}", ready_line(&ready));
    Ok(())
}

fn ready_line(ready: &Ready<'_>) -> String {
    let describe = |network: &ReadyNetwork<'_>| {
        let ReadyNetwork { name, subnet, gateway, uplink } = network;
        format!("network {name} {subnet}, gateway {gateway}, uplink {uplink}")
    };
    let networks: Vec<String> = ready.networks.iter().map(describe).collect();
    format!("tapswitch is ready: {}; control socket {}", networks.join("; "), ready.socket.display())
}
