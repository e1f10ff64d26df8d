//! The poll threads. The first, the *owner*, has the networks, their gateways and their sockets; the others (`lane`)
//! read ports and forward between them.
//!
//! # A turn of the owner's loop
//!
//! 1. Wait until a TAP or a socket has news, a timer is due, or somebody rings. If something is still to be done, do not
//!    wait.
//! 2. Read the clock, once.
//! 3. Carry out commands.
//! 4. Tell the networks what their sockets became ready for.
//! 5. Serve the ready ports in turns, each up to its budget, every frame to its end.
//! 6. Take what other threads read and the gateway gets.
//! 7. Let the networks send what they owe, and let timers end.
//!
//! Nothing else reads a clock or a descriptor. A container that dies takes its TAP with it; reading says so, and the port
//! is removed.

mod book;
mod clock;
mod commands;
mod doors;
mod events;
mod explain;
mod flows;
mod handoff;
mod holders;
mod journal;
mod lan;
mod lane;
mod limits;
mod metrics;
mod pace;
mod publish;
mod reader;
mod reaper;
mod refused;
mod samples;
mod shares;
mod start;
mod taps;
mod trace;
mod uplinks;
mod views;

use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError};
use parking_lot::Mutex;
use tapswitch_link::doorbell::Doorbell;
use tapswitch_relay::{FlowId, Readiness};
use tapswitch_wire::{DropReason, Instant, Meta, PortId, Recorded, Unheard, Verdict, render};

use super::Options;
use super::command::{Command, Refusal, Reply};
use crate::api::{EventKind, JourneyView};
use clock::Clock;
pub use events::Events;
use handoff::{Batch, Closed, Hearer, Told};
use lan::{Attached, Lan};
use lane::{Lane, Order};
pub use metrics::Figures;
use metrics::Load;
pub(crate) use metrics::{Histogram, NetworkFigures, ThreadFigures};
use pace::{Pace, Wait};
use reader::{Place, Reader, Sink};
use reaper::Reaper;
pub use samples::Dropped;
use samples::Rates;
pub use start::spawn;
use taps::Taps;
use trace::{Seen, Tracing};
pub use trace::{Wanted, Watch};

/// Frames that one port may send in one turn before the others get theirs.
const BUDGET: usize = 64;
/// Commands that may wait for the poll thread, and how many it takes in one turn.
const COMMANDS: usize = 64;
/// Journeys that may be waited for at a time.
const MAX_LISTENERS: usize = 16;
/// Flow numbers take the lower bits of a token; the network's place stands above, from 1 on.
const NETWORK_SHIFT: u32 = 48;

/// The journey of a frame, or why there is none.
type Journeyed = Result<JourneyView, Refusal>;

/// Somebody waits for the journey of a frame, at each thread that may read it.
#[derive(Clone)]
struct Listener {
    place: Place,
    proto: Option<String>,
    /// Empty once a frame was found.
    reply: Arc<Mutex<Option<Reply<Journeyed>>>>,
}

impl Listener {
    fn new(place: Place, proto: Option<String>, reply: Reply<Journeyed>) -> Listener {
        Listener { place, proto, reply: Arc::new(Mutex::new(Some(reply))) }
    }

    /// Whether nothing was found yet, and the one who asked is still there.
    fn waits(&self) -> bool {
        self.reply.lock().as_ref().is_some_and(|reply| !reply.is_closed())
    }
}

/// The owner.
struct Worker {
    // Dropped first: the other threads end before what they send to.
    lanes: Vec<Lane>,
    reader: Reader,
    reaper: Reaper,
    commands: Receiver<Command>,
    doorbell: Doorbell,
    clock: Clock,
    pace: Pace,
    options: Options,
    networks: Vec<Lan>,
    listeners: Vec<Listener>,
    tracing: Arc<Tracing>,
    /// Ports that were found gone in this turn.
    gone: Vec<Place>,
    /// Empty, to be given for what other threads handed over.
    batch: Batch,
    /// How many ports each thread reads, the owner first.
    loads: Vec<usize>,
    /// Of the last attached port.
    serial: u64,
    turn_count: u64,
    sleeps: u64,
    load: Load,
    rates: Rates,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    On,
    Stop,
}

impl Worker {
    fn run(&mut self) {
        self.load.is_of_this_thread();
        self.turns();
        // The other threads write into the capture as long as they run.
        self.lanes.clear();
        let now = self.clock.now();
        for lan in &mut self.networks {
            lan.network.release(&mut lan.taps.at(now));
            lan.flush_capture();
        }
    }

