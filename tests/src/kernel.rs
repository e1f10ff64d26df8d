//! The kernel as the router that a packet uplink replaces: a bridge, `ip_forward`, and nft's masquerade and DNAT.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::command::Cmd;
use crate::namespace::Enter;
use crate::street::Street;
use crate::switch::{Container, Switch};
use crate::{GATEWAY, NEXT_HOP, SUBNET, UPLINK};

/// Set to `kernel`, the laws of a NAT are held against the kernel: so one sees what a test asks for.
const NAT: &str = "TAPSWITCH_TESTS_NAT";

/// A kernel router in `gw`. What it set up goes with the street.
pub struct Kernel<'w> {
    street: &'w Street,
    joined: AtomicU8,
    /// Whether containers have addresses of ours.
    routes: bool,
}

impl<'w> Kernel<'w> {
    /// Makes the bridge, gives `eth1` the address [`UPLINK`], and translates.
    pub fn up(street: &'w Street) -> Self {
        let script = format!(
            "ip link add br0 type bridge
             ip addr add {GATEWAY}/24 dev br0
             ip link set br0 up
             ip addr flush dev eth1
             ip addr add {UPLINK}/24 dev eth1
             ip route add default via {NEXT_HOP}
             echo 1 > /proc/sys/net/ipv4/ip_forward
             for device in all br0 eth1; do echo 1 > /proc/sys/net/ipv4/conf/$device/rp_filter; done
             nft -f - <<'RULES'
             table ip nat {{
                 chain pre {{
                     type nat hook prerouting priority dstnat
                 }}
                 chain post {{
                     type nat hook postrouting priority srcnat
                     ip saddr {SUBNET} ip daddr {SUBNET} snat to {UPLINK}
                     ip saddr {SUBNET} oifname eth1 masquerade
                 }}
             }}
             table ip strict {{
                 chain forward {{
                     type filter hook forward priority filter
                     iifname eth1 ct state new ct status & dnat == 0 drop
                     ct state invalid drop
                 }}
             }}\nRULES\n"
        );
        street.gw().cmd("sh -e").input(script).ok();
        Self { street, joined: AtomicU8::new(1), routes: true }
    }

    /// Makes a bridge of which `eth1` is a port: the kernel's `lan:`.
    pub fn lan(street: &'w Street) -> Self {
        let script = "ip link add br0 type bridge\nip link set eth1 master br0\nip link set br0 up";
        street.gw().cmd("sh -e").input(script).ok();
        // The host's address belongs to the bridge now.
        street.gw().cmd("sh -e").input("ip addr flush dev eth1\nip addr add 192.0.2.3/24 dev br0").ok();
        Self { street, joined: AtomicU8::new(1), routes: false }
    }

    /// Makes a container and plugs it into the bridge.
    pub fn join(&self, name: &str) -> Container {
        let number = self.joined.fetch_add(1, Ordering::Relaxed) + 1;
        let ip = GATEWAY.replace(".0.1", &format!(".0.{number}"));
        let container = Container::plugged(self.street, name, &ip);
        let place = container.target();
        let script = format!(
            "ip link add v{number} type veth peer name eth0 netns {place}
             ip link set v{number} master br0 up"
        );
        self.street.gw().cmd("sh -e").input(script).ok();
        if !self.routes {
            container.cmd("ip link set eth0 up").ok();
            return container;
        }
        let script = format!("ip addr add {ip}/24 dev eth0\n ip link set eth0 up\n ip route add default via {GATEWAY}");
        container.cmd("sh -e").input(script).ok();
        container
    }

    /// Publishes ports of a container: `8080:80/tcp`, `192.0.2.2:7000-7003:7000-7003/udp`.
    pub fn publish(&self, container: &Container, spec: &str) {
        let (ports, proto) = spec.split_once('/').unwrap_or((spec, "tcp"));
        let parts: Vec<&str> = ports.split(':').collect();
        let (address, outer, inner) = match parts[..] {
            [outer, inner] => (UPLINK, outer, inner),
            [address, outer, inner] => (address, outer, inner),
            _ => panic!("cannot publish {spec}"),
        };
        let range = |text: &str| -> (u16, u16) {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            (first.parse().expect("a port"), last.parse().expect("a port"))
        };
        let ((first, last), (target, _)) = (range(outer), range(inner));
        for port in first..=last {
            let to = format!("{}:{}", container.ip(), target + (port - first));
            let rule = format!("ip daddr {address} {proto} dport {port} dnat to {to}");
            self.street.gw().cmd(&format!("nft add rule ip nat pre {rule}")).ok();
        }
    }
}

/// Who translates between containers and the street.
pub enum Nat<'w> {
    /// The program under test.
    Switch(Switch<'w>),
    /// The kernel, to prove the test.
    Kernel(Kernel<'w>),
}

impl<'w> Nat<'w> {
    /// Starts `tapswitch up` on a `nat:` uplink with these options, or the kernel's router where that is asked for.
    pub fn up(street: &'w Street, options: &str) -> Self {
        match std::env::var(NAT).as_deref() {
            Ok("kernel") => Self::Kernel(Kernel::up(street)),
            _ => Self::Switch(street.switch(options)),
        }
    }

    /// Starts `tapswitch up` on a `lan:` uplink, or the kernel's bridge where that is asked for.
    pub fn lan(street: &'w Street) -> Self {
        match std::env::var(NAT).as_deref() {
            Ok("kernel") => Self::Kernel(Kernel::lan(street)),
            _ => Self::Switch(Switch::start(street, "--subnet 192.0.2.0/24 --uplink lan:eth1")),
        }
    }

    /// Makes a container and attaches it, with these options of `attach`.
    #[track_caller]
    pub fn join(&self, name: &str, options: &str) -> Container {
        match self {
            Self::Switch(switch) => switch.join(name, options),
            Self::Kernel(kernel) => {
                let container = kernel.join(name);
                if options.contains("--no-offload") {
                    container.cmd("ethtool -K eth0 tx off tso off gso off gro off").ok();
                }
                container
            }
        }
    }

    /// Publishes ports of a container.
    #[track_caller]
    pub fn publish(&self, container: &Container, spec: &str) {
        match self {
            Self::Switch(switch) => drop(switch.cli(&format!("publish {} {spec}", container.name())).ok()),
            Self::Kernel(kernel) => kernel.publish(container, spec),
        }
    }

    /// The program under test, unless the kernel stands in for it.
    pub fn switch(&mut self) -> Option<&mut Switch<'w>> {
        match self {
            Self::Switch(switch) => Some(switch),
            Self::Kernel(_) => None,
        }
    }
}

/// Keeps the kernel of a place silent over IPv4, except for ARP: a [`Wire`](crate::Wire) there speaks instead.
pub fn mute(place: &impl Enter) {
    let rules = "table ip mute {
        chain in { type filter hook input priority -300; policy drop; }
        chain out { type filter hook output priority -300; policy drop; }
    }";
    let line: Cmd = place.cmd("nft -f -");
    line.input(rules).ok();
}
