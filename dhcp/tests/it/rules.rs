//! Who gets which address, and what is refused: DH-10 and the attacks on the pool.

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_dhcp::State;
use tapswitch_wire::DropReason;

use crate::world::*;

#[test]
fn dh_10_allocation_order_is_current_previous_requested_fresh_then_oldest() {
    let mut config = config("10.0.0.0/29"); // .2 to .6
    config.max_leases_per_port = 100;
    let mut world = World::with(config);
    assert_eq!(world.lease(1, 1), ip(2));
    assert_eq!(world.ask(&Msg::discover(1).ip_option(50, ip(5))).yiaddr, ip(2), "current before requested");
    world.send(&Msg::release(1, ip(2))).unwrap();
    assert_eq!(world.ask(&Msg::discover(2).ip_option(50, ip(5))).yiaddr, ip(5), "requested and free");
    assert_eq!(world.ask(&Msg::discover(3).ip_option(50, ip(5))).yiaddr, ip(3), "requested, but taken: lowest fresh");
    assert_eq!(world.lease(1, 4), ip(4));
    world.send(&Msg::release(4, ip(4))).unwrap();
    assert_eq!(world.ask(&Msg::discover(1).ip_option(50, ip(6))).yiaddr, ip(2), "previous before requested");
    assert_eq!(world.lease(1, 6), ip(6), "the last that was never used");
    assert_eq!(world.ask(&Msg::discover(7)).yiaddr, ip(4), "then the one released longest ago");
}

#[test]
fn dh_10_same_client_gets_the_same_address_long_after() {
    let mut world = World::new();
    for client in 1..=9 {
        world.lease(client, client);
    }
    world.wait(400 * 24 * 3600);
    for client in (1..=9).rev() {
        assert_eq!(world.lease(client, client), ip(1 + client as u8));
    }
}

#[test]
fn dh_10_address_of_an_offer_that_was_not_taken_is_the_next_offered() {
    let mut world = World::new();
    world.ask(&Msg::discover(1));
    assert_eq!(world.server.deadline(), Some(world.now + Duration::from_secs(60)));
    world.wait(60);
    world.poll();
    assert_eq!((world.leases().as_str(), world.server.deadline()), ("", None));
    assert_eq!(world.ask(&Msg::discover(2)).yiaddr, ip(2));
}

#[test]
fn pool_is_every_host_but_the_gateway_and_then_it_is_full() {
    let mut config = config("10.0.0.0/28");
    config.max_leases_per_port = 100;
    let mut world = World::with(config);
    let given: Vec<_> = (0..13).map(|client| world.lease(1, client)).collect();
    assert_eq!(given, (2..=14).map(ip).collect::<Vec<_>>());
    assert_eq!(world.send(&Msg::discover(99)), Err(DropReason::DhcpPoolExhausted));
    assert_eq!(world.ask(&Msg::discover(5)).yiaddr, given[5], "who has an address keeps it");
    assert_eq!(world.ask(&Msg::renew(5, given[5])).kind, ACK);
    world.send(&Msg::release(5, given[5])).unwrap();
    assert_eq!(world.lease(1, 99), given[5]);
    assert_eq!(world.send(&Msg::discover(5)), Err(DropReason::DhcpPoolExhausted));
}

#[test]
fn pools_of_odd_sizes() {
    for (subnet, size) in [("10.0.0.0/30", 1), ("10.0.0.0/31", 1), ("10.0.0.1/32", 0)] {
        let mut world = World::with(config(subnet));
        let given = (0..4).filter(|client| world.send(&Msg::discover(*client)).is_ok()).count();
        assert_eq!(given, size, "{subnet}");
    }
    let mut world = World::with(config("10.0.0.0/8"));
    assert_eq!(world.lease(1, 1), ip(2));
    assert_eq!(world.ask(&Msg::discover(2).ip_option(50, "10.200.0.0".parse().unwrap())).yiaddr.octets()[1], 200);
    assert_eq!(world.server.leases(world.now).len(), 2, "a /8 costs what is used of it");
}

#[test]
fn starvation_is_stopped_at_the_port_limit_and_offers_expire() {
    let mut world = World::new();
    let results: Vec<_> = (0..2000).map(|client| world.send_at(1, &Msg::discover(client))).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 16);
    assert!(results[16..].iter().all(|result| *result == Err(DropReason::DhcpLimit)));
    assert_eq!(world.lease(2, 5000), ip(18), "the neighbour gets its address");
    world.wait(60);
    assert_eq!(world.lease(1, 5001), ip(2), "and after the offers expired, so does this port");
}

#[test]
fn starvation_by_declining_is_stopped_at_the_port_limit() {
    let mut world = World::new();
    let mut declined = 0;
    for client in 0..100 {
        match world.send(&Msg::discover(client)) {
            Ok(Some(offer)) => {
                world.ask(&Msg::select(client, offer.yiaddr));
                world.send(&Msg::decline(client, offer.yiaddr)).unwrap();
                declined += 1;
            }
            other => assert_eq!(other, Err(DropReason::DhcpLimit)),
        }
    }
    assert_eq!(declined, 16);
    assert_eq!(world.lease(2, 500), ip(18));
}

