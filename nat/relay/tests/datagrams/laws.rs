//! Whatever the interleaving, each session's datagrams arrive in order, with their sizes and contents.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use proptest::prelude::*;

use crate::world::{Got, HOW, How, World, arrival, from};

/// A datagram of one of four sources to one of three destinations; many are of equal size.
fn datagram() -> impl Strategy<Value = (u16, u8, usize)> {
    let size = prop_oneof![3 => Just(1_000usize), 2 => Just(1_472), 1 => 0usize..1_473];
    (0u16..4, 0u8..3, size)
}

fn server(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, number), 7)
}

/// Contents that name the datagram.
fn contents(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (number * 31 + at) as u8).collect()
}

proptest! {
    #[test]
    fn nu_12_what_containers_send_keeps_order_size_and_contents_within_a_session(
        datagrams in proptest::collection::vec((datagram(), proptest::bool::weighted(0.1), any::<bool>()), 1..200),
    ) {
        let mut world = World::new();
        let mut expected: HashMap<(u16, SocketAddr), Vec<Vec<u8>>> = HashMap::new();
        for (number, ((source, to, size), ends_turn, is_large)) in datagrams.into_iter().enumerate() {
            let to = server(to);
            let sent = expected.entry((source, to.into())).or_default();
            if is_large && size > 0 {
                let bytes = contents(number, size * 5);
                sent.extend(bytes.chunks(size).map(<[u8]>::to_vec));
                let how = How { gso: Some(size as u16), ..from(5_000 + source) };
                world.put(how, (*to.ip(), to.port()), &bytes).expect("room");
            } else {
                let bytes = contents(number, size);
                world.put(from(5_000 + source), (*to.ip(), to.port()), &bytes).expect("room");
                sent.push(bytes);
            }
            if ends_turn {
                world.turn();
            }
        }
        world.turn();
        let mut got: HashMap<(u16, SocketAddr), Vec<Vec<u8>>> = HashMap::new();
        let sources: HashMap<_, _> = world.flows().iter().map(|flow| (flow.src.port(), flow.via)).collect();
        prop_assert_eq!(world.sockets(), sources.len());
        // Sockets are opened in the order in which the sources first sent.
        let mut order = Vec::new();
        for flow in world.flows() {
            if !order.contains(&(flow.src.port() - 5_000)) {
                order.push(flow.src.port() - 5_000);
            }
        }
        for (id, source) in world.relay.host().opened.clone().iter().zip(order) {
            for sent in &world.relay.host().sockets[id].sent {
                got.entry((source, sent.to)).or_default().push(sent.bytes.clone());
            }
        }
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn nu_12_what_arrives_keeps_order_size_and_contents_within_a_session(
        messages in proptest::collection::vec((0u8..3, prop_oneof![Just(1_000usize), Just(1_472), 0usize..3_000],
            1usize..20, 0usize..1_000, proptest::bool::weighted(0.1)), 1..100),
    ) {
        let mut world = World::new();
        for number in 0..3 {
            world.send(HOW, (*server(number).ip(), 7), b"x");
        }
        let mut expected: HashMap<SocketAddrV4, Vec<Vec<u8>>> = HashMap::new();
        let mut got: HashMap<SocketAddrV4, Vec<Vec<u8>>> = HashMap::new();
        let mut partial: Option<(usize, Vec<u8>)> = None;
        let count = messages.len();
        for (number, (peer, size, most, last, is_read)) in messages.into_iter().enumerate() {
            // As UDP GRO does: equal datagrams, of which the last may be shorter, within the largest packet.
            let many = if size == 0 { 1 } else { most.min(65_507 / size.max(1)) };
            let len = size * (many - 1) + if size == 0 { 0 } else { last % size + 1 };
            let bytes = contents(number, len);
            let parts = expected.entry(server(peer)).or_default();
            match size {
                0 => parts.push(Vec::new()),
                size => parts.extend(bytes.chunks(size).map(<[u8]>::to_vec)),
            }
            world.relay.host().last().inbox.push_back((arrival(server(peer).into(), size), bytes));
            if !is_read && number + 1 < count {
                continue;
            }
            for packet in world.event() {
                match packet {
                    Got::Udp { from, payload, .. } => got.entry(from).or_default().push(payload),
                    // Fragments come in order and unmixed; who sent them stands in the first one.
                    Got::Fragment { offset, more, bytes } => {
                        let (known, mut whole) = partial.take().unwrap_or((0, Vec::new()));
                        prop_assert_eq!(known, offset);
                        whole.extend_from_slice(&bytes);
                        if more {
                            partial = Some((whole.len(), whole));
                        } else {
                            let peer = whole[8..].to_vec();
                            got.entry(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).or_default().push(peer);
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        // What was cut is held against all large ones together, in order.
        let cut = got.remove(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).unwrap_or_default();
        let mut large = 0;
        for (peer, sent) in &expected {
            let small: Vec<_> = sent.iter().filter(|bytes| bytes.len() <= 1_472).cloned().collect();
            large += sent.len() - small.len();
            prop_assert_eq!(got.get(peer).cloned().unwrap_or_default(), small);
            prop_assert!(sent.iter().filter(|bytes| bytes.len() > 1_472).all(|bytes| cut.contains(bytes)));
        }
        prop_assert_eq!(cut.len(), large);
    }
}
