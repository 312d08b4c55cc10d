//! What is seen of the hub from outside: metrics, logs, traces, decisions.
//!
//! Whatever leaves the process passes [`redact`]; log records pass the mask plugins after it, off
//! the hot path. See [`metrics`] for the names, [`events`] for the log events, [`decisions`] for
//! the record of each decision.

pub mod decisions;
pub mod events;
pub mod mask;
pub mod metrics;
pub mod redact;
