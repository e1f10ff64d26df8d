//! What the networks shall be: a file or options in, checked [`NetworkPlan`]s out.
//!
//! Reading and judging are two steps. [`Config::parse`] only reads: unknown keys and wrong types end there.
//! [`Config::plan`] judges: it checks every value and every pair of networks, and fills in what was left out from what
//! it is told of the [`Host`]. Each value remembers where it was written ([`Place`]), so that both steps can say which
//! line of which file, or which option, is wrong.

mod host;
mod nat;
mod place;
mod publish;
mod read;
mod routes;
mod uplink;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use tapswitch_relay::Allow;

use crate::error::Error;
pub use host::Host;
pub use nat::{NatConfig, NatPlan};
pub use place::{Place, Set};
use place::{within, wrong};
pub use publish::PublishPlan;
pub(crate) use publish::check as check_publish;
pub use routes::{RoutePlan, Side};
pub use uplink::{PacketPlan, UplinkAddress, UplinkConfig, UplinkPlan};

/// Name of the network that exists when none is described.
pub const DEFAULT_NETWORK: &str = "default";
/// MTU of a network whose description gives none.
pub const DEFAULT_MTU: u16 = 1500;
/// Smallest MTU: what every IPv4 host must take in (RFC 1122 3.3.2). Largest: what a TAP frame buffer holds.
const MTU_RANGE: Range<i64> = 576..65_522;
/// Lease time of a network whose description gives none, in seconds.
const DEFAULT_LEASE_TIME: i64 = 3600;
/// From a minute to a year: a shorter lease is all renewals, and `u32::MAX` seconds would mean a lease without end.
const LEASE_TIME_RANGE: Range<i64> = 60..31_536_001;
/// Prefix lengths that leave room for a gateway and a container, and a pool that can be counted.
const PREFIX_RANGE: Range<u8> = 8..31;
/// The private pool from which networks without a subnet take the first free /24.
const POOL: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 0);
const DNS_PORT: u16 = 53;

/// A network with every value settled: what the poll thread builds it from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Its name, unique among the networks; safe as a file name.
    pub name: String,
    /// Its addresses; overlaps with no other network.
    pub subnet: Ipv4Net,
    /// The gateway's address, a host address of the subnet.
    pub gateway: Ipv4Addr,
    /// MTU of its ports.
    pub mtu: u16,
    /// Its way out.
    pub uplink: UplinkPlan,
    /// Whether its containers are kept from each other.
    pub isolate: bool,
    /// With uplink `user`: where DNS questions to the gateway go. Otherwise the resolver that containers ask themselves,
    /// an IPv4 one at port 53. None if there is no way out, or if the host knows no resolver that can be reached.
    pub resolver: Option<SocketAddr>,
    /// Domains that the containers' resolvers append.
    pub search: Vec<String>,
    /// Destinations that are allowed although they are denied by default. No two open one port of the gateway.
    pub allow: Vec<Allow>,
    /// Ports that are published by the names of containers. No two collide.
    pub publish: Vec<PublishPlan>,
    /// Static routes, each to another destination.
    pub routes: Vec<RoutePlan>,
    /// Names of the networks that it is routed to and from. Each of them names this one.
    pub connect: Vec<String>,
    /// How long a DHCP lease lasts.
    pub lease_time: Duration,
    /// Directory where its leases are kept. None: in memory only, for a switch that ends with its container.
    pub state_dir: Option<PathBuf>,
}

impl NetworkPlan {
    /// Whether the gateway leads anywhere, so that containers get a default route to it.
    pub fn leads_on(&self) -> bool {
        !self.uplink.is_none() || !self.routes.is_empty() || !self.connect.is_empty()
    }

    /// Whether DNS questions to the gateway are answered.
    pub fn gateway_resolves(&self) -> bool {
        let host = self.allow.iter().any(|rule| rule.host_port().is_some());
        self.uplink.is_user() && (self.resolver.is_some() || host)
    }

    /// The name servers that containers are told.
    pub fn dns(&self) -> Vec<Ipv4Addr> {
        match self.resolver {
            _ if self.gateway_resolves() => vec![self.gateway],
            Some(SocketAddr::V4(resolver)) => vec![*resolver.ip()],
            _ => Vec::new(),
        }
    }
}

/// Networks as they are described, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// In the order of the description; the first is the one that containers join by default.
    pub networks: Vec<NetworkConfig>,
}

