//! What no container reaches by a packet uplink unless it is allowed.

use tapswitch_tests::{Enter, INET, NEXT_HOP, Street, UPLINK, echo_udp};

use super::{at, echoes, pings, udp};

/// Where clouds keep their metadata service.
const METADATA: &str = "169.254.169.254";

#[test]
fn at_16_the_metadata_address_is_out_of_reach_unless_it_is_allowed() {
    let street = Street::new();
    street.inet().cmd(&format!("ip addr add {METADATA}/32 dev lo")).ok();
    for (options, reached) in [("", false), ("--allow 169.254.169.254/32", true)] {
        let switch = street.switch(options);
        let a = switch.join("a", "");
        street.rt().cmd(&format!("ip route replace {METADATA} via {INET}")).ok();
        pings(&a, INET);
        if reached {
            let _echo = echo_udp(street.inet(), at(METADATA, 7000));
            echoes(&udp(&a), at(METADATA, 7000), b"allowed");
            continue;
        }
        let said = a.cmd(&format!("ping -n -c 1 -W 3 {METADATA}")).fails();
        assert!(said.stdout.contains("Packet filtered"), "the sender is told: {said:?}");
        assert_eq!(switch.drops("policy-denied"), 1);
    }
}

#[test]
fn at_16_another_network_of_the_same_daemon_is_not_reached_by_way_of_the_uplink() {
    let street = Street::new();
    let switch = street.switch_from(&format!(
        "[[network]]\nname = 'a'\nsubnet = '10.9.1.0/24'\nuplink = 'nat:eth1'\nuplink_ip = '{UPLINK}/24'\n\
         uplink_gateway = '{NEXT_HOP}'\n[[network]]\nname = 'b'\nsubnet = '10.9.2.0/24'\nuplink = 'none'\n",
    ));
    let (a, b) = (switch.join("a", "--network a"), switch.join("b", "--network b"));
    let said = a.cmd(&format!("ping -n -c 1 -W 3 {}", b.ip())).fails();
    assert!(said.stdout.contains("Packet filtered"), "the sender is told: {said:?}");
}
