//! Small servers inside a namespace. Each ends when it is dropped.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use crate::namespace::{Enter, enter};

/// How often a server looks whether it should end.
const LOOK: u16 = 20;

/// A running server.
pub struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the server has been printed; the test fails by what its client saw.
            let _ = thread.join();
        }
    }
}

/// Accepts TCP connections at `address`; each gets a thread that runs `talk`.
pub fn serve_tcp<F>(place: &impl Enter, address: SocketAddr, talk: F) -> Service
where
    F: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    let talk = Arc::new(talk);
    start(
        place,
        move || TcpListener::bind(address),
        move |listener| {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).expect("a stream can block");
                let timeout = Some(Duration::from_secs(60));
                stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)).expect("a stream has timeouts");
                let talk = Arc::clone(&talk);
                // What goes wrong here, the client notices at its end of the connection.
                thread::spawn(move || talk(stream));
            }
        },
    )
}

/// Receives UDP datagrams at `address` and sends back what `answer` makes of each.
pub fn serve_udp<F>(place: &impl Enter, address: SocketAddr, answer: F) -> Service
where
    F: Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
{
    start(
        place,
        move || UdpSocket::bind(address),
        move |socket| {
            let mut datagram = vec![0; 65_536];
            match socket.recv_from(&mut datagram) {
                Ok((n, from)) => {
                    if let Some(reply) = answer(&datagram[..n]) {
                        socket.send_to(&reply, from).expect("a reply can be sent");
                    }
                }
                Err(e) => assert!(e.kind() != ErrorKind::NotFound, "receiving: {e}"),
            }
        },
    )
}

/// Sends each datagram back as it came.
pub fn echo_udp(place: &impl Enter, address: SocketAddr) -> Service {
    serve_udp(place, address, |datagram| Some(datagram.to_vec()))
}

/// Binds inside `place`, then calls `ready` whenever the socket has something to read.
fn start<S: AsFd>(
    place: &impl Enter,
    bind: impl FnOnce() -> io::Result<S> + Send + 'static,
    ready: impl Fn(&S) + Send + 'static,
) -> Service {
    let path = place.netns_path();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let (bound, is_bound) = mpsc::channel();
    let thread = thread::spawn(move || {
        enter(&path);
        let socket = bind().unwrap_or_else(|e| panic!("cannot bind in {}: {e}", path.display()));
        bound.send(()).expect("the starter waits");
        while !stopped.load(Ordering::Relaxed) {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(LOOK)).is_ok_and(|n| n > 0) {
                ready(&socket);
            }
        }
    });
    is_bound.recv().expect("the server is bound");
    Service { stop, thread: Some(thread) }
}
