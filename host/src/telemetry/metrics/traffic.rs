//! Metrics of flows, connectors, listeners and agents.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::label::{CappedChildren, LabelCap, MAX_AGENTS, MAX_CODES, MAX_CONNECTORS};
use super::registrar::Registrar;

/// Seconds a client connection lasts: from a failed open to a session that stays all day.
const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0,
];

/// Seconds a write or a drain takes; the alert of the high-availability page stands at 0.1.
const DRAIN_BUCKETS: &[f64] = &[0.0005, 0.002, 0.01, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// On whose side a queue overflowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The hub received more than it had granted.
    Hub,
    /// The agent reported that it received more than it had granted.
    Agent,
}

/// What a listener failed at after it had accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerError {
    /// Writing to the client's socket.
    Write,
    /// Setting the flow up or keeping it.
    Session,
    /// Asking the external decision point.
    Pdp,
}

/// Families of the data path.
#[derive(Debug)]
pub struct TrafficMetrics {
    connections: IntCounterVec,
    active: IntGauge,
    duration: Histogram,
    bytes_c2a: IntCounter,
    bytes_a2c: IntCounter,
    connector_bytes: IntCounterVec,
    connector_active: IntGaugeVec,
    accept_errors: IntCounterVec,
    listener_errors: IntCounterVec,
    queue_overflow: IntCounterVec,
    write_drain: HistogramVec,
    inbound_queue: IntGaugeVec,
    fin_sent: IntCounter,
    fin_received: IntCounter,
    rst_sent: IntCounter,
    rst_received: IntCounter,
    flow_ends: IntCounterVec,
    causes: LabelCap,
    reconnects: IntCounterVec,
    reconnect_reasons: LabelCap,
    uptime: GaugeVec,
    rtt: GaugeVec,
    connectors: CappedChildren<ConnectorMetrics>,
    agents: CappedChildren<AgentMetrics>,
}

