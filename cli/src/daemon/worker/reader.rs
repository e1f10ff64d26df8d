//! What a poll thread reads: its intake, and which port each token means.

use std::io;
use std::time::Duration;

use mio::Registry;
use tapswitch_link::Port;
use tapswitch_link::intake::{Arrival, Backend, Intake};
use tapswitch_link::poller::{Event, Token, Waker};
use tapswitch_link::tap::Tap;
use tapswitch_wire::coalesce::Coalescer;
use tapswitch_wire::{DropReason, Meta, PortId};

/// A port of one network of the daemon. The serial number is never used again, so that what was said of a port that has
/// gone is not taken for its successor's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) network: usize,
    pub(super) port: PortId,
    pub(super) serial: u64,
}

/// Where the frames of a turn go.
pub(super) trait Sink {
    /// A frame of a container.
    fn frame(&mut self, place: Place, meta: Meta, frame: &mut [u8]);
    /// A frame that could not be read.
    fn bad(&mut self, place: Place, reason: DropReason);
    /// The port will give nothing any more.
    fn gone(&mut self, place: Place);
}

#[derive(Clone, Copy)]
struct Entry {
    place: Place,
    /// Its small segments are put together, because its kernel could not leave them whole.
    coalesce: bool,
}

/// What a turn read.
#[derive(Clone, Copy, Default)]
pub(super) struct Served {
    /// Frames, and what could not be read as one.
    pub(super) frames: usize,
    /// The frames' bytes.
    pub(super) bytes: usize,
}

pub(super) struct Reader {
    intake: Intake,
    tokens: Vec<Option<Entry>>,
    coalescer: Coalescer,
}

impl Reader {
    pub(super) fn new(intake: Intake) -> Reader {
        Reader { intake, tokens: Vec::new(), coalescer: Coalescer::new() }
    }

    /// How it reads.
    pub(super) fn backend(&self) -> Backend {
        self.intake.backend()
    }

    pub(super) fn waker(&self) -> Waker {
        self.intake.waker()
    }

    pub(super) fn registry(&self) -> &Registry {
        self.intake.registry()
    }

    pub(super) fn events(&self) -> &[Event] {
        self.intake.events()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.intake.is_busy()
    }

    pub(super) fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.intake.poll(timeout)
    }

    /// Begins to read a port, or one queue of it.
    pub(super) fn add(&mut self, place: Place, tap: Tap) -> io::Result<()> {
        let at = self.tokens.iter().position(Option::is_none).unwrap_or(self.tokens.len());
        let coalesce = !tap.offload();
        self.intake.add(Token(at), tap)?;
        if at == self.tokens.len() {
            self.tokens.push(None);
        }
        self.tokens[at] = Some(Entry { place, coalesce });
        Ok(())
    }

    /// Ends reading a port, if this thread reads it.
    pub(super) fn remove(&mut self, place: Place) {
        for (at, entry) in self.tokens.iter_mut().enumerate() {
            if entry.take_if(|entry| entry.place == place).is_some() {
                self.intake.remove(Token(at));
            }
        }
    }

    /// Reads what this turn has, and gives it to `sink`. Returns how much there was; `None` if there was nothing.
    pub(super) fn serve(&mut self, sink: &mut impl Sink) -> Option<Served> {
        let mut served = Served::default();
        // Segments are held back only while more frames of the same port follow.
        let mut held: Option<Place> = None;
        while let Some((token, arrival)) = self.intake.take() {
            served.frames += 1;
            if let Arrival::Frame(_, frame) = &arrival {
                served.bytes += frame.len();
            }
            let Some(Some(Entry { place, coalesce })) = self.tokens.get(token.0).copied() else { continue };
            let joins = coalesce && matches!(arrival, Arrival::Frame(..));
            if let Some(before) = held.take_if(|before| !joins || *before != place) {
                self.coalescer.flush(&mut |meta, frame| sink.frame(before, meta, frame));
            }
            match arrival {
                Arrival::Frame(meta, frame) if joins => {
                    held = Some(place);
                    self.coalescer.push(meta, frame, &mut |meta, frame| sink.frame(place, meta, frame));
                }
                Arrival::Frame(meta, frame) => sink.frame(place, meta, frame),
                Arrival::Bad(reason) => sink.bad(place, reason),
                Arrival::Gone => sink.gone(place),
            }
        }
        if let Some(place) = held {
            self.coalescer.flush(&mut |meta, frame| sink.frame(place, meta, frame));
        }
        (served.frames > 0).then_some(served)
    }
}
