//! Our offsets against etherparse's, for frames of all kinds and for damaged ones.
//!
//! Where the two differ on purpose:
//!
//! * Ours walks at most two VLAN tags and no MACsec, for a third tag is payload to a bridge.
//! * etherparse takes an IPv6 payload length of zero as "all there is"; ours takes it as zero (RFC 2675 jumbograms are
//!   longer than any frame here).
//! * Over IPv4 etherparse looks behind an authentication header; for ours that is just another protocol.
//! * etherparse walks extension headers as long as there are any, and refuses hop-by-hop anywhere but first; ours takes
//!   it anywhere, but walks eight at most.
//! * In a fragment etherparse looks at no transport header; ours reads the one of the first fragment. Behind the fragment
//!   header of a later one etherparse goes on walking through what is payload.
//! * A UDP length of zero means "the rest" to etherparse (a jumbogram); it is malformed to ours.
//! * An ICMP header has eight bytes for etherparse, and a timestamp message exactly twenty; four are enough for ours.
//! * ICMP over IPv6 and ICMPv6 over IPv4 are transports for etherparse; for ours they are other protocols.
//! * IGMP is another protocol for ours.

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use tapswitch_wire::{Fragment, L3, L4, Parsed};

use crate::oracle;
use crate::packets::{Net, Packet, Transport, packet};

/// Where `part` begins in `frame`.
fn offset(frame: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - frame.as_ptr() as usize
}

/// Compares, if etherparse takes the frame. Returns whether it did.
fn compare(frame: &[u8]) -> bool {
    let Ok(theirs) = SlicedPacket::from_ethernet(frame) else { return false };
    let tags: Vec<_> = theirs.link_exts.iter().collect();
    if tags.len() > 2 || tags.iter().any(|tag| !matches!(tag, LinkExtSlice::Vlan(_))) {
        return false;
    }
    let tag_type = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if (0..tags.len()).any(|tag| tag_type(12 + 4 * tag) == 0x9100) {
        return false;
    }
    let ours = Parsed::parse(frame).expect("what etherparse takes is long enough");
    assert_eq!(ours.vlan.map(|tag| tag.vid()), theirs.vlan_ids().first().map(|vid| vid.value()));
    assert_eq!(usize::from(ours.l3_start), 14 + 4 * tags.len());
    match &theirs.net {
        None => assert!(matches!(ours.l3, L3::Other), "{ours:?}"),
        Some(NetSlice::Arp(_)) => assert_eq!(ours.l3, L3::Arp),
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            assert_eq!(ours.l3, L3::Ipv4);
            assert_eq!(usize::from(ours.l4_start), offset(frame, header.slice()) + header.slice().len());
            assert_eq!(ours.end as usize, offset(frame, header.slice()) + usize::from(header.total_len()));
            let fragment = header
                .is_fragmenting_payload()
                .then(|| Fragment { offset: header.fragments_offset().value() * 8, more: header.more_fragments() });
            assert_eq!(ours.fragment, fragment);
            assert_eq!(ours.protocol, header.protocol().0);
            if ip.extensions().auth.is_none() {
                compare_transport(frame, &ours, theirs.transport.as_ref());
            }
        }
        Some(NetSlice::Ipv6(ip)) => {
            let extensions = ip.extensions().clone().into_iter().count();
            if ip.header().payload_length() == 0 || extensions > 8 {
                return false;
            }
            assert_eq!(ours.l3, L3::Ipv6);
            assert_eq!(ours.fragment.is_some(), ip.is_payload_fragmented());
            let start = offset(frame, ip.header().slice());
            assert_eq!(ours.end as usize, start + 40 + usize::from(ip.header().payload_length()));
            if ours.fragment.is_none_or(|fragment| fragment.offset == 0) {
                assert_eq!(ours.protocol, ip.payload().ip_number.0);
                assert_eq!(usize::from(ours.l4_start), offset(frame, ip.payload().payload));
                compare_transport(frame, &ours, theirs.transport.as_ref());
            }
        }
    }
    true
}

fn compare_transport(frame: &[u8], ours: &Parsed, theirs: Option<&TransportSlice<'_>>) {
    if ours.fragment.is_some() {
        assert!(theirs.is_none());
        return;
    }
    let (l4, payload) = match (theirs, ours.l3) {
        (None | Some(TransportSlice::Igmp(_)), _)
        | (Some(TransportSlice::Icmpv4(_)), L3::Ipv6)
        | (Some(TransportSlice::Icmpv6(_)), L3::Ipv4) => (L4::Other, usize::from(ours.l4_start)),
        (Some(TransportSlice::Tcp(tcp)), _) => (L4::Tcp, offset(frame, tcp.payload())),
        (Some(TransportSlice::Udp(udp)), _) if udp.length() == 0 => (L4::Malformed, usize::from(ours.l4_start)),
        (Some(TransportSlice::Udp(udp)), _) => (L4::Udp, offset(frame, udp.payload())),
        (Some(TransportSlice::Icmpv4(icmp)), _) => (L4::Icmp, offset(frame, icmp.slice()) + 4),
        (Some(TransportSlice::Icmpv6(icmp)), _) => (L4::Icmpv6, offset(frame, icmp.slice()) + 4),
    };
    assert_eq!((ours.l4, usize::from(ours.payload_start)), (l4, payload));
}

