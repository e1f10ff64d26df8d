//! Datagrams of containers, gathered into runs that the kernel cuts again.
//!
//! Frames come one by one, and their datagrams wait until the end of the turn. Those of one session that are of one size
//! and have one header lie one behind the other: one message to the kernel. Each run has a buffer of its own, so that
//! sessions whose datagrams alternate have runs nevertheless; the buffers are used again, and nothing is allocated for a
//! datagram. Within a session the order stays.

use crate::host::Marks;

/// Runs that wait at most; when all are taken they are sent.
pub(super) const RUNS: usize = 32;
/// What the kernel takes in one message: the payload of the largest datagram, in so many parts.
pub(super) const RUN_BYTES: usize = 65_507;
pub(super) const RUN_DATAGRAMS: usize = 64;

/// Datagrams of one session that wait.
#[derive(Default)]
struct Buffer {
    /// The session, and what tells it from others that had its place.
    session: u32,
    generation: u16,
    marks: Option<Marks>,
    size: usize,
    count: usize,
    /// Nothing can be put behind what is there.
    is_closed: bool,
    bytes: Vec<u8>,
}

/// One run that waits.
#[derive(Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub session: u32,
    pub generation: u16,
    pub marks: Marks,
    pub size: usize,
    pub count: usize,
    pub bytes: &'a [u8],
}

/// The runs that wait, in the order in which they were begun.
#[derive(Default)]
pub(super) struct Runs {
    buffers: Vec<Buffer>,
    len: usize,
}

impl Runs {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == RUNS
    }

    /// Adds a datagram, for which there is room unless [`Runs::is_full`]. One that is larger than `largest` is a run by
    /// itself: the kernel cuts no run into parts that must be cut again.
    pub(super) fn push(&mut self, session: u32, generation: u16, marks: Marks, datagram: &[u8], largest: usize) {
        let waiting = self.buffers[..self.len].iter_mut().rev();
        let latest = waiting.into_iter().find(|run| run.session == session && run.generation == generation);
        if let Some(run) = latest.filter(|run| run.takes(marks, datagram)) {
            run.bytes.extend_from_slice(datagram);
            run.count += 1;
            run.is_closed = datagram.len() < run.size || run.count == RUN_DATAGRAMS;
            return;
        }
        if self.len == self.buffers.len() {
            self.buffers.push(Buffer::default());
        }
        let run = &mut self.buffers[self.len];
        self.len += 1;
        (run.session, run.generation, run.marks) = (session, generation, Some(marks));
        (run.size, run.count) = (datagram.len(), 1);
        run.is_closed = datagram.is_empty() || datagram.len() > largest;
        run.bytes.clear();
        run.bytes.extend_from_slice(datagram);
    }

    /// The runs, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Waiting<'_>> {
        self.buffers[..self.len].iter().filter_map(|run| {
            let Buffer { session, generation, size, count, .. } = *run;
            Some(Waiting { session, generation, marks: run.marks?, size, count, bytes: &run.bytes })
        })
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}

impl Buffer {
    fn takes(&self, marks: Marks, datagram: &[u8]) -> bool {
        !self.is_closed
            && self.marks == Some(marks)
            && !datagram.is_empty()
            && datagram.len() <= self.size
            && self.bytes.len() + datagram.len() <= RUN_BYTES
    }
}
