//! Checks on the project as a whole: the arrows between its crates, its programs against real
//! servers, its documents and its examples. The first group reads only the tree; the others run
//! the built programs.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(
    clippy::print_stderr,
    reason = "a failed test shows the logs of its servers"
)]

mod architecture;
mod certificates;
mod client_address;
mod contract;
mod control_api;
mod documents;
mod gateway;
mod http_origin;
mod http_trace;
mod parts;
mod plugins;
mod proofs;
mod publish;
mod real_parts;
mod repository;
mod required_proof;
mod stock_cedar;
mod web;