/// A network as it is described: what is `None` or empty takes its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Where the description begins.
    pub place: Place,
    /// Its name.
    pub name: Option<Set<String>>,
    /// CIDR.
    pub subnet: Option<Set<String>>,
    /// An address.
    pub gateway: Option<Set<String>>,
    /// Bytes.
    pub mtu: Option<Set<i64>>,
    /// The way out.
    pub uplink: UplinkConfig,
    /// Whether containers are kept from each other.
    pub isolate: bool,
    /// `IP[:PORT]`.
    pub dns: Option<Set<String>>,
    /// Domains.
    pub search: Vec<Set<String>>,
    /// `ADDR[/LEN][:PORT]`.
    pub allow: Vec<Set<String>>,
    /// `NAME=SPEC`.
    pub publish: Vec<Set<String>>,
    /// `CIDR via ADDR`.
    pub routes: Vec<Set<String>>,
    /// Names of networks.
    pub connect: Vec<Set<String>>,
    /// Seconds.
    pub lease_time: Option<Set<i64>>,
}

impl NetworkConfig {
    fn empty(place: Place) -> NetworkConfig {
        NetworkConfig {
            place,
            name: None,
            subnet: None,
            gateway: None,
            mtu: None,
            uplink: UplinkConfig::default(),
            isolate: false,
            dns: None,
            search: Vec::new(),
            allow: Vec::new(),
            publish: Vec::new(),
            routes: Vec::new(),
            connect: Vec::new(),
            lease_time: None,
        }
    }
}

impl Config {
    /// Settles every value. `state_dir` is where leases are kept, if anywhere.
    pub fn plan(&self, host: &Host, state_dir: Option<&Path>) -> Result<Vec<NetworkPlan>, Error> {
        let given: Vec<Option<Ipv4Net>> = self
            .networks
            .iter()
            .map(|network| network.subnet.as_ref().map(subnet).transpose())
            .collect::<Result<_, _>>()?;
        let mut used: Vec<Ipv4Net> = host.subnets.iter().copied().chain(given.iter().flatten().copied()).collect();
        let mut plans: Vec<NetworkPlan> = Vec::with_capacity(self.networks.len());
        for (network, given) in self.networks.iter().zip(given) {
            let uplink = network.uplink.plan(&network.place, network.name(), host)?;
            let subnet = network.settle_subnet(given, &uplink, host, &used)?;
            used.push(subnet);
            let plan = network.plan(subnet, uplink, host, state_dir)?;
            for other in &plans {
                let place = network.name.as_ref().map_or(&network.place, |name| &name.place);
                if other.name == plan.name {
                    return Err(wrong(place, format!("two networks are called {}; rename one", plan.name)));
                }
                if overlap(other.subnet, subnet) {
                    let text = format!(
                        "subnet {subnet} overlaps with {} of network {}; choose another",
                        other.subnet, other.name
                    );
                    return Err(wrong(network.subnet_place(), text));
                }
            }
            plans.push(plan);
        }
        uplink::judge_together(&self.networks, &plans)?;
        publish::judge_together(&self.networks, &plans)?;
        routes::settle(&self.networks, &mut plans)?;
        Ok(plans)
    }
}

impl NetworkConfig {
    fn name(&self) -> &str {
        self.name.as_ref().map_or(DEFAULT_NETWORK, |name| &name.value)
    }

    fn subnet_place(&self) -> &Place {
        self.subnet.as_ref().map_or(&self.place, |subnet| &subnet.place)
    }

    /// The subnet that was given, or a free one.
    fn settle_subnet(
        &self,
        given: Option<Ipv4Net>,
        uplink: &UplinkPlan,
        host: &Host,
        used: &[Ipv4Net],
    ) -> Result<Ipv4Net, Error> {
        let outside = uplink.packet().and_then(PacketPlan::lan);
        let Some(subnet) = given else {
            let used: Vec<Ipv4Net> = used.iter().copied().chain(outside).collect();
            return free_subnet(&used).ok_or_else(|| {
                wrong(&self.place, format!("every /24 of {POOL}/16 is in use; give the network a subnet"))
            });
        };
        // RFC 4787 REQ-7: where inside and outside overlap, nobody could say whom an address means.
        if let Some(outside) = outside.filter(|outside| overlap(*outside, subnet)) {
            let text =
                format!("subnet {subnet} overlaps with {outside}, the LAN of its uplink {uplink}; choose another");
            return Err(wrong(self.subnet_place(), text));
        }
        // A network that is joined to a LAN shares its subnet with whatever this host has there.
        let joined = matches!(uplink, UplinkPlan::Lan { .. });
        if let Some(other) = host.subnets.iter().find(|other| overlap(**other, subnet) && !joined) {
            tracing::warn!(
                "{}: subnet {subnet} overlaps with {other}, which an interface of this host has; containers will not \
                 reach what is there",
                self.subnet_place()
            );
        }
        Ok(subnet)
    }

