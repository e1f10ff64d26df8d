//! What the client believes of a reply, what it makes of odd ones, and that nothing panics.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use tapswitch_dhcp::client::{Client, Config, Event, Lease};
use tapswitch_wire::{DropReason, FrameRef, Instant, Mac, Meta};

use crate::client_world::*;
use crate::world::{ACK, DISCOVER, INFORM, Msg, NAK, OFFER, REQUEST, SERVER_MAC, ip};

const IGNORED: Result<Option<Event>, DropReason> = Err(DropReason::DhcpIgnored);
const MALFORMED: Result<Option<Event>, DropReason> = Err(DropReason::DhcpMalformed);

/// A guest that waits for an ACK, and the ACK it would like.
fn requesting() -> (Guest, Reply) {
    let mut guest = Guest::new();
    let discover = guest.next();
    guest.hear(&discover.answer(OFFER, ip(9)).terms(600)).unwrap();
    let ack = guest.take().answer(ACK, ip(9)).terms(600);
    (guest, ack)
}

/// The lease that comes of an ACK for `address`.
fn lease_of(address: Ipv4Addr, change: impl Fn(Reply) -> Reply) -> Option<Lease> {
    let mut guest = Guest::new();
    let discover = guest.next();
    guest.hear(&change(discover.answer(OFFER, address).terms(600))).ok()?;
    let request = guest.take();
    match guest.hear(&change(request.answer(ACK, address).terms(600))) {
        Ok(Some(Event::Bound(lease))) => Some(lease),
        other => panic!("the offer was taken, the ACK not: {other:?}"),
    }
}

#[test]
fn replies_for_others_are_ignored() {
    let (guest, ack) = requesting();
    let other = Mac([2, 0, 0, 0, 0, 8]);
    let msg = ack.msg.clone();
    let table = [
        ("transaction", Reply { msg: Msg { xid: msg.xid ^ 1, ..msg.clone() }, ..ack.clone() }),
        ("hardware address", Reply { msg: Msg { chaddr: other, ..msg.clone() }, ..ack.clone() }),
        ("frame", Reply { link: (SERVER_MAC, other), ..ack.clone() }),
        ("kind of sender than a station", Reply { link: (Mac::BROADCAST, ME), ..ack.clone() }),
        ("multicast frame", Reply { link: (SERVER_MAC, Mac([1, 0, 94, 0, 0, 1])), ..ack.clone() }),
        ("source port", Reply { ports: (53, 68), ..ack.clone() }),
        ("destination port", Reply { ports: (67, 67), ..ack.clone() }),
        ("kind OFFER", ack.clone().instead(53, &[OFFER])),
        ("kind DISCOVER", ack.clone().instead(53, &[DISCOVER])),
        ("kind INFORM", ack.clone().instead(53, &[INFORM])),
        ("kind 255", ack.clone().instead(53, &[255])),
    ];
    for (what, reply) in table {
        assert_eq!(guest.clone().hear(&reply), IGNORED, "another {what}");
    }
    let mut tagged = ack.frame();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(guest.clone().hear_frame(&tagged), IGNORED, "of a VLAN");
    let broadcast = Reply { link: (SERVER_MAC, Mac::BROADCAST), ..ack };
    assert!(matches!(guest.clone().hear(&broadcast), Ok(Some(Event::Bound(_)))));
}

#[test]
fn an_echoed_identifier_must_be_ours() {
    let with = |client_id: Option<Vec<u8>>, echo: Option<&[u8]>| {
        let mut guest = Guest::with(Config { client_id, ..config() });
        let offer = guest.next().answer(OFFER, ip(9)).terms(600);
        guest.hear(&echo.map_or(offer.clone(), |id| offer.option(61, id)))
    };
    assert_eq!(with(Some(vec![0, 7]), Some(&[0, 7])), Ok(None));
    assert_eq!(with(Some(vec![0, 7]), None), Ok(None), "servers before RFC 6842 echo nothing");
    assert_eq!(with(Some(vec![0, 7]), Some(&[0, 8])), IGNORED);
    assert_eq!(with(None, Some(&[0, 8])), IGNORED);
}

