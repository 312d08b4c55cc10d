//! The agent against a stub hub, real targets and real proxies, all on loopback.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod binary;
mod command_line;
mod flows;
mod outbound;
mod publish;
mod session;
mod stub_control;
mod stub_hub;
mod support;
mod target_tls;
