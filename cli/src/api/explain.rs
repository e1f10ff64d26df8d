//! What would happen to a packet: `POST /v1/explain`.

use std::net::{Ipv4Addr, SocketAddr};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::StepView;

/// What a described packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Carried {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An ICMP echo request.
    Icmp,
}

/// A flag of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are called so in RFC 9293 3.1")]
pub enum TcpFlag {
    Fin,
    Syn,
    Rst,
    Psh,
    Ack,
    Urg,
}

impl TcpFlag {
    /// Its bit in byte 13 of the header.
    pub fn bit(self) -> u8 {
        match self {
            TcpFlag::Fin => 0x01,
            TcpFlag::Syn => 0x02,
            TcpFlag::Rst => 0x04,
            TcpFlag::Psh => 0x08,
            TcpFlag::Ack => 0x10,
            TcpFlag::Urg => 0x20,
        }
    }
}

/// A packet that a container would send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The container's name.
    pub from: String,
    /// The packet.
    pub packet: PacketRequest,
    /// Whether the host is really to be asked, by a TCP connection, whether somebody listens: the one thing that is sent,
    /// and only if the packet would lead to such a connection.
    #[serde(default)]
    pub probe: bool,
}

/// Which packet is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PacketRequest {
    /// A whole Ethernet frame, in hexadecimal.
    Frame(String),
    /// A packet in words, which is sent as the container's own kernel would.
    Described(Description),
}

/// A packet in words. What is left out is as is usual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Where to.
    pub to: Ipv4Addr,
    /// What it carries.
    pub carries: Carried,
    /// Another source than the container's address.
    #[serde(default)]
    pub src: Option<Ipv4Addr>,
    /// Destination port of TCP and UDP; 80 and 53 if absent.
    #[serde(default)]
    pub dport: Option<u16>,
    /// Source port of TCP and UDP, identifier of a ping; 40000 if absent.
    #[serde(default)]
    pub sport: Option<u16>,
    /// Bytes of the IP packet, its header included.
    #[serde(default)]
    pub size: Option<u16>,
    /// Whether it must not be fragmented; TCP never may.
    #[serde(default)]
    pub df: bool,
    /// Time to live; 64 if absent.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// Flags of TCP; SYN if empty.
    #[serde(default)]
    pub tcp_flags: Vec<TcpFlag>,
}

/// What would happen to a packet. Nothing was sent, and nothing changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainView {
    /// The network.
    pub network: String,
    /// The container that would send it.
    pub port: String,
    /// The frame in one line.
    pub frame: String,
    /// Its bytes.
    pub length: usize,
    /// What the container itself does (stage `container`), and what the stages of the switch would say, in order.
    pub steps: Vec<StepView>,
    /// How it would end, in words.
    pub verdict: String,
    /// `forwarded`, `flooded`, `taken-in`, `relayed` or `dropped`; `unsent` if it would never leave the container.
    pub outcome: String,
    /// The name of the reason why it would go no further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it would go, if that is one container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Usual causes of that reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causes: Option<String>,
    /// What would let it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Frames that would be sent because of it.
    pub sent: Vec<SentView>,
    /// What nobody can know without trying, and what was found by trying.
    pub notes: Vec<String>,
    /// Where the host would open a TCP connection to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connects: Option<SocketAddr>,
}

/// A frame that would be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentView {
    /// The container that would get it, or `uplink`.
    pub to: String,
    /// The frame in one line.
    pub frame: String,
}
