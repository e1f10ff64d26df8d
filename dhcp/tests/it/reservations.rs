//! Addresses that go by the name of a container.

use tapswitch_dhcp::{ReserveError, State};
use tapswitch_wire::{DropReason, Mac};

use crate::world::*;

#[test]
fn reservation_holds_until_released_and_comes_back_by_name() {
    let mut world = World::new();
    let web = world.reserve("web", None, None).unwrap();
    assert_eq!((web.ip, web.mac), (ip(2), Mac::from_ipv4(ip(2))));
    assert_eq!(world.reserve("web", None, None).unwrap(), web, "asking again changes nothing");
    world.wait(1 << 30);
    world.poll();
    assert_eq!(world.state(ip(2)), Some(State::Reserved));
    assert_eq!(world.reserve("db", None, None).unwrap().ip, ip(3));
    world.release_name("web");
    world.release_name("nobody");
    assert_eq!(world.reserve("other", None, None).unwrap().ip, ip(4), "remembered for the name");
    assert_eq!(world.reserve("web", None, None).unwrap(), web);
}

#[test]
fn reserved_container_gets_its_address_by_dhcp_too() {
    let mut world = World::new();
    let web = world.reserve("web", Some(mac(1)), Some(ip(77))).unwrap();
    let duid = b"\xff\0\0\0\x01duid";
    let offer = world.ask(&Msg::discover(1).id(duid));
    assert_eq!((offer.yiaddr, offer.text(12)), (web.ip, "web"));
    assert_eq!(world.ask(&Msg::select(1, ip(77)).id(duid)).kind, ACK);
    assert_eq!(world.ask(&Msg::reboot(1, ip(5))).kind, NAK);
    // It can neither give it away nor decline it.
    assert_eq!(world.send(&Msg::release(1, ip(77)).id(duid)), Ok(None));
    assert_eq!(world.send(&Msg::decline(1, ip(77)).id(duid)), Ok(None));
    assert_eq!(world.state(ip(77)), Some(State::Reserved));
    // Its hardware address must be the sender's: neither an identity nor a relay will do.
    let id = [&[1][..], &mac(1).0].concat();
    assert_eq!(world.ask_at(2, &Msg::discover(2).id(&id)).yiaddr, ip(2));
    assert_eq!(world.ask_at(2, &Msg::renew(2, ip(77))).kind, NAK);
    let relayed = Msg { link_src: Some(mac(2)), ..Msg::renew(1, ip(77)).giaddr(ip(2)).id(b"\0") };
    assert_eq!(world.ask_at(2, &relayed).kind, NAK);
}

#[test]
fn reservation_takes_over_the_lease_of_its_own_hardware_address() {
    let mut world = World::new();
    let given = world.lease(1, 1);
    assert_eq!(world.reserve("web", Some(mac(1)), None).unwrap().ip, given);
    assert_eq!(world.ask(&Msg::renew(1, given)).kind, ACK);
    world.release_name("web");
    assert_eq!(world.state(given), Some(State::Released));
    assert_eq!(world.lease(1, 1), given);
}

#[test]
fn reservation_moves_to_the_address_asked_for() {
    let mut world = World::new();
    world.reserve("web", None, Some(ip(5))).unwrap();
    let moved = world.reserve("web", None, Some(ip(6))).unwrap();
    assert_eq!((moved.ip, moved.mac), (ip(6), Mac::from_ipv4(ip(6))));
    assert_eq!((world.state(ip(5)), world.state(ip(6))), (Some(State::Released), Some(State::Reserved)));
    let other_mac = world.reserve("web", Some(mac(9)), None).unwrap();
    assert_eq!((other_mac.ip, other_mac.mac), (ip(6), mac(9)));
}