impl TrafficMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        let bytes = families.counters(
            "nowconnect_tcp_bytes_total",
            &["direction"],
            "Bytes accepted from a client (c2a) or from an agent (a2c).",
        );
        Self {
            connections: families.counters(
                "nowconnect_tcp_connections_total",
                &["connector"],
                "Client connections that a listener of this connector accepted.",
            ),
            active: families.gauge(
                "nowconnect_tcp_active_connections",
                "Client connections that are open now.",
            ),
            duration: families.histogram(
                "nowconnect_connection_duration_seconds",
                DURATION_BUCKETS,
                "Time from accepting a client connection to its end.",
            ),
            bytes_c2a: bytes.with_label_values(&["c2a"]),
            bytes_a2c: bytes.with_label_values(&["a2c"]),
            connector_bytes: families.counters(
                "nowconnect_connector_bytes_total",
                &["connector", "direction"],
                "The bytes of nowconnect_tcp_bytes_total, by connector.",
            ),
            connector_active: families.gauges(
                "nowconnect_connector_active_connections",
                &["connector"],
                "Client connections that are open now, by connector.",
            ),
            accept_errors: families.counters(
                "nowconnect_listener_accept_errors_total",
                &["connector"],
                "Failed accepts on a listener of this connector.",
            ),
            listener_errors: families.counters(
                "nowconnect_listener_errors_total",
                &["connector", "type"],
                "Failures after the accept: write, session or pdp.",
            ),
            queue_overflow: families.counters(
                "nowconnect_queue_overflow_total",
                &["side", "connector"],
                "Flows reset because a peer sent more than it was granted; side is where it was seen.",
            ),
            write_drain: families.histograms(
                "nowconnect_write_drain_seconds",
                &["connector", "phase"],
                DRAIN_BUCKETS,
                "Time of one write to a client, sampled about once a second for each flow (write), and time that bytes waited for it (drain).",
            ),
            inbound_queue: families.gauges(
                "nowconnect_inbound_queue_size",
                &["connector"],
                "Bytes from agents that wait for clients of this connector.",
            ),
            fin_sent: families.counter("nowconnect_fin_sent", "FIN frames sent to agents."),
            fin_received: families.counter("nowconnect_fin_recv", "FIN frames from agents."),
            rst_sent: families.counter("nowconnect_rst_sent", "RST frames sent to agents."),
            rst_received: families.counter("nowconnect_rst_recv", "RST frames from agents."),
            flow_ends: families.counters(
                "nowconnect_flow_ends_total",
                &["cause"],
                "Flows that ended, by reset code, or finished where both halves ended.",
            ),
            causes: LabelCap::new(MAX_CODES),
            reconnects: families.counters(
                "nowconnect_tunnel_reconnects_total",
                &["agent", "reason"],
                "Tunnels of an agent after its first, by why the one before ended.",
            ),
            reconnect_reasons: LabelCap::new(MAX_CODES),
            uptime: families.float_gauges(
                "nowconnect_tunnel_uptime_seconds",
                &["agent"],
                "Age of the agent's tunnel; 0 while it has none.",
            ),
            rtt: families.float_gauges(
                "nowconnect_tunnel_rtt_seconds",
                &["agent"],
                "Last round trip seen on the agent's tunnel.",
            ),
            connectors: CappedChildren::new(MAX_CONNECTORS),
            agents: CappedChildren::new(MAX_AGENTS),
        }
    }

    /// The resolved metrics of a connector; keep the value with the listener.
    ///
    /// `name` is the connector's name, `tenant/name` outside the default tenant. Beyond
    /// [`MAX_CONNECTORS`] names all share the series `other`.
    pub fn connector(&self, name: &str) -> Arc<ConnectorMetrics> {
        self.connectors
            .child(name, |label| ConnectorMetrics::new(self, label))
    }

    /// Drops a connector's series, after it left the configuration and its last flow ended.
    pub fn forget_connector(&self, name: &str) {
        if !self.connectors.forget(name) {
            return;
        }
        // A child that never existed is no error here.
        let _ = self.connections.remove_label_values(&[name]);
        let _ = self.connector_active.remove_label_values(&[name]);
        let _ = self.accept_errors.remove_label_values(&[name]);
        let _ = self.inbound_queue.remove_label_values(&[name]);
        for direction in ["c2a", "a2c"] {
            let _ = self.connector_bytes.remove_label_values(&[name, direction]);
        }
        for kind in ["write", "session", "pdp"] {
            let _ = self.listener_errors.remove_label_values(&[name, kind]);
        }
        for side in ["hub", "agent"] {
            let _ = self.queue_overflow.remove_label_values(&[side, name]);
        }
        for phase in ["write", "drain"] {
            let _ = self.write_drain.remove_label_values(&[name, phase]);
        }
    }

    /// The resolved metrics of an agent; keep the value with its session.
    pub fn agent(&self, name: &str) -> Arc<AgentMetrics> {
        self.agents
            .child(name, |label| AgentMetrics::new(self, label))
    }

    /// Drops an agent's series, when its session is over for good.
    pub fn forget_agent(&self, name: &str) {
        if self.agents.forget(name) {
            let _ = self.uptime.remove_label_values(&[name]);
            let _ = self.rtt.remove_label_values(&[name]);
        }
    }

    /// Counts a tunnel that came after an earlier one of the same agent ended for `reason`.
    pub fn tunnel_reconnected(&self, agent: &AgentMetrics, reason: &str) {
        self.reconnects
            .with_label_values(&[agent.name.as_ref(), self.reconnect_reasons.admit(reason)])
            .inc();
    }

    /// Counts the end of a flow; `cause` is a reset code, or `finished`.
    pub fn flow_ended(&self, cause: &str) {
        self.flow_ends
            .with_label_values(&[self.causes.admit(cause)])
            .inc();
    }

    /// Adds frames counted by a tunnel since its last report.
    pub fn frames(&self, counted: FrameCounts) {
        self.fin_sent.inc_by(counted.fin_sent);
        self.fin_received.inc_by(counted.fin_received);
        self.rst_sent.inc_by(counted.rst_sent);
        self.rst_received.inc_by(counted.rst_received);
    }

    /// Client connections open now.
    pub fn active_connections(&self) -> i64 {
        self.active.get()
    }

    /// Bytes since start: (client to agent, agent to client).
    pub fn bytes_total(&self) -> (u64, u64) {
        (self.bytes_c2a.get(), self.bytes_a2c.get())
    }

    pub(super) fn refresh(&self) {
        self.agents.for_each(AgentMetrics::refresh);
    }
}

/// Frames since the last report of one tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// FIN frames to the agent.
    pub fin_sent: u64,
    /// FIN frames from the agent.
    pub fin_received: u64,
    /// RST frames to the agent.
    pub rst_sent: u64,
    /// RST frames from the agent.
    pub rst_received: u64,
}

/// The children of one connector, resolved once.
#[derive(Debug)]
pub struct ConnectorMetrics {
    connections: IntCounter,
    active_all: IntGauge,
    active: IntGauge,
    duration: Histogram,
    bytes_c2a_all: IntCounter,
    bytes_a2c_all: IntCounter,
    bytes_c2a: IntCounter,
    bytes_a2c: IntCounter,
    accept_errors: IntCounter,
    errors_write: IntCounter,
    errors_session: IntCounter,
    errors_pdp: IntCounter,
    overflow_hub: IntCounter,
    overflow_agent: IntCounter,
    write: Histogram,
    drain: Histogram,
    inbound_queue: IntGauge,
}

