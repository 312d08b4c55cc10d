//! Plugins as the hub runs them: guests, most of them hostile, built from text, and the built-in
//! plugins as `scripts/build-guests.sh` made them.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod builtin;
mod fetch;
mod guest;
mod harness;
mod hooks;
mod hostile;
mod instances;
mod loading;
mod registry;
mod supply;
mod versions;
mod wasi;
