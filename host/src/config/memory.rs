//! The worst case of a hub's memory, as a formula over its configuration.

use std::fmt;

use nowconnect_protocol::limits::MAX_MESSAGE_BYTES;

use super::{CloudConfig, PluginMode};
use crate::bundle::board::MAX_WAITING_ORDERS;
use crate::bundle::shadow::MAX_WAITING_QUESTIONS;

/// What one flow costs beside its windows: both state machines, timers, socket bookkeeping and
/// the copy of its question. Bytes; measured with idle flows and rounded up.
const FLOW_OVERHEAD_BYTES: u64 = 8 << 10;

/// Messages of one tunnel that go: one in work, and twelve whose memory is used again while it is
/// busy. A tunnel that is quiet for two seconds has given them back.
const SENT_MESSAGES: u64 = 13;

/// The message of one tunnel that comes. An agent that was not told of less may fill it, whatever
/// is configured. Bytes.
const RECEIVED_BYTES: u64 = MAX_MESSAGE_BYTES as u64;

/// What one handshake may hold beside its request: TLS buffers of both directions. Bytes.
const TLS_HANDSHAKE_BYTES: u64 = 40 << 10;

/// What one HTTP request holds beside its heads: pipes and buffers both ways. Bytes.
const REQUEST_BYTES: u64 = 384 << 10;

/// The most that one decision record keeps. Bytes.
const DECISION_BYTES: u64 = 2 << 10;

/// The most that one waiting log record holds. Bytes.
const LOG_RECORD_BYTES: u64 = 4 << 10;

/// The most that a question to the staged policies holds while it waits. Bytes.
const QUESTION_BYTES: u64 = 2 << 10;

/// One line of the formula.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPart {
    /// What takes the memory.
    pub what: &'static str,
    /// The keys and numbers that are multiplied.
    pub formula: String,
    /// How much that is, in bytes.
    pub bytes: u64,
}

/// The most memory that a hub takes for what its peers send, in bytes. For the two seconds until
/// bytes that wait for a client are copied out of the messages they came in, they may hold several
/// times their own size. Code, policies and
/// compiled plugins come on top; they do not grow with traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBound {
    /// The lines of the formula.
    pub parts: Vec<MemoryPart>,
}

impl MemoryBound {
    /// The sum, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    fn add(&mut self, what: &'static str, formula: String, factors: &[u64]) {
        self.parts.push(MemoryPart {
            what,
            formula,
            bytes: factors
                .iter()
                .fold(1, |product, factor| product.saturating_mul(*factor)),
        });
    }
}

