//! The forwarding database, as the switch uses it, with as many stations as it holds by default and with 100 000.
//!
//! It is not open to the outside, so what is measured is a whole decision about a frame without a network layer. `cached`
//! is the base line; what another case costs above it is its own.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BenchmarkId, Criterion, Throughput};
use tapswitch_benches::{A, B, MTU, Random, readdress};
use tapswitch_switch::{Config, PortConfig, Switch};
use tapswitch_wire::{FrameRef, Instant, Mac, Meta, PortId, Unheard};

/// The station that is pinned to port A: it needs no learning, and finding it no more than the cache.
const PINNED: u32 = 1 << 20;

/// From here on, nobody is at home.
const NOBODY: u32 = 2 << 20;

/// One frame of a case: `draw` is a number below that of the stations, `second` the time, which goes on by one for each
/// frame.
type Turn = fn(bench: &mut Bench, draw: u32, second: u64) -> bool;

const CASES: [(&str, Turn); 6] = [
    // Source and destination are found in the cache.
    ("cached", |bench, _, _| bench.say(A, PINNED, 0, 1)),
    // The cache holds 256 stations, the destination is any of all.
    ("shared", |bench, draw, _| bench.say(A, PINNED, draw, 1)),
    // Nobody knows the destination: the frame is flooded, here to the only other port.
    ("unknown", |bench, draw, _| bench.say(A, PINNED, NOBODY + draw, 1)),
    // The source's first frame in this second.
    ("refresh", |bench, draw, second| bench.say(B, draw, PINNED, second)),
    // A new source, for which there is no room.
    ("refused", |bench, draw, _| bench.say(B, NOBODY + draw, PINNED, 1)),
    // A source that was behind the other port a moment ago, and says so to a stranger.
    ("move", |bench, _, second| bench.say(if second % 2 == 0 { B } else { A }, 0, NOBODY, second)),
];

pub fn fdb(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fdb");
    for stations in [8192, 100_000] {
        for (name, turn) in CASES {
            let mut bench = Bench::new(stations);
            assert!(turn(&mut bench, stations - 1, 1), "{name}: the frame went nowhere, or everywhere");
            let (mut random, mut second) = (Random::default(), 1);
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(name, stations), |bencher| {
                bencher.iter(|| {
                    second += 1;
                    turn(&mut bench, random.below(black_box(stations)), second)
                });
            });
        }
    }
}

fn station(index: u32) -> Mac {
    Mac::from_ipv4(Ipv4Addr::from(0x0a00_0000 + index))
}

/// A table, and one buffer for all frames.
struct Bench {
    switch: Switch,
    frame: [u8; 64],
    out: Vec<PortId>,
}

impl Bench {
    /// A table that has learned `stations` behind port B and has room for no other.
    fn new(stations: u32) -> Bench {
        let room = stations as usize;
        let mut switch = Switch::new(Config { max_entries: room, max_entries_per_port: room, ..Config::default() });
        [A, B].into_iter().for_each(|port| switch.add_port(port, PortConfig { mtu: MTU, isolated: false }));
        let mut frame = [0; 64];
        // The EtherType for local experiments (IEEE 802-2014 9.2.3).
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        let mut bench = Bench { switch, frame, out: Vec::with_capacity(4) };
        for index in 0..stations {
            bench.say(B, index, NOBODY, 1);
        }
        assert_eq!(bench.switch.fdb(Instant::from_secs(1)).len(), room);
        bench.switch.pin(station(PINNED), A);
        bench
    }

    /// One station speaks to another. Whether the frame has one way out.
    #[inline]
    fn say(&mut self, port: PortId, from: u32, to: u32, second: u64) -> bool {
        readdress(&mut self.frame, station(from), station(to));
        let Ok(frame) = FrameRef::parse(Meta::PLAIN, black_box(&self.frame[..])) else { return false };
        let decided = self.switch.decide(port, &frame, Instant::from_secs(second), &mut Unheard, &mut self.out);
        decided.is_ok() && self.out.len() == 1
    }
}
