//! What a client says: one message, strictly decoded.
//!
//! The fixed header is decoded by dhcproto. The options are walked here, because its option decoder cannot refuse what
//! RFC 2131 4.1 forbids: it stops silently at an option that runs past the end, needs no end option, lets a repeated
//! option 53 win, does not follow option 52 into `file` and `sname`, joins only adjacent parts of a long option
//! (RFC 3396 joins all), and asserts lengths that a packet sets (80, 81, 94, 152 and others).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::{HType, MAGIC, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, v4};
use tapswitch_wire::{DropReason, Mac};

use crate::lease::ClientId;

/// Bytes of the fixed header with the magic cookie.
pub(crate) const HEADER_LEN: usize = 240;
/// Where `sname` and `file` stand in the header.
pub(crate) const SNAME: std::ops::Range<usize> = 44..108;
pub(crate) const FILE: std::ops::Range<usize> = 108..236;

/// The longest option 61 that is taken in: what fits one option.
const MAX_CLIENT_ID: usize = 255;

/// A message of a client, with the options that the server looks at.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The fixed header; it holds no options.
    pub(crate) header: Message,
    pub(crate) kind: MessageType,
    pub(crate) mac: Mac,
    pub(crate) client: ClientId,
    /// Option 50.
    pub(crate) requested: Option<Ipv4Addr>,
    /// Option 54.
    pub(crate) server: Option<Ipv4Addr>,
    /// Option 51.
    pub(crate) lease_secs: Option<u32>,
    /// Option 55.
    pub(crate) wanted: Option<Vec<OptionCode>>,
    /// Option 57.
    pub(crate) max_size: Option<u16>,
    /// Option 12, in lower case, if it is a valid host name.
    pub(crate) hostname: Option<String>,
    /// Option 61 as it came, to be echoed (RFC 6842).
    pub(crate) client_id: Option<Vec<u8>>,
    /// Option 82 as it came, to be echoed (RFC 3046 2.2).
    pub(crate) relay_info: Option<Vec<u8>>,
}

impl Request {
    /// Decodes the payload of a datagram to port 67.
    ///
    /// # Errors
    /// [`DropReason::DhcpFromClient`] for what only servers send, [`DropReason::DhcpMalformed`] for all that is wrong.
    pub(crate) fn parse(payload: &[u8]) -> Result<Request, DropReason> {
        const MALFORMED: DropReason = DropReason::DhcpMalformed;
        let fixed = payload.get(..HEADER_LEN).ok_or(MALFORMED)?;
        if !fixed.ends_with(&MAGIC) {
            return Err(MALFORMED);
        }
        let header = Message::from_bytes(fixed).map_err(|_| MALFORMED)?;
        match header.opcode() {
            Opcode::BootRequest => {}
            Opcode::BootReply => return Err(DropReason::DhcpFromClient),
            _ => return Err(MALFORMED),
        }
        if header.htype() != HType::Eth || header.hlen() != 6 {
            return Err(MALFORMED);
        }
        let mac = Mac(header.chaddr().try_into().map_err(|_| MALFORMED)?);
        if !mac.is_station() {
            return Err(MALFORMED);
        }
        let mut options = Options::read(payload)?;
        let kind =
            v4::MessageType::from(options.number(OptionCode::MessageType)?.map(u8::from_be_bytes).ok_or(MALFORMED)?);
        if matches!(kind, MessageType::Offer | MessageType::Ack | MessageType::Nak) {
            return Err(DropReason::DhcpFromClient);
        }
        let client_id = options.take(OptionCode::ClientIdentifier);
        let client = match &client_id {
            Some(bytes) if bytes.is_empty() || bytes.len() > MAX_CLIENT_ID => return Err(MALFORMED),
            Some(bytes) => ClientId::new(bytes),
            None => ClientId::hardware(mac),
        };
        Ok(Request {
            kind,
            mac,
            client,
            requested: options.number(OptionCode::RequestedIpAddress)?.map(Ipv4Addr::from),
            server: options.number(OptionCode::ServerIdentifier)?.map(Ipv4Addr::from),
            lease_secs: options.number(OptionCode::AddressLeaseTime)?.map(u32::from_be_bytes),
            max_size: options.number(OptionCode::MaxMessageSize)?.map(u16::from_be_bytes),
            wanted: options
                .take(OptionCode::ParameterRequestList)
                .map(|codes| codes.into_iter().map(OptionCode::from).collect()),
            hostname: options.take(OptionCode::Hostname).and_then(|bytes| host_name(&bytes)),
            relay_info: options.take(OptionCode::RelayAgentInformation),
            client_id,
            header,
        })
    }

