//! An established session through the translator, and a packet of it each way.

use std::net::Ipv4Addr;

use tapswitch_conntrack::{Config, Conntrack, Passed, Realm};
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{Endpoint, Frame, Mac, Meta};

use super::{MTU, NOW, TIMESTAMPS, super_frame};

const INSIDE: Endpoint = Endpoint::new(Ipv4Addr::new(10, 0, 0, 2), 40_000);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SERVER: Endpoint = Endpoint::new(Ipv4Addr::new(203, 0, 113, 1), 443);

/// Who pays for the session.
const OWNER: u32 = 1;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Bytes of all headers that a translation can change.
const HEADERS: usize = 54;

/// A translator that tracks one established TCP connection, and a segment of it each way, as it comes in.
pub struct Translated {
    /// The translator.
    pub conntrack: Conntrack,
    /// From the container, and from outside.
    pub segments: [Arriving; 2],
}

/// A segment, as often as it is wanted.
pub struct Arriving {
    /// Where it comes in.
    pub realm: Realm,
    meta: Meta,
    bytes: Vec<u8>,
    headers: [u8; HEADERS],
}

impl Arriving {
    fn new(realm: Realm, (meta, bytes): (Meta, Vec<u8>)) -> Self {
        let mut headers = [0; HEADERS];
        headers.copy_from_slice(&bytes[..HEADERS]);
        Self { realm, meta, bytes, headers }
    }

    /// Parses it and sends it through the translator. Its headers are first made again what they were: one copy of 54
    /// bytes, which the figures contain.
    #[inline(always)]
    pub fn pass(&mut self, conntrack: &Conntrack) -> Option<Passed> {
        self.bytes[..HEADERS].copy_from_slice(&self.headers);
        let mut frame = Frame::parse(self.meta, &mut self.bytes[..]).ok()?;
        conntrack.pass(self.realm, &mut frame, MTU, NOW)
    }
}

/// The frames of the session have `len` bytes, at least 54; above the MTU they are super-frames. All have a partial
/// checksum.
///
/// # Panics
/// If the translator refuses the connection.
pub fn translated(len: usize) -> Translated {
    let subnet = "10.0.0.0/20".parse().expect("a subnet");
    let conntrack = Conntrack::new(Config::new(subnet), 0);
    conntrack.set_outside(Some(OUTSIDE), NOW);
    let seen = admit(&conntrack, Realm::Inside, &segment(INSIDE, SERVER, SYN, HEADERS));
    admit(&conntrack, Realm::Outside, &segment(SERVER, seen, SYN | ACK, HEADERS));
    admit(&conntrack, Realm::Inside, &segment(INSIDE, SERVER, ACK, HEADERS));
    let segments = [
        Arriving::new(Realm::Inside, segment(INSIDE, SERVER, ACK | PSH, len)),
        Arriving::new(Realm::Outside, segment(SERVER, seen, ACK | PSH, len)),
    ];
    Translated { conntrack, segments }
}

/// Sends a segment the slow way, whose next hop is known afterwards. Returns the source that its receiver sees.
fn admit(conntrack: &Conntrack, realm: Realm, (meta, bytes): &(Meta, Vec<u8>)) -> Endpoint {
    let mut bytes = bytes.clone();
    let frame = Frame::parse(*meta, &mut bytes[..]).expect("a frame that was just made");
    let way = conntrack.admit(realm, &frame, OWNER, NOW).expect("a connection that nothing forbids");
    conntrack.note_hop(&way, way.rewrite.dst().ip, Mac::from_ipv4(way.rewrite.dst().ip), NOW);
    way.rewrite.src()
}

fn segment(src: Endpoint, dst: Endpoint, flags: u8, len: usize) -> (Meta, Vec<u8>) {
    let link = Link { src: Mac::from_ipv4(src.ip), dst: Mac::from_ipv4(dst.ip) };
    let ip = Ip { src: src.ip.into(), dst: dst.ip.into(), ttl: 64, tos: 0, id: 1 };
    let options: &[u8] = if len < HEADERS + TIMESTAMPS.len() { &[] } else { &TIMESTAMPS };
    // The handshake takes one number of each side.
    let (seq, ack) = if flags & SYN == 0 { (1, 1) } else { (0, u32::from(flags & ACK != 0)) };
    let tcp = Tcp { src_port: src.port, dst_port: dst.port, seq, ack, flags, window: 512, options };
    let mut frame = Vec::with_capacity(len);
    let mut meta = build::tcp(&mut frame, link, ip, tcp, len.saturating_sub(HEADERS + options.len()));
    frame.resize(len, 0xa5);
    meta.gso = super_frame(len);
    (meta, frame)
}

#[cfg(test)]
mod tests {
    use tapswitch_wire::FrameRef;

    use super::*;
    use crate::LENGTHS;

    #[test]
    fn segments_pass_both_ways_and_again() {
        for len in LENGTHS {
            let Translated { conntrack, mut segments } = translated(len);
            for _ in 0..2 {
                for (segment, egress) in segments.iter_mut().zip([Realm::Outside, Realm::Inside]) {
                    let passed = segment.pass(&conntrack).expect("the fast way");
                    assert_eq!(passed.egress, egress, "{len}");
                    let frame = FrameRef::parse(segment.meta, &segment.bytes[..]).expect("a sound frame");
                    let src = if egress == Realm::Outside { OUTSIDE } else { SERVER.ip };
                    assert_eq!(frame.src_ip(), Some(src.into()), "{len}");
                }
            }
            assert_eq!(conntrack.len(), 1);
        }
    }
}
