//! The last hops: from the agent to each of its targets.

use std::time::Duration;

use nowconnect_protocol::ResetCode;
use nowconnect_tunnel::{DialError, Dialed, FlowIo};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use super::certificate::describe;
use super::walk::Walk;
use crate::config::{Target, TargetAddress};
use crate::connectors::{Asked, PreparedTarget};
use crate::hub_dial::explain_tls;

/// Targets are tried one after the other; more than this are left out, with a word about it.
const TARGETS_MAX: usize = 256;

/// A target that refuses the agent's certificate does so within a round trip of the handshake.
const REFUSAL_WAIT: Duration = Duration::from_millis(300);

impl Walk {
    pub(super) async fn targets(&mut self) {
        let offered = self.config.offered_connectors();
        for connector in offered.iter().take(TARGETS_MAX) {
            let Some(target) = self.config.targets.get(connector).cloned() else {
                continue;
            };
            self.target(&format!("target {connector}"), &target).await;
        }
        if offered.len() > TARGETS_MAX {
            self.report.skipped(
                "targets",
                format!("{} more were not tried", offered.len() - TARGETS_MAX),
            );
        }
    }

    async fn target(&mut self, hop: &str, target: &Target) {
        let started = Instant::now();
        let prepared = match PreparedTarget::new(target, self.config.limits.connect_timeout) {
            Ok(prepared) => prepared,
            Err(error) => {
                self.report.failed(hop, error.to_string(), "mend `tls`");
                return;
            }
        };
        let outcome = match prepared.dial(&Asked::default()).await {
            Ok(dialed) => stays(dialed).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(dialed) => {
                let tls = if target.tls.is_some() { ", TLS" } else { "" };
                let alpn = dialed
                    .alpn
                    .map_or_else(String::new, |alpn| format!(" with `{alpn}`"));
                self.report
                    .ok(hop, format!("connected to {}{tls}{alpn}", target.address));
            }
            Err(error) => {
                let advice = match &target.address {
                    _ if error.code == ResetCode::TargetTlsFailed => {
                        "look at this target's `tls`: `ca_bundle`, `server_name`, `cert_file`, `key_file`"
                    }
                    TargetAddress::Tcp { .. } => {
                        "is the service running, is its host and port right, may this machine reach it?"
                    }
                    TargetAddress::Unix(_) => "does the socket exist and may this user open it?",
                };
                let address = target.address.to_string();
                let detail = if error.message.starts_with(&address) {
                    format!("{} ({})", error.message, error.code)
                } else {
                    format!("{address}: {} ({})", error.message, error.code)
                };
                self.report.failed(hop, detail, advice);
            }
        }
        if let Some(certificate) = prepared.shown() {
            let shown = describe(certificate);
            self.report.note(format!("shown if asked: {shown}"));
        }
        self.report.took(started.elapsed());
    }
}

/// In TLS 1.3 a client is through the handshake before the server has looked at its certificate,
/// so a refusal comes as the first thing that is read.
async fn stays(mut dialed: Dialed) -> Result<Dialed, DialError> {
    let FlowIo::Boxed(stream) = &mut dialed.io else {
        return Ok(dialed);
    };
    match timeout(REFUSAL_WAIT, stream.read(&mut [0])).await {
        Ok(Err(error)) => Err(DialError {
            code: ResetCode::TargetTlsFailed,
            message: format!("TLS to the target failed: {}", explain_tls(&error)),
        }),
        // It greets, it ended by itself, or it waits for the client: all of them let it in.
        Ok(Ok(_)) | Err(_) => Ok(dialed),
    }
}
