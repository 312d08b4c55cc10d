//! Fuzz target: see `nowconnect_protocol_fuzz::hub_end`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| nowconnect_protocol_fuzz::hub_end(data));

#[cfg(not(fuzzing))]
fn main() {}
