//! Link-layer addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody on the LAN.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
    /// Nobody.
    pub const ZERO: Mac = Mac([0; 6]);

    /// The locally administered address of the host with this IPv4 address: `02:42:` and its four bytes.
    ///
    /// Deriving it means that an address which is given to another container meets no stale ARP entry.
    pub const fn from_ipv4(ip: Ipv4Addr) -> Mac {
        let [a, b, c, d] = ip.octets();
        Mac([0x02, 0x42, a, b, c, d])
    }

    /// Whether the group bit is set: broadcast is multicast too (IEEE 802, I/G bit).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this is the broadcast address.
    pub fn is_broadcast(self) -> bool {
        self == Mac::BROADCAST
    }

    /// Whether this may be somebody's own address: not a group and not zero.
    pub fn is_station(self) -> bool {
        !self.is_multicast() && self != Mac::ZERO
    }

    /// Whether a bridge must not relay to it: 01-80-C2-00-00-00 to -0F (IEEE 802.1D-2004 7.12.6, Table 7-10).
    pub fn is_link_reserved(self) -> bool {
        self.0[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && self.0[5] <= 0x0f
    }

    /// The address as the low 48 bits of a number.
    pub fn as_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("'{text}' is not a MAC address: write six bytes in hexadecimal, as 02:42:0a:00:00:02");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Mac(bytes)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_nonsense_is_refused() {
        let mac: Mac = "02:42:0A:00:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:0a:00:00:02");
        assert_eq!(mac, Mac::from_ipv4(Ipv4Addr::new(10, 0, 0, 2)));
        for bad in ["", "02:42", "02:42:0a:00:00:02:03", "02:42:0a:00:00:0g", "02:42:0a:00:00:+2", "::::::"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn reserved_range_ends_at_0f() {
        assert!("01:80:c2:00:00:00".parse::<Mac>().unwrap().is_link_reserved());
        assert!("01:80:c2:00:00:0f".parse::<Mac>().unwrap().is_link_reserved());
        assert!(!"01:80:c2:00:00:10".parse::<Mac>().unwrap().is_link_reserved());
        assert!(!"01:80:c2:00:00:20".parse::<Mac>().unwrap().is_link_reserved());
    }
}
