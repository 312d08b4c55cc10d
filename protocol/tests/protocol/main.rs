//! The wire.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hostile_agent;
mod mesh_samples;
mod mesh_wire;
mod messages;
mod samples;
mod wire_properties;
mod wire_snapshot;
