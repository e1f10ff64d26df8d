//! The sleeping side of the loop: which ports may have frames, in which order they are served, and when to block.
//!
//! # Theory of operation
//!
//! The kernel is asked edge-triggered: it tells once that a port became readable, and not again until the port was read
//! empty. So what is known about readiness is kept here, in a list of ports that *may have more*:
//!
//! | a port | gets on the list | leaves it |
//! |---|---|---|
//! | added | at once: frames may wait already | |
//! | parked | when the kernel reports an edge | |
//! | on the list | stays, behind all others, after each time it is served | when [`Poller::park`] says that it would block |
//!
//! One turn of the loop is: [`Poller::poll`], then for each port that [`Poller::next_ready`] gives, read up to
//! [`Poller::budget`] frames, and park it if it ran dry. A port that used up its budget is served again in the next turn,
//! after all others; meanwhile `poll` only collects news and does not block. Thus one busy port never starves another,
//! and forgetting to park costs time but never loses a frame.
//!
//! Sockets of the relay are registered through [`Poller::registry`] with tokens from [`Poller::FIRST_FOREIGN`] on; their
//! events are handed out as they are. Another thread interrupts a blocking `poll` with a [`Waker`].
//!
//! *Limits.* 65 536 ports; 256 events in one call, the rest come with the next.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry};

pub use mio::Token;

const EVENTS: usize = 256;
const WAKER: Token = Token(usize::MAX);

/// Interrupts a [`Poller`] that blocks, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    /// Makes the present or next [`Poller::poll`] return. Several calls may count as one.
    ///
    /// # Errors
    /// What the kernel says; it does not refuse because of too many calls.
    pub fn wake(&self) -> io::Result<()> {
        self.0.wake()
    }
}

/// What happened to a socket that was registered through [`Poller::registry`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// The token it was registered with.
    pub token: Token,
    /// Reading may give something: data, the end, or an error.
    pub readable: bool,
    /// Writing may take something, or a connection attempt ended.
    pub writable: bool,
    /// An error is waiting to be fetched.
    pub error: bool,
    /// The other end has finished, or sent something urgent: a read that gives less than was asked for is not all.
    pub ended: bool,
}

#[derive(Debug)]
struct Entry {
    fd: RawFd,
    /// May have more to read.
    ready: bool,
    /// Stands in the queue: once at most, and perhaps still after it was parked.
    queued: bool,
}

/// Waits for ports and sockets, and deals out turns among the ports.
#[derive(Debug)]
pub struct Poller {
    poll: Poll,
    events: Events,
    waker: Waker,
    budget: usize,
    ports: Vec<Option<Entry>>,
    queue: VecDeque<Token>,
    /// How many ports may have more.
    ready: usize,
    /// How many of the queue's entries are still to be looked at in this turn.
    turn: usize,
    foreign: Vec<Event>,
    woken: bool,
}

impl Poller {
    /// The lowest token that is not a port's.
    pub const FIRST_FOREIGN: usize = 1 << 16;

    /// A poller without ports, whose ports may be read `budget` times each in a turn (64 is a good number).
    ///
    /// # Errors
    /// When the kernel has no descriptor for it.
    pub fn new(budget: usize) -> io::Result<Poller> {
        let poll = Poll::new()?;
        let waker = Waker(Arc::new(mio::Waker::new(poll.registry(), WAKER)?));
        Ok(Poller {
            poll,
            events: Events::with_capacity(EVENTS),
            waker,
            budget: budget.max(1),
            ports: Vec::new(),
            queue: VecDeque::new(),
            ready: 0,
            turn: 0,
            foreign: Vec::with_capacity(EVENTS),
            woken: false,
        })
    }

