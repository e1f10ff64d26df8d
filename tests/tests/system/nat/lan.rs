//! `lan:`: the containers are on the LAN of the host's interface, with their own hardware addresses.

use std::time::Duration;

use tapswitch_tests::{
    Container, Enter, INET, NEXT_HOP, Nat, Recorder, Running, Street, Wire, eventually, needs, packet,
};

use super::{SOON, bulk, mac, pings};

/// Asks the LAN's DHCP server for an address, and uses it.
fn lease(street: &Street, container: &Container) -> String {
    let script = street.dir().join("udhcpc.sh");
    let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr flush dev $interface\n\
                ip addr add $ip/$mask dev $interface\nip route replace default via $router\n";
    std::fs::write(&script, text).expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("a mode");
    container.cmd(&format!("udhcpc -f -q -n -i eth0 -t 10 -T 1 -s {}", script.display())).ok();
    container.kernel_ip().expect("the script set an address")
}

#[test]
fn containers_get_addresses_from_the_lans_own_dhcp_server() {
    needs!("busybox", "udhcpc");
    let street = Street::new();
    let _server = street.dhcp_server();
    let switch = Nat::lan(&street);
    let all = [switch.join("a", "--dhcp"), switch.join("b", "--dhcp")];
    let ips = all.each_ref().map(|container| lease(&street, container));
    for (container, ip) in all.iter().zip(&ips) {
        assert!(ip.starts_with("192.0.2.1"), "{ip} is of the router's pool");
        [NEXT_HOP, INET].iter().for_each(|to| pings(container, to));
        pings(street.rt(), ip);
        let neighbour = street.rt().cmd(&format!("ip neigh show {ip}")).ok();
        assert!(neighbour.contains(&mac(container, "eth0")), "its own hardware address is seen: {neighbour}");
    }
    pings(&all[0], &ips[1]);
    bulk::carry(&all[0], street.inet(), INET, true, 10 << 20);
    bulk::carry(&all[0], street.inet(), INET, false, 10 << 20);
}

/// A container at this address of the LAN.
fn resident(switch: &Nat<'_>, name: &str, ip: &str) -> Container {
    let container = switch.join(name, "--dhcp");
    let line = format!("ip addr replace {ip}/24 dev eth0\nip route replace default via {NEXT_HOP}");
    container.cmd("sh -e").input(line).ok();
    container
}

#[test]
fn br_1_what_a_container_sends_to_the_lan_is_not_reflected() {
    let street = Street::new();
    let switch = Nat::lan(&street);
    let (a, b) = (resident(&switch, "a", "192.0.2.21"), resident(&switch, "b", "192.0.2.22"));
    pings(&a, NEXT_HOP);
    let (mut own, mut other) = (Wire::open(&a, "eth0"), Wire::open(&b, "eth0"));
    let mut router = Wire::open(street.rt(), "street");
    // A broadcast that nobody answers, of a type that no kernel speaks.
    let frame = [&[0xff; 6][..], &own.mac(), &[0x88, 0xb5], &[7; 50]].concat();
    let is_ours = |seen: &[u8]| (seen == frame).then_some(());
    own.send(&frame);
    assert!(router.find(SOON, is_ours).is_some(), "the LAN sees it");
    assert!(other.find(SOON, is_ours).is_some(), "so does the other container");
    // What comes back later than this ping did not come back.
    pings(&a, NEXT_HOP);
    for wire in [&mut own, &mut other, &mut router] {
        assert_eq!(wire.find(Duration::from_millis(100), is_ours), None, "once is enough");
    }
}

/// Waits in `place` for a frame tagged 42 of an experimental type. Ends when one was seen.
fn watcher(street: &Street, place: &impl Enter, device: &str, name: &str) -> Running {
    let filter = "vlan.id == 42 && vlan.etype == 0x88b5";
    let line = place.cmd(&format!("tshark -n -l -i {device} -Y")).arg(filter).args(["-T", "fields", "-e", "vlan.id"]);
    line.env("HOME", "/").spawn(&street.dir().join(name))
}

#[test]
fn br_11_tagged_frames_cross_with_their_tags() {
    needs!("tshark");
    let street = Street::new();
    let switch = Nat::lan(&street);
    let a = resident(&switch, "a", "192.0.2.21");
    pings(&a, NEXT_HOP);
    let (inside, outside) = (Wire::open(&a, "eth0"), Wire::open(street.rt(), "street"));
    let tagged = |to: [u8; 6], from: [u8; 6]| [&to[..], &from, &[0x81, 0, 0, 42, 0x88, 0xb5], &[7; 50]].concat();
    let (in_log, out_log) =
        (watcher(&street, &a, "eth0", "in.log"), watcher(&street, street.rt(), "street", "out.log"));
    let seen = |log: &Running| log.output().lines().any(|line| line.trim() == "42");
    // A program that listens takes a while to start: until then it misses what is sent.
    eventually("both ends see tagged frames", Duration::from_secs(20), || {
        inside.send(&tagged(outside.mac(), inside.mac()));
        outside.send(&tagged(inside.mac(), outside.mac()));
        (seen(&in_log) && seen(&out_log)).then_some(())
    });
}

#[test]
fn the_host_sees_nothing_of_it_but_lends_its_interface() {
    let street = Street::new();
    let recorder = Recorder::start(street.rt(), "street", &street.dir().join("lan.pcap"));
    let switch = Nat::lan(&street);
    let a = resident(&switch, "a", "192.0.2.21");
    pings(&a, INET);
    pings(street.gw(), NEXT_HOP);
    assert_eq!(street.gw().cmd("cat /proc/sys/net/ipv4/ip_forward").ok(), "0\n");
    assert!(!street.gw().cmd("ip -brief link show type bridge").ok().contains("br"), "there is no kernel bridge");
    assert!(recorder.stop().1 > 0);
}

#[test]
fn a_forged_dhcp_server_in_a_container_is_not_heard_on_the_lan() {
    let street = Street::new();
    let switch = Nat::lan(&street);
    let a = resident(&switch, "a", "192.0.2.21");
    pings(&a, NEXT_HOP);
    let (wire, mut router) = (Wire::open(&a, "eth0"), Wire::open(street.rt(), "street"));
    let offer = packet::udp(
        "192.0.2.21:67".parse().expect("an address"),
        "255.255.255.255:68".parse().expect("an address"),
        &[2; 240],
    );
    wire.send(&packet::frame([0xff; 6], wire.mac(), &offer));
    pings(&a, NEXT_HOP);
    let heard = router.find(Duration::from_millis(100), |frame| {
        packet::in_frame(frame).and_then(packet::read).filter(|seen| seen.src.port() == 67)
    });
    assert_eq!(heard, None);
}
