//! Fuzz targets of tapswitch: what they do with their bytes, and what must hold.
//!
//! ```text
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz parse    -- -max_total_time=60 -timeout=5 -rss_limit_mb=2048
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz pipeline -- -max_total_time=60 -timeout=5 -rss_limit_mb=2048
//! ```
//!
//! The committed corpus is minimised (`cargo +nightly fuzz cmin --fuzz-dir tests/fuzz TARGET -- -use_counters=0`, which
//! keeps one input for each place in the code and not for each number of passes through it); `cargo run --example
//! seeds` in this directory writes what it grew from. An input that crashed becomes a regression test in the crate at
//! fault. The bodies of the targets stand here and not in `fuzz_targets`, so that `cargo test` in this directory replays
//! the corpus with the stable compiler.

mod frames;
mod host;
#[path = "../../../switch/wire/tests/wire/oracle.rs"]
pub mod oracle;
pub mod parse;
pub mod pipeline;
pub mod record;
mod street;
mod taps;
