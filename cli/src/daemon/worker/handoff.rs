//! Frames that change threads: from the poll thread that read them to the one that owns the gateway.
//!
//! A poll thread gathers what is for the gateway in a [`Batch`], and puts it into the owner's mailbox at the end of its
//! turn. If the owner has not taken what is there, the batch is added to it. The owner takes all of it at once, for an
//! empty batch in return, so nothing is allocated once the batches have grown. One lock is taken for a turn that has
//! something for the gateway, never for a frame.
//!
//! What may lie there is bounded by [`ROOM`]. An owner that does not keep up costs further frames, which are dropped by
//! name; the poll thread itself never waits for it. Ports that have gone and journeys are few, and always find room.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tapswitch_link::doorbell::Ringer;
use tapswitch_network::Share;
use tapswitch_wire::{DropReason, Meta, Recorded, Verdict};

use super::Journeyed;
use super::reader::Place;
use super::trace::Seen;
use crate::daemon::command::Reply;

/// What may wait for the owner, in bytes; each frame counts for [`OVERHEAD`] more. 62 super-frames, or some 2000 small
/// frames: the owner works off all of it in one turn, and its own ports wait for so long.
const ROOM: usize = 4 << 20;
const OVERHEAD: usize = 2048;
/// A thread does not keep more than this to itself until its turn ends.
const EARLY: usize = 1 << 20;

/// Somebody wants the journey of a frame, which has come so far.
pub(super) struct Told {
    pub(super) hearer: Hearer,
    pub(super) journey: Recorded,
}

/// Who wants a journey.
pub(super) enum Hearer {
    /// Somebody who waits for just this one; the frame as it came.
    One(Reply<Journeyed>, String),
    /// Those who watch.
    Watchers(Seen),
}

/// A frame for the gateway.
pub(super) struct Handed {
    pub(super) place: Place,
    pub(super) meta: Meta,
    pub(super) share: Share,
    pub(super) told: Option<Box<Told>>,
    len: usize,
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
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.gone.is_empty() && self.told.is_empty()
    }

    /// What it counts for.
    fn weight(&self) -> usize {
        self.bytes.len() + self.frames.len() * OVERHEAD
    }

    /// Adds another one's contents behind its own, and empties that.
    fn append(&mut self, other: &mut Batch) {
        self.bytes.append(&mut other.bytes);
        self.frames.append(&mut other.frames);
        self.gone.append(&mut other.gone);
        self.told.append(&mut other.told);
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.bytes.clear();
        self.gone.clear();
        self.told.clear();
    }

    /// Each frame with its bytes.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Handed, &mut [u8])> {
        let mut rest = &mut self.bytes[..];
        self.frames.drain(..).map(move |handed| {
            // They were put in one behind the other.
            let (frame, behind) = mem::take(&mut rest).split_at_mut(handed.len);
            rest = behind;
            (handed, frame)
        })
    }
}

#[derive(Default)]
struct Mail {
    batch: Batch,
    /// The thread that puts something in has ended.
    closed: bool,
}

#[derive(Default)]
struct Mailbox {
    mail: Mutex<Mail>,
    /// What lies there counts for so much; less, if the owner takes it this moment.
    weight: AtomicUsize,
}

/// The poll thread's end.
pub(super) struct Outbox {
    mailbox: Arc<Mailbox>,
    batch: Batch,
    ringer: Ringer,
}

/// The owner's end.
pub(super) struct Inbox {
    mailbox: Arc<Mailbox>,
}

/// The thread at the other end has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Closed;

/// Both ends. `ringer` wakes the owner.
pub(super) fn channel(ringer: Ringer) -> (Outbox, Inbox) {
    let mailbox = Arc::new(Mailbox::default());
    (Outbox { mailbox: Arc::clone(&mailbox), batch: Batch::default(), ringer }, Inbox { mailbox })
}

impl Outbox {
    /// Puts a frame into the batch, and takes `told` with it.
    ///
    /// # Errors
    /// If too much waits for the owner.
    pub(super) fn push(
        &mut self,
        place: Place,
        meta: Meta,
        frame: &[u8],
        share: Share,
        told: &mut Option<Box<Told>>,
    ) -> Result<(), DropReason> {
        let weight = self.batch.weight() + frame.len() + OVERHEAD;
        if weight + self.mailbox.weight.load(Ordering::Relaxed) > ROOM {
            return Err(DropReason::GatewayBusy);
        }
        self.batch.bytes.extend_from_slice(frame);
        self.batch.frames.push(Handed { place, meta, share, told: told.take(), len: frame.len() });
        if weight > EARLY {
            self.send();
        }
        Ok(())
    }

    /// Tells of a port that has gone.
    pub(super) fn gone(&mut self, place: Place) {
        self.batch.gone.push(place);
    }

    /// Tells of a journey that ended before the gateway.
    pub(super) fn tell(&mut self, place: Place, told: Box<Told>, verdict: Verdict) {
        self.batch.told.push((place, told, verdict));
    }