#[test]
fn refused_reservations_say_what_why_and_what_to_do() {
    let mut world = World::new();
    world.reserve("db", Some(mac(50)), Some(ip(5))).unwrap();
    world.ask(&Msg::renew(1, ip(6)).option(12, b"phone"));
    world.ask(&Msg::renew(2, ip(7)));
    world.send(&Msg::decline(2, ip(7))).unwrap();
    let journal = world.journal.clone();
    let table = [
        (
            None,
            Some(ip(5)),
            "cannot give 10.0.0.5 to 'web': 'db' has it; choose another address, or release that one first",
        ),
        (
            None,
            Some(ip(6)),
            "cannot give 10.0.0.6 to 'web': the DHCP client 02:00:00:00:00:01 (phone) has it; \
             choose another address, or release that one first",
        ),
        (
            None,
            Some(ip(7)),
            "cannot give 10.0.0.7 to 'web': a host that answered when 02:00:00:00:00:02 tried it has it; \
             choose another address, or release that one first",
        ),
        (
            None,
            Some("10.1.0.5".parse().unwrap()),
            "cannot give 10.1.0.5 to 'web': it is not in the subnet 10.0.0.0/24; choose an address in it",
        ),
        (
            None,
            Some(SERVER),
            "cannot give 10.0.0.1 to 'web': it is the gateway's own address; choose another one in 10.0.0.0/24",
        ),
        (
            None,
            Some(ip(255)),
            "cannot give 10.0.0.255 to 'web': it is the network or broadcast address of 10.0.0.0/24; \
             choose one in between",
        ),
        (
            Some(mac(50)),
            None,
            "cannot use the MAC address 02:00:00:00:00:32 for 'web': 'db' has it; choose another one, or leave it out",
        ),
        (
            Some(SERVER_MAC),
            None,
            "cannot use the MAC address 02:42:0a:00:00:01 for 'web': the gateway has it; \
             choose another one, or leave it out",
        ),
        (
            Some(Mac::BROADCAST),
            None,
            "cannot use the MAC address ff:ff:ff:ff:ff:ff for 'web': it is zero or a group address; \
             choose a unicast one",
        ),
    ];
    for (mac, ip, message) in table {
        assert_eq!(world.reserve("web", mac, ip).unwrap_err().to_string(), message);
    }
    assert_eq!(world.journal, journal, "a refusal changes nothing");
}

#[test]
fn full_subnet_refuses_reservations() {
    let mut world = World::with(config("10.0.0.0/29"));
    for n in 0..5 {
        world.reserve(&format!("c{n}"), None, None).unwrap();
    }
    let refused = world.reserve("late", None, None).unwrap_err();
    assert!(matches!(refused, ReserveError::SubnetFull { .. }), "{refused}");
    assert_eq!(
        refused.to_string(),
        "cannot find an address for 'late': all of 10.0.0.0/29 are taken; detach something or use a larger subnet"
    );
    assert_eq!(world.send(&Msg::discover(1)), Err(DropReason::DhcpPoolExhausted));
    world.release_name("c2");
    assert_eq!(world.reserve("late", None, None).unwrap().ip, ip(4));
}

#[test]
fn derived_mac_that_somebody_chose_is_passed_over() {
    let mut world = World::new();
    world.reserve("odd", Some(Mac::from_ipv4(ip(2))), Some(ip(99))).unwrap();
    assert_eq!(world.reserve("web", None, None).unwrap().ip, ip(3));
    assert!(matches!(world.reserve("db", None, Some(ip(2))), Err(ReserveError::MacTaken { .. })));
}

#[test]
fn dh_11_reservations_survive_a_restart() {
    let mut world = World::new();
    let web = world.reserve("web", None, Some(ip(9))).unwrap();
    world.reserve("db", Some(mac(3)), None).unwrap();
    world.release_name("db");
    let (mut later, restored) = world.restarted(&world.journal, 1 << 30);
    assert_eq!((restored.leases, restored.warnings), (1, vec![]));
    assert_eq!(later.reserve("web", None, None).unwrap(), web);
    assert!(matches!(later.reserve("x", None, Some(ip(9))), Err(ReserveError::AddressTaken { .. })));
    assert_eq!(later.reserve("db", None, None).unwrap().ip, ip(2), "the name is remembered too");
}

