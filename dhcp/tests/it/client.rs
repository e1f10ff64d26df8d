//! How the router gets its address from a LAN, keeps it, and loses it (RFC 2131 4.4).

use std::net::Ipv4Addr;
use std::time::Duration;

use tapswitch_dhcp::client::{Config, Event, Lease};
use tapswitch_wire::{DropReason, Mac};

use crate::client_world::*;
use crate::world::{ACK, ANY, DECLINE, DISCOVER, NAK, OFFER, RELEASE, REQUEST, SERVER, SERVER_MAC, ip};

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OTHER_MAC: Mac = Mac([2, 0x42, 10, 0, 0, 2]);
const IGNORED: Result<Option<Event>, DropReason> = Err(DropReason::DhcpIgnored);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn lease(until: tapswitch_wire::Instant) -> Lease {
    Lease {
        address: "10.0.0.9/24".parse().unwrap(),
        router: Some(SERVER),
        dns: vec![],
        mtu: None,
        server: SERVER,
        until,
    }
}

#[test]
fn an_address_is_bound_at_the_first_offer() {
    let mut guest = Guest::new();
    assert_eq!((guest.state(), guest.client.deadline()), ("waiting", Some(START)));
    let discover = guest.next();
    assert_eq!((discover.kind, discover.at, guest.state()), (DISCOVER, START, "selecting"));
    assert!(discover.is_broadcast() && discover.src == ANY && discover.ciaddr == ANY);
    assert_eq!(discover.options.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [53, 12, 55]);
    assert_eq!(discover.find(12), Some(&b"router"[..]));
    assert_eq!(discover.find(55), Some(&[1, 3, 6, 26, 58, 59][..]));

    guest.wait(1);
    assert_eq!(guest.hear(&discover.answer(OFFER, ip(9)).terms(600)), Ok(None));
    let request = guest.take();
    assert_eq!((request.kind, request.xid, guest.state()), (REQUEST, discover.xid, "requesting"));
    assert!(request.is_broadcast() && request.src == ANY && request.ciaddr == ANY);
    assert_eq!((request.ip(50), request.ip(54)), (Some(ip(9)), Some(SERVER)));
    assert_eq!(guest.client.lease(), None);

    // The lease counts from the REQUEST, not from the ACK.
    guest.wait(2);
    let ack = request.answer(ACK, ip(9)).terms(600).option(6, &[10, 0, 0, 1, 9, 9, 9, 9]).option(26, &[5, 120]);
    let bound = Lease { dns: vec![SERVER, [9, 9, 9, 9].into()], mtu: Some(1400), ..lease(START + secs(601)) };
    assert_eq!(guest.hear(&ack), Ok(Some(Event::Bound(bound.clone()))));
    assert_eq!((guest.client.lease(), guest.state()), (Some(&bound), "bound"));
    assert_eq!(guest.hear(&ack), IGNORED, "the ACK came twice");
    assert_eq!(guest.poll(), None);
    assert!(guest.said.is_empty());
}

#[test]
fn a_silent_lan_is_asked_ever_less_often() {
    for secret in 0..50 {
        let mut guest = Guest::with(Config { secret, ..config() });
        let mut before = guest.next();
        let xid = before.xid;
        for pause in [4, 8, 16, 32, 64, 64, 64] {
            let again = guest.next();
            let range = secs(pause - 1)..=secs(pause + 1);
            assert!(range.contains(&(again.at - before.at)), "{:?} is not {pause} s", again.at - before.at);
            assert_eq!((again.kind, again.xid), (DISCOVER, xid));
            assert_eq!(u64::from(again.secs), (again.at - START).as_secs());
            before = again;
        }
        // A late offer still counts, and the REQUEST says how long all took.
        assert_eq!(guest.hear(&before.answer(OFFER, ip(9)).terms(600)), Ok(None));
        assert_eq!(guest.take().secs, before.secs);
    }
}

#[test]
fn pauses_and_transactions_differ_from_client_to_client() {
    let first = |config| {
        let mut guest = Guest::with(config);
        let xid = guest.next().xid;
        (xid, guest.next().at)
    };
    let mut seen: Vec<_> = (0..20).map(|secret| first(Config { secret, ..config() })).collect();
    seen.push(first(Config { mac: OTHER_MAC, ..config() }));
    let count = seen.len();
    for key in [|seen: &(u32, _)| u64::from(seen.0), |seen: &(u32, tapswitch_wire::Instant)| seen.1.as_nanos()] {
        let keys: std::collections::BTreeSet<_> = seen.iter().map(key).collect();
        assert!(keys.len() > count - 3, "{seen:?}");
    }
    assert_eq!(first(config()), first(config()), "the same secret gives the same client");
}

