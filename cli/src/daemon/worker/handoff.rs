//! Frames that change threads: from the poll thread that read them to the one that owns the gateway.
//!
//! A poll thread gathers what is for the gateway in a [`Batch`] and sends it at the end of its turn, or earlier if it is
//! full. Batches go round: the owner gives each back when it has worked it off, so nothing is allocated once they have
//! grown. When all of them are under way the owner does not keep up, and further frames are dropped by name; the poll
//! thread itself never waits.

use std::ops::Range;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use tapswitch_link::doorbell::Ringer;
use tapswitch_network::Share;
use tapswitch_wire::{DropReason, MAX_FRAME_LEN, Meta, Recorded, Verdict};

use super::Journeyed;
use super::reader::Place;
use crate::daemon::command::Reply;

/// Batches of one poll thread.
const BATCHES: usize = 4;
/// A batch is sent when it has so many frames, or so many bytes that another super-frame may not fit.
const FRAMES: usize = 256;
const BYTES: usize = 1 << 20;

/// Somebody waits for the journey of a frame, which has come so far.
pub(super) struct Told {
    pub(super) reply: Reply<Journeyed>,
    /// The frame as it came.
    pub(super) line: String,
    pub(super) journey: Recorded,
}

/// A frame for the gateway.
pub(super) struct Handed {
    pub(super) place: Place,
    pub(super) meta: Meta,
    pub(super) share: Share,
    pub(super) told: Option<Box<Told>>,
    range: Range<usize>,
}

/// Frames of one turn.
#[derive(Default)]
pub(super) struct Batch {
    frames: Vec<Handed>,
    bytes: Vec<u8>,
    /// Ports that have gone.
    pub(super) gone: Vec<Place>,
    /// Journeys that ended before the gateway.
    pub(super) told: Vec<(Place, Box<Told>, Verdict)>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.frames.len() >= FRAMES || self.bytes.len() > BYTES - MAX_FRAME_LEN
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.gone.is_empty() && self.told.is_empty()
    }

    /// Each frame with its bytes.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Handed, &mut [u8])> {
        let mut rest = &mut self.bytes[..];
        self.frames.drain(..).map(move |handed| {
            // They were put in one behind the other.
            let (frame, behind) = std::mem::take(&mut rest).split_at_mut(handed.range.len());
            rest = behind;
            (handed, frame)
        })
    }
}

/// The poll thread's end.
pub(super) struct Outbox {
    out: Sender<Batch>,
    back: Receiver<Batch>,
    batch: Option<Batch>,
    ringer: Ringer,
}

/// The owner's end.
pub(super) struct Inbox {
    batches: Receiver<Batch>,
    back: Sender<Batch>,
}

/// Both ends. `ringer` wakes the owner.
pub(super) fn channel(ringer: Ringer) -> (Outbox, Inbox) {
    let (out, batches) = bounded(BATCHES);
    let (back, free) = bounded(BATCHES);
    for _ in 0..BATCHES {
        // There is room for all of them.
        let _ = back.try_send(Batch::default());
    }
    (Outbox { out, back: free, batch: None, ringer }, Inbox { batches, back })
}

impl Outbox {
    /// Puts a frame into the batch.
    ///
    /// # Errors
    /// If all batches are under way.
    pub(super) fn push(
        &mut self,
        place: Place,
        meta: Meta,
        frame: &[u8],
        share: Share,
        told: Option<Box<Told>>,
    ) -> Result<(), DropReason> {
        let batch = self.open().ok_or(DropReason::GatewayBusy)?;
        let start = batch.bytes.len();
        batch.bytes.extend_from_slice(frame);
        batch.frames.push(Handed { place, meta, share, told, range: start..batch.bytes.len() });
        if batch.is_full() {
            self.send();
        }
        Ok(())
    }

    /// Tells of a port that has gone. If it cannot be told now it must be told again.
    pub(super) fn gone(&mut self, place: Place) -> bool {
        self.open().map(|batch| batch.gone.push(place)).is_some()
    }