    /// Until it is told to stop, or something fails that cannot be mended.
    fn turns(&mut self) {
        let mut now = self.clock.now();
        loop {
            let wait = self.wait(now);
            if let Err(error) = self.reader.poll(wait.timeout()) {
                tracing::error!("the poll thread cannot wait for frames: {error}; the switch ends");
                return;
            }
            self.doorbell.awake();
            self.turn_count += 1;
            self.sleeps += u64::from(matches!(wait, Wait::Block(_)));
            now = self.clock.now();
            self.pace.begins(wait, now);
            self.load.begins(wait, now);
            if self.rates.due() <= now {
                self.rates.copy(views::drop_counts(&self.networks, &self.lanes), now);
            }
            if self.carry_out(now) == Run::Stop {
                break;
            }
            let events = self.socket_events(now);
            let Worker { reader, networks, listeners, gone, tracing, .. } = self;
            let watched = !listeners.is_empty() || tracing.is_watched();
            let served = reader.serve(&mut Turn { networks, listeners, watched, gone, now });
            served.iter().for_each(|served| self.load.has_read(served.frames));
            let Ok(handed) = self.take_handed(now) else {
                tracing::error!("a poll thread has ended by itself; the switch ends");
                return;
            };
            if events || served.is_some() || handed {
                self.pace.worked(now, served.map_or(0, |served| served.bytes));
            }
            for place in std::mem::take(&mut self.gone) {
                self.remove_gone(place, now);
            }
            self.cross(now);
            for lan in &mut self.networks {
                lan.poll(now);
            }
        }
    }

    /// Hands packets from network to network.
    fn cross(&mut self, now: Instant) {
        for at in 0..self.networks.len() {
            for mut crossing in self.networks[at].network.take_crossing() {
                if let Some(lan) = self.networks.get_mut(crossing.network) {
                    lan.network.cross(&mut crossing, now, &mut lan.taps.at(now));
                }
            }
        }
    }

    /// How the next turn waits. Times are those of this turn's beginning.
    fn wait(&self, now: Instant) -> Wait {
        if self.reader.is_busy() || self.networks.iter().any(|lan| lan.network.is_busy()) {
            return Wait::No;
        }
        let deadlines = self.networks.iter().filter_map(|lan| lan.network.deadline());
        let deadline = deadlines.chain((!self.lanes.is_empty()).then(|| self.rates.due())).min();
        let wait = self.pace.wait(now, deadline);
        if wait == Wait::Spin {
            return wait;
        }
        self.doorbell.listen();
        let has_news = !self.commands.is_empty() || self.lanes.iter().any(|lane| lane.inbox.has_news());
        if has_news { Wait::No } else { wait }
    }

    fn carry_out(&mut self, now: Instant) -> Run {
        for _ in 0..COMMANDS {
            match self.commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Run::Stop,
                Ok(command) => self.command(command, now),
                Err(TryRecvError::Empty) => break,
            }
        }
        Run::On
    }

    /// Says whether there were any.
    fn socket_events(&mut self, now: Instant) -> bool {
        for event in self.reader.events() {
            let bits = event.token.0 as u64;
            let network = (bits >> NETWORK_SHIFT).checked_sub(1).and_then(|index| usize::try_from(index).ok());
            if let Some(lan) = network.and_then(|index| self.networks.get_mut(index)) {
                let ready = Readiness {
                    readable: event.readable,
                    writable: event.writable,
                    error: event.error,
                    ended: event.ended,
                };
                lan.network.host_event(FlowId::from_bits(bits), ready, now, &mut lan.taps.at(now));
            }
        }
        !self.reader.events().is_empty()
    }

    /// Takes what the other threads read. Says whether there was anything; an error if one of them has ended.
    fn take_handed(&mut self, now: Instant) -> Result<bool, Closed> {
        let mut any = false;
        let mut batch = std::mem::take(&mut self.batch);
        for at in 0..self.lanes.len() {
            if self.lanes[at].inbox.take(&mut batch)? {
                any = true;
                self.work_off(&mut batch, now);
            }
        }
        self.batch = batch;
        Ok(any)
    }

    fn work_off(&mut self, batch: &mut Batch, now: Instant) {
        self.gone.append(&mut batch.gone);
        for (place, told, verdict) in batch.told.drain(..) {
            answer(*told, place, verdict, &mut self.networks[place.network]);
        }
        for (mut handed, frame) in batch.drain() {
            let lan = &mut self.networks[handed.place.network];
            match handed.told.take() {
                None => drop(lan.handed(&handed, frame, now, &mut Unheard)),
                Some(mut told) => {
                    let verdict = lan.handed(&handed, frame, now, &mut told.journey);
                    answer(*told, handed.place, verdict, lan);
                }
            }
        }
    }

    /// The threads that read a port.
    fn threads_of(&self, place: Place) -> &[usize] {
        self.networks[place.network].attached(place).map_or(&[], |attached| &attached.threads)
    }

    /// A port's reading thread found that its container has died.
    fn remove_gone(&mut self, place: Place, now: Instant) {
        let lan = &self.networks[place.network];
        if lan.uplink.as_ref().is_some_and(|uplink| uplink.place == place) {
            return self.lose_uplink(place.network, now);
        }
        if lan.is_at(place) {
            tracing::info!("container {} has gone", lan.name_of(place.port));
            self.remove_port(place, None, now);
        }
    }

    /// Detaches a port: of its own accord, because its container died, or because it was told to. `reply` is for who wants
    /// to know when the device is gone.
    fn remove_port(&mut self, place: Place, reply: Option<Reply<Result<(), Refusal>>>, now: Instant) {
        self.reader.remove(place);
        // Whoever waits for a journey of it hears that there will be none.
        self.listeners.retain(|listener| listener.place != place);
        for (lane, thread) in self.lanes.iter().zip(1..) {
            let mut state = lane.state();
            state.listeners.retain(|listener| listener.place != place);
            let part = &mut state.parts[place.network];
            part.forwarder.remove_port(place.port);
            part.taps.remove(place.port);
            drop(state);
            if self.threads_of(place).contains(&thread) {
                lane.order(Order::Forget(place));
            }
        }
        let name = self.networks[place.network].name_of(place.port);
        if let Some(Attached { threads, queues, .. }) = self.networks[place.network].remove_port(place.port, now) {
            let network = &self.networks[place.network].plan.name;
            self.tracing.events.tell(EventKind::Detach, network, Some(name), now, |_| {});
            threads.iter().for_each(|thread| self.loads[*thread] -= 1);
            self.reaper.close(queues, reply);
        }
    }
}

