//! A cable in memory: what goes in at one end comes out at the other.
//!
//! For tests and labs. Each direction holds a fixed number of frames; one more is refused with `TxFull`, as by a TAP.
//! An end that is dropped unplugs the cable: the other reads what is still on it, then sees `Gone`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tapswitch_wire::{DropReason, Meta};

use crate::port::tx_plain;
use crate::{Buffer, Port, Rx};

/// One direction of the cable.
#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<(Meta, Vec<u8>)>,
    /// Buffers of frames that were read, to be filled again.
    spare: Vec<Vec<u8>>,
    unplugged: bool,
}

/// One end of a cable.
#[derive(Debug)]
pub struct Cable {
    incoming: Arc<Mutex<Lane>>,
    outgoing: Arc<Mutex<Lane>>,
    capacity: usize,
    offload: bool,
    scratch: Vec<u8>,
}

/// A cable whose directions hold `capacity` frames each, and over which super-frames pass whole if `offload`.
pub fn cable(capacity: usize, offload: bool) -> (Cable, Cable) {
    let (there, back) = <(Arc<Mutex<Lane>>, Arc<Mutex<Lane>>)>::default();
    let end = |incoming: &Arc<Mutex<Lane>>, outgoing: &Arc<Mutex<Lane>>| Cable {
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        capacity,
        offload,
        scratch: Vec::new(),
    };
    (end(&there, &back), end(&back, &there))
}

/// A lane is consistent between any two statements, so one whose user panicked is still good.
fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cable {
    /// How many frames wait to be read at this end.
    pub fn waiting(&self) -> usize {
        lock(&self.incoming).frames.len()
    }

    fn push(&self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        let mut lane = lock(&self.outgoing);
        if lane.unplugged {
            return Err(DropReason::PortDown);
        }
        if lane.frames.len() >= self.capacity {
            return Err(DropReason::TxFull);
        }
        let mut bytes = lane.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(frame);
        lane.frames.push_back((*meta, bytes));
        Ok(())
    }
}

impl Port for Cable {
    fn rx(&mut self, buffer: &mut Buffer) -> Rx {
        let mut lane = lock(&self.incoming);
        let Some((meta, frame)) = lane.frames.pop_front() else {
            return if lane.unplugged { Rx::Gone } else { Rx::WouldBlock };
        };
        let outcome = buffer.put(meta, &frame);
        lane.spare.push(frame);
        outcome
    }

    fn tx(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        if self.offload {
            return self.push(meta, frame);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let sent = tx_plain(meta, frame, &mut scratch, |segment| self.push(&Meta::PLAIN, segment));
        self.scratch = scratch;
        sent
    }

    fn offload(&self) -> bool {
        self.offload
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        lock(&self.incoming).unplugged = true;
        lock(&self.outgoing).unplugged = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plain_frame, super_frame};

    #[test]
    fn frames_arrive_whole_and_in_order_and_a_full_cable_refuses_the_next() {
        let (mut a, mut b) = cable(2, true);
        let mut buffer = Buffer::new();
        assert_eq!(b.rx(&mut buffer), Rx::WouldBlock);
        let (meta, first) = super_frame(4000, 1000);
        let second = plain_frame(5);
        a.tx(&meta, &first).unwrap();
        a.tx(&Meta::PLAIN, &second).unwrap();
        assert_eq!(a.tx(&Meta::PLAIN, &second), Err(DropReason::TxFull));
        assert_eq!(b.waiting(), 2);
        assert_eq!(b.rx(&mut buffer), Rx::Frame(meta, first.len()));
        assert_eq!(buffer.frame(first.len()), &first[..]);
        assert_eq!(b.rx(&mut buffer), Rx::Frame(Meta::PLAIN, second.len()));
        a.tx(&Meta::PLAIN, &second).unwrap();
    }

    #[test]
    fn cable_without_offload_carries_segments_with_complete_checksums() {
        let (mut a, mut b) = cable(8, false);
        let (meta, frame) = super_frame(2500, 1000);
        a.tx(&meta, &frame).unwrap();
        assert_eq!(b.waiting(), 3);
        let mut buffer = Buffer::new();
        assert!(matches!(b.rx(&mut buffer), Rx::Frame(Meta::PLAIN, 1054)), "headers of 54 bytes and 1000 of payload");
    }

    #[test]
    fn unplugged_cable_gives_what_is_left_and_then_is_gone() {
        let (mut a, mut b) = cable(2, true);
        let frame = plain_frame(1);
        a.tx(&Meta::PLAIN, &frame).unwrap();
        drop(a);
        let mut buffer = Buffer::new();
        assert!(matches!(b.rx(&mut buffer), Rx::Frame(..)));
        assert_eq!(b.rx(&mut buffer), Rx::Gone);
        assert_eq!(b.tx(&Meta::PLAIN, &frame), Err(DropReason::PortDown));
    }
}
