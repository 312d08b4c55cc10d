//! Certificates that an authority issues for public names, over ACME (RFC 8555).
//!
//! ```text
//!  routes, published names ──► Keeper ──► Book: what is due, and when
//!                                │  ▲
//!                 account, orders▼  │issued, or why not
//!   Challenges ◄──────────── Authority (HTTPS) ──► store
//!       │ asked by the authority                     │
//!       ▼                                            ▼
//!   HTTP and TLS ports ◄──────────── Issued ◄── what is kept
//! ```
//! Names come from what is published here and from nowhere else: a ClientHello or a request asks
//! for nothing. One task, the [keeper], decides; [`Book`](book::Book) is its memory, without
//! clock and without IO. Viewers' handshakes read [`Issued`], which is swapped whole.

mod account;
mod book;
mod challenge;
mod client;
mod ending;
mod issued;
mod keeper;
mod names;
mod order;
mod renewal;
#[cfg(test)]
mod tests;
mod trouble;
pub mod view;

pub(crate) use challenge::ACME_TLS;
pub(crate) use issued::Issued;
pub(crate) use keeper::{Ask, keep};
pub(crate) use names::all;
