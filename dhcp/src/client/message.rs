//! What a client says and hears.
//!
//! Header and options are encoded by dhcproto; replies are read by a walk of our own, for the reasons that the server
//! has: dhcproto passes over option 52, joins only adjacent parts of a long option, and asserts lengths that a packet
//! sets. Unlike the server's, it forgives a missing end option: nobody can choose the servers of a LAN.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, HType, MAGIC, MIN_PACKET_SIZE, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use tapswitch_wire::{DropReason, Mac};

use crate::client::Config;
use crate::client::lease::is_host;
use crate::message::{FILE, HEADER_LEN, SNAME, is_host_name};

/// What the client wants to be told (option 55).
const WANTED: [OptionCode; 6] = [
    OptionCode::SubnetMask,
    OptionCode::Router,
    OptionCode::DomainNameServer,
    OptionCode::InterfaceMtu,
    OptionCode::Renewal,
    OptionCode::Rebinding,
];

/// A message of the client (RFC 2131 table 5).
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) kind: MessageType,
    pub(super) xid: u32,
    pub(super) secs: u16,
    /// Our address, if we may use it.
    pub(super) ciaddr: Ipv4Addr,
    /// Option 50.
    pub(super) requested: Option<Ipv4Addr>,
    /// Option 54.
    pub(super) server: Option<Ipv4Addr>,
}

impl Query {
    pub(super) fn new(kind: MessageType, xid: u32) -> Query {
        Query { kind, xid, secs: 0, ciaddr: Ipv4Addr::UNSPECIFIED, requested: None, server: None }
    }

    /// The payload of the datagram, at least as long as the minimum of BOOTP.
    ///
    /// The broadcast flag stays clear: we hear what is sent to our MAC address, whatever IP address it is for. Option
    /// 57 is not sent, so replies keep to 576 bytes, which is more than enough for what is asked for.
    pub(super) fn encode(&self, config: &Config) -> Vec<u8> {
        const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
        let mut header = Message::new_with_id(self.xid, self.ciaddr, ANY, ANY, ANY, &config.mac.0);
        header.set_opcode(Opcode::BootRequest).set_htype(HType::Eth).set_secs(self.secs);
        let mut options = vec![DhcpOption::MessageType(self.kind)];
        options.extend(config.client_id().map(|id| DhcpOption::ClientIdentifier(id.to_vec())));
        options.extend(self.requested.map(DhcpOption::RequestedIpAddress));
        options.extend(self.server.map(DhcpOption::ServerIdentifier));
        if matches!(self.kind, MessageType::Discover | MessageType::Request) {
            let name = config.hostname.clone().filter(|name| is_host_name(name));
            options.extend(name.map(DhcpOption::Hostname));
            options.push(DhcpOption::ParameterRequestList(WANTED.to_vec()));
        }
        // What dhcproto cannot encode is left out; nothing above is of that kind.
        let mut payload = header.to_vec().unwrap_or_default();
        payload.extend(options.iter().filter_map(|option| option.to_vec().ok()).flatten());
        payload.push(OptionCode::End.into());
        payload.resize(payload.len().max(MIN_PACKET_SIZE), OptionCode::Pad.into());
        payload
    }
}

/// A message of a server, with the options that the client looks at.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) kind: MessageType,
    pub(super) xid: u32,
    /// Whom it is for.
    pub(super) mac: Mac,
    pub(super) yiaddr: Ipv4Addr,
    /// Option 54.
    pub(super) server: Ipv4Addr,
    /// Options 51, 58 and 59.
    pub(super) lease_secs: Option<u32>,
    pub(super) t1_secs: Option<u32>,
    pub(super) t2_secs: Option<u32>,
    /// Option 1.
    pub(super) mask: Option<Ipv4Addr>,
    /// Option 3.
    pub(super) routers: Vec<Ipv4Addr>,
    /// Option 6.
    pub(super) dns: Vec<Ipv4Addr>,
    /// Option 26.
    pub(super) mtu: Option<u16>,
    /// Option 61 as the server echoed it.
    pub(super) client_id: Option<Vec<u8>>,
}

