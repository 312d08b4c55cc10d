//! The control plane's rules: who may publish which name, and the tokens that say so.
//!
//! ```text
//!  caller ── create ──► Control ── claim ──► Store
//!                          │
//!                          └─► ephemeral token (for the tunnel), recreate token (for the name)
//! ```
//! No sockets and no clock: the hub brings requests and the time, and asks its policies before it
//! calls. What is given out is on the disk before it is answered.

mod client;
mod control;
mod id;
mod keys;
mod name;
mod signed;
#[cfg(test)]
mod tests;
mod token;

pub use client::{Client, ClientRegister, Role};
pub use control::{
    Control, ControlError, Created, Maker, Offered, Planned, Settings, TunnelRequest,
};
pub use keys::{Algorithm, KeyError, KeyRing, KeySettings};
pub use name::{NameRefused, NameRules};
pub use signed::{MAX_NONCE_BYTES, NONCE_MIN_BYTES, SCHEME, SignedError, SignedRequest, sign};
pub use token::{Management, OWN_AUDIENCES, Recreate, TokenRefused};
