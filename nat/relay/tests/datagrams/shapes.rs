//! What becomes of sizes, headers and batches.

use std::net::SocketAddrV4;

use tapswitch_relay::{Arrival, Marks};
use tapswitch_wire::{DropReason, GsoKind, Meta};

use crate::world::{Got, HOW, How, MTU, OTHER, PORT, SERVER, World, arrival, at, fragments, from, pattern, payloads};

const ECHO: (std::net::Ipv4Addr, u16) = (SERVER, 7);

fn server() -> SocketAddrV4 {
    SocketAddrV4::new(SERVER, 7)
}

#[test]
fn datagrams_of_one_turn_leave_in_one_call_and_those_of_one_size_as_one_message() {
    let mut world = World::new();
    for _ in 0..20 {
        world.put(HOW, ECHO, &[1; 1_000]).expect("a datagram that may pass");
        world.put(HOW, (OTHER, 9), &[2; 500]).expect("a datagram that may pass");
    }
    world.put(HOW, ECHO, &[3; 10]).expect("a datagram that may pass");
    world.put(HOW, ECHO, &[4; 10]).expect("a datagram that may pass");
    assert!(world.relay.is_busy(), "they wait for the end of the turn");
    world.turn();
    let socket = world.relay.host().last();
    assert_eq!((&socket.calls[..], &socket.messages[..]), (&[3][..], &[21, 20, 1][..]));
    assert_eq!(socket.sent.len(), 42);
}

#[test]
fn a_turn_without_datagrams_costs_no_call() {
    let mut world = World::new();
    world.send(HOW, ECHO, b"x");
    world.turn();
    assert_eq!(world.relay.host().last().calls, [1]);
}

#[test]
fn nu_12_a_super_frame_is_many_datagrams_and_none_of_them_overtakes() {
    let mut world = World::new();
    world.put(HOW, ECHO, b"before").expect("a datagram that may pass");
    let bytes = pattern(10_500);
    world.put(How { gso: Some(1_000), ..HOW }, ECHO, &bytes).expect("a super-frame that may pass");
    world.send(HOW, ECHO, b"behind");
    let sent: Vec<_> = world.sent().into_iter().map(|sent| sent.bytes).collect();
    let mut expected = vec![b"before".to_vec()];
    expected.extend(bytes.chunks(1_000).map(<[u8]>::to_vec));
    expected.push(b"behind".to_vec());
    assert_eq!(sent, expected);
    assert_eq!(world.relay.host().last().messages, [1, 11, 1]);
    // More than the kernel takes as one message.
    let many = pattern(6_000);
    world.put(How { gso: Some(40), ..HOW }, ECHO, &many).expect("a super-frame that may pass");
    assert_eq!(world.relay.host().last().messages[3..], [64, 64, 22]);
}

#[test]
fn nu_12_an_empty_datagram_is_one_in_both_directions() {
    let mut world = World::new();
    for _ in 0..3 {
        world.put(HOW, ECHO, b"").expect("a datagram that may pass");
    }
    world.turn();
    assert_eq!(world.sent().iter().map(|sent| sent.bytes.len()).collect::<Vec<_>>(), [0; 3]);
    for _ in 0..2 {
        world.relay.host().last().inbox.push_back((arrival(server().into(), 0), Vec::new()));
    }
    assert_eq!(payloads(&world.arrive(server(), b""), server().into()), [b""; 3]);
}

#[test]
fn what_arrives_together_is_handed_on_as_one_super_frame() {
    let mut world = World::new();
    world.send(HOW, ECHO, b"x");
    let bytes = pattern(5_200);
    let host = world.relay.host().last();
    host.inbox.push_back((arrival(server().into(), 1_000), bytes[..4_000].to_vec()));
    host.inbox.push_back((arrival(server().into(), 1_000), bytes[4_000..5_000].to_vec()));
    host.inbox.push_back((arrival(server().into(), 200), bytes[5_000..].to_vec()));
    host.inbox.push_back((arrival(server().into(), 5), b"alone".to_vec()));
    let id = world.relay.host().opened[0];
    world.told(id);
    let shapes: Vec<_> = world.frames.iter().map(|(meta, frame)| (meta.gso, frame.len() - 42)).collect();
    assert_eq!(shapes[0].0.map(|gso| (gso.kind, gso.size)), Some((GsoKind::Udp, 1_000)));
    assert_eq!((shapes[0].1, shapes[1]), (5_200, (None, 5)));
    let got = payloads(&world.got(), server().into());
    let expected: Vec<_> = bytes.chunks(1_000).map(<[u8]>::to_vec).chain([b"alone".to_vec()]).collect();
    assert_eq!(got, expected);
}

