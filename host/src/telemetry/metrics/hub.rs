//! Metrics of the hub itself: tunnels, sessions, handshakes, logs and the process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::label::{LabelCap, MAX_CODES};
use super::registrar::Registrar;
use super::traffic::saturating_i64;

/// Seconds of an open, from accept to OPEN_ACK.
const OPEN_BUCKETS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.25, 1.0, 5.0,
];

/// Seconds of a handshake, from accept to HELLO_ACK: over a wide network four round trips, and the
/// first one of a hub waits for its issuer's keys.
const HANDSHAKE_BUCKETS: &[f64] = &[
    0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// A configured certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Of the tunnel port: `tunnel.tls`.
    Tunnel,
    /// The one of the HTTP ports that ends first: `ingress.listeners[].tls`.
    Ingress,
    /// Of the admin port: `admin.tls`.
    Admin,
    /// Of the links to other hubs: `ha.mesh.tls`.
    Mesh,
    /// The roots for issuers: `security.jwks_ca_bundle`.
    JwksCaBundle,
}

impl Certificate {
    /// Its label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Ingress => "ingress",
            Self::Admin => "admin",
            Self::Mesh => "mesh",
            Self::JwksCaBundle => "jwks_ca_bundle",
        }
    }
}

/// Families of tunnels and sessions.
#[derive(Debug)]
pub struct HubMetrics {
    tunnels: IntGauge,
    sessions_detached: IntGauge,
    flows_open: IntGauge,
    resumes: IntCounterVec,
    handshakes: IntCounterVec,
    handshake_seconds: Histogram,
    auth_failures: IntCounterVec,
    denied_opens: IntCounterVec,
    open_seconds: Histogram,
    open_retries: IntCounter,
    duplicate_agents: IntCounterVec,
    revocations: IntCounterVec,
    certificates: IntGaugeVec,
    window_pool: IntGauge,
    draining: IntGauge,
    codes: LabelCap,
}

