//! Packet uplinks of an ordinary user: an administrator hands over the device, and the daemon holds no capability.

use tapswitch_tests::{Enter, INET, NEXT_HOP, Person, Street, Switch, UPLINK, echo_udp};

use super::{at, bulk, echoes, pings, udp};

fn up<'w>(street: &'w Street, options: &str) -> Switch<'w> {
    Switch::up(street, &format!("{options} --uplink-ip {UPLINK}/24 --uplink-gateway {NEXT_HOP}"))
}

/// Panics if the daemon can do more than its user.
fn holds_no_capability(switch: &mut Switch<'_>) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", switch.daemon().pid())).expect("a process");
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        let line = status.lines().find(|line| line.starts_with(set)).expect("a process has capability sets");
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
}

#[test]
fn an_administrator_hands_the_interface_to_an_ordinary_users_daemon() {
    let street = Street::of(Person::User);
    let mut switch = up(&street, "--uplink nat:eth1");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    // Until then the network has no way out, and works otherwise.
    pings(&a, b.ip());
    a.cmd(&format!("ping -n -c 1 -W 1 {INET}")).fails();
    street.administrator("network uplink default").ok();
    pings(&a, INET);
    let _echo = echo_udp(street.inet(), at(INET, 7000));
    echoes(&udp(&a), at(INET, 7000), &[7; 9000]);
    for up in [true, false] {
        bulk::carry(&a, street.inet(), INET, up, 20 << 20);
    }
    holds_no_capability(&mut switch);
}

#[test]
fn an_ordinary_user_without_that_help_is_told_what_to_do() {
    let street = Street::of(Person::User);
    let mut switch = up(&street, "--uplink nat:eth1");
    switch.daemon().until_says("network uplink", super::SOON);
    holds_no_capability(&mut switch);
}

#[test]
fn an_administrators_own_daemon_gives_its_rights_up_once_it_has_the_interface() {
    let street = Street::new();
    let mut switch = up(&street, "--uplink nat:eth1");
    let a = switch.join("a", "");
    pings(&a, INET);
    holds_no_capability(&mut switch);
    // Its other threads were started later, and hold none either.
    let pid = switch.daemon().pid();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads") {
        let status = std::fs::read_to_string(thread.expect("a thread").path().join("status")).expect("its state");
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    }
}