impl Reply {
    /// Decodes the payload of a datagram from port 67 to port 68. An option of a length that it cannot have counts as
    /// missing.
    ///
    /// # Errors
    /// [`DropReason::DhcpMalformed`] if it is not a reply to an Ethernet host, an option runs past its field, or
    /// the message has no type or no server.
    pub(super) fn parse(payload: &[u8]) -> Result<Reply, DropReason> {
        const MALFORMED: DropReason = DropReason::DhcpMalformed;
        let fixed = payload.get(..HEADER_LEN).filter(|fixed| fixed.ends_with(&MAGIC)).ok_or(MALFORMED)?;
        let header = Message::from_bytes(fixed).map_err(|_| MALFORMED)?;
        if header.opcode() != Opcode::BootReply || header.htype() != HType::Eth || header.hlen() != 6 {
            return Err(MALFORMED);
        }
        let options = Options::read(payload)?;
        let address = |code| options.number(code).map(Ipv4Addr::from);
        let secs = |code| options.number(code).map(u32::from_be_bytes);
        Ok(Reply {
            kind: options.number(OptionCode::MessageType).map(u8::from_be_bytes).ok_or(MALFORMED)?.into(),
            xid: header.xid(),
            mac: Mac(header.chaddr().try_into().map_err(|_| MALFORMED)?),
            yiaddr: header.yiaddr(),
            // OFFER, ACK and NAK must have it (RFC 2131 table 3).
            server: address(OptionCode::ServerIdentifier).filter(|server| is_host(*server)).ok_or(MALFORMED)?,
            lease_secs: secs(OptionCode::AddressLeaseTime),
            t1_secs: secs(OptionCode::Renewal),
            t2_secs: secs(OptionCode::Rebinding),
            mask: address(OptionCode::SubnetMask),
            routers: options.addresses(OptionCode::Router),
            dns: options.addresses(OptionCode::DomainNameServer),
            mtu: options.number(OptionCode::InterfaceMtu).map(u16::from_be_bytes),
            client_id: options.0.get(&OptionCode::ClientIdentifier).cloned(),
        })
    }
}

/// All options of a message; the parts of one that was split are joined (RFC 3396).
struct Options(BTreeMap<OptionCode, Vec<u8>>);

impl Options {
    /// Reads the options field and, if option 52 says so, `file` and then `sname` (RFC 3396 5 gives the order).
    fn read(payload: &[u8]) -> Result<Options, DropReason> {
        let mut options = Options(BTreeMap::new());
        options.walk(payload.get(HEADER_LEN..))?;
        let overload = options.number(OptionCode::OptionOverload).map_or(0, u8::from_be_bytes);
        if overload & 1 != 0 {
            options.walk(payload.get(FILE))?;
        }
        if overload & 2 != 0 {
            options.walk(payload.get(SNAME))?;
        }
        Ok(options)
    }

    /// Reads one field up to its end option or its end.
    fn walk(&mut self, field: Option<&[u8]>) -> Result<(), DropReason> {
        let mut rest = field.unwrap_or_default();
        while let [code, tail @ ..] = rest {
            rest = match OptionCode::from(*code) {
                OptionCode::Pad => tail,
                OptionCode::End => break,
                code => {
                    let (len, tail) = tail.split_first().ok_or(DropReason::DhcpMalformed)?;
                    let (value, tail) = tail.split_at_checked((*len).into()).ok_or(DropReason::DhcpMalformed)?;
                    self.0.entry(code).or_default().extend_from_slice(value);
                    tail
                }
            };
        }
        Ok(())
    }

    /// An option of exactly `N` bytes. One that came twice is longer.
    fn number<const N: usize>(&self, code: OptionCode) -> Option<[u8; N]> {
        self.0.get(&code)?.as_slice().try_into().ok()
    }

    /// An option that is a list of addresses.
    fn addresses(&self, code: OptionCode) -> Vec<Ipv4Addr> {
        let (addresses, odd) = self.0.get(&code).map_or((&[][..], &[][..]), |value| value.as_chunks::<4>());
        if odd.is_empty() { addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect() } else { Vec::new() }
    }
}
