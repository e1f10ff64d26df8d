//! What is done to headers and payloads on the way, and what is not.

use tapswitch_wire::{ChecksumState, DropReason};

use super::frames::*;
use super::*;

/// An MSS option of this size between fillers that put it at an odd offset.
fn options(mss: u16) -> [u8; 8] {
    let [high, low] = mss.to_be_bytes();
    [1, 2, 4, high, low, 1, 1, 1]
}

#[test]
fn ip_11_dscp_and_ecn_pass_unchanged() {
    let mut house = House::met(|_| {});
    for tos in 0..=255 {
        house.send(PORT_A, &leaving(A, FAR).tos(tos).udp((4000, 53), b"question"));
        assert_eq!(house.one_outside(), left(OURS, FAR).tos(tos).udp((4000, 53), b"question"));
        house.arrive(&coming(FAR, OURS).tos(tos).udp((53, 4000), b"answer"));
        assert_eq!(house.one_inside().1, come(FAR, A).tos(tos).udp((53, 4000), b"answer"));
    }
}

#[test]
fn ip_12_the_mss_of_a_syn_is_lowered_to_what_both_sides_take_in_both_directions() {
    for (inside, outside, clamped) in [(1500, 1280, 1240), (1280, 1500, 1240), (1500, 1500, 1460), (9000, 1500, 1460)] {
        let mut house = House::met(|told| {
            told.network.mtu = inside;
            told.mtu = outside;
        });
        for (port, mss) in [(4001, 8960), (4002, clamped), (4003, clamped - 1), (4004, 0)] {
            let expected = options(mss.min(clamped));
            house.send(PORT_A, &leaving(A, FAR).tcp((port, 80), SYN, &options(mss), b""));
            assert_eq!(house.one_outside(), left(OURS, FAR).tcp((port, 80), SYN, &expected, b""));
            // Again, by the fast way.
            house.send(PORT_A, &leaving(A, FAR).tcp((port, 80), SYN, &options(mss), b""));
            assert_eq!(house.one_outside(), left(OURS, FAR).tcp((port, 80), SYN, &expected, b""));
            for _ in 0..2 {
                house.arrive(&coming(FAR, OURS).tcp((80, port), SYN | ACK, &options(mss), b""));
                assert_eq!(house.one_inside().1, come(FAR, A).tcp((80, port), SYN | ACK, &expected, b""));
            }
        }
        // A partial checksum does not cover it.
        let (meta, frame) = leaving(A, FAR).tcp_partial((4009, 80), SYN, &options(8960), b"");
        house.send_meta(PORT_A, meta, &frame);
        let expected = left(OURS, FAR).tcp_partial((4009, 80), SYN, &options(clamped), b"");
        assert_eq!(house.take_outside(), [expected]);
    }
}

#[test]
fn ip_12_only_a_syn_is_touched() {
    let mut house = House::met(|told| told.mtu = 1280);
    let plain = |packet: Packet, flags| packet.tcp((4001, 80), flags, &[], b"");
    house.send(PORT_A, &plain(leaving(A, FAR), SYN));
    assert_eq!(house.one_outside(), plain(left(OURS, FAR), SYN), "one without the option");
    let with_option = |packet: Packet| packet.tcp((4001, 80), ACK, &options(8960), b"");
    house.send(PORT_A, &with_option(leaving(A, FAR)));
    assert_eq!(house.one_outside(), with_option(left(OURS, FAR)));
}

