//! Poll threads beside the owner's: each reads some of the ports, and forwards with a switch of its own.
//!
//! A thread holds the lock of its [`State`] for the length of a turn, and gives it up while it waits. Nobody else asks
//! for the lock but the owner, to attach and detach ports and to read counters, so it is free on nearly every turn, and
//! no frame waits for it. It is given up fairly: an owner that waits gets it before the next turn. What the owner changes
//! is thus changed between two turns, for all networks at once, and never in the middle of a frame.
//!
//! The intake is the thread's alone, so ports are given to it as [`Order`]s, which are carried out before the next frame.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Mutex, MutexGuard};
use tapswitch_link::intake::Backend;
use tapswitch_link::poller::Waker;
use tapswitch_link::tap::Tap;
use tapswitch_network::{Forwarder, Hop, Ports, Share};
use tapswitch_wire::{DropReason, Instant, Meta, PortId, Unheard, Verdict};

use super::clock::Clock;
use super::handoff::{Inbox, Outbox, Told};
use super::metrics::Load;
use super::pace::{Pace, Wait};
use super::reader::{Place, Reader, Sink};
use super::taps::Taps;
use super::{Listener, hearer};

/// What the owner asks of the thread's intake.
pub(super) enum Order {
    Read(Place, Tap),
    Forget(Place),
}

/// The thread's part in one network.
pub(super) struct Part {
    pub(super) forwarder: Forwarder,
    pub(super) taps: Taps,
}

/// What the owner may look at and change between two turns.
pub(super) struct State {
    /// By the network's number.
    pub(super) parts: Vec<Part>,
    pub(super) orders: Vec<Order>,
    pub(super) listeners: Vec<Listener>,
    pub(super) turns: u64,
    pub(super) sleeps: u64,
    pub(super) load: Load,
    stop: bool,
}

/// The owner's hold on a poll thread.
pub(super) struct Lane {
    pub(super) backend: Backend,
    pub(super) inbox: Inbox,
    state: Arc<Mutex<State>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// What a thread is made of.
pub(super) struct Engine {
    pub(super) reader: Reader,
    pub(super) outbox: Outbox,
    pub(super) pace: Pace,
    pub(super) clock: Clock,
}

impl Lane {
    /// Starts the thread `name`, which calls `begin` first.
    pub(super) fn start(
        name: &str,
        parts: Vec<Part>,
        engine: Engine,
        inbox: Inbox,
        begin: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Lane> {
        let (orders, listeners, load) = (Vec::new(), Vec::new(), Load::default());
        let state = State { parts, orders, listeners, turns: 0, sleeps: 0, load, stop: false };
        let state = Arc::new(Mutex::new(state));
        let (shared, waker, backend) = (Arc::clone(&state), engine.reader.waker(), engine.reader.backend());
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            begin();
            run(&shared, engine);
        })?;
        Ok(Lane { backend, inbox, state, waker, thread: Some(thread) })
    }

    /// The thread between two turns.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Gives the intake something to do.
    pub(super) fn order(&self, order: Order) {
        self.state().orders.push(order);
        // A wake-up that fails is one that is already under way.
        let _ = self.waker.wake();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.state().stop = true;
        let _ = self.waker.wake();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a poll thread crashed; please report this");
        }
    }
}

fn run(shared: &Mutex<State>, engine: Engine) {
    let Engine { mut reader, mut outbox, mut pace, clock } = engine;
    let mut now = clock.now();
    shared.lock().load.is_of_this_thread();
    loop {
        let wait = if reader.is_busy() { Wait::No } else { pace.wait(now, None) };
        if let Err(error) = reader.poll(wait.timeout()) {
            tracing::error!("a poll thread cannot wait for frames: {error}; the switch ends");
            return;
        }
        now = clock.now();
        pace.begins(wait, now);
        let mut state = shared.lock();
        state.turns += 1;
        state.sleeps += u64::from(matches!(wait, Wait::Block(_)));
        state.load.begins(wait, now);
        if state.stop {
            return;
        }
        for order in state.orders.drain(..) {
            match order {
                Order::Forget(place) => reader.remove(place),
                Order::Read(place, tap) => {
                    if let Err(error) = reader.add(place, tap) {
                        tracing::error!("cannot read port {}: {error}; it is detached", place.port);
                        outbox.gone(place);
                    }
                }
            }
        }
        let State { parts, listeners, load, .. } = &mut *state;
        let watched = !listeners.is_empty() || parts.first().is_some_and(|part| part.taps.is_watched());
        if let Some(served) = reader.serve(&mut Turn { parts, listeners, watched, outbox: &mut outbox, now }) {
            pace.worked(now, served.bytes);
            load.has_read(served.frames);
        }
        MutexGuard::unlock_fair(state);
        outbox.send();
    }
}

/// Where the frames of one turn go.
struct Turn<'a> {
    parts: &'a mut [Part],
    listeners: &'a mut Vec<Listener>,
    /// Whether anybody waits for a journey, or watches.
    watched: bool,
    outbox: &'a mut Outbox,
    now: Instant,
}

impl Sink for Turn<'_> {
    #[inline]
    fn frame(&mut self, place: Place, meta: Meta, frame: &mut [u8]) {
        if self.watched {
            let taps = &self.parts[place.network].taps;
            if let Some(told) = hearer(self.listeners, taps, place, &meta, frame, self.now) {
                return self.told_frame(place, meta, frame, told);
            }
        }
        let Part { forwarder, taps } = &mut self.parts[place.network];
        let hop = forwarder.rx(place.port, meta, frame, self.now, &mut Unheard, &mut taps.at(self.now));
        if let Ok(Hop::Gateway(share)) = hop
            && self.outbox.push(place, meta, frame, share, &mut None).is_err()
        {
            forwarder.dropped(missed(place.port, share), DropReason::GatewayBusy);
            taps.at(self.now).lost(missed(place.port, share), DropReason::GatewayBusy, &meta, frame);
        }
    }

    fn bad(&mut self, place: Place, reason: DropReason) {
        self.parts[place.network].forwarder.dropped(place.port, reason);
    }

    fn gone(&mut self, place: Place) {
        self.outbox.gone(place);
    }
}

impl Turn<'_> {
    /// A frame whose journey somebody wants.
    fn told_frame(&mut self, place: Place, meta: Meta, frame: &mut [u8], mut told: Told) {
        let Part { forwarder, taps } = &mut self.parts[place.network];
        let hop = forwarder.rx(place.port, meta, frame, self.now, &mut told.journey, &mut taps.at(self.now));
        let mut told = Some(Box::new(told));
        let verdict = match hop {
            // Who listens hears the rest from the owner.
            Ok(Hop::Gateway(share)) => match self.outbox.push(place, meta, frame, share, &mut told) {
                Ok(()) => return,
                Err(reason) => {
                    forwarder.dropped(missed(place.port, share), reason);
                    taps.at(self.now).lost(missed(place.port, share), reason, &meta, frame);
                    Verdict::Drop(reason)
                }
            },
            Ok(Hop::Ended(verdict)) => verdict,
            Err(reason) => Verdict::Drop(reason),
        };
        if let Some(told) = told {
            self.outbox.tell(place, told, verdict);
        }
    }
}

/// Where it counts that the gateway misses a frame: the others got it if it was flooded.
fn missed(port: PortId, share: Share) -> PortId {
    match share {
        Share::Alone => port,
        Share::Flooded(_) => PortId::GATEWAY,
    }
}
