//! ARP for the gateway's own address, and its defence.

use std::net::Ipv4Addr;

use tapswitch_nat::NeighbourState::Reachable;
use tapswitch_wire::DropReason::{ArpConflict, ArpMalformed, ArpNotForUs, NotForUs, SourceIsOurs, SpoofedSource};
use tapswitch_wire::build::Arp;
use tapswitch_wire::{Mac, Stage};

use crate::world::*;

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANSWER: &str = "02:42:0a:00:00:01 > 02:42:0a:00:00:02 ARP 10.0.0.1 is-at 02:42:0a:00:00:01, 42 bytes";
const DEFENCE: &str = "02:42:0a:00:00:01 > ff:ff:ff:ff:ff:ff ARP who-has 10.0.0.1 tell 10.0.0.1, 42 bytes";

fn probe(target: Ipv4Addr) -> Vec<u8> {
    arp_frame(Mac::BROADCAST, Arp { operation: 1, sha: mac(A), spa: NOBODY, tha: Mac::ZERO, tpa: target })
}

#[test]
fn ar_1_the_gateway_answers_for_its_own_address_and_for_no_other() {
    let mut world = World::new();
    assert_eq!(world.rx(&who_has(GATEWAY, A)), (REPLY, vec![ANSWER.into()]));
    let unassigned = Ipv4Addr::new(10, 0, 0, 200);
    for target in [A, B, NOBODY, unassigned, OUTSIDE, Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)] {
        // For its own address: an announcement, which renews its entry.
        let expected = if target == A { REPLY } else { drop(ArpNotForUs) };
        assert_eq!(world.rx(&who_has(target, A)), (expected, vec![]), "{target}");
        assert_eq!(world.rx(&probe(target)), (drop(ArpNotForUs), vec![]), "duplicate address detection of {target}");
    }
    let journey: Vec<_> = world.journey.steps.iter().filter(|s| s.stage == Stage::Neighbour).collect();
    assert_eq!(journey[0].text, "10.0.0.2 is at 02:42:0a:00:00:02");
    assert_eq!(journey[1].text, "answer who has 10.0.0.1");
}

#[test]
fn ar_1_a_unicast_request_is_answered_too() {
    let mut world = World::new();
    assert_eq!(world.rx(&sent_to(&who_has(GATEWAY, A), mac(GATEWAY))), (REPLY, vec![ANSWER.into()]));
}

#[test]
fn ar_2_a_probe_for_our_address_is_answered_and_makes_no_entry() {
    let mut world = World::new();
    assert_eq!(world.rx(&probe(GATEWAY)), (REPLY, vec![ANSWER.into()]));
    assert_eq!(world.neighbours(), []);
    assert_eq!(&world.last()[38..42], [0; 4], "the target address of the answer is the prober's, none");
}

#[test]
fn ar_3_whatever_is_not_ethernet_and_ipv4_is_refused() {
    let good = who_has(GATEWAY, A);
    let mut padded = good.clone();
    padded.resize(60, 0xee);
    assert_eq!(World::new().rx(&padded), (REPLY, vec![ANSWER.into()]), "padding is ignored");
    // Offset in the frame, and what stands there instead.
    for (at, bytes) in [
        (14, &[0, 6][..]),            // hardware type: IEEE 802
        (16, &[0x86, 0xdd]),          // protocol: IPv6
        (18, &[8]),                   // length of a hardware address
        (19, &[16]),                  // length of a protocol address
        (20, &[0, 0]),                // operations
        (20, &[0, 3]),                //
        (20, &[1, 1]),                //
        (22, &[0xff; 6]),             // sender: everybody
        (22, &[0; 6]),                // sender: nobody
        (22, &[1, 0, 0x5e, 0, 0, 1]), // sender: a group
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let mut world = World::new();
        assert_eq!(world.rx(&bad), (drop(ArpMalformed), vec![]), "{bytes:?} at {at}");
        assert_eq!(world.neighbours(), []);
    }
    for len in 14..42 {
        assert_eq!(World::new().rx(&good[..len]), (drop(ArpMalformed), vec![]), "{len} bytes");
    }
}

