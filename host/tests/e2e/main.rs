//! Whole hubs and agents on real sockets.
//!
//! A scenario reads as a story: start a [`cluster::hub`], give it listeners and policies, let
//! agents come, open clients, look at what arrived. Everything binds port 0 on loopback, waits
//! with deadlines, and ends with its test.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod cluster;

mod admin;
mod agents;
mod balance;
mod bundles;
mod certificates;
mod control;
mod decisions;
mod flows;
mod ha;
mod hasty_agent;
mod ingress;
mod limits;
mod masking;
mod mesh;
mod plugins;
mod policies;
mod recheck;
mod refused;
mod reload;
mod resume;
mod security;
mod shutdown;
