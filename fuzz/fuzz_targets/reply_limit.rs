//! Runs the property `larder_tests::fuzz::reply_limit` on the fuzzer's input.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_tests::fuzz::reply_limit(data));
