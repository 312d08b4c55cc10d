//! The control plane: the API that gives private services public names.
//!
//! ```text
//!  agent ── POST /tunnels/create ──► Api ── policies ──► Control ──► Store (one file)
//!    │                                                      │          │
//!    └── /tunnel with the ephemeral token ──► Authenticator ┘       PublishedNames ◄── HTTP ports
//!                                              counts once
//! ```
//! The rules are in `nowconnect-control`; here they meet HTTP, the policies and the hub's
//! sessions. A caller is bounded before he has proven anything: connections, the size and time of
//! a request, and requests a second from one source.

pub(crate) mod admit;
mod api;
mod edges;
mod ground;
mod hub_ground;
mod idempotency;
mod names;
mod openapi;
mod origin;
mod plane;
mod ports;
mod published;
mod server;
mod shapes;

pub(crate) use plane::{ControlPlane, NextControl, OpenError, Opened};
pub(crate) use ports::keep_ports;
pub(crate) use published::{Protocol, Published, PublishedNames};
