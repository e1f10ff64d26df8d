//! A relay of its own for one packet: it says what would become of that packet, and nothing happens here.
//!
//! Copied are the rules, what is published, and who has how many sockets; of the flows only the one that the packet belongs
//! to, and the socket that a datagram would go by. For any other packet the copy knows too little.

use std::net::SocketAddr;
use std::ops::Deref;

use tapswitch_wire::{FrameOf, FrameRef, Instant, L4, Meta, PortId};

use super::Relay;
use crate::flow::Key;
use crate::host::{Host, Proto};
use crate::reassembly::Reassembly;

impl<H: Host> Relay<H> {
    /// A copy on another host that treats this packet of a container as this one would.
    ///
    /// A container that has as many sockets as it may have, and some that are idle, is taken to get one of those.
    pub fn copy_for<B: Deref<Target = [u8]>, I: Host>(
        &self,
        port: PortId,
        frame: &FrameOf<B>,
        now: Instant,
        host: I,
    ) -> Relay<I> {
        let is_fragment = frame.parsed().fragment.is_some();
        let fragments = if is_fragment { self.fragments.clone() } else { Reassembly::default() };
        let key = match is_fragment {
            false => key(frame),
            true => {
                let mut whole = Vec::new();
                let is_whole = fragments.clone().take(port, frame, now, &mut whole) == Ok(true);
                let whole = is_whole.then(|| FrameRef::parse(Meta::PLAIN, &whole[..]).ok()).flatten();
                whole.as_ref().and_then(key)
            }
        };
        let mut copy = Relay::new(self.shared.config.clone(), host);
        copy.fragments = fragments;
        copy.shared.budget.clone_from(&self.shared.budget);
        copy.shared.published.clone_from(&self.shared.published);
        copy.shared.isn.clone_from(&self.shared.isn);
        let key = key.as_ref();
        copy.streams = self.streams.copy_for(port, key.filter(|key| key.proto == Proto::Tcp));
        let datagram = key.filter(|key| key.proto != Proto::Tcp);
        copy.datagrams = self.datagrams.copy_for(port, datagram, now, &mut copy.shared.budget);
        copy
    }
}

/// The flow that a whole packet belongs to, if it can have one.
fn key<B: Deref<Target = [u8]>>(frame: &FrameOf<B>) -> Option<Key> {
    let (proto, dst_port) = match frame.parsed().l4 {
        L4::Tcp => (Proto::Tcp, frame.dst_port()),
        L4::Udp => (Proto::Udp, frame.dst_port()),
        L4::Icmp => (Proto::Icmp, 0),
        _ => return None,
    };
    let src = SocketAddr::new(frame.src_ip()?, frame.src_port());
    Some(Key { proto, src, dst: SocketAddr::new(frame.dst_ip()?, dst_port) })
}