    fn plan(
        &self,
        subnet: Ipv4Net,
        uplink: UplinkPlan,
        host: &Host,
        state_dir: Option<&Path>,
    ) -> Result<NetworkPlan, Error> {
        if let Some(name) = &self.name {
            check_name(&name.value).map_err(|why| name.wrong(why))?;
        }
        let allow = allowed(&self.allow)?;
        if let (UplinkPlan::None, Some(needless)) = (&uplink, self.dns.as_ref().or(self.allow.first())) {
            return Err(needless.wrong("an internal network has no way out, so this would do nothing; remove it"));
        }
        if let (UplinkPlan::Lan { .. }, Some(needless)) = (&uplink, self.allow.first()) {
            return Err(needless
                .wrong("a network that is joined to a LAN denies nothing there, so this would do nothing; remove it"));
        }
        for (text, rule) in self.allow.iter().zip(&allow) {
            if uplink.packet().is_some() && rule.host_port().is_some() {
                return Err(text.wrong(format!(
                    "uplink {uplink} uses no sockets of the host, so its loopback is out of reach; remove it"
                )));
            }
        }
        for domain in &self.search {
            check_domain(&domain.value).map_err(|why| domain.wrong(why))?;
        }
        let mtu = within(self.mtu.as_ref(), MTU_RANGE, i64::from(DEFAULT_MTU), "mtu", "bytes")?;
        let lease_time =
            within(self.lease_time.as_ref(), LEASE_TIME_RANGE, DEFAULT_LEASE_TIME, "lease_time", "seconds")?;
        let gateway = self.gateway(subnet)?;
        let routes = routes::routes(&self.routes, subnet, gateway, &uplink)?;
        self.uplink.judge_way_on(&uplink, &routes)?;
        Ok(NetworkPlan {
            name: self.name().to_owned(),
            subnet,
            gateway,
            mtu: u16::try_from(mtu).unwrap_or(DEFAULT_MTU),
            resolver: self.resolver(&uplink, host)?,
            isolate: self.isolate,
            search: self.search.iter().map(|domain| domain.value.clone()).collect(),
            allow,
            publish: publish::publish(&self.publish, &uplink)?,
            routes,
            connect: Vec::new(),
            lease_time: Duration::from_secs(lease_time.unsigned_abs()),
            state_dir: state_dir.map(Path::to_owned),
            uplink,
        })
    }

    /// Sockets of the host reach any resolver; packets reach one that is not the host's own.
    fn resolver(&self, uplink: &UplinkPlan, host: &Host) -> Result<Option<SocketAddr>, Error> {
        let by_packets = |resolver: &SocketAddr| {
            matches!(resolver.ip(), IpAddr::V4(ip) if !is_reserved(ip)) && resolver.port() == DNS_PORT
        };
        let given = self.dns.as_ref().map(|text| resolver(text).map(|resolver| (text, resolver))).transpose()?;
        match (uplink, given) {
            (UplinkPlan::None, _) => Ok(None),
            (UplinkPlan::User, Some((_, resolver))) => Ok(Some(resolver)),
            (UplinkPlan::User, None) => Ok(host.resolver),
            (_, Some((text, resolver))) if !by_packets(&resolver) => Err(text.wrong(format!(
                "with uplink {uplink} containers ask the resolver themselves, so {resolver} must be an IPv4 address that \
                 they reach, at port {DNS_PORT}"
            ))),
            (_, Some((_, resolver))) => Ok(Some(resolver)),
            // What the LAN's containers ask is the LAN's affair.
            (UplinkPlan::Lan { .. }, None) => Ok(None),
            (_, None) => Ok(host.resolver.filter(by_packets)),
        }
    }

