//! An obvious switch (vectors and linear scans) beside the real one, under random frames, times and changes.
//!
//! The real one is two switches over one FDB, and chance says which of them handles a frame. So every stale copy that
//! a cache could hold would show.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tapswitch_switch::{Config, Fdb, FdbEntry, PortConfig, PortCounters, Switch};
use tapswitch_wire::{DropReason, Frame, Instant, Mac, Meta, PortId, Unheard};

use crate::world::tagged;

const CONFIG: Config = Config { ageing: Duration::from_secs(3), max_entries: 5, max_entries_per_port: 2 };

/// The station with the number `n`.
fn station(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

/// Picks one counter of a port.
type Counter = fn(&mut PortCounters) -> &mut u64;

#[derive(Clone, Debug)]
enum Op {
    Send { switch: usize, port: u32, src: Mac, dst: Mac, vid: u16, len: usize },
    Pass(Duration),
    Poll { switch: usize },
    Add { port: u32, config: PortConfig },
    Remove { port: u32 },
    Pin { switch: usize, mac: Mac, port: u32 },
    Unpin { switch: usize, mac: Mac },
}

fn op() -> impl Strategy<Value = Op> {
    let mac = || {
        prop_oneof![
            20 => (1..10u8).prop_map(station),
            3 => Just(Mac::BROADCAST),
            1 => Just(Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e])),
            1 => Just(Mac::ZERO),
        ]
    };
    let len = prop_oneof![8 => Just(100usize), 1 => Just(1000), 1 => Just(1001), 1 => Just(1501)];
    let vid = prop_oneof![10 => 0..4096u16, 1 => Just(4095)];
    let config = (prop_oneof![Just(1000), Just(1500)], any::<bool>());
    prop_oneof![
        20 => (0..2usize, 0..6u32, mac(), mac(), vid, len)
            .prop_map(|(switch, port, src, dst, vid, len)| Op::Send { switch, port, src, dst, vid, len }),
        4 => (1..2500u64).prop_map(|millis| Op::Pass(Duration::from_millis(millis))),
        2 => (0..2usize).prop_map(|switch| Op::Poll { switch }),
        2 => (0..6u32, config)
            .prop_map(|(port, (mtu, isolated))| Op::Add { port, config: PortConfig { mtu, isolated } }),
        1 => (0..6u32).prop_map(|port| Op::Remove { port }),
        1 => (0..2usize, mac(), 0..6u32).prop_map(|(switch, mac, port)| Op::Pin { switch, mac, port }),
        1 => (0..2usize, mac()).prop_map(|(switch, mac)| Op::Unpin { switch, mac }),
    ]
}

#[derive(Default)]
struct Model {
    entries: Vec<FdbEntry>,
    ports: Vec<(u32, PortConfig, PortCounters)>,
    /// Seconds since the beginning; `FdbEntry::age` holds the second of the last frame instead of an age.
    second: u64,
}

impl Model {
    fn is_live(&self, entry: &FdbEntry) -> bool {
        entry.is_static || self.second - entry.age <= CONFIG.ageing.as_secs()
    }

    fn find(&self, mac: Mac) -> Option<usize> {
        self.entries.iter().position(|entry| entry.mac == mac)
    }

    fn port(&mut self, port: u32) -> Option<&mut (u32, PortConfig, PortCounters)> {
        self.ports.iter_mut().find(|(id, ..)| *id == port)
    }

    fn has_room(&self, port: u32) -> bool {
        let behind = self.entries.iter().filter(|entry| !entry.is_static && entry.port.0 == port);
        behind.count() < CONFIG.max_entries_per_port
    }

    /// Learns, and returns which counter that raised.
    fn learn(&mut self, mac: Mac, port: u32) -> Result<Option<Counter>, DropReason> {
        let new = FdbEntry { mac, port: PortId(port), age: self.second, is_static: false };
        let Some(at) = self.find(mac) else {
            let learned = self.entries.iter().filter(|entry| !entry.is_static).count();
            if learned >= CONFIG.max_entries || !self.has_room(port) {
                return Ok(Some(|counters| &mut counters.learn_refused));
            }
            self.entries.push(new);
            return Ok(Some(|counters| &mut counters.learned));
        };
        let old = self.entries[at];
        if old.is_static {
            return if old.port.0 == port { Ok(None) } else { Err(DropReason::SourceIsOurs) };
        }
        if old.port.0 != port && !self.has_room(port) {
            return Ok(Some(|counters| &mut counters.learn_refused));
        }
        self.entries[at] = new;
        Ok(match (self.is_live(&old), old.port.0 == port) {
            (false, _) => Some(|counters| &mut counters.learned),
            (true, false) => Some(|counters| &mut counters.moves),
            (true, true) => None,
        })
    }

