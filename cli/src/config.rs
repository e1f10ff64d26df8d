//! What the networks shall be: a file or options in, checked [`NetworkPlan`]s out.
//!
//! Reading and judging are two steps. [`Config::parse`] only reads: unknown keys and wrong types end there.
//! [`Config::plan`] judges: it checks every value and every pair of networks, and fills in what was left out from what
//! it is told of the [`Host`]. Each value remembers where it was written ([`Place`]), so that both steps can say which
//! line of which file, or which option, is wrong.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::Deserialize;
use tapswitch_relay::Allow;
use toml::Spanned;

use crate::args::NetworkArgs;
use crate::error::Error;

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
/// The largest description, in bytes: thousands of networks fit.
const MAX_FILE: u64 = 1 << 20;

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
    /// Whether there is a way out.
    pub uplink: bool,
    /// Whether its containers are kept from each other.
    pub isolate: bool,
    /// Where DNS questions to the gateway go; none if there is no way out, or if the host knows no resolver.
    pub resolver: Option<SocketAddr>,
    /// Domains that the containers' resolvers append.
    pub search: Vec<String>,
    /// Destinations that are allowed although they are denied by default. No two open one port of the gateway.
    pub allow: Vec<Allow>,
    /// How long a DHCP lease lasts.
    pub lease_time: Duration,
    /// Directory where its leases are kept. None: in memory only, for a switch that ends with its container.
    pub state_dir: Option<PathBuf>,
}

/// What a network takes from the host where its description leaves it open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The subnets of the host's interfaces.
    pub subnets: Vec<Ipv4Net>,
    /// The first name server of its `/etc/resolv.conf`.
    pub resolver: Option<SocketAddr>,
}

impl Host {
    /// Looks at the interfaces and the resolver configuration of this host. What cannot be read counts as absent.
    pub fn read() -> Host {
        let subnets = nix::ifaddrs::getifaddrs()
            .map(|all| all.filter_map(|interface| interface_subnet(&interface)).collect())
            .unwrap_or_default();
        let resolver = std::fs::read_to_string("/etc/resolv.conf").ok().and_then(|text| first_nameserver(&text));
        Host { subnets, resolver }
    }
}

fn interface_subnet(interface: &nix::ifaddrs::InterfaceAddress) -> Option<Ipv4Net> {
    let address = interface.address.as_ref()?.as_sockaddr_in()?.ip();
    let mask = interface.netmask.as_ref()?.as_sockaddr_in()?.ip();
    Ipv4Net::with_netmask(address, mask).ok().map(|net| net.trunc())
}

/// The first `nameserver` line with an address that can be used without naming an interface.
fn first_nameserver(resolv_conf: &str) -> Option<SocketAddr> {
    let mut servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next())?
    });
    servers.find_map(|server| server.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, DNS_PORT))
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This line of this file.
    Line(PathBuf, usize),
    /// This option.
    Option(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Place::Option(option) => f.write_str(option),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub place: Place,
}

impl<T> Set<T> {
    fn wrong(&self, text: impl fmt::Display) -> Error {
        wrong(&self.place, text)
    }
}

/// Options are the command line's fault, a file's content is not.
fn wrong(place: &Place, text: impl fmt::Display) -> Error {
    let text = format!("{place}: {text}");
    match place {
        Place::Line(..) => Error::Failed(text),
        Place::Option(_) => Error::Usage(text),
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
    /// `user` or `none`.
    pub uplink: Option<Set<String>>,
    /// Whether containers are kept from each other.
    pub isolate: bool,
    /// `IP[:PORT]`.
    pub dns: Option<Set<String>>,
    /// Domains.
    pub search: Vec<Set<String>>,
    /// `ADDR[/LEN][:PORT]`.
    pub allow: Vec<Set<String>>,
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
            uplink: None,
            isolate: false,
            dns: None,
            search: Vec::new(),
            allow: Vec::new(),
            lease_time: None,
        }
    }
}

/// The file as TOML has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    network: Vec<Spanned<RawNetwork>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    name: Option<Spanned<String>>,
    subnet: Option<Spanned<String>>,
    gateway: Option<Spanned<String>>,
    mtu: Option<Spanned<i64>>,
    uplink: Option<Spanned<String>>,
    isolate: Option<bool>,
    dns: Option<Spanned<String>>,
    #[serde(default)]
    search: Vec<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    lease_time: Option<Spanned<i64>>,
}

