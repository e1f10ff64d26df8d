//! The sequences of real clients, as they were seen on the wire (udhcpc 1.35, dhclient 4.4.3, dhcpcd 9.4.1): the same
//! options in the same order, and what each needs in the answers before it accepts them.

use std::time::Duration;

use tapswitch_dhcp::{Config, State};

use crate::world::*;

fn lan() -> World {
    let mut config: Config = config("10.0.0.0/24");
    config.domain = Some("lan.test".into());
    config.search = vec!["lan.test".into(), "corp.lan.test".into()];
    config.routes = vec![("192.168.7.0/24".parse().unwrap(), ip(9))];
    config.lease_time = Duration::from_secs(1200);
    World::with(config)
}

/// Routes of `lan()` as they stand in option 121.
const ROUTES: &[u8] = &[24, 192, 168, 7, 10, 0, 0, 9, 0, 10, 0, 0, 1];
const SEARCH: &[u8] = b"\x03lan\x04test\0\x04corp\xc0\0";

/// What every client insists on in OFFER and ACK.
fn acceptable(answer: &Answer, kind: u8, chaddr: tapswitch_wire::Mac) {
    assert_eq!((answer.kind, answer.yiaddr), (kind, ip(2)));
    assert_eq!(answer.field(4..8), 0x1234_5678u32.to_be_bytes(), "xid");
    assert_eq!(answer.field(28..34), chaddr.0, "chaddr");
    assert_eq!(answer.get(54), SERVER.octets());
    assert_eq!((answer.secs(51), answer.secs(58), answer.secs(59)), (1200, 600, 1050));
    assert_eq!(answer.get(1), [255, 255, 255, 0]);
}

#[test]
fn udhcpc_binds_renews_and_releases() {
    const WANTED: &[u8] = &[1, 3, 6, 12, 15, 26, 28, 42, 119, 121];
    let me = mac(7);
    let id = [&[1], &me.0[..]].concat();
    let rest = |msg: Msg| msg.option(57, &[2, 64]).option(55, WANTED).option(60, b"udhcp 1.35.0").id(&id);
    let mut world = lan();

    let offer = world.ask(&rest(Msg::discover(7)));
    acceptable(&offer, OFFER, me);
    // Behind the mandatory ones the options stand in the client's order; 12 and 42 we have not.
    assert_eq!(offer.codes(), [53, 54, 51, 58, 59, 1, 3, 6, 15, 26, 28, 119, 121, 61]);
    assert_eq!((offer.get(119), offer.get(121), offer.get(61)), (SEARCH, ROUTES, &id[..]));
    assert!(offer.payload.len() + 28 <= 576);

    let ack = world.ask(&rest(Msg::new(REQUEST, me).ip_option(50, ip(2)).ip_option(54, SERVER)));
    acceptable(&ack, ACK, me);
    world.wait(600);
    let renewed = world.ask(&rest(Msg::renew(7, ip(2))));
    acceptable(&renewed, ACK, me);
    assert_eq!((renewed.dst, renewed.dst_mac), (ip(2), me));
    assert_eq!(world.row(ip(2)).unwrap().expires_in, Some(1200));

    assert_eq!(world.send(&Msg::release(7, ip(2)).id(&id)), Ok(None));
    assert_eq!(world.state(ip(2)), Some(State::Released));
}

#[test]
fn dhclient_binds_renews_and_comes_back_after_a_restart() {
    const WANTED: &[u8] = &[1, 28, 3, 15, 6, 119, 12, 26, 121];
    let me = mac(7);
    let rest = |msg: Msg| msg.option(12, b"web-2").option(55, WANTED);
    let mut world = lan();

    let offer = world.ask(&rest(Msg::discover(7)));
    acceptable(&offer, OFFER, me);
    assert_eq!(offer.codes(), [53, 54, 51, 58, 59, 1, 28, 3, 15, 6, 119, 26, 121]);
    let ack = world.ask(&rest(Msg::new(REQUEST, me).ip_option(54, SERVER).ip_option(50, ip(2))));
    acceptable(&ack, ACK, me);
    assert_eq!(world.row(ip(2)).unwrap().hostname.as_deref(), Some("web-2"));
    for _ in 0..3 {
        world.wait(600);
        acceptable(&world.ask(&rest(Msg::renew(7, ip(2)))), ACK, me);
    }
    // Started again with its lease file: INIT-REBOOT.
    let ack = world.ask(&rest(Msg::reboot(7, ip(2))));
    acceptable(&ack, ACK, me);
    assert_eq!(world.send(&rest(Msg::release(7, ip(2)))), Ok(None));
    assert_eq!(world.state(ip(2)), Some(State::Released));
}

#[test]
fn dhcpcd_binds_and_rebinds_a_lease_that_is_over() {
    const WANTED: &[u8] = &[1, 121, 3, 26, 28, 33, 51, 58, 59, 119];
    let me = mac(7);
    // It puts option 50 before 53.
    let select = |mut msg: Msg| {
        msg.options = [&[50, 4][..], &ip(2).octets(), &[53, 1, REQUEST]].concat();
        msg.ip_option(54, SERVER)
    };
    let rest = |msg: Msg| {
        msg.option(55, WANTED).option(57, &[5, 192]).option(60, b"dhcpcd-9.4.1").option(12, b"web-3").option(145, &[1])
    };
    let mut world = lan();

    let offer = world.ask(&rest(Msg::discover(7)));
    acceptable(&offer, OFFER, me);
    assert_eq!(offer.codes(), [53, 54, 51, 58, 59, 1, 121, 3, 26, 28, 119]);
    let ack = world.ask(&rest(select(Msg::new(REQUEST, me))));
    acceptable(&ack, ACK, me);
    // It starts its timers only when its own ARP probes are over, so it may rebind after we think the lease is over.
    world.wait(1203);
    let ack = world.ask(&rest(Msg::rebind(7, ip(2))));
    acceptable(&ack, ACK, me);
}

#[test]
fn a_client_with_a_duid_asks_and_declines_what_it_finds_in_use() {
    let duid = [&[255, 0, 0, 0, 1, 0, 1][..], &[9; 16]].concat();
    let mut world = lan();
    let offer = world.ask(&Msg::discover(7).id(&duid));
    world.ask(&Msg::select(7, offer.yiaddr).id(&duid));
    assert_eq!(world.send(&Msg::decline(7, offer.yiaddr).id(&duid)), Ok(None));
    let next = world.ask(&Msg::discover(7).id(&duid));
    assert_eq!((offer.yiaddr, next.yiaddr), (ip(2), ip(3)));
    assert_eq!(next.get(61), duid);
}
