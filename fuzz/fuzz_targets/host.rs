#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftkeel::fuzz::host(data));