impl Config {
    /// Reads a file. Errors name the file, the line and what was expected there.
    pub fn read(file: &Path) -> Result<Config, Error> {
        let text = read_bounded(file).map_err(|error| {
            Error::failed(format!(
                "cannot read the networks from {}: {error}; name a file that describes them, or none for the default network",
                file.display()
            ))
        })?;
        Config::parse(&text, file)
    }

    /// Reads the text of a file; the file's name is for messages.
    pub fn parse(text: &str, file: &Path) -> Result<Config, Error> {
        let place = |span: Range<usize>| Place::Line(file.to_owned(), line_of(text, span.start));
        let raw: RawFile = toml::from_str(text).map_err(|error| {
            wrong(&place(error.span().unwrap_or(0..0)), error.message().trim_end().replace('\n', "; "))
        })?;
        if raw.network.is_empty() {
            return Err(wrong(&place(0..0), "the file describes no network; begin one with a line [[network]]"));
        }
        let networks = raw.network.into_iter().map(|network| {
            let begin = place(network.span());
            let network = network.into_inner();
            NetworkConfig {
                place: begin,
                name: network.name.map(|v| set(v, &place)),
                subnet: network.subnet.map(|v| set(v, &place)),
                gateway: network.gateway.map(|v| set(v, &place)),
                mtu: network.mtu.map(|v| set(v, &place)),
                uplink: network.uplink.map(|v| set(v, &place)),
                isolate: network.isolate.unwrap_or(false),
                dns: network.dns.map(|v| set(v, &place)),
                search: network.search.into_iter().map(|v| set(v, &place)).collect(),
                allow: network.allow.into_iter().map(|v| set(v, &place)).collect(),
                lease_time: network.lease_time.map(|v| set(v, &place)),
            }
        });
        Ok(Config { networks: networks.collect() })
    }

    /// The one network that the options of `up` describe.
    pub fn from_args(args: &NetworkArgs) -> Config {
        fn option<T: Clone>(value: &Option<T>, name: &'static str) -> Option<Set<T>> {
            value.clone().map(|value| Set { value, place: Place::Option(name) })
        }
        let network = NetworkConfig {
            subnet: option(&args.subnet, "--subnet"),
            gateway: option(&args.gateway, "--gateway"),
            mtu: option(&args.mtu, "--mtu"),
            uplink: option(&args.internal.then(|| "none".to_owned()), "--internal"),
            isolate: args.isolate,
            dns: option(&args.dns, "--dns"),
            allow: allow_options(&args.allow),
            ..NetworkConfig::empty(Place::Option("up"))
        };
        Config { networks: vec![network] }
    }

    /// The default network of a switch of one's own, with these `--allow` rules.
    pub fn own(allow: &[String]) -> Config {
        let network = NetworkConfig { allow: allow_options(allow), ..NetworkConfig::empty(Place::Option("--allow")) };
        Config { networks: vec![network] }
    }

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
            let subnet = match given {
                Some(subnet) => {
                    if let Some(other) = host.subnets.iter().find(|other| overlap(**other, subnet)) {
                        tracing::warn!(
                            "{}: subnet {subnet} overlaps with {other}, which an interface of this host has; containers \
                             will not reach what is there",
                            network.subnet.as_ref().map_or(&network.place, |subnet| &subnet.place)
                        );
                    }
                    subnet
                }
                None => free_subnet(&used).ok_or_else(|| {
                    wrong(&network.place, format!("every /24 of {POOL}/16 is in use; give the network a subnet"))
                })?,
            };
            used.push(subnet);
            let plan = network.plan(subnet, host, state_dir)?;
            for other in &plans {
                let place = network.name.as_ref().map_or(&network.place, |name| &name.place);
                if other.name == plan.name {
                    return Err(wrong(place, format!("two networks are called {}; rename one", plan.name)));
                }
                if overlap(other.subnet, subnet) {
                    let place = network.subnet.as_ref().map_or(&network.place, |subnet| &subnet.place);
                    let text = format!(
                        "subnet {subnet} overlaps with {} of network {}; choose another",
                        other.subnet, other.name
                    );
                    return Err(wrong(place, text));
                }
            }
            plans.push(plan);
        }
        Ok(plans)
    }
}

