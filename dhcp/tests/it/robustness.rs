//! DH-12: what is not well formed is dropped silently, and nothing panics.

use proptest::prelude::*;
use tapswitch_wire::{DropReason, Frame, Mac, Meta, PortId, Unheard};

use crate::world::*;

fn verdict(msg: &Msg) -> Result<bool, DropReason> {
    World::new().send(msg).map(|answer| answer.is_some())
}

fn raw(options: &[u8]) -> Msg {
    Msg { options: options.to_vec(), ..Msg::discover(1) }
}

#[test]
fn dh_12_malformed_messages_are_dropped() {
    let ok = Msg::discover(1);
    assert_eq!(verdict(&ok), Ok(true));
    let table = [
        ("magic cookie", Msg { cookie: [99, 130, 83, 98], ..ok.clone() }),
        ("op 0", Msg { op: 0, ..ok.clone() }),
        ("op 3", Msg { op: 3, ..ok.clone() }),
        ("htype", Msg { htype: 6, ..ok.clone() }),
        ("hlen 0", Msg { hlen: 0, ..ok.clone() }),
        ("hlen 16", Msg { hlen: 16, ..ok.clone() }),
        ("hlen 255", Msg { hlen: 255, ..ok.clone() }),
        ("chaddr zero", Msg { chaddr: Mac::ZERO, ..ok.clone() }),
        ("chaddr multicast", Msg { chaddr: Mac([1, 0, 0, 0, 0, 1]), ..ok.clone() }),
        ("no end option", Msg { end: false, ..ok.clone() }),
        ("no options at all", Msg { end: false, ..raw(&[]) }),
        ("no option 53", raw(&[])),
        ("BOOTP", raw(&[1, 4, 255, 0, 0, 0])),
        ("53 twice", raw(&[53, 1, 1, 53, 1, 3])),
        ("53 twice, apart", raw(&[53, 1, 1, 12, 1, b'a', 53, 1, 1])),
        ("53 of length 0", raw(&[53, 0])),
        ("53 of length 2", raw(&[53, 2, 1, 1])),
        ("length past the end", Msg { end: false, ..raw(&[53, 1, 1, 12, 200, b'a']) }),
        ("code without length", Msg { end: false, ..raw(&[53, 1, 1, 12]) }),
        ("end option swallowed", raw(&[53, 1, 1, 12, 1])),
        ("50 too short", raw(&[53, 1, 1, 50, 3, 10, 0, 0])),
        ("50 too long", raw(&[53, 1, 1, 50, 5, 10, 0, 0, 9, 9])),
        ("54 too short", raw(&[53, 1, 1, 54, 0])),
        ("51 too short", raw(&[53, 1, 1, 51, 2, 0, 9])),
        ("57 too long", raw(&[53, 1, 1, 57, 3, 0, 9, 9])),
        ("61 empty", raw(&[53, 1, 1, 61, 0])),
        ("52 of 0", raw(&[53, 1, 1, 52, 1, 0])),
        ("52 of 4", raw(&[53, 1, 1, 52, 1, 4])),
        ("52 of length 2", raw(&[53, 1, 1, 52, 2, 1, 1])),
        ("52 twice", raw(&[53, 1, 1, 52, 1, 1, 52, 1, 2])),
        ("overloaded field without end", Msg { file: vec![0; 128], ..raw(&[53, 1, 1, 52, 1, 1]) }),
        ("52 in `file`", Msg { file: vec![52, 1, 2, 255], ..raw(&[53, 1, 1, 52, 1, 1]) }),
        ("52 in `sname`", Msg { sname: vec![52, 1, 1, 255], ..raw(&[53, 1, 1, 52, 1, 3]) }),
        ("53 again in `sname`", Msg { sname: vec![53, 1, 1, 255], ..raw(&[53, 1, 1, 52, 1, 2]) }),
        ("REQUEST without any address", Msg::new(REQUEST, mac(1))),
        ("DECLINE without an address", Msg::new(DECLINE, mac(1))),
    ];
    for (what, msg) in table {
        // The frame's own source stays a station's, whatever chaddr says.
        let msg = Msg { link_src: Some(mac(1)), ..msg };
        assert_eq!(verdict(&msg), Err(DropReason::DhcpMalformed), "{what}");
    }
    for len in [0, 1, 239, 240, 241] {
        let bytes = frame(mac(1), ANY, "255.255.255.255".parse().unwrap(), &ok.payload()[..len]);
        assert_eq!(World::new().send_frame(1, &bytes), Err(DropReason::DhcpMalformed), "{len} bytes");
    }
}

