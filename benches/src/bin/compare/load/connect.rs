//! New connections: how many can be made, used and ended, one after the other.
//!
//! One connection is: connect, one byte there, one byte back, close; both ends close in the ordinary way, the client first,
//! so that the wait for stray segments (TIME_WAIT) is the client's. Its ports do not run out: it goes through
//! [`SERVERS`] addresses in turn, and each of them could be reached from every port. One thread on each side.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::at;
use super::rr::{Answered, repeat};

pub(super) const PORT: u16 = 5303;

/// Addresses of the server.
const SERVERS: u8 = 20;

/// How long a connection, or the answer on it, is waited for: long enough for one lost SYN.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// The addresses that the server has for this test.
pub(crate) fn servers() -> impl Iterator<Item = Ipv4Addr> + Clone {
    (1..=SERVERS).map(|host| Ipv4Addr::new(203, 0, 113, host))
}

/// Until it is killed.
pub(super) fn serve() -> Result<(), String> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(at("cannot listen"))?;
    super::ready();
    let mut byte = [0; 1];
    loop {
        let (mut stream, _) = listener.accept().map_err(at("cannot accept"))?;
        // What goes wrong here is the client's to notice and count.
        if matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {
            let _ = stream.read(&mut byte);
        }
    }
}

pub(super) fn connect(seconds: u64) -> Result<Answered, String> {
    let mut addresses = servers().cycle();
    repeat(seconds, |question| {
        let address = addresses.next().ok_or("no address to connect to")?;
        match once(SocketAddr::from((address, PORT)), question) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(at("a connection failed")(error)),
        }
    })
}

fn once(to: SocketAddr, question: u8) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, LOST_AFTER)?;
    stream.set_read_timeout(Some(LOST_AFTER))?;
    stream.write_all(&[question])?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer)?;
    if answer == [question] { Ok(()) } else { Err(std::io::Error::other("another answer than the question's")) }
}
