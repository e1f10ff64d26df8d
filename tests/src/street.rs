//! The world of the packet uplinks: the host has a NIC on a LAN, and a router there leads on.

use std::ops::Deref;

use crate::cable::{Cable, Shuffle};
use crate::command::Running;
use crate::namespace::{Enter, Netns};
use crate::switch::Switch;
use crate::world::{Person, World};
use crate::{FAR, INET_OTHER, NEXT_HOP, UPLINK};
use std::time::Duration;

/// A [`World`] whose host is joined to the router by `eth1` and by nothing else:
///
/// ```text
///  gw                     rt                          inet
///  eth1 192.0.2.3 ------- street 192.0.2.1
///                         wan    198.51.100.1 ------- eth0 198.51.100.10 and .11
///                         narrow 203.0.113.254 ------ eth0 203.0.113.1 in far, MTU 1280
/// ```
///
/// [`UPLINK`] is free for whoever translates.
pub struct Street {
    world: World,
    far: Netns,
    /// Between `eth1` and the router, where it disturbs what passes.
    _cable: Option<Cable>,
}

impl Street {
    /// A street on which root runs the switch.
    pub fn new() -> Self {
        Self::build(Person::Root, false)
    }

    /// A street on which `person` runs the switch.
    pub fn of(person: Person) -> Self {
        Self::build(person, false)
    }

    /// A street on which the fragments of every datagram arrive in any order, some of them twice, in both directions.
    pub fn shuffled() -> Self {
        Self::build(Person::Root, true)
    }

    fn build(person: Person, shuffled: bool) -> Self {
        let world = World::of(person);
        let far = world.netns();
        let (gw, rt) = (world.gw().name().to_owned(), world.rt().name().to_owned());
        let setup = |netns: &Netns, script: String| {
            netns.cmd("sh -e").input(script).ok();
        };
        setup(world.gw(), "ip link del up0".into());
        let cable = if shuffled {
            let place = world.netns();
            setup(
                &place,
                format!(
                    "ip link add near type veth peer name eth1 netns {gw}
                     ip link add away type veth peer name street netns {rt}
                     ip link set near up
                     ip link set away up"
                ),
            );
            Some(place)
        } else {
            setup(world.rt(), format!("ip link add street type veth peer name eth1 netns {gw}"));
            None
        };
        setup(
            world.rt(),
            format!(
                "ip addr add {NEXT_HOP}/24 dev street
                 ip link set street up
                 ip link add narrow mtu 1280 type veth peer name eth0 mtu 1280 netns {}
                 ip addr add 203.0.113.254/24 dev narrow
                 ip link set narrow up",
                far.name()
            ),
        );
        setup(world.gw(), "ip addr add 192.0.2.3/24 dev eth1\n ip link set eth1 up".into());
        setup(world.inet(), format!("ip addr add {INET_OTHER}/24 dev eth0"));
        setup(
            &far,
            format!(
                "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
                 ip addr add {FAR}/24 dev eth0
                 ip link set eth0 up
                 ip route add default via 203.0.113.254"
            ),
        );
        let cable = cable.map(|place| {
            // A frame that a program carries from one device to another has left its offloads behind.
            for (netns, device) in [(world.gw(), "eth1"), (world.rt(), "street")] {
                netns.cmd(&format!("ethtool -K {device} tx off tso off gso off gro off")).ok();
            }
            Cable::join(place, ["near", "away"], Shuffle::default())
        });
        world.settle();
        Self { world, far, _cable: cable }
    }

    /// The host behind the narrow link.
    pub fn far(&self) -> &Netns {
        &self.far
    }

    /// Starts the daemon with `uplink`, [`UPLINK`] as its address and these options of `up`.
    pub fn switch(&self, options: &str) -> Switch<'_> {
        Switch::up(self, &format!("--uplink nat:eth1 --uplink-ip {UPLINK}/24 --uplink-gateway {NEXT_HOP} {options}"))
    }

    /// Starts the daemon with one network that has these further lines of TOML, tables last.
    pub fn switch_with(&self, toml: &str) -> Switch<'_> {
        let network = format!(
            "[[network]]\nname = \"default\"\nsubnet = \"{}\"\nuplink = \"nat:eth1\"\nuplink_ip = \"{UPLINK}/24\"\n\
             uplink_gateway = \"{NEXT_HOP}\"\n{toml}\n",
            crate::SUBNET
        );
        self.switch_from(&network)
    }

    /// Starts the daemon with these networks.
    pub fn switch_from(&self, toml: &str) -> Switch<'_> {
        let file = self.home().join("networks.toml");
        std::fs::write(&file, toml).expect("a file");
        Switch::start(self, file.to_str().expect("a path of text"))
    }

    /// Starts a DHCP server at the router that leases 192.0.2.100 to .150.
    pub fn dhcp_server(&self) -> Running {
        let dir = self.dir();
        let file = dir.join("udhcpd.conf");
        let text = format!(
            "start 192.0.2.100\nend 192.0.2.150\ninterface street\nlease_file {0}/udhcpd.leases\n\
             pidfile {0}/udhcpd.pid\noption subnet 255.255.255.0\noption router {NEXT_HOP}\noption dns {NEXT_HOP}\n\
             option lease 600\n",
            dir.display()
        );
        std::fs::write(&file, text).expect("a file");
        std::fs::write(dir.join("udhcpd.leases"), "").expect("a file");
        let line = format!("busybox udhcpd -f -I {NEXT_HOP} {}", file.display());
        let mut server = self.rt().cmd(&line).spawn(&dir.join("udhcpd.log"));
        server.until_says("started", Duration::from_secs(10));
        server
    }

    /// Switches the offloads of both ends of the LAN on or off: super-frames and partial checksums pass, or do not.
    pub fn offload(&self, state: bool) {
        let state = if state { "on" } else { "off" };
        for (netns, device) in [(self.gw(), "eth1"), (self.rt(), "street")] {
            let line = format!("ethtool -K {device} tx {state} sg {state} tso {state} gso {state} gro {state}");
            netns.cmd(&line).ok();
        }
    }
}

impl Default for Street {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Street {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}