#[test]
fn frames_damaged_on_the_way_are_not_believed() {
    let (mut guest, ack) = requesting();
    let damaged = |at: usize| {
        let mut frame = ack.frame();
        frame[at] ^= 0x10;
        frame
    };
    assert_eq!(guest.hear_frame(&damaged(14 + 8)), Err(DropReason::Ipv4BadChecksum));
    assert_eq!(guest.hear_frame(&damaged(14 + 28 + 19)), Err(DropReason::TransportBadChecksum));
    assert!(matches!(guest.hear(&ack), Ok(Some(Event::Bound(_)))));
}

#[test]
fn malformed_replies_are_dropped_and_change_nothing() {
    let (guest, ack) = requesting();
    let msg = ack.msg.clone();
    let unended =
        |options: &[u8]| Reply { msg: Msg { options: options.to_vec(), end: false, ..msg.clone() }, ..ack.clone() };
    let table = [
        ("magic cookie", Reply { msg: Msg { cookie: [99, 130, 83, 98], ..msg.clone() }, ..ack.clone() }),
        ("BOOTREQUEST", Reply { msg: Msg { op: 1, ..msg.clone() }, ..ack.clone() }),
        ("op 0", Reply { msg: Msg { op: 0, ..msg.clone() }, ..ack.clone() }),
        ("htype", Reply { msg: Msg { htype: 6, ..msg.clone() }, ..ack.clone() }),
        ("hlen 0", Reply { msg: Msg { hlen: 0, ..msg.clone() }, ..ack.clone() }),
        ("hlen 255", Reply { msg: Msg { hlen: 255, ..msg.clone() }, ..ack.clone() }),
        ("no option 53 (BOOTP)", ack.clone().instead(53, &[])),
        ("53 twice", ack.clone().option(53, &[ACK])),
        ("no server", ack.clone().instead(54, &[])),
        ("no lease time", ack.clone().instead(51, &[])),
        ("a lease time of 3 bytes", ack.clone().instead(51, &[0, 2, 88])),
        ("two lease times", ack.clone().option(51, &[0, 0, 2, 88])),
        ("a lease of no length", ack.clone().instead(51, &[0; 4])),
        ("a length past the end", unended(&[53, 1, ACK, 12, 200, b'a'])),
        ("a code without a length", unended(&[53, 1, ACK, 12])),
        (
            "an overloaded field cut short",
            Reply { msg: Msg { file: vec![12; 128], ..msg.clone() }, ..ack.clone() }.option(52, &[1]),
        ),
    ];
    for (what, reply) in table {
        let mut guest = guest.clone();
        assert_eq!(guest.hear(&reply), MALFORMED, "{what}");
        assert_eq!(guest.state(), "requesting", "{what}");
        assert!(matches!(guest.hear(&ack), Ok(Some(Event::Bound(_)))), "{what}");
    }
    for len in [0, 1, 239, 240] {
        let frame = reply_frame(ack.link, ack.ports, &ack.payload()[..len]);
        assert_eq!(guest.clone().hear_frame(&frame), MALFORMED, "{len} bytes");
    }
    assert_eq!(guest.clone().hear(&ack.instead(53, &[NAK]).instead(54, &[])), MALFORMED, "a NAK of nobody");
}

#[test]
fn odd_but_plain_replies_are_understood() {
    let (guest, ack) = requesting();
    let msg = ack.msg.clone();
    let no_end = Reply { msg: Msg { end: false, ..msg.clone() }, ..ack.clone() };
    let file = |file: &[u8]| Reply { msg: Msg { file: file.to_vec(), ..msg.clone() }, ..ack.clone() };
    let table = [
        ("no end option", no_end),
        ("rubbish behind the end", ack.clone().option(255, &[53, 1, 3])),
        ("options in `file`", file(&[6, 4, 9, 9, 9, 9, 255]).option(52, &[1])),
        ("`file` is a file name", file(b"pxelinux.0")),
        ("an impossible option 52", file(b"x").option(52, &[1, 1])),
        (
            "lengths that dhcproto asserts",
            ack.clone().option(80, &[1]).option(81, &[]).option(94, &[]).option(152, &[]),
        ),
        ("255 bytes of something", ack.clone().option(224, &[7; 255])),
    ];
    for (what, reply) in table {
        let event = guest.clone().hear(&reply);
        let Ok(Some(Event::Bound(lease))) = event else { panic!("{what}: {event:?}") };
        assert_eq!(lease.dns.len(), usize::from(what == "options in `file`"), "{what}");
    }
}

