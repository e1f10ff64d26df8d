//! Published ports: `[HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|udp]`, as in `docker run -p`.
//!
//! Without `HOSTIP` (or with 0.0.0.0) every address of the host, or of the uplink, leads to the container. Without
//! `HOSTPORT`, or with 0, a free port is picked; what was picked is in the answer. Ranges on both sides are of equal length, and the
//! n-th port leads to the n-th.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How specifications are written, for messages.
const FORM: &str = "[HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|udp], as 8080:80 or 127.0.0.1:5353:53/udp";
/// Free host ports, as many as are needed.
const ANY: &str = "0";

/// A protocol whose ports can be published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        })
    }
}

/// A port, or a range of them; the first is at least 1 and no higher than the last. Written `80` or `80-89`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// One port; none if it is 0.
    pub fn one(port: u16) -> Option<Ports> {
        Ports::new(port, port)
    }

    /// A range, both ends included; none if it would begin with 0 or is the wrong way round.
    pub fn new(first: u16, last: u16) -> Option<Ports> {
        (0 < first && first <= last).then_some(Ports { first, last })
    }

    /// The lowest.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many there are, 1 to 65535.
    pub fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// Each of them, in order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    /// Whether this is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether a port is in both.
    pub fn overlaps(self, other: Ports) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => write!(f, "{}", self.first),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        Ports::new(first, last).ok_or_else(|| format!("range {text} ends before it begins; write {last}-{first}"))
    }
}

fn port(text: &str) -> Result<u16, String> {
    // The standard library also takes a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(0) => Err("port 0 cannot be published; write 1 to 65535".into()),
        Ok(port) if digits => Ok(port),
        _ if digits => Err(format!("port {text} is out of range; write 1 to 65535")),
        _ => Err(format!("'{text}' is not a port; write 1 to 65535")),
    }
}

/// What shall be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Spec {
    /// The address that leads to the container; none for every one.
    pub host: Option<Ipv4Addr>,
    /// The ports there; none for free ones. As many as `ports`.
    pub host_ports: Option<Ports>,
    /// The container's ports.
    pub ports: Ports,
    /// Their protocol.
    pub proto: Proto,
}

impl Spec {
    /// Whether both ask for one port of one address. Free ports are nobody's yet.
    pub fn collides(&self, other: &Spec) -> bool {
        let same_host = match (self.host, other.host) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        let same_port = match (self.host_ports, other.host_ports) {
            (Some(a), Some(b)) => a.overlaps(b),
            _ => false,
        };
        self.proto == other.proto && same_host && same_port
    }

    /// Whether `published` is what this names to be ended: what is left out here may be anything there.
    pub fn names(&self, published: &Published) -> bool {
        self.proto == published.proto
            && self.ports == published.ports
            && self.host_ports.is_none_or(|ports| ports == published.host_ports)
            && self.host.is_none_or(|host| host == published.host)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host, self.host_ports) {
            (Some(host), Some(ports)) => write!(f, "{host}:{ports}:")?,
            (Some(host), None) => write!(f, "{host}::")?,
            (None, Some(ports)) => write!(f, "{ports}:")?,
            (None, None) => {}
        }
        write!(f, "{}/{}", self.ports, self.proto)
    }
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Spec, String> {
        let wrong = |why: String| format!("'{text}' cannot be published: {why}");
        let (rest, proto) = match text.split_once('/') {
            None => (text, Proto::Tcp),
            Some((rest, "tcp")) => (rest, Proto::Tcp),
            Some((rest, "udp")) => (rest, Proto::Udp),
            Some((_, other)) => {
                return Err(wrong(format!("protocol '{other}' has no published ports; write tcp or udp")));
            }
        };
        if rest.contains('[') || rest.contains(']') || rest.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(wrong("IPv4 only; write an IPv4 address, or none".into()));
        }
        let parts: Vec<&str> = rest.split(':').collect();
        let (host, host_ports, ports) = match parts[..] {
            [ports] => (None, None, ports),
            // An address has dots, a port has none.
            [host, ports] if host.contains('.') => (Some(host), None, ports),
            [host_ports, ports] => (None, Some(host_ports), ports),
            [host, "", ports] => (Some(host), None, ports),
            [host, host_ports, ports] => (Some(host), Some(host_ports), ports),
            _ => return Err(wrong(format!("there is a ':' too many; write {FORM}"))),
        };
        let ports: Ports = ports.parse().map_err(wrong)?;
        let host_ports = host_ports.filter(|ports| *ports != ANY);
        let host_ports: Option<Ports> = host_ports.map(str::parse).transpose().map_err(wrong)?;
        if let Some(host_ports) = host_ports
            && host_ports.count() != ports.count()
        {
            return Err(wrong(format!(
                "{host_ports} are {} ports and {ports} are {}; write ranges of equal length",
                host_ports.count(),
                ports.count()
            )));
        }
        Ok(Spec { host: host.map(address).transpose().map_err(wrong)?.flatten(), host_ports, ports, proto })
    }
}

