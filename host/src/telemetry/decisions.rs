//! The record of each decision, and the ring that keeps the last of them.
//!
//! Every HELLO, announced connector, open and admin call that is decided yields one
//! [`DecisionRecord`]. It is written as a log line (`event` is `decision`) and kept in a
//! [`DecisionRing`] of fixed size, where `nowconnect policy explain` finds it by id or by client
//! address. Free text in a record has passed the redaction floor before it is kept. [`log`] writes
//! them to a log of their own; [`requests`] keeps what was asked, to be tried against other policies.

pub mod log;
mod record;
pub mod requests;
mod ring;
#[cfg(test)]
mod tests;

pub use record::{
    DecisionAction, DecisionId, DecisionIds, DecisionRecord, Latency, ParseDecisionIdError,
    PdpAnswer, PluginAnswer, PolicyAnswer, Question, Why,
};
pub use ring::{DecisionFilter, DecisionRing, MAX_DECISION_BYTES, MAX_DECISIONS};
