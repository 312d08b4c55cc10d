//! A hub as the process that operators run, and the operator's commands.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use nowconnect::admin::AdminClient;
use nowconnect::health::Readiness;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::SOON;

/// A running `nowconnect run`; killed with its value.
pub(crate) struct HubProcess {
    child: Child,
    pub(super) tunnel: SocketAddr,
    pub(super) control: Option<SocketAddr>,
    pub(super) listeners: Vec<(String, SocketAddr)>,
    lines: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl HubProcess {
    /// Starts it and waits until it serves. One that waits for its first bundle takes agents and
    /// clients, and is not ready all the same.
    pub(super) async fn start(
        config: &Path,
        socket: PathBuf,
        largest_file: Option<u64>,
        waits_for_bundle: bool,
    ) -> Self {
        let mut child = nowconnect_with(largest_file)
            .arg("run")
            .arg("--config")
            .arg(config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&lines);
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                kept.lock().push(line);
            }
        });
        let operator = AdminClient::new(socket);
        let deadline = tokio::time::Instant::now() + SOON;
        let status = loop {
            match operator.status().await {
                Ok(status) if waits_for_bundle || status.readiness != Readiness::Starting => {
                    break status;
                }
                _ => {
                    assert!(
                        child.try_wait().unwrap().is_none()
                            && tokio::time::Instant::now() < deadline,
                        "the hub does not serve:\n{}",
                        lines.lock().join("\n")
                    );
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        };
        let has_control = std::fs::read_to_string(config)
            .unwrap()
            .contains("\ncontrol:");
        let mut control = control_address(&lines.lock());
        while has_control && control.is_none() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the log does not say where the control API listens"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            control = control_address(&lines.lock());
        }
        Self {
            child,
            control,
            tunnel: status.tunnel_address.unwrap(),
            listeners: status
                .listeners
                .into_iter()
                .map(|listener| (listener.name, listener.address))
                .collect(),
            lines,
            reader,
        }
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("the hub runs").to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .await
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(SOON, self.child.wait())
            .await
            .expect("the hub should have ended")
            .unwrap()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().clone()
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Where a control API listens, as the log says.
fn control_address(lines: &[String]) -> Option<SocketAddr> {
    let told = lines.iter().find(|line| {
        line.contains("\"listener_started\"") && line.contains("\"listener\":\"control\"")
    })?;
    let after = told.split("\"address\":\"").nth(1)?;
    after.split('"').next()?.parse().ok()
}

/// Runs an operator's command to its end; exit code and standard output.
pub(crate) async fn command(arguments: &[&str]) -> (Option<i32>, String) {
    let running = nowconnect().args(arguments).stdout(Stdio::piped()).output();
    let done = timeout(SOON, running)
        .await
        .expect("the command should have ended")
        .unwrap();
    (
        done.status.code(),
        String::from_utf8_lossy(&done.stdout).into_owned(),
    )
}

/// The program, with nothing in its environment that could change what it does.
fn nowconnect() -> Command {
    nowconnect_with(None)
}

/// The same, which can write no file that is larger: a disk without room, as far as it can see.
fn nowconnect_with(largest_file: Option<u64>) -> Command {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_nowconnect");
    /// Of the limit that the shell sets.
    const BLOCK_BYTES: u64 = 512;
    let mut command = match largest_file {
        None => Command::new(PROGRAM),
        Some(bytes) => {
            let mut shell = Command::new("/bin/sh");
            // The signal would end it; without, writing fails as on a full disk.
            let script = "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"";
            shell.args([
                "-c",
                script,
                "sh",
                &(bytes / BLOCK_BYTES).to_string(),
                PROGRAM,
            ]);
            shell
        }
    };
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}
