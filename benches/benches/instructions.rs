//! How many instructions one frame costs on its way through: what a busy machine cannot blur. One run is enough.
//!
//! The same steps as in `memory`. Each is measured once, after a first frame of its kind has gone before: tables know
//! both stations, buffers have their size. Not counted is what makes the frame and the network, and what takes them down.
//!
//! Run it with `benches/instructions [FILTER]`. It needs valgrind, and the program gungraun-runner of the very version of
//! the library; without them it says what is missing and leaves it at that. So that options for criterion may be given
//! to all benches at once, it also stands aside when there are any; its own are environment variables (GUNGRAUN_FILTER,
//! GUNGRAUN_SAVE_BASELINE, ...).
//!
//! The FDB keys its hashes at random: in one run of 256 two of three stations meet in one slot of the cache, and a frame
//! between them costs some hundred instructions more.

#![allow(missing_docs, reason = "the macros of gungraun make public items")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use gungraun::{library_benchmark, library_benchmark_group, main};
use tapswitch_benches::nat::{Translated, translated};
use tapswitch_benches::{A, B, Count, NOW, network, segment, switch};
use tapswitch_network::Network;
use tapswitch_relay::Sockets;
use tapswitch_switch::Switch;
use tapswitch_wire::{Frame, FrameRef, Journey, Meta, Parsed, PortId, Recorded, Unheard, Verdict, checksum, segment};

/// A frame and what it meets. Boxed, so that handing it to the bench and back costs a pointer.
struct World<T> {
    met: T,
    meta: Meta,
    bytes: Vec<u8>,
    ports: Count,
    buffer: Vec<u8>,
    out: Vec<PortId>,
}

fn world<T>(met: T, len: usize) -> Box<World<T>> {
    let (meta, bytes) = segment(A, B, len);
    let (buffer, out) = (Vec::with_capacity(2048), Vec::with_capacity(4));
    Box::new(World { met, meta, bytes, ports: Count::default(), buffer, out })
}

fn frame(len: usize) -> Box<World<()>> {
    world((), len)
}

/// A packet of this length, not a super-frame, with a partial checksum.
fn partial(len: usize) -> Box<World<()>> {
    let mut world = frame(len);
    world.meta.gso = None;
    world
}

/// The same with a complete one.
fn complete(len: usize) -> Box<World<()>> {
    let mut world = partial(len);
    checksum::complete(&mut world.meta, &mut world.bytes, len).expect("a frame that was just made");
    world
}

fn switched(len: usize) -> Box<World<Switch>> {
    world(switch(), len)
}

fn networked(len: usize) -> Box<World<Network<Sockets>>> {
    let mut world = world(network(2), len);
    assert_eq!(cross(&mut world, &mut Unheard), Verdict::Forward(B));
    world
}

#[inline(always)]
fn cross(world: &mut World<Network<Sockets>>, journey: &mut impl Journey) -> Verdict {
    let bytes = black_box(&mut world.bytes[..]);
    world.met.rx(black_box(A), black_box(world.meta), bytes, NOW, journey, &mut world.ports, &mut |_| {})
}

#[library_benchmark]
#[benches::len(args = [64, 512, 1500, 65_536], setup = frame)]
fn parse(world: Box<World<()>>) -> (Option<Parsed>, Box<World<()>>) {
    let parsed = FrameRef::parse(black_box(world.meta), black_box(&world.bytes[..])).ok().map(|frame| *frame.parsed());
    (black_box(parsed), world)
}

// Parsing is part of it.
#[library_benchmark]
#[benches::len(args = [64, 512, 1500, 65_536], setup = complete)]
fn checksum_verify(world: Box<World<()>>) -> Box<World<()>> {
    black_box(
        FrameRef::parse(Meta::PLAIN, black_box(&world.bytes[..])).is_ok_and(|frame| frame.transport_checksum_ok()),
    );
    world
}

#[library_benchmark]
#[benches::len(args = [64, 512, 1500, 65_536], setup = partial)]
fn checksum_complete(mut world: Box<World<()>>) -> Box<World<()>> {
    let len = world.bytes.len();
    black_box(checksum::complete(&mut black_box(world.meta), black_box(&mut world.bytes), len).is_ok());
    world
}

// Parsing is part of it.
#[library_benchmark]
#[bench::complete(args = (1500), setup = complete)]
#[bench::partial(args = (1500), setup = partial)]
fn checksum_patch(mut world: Box<World<()>>) -> Box<World<()>> {
    if let Ok(mut frame) = Frame::parse(black_box(world.meta), black_box(&mut world.bytes)) {
        frame.set_src_ip(black_box(Ipv4Addr::new(192, 0, 2, 1)).into());
    }
    world
}