#[test]
fn released_name_is_remembered_through_a_lease_of_its_hardware_address() {
    let mut world = World::new();
    world.reserve("web", Some(mac(1)), Some(ip(9))).unwrap();
    world.release_name("web");
    assert_eq!(world.lease(1, 1), ip(9));
    assert_eq!(world.row(ip(9)).unwrap().name.as_deref(), Some("web"));
    world.send(&Msg::release(1, ip(9))).unwrap();
    assert_eq!(world.reserve("web", None, None).unwrap().ip, ip(9));
}

#[test]
fn released_reservation_does_not_displace_the_lease_of_the_same_station() {
    let mut world = World::new();
    assert_eq!(world.lease(1, 1), ip(2));
    world.reserve("web", Some(mac(1)), Some(ip(9))).unwrap();
    assert_eq!(world.ask(&Msg::discover(1)).yiaddr, ip(9), "while it is reserved, that is its address");
    world.release_name("web");
    assert_eq!(world.ask(&Msg::discover(1)).yiaddr, ip(2), "then the lease that still runs");
}

#[test]
fn dh_11_same_container_gets_its_address_again_behind_each_new_port() {
    let mut world = World::with(config("10.0.0.0/29"));
    for port in 1..20 {
        assert_eq!(world.lease(port, 7), ip(2), "one station, one address, however often it is started");
        world.port_gone(port);
    }
}

#[test]
fn abandoned_leases_are_taken_back_only_when_nothing_is_free_longest_gone_first() {
    let mut world = World::with(config("10.0.0.0/29"));
    for client in 1..=4 {
        world.lease(client, client);
    }
    for port in [3, 1, 2] {
        world.port_gone(port);
    }
    assert_eq!(world.lease(5, 5), ip(6), "never used");
    assert_eq!(world.lease(6, 6), ip(4), "its port went first");
    assert_eq!(world.reserve("web", None, None).unwrap().ip, ip(2), "then this one's");
    assert_eq!(world.ask_at(7, &Msg::renew(1, ip(2))).kind, NAK, "its former client hears that it is somebody's");
    assert_eq!(world.lease(2, 2), ip(3), "who comes back in time keeps it");
    assert_eq!(world.send_at(8, &Msg::discover(8)), Err(DropReason::DhcpPoolExhausted), "the rest is attached");
    assert!(matches!(world.reserve("db", None, None), Err(ReserveError::SubnetFull { .. })));
    let states: Vec<_> = world.server.leases(world.now).iter().map(|row| (row.ip, row.state)).collect();
    let [bound, reserved] = [State::Bound, State::Reserved];
    assert_eq!(states, [(ip(2), reserved), (ip(3), bound), (ip(4), bound), (ip(5), bound), (ip(6), bound)]);
}

#[test]
fn dh_11_leases_of_an_earlier_run_are_taken_back_only_when_nothing_is_free() {
    let mut world = World::with(config("10.0.0.0/29"));
    for client in 1..=3 {
        world.lease(client, client);
    }
    let (mut later, _) = world.restarted(&world.journal, 1);
    assert_eq!([later.lease(1, 11), later.lease(1, 12)], [ip(5), ip(6)], "what nobody had");
    assert_eq!(later.lease(2, 1), ip(2), "who comes back keeps it");
    assert_eq!([later.lease(3, 13), later.reserve("web", None, None).unwrap().ip], [ip(3), ip(4)]);
    assert_eq!(later.send_at(4, &Msg::discover(14)), Err(DropReason::DhcpPoolExhausted));
    // The new holders outlive the next crash, the former one does not come back between them.
    let (again, _) = later.restarted(&later.journal, 1);
    assert_eq!(again.row(ip(3)).map(|row| (row.state, row.mac)), Some((State::Bound, mac(13))));
    assert_eq!(again.state(ip(4)), Some(State::Reserved));
}
