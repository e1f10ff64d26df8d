//! One frame with its virtio-net header: see [`tapswitch_fuzz::parse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tapswitch_fuzz::parse::run(data));
