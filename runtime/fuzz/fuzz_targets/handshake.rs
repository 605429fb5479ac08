#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| runtime_fuzz::handshake::run(input));
