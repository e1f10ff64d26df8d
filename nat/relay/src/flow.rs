//! What names a flow, inside and to users.

use std::net::SocketAddr;

use serde::Serialize;
use tapswitch_wire::PortId;

use crate::host::Proto;

/// Set in the index of everything that is not a stream.
const DATAGRAM: u32 = 1 << 31;

/// The number of a socket: that of a stream and of what listens for streams, or that of an endpoint of datagrams. Events
/// and sockets are found by it. Numbers carry a generation, so an event that was under way for a socket that is gone finds
/// nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FlowId {
    index: u32,
    generation: u16,
}

impl FlowId {
    pub(crate) fn stream(index: u32, generation: u16) -> FlowId {
        FlowId { index: index & !DATAGRAM, generation }
    }

    pub(crate) fn datagram(index: u32, generation: u16) -> FlowId {
        FlowId { index: index | DATAGRAM, generation }
    }

    /// The number in the low 48 bits, for an event's token.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The number that [`FlowId::to_bits`] gave; higher bits are ignored.
    pub fn from_bits(bits: u64) -> FlowId {
        FlowId { index: bits as u32, generation: (bits >> 32) as u16 }
    }

    /// Whether it is the number of a stream, or of what listens for them.
    pub fn is_stream(self) -> bool {
        self.index & DATAGRAM == 0
    }

    /// The place in the table of its kind; places are used again.
    pub fn index(self) -> usize {
        (self.index & !DATAGRAM) as usize
    }

    pub(crate) fn generation(self) -> u16 {
        self.generation
    }
}

/// A flow as the container sees it. An echo's identifier plays the source port; its destination port is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub proto: Proto,
    pub src: SocketAddr,
    pub dst: SocketAddr,
}

/// A flow, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowView {
    /// The port its container is attached to.
    pub port: PortId,
    /// Protocol.
    pub proto: &'static str,
    /// The container's end.
    pub src: SocketAddr,
    /// The other end, as the container sees it.
    pub dst: SocketAddr,
    /// The other end, as the host reaches it.
    pub via: SocketAddr,
    /// Whether the other end began it, by a published port.
    pub published: bool,
    /// State.
    pub state: &'static str,
    /// Bytes from the container.
    pub up_bytes: u64,
    /// Bytes to the container.
    pub down_bytes: u64,
    /// Seconds since anything passed.
    pub idle_s: u64,
    /// Seconds until it is forgotten if nothing passes.
    pub expires_s: u64,
}
