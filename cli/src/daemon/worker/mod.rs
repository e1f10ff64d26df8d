//! The poll thread: it owns the networks, their TAPs and their sockets, and runs the loop.
//!
//! # A turn of the loop
//!
//! 1. Wait until a TAP or a socket has news, a timer is due, or the control thread wakes it. If something is still to be
//!    done, do not wait.
//! 2. Read the clock, once.
//! 3. Carry out commands.
//! 4. Tell the networks what their sockets became ready for.
//! 5. Serve the ready ports in turns, each up to its budget, every frame to its end.
//! 6. Let the networks send what they owe, and let timers end.
//!
//! Nothing else reads a clock or a descriptor. A container that dies takes its TAP with it; reading says so, and the port
//! is removed.

mod clock;
mod commands;
mod journal;
mod lan;
mod limits;
mod pace;
mod taps;
mod views;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use tapswitch_link::poller::{Poller, Token};
use tapswitch_link::{Buffer, Rx};
use tapswitch_relay::{FlowId, Readiness};
use tapswitch_wire::{Instant, PortId, Recorded, Unheard, render};
use tokio::sync::oneshot;

use super::Options;
use super::command::{Command, Refusal};
use super::control::Control;
use crate::api::JourneyView;
use crate::config::NetworkPlan;
use clock::Clock;
use lan::Lan;
use pace::Pace;
use taps::Capturing;

/// Frames that one port may send in one turn before the others get theirs.
const BUDGET: usize = 64;
/// Commands that may wait for the poll thread, and how many it takes in one turn.
const COMMANDS: usize = 64;
/// Journeys that may be waited for at a time.
const MAX_LISTENERS: usize = 16;
/// Flow numbers take the lower bits of a token; the network's place stands above, from 1 on.
const NETWORK_SHIFT: u32 = 48;

/// Starts the poll thread.
///
/// # Errors
/// What could not be set up, for people: a lease file that cannot be written, a capture file that cannot be made.
pub fn spawn(plans: Vec<NetworkPlan>, options: &Options) -> Result<(Control, JoinHandle<()>), String> {
    let poller = Poller::new(BUDGET).map_err(|e| format!("cannot make a poller: {e}; raise the limit (ulimit -n)"))?;
    let waker = poller.waker();
    let (tx, commands) = bounded(COMMANDS);
    // A wake-up that fails is one that is already under way.
    let control = Control::new(tx, Arc::new(move || drop(waker.wake())));
    let mut worker = Worker::new(plans, options, poller, commands)?;
    let thread = std::thread::Builder::new()
        .name("poll".into())
        .spawn(move || worker.run())
        .map_err(|e| format!("cannot start the poll thread: {e}; raise the limit (ulimit -u)"))?;
    Ok((control, thread))
}

/// Somebody waits for the journey of a frame.
struct Listener {
    network: usize,
    port: PortId,
    proto: Option<String>,
    reply: oneshot::Sender<Result<JourneyView, Refusal>>,
}

struct Worker {
    poller: Poller,
    commands: Receiver<Command>,
    clock: Clock,
    pace: Pace,
    networks: Vec<Lan>,
    /// Which port a token of the poller means.
    tokens: Vec<Option<(usize, PortId)>>,
    listeners: Vec<Listener>,
    buffer: Buffer,
    turns: u64,
    sleeps: u64,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    On,
    Stop,
}

impl Worker {
    fn new(
        plans: Vec<NetworkPlan>,
        options: &Options,
        poller: Poller,
        commands: Receiver<Command>,
    ) -> Result<Worker, String> {
        let clock = Clock::new();
        let capture = options.capture.as_ref().map(|path| Capturing::create(path, clock.epoch())).transpose()?;
        let limits = limits::flows(plans.len());
        let subnets: Vec<_> = plans.iter().map(|plan| plan.subnet).collect();
        let mut networks = Vec::new();
        for (index, plan) in plans.into_iter().enumerate() {
            let registry = poller.registry().try_clone().map_err(|e| format!("cannot share the poller: {e}"))?;
            let token_bits = (index as u64 + 1) << NETWORK_SHIFT;
            networks.push(Lan::new(plan, &subnets, limits, registry, token_bits, capture.clone(), &clock)?);
        }
        Ok(Worker {
            poller,
            commands,
            clock,
            pace: Pace::new(options.poll, options.spin),
            networks,
            tokens: Vec::new(),
            listeners: Vec::new(),
            buffer: Buffer::new(),
            turns: 0,
            sleeps: 0,
        })
    }

