//! What the server says: options chosen, ordered and laid out, and the frame that carries them.
//!
//! Header and options are encoded by dhcproto (it splits by RFC 3396, compresses option 119 by RFC 3397 and packs 121
//! by RFC 3442). The layout is done here, because its messages sort options by code, never pad, never overload and know
//! no size limit, while RFC 2131 4.3.1 wants the client's order and option 57 wants an upper bound.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, MIN_PACKET_SIZE, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Encodable, Name};
use tapswitch_wire::{DropReason, Mac};

use crate::config::{Config, INFINITE};
use crate::message::{FILE, HEADER_LEN, Request, SNAME, is_host_name};

/// Bytes of the IPv4 and UDP header in front of a message. Option 57 counts them.
const IP_UDP_LEN: usize = 28;
/// What every client must be able to take (RFC 2132 9.10).
const MIN_MAX_SIZE: u16 = 576;
/// What a client gets that sends no parameter request list.
const DEFAULT_WANTED: [OptionCode; 6] = [
    OptionCode::SubnetMask,
    OptionCode::Router,
    OptionCode::DomainNameServer,
    OptionCode::Hostname,
    OptionCode::DomainName,
    OptionCode::InterfaceMtu,
];

/// An answer, before it is bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    pub(crate) kind: MessageType,
    /// The address given; unspecified in a NAK and in the answer to an INFORM.
    pub(crate) yiaddr: Ipv4Addr,
    /// Lease time in seconds; `None` if no lease is given.
    pub(crate) lease_secs: Option<u32>,
    /// Name of the container that the address is reserved for.
    pub(crate) name: Option<String>,
    /// Why not (option 56).
    pub(crate) message: Option<String>,
}

impl Reply {
    /// A refusal.
    pub(crate) fn nak(message: String) -> Reply {
        Reply {
            kind: MessageType::Nak,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            lease_secs: None,
            name: None,
            message: Some(message),
        }
    }

    /// Whither it goes: MAC address, IP address and port (RFC 2131 4.1). `sender` is the source of the request's frame.
    pub(crate) fn destination(&self, request: &Request, sender: Mac) -> (Mac, Ipv4Addr, u16) {
        use dhcproto::v4::{CLIENT_PORT, SERVER_PORT};
        let header = &request.header;
        if request.is_relayed() {
            (sender, header.giaddr(), SERVER_PORT)
        } else if self.kind == MessageType::Nak {
            (Mac::BROADCAST, Ipv4Addr::BROADCAST, CLIENT_PORT)
        } else if !header.ciaddr().is_unspecified() {
            (request.mac, header.ciaddr(), CLIENT_PORT)
        } else if header.flags().broadcast() {
            (Mac::BROADCAST, Ipv4Addr::BROADCAST, CLIENT_PORT)
        } else {
            // The client cannot answer ARP for an address that it does not have yet.
            (request.mac, self.yiaddr, CLIENT_PORT)
        }
    }

    /// The message as the payload of a datagram.
    ///
    /// # Errors
    /// None that a header which was decoded can cause; dhcproto's are passed on as [`DropReason::DhcpMalformed`].
    pub(crate) fn encode(&self, config: &Config, request: &Request) -> Result<Vec<u8>, DropReason> {
        let mut header = request.header.clone();
        header
            .set_opcode(Opcode::BootReply)
            .set_hops(0)
            .set_secs(0)
            .set_yiaddr(self.yiaddr)
            .set_siaddr(Ipv4Addr::UNSPECIFIED);
        header.clear_sname();
        header.clear_fname();
        if self.kind != MessageType::Ack {
            header.set_ciaddr(Ipv4Addr::UNSPECIFIED);
        }
        if self.kind == MessageType::Nak && request.is_relayed() {
            // The relay must broadcast it: the client may be on the wrong network (RFC 2131 4.3.2).
            header.set_flags(header.flags().set_broadcast());
        }
        let fixed = header.to_vec().map_err(|_| DropReason::DhcpMalformed)?;
        let accepted = request.max_size.unwrap_or(MIN_MAX_SIZE).max(MIN_MAX_SIZE).min(config.mtu);
        let room = usize::from(accepted).saturating_sub(IP_UDP_LEN).max(MIN_PACKET_SIZE);
        Ok(layout(fixed, &self.mandatory(config), &self.asked_for(config, request), &echoed(request), room))
    }

    /// What every reply of this kind carries (RFC 2131 table 3).
    fn mandatory(&self, config: &Config) -> Vec<DhcpOption> {
        let mut options = vec![DhcpOption::MessageType(self.kind), DhcpOption::ServerIdentifier(config.server_ip)];
        if let Some(secs) = self.lease_secs {
            options.push(DhcpOption::AddressLeaseTime(secs));
            if secs != INFINITE {
                // T1 and T2 are 0.5 and 0.875 of the lease (RFC 2131 4.4.5).
                options.push(DhcpOption::Renewal(secs / 2));
                options.push(DhcpOption::Rebinding(secs - secs.div_ceil(8)));
            }
        }
        options.extend(self.message.clone().map(DhcpOption::Message));
        if self.kind != MessageType::Nak {
            // Also without being asked: a client that knows no mask would have to guess one from the address class.
            options.push(DhcpOption::SubnetMask(config.subnet.netmask()));
        }
        options
    }