#[test]
fn an_address_that_no_host_can_have_is_not_taken() {
    let mask = |mask: [u8; 4]| move |reply: Reply| reply.instead(1, &mask);
    for bad in
        ["0.0.0.0", "0.0.0.5", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "10.0.0.0", "10.0.0.255"]
    {
        assert_eq!(lease_of(bad.parse().unwrap(), |reply| reply), None, "{bad}");
    }
    assert_eq!(lease_of(ip(8), mask([255, 255, 255, 248])), None, "the network itself");
    assert_eq!(lease_of(ip(15), mask([255, 255, 255, 248])), None, "its broadcast address");
    assert!(lease_of(ip(255), mask([255, 255, 0, 0])).is_some());
    assert!(lease_of(ip(0), mask([255, 255, 255, 254])).is_some(), "RFC 3021");
    let server = |server: [u8; 4]| move |reply: Reply| reply.instead(54, &server);
    for bad in [[0; 4], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1]] {
        assert_eq!(lease_of(ip(9), server(bad)), None, "server {bad:?}");
    }
}

#[test]
fn without_a_mask_that_makes_sense_the_subnet_is_a_24() {
    let table: [(&[u8], &str); 8] = [
        (&[255, 255, 255, 0], "10.0.0.9/24"),
        (&[255, 0, 0, 0], "10.0.0.9/8"),
        (&[255, 255, 255, 255], "10.0.0.9/32"),
        (&[], "10.0.0.9/24"),
        (&[255, 0, 255, 0], "10.0.0.9/24"),
        (&[0, 0, 0, 0], "10.0.0.9/24"),
        (&[0, 0, 0, 255], "10.0.0.9/24"),
        (&[255, 255], "10.0.0.9/24"),
    ];
    for (mask, address) in table {
        let lease = lease_of(ip(9), |reply| reply.instead(1, mask)).unwrap();
        assert_eq!(lease.address.to_string(), address, "mask {mask:?}");
    }
}

#[test]
fn the_first_router_that_can_be_one_is_taken_also_outside_the_subnet() {
    let table: [(&[u8], Option<[u8; 4]>); 7] = [
        (&[], None),
        (&[10, 0, 0, 1, 10, 0, 0, 2], Some([10, 0, 0, 1])),
        (&[169, 254, 1, 1], Some([169, 254, 1, 1])),
        (&[0, 0, 0, 0, 10, 0, 0, 9, 10, 0, 0, 255, 10, 0, 0, 0, 224, 0, 0, 5, 10, 0, 0, 3], Some([10, 0, 0, 3])),
        (&[255, 255, 255, 255], None),
        (&[10, 0, 0, 1, 10], None),
        (&[10], None),
    ];
    for (option, router) in table {
        let lease = lease_of(ip(9), |reply| reply.instead(3, option)).unwrap();
        assert_eq!(lease.router, router.map(Ipv4Addr::from), "{option:?}");
    }
}

#[test]
fn name_servers_and_mtu_are_bounded() {
    let many: Vec<u8> = (0..63).flat_map(|i| [10, 0, 1, i]).collect();
    let lease = lease_of(ip(9), |reply| reply.option(6, &many).option(6, &many)).unwrap();
    assert_eq!(lease.dns, (0..8).map(|i| Ipv4Addr::new(10, 0, 1, i)).collect::<Vec<_>>());
    let lease = lease_of(ip(9), |reply| reply.option(6, &[0, 0, 0, 0, 127, 0, 0, 1, 9, 9, 9, 9])).unwrap();
    assert_eq!(lease.dns, [Ipv4Addr::new(9, 9, 9, 9)]);
    for (bytes, mtu) in
        [(&[5, 220][..], Some(1500)), (&[2, 64], Some(576)), (&[2, 63], None), (&[0, 0], None), (&[5], None)]
    {
        assert_eq!(lease_of(ip(9), |reply| reply.option(26, bytes)).unwrap().mtu, mtu, "{bytes:?}");
    }
}

#[test]
fn the_longest_time_there_is_does_not_overflow() {
    let secs = |reply: Reply| reply.instead(51, &(u32::MAX - 1).to_be_bytes());
    let lease = lease_of(ip(9), secs).unwrap();
    assert_eq!(lease.until, Instant::from_secs(1000 + u64::from(u32::MAX) - 1));
}

