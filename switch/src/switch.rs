//! One thread's view of a network: its ports, its way into the FDB, and the decision about each frame.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tapswitch_wire::{DropCounters, DropReason, FrameOf, Instant, Journey, Mac, PortId, Stage, Step, ethertype};

use crate::cache::Cache;
use crate::fdb::{self, Fdb, FdbEntry, Learning, Limits, Station};
use crate::ports::{Port, PortConfig, PortCounters, Ports};

/// Never on a wire (802.1Q-2018 Table 9-2).
const RESERVED_VID: u16 = 4095;

/// How long and how much the switch remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// How long a station stays known after its last frame; rounded up to whole seconds. Default 300 s (802.1D-2004
    /// Table 7-5, which allows 10 s to 1 000 000 s).
    pub ageing: Duration,
    /// How many learned addresses the FDB holds. Default 8192.
    pub max_entries: usize,
    /// How many of them may stand behind one port. Default 1024.
    pub max_entries_per_port: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { ageing: Duration::from_secs(300), max_entries: 8192, max_entries_per_port: 1024 }
    }
}

impl Config {
    fn limits(&self) -> Limits {
        Limits {
            ageing: self.ageing.as_secs().saturating_add(u64::from(self.ageing.subsec_nanos() > 0)),
            entries: self.max_entries,
            entries_per_port: self.max_entries_per_port,
        }
    }
}

/// The learning switch of one network, or one poll thread's part in it.
///
/// With several threads, every thread's switch knows every port of the network; a removed port is added again only
/// after all of them have removed it.
#[derive(Debug)]
pub struct Switch {
    limits: Limits,
    fdb: Arc<Fdb>,
    cache: Cache,
    ports: Ports,
}

impl Switch {
    /// A switch without ports and with an FDB of its own.
    pub fn new(config: Config) -> Switch {
        Switch::with_fdb(config, Arc::new(Fdb::new()))
    }

    /// A switch without ports that shares its FDB with those of other threads, which have the same `config`.
    pub fn with_fdb(config: Config, fdb: Arc<Fdb>) -> Switch {
        Switch { limits: config.limits(), cache: Cache::new(fdb.seed()), fdb, ports: Ports::default() }
    }

    /// One that knows what this one knows, with counters at zero and an FDB of its own: what it does changes nothing here.
    pub fn copy(&self) -> Switch {
        let fdb = Arc::new(self.fdb.copy());
        Switch { limits: self.limits, cache: Cache::new(fdb.seed()), fdb, ports: self.ports.copy() }
    }

    /// The FDB, for [`Switch::with_fdb`].
    pub fn shared_fdb(&self) -> &Arc<Fdb> {
        &self.fdb
    }

    /// Attaches a port. For a port that is attached already it changes the configuration and keeps the counters.
    ///
    /// A number of [`MAX_PORTS`](crate::MAX_PORTS) or more is not attached: its frames are those of an unknown port.
    pub fn add_port(&mut self, port: PortId, config: PortConfig) {
        self.ports.add(port, config);
    }

    /// Detaches a port and forgets its counters and every station behind it, pinned ones too (802.1D 7.9.2).
    pub fn remove_port(&mut self, port: PortId) {
        self.ports.remove(port);
        self.fdb.flush(port);
    }

    /// Makes `mac` a static entry: it stands behind `port`, whatever frames say, until [`Switch::unpin`] or until the
    /// port is removed. Replaces what was known of it. A group address or zero is nobody's and is not pinned.
    pub fn pin(&mut self, mac: Mac, port: PortId) {
        if mac.is_station() {
            self.fdb.pin(fdb::key(mac), port);
        }
    }

    /// Forgets a static entry; a learned one stays.
    pub fn unpin(&mut self, mac: Mac) {
        self.fdb.unpin(fdb::key(mac));
    }

    /// Learns the source, looks up the destination, and puts the ports by which the frame leaves into `out`.
    ///
    /// `out` is cleared first. Each port is in it at most once, in the order of their numbers, and never `ingress`.
    /// Counts the frame, and if it is dropped the drop, on `ingress`.
    ///
    /// # Errors
    /// The reason why the frame leaves by no port; `out` is empty then. A flood that finds ports, but none whose MTU is
    /// large enough, is [`DropReason::AboveMtu`]; one that finds no port is [`DropReason::NoOtherPort`].
    pub fn decide<B: Deref<Target = [u8]>>(
        &mut self,
        ingress: PortId,
        frame: &FrameOf<B>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut Vec<PortId>,
    ) -> Result<(), DropReason> {
        out.clear();
        if let Some(port) = self.ports.get_mut(ingress) {
            port.counters.rx_frames += 1;
            port.counters.rx_bytes += frame.bytes().len() as u64;
        }
        let now = now.as_secs();
        let decision = self
            .admit(ingress, frame, journey)
            .and_then(|()| self.learn(ingress, frame.src_mac(), now, journey))
            .and_then(|()| self.forward(ingress, frame, now, journey, out));
        if let Err(reason) = decision {
            self.ports.count_drop(ingress, reason);
        }
        decision
    }

