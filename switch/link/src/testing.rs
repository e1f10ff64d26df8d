//! What the unit tests of this crate share.

use std::net::Ipv4Addr;
use std::sync::mpsc;

use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::{Gso, GsoKind, Mac, Meta};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

fn link() -> Link {
    Link { src: Mac::from_ipv4(A), dst: Mac::from_ipv4(B) }
}

fn ip(id: u16) -> Ip {
    Ip { src: A.into(), dst: B.into(), ttl: 64, tos: 0, id }
}

/// A UDP frame that differs from any other number's.
pub(crate) fn plain_frame(number: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    build::udp(&mut frame, link(), ip(number), 4000, 4001, &number.to_be_bytes());
    frame
}

/// A TCP super-frame over IPv4 with a partial checksum.
pub(crate) fn super_frame(payload: usize, size: u16) -> (Meta, Vec<u8>) {
    let (mut meta, frame) = partial_frame(payload);
    meta.gso = Some(Gso { kind: GsoKind::Tcp4, size, ecn: false });
    (meta, frame)
}

/// A TCP frame over IPv4 with a partial checksum.
pub(crate) fn partial_frame(payload: usize) -> (Meta, Vec<u8>) {
    let mut frame = Vec::new();
    let tcp = Tcp { src_port: 80, dst_port: 9999, seq: 7, ack: 9, flags: 0x18, window: 500, options: &[] };
    let meta = build::tcp(&mut frame, link(), ip(0), tcp, payload);
    frame.extend((0..payload).map(|i| i as u8));
    (meta, frame)
}

/// Runs `test` while this process has a second thread, whatever the harness does.
pub(crate) fn with_a_second_thread(test: impl FnOnce()) {
    let (hold, held) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || held.recv());
        test();
        drop(hold);
    });
}