    /// What the client asked for and we have, in its order.
    fn asked_for(&self, config: &Config, request: &Request) -> Vec<DhcpOption> {
        if self.kind == MessageType::Nak {
            return Vec::new();
        }
        let wanted = request.wanted.as_deref().unwrap_or(&DEFAULT_WANTED);
        let mut options: Vec<DhcpOption> = Vec::new();
        for code in wanted {
            if options.iter().all(|known| OptionCode::from(known) != *code) {
                options.extend(self.parameter(config, *code));
            }
        }
        options
    }

    fn parameter(&self, config: &Config, code: OptionCode) -> Option<DhcpOption> {
        let some = |list: &[Ipv4Addr]| (!list.is_empty()).then(|| list.to_vec());
        match code {
            OptionCode::Router => some(&config.routers).map(DhcpOption::Router),
            OptionCode::DomainNameServer => some(&config.dns).map(DhcpOption::DomainNameServer),
            OptionCode::Hostname => self.name.clone().filter(|name| is_host_name(name)).map(DhcpOption::Hostname),
            OptionCode::DomainName => {
                config.domain.clone().filter(|name| is_host_name(name)).map(DhcpOption::DomainName)
            }
            OptionCode::InterfaceMtu => Some(DhcpOption::InterfaceMtu(config.mtu)),
            OptionCode::BroadcastAddr => {
                (config.subnet.prefix_len() < 31).then(|| DhcpOption::BroadcastAddr(config.subnet.broadcast()))
            }
            OptionCode::DomainSearch => {
                let names: Vec<Name> =
                    config.search.iter().filter(|n| is_host_name(n)).filter_map(|n| Name::from_ascii(n).ok()).collect();
                (!names.is_empty()).then_some(DhcpOption::DomainSearch(names))
            }
            OptionCode::ClasslessStaticRoute => {
                let routes = config.classless_routes();
                (!routes.is_empty()).then_some(DhcpOption::ClasslessStaticRoute(routes))
            }
            _ => None,
        }
    }
}

/// What goes back as it came, option 82 last of all (RFC 3046 2.2).
fn echoed(request: &Request) -> Vec<DhcpOption> {
    let raw =
        |code, bytes: &Option<Vec<u8>>| bytes.clone().map(|bytes| DhcpOption::Unknown(UnknownOption::new(code, bytes)));
    [raw(OptionCode::ClientIdentifier, &request.client_id), raw(OptionCode::RelayAgentInformation, &request.relay_info)]
        .into_iter()
        .flatten()
        .collect()
}

/// Puts the options behind the header within `room` bytes of message, an end option behind them, and pads to the
/// minimum of BOOTP.
///
/// If they do not fit, `file` and `sname` take some (option 52); what fits nowhere is left out, the least wanted first.
fn layout(
    fixed: Vec<u8>,
    mandatory: &[DhcpOption],
    asked_for: &[DhcpOption],
    echoed: &[DhcpOption],
    room: usize,
) -> Vec<u8> {
    const OVERLOAD_LEN: usize = 3;
    const END_LEN: usize = 1;
    let bytes = |options: &[DhcpOption]| -> Vec<Vec<u8>> { options.iter().filter_map(|o| o.to_vec().ok()).collect() };
    let total = |options: &[Vec<u8>]| options.iter().map(Vec::len).sum::<usize>();

    let mut message = fixed;
    let mut left = room.saturating_sub(message.len() + END_LEN);
    for option in bytes(mandatory) {
        if option.len() <= left {
            left -= option.len();
            message.extend_from_slice(&option);
        }
    }
    let mut tail = bytes(echoed);
    while total(&tail) > left {
        tail.pop();
    }
    left -= total(&tail);

    let wanted = bytes(asked_for);
    let mut overload = Overload::default();
    if total(&wanted) <= left {
        wanted.iter().for_each(|option| message.extend_from_slice(option));
    } else {
        let may_overload = left >= OVERLOAD_LEN;
        left = left.saturating_sub(OVERLOAD_LEN);
        for option in &wanted {
            if option.len() <= left {
                left -= option.len();
                message.extend_from_slice(option);
            } else if may_overload {
                overload.take(option);
            }
        }
    }
    overload.write(&mut message);
    tail.iter().for_each(|option| message.extend_from_slice(option));
    message.push(OptionCode::End.into());
    message.resize(message.len().max(MIN_PACKET_SIZE), OptionCode::Pad.into());
    message
}

/// Options that went into `file` and `sname` for want of room (RFC 2132 9.3).
#[derive(Default)]
struct Overload {
    file: Vec<u8>,
    sname: Vec<u8>,
}

impl Overload {
    /// Takes an option in whole, if there is room for it and the end option.
    fn take(&mut self, option: &[u8]) {
        for (field, size) in [(&mut self.file, FILE.len()), (&mut self.sname, SNAME.len())] {
            if field.len() + option.len() < size {
                field.extend_from_slice(option);
                return;
            }
        }
    }

    /// Writes both fields into the header, and option 52 behind the options so far.
    fn write(self, message: &mut Vec<u8>) {
        let value = u8::from(!self.file.is_empty()) | u8::from(!self.sname.is_empty()) << 1;
        if value == 0 {
            return;
        }
        for (mut content, field) in [(self.file, FILE), (self.sname, SNAME)] {
            if let (false, Some(field)) = (content.is_empty(), message.get_mut(field)) {
                content.push(OptionCode::End.into());
                content.resize(field.len(), OptionCode::Pad.into());
                field.copy_from_slice(&content);
            }
        }
        message.extend_from_slice(&[OptionCode::OptionOverload.into(), 1, value]);
    }
}

// The header's length is what the room is counted from.
const _: () = assert!(HEADER_LEN + 60 == MIN_PACKET_SIZE);
