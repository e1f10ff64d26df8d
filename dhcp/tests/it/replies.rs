//! Where replies go and what is in them: DH-4, DH-5, DH-7, DH-8.

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_wire::{DropReason, Mac};

use crate::world::*;

#[test]
fn dh_4_replies_go_where_rfc_2131_4_1_says() {
    let everybody = Ipv4Addr::BROADCAST;
    let relay = mac(99);
    let relayed = |msg: Msg| Msg { link_src: Some(relay), ..msg.giaddr(ip(50)) };
    let table = [
        ("no address yet: to yiaddr without ARP", Msg::discover(1), mac(1), ip(2), 68),
        ("broadcast flag", Msg::discover(1).broadcast(), Mac::BROADCAST, everybody, 68),
        ("selecting", Msg::select(1, ip(2)), mac(1), ip(2), 68),
        ("ciaddr", Msg::renew(1, ip(2)), mac(1), ip(2), 68),
        ("ciaddr before broadcast flag", Msg::renew(1, ip(2)).broadcast(), mac(1), ip(2), 68),
        ("relay", relayed(Msg::discover(1)), relay, ip(50), 67),
        ("relay before all else", relayed(Msg::renew(1, ip(2)).broadcast()), relay, ip(50), 67),
    ];
    let mut world = World::new();
    for (what, msg, link, dst, port) in table {
        let answer = world.ask(&msg);
        assert_eq!((answer.dst_mac, answer.dst, answer.dst_port), (link, dst, port), "{what}");
        assert_eq!(answer.field(24..28), msg.giaddr.octets(), "{what}: giaddr");
        assert!(answer.payload.len() >= 300, "{what}: shorter than BOOTP allows");
    }
}

#[test]
fn dh_4_relay_of_another_network_is_ignored() {
    let mut world = World::new();
    let relayed = Msg::discover(1).giaddr("10.9.0.1".parse().unwrap());
    assert_eq!(world.send(&relayed), Err(DropReason::DhcpIgnored));
}

#[test]
fn dh_4_message_ends_with_option_255_and_padding() {
    let answer = World::new().ask(&Msg::discover(1).option(55, &[]));
    assert_eq!(answer.payload.len(), 300);
    let end = answer.payload.iter().rposition(|byte| *byte != 0).unwrap();
    assert_eq!(answer.payload[end], 255);
}

#[test]
fn dh_5_option_61_is_the_identity_and_comes_back() {
    let mut world = World::new();
    let a = world.ask(&Msg::discover(1).id(b"\0alpha"));
    let b = world.ask(&Msg::discover(1).id(b"\0beta"));
    let plain = world.ask(&Msg::discover(1));
    assert_eq!((a.yiaddr, b.yiaddr, plain.yiaddr), (ip(2), ip(3), ip(4)), "three clients on one interface");
    assert_eq!((a.get(61), b.get(61), plain.find(61)), (&b"\0alpha"[..], &b"\0beta"[..], None));
    // Another interface of the same client, and the type-and-address form of an identity.
    assert_eq!(world.ask(&Msg::discover(2).id(b"\0alpha")).yiaddr, ip(2));
    let explicit = [&[1][..], &mac(1).0].concat();
    assert_eq!(world.ask(&Msg::discover(1).id(&explicit)).yiaddr, ip(4));
}

#[test]
fn dh_5_option_82_comes_back_last_and_unchanged() {
    let info = [1, 4, b'p', b'o', b'r', b't', 151, 0, 200, 1, 9];
    let msg = Msg::discover(1).option(82, &info).id(b"\0x").option(55, &[1, 3, 6, 15, 26]);
    let answer = World::new().ask(&msg);
    assert_eq!(answer.codes().last(), Some(&82));
    assert_eq!(answer.get(82), info);
}

