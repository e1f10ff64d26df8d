//! `tun:`: packets go into the host's own stack, which routes them on as its administrator decides.

use tapswitch_tests::{Enter, INET, NEXT_HOP, Person, Street, Switch, echo_udp, needs, serve_tcp};

use super::{at, bulk, connect, echoes, pings, route, udp};
use crate::outside;

/// Makes a device that the person who runs the switch may open, and lets the host route between it and its LAN.
fn device(street: &Street, mode: &str, masquerade: bool) {
    let owner = street.person_id();
    let masquerade = if masquerade { "masquerade" } else { "accept" };
    let script = format!(
        "ip tuntap add dev ts0 mode {mode} user {owner}
         ip addr add 10.99.0.1/24 dev ts0
         ip link set ts0 up
         ip route add default via {NEXT_HOP}
         echo 1 > /proc/sys/net/ipv4/ip_forward
         nft -f - <<'RULES'
         table ip nat {{
             chain post {{
                 type nat hook postrouting priority srcnat
                 ip saddr != 192.0.2.0/24 oifname eth1 {masquerade}
             }}
         }}\nRULES\n"
    );
    street.gw().cmd("sh -e").input(script).ok();
}

const UPLINK: &str = "--uplink tun:ts0 --uplink-ip 10.99.0.2/24 --uplink-gateway 10.99.0.1";

fn everything(mode: &str, person: Person) {
    let street = Street::of(person);
    device(&street, mode, true);
    let _echo = echo_udp(street.inet(), at(INET, 7000));
    let switch = Switch::up(&street, UPLINK);
    let (a, plain) = (switch.join("a", ""), switch.join("plain", "--no-offload"));
    for container in [&a, &plain] {
        [NEXT_HOP, INET, "10.99.0.1"].iter().for_each(|to| pings(container, to));
        [0, 1, 1472, 9000, 65_507].into_iter().for_each(|len| echoes(&udp(container), at(INET, 7000), &vec![7; len]));
        for up in [true, false] {
            bulk::carry(container, street.inet(), INET, up, 20 << 20);
        }
    }
    pings(street.gw(), "10.99.0.2");
}

#[test]
fn a_tap_device_leads_out() {
    everything("tap", Person::Root);
}

#[test]
fn a_tun_device_leads_out() {
    everything("tun", Person::Root);
}

#[test]
fn an_ordinary_user_leads_out_by_a_tap_device_made_for_him() {
    everything("tap", Person::User);
}

#[test]
fn an_ordinary_user_leads_out_by_a_tun_device_made_for_him() {
    everything("tun", Person::User);
}

#[test]
fn the_web_is_reached_by_a_tun_device() {
    needs!("curl", "nginx");
    let street = Street::new();
    device(&street, "tun", true);
    let _web = outside::web(&street);
    let switch = Switch::up(&street, UPLINK);
    let a = switch.join("a", "");
    let copy = street.dir().join("copy");
    a.cmd(&format!("curl -sSf -o {} http://{INET}/file", copy.display())).ok();
    outside::same(&copy, &street.dir().join("web/html/file"));
}

#[test]
fn nt_1_ports_are_published_on_a_tun_device() {
    let street = Street::new();
    device(&street, "tun", true);
    let switch = Switch::up(&street, UPLINK);
    let web = switch.join("web", "-p 8080:80");
    let _server = serve_tcp(&web, at(web.ip(), 80), |mut stream| std::io::Write::write_all(&mut stream, b"web"));
    let mut stream = street.gw().inside(|| std::net::TcpStream::connect(at("10.99.0.2", 8080))).expect("connects");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut stream, &mut said).expect("an answer");
    assert_eq!(said, "web");
}

#[test]
fn without_translation_the_outside_sees_the_containers_own_address() {
    for mode in ["tap", "tun"] {
        let street = Street::new();
        device(&street, mode, false);
        route(street.gw(), tapswitch_tests::SUBNET, "10.99.0.2");
        route(street.rt(), tapswitch_tests::SUBNET, "192.0.2.3");
        let switch = street.switch_from(&format!(
            "[[network]]\nsubnet = \"{}\"\nuplink = \"tun:ts0\"\nuplink_ip = \"10.99.0.2/24\"\n\
             uplink_gateway = \"10.99.0.1\"\ntranslate = false\n",
            tapswitch_tests::SUBNET
        ));
        let a = switch.join("a", "");
        let _server = serve_tcp(street.inet(), at(INET, 9000), |mut stream| {
            let peer = stream.peer_addr()?.ip().to_string();
            std::io::Write::write_all(&mut stream, peer.as_bytes())
        });
        let mut seen = String::new();
        std::io::Read::read_to_string(&mut connect(&a, INET, 9000), &mut seen).expect("an answer");
        assert_eq!(seen, a.ip(), "{mode}");
        assert!(switch.rows("show flows --port 9000").iter().all(|flow| flow["reason"] == "routed"));
    }
}
