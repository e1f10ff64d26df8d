//! The TAPs of one network, by port, and the capture that may watch them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tapswitch_link::Port;
use tapswitch_link::capture::{CaptureFile, CaptureId, Direction};
use tapswitch_link::tap::Tap;
use tapswitch_network::Ports;
use tapswitch_wire::{DropReason, Instant, Meta, PortId, Recorded, Verdict};

use super::events::is_limit;
use super::samples::Samples;
use super::trace::{Seen, Tracing};

/// Attached TAPs. A place is a port's number; place 0 is the gateway's and stays empty.
pub(super) struct Taps {
    taps: Vec<Option<Tap>>,
    /// The device of a packet uplink.
    uplink: Option<(Tap, Option<CaptureId>)>,
    watched: Option<Watched>,
    /// The network's number, and those who watch its frames.
    tracing: (usize, Arc<Tracing>),
    /// A frame of the gateway that is on its way while somebody watches.
    seen: Option<Seen>,
    /// Frames of the gateway that were sent while the one that caused them was on its way: told after it.
    later: Vec<(Seen, Recorded, Verdict)>,
    /// The last frames that were dropped.
    samples: Samples,
}

/// The capture file of the daemon, shared by its networks.
pub(super) struct Capturing {
    file: Mutex<CaptureFile>,
}

struct Watched {
    network: String,
    capture: Arc<Capturing>,
    interfaces: HashMap<PortId, CaptureId>,
}

impl Capturing {
    pub(super) fn create(path: &Path, epoch: Duration) -> Result<Arc<Capturing>, String> {
        let file = CaptureFile::create(path, epoch).map_err(|error| error.to_string())?;
        Ok(Arc::new(Capturing { file: Mutex::new(file) }))
    }

    /// Poll threads wait for each other here, but only while they capture.
    fn file(&self) -> MutexGuard<'_, CaptureFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taps {
    pub(super) fn new(network: &str, capture: Option<Arc<Capturing>>, tracing: (usize, Arc<Tracing>)) -> Taps {
        let watched = capture.map(|capture| Watched { network: network.into(), capture, interfaces: HashMap::new() });
        Taps {
            taps: vec![None],
            uplink: None,
            watched,
            tracing,
            seen: None,
            later: Vec::new(),
            samples: Samples::default(),
        }
    }

    /// The lowest free port number.
    pub(super) fn free_port(&self) -> PortId {
        let place = self.taps.iter().skip(1).position(Option::is_none).map_or(self.taps.len(), |at| at + 1);
        PortId(place as u32)
    }

    /// A port of this name, for [`Taps::insert`]: the interface that the capture shows it as.
    pub(super) fn captured(&self, name: &str) -> Option<CaptureId> {
        let watched = self.watched.as_ref()?;
        Some(watched.capture.file().interface(&format!("{}/{name}", watched.network)))
    }

    pub(super) fn insert(&mut self, port: PortId, tap: Tap, captured: Option<CaptureId>) {
        let place = port.0 as usize;
        if self.taps.len() <= place {
            self.taps.resize_with(place + 1, || None);
        }
        self.taps[place] = Some(tap);
        if let (Some(watched), Some(interface)) = (&mut self.watched, captured) {
            watched.interfaces.insert(port, interface);
        }
    }

    pub(super) fn remove(&mut self, port: PortId) {
        if let Some(watched) = &mut self.watched {
            watched.interfaces.remove(&port);
        }
        if let Some(tap) = self.taps.get_mut(port.0 as usize) {
            *tap = None;
        }
        self.samples.forget(port);
    }

    /// The last frames that were dropped.
    pub(super) fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Whether somebody who watches may want to hear of a frame that came in by this port.
    pub(super) fn hears(&self, from: PortId, meta: &Meta, frame: &[u8], now: Instant) -> Option<Seen> {
        self.tracing.1.hears(self.tracing.0, from, meta, frame, now)
    }

    /// Tells those who watch what became of a frame, and then of those that it caused.
    pub(super) fn tell(&mut self, seen: Seen, journey: Recorded, verdict: Verdict) {
        self.tracing.1.tell(seen, journey, verdict);
        self.tell_later();
    }

