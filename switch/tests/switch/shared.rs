//! Poll threads over one FDB.

use std::sync::Arc;
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
