//! Expressions, and the frames that they take.

use tapswitch_filter::{Compiled, Filter, MAX_NESTING, Outcome, Seen, Tri};
use tapswitch_wire::{DropReason, Mac, PortId, Verdict};

use crate::frames::{Body, Sample, frame, mac};

const WEB: PortId = PortId(1);
const DB: PortId = PortId(2);
const DB_TOO: PortId = PortId(3);
const OTHER: PortId = PortId(9);

fn ports(name: &str) -> Option<Vec<PortId>> {
    match name {
        "web" => Some(vec![WEB]),
        "db" => Some(vec![DB, DB_TOO]),
        "stopped" => Some(Vec::new()),
        "not" => Some(vec![OTHER]),
        "gateway" => Some(vec![PortId::GATEWAY]),
        _ => None,
    }
}

fn takes(expression: &str, sample: &Sample) -> bool {
    let filter = Filter::parse(expression).unwrap_or_else(|error| panic!("{error}")).resolve(ports).unwrap();
    let bytes = sample.bytes();
    match filter.first(&frame(&bytes), &Seen { port: WEB }) {
        Tri::Yes => true,
        Tri::No => false,
        Tri::Later => panic!("{expression} waits"),
    }
}

/// Each expression takes all of the first and none of the second.
#[track_caller]
fn check(table: &[(&str, &[&Sample], &[&Sample])]) {
    for (expression, wanted, unwanted) in table {
        for sample in *wanted {
            assert!(takes(expression, sample), "{expression} does not take {sample:?}");
            assert!(!takes(&format!("not ({expression})"), sample), "not ({expression}) takes {sample:?}");
        }
        for sample in *unwanted {
            assert!(!takes(expression, sample), "{expression} takes {sample:?}");
        }
    }
}

#[test]
fn addresses_are_found_in_ip_and_arp_whichever_end_is_asked_for() {
    let there = &Sample::ip("10.0.0.1", "10.0.0.2", 6);
    let back = &Sample::ip("10.0.0.2", "10.0.0.1", 6);
    let own = &Sample::ip("10.0.0.1", "10.0.0.1", 17);
    let arp = &Sample::arp([10, 0, 0, 1], [10, 0, 0, 2]);
    let six = &Sample::ip("fd00::1", "fd00::2", 6);
    let tagged = &there.clone().tagged(5).tagged(6);
    let ethertype_lies = &Sample::new(Body::Other(0x88cc));
    check(&[
        ("host 10.0.0.1", &[there, back, own, arp, tagged], &[six, ethertype_lies]),
        ("src 10.0.0.1", &[there, own, arp], &[back, six]),
        ("dst host 10.0.0.1", &[back, own], &[there, arp, six]),
        ("src and dst 10.0.0.1", &[own], &[there, back, arp]),
        ("dst or src host 10.0.0.1", &[there, back, own, arp], &[six]),
        ("ip host 10.0.0.1", &[there, back], &[arp, six]),
        ("arp host 10.0.0.1", &[arp], &[there, back]),
        ("arp src 10.0.0.1", &[arp], &[there]),
        ("arp dst net 10.0.0.2/31", &[arp], &[there]),
        ("host fd00::1", &[six], &[there, arp]),
        ("ip6 dst host fd00::2", &[six], &[there]),
        ("net fd00::/16", &[six], &[there]),
        ("net ::/0", &[six], &[there, arp]),
        ("net 10", &[there, arp], &[six]),
        ("net 10.0", &[there], &[six]),
        ("net 10.0.1", &[], &[there, arp]),
        ("net 0.0.0.0/0", &[there, arp], &[six, ethertype_lies]),
        ("src net 10.0.0.2/32", &[back], &[there]),
        ("src and dst net 10.0.0.0/30", &[there, back, own, arp], &[six]),
    ]);
}

#[test]
fn ports_are_those_of_tcp_udp_and_sctp_and_a_later_fragment_has_none() {
    let tcp = &Sample::ip("10.0.0.1", "10.0.0.2", 6);
    let back = &tcp.clone().ports(80, 40_000);
    let udp = &Sample::ip("10.0.0.1", "10.0.0.2", 17);
    let sctp = &Sample::ip("fd00::1", "fd00::2", 132);
    let six = &Sample::ip("fd00::1", "fd00::2", 6).options(2);
    let echo = &Sample::ip("10.0.0.1", "10.0.0.2", 1);
    let first = &tcp.clone().fragment(0, true);
    let later = &tcp.clone().fragment(3, false);
    let later6 = &Sample::ip("fd00::1", "fd00::2", 17).fragment(3, true);
    let options = &udp.clone().options(10);
    check(&[
        ("port 80", &[tcp, back, udp, sctp, six, first, options], &[echo, later, later6]),
        ("dst port 80", &[tcp, udp, six], &[back]),
        ("src or dst port 0x50", &[tcp, back], &[later]),
        ("src and dst port 80", &[], &[tcp, back]),
        ("tcp port 80", &[tcp, back, six, first], &[udp, sctp, later]),
        ("udp dst port 80", &[udp, options], &[tcp]),
        ("sctp src port 40000", &[sctp], &[tcp]),
        ("portrange 79-81", &[tcp, back], &[echo, later]),
        ("portrange 81-79", &[tcp, back], &[echo, later]),
        ("tcp src portrange 0-1023", &[back], &[tcp]),
        ("tcp", &[tcp, six, first, later], &[udp, echo]),
        ("udp", &[udp, later6], &[tcp]),
        ("ip6 proto 44", &[later6], &[later, six]),
        ("ip6 proto 60", &[six], &[later6]),
    ]);
}

