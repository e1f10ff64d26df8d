//! The control thread's way to the poll thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;

use super::command::{Command, Reply};

/// How long to wait before a full channel is tried again. The poll thread empties it once a turn.
const RETRY: Duration = Duration::from_millis(1);

/// The poll thread does not run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the switch has stopped, so the daemon cannot do this; see its log, and start it again with `tapswitch up`")]
pub struct Gone;

/// Sends commands to the poll thread: a bounded channel, and a way to wake that thread when it sleeps.
#[derive(Clone)]
pub struct Control {
    tx: Sender<Command>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("queued", &self.tx.len()).finish_non_exhaustive()
    }
}

impl Control {
    /// Commands go into `tx`; `wake` is called after each, and must end the poll thread's sleep or prevent its next one.
    pub fn new(tx: Sender<Command>, wake: Arc<dyn Fn() + Send + Sync>) -> Control {
        Control { tx, wake }
    }

    /// Sends the command that `make` builds around a place for its answer, and waits for the answer.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.tell(make(reply)).await?;
        answer.await.map_err(|_| Gone)
    }

    /// Sends a command that has no answer. Waits, without blocking the thread, while the channel is full.
    pub async fn tell(&self, mut command: Command) -> Result<(), Gone> {
        loop {
            match self.tx.try_send(command) {
                Ok(()) => {
                    (self.wake)();
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => return Err(Gone),
                Err(TrySendError::Full(back)) => command = back,
            }
            (self.wake)();
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Ends the poll thread. Blocks while the channel is full; does nothing if that thread has ended already.
    pub fn stop(&self) {
        (self.wake)();
        if self.tx.send(Command::Stop).is_ok() {
            (self.wake)();
        }
    }
}
