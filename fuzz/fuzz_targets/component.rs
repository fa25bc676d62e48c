//! See `larder_tests::fuzz::component`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_tests::fuzz::component(data));
