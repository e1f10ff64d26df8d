//! Poll threads over one FDB.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use tapswitch_switch::{Config, Fdb, Switch};
use tapswitch_wire::{DropReason, Frame, Instant, Mac, Meta, PortId, Unheard};

use crate::world::{A, ALL, B, C, GW, OPEN, ethernet};

const THREADS: u32 = 4;
const FRAMES: u32 = 20_000;
const CONFIG: Config = Config { ageing: Duration::from_secs(2), max_entries: 64, max_entries_per_port: 24 };

fn member(fdb: &Arc<Fdb>) -> Switch {
    let mut switch = Switch::with_fdb(CONFIG, fdb.clone());
    for port in 0..=THREADS {
        switch.add_port(PortId(port), OPEN);
    }
    switch
}

fn send(switch: &mut Switch, port: u32, src: Mac, dst: Mac, now: Instant) -> Result<Vec<PortId>, DropReason> {
    let mut bytes = ethernet(src, dst, 46);
    let frame = Frame::parse(Meta::PLAIN, &mut bytes).unwrap();
    let mut out = Vec::new();
    switch.decide(PortId(port), &frame, now, &mut Unheard, &mut out).map(|()| out)
}

/// A wandering station: each of them speaks from every port in turn.
fn wanderer(n: u32) -> Mac {
    Mac([6, 0, 0, 0, 0, n as u8])
}

#[test]
fn br_3_a_move_seen_by_one_thread_holds_for_all_at_once() {
    let fdb = Arc::new(Fdb::new());
    let (mut one, mut two) = (member(&fdb), member(&fdb));
    let now = Instant::from_secs(5);
    send(&mut one, 1, A, ALL, now).unwrap();
    send(&mut two, 2, B, A, now).unwrap();
    for round in 0..100 {
        let port = 3 + round % 2;
        send(&mut one, port, A, ALL, now).unwrap();
        assert_eq!(send(&mut two, 2, B, A, now), Ok(vec![PortId(port)]));
    }
    two.pin(A, PortId(1));
    assert_eq!(send(&mut one, 3, A, B, now), Err(DropReason::SourceIsOurs));
    two.unpin(A);
    assert_eq!(send(&mut one, 3, A, B, now), Ok(vec![PortId(2)]));
    two.remove_port(PortId(2));
    assert_eq!(send(&mut one, 3, A, B, now).map(|ports| ports.len()), Ok(4), "B is unknown again, and flooded to");
}

#[test]
fn br_8_four_threads_duplicate_nothing_and_keep_every_bound() {
    let fdb = Arc::new(Fdb::new());
    member(&fdb).pin(GW, PortId::GATEWAY);
    let threads: Vec<_> = (1..=THREADS)
        .map(|port| {
            let mut switch = member(&fdb);
            thread::spawn(move || {
                // A generator of its own for each thread, so that a failure can be repeated.
                let mut state = port;
                let mut random = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state >> 8
                };
                for step in 0..FRAMES {
                    let now = Instant::from_millis(u64::from(step));
                    let dst = [GW, ALL, wanderer(random() % 8), Mac([2, 0, 0, port as u8, 0, random() as u8])];
                    let src = match random() % 3 {
                        0 => wanderer(random() % 8),
                        1 => Mac([2, 0, 0, port as u8, 0, random() as u8]),
                        _ => Mac([2, 0, 0, port as u8, 0, 0]),
                    };
                    let dst = dst[random() as usize % dst.len()];
                    match send(&mut switch, port, src, dst, now) {
                        Ok(out) => {
                            assert!(out.is_sorted_by(|a, b| a < b) && !out.contains(&PortId(port)), "{out:?}");
                            assert!(dst != GW || out == [PortId::GATEWAY], "a frame for the gateway went to {out:?}");
                        }
                        Err(reason) => assert_eq!(reason, DropReason::SameSegment),
                    }
                    assert_eq!(send(&mut switch, port, GW, ALL, now), Err(DropReason::SourceIsOurs));
                    match step % 1000 {
                        0 => switch.poll(now),
                        500 => switch.pin(C, PortId(port)),
                        600 => switch.unpin(C),
                        _ => {}
                    }
                }
                switch
            })
        })
        .collect();
    let mut switches: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();

    let now = Instant::from_millis(u64::from(FRAMES));
    let entries = switches[0].fdb(now);
    let behind = |port: u32| entries.iter().filter(|entry| !entry.is_static && entry.port.0 == port).count();
    assert!((1..=THREADS).all(|port| behind(port) <= CONFIG.max_entries_per_port), "{entries:#?}");
    assert!((1..=THREADS).map(behind).sum::<usize>() <= CONFIG.max_entries, "{entries:#?}");
    // Whatever a thread holds in its cache, all of them agree.
    for entry in &entries {
        let ingress = (1..=THREADS).find(|port| *port != entry.port.0).unwrap();
        for switch in &mut switches {
            assert_eq!(send(switch, ingress, B, entry.mac, now), Ok(vec![entry.port]), "{entry:?}");
        }
    }
    // No place was lost or won in the races: the empty table holds exactly what it should.
    for port in 0..=THREADS {
        switches.iter_mut().for_each(|switch| switch.remove_port(PortId(port)));
    }
    assert!(switches[0].fdb(now).is_empty());
    let mut fresh = member(&fdb);
    for port in 1..=THREADS {
        for host in 0..200 {
            send(&mut fresh, port, Mac([2, 0, 0, port as u8, 1, host]), ALL, now).unwrap();
        }
    }
    let learned = [1, 2, 3, 4].map(|port| fresh.counters(PortId(port)).unwrap().learned);
    assert_eq!(learned, [24, 24, 16, 0]);
}

