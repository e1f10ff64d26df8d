//! The DHCP client of a demo container: discover, offer, request, ack (RFC 2131 3.1) over an ordinary UDP socket.
//!
//! The interface has no address yet, so messages leave from 0.0.0.0 by broadcast on a socket that is bound to the
//! device, and the broadcast flag asks the server to answer in the same way (RFC 2131 4.1).

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use dhcproto::v4::{Decodable, Decoder, DhcpOption, Encodable, Flags, Message, MessageType, Opcode, OptionCode};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tapswitch_wire::Mac;

use super::clock::Stopwatch;

/// Ports of client and server (RFC 2131 4.1).
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// A switch in the same process answers within a millisecond; three tries of a second fit the demo's ten.
const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(1);

/// The least that a BOOTP relay or server need accept (RFC 1542 2.1), so a shorter message is padded to it.
const BOOTP_MINIMUM: usize = 300;

/// What the server granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// The address.
    pub ip: Ipv4Addr,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    /// The default route's next hop.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Who granted it.
    pub server: Ipv4Addr,
    /// For how many seconds.
    pub seconds: u32,
}

/// A whole exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exchange {
    /// How it ended.
    pub lease: Lease,
    /// Microseconds from the discover to the offer.
    pub offer_us: u64,
    /// Microseconds from the request to the ack.
    pub ack_us: u64,
}

/// What makes this client and this exchange out among others.
#[derive(Clone, Copy, Debug)]
struct Client<'a> {
    mac: Mac,
    xid: u32,
    hostname: &'a str,
}

/// A server's message that answers this client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Offer(Lease),
    Ack(Lease),
    Nak(String),
}

/// Gets a lease for `interface`, which is up and has no address.
pub(super) fn obtain(interface: &str, mac: Mac, xid: u32, hostname: &str) -> Result<Exchange, String> {
    let client = Client { mac, xid, hostname };
    let socket = open(interface).map_err(|error| format!("cannot open the DHCP client's socket: {error}"))?;
    let mut offer_us = 0;
    let offered = ask(&socket, &client.discover()?, &client, &mut offer_us, "discover", |answer| match answer {
        Answer::Offer(lease) => Some(Ok(lease)),
        Answer::Ack(_) | Answer::Nak(_) => None,
    })?;
    let mut ack_us = 0;
    let lease = ask(&socket, &client.request(&offered)?, &client, &mut ack_us, "request", |answer| match answer {
        Answer::Ack(lease) => Some(Ok(lease)),
        Answer::Nak(why) => Some(Err(format!("the server refused {}: {why}", offered.ip))),
        Answer::Offer(_) => None,
    })?;
    Ok(Exchange { lease, offer_us, ack_us })
}

fn open(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
    Ok(socket.into())
}

/// Sends `message`, again after each silent second, until `take` accepts an answer.
fn ask<T>(
    socket: &UdpSocket,
    message: &[u8],
    client: &Client<'_>,
    took_us: &mut u64,
    name: &str,
    take: impl Fn(Answer) -> Option<Result<T, String>>,
) -> Result<T, String> {
    let failed = |error: io::Error| format!("cannot exchange DHCP messages: {error}");
    let mut buffer = [0; 1500];
    for _ in 0..TRIES {
        let sent = Stopwatch::start();
        socket.send_to(message, (Ipv4Addr::BROADCAST, SERVER_PORT)).map_err(failed)?;
        while let Some(left) = sent.left_of(PATIENCE) {
            socket.set_read_timeout(Some(left)).map_err(failed)?;
            let received = match socket.recv(&mut buffer) {
                Ok(len) => buffer.get(..len).unwrap_or_default(),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            if let Some(taken) = client.answer(received).and_then(&take) {
                *took_us = sent.micros();
                return taken;
            }
        }
    }
    Err(format!("no DHCP server answered the {name}, sent {TRIES} times"))
}

impl Client<'_> {
    fn discover(&self) -> Result<Vec<u8>, String> {
        self.message(MessageType::Discover, [])
    }

    /// Takes an offer (RFC 2131 4.3.2, SELECTING): server identifier and requested address, `ciaddr` zero.
    fn request(&self, offer: &Lease) -> Result<Vec<u8>, String> {
        let chosen = [DhcpOption::ServerIdentifier(offer.server), DhcpOption::RequestedIpAddress(offer.ip)];
        self.message(MessageType::Request, chosen)
    }

    fn message<const N: usize>(&self, kind: MessageType, more: [DhcpOption; N]) -> Result<Vec<u8>, String> {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(self.xid, none, none, none, none, &self.mac.0);
        message.set_flags(Flags::default().set_broadcast());
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::Hostname(self.hostname.to_owned()));
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::InterfaceMtu,
        ]));
        for option in more {
            options.insert(option);
        }
        let mut bytes = message.to_vec().map_err(|error| format!("cannot build a DHCP message: {error}"))?;
        if bytes.len() < BOOTP_MINIMUM {
            bytes.resize(BOOTP_MINIMUM, 0);
        }
        Ok(bytes)
    }

    /// What a datagram says to this client, if it says anything.
    fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        let message = Message::decode(&mut Decoder::new(bytes)).ok()?;
        if message.opcode() != Opcode::BootReply || message.xid() != self.xid || message.chaddr() != self.mac.0 {
            return None;
        }
        match message.opts().msg_type()? {
            MessageType::Offer => lease(&message).map(Answer::Offer),
            MessageType::Ack => lease(&message).map(Answer::Ack),
            MessageType::Nak => match message.opts().get(OptionCode::Message) {
                Some(DhcpOption::Message(why)) => Some(Answer::Nak(why.clone())),
                _ => Some(Answer::Nak("it gave no reason".into())),
            },
            _ => None,
        }
    }
}

