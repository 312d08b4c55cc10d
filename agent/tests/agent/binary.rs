//! The agent's binary with a config of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::{Child, Command};

use crate::stub_hub::StubHub;
use crate::support::soon;

/// A folder with a config and a token.
pub(crate) struct Setup {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Setup {
    pub(crate) fn new(hub: &StubHub, target: SocketAddr) -> Self {
        Self::with_url(&hub.url(), target)
    }

    pub(crate) fn with_url(url: &str, target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "t0ken\n").unwrap();
        let path = folder.path().join("premise.yaml");
        let setup = Self { folder, path };
        setup.write(url, &[("echo", target)]);
        setup
    }

    pub(crate) fn write(&self, url: &str, targets: &[(&str, SocketAddr)]) {
        let targets: String = targets
            .iter()
            .map(|(name, target)| format!("  {name}: {}\n", place(*target, "")))
            .collect();
        self.write_targets(url, &targets);
    }

    /// `targets` is YAML, two spaces in.
    pub(crate) fn write_targets(&self, url: &str, targets: &str) {
        let token = self.folder.path().join("token");
        let yaml = format!(
            "tunnel:\n  url: {url}\n  agent_id: premise-1\n  auth: {{token_file: {}}}\n\
             observability: {{health_port: 0}}\ntargets:\n{targets}",
            token.display()
        );
        std::fs::write(&self.path, yaml).unwrap();
    }
}

/// A target's section on one line, with `more` of its keys.
pub(crate) fn place(target: SocketAddr, more: &str) -> String {
    format!("{{host: {}, port: {}{more}}}", target.ip(), target.port())
}

pub(crate) fn agent(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nowconnect-agent"));
    command
        .args(arguments)
        .arg("--config")
        .arg(config)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub(crate) async fn diagnose(config: &Path) -> (serde_json::Value, Output) {
    let mut command = agent(config, &["diagnose", "--json"]);
    let output = soon("the diagnosis", command.output()).await.unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    (report, output)
}

pub(crate) fn hop(report: &serde_json::Value, name: &str) -> serde_json::Value {
    report["hops"]
        .as_array()
        .unwrap()
        .iter()
        .find(|hop| hop["hop"] == name)
        .cloned()
        .unwrap_or_else(|| panic!("no hop {name} in {report:#}"))
}

pub(crate) async fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    let status = Command::new("kill")
        .args(["-s", name, &id])
        .status()
        .await
        .unwrap();
    assert!(status.success());
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
