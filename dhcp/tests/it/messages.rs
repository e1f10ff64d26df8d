//! Which message gets which answer: DH-1, DH-2, DH-3, DH-6.

use tapswitch_dhcp::State;
use tapswitch_wire::{DropReason, Mac};

use crate::world::*;

#[test]
fn dh_1_offer_repeats_what_the_client_said_and_carries_the_options_of_the_ack() {
    let mut world = World::new();
    let with = |msg: Msg| Msg { xid: 0xdead_beef, ..msg.broadcast().option(55, &[6, 3, 1, 26]) };
    let offer = world.ask(&with(Msg::discover(1)));
    assert_eq!((offer.kind, offer.yiaddr, offer.secs(51)), (OFFER, ip(2), 3600));
    assert_eq!(offer.get(54), SERVER.octets());
    assert_eq!(offer.field(4..8), [0xde, 0xad, 0xbe, 0xef], "xid");
    assert_eq!(offer.field(10..12), [0x80, 0], "flags");
    assert_eq!(offer.field(24..28), [0; 4], "giaddr");
    assert_eq!((offer.field(1..4), offer.field(28..34)), (&[1, 6, 0][..], &mac(1).0[..]), "htype, hlen, hops, chaddr");
    assert_eq!((offer.field(12..16), offer.field(20..24)), (&[0; 4][..], &[0; 4][..]), "ciaddr, siaddr");
    let ack = world.ask(&with(Msg::select(1, ip(2))));
    assert_eq!(ack.kind, ACK);
    assert_eq!(offer.options[1..], ack.options[1..], "an ACK differs from its OFFER only in the message type");
}

#[test]
fn dh_2_select_another_server_and_the_offer_is_free_again() {
    let mut world = World::new();
    assert_eq!(world.ask(&Msg::discover(1)).yiaddr, ip(2));
    let other = Msg::new(REQUEST, mac(1)).ip_option(54, ip(77)).ip_option(50, ip(2));
    assert_eq!(world.send(&other), Err(DropReason::DhcpIgnored));
    assert_eq!(world.row(ip(2)), None);
    assert_eq!(world.ask(&Msg::discover(2)).yiaddr, ip(2), "the next client gets it");
    assert!(world.journal.is_empty(), "nothing was promised, nothing recorded");
}

#[test]
fn dh_2_select_another_server_does_not_end_a_lease() {
    let mut world = World::new();
    world.lease(1, 1);
    let other = Msg::new(REQUEST, mac(1)).ip_option(54, ip(77)).ip_option(50, ip(2));
    assert_eq!(world.send(&other), Err(DropReason::DhcpIgnored));
    assert_eq!(world.state(ip(2)), Some(State::Bound));
}

#[test]
fn dh_2_init_reboot_known_wrong_and_unknown() {
    let mut world = World::new();
    world.lease(1, 1);
    assert_eq!(world.ask(&Msg::reboot(1, ip(2))).kind, ACK);
    assert_eq!(world.ask(&Msg::reboot(1, ip(9))).kind, NAK, "known, but its address is another");
    assert_eq!(world.ask(&Msg::reboot(2, "10.1.0.9".parse().unwrap())).kind, NAK, "wrong network, even if unknown");
    assert_eq!(world.said.last().unwrap(), "NAK: 10.1.0.9 is not on this network");
    assert_eq!(world.send(&Msg::reboot(2, ip(9))), Err(DropReason::DhcpIgnored), "unknown: silence");
    assert_eq!(world.send(&Msg::reboot(2, ip(2))), Err(DropReason::DhcpIgnored), "unknown: silence");
    world.wait(4000);
    assert_eq!(world.ask(&Msg::reboot(1, ip(2))).kind, ACK, "over, but remembered, and still free");
}

#[test]
fn dh_2_renewing_and_rebinding_extend_the_lease() {
    let mut world = World::new();
    world.lease(1, 1);
    for msg in [Msg::renew(1, ip(2)), Msg::rebind(1, ip(2))] {
        world.wait(1800);
        let ack = world.ask(&msg);
        assert_eq!((ack.kind, ack.yiaddr, ack.dst), (ACK, ip(2), ip(2)));
        assert_eq!(ack.field(12..16), ip(2).octets(), "ciaddr");
        assert_eq!(world.row(ip(2)).unwrap().expires_in, Some(3600));
    }
    let said = world.said.join("\n");
    assert!(said.contains("renews 10.0.0.2") && said.contains("asks any server to extend 10.0.0.2"), "{said}");
}

#[test]
fn dh_2_renewing_somebody_elses_address_is_refused() {
    let mut world = World::new();
    world.lease(1, 1);
    assert_eq!(world.ask(&Msg::renew(2, ip(2))).kind, NAK);
    assert_eq!(world.ask(&Msg::renew(2, SERVER)).kind, NAK, "nor is the gateway's to be had");
    assert_eq!(world.ask(&Msg::rebind(2, "192.168.1.5".parse().unwrap())).kind, NAK);
    assert_eq!(world.row(ip(2)).unwrap().mac, mac(1));
}

#[test]
fn dh_2_renewing_an_address_that_is_on_no_record_keeps_it() {
    let mut world = World::new();
    assert_eq!(world.ask(&Msg::renew(1, ip(40))).kind, ACK);
    assert_eq!(world.state(ip(40)), Some(State::Bound));
}

