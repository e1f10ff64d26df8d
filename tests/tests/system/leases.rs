//! Addresses for containers that ask for them with the usual DHCP clients.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tapswitch_tests::{Container, Enter, GATEWAY, Running, Switch, World, eventually, needs};

const LIMIT: Duration = Duration::from_secs(30);

/// What udhcpc and dhclient call when something happens. Both name the new address differently.
const HOOK: &str = r#"#!/bin/sh
case "${1:-$reason}" in
deconfig | PREINIT)
    ip link set dev "$interface" up ;;
bound | renew | BOUND | RENEW | REBIND | REBOOT)
    address=${ip:-$new_ip_address}
    ip addr replace "$address/24" dev "$interface"
    ip route replace default via "${router:-$new_routers}"
    echo "hook: $address is ours" ;;
esac
exit 0
"#;

/// A DHCP client that keeps running.
struct Client {
    container: Container,
    process: Running,
}

impl Client {
    /// Attaches a container without an address and starts a client in it. `line` has `HOOK` and `DIR` to fill in.
    fn start(world: &World, switch: &Switch<'_>, name: &str, line: &str) -> Self {
        let container = switch.join(name, "--dhcp");
        assert_eq!(container.kernel_ip(), None, "{name} has an address before it asked");
        let process = Self::ask(world, &container, line);
        Self { container, process }
    }

    fn ask(world: &World, container: &Container, line: &str) -> Running {
        let dir = world.dir().join(container.name());
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("conf"), DHCLIENT_CONF).expect("a file");
        let line = line.replace("HOOK", &hook(world).display().to_string()).replace("DIR", &dir.display().to_string());
        container.cmd(&line).spawn(&dir.join("client.log"))
    }

    /// Its address, once its kernel has one.
    fn address(&mut self) -> String {
        eventually(&format!("{} has an address", self.container.name()), LIMIT, || {
            assert!(self.process.is_alive(), "the client ended:\n{}", self.process.output());
            self.container.kernel_ip()
        })
    }
}

fn hook(world: &World) -> PathBuf {
    let hook = world.dir().join("hook");
    if !hook.exists() {
        fs::write(&hook, HOOK).expect("a file");
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("our file has a mode");
    }
    hook
}

fn lease<'r>(rows: &'r [Value], ip: &str) -> &'r Value {
    rows.iter().find(|row| row["ip"] == ip).unwrap_or_else(|| panic!("{ip} is not in {rows:?}"))
}

const UDHCPC: &str = "udhcpc -f -i eth0 -s HOOK -t 10 -T 1 -x hostname:from-udhcpc";
const DHCLIENT: &str = "dhclient -4 -d -cf DIR/conf -sf HOOK -pf DIR/pid -lf DIR/leases eth0";
const DHCLIENT_CONF: &str = "request subnet-mask, routers, domain-name-servers, interface-mtu;\n";
const DHCPCD: &str = "dhcpcd -4 -B -f /dev/null --script /bin/true eth0";

/// The client gets an address which the switch lists as its, and with which it reaches the gateway.
fn obtains(name: &str, line: &str) {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let mut client = Client::start(&world, &switch, name, line);
    let ip = client.address();
    let leases = switch.rows("show leases");
    let row = lease(&leases, &ip);
    assert_eq!(row["state"], "bound", "{row}");
    let port = switch.port(name).expect("a port");
    assert_eq!((&row["mac"], port["ip"].as_str()), (&port["mac"], Some(ip.as_str())), "{row} {port}");
    eventually("the gateway answers", LIMIT, || {
        let ping = client.container.cmd(&format!("ping -n -c 1 -W 1 {GATEWAY}")).run();
        ping.status.success().then_some(())
    });
}

#[test]
fn dh_1_udhcpc_obtains_an_address() {
    needs!("udhcpc");
    obtains("udhcpc", UDHCPC);
}

#[test]
fn dh_1_dhclient_obtains_an_address() {
    needs!("dhclient");
    obtains("dhclient", DHCLIENT);
}

#[test]
fn dh_1_dhcpcd_obtains_an_address() {
    needs!("dhcpcd");
    obtains("dhcpcd", DHCPCD);
}

