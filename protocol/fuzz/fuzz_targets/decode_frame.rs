//! Fuzz target: see `nowconnect_protocol_fuzz::decode_frame`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| nowconnect_protocol_fuzz::decode_frame(data));

#[cfg(not(fuzzing))]
fn main() {}