#[test]
fn a_server_that_does_not_acknowledge_is_given_up_after_a_minute() {
    let mut guest = Guest::new();
    let discover = guest.next();
    assert_eq!(guest.hear(&discover.answer(OFFER, ip(9)).terms(600)), Ok(None));
    let first = guest.take();
    for pause in [4, 12, 28] {
        let again = guest.next();
        assert_eq!((again.kind, again.xid, again.ip(50)), (REQUEST, discover.xid, Some(ip(9))));
        assert!((again.at - first.at).abs_diff(secs(pause)) <= secs(3), "{:?}", again.at - first.at);
    }
    let over = guest.next();
    assert_eq!((over.kind, guest.state()), (DISCOVER, "selecting"));
    assert!((over.at - first.at).abs_diff(secs(60)) <= secs(4));
    assert_ne!(over.xid, discover.xid);
    assert_eq!(guest.hear(&first.answer(ACK, ip(9)).terms(600)), IGNORED, "too late");
}

#[test]
fn a_lease_is_renewed_at_t1_with_its_server_alone() {
    let mut guest = Guest::bound(600);
    let renew = guest.next();
    assert_eq!((renew.kind, renew.at, guest.state()), (REQUEST, START + secs(300), "renewing"));
    assert_eq!((renew.link_dst, renew.dst, renew.src, renew.ciaddr), (SERVER_MAC, SERVER, ip(9), ip(9)));
    assert_eq!((renew.find(50), renew.find(54)), (None, None), "RFC 2131 table 4");
    assert_eq!(guest.client.lease(), Some(&lease(START + secs(600))), "it stays in use");

    assert_eq!(guest.hear(&renew.answer(ACK, ip(9)).terms(600).from(OTHER, OTHER_MAC)), IGNORED);
    assert_eq!(guest.hear(&renew.answer(ACK, ip(8)).terms(600)), IGNORED, "another address");
    guest.wait(2);
    let changed = Lease { router: Some(ip(3)), ..lease(START + secs(900)) };
    let ack = renew.answer(ACK, ip(9)).terms(600).instead(3, &ip(3).octets());
    assert_eq!(guest.hear(&ack), Ok(Some(Event::Renewed(changed))));
    assert_eq!((guest.state(), guest.client.deadline()), ("bound", Some(START + secs(600))));
}

#[test]
fn renewals_that_nobody_answers_halve_the_time_left_and_then_go_to_everybody() {
    let mut guest = Guest::bound(3600);
    // T1 is 1800 s, T2 3150 s; pauses are half of what is left, at least 60 s.
    let mut times = Vec::new();
    let event = loop {
        if let Some(event) = guest.step() {
            break event;
        }
        let said = guest.take();
        assert_eq!((said.kind, said.src, said.ciaddr), (REQUEST, ip(9), ip(9)));
        assert_eq!(said.is_broadcast(), guest.state() == "rebinding", "{said:?}");
        times.push((said.at - START).as_secs());
    };
    assert_eq!(times, [1800, 2475, 2812, 2981, 3065, 3125, 3150, 3375, 3487, 3547]);
    assert_eq!((event, guest.now, guest.client.lease()), (Event::Lost, START + secs(3600), None));
    let again = guest.take();
    assert_eq!((again.kind, again.src, again.ciaddr, guest.state()), (DISCOVER, ANY, ANY, "selecting"));
    assert_eq!(again.ip(50), Some(ip(9)), "it would like its address back");
}

#[test]
fn any_server_may_rebind_a_lease_and_is_the_one_from_then_on() {
    let mut guest = Guest::bound(80);
    assert_eq!(guest.next().at, START + secs(40));
    let rebind = guest.next();
    assert_eq!((rebind.at, guest.state(), rebind.is_broadcast()), (START + secs(70), "rebinding", true));
    assert_eq!((rebind.find(50), rebind.find(54)), (None, None));
    let ack = rebind.answer(ACK, ip(9)).terms(80).from(OTHER, OTHER_MAC);
    let rebound = Lease { server: OTHER, ..lease(START + secs(150)) };
    assert_eq!(guest.hear(&ack), Ok(Some(Event::Renewed(rebound))));
    let renew = guest.next();
    assert_eq!((renew.at, renew.dst, renew.link_dst), (START + secs(110), OTHER, OTHER_MAC));
}