impl ConnectorMetrics {
    fn new(all: &TrafficMetrics, label: &str) -> Self {
        let error = |kind: &str| all.listener_errors.with_label_values(&[label, kind]);
        Self {
            connections: all.connections.with_label_values(&[label]),
            active_all: all.active.clone(),
            active: all.connector_active.with_label_values(&[label]),
            duration: all.duration.clone(),
            bytes_c2a_all: all.bytes_c2a.clone(),
            bytes_a2c_all: all.bytes_a2c.clone(),
            bytes_c2a: all.connector_bytes.with_label_values(&[label, "c2a"]),
            bytes_a2c: all.connector_bytes.with_label_values(&[label, "a2c"]),
            accept_errors: all.accept_errors.with_label_values(&[label]),
            errors_write: error("write"),
            errors_session: error("session"),
            errors_pdp: error("pdp"),
            overflow_hub: all.queue_overflow.with_label_values(&["hub", label]),
            overflow_agent: all.queue_overflow.with_label_values(&["agent", label]),
            write: all.write_drain.with_label_values(&[label, "write"]),
            drain: all.write_drain.with_label_values(&[label, "drain"]),
            inbound_queue: all.inbound_queue.with_label_values(&[label]),
        }
    }

    /// Counts an accepted client connection; the guard ends it.
    pub fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.inc();
        self.active.inc();
        self.active_all.inc();
        ConnectionGuard {
            metrics: Arc::clone(self),
            since: Instant::now(),
        }
    }

    /// Adds bytes that were moved since the last call.
    pub fn bytes(&self, c2a: u64, a2c: u64) {
        if c2a > 0 {
            self.bytes_c2a_all.inc_by(c2a);
            self.bytes_c2a.inc_by(c2a);
        }
        if a2c > 0 {
            self.bytes_a2c_all.inc_by(a2c);
            self.bytes_a2c.inc_by(a2c);
        }
    }

    /// Counts a failed accept.
    pub fn accept_error(&self) {
        self.accept_errors.inc();
    }

    /// Counts a failure after the accept.
    pub fn listener_error(&self, error: ListenerError) {
        match error {
            ListenerError::Write => self.errors_write.inc(),
            ListenerError::Session => self.errors_session.inc(),
            ListenerError::Pdp => self.errors_pdp.inc(),
        }
    }

    /// Counts a flow that was reset because a peer broke its credit.
    pub fn queue_overflow(&self, side: Side) {
        match side {
            Side::Hub => self.overflow_hub.inc(),
            Side::Agent => self.overflow_agent.inc(),
        }
    }

    /// Observes the time of one write to a client.
    pub fn wrote(&self, took: Duration) {
        self.write.observe(took.as_secs_f64());
    }

    /// Observes how long bytes waited until a client took them.
    pub fn drained(&self, took: Duration) {
        self.drain.observe(took.as_secs_f64());
    }

    /// A flow had `before` bytes waiting for its client and has `now`.
    pub fn inbound_queue_changed(&self, before: u64, now: u64) {
        self.inbound_queue
            .add(saturating_i64(now) - saturating_i64(before));
    }

    /// Client connections of this connector that are open now.
    pub fn active_connections(&self) -> i64 {
        self.active.get()
    }

    /// Bytes of this connector since start: (client to agent, agent to client).
    pub fn bytes_total(&self) -> (u64, u64) {
        (self.bytes_c2a.get(), self.bytes_a2c.get())
    }
}

/// An open client connection; dropping it counts its end and its duration.
#[derive(Debug)]
pub struct ConnectionGuard {
    metrics: Arc<ConnectorMetrics>,
    since: Instant,
}

impl ConnectionGuard {
    /// The connector that the connection belongs to.
    pub fn connector(&self) -> &Arc<ConnectorMetrics> {
        &self.metrics
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.metrics.active.dec();
        self.metrics.active_all.dec();
        self.metrics
            .duration
            .observe(self.since.elapsed().as_secs_f64());
    }
}

/// The children of one agent, resolved once.
#[derive(Debug)]
pub struct AgentMetrics {
    name: Box<str>,
    uptime: Gauge,
    rtt: Gauge,
    started: Instant,
    /// Milliseconds after `started` at which the tunnel came, plus one; 0 while there is none.
    tunnel_since_ms: AtomicU64,
}

impl AgentMetrics {
    fn new(all: &TrafficMetrics, label: &str) -> Self {
        Self {
            name: label.into(),
            uptime: all.uptime.with_label_values(&[label]),
            rtt: all.rtt.with_label_values(&[label]),
            started: Instant::now(),
            tunnel_since_ms: AtomicU64::new(0),
        }
    }

    /// The agent's tunnel is established; its uptime counts from now.
    pub fn tunnel_up(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.tunnel_since_ms.store(now + 1, Ordering::Relaxed);
    }

    /// The agent has no tunnel any more.
    pub fn tunnel_down(&self) {
        self.tunnel_since_ms.store(0, Ordering::Relaxed);
    }

    /// Sets the last round-trip time seen on the tunnel.
    pub fn set_rtt(&self, rtt: Duration) {
        self.rtt.set(rtt.as_secs_f64());
    }

    fn refresh(&self) {
        let since = self.tunnel_since_ms.load(Ordering::Relaxed);
        let seconds = match since.checked_sub(1) {
            Some(since_ms) => self
                .started
                .elapsed()
                .saturating_sub(Duration::from_millis(since_ms))
                .as_secs_f64(),
            None => 0.0,
        };
        self.uptime.set(seconds);
    }
}

pub(super) fn saturating_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
