//! How an uplink of packets translates and tracks: the table `[network.nat]`.
//!
//! | key | default | rests on |
//! |---|---|---|
//! | `mapping` | endpoint-independent | RFC 4787 REQ-1, RFC 5382 REQ-1 |
//! | `filtering` | address-dependent | RFC 4787 REQ-8 |
//! | `ports` | random | RFC 6056 3.3 |
//! | `port_range` | 1024-65535 | |
//! | `udp_timeout` | 300 s, at least 120 | RFC 4787 REQ-5 |
//! | `tcp_established_timeout` | 7440 s, at least that | RFC 5382 REQ-5 |
//! | `tcp_transitory_timeout` | 240 s, at least that | RFC 5382 REQ-5 |
//! | `icmp_timeout` | 60 s, at least that | RFC 5508 REQ-2 |
//! | `max_sessions` | 262144 | |
//! | `container_sessions`, `container_rate`, `container_ports` | 65536, 50000/s, 32768 of a protocol | |
//! | `no_translate` | none | |
//! | `hairpin` | true | RFC 4787 REQ-9 |

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv4Net;
use tapswitch_conntrack::{Dependence, PortChoice};

use super::place::{Set, within};
use crate::error::Error;

/// A year: a longer timer is a mistake.
const LONGEST: i64 = 31_536_000;
const MAX_SESSIONS: i64 = 4_194_304;
const MAX_RATE: i64 = 10_000_000;

/// How an uplink of packets translates and tracks, with every value settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatPlan {
    /// When an internal endpoint keeps its external one.
    pub mapping: Dependence,
    /// From whom a mapping lets packets in.
    pub filtering: Dependence,
    /// Which external port a mapping gets.
    pub ports: PortChoice,
    /// The external ports; the first is at least 1.
    pub port_range: RangeInclusive<u16>,
    /// Idle time of a UDP mapping.
    pub udp_timeout: Duration,
    /// Idle time of an established TCP connection.
    pub tcp_established_timeout: Duration,
    /// Idle time of a TCP connection that is being opened or closed.
    pub tcp_transitory_timeout: Duration,
    /// Idle time of an echo's mapping.
    pub icmp_timeout: Duration,
    /// Most sessions of the network.
    pub max_sessions: u32,
    /// Most sessions of one container, no more than of the network.
    pub container_sessions: u32,
    /// Most new sessions of one container in a second.
    pub container_rate: u32,
    /// Most external ports of one container for each protocol.
    pub container_ports: u32,
    /// Destinations reached with the container's own address.
    pub no_translate: Vec<Ipv4Net>,
    /// Whether a container reaches another by its external endpoint.
    pub hairpin: bool,
}

impl Default for NatPlan {
    fn default() -> NatPlan {
        NatPlan {
            mapping: Dependence::EndpointIndependent,
            filtering: Dependence::AddressDependent,
            ports: PortChoice::Random,
            port_range: 1024..=65_535,
            udp_timeout: Duration::from_secs(300),
            tcp_established_timeout: Duration::from_secs(7440),
            tcp_transitory_timeout: Duration::from_secs(240),
            icmp_timeout: Duration::from_secs(60),
            max_sessions: 262_144,
            container_sessions: 65_536,
            container_rate: 50_000,
            container_ports: 32_768,
            no_translate: Vec::new(),
            hairpin: true,
        }
    }
}