#[test]
fn dh_7_times_are_clamped_and_t1_and_t2_derived() {
    let mut config = config("10.0.0.0/24");
    config.max_lease_time = Duration::from_secs(7200);
    let table = [
        (None, 3600, 1800, 3150),
        (Some(1000u32), 1000, 500, 875),
        (Some(1), 60, 30, 52),
        (Some(7201), 7200, 3600, 6300),
        (Some(u32::MAX), 7200, 3600, 6300),
    ];
    for (asked, lease, t1, t2) in table {
        let mut world = World::with(config.clone());
        let with = |msg: Msg| asked.map_or(msg.clone(), |secs| msg.option(51, &secs.to_be_bytes()));
        for msg in [with(Msg::discover(1)), with(Msg::select(1, ip(2)))] {
            let answer = world.ask(&msg);
            assert_eq!((answer.secs(51), answer.secs(58), answer.secs(59)), (lease, t1, t2), "asked for {asked:?}");
        }
        world.wait(u64::from(lease) - 1);
        world.poll();
        assert_eq!(world.state(ip(2)), Some(tapswitch_dhcp::State::Bound));
        world.wait(1);
        world.poll();
        assert_eq!(world.state(ip(2)), Some(tapswitch_dhcp::State::Released), "asked for {asked:?}");
    }
}

#[test]
fn dh_7_infinite_lease_is_all_ones_and_survives_a_restart() {
    let mut config = config("10.0.0.0/24");
    config.max_lease_time = Duration::MAX;
    let mut world = World::with(config);
    let ack = world.ask(&Msg::renew(1, ip(2)).option(51, &[0xff; 4]));
    assert_eq!((ack.secs(51), ack.find(58), ack.find(59)), (u32::MAX, None, None));
    assert_eq!((world.row(ip(2)).unwrap().expires_in, world.server.deadline()), (None, None));
    let (later, _) = world.restarted(&world.journal, 1 << 40);
    assert_eq!(later.state(ip(2)), Some(tapswitch_dhcp::State::Bound));
}

fn rich() -> tapswitch_dhcp::Config {
    let mut config = config("10.0.0.0/24");
    config.mtu = 1420;
    config.dns = vec![SERVER, ip(53)];
    config.domain = Some("lan.test".into());
    config.search = vec!["a.lan.test".into(), "not a name".into(), "b.lan.test".into()];
    config.routes = vec![("172.16.0.5/12".parse().unwrap(), ip(9))];
    config
}

#[test]
fn dh_8_options_come_in_the_order_asked_with_the_mask_before_routers() {
    let mut world = World::with(rich());
    let answer = world.ask(&Msg::discover(1).option(55, &[26, 3, 15, 26, 6, 1, 119, 28, 200, 121, 58, 53]));
    assert_eq!(answer.codes(), [53, 54, 51, 58, 59, 1, 26, 3, 15, 6, 119, 28, 121]);
    assert_eq!(answer.get(26), 1420u16.to_be_bytes());
    assert_eq!(answer.get(6), [10, 0, 0, 1, 10, 0, 0, 53]);
    assert_eq!(answer.text(15), "lan.test");
    assert_eq!(answer.get(28), [10, 0, 0, 255]);
    assert_eq!(answer.get(119), b"\x01a\x03lan\x04test\0\x01b\xc0\x02", "compressed, nonsense left out");
    assert_eq!(answer.get(121), [12, 172, 16, 10, 0, 0, 9, 0, 10, 0, 0, 1], "host bits cleared, default route added");
    // Without a list: what a simple client needs. 119 and 121 only on request.
    assert_eq!(world.ask(&Msg::discover(1)).codes(), [53, 54, 51, 58, 59, 1, 3, 6, 15, 26]);
}

#[test]
fn dh_8_classless_routes_keep_a_default_route_of_their_own_and_stay_away_if_empty() {
    let mut config = rich();
    config.routes = vec![("0.0.0.0/0".parse().unwrap(), ip(7))];
    let answer = World::with(config.clone()).ask(&Msg::discover(1).option(55, &[121, 3]));
    assert_eq!(answer.get(121), [0, 10, 0, 0, 7]);
    config.routes.clear();
    let answer = World::with(config).ask(&Msg::discover(1).option(55, &[121, 3]));
    assert_eq!(answer.codes(), [53, 54, 51, 58, 59, 1, 3]);
}

#[test]
fn dh_8_reserved_container_learns_its_name() {
    let mut world = World::new();
    for (name, client, said) in [("web-1", 1, Some(&b"web-1"[..])), ("not a name", 2, None)] {
        world.reserve(name, Some(mac(client)), None).unwrap();
        assert_eq!(world.ask(&Msg::discover(client).option(55, &[12])).find(12), said);
    }
}