#[test]
fn dh_2_select_after_the_offer_is_over_works_while_the_address_is_free() {
    let mut world = World::new();
    assert_eq!(world.ask(&Msg::discover(1)).yiaddr, ip(2));
    world.wait(61);
    assert_eq!(world.ask(&Msg::select(1, ip(2))).kind, ACK);

    let mut world = World::new();
    world.ask(&Msg::discover(1));
    world.wait(61);
    assert_eq!(world.ask(&Msg::discover(2)).yiaddr, ip(2));
    assert_eq!(world.ask(&Msg::select(1, ip(2))).kind, NAK, "offered to another client meanwhile");
    assert_eq!(world.ask(&Msg::select(2, ip(2))).kind, ACK);
}

#[test]
fn dh_3_nak_is_broadcast_and_says_nothing_but_no() {
    let mut world = World::new();
    let wanted = |msg: Msg| msg.option(55, &[1, 3, 6, 51, 26]).id(&[1, 2, 3]);
    let nak = world.ask(&wanted(Msg::reboot(1, "10.1.0.9".parse().unwrap())));
    assert_eq!((nak.kind, nak.dst, nak.dst_mac), (NAK, "255.255.255.255".parse().unwrap(), Mac::BROADCAST));
    assert_eq!(nak.codes(), [53, 54, 56, 61]);
    assert_eq!(nak.text(56), "10.1.0.9 is not on this network");
    for (name, range) in [("ciaddr", 12..16), ("yiaddr", 16..20), ("siaddr", 20..24)] {
        assert_eq!(nak.field(range), [0; 4], "{name}");
    }
    // Also if the request was unicast and had a ciaddr.
    let nak = world.ask(&wanted(Msg::renew(1, "10.1.0.9".parse().unwrap())));
    assert_eq!((nak.kind, nak.dst), (NAK, "255.255.255.255".parse().unwrap()));
    assert_eq!(nak.field(12..16), [0; 4], "ciaddr");
}

#[test]
fn dh_3_nak_through_a_relay_has_the_broadcast_bit() {
    let mut world = World::new();
    let relayed = Msg::reboot(1, "10.1.0.9".parse().unwrap()).giaddr(ip(50)).option(82, &[1, 1, 7]);
    let nak = world.ask(&Msg { link_src: Some(mac(99)), ..relayed });
    assert_eq!((nak.kind, nak.dst, nak.dst_port, nak.dst_mac), (NAK, ip(50), 67, mac(99)));
    assert_eq!(nak.field(10..12), [0x80, 0], "flags");
    assert_eq!(nak.codes(), [53, 54, 56, 82]);
}

#[test]
fn dh_6_declined_address_is_in_quarantine() {
    let mut world = World::new();
    world.lease(1, 1);
    assert_eq!(world.send(&Msg::decline(1, ip(2))), Ok(None));
    assert_eq!(world.state(ip(2)), Some(State::Declined));
    assert_eq!(world.ask(&Msg::discover(1).ip_option(50, ip(2))).yiaddr, ip(3), "not even on request");
    assert_eq!(world.ask(&Msg::renew(9, ip(2))).kind, NAK);
    world.wait(599);
    world.poll();
    assert_eq!(world.state(ip(2)), Some(State::Declined));
    world.wait(1);
    world.poll();
    assert_eq!(world.state(ip(2)), Some(State::Released));
    assert_eq!(world.ask(&Msg::discover(4).ip_option(50, ip(2))).yiaddr, ip(2));
}

#[test]
fn dh_6_only_the_holder_declines_or_releases() {
    let mut world = World::new();
    world.lease(1, 1);
    let foreign = [
        Msg::decline(2, ip(2)),
        Msg::release(2, ip(2)),
        Msg::decline(1, ip(3)),
        Msg::release(1, ip(3)),
        Msg::new(DECLINE, mac(1)).ip_option(54, ip(77)).ip_option(50, ip(2)),
        Msg::new(RELEASE, mac(1)).ip_option(54, ip(77)).ciaddr(ip(2)),
    ];
    for msg in foreign {
        assert_eq!(world.send(&msg), Err(DropReason::DhcpIgnored), "{msg:?}");
    }
    assert_eq!(world.state(ip(2)), Some(State::Bound));
}

#[test]
fn dh_6_released_address_is_free_but_remembered() {
    let mut world = World::new();
    world.lease(1, 1);
    assert_eq!(world.send(&Msg::release(1, ip(2))), Ok(None));
    assert_eq!(world.lease(1, 2), ip(3), "another client gets a fresh one");
    assert_eq!(world.lease(1, 1), ip(2), "the client its own");
    assert_eq!(world.said.iter().rfind(|t| t.starts_with("offers")).unwrap(), "offers 10.0.0.2: its address last time");
}

#[test]
fn dh_6_releasing_an_offer_leaves_no_trace() {
    let mut world = World::new();
    world.ask(&Msg::discover(1));
    assert_eq!(world.send(&Msg::release(1, ip(2))), Ok(None));
    assert_eq!((world.row(ip(2)), world.journal.len()), (None, 0));
}

#[test]
fn dh_6_inform_gets_parameters_without_a_lease() {
    let mut world = World::new();
    let ack = world.ask(&Msg::inform(1, ip(88)).option(55, &[3, 6, 51, 26]).broadcast());
    assert_eq!((ack.kind, ack.yiaddr, ack.dst, ack.dst_mac), (ACK, ANY, ip(88), mac(1)));
    assert_eq!(ack.codes(), [53, 54, 1, 3, 6, 26]);
    assert_eq!(ack.field(12..16), ip(88).octets(), "ciaddr");
    assert_eq!(world.leases(), "", "no lease is made");
    for nobody in [ANY, "10.1.0.9".parse().unwrap(), SERVER, ip(255)] {
        assert_eq!(world.send(&Msg::inform(1, nobody)), Err(DropReason::DhcpIgnored), "{nobody}");
    }
}
