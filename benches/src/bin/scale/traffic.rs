//! Traffic between two containers. A socket belongs to the namespace in which it was made, so a thread enters one only to
//! make it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use crate::Result;
use crate::world::Container;

/// After so long without progress a measurement has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much went through, in how long.
pub(crate) struct Measured {
    pub(crate) count: f64,
    time: Duration,
}

impl Measured {
    /// In a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count / self.time.as_secs_f64()
    }
}

/// Request and response of one byte each, one at a time.
pub(crate) fn tcp_turns(a: &Container, b: &Container, time: Duration) -> Result<Measured> {
    let (mut client, mut server) = connection(a, b)?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            while server.read_exact(&mut byte).is_ok() && server.write_all(&byte).is_ok() {}
        });
        let (start, mut count, mut byte) = (Instant::now(), 0u64, [0]);
        while start.elapsed() < time {
            client.write_all(&byte).and_then(|()| client.read_exact(&mut byte)).map_err(failed)?;
            count += 1;
        }
        let time = start.elapsed();
        // Ends the server, for which the scope waits.
        drop(client);
        Ok(Measured { count: count as f64, time })
    })
}

/// Datagrams that make the shortest frames, as many as can be sent. Those that arrive are counted.
pub(crate) fn udp_packets(a: &Container, b: &Container, time: Duration) -> Result<Measured> {
    const QUIET: Duration = Duration::from_millis(200);
    let receiver = inside(b, || UdpSocket::bind((b.address, 0)))?;
    let to = receiver.local_addr().map_err(failed)?;
    let sender = inside(a, || UdpSocket::bind((a.address, 0)).and_then(|socket| socket.connect(to).map(|()| socket)))?;
    receiver.set_read_timeout(Some(QUIET)).map_err(failed)?;
    thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(move || {
            while start.elapsed() < time {
                // A full queue is what is being measured.
                let _ = sender.send(&[0; 18]);
            }
        });
        let (mut count, mut last, mut bytes) = (0u64, start, [0; 64]);
        while start.elapsed() < time + PATIENCE {
            match receiver.recv(&mut bytes) {
                Ok(_) => (count, last) = (count + 1, Instant::now()),
                Err(e) if is_timeout(&e) && start.elapsed() < time => {}
                Err(e) if is_timeout(&e) => break,
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(Measured { count: count as f64, time: (last - start).max(time) })
    })
}

/// One stream, as fast as it goes.
pub(crate) fn tcp_bytes(a: &Container, b: &Container, time: Duration) -> Result<Measured> {
    let (mut client, mut server) = connection(a, b)?;
    thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(move || {
            let block = vec![0; 128 << 10];
            while start.elapsed() < time && client.write_all(&block).is_ok() {}
            let _ = client.shutdown(Shutdown::Write);
        });
        let (mut count, mut block) = (0, vec![0; 256 << 10]);
        loop {
            match server.read(&mut block).map_err(failed)? {
                0 => return Ok(Measured { count: count as f64, time: start.elapsed() }),
                read => count += read,
            }
        }
    })
}

fn connection(a: &Container, b: &Container) -> Result<(TcpStream, TcpStream)> {
    let listener = inside(b, || TcpListener::bind((b.address, 0)))?;
    let to: SocketAddr = listener.local_addr().map_err(failed)?;
    let client = inside(a, || TcpStream::connect_timeout(&to, PATIENCE))?;
    let (server, _) = listener.accept().map_err(failed)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    }
    Ok((client, server))
}

/// What `action` makes in the container's namespace.
fn inside<T: Send>(container: &Container, action: impl FnOnce() -> std::io::Result<T> + Send) -> Result<T> {
    let enter = || {
        setns(File::open(format!("/run/netns/{}", container.namespace))?, CloneFlags::CLONE_NEWNET)?;
        action()
    };
    let made = thread::scope(|scope| scope.spawn(enter).join());
    let made = made.map_err(|_| format!("a thread broke in {}", container.namespace))?;
    made.map_err(|e| format!("no socket in {}: {e}", container.namespace))
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn failed(error: std::io::Error) -> String {
    format!("traffic between two containers stopped: {error}")
}
