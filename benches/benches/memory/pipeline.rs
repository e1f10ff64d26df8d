//! The switch alone, and a whole network in memory.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use tapswitch_benches::{A, B, Count, LENGTHS, NOW, Random, mac, network, readdress, segment, switch};
use tapswitch_wire::{FrameRef, Unheard, Verdict};

pub fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for len in LENGTHS {
        let (meta, bytes) = segment(A, B, len);
        let frame = FrameRef::parse(meta, &bytes[..]).expect("a frame that was just made");
        let (mut switch, mut out) = (switch(), Vec::with_capacity(4));
        assert_eq!(switch.decide(A, &frame, NOW, &mut Unheard, &mut out).map(|()| &out[..]), Ok(&[B][..]));
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| switch.decide(black_box(A), black_box(&frame), NOW, &mut Unheard, &mut out));
        });
    }
}

pub fn rx(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rx");
    for len in LENGTHS {
        let (meta, mut bytes) = segment(A, B, len);
        let (mut network, mut ports) = (network(2), Count::default());
        let verdict = network.rx(A, meta, &mut bytes, NOW, &mut Unheard, &mut ports, &mut |_| {});
        assert_eq!((verdict, ports.0), (Verdict::Forward(B), len as u64));
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| {
                let bytes = black_box(&mut bytes[..]);
                network.rx(A, black_box(meta), bytes, NOW, &mut Unheard, &mut ports, &mut |_| {})
            });
        });
    }
}

/// Everybody talks to everybody, at random: the frames of one turn have nothing in common with those of the next. All
/// are read into one buffer, as they would be from the ports. The draw and the addresses cost the same for any number.
pub fn crowd(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crowd");
    for containers in [2, 16, 64, 256, 1000] {
        let (meta, mut bytes) = segment(A, B, 64);
        let (mut network, mut ports) = (network(containers), Count::default());
        let mut random = Random::default();
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(containers), |bencher| {
            bencher.iter(|| {
                let (from, to) = random.pair(black_box(containers));
                readdress(&mut bytes, mac(from), mac(to));
                network.rx(from, meta, black_box(&mut bytes), NOW, &mut Unheard, &mut ports, &mut |_| {})
            });
        });
    }
}