    /// How many frames to read from one port in one turn.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// What wakes this poller.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// For sockets that are no ports. Tokens begin at [`Poller::FIRST_FOREIGN`]; `usize::MAX` is taken.
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Adds a port, which goes on the list of ready ones at once. Its token is below [`Poller::FIRST_FOREIGN`].
    ///
    /// The descriptor must be non-blocking, and must stay open until [`Poller::remove`].
    ///
    /// # Errors
    /// `InvalidInput` for a token out of range, `AlreadyExists` for one in use, and what the kernel says.
    pub fn add(&mut self, token: Token, fd: impl AsFd) -> io::Result<()> {
        if token.0 >= Self::FIRST_FOREIGN {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the token of a port must be below 65536"));
        }
        if self.ports.len() <= token.0 {
            self.ports.resize_with(token.0 + 1, || None);
        }
        if self.ports[token.0].is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the token belongs to another port"));
        }
        let fd = fd.as_fd().as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        self.ports[token.0] = Some(Entry { fd, ready: false, queued: false });
        self.mark_ready(token);
        Ok(())
    }

    /// Forgets a port. Call it before its descriptor is closed: closed, the number may mean another file already.
    ///
    /// # Errors
    /// What the kernel says. The port is forgotten all the same.
    pub fn remove(&mut self, token: Token) -> io::Result<()> {
        let Some(entry) = self.ports.get_mut(token.0).and_then(Option::take) else { return Ok(()) };
        if entry.ready {
            self.ready -= 1;
        }
        if entry.queued {
            // The token may be given to another port before its place in the queue comes up.
            if let Some(place) = self.queue.iter().position(|queued| *queued == token) {
                self.queue.remove(place);
                // Places are looked at from the front: this one was still to come if it is among the first.
                if place < self.turn {
                    self.turn -= 1;
                }
            }
        }
        self.poll.registry().deregister(&mut SourceFd(&entry.fd))
    }

    /// Begins a turn: collects news, and blocks for it if no port is ready. `None` blocks without limit.
    ///
    /// # Errors
    /// What the kernel says. A signal is no error: the turn begins without news.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.foreign.clear();
        self.woken = false;
        let timeout = if self.ready > 0 { Some(Duration::ZERO) } else { timeout };
        match self.poll.poll(&mut self.events, timeout) {
            // A signal: whatever happened meanwhile will be told by the next call.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            polled => polled?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                WAKER => self.woken = true,
                token if token.0 < Self::FIRST_FOREIGN => self.mark_ready(token),
                token => self.foreign.push(Event {
                    token,
                    readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                    writable: event.is_writable() || event.is_write_closed(),
                    error: event.is_error(),
                    ended: event.is_read_closed() || event.is_priority() || event.is_error(),
                }),
            }
        }
        self.events = events;
        self.turn = self.queue.len();
        Ok(())
    }

    /// Begins a turn of which it is known that there are no news.
    pub(crate) fn no_news(&mut self) {
        self.foreign.clear();
        self.woken = false;
        self.turn = self.queue.len();
    }

    /// Whether the last [`Poller::poll`] brought as much as it can at once, so that there may be more.
    pub(crate) fn was_full(&self) -> bool {
        self.events.iter().count() >= EVENTS
    }

    /// The next port to serve in this turn. It counts as ready for the next turn too, unless it is parked.
    pub fn next_ready(&mut self) -> Option<Token> {
        while self.turn > 0 {
            self.turn -= 1;
            let token = self.queue.pop_front()?;
            let Some(entry) = self.ports.get_mut(token.0).and_then(Option::as_mut) else { continue };
            if entry.ready {
                self.queue.push_back(token);
                return Some(token);
            }
            entry.queued = false;
        }
        None
    }

    /// Says that a port has nothing to read until the kernel reports it again.
    pub fn park(&mut self, token: Token) {
        let Some(entry) = self.ports.get_mut(token.0).and_then(Option::as_mut) else { return };
        if entry.ready {
            entry.ready = false;
            self.ready -= 1;
        }
    }

    /// Whether any port may have more to read, so that the next [`Poller::poll`] will not block.
    pub fn is_busy(&self) -> bool {
        self.ready > 0
    }

    /// What the last [`Poller::poll`] brought for sockets that are no ports.
    pub fn events(&self) -> &[Event] {
        &self.foreign
    }

    /// Whether a [`Waker`] interrupted the last [`Poller::poll`].
    pub fn woken(&self) -> bool {
        self.woken
    }

    fn mark_ready(&mut self, token: Token) {
        let Some(entry) = self.ports.get_mut(token.0).and_then(Option::as_mut) else { return };
        if !entry.ready {
            entry.ready = true;
            self.ready += 1;
        }
        if !entry.queued {
            entry.queued = true;
            self.queue.push_back(token);
        }
    }
}

impl AsRawFd for Poller {
    /// Readable when [`Poller::poll`] would not block.
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A port's reading end and the end that feeds it.
    fn port() -> (UnixStream, UnixStream) {
        let (reader, writer) = UnixStream::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        (reader, writer)
    }

    fn turn(poller: &mut Poller) -> Vec<usize> {
        poller.poll(Some(Duration::ZERO)).unwrap();
        std::iter::from_fn(|| poller.next_ready()).map(|token| token.0).collect()
    }

    #[test]
    fn port_is_ready_when_added_and_after_an_edge_and_not_when_parked() {
        let mut poller = Poller::new(64).unwrap();
        let (mut reader, mut writer) = port();
        poller.add(Token(3), &reader).unwrap();
        assert_eq!(turn(&mut poller), [3]);
        poller.park(Token(3));
        assert_eq!(turn(&mut poller), []);
        assert!(!poller.is_busy());
        writer.write_all(b"frame").unwrap();
        assert_eq!(turn(&mut poller), [3]);
        assert_eq!(reader.read(&mut [0; 16]).unwrap(), 5);
        poller.park(Token(3));
        assert_eq!(turn(&mut poller), []);
    }