/// A client in each of its states, and the transaction that it is in.
fn every_state() -> Vec<(Guest, u32)> {
    let mut states = vec![(Guest::new(), 0)];
    let mut guest = Guest::new();
    let xid = guest.next().xid;
    states.push((guest, xid));
    let (guest, ack) = requesting();
    states.push((guest, ack.msg.xid));
    let mut guest = Guest::bound(80);
    states.push((guest.clone(), xid));
    for _ in 0..2 {
        let xid = guest.next().xid;
        states.push((guest.clone(), xid));
    }
    guest.release();
    states.push((guest, xid));
    states
}

/// Feeds a payload to a client in each state; what it sends is taken apart by `Said::read`, which checks it.
fn feed(payload: &[u8]) {
    for (mut guest, xid) in every_state() {
        let mut payload = payload.to_vec();
        if let Some(field) = payload.get_mut(4..8) {
            field.copy_from_slice(&xid.to_be_bytes());
        }
        let _ = guest.hear_frame(&reply_frame((SERVER_MAC, ME), (67, 68), &payload));
        for _ in 0..20 {
            if guest.client.deadline().is_some() {
                guest.step();
            }
        }
        assert!(guest.client.lease().is_none_or(|lease| !lease.address.addr().is_unspecified()));
    }
}

#[test]
fn every_state_is_among_those_that_are_fed() {
    let names: Vec<_> = every_state().iter().map(|(guest, _)| guest.state()).collect();
    assert_eq!(names, ["waiting", "selecting", "requesting", "bound", "renewing", "rebinding", "released"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        feed(&bytes);
    }

    #[test]
    fn random_options_never_panic(
        options in prop::collection::vec(any::<u8>(), 0..400),
        file in prop::collection::vec(any::<u8>(), 128),
        overload in 0u8..5,
        kind in 0u8..12,
        yiaddr in any::<[u8; 4]>(),
    ) {
        let mut msg = Msg { op: 2, file, ..Msg::new(kind, ME) }.option(52, &[overload]);
        msg.options.extend_from_slice(&options);
        let reply = Reply { yiaddr: yiaddr.into(), msg, link: (SERVER_MAC, ME), ports: (67, 68) };
        feed(&reply.payload());
    }

    #[test]
    fn any_terms_are_refused_or_kept_without_a_storm(
        kind in prop::sample::select(vec![OFFER, ACK, NAK]),
        (server, mask, router) in any::<([u8; 4], [u8; 4], [u8; 4])>(),
        yiaddr in prop_oneof![Just([10, 0, 0, 9]), any::<[u8; 4]>()],
        time in prop_oneof![0u32..100, any::<u32>()],
        (t1, t2) in any::<(u32, u32)>(),
        known in any::<bool>(),
    ) {
        let server = if known { crate::world::SERVER.octets() } else { server };
        let mut msg = Msg { op: 2, ..Msg::new(kind, ME) }.option(54, &server).option(1, &mask).option(3, &router);
        for (code, secs) in [(51, time), (58, t1), (59, t2)] {
            msg = msg.option(code, &secs.to_be_bytes());
        }
        feed(&Reply { yiaddr: yiaddr.into(), msg, link: (SERVER_MAC, ME), ports: (67, 68) }.payload());
    }

    #[test]
    fn mutated_replies_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        kind in prop::sample::select(vec![OFFER, ACK, NAK]),
    ) {
        let (_, ack) = requesting();
        let mut payload = ack.instead(53, &[kind]).option(6, &[9; 8]).option(52, &[3]).payload();
        for (at, value) in flips {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        feed(&payload);
    }

    #[test]
    fn any_frame_never_panics(bytes in prop::collection::vec(any::<u8>(), 14..400)) {
        if let Ok(frame) = FrameRef::parse(Meta::PLAIN, &bytes) {
            let mut client = Client::new(config(), START);
            let _ = client.handle(&frame, START, &mut |_: &Meta, _: &[u8]| {});
        }
    }
}

#[test]
fn a_renewal_may_not_be_answered_with_rubbish() {
    let mut guest = Guest::bound(600);
    let renew = guest.next();
    assert_eq!(renew.kind, REQUEST);
    assert_eq!(guest.hear(&renew.answer(ACK, ip(9)).terms(0)), MALFORMED);
    assert_eq!(guest.state(), "renewing");
    assert!(matches!(guest.hear(&renew.answer(ACK, ip(9)).terms(600)), Ok(Some(Event::Renewed(_)))));
}