/// Tells who wanted a journey.
fn answer(told: Told, place: Place, verdict: Verdict, lan: &mut Lan) {
    match told.hearer {
        Hearer::One(reply, line) => {
            let name = if lan.is_at(place) { lan.name_of(place.port) } else { "gone".into() };
            // Who asked may have gone away.
            let _ = reply.send(Ok(views::journey(line, name, told.journey, verdict, lan)));
        }
        Hearer::Watchers(seen) => lan.taps.tell(seen, told.journey, verdict),
    }
}

/// Who wants the journey of this frame, which has just come.
fn hearer(
    listeners: &mut Vec<Listener>,
    taps: &Taps,
    place: Place,
    meta: &Meta,
    frame: &[u8],
    now: Instant,
) -> Option<Told> {
    if let Some(reply) = views::take_listener(listeners, place, frame) {
        let hearer = Hearer::One(reply, render(meta, frame));
        return Some(Told { hearer, journey: Recorded::default() });
    }
    let seen = taps.hears(place.port, meta, frame, now)?;
    Some(Told { hearer: Hearer::Watchers(seen), journey: Seen::journey() })
}

/// Where the frames go that the owner reads itself.
struct Turn<'a> {
    networks: &'a mut [Lan],
    listeners: &'a mut Vec<Listener>,
    /// Whether anybody waits for a journey, or watches.
    watched: bool,
    gone: &'a mut Vec<Place>,
    now: Instant,
}

impl Sink for Turn<'_> {
    #[inline]
    fn frame(&mut self, place: Place, meta: Meta, frame: &mut [u8]) {
        let lan = &mut self.networks[place.network];
        let mut told =
            if self.watched { hearer(self.listeners, &lan.taps, place, &meta, frame, self.now) } else { None };
        let verdict = match (place.port, &mut told) {
            (PortId::UPLINK, None) => lan.uplink_frame(meta, frame, self.now, &mut Unheard),
            (PortId::UPLINK, Some(told)) => lan.uplink_frame(meta, frame, self.now, &mut told.journey),
            (port, None) => lan.frame(port, meta, frame, self.now, &mut Unheard),
            (port, Some(told)) => lan.frame(port, meta, frame, self.now, &mut told.journey),
        };
        if let Some(told) = told {
            answer(told, place, verdict, lan);
        }
    }

    fn bad(&mut self, place: Place, reason: DropReason) {
        let network = &mut self.networks[place.network].network;
        match place.port {
            PortId::UPLINK => network.uplink_dropped(reason),
            port => network.dropped(port, reason),
        }
    }

    fn gone(&mut self, place: Place) {
        self.gone.push(place);
    }
}
