//! The daemon: poll threads, of which the first owns the networks, and a control thread that serves the API.
//!
//! # Life cycle
//!
//! [`Daemon::start`] binds the control socket first, so that a second daemon fails before it touches a lease file, then
//! starts the poll threads, then the control thread. [`Daemon::stop`] (also on drop) goes the other way: no more requests,
//! then no more frames, then the socket's file is removed. One more thread only waits for the first poll
//! thread, so that one which ends by itself is noticed ([`Daemon::ended`]) without anybody looking at it again and again;
//! and the first ends if another does.

mod command;
mod control;
mod events;
mod explain;
mod handover;
mod journey;
mod metrics;
mod server;
mod socket;
mod trace;
pub mod worker;

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::config::NetworkPlan;
use crate::error::Error;

pub use command::{Command, Refusal, Reply};
pub use control::{Control, Gone};
use socket::ControlSocket;
pub use socket::path as socket_path;

/// Connections of this process that the control thread has not taken up yet.
const OWN_CONNECTIONS: usize = 16;

/// How a daemon is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where it listens; none for a switch that only this process commands.
    pub socket: Option<PathBuf>,
    /// File (pcapng) that every frame to a container is recorded in.
    pub capture: Option<PathBuf>,
    /// How many poll threads there are; 0 counts as 1.
    pub workers: usize,
    /// The CPUs that they are kept on, in order; a thread without one runs where the kernel lets it.
    pub cpus: Vec<usize>,
    /// How many queues a container's interface has; 0 counts as 1.
    pub queues: usize,
    /// How frames are read.
    pub io: Io,
    /// What a poll thread does when nothing is there.
    pub poll: PollPolicy,
    /// How long [`PollPolicy::Adaptive`] looks again; none for what suits the machine.
    pub spin: Option<Duration>,
}

/// How frames are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Io {
    /// As was measured to be best.
    #[default]
    Auto,
    /// Readiness by epoll, and one read for each frame.
    Epoll,
    /// Multishot reads by io_uring; by epoll where io_uring cannot be used.
    Uring,
}

/// What a poll thread does when nothing is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PollPolicy {
    /// Look again for a short while after the last frame, then sleep.
    #[default]
    Adaptive,
    /// Look again always: the lowest latency, for a CPU of its own.
    Busy,
    /// Sleep at once: the least CPU.
    Sleep,
}

impl PollPolicy {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            PollPolicy::Adaptive => "adaptive",
            PollPolicy::Busy => "busy",
            PollPolicy::Sleep => "sleep",
        }
    }
}

/// A running daemon. It stops when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    control: Control,
    connections: mpsc::Sender<UnixStream>,
    stop_control: Option<oneshot::Sender<Infallible>>,
    control_thread: Option<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<Error>,
    socket: Option<ControlSocket>,
}

impl Daemon {
    /// Starts the networks and the control API. When it returns, the socket accepts connections.
    pub fn start(plans: Vec<NetworkPlan>, options: Options) -> Result<Daemon, Error> {
        let socket = options.socket.as_deref().map(ControlSocket::bind).transpose()?;
        let (control, worker) = worker::spawn(plans, &options).map_err(Error::Failed)?;
        Daemon::with_worker(control, worker, socket)
    }

    fn with_worker(control: Control, worker: JoinHandle<()>, socket: Option<ControlSocket>) -> Result<Daemon, Error> {
        let (end, ended) = oneshot::channel();
        let (connections, incoming) = mpsc::channel(OWN_CONNECTIONS);
        let watcher = spawn("watch", move || {
            let how = if worker.join().is_ok() { "ended by itself" } else { "crashed" };
            // Nobody listens when the daemon is being stopped.
            let _ = end.send(Error::failed(format!("the switch {how}; see the messages above, and start it again")));
        })?;
        // From here on, whatever fails drops the daemon, which stops what runs.
        let mut daemon = Daemon {
            control: control.clone(),
            connections,
            stop_control: None,
            control_thread: None,
            watcher: Some(watcher),
            ended,
            socket,
        };
        daemon.start_control(control, incoming)?;
        Ok(daemon)
    }

    fn start_control(&mut self, control: Control, incoming: mpsc::Receiver<UnixStream>) -> Result<(), Error> {
        let failed = |error: io::Error| Error::failed(format!("cannot start the control thread: {error}; try again"));
        let listener = self.socket.as_ref().map(ControlSocket::listener).transpose().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listener = {
            let _inside = runtime.enter();
            listener.map(UnixListener::from_std).transpose().map_err(failed)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = spawn("control", move || {
            runtime.block_on(async {
                tokio::select! {
                    () = server::serve(control, listener, incoming) => {}
                    _ = stopped => {}
                }
            });
        })?;
        self.stop_control = Some(stop);
        self.control_thread = Some(thread);
        Ok(())
    }

    /// A connection to the control API from within this process, as if it came over the socket.
    pub fn connect(&self) -> Result<UnixStream, Error> {
        let failed = |why: &dyn std::fmt::Display| {
            Error::failed(format!("cannot connect to the switch of this process: {why}; try again"))
        };
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed(&error))?;
        theirs.set_nonblocking(true).map_err(|error| failed(&error))?;
        self.connections.try_send(theirs).map_err(|error| failed(&error))?;
        Ok(ours)
    }

    /// Where it listens.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(ControlSocket::path)
    }

    /// Waits until the poll thread ends although nobody stopped it, and says how it did. May be asked once.
    pub async fn ended(&mut self) -> Error {
        match (&mut self.ended).await {
            Ok(error) => error,
            Err(gone) => Error::failed(format!("the switch has ended: {gone}")),
        }
    }

    /// Stops it and waits until it has stopped.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop_control = None;
        join(self.control_thread.take());
        self.control.stop();
        join(self.watcher.take());
        self.socket = None;
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.join().is_err()
    {
        tracing::error!("a thread of the daemon crashed; please report this");
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|error| Error::failed(format!("cannot start a thread ({name}): {error}; raise the limit (ulimit -u)")))
}

#[cfg(test)]
mod tests;
