//! One frame by itself.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BenchmarkId, Criterion, Throughput};
use tapswitch_benches::{A, B, Count, LENGTHS, segment};
use tapswitch_wire::{ChecksumState, Frame, FrameRef, Meta, checksum, segment};

pub fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for len in LENGTHS {
        let (meta, bytes) = segment(A, B, len);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| FrameRef::parse(black_box(meta), black_box(&bytes[..])).map(|frame| *frame.parsed()));
        });
    }
}

/// `verify` reads every byte once, and so does `complete`; `patch` reads none of them. The longest frame is a packet of
/// that length here, for a super-frame has no checksum to complete.
pub fn sums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in LENGTHS {
        let (meta, mut bytes) = segment(A, B, len);
        let partial = Meta { gso: None, ..meta };
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("complete", len), |bencher| {
            bencher.iter(|| checksum::complete(&mut black_box(partial), black_box(&mut bytes), len));
        });

        let (_, mut bytes) = segment(A, B, len);
        checksum::complete(&mut { partial }, &mut bytes, len).expect("a frame that was just made");
        let frame = FrameRef::parse(Meta::PLAIN, &bytes[..]).expect("a frame that was just made");
        assert!(frame.transport_checksum_ok());
        group.bench_function(BenchmarkId::new("verify", len), |bencher| {
            bencher.iter(|| black_box(&frame).transport_checksum_ok());
        });

        group.throughput(Throughput::Elements(1));
        for (name, meta) in [("patch-complete", Meta::PLAIN), ("patch-partial", partial)] {
            assert_eq!(meta.checksum == ChecksumState::Complete, name == "patch-complete");
            let mut bytes = bytes.clone();
            let mut frame = Frame::parse(meta, &mut bytes).expect("a frame that was just made");
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                bencher.iter(|| black_box(&mut frame).set_src_ip(black_box(Ipv4Addr::new(192, 0, 2, 1)).into()));
            });
        }
    }
}

/// The longest becomes 46 segments of 1448 bytes. Below the MTU nothing is cut: the checksum is completed in a copy.
pub fn cut(criterion: &mut Criterion) {
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
