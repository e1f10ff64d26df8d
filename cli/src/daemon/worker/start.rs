//! How the poll threads come to be.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::bounded;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tapswitch_link::doorbell::Doorbell;
use tapswitch_link::intake::{Backend, Intake};

use super::clock::Clock;
use super::handoff::{Batch, channel};
use super::lan::Lan;
use super::lane::{Engine, Lane, Part};
use super::metrics::Load;
use super::pace::Pace;
use super::reader::Reader;
use super::reaper::Reaper;
use super::samples::Rates;
use super::taps::Capturing;
use super::trace::Tracing;
use super::{BUDGET, COMMANDS, NETWORK_SHIFT, Worker, limits, uplinks};
use crate::config::NetworkPlan;
use crate::daemon::control::Control;
use crate::daemon::{Io, Options};

/// Starts the poll threads.
///
/// # Errors
/// What could not be set up, for people: a lease file that cannot be written, a capture file that cannot be made.
pub fn spawn(plans: Vec<NetworkPlan>, options: &Options) -> Result<(Control, JoinHandle<()>), String> {
    let reader = Reader::new(open_intake(options.io)?);
    let waker = reader.waker();
    let (tx, commands) = bounded(COMMANDS);
    // A wake-up that fails is one that is already under way.
    let control = Control::new(tx, Arc::new(move || drop(waker.wake())));

    let clock = Clock::new();
    let capture = options.capture.as_ref().map(|path| Capturing::create(path, clock.epoch())).transpose()?;
    let limits = limits::flows(plans.len(), options.queues, options.workers);
    let subnets: Vec<_> = plans.iter().map(|plan| plan.subnet).collect();
    let peers: Vec<_> = plans.iter().map(|plan| uplinks::peers(plan, &plans)).collect();
    let tracing = Arc::new(Tracing::new(plans.iter().map(|plan| plan.name.clone()), clock.epoch()));
    let mut networks = Vec::new();
    for ((index, plan), peers) in plans.into_iter().enumerate().zip(peers) {
        let registry = reader.registry().try_clone().map_err(|e| format!("cannot share the poller: {e}"))?;
        let token_bits = (index as u64 + 1) << NETWORK_SHIFT;
        let capture = capture.clone();
        let lan = Lan::new(index, plan, &subnets, peers, limits, registry, token_bits, capture, &tracing, &clock)?;
        networks.push(lan);
    }
    let doorbell = Doorbell::new(reader.waker());
    let threads = options.workers.max(1);
    let lanes = (1..threads)
        .map(|at| start_lane(at, options, reader.backend(), clock, &networks, &doorbell))
        .collect::<Result<Vec<_>, _>>()?;
    let mut worker = Worker {
        lanes,
        reader,
        reaper: Reaper::start().map_err(cannot_start)?,
        commands,
        doorbell,
        clock,
        pace: Pace::new(options.poll, options.spin, threads),
        options: options.clone(),
        networks,
        listeners: Vec::new(),
        tracing,
        gone: Vec::new(),
        batch: Batch::default(),
        loads: vec![0; threads],
        serial: 0,
        turn_count: 0,
        sleeps: 0,
        load: Load::default(),
        rates: Rates::default(),
    };
    let pin = pinning(options, 0);
    let thread = std::thread::Builder::new()
        .name("poll".into())
        .spawn(move || {
            pin();
            worker.run();
        })
        .map_err(cannot_start)?;
    Ok((control, thread))
}

fn start_lane(
    at: usize,
    options: &Options,
    backend: Backend,
    clock: Clock,
    networks: &[Lan],
    doorbell: &Doorbell,
) -> Result<Lane, String> {
    // What the first thread could have, a further one may be refused for want of memory or descriptors.
    let intake = Intake::new(backend, BUDGET).or_else(|_| Intake::new(Backend::Epoll, BUDGET)).map_err(cannot_poll)?;
    let (outbox, inbox) = channel(doorbell.ringer());
    let pace = Pace::new(options.poll, options.spin, options.workers);
    let engine = Engine { reader: Reader::new(intake), outbox, pace, clock };
    let parts = networks.iter().map(|lan| Part { forwarder: lan.network.forwarder(), taps: lan.taps.another() });
    let parts = parts.collect();
    Lane::start(&format!("poll{at}"), parts, engine, inbox, pinning(options, at)).map_err(cannot_start)
}

fn cannot_start(error: std::io::Error) -> String {
    format!("cannot start a thread: {error}; raise the limit (ulimit -u)")
}

fn cannot_poll(error: std::io::Error) -> String {
    format!("cannot make a poller: {error}; raise the limit (ulimit -n)")
}

/// Opens what the first thread reads by; the others do as it does.
fn open_intake(io: Io) -> Result<Intake, String> {
    let uring = match io {
        // Measured: docs/performance.md.
        Io::Auto | Io::Epoll => None,
        Io::Uring => Some(Intake::new(Backend::Uring, BUDGET)),
    };
    match uring {
        Some(Ok(intake)) => return Ok(intake),
        Some(Err(error)) => tracing::warn!("io_uring cannot be used here ({error}), so frames are read by epoll"),
        None => {}
    }
    Intake::new(Backend::Epoll, BUDGET).map_err(cannot_poll)
}

/// Keeps a thread on its CPU, if it was given one.
fn pinning(options: &Options, at: usize) -> impl FnOnce() + Send + 'static {
    let cpu = options.cpus.get(at).copied();
    move || {
        let Some(cpu) = cpu else { return };
        let mut set = CpuSet::new();
        if let Err(error) = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) {
            tracing::warn!("cannot keep poll thread {at} on CPU {cpu}: {error}; it runs where the kernel lets it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix::libc;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use super::*;

    /// As the profiles of container engines do.
    fn refuse_io_uring() {
        let rules = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
        let eperm = SeccompAction::Errno(libc::EPERM as u32);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    }

    #[test]
    fn where_a_seccomp_profile_refuses_io_uring_epoll_reads() {
        // The filter is the thread's, and ends with it.
        let thread = std::thread::spawn(|| {
            refuse_io_uring();
            let refused = Intake::new(Backend::Uring, 1).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
            open_intake(Io::Uring).unwrap()
        });
        assert_eq!(thread.join().unwrap().backend(), Backend::Epoll);
    }
}