impl HubMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            tunnels: families.gauge("nowconnect_tunnels", "Tunnels of agents that are up."),
            sessions_detached: families.gauge(
                "nowconnect_sessions_detached",
                "Sessions without a tunnel that may still be resumed.",
            ),
            flows_open: families.gauge(
                "nowconnect_flows_open",
                "Flows that have an agent and have not ended.",
            ),
            resumes: families.counters(
                "nowconnect_resumes_total",
                &["result"],
                "Sessions that came back after a broken tunnel, by result.",
            ),
            handshakes: families.counters(
                "nowconnect_handshakes_total",
                &["result"],
                "Tunnel handshakes by result: accepted, or the code of the refusal.",
            ),
            handshake_seconds: families.histogram(
                "nowconnect_handshake_seconds",
                HANDSHAKE_BUCKETS,
                "Time from accepting an agent's connection to its HELLO_ACK: TLS, token, policies and plugins.",
            ),
            auth_failures: families.counters(
                "nowconnect_auth_failures_total",
                &["reason"],
                "Agents that could not prove who they are, by reason.",
            ),
            denied_opens: families.counters(
                "nowconnect_denied_opens_total",
                &["code"],
                "Client connections that got no flow, by code.",
            ),
            open_seconds: families.histogram(
                "nowconnect_open_seconds",
                OPEN_BUCKETS,
                "Time from accepting a client to the agent's answer that its target is connected.",
            ),
            open_retries: families.counter(
                "nowconnect_open_retries_total",
                "Opens that were tried again on another agent.",
            ),
            duplicate_agents: families.counters(
                "nowconnect_duplicate_agents_total",
                &["result"],
                "HELLOs of another instance of an agent that is connected, by result: refused or replaced.",
            ),
            revocations: families.counters(
                "nowconnect_revocations_total",
                &["what"],
                "Sessions and flows ended, and tokens refused, because of the revocation list.",
            ),
            certificates: families.gauges(
                "nowconnect_certificate_not_after_seconds",
                &["certificate"],
                "When a configured certificate ends, seconds since 1970; of a chain or bundle the first that does.",
            ),
            window_pool: families.gauge(
                "nowconnect_window_pool_bytes_in_use",
                "Bytes of limits.window_pool_bytes that flows hold beyond their minimum.",
            ),
            draining: families.gauge("nowconnect_draining", "1 while the hub drains."),
            codes: LabelCap::new(MAX_CODES),
        }
    }

    /// Counts a tunnel in; the guard counts it out.
    pub fn tunnel(&self) -> GaugeGuard {
        GaugeGuard::new(&self.tunnels)
    }

    /// Counts a detached session in; the guard counts it out.
    pub fn detached_session(&self) -> GaugeGuard {
        GaugeGuard::new(&self.sessions_detached)
    }

    /// Counts a flow in; the guard counts it out.
    pub fn flow(&self) -> GaugeGuard {
        GaugeGuard::new(&self.flows_open)
    }

    /// Counts a resume: `resumed`, `refused` or the code of the failure.
    pub fn resume(&self, result: &str) {
        let label = self.codes.admit(result);
        self.resumes.with_label_values(&[label]).inc();
    }

    /// Counts a handshake: `accepted` or the close code.
    pub fn handshake(&self, result: &str) {
        let label = self.codes.admit(result);
        self.handshakes.with_label_values(&[label]).inc();
    }

    /// Counts a handshake that let an agent in, and the time that it took.
    pub fn joined(&self, took: Duration) {
        self.handshake("accepted");
        self.handshake_seconds.observe(took.as_secs_f64());
    }

    /// Counts an authentication that failed.
    pub fn auth_failure(&self, reason: &str) {
        let label = self.codes.admit(reason);
        self.auth_failures.with_label_values(&[label]).inc();
    }

    /// Counts a client that got no flow.
    pub fn denied_open(&self, code: &str) {
        let label = self.codes.admit(code);
        self.denied_opens.with_label_values(&[label]).inc();
    }

    /// Observes a successful open.
    pub fn opened(&self, took: Duration) {
        self.open_seconds.observe(took.as_secs_f64());
    }

    /// Counts an open that goes to another agent.
    pub fn open_retried(&self) {
        self.open_retries.inc();
    }

    /// Counts a second instance of a connected agent: `refused`, or `replaced` where it took the
    /// place of the first.
    pub fn duplicate_agent(&self, result: &str) {
        let label = self.codes.admit(result);
        self.duplicate_agents.with_label_values(&[label]).inc();
    }

    /// Counts what a revocation ended or refused: `session`, `flow`, `token`.
    pub fn revoked(&self, what: &str) {
        let label = self.codes.admit(what);
        self.revocations.with_label_values(&[label]).inc();
    }

    /// Sets when a certificate ends, seconds since 1970; `None` where there is none.
    pub fn set_certificate(&self, certificate: Certificate, not_after: Option<i64>) {
        let labels = [certificate.as_str()];
        match not_after {
            Some(seconds) => self.certificates.with_label_values(&labels).set(seconds),
            // A child that never existed is no error here.
            None => drop(self.certificates.remove_label_values(&labels)),
        }
    }

    /// Sets the bytes in use of the window pool.
    pub fn set_window_pool(&self, bytes: u64) {
        self.window_pool.set(saturating_i64(bytes));
    }

    /// Sets whether the hub drains.
    pub fn set_draining(&self, draining: bool) {
        self.draining.set(i64::from(draining));
    }

    /// Flows open now.
    pub fn flows_open(&self) -> i64 {
        self.flows_open.get()
    }

    /// Tunnels up now.
    pub fn tunnels_up(&self) -> i64 {
        self.tunnels.get()
    }
}

/// Holds a gauge one higher until it is dropped.
#[derive(Debug)]
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Why a log record or decision record was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDrop {
    /// The queue to the writer was full.
    QueueFull,
    /// The output did not take the record.
    Output,
    /// The deadline of the shutdown passed first.
    Shutdown,
}

/// Families of the log pipeline.
#[derive(Debug, Clone)]
pub struct LogMetrics {
    records: IntCounter,
    dropped: IntCounterVec,
    redaction_drops: IntCounter,
    mask_failures: IntCounter,
    spans_dropped: IntCounter,
    export_failures: IntCounter,
}

