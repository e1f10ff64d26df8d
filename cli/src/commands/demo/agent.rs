//! What runs inside a container of the demo: it does as it is asked, and tells what came of it.
//!
//! Its standard input is one end of a socket pair: [`Ask`] comes in by the line, [`Told`] goes out by the line. It ends
//! when the other end does.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tapswitch_link::netns;
use tapswitch_wire::Mac;

use super::dhcp::{self, Exchange};
use super::http::{self, Fetched};
use super::ping::{self, Pings};

/// What the demo asks of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ask {
    /// Get a lease and set the address.
    Dhcp {
        /// The interface.
        interface: String,
        /// Its MAC address.
        mac: Mac,
        /// Identifies the exchange.
        xid: u32,
        /// The name to give the server.
        hostname: String,
    },
    /// Send echo requests.
    Ping {
        /// To this address.
        to: Ipv4Addr,
        /// Identifies the series.
        id: u16,
        /// So many.
        count: u16,
    },
    /// Fetch a page.
    Get {
        /// From this server.
        from: SocketAddrV4,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Told {
    /// The address is set.
    Leased(Exchange),
    /// The echo requests are through.
    Pinged(Pings),
    /// The page is here.
    Fetched(Fetched),
    /// It did not work, and this is why.
    Failed(String),
}

/// The hidden verb that runs this instead of the command line.
pub(crate) const VERB: &str = "__demo-agent";

/// Runs the agent until the demo ends.
pub(crate) fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tapswitch: a container of the demo cannot talk to it: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut telling = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    for line in BufReader::new(telling.try_clone()?).lines() {
        let told = match serde_json::from_str(&line?) {
            Ok(ask) => act(ask).unwrap_or_else(Told::Failed),
            Err(error) => Told::Failed(error.to_string()),
        };
        telling.write_all(&line_of(&told)?)?;
    }
    Ok(())
}

/// A message as it travels.
pub(super) fn line_of(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

fn act(ask: Ask) -> Result<Told, String> {
    Ok(match ask {
        Ask::Dhcp { interface, mac, xid, hostname } => {
            accept_answers(&interface);
            let exchange = dhcp::obtain(&interface, mac, xid, &hostname)?;
            let lease = &exchange.lease;
            netns::set_address(&interface, (lease.ip, lease.prefix), lease.gateway).map_err(|e| e.to_string())?;
            Told::Leased(exchange)
        }
        Ask::Ping { to, id, count } => Told::Pinged(ping::ping(to, id, count)?),
        Ask::Get { from } => Told::Fetched(http::get(from)?),
    })
}

/// Turns off the reverse path filter, where the host's defaults turned it on: before there is an address there is no
/// route back to the server, so the filter would drop its offer. Where the file may not be written, the host left it
/// off or the exchange says that nobody answered.
fn accept_answers(interface: &str) {
    for scope in ["all", interface] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter"), "0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_each_and_come_back() {
        let ask = Ask::Dhcp { interface: "eth0".into(), mac: Mac([2, 0, 0, 0, 0, 1]), xid: 7, hostname: "a\nb".into() };
        let line = line_of(&ask).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<Ask>(&line).unwrap(), ask);
        let told = Told::Pinged(Pings { sent: 3, rtt_us: vec![1, 2] });
        assert_eq!(serde_json::from_slice::<Told>(&line_of(&told).unwrap()).unwrap(), told);
    }
}
