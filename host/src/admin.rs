//! The admin API: what an operator sees of a running hub, and what he changes.
//!
//! JSON over HTTP/1 on a Unix socket of mode 0600; over TCP only with a bearer token or client
//! certificates, and then with `Host` and `Origin` checked, so that no web page reaches it by DNS
//! rebinding. The API knows the hub only through [`HubView`]; decisions come from the
//! [`DecisionRing`](crate::telemetry::decisions::DecisionRing), the log level from the log
//! pipeline. Errors are `application/problem+json` with a stable `code`.

pub mod view;

pub use view::HubView;