#[test]
fn an_icmp_error_is_found_by_its_outer_header_only() {
    // The quoted packet is not looked at; its addresses stand where a payload does.
    let mut bytes = Sample::ip("10.0.0.9", "10.0.0.1", 1).bytes();
    let quoted = Sample::ip("10.0.0.1", "10.7.7.7", 6).bytes().split_off(14);
    let at = bytes.len() - 20;
    bytes[at..].copy_from_slice(&quoted[..20]);
    let filter = |text: &str| Filter::parse(text).unwrap().resolve(ports).unwrap();
    let seen = Seen { port: WEB };
    assert_eq!(filter("icmp and host 10.0.0.9").first(&frame(&bytes), &seen), Tri::Yes);
    assert_eq!(filter("host 10.7.7.7 or tcp or port 80").first(&frame(&bytes), &seen), Tri::No);
}

#[test]
fn protocols_types_and_kinds_of_addresses() {
    let tcp = &Sample::ip("10.0.0.1", "10.0.0.2", 6);
    let icmp = &Sample::ip("10.0.0.1", "10.0.0.2", 1);
    let icmp6 = &Sample::ip("fd00::1", "ff02::1", 58).to(Mac([0x33, 0x33, 0, 0, 0, 1]));
    let gre = &Sample::ip("10.0.0.1", "224.0.0.5", 47).to(Mac([1, 0, 0x5e, 0, 0, 5]));
    let all = &Sample::ip("10.0.0.1", "255.255.255.255", 17).to(Mac::BROADCAST);
    let arp = &Sample::arp([10, 0, 0, 1], [10, 0, 0, 2]);
    let lldp = &Sample::new(Body::Other(0x88cc)).from(mac(7));
    let tagged = &tcp.clone().tagged(5);
    let twice = &arp.clone().tagged(5).tagged(7);
    check(&[
        ("ip", &[tcp, icmp, gre, tagged], &[icmp6, arp, lldp]),
        ("ip6", &[icmp6], &[tcp, arp]),
        ("arp", &[arp, twice], &[tcp, lldp]),
        ("ether proto arp", &[arp, twice], &[tcp]),
        (r"ether proto \arp", &[arp, twice], &[tcp]),
        ("ether proto 0x88cc", &[lldp], &[tcp]),
        ("ether proto 0x8100", &[tagged], &[tcp, twice]),
        ("icmp", &[icmp], &[icmp6, tcp]),
        ("icmp6", &[icmp6], &[icmp, tcp]),
        ("proto 58", &[icmp6], &[icmp]),
        ("ip proto 58", &[], &[icmp6, icmp]),
        ("ip proto gre", &[gre], &[tcp]),
        (r"proto (\tcp or 47)", &[gre, tcp], &[icmp, icmp6]),
        ("broadcast", &[all, arp], &[tcp, gre]),
        ("ether multicast", &[all, arp, gre, icmp6], &[tcp]),
        ("ip broadcast", &[all], &[arp, gre, tcp]),
        ("ip multicast", &[gre, all], &[tcp, icmp6]),
        ("ip6 multicast", &[icmp6], &[gre]),
        ("ether host 02:00:00:00:00:01", &[tcp, arp], &[lldp]),
        ("ether dst ff:ff:ff:ff:ff:ff", &[arp, all], &[tcp]),
        ("ether src host 02-00-00-00-00-07", &[lldp], &[tcp]),
        ("vlan", &[tagged, twice], &[tcp]),
        ("vlan 5", &[tagged], &[twice, tcp]),
        ("vlan 7 and arp", &[twice], &[tagged]),
        ("less 62", &[arp, icmp], &[tcp]),
        ("greater 74", &[tcp], &[arp]),
        ("greater 75", &[], &[tcp]),
        ("less 74 and greater 74", &[tcp], &[arp]),
    ]);
}

