//! DH-11: whatever is left of the journal, acknowledged leases are there and no address is given twice.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;
use tapswitch_dhcp::State;

use crate::world::*;

/// What clients came to believe, and the length of the journal from which on they did: a client is told after its
/// record was written, and lets go before.
#[derive(Default)]
struct Told(Vec<(usize, u32, Option<Ipv4Addr>)>);

impl Told {
    /// Who believes to have which address, if the crash left `len` bytes.
    fn believed(&self, len: usize) -> BTreeMap<u32, Ipv4Addr> {
        let mut believed = BTreeMap::new();
        for (_, client, ip) in self.0.iter().filter(|(from, ..)| *from <= len) {
            match ip {
                Some(ip) => believed.insert(*client, *ip),
                None => believed.remove(client),
            };
        }
        believed
    }
}

/// A small, busy network: leases, releases, a decline, a reservation, renewals.
fn history() -> (World, Told) {
    let mut world = World::with(config("10.0.0.0/29"));
    let mut told = Told::default();
    let bind = |world: &mut World, told: &mut Told, client| {
        let ip = world.lease(client, client);
        told.0.push((world.journal.len(), client, Some(ip)));
    };
    let let_go = |world: &mut World, told: &mut Told, client, msg: Msg| {
        told.0.push((world.journal.len() + 1, client, None));
        world.send_at(client, &msg).unwrap();
    };
    for client in 1..=3 {
        bind(&mut world, &mut told, client);
    }
    let_go(&mut world, &mut told, 2, Msg::release(2, ip(3)));
    for client in [4, 2] {
        bind(&mut world, &mut told, client);
    }
    world.reserve("web", Some(mac(200)), None).unwrap();
    let_go(&mut world, &mut told, 3, Msg::decline(3, ip(4)));
    world.wait(100);
    assert_eq!(world.ask(&Msg::renew(1, ip(2))).kind, ACK);
    told.0.push((world.journal.len(), 1, Some(ip(2))));
    (world, told)
}

#[test]
fn dh_11_crash_at_every_byte_of_the_journal_gives_no_address_twice() {
    let (world, told) = history();
    assert!(world.journal.len() > 900, "a history worth cutting");
    for len in 0..=world.journal.len() {
        let prefix = &world.journal[..len];
        let (mut later, restored) = world.restarted(prefix, 2);
        let whole = prefix.is_empty() || prefix.ends_with(b"\n") || world.journal.get(len) == Some(&b'\n');
        assert_eq!(restored.warnings.len(), usize::from(!whole), "at {len}: {:?}", restored.warnings);
        let believed = told.believed(len);
        for (client, ip) in &believed {
            assert_eq!(later.state(*ip), Some(State::Bound), "client {client} lost {ip} at {len}");
        }
        // Those who are still there say so, and newcomers take all that is left, never what one of the former has.
        let renew = |later: &mut World| {
            for (client, ip) in &believed {
                let renewed = later.ask_at(*client, &Msg::renew(*client, *ip));
                assert_eq!(renewed.kind, ACK, "client {client} at {len}");
            }
        };
        renew(&mut later);
        let mut taken: BTreeMap<Ipv4Addr, u32> = believed.iter().map(|(client, ip)| (*ip, *client)).collect();
        for newcomer in 1000..1006 {
            if let Ok(Some(offer)) = later.send_at(newcomer, &Msg::discover(newcomer)) {
                assert_eq!(later.ask_at(newcomer, &Msg::select(newcomer, offer.yiaddr)).kind, ACK);
                let other = taken.insert(offer.yiaddr, newcomer);
                assert_eq!(other, None, "{} was given twice after a crash at {len}", offer.yiaddr);
            }
        }
        renew(&mut later);
        // What was written behind the torn line is readable: crash once more.
        let (again, _) = later.restarted(&later.journal.clone(), 2);
        for (ip, client) in taken {
            assert_eq!(
                again.row(ip).map(|row| (row.state, row.mac)),
                Some((State::Bound, mac(client))),
                "{ip} at {len}"
            );
        }
    }
}

