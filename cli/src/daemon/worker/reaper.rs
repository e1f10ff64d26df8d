//! Closes the devices of ports that were removed.
//!
//! Closing a TAP takes the kernel milliseconds: it waits until no CPU looks at the device any more. A poll thread that
//! did it would leave all its ports waiting. So the last hold on a device is this thread's: it keeps one for each queue
//! until the poll threads have given up theirs, and only then lets go. Whoever asked for the removal hears of it after
//! that, so an interface of the same name can be made at once.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use tapswitch_link::tap::Tap;

use crate::daemon::command::{Refusal, Reply};

/// How often it looks whether the poll threads have given up a device, while there is one.
const LOOK: Duration = Duration::from_millis(1);
/// After so many looks in vain it lets go all the same: whoever holds the device still will close it.
const PATIENCE: usize = 2000;

struct Removed {
    queues: Vec<Tap>,
    reply: Option<Reply<Result<(), Refusal>>>,
    looks: usize,
}

/// The poll thread's end. The thread ends with it.
pub(super) struct Reaper {
    removed: Sender<Removed>,
}

impl Reaper {
    /// Starts the thread.
    pub(super) fn start() -> std::io::Result<Reaper> {
        // As many as there are ports, and usually none.
        let (removed, jobs) = unbounded();
        std::thread::Builder::new().name("reaper".into()).spawn(move || run(&jobs))?;
        Ok(Reaper { removed })
    }

    /// Closes the queues of a port, and then tells whoever wants to know.
    pub(super) fn close(&self, queues: Vec<Tap>, reply: Option<Reply<Result<(), Refusal>>>) {
        // Without the thread, which nothing ends but this, the device is closed here.
        let _ = self.removed.send(Removed { queues, reply, looks: 0 });
    }
}

fn run(jobs: &Receiver<Removed>) {
    let mut waiting: Vec<Removed> = Vec::new();
    loop {
        let job = if waiting.is_empty() {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(LOOK)
        };
        match job {
            Ok(removed) => waiting.push(removed),
            Err(RecvTimeoutError::Timeout) => waiting.iter_mut().for_each(|removed| removed.looks += 1),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for removed in
            waiting.extract_if(.., |removed| removed.looks > PATIENCE || !removed.queues.iter().any(Tap::is_shared))
        {
            drop(removed.queues);
            if let Some(reply) = removed.reply {
                // Who asked may have gone away.
                let _ = reply.send(Ok(()));
            }
        }
    }
}
