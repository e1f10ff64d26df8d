//! Questions as they come, and what the container's resolver gets.

use domain::base::iana::{Class, Opcode, Rtype};

use super::{GATEWAY, HOST, Opt, Query, Reply, ask, names};

const A: Rtype = Rtype::A;
const AAAA: Rtype = Rtype::AAAA;
const ZONE: &str = "tapswitch.internal.";

/// What the gateway of 10.88.0.0/24 answers.
fn reply(host: bool, name: &str, kind: Rtype) -> Reply {
    let reply = ask(&names(GATEWAY, host), &Query::new(name, kind).bytes());
    Reply::read(&reply.unwrap_or_else(|| panic!("{name} is not answered")))
}

#[test]
fn the_host_has_the_gateways_address_while_a_port_of_it_is_open() {
    assert_eq!(reply(true, HOST, A), Reply::record("host.tapswitch.internal. 60 IN A 10.88.0.1"));
    assert_eq!(reply(false, HOST, A), Reply::nothing("NXDOMAIN", ZONE));
}

#[test]
fn the_case_of_letters_does_not_matter_and_comes_back() {
    let query = Query::new("hOsT.TapSwitch.INTERNAL.", A).bytes();
    let reply = ask(&names(GATEWAY, true), &query).expect("is ours");
    assert_eq!(reply[12..query.len()], query[12..]);
    assert_eq!(Reply::read(&reply), Reply::record("hOsT.TapSwitch.INTERNAL. 60 IN A 10.88.0.1"));
}

#[test]
fn a_program_that_asks_for_both_families_waits_for_neither() {
    assert_eq!(reply(true, HOST, AAAA), Reply::nothing("NOERROR", ZONE));
    let names = names("fd00::1", true);
    let reply = |kind| Reply::read(&ask(&names, &Query::new(HOST, kind).bytes()).expect("is ours"));
    assert_eq!(reply(A), Reply::nothing("NOERROR", ZONE));
    assert_eq!(reply(AAAA), Reply::record("host.tapswitch.internal. 60 IN AAAA fd00::1"));
}

#[test]
fn types_that_nobody_knows_have_no_records_and_do_not_deny_the_name() {
    for number in [0, 2, 16, 41, 65, 252, 257, 999, 65_535] {
        assert_eq!(reply(true, HOST, Rtype::from_int(number)), Reply::nothing("NOERROR", ZONE), "type {number}");
    }
    assert_eq!(reply(true, HOST, Rtype::ANY), Reply::record("host.tapswitch.internal. 60 IN A 10.88.0.1"));
}

#[test]
fn the_gateway_always_has_a_name_both_ways() {
    let (name, reverse) = ("gateway.tapswitch.internal.", "1.0.88.10.in-addr.arpa.");
    for host in [false, true] {
        assert_eq!(reply(host, name, A), Reply::record("gateway.tapswitch.internal. 60 IN A 10.88.0.1"));
        let back = Reply::record("1.0.88.10.in-addr.arpa. 60 IN PTR gateway.tapswitch.internal.");
        assert_eq!(reply(host, reverse, Rtype::PTR), back);
        assert_eq!(reply(host, reverse, A), Reply::nothing("NOERROR", reverse));
    }
}

#[test]
fn what_else_is_below_our_zones_does_not_exist_and_the_zones_do() {
    for absent in ["other.tapswitch.internal.", "a.host.tapswitch.internal.", "a.gateway.tapswitch.internal."] {
        assert_eq!(reply(true, absent, A), Reply::nothing("NXDOMAIN", ZONE), "{absent}");
    }
    let reverse = "1.0.88.10.in-addr.arpa.";
    assert_eq!(reply(true, "5.1.0.88.10.in-addr.arpa.", A), Reply::nothing("NXDOMAIN", reverse));
    for zone in [ZONE, reverse] {
        let Reply { code, authority, .. } = Reply::nothing("NOERROR", zone);
        assert_eq!(reply(true, zone, Rtype::SOA), Reply { code, answers: authority, authority: vec![] });
        assert_eq!(reply(true, zone, A), Reply::nothing("NOERROR", zone));
    }
}

#[test]
fn other_names_are_for_the_resolver() {
    for name in [
        "internal.",
        "example.com.",
        "host.tapswitch.internal.example.com.",
        "xtapswitch.internal.",
        "host.docker.internal.",
        "2.0.88.10.in-addr.arpa.",
        "88.10.in-addr.arpa.",
        ".",
    ] {
        assert_eq!(ask(&names(GATEWAY, true), &Query::new(name, A).bytes()), None, "{name}");
    }
}

#[test]
fn the_header_says_what_was_asked_and_whether_other_names_are_looked_up() {
    // QR, opcode, AA, TC, RD | RA, Z, AD, CD, code.
    for (asked, recursion, answered) in [
        (0x0000, true, 0x8480),
        (0x0100, true, 0x8580),
        (0x0110, true, 0x8590),
        (0x0100, false, 0x8500),
        // Bits that mean nothing in a query: AA, RA, Z, AD and a code.
        (0x0420 | 0x0080 | 0x0040 | 0x0003, true, 0x8480_u16),
    ] {
        let mut query = Query::new(HOST, A).bytes();
        query[2..4].copy_from_slice(&u16::to_be_bytes(asked));
        let names = tapswitch_names::Names::new(GATEWAY.parse().unwrap(), true, recursion);
        let reply = ask(&names, &query).expect("is ours");
        assert_eq!(reply[..4], [&[0x12, 0x34], &answered.to_be_bytes()[..]].concat(), "{asked:04x}");
    }
}

