//! Who watches frames, and what they are told.
//!
//! # Theory of operation
//!
//! All poll threads share one [`Tracing`]. While nobody watches, a frame pays for one branch on a flag that is read once a
//! turn. While somebody does, each frame is first looked at as it came ([`Compiled::first`]): most filters say yes or no
//! then. Only a frame that may be wanted goes its way with a journey that is written down, on a copy of which the filter
//! has its last word when the verdict is known. What is told goes into a bounded channel that a thread of the control side
//! empties; a poll thread never waits for it. A watcher hears of so many frames a second at most, and how many it missed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tapswitch_filter::{Compiled, Filter, Outcome, Seen as Looked, Tri};
use tapswitch_wire::{FrameRef, Instant, Meta, PortId, Recorded, Verdict, render};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::clock;
use super::events::Teller;
use crate::api::{OffloadView, StepView, TraceView};

/// Frames that may wait for a watcher.
const WAITING: usize = 1024;
/// Watchers at a time.
const MAX_TRACERS: usize = 16;

/// What a watcher wants.
#[derive(Debug)]
pub struct Wanted {
    /// Which frames.
    pub filter: Filter,
    /// Only of this network.
    pub network: Option<String>,
    /// The frames' bytes too.
    pub bytes: bool,
    /// At most so many a second.
    pub rate: u32,
}

/// The watcher's end.
#[derive(Debug)]
pub struct Watch {
    /// What is told.
    pub frames: mpsc::Receiver<TraceView>,
    missed: Arc<Tracer>,
}