#[test]
fn the_servers_t1_and_t2_hold_if_they_are_in_order() {
    // Lease, T1, T2 as sent; T1 and T2 as used.
    let table = [
        (800, None, None, 400, 700),
        (800, Some(100), Some(200), 100, 200),
        (800, Some(100), None, 100, 700),
        (800, None, Some(300), 300, 300),
        (800, Some(300), Some(200), 200, 200),
        (800, Some(0), Some(0), 400, 700),
        (800, Some(900), Some(900), 400, 700),
        (800, Some(u32::MAX), Some(u32::MAX), 400, 700),
        (8, None, None, 4, 7),
    ];
    for (time, t1, t2, renew_at, rebind_at) in table {
        let mut guest = Guest::new();
        let discover = guest.next();
        guest.hear(&discover.answer(OFFER, ip(9)).terms(time)).unwrap();
        let mut ack = guest.take().answer(ACK, ip(9)).terms(time);
        for (code, secs) in [(58, t1), (59, t2)] {
            ack = secs.map_or(ack.clone(), |secs: u32| ack.option(code, &secs.to_be_bytes()));
        }
        guest.hear(&ack).unwrap();
        let first = guest.next();
        assert_eq!(first.at, START + secs(renew_at), "T1 of {time} {t1:?} {t2:?}");
        let rebind = if first.is_broadcast() { first } else { guest.until_broadcast() };
        assert_eq!(rebind.at, START + secs(rebind_at), "T2 of {time} {t1:?} {t2:?}");
    }
}

impl Guest {
    fn until_broadcast(&mut self) -> Said {
        loop {
            let said = self.next();
            if said.is_broadcast() {
                return said;
            }
        }
    }
}

#[test]
fn an_infinite_lease_is_never_renewed() {
    let guest = Guest::bound(u32::MAX);
    assert_eq!(guest.client.deadline(), None);
    assert_eq!(guest.client.lease(), Some(&lease(Lease::FOREVER)));
}

#[test]
fn a_lease_shorter_than_a_minute_is_kept_alive() {
    let mut guest = Guest::bound(1);
    for _ in 0..10 {
        let renew = guest.next();
        assert_eq!(guest.state(), "renewing");
        let event = guest.hear(&renew.answer(ACK, ip(9)).terms(1));
        assert_eq!(event, Ok(Some(Event::Renewed(lease(renew.at + secs(1))))));
    }
    assert_eq!(guest.now, START + secs(5));
}

#[test]
fn a_refused_renewal_ends_the_lease_and_starts_over_after_a_pause() {
    let mut guest = Guest::bound(600);
    let renew = guest.next();
    assert_eq!(guest.hear(&renew.answer(NAK, ANY).from(OTHER, OTHER_MAC)), IGNORED, "not its business");
    assert_eq!(guest.hear(&renew.answer(NAK, ANY)), Ok(Some(Event::Lost)));
    assert_eq!((guest.client.lease(), guest.state()), (None, "waiting"));
    let again = guest.next();
    assert_eq!((again.kind, again.find(50)), (DISCOVER, None), "what was refused is not asked for");
    assert!((secs(1)..=secs(10)).contains(&(again.at - renew.at)), "{:?}", again.at - renew.at);
}

#[test]
fn any_server_may_refuse_a_rebinding() {
    let mut guest = Guest::bound(80);
    guest.next();
    let rebind = guest.next();
    assert_eq!(guest.hear(&rebind.answer(NAK, ANY).from(OTHER, OTHER_MAC)), Ok(Some(Event::Lost)));
}

#[test]
fn a_server_that_offers_and_refuses_in_turn_makes_no_storm() {
    let mut guest = Guest::new();
    for _ in 0..20 {
        let discover = guest.next();
        guest.hear(&discover.answer(OFFER, ip(9)).terms(600)).unwrap();
        let request = guest.take();
        assert_eq!(guest.hear(&request.answer(NAK, ANY).from(OTHER, OTHER_MAC)), IGNORED);
        assert_eq!(guest.hear(&request.answer(NAK, ANY)), Ok(None), "there was no lease to lose");
    }
    assert!(guest.now >= START + secs(19));
}

#[test]
fn of_two_servers_the_first_to_offer_is_taken() {
    let mut guest = Guest::new();
    let discover = guest.next();
    guest.hear(&discover.answer(OFFER, ip(9)).terms(600)).unwrap();
    let request = guest.take();
    assert_eq!(request.ip(54), Some(SERVER), "which tells the other one that it was not");
    assert_eq!(guest.hear(&discover.answer(OFFER, ip(8)).terms(600).from(OTHER, OTHER_MAC)), IGNORED);
    assert_eq!(guest.hear(&request.answer(ACK, ip(9)).terms(600).from(OTHER, OTHER_MAC)), IGNORED);
    assert_eq!(guest.hear(&request.answer(ACK, ip(8)).terms(600)), IGNORED, "another address than was offered");
    assert!(guest.said.is_empty());
    assert!(matches!(guest.hear(&request.answer(ACK, ip(9)).terms(600)), Ok(Some(Event::Bound(_)))));
}