    /// Whether a relay agent passed it on.
    pub(crate) fn is_relayed(&self) -> bool {
        !self.header.giaddr().is_unspecified()
    }
}

/// All options of a message; the parts of one that was split are joined (RFC 3396).
struct Options(BTreeMap<OptionCode, Vec<u8>>);

impl Options {
    /// Reads the options field and, if option 52 says so, `file` and then `sname` (RFC 3396 5 gives the order).
    fn read(payload: &[u8]) -> Result<Options, DropReason> {
        let mut options = Options(BTreeMap::new());
        options.walk(payload.get(HEADER_LEN..))?;
        let overload = options.number(OptionCode::OptionOverload)?.map_or(0, u8::from_be_bytes);
        if overload > 3 || (overload == 0 && options.0.contains_key(&OptionCode::OptionOverload)) {
            return Err(DropReason::DhcpMalformed);
        }
        if overload & 1 != 0 {
            options.walk(payload.get(FILE))?;
        }
        if overload & 2 != 0 {
            options.walk(payload.get(SNAME))?;
        }
        // A second option 52 in there would have been joined to the first.
        options.number::<1>(OptionCode::OptionOverload)?;
        Ok(options)
    }

    /// Reads one field up to its end option, which must be there; what follows is padding.
    fn walk(&mut self, field: Option<&[u8]>) -> Result<(), DropReason> {
        let step = |rest: &mut &[u8]| {
            let (first, tail) = rest.split_first()?;
            *rest = tail;
            Some(*first)
        };
        let mut rest = field.unwrap_or_default();
        loop {
            match step(&mut rest).map(OptionCode::from).ok_or(DropReason::DhcpMalformed)? {
                OptionCode::Pad => {}
                OptionCode::End => return Ok(()),
                code => {
                    let len = step(&mut rest).ok_or(DropReason::DhcpMalformed)?;
                    let (value, tail) = rest.split_at_checked(len.into()).ok_or(DropReason::DhcpMalformed)?;
                    self.0.entry(code).or_default().extend_from_slice(value);
                    rest = tail;
                }
            }
        }
    }

    fn take(&mut self, code: OptionCode) -> Option<Vec<u8>> {
        self.0.remove(&code)
    }

    /// An option of exactly `N` bytes. One that came twice is longer and so malformed.
    fn number<const N: usize>(&self, code: OptionCode) -> Result<Option<[u8; N]>, DropReason> {
        let value = self.0.get(&code).map(|value| value.as_slice().try_into());
        value.transpose().map_err(|_| DropReason::DhcpMalformed)
    }
}

/// The host name in option 12: labels of letters, digits and hyphens (RFC 1123 2.1). Anything else is no name that may
/// reach a terminal or the DNS.
pub(crate) fn host_name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').trim_end_matches('.');
    is_host_name(text).then(|| text.to_ascii_lowercase())
}

/// Whether this is a host name in the sense of RFC 1123 2.1.
pub(crate) fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_are_host_names() {
        let long = "a".repeat(64);
        for good in ["c1", "C1.Example", "web-1\0", "a.b."] {
            assert!(host_name(good.as_bytes()).is_some(), "{good:?} was refused");
        }
        assert_eq!(host_name(b"WEB\0").as_deref(), Some("web"));
        for bad in ["", "-a", "a-", "a..b", "a b", "a\nb", "\x1b[2J", "*", "é", &long, &"a.".repeat(128)] {
            assert_eq!(host_name(bad.as_bytes()), None, "{bad:?} was taken");
        }
        assert_eq!(host_name(&[0xff]), None);
    }

    #[test]
    fn long_options_are_joined_from_all_fields_in_order() {
        let mut payload = vec![0; HEADER_LEN];
        payload[FILE][..5].copy_from_slice(&[43, 2, 3, 4, 255]);
        payload[SNAME][..4].copy_from_slice(&[43, 1, 5, 255]);
        payload.extend_from_slice(&[43, 1, 1, 52, 1, 3, 43, 1, 2, 255]);
        let mut options = Options::read(&payload).unwrap();
        assert_eq!(options.take(OptionCode::VendorExtensions), Some(vec![1, 2, 3, 4, 5]));
    }
}
