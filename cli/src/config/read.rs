//! Reading: a file or the options of a command in, a [`Config`] out in which every value knows its place.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::nat::NatConfig;
use super::place::{Place, Set, wrong};
use super::uplink::UplinkConfig;
use super::{Config, NetworkConfig};
use crate::args::NetworkArgs;
use crate::error::Error;

/// The largest description, in bytes: thousands of networks fit.
const MAX_FILE: u64 = 1 << 20;

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
    uplink_ip: Option<Spanned<String>>,
    uplink_gateway: Option<Spanned<String>>,
    uplink_mac: Option<Spanned<String>>,
    uplink_mtu: Option<Spanned<i64>>,
    translate: Option<Spanned<bool>>,
    nat: Option<Spanned<RawNat>>,
    isolate: Option<bool>,
    dns: Option<Spanned<String>>,
    #[serde(default)]
    search: Vec<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    publish: Vec<Spanned<String>>,
    #[serde(default)]
    routes: Vec<Spanned<String>>,
    #[serde(default)]
    connect: Vec<Spanned<String>>,
    lease_time: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNat {
    mapping: Option<Spanned<String>>,
    filtering: Option<Spanned<String>>,
    ports: Option<Spanned<String>>,
    port_range: Option<Spanned<String>>,
    udp_timeout: Option<Spanned<i64>>,
    tcp_established_timeout: Option<Spanned<i64>>,
    tcp_transitory_timeout: Option<Spanned<i64>>,
    icmp_timeout: Option<Spanned<i64>>,
    max_sessions: Option<Spanned<i64>>,
    container_sessions: Option<Spanned<i64>>,
    container_rate: Option<Spanned<i64>>,
    container_ports: Option<Spanned<i64>>,
    #[serde(default)]
    no_translate: Vec<Spanned<String>>,
    hairpin: Option<Spanned<bool>>,
}

/// Tells the line of a value by its place in the text.
struct Places<'a> {
    text: &'a str,
    file: &'a Path,
}

impl Places<'_> {
    fn at(&self, span: Range<usize>) -> Place {
        Place::Line(self.file.to_owned(), line_of(self.text, span.start))
    }

    fn set<T>(&self, value: Spanned<T>) -> Set<T> {
        Set { place: self.at(value.span()), value: value.into_inner() }
    }

    fn option<T>(&self, value: Option<Spanned<T>>) -> Option<Set<T>> {
        value.map(|value| self.set(value))
    }

    fn list<T>(&self, values: Vec<Spanned<T>>) -> Vec<Set<T>> {
        values.into_iter().map(|value| self.set(value)).collect()
    }

    fn network(&self, raw: Spanned<RawNetwork>) -> NetworkConfig {
        let place = self.at(raw.span());
        let raw = raw.into_inner();
        NetworkConfig {
            place,
            name: self.option(raw.name),
            subnet: self.option(raw.subnet),
            gateway: self.option(raw.gateway),
            mtu: self.option(raw.mtu),
            uplink: UplinkConfig {
                uplink: self.option(raw.uplink),
                ip: self.option(raw.uplink_ip),
                gateway: self.option(raw.uplink_gateway),
                mac: self.option(raw.uplink_mac),
                mtu: self.option(raw.uplink_mtu),
                translate: self.option(raw.translate),
                nat: raw.nat.map(|nat| Set { place: self.at(nat.span()), value: self.nat(nat.into_inner()) }),
            },
            isolate: raw.isolate.unwrap_or(false),
            dns: self.option(raw.dns),
            search: self.list(raw.search),
            allow: self.list(raw.allow),
            publish: self.list(raw.publish),
            routes: self.list(raw.routes),
            connect: self.list(raw.connect),
            lease_time: self.option(raw.lease_time),
        }
    }

    fn nat(&self, raw: RawNat) -> NatConfig {
        NatConfig {
            mapping: self.option(raw.mapping),
            filtering: self.option(raw.filtering),
            ports: self.option(raw.ports),
            port_range: self.option(raw.port_range),
            udp_timeout: self.option(raw.udp_timeout),
            tcp_established_timeout: self.option(raw.tcp_established_timeout),
            tcp_transitory_timeout: self.option(raw.tcp_transitory_timeout),
            icmp_timeout: self.option(raw.icmp_timeout),
            max_sessions: self.option(raw.max_sessions),
            container_sessions: self.option(raw.container_sessions),
            container_rate: self.option(raw.container_rate),
            container_ports: self.option(raw.container_ports),
            no_translate: self.list(raw.no_translate),
            hairpin: self.option(raw.hairpin),
        }
    }
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
        let places = Places { text, file };
        let raw: RawFile = toml::from_str(text).map_err(|error| {
            wrong(&places.at(error.span().unwrap_or(0..0)), error.message().trim_end().replace('\n', "; "))
        })?;
        if raw.network.is_empty() {
            return Err(wrong(&places.at(0..0), "the file describes no network; begin one with a line [[network]]"));
        }
        Ok(Config { networks: raw.network.into_iter().map(|network| places.network(network)).collect() })
    }

    /// The one network that the options of `up` describe.
    pub fn from_args(args: &NetworkArgs) -> Config {
        let internal = || option(&args.internal.then(|| "none".to_owned()), "--internal");
        let network = NetworkConfig {
            subnet: option(&args.subnet, "--subnet"),
            gateway: option(&args.gateway, "--gateway"),
            mtu: option(&args.mtu, "--mtu"),
            uplink: UplinkConfig {
                uplink: option(&args.uplink, "--uplink").or_else(internal),
                ip: option(&args.uplink_ip, "--uplink-ip"),
                gateway: option(&args.uplink_gateway, "--uplink-gateway"),
                mac: option(&args.uplink_mac, "--uplink-mac"),
                mtu: option(&args.uplink_mtu, "--uplink-mtu"),
                translate: option(&args.no_nat.then_some(false), "--no-nat"),
                nat: None,
            },
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
}

fn option<T: Clone>(value: &Option<T>, name: &'static str) -> Option<Set<T>> {
    value.clone().map(|value| Set { value, place: Place::Option(name) })
}

fn allow_options(rules: &[String]) -> Vec<Set<String>> {
    rules.iter().map(|rule| Set { value: rule.clone(), place: Place::Option("--allow") }).collect()
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

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
