//! Where a poll thread's frames come from: it waits for ports and sockets, and hands out one frame after another.
//!
//! Two ways of reading stand behind one set of calls ([`Backend`]):
//!
//! - *epoll*: the [`Poller`] says which ports may have frames, and each frame is one `read`.
//! - *io_uring*: every port has one multishot read under way (see the `ring` module). The kernel fills a buffer for each
//!   frame when this thread looks, so one system call can bring many frames, and looking again without news costs none.
//!
//! A turn of the loop is [`Intake::poll`], then [`Intake::take`] until it gives nothing. What a turn can bring is bounded: by
//! epoll each port gives its budget at most, by io_uring all ports together fill the buffers that there are.

use std::fmt;
use std::io;
use std::time::Duration;

use mio::Registry;
use tapswitch_wire::{DropReason, Meta};

use crate::poller::{Event, Poller, Token, Waker};
use crate::ring::Ring;
use crate::tap::Tap;
use crate::{Buffer, Port, Rx};

/// How frames are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backend {
    /// Readiness by epoll, one `read` a frame.
    Epoll,
    /// Multishot reads by io_uring (Linux 6.7), if the kernel and its policies allow it.
    Uring,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Epoll => "epoll",
            Backend::Uring => "io_uring",
        })
    }
}

/// What a port gave.
#[derive(PartialEq, Eq, Debug)]
pub enum Arrival<'a> {
    /// A frame. Its bytes are lent until the next call.
    Frame(Meta, &'a mut [u8]),
    /// A frame that is dropped for this reason.
    Bad(DropReason),
    /// The port will never give a frame again. Remove it.
    Gone,
}

/// Ports and sockets that one thread reads.
#[derive(Debug)]
pub struct Intake {
    reading: Reading,
}

#[derive(Debug)]
enum Reading {
    Epoll(Box<Readiness>),
    Uring(Box<Ring>),
}

/// Reading by readiness.
#[derive(Debug)]
struct Readiness {
    poller: Poller,
    taps: Vec<Option<Tap>>,
    buffer: Buffer,
    /// The port whose turn it is, and how many frames it may still give.
    turn: Option<(Token, usize)>,
}

impl Intake {
    /// An intake without ports. By epoll, each may give `budget` frames in a turn.
    ///
    /// # Errors
    /// What the kernel says. [`Backend::Uring`] is refused by kernels before 6.7, by `kernel.io_uring_disabled`, and by
    /// the seccomp profiles of container engines.
    pub fn new(backend: Backend, budget: usize) -> io::Result<Intake> {
        let poller = Poller::new(budget)?;
        let reading = match backend {
            Backend::Epoll => {
                let readiness = Readiness { poller, taps: Vec::new(), buffer: Buffer::new(), turn: None };
                Reading::Epoll(Box::new(readiness))
            }
            Backend::Uring => Reading::Uring(Box::new(Ring::new(poller)?)),
        };
        Ok(Intake { reading })
    }

    /// How it reads.
    pub fn backend(&self) -> Backend {
        match self.reading {
            Reading::Epoll(_) => Backend::Epoll,
            Reading::Uring(_) => Backend::Uring,
        }
    }

    fn poller(&self) -> &Poller {
        match &self.reading {
            Reading::Epoll(readiness) => &readiness.poller,
            Reading::Uring(ring) => ring.poller(),
        }
    }

    /// What interrupts [`Intake::poll`].
    pub fn waker(&self) -> Waker {
        self.poller().waker()
    }

    /// For sockets: see [`Poller::registry`].
    pub fn registry(&self) -> &Registry {
        self.poller().registry()
    }

    /// What the last [`Intake::poll`] brought for sockets.
    pub fn events(&self) -> &[Event] {
        self.poller().events()
    }

    /// Begins to read a port. Nobody else may read the device meanwhile. Call it, and all that follows, on one thread.
    ///
    /// # Errors
    /// `InvalidInput` for a token out of range, `AlreadyExists` for one in use, and what the kernel says.
    pub fn add(&mut self, token: Token, tap: Tap) -> io::Result<()> {
        match &mut self.reading {
            Reading::Epoll(readiness) => readiness.add(token, tap),
            Reading::Uring(ring) => ring.add(token, tap),
        }
    }

    /// Ends reading a port, and lets go of its device. A token that means no port is ignored.
    pub fn remove(&mut self, token: Token) {
        match &mut self.reading {
            Reading::Epoll(readiness) => readiness.remove(token),
            Reading::Uring(ring) => ring.remove(token),
        }
    }

    /// Begins a turn: collects news, and waits for some if nothing is left to be read. `None` waits without limit.
    ///
    /// # Errors
    /// What the kernel says; a signal is no error.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match &mut self.reading {
            Reading::Epoll(readiness) => readiness.poller.poll(timeout),
            Reading::Uring(ring) => ring.poll(timeout),
        }
    }

    /// Whether more may be there to read, so that the next [`Intake::poll`] will not wait.
    pub fn is_busy(&self) -> bool {
        match &self.reading {
            Reading::Epoll(readiness) => readiness.poller.is_busy(),
            Reading::Uring(ring) => ring.is_busy(),
        }
    }

    /// What a port gave; nothing at the end of the turn.
    #[inline]
    pub fn take(&mut self) -> Option<(Token, Arrival<'_>)> {
        match &mut self.reading {
            Reading::Epoll(readiness) => readiness.take(),
            Reading::Uring(ring) => ring.take(),
        }
    }
}

impl Readiness {
    fn add(&mut self, token: Token, tap: Tap) -> io::Result<()> {
        tap.set_nonblocking(true).map_err(io::Error::other)?;
        self.poller.add(token, &tap)?;
        if self.taps.len() <= token.0 {
            self.taps.resize_with(token.0 + 1, || None);
        }
        self.taps[token.0] = Some(tap);
        Ok(())
    }

    fn remove(&mut self, token: Token) {
        // It cannot fail on a descriptor that is open, and the poller forgets the port all the same.
        let _ = self.poller.remove(token);
        if let Some(tap) = self.taps.get_mut(token.0) {
            *tap = None;
        }
        if self.turn.is_some_and(|(current, _)| current == token) {
            self.turn = None;
        }
    }

    #[inline]
    fn take(&mut self) -> Option<(Token, Arrival<'_>)> {
        loop {
            let (token, left) = match self.turn {
                Some((token, left)) if left > 0 => (token, left),
                _ => (self.poller.next_ready()?, self.poller.budget()),
            };
            self.turn = Some((token, left - 1));
            let rx = match self.taps.get_mut(token.0) {
                Some(Some(tap)) => tap.rx(&mut self.buffer),
                _ => Rx::WouldBlock,
            };
            match rx {
                Rx::Frame(meta, len) => return Some((token, Arrival::Frame(meta, self.buffer.frame(len)))),
                Rx::Bad(reason) => return Some((token, Arrival::Bad(reason))),
                Rx::WouldBlock => {
                    self.poller.park(token);
                    self.turn = None;
                }
                Rx::Gone => {
                    self.poller.park(token);
                    self.turn = None;
                    return Some((token, Arrival::Gone));
                }
            }
        }
    }
}
