#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftkeel_fuzz::targets::wire::packet_made(data));