/// The table as it is described: what is `None` or empty takes its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatConfig {
    /// See [`NatPlan::mapping`].
    pub mapping: Option<Set<String>>,
    /// See [`NatPlan::filtering`].
    pub filtering: Option<Set<String>>,
    /// See [`NatPlan::ports`].
    pub ports: Option<Set<String>>,
    /// `FIRST-LAST`.
    pub port_range: Option<Set<String>>,
    /// Seconds.
    pub udp_timeout: Option<Set<i64>>,
    /// Seconds.
    pub tcp_established_timeout: Option<Set<i64>>,
    /// Seconds.
    pub tcp_transitory_timeout: Option<Set<i64>>,
    /// Seconds.
    pub icmp_timeout: Option<Set<i64>>,
    /// See [`NatPlan::max_sessions`].
    pub max_sessions: Option<Set<i64>>,
    /// See [`NatPlan::container_sessions`].
    pub container_sessions: Option<Set<i64>>,
    /// See [`NatPlan::container_rate`].
    pub container_rate: Option<Set<i64>>,
    /// See [`NatPlan::container_ports`].
    pub container_ports: Option<Set<i64>>,
    /// CIDR.
    pub no_translate: Vec<Set<String>>,
    /// See [`NatPlan::hairpin`].
    pub hairpin: Option<Set<bool>>,
}

impl NatConfig {
    /// Settles every value. Without translation only what concerns sessions means anything.
    pub(super) fn plan(&self, translate: bool) -> Result<NatPlan, Error> {
        if !translate {
            self.refuse_translation()?;
        }
        let default = NatPlan::default();
        let max_sessions =
            count(self.max_sessions.as_ref(), MAX_SESSIONS, default.max_sessions, "max_sessions", "sessions")?;
        let fewer = default.container_sessions.min(max_sessions);
        let container_sessions =
            count(self.container_sessions.as_ref(), MAX_SESSIONS, fewer, "container_sessions", "sessions")?;
        if let Some(set) = &self.container_sessions
            && container_sessions > max_sessions
        {
            return Err(set.wrong(format!(
                "container_sessions {container_sessions} is more than max_sessions {max_sessions}, so one container \
                 could use up what the others need; write less"
            )));
        }
        Ok(NatPlan {
            mapping: choose(self.mapping.as_ref(), default.mapping, "mapping", &Dependence::ALL, Dependence::name)?,
            filtering: choose(
                self.filtering.as_ref(),
                default.filtering,
                "filtering",
                &Dependence::ALL,
                Dependence::name,
            )?,
            ports: choose(self.ports.as_ref(), default.ports, "ports", &PortChoice::ALL, PortChoice::name)?,
            port_range: self.port_range.as_ref().map_or(Ok(default.port_range), port_range)?,
            udp_timeout: timer(self.udp_timeout.as_ref(), 120, default.udp_timeout, "udp_timeout", "RFC 4787 REQ-5")?,
            tcp_established_timeout: timer(
                self.tcp_established_timeout.as_ref(),
                7440,
                default.tcp_established_timeout,
                "tcp_established_timeout",
                "RFC 5382 REQ-5",
            )?,
            tcp_transitory_timeout: timer(
                self.tcp_transitory_timeout.as_ref(),
                240,
                default.tcp_transitory_timeout,
                "tcp_transitory_timeout",
                "RFC 5382 REQ-5",
            )?,
            icmp_timeout: timer(
                self.icmp_timeout.as_ref(),
                60,
                default.icmp_timeout,
                "icmp_timeout",
                "RFC 5508 REQ-2",
            )?,
            max_sessions,
            container_sessions,
            container_rate: count(
                self.container_rate.as_ref(),
                MAX_RATE,
                default.container_rate,
                "container_rate",
                "sessions a second",
            )?,
            container_ports: count(
                self.container_ports.as_ref(),
                65_535,
                default.container_ports,
                "container_ports",
                "ports",
            )?,
            no_translate: self.no_translate.iter().map(destination).collect::<Result<_, _>>()?,
            hairpin: self.hairpin.as_ref().map_or(default.hairpin, |set| set.value),
        })
    }

