//! Forwarding and coalescing allocate nothing: counted, not believed.

use std::time::Duration;

use allocation_counter::measure;
use tapswitch_switch::{Config, PortConfig, Switch};
use tapswitch_wire::build::{self, Ip, Link, Tcp};
use tapswitch_wire::coalesce::Coalescer;
use tapswitch_wire::{DropReason, Frame, Instant, Mac, Meta, PortId, Unheard, checksum};

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
const MOVER: Mac = Mac([2, 0, 0, 0, 0, 3]);

/// Sends frames as the loop would, one for each step, and returns how many allocations that took.
fn allocations(switch: &mut Switch, steps: u32, frame: impl Fn(u32) -> (u32, Mac, Mac)) -> u64 {
    let mut bytes = [0u8; 1514];
    let mut out = Vec::with_capacity(8);
    let counted = measure(|| {
        for step in 0..steps {
            let (port, src, dst) = frame(step);
            bytes[..6].copy_from_slice(&dst.0);
            bytes[6..12].copy_from_slice(&src.0);
            let now = Instant::from_secs(10) + Duration::from_millis(u64::from(step));
            let frame = Frame::parse(Meta::PLAIN, &mut bytes).unwrap();
            match switch.decide(PortId(port), &frame, now, &mut Unheard, &mut out) {
                Ok(()) => out.iter().for_each(|port| switch.sent(*port, bytes.len())),
                Err(reason) => assert_eq!(reason, DropReason::SameSegment),
            }
            switch.poll(now);
        }
    });
    counted.count_total
}

#[test]
fn established_frames_allocate_nothing() {
    let mut switch = Switch::new(Config::default());
    for port in 0..5 {
        switch.add_port(PortId(port), PortConfig { mtu: 1500, isolated: false });
    }
    assert!(allocations(&mut switch, 1, |_| (1, A, Mac::BROADCAST)) > 0, "learning takes room, or nothing is counted");
    allocations(&mut switch, 2, |step| if step == 0 { (2, B, A) } else { (3, MOVER, A) });

    // Ten seconds of a conversation: both sides are refreshed ten times on the way.
    let unicast = |step| if step % 2 == 0 { (1, A, B) } else { (2, B, A) };
    assert_eq!(allocations(&mut switch, 10_000, unicast), 0);
    let flood = |step| if step % 2 == 0 { (1, A, Mac::BROADCAST) } else { (2, B, Mac([2, 0, 0, 0, 9, 9])) };
    assert_eq!(allocations(&mut switch, 10_000, flood), 0);
    let drops = |_| (1, A, A);
    assert_eq!(allocations(&mut switch, 10_000, drops), 0);
    let moves = |step| (3 + step % 2, MOVER, A);
    assert_eq!(allocations(&mut switch, 10_000, moves), 0);
    assert_eq!(switch.counters(PortId(4)).unwrap().moves, 5_000);
}

/// A turn of a port without offloads: two streams, each in a run, and an acknowledgement behind them.
#[test]
fn coalescing_a_steady_stream_allocates_nothing() {
    let ip = Ip { src: [10, 0, 0, 2].into(), dst: [10, 0, 0, 3].into(), ttl: 64, tos: 0, id: 0 };
    let segment = |dst, at: u16, len: usize| {
        let link = Link { src: A, dst };
        let tcp =
            Tcp { src_port: 1, dst_port: 2, seq: u32::from(at) * 1448, ack: 1, flags: 16, window: 5, options: &[] };
        let mut frame = Vec::new();
        let mut meta = build::tcp(&mut frame, link, Ip { id: at, ..ip }, tcp, len);
        frame.resize(frame.len() + len, 0xa5);
        let end = frame.len();
        checksum::complete(&mut meta, &mut frame, end).unwrap();
        frame
    };
    let mut frames: Vec<Vec<u8>> = (0..30).map(|at| segment(B, at, 1448)).collect();
    frames.extend((0..30).map(|at| segment(MOVER, at, 1448)));
    frames.push(segment(B, 30, 0));
    let mut coalescer = Coalescer::new();
    let mut turns = |turns: usize| {
        let mut out = 0;
        let counted = measure(|| {
            for _ in 0..turns {
                frames.iter_mut().for_each(|frame| coalescer.push(Meta::PLAIN, frame, &mut |_, _| out += 1));
                coalescer.flush(&mut |_, _| out += 1);
            }
        });
        assert_eq!(out, 3 * turns, "two super-frames and the acknowledgement");
        counted.count_total
    };
    assert!(turns(1) > 0, "buffers are made at first use, or nothing is counted");
    assert_eq!(turns(1_000), 0);
}
