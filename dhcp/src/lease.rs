//! One address and who has it.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tapswitch_wire::{Instant, Mac, PortId};

/// Who a client says it is: the bytes of option 61 or, without it, hardware type and address (RFC 2131 4.2).
///
/// A client that sends its type and address as option 61, as udhcpc does, is the same client as without the option.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ClientId(Box<[u8]>);

impl ClientId {
    /// The identity in these bytes of option 61.
    pub(crate) fn new(bytes: &[u8]) -> ClientId {
        ClientId(bytes.into())
    }

    /// The identity of a client that sends no option 61.
    pub(crate) fn hardware(mac: Mac) -> ClientId {
        const ETHERNET: u8 = 1;
        let mut bytes = vec![ETHERNET];
        bytes.extend_from_slice(&mac.0);
        ClientId(bytes.into())
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for ClientId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClientId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nibble = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        };
        let bytes: Option<Box<[u8]>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes
            .filter(|bytes| !bytes.is_empty())
            .map(ClientId)
            .ok_or_else(|| serde::de::Error::custom("a client identifier is bytes in hexadecimal"))
    }
}

/// What an address in the table is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Kept for a client that has not answered the offer yet. Leads to bound, or back when the time is over.
    Offered,
    /// Acknowledged to a client until it expires. Leads to released or declined.
    Bound,
    /// Belongs to a container by name until that is released.
    Reserved,
    /// A client found it in use: nobody gets it until the quarantine is over. Leads to released.
    Declined,
    /// Free, but remembered for the one who had it last.
    Released,
}

/// A row of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lease {
    pub(crate) state: State,
    /// Whom it is kept for. A reservation has none: it goes by hardware address only.
    pub(crate) client: Option<ClientId>,
    pub(crate) mac: Mac,
    /// The port that it counts against: only if offered, bound or declined.
    pub(crate) port: Option<PortId>,
    pub(crate) hostname: Option<String>,
    /// The container it is, or was, reserved for.
    pub(crate) name: Option<String>,
    /// When the state ends; `None` for never, and always so if reserved or released.
    pub(crate) expires: Option<Instant>,
    /// The length that was granted, in seconds; 0 if reserved or released.
    pub(crate) secs: u32,
    /// Offered only: the client had it before, so it goes back to released rather than out of the table.
    pub(crate) remembered: bool,
}

impl Lease {
    /// The same address after its time: remembered, held by nobody.
    pub(crate) fn into_released(self) -> Lease {
        Lease { state: State::Released, port: None, expires: None, secs: 0, remembered: false, ..self }
    }
}

/// A row of the table as users see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LeaseView {
    /// The address.
    pub ip: Ipv4Addr,
    /// Hardware address of who has it, or had it last.
    pub mac: Mac,
    /// Client identifier (option 61, or type and hardware address) in hexadecimal. None for a reservation.
    pub client_id: Option<String>,
    /// The host name that the client gave, if it is a valid one.
    pub hostname: Option<String>,
    /// What the address is doing.
    pub state: State,
    /// Seconds until that ends; none if it does not end by itself.
    pub expires_in: Option<u64>,
    /// The container it is, or was, reserved for.
    pub name: Option<String>,
}

impl LeaseView {
    pub(crate) fn new(ip: Ipv4Addr, lease: &Lease, now: Instant) -> LeaseView {
        LeaseView {
            ip,
            mac: lease.mac,
            client_id: lease.client.as_ref().map(ClientId::to_string),
            hostname: lease.hostname.clone(),
            state: lease.state,
            expires_in: lease.expires.map(|at| (at - now).as_secs()),
            name: lease.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_json_and_nonsense_is_refused() {
        let id = ClientId::hardware(Mac([2, 0x42, 10, 0, 0, 0xff]));
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, "\"0102420a0000ff\"");
        assert_eq!(serde_json::from_str::<ClientId>(&text).unwrap(), id);
        for bad in ["\"\"", "\"0\"", "\"0g\"", "\"012\"", "\"é\"", "7"] {
            assert!(serde_json::from_str::<ClientId>(bad).is_err(), "{bad} was taken");
        }
    }
}
