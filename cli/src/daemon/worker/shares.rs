//! Which poll thread reads which queue of a port, and by which it writes.
//!
//! The kernel sends a flow's frames by the queue through which the frames of its other direction came. So a thread
//! writes to the queue that it reads itself, if there is one: the flow then stays on one thread both ways.

/// How the queues of one port are shared out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    threads: usize,
    queues: usize,
    /// Reads the first queue.
    first: usize,
}

impl Shares {
    /// For a port of so many queues, of threads that read so many each. The idlest begins.
    pub(super) fn new(loads: &[usize], queues: usize) -> Shares {
        let first = (0..loads.len()).min_by_key(|thread| loads[*thread]).unwrap_or(0);
        Shares { threads: loads.len().max(1), queues: queues.max(1), first }
    }

    /// The thread that reads a queue.
    pub(super) fn reader(self, queue: usize) -> usize {
        (self.first + queue) % self.threads
    }

    /// The queues that a thread reads.
    pub(super) fn read_by(self, thread: usize) -> impl Iterator<Item = usize> {
        (0..self.queues).filter(move |queue| self.reader(*queue) == thread)
    }

    /// The queue that a thread writes to.
    pub(super) fn written_by(self, thread: usize) -> usize {
        (thread + self.threads - self.first) % self.threads % self.queues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_one_reader_and_a_reader_writes_to_its_own() {
        for loads in [&[0][..], &[3, 1], &[0, 0, 0], &[5, 4, 0, 1]] {
            for queues in 1..6 {
                let shares = Shares::new(loads, queues);
                let read: Vec<_> = (0..loads.len()).flat_map(|thread| shares.read_by(thread)).collect();
                let mut sorted = read.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..queues).collect::<Vec<_>>(), "{loads:?}, {queues} queues");
                for thread in 0..loads.len() {
                    let own: Vec<_> = shares.read_by(thread).collect();
                    assert!(shares.written_by(thread) < queues);
                    assert!(own.is_empty() || own.contains(&shares.written_by(thread)), "{loads:?}, {queues} queues");
                }
            }
        }
        assert_eq!(Shares::new(&[2, 0, 1], 1).reader(0), 1, "the idlest thread begins");
    }
}
