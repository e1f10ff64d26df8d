//! Networks of one daemon that are connected, and static routes.

use tapswitch_tests::{Enter, INET, NEXT_HOP, Street, UPLINK};

use super::pings;

/// Two networks of which only the first has a way out, with these further keys of it.
fn two(keys: &str) -> String {
    format!(
        "[[network]]\nname = \"one\"\nsubnet = \"10.88.0.0/24\"\nuplink = \"nat:eth1\"\nuplink_ip = \"{UPLINK}/24\"\n\
         uplink_gateway = \"{NEXT_HOP}\"\n{keys}\n\
         [[network]]\nname = \"two\"\nsubnet = \"10.89.0.0/24\"\nuplink = \"none\"\n"
    )
}

#[test]
fn connected_networks_are_routed_between_and_others_are_not() {
    for (keys, connected) in [("connect = [\"two\"]", true), ("", false)] {
        let street = Street::new();
        let switch = street.switch_from(&two(keys));
        let (a, b) = (switch.join("a", "--network one"), switch.join("b", "--network two"));
        if connected {
            pings(&a, b.ip());
            pings(&b, a.ip());
            let path = a.cmd(&format!("tracepath -n -m 4 {}", b.ip())).ok();
            assert!(path.contains("Resume: pmtu 1500 hops 2"), "one hop between them: {path}");
            super::bulk::carry(&a, &b, b.ip(), true, 20 << 20);
            super::bulk::carry(&a, &b, b.ip(), false, 20 << 20);
        } else {
            a.cmd(&format!("ping -n -c 1 -W 1 {}", b.ip())).fails();
            b.cmd(&format!("ping -n -c 1 -W 1 {}", a.ip())).fails();
        }
        pings(&a, INET);
        b.cmd(&format!("ping -n -c 1 -W 1 {INET}")).fails();
    }
}

#[test]
fn a_static_route_leads_to_a_network_behind_a_container() {
    let street = Street::new();
    let switch = street.switch_with("routes = [\"10.9.0.0/16 via 10.88.0.5\"]");
    let (a, router) = (switch.join("a", ""), switch.join("router", "--ip 10.88.0.5"));
    router.cmd("ip addr add 10.9.7.1/32 dev lo").ok();
    pings(&a, "10.9.7.1");
    a.cmd("ping -n -c 1 -W 1 10.10.7.1").fails();
    pings(&a, INET);
}

#[test]
fn a_static_route_leads_to_another_router_of_the_lan() {
    let street = Street::new();
    let switch = street.switch_with("routes = [\"10.9.0.0/16 via 192.0.2.4\"]");
    let other = street.netns();
    let script = format!(
        "ip link add hub type bridge
         ip addr del {NEXT_HOP}/24 dev street
         ip link set street master hub
         ip addr add {NEXT_HOP}/24 dev hub
         ip link set hub up
         ip link add spoke type veth peer name eth0 netns {}
         ip link set spoke master hub up",
        other.name()
    );
    street.rt().cmd("sh -e").input(script).ok();
    other
        .cmd("sh -e")
        .input("ip addr add 192.0.2.4/24 dev eth0\nip addr add 10.9.8.1/32 dev lo\nip link set eth0 up")
        .ok();
    let a = switch.join("a", "");
    pings(&a, "10.9.8.1");
}
