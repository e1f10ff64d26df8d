//! What happens on the switch, told to those who want to hear it.
//!
//! The poll threads tell, and never wait: an event goes into a ring of [`WAITING`] places, from which each listener reads at
//! his own pace. Who is slower than the ring is long misses the oldest events, and learns how many. While nobody listens,
//! an event is not even put together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tapswitch_wire::{DropReason, Instant, Mac, PortId};
use tokio::sync::broadcast;

use super::Worker;
use super::lan::Lan;
use super::trace::Tracing;
use crate::api::{EventKind, EventView, PortView, Published};
use crate::daemon::command::Refusal;

/// Events that may wait for the slowest listener.
const WAITING: usize = 256;

/// A listener's end.
pub type Events = broadcast::Receiver<Arc<EventView>>;

/// Tells all listeners.
pub(super) struct Teller {
    out: broadcast::Sender<Arc<EventView>>,
    /// Whether anybody ever listened. The ring's own count of listeners costs a lock, and is asked once a turn.
    ever: AtomicBool,
    /// Since 1970, at the beginning of the loop's time.
    epoch: Duration,
}

impl Teller {
    pub(super) fn new(epoch: Duration) -> Teller {
        Teller { out: broadcast::Sender::new(WAITING), ever: AtomicBool::new(false), epoch }
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.ever.load(Ordering::Relaxed) && self.out.receiver_count() > 0
    }

    /// One more listens.
    pub(super) fn listen(&self) -> Events {
        self.ever.store(true, Ordering::Relaxed);
        self.out.subscribe()
    }

    /// Tells of what happened now, to which `add` adds what belongs to its kind.
    pub(super) fn tell(
        &self,
        kind: EventKind,
        network: &str,
        name: Option<String>,
        now: Instant,
        add: impl FnOnce(&mut EventView),
    ) {
        if !self.is_heard() {
            return;
        }
        let since_1970 = self.epoch + (now - Instant::ZERO);
        let mut event = EventView {
            time_ns: u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX),
            kind,
            network: network.to_owned(),
            name,
            ip: None,
            mac: None,
            state: None,
            expires: None,
            published: Vec::new(),
            reason: None,
            text: None,
        };
        add(&mut event);
        // The last listener may have gone this moment.
        let _ = self.out.send(Arc::new(event));
    }
}

/// Whether a drop for this reason says that a bound was reached: of a table, a pool, or what a container may have.
pub(super) fn is_limit(reason: DropReason) -> bool {
    use DropReason::{
        DhcpLimit, DhcpPoolExhausted, FlowLimit, FragmentLimit, NeighbourTableFull, PortLimit, PortsExhausted,
        SessionLimit, SessionRate, SessionTableFull,
    };
    matches!(
        reason,
        DhcpLimit
            | DhcpPoolExhausted
            | FlowLimit
            | FragmentLimit
            | NeighbourTableFull
            | PortLimit
            | PortsExhausted
            | SessionLimit
            | SessionRate
            | SessionTableFull
    )
}

impl Tracing {
    /// A limit was reached, and this frame refused.
    pub(super) fn tell_limit(&self, network: usize, port: PortId, reason: DropReason, frame: &[u8], now: Instant) {
        let Some((network, name)) = self.names_of(network, port) else { return };
        let sender = frame.get(6..12).and_then(|bytes| bytes.try_into().ok());
        self.events.tell(EventKind::Limit, &network, Some(name), now, |event| {
            event.mac = sender.map(Mac);
            event.reason = Some(reason.name().into());
            event.text = Some(reason.text().into());
        });
    }
}

impl Worker {
    /// Lets somebody listen.
    pub(super) fn listen_to_events(&self, network: Option<&str>) -> Result<Events, Refusal> {
        self.network(network)?;
        Ok(self.tracing.events.listen())
    }

    /// A container was attached, and its ports published.
    pub(super) fn tell_attached(&self, port: &PortView, now: Instant) {
        self.tracing.events.tell(EventKind::Attach, &port.network, Some(port.name.clone()), now, |event| {
            (event.ip, event.mac) = (port.ip, Some(port.mac));
        });
        self.tell_published(EventKind::Publish, &port.name, &port.published, now);
    }

    /// Ports of a container were published, or are no longer.
    pub(super) fn tell_published(&self, kind: EventKind, name: &str, published: &[Published], now: Instant) {
        if published.is_empty() {
            return;
        }
        // One that is away has no network to speak of, and nothing of it was open.
        if let Some(lan) = self.networks.iter().find(|lan| lan.members.contains_key(name)) {
            self.tracing.events.tell(kind, &lan.plan.name, Some(name.to_owned()), now, |event| {
                event.published = published.to_vec();
            });
        }
    }
}

/// The parts of a line of the lease file that are told.
#[derive(Deserialize)]
struct Line {
    ip: std::net::Ipv4Addr,
    state: String,
    mac: Mac,
    name: Option<String>,
    expires: Option<u64>,
}

/// Addresses changed hands: these lines were written into the lease file.
pub(super) fn tell_leases(teller: &Teller, lan: &Lan, lines: &[Vec<u8>], now: Instant) {
    // A torn line of an earlier daemon may have left a line feed in front.
    for line in lines.iter().filter_map(|line| serde_json::from_slice::<Line>(line).ok()) {
        let member = || lan.members.iter().find(|(_, member)| member.mac == line.mac).map(|(name, _)| name.clone());
        let name = line.name.clone().or_else(member);
        teller.tell(EventKind::Lease, &lan.plan.name, name, now, |event| {
            (event.ip, event.mac) = (Some(line.ip), Some(line.mac));
            event.state = Some(line.state.to_lowercase());
            event.expires = line.expires;
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;

    fn tell(teller: &Teller, name: &str) {
        teller.tell(EventKind::Attach, "lab", Some(name.into()), Instant::from_secs(2), |_| {});
    }

    #[test]
    fn who_listens_hears_what_happens_from_then_on() {
        let teller = Teller::new(Duration::from_secs(1_000));
        tell(&teller, "before");
        let mut events = teller.listen();
        tell(&teller, "web");
        let event = events.try_recv().unwrap();
        assert_eq!((event.time_ns, event.name.as_deref()), (1_002_000_000_000, Some("web")));
        assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
    }

    #[test]
    fn a_slow_listener_misses_the_oldest_and_learns_how_many() {
        let teller = Teller::new(Duration::ZERO);
        let mut events = teller.listen();
        (0..WAITING + 3).for_each(|number| tell(&teller, &number.to_string()));
        assert_eq!(events.try_recv(), Err(TryRecvError::Lagged(3)));
        assert_eq!(events.try_recv().unwrap().name.as_deref(), Some("3"));
    }

    #[test]
    fn while_nobody_listens_nothing_is_put_together() {
        let teller = Teller::new(Duration::ZERO);
        teller.tell(EventKind::Attach, "lab", None, Instant::ZERO, |_| unreachable!("nobody hears this"));
    }
}
