//! The admin API: what an operator sees of a running hub, and what he changes.
//!
//! JSON over HTTP/1 on a Unix socket of mode 0600; over TCP only with a bearer token or client
//! certificates, and then with `Host` and `Origin` checked, so that no web page reaches it by DNS
//! rebinding. The API knows the hub only through [`HubView`]; decisions come from the
//! [`DecisionRing`](crate::telemetry::decisions::DecisionRing), the log level from the log
//! pipeline. Errors are `application/problem+json` with a stable `code`.
//!
//! | method and path | what |
//! |---|---|
//! | `GET /v1/status` | [`HubStatus`](view::HubStatus) |
//! | `GET /v1/agents`, `/v1/agents/{agent}` | agents with a session |
//! | `POST /v1/agents/{agent}/kick` | ends an agent's session |
//! | `GET /v1/flows?agent=&connector=&client=&limit=` | running flows |
//! | `POST /v1/flows/{flow}/close` | ends a flow |
//! | `GET /v1/decisions?client=&action=&allow=&agent=&connector=&limit=` | kept decisions |
//! | `GET /v1/decisions/{id}` | one decision |
//! | `POST /v1/explain` | asks again, explaining |
//! | `GET /v1/generation` | policies and plugins in force |
//! | `POST /v1/reload` | reads everything again |
//! | `GET`, `PUT /v1/log-level` | the log level |
//! | `POST /v1/drain` | drains the hub |
//! | `GET /v1/policy` | policy bundles: active, staged, history |
//! | `GET /v1/policy/shadow` | the staged policies compared with those in force |
//! | `POST /v1/policy/bundles?stage_only=&rollback=` | brings a bundle, as a tar |
//! | `GET /v1/policy/bundles/{revision}` | a bundle that is kept, as a tar |
//! | `POST /v1/policy/activate` | puts the staged bundle in force, or says what that would do |
//! | `POST /v1/policy/discard` | takes the staged bundle back |
//!
//! An agent outside the default tenant is `tenant%2Fagent` in a path.

pub mod client;
pub mod problem;
pub mod view;

mod bundles;
mod guard;
mod proof;
mod routes;
mod server;
mod socket;
#[cfg(test)]
mod tests;
mod uploads;

pub use bundles::Discarded;
pub use client::{AdminClient, ClientError};
pub use routes::{
    ANSWER_TIMEOUT, AdminState, AgentPage, DecisionPage, DecisionQuery, Done, LogLevel,
    MAX_BODY_BYTES, MAX_DECISIONS_PER_PAGE, MAX_REQUESTS_PER_PAGE, RequestPage, RequestQuery,
};
pub(crate) use server::Access;
pub use server::{
    AdminBindError, AdminProof, AdminServer, AdminTcp, HEAD_TIMEOUT, MAX_CONNECTIONS,
    MIN_TOKEN_CHARACTERS, TcpAccess,
};
pub(crate) use socket::{DEV_SOCKET, dev_folder};
pub use socket::{SocketError, default_socket_path};
pub use view::HubView;

pub(crate) use bundles::UNSIGNED;