/// What an offer or an ack grants; nothing if it lacks what RFC 2131 table 3 demands.
fn lease(message: &Message) -> Option<Lease> {
    let options = message.opts();
    let DhcpOption::ServerIdentifier(server) = *options.get(OptionCode::ServerIdentifier)? else { return None };
    let DhcpOption::AddressLeaseTime(seconds) = *options.get(OptionCode::AddressLeaseTime)? else { return None };
    let DhcpOption::SubnetMask(mask) = *options.get(OptionCode::SubnetMask)? else { return None };
    let gateway = match options.get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().copied(),
        _ => None,
    };
    let dns = match options.get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(servers)) => servers.clone(),
        _ => Vec::new(),
    };
    let prefix = ipnet::ipv4_mask_to_prefix(mask).ok()?;
    Some(Lease { ip: message.yiaddr(), prefix, gateway, dns, server, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client<'_> = Client { mac: Mac([2, 0x42, 10, 0, 0, 7]), xid: 0x1234_5678, hostname: "red" };
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn granted() -> Lease {
        Lease { ip: IP, prefix: 24, gateway: Some(SERVER), dns: vec![SERVER], server: SERVER, seconds: 3600 }
    }

    fn decoded(bytes: &[u8]) -> Message {
        Message::decode(&mut Decoder::new(bytes)).unwrap()
    }

    fn reply(kind: MessageType) -> Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(CLIENT.xid, none, IP, none, none, &CLIENT.mac.0);
        message.set_opcode(Opcode::BootReply);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier(SERVER));
        options.insert(DhcpOption::AddressLeaseTime(3600));
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        options.insert(DhcpOption::Router(vec![SERVER]));
        options.insert(DhcpOption::DomainNameServer(vec![SERVER]));
        message
    }

    #[test]
    fn discover_asks_by_broadcast_and_is_long_enough_for_bootp() {
        let bytes = CLIENT.discover().unwrap();
        let message = decoded(&bytes);
        assert!(bytes.len() >= 300, "{} bytes", bytes.len());
        assert!(message.flags().broadcast());
        assert_eq!(message.opts().msg_type(), Some(MessageType::Discover));
        assert_eq!(message.chaddr(), CLIENT.mac.0);
        assert_eq!(message.xid(), CLIENT.xid);
        assert_eq!(message.ciaddr(), Ipv4Addr::UNSPECIFIED);
        assert_eq!(message.opts().get(OptionCode::Hostname), Some(&DhcpOption::Hostname("red".into())));
        assert!(!message.opts().contains(OptionCode::ServerIdentifier));
    }

    #[test]
    fn request_names_the_server_and_the_address_and_leaves_ciaddr_zero() {
        let message = decoded(&CLIENT.request(&granted()).unwrap());
        assert_eq!(message.opts().msg_type(), Some(MessageType::Request));
        assert_eq!(message.opts().get(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(SERVER)));
        assert_eq!(message.opts().get(OptionCode::RequestedIpAddress), Some(&DhcpOption::RequestedIpAddress(IP)));
        assert_eq!(message.ciaddr(), Ipv4Addr::UNSPECIFIED);
    }

    #[test]
    fn answers_are_read_and_others_messages_are_not() {
        let bytes = |message: Message| message.to_vec().unwrap();
        assert_eq!(CLIENT.answer(&bytes(reply(MessageType::Offer))), Some(Answer::Offer(granted())));
        assert_eq!(CLIENT.answer(&bytes(reply(MessageType::Ack))), Some(Answer::Ack(granted())));

        let mut nak = reply(MessageType::Nak);
        nak.opts_mut().insert(DhcpOption::Message("wrong network".into()));
        assert_eq!(CLIENT.answer(&bytes(nak)), Some(Answer::Nak("wrong network".into())));

        let mut other = reply(MessageType::Offer);
        other.set_xid(1);
        let mut mirrored = reply(MessageType::Offer);
        mirrored.set_opcode(Opcode::BootRequest);
        let mut without_server = reply(MessageType::Offer);
        without_server.opts_mut().remove(OptionCode::ServerIdentifier);
        for stray in [other, mirrored, without_server] {
            assert_eq!(CLIENT.answer(&bytes(stray)), None);
        }
        assert_eq!(CLIENT.answer(b"not DHCP at all"), None);
        assert_eq!(CLIENT.answer(&[]), None);
    }
}