#[test]
fn dh_8_long_options_are_split_and_within_the_size_the_client_takes() {
    let mut config = rich();
    config.dns = (0..100).map(ip).collect();
    config.search = (0..40).map(|n| format!("department-{n}.lan.test")).collect();
    config.routes = (0..60).map(|n| (format!("172.16.{n}.0/24").parse().unwrap(), ip(9))).collect();
    config.mtu = 9000;
    let codes = &[1, 3, 6, 15, 26, 28, 119, 121];
    let msg = |size: u16| {
        Msg::discover(1).option(55, codes).option(57, &size.to_be_bytes()).id(b"\0x").option(82, &[1, 1, 7])
    };
    let mut world = World::with(config.clone());
    let all = world.ask(&msg(9000));
    assert_eq!(all.codes(), [53, 54, 51, 58, 59, 1, 3, 6, 15, 26, 28, 119, 121, 61, 82]);
    assert_eq!((all.get(6).len(), all.get(121).len()), (400, 60 * 8 + 5));
    assert!(all.get(119).len() > 255);

    for size in (0..3000).step_by(7).chain([u16::MAX]) {
        let answer = world.ask(&msg(size));
        assert!(answer.payload.len() + 28 <= usize::from(size.max(576)), "{size}: {}", answer.payload.len());
        let end = answer.payload.iter().rposition(|byte| *byte != 0).unwrap();
        assert_eq!(answer.payload[end - 5..=end], [82, 3, 1, 1, 7, 255], "option 82 is the last of the options field");
        for code in [53, 54, 51, 58, 59, 1, 61] {
            assert_eq!(answer.find(code), all.find(code), "option {code} at {size}");
        }
        for code in answer.codes().into_iter().filter(|code| *code != 52) {
            assert_eq!(answer.find(code), all.find(code), "option {code} at {size} is whole or not there");
        }
        for (code, value) in all.options.iter().filter(|(code, _)| answer.find(*code).is_none()) {
            let needed = value.len() + 2 * value.len().div_ceil(255);
            let free = usize::from(size.max(576)) - 28 - (end + 1);
            assert!(needed > free.saturating_sub(3), "option {code} would have fit at {size}");
        }
    }
    // Without option 57 the client takes 576, and never more than the MTU goes out.
    assert!(world.ask(&Msg::discover(1).option(55, codes)).payload.len() + 28 <= 576);
    config.mtu = 700;
    assert!(World::with(config).ask(&msg(9000)).payload.len() + 28 <= 700);
}

#[test]
fn dh_8_option_overload_only_if_needed() {
    let mut config = rich();
    config.search = (0..6).map(|n| format!("{n}.{}.test", "x".repeat(60))).collect();
    config.dns = (0..40).map(ip).collect();
    config.routes = (0..10).map(|n| (format!("172.16.{n}.0/24").parse().unwrap(), ip(9))).collect();
    let ask = |size: u16| {
        let msg = Msg::discover(1).option(55, &[1, 3, 6, 15, 119, 121]).option(57, &size.to_be_bytes());
        World::with(config.clone()).ask(&msg)
    };
    let small = ask(576);
    assert_eq!(small.get(52), [1], "the routes went into `file`");
    assert_eq!(&small.field(108..110), &[121, 85]);
    assert_eq!(small.codes(), [53, 54, 51, 58, 59, 1, 3, 6, 15, 119, 52, 121]);
    let large = ask(1400);
    assert_eq!(large.find(52), None);
    assert!(large.field(44..236).iter().all(|byte| *byte == 0));
    assert_eq!(large.get(121), small.get(121));
}

#[test]
fn dh_8_what_must_be_echoed_never_pushes_a_reply_over_its_size() {
    let mut config = rich();
    config.dns = (0..40).map(ip).collect();
    let mut world = World::with(config);
    for id in 200..=255 {
        let msg = Msg::discover(1).id(&vec![7; id]).option(82, &[3; 15]).option(55, &[3, 6, 15, 26, 28, 119, 121]);
        let answer = world.ask(&msg);
        assert!(answer.payload.len() + 28 <= 576, "{id}: {}", answer.payload.len());
        assert_eq!((answer.get(61).len(), answer.get(82).len()), (id, 15));
        world.send(&Msg::release(1, answer.yiaddr).id(&vec![7; id])).unwrap();
    }
    // Option 82 gives way where even the echoed options do not fit.
    let msg = Msg::discover(1).id(&[7; 255]).option(82, &[3; 100]);
    let answer = world.ask(&msg);
    assert_eq!((answer.get(61).len(), answer.find(82)), (255, None));
    assert!(answer.payload.len() + 28 <= 576);
}