    /// Counts a frame that was written to a port.
    pub fn sent(&mut self, port: PortId, bytes: usize) {
        if let Some(port) = self.ports.get_mut(port) {
            port.counters.tx_frames += 1;
            port.counters.tx_bytes += bytes as u64;
        }
    }

    /// Counts a frame that the owner of the I/O, or a stage behind the switch, dropped on account of this port.
    pub fn dropped(&mut self, port: PortId, reason: DropReason) {
        self.ports.count_drop(port, reason);
    }

    /// Forgets the stations that have been silent for too long.
    pub fn poll(&mut self, now: Instant) {
        self.fdb.sweep(now.as_secs(), &self.limits);
    }

    /// When [`Switch::poll`] has something to do. `None` while nothing is learned.
    pub fn deadline(&self) -> Option<Instant> {
        self.fdb.next_sweep().map(|second| Instant::ZERO + Duration::from_secs(second))
    }

    /// The stations that are known, in the order of their addresses.
    pub fn fdb(&self, now: Instant) -> Vec<FdbEntry> {
        self.fdb.entries(now.as_secs(), &self.limits)
    }

    /// What this thread counted for a port; `None` if it is not attached.
    pub fn counters(&self, port: PortId) -> Option<&PortCounters> {
        self.ports.get(port).map(|port| &port.counters)
    }

    /// Drops on account of ports that are not attached.
    pub fn stray_drops(&self) -> &DropCounters {
        &self.ports.stray
    }

    /// The attached ports in the order of their numbers.
    pub fn ports(&self) -> impl Iterator<Item = PortId> {
        self.ports.iter().map(|(id, _)| id)
    }

    /// Whether a frame like this is relayed at all. One that is not teaches nothing either.
    fn admit<B: Deref<Target = [u8]>>(
        &self,
        ingress: PortId,
        frame: &FrameOf<B>,
        journey: &mut impl Journey,
    ) -> Result<(), DropReason> {
        if self.ports.get(ingress).is_none() {
            return refuse(journey, Stage::Port, DropReason::UnknownPort);
        }
        if frame.parsed().vlan.is_some_and(|tag| tag.vid() == RESERVED_VID) {
            return refuse(journey, Stage::Port, DropReason::ReservedVlan);
        }
        if !frame.src_mac().is_station() {
            return refuse(journey, Stage::Port, DropReason::SourceNotStation);
        }
        // MAC control frames stay on their link whatever their destination is (IEEE 802.3 clause 31).
        if frame.dst_mac().is_link_reserved() || frame.parsed().ethertype == ethertype::PAUSE {
            return refuse(journey, Stage::Port, DropReason::ReservedMulticast);
        }
        Ok(())
    }

    /// Notes that the station stands behind `ingress`.
    fn learn(&mut self, ingress: PortId, mac: Mac, now: u64, journey: &mut impl Journey) -> Result<(), DropReason> {
        let key = fdb::key(mac);
        let generation = self.fdb.generation();
        let cached = self.cache.get(key, generation).filter(|station| station.port == ingress);
        if let Some(station) = cached.filter(|station| station.pinned || station.seen >= now) {
            // Told as the FDB would: whether the cache knew is no business of the reader.
            let learning = if station.pinned { Learning::Pinned } else { Learning::Refreshed };
            journey.note(|| describe(learning, mac, ingress));
            return Ok(());
        }
        let learning = self.fdb.learn(key, ingress, now, &self.limits);
        let pinned = learning == Learning::Pinned;
        if pinned || matches!(learning, Learning::Learned | Learning::Refreshed) {
            self.cache.put(key, generation, Station { port: ingress, pinned, seen: now });
        }
        if let Some(port) = self.ports.get_mut(ingress) {
            match learning {
                Learning::Learned => port.counters.learned += 1,
                Learning::Moved { .. } => port.counters.moves += 1,
                Learning::Refused => port.counters.learn_refused += 1,
                Learning::Refreshed | Learning::Pinned | Learning::Claimed { .. } => {}
            }
        }
        journey.note(|| describe(learning, mac, ingress));
        match learning {
            Learning::Claimed { .. } => refuse(journey, Stage::Learn, DropReason::SourceIsOurs),
            _ => Ok(()),
        }
    }

