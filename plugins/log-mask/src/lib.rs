//! Covers e-mail addresses, tokens and IP addresses in log records, and whatever fields the
//! operator names. It runs behind the hub's built-in floor, which already erases secrets that
//! the hub itself knows.
//!
//! [`finders`] says what a text contains, [`rules`] what to do about it; `plugin` connects them
//! to the contract.

pub mod finders;
pub mod rules;

#[cfg(target_family = "wasm")]
mod plugin;
