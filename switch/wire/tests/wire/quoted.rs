//! ICMP errors and the packets that they quote: what is read, what is refused, and that a translated error is, byte for
//! byte, the error that a router would have made for the translated packet.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tapswitch_wire::{Endpoint, Frame, FrameRef, Meta, Quoted, Unquotable, checksum};

use crate::oracle;
use crate::packets::{Net, Packet, Transport, V4, address4, packet, payload, port, tcp_options};
use crate::rewrite::{between, endpoint, ends, fitting};

const ROUTER: [u8; 4] = [198, 51, 100, 7];

fn ip(src: [u8; 4], dst: [u8; 4], options: usize, transport: Transport) -> Packet {
    let options = vec![1; options];
    let net = Net::V4(V4 { src, dst, ttl: 61, tos: 0, id: 9, options, fragment: 0x4000, transport });
    Packet { dst_mac: [2; 6], src_mac: [4; 6], tags: vec![], net, padding: 0 }
}

/// The IP packet alone.
fn datagram(packet: &Packet) -> Vec<u8> {
    packet.bytes()[14..].to_vec()
}

/// An error of this kind and code about a packet, from this router to the packet's source.
fn error(kind: u8, code: u8, mtu: u16, from: [u8; 4], about: &Packet, quote: Vec<u8>) -> Packet {
    let [high, low] = mtu.to_be_bytes();
    let transport = Transport::Icmp { kind, code, word: [0, 0, high, low], payload: quote };
    ip(from, ends(about).0.ip.octets(), 0, transport)
}

fn read(packet: &Packet) -> Result<Quoted, Unquotable> {
    FrameRef::parse(Meta::PLAIN, &packet.bytes()).unwrap().quoted()
}

fn translated(bytes: &[u8], new: (Endpoint, Endpoint), from: [u8; 4]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    Frame::parse(Meta::PLAIN, &mut bytes[..]).unwrap().translate_quoted(new.0, new.1, from.into());
    bytes
}

/// A packet that an error may quote.
fn about() -> impl Strategy<Value = Packet> {
    let ports = || [port(), port()];
    let transport =
        prop_oneof![
            (ports(), any::<u32>(), tcp_options(), payload())
                .prop_map(|(ports, seq, options, payload)| Transport::Tcp { ports, seq, flags: 16, options, payload }),
            (ports(), prop::bool::weighted(0.2), payload())
                .prop_map(|(ports, without_checksum, payload)| Transport::Udp { ports, without_checksum, payload }),
            // With a sequence number, so that not all of it is zero.
            (select(vec![0u8, 8]), any::<[u8; 2]>(), payload()).prop_map(|(kind, id, payload)| Transport::Icmp {
                kind,
                code: 0,
                word: [id[0], id[1], 0, 1],
                payload
            }),
        ];
    (address4(), address4(), 0usize..=10, transport)
        .prop_map(|(src, dst, words, transport)| ip(src, dst, words * 4, transport))
}

fn errors() -> impl Strategy<Value = (u8, u8)> {
    select(vec![(3u8, 0u8), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0)])
}

/// Bytes of the IP header that a quote begins with.
fn header(packet: &Packet) -> usize {
    let Net::V4(ip) = &packet.net else { panic!("{packet:?}") };
    20 + ip.options.len()
}

#[test]
fn ni_3_what_an_error_quotes_is_read_from_eight_bytes_of_transport_header() {
    let (a, b) = ([10, 0, 0, 2], [192, 0, 2, 1]);
    let end = |ip: [u8; 4], port| Endpoint::new(ip.into(), port);
    let tcp = Transport::Tcp { ports: [1000, 80], seq: 0xfedc_ba98, flags: 16, options: vec![], payload: vec![1; 9] };
    let udp = Transport::Udp { ports: [1000, 53], without_checksum: false, payload: vec![1; 9] };
    let ping = Transport::Icmp { kind: 8, code: 0, word: [0x12, 0x34, 0, 1], payload: vec![1; 9] };
    let pong = Transport::Icmp { kind: 0, code: 0, word: [0x12, 0x34, 0, 1], payload: vec![1; 9] };
    let table = [
        ("TCP", tcp, 6, [1000, 80], 0xfedc_ba98),
        ("UDP", udp, 17, [1000, 53], 0),
        ("an echo request", ping, 1, [0x1234, 0], 0),
        ("an echo reply", pong, 1, [0, 0x1234], 0),
    ];
    for (what, transport, protocol, ports, seq) in table {
        for options in [0, 4, 40] {
            let about = ip(a, b, options, transport.clone());
            for len in [header(&about) + 8, header(&about) + 9, datagram(&about).len()] {
                let quote = datagram(&about)[..len].to_vec();
                for (kind, code, mtu, read_mtu) in [(3, 4, 1280, 1280), (3, 3, 1280, 0), (11, 0, 7, 0), (12, 0, 0, 0)] {
                    let right = Quoted {
                        kind,
                        code,
                        mtu: read_mtu,
                        protocol,
                        src: end(a, ports[0]),
                        dst: end(b, ports[1]),
                        seq,
                    };
                    let is = read(&error(kind, code, mtu, ROUTER, &about, quote.clone()));
                    assert_eq!(is, Ok(right), "{what}, {options} bytes of options, {len} bytes quoted");
                }
            }
            let short = datagram(&about)[..header(&about) + 7].to_vec();
            assert_eq!(read(&error(3, 3, 0, ROUTER, &about, short)), Err(Unquotable::Unusable), "{what}, seven bytes");
        }
    }
}

