//! The NowConnect hub and the operator's command line.
//!
//! A hub stands on the public side. Agents dial in to its tunnel port; clients reach its
//! listeners; every client's connection becomes a *flow* through the tunnel of an agent that
//! offers the listener's connector. Nothing flows without a *permit*, and only [`authorize`]
//! makes permits: it asks the limits, the revocation list, the Cedar policies and the plugins
//! of one [`generation`], and records what was decided and why.
//!
//! The arrows between the modules: `tunnel_endpoint` and `listener` take what comes in and ask
//! `authorize`; `router` knows which tunnel serves which connector; `cluster` holds what this hub
//! has of the registry, which knows who owns an agent, and `mesh` the links to the other hubs; `ingress` takes HTTP by host name and opens flows of its own; `viewer` finds out who
//! asks there; `certificates` has them issued for its names; `control` gives private services their
//! public names; `session` keeps what outlives a tunnel; `reload` builds and publishes the next
//! configuration and generation; `drain` ends it all in order. `gateway` is the only place
//! that wires them.

// Deciding and carrying.
pub mod authorize;
pub mod bundle;
pub mod certificates;
pub mod cluster;
mod connector;
mod control;
pub mod drain;
pub mod flow_table;
pub mod gateway;
pub mod generation;
pub mod hub;
mod hub_view;
mod ingress;
pub mod limit;
mod listener;
mod mesh;
mod page_server;
pub mod pdp;
pub mod preflight;
pub mod prove;
mod recheck;
pub mod reload;
pub mod router;
mod session;
mod target_health;
pub mod tunnel_endpoint;
mod viewer;
pub use nowconnect_registry as registry;

// Configuration and identity.
pub mod config;
pub mod identity;
pub mod proxy_protocol;
pub mod revocation;
pub mod tls;
pub mod watch;

// Seen from outside.
pub mod admin;
pub mod codes;
pub mod health;
pub mod telemetry;

// The operator's command line.
pub mod cli;

#[cfg(test)]
mod fixture;
