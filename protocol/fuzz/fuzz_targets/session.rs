//! Fuzz target: see `nowconnect_protocol_fuzz::session`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| nowconnect_protocol_fuzz::session(data));

#[cfg(not(fuzzing))]
fn main() {}
