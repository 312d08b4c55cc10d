//! The registry against one suite, in memory and in real Redis, and against what goes wrong.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod claimants;
mod cluster;
mod faults;
mod memory;
mod names;
mod sentinel;
mod servers;
mod standalone;
mod suite;
mod tls;
mod wait;
