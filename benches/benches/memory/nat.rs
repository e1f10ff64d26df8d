//! The translator alone.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use tapswitch_benches::LENGTHS;
use tapswitch_benches::nat::{Translated, translated};

/// One packet of an established session, each way: parsed, found, rewritten. Its headers are restored each time.
pub fn established(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nat");
    for len in LENGTHS {
        let Translated { conntrack, segments } = translated(len);
        for (mut segment, way) in segments.into_iter().zip(["up", "down"]) {
            assert!(segment.pass(&conntrack).is_some());
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(way, len), |bencher| {
                bencher.iter(|| black_box(&mut segment).pass(black_box(&conntrack)));
            });
        }
    }
}