#[test]
fn one_socket_takes_no_more_than_its_share_of_a_turn() {
    let mut world = World::new();
    world.send(HOW, ECHO, b"x");
    for number in 0..100 {
        world.relay.host().last().inbox.push_back((arrival(server().into(), number), vec![7; number]));
    }
    let id = world.relay.host().opened[0];
    let mut frames = 0;
    let mut emit = |_: &Meta, _: &[u8]| frames += 1;
    let ready = tapswitch_relay::Readiness { readable: true, ..Default::default() };
    world.relay.host_event(id, ready, world.now, &mut emit);
    world.relay.poll(world.now, &mut emit);
    assert_eq!((frames, world.relay.is_busy()), (32, true), "the rest is for the next turn");
    world.turn();
    assert_eq!(world.got().len(), 68);
}

#[test]
fn nu_12_the_largest_datagram_passes_in_fragments_both_ways() {
    let mut world = World::new();
    let bytes = pattern(65_507);
    for piece in fragments(HOW, server(), &bytes, 77) {
        world.frame(PORT, Meta::PLAIN, &piece).expect("a fragment");
    }
    world.turn();
    assert!(world.sent()[0].bytes == bytes, "what was cut is whole again");
    let got = world.arrive(server(), &bytes);
    assert_eq!(got.len(), 65_515usize.div_ceil(1_480));
    let mut whole = vec![0; 65_515];
    for piece in &got {
        let Got::Fragment { offset, bytes, more } = piece else { panic!("{piece:?}") };
        whole[*offset..offset + bytes.len()].copy_from_slice(bytes);
        assert_eq!(*more, offset + bytes.len() < 65_515);
    }
    assert!(whole[8..] == bytes);
}

#[test]
fn nu_9_a_packet_in_fragments_is_judged_as_a_whole() {
    let mut world = World::new();
    let mut pieces = fragments(HOW, server(), &pattern(4_000), 77);
    pieces[1][40] ^= 1;
    let last = pieces.pop().expect("three pieces");
    for piece in &pieces {
        world.frame(PORT, Meta::PLAIN, piece).expect("a fragment that waits");
    }
    let refusal = world.frame(PORT, Meta::PLAIN, &last).expect_err("a damaged datagram");
    assert_eq!(refusal.reason, DropReason::TransportBadChecksum);
    // Where it may not go, it does not go in pieces either, and the quote is of the whole.
    let pieces = fragments(HOW, SocketAddrV4::new([224, 0, 0, 1].into(), 7), &pattern(4_000), 78);
    let verdicts: Vec<_> = pieces.iter().map(|piece| world.frame(PORT, Meta::PLAIN, piece)).collect();
    assert_eq!(verdicts[2].map_err(|refusal| refusal.reason), Err(DropReason::PolicyDenied));
    let [Got::Icmp { kind: 3, code: 13, rest, .. }] = &world.got()[..] else { panic!("one error") };
    assert_eq!(u16::from_be_bytes([rest[6], rest[7]]), 4_028, "the length of the packet");
    assert_eq!(world.sockets(), 0);
}

