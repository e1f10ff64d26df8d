//! What one frame costs on its way through, without the kernel: no read, no write, no copy.
//!
//! * `parse`: bytes and metadata to offsets.
//! * `checksum`: verified, completed, and patched after a change of address.
//! * `segment`: a super-frame cut for a port without offloads, or one partial checksum completed.
//! * `fdb`: who stands where, from the cache, from the shared table and not at all; at 100 000 stations too.
//! * `decide`: the switch's decision about a frame between two known stations.
//! * `rx`: the whole pipeline of a network, from one container's port to another's.
//! * `crowd`: the same between any two of 2 to 1000 containers.
//! * `nat`: a packet of an established session through the translator, up and down.
//!
//! Nearly all of them at 64, 512 and 1500 bytes and at 64 KiB, where a super-frame should cost what a small frame costs:
//! only `checksum` and `segment` touch the payload.
//!
//! Run all with `cargo bench -p tapswitch-benches --bench memory`, one with `... -- decide/64`. On a busy machine compare
//! only runs made in turn, or count instructions: `benches/instructions`.

mod fdb;
mod frames;
mod nat;
mod pipeline;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    benches,
    frames::parse,
    frames::sums,
    frames::cut,
    fdb::fdb,
    pipeline::decide,
    pipeline::rx,
    pipeline::crowd,
    nat::established
);
criterion_main!(benches);