#[test]
fn dh_11_record_is_written_before_the_reply_and_only_if_something_changed() {
    // The order is asserted in `World::send_frame` for every message of every test.
    let mut world = World::new();
    world.ask(&Msg::discover(1));
    assert_eq!(world.journal, b"", "an offer is no promise");
    world.ask(&Msg::select(1, ip(2)));
    let line = "{\"ip\":\"10.0.0.2\",\"state\":\"bound\",\"mac\":\"02:00:00:00:00:01\",\
                \"client\":\"01020000000001\",\"expires\":1800003600,\"secs\":3600}\n";
    assert_eq!(String::from_utf8_lossy(&world.journal), line);
    world.ask(&Msg::select(1, ip(2)));
    assert_eq!(world.journal.len(), line.len(), "the same promise twice is one line");
    world.wait(1);
    world.ask(&Msg::renew(1, ip(2)));
    assert_eq!(world.journal.len(), 2 * line.len());
}

#[test]
fn dh_11_corrupt_journal_starts_with_warnings() {
    let mut world = World::new();
    world.lease(1, 1);
    let good = String::from_utf8(world.journal.clone()).unwrap();
    let mut journal = b"\xff\xfe\0garbage\n\n{}\n[1,2]\n".to_vec();
    for (from, to) in [
        ("10.0.0.2", "10.9.9.9"),
        ("10.0.0.2", "10.0.0.1"),
        ("10.0.0.2", "10.0.0.255"),
        ("\"bound\"", "\"offered\""),
        ("\"bound\"", "\"reserved\""),
        ("\"bound\"", "\"stolen\""),
        ("0102", "zz02"),
        ("1800003600", "-1"),
    ] {
        journal.extend_from_slice(good.replace(from, to).as_bytes());
    }
    journal.extend_from_slice(good.as_bytes());
    journal.extend_from_slice(b"{\"ip\":\"10.0.0.3\",\"sta");
    let (later, restored) = world.restarted(&journal, 0);
    assert_eq!((restored.leases, later.state(ip(2))), (1, Some(State::Bound)));
    assert_eq!(restored.warnings.len(), 12, "{:#?}", restored.warnings);
    assert_eq!(
        restored.warnings[3],
        "line 5 of the lease journal was skipped: 10.9.9.9: this is no host address of the subnet"
    );
    let (_, restored) = world.restarted(&b"x\n".repeat(5000), 0);
    assert_eq!(restored.warnings.len(), 17);
    assert_eq!(restored.warnings[16], "4984 more lines of the lease journal were skipped");
}

#[test]
fn dh_11_leases_end_by_the_calendar_while_the_machine_is_off() {
    let mut world = World::new();
    world.lease(1, 1);
    for (pause, left) in [(0, Some(3600)), (3599, Some(1)), (3600, None), (1 << 40, None)] {
        let (mut later, restored) = world.restarted(&world.journal, pause);
        assert_eq!(later.row(ip(2)).unwrap().expires_in, left, "after {pause} s");
        assert_eq!(restored.leases, usize::from(left.is_some()));
        assert_eq!(later.lease(1, 2), ip(3), "remembered for its client even when over");
        assert_eq!(later.lease(1, 1), ip(2));
    }
}

#[test]
fn dh_11_calendar_set_back_does_not_make_leases_longer_than_granted() {
    let mut world = World::new();
    world.lease(1, 1);
    let mut server = tapswitch_dhcp::Server::new(world.config.clone(), world.now, 1000);
    server.restore(&world.journal);
    assert_eq!(server.leases(world.now)[0].expires_in, Some(3600));
}

#[test]
fn dh_11_times_are_rounded_up_so_that_no_lease_ends_early() {
    let mut world = World::new();
    world.now = world.now + Duration::from_millis(1);
    world.lease(1, 1);
    let line = String::from_utf8(world.journal).unwrap();
    assert!(line.contains("\"expires\":1800003601"), "{line}");
}

