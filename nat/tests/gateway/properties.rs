//! Laws that hold for any bytes.

use std::net::Ipv4Addr;
use std::time::Duration;

use etherparse::checksum::Sum16BitWords;
use etherparse::{Icmpv4Type, LaxNetSlice, LaxSlicedPacket, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use tapswitch_nat::{Gateway, Outcome};
use tapswitch_wire::{ChecksumState, Frame, Instant, Meta, Unheard, checksum, render};

use crate::world::*;

/// Checks one frame of the gateway's with a parser of another hand.
fn check(meta: &Meta, frame: &[u8]) {
    let line = render(meta, frame);
    let own_mac = mac(GATEWAY).0;
    assert_eq!(frame[6..12], own_mac, "{line}");
    assert_ne!(frame[..6], own_mac, "{line}");
    let tag = if frame[12..14] == [0x81, 0] { 4 } else { 0 };
    assert!(meta.gso.is_some() || frame.len() <= 1500 + 14 + tag || frame.len() <= 60, "too long: {line}");
    let sliced = LaxSlicedPacket::from_ethernet(frame).unwrap();
    let Some(LaxNetSlice::Ipv4(ip)) = &sliced.net else {
        assert!(line.contains(" ARP "), "{line}");
        return;
    };
    let header = ip.header();
    // Over the bytes, for an etherparse header does not hold the reserved flag, which is passed on as it came.
    assert_eq!(Sum16BitWords::new().add_slice(header.slice()).ones_complement(), 0, "{line}");
    // The transport of a packet that is only passed on is its sender's affair.
    if header.source_addr() != GATEWAY {
        return;
    }
    assert_eq!(header.ttl(), 64, "{line}");
    // An answer to a ping whose checksum the sender's kernel vouches for, truly or not.
    if meta.checksum == ChecksumState::Verified {
        return;
    }
    let mut completed = frame.to_vec();
    let mut meta = *meta;
    let end = 14 + tag + usize::from(header.total_len());
    checksum::complete(&mut meta, &mut completed, end).unwrap();
    let sliced = SlicedPacket::from_ethernet(&completed).unwrap_or_else(|error| panic!("{line}: {error}"));
    match sliced.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => {
            let right = tcp.to_header().calc_checksum_ipv4_raw(header.source(), header.destination(), tcp.payload());
            assert_eq!(Ok(tcp.checksum()), right, "{line}");
        }
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()), "{line}");
            match icmp.icmp_type() {
                Icmpv4Type::EchoReply(_) => {}
                Icmpv4Type::DestinationUnreachable(_) | Icmpv4Type::TimeExceeded(_) => {
                    check_quote(icmp.payload(), header.destination_addr(), &line);
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        _ => panic!("the gateway never sends {line}"),
    }
}

/// IP-7: what an ICMP error may be about, and to whom it goes.
fn check_quote(quote: &[u8], told: Ipv4Addr, line: &str) {
    assert!(quote.len() >= 20 && quote.len() <= 548, "{line}");
    let header_len = usize::from(quote[0] & 0x0f) * 4;
    assert_eq!(told.octets(), quote[12..16], "{line}");
    assert_eq!(u16::from_be_bytes([quote[6], quote[7]]) & 0x1fff, 0, "about a later fragment: {line}");
    assert!(!Ipv4Addr::new(quote[16], quote[17], quote[18], quote[19]).is_multicast(), "{line}");
    if quote[9] == 1 {
        let kind = quote[header_len];
        assert!(!matches!(kind, 3 | 4 | 5 | 11 | 12), "an error about an error of type {kind}: {line}");
    }
}

type Sent = Vec<(Meta, Vec<u8>)>;

/// Hands in a frame; how it ended, and what came out. `None` if it is not even a frame.
fn feed(gateway: &mut Gateway, now: Instant, meta: Meta, bytes: &[u8]) -> Option<(Outcome, Sent)> {
    let (mut bytes, mut sent) = (bytes.to_vec(), Vec::new());
    let mut frame = Frame::parse(meta, &mut bytes[..]).ok()?;
    let mut out = |meta: &Meta, frame: &[u8]| {
        check(meta, frame);
        sent.push((*meta, frame.to_vec()));
    };
    let outcome = gateway.handle(&mut frame, now, &mut Unheard, &mut out);
    Some((outcome, sent))
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        4 => (0u8..8).prop_map(|host| Ipv4Addr::new(10, 0, 0, host)),
        2 => Just(OUTSIDE),
        1 => Just(Ipv4Addr::BROADCAST),
        1 => Just(Ipv4Addr::new(10, 0, 0, 255)),
        1 => any::<u32>().prop_map(Ipv4Addr::from_bits),
    ]
}