    fn refuse_translation(&self) -> Result<(), Error> {
        let texts = [&self.mapping, &self.ports, &self.port_range].into_iter().flatten();
        let place = texts
            .chain(&self.no_translate)
            .map(|set| &set.place)
            .chain(self.container_ports.iter().map(|set| &set.place))
            .chain(self.hairpin.iter().map(|set| &set.place));
        match place.into_iter().next() {
            None => Ok(()),
            Some(place) => Err(super::place::wrong(
                place,
                "packets leave with their own addresses (translate is false), so this would do nothing; remove it",
            )),
        }
    }
}

fn choose<T: Copy>(
    text: Option<&Set<String>>,
    default: T,
    what: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, Error> {
    let Some(text) = text else { return Ok(default) };
    all.iter().copied().find(|choice| name(*choice) == text.value).ok_or_else(|| {
        let names: Vec<String> = all.iter().map(|choice| format!("\"{}\"", name(*choice))).collect();
        text.wrong(format!("{what} '{}' is unknown; write {}", text.value, names.join(" or ")))
    })
}

fn port_range(text: &Set<String>) -> Result<RangeInclusive<u16>, Error> {
    let ends = text
        .value
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?)));
    match ends {
        Some((first, last)) if 0 < first && first <= last => Ok(first..=last),
        _ => Err(text.wrong(format!(
            "port_range '{}' is no range of ports; write FIRST-LAST, each 1 to 65535, as 1024-65535",
            text.value
        ))),
    }
}

fn count(value: Option<&Set<i64>>, most: i64, default: u32, what: &str, unit: &str) -> Result<u32, Error> {
    let count = within(value, 1..most + 1, default.into(), what, unit)?;
    Ok(u32::try_from(count).unwrap_or(default))
}

fn timer(value: Option<&Set<i64>>, least: i64, default: Duration, what: &str, source: &str) -> Result<Duration, Error> {
    let Some(set) = value else { return Ok(default) };
    if set.value < least {
        return Err(set.wrong(format!(
            "{what} {} is too short: {source} demands at least {least} seconds; write that or more",
            set.value
        )));
    }
    let seconds = within(value, least..LONGEST + 1, least, what, "seconds")?;
    Ok(Duration::from_secs(seconds.unsigned_abs()))
}