    fn gateway(&self, subnet: Ipv4Net) -> Result<Ipv4Addr, Error> {
        let Some(text) = &self.gateway else {
            return Ok(subnet.hosts().next().unwrap_or(subnet.network()));
        };
        let gateway: Ipv4Addr = text.value.parse().map_err(|_| {
            text.wrong(format!("gateway '{}' is not an IPv4 address; write one, as {}", text.value, subnet.network()))
        })?;
        let end = subnet.broadcast();
        if !subnet.contains(&gateway) {
            return Err(text.wrong(format!("gateway {gateway} is outside of subnet {subnet}; choose one inside")));
        }
        if gateway == subnet.network() || gateway == end {
            return Err(text
                .wrong(format!("gateway {gateway} is the first or last address of {subnet}, which no host may have")));
        }
        Ok(gateway)
    }
}

/// Rules for the host's loopback stand under the gateway's address, where each port leads to one place.
fn allowed(rules: &[Set<String>]) -> Result<Vec<Allow>, Error> {
    let mut allow: Vec<Allow> = Vec::with_capacity(rules.len());
    for text in rules {
        let rule: Allow = text.value.parse().map_err(|why| text.wrong(why))?;
        let same_port = |other: &&Allow| **other != rule && other.host_port() == rule.host_port();
        if let Some(port) = rule.host_port()
            && let Some(other) = allow.iter().find(same_port)
        {
            return Err(text.wrong(format!(
                "{rule} and {other} would both be port {port} of the gateway; keep one, or use another port"
            )));
        }
        allow.push(rule);
    }
    Ok(allow)
}

fn subnet(text: &Set<String>) -> Result<Ipv4Net, Error> {
    let net = network_of(text, "subnet")?;
    if !PREFIX_RANGE.contains(&net.prefix_len()) {
        return Err(text.wrong(format!(
            "subnet {net} cannot be used: its prefix must be /{} to /{}, to hold a gateway and its containers",
            PREFIX_RANGE.start,
            PREFIX_RANGE.end - 1
        )));
    }
    if is_reserved(net.network()) {
        return Err(text.wrong(format!("subnet {net} is reserved; choose a private one, as 10.9.0.0/24")));
    }
    Ok(net)
}

/// An IPv4 network without bits behind its prefix; `what` it is, for messages.
fn network_of(text: &Set<String>, what: &str) -> Result<Ipv4Net, Error> {
    let net: Ipv4Net = text.value.parse().map_err(|_| {
        text.wrong(format!("{what} '{}' is not an IPv4 network; write one, as 10.9.0.0/24", text.value))
    })?;
    if net != net.trunc() {
        return Err(text.wrong(format!("{what} {net} has bits set behind its prefix; write {}", net.trunc())));
    }
    Ok(net)
}

/// Whether no host on a LAN can have this address (RFC 6890): "this network", loopback, link-local, multicast, class E.
fn is_reserved(ip: Ipv4Addr) -> bool {
    ip.is_loopback() || ip.octets()[0] == 0 || ip.octets()[0] >= 224 || ip.is_link_local()
}

fn resolver(text: &Set<String>) -> Result<SocketAddr, Error> {
    let parsed = text.value.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT)).or_else(|_| text.value.parse());
    parsed.map_err(|_| {
        text.wrong(format!("'{}' is not a resolver; write IP or IP:PORT, as 192.0.2.53 or 127.0.0.1:5353", text.value))
    })
}

/// The first /24 of the pool that overlaps with nothing in use.
fn free_subnet(used: &[Ipv4Net]) -> Option<Ipv4Net> {
    let [a, b, ..] = POOL.octets();
    (0..=255)
        .filter_map(|third| Ipv4Net::new(Ipv4Addr::new(a, b, third, 0), 24).ok())
        .find(|net| !used.iter().any(|other| overlap(*other, *net)))
}

/// Of two networks that share an address, one holds the other.
fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Judges the name of a network or a container: what may stand in a file name, a host name and a URL.
pub fn check_name(name: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts && name.len() <= 63 && name.bytes().all(inner) {
        return Ok(());
    }
    Err(format!("'{name}' cannot be a name; use up to 63 letters, digits, '-', '_' and '.', a letter or digit first"))
}

/// Judges a domain name (RFC 1035 2.3.4 sizes, RFC 1123 2.1 letters, and the underscore of RFC 8552).
pub(crate) fn check_domain(domain: &str) -> Result<(), String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() <= 253 && domain.split('.').all(label) {
        return Ok(());
    }
    Err(format!("'{domain}' is not a domain name; write one, as lan.example"))
}

#[cfg(test)]
mod tests;