    fn run(&mut self) {
        loop {
            let timeout = self.timeout(self.clock.now());
            if let Err(error) = self.poller.poll(timeout) {
                tracing::error!("the poller failed: {error}; the switch ends");
                return;
            }
            self.turns += 1;
            self.sleeps += u64::from(timeout != Some(Duration::ZERO));
            let now = self.clock.now();
            if self.carry_out(now) == Run::Stop {
                break;
            }
            if !self.poller.events().is_empty() || self.poller.is_busy() {
                self.pace.worked(now);
            }
            self.socket_events(now);
            while let Some(token) = self.poller.next_ready() {
                self.serve_port(token, now);
            }
            for lan in &mut self.networks {
                lan.poll(now);
            }
        }
        for lan in &mut self.networks {
            lan.flush_capture();
        }
    }

    /// How long the next turn may wait.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.poller.is_busy() || self.networks.iter().any(|lan| lan.network.is_busy()) || !self.commands.is_empty() {
            return Some(Duration::ZERO);
        }
        self.pace.timeout(now, self.networks.iter().filter_map(|lan| lan.network.deadline()).min())
    }

    fn carry_out(&mut self, now: Instant) -> Run {
        for _ in 0..COMMANDS {
            match self.commands.try_recv() {
                Ok(Command::Stop) | Err(crossbeam_channel::TryRecvError::Disconnected) => return Run::Stop,
                Ok(command) => self.command(command, now),
                Err(crossbeam_channel::TryRecvError::Empty) => break,
            }
        }
        Run::On
    }

    fn socket_events(&mut self, now: Instant) {
        for event in self.poller.events() {
            let bits = event.token.0 as u64;
            let network = (bits >> NETWORK_SHIFT).checked_sub(1).and_then(|index| usize::try_from(index).ok());
            if let Some(lan) = network.and_then(|index| self.networks.get_mut(index)) {
                let ready = Readiness { readable: event.readable, writable: event.writable, error: event.error };
                lan.network.host_event(FlowId::from_bits(bits), ready, now, &mut lan.taps.at(now));
            }
        }
    }

    /// Reads frames of one port, up to its budget, each run to its end.
    fn serve_port(&mut self, token: Token, now: Instant) {
        let Some(Some((index, port))) = self.tokens.get(token.0).copied() else {
            return self.poller.park(token);
        };
        for _ in 0..self.poller.budget() {
            match self.networks[index].taps.rx(port, &mut self.buffer) {
                Rx::Frame(meta, len) => {
                    if self.listeners.is_empty() {
                        let frame = self.buffer.frame(len);
                        self.networks[index].frame(port, meta, frame, now, &mut Unheard);
                    } else {
                        self.told_frame(index, port, meta, len, now);
                    }
                }
                Rx::Bad(reason) => self.networks[index].network.dropped(port, reason),
                Rx::WouldBlock => return self.poller.park(token),
                Rx::Gone => {
                    let name = self.networks[index].name_of(port);
                    tracing::info!("container {name} has gone");
                    return self.remove_port(index, port, now);
                }
            }
        }
    }

    /// A frame while somebody listens.
    fn told_frame(&mut self, index: usize, port: PortId, meta: tapswitch_wire::Meta, len: usize, now: Instant) {
        let frame = self.buffer.frame(len);
        let heard = |listener: &Listener| {
            listener.network == index
                && listener.port == port
                && listener.proto.as_deref().is_none_or(|proto| views::is_proto(proto, frame))
        };
        let Some(place) = self.listeners.iter().position(heard) else {
            self.networks[index].frame(port, meta, frame, now, &mut Unheard);
            return;
        };
        let listener = self.listeners.swap_remove(place);
        let line = render(&meta, frame);
        let mut journey = Recorded::default();
        let lan = &mut self.networks[index];
        let verdict = lan.frame(port, meta, frame, now, &mut journey);
        // Who asked may have gone away.
        let _ = listener.reply.send(Ok(views::journey(line, lan.name_of(port), journey, verdict, lan)));
    }

    /// Detaches a port: of its own accord, because its container died, or because it was told to.
    fn remove_port(&mut self, index: usize, port: PortId, now: Instant) {
        if let Some(place) = self.tokens.iter().position(|place| *place == Some((index, port))) {
            self.tokens[place] = None;
            if let Err(error) = self.poller.remove(Token(place)) {
                tracing::debug!("cannot take port {port} out of the poller: {error}");
            }
        }
        // Whoever waits for a journey of it hears that there will be none.
        self.listeners.retain(|listener| listener.network != index || listener.port != port);
        self.networks[index].remove_port(port, now);
    }
}
