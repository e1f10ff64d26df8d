//! A whole network: see [`tapswitch_fuzz::pipeline`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tapswitch_fuzz::pipeline::run(data));
