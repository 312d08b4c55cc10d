//! The policy crate as the hub uses it: texts in, decisions out.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod archives;
mod checks;
mod decisions;
mod explanations;
mod fixture;
mod proofs;
mod shipped;
mod tenants;
mod versions;
