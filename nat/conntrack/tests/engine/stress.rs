//! Many threads at once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tapswitch_conntrack::{Config, Dependence, Realm, Tuple};
use tapswitch_wire::{Endpoint, Frame, Instant};

use crate::world::{Inside, OURS, Outside, Packet, TCP, UDP, World, config, container, forward, inbound, outbound};

const ROUNDS: u32 = 4_000;

/// A packet through a translator that others use at the same time: its ends when it has left.
fn send(world: &World, realm: Realm, owner: u32, packet: &Packet, now: Instant) -> Option<(Realm, Tuple)> {
    let Packet { meta, mut bytes } = packet.clone();
    let mut frame = Frame::parse(meta, &mut bytes[..]).unwrap();
    let egress = match world.nat.pass(realm, &mut frame, 1500, now) {
        Some(passed) => passed.egress,
        None => {
            let way = world.nat.admit(realm, &frame, owner, now).ok()?;
            world.nat.note_hop(&way, container(250), crate::world::MAC, now);
            frame.rewrite(&way.rewrite);
            way.egress
        }
    };
    let is = Tuple::read(&frame).unwrap();
    assert!(frame.ipv4_checksum_ok() && (frame.transport_checksum_ok()), "{is}");
    Some((egress, is))
}

#[test]
fn threads_that_send_and_threads_that_change_the_rules_do_not_confuse_each_other() {
    let filtering = Dependence::EndpointIndependent;
    let mut world = World::new(Config { filtering, port_range: 40_000..=40_999, ..config() });
    let (clock, is_over) = (AtomicU64::new(world.now.as_nanos()), AtomicBool::new(false));
    let now = || Instant::from_nanos(clock.load(Ordering::Relaxed));
    thread::scope(|scope| {
        let (world, now, is_over) = (&world, &now, &is_over);
        let senders: Vec<_> = (0..2u32)
            .map(|thread| {
                scope.spawn(move || {
                    let (mut there, mut back) = (0, 0);
                    for n in 0..ROUNDS {
                        let protocol = if n % 3 == 0 { TCP } else { UDP };
                        // Both threads send from the same endpoints, to the same hosts and to others.
                        let from = (2 + n % 3, 4000 + (n % 7) as u16);
                        let tuple = outbound(protocol, from, (1 + (n + thread) % 5, 50));
                        if let Some((egress, out)) = send(world, Inside, from.0, &Packet::first(tuple), now()) {
                            assert_eq!((egress, out.src.ip, out.dst), (Outside, OURS, tuple.dst));
                            there += 1;
                            // What answers goes back to that container, if it still goes anywhere.
                            if let Some((egress, is)) = send(world, Outside, 0, &Packet::first(out.reversed()), now()) {
                                assert_eq!(egress, Inside);
                                assert_eq!(is.src, tuple.dst);
                                back += u32::from(is == tuple.reversed());
                            }
                        }
                        let stranger = inbound(protocol, (100 + n % 9, 7), 8080);
                        if let Some((egress, is)) = send(world, Outside, 0, &Packet::first(stranger), now()) {
                            assert_eq!((egress, is.dst.ip, is.dst.port), (Inside, container(2), 80));
                        }
                    }
                    (there, back)
                })
            })
            .collect();
        scope.spawn(move || {
            let published = [forward(TCP, 2, 8080, 80), forward(UDP, 2, 8080, 80), forward(UDP, 2, 8081, 4000)];
            while !is_over.load(Ordering::Relaxed) {
                published.iter().for_each(|forward| _ = world.nat.publish(*forward, now()));
                world.nat.flush(now(), |view| view.original.src.port == 4001);
                published.iter().for_each(|forward| _ = world.nat.unpublish(forward, now()));
                world.nat.remove_owner(4, now());
                world.nat.sessions(now());
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // A second or so at a time, so that within a run each timer ends many times.
                clock.fetch_add(Duration::from_millis(700).as_nanos() as u64, Ordering::Relaxed);
                while !world.nat.poll(now()) {}
                world.nat.deadline();
                world.nat.usage(2);
                thread::yield_now();
            }
        });
        for sender in senders {
            let (there, back) = sender.join().unwrap();
            assert!(there > ROUNDS / 2 && back > 0, "{there} of {ROUNDS} went out, and {back} came back");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    world.now = now();
    // What is left is consistent: no tuple twice, and no outside endpoint of two.
    let views = world.sessions();
    let tuples: HashSet<_> = views.iter().flat_map(|view| [view.original, view.reply]).collect();
    assert_eq!(tuples.len(), 2 * views.len());
    let mut owners: HashMap<(_, Endpoint), Endpoint> = HashMap::new();
    for view in &views {
        let (inside, outside) = match view.from {
            Inside => (view.original.src, view.reply.dst),
            Outside => (view.reply.src, view.original.dst),
        };
        let before = owners.insert((view.original.protocol, outside), inside);
        assert!(before.is_none_or(|before| before == inside), "{outside} leads to {inside} and {before:?}");
    }
    for forward in world.nat.forwards() {
        world.nat.unpublish(&forward, world.now);
    }
    world.wait(8_000.0);
    assert!(
        world.is_blank(),
        "{} sessions, {} mappings, {:?}",
        world.nat.len(),
        world.nat.mappings(),
        world.nat.helpers()
    );
}