    #[test]
    fn frame_that_came_between_would_block_and_park_is_not_lost() {
        let mut poller = Poller::new(64).unwrap();
        let (mut reader, mut writer) = port();
        poller.add(Token(0), &reader).unwrap();
        assert_eq!(turn(&mut poller), [0]);
        assert!(reader.read(&mut [0; 16]).is_err(), "nothing there yet");
        writer.write_all(b"frame").unwrap();
        poller.park(Token(0));
        assert_eq!(turn(&mut poller), [0]);
    }

    #[test]
    fn port_with_more_than_its_budget_is_served_again_without_a_new_edge() {
        let mut poller = Poller::new(2).unwrap();
        let (mut reader, mut writer) = port();
        writer.write_all(b"abcde").unwrap();
        poller.add(Token(0), &reader).unwrap();
        let mut read = Vec::new();
        // Blocking for ever here would be the bug.
        while read.len() < 5 {
            poller.poll(None).unwrap();
            while let Some(token) = poller.next_ready() {
                for _ in 0..poller.budget() {
                    let mut byte = [0];
                    match reader.read(&mut byte) {
                        Ok(1) => read.push(byte[0]),
                        _ => {
                            poller.park(token);
                            break;
                        }
                    }
                }
            }
        }
        assert_eq!(read, b"abcde");
    }

    #[test]
    fn busy_ports_take_turns_and_a_turn_ends() {
        let mut poller = Poller::new(1).unwrap();
        let ports: Vec<_> = (0..3).map(|_| port()).collect();
        for (index, (reader, _)) in ports.iter().enumerate() {
            poller.add(Token(index), reader).unwrap();
        }
        assert_eq!(turn(&mut poller), [0, 1, 2]);
        assert_eq!(turn(&mut poller), [0, 1, 2]);
        poller.park(Token(1));
        assert_eq!(turn(&mut poller), [0, 2]);
    }

    #[test]
    fn removed_port_is_not_served_even_in_the_same_turn_and_its_token_can_be_used_again() {
        let mut poller = Poller::new(1).unwrap();
        let ports: Vec<_> = (0..3).map(|_| port()).collect();
        for (index, (reader, _)) in ports.iter().enumerate() {
            poller.add(Token(index), reader).unwrap();
        }
        poller.poll(None).unwrap();
        assert_eq!(poller.next_ready(), Some(Token(0)));
        poller.remove(Token(1)).unwrap();
        poller.remove(Token(0)).unwrap();
        assert_eq!(poller.next_ready(), Some(Token(2)));
        assert_eq!(poller.next_ready(), None);
        let (reader, _writer) = port();
        poller.add(Token(1), &reader).unwrap();
        assert_eq!(turn(&mut poller), [2, 1]);
        poller.park(Token(1));
        poller.park(Token(2));
        assert!(!poller.is_busy());
        assert!(poller.remove(Token(7)).is_ok(), "a port that is not there is no error");
    }

    #[test]
    fn token_in_use_or_out_of_range_is_refused() {
        let mut poller = Poller::new(1).unwrap();
        let (reader, _writer) = port();
        poller.add(Token(1), &reader).unwrap();
        assert_eq!(poller.add(Token(1), &reader).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let foreign = Token(Poller::FIRST_FOREIGN);
        assert_eq!(poller.add(foreign, &reader).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn port_whose_other_end_is_gone_becomes_ready() {
        let mut poller = Poller::new(1).unwrap();
        let (reader, writer) = port();
        poller.add(Token(0), &reader).unwrap();
        poller.poll(None).unwrap();
        poller.park(Token(0));
        drop(writer);
        assert_eq!(turn(&mut poller), [0]);
    }

    #[test]
    fn waker_interrupts_from_another_thread() {
        let mut poller = Poller::new(1).unwrap();
        let waker = poller.waker();
        let thread = std::thread::spawn(move || waker.wake().unwrap());
        poller.poll(None).unwrap();
        assert!(poller.woken());
        thread.join().unwrap();
        poller.poll(Some(Duration::ZERO)).unwrap();
        assert!(!poller.woken());
    }

    #[test]
    fn sockets_of_others_get_their_events_as_they_are() {
        let mut poller = Poller::new(1).unwrap();
        let (reader, mut writer) = port();
        let fd = reader.as_raw_fd();
        let token = Token(Poller::FIRST_FOREIGN + 9);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poller.registry().register(&mut SourceFd(&fd), token, interest).unwrap();
        poller.poll(None).unwrap();
        assert_eq!(poller.events(), [Event { token, readable: false, writable: true, error: false, ended: false }]);
        writer.write_all(b"x").unwrap();
        poller.poll(None).unwrap();
        assert!(poller.events().iter().any(|e| e.token == token && e.readable));
        assert_eq!(poller.next_ready(), None);
        poller.poll(Some(Duration::ZERO)).unwrap();
        assert_eq!(poller.events(), []);
    }
}
