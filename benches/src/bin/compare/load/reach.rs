//! When something can be reached for the first time.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::connect;

/// How long one attempt waits: a SYN that came too early must not wait for its repetition, a second later.
const ATTEMPT: Duration = Duration::from_millis(20);

/// Between two attempts that were refused at once.
const PAUSE: Duration = Duration::from_micros(500);

/// How long it is tried.
const LIMIT: Duration = Duration::from_secs(15);

/// Says ready, tries to connect, and returns the nanoseconds of the clock when it first could.
pub(super) fn reach(to: Ipv4Addr) -> Result<u64, String> {
    super::ready();
    let to = SocketAddr::from((to, connect::PORT));
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if TcpStream::connect_timeout(&to, ATTEMPT).is_ok() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
            return u64::try_from(now.as_nanos()).map_err(|error| error.to_string());
        }
        std::thread::sleep(PAUSE);
    }
    Err(format!("{to} cannot be reached within {} s", LIMIT.as_secs()))
}