#[test]
fn dh_12_odd_but_lawful_messages_are_understood() {
    let table = [
        ("padding among the options", raw(&[0, 0, 53, 1, 1, 0, 12, 1, b'a', 0])),
        ("rubbish behind the end", raw(&[53, 1, 1, 255, 53, 1, 3, 12, 200])),
        ("53 in `file`", Msg { file: vec![53, 1, 1, 255], ..raw(&[52, 1, 1]) }),
        ("53 in `sname`", Msg { sname: vec![53, 1, 1, 255], ..raw(&[52, 1, 2]) }),
        ("an unknown option of 255 bytes", Msg::discover(1).option(224, &[7; 255])),
        ("client asserts lengths", Msg::discover(1).option(80, &[1]).option(81, &[]).option(94, &[]).option(151, &[])),
    ];
    for (what, msg) in table {
        assert_eq!(verdict(&msg), Ok(true), "{what}");
    }
}

#[test]
fn dh_12_only_clients_are_answered() {
    let table = [
        (Msg { op: 2, ..Msg::discover(1) }, DropReason::DhcpFromClient),
        (Msg::new(OFFER, mac(1)), DropReason::DhcpFromClient),
        (Msg::new(ACK, mac(1)), DropReason::DhcpFromClient),
        (Msg::new(NAK, mac(1)), DropReason::DhcpFromClient),
        (Msg::new(0, mac(1)), DropReason::DhcpIgnored),
        (Msg::new(10, mac(1)), DropReason::DhcpIgnored),
        (Msg::new(255, mac(1)), DropReason::DhcpIgnored),
    ];
    for (msg, reason) in table {
        assert_eq!(verdict(&msg), Err(reason), "{msg:?}");
    }
}

/// Feeds a payload to a server; what comes out is taken apart by `Answer::read`, which checks it.
fn feed(world: &mut World, payload: &[u8]) {
    let bytes = frame(mac(1), ANY, "255.255.255.255".parse().unwrap(), payload);
    let _ = world.send_frame(1, &bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn dh_12_random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        feed(&mut World::new(), &bytes);
    }

    #[test]
    fn dh_12_random_options_never_panic(
        options in prop::collection::vec(any::<u8>(), 0..400),
        file in prop::collection::vec(any::<u8>(), 128),
        overload in 0u8..5,
        kind in 0u8..12,
    ) {
        let mut msg = Msg::new(kind, mac(1)).option(52, &[overload]);
        msg.options.extend_from_slice(&options);
        feed(&mut World::new(), &Msg { file, ..msg }.payload());
    }

    #[test]
    fn dh_12_mutated_messages_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        which in 0usize..6,
    ) {
        let mut world = World::new();
        world.lease(1, 1);
        let msg = [
            Msg::discover(1), Msg::select(1, ip(2)), Msg::renew(1, ip(2)),
            Msg::decline(1, ip(2)), Msg::release(1, ip(2)), Msg::inform(1, ip(2)),
        ][which].clone().id(b"\0id").option(55, &[1, 3, 6, 121, 119]).option(57, &[2, 64]).option(82, &[1, 1, 1]);
        let mut payload = msg.payload();
        for (at, value) in flips {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        feed(&mut world, &payload);
    }

    #[test]
    fn dh_12_any_frame_never_panics(bytes in prop::collection::vec(any::<u8>(), 14..400)) {
        let mut bytes = bytes;
        let mut world = World::new();
        if let Ok(frame) = Frame::parse(Meta::PLAIN, &mut bytes) {
            let mut out = |_: &Meta, _: &[u8]| {};
            let _ = world.server.handle(PortId(1), &frame, world.now, &mut Unheard, &mut |_: &[u8]| {}, &mut out);
        }
    }
}