#[test]
fn a_filter_without_a_word_takes_every_frame() {
    for sample in [Sample::arp([10, 0, 0, 1], [10, 0, 0, 2]), Sample::new(Body::Other(0x88cc))] {
        assert!(takes("", &sample) && takes(" \n", &sample));
        assert!(Filter::default().resolve(ports).unwrap() == Compiled::default());
    }
}

#[test]
fn and_and_or_bind_alike_and_from_the_left_as_in_tcpdump() {
    let arp = &Sample::arp([10, 0, 0, 1], [10, 0, 0, 2]);
    let web = &Sample::ip("10.0.0.1", "10.0.0.2", 6);
    let ssh = &Sample::ip("10.0.0.1", "10.0.0.2", 6).ports(40_000, 22);
    let tls = &Sample::ip("10.0.0.1", "10.0.0.3", 6).ports(40_000, 443);
    check(&[
        ("arp or tcp and port 80", &[web], &[arp, ssh]),
        ("arp or (tcp and port 80)", &[web, arp], &[ssh]),
        ("port 80 and tcp or arp", &[web, arp], &[ssh]),
        ("not arp and tcp", &[web, ssh], &[arp]),
        ("!arp&&tcp||arp", &[arp, web], &[]),
        ("port 80 or 443", &[web, tls], &[ssh]),
        ("tcp dst port 80 or 443 and host 10.0.0.3", &[tls], &[web, ssh]),
        ("host 10.0.0.2 and port 80 or 443", &[web, tls], &[ssh]),
        ("host 10.0.0.1 and not 10.0.0.2", &[tls], &[web, ssh]),
        ("port (80 or 443)", &[web, tls], &[ssh]),
        ("host 10.0.0.1 and (10.0.0.2 or 10.0.0.3)", &[web, ssh, tls], &[]),
        ("port 80 and (host 10.0.0.1 or 10.0.0.9) or 443", &[web, tls], &[ssh, arp]),
        ("port not 80", &[ssh, tls, arp], &[web]),
        ("port not (80 or 22)", &[tls, arp], &[web, ssh]),
        ("not not tcp", &[web], &[arp]),
        ("not (not (tcp))", &[web], &[arp]),
    ]);
}

#[test]
fn a_broken_packet_has_a_type_but_nothing_that_lies_behind_it() {
    let filter = |text: &str| Filter::parse(text).unwrap().resolve(ports).unwrap();
    let seen = Seen { port: WEB };
    let mut broken = Sample::ip("10.0.0.1", "10.0.0.2", 6).bytes();
    broken[14] = 0x43;
    assert_eq!(filter("ip").first(&frame(&broken), &seen), Tri::Yes);
    assert_eq!(filter("host 10.0.0.1 or tcp or port 80").first(&frame(&broken), &seen), Tri::No);
    // Too short for ports, in the middle of an ARP packet, and an ARP packet of another kind of address.
    let mut cut = Sample::ip("10.0.0.1", "10.0.0.2", 6).bytes();
    cut.truncate(14 + 20 + 2);
    cut[16..18].copy_from_slice(&22u16.to_be_bytes());
    assert_eq!(filter("tcp and not port 80").first(&frame(&cut), &seen), Tri::Yes);
    let mut arp = Sample::arp([10, 0, 0, 1], [10, 0, 0, 2]).bytes();
    for len in 14..arp.len() {
        assert_eq!(filter("arp and not host 10.0.0.2").first(&frame(&arp[..len]), &seen), Tri::Yes, "{len}");
    }
    arp[19] = 16;
    assert_eq!(filter("arp and not host 10.0.0.2").first(&frame(&arp), &seen), Tri::Yes);
}