#[library_benchmark]
#[benches::len(args = [64, 512, 1500, 65_536], setup = frame)]
fn cut(mut world: Box<World<()>>) -> Box<World<()>> {
    let (meta, bytes) = (black_box(&world.meta), black_box(&world.bytes));
    black_box(segment::segment(meta, bytes, &mut world.buffer, &mut world.ports).is_ok());
    world
}

// Parsing is part of it.
#[library_benchmark]
#[benches::len(args = [64, 512, 1500, 65_536], setup = switched)]
fn decide(mut world: Box<World<Switch>>) -> Box<World<Switch>> {
    if let Ok(frame) = FrameRef::parse(black_box(world.meta), black_box(&world.bytes[..])) {
        black_box(world.met.decide(black_box(A), &frame, NOW, &mut Unheard, &mut world.out).is_ok());
    }
    world
}

#[library_benchmark]
#[benches::len(args = [64, 512, 1500, 65_536], setup = networked)]
fn rx(mut world: Box<World<Network<Sockets>>>) -> Box<World<Network<Sockets>>> {
    black_box(cross(&mut world, &mut Unheard));
    world
}

// The same frame when somebody listens: the difference is what everybody else does not pay.
#[library_benchmark]
#[benches::len(args = [64, 1500], setup = networked)]
fn rx_recorded(mut world: Box<World<Network<Sockets>>>) -> (Recorded, Box<World<Network<Sockets>>>) {
    let mut journey = Recorded::default();
    black_box(cross(&mut world, &mut journey));
    (journey, world)
}

fn tracked(len: usize) -> Box<Translated> {
    let mut world = Box::new(translated(len));
    let Translated { conntrack, segments } = &mut *world;
    assert!(segments.iter_mut().all(|segment| segment.pass(conntrack).is_some()));
    world
}

// One packet of an established session. Parsing is part of it, and so is a copy of 54 bytes.
#[library_benchmark]
#[benches::len(args = [64, 1500, 65_536], setup = tracked)]
fn nat_up(mut world: Box<Translated>) -> Box<Translated> {
    let Translated { conntrack, segments: [up, _] } = &mut *world;
    black_box(black_box(up).pass(conntrack));
    world
}

#[library_benchmark]
#[benches::len(args = [64, 1500, 65_536], setup = tracked)]
fn nat_down(mut world: Box<Translated>) -> Box<Translated> {
    let Translated { conntrack, segments: [_, down] } = &mut *world;
    black_box(black_box(down).pass(conntrack));
    world
}

library_benchmark_group!(name = frames, benchmarks = [parse, checksum_verify, checksum_complete, checksum_patch, cut]);
library_benchmark_group!(name = pipeline, benchmarks = [decide, rx, rx_recorded]);
library_benchmark_group!(name = nat, benchmarks = [nat_up, nat_down]);

/// Why nothing can be counted, or nothing is to be.
fn reason_to_skip(args: &[String]) -> Option<String> {
    let is_wanted = |arg: &String| arg == "--bench" || arg.is_empty();
    if !args.iter().any(|arg| arg == "--bench") || !args.iter().all(is_wanted) {
        return Some("it takes no arguments; run benches/instructions".into());
    }
    let version_of = |program: &str| {
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if version_of("valgrind").is_none() {
        return Some("needs valgrind; install it: apt-get install valgrind".into());
    }
    let wanted = library_version();
    // The library looks at the same place.
    match version_of(option_env!("GUNGRAUN_RUNNER").unwrap_or("gungraun-runner")) {
        Some(found) if found.ends_with(&format!(" {wanted}")) => None,
        _ => Some(format!(
            "needs gungraun-runner; install it: cargo install --locked --version {wanted} gungraun-runner"
        )),
    }
}

/// Which the workspace pins.
fn library_version() -> &'static str {
    let lines = include_str!("../../Cargo.toml").lines();
    let mut pinned = lines.filter_map(|line| line.strip_prefix("gungraun = \"=")?.strip_suffix('"'));
    pinned.next().unwrap_or_default()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // The runner starts this program again, under valgrind, for each count.
    let is_counted = args.first().is_some_and(|arg| arg == "--gungraun-run");
    if let (false, Some(reason)) = (is_counted, reason_to_skip(&args)) {
        println!("instructions: skipped: {reason}");
        return;
    }
    count();
}

/// In a function of its own, as gungraun's `main!` brings its own `main`.
fn count() {
    main!(library_benchmark_groups = [frames, pipeline, nat]);
    main();
}