#[test]
fn ar_4_only_arp_for_us_makes_an_entry_and_any_arp_of_its_owner_renews_it() {
    let mut world = World::new();
    world.rx(&who_has(B, A));
    assert_eq!(world.neighbours(), [], "a question for another makes no entry");
    world.rx(&who_has(A, A));
    assert_eq!(world.neighbours(), [], "an announcement makes no entry");
    world.meet(A);
    assert_eq!(world.neighbours(), [(A.into(), Reachable, 0)]);
    world.pass_secs(50);
    assert_eq!(world.neighbours(), [(A.into(), Reachable, 50)]);
    assert_eq!(world.rx(&who_has(B, A)), (drop(ArpNotForUs), vec![]));
    assert_eq!(world.neighbours(), [(A.into(), Reachable, 0)], "a question for another renews it");
}

#[test]
fn ar_4_an_announcement_moves_an_existing_entry_to_its_new_mac_address() {
    let mut world = World::knowing(&[A]);
    let moved = Arp { operation: 1, sha: mac(C), spa: A, tha: Mac::ZERO, tpa: A };
    assert_eq!(world.rx(&arp_frame(Mac::BROADCAST, moved)), (REPLY, vec![]));
    assert_eq!(world.gateway.neighbours(world.now)[0].mac, Some(mac(C)));
}

#[test]
fn ar_4_a_sender_that_is_no_host_of_the_lan_makes_no_entry() {
    let mut world = World::with(|config| config.verify_source = false);
    for sender in [OUTSIDE, Ipv4Addr::new(10, 0, 0, 255), Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::LOCALHOST] {
        assert_eq!(world.rx(&who_has(GATEWAY, sender)).0, REPLY);
        assert_eq!(world.neighbours(), [], "{sender}");
    }
    assert_eq!(World::new().rx(&who_has(GATEWAY, OUTSIDE)), (drop(SpoofedSource), vec![]));
}

#[test]
fn ar_5_our_address_is_announced_twice_two_seconds_apart() {
    let mut world = World::new();
    assert_eq!(world.gateway.deadline(), None);
    world.gateway.announce(world.now);
    assert_eq!(world.pass_secs(60), [format!("0 {DEFENCE}"), format!("2000 {DEFENCE}")]);
    assert_eq!(world.gateway.deadline(), None);
}

#[test]
fn ar_5_a_host_that_claims_our_address_meets_a_defence_every_ten_seconds_at_most() {
    let mut world = World::new();
    let claim = Arp { operation: 1, sha: mac(A), spa: GATEWAY, tha: Mac::ZERO, tpa: GATEWAY };
    let reply = Arp { operation: 2, tpa: A, ..claim };
    let claims = [arp_frame(Mac::BROADCAST, claim), arp_frame(Mac::BROADCAST, reply)];
    for second in 0..25 {
        for (index, claim) in claims.iter().enumerate() {
            let defended = second % 10 == 0 && index == 0;
            let expected = if defended { vec![DEFENCE.to_string()] } else { vec![] };
            assert_eq!(world.rx(claim), (drop(ArpConflict), expected), "second {second}");
        }
        world.pass_secs(1);
    }
    assert_eq!(world.neighbours(), []);
}

#[test]
fn a_frame_for_another_station_or_from_ourselves_is_not_ours() {
    let mut world = World::new();
    assert_eq!(world.rx(&sent_to(&who_has(GATEWAY, A), mac(B))), (drop(NotForUs), vec![]));
    assert_eq!(world.rx(&sent_to(&ping(A, GATEWAY, 64), mac(B))), (drop(NotForUs), vec![]));
    assert_eq!(world.rx(&who_has(A, GATEWAY)), (drop(SourceIsOurs), vec![]));
    // From another station, but saying that our MAC address is B's.
    let mut poison = is_at(B, mac(GATEWAY));
    poison[6..12].copy_from_slice(&mac(A).0);
    assert_eq!(world.rx(&poison), (drop(SourceIsOurs), vec![]));
    assert_eq!(world.neighbours(), []);
}