impl CloudConfig {
    /// Evaluates the formula.
    #[must_use]
    pub fn memory_bound(&self) -> MemoryBound {
        let limits = &self.limits;
        let handshake = &self.tunnel.handshake;
        let flows = u64::from(limits.max_conn_total);
        let agents = u64::from(limits.max_agents);
        let inflight = limits.per_link_max_inflight_bytes;
        let message = u64::from(self.tunnel.max_ws_message);
        let mut bound = MemoryBound { parts: Vec::new() };
        bound.add(
            "flow windows, each flow's sure part",
            format!(
                "max_conn_total {flows} × 2 × flow_window_min {}",
                limits.flow_window_min
            ),
            &[flows, 2, u64::from(limits.flow_window_min)],
        );
        bound.add(
            "flow windows, what all share",
            "window_pool_bytes".to_owned(),
            &[limits.window_pool_bytes],
        );
        bound.add(
            "flow state",
            format!("max_conn_total {flows} × {FLOW_OVERHEAD_BYTES}"),
            &[flows, FLOW_OVERHEAD_BYTES],
        );
        bound.add(
            "bytes that agents have not confirmed",
            format!("max_agents {agents} × per_link_max_inflight_bytes {inflight}"),
            &[agents, inflight],
        );
        bound.add(
            "tunnels, messages in work",
            format!(
                "max_agents {agents} × ({SENT_MESSAGES} × max_ws_message {message} + \
                 {RECEIVED_BYTES})"
            ),
            &[agents, SENT_MESSAGES * message + RECEIVED_BYTES],
        );
        bound.add(
            "handshakes",
            format!(
                "max_concurrent {} × (max_header_bytes {} + {TLS_HANDSHAKE_BYTES})",
                handshake.max_concurrent, handshake.max_header_bytes
            ),
            &[
                u64::from(handshake.max_concurrent),
                u64::from(handshake.max_header_bytes) + TLS_HANDSHAKE_BYTES,
            ],
        );
        self.add_ingress(&mut bound);
        self.add_plugins(&mut bound);
        if let Some(bundle) = &self.policy.bundle {
            // Three more are on their way in.
            let orders = MAX_WAITING_ORDERS as u64 + 3;
            bound.add(
                "policy bundles on their way",
                format!("{orders} × max_bytes {}", bundle.max_bytes),
                &[orders, bundle.max_bytes],
            );
            let questions = MAX_WAITING_QUESTIONS as u64;
            bound.add(
                "questions to the staged policies",
                format!("{questions} × {QUESTION_BYTES}"),
                &[questions, QUESTION_BYTES],
            );
        }
        bound.add(
            "decision records",
            format!(
                "decisions_kept {} × {DECISION_BYTES}",
                self.policy.decisions_kept
            ),
            &[u64::from(self.policy.decisions_kept), DECISION_BYTES],
        );
        bound.add(
            "recorded requests",
            "requests_kept_bytes".to_owned(),
            &[self.policy.requests_kept_bytes],
        );
        let decision_log = &self.observability.decision_log;
        let outputs = u64::from(decision_log.file.is_some()) + u64::from(decision_log.otlp);
        if outputs > 0 {
            bound.add(
                "waiting for the decision log",
                format!(
                    "{outputs} outputs × queue_bytes {}",
                    decision_log.queue_bytes
                ),
                &[outputs, decision_log.queue_bytes],
            );
        }
        bound.add(
            "waiting log records",
            format!(
                "log_queue {} × {LOG_RECORD_BYTES}",
                self.observability.log_queue
            ),
            &[u64::from(self.observability.log_queue), LOG_RECORD_BYTES],
        );
        bound
    }

    /// Without HTTP ports there are no requests.
    fn add_ingress(&self, bound: &mut MemoryBound) {
        let limits = &self.ingress.limits;
        if self.ingress.listeners.is_empty() {
            return;
        }
        let requests = u64::from(limits.max_requests);
        let head = u64::from(limits.max_header_bytes);
        let window = 2 * u64::from(self.limits.flow_window_min) + FLOW_OVERHEAD_BYTES;
        bound.add(
            "requests and their flows",
            format!(
                "max_requests {requests} × (2 × max_header_bytes {head} + {REQUEST_BYTES} + flow)"
            ),
            &[requests, 2 * head + REQUEST_BYTES + window],
        );
        bound.add(
            "kept connections to origins",
            format!("max_requests {requests} × flow"),
            &[requests, window],
        );
    }

    fn add_plugins(&self, bound: &mut MemoryBound) {
        let running = self
            .plugins
            .list
            .iter()
            .filter(|plugin| plugin.mode != PluginMode::Off);
        let bytes = running.fold(0_u64, |sum, plugin| {
            let limits = &plugin.limits;
            sum.saturating_add(
                u64::from(limits.concurrency)
                    .saturating_mul(limits.memory_bytes.saturating_add(limits.output_bytes)),
            )
        });
        if bytes > 0 {
            bound.add(
                "plugins",
                "sum of concurrency × (memory_bytes + output_bytes)".to_owned(),
                &[bytes],
            );
        }
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            writeln!(
                f,
                "{:>11}  {:<36} {}",
                mebibytes(part.bytes),
                part.what,
                part.formula
            )?;
        }
        write!(
            f,
            "{:>11}  in the worst case",
            mebibytes(self.total_bytes())
        )
    }
}

fn mebibytes(bytes: u64) -> String {
    const MEBIBYTE: u64 = 1 << 20;
    format!(
        "{}.{} MiB",
        bytes / MEBIBYTE,
        bytes % MEBIBYTE * 10 / MEBIBYTE
    )
}