/// Ports 1 to 4 stay, 5 to 8 come and go; thread n reads ports n and n + 4.
struct Network {
    switches: Vec<Mutex<Switch>>,
    /// By port. Odd while no switch has it.
    absences: [AtomicU64; 9],
}

impl Network {
    fn new() -> Network {
        let fdb = Arc::new(Fdb::new());
        let member = |_| {
            let mut switch = Switch::with_fdb(Config::default(), fdb.clone());
            (0..=2 * THREADS).for_each(|port| switch.add_port(PortId(port), OPEN));
            Mutex::new(switch)
        };
        let switches = (0..THREADS).map(member).collect();
        Network { switches, absences: Default::default() }
    }

    /// One thread's switch, between two of its frames.
    fn switch(&self, thread: u32) -> MutexGuard<'_, Switch> {
        self.switches[thread as usize - 1].lock().unwrap()
    }

    fn absence(&self, port: u32) -> u64 {
        self.absences[port as usize].load(Ordering::SeqCst)
    }

    /// Detaches a port and attaches it again, as the owner of the ports does: from every switch, one after the other.
    fn replace(&self, port: u32, now: Instant) {
        (1..=THREADS).for_each(|thread| self.switch(thread).remove_port(PortId(port)));
        self.absences[port as usize].fetch_add(1, Ordering::SeqCst);
        for thread in 1..=THREADS {
            let entries = self.switch(thread).fdb(now);
            assert!(entries.iter().all(|entry| entry.port != PortId(port)), "a station stayed: {entries:#?}");
            assert_eq!(send(&mut self.switch(thread), port, C, ALL, now), Err(DropReason::UnknownPort));
        }
        self.absences[port as usize].fetch_add(1, Ordering::SeqCst);
        (1..=THREADS).for_each(|thread| self.switch(thread).add_port(PortId(port), OPEN));
    }

    /// What a thread does with one frame; nothing if the port is away.
    fn forward(&self, thread: u32, port: u32, src: Mac, dst: Mac, now: Instant) -> Option<Vec<PortId>> {
        let before: Vec<_> = (0..=2 * THREADS).map(|port| self.absence(port)).collect();
        let mut switch = self.switch(thread);
        let way = send(&mut switch, port, src, dst, now);
        let everybody: Vec<_> = switch.ports().filter(|other| *other != PortId(port)).collect();
        drop(switch);
        let out = match way {
            Ok(out) => out,
            // Either it came from a port that is being removed, or another thread knows a station behind one that this
            // thread has removed already, or stations moved here meanwhile.
            Err(reason) => {
                assert!(matches!(reason, DropReason::UnknownPort | DropReason::SameSegment), "{reason}");
                return None;
            }
        };
        assert!(out.len() == 1 || out == everybody, "neither to one port nor to all: {out:?} of {everybody:?}");
        for port in &out {
            let absence = before[port.0 as usize];
            let gone = absence % 2 == 1 && absence == self.absence(port.0);
            assert!(!gone, "port {port} has been removed from all switches");
        }
        Some(out)
    }
}

/// A station that stays behind the port that bears the thread's number.
fn resident(thread: u32) -> Mac {
    Mac([2, 0, 0, 0, 1, thread as u8])
}

#[test]
fn br_4_ports_come_and_go_under_four_threads_and_no_station_is_lost_or_kept() {
    let network = Network::new();
    network.switch(1).pin(GW, PortId::GATEWAY);
    let now = Instant::from_secs(5);
    for thread in 1..=THREADS {
        send(&mut network.switch(thread), thread, resident(thread), ALL, now).unwrap();
    }
    let rounds = thread::scope(|scope| {
        let network = &network;
        let work = |thread: u32| {
            let mut state = thread;
            let mut random = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 8
            };
            for step in 0..FRAMES {
                let now = now + Duration::from_millis(u64::from(step));
                let port = if random() % 2 == 0 { thread } else { thread + THREADS };
                // Whoever comes by a port that goes wanders; whoever lives here is heard now and then.
                let lives = port == thread && random() % 4 == 0;
                let src = if lives { resident(thread) } else { wanderer(random() % 8) };
                let host = random() % THREADS + 1;
                let (dst, only) = match random() % 4 {
                    0 => (GW, Some(0)),
                    1 => (wanderer(random() % 8), None),
                    2 => (ALL, None),
                    _ => (resident(host), (host != port).then_some(host)),
                };
                let out = network.forward(thread, port, src, dst, now);
                if let (Some(only), Some(out)) = (only, out) {
                    assert_eq!(out, [PortId(only)], "everybody knows {dst}");
                }
                // The owner waits for its turn, and locks are not fair.
                thread::yield_now();
            }
        };
        let threads: Vec<_> = (1..=THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        let mut rounds = 0;
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            network.replace(THREADS + 1 + rounds % THREADS, now);
            rounds += 1;
        }
        rounds
    });
    assert!(rounds > 20, "ports came and went {rounds} times only");

    // Everybody is where he was heard last, for every thread.
    let now = now + Duration::from_millis(u64::from(FRAMES));
    for n in 0..8 {
        let (thread, port) = (n % THREADS + 1, n + 1);
        send(&mut network.switch(thread), port, wanderer(n), ALL, now).unwrap();
    }
    let stations = (0..8).map(|n| (wanderer(n), n + 1)).chain((1..=THREADS).map(|thread| (resident(thread), thread)));
    for (mac, port) in stations {
        for thread in 1..=THREADS {
            assert_eq!(send(&mut network.switch(thread), 0, GW, mac, now), Ok(vec![PortId(port)]), "{mac}");
        }
    }
    (1..=2 * THREADS).for_each(|port| network.replace(port, now));
    let left = network.switch(1).fdb(now);
    assert!(left.len() == 1 && left[0].mac == GW, "{left:#?}");
}
