//! Sets headers on requests from what the hub knows: who the client is (`X-Forwarded-For`,
//! `X-Netbore-Client-IP`), which agent serves it (`X-Netbore-Agent-IP`, masked unless told
//! otherwise), where a connector leads (`datum-*`), and whatever else templates name.
//!
//! A header that this plugin sets is one that the origin believes, so a client's own copy never
//! survives: it is replaced, or removed where there is no value to set.
//!
//! [`headers`] decides, [`template`] fills in; `plugin` connects them to the contract.

pub mod headers;
pub mod template;

#[cfg(target_family = "wasm")]
mod plugin;