#[test]
fn nu_11_a_super_frame_goes_through_whole_and_its_checksum_is_never_completed() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).tcp((4001, 80), SYN, &[], b""));
    house.arrive(&coming(FAR, OURS).tcp((80, 4001), SYN | ACK, &[], b""));
    house.send(PORT_A, &leaving(A, FAR).udp((4000, 53), b""));
    house.take_outside();
    house.take_inside();
    let data = vec![7; 62_000];
    // The second time by the fast way.
    for _ in 0..3 {
        let (meta, frame) = leaving(A, FAR).tcp_super((4001, 80), 1460, &data);
        house.send_meta(PORT_A, meta, &frame);
        assert_eq!(house.take_outside(), [left(OURS, FAR).tcp_super((4001, 80), 1460, &data)]);
        let (meta, frame) = coming(FAR, OURS).tcp_super((80, 4001), 1460, &data);
        house.arrive_meta(meta, &frame);
        let (meta, frame) = come(FAR, A).tcp_super((80, 4001), 1460, &data);
        assert_eq!(house.take_inside(), [(PORT_A, meta, frame)]);
        let (meta, frame) = leaving(A, FAR).udp_super((4000, 53), 1400, &data);
        house.send_meta(PORT_A, meta, &frame);
        assert_eq!(house.take_outside(), [left(OURS, FAR).udp_super((4000, 53), 1400, &data)]);
        let (meta, frame) = coming(FAR, OURS).udp_super((53, 4000), 1400, &data);
        house.arrive_meta(meta, &frame);
        let (meta, frame) = come(FAR, A).udp_super((53, 4000), 1400, &data);
        assert_eq!(house.take_inside(), [(PORT_A, meta, frame)]);
    }
}

#[test]
fn nu_11_a_single_segment_with_a_partial_checksum_keeps_it_even_if_it_may_be_fragmented() {
    let mut house = House::met(|_| {});
    for flags in [SYN, ACK] {
        let (meta, frame) = leaving(A, FAR).tcp_partial((4001, 80), flags, &[], b"data");
        house.send_meta(PORT_A, meta, &frame);
        assert_eq!(house.take_outside(), [left(OURS, FAR).tcp_partial((4001, 80), flags, &[], b"data")]);
    }
    let (meta, frame) = leaving(A, FAR).id(7).tcp_partial((4001, 80), ACK, &[], b"data");
    house.send_meta(PORT_A, meta, &frame);
    let sent = house.take_outside();
    assert!(matches!(sent[..], [(Meta { checksum: ChecksumState::Partial { start: 34, offset: 16 }, gso: None }, _)]));
    let id = identification(&sent[0].1);
    assert_eq!(sent[0].1, left(OURS, FAR).id(id).tcp_partial((4001, 80), ACK, &[], b"data").1);
}

#[test]
fn nu_6_addresses_in_the_payload_are_nobodys_business() {
    let sip = b"REGISTER sip:198.51.100.7 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060\r\nContact: <sip:a@10.0.0.2:5060>\r\n\r\n";
    let ftp = b"PORT 10,0,0,2,19,137\r\n";
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp((5060, 5060), sip));
    assert_eq!(house.one_outside(), left(OURS, FAR).udp((5060, 5060), sip));
    house.send(PORT_A, &leaving(A, FAR).tcp((4001, 21), SYN, &[], b""));
    house.arrive(&coming(FAR, OURS).tcp((21, 4001), SYN | ACK, &[], b""));
    house.take_outside();
    house.take_inside();
    house.send(PORT_A, &leaving(A, FAR).tcp((4001, 21), ACK, &[], ftp));
    assert_eq!(house.one_outside(), left(OURS, FAR).tcp((4001, 21), ACK, &[], ftp));
    assert_eq!(house.sessions(), 2);
    // Nothing was opened for what they speak of.
    house.arrive(&coming(OTHER, OURS).tcp((20, 5001), SYN, &[], b""));
    house.nothing_came();
}

#[test]
fn nu_12_empty_datagrams_and_the_longest_ones_pass_and_port_zero_does_not() {
    let mut house = House::met(|told| (told.network.mtu, told.mtu) = (65_535, 65_535));
    for len in [0, 1, 65_507] {
        let data = vec![9; len];
        house.send(PORT_A, &leaving(A, FAR).udp((4000, 53), &data));
        assert_eq!(house.one_outside(), left(OURS, FAR).udp((4000, 53), &data));
        house.arrive(&coming(FAR, OURS).udp((53, 4000), &data));
        assert_eq!(house.one_inside().1, come(FAR, A).udp((53, 4000), &data));
    }
    for ports in [(0, 53), (4000, 0)] {
        let frame = leaving(A, FAR).udp(ports, b"");
        assert_eq!(house.send(PORT_A, &frame), drop(DropReason::TransportMalformed));
    }
    house.nothing_came();
}
