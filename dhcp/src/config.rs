//! What the owner of a network decides about its leases.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use tapswitch_wire::Mac;

/// On the wire a lease time of all ones means for ever (RFC 2131 3.3).
pub(crate) const INFINITE: u32 = u32::MAX;

/// The shortest lease that a client can ask for, unless the default is shorter: below this, renewals would be noise.
const MIN_LEASE_SECS: u32 = 60;

/// Settings of one network's address service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The gateway's own address: the server identifier, and the source of all replies.
    pub server_ip: Ipv4Addr,
    /// The gateway's own MAC address.
    pub server_mac: Mac,
    /// The network. All its host addresses but the gateway's are the pool.
    pub subnet: Ipv4Net,
    /// Given to clients that do not ask for a time. Default 3600 s.
    pub lease_time: Duration,
    /// The longest lease that a client can ask for. Default one day. Infinite leases are granted only if this is at
    /// least 2^32 - 1 s.
    pub max_lease_time: Duration,
    /// The MTU of the ports (option 26); replies are never larger either. Default 1500.
    pub mtu: u16,
    /// Routers (option 3), best first. Default: the gateway.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers (option 6). Default: the gateway.
    pub dns: Vec<Ipv4Addr>,
    /// Domain of the network (option 15).
    pub domain: Option<String>,
    /// Search list (option 119). What is no domain name is left out.
    pub search: Vec<String>,
    /// Further routes (option 121). A client that understands them ignores option 3 (RFC 3442), so the default route by
    /// the first router is added unless a default route is among them.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// How many addresses the stations behind one port may hold by DHCP: offered, bound, or declined and quarantined.
    /// Default 16.
    pub max_leases_per_port: usize,
    /// How long an offered address is kept for the client's answer. Default 60 s: RFC 2131 leaves it open, and the
    /// back-off of clients (4, 8, 16, 32 s; 4.1) fits in.
    pub offer_time: Duration,
    /// How long an address that a client found in use is not offered. Default 600 s.
    pub quarantine: Duration,
}

impl Config {
    /// The defaults for a network whose gateway is at `server_ip`.
    pub fn new(subnet: Ipv4Net, server_ip: Ipv4Addr, server_mac: Mac) -> Config {
        Config {
            server_ip,
            server_mac,
            subnet,
            lease_time: Duration::from_secs(3600),
            max_lease_time: Duration::from_secs(24 * 3600),
            mtu: 1500,
            routers: vec![server_ip],
            dns: vec![server_ip],
            domain: None,
            search: Vec::new(),
            routes: Vec::new(),
            max_leases_per_port: 16,
            offer_time: Duration::from_secs(60),
            quarantine: Duration::from_secs(600),
        }
    }

    /// The lease time in seconds for a client that asks for `asked`: clamped to policy.
    pub(crate) fn lease_secs(&self, asked: Option<u32>) -> u32 {
        let default = seconds(self.lease_time);
        let longest = seconds(self.max_lease_time).max(default);
        asked.map_or(default, |secs| secs.clamp(MIN_LEASE_SECS.min(default), longest))
    }

    /// First and last host address of the pool; `None` if there is none. The two addresses of a /31 are both hosts
    /// (RFC 3021).
    pub(crate) fn hosts(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let (first, last) = (u32::from(self.subnet.network()), u32::from(self.subnet.broadcast()));
        match self.subnet.prefix_len() {
            32 => None,
            31 => Some((first.into(), last.into())),
            _ => Some(((first + 1).into(), (last - 1).into())),
        }
    }

    /// The routes of option 121: as configured, and the default route last; empty if none is configured.
    pub(crate) fn classless_routes(&self) -> Vec<(Ipv4Net, Ipv4Addr)> {
        let mut routes: Vec<_> = self.routes.iter().map(|(net, router)| (net.trunc(), *router)).collect();
        let has_default = routes.iter().any(|(net, _)| net.prefix_len() == 0);
        if let (false, false, Some(router)) = (routes.is_empty(), has_default, self.routers.first()) {
            routes.push((Ipv4Net::default(), *router));
        }
        routes
    }
}

/// Whole seconds as they stand in option 51.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(INFINITE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subnet: &str) -> Config {
        Config::new(subnet.parse().unwrap(), Ipv4Addr::new(10, 0, 0, 1), Mac::ZERO)
    }

    #[test]
    fn lease_times_are_clamped_to_policy() {
        let mut config = config("10.0.0.0/24");
        let day = 24 * 3600;
        let table = [(None, 3600), (Some(0), 60), (Some(59), 60), (Some(600), 600), (Some(INFINITE), day)];
        for (asked, granted) in table {
            assert_eq!(config.lease_secs(asked), granted, "asked for {asked:?}");
        }
        config.max_lease_time = Duration::MAX;
        assert_eq!(config.lease_secs(Some(INFINITE)), INFINITE);
        config.lease_time = Duration::from_secs(5);
        assert_eq!(config.lease_secs(Some(1)), 5, "the least lease is not longer than the default");
    }

    #[test]
    fn pool_leaves_out_network_and_broadcast() {
        let hosts = |subnet| config(subnet).hosts().map(|(a, b)| format!("{a}-{b}"));
        assert_eq!(hosts("10.0.0.7/24").as_deref(), Some("10.0.0.1-10.0.0.254"));
        assert_eq!(hosts("10.0.0.0/30").as_deref(), Some("10.0.0.1-10.0.0.2"));
        assert_eq!(hosts("10.0.0.0/31").as_deref(), Some("10.0.0.0-10.0.0.1"));
        assert_eq!(hosts("10.0.0.1/32"), None);
        assert_eq!(hosts("0.0.0.0/0").as_deref(), Some("0.0.0.1-255.255.255.254"));
    }
}
