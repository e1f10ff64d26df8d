//! The class of the NAT, as a program finds it that knows nothing of us: coturn's `turnutils_natdiscovery`, which asks
//! a server with two addresses and two ports (RFC 5780).

use std::time::Duration;

use tapswitch_tests::{Container, Enter, INET, INET_OTHER, Kernel, Running, Street, Switch, eventually, needs};

use super::{SOON, udp};

const SERVER: &str = "turnserver -n -S --no-cli --no-tls --no-dtls --no-auth -m 1 --log-file stdout";
const PORT: u16 = 3478;

/// A STUN server at both addresses of `inet`, on ports 3478 and 3479 of each.
fn stun(street: &Street) -> Running {
    let pid = street.dir().join("turn.pid");
    let server = street.server(&format!("{SERVER} -L {INET} -L {INET_OTHER} --pidfile {}", pid.display()));
    let probe = udp(street.inet());
    probe.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    // A binding request of RFC 5389, without attributes.
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    eventually("the STUN server answers", 2 * SOON, || {
        probe.send_to(&request, (INET_OTHER, PORT + 1)).ok()?;
        probe.recv(&mut [0; 1000]).ok()
    });
    server
}

/// What is found from a container: the lines that state a class, and whether a hairpin came back.
fn found(container: &Container) -> Vec<String> {
    let line = format!("turnutils_natdiscovery -m -f -H -p {PORT} {INET}");
    let said = container.cmd(&line).limit(Duration::from_secs(60)).run().stdout;
    let mut found: Vec<String> = said
        .lines()
        .filter(|line| line.starts_with("NAT with") || line.starts_with("No NAT"))
        .map(str::to_owned)
        .collect();
    found.extend(said.contains("successful hairpinning").then(|| "hairpin".to_owned()));
    assert!(!found.is_empty(), "{said}");
    found
}

/// What has to be found, in the words of the program.
fn class(mapping: &str, filtering: &str) -> [String; 3] {
    [format!("NAT with {mapping} Mapping!"), format!("NAT with {filtering} Filtering!"), "hairpin".into()]
}

const CLASSES: [(&str, &str); 3] = [
    ("endpoint-independent", "Endpoint Independent"),
    ("address-dependent", "Address Dependent"),
    ("address-and-port-dependent", "Address and Port Dependent"),
];

/// A network of this mapping and filtering.
fn switch<'w>(street: &'w Street, mapping: &str, filtering: &str) -> Switch<'w> {
    street.switch_with(&format!("[network.nat]\nmapping = \"{mapping}\"\nfiltering = \"{filtering}\"\n"))
}

#[test]
fn the_kernels_masquerade_is_found_to_be_what_it_is() {
    needs!("turnserver", "turnutils_natdiscovery");
    let street = Street::new();
    let _stun = stun(&street);
    let kernel = Kernel::up(&street);
    let a = kernel.join("a");
    assert_eq!(found(&a), class("Endpoint Independent", "Address and Port Dependent")[..2]);
}

#[test]
fn x3_nu_1_nu_5_the_default_is_independent_mapping_and_documented_filtering() {
    needs!("turnserver", "turnutils_natdiscovery");
    let street = Street::new();
    let _stun = stun(&street);
    let switch = street.switch("");
    let a = switch.join("a", "");
    // The one that the documentation names.
    assert_eq!(found(&a), class("Endpoint Independent", DEFAULT_FILTERING));
}

/// The filtering of a network that asks for none, as docs/decisions.md states it.
const DEFAULT_FILTERING: &str = "Address Dependent";

#[test]
fn x3_nu_5_each_filtering_is_found_as_it_was_chosen() {
    needs!("turnserver", "turnutils_natdiscovery");
    for (chosen, filtering) in CLASSES {
        let street = Street::new();
        let _stun = stun(&street);
        let switch = switch(&street, "endpoint-independent", chosen);
        let a = switch.join("a", "");
        assert_eq!(found(&a), class("Endpoint Independent", filtering), "{chosen}");
    }
}

#[test]
fn nu_1_each_mapping_is_found_as_it_was_chosen() {
    needs!("turnserver", "turnutils_natdiscovery");
    for (chosen, mapping) in CLASSES {
        let street = Street::new();
        let _stun = stun(&street);
        let switch = switch(&street, chosen, "address-and-port-dependent");
        let a = switch.join("a", "");
        let found = found(&a);
        assert_eq!(found[..2], class(mapping, "Address and Port Dependent")[..2], "{chosen}");
    }
}

#[test]
fn x2_x3_nu_6_the_class_is_the_same_under_load() {
    needs!("turnserver", "turnutils_natdiscovery", "iperf3");
    let street = Street::new();
    let _stun = stun(&street);
    let mut server = street.server(&format!("iperf3 --server --bind {INET} --forceflush"));
    server.until_says("listening", SOON);
    let switch = street.switch("");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    let mut load = b.cmd(&format!("iperf3 --client {INET} --time 60 --parallel 4 --forceflush"));
    load = load.limit(Duration::from_secs(90));
    let mut load = load.spawn(&street.dir().join("load.log"));
    load.until_says("SUM", 2 * SOON);
    // Many mappings beside the stream, too.
    let sockets: Vec<_> = (0..500).map(|_| udp(&b)).collect();
    for socket in &sockets {
        socket.send_to(b"x", (INET, 9)).expect("sends");
    }
    for _ in 0..3 {
        assert_eq!(found(&a), class("Endpoint Independent", DEFAULT_FILTERING));
    }
    assert!(load.is_alive(), "there was a load all the time: {}", load.output());
}

#[test]
fn x6_nu_2_ports_are_preserved_where_that_is_asked_for_and_hard_to_guess_otherwise() {
    for (chosen, kept) in [("preserve", true), ("random", false)] {
        let street = Street::new();
        let switch = street.switch_with(&format!("[network.nat]\nports = \"{chosen}\"\n"));
        let a = switch.join("a", "");
        let server = super::udp_at(street.inet(), INET, 7000);
        let mut outer = Vec::new();
        for port in 40_000..40_020 {
            let socket = super::udp_at(&a, "0.0.0.0", port);
            socket.send_to(b"x", (INET, 7000)).expect("sends");
            outer.push((port, server.recv_from(&mut [0; 10]).expect("it arrives").1.port()));
        }
        let same = outer.iter().filter(|(inner, outer)| inner == outer).count();
        assert_eq!(same == outer.len(), kept, "{chosen}: {outer:?}");
        let next = outer.windows(2).filter(|pair| pair[1].1.abs_diff(pair[0].1) <= 2).count();
        assert!(kept || next < 3, "{chosen}: {outer:?}");
    }
}

#[test]
fn at_15_nt_9_two_containers_never_share_an_outer_endpoint() {
    let street = Street::new();
    let switch = street.switch_with("[network.nat]\nports = \"preserve\"\n");
    let all = [switch.join("a", ""), switch.join("b", "")];
    let server = super::udp_at(street.inet(), INET, 7000);
    let mut outer = Vec::new();
    // The same inner port, to the same server: the second one has to take another outer port.
    for container in &all {
        let socket = super::udp_at(container, "0.0.0.0", 40_000);
        socket.send_to(container.name().as_bytes(), (INET, 7000)).expect("sends");
        let mut name = [0; 10];
        let (len, from) = server.recv_from(&mut name).expect("it arrives");
        server.send_to(&name[..len], from).expect("answers");
        assert_eq!(socket.recv(&mut [0; 10]).expect("each gets its own answer"), len);
        outer.push(from);
    }
    assert_ne!(outer[0], outer[1]);
}