/// Frames that get far: well-formed ones, with up to three bytes changed, perhaps options, perhaps padding.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![4 => vec(any::<u8>(), 0..64), 1 => (0usize..2000).prop_map(|len| vec![0; len])];
    let kind = prop_oneof![Just(8u8), Just(0), Just(3), Just(11), any::<u8>()];
    let ttl = prop_oneof![Just(0u8), Just(1), Just(2), Just(64)];
    let base = (0u8..5, address(), address(), ttl, kind, 0u16..70, payload).prop_map(
        |(shape, src, dst, ttl, kind, port, payload)| match shape {
            0 => who_has(dst, src),
            1 => is_at(src, mac(src)),
            2 => udp(ip(src, dst, ttl), 1000, port, &payload),
            3 => tcp(ip(src, dst, ttl), port, 5, 6, kind, &payload),
            _ => icmp(ip(src, dst, ttl), kind, 0, &payload),
        },
    );
    let options = prop_oneof![4 => Just(vec![]), 1 => vec(any::<u8>(), 4), 1 => Just(vec![7, 7, 4, 0, 0, 0, 0, 0])];
    let changes = prop_oneof![3 => Just(vec![]), 1 => vec((0usize..80, any::<u8>()), 1..4)];
    (base, options, changes, any::<bool>(), prop_oneof![9 => Just(false), 1 => Just(true)]).prop_map(
        |(mut frame, options, changes, fix, tag)| {
            let is_ip = frame[12..14] == [8, 0];
            if is_ip {
                frame = with_options(&frame, &options);
            }
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            // A changed header is let through by half of its checksums.
            if is_ip && fix && frame.len() >= 14 + usize::from(frame[14] & 0x0f).max(5) * 4 {
                frame = patched(&frame, 0, &[]);
            }
            if frame.len() < 60 && fix {
                frame.resize(60, 0xee);
            }
            if tag { tagged(&frame, 0) } else { frame }
        },
    )
}

fn meta() -> impl Strategy<Value = Meta> {
    prop_oneof![
        6 => Just(Meta::PLAIN),
        1 => Just(Meta { checksum: ChecksumState::Verified, gso: None }),
        1 => Just(partial(34, 2)),
        1 => Just(partial(34, 6)),
        1 => Just(partial(34, 16)),
        1 => (14u16..60, 0u16..20).prop_map(|(start, offset)| partial(start, offset)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_whatsoever_do_no_harm(bytes in vec(any::<u8>(), 0..200), kind in 0usize..4, verify in any::<bool>()) {
        let mut world = World::with(|config| config.verify_source = verify);
        let mut bytes = bytes;
        if bytes.len() >= 16 {
            bytes[..6].copy_from_slice(&mac(GATEWAY).0);
            bytes[6] &= 0xfe;
            let kinds: [[u8; 3]; 4] = [[8, 0, 0x45], [8, 0, bytes[14]], [8, 6, 0], [bytes[12], bytes[13], bytes[14]]];
            bytes[12..15].copy_from_slice(&kinds[kind]);
        }
        feed(&mut world.gateway, world.now, Meta::PLAIN, &bytes);
    }

    /// IP-5, IP-7, IP-9 at once: whatever comes in, in whatever order and time, what goes out is right.
    #[test]
    fn ip_7_whatever_comes_in_what_goes_out_is_well_formed_fits_and_is_no_error_about_an_error(
        frames in vec((frame(), meta(), 0u64..2000), 1..40),
        verify in any::<bool>(),
        uplink in any::<bool>(),
    ) {
        let make = || World::with(|config| (config.verify_source, config.uplink) = (verify, uplink));
        let (mut world, mut twin) = (make(), make());
        for (bytes, meta, millis) in frames {
            let now = world.now;
            let first = feed(&mut world.gateway, now, meta, &bytes);
            prop_assert_eq!(&first, &feed(&mut twin.gateway, now, meta, &bytes), "the same inputs, the same outputs");
            if let Some((Outcome::Uplink, sent)) = first {
                prop_assert!(uplink || bytes[30..34] == GATEWAY.octets() || bytes[12] == 0x81);
                prop_assert!(sent.is_empty());
            }
            world.now = now + Duration::from_millis(millis);
            if world.gateway.deadline().is_some_and(|deadline| deadline <= world.now) {
                world.gateway.poll(world.now, &mut |meta: &Meta, frame: &[u8]| check(meta, frame));
                twin.gateway.poll(world.now, &mut |_: &Meta, _: &[u8]| {});
            }
        }
        world.now = world.now + Duration::from_secs(10);
        world.gateway.poll(world.now, &mut |meta: &Meta, frame: &[u8]| check(meta, frame));
        prop_assert_eq!(world.gateway.deadline(), None, "nothing waits for ever");
    }
}
