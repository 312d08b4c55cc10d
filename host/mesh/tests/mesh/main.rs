//! Links between hubs on real sockets, with real certificates.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod authority;
mod certificates;
mod crossing;
mod discovery;
mod hostile;
mod hub;
mod ingress;
mod links;
mod raw;
