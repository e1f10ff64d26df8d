//! What is said about an expression that is wrong.

use tapswitch_filter::{Filter, MAX_LEN, MAX_NESTING, MAX_TESTS};

#[test]
fn the_caret_stands_beneath_what_is_wrong_and_the_line_says_what_could_stand_there() {
    // Expression, what the carets are to stand beneath, and what is said there.
    let operand =
        "expected a primitive such as 'host', 'net', 'port', 'tcp', 'arp', 'container' or 'drop', 'not' or '('";
    let primitive = |rest: &str| format!("{operand}{rest}");
    let table: &[(&str, &str, &str)] = &[
        ("prot 80", "prot", &primitive("; did you mean 'port'?")),
        ("HOST 10.0.0.1", "HOST", &primitive("; did you mean 'host'?")),
        ("10.0.0.1", "10.0.0.1", &primitive("; did you mean 'host 10.0.0.1'?")),
        ("fd00::/8", "fd00::/8", &primitive("; did you mean 'net fd00::/8'?")),
        ("tcp and 80", "80", &primitive("; did you mean 'port 80'?")),
        ("port 80 and tcp or 443", "443", &primitive("; did you mean 'port 443'?")),
        ("vlan 5 or 6", "6", &primitive("; did you mean 'port 6'?")),
        ("(host 10.0.0.1) and 10.0.0.2", "10.0.0.2", &primitive("; did you mean 'host 10.0.0.2'?")),
        ("02:00:00:00:00:01", "02:00:00:00:00:01", &primitive("; did you mean 'ether host 02:00:00:00:00:01'?")),
        ("ttl-exceeded", "ttl-exceeded", &primitive("; did you mean 'reason ttl-exceeded'?")),
        ("tcp[13] & 2 != 0", "&", "expected '&&'"),
        ("tcp[13]", "tcp[13]", &primitive("")),
        ("arp | ip", "|", "expected '||'"),
        ("arp adn ip", "adn", "expected 'and', 'or' or the end; did you mean 'and'?"),
        ("tcp port 80 host 10.0.0.1", "host", "expected 'and', 'or' or the end; did you mean 'and host'?"),
        ("arp not ip", "not", "expected 'and', 'or' or the end; did you mean 'and not'?"),
        ("(arp ip)", "ip", "expected 'and', 'or' or ')'; did you mean 'and ip'?"),
        ("arp)", ")", "expected 'and', 'or' or the end"),
        ("port 80 81", "81", "expected 'and', 'or' or the end"),
        ("host web", "web", "expected an IPv4 or IPv6 address; did you mean 'container web'?"),
        ("host 10.0.0.0/8", "10.0.0.0/8", "expected an IPv4 or IPv6 address; did you mean 'net 10.0.0.0/8'?"),
        ("host 10.1", "10.1", "expected an IPv4 or IPv6 address"),
        ("host port 80", "port", "expected an IPv4 or IPv6 address"),
        ("ip host ::1", "::1", "expected an IPv4 address"),
        ("ip6 src 10.0.0.1", "10.0.0.1", "expected an IPv6 address"),
        (
            "net 10.0.0.1/8",
            "10.0.0.1/8",
            "expected an IPv4 or IPv6 network as ADDRESS/LENGTH; did you mean '10.0.0.0/8'?",
        ),
        ("net 10.0.0.0/33", "10.0.0.0/33", "expected an IPv4 or IPv6 network as ADDRESS/LENGTH"),
        ("net 1.2.3.4.5", "1.2.3.4.5", "expected an IPv4 or IPv6 network as ADDRESS/LENGTH"),
        ("port 65536", "65536", "expected a port number from 0 to 65535"),
        ("port 080", "080", "expected a port number from 0 to 65535"),
        ("port 80-90", "80-90", "expected a port number from 0 to 65535; did you mean 'portrange 80-90'?"),
        ("port 80 or hots 10.0.0.1", "hots", "expected a port number from 0 to 65535; did you mean 'host'?"),
        ("portrange 1-x", "1-x", "expected a range of port numbers as FIRST-LAST"),
        ("tcp src 80", "80", "expected 'port' or 'portrange'"),
        ("src (port 80)", "port", "expected an IPv4 or IPv6 address"),
        (
            "ether 02:00:00:00:00:01",
            "02:00:00:00:00:01",
            "expected 'src', 'dst', 'host', 'proto', 'broadcast' or 'multicast'",
        ),
        ("ether host 10.0.0.1", "10.0.0.1", "expected a MAC address as 02:42:0a:00:00:02"),
        ("ether proto 0x5ff", "0x5ff", "expected an EtherType from 0x600 to 0xffff, 'ip', 'ip6' or 'arp'"),
        ("ether proto 5", "5", "expected an EtherType from 0x600 to 0xffff, 'ip', 'ip6' or 'arp'"),
        ("ip proto tpc", "tpc", "expected an IP protocol by name or its number from 0 to 255; did you mean 'tcp'?"),
        ("vlan 4096", "4096", "expected a VLAN identifier from 0 to 4095"),
        ("less x", "x", "expected a number of bytes"),
        ("reason ttl-exeeded", "ttl-exeeded", "expected the name of a drop reason; did you mean 'ttl-exceeded'?"),
        ("reason xyz", "xyz", "expected the name of a drop reason"),
        ("flow web", "web", "expected the number of a flow"),
        ("container -x", "-x", "expected a container's name"),
        (r"host \", r"\", "expected a word right behind the backslash"),
    ];
    for (expression, wrong, said) in table {
        let error = Filter::parse(expression).expect_err(expression);
        let shown = error.to_string();
        let (line, below) = shown.split_once('\n').unwrap();
        assert_eq!(line, *expression);
        let column = below.find('^').unwrap();
        let carets = below[column..].chars().take_while(|&c| c == '^').count();
        assert_eq!(&line[column..column + carets], *wrong, "{shown}");
        assert_eq!(error.offset, column, "{shown}");
        assert_eq!(&below[column + carets..], format!(" found '{wrong}', {said}"), "{shown}");
    }
}

#[test]
fn an_expression_that_ends_too_early_says_so_behind_its_last_word() {
    for (expression, expected) in [
        ("host", "an IPv4 or IPv6 address"),
        ("src", "an IPv4 or IPv6 address"),
        ("port (80 or", "a port number from 0 to 65535"),
        ("container", "a container's name"),
        ("tcp and", "a primitive such as"),
        ("not", "a primitive such as"),
        ("(arp", "'and', 'or' or ')'"),
        ("ether", "'src'"),
        ("tcp dst", "'port'"),
        ("greater", "a number of bytes"),
    ] {
        let error = Filter::parse(expression).expect_err(expression);
        assert_eq!(error.offset, expression.len());
        assert_eq!(error.found, "the end");
        let carets = format!("{}^ found the end, expected {expected}", " ".repeat(expression.len()));
        assert!(error.to_string().contains(&carets), "{error}");
    }
}

#[test]
fn an_expression_that_is_too_large_is_refused_with_the_limit() {
    let nested = |depth: usize| format!("{}arp{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(MAX_NESTING)).is_ok());
    let error = Filter::parse(&nested(MAX_NESTING + 1)).unwrap_err();
    assert_eq!(error.offset, MAX_NESTING);
    assert!(error.to_string().contains("one parenthesis too many, expected at most 64"), "{error}");
    assert!(Filter::parse(&"(".repeat(MAX_LEN)).is_err());
    assert!(Filter::parse(&vec!["(arp)"; MAX_NESTING + 1].join("or")).is_ok(), "beside one another is not within");

    let chain = |tests: usize| vec!["ip"; tests].join("||");
    assert!(Filter::parse(&chain(MAX_TESTS)).is_ok());
    let error = Filter::parse(&chain(MAX_TESTS + 1)).unwrap_err();
    assert_eq!(error.offset, MAX_TESTS * 4);
    assert!(error.to_string().contains("one primitive too many, expected at most 512"), "{error}");

    assert!(Filter::parse(&" ".repeat(MAX_LEN)).is_ok());
    let error = Filter::parse(&"é".repeat(MAX_LEN)).unwrap_err();
    assert!(error.to_string().contains("an expression of 131072 bytes, expected at most 65536"), "{error}");
    // Negations are counted, not nested.
    assert_eq!(Filter::parse(&format!("{} arp", "!".repeat(60_001))), Filter::parse("not arp"));
}

#[test]
fn a_name_is_what_the_switch_takes_for_one() {
    for name in ["web", "0", "web-1.lan_x", &"x".repeat(63)] {
        assert!(Filter::parse(&format!("container {name}")).is_ok(), "{name}");
    }
    for name in [&"x".repeat(64), "-web", ".", "wéb", "a/b", "a:b", "\"web\""] {
        assert!(Filter::parse(&format!("container {name}")).is_err(), "{name}");
    }
}

#[test]
fn the_longest_canonical_form_is_not_too_long() {
    let name = "x".repeat(63);
    let address = "src and dst net 1111:2222:3333:4444:5555:6666:7777:8888/127".replace("8888", "8880");
    for longest in [format!("not src and dst container {name}"), format!("not ip6 {address}")] {
        let mut text = vec![longest.as_str(); MAX_TESTS - 2 * MAX_NESTING].join(" and ");
        for _ in 0..MAX_NESTING {
            text.push_str(&format!(" and not ({longest} or {longest}"));
        }
        text.push_str(&")".repeat(MAX_NESTING));
        let filter = Filter::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Filter::parse(&filter.to_string()), Ok(filter));
    }
}
