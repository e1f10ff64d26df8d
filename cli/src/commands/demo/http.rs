//! The smallest web server that can be fetched from, on the host's loopback, and the client that fetches from it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::Stopwatch;

const PATIENCE: Duration = Duration::from_secs(3);

/// More than a request line with a few headers needs.
const REQUEST_LIMIT: u64 = 4096;

/// The page that the server serves.
pub(super) const PAGE: &str = "It works: this page came from a socket on the host, through the NAT of a switch in user \
                               space, to a container that has no privilege at all.\n";

/// What the client got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fetched {
    /// Status of the answer.
    pub status: u16,
    /// Its body.
    pub body: String,
    /// Microseconds until the connection stood.
    pub connect_us: u64,
    /// Microseconds until the last byte.
    pub total_us: u64,
}

/// Serves [`PAGE`] on a free port of the host's loopback to whoever asks, one at a time, from a thread that ends with
/// the process. Returns the port.
pub(super) fn serve() -> io::Result<u16> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::Builder::new().name("web server".into()).spawn(move || {
        for stream in listener.incoming() {
            // A client that fails or dawdles is of no interest: the demo's own client reports what it saw.
            let _ = stream.and_then(answer);
        }
    })?;
    Ok(port)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = BufReader::new(stream.try_clone()?.take(REQUEST_LIMIT));
    let mut line = String::new();
    while request.read_line(&mut line)? > 0 {
        if line.trim_end().is_empty() {
            let length = PAGE.len();
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{PAGE}")?;
            return Ok(());
        }
        line.clear();
    }
    Ok(())
}

/// Fetches `/` from there.
pub(super) fn get(from: SocketAddrV4) -> Result<Fetched, String> {
    fetch(from).map_err(|error| format!("cannot fetch http://{from}/: {error}"))
}

fn fetch(from: SocketAddrV4) -> io::Result<Fetched> {
    let watch = Stopwatch::start();
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(from), PATIENCE)?;
    let connect_us = watch.micros();
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {from}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer)?;
    let total_us = watch.micros();
    let (status, body) = parse(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    Ok(Fetched { status, body, connect_us, total_us })
}

/// Status and body of an answer (RFC 9112 4).
fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (version, rest) = head.split_once(' ')?;
    let status = rest.get(..3)?.parse().ok()?;
    version.starts_with("HTTP/1.").then(|| (status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_parse_and_nonsense_does_not() {
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody\r\n\r\nmore"), Some((200, "body\r\n\r\nmore".into())));
        assert_eq!(parse(b"HTTP/1.1 404 \r\n\r\n"), Some((404, String::new())));
        for nonsense in ["", "HTTP/1.0 200 OK\r\n", "HTTP/1.0 2\r\n\r\n", "SSH-2.0 200 x\r\n\r\n", "HTTP/1.0\r\n\r\n"] {
            assert_eq!(parse(nonsense.as_bytes()), None, "{nonsense:?}");
        }
    }

    #[test]
    fn page_is_served_over_loopback() {
        let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, serve().unwrap());
        for _ in 0..2 {
            let fetched = get(from).unwrap();
            assert_eq!((fetched.status, fetched.body.as_str()), (200, PAGE));
        }
    }
}