#[test]
fn an_address_in_use_is_declined_and_asked_for_no_more() {
    let mut guest = Guest::bound(600);
    guest.wait(1);
    let [decline] = &guest.decline()[..] else { panic!("not one message") };
    assert_eq!((decline.kind, guest.state(), guest.client.lease()), (DECLINE, "waiting", None));
    assert!(decline.is_broadcast() && decline.src == ANY && decline.ciaddr == ANY);
    assert_eq!((decline.ip(50), decline.ip(54)), (Some(ip(9)), Some(SERVER)));
    assert_eq!((decline.find(12), decline.find(55)), (None, None), "RFC 2131 table 5");
    let again = guest.next();
    assert_eq!((again.kind, again.at, again.find(50)), (DISCOVER, START + secs(11), None));
    assert!(guest.decline().is_empty(), "there is nothing to decline");
}

#[test]
fn a_released_client_is_silent_for_good() {
    let mut guest = Guest::bound(600);
    let renew = guest.next();
    let [release] = &guest.release()[..] else { panic!("not one message") };
    assert_eq!((release.kind, release.ciaddr, release.src), (RELEASE, ip(9), ip(9)));
    assert_eq!((release.link_dst, release.dst, release.ip(54)), (SERVER_MAC, SERVER, Some(SERVER)));
    assert_eq!((release.find(50), release.find(12), release.find(55)), (None, None, None), "RFC 2131 table 5");
    assert_eq!((guest.state(), guest.client.lease(), guest.client.deadline()), ("released", None, None));
    assert_eq!(guest.hear(&renew.answer(ACK, ip(9)).terms(600)), IGNORED);
    guest.wait(10_000);
    assert_eq!((guest.poll(), guest.said.len(), guest.release().len()), (None, 0, 0));
}

#[test]
fn an_ack_that_comes_after_the_lease_is_over_does_not_revive_it() {
    let mut guest = Guest::bound(80);
    guest.next();
    let rebind = guest.next();
    // Nobody polled in time; the ACK is the first thing that happens.
    guest.wait(20);
    assert_eq!(guest.hear(&rebind.answer(ACK, ip(9)).terms(80)), Ok(Some(Event::Lost)));
    assert_eq!((guest.take().kind, guest.client.lease()), (DISCOVER, None));
}

#[test]
fn a_client_that_slept_through_its_lease_says_so_at_once() {
    let mut guest = Guest::bound(600);
    guest.wait(10_000);
    assert_eq!(guest.poll(), Some(Event::Lost));
    assert_eq!(guest.take().kind, DISCOVER);
}

#[test]
fn a_name_and_an_identifier_are_sent_only_if_they_are_lawful() {
    let table = [
        (Some("router"), Some(vec![0, 7]), (true, true)),
        (Some("r\n"), Some(vec![0]), (false, false)),
        (None, Some(vec![7; 256]), (false, false)),
        (Some(""), Some(vec![7; 255]), (false, true)),
        (None, None, (false, false)),
    ];
    for (hostname, client_id, (named, identified)) in table {
        let mut guest = Guest::with(Config { hostname: hostname.map(Into::into), client_id, ..config() });
        let said = guest.next();
        assert_eq!((said.find(12).is_some(), said.find(61).is_some()), (named, identified), "{said:?}");
    }
}

#[test]
fn an_ack_for_a_lease_that_would_be_over_already_is_not_taken() {
    let mut guest = Guest::new();
    let discover = guest.next();
    guest.hear(&discover.answer(OFFER, ip(9)).terms(10)).unwrap();
    let request = guest.take();
    // The server may have granted it when the first REQUEST came, so it is over 10 s after that.
    guest.wait(10);
    assert_eq!(guest.hear(&request.answer(ACK, ip(9)).terms(10)), IGNORED);
    assert_eq!(guest.state(), "requesting");
    assert!(matches!(guest.hear(&request.answer(ACK, ip(9)).terms(11)), Ok(Some(Event::Bound(_)))));
}

#[test]
fn an_address_that_was_had_again_and_then_refused_is_not_asked_for_a_third_time() {
    let again = |refuse: fn(&mut Guest)| {
        let mut guest = Guest::bound(60);
        while guest.step() != Some(Event::Lost) {
            guest.said.clear();
        }
        let discover = guest.take();
        assert_eq!(discover.ip(50), Some(ip(9)));
        guest.hear(&discover.answer(OFFER, ip(9)).terms(60)).unwrap();
        refuse(&mut guest);
        guest.next().find(50).is_some()
    };
    let decline = |guest: &mut Guest| {
        let ack = guest.take().answer(ACK, ip(9)).terms(60);
        assert!(matches!(guest.hear(&ack), Ok(Some(Event::Bound(_)))));
        assert_eq!(guest.decline().len(), 1);
    };
    let nak = |guest: &mut Guest| {
        let nak = guest.take().answer(NAK, ANY);
        assert_eq!(guest.hear(&nak), Ok(None));
    };
    assert!(!again(decline) && !again(nak));
}