#[test]
fn ni_2_wrong_checksums_of_the_message_and_of_the_quoted_header_are_refused_that_of_its_transport_is_not() {
    let udp = Transport::Udp { ports: [1000, 53], without_checksum: false, payload: vec![1; 9] };
    let about = ip([10, 0, 0, 2], [192, 0, 2, 1], 4, udp);
    let quote = datagram(&about);
    let with = |at: usize| {
        let mut quote = quote.clone();
        quote[at] ^= 0x10;
        error(3, 3, 0, ROUTER, &about, quote)
    };
    let whole = error(3, 3, 0, ROUTER, &about, quote.clone());
    assert!(read(&whole).is_ok());
    for at in [1, 8, 10, 12, 19, 23] {
        assert_eq!(read(&with(at)), Err(Unquotable::BadChecksum), "byte {at} of the quoted IP header");
    }
    for at in [24 + 6, 24 + 7, 24 + 12] {
        assert!(read(&with(at)).is_ok(), "byte {at} of the quote, which the quoted UDP checksum covers");
    }
    let bytes = whole.bytes();
    for at in 36..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let is = FrameRef::parse(Meta::PLAIN, &damaged[..]).unwrap().quoted();
        assert_eq!(is, Err(Unquotable::BadChecksum), "byte {at}");
    }
}

