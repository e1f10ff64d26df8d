//! Where frames leave to containers, and what must be true of each.

use std::collections::BTreeMap;

use tapswitch_network::Ports;
use tapswitch_wire::{DropReason, FrameRef, L4, Mac, Meta, PortId};

use crate::frames::{Connection, Frames, GATEWAY, MTU, Tuple};
use crate::oracle;
use crate::street::Street;

/// One container's interface.
#[derive(Default)]
pub struct Tap {
    /// Whether it stopped reading.
    pub full: bool,
    /// Frames that it took.
    pub taken: u64,
    /// Frames that it sent, and that could be read.
    pub sent: u64,
}

/// All of them.
#[derive(Default)]
pub struct Taps {
    pub attached: BTreeMap<u32, Tap>,
    /// The port whose frame is on its way.
    pub ingress: Option<u32>,
    /// Frames that left since the present one came in, other than the gateway's own.
    pub forwarded: u32,
    pub frames: Frames,
    /// Whether containers send only frames as `Frames` makes them.
    pub counts_up: bool,
    /// The other side of a packet uplink.
    pub street: Option<Street>,
}

const RST: u8 = 0x04;
const SYN: u8 = 0x02;
const FIN: u8 = 0x01;

impl Ports for Taps {
    fn tx(&mut self, port: PortId, meta: &Meta, bytes: &[u8]) -> Result<(), DropReason> {
        let frame = FrameRef::parse(*meta, bytes).expect("what leaves can be parsed");
        let len = meta.packet_len(usize::from(frame.parsed().l3_start), bytes);
        assert!(len <= usize::from(MTU), "{len} bytes leave");
        if frame.src_mac() == Mac::from_ipv4(GATEWAY) {
            self.check_own(&frame);
        } else {
            self.forwarded += 1;
            assert_ne!(self.ingress, Some(port.0), "a frame went back where it came from");
        }
        let tap = self.attached.get_mut(&port.0).expect("a frame leaves by a port that is not attached");
        if tap.full {
            return Err(DropReason::TxFull);
        }
        tap.taken += 1;
        Ok(())
    }

    fn tx_uplink(&mut self, meta: &Meta, bytes: &[u8]) -> Result<(), DropReason> {
        self.street.as_mut().expect("a packet uplink").take(meta, bytes)
    }
}

impl Taps {
    fn check_own(&mut self, frame: &FrameRef<'_>) {
        let (meta, bytes) = (frame.meta(), frame.bytes());
        // What is translated is as right as it came.
        if meta.gso.is_none() && self.street.as_ref().is_none_or(|street| street.right) {
            assert_eq!(oracle::checksums_when_complete(meta, bytes), Ok(()));
        }
        if let (L4::Tcp, Some(src), Some(dst)) = (frame.parsed().l4, frame.dst_ip(), frame.src_ip()) {
            // As the container sees it.
            let tuple = Tuple { src, dst, src_port: frame.dst_port(), dst_port: frame.src_port() };
            let connection = self.frames.connections.entry(tuple).or_default();
            note(connection, frame, self.counts_up);
        }
    }
}

/// The container takes in a segment: the stream that the host sends counts up from zero.
fn note(connection: &mut Connection, frame: &FrameRef<'_>, counts_up: bool) {
    let header = frame.segment();
    let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let flags = header[13];
    if flags & RST != 0 {
        return;
    }
    if flags & SYN != 0 {
        connection.other = Some(seq);
        connection.expected = seq.wrapping_add(1);
    }
    let Some(first) = connection.other else { return };
    for (at, byte) in frame.payload().iter().enumerate() {
        let position = seq.wrapping_add(at as u32).wrapping_sub(first).wrapping_sub(1);
        assert!(!counts_up || *byte == position as u8, "byte {position} of the stream is {byte}");
    }
    let end = seq.wrapping_add(frame.payload().len() as u32 + u32::from(flags & FIN != 0));
    if end.wrapping_sub(connection.expected) as i32 > 0 {
        connection.expected = end;
    }
}
