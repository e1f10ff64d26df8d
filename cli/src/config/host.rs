//! What a network takes from the host.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;

use super::DNS_PORT;

/// What a network takes from the host where its description leaves it open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The subnets of the host's interfaces.
    pub subnets: Vec<Ipv4Net>,
    /// The addresses of the host's interfaces.
    pub addresses: Vec<Ipv4Addr>,
    /// The first name server of its `/etc/resolv.conf`.
    pub resolver: Option<SocketAddr>,
    /// What tells this host and user from others on the same LAN, and stays the same; see [`super::PacketPlan::mac`].
    pub identity: String,
}

impl Host {
    /// Looks at the interfaces and the resolver configuration of this host. What cannot be read counts as absent.
    pub fn read() -> Host {
        let interfaces: Vec<Ipv4Net> = nix::ifaddrs::getifaddrs()
            .map(|all| all.filter_map(|interface| interface_subnet(&interface)).collect())
            .unwrap_or_default();
        let subnets = interfaces.iter().map(|net| net.trunc()).collect();
        let addresses = interfaces.iter().map(|net| net.addr()).collect();
        let resolver = std::fs::read_to_string("/etc/resolv.conf").ok().and_then(|text| first_nameserver(&text));
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let name = nix::unistd::gethostname().unwrap_or_default();
        let identity = format!("{} {} {}", machine.trim(), name.to_string_lossy(), nix::unistd::geteuid());
        Host { subnets, addresses, resolver, identity }
    }
}

fn interface_subnet(interface: &nix::ifaddrs::InterfaceAddress) -> Option<Ipv4Net> {
    let address = interface.address.as_ref()?.as_sockaddr_in()?.ip();
    let mask = interface.netmask.as_ref()?.as_sockaddr_in()?.ip();
    Ipv4Net::with_netmask(address, mask).ok()
}

/// The first `nameserver` line with an address that can be used without naming an interface.
fn first_nameserver(resolv_conf: &str) -> Option<SocketAddr> {
    let mut servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next())?
    });
    servers.find_map(|server| server.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, DNS_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_is_the_first_usable_nameserver() {
        let text =
            "# nameserver 1.1.1.1\nsearch x\nnameserver fe80::1%eth0\nnameserver\t192.0.2.7 \nnameserver 192.0.2.8\n";
        assert_eq!(first_nameserver(text), Some("192.0.2.7:53".parse().unwrap()));
        assert_eq!(first_nameserver("nameserver\noptions rotate\n"), None);
    }
}