impl Watch {
    /// Frames that were or may have been wanted, and were not told, since this was asked last.
    pub fn missed(&self) -> u64 {
        self.missed.missed.swap(0, Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Tracer {
    wanted: Wanted,
    /// The filter with the port numbers of each network in the place of names.
    filters: RwLock<Vec<Compiled>>,
    out: mpsc::Sender<TraceView>,
    missed: AtomicU64,
    allowance: Mutex<Allowance>,
}

/// Frames that are followed to their end in a second, for each one that may be told, where only the end shows whether one
/// is wanted.
const FOLLOWED: u32 = 8;

/// So many a second: buckets that are filled once a second.
#[derive(Debug)]
struct Allowance {
    told: u32,
    followed: u32,
    until: Instant,
}

impl Allowance {
    fn new(rate: u32, now: Instant) -> Allowance {
        let followed = rate.saturating_mul(FOLLOWED);
        Allowance { told: rate, followed, until: now + Duration::from_secs(1) }
    }
}

impl Tracer {
    /// Whether one more may be told now, or followed because it may be wanted.
    fn may(&self, now: Instant, wanted: Tri) -> bool {
        let mut allowance = self.allowance.lock();
        if now >= allowance.until {
            *allowance = Allowance::new(self.wanted.rate, now);
        }
        let left = if wanted == Tri::Yes { &mut allowance.told } else { &mut allowance.followed };
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A network's name, and those of its ports.
struct Names {
    network: String,
    ports: RwLock<HashMap<PortId, String>>,
}

impl Names {
    fn of(&self, port: PortId) -> String {
        match port {
            PortId::GATEWAY => "gateway".to_owned(),
            PortId::UPLINK => "uplink".to_owned(),
            port => self.ports.read().get(&port).cloned().unwrap_or_else(|| format!("port {port}")),
        }
    }
}

/// Everybody who watches.
pub(super) struct Tracing {
    watched: AtomicBool,
    tracers: RwLock<Vec<Arc<Tracer>>>,
    networks: Vec<Names>,
    /// Since 1970, at the beginning of the loop's time.
    epoch: Duration,
    /// What else happens, for those who listen to that.
    pub(super) events: Teller,
}

impl Tracing {
    /// Nobody watches these networks.
    pub(super) fn new(networks: impl Iterator<Item = String>, epoch: Duration) -> Tracing {
        let networks = networks.map(|network| Names { network, ports: RwLock::default() }).collect();
        let events = Teller::new(epoch);
        Tracing { watched: AtomicBool::new(false), tracers: RwLock::default(), networks, epoch, events }
    }

    /// The names of a network and of one of its ports.
    pub(super) fn names_of(&self, network: usize, port: PortId) -> Option<(String, String)> {
        let names = self.networks.get(network)?;
        Some((names.network.clone(), names.of(port)))
    }

    /// Whether anybody watches. Read once a turn.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// A port has a name, or is gone.
    pub(super) fn name(&self, network: usize, port: PortId, name: Option<&str>) {
        let Some(names) = self.networks.get(network) else { return };
        match name {
            Some(name) => names.ports.write().insert(port, name.to_string()),
            None => names.ports.write().remove(&port),
        };
        for tracer in self.tracers.read().iter() {
            *tracer.filters.write() = self.compile(&tracer.wanted.filter);
        }
    }

    /// A filter for each network. A name that nobody has yet is nobody's port.
    fn compile(&self, filter: &Filter) -> Vec<Compiled> {
        let compile = |names: &Names| {
            let ports = names.ports.read();
            let named = |name: &str| ports.iter().filter(|(_, has)| *has == name).map(|(port, _)| *port).collect();
            let known = |name: &str| match name {
                "gateway" => Some(vec![PortId::GATEWAY]),
                "uplink" => Some(vec![PortId::UPLINK]),
                name => Some(named(name)),
            };
            filter.resolve(known).ok()
        };
        self.networks.iter().filter_map(compile).collect()
    }

    /// One more watches. None if too many do.
    pub(super) fn watch(&self, wanted: Wanted, now: Instant) -> Option<Watch> {
        let mut tracers = self.tracers.write();
        tracers.retain(|tracer| !tracer.out.is_closed());
        if tracers.len() >= MAX_TRACERS {
            return None;
        }
        let (out, frames) = mpsc::channel(WAITING);
        let allowance = Mutex::new(Allowance::new(wanted.rate, now));
        let filters = RwLock::new(self.compile(&wanted.filter));
        let tracer = Arc::new(Tracer { wanted, filters, out, missed: AtomicU64::new(0), allowance });
        tracers.push(Arc::clone(&tracer));
        self.watched.store(true, Ordering::Relaxed);
        Some(Watch { frames, missed: tracer })
    }

    /// Whether somebody may want to hear of a frame that came in by this port.
    pub(super) fn hears(&self, network: usize, from: PortId, meta: &Meta, bytes: &[u8], now: Instant) -> Option<Seen> {
        // A frame that cannot be parsed is none that a filter can speak of, but for "no filter".
        let frame = FrameRef::parse(*meta, bytes).ok();
        let names = self.networks.get(network)?;
        let mut hearing = Vec::new();
        let mut ended = false;
        for tracer in self.tracers.read().iter() {
            if tracer.out.is_closed() {
                ended = true;
                continue;
            }
            if tracer.wanted.network.as_ref().is_some_and(|wanted| *wanted != names.network) {
                continue;
            }
            let filters = tracer.filters.read();
            let Some(filter) = filters.get(network) else { continue };
            match frame.as_ref().map_or(Tri::Later, |frame| filter.first(frame, &Looked { port: from })) {
                Tri::No => {}
                wanted if tracer.may(now, wanted) => hearing.push((Arc::clone(tracer), wanted)),
                _ => tracer.miss(),
            }
        }
        if ended {
            self.forget_ended();
        }
        if hearing.is_empty() {
            return None;
        }
        Some(Seen { network, from, line: render(meta, bytes), meta: *meta, bytes: bytes.to_vec(), came: now, hearing })
    }

    fn forget_ended(&self) {
        let mut tracers = self.tracers.write();
        tracers.retain(|tracer| !tracer.out.is_closed());
        self.watched.store(!tracers.is_empty(), Ordering::Relaxed);
    }

    /// Tells those who want it what became of a frame.
    pub(super) fn tell(&self, seen: Seen, journey: Recorded, verdict: Verdict) {
        let Some(names) = self.networks.get(seen.network) else { return };
        let to = match verdict {
            Verdict::Forward(port) => vec![names.of(port)],
            _ => Vec::new(),
        };
        let reason = match verdict {
            Verdict::Drop(reason) => Some(reason),
            _ => None,
        };
        let frame = FrameRef::parse(seen.meta, &seen.bytes[..]).ok();
        let out: &[PortId] = match &verdict {
            Verdict::Forward(port) => std::slice::from_ref(port),
            _ => &[],
        };
        let (looked, outcome) = (Looked { port: seen.from }, Outcome { verdict, flow: None, out });
        let steps: Vec<StepView> = journey.steps.into_iter().map(StepView::from).collect();
        for (tracer, wanted) in &seen.hearing {
            let filters = tracer.filters.read();
            let Some(filter) = filters.get(seen.network) else { continue };
            if !frame.as_ref().is_none_or(|frame| filter.last(frame, &looked, &outcome)) {
                continue;
            }
            if *wanted == Tri::Later && !tracer.may(seen.came, Tri::Yes) {
                tracer.miss();
                continue;
            }
            let view = TraceView {
                time_ns: (self.epoch + (seen.came - Instant::ZERO)).as_nanos() as u64,
                network: names.network.clone(),
                port: names.of(seen.from),
                frame: seen.line.clone(),
                length: seen.bytes.len(),
                steps: steps.clone(),
                verdict: words(verdict, &to),
                outcome: outcome_name(verdict).into(),
                reason: reason.map(|reason| reason.name().to_string()),
                to: to.clone(),
                bytes: tracer.wanted.bytes.then(|| hex(&seen.bytes)),
                offload: OffloadView::of(&seen.meta).filter(|_| tracer.wanted.bytes),
            };
            match tracer.out.try_send(view) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => tracer.miss(),
            }
        }
    }
}

/// A frame that somebody may want to hear of.
pub(super) struct Seen {
    network: usize,
    from: PortId,
    line: String,
    meta: Meta,
    /// As it came.
    bytes: Vec<u8>,
    came: Instant,
    hearing: Vec<(Arc<Tracer>, Tri)>,
}

impl Seen {
    /// What its journey is written into.
    pub(super) fn journey() -> Recorded {
        Recorded::timed(clock::nanos)
    }
}

pub(super) fn words(verdict: Verdict, to: &[String]) -> String {
    match verdict {
        Verdict::Forward(_) => format!("forwarded to {}", to.join(", ")),
        Verdict::Flood { ports } => format!("flooded to {ports} ports"),
        Verdict::Reply => "taken in by the gateway".into(),
        Verdict::Relay => "handed to the uplink".into(),
        Verdict::Drop(reason) => format!("dropped, {reason}: {}", reason.text()),
    }
}

pub(super) fn outcome_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forward(_) => "forwarded",
        Verdict::Flood { .. } => "flooded",
        Verdict::Reply => "taken-in",
        Verdict::Relay => "relayed",
        Verdict::Drop(_) => "dropped",
    }
}

/// In hexadecimal. A super-frame has 64 KiB, and a poll thread does this.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}
