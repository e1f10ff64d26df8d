//! What a failing test prints, and what every frame of the network must satisfy.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use tapswitch_wire::{Instant, Meta, PortId, render, segment};

/// Lines that are kept.
const LINES: usize = 80;

/// The last things that happened, one line each. Clones write into the same one.
#[derive(Clone, Default)]
pub struct Trace {
    lines: Rc<RefCell<VecDeque<String>>>,
}

impl Trace {
    pub fn line(&self, now: Instant, text: String) {
        let mut lines = self.lines.borrow_mut();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(format!("{:>12.6} {text}", now.as_micros() as f64 / 1e6));
    }

    /// A frame, `way` being `>` from a container and `<` to it.
    pub fn frame(&self, now: Instant, way: char, port: PortId, meta: &Meta, frame: &[u8], note: &str) {
        self.line(now, format!("port {port} {way} {}{note}", render(meta, frame)));
    }

    pub fn print(&self) {
        for line in self.lines.borrow().iter() {
            eprintln!("{line}");
        }
    }
}

/// A frame of the network must be what its reader may believe: sound by a parser that is not ours, every checksum right,
/// and no packet above the MTU.
pub fn check_frame(meta: &Meta, frame: &[u8], mtu: usize) {
    let mut sound = |_: &Meta, frame: &[u8]| {
        let packet = SlicedPacket::from_ethernet(frame).unwrap_or_else(|e| panic!("{e}: {}", render(meta, frame)));
        assert!(frame.len() <= mtu + 14, "above the MTU: {}", render(meta, frame));
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { return };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "{}", render(meta, frame));
        let right = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                tcp.calc_checksum_ipv4(header.source, header.destination).ok() == Some(tcp.checksum())
            }
            Some(TransportSlice::Udp(udp)) => {
                let sum = udp.to_header().calc_checksum_ipv4_raw(header.source, header.destination, udp.payload()).ok();
                udp.checksum() == 0 || sum == Some(udp.checksum())
            }
            Some(TransportSlice::Icmpv4(icmp)) => icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum(),
            _ => true,
        };
        assert!(right, "transport checksum: {}", render(meta, frame));
    };
    segment::segment(meta, frame, &mut Vec::new(), &mut sound)
        .unwrap_or_else(|e| panic!("{e:?}: {}", render(meta, frame)));
}