#[test]
fn dh_11_edited_journal_with_one_hardware_address_twice_keeps_the_other_reservation() {
    let mut world = World::new();
    world.reserve("web", Some(mac(50)), Some(ip(20))).unwrap();
    let line = String::from_utf8(world.journal.clone()).unwrap();
    let twice = format!("{line}{}", line.replace("10.0.0.20", "10.0.0.21").replace("web", "db"));
    let (mut later, _) = world.restarted(twice.as_bytes(), 0);
    later.release_name("web");
    assert_eq!(later.ask(&Msg::discover(50)).yiaddr, ip(21));
}

#[test]
fn dh_11_quarantine_survives_a_restart() {
    let mut world = World::new();
    world.lease(1, 1);
    world.send(&Msg::decline(1, ip(2))).unwrap();
    let (mut later, _) = world.restarted(&world.journal, 500);
    assert_eq!(later.row(ip(2)).map(|row| (row.state, row.expires_in)), Some((State::Declined, Some(100))));
    assert_eq!(later.ask(&Msg::discover(1).ip_option(50, ip(2))).yiaddr, ip(3));
}

#[test]
fn dh_11_edited_journal_with_one_client_or_name_twice_holds_both_addresses() {
    let mut world = World::new();
    world.lease(1, 1);
    world.reserve("web", Some(mac(50)), Some(ip(20))).unwrap();
    let twice = String::from_utf8(world.journal.clone()).unwrap();
    let twice = format!("{twice}{}", twice.replace("10.0.0.2\"", "10.0.0.8\"").replace("10.0.0.20", "10.0.0.21"));
    let (mut later, restored) = world.restarted(twice.as_bytes(), 0);
    assert_eq!(restored.warnings, Vec::<String>::new());
    assert_eq!(later.ask(&Msg::discover(1)).yiaddr, ip(8), "the later line wins the client");
    assert_eq!(later.state(ip(2)), Some(State::Bound), "the earlier address is not given away before its time");
    assert_eq!(later.reserve("web", None, None).unwrap().ip, ip(21));
    assert_eq!(later.state(ip(20)), Some(State::Released));
    let (again, restored) = later.restarted(&later.server.snapshot(), 0);
    assert_eq!((restored.leases, again.leases()), (3, later.leases()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn dh_11_snapshot_equals_the_journal(steps in prop::collection::vec((0u32..12, 0u8..5, 0u64..2000), 1..60)) {
        let mut config = config("10.0.0.0/28");
        config.lease_time = Duration::from_secs(600);
        let mut world = World::with(config);
        for (client, what, pause) in steps {
            world.wait(pause);
            let offered = world.send_at(client + 1, &Msg::discover(client)).ok().flatten().map(|a| a.yiaddr);
            let Some(ip) = offered else { continue };
            let _ = match what {
                0 | 1 => world.send_at(client + 1, &Msg::select(client, ip)),
                2 => world.send_at(client + 1, &Msg::release(client, ip)),
                3 => world.send_at(client + 1, &Msg::decline(client, ip)),
                _ => {
                    let _ = world.reserve(&format!("c{client}"), Some(mac(client)), None);
                    Ok(None)
                }
            };
        }
        world.poll();
        let (from_journal, a) = world.restarted(&world.journal, 1);
        let (from_snapshot, b) = world.restarted(&world.server.snapshot(), 1);
        prop_assert_eq!((a.warnings, b.warnings), (vec![], vec![]));
        // A forgotten address may still be remembered by the journal: compare what is held.
        let held = |world: &World| {
            let rows = world.server.leases(world.now);
            rows.into_iter().filter(|row| row.state != State::Released).collect::<Vec<_>>()
        };
        prop_assert_eq!(held(&from_journal), held(&from_snapshot));
    }

    #[test]
    fn dh_11_any_bytes_as_journal_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let world = World::new();
        world.restarted(&bytes, 0);
    }
}