/// What the generator knows without parsing.
fn expect(packet: &Packet, bytes: &[u8]) {
    let ours = Parsed::parse(bytes).unwrap();
    let l3 = match packet.net {
        Net::V4(_) => L3::Ipv4,
        Net::V6(_) => L3::Ipv6,
        Net::Arp(_) => L3::Arp,
        Net::Other(..) => L3::Other,
    };
    assert_eq!(ours.l3, l3);
    assert_eq!(ours.vlan.map(|tag| tag.tci), packet.tags.first().map(|(_, tci)| *tci));
    assert_eq!(ours.fragment.is_some(), packet.is_fragment());
    let padding = if matches!(l3, L3::Ipv4 | L3::Ipv6) { packet.padding } else { 0 };
    assert_eq!(ours.end as usize, bytes.len() - padding);
    if let (Some(transport), None) = (packet.transport(), ours.fragment) {
        let l4 = match (transport, l3) {
            (Transport::Tcp { .. }, _) => L4::Tcp,
            (Transport::Udp { .. }, _) => L4::Udp,
            (Transport::Icmp { .. }, L3::Ipv6) => L4::Icmpv6,
            (Transport::Icmp { .. }, _) => L4::Icmp,
            (Transport::Other(..), _) => L4::Other,
        };
        assert_eq!(ours.l4, l4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn offsets_are_those_of_etherparse(packet in packet()) {
        let bytes = packet.bytes();
        expect(&packet, &bytes);
        let is_empty = matches!(&packet.net, Net::V6(ip) if ip.extensions.is_empty() && ip.transport.is_empty());
        prop_assert!(compare(&bytes) || is_empty, "etherparse takes all that is well formed");
        prop_assert_eq!(oracle::checksums(&bytes), Ok(()));
    }

    #[test]
    fn offsets_are_those_of_etherparse_in_damaged_frames_too(
        packet in packet(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut bytes = packet.bytes();
        for (at, value) in damage {
            // Nearer to the front, where the headers are.
            let at = at.index(bytes.len().min(90));
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        compare(&bytes);
    }

    #[test]
    fn offsets_lie_in_order_within_the_frame(bytes in vec(any::<u8>(), 0..200), kind in 0usize..6) {
        let mut bytes = bytes;
        if let Some(field) = bytes.get_mut(12..15) {
            let kinds = [[0x08, 0, 0x45], [0x08, 0, 0x4f], [0x86, 0xdd, 0x60], [0x81, 0, 0], [0x88, 0xa8, 0], [8, 6, 0]];
            field.copy_from_slice(&kinds[kind]);
        }
        if let Ok(parsed) = Parsed::parse(&bytes) {
            prop_assert!(parsed.l3_start <= parsed.l4_start);
            prop_assert!(parsed.l4_start <= parsed.payload_start);
            prop_assert!(usize::from(parsed.payload_start) <= parsed.end as usize);
            prop_assert!(parsed.end as usize <= bytes.len());
        }
    }
}

#[test]
fn ip_1_wrong_lengths_and_versions_are_named_and_padding_is_not_part_of_the_packet() {
    use tapswitch_wire::DropReason::{Ipv4Malformed, Ipv6Malformed};
    let v4 = |change: fn(&mut [u8])| {
        let mut frame = [vec![0; 12], vec![8, 0, 0x45, 0, 0, 28], vec![0; 5], vec![253], vec![0; 37]].concat();
        change(&mut frame[14..]);
        Parsed::parse(&frame).map(|parsed| (parsed.l3, parsed.end)).unwrap()
    };
    assert_eq!(v4(|_| {}), (L3::Ipv4, 14 + 28), "the rest is padding");
    type Change = fn(&mut [u8]);
    let broken: [(&str, Change); 5] = [
        ("version 5", |ip| ip[0] = 0x55),
        ("header of 16 bytes", |ip| ip[0] = 0x44),
        ("header behind the end", |ip| ip[0] = 0x4f),
        ("shorter than its header", |ip| ip[3] = 19),
        ("longer than the frame", |ip| ip[2] = 1),
    ];
    for (what, change) in broken {
        assert_eq!(v4(change).0, L3::Malformed(Ipv4Malformed), "{what}");
    }
    let v6 = |next: u8, payload: &[u8]| {
        let len = payload.len() as u8;
        let frame =
            [vec![0; 12], vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, len, next, 1], vec![0; 32], payload.to_vec()].concat();
        Parsed::parse(&frame).map(|parsed| (parsed.l3, parsed.protocol)).unwrap()
    };
    assert_eq!(v6(59, &[]), (L3::Ipv6, 59), "no next header");
    assert_eq!(v6(60, &[59, 0, 1, 4, 0, 0, 0, 0]), (L3::Ipv6, 59));
    assert_eq!(v6(60, &[59, 1, 1, 4, 0, 0, 0, 0]).0, L3::Malformed(Ipv6Malformed), "extension behind the end");
    assert_eq!(v6(44, &[17, 0, 0, 0, 0, 0, 0]).0, L3::Malformed(Ipv6Malformed), "fragment header cut short");
    let chain = |headers: usize| {
        let mut bytes = [60, 0, 1, 4, 0, 0, 0, 0].repeat(headers);
        bytes[(headers - 1) * 8] = 17;
        bytes.extend_from_slice(&[0, 1, 0, 2, 0, 8, 0, 0]);
        bytes
    };
    assert_eq!(v6(60, &chain(8)), (L3::Ipv6, 17));
    assert_eq!(v6(60, &chain(9)).0, L3::Malformed(Ipv6Malformed), "more than eight extension headers");
}