fn address(text: &str) -> Result<Option<Ipv4Addr>, String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => Ok(None),
        Ok(IpAddr::V4(ip)) if ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0 => {
            Err(format!("{ip} is no host's address; write one of this host, or none for all"))
        }
        Ok(IpAddr::V4(ip)) => Ok(Some(ip)),
        Ok(IpAddr::V6(_)) => Err("IPv4 only; write an IPv4 address, or none".into()),
        Err(_) => Err(format!("'{text}' is not an IPv4 address; write {FORM}")),
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<$type, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

as_text!(Ports);
as_text!(Spec);

/// What is published: a [`Spec`] with everything settled. Shown as `0.0.0.0:8080->80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Published {
    /// The address that leads to the container; 0.0.0.0 for every one of the host, or of the uplink.
    pub host: Ipv4Addr,
    /// The ports there, as many as `ports`.
    pub host_ports: Ports,
    /// The container's ports.
    pub ports: Ports,
    /// Their protocol.
    pub proto: Proto,
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}->{}/{}", self.host, self.host_ports, self.ports, self.proto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn every_form_is_understood() {
        let (tcp, udp) = (Proto::Tcp, Proto::Udp);
        for (text, host, host_ports, ports, proto) in [
            ("80", None, None, (80, 80), tcp),
            ("80/tcp", None, None, (80, 80), tcp),
            ("53/udp", None, None, (53, 53), udp),
            ("80-89", None, None, (80, 89), tcp),
            ("8080:80", None, Some((8080, 8080)), (80, 80), tcp),
            ("5353:53/udp", None, Some((5353, 5353)), (53, 53), udp),
            ("8000-8009:80-89", None, Some((8000, 8009)), (80, 89), tcp),
            ("127.0.0.1:8080:80", Some("127.0.0.1"), Some((8080, 8080)), (80, 80), tcp),
            ("127.0.0.1::80", Some("127.0.0.1"), None, (80, 80), tcp),
            ("127.0.0.1:80", Some("127.0.0.1"), None, (80, 80), tcp),
            ("192.0.2.7:8000-8001:80-81/udp", Some("192.0.2.7"), Some((8000, 8001)), (80, 81), udp),
            ("0.0.0.0:8080:80", None, Some((8080, 8080)), (80, 80), tcp),
            ("1-65535:1-65535", None, Some((1, 65_535)), (1, 65_535), tcp),
            ("80-80:90", None, Some((80, 80)), (90, 90), tcp),
            ("0:80", None, None, (80, 80), tcp),
            ("0:80-89/udp", None, None, (80, 89), udp),
            ("127.0.0.1:0:80", Some("127.0.0.1"), None, (80, 80), tcp),
        ] {
            let range = |(first, last)| Ports::new(first, last).unwrap();
            let expected = Spec {
                host: host.map(|host| host.parse().unwrap()),
                host_ports: host_ports.map(range),
                ports: range(ports),
                proto,
            };
            assert_eq!(spec(text), expected, "{text}");
            assert_eq!(spec(&expected.to_string()), expected, "what is shown can be read again: {expected}");
            let json = serde_json::to_string(&expected).unwrap();
            assert_eq!(json, format!("\"{expected}\""));
            assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), expected);
        }
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, expected) in [
            ("", "'' is not a port"),
            ("/tcp", "'' is not a port"),
            ("http", "'http' is not a port"),
            ("0", "port 0 cannot be published"),
            ("0-0:80", "port 0 cannot be published"),
            ("8080:0", "port 0 cannot be published"),
            ("0-9", "port 0 cannot be published"),
            ("0-9:80-89", "port 0 cannot be published"),
            ("00:80", "port 0 cannot be published"),
            ("65536", "port 65536 is out of range; write 1 to 65535"),
            ("99999999999999999999", "out of range"),
            ("-80", "'' is not a port"),
            ("+80", "'+80' is not a port"),
            (" 80", "' 80' is not a port"),
            ("80-", "'' is not a port"),
            ("89-80", "ends before it begins; write 80-89"),
            ("8000-8001:80", "8000-8001 are 2 ports and 80 are 1; write ranges of equal length"),
            ("8000:80-81", "ranges of equal length"),
            ("8000-8001:80-82", "ranges of equal length"),
            (":80", "'' is not a port"),
            ("80:", "'' is not a port"),
            ("80/sctp", "protocol 'sctp' has no published ports; write tcp or udp"),
            ("80/TCP", "write tcp or udp"),
            ("80/", "write tcp or udp"),
            ("80/tcp/udp", "write tcp or udp"),
            ("[::1]:8080:80", "IPv4 only"),
            ("[::]:80:80/udp", "IPv4 only"),
            ("::1", "IPv4 only"),
            ("::", "IPv4 only"),
            ("a:b:c:d", "a ':' too many"),
            ("localhost:8080:80", "'localhost' is not an IPv4 address"),
            ("1.2.3:8080:80", "'1.2.3' is not an IPv4 address"),
            ("1.2.3.4.5:80", "not an IPv4 address"),
            (":8080:80", "'' is not an IPv4 address"),
            ("224.0.0.1:8080:80", "no host's address"),
            ("255.255.255.255:8080:80", "no host's address"),
            ("0.0.0.7:8080:80", "no host's address"),
        ] {
            match text.parse::<Spec>() {
                Ok(spec) => panic!("{text:?} was taken: {spec:?}"),
                Err(why) => {
                    assert!(why.starts_with(&format!("'{text}' cannot be published: ")), "{why}");
                    assert!(why.contains(expected), "{text:?}: {why}");
                }
            }
        }
    }

    #[test]
    fn two_that_ask_for_one_port_collide() {
        for (a, b, collide) in [
            ("8080:80", "8080:90", true),
            ("8080:80", "127.0.0.1:8080:80", true),
            ("127.0.0.1:8080:80", "127.0.0.2:8080:80", false),
            ("8080:80", "8080:80/udp", false),
            ("8080-8089:80-89", "8089:80", true),
            ("8080-8089:80-89", "8090:80", false),
            ("80", "80", false),
        ] {
            assert_eq!(spec(a).collides(&spec(b)), collide, "{a} {b}");
            assert_eq!(spec(b).collides(&spec(a)), collide, "{b} {a}");
        }
    }

    #[test]
    fn what_is_left_out_names_whatever_is_published() {
        let published = Published {
            host: Ipv4Addr::UNSPECIFIED,
            host_ports: Ports::one(8080).unwrap(),
            ports: Ports::one(80).unwrap(),
            proto: Proto::Tcp,
        };
        assert_eq!(published.to_string(), "0.0.0.0:8080->80/tcp");
        for (text, named) in [
            ("80", true),
            ("8080:80", true),
            ("0.0.0.0:8080:80", true),
            ("8081:80", false),
            ("127.0.0.1:8080:80", false),
            ("80/udp", false),
            ("81", false),
        ] {
            assert_eq!(spec(text).names(&published), named, "{text}");
        }
    }

    #[test]
    fn ranges_count_their_ends() {
        let ports = Ports::new(80, 82).unwrap();
        assert_eq!((ports.first(), ports.last(), ports.count()), (80, 82, 3));
        assert_eq!(ports.iter().collect::<Vec<_>>(), [80, 81, 82]);
        assert!(ports.contains(82) && !ports.contains(83) && !ports.contains(79));
        assert_eq!(Ports::new(1, 65_535).unwrap().count(), 65_535);
        assert_eq!((Ports::new(0, 5), Ports::new(5, 4)), (None, None));
    }
}
