//! Where a poll thread's frames come from: it waits for ports and sockets, and hands out one frame after another.
//!
//! Two ways of reading stand behind one set of calls ([`Backend`]):
//!
//! - *epoll*: the [`Poller`] says which ports may have frames, and each frame is one `read`.
//! - *io_uring*: every port has one multishot read under way (see the `ring` module). The kernel fills a buffer for each
//!   frame when this thread looks, so one system call can bring many frames, and looking again without news costs none.
//!   Packet sockets, of which a read brings less than a `recvmsg`, and TUN devices, whose packets need room for a header
//!   in front, are read by readiness all the same.
//!
//! A turn of the loop is [`Intake::poll`], then [`Intake::take`] until it gives nothing. What a turn can bring is bounded: by
//! epoll each port gives its budget at most, by io_uring all ports together fill the buffers that there are.
//!
//! Of some devices the kernel does not say that their interface was deleted ([`Tap::is_gone`]). While such a port is
//! read, no turn waits longer than a second, and all of them are asked in each turn that waited in vain and in every
//! 64th.

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

/// How long a turn may wait while a port is read that would not say that its interface was deleted.
const PATIENCE: Duration = Duration::from_secs(1);
/// After how many turns those ports are asked, though others keep the loop busy.
const TURNS: u32 = 64;

/// Ports and sockets that one thread reads.
#[derive(Debug)]
pub struct Intake {
    // Dropped before the poller, which it watches.
    ring: Option<Box<Ring>>,
    readiness: Readiness,
    silent: Silent,
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

/// The ports that must be asked whether their interface is still there.
#[derive(Debug, Default)]
struct Silent {
    ports: Vec<Token>,
    /// Turns since they were asked.
    turns: u32,
    /// Those found gone in this turn, and not told yet.
    gone: Vec<Token>,
}

impl Intake {
    /// An intake without ports. By epoll, each may give `budget` frames in a turn.
    ///
    /// # Errors
    /// What the kernel says. [`Backend::Uring`] is refused by kernels before 6.7, by `kernel.io_uring_disabled`, and by
    /// the seccomp profiles of container engines.
    pub fn new(backend: Backend, budget: usize) -> io::Result<Intake> {
        let poller = Poller::new(budget)?;
        let ring = match backend {
            Backend::Epoll => None,
            Backend::Uring => Some(Box::new(Ring::new()?)),
        };
        let readiness = Readiness { poller, taps: Vec::new(), buffer: Buffer::new(), turn: None };
        Ok(Intake { ring, readiness, silent: Silent::default() })
    }

    /// How it reads.
    pub fn backend(&self) -> Backend {
        if self.ring.is_some() { Backend::Uring } else { Backend::Epoll }
    }

    /// What interrupts [`Intake::poll`].
    pub fn waker(&self) -> Waker {
        self.readiness.poller.waker()
    }

    /// For sockets: see [`Poller::registry`].
    pub fn registry(&self) -> &Registry {
        self.readiness.poller.registry()
    }

    /// What the last [`Intake::poll`] brought for sockets.
    pub fn events(&self) -> &[Event] {
        self.readiness.poller.events()
    }

    /// Begins to read a port. Nobody else may read the device meanwhile. Call it, and all that follows, on one thread.
    ///
    /// # Errors
    /// `InvalidInput` for a token out of range, `AlreadyExists` for one in use, and what the kernel says.
    pub fn add(&mut self, token: Token, tap: Tap) -> io::Result<()> {
        if token.0 >= Poller::FIRST_FOREIGN {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the token of a port must be below 65536"));
        }
        if self.tap(token).is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the token belongs to another port"));
        }
        let ends_silently = tap.ends_silently();
        match &mut self.ring {
            Some(ring) if tap.reads_frames() => ring.add(token, tap)?,
            _ => self.readiness.add(token, tap)?,
        }
        if ends_silently {
            self.silent.ports.push(token);
        }
        Ok(())
    }

    fn tap(&self, token: Token) -> Option<&Tap> {
        let by_ring = self.ring.as_ref().and_then(|ring| ring.tap(token));
        by_ring.or_else(|| self.readiness.tap(token))
    }

    /// Ends reading a port, and lets go of its device. A token that means no port is ignored.
    pub fn remove(&mut self, token: Token) {
        if let Some(ring) = &mut self.ring {
            ring.remove(token);
        }
        self.readiness.remove(token);
        self.silent.remove(token);
    }

    /// Begins a turn: collects news, and waits for some if nothing is left to be read. `None` waits without limit.
    ///
    /// # Errors
    /// What the kernel says; a signal is no error.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = self.silent.shorten(timeout);
        match &mut self.ring {
            None => self.readiness.poller.poll(timeout)?,
            Some(ring) => ring.poll(&mut self.readiness.poller, timeout)?,
        }
        let in_vain = timeout != Some(Duration::ZERO) && !self.is_busy();
        if self.silent.is_due(in_vain) {
            let gone = |token: &Token| self.tap(*token).is_some_and(Tap::is_gone);
            self.silent.gone = self.silent.ports.iter().copied().filter(gone).collect();
        }
        Ok(())
    }

    /// Whether more may be there to read, so that the next [`Intake::poll`] will not wait.
    pub fn is_busy(&self) -> bool {
        self.readiness.poller.is_busy() || self.ring.as_ref().is_some_and(|ring| ring.is_busy())
    }

    /// What a port gave; nothing at the end of the turn.
    #[inline]
    pub fn take(&mut self) -> Option<(Token, Arrival<'_>)> {
        if let Some(ring) = &mut self.ring
            && let Some(taken) = ring.take()
        {
            return Some(taken);
        }
        if let Some(taken) = self.readiness.take() {
            return Some(taken);
        }
        // Last, so that what was read before is not lost with the port.
        let token = self.silent.gone.pop()?;
        self.silent.remove(token);
        Some((token, Arrival::Gone))
    }
}

impl Silent {
    fn remove(&mut self, token: Token) {
        self.ports.retain(|port| *port != token);
        self.gone.retain(|port| *port != token);
    }

    fn shorten(&self, timeout: Option<Duration>) -> Option<Duration> {
        if self.ports.is_empty() { timeout } else { Some(timeout.map_or(PATIENCE, |limit| limit.min(PATIENCE))) }
    }

    /// Whether it is time to ask, at the beginning of a turn that may have waited in vain.
    fn is_due(&mut self, in_vain: bool) -> bool {
        if self.ports.is_empty() {
            return false;
        }
        self.turns += 1;
        let due = in_vain || self.turns >= TURNS;
        if due {
            self.turns = 0;
        }
        due
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

    fn tap(&self, token: Token) -> Option<&Tap> {
        self.taps.get(token.0)?.as_ref()
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
