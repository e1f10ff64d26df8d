//! Mistakes: each is refused with a text that helps, a status that is not zero, and nothing left behind.

use std::time::Duration;

use serde_json::Value;
use tapswitch_tests::{Cmd, Container, Done, Enter, GATEWAY, Person, Switch, World, eventually};

/// The refusal is a short text for people, in JSON on demand, and the switch is as it was.
fn refused(switch: &Switch<'_>, line: &str, words: &[&str]) -> Done {
    // What a released lease remembers of its client holds no address.
    let held = |lease: &Value| lease["state"] != "released";
    let state = || (switch.rows("ls").len(), switch.rows("show leases").into_iter().filter(held).count());
    let before = state();
    let done = switch.cli(line).fails();
    for word in words {
        done.says(word);
    }
    assert!(!done.stderr.contains("panicked"), "{}", done.report());
    assert!(done.stderr.starts_with("tapswitch: "), "{}", done.report());
    let json = switch.cli(line).arg("--json").fails();
    let body: Value = serde_json::from_str(&json.stderr).unwrap_or_else(|e| panic!("{e}: {}", json.report()));
    assert!(body["error"].is_string(), "{body}");
    eventually(&format!("`{line}` leaves nothing behind"), Duration::from_secs(2), || {
        (state() == before).then_some(())
    });
    done
}

#[test]
fn a_taken_name_or_address_is_refused() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let other = Container::new(&world, "other");
    let target = other.target();
    refused(&switch, &format!("attach {target} --name a"), &["a"]);
    refused(&switch, &format!("attach {target} --name b --ip {}", a.ip()), &[a.ip()]);
    refused(&switch, &format!("attach {target} --name b --ip {GATEWAY}"), &[GATEWAY]);
    refused(&switch, &format!("attach {target} --name b --ip 10.99.0.5"), &["10.99.0.5", "10.88.0.0/24"]);
    refused(&switch, &format!("attach {target} --name b --ip 10.88.0.255"), &["10.88.0.255"]);
    refused(&switch, &format!("attach {target} --name b --network absent"), &["absent"]);
    assert_eq!(other.interfaces(), ["lo"]);
}

#[test]
fn a_taken_interface_name_is_refused() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    refused(&switch, &format!("attach {} --name b", a.target()), &["eth0"]);
    switch.cli(&format!("attach {} --name b --ifname eth1", a.target())).ok();
    assert_eq!(switch.rows("ls").len(), 2);
}

#[test]
fn targets_that_do_not_exist_are_refused() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    let dead = Cmd::new(["sh", "-c", "echo $$"]).ok();
    refused(&switch, &format!("attach {} --name a", dead.trim()), &[dead.trim()]);
    refused(&switch, "attach no-such-namespace --name a", &["no-such-namespace"]);
    refused(&switch, "attach /no/such/file --name a", &["/no/such/file"]);
    refused(&switch, "attach /etc/hostname --name a", &["/etc/hostname"]);
    refused(&switch, "detach nobody", &["nobody"]);
    refused(&switch, "network inspect absent", &["absent"]);
}

#[test]
fn a_full_subnet_is_refused_and_has_room_again_after_a_detach() {
    let world = World::new();
    let switch = Switch::start(&world, "--subnet 10.88.0.0/30");
    let mut late = Container::new(&world, "late");
    let a = switch.join("a", "");
    assert_eq!(a.ip(), "10.88.0.2");
    refused(&switch, &format!("attach {} --name late", late.target()), &["10.88.0.0/30"]);
    assert_eq!(late.interfaces(), ["lo"]);
    switch.cli("detach a").ok();
    late.attach(&switch, "");
    assert_eq!(late.ip(), "10.88.0.2");
}

#[test]
fn without_a_daemon_the_text_says_how_to_start_one() {
    let world = World::new();
    for line in ["ls", "show ports", "network ls", "detach a", "attach 1"] {
        let done = world.tapswitch(line).fails();
        done.says("tapswitch up");
        assert_eq!(done.status.code(), Some(3), "{}", done.report());
    }
}

#[test]
fn wrong_options_are_usage_errors() {
    let world = World::new();
    let wrong = [
        "up --subnet 10.0.0.0/33",
        "up --subnet 10.88.0.0/24 --gateway 10.99.0.1",
        "up --mtu 20",
        "up --mtu lots",
        "up --allow nonsense",
        "up /no/such/file.toml",
        "attach",
        "show nonsense",
        "nonsense",
    ];
    for line in wrong {
        let done = world.tapswitch(line).fails();
        assert!(done.status.code().is_some_and(|code| code == 1 || code == 2), "{}", done.report());
        assert!(!done.stderr.is_empty() && !done.stderr.contains("panicked"), "{}", done.report());
    }
    assert!(!world.socket().exists());
}

#[test]
fn without_a_tun_device_the_text_names_it() {
    for person in [Person::Root, Person::User] {
        let world = World::of(person);
        let switch = Switch::up(&world, "");
        let line = switch.cli("run -- true");
        // The same command where /dev/net is empty.
        let hidden = Cmd::new(["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /dev/net && exec \"$@\"", "sh"]);
        let done = hidden.then(line).fails();
        done.says("/dev/net/tun");
        assert!(switch.rows("ls").is_empty());
    }
}

#[test]
fn a_namespace_of_somebody_else_is_refused() {
    let world = World::of(Person::User);
    let switch = Switch::up(&world, "");
    let foreign = world.netns();
    refused(&switch, &format!("attach {} --name a", foreign.name()), &[foreign.name()]);
    assert_eq!(foreign.cmd("ip -brief link show").ok().lines().count(), 1);
}
