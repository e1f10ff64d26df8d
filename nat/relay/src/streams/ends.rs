//! The two ends of a connection, in the fewest bytes that can tell connections apart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::flow::Key;
use crate::host::Proto;

/// The container's end and the other one, as the container sees them. IPv4 costs 16 bytes; IPv6 stands elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Ends {
    V4 { src: Ipv4Addr, dst: Ipv4Addr, src_port: u16, dst_port: u16 },
    V6(Box<(SocketAddr, SocketAddr)>),
}

impl Ends {
    pub(crate) fn new(key: &Key) -> Ends {
        match (key.src, key.dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) => {
                Ends::V4 { src: *src.ip(), dst: *dst.ip(), src_port: src.port(), dst_port: dst.port() }
            }
            (src, dst) => Ends::V6(Box::new((src, dst))),
        }
    }

    pub(crate) fn key(&self) -> Key {
        let (src, dst) = match self {
            Ends::V4 { src, dst, src_port, dst_port } => {
                (SocketAddr::new(IpAddr::V4(*src), *src_port), SocketAddr::new(IpAddr::V4(*dst), *dst_port))
            }
            Ends::V6(ends) => **ends,
        };
        Key { proto: Proto::Tcp, src, dst }
    }

    /// Whether these are the ends of `key`.
    #[inline]
    pub(crate) fn are(&self, key: &Key) -> bool {
        match (self, key.src, key.dst) {
            (Ends::V4 { src, dst, src_port, dst_port }, SocketAddr::V4(from), SocketAddr::V4(to)) => {
                (src, *src_port, dst, *dst_port) == (from.ip(), from.port(), to.ip(), to.port())
            }
            (Ends::V6(ends), from, to) => **ends == (from, to),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_those_of_their_key_and_of_no_other() {
        let key =
            |src: &str, dst: &str| Key { proto: Proto::Tcp, src: src.parse().unwrap(), dst: dst.parse().unwrap() };
        let keys = [
            key("10.0.0.2:1000", "198.51.100.1:80"),
            key("10.0.0.2:1000", "198.51.100.1:81"),
            key("10.0.0.2:1001", "198.51.100.1:80"),
            key("10.0.0.3:1000", "198.51.100.1:80"),
            key("10.0.0.2:1000", "198.51.100.2:80"),
            key("[2001:db8::2]:1000", "[2001:db8::1]:80"),
            key("[2001:db8::2]:1000", "[2001:db8::1]:81"),
        ];
        for (a, ends) in keys.iter().map(Ends::new).enumerate() {
            assert_eq!(ends.key(), keys[a]);
            for (b, key) in keys.iter().enumerate() {
                assert_eq!(ends.are(key), a == b);
            }
        }
        assert_eq!(size_of::<Ends>(), 16);
    }
}
