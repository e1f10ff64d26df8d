//! Many TCP connections at once, on which nothing is said.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::{at, servers};

const PORT: u16 = 5305;

/// How long one of them may take: as in the test of new ones, long enough for one lost SYN.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// How long all of them may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What became of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holding {
    pub opened: u32,
    pub seconds: f64,
    /// Why there are no more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// Takes connections and keeps them, until it is killed.
pub(super) fn keep() -> Result<(), String> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).map_err(at("cannot listen"))?;
    super::ready();
    let mut kept = Vec::new();
    loop {
        kept.push(listener.accept().map_err(at("cannot accept"))?);
    }
}

/// Opens as many, one after the other, says how many there are, and holds them until it is killed.
pub(super) fn hold(flows: u32) -> Result<(), String> {
    let begin = Instant::now();
    let mut held = Vec::new();
    let mut reason = None;
    for address in servers().cycle().take(flows as usize) {
        match TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), LOST_AFTER) {
            Ok(stream) => {
                // A reset at the end, so that none of them lingers.
                setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })
                    .map_err(|error| format!("SO_LINGER: {error}"))?;
                held.push(stream);
            }
            Err(error) => {
                reason = Some(error.to_string());
                break;
            }
        }
        if begin.elapsed() > LIMIT {
            reason = Some(format!("{} s were over", LIMIT.as_secs()));
            break;
        }
    }
    // No more than were asked for, which was such a number.
    let opened = held.len() as u32;
    super::report(&Holding { opened, seconds: begin.elapsed().as_secs_f64(), reason })?;
    loop {
        std::thread::park();
    }
}
