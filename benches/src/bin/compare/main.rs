//! `compare`: container to container, or container to the outside, tapswitch beside its peers, measured in turns.
//!
//! # Theory of operation
//!
//! Goal: figures that somebody else can get again, and that favour nobody. Two containers (network namespaces) hang on
//! each peer: tapswitch, the kernel's bridge, a bare veth pair (the limit), vde_switch, and Open vSwitch's datapath in
//! user space. Or, with `--nat`, one container reaches a server through each of them: tapswitch's uplinks, and the
//! kernel's bridge with nft's masquerade. Or, with `--rootless`, through what an ordinary user can start: tapswitch's relay,
//! pasta and slirp4netns. All of these worlds stand at once. One *round* measures each test on each peer
//! once, so that whatever else the machine does disturbs all of them alike; whoever begins changes with the round. The
//! processes of peers that are not being measured are stopped (SIGSTOP), so that one that spins takes nothing from the
//! others.
//!
//! * [`cage`]: everything lives in private PID, mount and network namespaces. When this program ends, for whatever
//!   reason, the kernel ends every process in them and the namespaces with them: there is nothing left to clean up.
//! * [`world`]: builds the peers. A test that an earlier one could falsify (new connections, memory of many sessions) has
//!   one built for each measurement.
//! * [`load`]: the load generators that are our own (request-response, connections, datagrams, sessions, spinning); hidden
//!   subcommands of this program that run inside the containers. Streams come from iperf3.
//! * [`measure`]: one measurement: a generator at each end, and the CPU time around it.
//! * [`results`]: what is kept, and its form in JSON. A measurement that failed is kept with its reason.
//! * [`stats`], [`table`], [`plot`]: what is said about it.
//!
//! CPU time is that of the whole machine ([`cpu`]), because much of what a switch in the kernel does is charged to no
//! process; beside it stands what the switch's own processes used.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks and waits")]

mod cage;
mod cpu;
mod facts;
mod load;
mod measure;
mod options;
mod plot;
mod process;
mod results;
mod run;
mod stats;
mod table;
mod world;

use std::process::ExitCode;

use clap::Parser;

use options::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Load(load)) => load::run(&load).map(|()| ExitCode::SUCCESS),
        None if cli.options.from.is_some() => run::again(&cli.options).map(|()| ExitCode::SUCCESS),
        None if cage::inside() => run::all(&cli.options).map(|()| ExitCode::SUCCESS),
        None => run::prepare(&cli.options).and_then(|_lock| cage::run()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("compare: {error}");
        ExitCode::FAILURE
    })
}