#[test]
fn ni_1_a_large_ping_passes_both_ways() {
    let mut world = World::new();
    let body = pattern(1_473);
    world.ping(7, 1, SERVER, &body[..1_472]).expect("a ping that fits");
    world.turn();
    assert_eq!(world.sent()[0].bytes.len(), 1_480);
    let reply: Vec<u8> = [0, 0, 0, 0, 0x77, 0x77, 0, 1].into_iter().chain(body).collect();
    let got = world.arrive(at(SERVER, 0), &reply);
    let lens: Vec<_> = got
        .iter()
        .map(|got| match got {
            Got::Fragment { offset, bytes, more } => (*offset, bytes.len(), *more),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lens, [(0, 1_480, true), (1_480, 1, false)]);
}

#[test]
fn ni_1_replies_bear_the_identifier_that_the_container_chose() {
    let mut world = World::new();
    world.ping(0x1234, 9, SERVER, b"body").expect("a ping that may pass");
    world.turn();
    let got = world.arrive(at(SERVER, 0), &[0, 0, 0, 0, 0x77, 0x77, 0, 9, b'b', b'o', b'd', b'y']);
    let Got::Icmp { kind: 0, from, rest, .. } = &got[0] else { panic!("{got:?}") };
    assert_eq!((*from, &rest[..]), (SERVER, &[0x12, 0x34, 0, 9, b'b', b'o', b'd', b'y'][..]));
    assert_eq!(world.arrive(at(OTHER, 0), &[0; 12]), [], "nobody answers for another");
}

#[test]
fn x7_ttl_tos_ecn_and_df_of_a_datagram_are_those_that_the_container_set() {
    let mut world = World::new();
    for (ttl, tos, dont_fragment) in [(1, 0, true), (63, 0xb8, false), (254, 0x03, true)] {
        world.put(How { ttl, tos, dont_fragment, ..HOW }, ECHO, b"x").expect("a datagram that may pass");
    }
    world.turn();
    let marks: Vec<_> = world.sent().iter().map(|sent| sent.marks).collect();
    let expected = [(1, 0, true), (63, 0xb8, false), (254, 0x03, true)];
    assert_eq!(marks, expected.map(|(ttl, tos, dont_fragment)| Marks { ttl, tos, dont_fragment }));
    assert_eq!(world.relay.host().last().messages, [1; 3], "one message has one header");
}

#[test]
fn x7_ttl_of_what_arrives_is_the_real_one_less_our_hop_and_tos_and_ecn_are_kept() {
    let mut world = World::new();
    world.send(HOW, ECHO, b"x");
    world.ping(7, 1, SERVER, b"").expect("a ping that may pass");
    for (arrives, is_seen) in [(57, 56), (255, 254), (1, 1), (0, 1)] {
        let host = world.relay.host();
        let (udp, ping) = (host.opened[0], host.opened[1]);
        let arrival = |from| Arrival { from, to: None, ttl: arrives, tos: 0x2f, size: 8, len: 8 };
        let socket = host.sockets.get_mut(&udp).expect("an open socket");
        socket.inbox.push_back((arrival(server().into()), vec![0; 8]));
        let socket = host.sockets.get_mut(&ping).expect("an open socket");
        socket.inbox.push_back((arrival(at(SERVER, 0)), vec![0; 8]));
        world.told(udp);
        world.told(ping);
        for (_, frame) in std::mem::take(&mut world.frames) {
            assert_eq!((frame[22], frame[15]), (is_seen, 0x2f));
        }
    }
}

#[test]
fn x7_ip_options_of_the_container_do_not_leave_and_its_quote_has_none() {
    let mut world = World::new();
    let (meta, mut frame) = crate::world::udp(HOW, server(), b"x");
    // Router alert.
    frame.splice(34..34, [0x94, 4, 0, 0]);
    frame[14] = 0x46;
    frame[16..18].copy_from_slice(&33u16.to_be_bytes());
    frame[24..26].fill(0);
    let check = tapswitch_wire::checksum::checksum(0, &frame[14..38]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    world.frame(PORT, meta, &frame).expect("a datagram that may pass");
    world.turn();
    assert_eq!(world.sent()[0].bytes, b"x");
    let icmp = tapswitch_relay::HostIcmp { kind: 3, code: 3, mtu: 0, offender: None };
    let error = tapswitch_relay::Reported { to: server().into(), icmp, echo: None };
    world.relay.host().last().errors.push_back(error);
    let got = world.event();
    let Got::Icmp { rest, .. } = &got[0] else { panic!("{got:?}") };
    assert_eq!((rest[4], tapswitch_wire::checksum::sum(&rest[4..24])), (0x45, 0xffff));
    assert_eq!(rest[24..28], [0x13, 0x88, 0, 7], "the ports follow at once");
}

#[test]
fn x7_what_is_not_cut_has_df_and_what_is_cut_has_identifications_that_differ() {
    let mut world = World::new();
    world.send(HOW, ECHO, b"x");
    let mut ids = Vec::new();
    for size in [usize::from(MTU) - 28, 2_000, 2_000] {
        world.relay.host().last().inbox.push_back((arrival(server().into(), size), pattern(size)));
        let id = world.relay.host().opened[0];
        world.told(id);
        let frames = std::mem::take(&mut world.frames);
        let dont_fragment = frames.iter().all(|(_, frame)| frame[20] & 0x40 != 0);
        assert_eq!((dont_fragment, frames.len()), (size < 2_000, size.div_ceil(1_480)));
        ids.push([frames[0].1[18], frames[0].1[19]]);
    }
    assert_ne!(ids[1], ids[2]);
}

#[test]
fn x7_icmp_messages_but_echo_requests_do_not_leave() {
    let mut world = World::new();
    for kind in [0, 3, 4, 5, 11, 13, 17] {
        let (meta, mut frame) = crate::world::udp(HOW, server(), &[0; 20]);
        frame[23] = 1;
        frame[24..26].fill(0);
        let check = tapswitch_wire::checksum::checksum(0, &frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_be_bytes());
        frame[34..].fill(0);
        frame[34] = kind;
        let check = tapswitch_wire::checksum::checksum(0, &frame[34..]);
        frame[36..38].copy_from_slice(&check.to_be_bytes());
        let refusal = world.frame(PORT, meta, &frame).expect_err("no echo request");
        assert_eq!(refusal.reason, DropReason::IcmpIgnored, "type {kind}");
    }
    assert_eq!(world.sockets(), 0);
}

#[test]
fn many_sockets_in_one_turn_each_have_their_own_call() {
    let mut world = World::new();
    for port in 0..100 {
        world.put(from(1_000 + port), ECHO, b"x").expect("room");
    }
    world.turn();
    assert!(world.relay.host().sockets.values().all(|socket| socket.calls == [1] && socket.sent.len() == 1));
}