    fn decide(&mut self, port: u32, src: Mac, dst: Mac, vid: u16, len: usize) -> Result<Vec<u32>, DropReason> {
        let Some((_, from, counters)) = self.port(port) else { return Err(DropReason::UnknownPort) };
        let from = *from;
        counters.rx_frames += 1;
        counters.rx_bytes += len as u64 + 18;
        if vid == 4095 {
            return Err(DropReason::ReservedVlan);
        }
        if !src.is_station() {
            return Err(DropReason::SourceNotStation);
        }
        if dst.is_link_reserved() {
            return Err(DropReason::ReservedMulticast);
        }
        if let (Some(raised), Some((.., counters))) = (self.learn(src, port)?, self.port(port)) {
            *raised(counters) += 1;
        }
        let known = self.find(dst).map(|at| self.entries[at]).filter(|entry| self.is_live(entry));
        let apart = |id: u32, to: &PortConfig| from.isolated && to.isolated && port != 0 && id != 0;
        if let Some(entry) = known {
            return match self.port(entry.port.0) {
                _ if entry.port.0 == port => Err(DropReason::SameSegment),
                None => Err(DropReason::UnknownPort),
                Some((id, to, _)) if apart(*id, to) => Err(DropReason::Isolated),
                Some((_, to, _)) if len > usize::from(to.mtu) => Err(DropReason::AboveMtu),
                Some((id, ..)) => Ok(vec![*id]),
            };
        }
        let mut others: Vec<_> =
            self.ports.iter_mut().filter(|(id, config, _)| *id != port && !apart(*id, config)).collect();
        others.sort_by_key(|(id, ..)| *id);
        let any = !others.is_empty();
        let mut out = Vec::new();
        for (id, config, counters) in others {
            if len <= usize::from(config.mtu) {
                out.push(*id);
            } else {
                counters.drops.count(DropReason::AboveMtu);
            }
        }
        if out.is_empty() {
            return Err(if any { DropReason::AboveMtu } else { DropReason::NoOtherPort });
        }
        if let Some((.., counters)) = self.port(port) {
            counters.flooded += 1;
        }
        Ok(out)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_switch_does_what_the_obvious_one_does(ops in prop::collection::vec(op(), 1..150)) {
        let fdb = Arc::new(Fdb::new());
        let mut switches = [Switch::with_fdb(CONFIG, fdb.clone()), Switch::with_fdb(CONFIG, fdb)];
        let mut model = Model::default();
        let mut now = Instant::ZERO;
        let mut out = Vec::new();
        for port in 0..4 {
            let config = PortConfig { mtu: 1500, isolated: false };
            model.ports.push((port, config, PortCounters::default()));
            switches.iter_mut().for_each(|switch| switch.add_port(PortId(port), config));
        }
        for op in ops {
            match op {
                Op::Send { switch, port, src, dst, vid, len } => {
                    let mut bytes = tagged(src, dst, vid, len);
                    let frame = Frame::parse(Meta::PLAIN, &mut bytes).unwrap();
                    let decision = switches[switch].decide(PortId(port), &frame, now, &mut Unheard, &mut out);
                    let way = decision.map(|()| out.iter().map(|port| port.0).collect::<Vec<_>>());
                    let expected = model.decide(port, src, dst, vid, len);
                    if let (Err(reason), Some((.., counters))) = (&expected, model.port(port)) {
                        counters.drops.count(*reason);
                    }
                    prop_assert_eq!(way, expected);
                }
                Op::Pass(time) => {
                    now = now + time;
                    model.second = now.as_secs();
                }
                Op::Poll { switch } => {
                    switches[switch].poll(now);
                    let live: Vec<_> = model.entries.iter().copied().filter(|entry| model.is_live(entry)).collect();
                    model.entries = live;
                }
                Op::Add { port, config } => {
                    switches.iter_mut().for_each(|switch| switch.add_port(PortId(port), config));
                    match model.port(port) {
                        Some((_, old, _)) => *old = config,
                        None => model.ports.push((port, config, PortCounters::default())),
                    }
                }
                Op::Remove { port } => {
                    switches.iter_mut().for_each(|switch| switch.remove_port(PortId(port)));
                    model.ports.retain(|(id, ..)| *id != port);
                    model.entries.retain(|entry| entry.port.0 != port);
                }
                Op::Pin { switch, mac, port } => {
                    switches[switch].pin(mac, PortId(port));
                    if mac.is_station() {
                        model.entries.retain(|entry| entry.mac != mac);
                        model.entries.push(FdbEntry { mac, port: PortId(port), age: 0, is_static: true });
                    }
                }
                Op::Unpin { switch, mac } => {
                    switches[switch].unpin(mac);
                    model.entries.retain(|entry| entry.mac != mac || !entry.is_static);
                }
            }
            check(&model, &switches, now)?;
        }
    }
}

/// Everything that can be seen from outside is the same.
fn check(model: &Model, switches: &[Switch; 2], now: Instant) -> Result<(), TestCaseError> {
    let mut entries: Vec<_> = model.entries.iter().copied().filter(|entry| model.is_live(entry)).collect();
    entries.sort_by_key(|entry| entry.mac);
    for entry in &mut entries {
        entry.age = if entry.is_static { 0 } else { model.second - entry.age };
    }
    prop_assert_eq!(switches[0].fdb(now), entries);
    for (port, _, expected) in &model.ports {
        let mut counters = PortCounters::default();
        for switch in switches {
            counters.add(switch.counters(PortId(*port)).unwrap());
        }
        prop_assert_eq!(&counters, expected, "port {}", port);
    }
    // Whoever is learned runs out some day, and somebody wakes for it.
    let soonest = model.entries.iter().filter(|entry| !entry.is_static).map(|entry| entry.age).min();
    if let Some(second) = soonest {
        let latest = Instant::from_secs(second + CONFIG.ageing.as_secs() + 1);
        prop_assert!(switches[1].deadline().is_some_and(|deadline| deadline <= latest));
    }
    Ok(())
}