    /// The end of a turn.
    pub(super) fn send(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut mail = self.mailbox.mail.lock();
        if mail.batch.is_empty() {
            mem::swap(&mut mail.batch, &mut self.batch);
        } else {
            mail.batch.append(&mut self.batch);
        }
        self.mailbox.weight.store(mail.batch.weight(), Ordering::Relaxed);
        drop(mail);
        self.ringer.ring();
    }
}

impl Drop for Outbox {
    /// The owner finds that nothing comes any more, also if this thread crashed.
    fn drop(&mut self) {
        self.mailbox.mail.lock().closed = true;
        self.ringer.ring();
    }
}

impl Inbox {
    /// Takes all that waits, for a batch that was worked off. Says whether there was anything.
    pub(super) fn take(&self, batch: &mut Batch) -> Result<bool, Closed> {
        batch.clear();
        // A burst may have made it large, and there are two of each thread.
        batch.bytes.shrink_to(EARLY);
        let mut mail = self.mailbox.mail.lock();
        mem::swap(&mut mail.batch, batch);
        self.mailbox.weight.store(0, Ordering::Relaxed);
        match batch.is_empty() {
            true if mail.closed => Err(Closed),
            empty => Ok(!empty),
        }
    }

    /// Whether something waits, or nothing will come any more.
    pub(super) fn has_news(&self) -> bool {
        let mail = self.mailbox.mail.lock();
        mail.closed || !mail.batch.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tapswitch_link::doorbell::Doorbell;
    use tapswitch_wire::{MAX_FRAME_LEN, PortId};

    use super::*;

    const PLACE: Place = Place { network: 0, port: PortId(1), serial: 1 };

    fn pair() -> (Outbox, Inbox) {
        let waker = tapswitch_link::poller::Poller::new(1).unwrap().waker();
        channel(Doorbell::new(waker).ringer())
    }

    fn push(outbox: &mut Outbox, frame: &[u8]) -> Result<(), DropReason> {
        outbox.push(PLACE, Meta::PLAIN, frame, Share::Alone, &mut None)
    }

    fn take(inbox: &Inbox) -> Vec<Vec<u8>> {
        let mut batch = Batch::default();
        inbox.take(&mut batch).unwrap();
        batch.drain().map(|(_, frame)| frame.to_vec()).collect()
    }

    #[test]
    fn frames_come_in_order_and_whole_however_many_turns_they_took() {
        let (mut outbox, inbox) = pair();
        for turn in [&[&b"first"[..], b"second"][..], &[b"third"], &[], &[b"", b"fifth"]] {
            turn.iter().for_each(|frame| push(&mut outbox, frame).unwrap());
            outbox.send();
        }
        push(&mut outbox, b"of the next turn").unwrap();
        assert_eq!(take(&inbox), [&b"first"[..], b"second", b"third", b"", b"fifth"]);
        assert!(take(&inbox).is_empty() && !inbox.has_news(), "before the end of the turn");
        outbox.send();
        assert!(inbox.has_news());
        assert_eq!(take(&inbox), [b"of the next turn"]);
    }

    #[test]
    fn many_small_turns_find_room() {
        let (mut outbox, inbox) = pair();
        for _ in 0..1900 {
            push(&mut outbox, &[0; 66]).unwrap();
            outbox.send();
        }
        assert_eq!(take(&inbox).len(), 1900);
    }

    #[test]
    fn owner_that_does_not_keep_up_costs_named_drops_and_bounded_memory() {
        for len in [60, 1514, MAX_FRAME_LEN] {
            let (mut outbox, inbox) = pair();
            let frame = vec![0; len];
            let taken = (0..100_000).take_while(|_| push(&mut outbox, &frame).is_ok()).count();
            assert!(
                taken * (len + OVERHEAD) <= ROOM && (taken + 1) * (len + OVERHEAD) > ROOM,
                "{taken} of {len} bytes"
            );
            assert_eq!(push(&mut outbox, &frame), Err(DropReason::GatewayBusy));
            outbox.gone(PLACE);
            outbox.send();
            assert_eq!(take(&inbox).len(), taken);
            assert_eq!(push(&mut outbox, &frame), Ok(()));
        }
    }

    #[test]
    fn handing_over_allocates_nothing_once_the_batches_have_grown() {
        let (mut outbox, inbox) = pair();
        let mut batch = Batch::default();
        let mut turns = |turns: usize| {
            let counted = allocation_counter::measure(|| {
                for _ in 0..turns {
                    for _ in 0..20 {
                        push(&mut outbox, &[0; 1514]).unwrap();
                    }
                    outbox.send();
                    inbox.take(&mut batch).unwrap();
                    assert_eq!(batch.drain().count(), 20);
                }
            });
            counted.count_total
        };
        assert!(turns(3) > 0, "batches grow, or nothing is counted");
        assert_eq!(turns(1_000), 0);
    }

    #[test]
    fn owner_learns_that_the_thread_has_ended_after_it_got_everything() {
        let (mut outbox, inbox) = pair();
        outbox.gone(PLACE);
        outbox.send();
        drop(outbox);
        let mut batch = Batch::default();
        assert_eq!(inbox.take(&mut batch), Ok(true));
        assert_eq!(batch.gone, [PLACE]);
        assert!(inbox.has_news());
        assert_eq!(inbox.take(&mut batch), Err(Closed));
    }
}