#[test]
fn limit_does_not_take_away_what_is_held() {
    let mut config = config("10.0.0.0/24");
    config.max_leases_per_port = 2;
    let mut world = World::with(config);
    let held = [world.lease(1, 1), world.lease(1, 2)];
    assert_eq!(world.send(&Msg::discover(3)), Err(DropReason::DhcpLimit));
    assert_eq!(world.send(&Msg::renew(3, ip(77))), Err(DropReason::DhcpLimit));
    assert_eq!(world.send(&Msg::select(3, ip(77))), Err(DropReason::DhcpLimit));
    for (client, ip) in [(1, held[0]), (2, held[1])] {
        assert_eq!(world.ask(&Msg::discover(client)).yiaddr, ip);
        assert_eq!(world.ask(&Msg::renew(client, ip)).kind, ACK);
    }
    world.send(&Msg::release(1, held[0])).unwrap();
    world.lease(1, 3);
    assert_eq!(world.send(&Msg::discover(1)), Err(DropReason::DhcpLimit), "remembered is not held");
}

#[test]
fn hardware_address_must_be_the_senders() {
    let mut world = World::new();
    world.lease(1, 1);
    for msg in [Msg::discover(1), Msg::renew(1, ip(2)), Msg::release(1, ip(2)), Msg::decline(1, ip(2))] {
        let spoofed = Msg { link_src: Some(mac(66)), ..msg };
        assert_eq!(world.send_at(2, &spoofed), Err(DropReason::DhcpSpoofed));
    }
    assert_eq!(world.state(ip(2)), Some(State::Bound));
}

#[test]
fn client_identifier_does_not_take_over_a_lease_behind_another_port() {
    let mut world = World::new();
    world.lease(1, 1);
    let victim = [&[1][..], &mac(1).0].concat();
    let relay = |msg: Msg| Msg { link_src: Some(mac(66)), chaddr: mac(1), ..msg.giaddr(ip(66)) };
    let attacks = [
        Msg::discover(66).id(&victim),
        Msg::renew(66, ip(2)).id(&victim),
        Msg::reboot(66, ip(2)).id(&victim),
        Msg::release(66, ip(2)).id(&victim),
        Msg::decline(66, ip(2)).id(&victim),
        relay(Msg::discover(66)),
        relay(Msg::release(66, ip(2))),
    ];
    for attack in attacks {
        assert_eq!(world.send_at(2, &attack), Err(DropReason::DhcpSpoofed), "{attack:?}");
    }
    assert_eq!(world.row(ip(2)).map(|row| (row.state, row.mac)), Some((State::Bound, mac(1))));
    // A station that really moved shows it by its hardware address.
    assert_eq!(world.ask_at(2, &Msg::renew(1, ip(2))).kind, ACK);
    // And once the port is gone, the identity is enough: a container that came back with another MAC.
    world.port_gone(2);
    assert_eq!(world.ask_at(3, &Msg::discover(66).id(&victim)).yiaddr, ip(2));
}

#[test]
fn port_gone_frees_offers_and_keeps_leases() {
    let mut config = config("10.0.0.0/24");
    config.max_leases_per_port = 2;
    let mut world = World::with(config);
    world.lease(1, 1);
    world.ask(&Msg::discover(2));
    assert_eq!(world.send(&Msg::discover(3)), Err(DropReason::DhcpLimit));
    world.port_gone(1);
    assert_eq!((world.state(ip(2)), world.row(ip(3))), (Some(State::Bound), None));
    assert_eq!([world.lease(1, 3), world.lease(1, 4)], [ip(3), ip(4)], "the number is reused, its count is not");
    assert_eq!(world.ask_at(7, &Msg::renew(1, ip(2))).kind, ACK, "back behind another port");
}

#[test]
fn remembered_addresses_are_bounded() {
    let mut config = config("10.0.0.0/8");
    config.lease_time = Duration::from_secs(60);
    let mut world = World::with(config);
    for client in 0..5000u32 {
        let wanted = Ipv4Addr::from(u32::from(ip(2)) + client);
        world.ask(&Msg::renew(client, wanted));
        world.send(&Msg::release(client, wanted)).unwrap();
    }
    assert_eq!(world.server.leases(world.now).len(), 4096);
    assert_eq!(world.ask(&Msg::discover(4999)).yiaddr, Ipv4Addr::from(u32::from(ip(2)) + 4999), "the newest is known");
    assert_eq!(world.ask(&Msg::discover(90_000)).yiaddr, ip(2), "the oldest is forgotten, and fresh again");
}

#[test]
fn lease_view_serializes_for_the_control_interface() {
    let mut world = World::new();
    world.ask(&Msg::renew(1, ip(2)).option(12, b"Web-1"));
    world.reserve("db", None, Some(ip(9))).unwrap();
    let json = serde_json::to_value(world.server.leases(world.now)).unwrap();
    let expected = serde_json::json!([
        {"ip": "10.0.0.2", "mac": "02:00:00:00:00:01", "client_id": "01020000000001", "hostname": "web-1",
         "state": "bound", "expires_in": 3600, "name": null},
        {"ip": "10.0.0.9", "mac": "02:42:0a:00:00:09", "client_id": null, "hostname": null,
         "state": "reserved", "expires_in": null, "name": "db"},
    ]);
    assert_eq!(json, expected);
}

#[test]
fn dh_10_offer_that_was_not_taken_does_not_forget_the_client() {
    let mut world = World::new();
    world.lease(1, 1);
    world.send(&Msg::release(1, ip(2))).unwrap();
    let remembered = world.row(ip(2));
    world.ask(&Msg::discover(1));
    assert_eq!(world.state(ip(2)), Some(State::Offered));
    world.wait(60);
    world.poll();
    assert_eq!(world.row(ip(2)), remembered);
    assert_eq!(world.ask(&Msg::discover(2)).yiaddr, ip(3));
}