#[test]
fn edns_is_answered_with_edns() {
    let cookie = (10, vec![7; 8]);
    for (dnssec_ok, host, code) in [(false, true, "NOERROR"), (true, true, "NOERROR"), (true, false, "NXDOMAIN")] {
        let opt = Opt { size: 4096, version: 0, dnssec_ok, options: vec![cookie.clone()] };
        let query = Query { opt: Some(opt), ..Query::new(HOST, A) };
        let reply = ask(&names(GATEWAY, host), &query.bytes()).expect("is ours");
        let opt = [0, 0, 41, 0x04, 0xd0, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0];
        assert_eq!(reply[reply.len() - opt.len()..], opt, "root, OPT, 1232, version 0, the same DO bit, no options");
        assert_eq!(Reply::read(&reply).code, code);
    }
}

#[test]
fn a_later_version_of_edns_is_refused_as_such() {
    let opt = Opt { size: 512, version: 1, dnssec_ok: true, options: vec![] };
    let query = Query { opt: Some(opt), ..Query::new(HOST, A) }.bytes();
    let reply = ask(&names(GATEWAY, true), &query).expect("is ours");
    // The upper bits of the code stand in the OPT record: 1 << 4 is BADVERS.
    let bad_version = [0, 0, 41, 0x04, 0xd0, 1, 0, 0x80, 0, 0, 0];
    let question = &query[12..query.len() - bad_version.len()];
    assert_eq!(reply, [&[0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 1], question, &bad_version].concat());
}

#[test]
fn what_is_no_plain_question_goes_on_as_it_is() {
    let names = names(GATEWAY, true);
    let plain = Query::new(HOST, A);
    assert!(ask(&names, &plain.bytes()).is_some());
    let header = |change: fn(&mut domain::base::Header)| {
        let mut query = plain.clone();
        change(&mut query.header);
        query.bytes()
    };
    let mut longer = plain.bytes();
    longer.push(0);
    for (what, message) in [
        ("a response", header(|header| header.set_qr(true))),
        ("a truncated query", header(|header| header.set_tc(true))),
        ("another operation", header(|header| header.set_opcode(Opcode::NOTIFY))),
        ("another class", Query { class: Class::CH, ..plain.clone() }.bytes()),
        ("no question", plain.times(0)),
        ("two questions", plain.times(2)),
        ("something behind the end", longer),
    ] {
        assert_eq!(ask(&names, &message), None, "{what}");
    }
}

#[test]
fn counts_that_promise_more_than_there_is_go_on_as_they_are() {
    let opt = Opt { size: 512, version: 0, dnssec_ok: false, options: vec![] };
    for opt in [None, Some(opt)] {
        let query = Query { opt, ..Query::new(HOST, A) }.bytes();
        assert!(ask(&names(GATEWAY, true), &query).is_some());
        for place in [4, 6, 8, 10] {
            for count in [2, 0xffff_u16] {
                let mut lying = query.clone();
                lying[place..place + 2].copy_from_slice(&count.to_be_bytes());
                assert_eq!(ask(&names(GATEWAY, true), &lying), None, "{count} at {place}");
            }
        }
    }
}

#[test]
fn a_broken_opt_record_goes_on_as_it_is() {
    let opt = Opt { size: 512, version: 0, dnssec_ok: false, options: vec![(10, vec![1, 2, 3, 4])] };
    let query = Query { opt: Some(opt), ..Query::new(HOST, A) }.bytes();
    let record = query.len() - 11 - 8;
    assert!(ask(&names(GATEWAY, true), &query).is_some());
    for (what, place, byte) in [
        ("a record of another type", record + 2, 42),
        ("a record that is too long", record + 10, 9),
        ("a record that is too short", record + 10, 7),
        ("an option that is too long", record + 14, 5),
        ("an option with half another behind it", record + 14, 2),
    ] {
        let mut broken = query.clone();
        broken[place] = byte;
        assert_eq!(ask(&names(GATEWAY, true), &broken), None, "{what}");
    }
    let named = [&query[..record], &[1, b'x'], &query[record..]].concat();
    assert_eq!(ask(&names(GATEWAY, true), &named), None, "a record of another name");
}

#[test]
fn a_question_made_of_pointers_goes_on_as_it_is() {
    // The ID and the flags are a root label each, to which the name leads at its end.
    let name = b"\x04host\x09tapswitch\x08internal";
    let head = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let through_the_header = [&head[..], name, &[0xc0, 0], &[0, 1, 0, 1]].concat();
    let plain = [&head[..], name, &[0], &[0, 1, 0, 1]].concat();
    let names = names(GATEWAY, true);
    assert_eq!(ask(&names, &through_the_header), None);
    assert!(ask(&names, &plain).is_some());
}
