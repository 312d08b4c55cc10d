//! A trace receiver: Elastic's mock OTLP server from npm, run by `scripts/parts/otlp.mjs`.

use std::path::Path;
use std::process::{ChildStdin, Stdio};

use serde::Deserialize;

use super::oidc::first_json_line;
use super::{Daemon, program};
use crate::repository::root;

/// The programs and packages that it needs.
pub(crate) const PROGRAMS: [&str; 2] = [
    "node",
    "scripts/parts/node_modules/@elastic/mockotlpserver/package.json",
];

/// One received span.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) span: String,
    pub(crate) parent: String,
    pub(crate) attributes: serde_json::Value,
}

/// One received log record.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) service: String,
    pub(crate) scope: String,
    pub(crate) severity: String,
    pub(crate) body: String,
    pub(crate) log_trace: String,
    pub(crate) log_attributes: serde_json::Value,
}

/// A receiver.
pub(crate) struct Otlp {
    /// Where it takes OTLP over HTTP.
    pub(crate) endpoint: String,
    daemon: Daemon,
    _stdin: ChildStdin,
}

impl Otlp {
    /// Starts a receiver.
    pub(crate) fn start(folder: &Path) -> Self {
        let mut command = program("node");
        command
            .arg(root().join("scripts/parts/otlp.mjs"))
            .current_dir(root().join("scripts/parts"))
            .stdin(Stdio::piped());
        let mut daemon = Daemon::start("otlp", &mut command, folder);
        let stdin = daemon.child.stdin.take().unwrap();
        let hello = daemon.wait_for("its first line", first_json_line);
        Self {
            endpoint: hello["http"].as_str().unwrap().to_owned(),
            daemon,
            _stdin: stdin,
        }
    }

    /// All log records that have arrived.
    pub(crate) fn log_records(&self) -> Vec<LogRecord> {
        self.daemon
            .log()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// All spans that have arrived.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.daemon
            .log()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}
