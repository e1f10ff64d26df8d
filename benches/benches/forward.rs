//! What one frame costs on its way through, without the kernel: no read, no write, no copy.
//!
//! * `parse`: bytes and metadata to offsets.
//! * `checksum`: the internet checksum over a whole frame.
//! * `segment`: a super-frame cut for a port without offloads, or one partial checksum completed.
//! * `decide`: the switch's decision about a frame between two known stations.
//! * `rx`: the whole pipeline of a network, from one container's port to another's.
//!
//! All of them at 64, 512 and 1500 bytes and at 64 KiB, where a super-frame should cost what a small frame costs: only
//! `checksum` and `segment` touch the payload.
//!
//! Run all with `cargo bench -p tapswitch-benches`, one with `cargo bench -p tapswitch-benches -- decide/64`. On a busy
//! machine compare only runs made in turn.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tapswitch_benches::{A, B, Count, LENGTHS, NOW, network, segment, switch};
use tapswitch_wire::{FrameRef, Unheard, Verdict, checksum, segment};

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for len in LENGTHS {
        let (meta, bytes) = segment(A, B, len);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| FrameRef::parse(black_box(meta), black_box(&bytes[..])).map(|frame| *frame.parsed()));
        });
    }
}

fn sum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in LENGTHS {
        let (_, bytes) = segment(A, B, len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| checksum::sum(black_box(&bytes)));
        });
    }
}

fn cut(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    for len in LENGTHS {
        let (meta, bytes) = segment(A, B, len);
        let (mut buffer, mut count) = (Vec::with_capacity(2048), Count::default());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| segment::segment(black_box(&meta), black_box(&bytes), &mut buffer, &mut count));
        });
    }
}

fn decide(criterion: &mut Criterion) {
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

fn rx(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rx");
    for len in LENGTHS {
        let (meta, mut bytes) = segment(A, B, len);
        let (mut network, mut ports) = (network(), Count::default());
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

criterion_group!(benches, parse, sum, cut, decide, rx);
criterion_main!(benches);