    /// Finds the ports by which the frame leaves.
    fn forward<B: Deref<Target = [u8]>>(
        &mut self,
        ingress: PortId,
        frame: &FrameOf<B>,
        now: u64,
        journey: &mut impl Journey,
        out: &mut Vec<PortId>,
    ) -> Result<(), DropReason> {
        let mac = frame.dst_mac();
        let len = frame.meta().packet_len(usize::from(frame.parsed().l3_start), frame.bytes());
        if mac.is_multicast() {
            let group = if mac.is_broadcast() { "everybody" } else { "a group" };
            journey.note(|| Step::looked_up(Stage::Lookup, format!("{mac} is {group}")));
            return self.flood(ingress, len, journey, out);
        }
        match self.lookup(mac, now) {
            Some(station) => {
                let how = if station.pinned { "pinned to" } else { "known to be behind" };
                journey.note(|| Step::looked_up(Stage::Lookup, format!("{mac} is {how} port {}", station.port)));
                self.unicast(ingress, station.port, len, journey, out)
            }
            None => {
                journey.note(|| Step::looked_up(Stage::Lookup, format!("nobody knows where {mac} is")));
                self.flood(ingress, len, journey, out)
            }
        }
    }

    /// The station with this address, unless it is unknown or has been silent for too long.
    fn lookup(&mut self, mac: Mac, now: u64) -> Option<Station> {
        let key = fdb::key(mac);
        let is_live = |station: &Station| station.is_live(now, self.limits.ageing);
        let generation = self.fdb.generation();
        // An entry that looks too old here may have been refreshed by another thread.
        if let Some(station) = self.cache.get(key, generation).filter(is_live) {
            return Some(station);
        }
        let station = self.fdb.lookup(key).filter(is_live)?;
        self.cache.put(key, generation, station);
        Some(station)
    }

    fn unicast(
        &mut self,
        ingress: PortId,
        egress: PortId,
        len: usize,
        journey: &mut impl Journey,
        out: &mut Vec<PortId>,
    ) -> Result<(), DropReason> {
        if egress == ingress {
            return refuse(journey, Stage::Lookup, DropReason::SameSegment);
        }
        let (Some(from), Some(to)) = (self.ports.get(ingress), self.ports.get(egress)) else {
            return refuse(journey, Stage::Lookup, DropReason::UnknownPort);
        };
        if from.is_isolated() && to.is_isolated() {
            return refuse(journey, Stage::Lookup, DropReason::Isolated);
        }
        if !to.takes(len) {
            journey.note(|| too_large(egress, to.mtu(), len));
            return refuse(journey, Stage::Lookup, DropReason::AboveMtu);
        }
        out.push(egress);
        journey.note(|| Step::decided(Stage::Lookup, format!("forward to port {egress}")));
        Ok(())
    }

    fn flood(
        &mut self,
        ingress: PortId,
        len: usize,
        journey: &mut impl Journey,
        out: &mut Vec<PortId>,
    ) -> Result<(), DropReason> {
        let isolated = self.ports.get(ingress).is_some_and(Port::is_isolated);
        let mut reason = DropReason::NoOtherPort;
        for (id, to) in self.ports.iter_mut() {
            if id == ingress || isolated && to.is_isolated() {
                continue;
            }
            if to.takes(len) {
                out.push(id);
            } else {
                to.counters.drops.count(DropReason::AboveMtu);
                journey.note(|| too_large(id, to.mtu(), len));
                reason = DropReason::AboveMtu;
            }
        }
        if out.is_empty() {
            return refuse(journey, Stage::Lookup, reason);
        }
        if let Some(from) = self.ports.get_mut(ingress) {
            from.counters.flooded += 1;
        }
        journey.note(|| {
            let ports: Vec<_> = out.iter().map(PortId::to_string).collect();
            Step::decided(Stage::Lookup, format!("flood to port {}", ports.join(", ")))
        });
        Ok(())
    }
}

/// What a thread learned, for people.
fn describe(learning: Learning, mac: Mac, ingress: PortId) -> Step {
    match learning {
        Learning::Learned => Step::changed(Stage::Learn, format!("learned: {mac} is behind port {ingress}")),
        Learning::Refreshed => Step::changed(Stage::Learn, format!("refreshed: {mac} is still behind port {ingress}")),
        Learning::Moved { from } => {
            Step::changed(Stage::Learn, format!("moved: {mac} went from port {from} to port {ingress}"))
        }
        Learning::Refused => Step::decided(
            Stage::Learn,
            format!("not learned: no room for {mac} in the FDB, or in port {ingress}'s share"),
        ),
        Learning::Pinned => Step::looked_up(Stage::Learn, format!("{mac} is pinned to port {ingress}")),
        Learning::Claimed { owner } => Step::looked_up(
            Stage::Learn,
            format!("{mac} is pinned to port {owner}, but the frame came from port {ingress}"),
        ),
    }
}

fn too_large(egress: PortId, mtu: u16, len: usize) -> Step {
    Step::looked_up(Stage::Lookup, format!("port {egress} takes packets of {mtu} bytes, this one has {len}"))
}

/// Ends the frame and tells why.
fn refuse(journey: &mut impl Journey, stage: Stage, reason: DropReason) -> Result<(), DropReason> {
    journey.note(|| Step::decided(stage, format!("drop, {reason}: {}", reason.text())));
    Err(reason)
}
