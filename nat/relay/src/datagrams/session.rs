//! UDP and ICMP echo: a connected socket of the host for each flow.
//!
//! A connected socket receives only from its own other end and is told of ICMP errors, which go back to the container
//! with its own header quoted. Datagrams keep their boundaries; an empty one is a datagram. Flows end when nothing passed
//! for a while: [`UDP_IDLE`] (RFC 4787 REQ-5: five minutes are recommended), DNS sooner, because each question comes from
//! a port of its own and has been answered or given up by then; [`PING_IDLE`] (RFC 5508 REQ-2: at least 60 s).

use std::time::Duration;

use tapswitch_wire::{ChecksumState, FrameOf, L4};

use crate::flow::Key;
use crate::host::Proto;
use crate::policy::DNS_PORT;
use crate::quote::{QUOTE, quote};

const UDP_IDLE: Duration = Duration::from_secs(300);
const DNS_IDLE: Duration = Duration::from_secs(20);
const PING_IDLE: Duration = Duration::from_secs(60);

/// What is remembered of a datagram flow.
pub(crate) struct Datagram {
    /// Head of the latest packet of the container, for an ICMP error about it.
    head: [u8; QUOTE],
    head_len: u8,
    pub(crate) idle: Duration,
}

impl Datagram {
    pub(crate) fn new(key: &Key) -> Datagram {
        let idle = match key.proto {
            Proto::Icmp => PING_IDLE,
            _ if key.dst.port() == DNS_PORT => DNS_IDLE,
            _ => UDP_IDLE,
        };
        Datagram { head: [0; QUOTE], head_len: 0, idle }
    }

    /// Remembers the head of a packet that is being sent.
    pub(crate) fn remember<B: std::ops::Deref<Target = [u8]>>(&mut self, frame: &FrameOf<B>) {
        let head = quote(frame);
        self.head[..head.len()].copy_from_slice(head);
        self.head_len = head.len() as u8;
        // A checksum that is still partial would be a wrong one in a quote; zero says that there is none (RFC 768).
        let field = head.len() - 2..head.len();
        if frame.parsed().l4 == L4::Udp && matches!(frame.meta().checksum, ChecksumState::Partial { .. }) {
            self.head[field].fill(0);
        }
    }

    pub(crate) fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }
}
