//! Limits how many flows are opened in a window of time, by whatever the operator counts by:
//! client address, viewer, agent, connector, listener or tenant.
//!
//! Counters are in the hub's key-value table, so they outlive the instance of each call and a
//! change of generation. A window begins with the first flow that it counts and is fixed.
//! [`limits`] decides; `plugin` connects it to the contract and to the table.

pub mod limits;

#[cfg(target_family = "wasm")]
mod plugin;