    /// Tells of a journey that ended before the gateway. If it cannot be told, who listens is told that there is none.
    pub(super) fn tell(&mut self, place: Place, told: Box<Told>, verdict: Verdict) {
        if let Some(batch) = self.open() {
            batch.told.push((place, told, verdict));
        }
    }

    /// The end of a turn.
    pub(super) fn send(&mut self) {
        if let Some(batch) = self.batch.take_if(|batch| !batch.is_empty()) {
            // There are no more batches than places. If the owner has ended, so will this thread.
            let _ = self.out.try_send(batch);
            self.ringer.ring();
        }
    }

    fn open(&mut self) -> Option<&mut Batch> {
        if self.batch.is_none() {
            self.batch = self.back.try_recv().ok();
        }
        self.batch.as_mut()
    }
}

impl Drop for Outbox {
    /// The owner finds that nothing comes any more, also if this thread crashed.
    fn drop(&mut self) {
        let (closed, _) = bounded(0);
        self.out = closed;
        self.ringer.ring();
    }
}

impl Inbox {
    /// Whether a batch waits.
    pub(super) fn has_news(&self) -> bool {
        !self.batches.is_empty()
    }

    /// The next batch.
    pub(super) fn take(&self) -> Result<Batch, TryRecvError> {
        self.batches.try_recv()
    }

    /// Gives a batch back that was worked off.
    pub(super) fn give_back(&self, mut batch: Batch) {
        batch.frames.clear();
        batch.bytes.clear();
        batch.gone.clear();
        batch.told.clear();
        // There is a place for each.
        let _ = self.back.try_send(batch);
    }
}

#[cfg(test)]
mod tests {
    use tapswitch_link::doorbell::Doorbell;
    use tapswitch_wire::PortId;

    use super::*;

    const PLACE: Place = Place { network: 0, port: PortId(1), serial: 1 };

    fn pair() -> (Outbox, Inbox) {
        let waker = tapswitch_link::poller::Poller::new(1).unwrap().waker();
        channel(Doorbell::new(waker).ringer())
    }

    fn push(outbox: &mut Outbox, frame: &[u8]) -> Result<(), DropReason> {
        outbox.push(PLACE, Meta::PLAIN, frame, Share::Alone, None)
    }

    #[test]
    fn frames_come_in_order_and_whole() {
        let (mut outbox, inbox) = pair();
        for frame in [&b"first"[..], b"second", b"third"] {
            push(&mut outbox, frame).unwrap();
        }
        assert!(inbox.take().is_err(), "before the end of the turn");
        outbox.send();
        let mut batch = inbox.take().unwrap();
        let frames: Vec<_> = batch.drain().map(|(_, frame)| frame.to_vec()).collect();
        assert_eq!(frames, [&b"first"[..], b"second", b"third"]);
    }

    #[test]
    fn owner_that_does_not_keep_up_costs_named_drops_and_no_waiting() {
        let (mut outbox, inbox) = pair();
        let frame = [0; 1500];
        let taken = (0..10_000).take_while(|_| push(&mut outbox, &frame).is_ok()).count();
        assert_eq!(taken, BATCHES * FRAMES);
        assert_eq!(push(&mut outbox, &frame), Err(DropReason::GatewayBusy));
        assert!(!outbox.gone(PLACE));
        inbox.give_back(inbox.take().unwrap());
        assert_eq!(push(&mut outbox, &frame), Ok(()));
        assert!(outbox.gone(PLACE));
    }

    #[test]
    fn batch_of_super_frames_stays_within_its_bytes() {
        let (mut outbox, inbox) = pair();
        let frame = vec![0; MAX_FRAME_LEN];
        while push(&mut outbox, &frame).is_ok() {}
        while let Ok(batch) = inbox.take() {
            assert!(batch.bytes.len() <= BYTES && batch.bytes.len() > BYTES / 2);
        }
    }
}