fn destination(text: &Set<String>) -> Result<Ipv4Net, Error> {
    super::network_of(text, "no_translate")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Host, NetworkPlan};
    use super::*;

    fn plans(nat: &str) -> Result<Vec<NetworkPlan>, Error> {
        let text = format!("[[network]]\nuplink = 'nat:eth0'\n[network.nat]\n{nat}\n");
        Config::parse(&text, Path::new("lan.toml"))?.plan(&Host::default(), None)
    }

    fn nat(nat: &str) -> Result<NatPlan, Error> {
        Ok(plans(nat)?[0].uplink.packet().unwrap().nat.clone())
    }

    #[test]
    fn an_empty_table_is_the_default() {
        assert_eq!(nat("").unwrap(), NatPlan::default());
        let default = NatPlan::default();
        assert_eq!(default.mapping, Dependence::EndpointIndependent);
        assert_eq!(default.filtering, Dependence::AddressDependent);
        assert!(default.container_sessions <= default.max_sessions);
    }

    #[test]
    fn everything_may_be_said() {
        let plan =
            nat("mapping = 'address-and-port-dependent'\nfiltering = 'endpoint-independent'\nports = 'preserve'\n\
                        port_range = '2000-2000'\nudp_timeout = 120\ntcp_established_timeout = 7440\n\
                        tcp_transitory_timeout = 240\nicmp_timeout = 31536000\nmax_sessions = 4194304\n\
                        container_sessions = 1\ncontainer_rate = 1\ncontainer_ports = 65535\n\
                        no_translate = ['10.0.0.0/8', '192.0.2.1/32']\nhairpin = false")
            .unwrap();
        let expected = NatPlan {
            mapping: Dependence::AddressAndPortDependent,
            filtering: Dependence::EndpointIndependent,
            ports: PortChoice::Preserve,
            port_range: 2000..=2000,
            udp_timeout: Duration::from_secs(120),
            tcp_established_timeout: Duration::from_secs(7440),
            tcp_transitory_timeout: Duration::from_secs(240),
            icmp_timeout: Duration::from_secs(31_536_000),
            max_sessions: 4_194_304,
            container_sessions: 1,
            container_rate: 1,
            container_ports: 65_535,
            no_translate: vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()],
            hairpin: false,
        };
        assert_eq!(plan, expected);
    }

    #[test]
    fn fewer_sessions_in_all_are_fewer_for_each_container() {
        assert_eq!(nat("max_sessions = 100").unwrap().container_sessions, 100);
    }

    #[test]
    fn mistakes_name_their_line_and_the_standard() {
        for (text, expected) in [
            (
                "mapping = 'cone'",
                "mapping 'cone' is unknown; write \"endpoint-independent\" or \"address-dependent\" or",
            ),
            ("filtering = ''", "filtering '' is unknown"),
            ("ports = 'even'", "write \"random\" or \"preserve\""),
            ("port_range = '0-10'", "FIRST-LAST"),
            ("port_range = '10-9'", "FIRST-LAST"),
            ("port_range = '1024'", "FIRST-LAST"),
            ("port_range = '1-65536'", "FIRST-LAST"),
            ("udp_timeout = 119", "RFC 4787 REQ-5 demands at least 120 seconds"),
            ("tcp_established_timeout = 7439", "RFC 5382 REQ-5 demands at least 7440 seconds"),
            ("tcp_transitory_timeout = 239", "RFC 5382 REQ-5 demands at least 240 seconds"),
            ("icmp_timeout = 59", "RFC 5508 REQ-2 demands at least 60 seconds"),
            ("icmp_timeout = -1", "RFC 5508 REQ-2"),
            ("udp_timeout = 31536001", "120 to 31536000 seconds"),
            ("max_sessions = 0", "1 to 4194304 sessions"),
            ("max_sessions = 4194305", "1 to 4194304 sessions"),
            ("container_sessions = 262145", "more than max_sessions 262144"),
            ("container_rate = 0", "sessions a second"),
            ("container_ports = 65536", "1 to 65535 ports"),
            ("no_translate = ['10.0.0.1/8']", "write 10.0.0.0/8"),
            ("no_translate = ['10.0.0.1']", "not an IPv4 network"),
            ("hairpin = 'yes'", "expected a boolean"),
            ("timeout = 1", "unknown field `timeout`"),
        ] {
            match nat(text) {
                Ok(plan) => panic!("{text:?} was taken: {plan:?}"),
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.starts_with("lan.toml:4: ") && message.contains(expected), "{text:?}: {message}");
                }
            }
        }
    }

    #[test]
    fn what_would_do_nothing_is_refused() {
        let judge = |text: &str| {
            Config::parse(text, Path::new("lan.toml")).and_then(|config| config.plan(&Host::default(), None))
        };
        let routed = "[[network]]\nuplink = 'nat:eth0'\ntranslate = false\n[network.nat]\n";
        for key in
            ["mapping = 'address-dependent'", "port_range = '1-9'", "no_translate = ['10.0.0.0/8']", "hairpin = true"]
        {
            let error = judge(&format!("{routed}{key}\n")).unwrap_err().to_string();
            assert!(error.starts_with("lan.toml:5: ") && error.contains("own addresses"), "{error}");
        }
        let plan = judge(&format!("{routed}udp_timeout = 600\n")).unwrap();
        assert_eq!(plan[0].uplink.packet().unwrap().nat.udp_timeout, Duration::from_secs(600));
        for uplink in ["user", "none", "lan:eth0"] {
            let error = judge(&format!("[[network]]\nuplink = '{uplink}'\n[network.nat]\n")).unwrap_err().to_string();
            assert!(error.starts_with("lan.toml:3: ") && error.contains("nat:IFACE and tun:NAME"), "{error}");
        }
    }
}
