//! The agent: dials out to a hub and, through that one tunnel, gives clients of the hub a way to
//! private services.
//!
//! Small on purpose: no policy, no plugins, no HTTP server. It decides only what its own config
//! says: which connectors it offers and what each one reaches. Who may use them is decided by the
//! hub.
//!
//! # Parts
//! - [`config`]: what an agent must know, checked before anything is dialled;
//! - [`Agent`] and [`Running`]: an agent as a value, for `nowconnect-agent run` and for embedding;
//! - `supervisor`: keeps one session alive through any number of tunnels;
//! - `hub_dial`, `proxy`, `tls`, `net`: the way to the hub, step by step;
//! - `connectors`: the way to targets;
//! - `token`: where the token comes from and when it is renewed; `signing`: what is shown of it;
//! - `publish`: public names from a control API, and their tokens; `tap`: what is seen of their use;
//! - [`cli`]: the commands, `diagnose` among them.
//!
//! Everything of an agent runs on one thread with one single-threaded runtime: a tunnel's driver
//! owns all of its flows' sockets, so more threads would only add hand-overs.

mod agent;
mod backoff;
pub mod cli;
pub mod config;
mod connectors;
mod diagnose;
mod fetch;
mod health;
mod hub_dial;
mod net;
mod plain;
mod proxy;
mod proxy_header;
mod publish;
mod secret;
mod shell;
mod signing;
mod state;
mod stream;
mod supervisor;
mod systemd;
mod tap;
pub mod telemetry;
mod tls;
mod token;

pub use self::agent::{Agent, AgentTask, BoundAgent, Running, StartError, build_runtime};
pub use self::config::{AgentConfig, Auth, HubUrl, SigningSecret, Target};
pub use self::connectors::MapError;
pub use self::secret::Secret;
pub use self::state::{AgentState, Phase};
pub use self::tls::TrustError;
pub use self::token::{TokenAsk, TokenAsker, TokenAsks};

/// How the agent calls itself in HTTP requests.
pub(crate) const USER_AGENT: &str = concat!("nowconnect-agent/", env!("CARGO_PKG_VERSION"));
