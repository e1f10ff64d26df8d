//! A link in its stride allocates nothing: counted, not believed.

use std::time::Duration;

use allocation_counter::measure;
use tapswitch_impair::Link;
use tapswitch_wire::build::{self, Ip, Link as Macs, Tcp};
use tapswitch_wire::{Gso, GsoKind, Instant, Mac, Meta};

fn turns(link: &mut Link, from: u64, count: u64, meta: &Meta, frame: &[u8]) -> u64 {
    let mut popped = 0;
    for turn in from..from + count {
        let now = Instant::from_millis(turn);
        link.push(now, meta, frame).unwrap();
        link.push(now, &Meta::PLAIN, &frame[..60]).unwrap();
        while link.pop(now).is_some() {
            popped += 1;
        }
    }
    popped
}

#[test]
fn frames_through_every_impairment_cost_no_allocation() {
    let macs = Macs { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };
    let ip = Ip { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into(), ttl: 64, tos: 0, id: 7 };
    let header = Tcp { src_port: 1, dst_port: 2, seq: 1000, ack: 5, flags: 0x18, window: 500, options: &[] };
    let mut frame = Vec::new();
    let mut meta = build::tcp(&mut frame, macs, ip, header, 10 * 1448);
    frame.resize(frame.len() + 10 * 1448, 1);
    meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1448, ecn: false });
    // Buffers are made whenever more is under way than ever before. A time with a longer delay provides for that.
    let mut link = Link::new("delay 40ms rate 100mbit limit 110".parse().unwrap(), 1);
    turns(&mut link, 0, 1000, &meta, &frame);
    let words = "delay 20ms 5ms normal loss 2% duplicate 5% reorder 5% corrupt 5% rate 100mbit limit 100";
    link.set(words.parse().unwrap(), Instant::from_millis(1000));
    turns(&mut link, 1000, 1000, &meta, &frame);
    let mut popped = 0;
    let counted = measure(|| {
        popped = turns(&mut link, 2000, 2000, &meta, &frame);
        for change in 0..10 {
            let now = Instant::from_millis(4000) + Duration::from_millis(change);
            let rate = std::num::NonZeroU64::new(50_000_000 + change).unwrap();
            let rate = Some(tapswitch_impair::Rate { bits: rate, ethernet: false });
            link.set(tapswitch_impair::Impairment { rate, ..*link.impairment() }, now);
        }
    });
    assert!(popped > 10_000, "{popped} frames");
    assert_eq!(counted.count_total, 0, "allocations for {popped} frames");
}
