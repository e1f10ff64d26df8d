//! What a socket between the two ends changes, and what it keeps (the table of the documentation, row by row).

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use tapswitch_relay::Readiness;
use tapswitch_wire::build::{self, Ip, Link};
use tapswitch_wire::{FrameRef, Mac, Meta, Unheard};

use crate::world::{ACK, CONTAINER, FIN, GATEWAY, PSH, SYN, World, tcp};

/// The frames that the engine sends in a connection of every kind: SYN-ACK, acknowledgement, data, super-frame, FIN.
fn frames() -> Vec<Vec<u8>> {
    let mut world = World::established_with(&[2, 4, 5, 180, 3, 3, 7]);
    world.rx(ACK, 1, 1, b"hello");
    world.incoming(b"answer");
    world.incoming(&[7; 10_000]);
    world.end();
    let frames = world.frames.clone();
    assert!(frames.len() >= 5);
    frames
}

/// What the header of each frame says.
fn headers<T>(of: impl Fn(&etherparse::Ipv4Header) -> T) -> Vec<T> {
    let read = |frame: &Vec<u8>| match SlicedPacket::from_ethernet(frame).expect("a sound frame").net {
        Some(NetSlice::Ipv4(ip)) => of(&ip.header().to_header()),
        _ => panic!("not IPv4"),
    };
    frames().iter().map(read).collect()
}

#[test]
fn x7_tcp_ttl_is_originated_as_64() {
    assert!(headers(|ip| ip.time_to_live).iter().all(|ttl| *ttl == 64));
}

#[test]
fn x7_tcp_df_is_always_set_and_the_ip_id_is_zero() {
    // Atomic datagrams: the identification means nothing (RFC 6864 4.1).
    assert!(
        headers(|ip| (ip.dont_fragment, ip.more_fragments, ip.identification)).iter().all(|of| *of == (true, false, 0))
    );
}

#[test]
fn x7_tcp_type_of_service_and_ecn_are_not_passed() {
    assert!(headers(|ip| (ip.dscp.value(), ip.ecn.value())).iter().all(|of| *of == (0, 0)));
    // A container that asks for ECN is told by the SYN-ACK that there is none (RFC 3168 6.1.1).
    let mut world = World::new();
    world.rx(SYN | 0xc0, 0, 0, b"");
    assert_eq!(world.connect().flags, SYN | ACK);
}

#[test]
fn x7_tcp_ip_options_are_dropped() {
    assert!(headers(|ip| ip.options.is_empty()).iter().all(|none| *none));
    // Those of the container do no harm.
    let mut world = World::new();
    let link = Link { src: Mac::from_ipv4(CONTAINER), dst: Mac::from_ipv4(GATEWAY) };
    let ip = Ip { src: CONTAINER.into(), dst: world.remote.ip(), ttl: 63, tos: 0, id: 0 };
    let syn = build::Tcp { src_port: 40_000, dst_port: 80, seq: 1, ack: 0, flags: SYN, window: 1, options: &[] };
    let mut plain = Vec::new();
    build::tcp(&mut plain, link, ip, syn, 0);
    let mut frame = plain[..34].to_vec();
    frame[14] = 0x46;
    frame[17] += 4;
    frame.extend_from_slice(&[1, 1, 1, 0]);
    frame.extend_from_slice(&plain[34..]);
    frame[24..26].fill(0);
    let sum: u32 = frame[14..38].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let meta = Meta { checksum: tapswitch_wire::ChecksumState::Verified, ..Meta::PLAIN };
    let frame = FrameRef::parse(meta, &frame[..]).expect("a sound frame");
    let now = world.now;
    let taken = world.relay.handle(world.port, &frame, now, &mut Unheard, &mut |_: &_, _: &[u8]| {});
    assert!(taken.is_ok() && world.relay.len() == 1, "{taken:?}");
}

#[test]
fn x7_tcp_options_end_at_the_socket_and_mss_scale_and_timestamps_are_our_own() {
    // SACK permitted, Fast Open, MD5 and whatever else the container offers is not answered.
    let mut world = World::new();
    let offered = [2, 4, 4, 0, 4, 2, 3, 3, 9, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 34, 2, 30, 4, 0, 0];
    world.rx_with(SYN, 0, 0, b"", &offered);
    let options = world.connect().options;
    assert_eq!(options[..8], [2, 4, 5, 180, 1, 3, 3, 5]);
    assert_eq!((options[8..12].to_vec(), options.len()), (vec![1, 1, 8, 10], 20));
}

#[test]
fn x7_tcp_urgent_pointer_is_dropped_and_its_data_stays_in_line() {
    let mut world = World::established();
    world.rx(ACK | PSH | 0x20, 1, 1, b"urgent");
    assert_eq!(world.host().written, b"urgent");
    world.incoming(b"whatever the outside calls urgent");
    for frame in &world.frames {
        let packet = SlicedPacket::from_ethernet(frame).expect("a sound frame");
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("not TCP") };
        assert_eq!((tcp.urg(), tcp.urgent_pointer()), (false, 0));
    }
}

#[test]
fn x7_tcp_ports_and_addresses_are_as_each_end_sees_them() {
    let mut world = World::established();
    let sent = tcp(world.rx(ACK, 1, 1, b"hello"));
    assert_eq!(sent[0].dst_of_container, world.remote, "the container sees who it called");
    let remote = world.remote;
    assert_eq!(world.host().to, Some(remote));
}

#[test]
fn x7_tcp_boundaries_of_segments_are_not_kept_and_push_is_set_on_all_data() {
    let mut world = World::established();
    world.host().incoming.extend(b"one");
    world.host().incoming.extend(b"two");
    let sent = tcp(world.event(Readiness { readable: true, ..Readiness::default() }));
    assert_eq!(sent.iter().map(|seg| (seg.flags, &seg.payload[..])).collect::<Vec<_>>(), [(ACK | PSH, &b"onetwo"[..])]);
    assert_eq!(tcp(world.end())[0].flags, FIN | ACK);
}
