//! The main job once more, with a daemon and containers of an ordinary user who has no capability at all.

use tapswitch_tests::{Enter, GATEWAY, INET, Person, Switch, World, needs};

use crate::{lan, lifecycle, outside};

#[test]
fn an_ordinary_user_has_a_lan_of_his_own() {
    let world = World::of(Person::User);
    let before = lifecycle::host_state(&world);
    let switch = Switch::up(&world, "");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    for to in [b.ip(), GATEWAY, INET] {
        a.cmd(&format!("ping -n -c 2 -i 0.05 -W 3 {to}")).ok();
    }
    lan::transfer(&a, &b, 20 << 20);
    assert_eq!(lifecycle::host_state(&world), before);
}

#[test]
fn an_ordinary_user_reaches_the_web() {
    needs!("curl", "nginx", "dnsmasq");
    let world = World::of(Person::User);
    let _web = outside::web(&world);
    let _dns = outside::name_server(&world);
    let switch = Switch::up(&world, &format!("--dns {INET}"));
    let a = switch.join("a", "");
    let copy = world.home().join("copy");
    a.cmd(&format!("curl -sSf -o {} http://{INET}/file", copy.display())).ok();
    outside::same(&copy, &world.dir().join("web/html/file"));
}

#[test]
fn an_ordinary_users_container_gets_its_lease_by_dhcp() {
    needs!("udhcpc");
    let world = World::of(Person::User);
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "--dhcp");
    a.cmd("udhcpc -f -q -n -i eth0 -s /bin/true -t 10 -T 1").ok();
    let leases = switch.rows("show leases");
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert_eq!(leases[0]["mac"], switch.port("a").expect("a port")["mac"]);
}

#[test]
fn the_daemon_of_an_ordinary_user_holds_no_capability() {
    let world = World::of(Person::User);
    let mut switch = Switch::up(&world, "");
    let status = std::fs::read_to_string(format!("/proc/{}/status", switch.daemon().pid())).expect("a process");
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        let line = status.lines().find(|line| line.starts_with(set)).expect("a process has capability sets");
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
}

#[test]
fn at_22_nobody_else_may_use_the_control_socket() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::of(Person::User);
    let _switch = Switch::up(&world, "");
    let mode = std::fs::metadata(world.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}