#[test]
fn dh_11_clients_keep_their_addresses_when_the_switch_was_killed() {
    needs!("udhcpc", "dhclient");
    let world = World::new();
    let mut switch = Switch::up_with_capture(&world, "");
    let fixed = switch.join("fixed", "");
    let mut first = Client::start(&world, &switch, "first", UDHCPC);
    let mut second = Client::start(&world, &switch, "second", DHCLIENT);
    let before = [first.address(), second.address()];
    let macs = before.clone().map(|ip| lease(&switch.rows("show leases"), &ip)["mac"].clone());
    assert!(before[0] != before[1] && !before.contains(&fixed.ip().to_owned()));

    switch.daemon().kill_9();
    let switch = Switch::up_with_capture(&world, "");
    let leases = switch.rows("show leases");
    for (ip, mac) in before.iter().zip(&macs) {
        assert_eq!(lease(&leases, ip)["mac"], *mac, "{ip} changed its owner");
    }
    // A stranger gets none of the remembered addresses.
    let stranger = switch.join("stranger", "");
    assert!(!before.contains(&stranger.ip().to_owned()), "{} has an owner", stranger.ip());
    // The interfaces went with the switch; the same stations come back and ask for what they had.
    for (client, mac) in [&mut first, &mut second].into_iter().zip(&macs) {
        let mac = mac.as_str().expect("a MAC address");
        client.container.attach(&switch, &format!("--dhcp --mac {mac}"));
    }
    first.process = Client::ask(&world, &first.container, &format!("{UDHCPC} -r {}", before[0]));
    second.process = Client::ask(&world, &second.container, DHCLIENT);
    assert_eq!([first.address(), second.address()], before);
}

#[test]
fn dh_2_a_running_client_renews_its_lease() {
    needs!("udhcpc");
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let mut client = Client::start(&world, &switch, "a", UDHCPC);
    let ip = client.address();
    let remaining = || lease(&switch.rows("show leases"), &ip)["expires_s"].as_u64().expect("a lease ends");
    let granted = remaining();
    eventually("the lease grows older", LIMIT, || (remaining() < granted).then_some(()));
    client.process.signal(Signal::SIGUSR1);
    eventually("the lease is renewed", LIMIT, || (remaining() >= granted).then_some(()));
    assert_eq!(client.address(), ip);
}

#[test]
fn dh_6_a_released_address_is_free_but_remembered() {
    needs!("udhcpc");
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let mut client = Client::start(&world, &switch, "a", UDHCPC);
    let ip = client.address();
    client.process.signal(Signal::SIGUSR2);
    eventually("the address is released", LIMIT, || {
        let leases = switch.rows("show leases");
        leases.iter().all(|row| row["ip"] != *ip || row["state"] == "released").then_some(())
    });
    client.container.cmd("ip addr flush dev eth0").ok();
    client.process.signal(Signal::SIGUSR1);
    assert_eq!(client.address(), ip);
}

#[test]
fn dh_8_clients_learn_gateway_mask_mtu_and_name_servers() {
    needs!("dhclient");
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "--mtu 1400");
    let mut client = Client::start(&world, &switch, "a", DHCLIENT);
    client.address();
    let file = world.dir().join("a/leases");
    let learned = eventually("dhclient notes its lease", LIMIT, || {
        fs::read_to_string(&file).ok().filter(|text| text.contains('}'))
    });
    for option in
        ["subnet-mask 255.255.255.0;", "routers 10.88.0.1;", "dhcp-server-identifier 10.88.0.1;", "interface-mtu 1400;"]
    {
        assert!(learned.contains(option), "{option} is missing: {learned}");
    }
}

#[test]
fn a_client_that_gives_its_name_is_listed_with_it() {
    needs!("udhcpc");
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let mut client = Client::start(&world, &switch, "a", UDHCPC);
    let ip = client.address();
    assert_eq!(lease(&switch.rows("show leases"), &ip)["hostname"], "from-udhcpc");
}

#[test]
fn dh_11_a_damaged_lease_file_is_a_warning() {
    let world = World::new();
    let mut switch = Switch::up_with_capture(&world, "");
    switch.join("a", "");
    switch.daemon().kill_9();
    let dir = world.home().join("leases");
    for entry in fs::read_dir(&dir).expect("the lease directory") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::write(&path, b"\xff\x00 this is no lease {[\n").expect("damages it");
        }
    }
    let mut switch = Switch::up_with_capture(&world, "");
    let b = switch.join("b", "");
    b.cmd(&format!("ping -n -c 1 -W 2 {GATEWAY}")).ok();
    switch.daemon().until_says("WARN", Duration::from_secs(5));
}