    /// Tells those who watch of frames that no frame of theirs caused.
    pub(super) fn tell_later(&mut self) {
        for (seen, journey, verdict) in self.later.drain(..) {
            self.tracing.1.tell(seen, journey, verdict);
        }
    }

    /// Those who watch.
    pub(super) fn tracing(&self) -> &Tracing {
        &self.tracing.1
    }

    /// Whether anybody watches.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.tracing.1.is_watched()
    }

    /// A port has a name now, or is gone: those who watch name it so.
    pub(super) fn name_port(&self, port: PortId, name: Option<&str>) {
        self.tracing.1.name(self.tracing.0, port, name);
    }

    /// The device of the packet uplink came or went.
    pub(super) fn set_uplink(&mut self, uplink: Option<(Tap, Option<CaptureId>)>) {
        self.uplink = uplink;
    }

    /// Captures a frame that the uplink's device brought.
    pub(super) fn record_uplink(&mut self, now: Instant, meta: &Meta, frame: &[u8]) {
        if let (Some(watched), Some((_, Some(interface)))) = (&self.watched, &self.uplink) {
            watched.capture.file().record(*interface, Direction::In, now, meta, frame);
        }
    }

    /// One more, without ports, for another thread.
    pub(super) fn another(&self) -> Taps {
        Taps::new(
            self.watched.as_ref().map_or("", |w| &w.network),
            self.watched.as_ref().map(|w| Arc::clone(&w.capture)),
            self.tracing.clone(),
        )
    }

    /// The ports at this moment.
    pub(super) fn at(&mut self, now: Instant) -> TapsAt<'_> {
        TapsAt { taps: self, now }
    }

    pub(super) fn flush_capture(&mut self) {
        if let Some(watched) = &self.watched
            && let Err(error) = watched.capture.file().flush()
        {
            tracing::error!("the capture is not complete: {error}");
        }
    }
}

/// Sends to the TAPs; the time is for the capture.
pub(super) struct TapsAt<'a> {
    taps: &'a mut Taps,
    now: Instant,
}

impl Ports for TapsAt<'_> {
    fn tx(&mut self, port: PortId, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        let Some(Some(tap)) = self.taps.taps.get_mut(port.0 as usize) else { return Err(DropReason::UnknownPort) };
        tap.tx(meta, frame)?;
        if let Some(watched) = &self.taps.watched
            && let Some(interface) = watched.interfaces.get(&port)
        {
            watched.capture.file().record(*interface, Direction::Out, self.now, meta, frame);
        }
        Ok(())
    }

    fn tx_uplink(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        let Some((tap, interface)) = &mut self.taps.uplink else { return Err(DropReason::UplinkDown) };
        tap.tx(meta, frame)?;
        if let (Some(watched), Some(interface)) = (&self.taps.watched, interface) {
            watched.capture.file().record(*interface, Direction::Out, self.now, meta, frame);
        }
        Ok(())
    }

    #[inline]
    fn hears(&mut self, meta: &Meta, frame: &[u8]) -> Option<Recorded> {
        if !self.taps.is_watched() {
            return None;
        }
        self.taps.seen = self.taps.hears(PortId::GATEWAY, meta, frame, self.now);
        self.taps.seen.as_ref().map(|_| Seen::journey())
    }

    #[cold]
    fn lost(&mut self, port: PortId, reason: DropReason, meta: &Meta, frame: &[u8]) {
        let (network, tracing) = &self.taps.tracing;
        // What is dropped on account of nobody is the gateway's, as where it is counted.
        let port = if matches!(self.taps.taps.get(port.0 as usize), Some(Some(_))) { port } else { PortId::GATEWAY };
        let limit = is_limit(reason) && tracing.events.is_heard();
        if self.taps.samples.keep(port, reason, meta, frame, self.now, limit) {
            tracing.tell_limit(*network, port, reason, frame, self.now);
        }
    }

    fn told(&mut self, _: &Meta, _: &[u8], journey: Recorded, verdict: Verdict) {
        if let Some(seen) = self.taps.seen.take() {
            self.taps.later.push((seen, journey, verdict));
        }
    }
}