#[test]
fn what_only_the_switch_knows_is_asked_when_it_is_known() {
    use Tri::{Later, No, Yes};
    let dropped = |reason, flow| Outcome { verdict: Verdict::Drop(reason), flow, out: &[] };
    let to_db = Outcome { verdict: Verdict::Forward(DB_TOO), flow: Some(7), out: &[DB_TOO] };
    let to_self = Outcome { verdict: Verdict::Forward(WEB), flow: None, out: &[WEB] };
    let flooded = Outcome { verdict: Verdict::Flood { ports: 2 }, flow: None, out: &[OTHER, DB] };
    let ttl = dropped(DropReason::TtlExceeded, Some(8));
    let full = dropped(DropReason::TxFull, None);
    // Expression, first answer for a frame from `web`, and the last one for each of the outcomes above.
    let table: &[(&str, Tri, [bool; 5])] = &[
        ("drop", Later, [false, false, false, true, true]),
        ("not drop", Later, [true, true, true, false, false]),
        ("reason ttl-exceeded", Later, [false, false, false, true, false]),
        ("reason ttl-exceeded or tx-full", Later, [false, false, false, true, true]),
        ("flow 7", Later, [true, false, false, false, false]),
        ("flow (7 or 0x8)", Later, [true, false, false, true, false]),
        ("container web", Yes, [true; 5]),
        ("container web and drop", Later, [false, false, false, true, true]),
        ("container db", Later, [true, false, true, false, false]),
        ("src container db", No, [false; 5]),
        ("src container db or web", Yes, [true; 5]),
        ("dst container db", Later, [true, false, true, false, false]),
        ("dst container (web or db)", Later, [true, true, true, false, false]),
        ("src and dst container web", Later, [false, true, false, false, false]),
        ("src and dst container db", No, [false; 5]),
        (r"dst container \not", Later, [false, false, true, false, false]),
        ("container gateway", Later, [false; 5]),
        ("container stopped", Later, [false; 5]),
        ("arp and drop", No, [false; 5]),
        ("drop and arp", No, [false; 5]),
        ("tcp or drop", Yes, [true; 5]),
        ("drop or tcp", Yes, [true; 5]),
        ("not (drop and arp)", Yes, [true; 5]),
        ("tcp and port 80 and not reason tx-full", Later, [true, true, true, true, false]),
    ];
    let bytes = Sample::ip("10.0.0.1", "10.0.0.2", 6).bytes();
    let (frame, seen) = (frame(&bytes), Seen { port: WEB });
    for (expression, first, last) in table {
        let filter = Filter::parse(expression).unwrap_or_else(|error| panic!("{error}")).resolve(ports).unwrap();
        assert_eq!(filter.first(&frame, &seen), *first, "{expression}");
        for (outcome, expected) in [to_db, to_self, flooded, ttl, full].iter().zip(last) {
            assert_eq!(filter.last(&frame, &seen, outcome), *expected, "{expression} {outcome:?}");
        }
        assert_eq!(filter.needs_outcome(), !matches!(*expression, "src container db" | "src container db or web"));
    }
}

#[test]
fn the_canonical_form_spells_everything_out() {
    for (expression, canonical) in [
        ("tcp dst port 80 or 443", "tcp dst port 80 or tcp dst port 443"),
        ("src 10.0.0.1||dst 10.0.0.2", "src host 10.0.0.1 or dst host 10.0.0.2"),
        ("dst or src net 10.1", "net 10.1.0.0/16"),
        ("net 10.0.0.1/32", "host 10.0.0.1"),
        ("ip6 net FD00:0::0/16", "ip6 net fd00::/16"),
        ("dst and src port 0x50", "src and dst port 80"),
        ("portrange 9-9", "port 9"),
        ("portrange 9-7", "portrange 7-9"),
        ("ether proto 0x800", "ip"),
        ("ether proto 0x88CC", "ether proto 0x88cc"),
        (r"ip proto \icmp or 6", "icmp or ip proto 6"),
        ("broadcast", "ether broadcast"),
        ("((arp)) and (ip or (tcp))", "arp and (ip or tcp)"),
        ("(arp and ip) or tcp", "arp and ip or tcp"),
        ("!(!(arp))", "arp"),
        ("not (arp or ip)", "not (arp or ip)"),
        ("ether src 2-0-0-0-0-A", "ether src host 02:00:00:00:00:0a"),
        (r"container (tcp or \or)", r"container tcp or container \or"),
        ("drop and reason tx-full or flow 0xff", "drop and reason tx-full or flow 255"),
        (" ", ""),
    ] {
        let filter = Filter::parse(expression).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(filter.to_string(), canonical, "{expression}");
        assert_eq!(canonical.parse(), Ok(filter), "{expression}");
    }
}

#[test]
fn a_container_that_is_not_there_is_named() {
    let error = Filter::parse("container web or nobody").unwrap().resolve(ports).unwrap_err();
    assert_eq!(error.name, "nobody");
    assert!(error.to_string().contains("'nobody'"));
}

#[test]
fn as_many_operands_wait_as_parentheses_may_nest() {
    // Every left operand is open until the innermost one is known, and that one decides.
    for (innermost, wanted) in [("drop", true), ("not drop", false)] {
        let mut text = "not drop or (drop and (".repeat(MAX_NESTING / 2);
        text.push_str(innermost);
        text.push_str(&")".repeat(MAX_NESTING));
        let filter = Filter::parse(&text).unwrap_or_else(|error| panic!("{error}")).resolve(ports).unwrap();
        let bytes = Sample::arp([10, 0, 0, 1], [10, 0, 0, 2]).bytes();
        let (frame, seen) = (frame(&bytes), Seen { port: WEB });
        assert_eq!(filter.first(&frame, &seen), Tri::Later);
        let outcome = Outcome { verdict: Verdict::Drop(DropReason::TxFull), flow: None, out: &[] };
        assert_eq!(filter.last(&frame, &seen, &outcome), wanted);
        let passed = Outcome { verdict: Verdict::Relay, ..outcome };
        assert!(filter.last(&frame, &seen, &passed));
    }
}
