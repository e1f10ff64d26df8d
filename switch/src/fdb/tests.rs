//! What cannot be seen from outside: exact counts, generations, and which locks are not taken.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tapswitch_wire::{DropReason, Frame, Instant, Meta, Unheard};

use super::*;
use crate::cache::Cache;
use crate::{Config, PortConfig, Switch};

const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const LIMITS: Limits = Limits { ageing: 300, entries: 3, entries_per_port: 2 };

fn counts(fdb: &Fdb) -> (usize, usize, usize) {
    let by_port = |port: usize| fdb.learned_by_port[port].load(Ordering::Relaxed);
    (fdb.learned.load(Ordering::Relaxed), by_port(1), by_port(2))
}

#[test]
fn an_address_and_its_key_are_one_to_one() {
    for address in [Mac::ZERO, A, Mac::BROADCAST] {
        assert_eq!(mac(key(address)), address);
    }
}

#[test]
fn counts_follow_the_entries_through_every_change() {
    let fdb = Fdb::new();
    let (one, two) = (PortId(1), PortId(2));
    for (key, port, learning, expected) in [
        (10, one, Learning::Learned, (1, 1, 0)),
        (10, one, Learning::Refreshed, (1, 1, 0)),
        (11, one, Learning::Learned, (2, 2, 0)),
        (12, one, Learning::Refused, (2, 2, 0)),
        (11, two, Learning::Moved { from: one }, (2, 1, 1)),
        (12, two, Learning::Learned, (3, 1, 2)),
        (13, one, Learning::Refused, (3, 1, 2)),
        (10, two, Learning::Refused, (3, 1, 2)),
    ] {
        assert_eq!((fdb.learn(key, port, 0, &LIMITS), counts(&fdb)), (learning, expected), "{key} on {port}");
    }
    // Two threads may both have seen the last place free.
    assert_eq!((fdb.insert(13, one, 0, &LIMITS), counts(&fdb)), (Learning::Refused, (3, 1, 2)));
    fdb.pin(12, one);
    assert_eq!(counts(&fdb), (2, 1, 1));
    fdb.pin(12, two);
    fdb.unpin(12);
    fdb.unpin(11);
    assert_eq!(counts(&fdb), (2, 1, 1));
    fdb.flush(two);
    assert_eq!(counts(&fdb), (1, 1, 0));
    fdb.sweep(301, &LIMITS);
    assert_eq!((counts(&fdb), fdb.stations.len()), ((0, 0, 0), 0));
}

#[test]
fn the_generation_tells_of_every_change_that_makes_a_copy_wrong_and_of_no_other() {
    let fdb = Fdb::new();
    let changed = |change: &dyn Fn()| {
        let before = fdb.generation();
        change();
        fdb.generation() != before
    };
    let learn = |port, now| {
        fdb.learn(10, PortId(port), now, &LIMITS);
    };
    assert!(!changed(&|| learn(1, 0)), "no copy says that a station is unknown");
    assert!(!changed(&|| learn(1, 5)));
    assert!(changed(&|| learn(2, 5)));
    assert!(!changed(&|| fdb.flush(PortId(1))));
    assert!(!changed(&|| fdb.unpin(10)));
    assert!(!changed(&|| fdb.sweep(305, &LIMITS)));
    assert!(changed(&|| fdb.sweep(306, &LIMITS)));
    assert!(changed(&|| fdb.pin(10, PortId(1))));
    assert!(changed(&|| fdb.unpin(10)));
    fdb.pin(10, PortId(1));
    assert!(changed(&|| fdb.flush(PortId(1))));
}

#[test]
fn a_sweep_is_due_when_an_entry_can_have_run_out_and_not_before() {
    let fdb = Fdb::new();
    assert_eq!(fdb.next_sweep(), None);
    fdb.learn(10, PortId(1), 50, &LIMITS);
    fdb.learn(11, PortId(2), 70, &LIMITS);
    fdb.pin(12, PortId(3));
    assert_eq!(fdb.next_sweep(), Some(351));
    fdb.learn(10, PortId(1), 100, &LIMITS);
    fdb.sweep(351, &LIMITS);
    assert_eq!(fdb.next_sweep(), Some(371));
    fdb.sweep(500, &LIMITS);
    assert_eq!((fdb.next_sweep(), fdb.stations.len()), (None, 1));
}

/// What `work` returns, if it does so soon: that is, if it waits for no lock that the caller holds.
fn soon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    result.recv_timeout(Duration::from_secs(10)).ok()
}

/// A table for which the two addresses do not meet in one slot of a cache, where they would displace each other.
fn table_without_collision(one: Mac, two: Mac) -> Arc<Fdb> {
    loop {
        let fdb = Arc::new(Fdb::new());
        let cache = Cache::new(fdb.seed());
        if cache.index(key(one)) != cache.index(key(two)) {
            return fdb;
        }
    }
}

fn member(fdb: &Arc<Fdb>) -> Switch {
    let mut switch = Switch::with_fdb(Config::default(), fdb.clone());
    for port in 1..=2 {
        switch.add_port(PortId(port), PortConfig { mtu: 1500, isolated: false });
    }
    switch
}

fn send(switch: &mut Switch, port: u32, src: Mac, dst: Mac, second: u64) -> Result<Vec<PortId>, DropReason> {
    let mut bytes = [&dst.0[..], &src.0[..], &[0; 48]].concat();
    let frame = Frame::parse(Meta::PLAIN, &mut bytes).unwrap();
    let mut out = Vec::new();
    switch.decide(PortId(port), &frame, Instant::from_secs(second), &mut Unheard, &mut out).map(|()| out)
}

#[test]
fn an_established_unicast_frame_takes_no_lock() {
    for (locked, pinned) in [(A, false), (B, false), (A, true), (B, true)] {
        let fdb = table_without_collision(A, B);
        if pinned {
            fdb.pin(key(A), PortId(1));
            fdb.pin(key(B), PortId(2));
        }
        send(&mut member(&fdb), 2, B, Mac::BROADCAST, 1).unwrap();
        let mut switch = member(&fdb);
        send(&mut switch, 1, A, B, 1).unwrap();
        // A learned source is refreshed, under a lock, when a new second begins; a pinned one never is.
        let second = if pinned { 2 } else { 1 };
        let held = fdb.stations.get_mut(&key(locked)).unwrap();
        let way = soon(move || send(&mut switch, 1, A, B, second));
        drop(held);
        assert_eq!(way, Some(Ok(vec![PortId(2)])), "the frame waited for {locked}, pinned: {pinned}");
    }
}

#[test]
fn made_up_sources_take_no_write_lock_once_the_table_or_their_share_is_full() {
    for (entries, entries_per_port) in [(500, 1000), (1000, 500)] {
        let limits = Limits { entries, entries_per_port, ..LIMITS };
        let fdb = Arc::new(Fdb::new());
        for key in 0..500 {
            fdb.learn(key, PortId(1), 0, &limits);
        }
        let held: Vec<_> = (0..500).filter_map(|key| fdb.stations.get(&key)).collect();
        let table = fdb.clone();
        let learning = soon(move || table.learn(1000, PortId(1), 0, &limits));
        drop(held);
        assert_eq!(learning, Some(Learning::Refused));
    }
}