impl LogMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            records: families.counter(
                "nowconnect_log_records_total",
                "Log records that were written.",
            ),
            dropped: families.counters(
                "nowconnect_log_dropped_total",
                &["reason"],
                "Log records that were not written: queue_full, output or shutdown.",
            ),
            redaction_drops: families.counter(
                "nowconnect_redaction_drops_total",
                "Log records written without their values because masking failed.",
            ),
            mask_failures: families.counter(
                "nowconnect_log_mask_failures_total",
                "Batches of log records for which the mask plugins gave no valid answer.",
            ),
            spans_dropped: families.counter(
                "nowconnect_trace_spans_dropped_total",
                "Spans that no collector took.",
            ),
            export_failures: families.counter(
                "nowconnect_trace_export_failures_total",
                "Batches of spans whose export failed.",
            ),
        }
    }

    pub(crate) fn written(&self, records: u64) {
        self.records.inc_by(records);
    }

    pub(crate) fn dropped(&self, why: LogDrop, records: u64) {
        let label = match why {
            LogDrop::QueueFull => "queue_full",
            LogDrop::Output => "output",
            LogDrop::Shutdown => "shutdown",
        };
        self.dropped.with_label_values(&[label]).inc_by(records);
    }

    pub(crate) fn masking_failed(&self, records: u64) {
        self.mask_failures.inc();
        self.redaction_drops.inc_by(records);
    }

    pub(crate) fn export_failed(&self, spans: u64) {
        self.export_failures.inc();
        self.spans_dropped.inc_by(spans);
    }

    /// Log records dropped since start, all reasons.
    pub fn dropped_total(&self) -> u64 {
        ["queue_full", "output", "shutdown"]
            .iter()
            .map(|reason| self.dropped.with_label_values(&[*reason]).get())
            .sum()
    }
}

/// Families of the process, with the names that all Prometheus clients use.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    resident: IntGauge,
    cpu: Counter,
    open_fds: IntGauge,
    threads: IntGauge,
}

/// Clock ticks per second in `/proc`; Linux fixed it at 100 for user space.
const TICKS_PER_SECOND: f64 = 100.0;

impl ProcessMetrics {
    pub(super) fn new(families: &mut Registrar<'_>, version: &str) -> Self {
        let build = families.gauges(
            "nowconnect_build_info",
            &["version"],
            "1, with the version of the hub.",
        );
        build.with_label_values(&[version]).set(1);
        let started = families.float_gauge(
            "process_start_time_seconds",
            "Start of the process, seconds since 1970.",
        );
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        started.set(since_1970.unwrap_or_default().as_secs_f64());
        Self {
            resident: families.gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is resident.",
            ),
            cpu: families.float_counter(
                "process_cpu_seconds_total",
                "User and system time of the process.",
            ),
            open_fds: families.gauge("process_open_fds", "Open file descriptors."),
            threads: families.gauge("process_threads", "Threads of the process."),
        }
    }

    /// Reads `/proc`; where that is absent the values stay as they were.
    pub(super) fn refresh(&self) {
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            if let Some(kib) = status_number(&status, "VmRSS:") {
                self.resident.set(kib.saturating_mul(1024));
            }
            if let Some(threads) = status_number(&status, "Threads:") {
                self.threads.set(threads);
            }
        }
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
            && let Some(ticks) = cpu_ticks(&stat)
        {
            let grown = ticks / TICKS_PER_SECOND - self.cpu.get();
            if grown > 0.0 {
                self.cpu.inc_by(grown);
            }
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds
                .set(i64::try_from(entries.count()).unwrap_or(i64::MAX));
        }
    }
}

fn status_number(status: &str, key: &str) -> Option<i64> {
    let line = status.lines().find(|line| line.starts_with(key))?;
    line[key.len()..].split_whitespace().next()?.parse().ok()
}

/// utime + stime. The command name before them may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<f64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(200.0));
    }

    #[test]
    fn the_status_file_is_read_by_key() {
        let status = "Name:\tx\nVmRSS:\t  1234 kB\nThreads:\t3\n";
        assert_eq!(status_number(status, "VmRSS:"), Some(1234));
        assert_eq!(status_number(status, "Missing:"), None);
    }
}