#[test]
fn ni_5_only_errors_about_packets_of_sessions_are_translated() {
    use Unquotable::{NotAnError, Unusable};
    let (a, b) = ([10, 0, 0, 2], [192, 0, 2, 1]);
    let udp = || Transport::Udp { ports: [1000, 53], without_checksum: false, payload: vec![1; 9] };
    let about = ip(a, b, 0, udp());
    let quote = || datagram(&about);
    for kind in (0..=255).filter(|kind| ![3, 11, 12, 13, 14].contains(kind)) {
        assert_eq!(read(&error(kind, 0, 0, ROUTER, &about, quote())), Err(NotAnError), "type {kind}");
    }
    assert_eq!(read(&about), Err(NotAnError), "a UDP datagram");
    let mut fragment = error(3, 3, 0, ROUTER, &about, quote());
    if let Net::V4(ip) = &mut fragment.net {
        ip.fragment = 0x2000;
    }
    assert_eq!(read(&fragment), Err(NotAnError), "a fragment of an error");
    let mut later = about.clone();
    if let Net::V4(ip) = &mut later.net {
        ip.fragment = 5;
    }
    assert_eq!(read(&error(11, 1, 0, ROUTER, &later, datagram(&later))), Err(Unusable), "about a later fragment");
    let nested = error(3, 3, 0, ROUTER, &about, quote());
    assert_eq!(read(&error(3, 3, 0, ROUTER, &nested, datagram(&nested))), Err(Unusable), "about an error");
    let other = ip(a, b, 0, Transport::Other(47, vec![0; 20]));
    assert_eq!(read(&error(3, 2, 0, ROUTER, &other, datagram(&other))), Err(Unusable), "about GRE");
    for len in 0..28 {
        assert_eq!(read(&error(3, 3, 0, ROUTER, &about, quote()[..len].to_vec())), Err(Unusable), "{len} bytes");
    }
    // A header whose own length lies, with a right sum.
    for first in [0x44, 0x55, 0x4f, 0x60, 0x00] {
        let mut lying = quote();
        lying[0] = first;
        lying[10..12].fill(0);
        let check = checksum::checksum(0, &lying[..20]);
        lying[10..12].copy_from_slice(&check.to_be_bytes());
        assert_eq!(read(&error(3, 3, 0, ROUTER, &about, lying)), Err(Unusable), "first byte {first:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn ni_3_ip_5_a_translated_error_is_the_error_about_the_translated_packet(
        about in about(),
        (kind, code) in errors(),
        mtu: u16,
        cut in prop::sample::select(vec![0usize, 1, 8, 9, 10, 11, 12, 500]),
        new in (endpoint(), endpoint()),
        from in [address4(), address4()],
    ) {
        let new = fitting(&about, new);
        let (whole, right_whole) = (datagram(&about), datagram(&between(&about, new)));
        let len = whole.len().min(header(&about) + 8 + cut);
        let (quote, mut right) = (whole[..len].to_vec(), right_whole[..len].to_vec());
        // Half of a TCP checksum is not one.
        if matches!(about.transport(), Some(Transport::Tcp { .. })) && len == header(&about) + 17 {
            right[len - 1] = quote[len - 1];
        }
        let before = error(kind, code, mtu, from[0], &about, quote).bytes();
        prop_assert!(FrameRef::parse(Meta::PLAIN, &before[..]).unwrap().quoted().is_ok());
        let is = translated(&before, new, from[1]);
        prop_assert_eq!(&is, &error(kind, code, mtu, from[1], &between(&about, new), right).bytes());
        prop_assert_eq!(oracle::checksums(&is), Ok(()), "outer IP and ICMP");
        prop_assert_eq!(checksum::sum(&is[42..42 + header(&about)]), 0xffff, "quoted IP");
        let quoted = FrameRef::parse(Meta::PLAIN, &is[..]).unwrap().quoted().unwrap();
        prop_assert_eq!((quoted.src, quoted.dst), new);
        prop_assert_eq!(translated(&is, ends(&about), from[0]), before, "there and back");
    }

    #[test]
    fn nu_10_a_wrong_quoted_transport_checksum_stays_wrong_by_as_much(about in about(), new in (endpoint(), endpoint()), wrong: u16) {
        let field = header(&about) + match about.transport() {
            Some(Transport::Udp { without_checksum: false, .. }) => 6,
            Some(Transport::Tcp { .. }) => 16,
            _ => return Ok(()),
        };
        let new = fitting(&about, new);
        let off = |packet: &Packet| {
            let mut quote = datagram(packet);
            let check = u16::from_be_bytes([quote[field], quote[field + 1]]);
            quote[field..field + 2].copy_from_slice(&checksum::add(check, wrong).to_be_bytes());
            quote
        };
        let value = |quote: &[u8]| u16::from_be_bytes([quote[field], quote[field + 1]]) % 0xffff;
        prop_assume!(value(&off(&about)) != 0);
        let before = error(3, 3, 0, ROUTER, &about, off(&about)).bytes();
        let is = translated(&before, new, ROUTER);
        prop_assert_eq!(value(&is[42..]), value(&off(&between(&about, new))));
    }

    #[test]
    fn at_19_damaged_errors_are_read_and_translated_without_harm(
        about in about(),
        (kind, code) in errors(),
        len in 0usize..200,
        damage in vec((0usize..200, any::<u8>()), 0..6),
        repair: bool,
        new in (endpoint(), endpoint()),
    ) {
        let mut quote = datagram(&about);
        damage.iter().filter(|_| repair).for_each(|(at, value)| if let Some(byte) = quote.get_mut(*at) { *byte = *value });
        quote.truncate(len);
        let mut bytes = error(kind, code, 0, ROUTER, &about, quote).bytes();
        damage.iter().filter(|_| !repair).for_each(|(at, value)| if let Some(byte) = bytes.get_mut(*at) { *byte = *value });
        if let Ok(mut frame) = Frame::parse(Meta::PLAIN, &mut bytes[..]) {
            let readable = frame.quoted().is_ok();
            frame.translate_quoted(new.0, new.1, ROUTER.into());
            prop_assert!(!readable || frame.quoted().is_ok());
        }
    }

    #[test]
    fn at_19_anything_is_read_and_translated_without_harm(packet in packet(), kind in 0u8..13, body in vec(any::<u8>(), 0..90)) {
        let error = ip(ROUTER, [10, 0, 0, 2], 0, Transport::Icmp { kind, code: 0, word: [0; 4], payload: body });
        for mut bytes in [packet.bytes(), error.bytes()] {
            if let Ok(mut frame) = Frame::parse(Meta::PLAIN, &mut bytes[..]) {
                let _ = frame.quoted();
                let end = Endpoint::new(ROUTER.into(), 1);
                frame.translate_quoted(end, end, ROUTER.into());
            }
        }
    }
}
