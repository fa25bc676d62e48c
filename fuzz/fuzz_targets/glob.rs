//! Runs the property `larder_tests::fuzz::glob` on the fuzzer's input.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_tests::fuzz::glob(data));
