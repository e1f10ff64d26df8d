//! Where a container may go through the host's sockets.
//!
//! A socket of the host reaches what the host reaches, and that is more than a router on the same LAN would: its
//! loopback, its own addresses, the metadata service of a cloud machine. All of these are denied unless a rule allows
//! them. What is denied is answered with "administratively prohibited", so that a program fails at once and says why.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use tapswitch_names::Names;
use tapswitch_wire::DropReason;

/// The port of DNS, over UDP and TCP.
pub const DNS_PORT: u16 = 53;

/// One exception to what is denied: an address or a network, and a port or all of them.
///
/// A rule for a loopback address opens that port of the host under the gateway's own address, because a container
/// cannot address the host's loopback: `127.0.0.1:8080` makes `GATEWAY:8080` reach it. Such a rule names a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allow {
    /// Destinations.
    pub net: IpNet,
    /// The port; all of them if absent.
    pub port: Option<u16>,
}

impl Allow {
    /// Whether it names one address.
    fn is_single(&self) -> bool {
        self.net.prefix_len() == self.net.max_prefix_len()
    }

    /// The port of the gateway that leads to the host's loopback by this rule.
    pub fn host_port(&self) -> Option<u16> {
        self.port.filter(|_| self.net.addr().is_loopback())
    }
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "'{text}' is not a rule: write ADDR[/LEN][:PORT], as 127.0.0.1:8080, 10.1.0.0/16, 10.1.0.0/16:443 or \
                 [2001:db8::/32]:443"
            )
        };
        let (net, port) = match parse_net(text) {
            Some(net) => (net, None),
            None => {
                let (net, port) = split_port(text).ok_or_else(wrong)?;
                (net, Some(port))
            }
        };
        if port == Some(0) {
            return Err(format!("'{text}' names port 0, which nothing can listen on"));
        }
        let rule = Allow { net, port };
        if net.addr().is_loopback() && (port.is_none() || !rule.is_single()) {
            return Err(format!("'{text}' opens the whole loopback: name an address and a port, as 127.0.0.1:8080"));
        }
        Ok(rule)
    }
}

/// An address, or a network without what stands behind its prefix.
fn parse_net(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>()).map(|net| net.trunc()).ok()
}

/// What stands before the port, which for IPv6 is in brackets, and the port.
fn split_port(text: &str) -> Option<(IpNet, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let net = parse_net(bracketed.unwrap_or(host)).filter(|net| bracketed.is_some() == net.addr().is_ipv6())?;
    Some((net, port.parse().ok()?))
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.is_single(), self.net) {
            (Some(port), true, net) => write!(f, "{}", SocketAddr::new(net.addr(), port)),
            (Some(port), false, IpNet::V4(net)) => write!(f, "{net}:{port}"),
            (Some(port), false, IpNet::V6(net)) => write!(f, "[{net}]:{port}"),
            (None, true, net) => write!(f, "{}", net.addr()),
            (None, false, net) => write!(f, "{net}"),
        }
    }
}

/// The rules of one network.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The gateway's address, as containers see it.
    pub gateway: IpAddr,
    /// Where questions to the gateway's DNS port go.
    pub resolver: Option<SocketAddr>,
    /// Exceptions.
    pub allow: Vec<Allow>,
    /// Networks that are denied beside the ones that always are: those of the same daemon.
    pub deny: Vec<IpNet>,
}

impl Policy {
    /// Where a flow to `dst` is to be connected. `is_own` tells whether an address is one of the host's.
    ///
    /// # Errors
    /// [`DropReason::PolicyDenied`]; [`DropReason::NoSuchService`] for a port of the gateway that leads nowhere.
    pub fn target(&self, dst: SocketAddr, is_own: impl FnOnce(IpAddr) -> bool) -> Result<SocketAddr, DropReason> {
        let allowed = |ip: IpAddr| {
            self.allow.iter().any(|rule| rule.net.contains(&ip) && rule.port.is_none_or(|port| port == dst.port()))
        };
        if dst.ip() == self.gateway {
            if let (DNS_PORT, Some(resolver)) = (dst.port(), self.resolver) {
                return Ok(resolver);
            }
            return self.host_port(dst.port()).ok_or(DropReason::NoSuchService);
        }
        if allowed(dst.ip()) {
            return Ok(dst);
        }
        if always_denied(dst.ip()) || self.deny.iter().any(|net| net.contains(&dst.ip())) || is_own(dst.ip()) {
            return Err(DropReason::PolicyDenied);
        }
        Ok(dst)
    }

    /// The loopback address behind a port of the gateway, if a rule opens it.
    fn host_port(&self, port: u16) -> Option<SocketAddr> {
        let opens = |rule: &&Allow| rule.host_port() == Some(port);
        self.allow.iter().find(opens).map(|rule| SocketAddr::new(rule.net.addr(), port))
    }

    /// The names that the gateway itself answers for.
    pub(crate) fn names(&self) -> Names {
        Names::new(self.gateway, self.host_ports().next().is_some(), self.resolver.is_some())
    }