/// The text of a file or pipe, as long as it could be a description: a device may have no end.
fn read_bounded(file: &Path) -> io::Result<String> {
    // Looked at before it is opened, because opening a device may do something.
    let kind = std::fs::metadata(file)?.file_type();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(io::Error::other("it is neither a file nor a pipe"));
    }
    let mut text = String::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} KiB", MAX_FILE >> 10)));
    }
    Ok(text)
}

fn allow_options(rules: &[String]) -> Vec<Set<String>> {
    rules.iter().map(|rule| Set { value: rule.clone(), place: Place::Option("--allow") }).collect()
}

fn set<T>(value: Spanned<T>, place: &impl Fn(Range<usize>) -> Place) -> Set<T> {
    Set { place: place(value.span()), value: value.into_inner() }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

impl NetworkConfig {
    fn plan(&self, subnet: Ipv4Net, host: &Host, state_dir: Option<&Path>) -> Result<NetworkPlan, Error> {
        let name = self.name.as_ref().map_or(DEFAULT_NETWORK, |name| &name.value);
        if let Some(name) = &self.name {
            check_name(&name.value).map_err(|why| name.wrong(why))?;
        }
        let uplink = match &self.uplink {
            None => true,
            Some(uplink) => match uplink.value.as_str() {
                "user" => true,
                "none" => false,
                other => return Err(uplink.wrong(format!("uplink '{other}' is unknown; write \"user\" or \"none\""))),
            },
        };
        let allow = allowed(&self.allow)?;
        if let (false, Some(needless)) = (uplink, self.dns.as_ref().or(self.allow.first())) {
            return Err(needless.wrong("an internal network has no way out, so this would do nothing; remove it"));
        }
        for domain in &self.search {
            check_domain(&domain.value).map_err(|why| domain.wrong(why))?;
        }
        let resolver = match &self.dns {
            Some(dns) => Some(resolver(dns)?),
            None => host.resolver.filter(|_| uplink),
        };
        let mtu = within(self.mtu.as_ref(), MTU_RANGE, i64::from(DEFAULT_MTU), "mtu", "bytes")?;
        let lease_time =
            within(self.lease_time.as_ref(), LEASE_TIME_RANGE, DEFAULT_LEASE_TIME, "lease_time", "seconds")?;
        Ok(NetworkPlan {
            name: name.to_owned(),
            subnet,
            gateway: self.gateway(subnet)?,
            mtu: u16::try_from(mtu).unwrap_or(DEFAULT_MTU),
            uplink,
            isolate: self.isolate,
            resolver,
            search: self.search.iter().map(|domain| domain.value.clone()).collect(),
            allow,
            lease_time: Duration::from_secs(lease_time.unsigned_abs()),
            state_dir: state_dir.map(Path::to_owned),
        })
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

/// A number within its range, or its default.
fn within(value: Option<&Set<i64>>, range: Range<i64>, default: i64, what: &str, unit: &str) -> Result<i64, Error> {
    let Some(set) = value else { return Ok(default) };
    if range.contains(&set.value) {
        return Ok(set.value);
    }
    Err(set.wrong(format!("{what} {} is out of range; write {} to {} {unit}", set.value, range.start, range.end - 1)))
}

fn subnet(text: &Set<String>) -> Result<Ipv4Net, Error> {
    let net: Ipv4Net = text.value.parse().map_err(|_| {
        text.wrong(format!("subnet '{}' is not an IPv4 network; write one, as 10.9.0.0/24", text.value))
    })?;
    if !PREFIX_RANGE.contains(&net.prefix_len()) {
        return Err(text.wrong(format!(
            "subnet {net} cannot be used: its prefix must be /{} to /{}, to hold a gateway and its containers",
            PREFIX_RANGE.start,
            PREFIX_RANGE.end - 1
        )));
    }
    if net != net.trunc() {
        return Err(text.wrong(format!("subnet {net} has bits set behind its prefix; write {}", net.trunc())));
    }
    let first = net.network();
    if first.is_loopback() || first.octets()[0] == 0 || first.octets()[0] >= 224 || first.is_link_local() {
        return Err(text.wrong(format!("subnet {net} is reserved; choose a private one, as 10.9.0.0/24")));
    }
    Ok(net)
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
#[path = "config_tests.rs"]
mod tests;
