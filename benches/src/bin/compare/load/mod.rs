//! Load generators. Each runs inside a container as a hidden subcommand of this program, says `ready` on stdout as soon as
//! it can be spoken to, and answers with one line of JSON.

mod connect;
mod flood;
mod hold;
mod kernel;
mod reach;
mod rr;
mod sessions;
mod spin;

use std::net::Ipv4Addr;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

pub(crate) use connect::servers;
pub(crate) use flood::{Received, Sent};
pub(crate) use hold::{Holding, LIMIT as HOLDING};
pub(crate) use kernel::udp_errors_of;
pub(crate) use rr::Answered;
pub(crate) use sessions::Opened;

/// What a generator that others connect to writes once it can be spoken to.
pub(crate) const READY: &str = "ready";

/// Bytes of the datagrams of the small-packet test: what an Ethernet frame of minimal size can hold.
pub(crate) const SMALL: usize = 18;

/// Bytes of the datagrams of the UDP GSO test.
pub(crate) const SEGMENT: usize = 1400;

#[derive(Subcommand)]
pub(crate) enum Load {
    /// Sends back every byte, or datagram
    Echo { proto: Proto },
    /// Asks with one byte, waits for the answer, asks again
    Ask { proto: Proto, to: Ipv4Addr, seconds: u64 },
    /// Sends datagrams as fast as it can
    Send { kind: Kind, to: Ipv4Addr, seconds: u64 },
    /// Counts datagrams until no more come
    Receive {
        kind: Kind,
        #[arg(long)]
        rcvbuf: Option<usize>,
    },
    /// Sends datagrams as fast as it can to whoever says hello first
    Pour { kind: Kind, seconds: u64 },
    /// Says hello, and counts datagrams until no more come
    Fetch {
        kind: Kind,
        to: Ipv4Addr,
        #[arg(long)]
        rcvbuf: Option<usize>,
    },
    /// Takes connections, and sends back one byte on each
    Serve,
    /// Connects, sends a byte, waits for the answer, closes, and connects again
    Connect { seconds: u64 },
    /// Sends one datagram for each of so many sessions
    Open { sessions: u32, from: Ipv4Addr, rate: u32 },
    /// Takes connections and keeps them
    Keep,
    /// Opens so many connections and holds them
    Hold { flows: u32 },
    /// Tries to connect, and says when it first could
    Reach { to: Ipv4Addr },
    /// Keeps one CPU busy
    Spin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proto {
    Tcp,
    Udp,
}

/// Kind of a datagram flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Datagrams of [`SMALL`] bytes, one by one
    Small,
    /// Datagrams of [`SEGMENT`] bytes, many in one send (UDP_SEGMENT) and one receive (UDP_GRO)
    Gso,
}

pub(crate) fn run(load: &Load) -> Result<(), String> {
    match *load {
        Load::Echo { proto } => rr::echo(proto),
        Load::Ask { proto, to, seconds } => report(&rr::ask(proto, to, seconds)?),
        Load::Send { kind, to, seconds } => report(&flood::send(kind, to, seconds)?),
        Load::Receive { kind, rcvbuf } => report(&flood::receive(kind, rcvbuf)?),
        Load::Pour { kind, seconds } => report(&flood::pour(kind, seconds)?),
        Load::Fetch { kind, to, rcvbuf } => report(&flood::fetch(kind, to, rcvbuf)?),
        Load::Keep => hold::keep(),
        Load::Hold { flows } => hold::hold(flows),
        Load::Reach { to } => report(&reach::reach(to)?),
        Load::Serve => connect::serve(),
        Load::Connect { seconds } => report(&connect::connect(seconds)?),
        Load::Open { sessions, from, rate } => report(&sessions::open(sessions, from, rate)?),
        Load::Spin => spin::spin(),
    }
}

/// Says that others may begin.
fn ready() {
    println!("{READY}");
}

fn report(figures: &impl Serialize) -> Result<(), String> {
    println!("{}", serde_json::to_string(figures).map_err(|error| error.to_string())?);
    Ok(())
}

/// For `map_err`: what was tried.
fn at(what: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}