    /// Ports of the gateway's address that rules open.
    pub(crate) fn host_ports(&self) -> impl Iterator<Item = u16> {
        self.allow.iter().filter_map(Allow::host_port)
    }
}

/// Addresses that no container reaches without a rule: loopback, this network, link-local (where clouds keep their
/// metadata service), multicast, reserved, and the metadata addresses outside the link-local range.
fn always_denied(ip: IpAddr) -> bool {
    const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);
    match ip {
        IpAddr::V4(ip) => {
            ip.octets()[0] == 0
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.octets()[0] >= 224
                || ip == ALIBABA_METADATA
                || ip == AZURE_HOST
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip.to_ipv4_mapped().is_some()
                || ip == AWS_METADATA
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str]) -> Policy {
        Policy {
            gateway: "10.0.0.1".parse().unwrap(),
            resolver: Some("127.0.0.53:53".parse().unwrap()),
            allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
            deny: vec!["10.9.0.0/24".parse().unwrap()],
        }
    }

    fn target(policy: &Policy, dst: &str) -> Result<String, DropReason> {
        let own: IpAddr = "192.0.2.77".parse().unwrap();
        policy.target(dst.parse().unwrap(), |ip| ip == own).map(|to| to.to_string())
    }

    #[test]
    fn at_16_host_loopback_and_metadata_are_denied_unless_allowed() {
        let rules = policy(&[]);
        for dst in [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "0.0.0.0:80",
            "169.254.169.254:80",
            "192.0.2.77:22",
            "224.0.0.1:5353",
            "255.255.255.255:9",
            "240.0.0.1:1",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "10.9.0.5:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[fd00:ec2::254]:80",
            "[fe80::1]:80",
            "[ff02::1]:80",
            "[::]:80",
        ] {
            assert_eq!(target(&rules, dst), Err(DropReason::PolicyDenied), "{dst}");
        }
        for dst in ["192.0.2.1:80", "198.51.100.4:443", "[2001:db8::1]:80"] {
            assert_eq!(target(&rules, dst).as_deref(), Ok(dst));
        }
    }

    #[test]
    fn rules_open_what_they_name_and_no_more() {
        let rules = policy(&["127.0.0.1:8080", "192.0.2.77:22", "10.9.0.0/30", "169.254.169.254", "10.9.0.16/28:443"]);
        assert_eq!(target(&rules, "10.0.0.1:8080").as_deref(), Ok("127.0.0.1:8080"), "under the gateway's address");
        assert_eq!(target(&rules, "10.0.0.1:8081"), Err(DropReason::NoSuchService));
        assert_eq!(target(&rules, "192.0.2.77:22").as_deref(), Ok("192.0.2.77:22"));
        assert_eq!(target(&rules, "192.0.2.77:23"), Err(DropReason::PolicyDenied));
        assert_eq!(target(&rules, "10.9.0.2:5").as_deref(), Ok("10.9.0.2:5"));
        assert_eq!(target(&rules, "10.9.0.4:5"), Err(DropReason::PolicyDenied));
        assert_eq!(target(&rules, "10.9.0.31:443").as_deref(), Ok("10.9.0.31:443"));
        assert_eq!(target(&rules, "10.9.0.31:80"), Err(DropReason::PolicyDenied));
        assert_eq!(target(&rules, "10.9.0.32:443"), Err(DropReason::PolicyDenied));
        assert_eq!(target(&rules, "169.254.169.254:80").as_deref(), Ok("169.254.169.254:80"));
    }

    #[test]
    fn dns_to_the_gateway_goes_to_the_resolver() {
        assert_eq!(target(&policy(&[]), "10.0.0.1:53").as_deref(), Ok("127.0.0.53:53"));
        let without = Policy { resolver: None, ..policy(&[]) };
        assert_eq!(target(&without, "10.0.0.1:53"), Err(DropReason::NoSuchService));
    }

    #[test]
    fn rules_are_read_and_shown_alike() {
        for text in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "10.1.0.0/16",
            "10.1.0.0/16:443",
            "192.0.2.1",
            "2001:db8::/32",
            "[2001:db8::/32]:443",
        ] {
            assert_eq!(text.parse::<Allow>().unwrap().to_string(), text);
        }
        for (text, shown) in [("10.1.2.3/16:443", "10.1.0.0/16:443"), ("127.0.0.1/32:80", "127.0.0.1:80")] {
            assert_eq!(text.parse::<Allow>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "localhost",
            "10.0.0.1:0",
            "10.0.0.0/33",
            "10.0.0.1:99999",
            "1.2.3",
            "127.0.0.1",
            "127.0.0.0/8",
            "127.0.0.0/8:80",
            "::1",
            "10.1.0.0/16:0",
            "10.1.0.0:443/16",
            "[10.1.0.0/16]:443",
            "2001:db8::/32:443",
            ":80",
        ] {
            assert!(bad.parse::<Allow>().is_err(), "{bad} was taken");
        }
    }
}
