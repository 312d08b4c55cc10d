//! Metrics of the HTTP ingress.

use std::sync::Arc;
use std::time::Instant;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::label::{CappedChildren, LabelCap, MAX_CODES, MAX_CONNECTORS};
use super::registrar::Registrar;

/// Seconds until a response begins: from a service next door to the timeout and beyond.
const RESPONSE_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0,
];

/// The classes of status codes.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Why a request is tried once more, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Certainly nothing of it reached an origin: on another agent.
    NotReached,
    /// It was sent over a kept connection that had ended: on a new one.
    Stale,
    /// Something of it may have reached an origin which is now out of reach, and it may be
    /// repeated: on another agent.
    Lost,
}

impl Retry {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotReached => "not_reached",
            Self::Stale => "stale",
            Self::Lost => "lost",
        }
    }
}

/// Families of the HTTP ingress.
#[derive(Debug)]
pub struct HttpMetrics {
    connections: IntGauge,
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    response: HistogramVec,
    bytes: IntCounterVec,
    failures: IntCounterVec,
    codes: LabelCap,
    ends: IntCounterVec,
    retried: IntCounterVec,
    upstream_opened: IntCounter,
    upstream_reused: IntCounter,
    upstream_idle: IntGauge,
    evicted: IntCounter,
    unrouted: IntCounter,
    signed_in: IntCounterVec,
    viewers_ended: IntCounter,
    stale: IntGauge,
    published: IntGaugeVec,
    endpoints: CappedChildren<EndpointMetrics>,
}

impl HttpMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        let upstream = families.counters(
            "nowconnect_http_upstream_requests_total",
            &["connection"],
            "Requests sent to origins, on a new connection or on one that was kept (reused).",
        );
        Self {
            connections: families.gauge(
                "nowconnect_http_connections",
                "Viewers' HTTP connections that are open now, those that became WebSockets left out.",
            ),
            requests: families.counters(
                "nowconnect_http_requests_total",
                &["endpoint", "status"],
                "Answered requests, by the class of the status (2xx).",
            ),
            in_flight: families.gauges(
                "nowconnect_http_requests_in_flight",
                &["endpoint"],
                "Requests under way, WebSockets included.",
            ),
            response: families.histograms(
                "nowconnect_http_response_seconds",
                &["endpoint"],
                RESPONSE_BUCKETS,
                "Time from a request's head to the head of its response.",
            ),
            bytes: families.counters(
                "nowconnect_http_body_bytes_total",
                &["endpoint", "direction"],
                "Bytes of bodies from viewers (in) and to them (out), those of WebSockets left out.",
            ),
            failures: families.counters(
                "nowconnect_http_failures_total",
                &["code"],
                "Requests that the hub answered itself, by the code it gave.",
            ),
            codes: LabelCap::new(MAX_CODES),
            ends: families.counters(
                "nowconnect_http_request_ends_total",
                &["end"],
                "Requests that have ended, by how (complete, viewer_left, viewer_stalled, origin_broke, cut).",
            ),
            retried: families.counters(
                "nowconnect_http_retries_total",
                &["why"],
                "Requests that were tried once more: not_reached (an origin), stale (a kept connection), lost (an agent or origin, before the response began).",
            ),
            upstream_opened: upstream.with_label_values(&["new"]),
            upstream_reused: upstream.with_label_values(&["reused"]),
            upstream_idle: families.gauge(
                "nowconnect_http_upstream_idle_connections",
                "Connections to origins that are kept for later requests.",
            ),
            evicted: families.counter(
                "nowconnect_http_upstream_evictions_total",
                "Kept connections to origins that were ended to make room for a new one of their connector.",
            ),
            unrouted: families.counter(
                "nowconnect_http_unrouted_requests_total",
                "Requests that no route answered to.",
            ),
            signed_in: families.counters(
                "nowconnect_http_sign_ins_total",
                &["method", "result"],
                "Requests to routes with `viewer_auth`, by what proved the viewer and what came of it.",
            ),
            viewers_ended: families.counter(
                "nowconnect_http_viewers_expired_total",
                "Requests under way that ended because what proved their viewer had ended.",
            ),
            stale: families.gauge(
                "nowconnect_http_stale_files",
                "Sets of `viewer_auth` and HTTP listeners of which a file could not be taken over; what was read before stays in force.",
            ),
            published: families.gauges(
                "nowconnect_published_names",
                &["state"],
                "Names that agents publish, by whether their agents are here: online or offline.",
            ),
            endpoints: CappedChildren::new(MAX_CONNECTORS),
        }
    }

    /// Sets how many published names there are.
    pub(crate) fn published_names(&self, online: usize, offline: usize) {
        for (state, names) in [("online", online), ("offline", offline)] {
            let names = i64::try_from(names).unwrap_or(i64::MAX);
            self.published.with_label_values(&[state]).set(names);
        }
    }

    /// The resolved metrics of an endpoint; `name` is `tenant/name` outside the default tenant.
    pub fn endpoint(&self, name: &str) -> Arc<EndpointMetrics> {
        self.endpoints
            .child(name, |label| EndpointMetrics::new(self, label))
    }

    /// Drops the series of an endpoint that left the configuration.
    pub fn forget_endpoint(&self, name: &str) {
        if !self.endpoints.forget(name) {
            return;
        }
        // A child that never existed is no error here.
        let _ = self.in_flight.remove_label_values(&[name]);
        let _ = self.response.remove_label_values(&[name]);
        for class in CLASSES {
            let _ = self.requests.remove_label_values(&[name, class]);
        }
        for direction in ["in", "out"] {
            let _ = self.bytes.remove_label_values(&[name, direction]);
        }
    }

    /// Counts a viewer's connection until the gauge's guard is dropped.
    pub fn connection(&self) -> HttpGauge {
        HttpGauge::new(&self.connections)
    }

    /// Counts an answer of the hub itself.
    pub fn failed(&self, code: &str) {
        self.failures
            .with_label_values(&[self.codes.admit(code)])
            .inc();
    }

    /// Counts what came of finding out who asks; both are of small sets.
    pub(crate) fn signed_in(&self, (method, result): (&str, &str)) {
        self.signed_in.with_label_values(&[method, result]).inc();
    }

    /// Counts a request whose viewer's proof has ended.
    pub(crate) fn viewer_ended(&self) {
        self.viewers_ended.inc();
    }

    /// So many sets and listeners could not be taken over.
    pub(crate) fn stale(&self, number: usize) {
        self.stale.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Counts a request without a route.
    pub fn unrouted(&self) {
        self.unrouted.inc();
    }

    /// Counts a request that has ended, by `end`, which is one of a few.
    pub fn ended(&self, end: &'static str) {
        self.ends.with_label_values(&[end]).inc();
    }

    /// Counts a further try.
    pub fn retried(&self, why: Retry) {
        self.retried.with_label_values(&[why.as_str()]).inc();
    }

    /// Counts a kept connection that made room for another.
    pub fn evicted(&self) {
        self.evicted.inc();
    }

    /// Counts a request to an origin.
    pub fn sent(&self, reused: bool) {
        if reused {
            self.upstream_reused.inc();
        } else {
            self.upstream_opened.inc();
        }
    }

    /// Counts a connection that is kept, until the guard is dropped.
    pub fn kept(&self) -> HttpGauge {
        HttpGauge::new(&self.upstream_idle)
    }
}

/// Something that is counted while it lives.
#[derive(Debug)]
pub struct HttpGauge(IntGauge);

impl HttpGauge {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for HttpGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The children of one endpoint, resolved once.
#[derive(Debug)]
pub struct EndpointMetrics {
    by_class: [IntCounter; CLASSES.len()],
    in_flight: IntGauge,
    response: Histogram,
    bytes_in: IntCounter,
    bytes_out: IntCounter,
}

impl EndpointMetrics {
    fn new(all: &HttpMetrics, label: &str) -> Self {
        Self {
            by_class: CLASSES.map(|class| all.requests.with_label_values(&[label, class])),
            in_flight: all.in_flight.with_label_values(&[label]),
            response: all.response.with_label_values(&[label]),
            bytes_in: all.bytes.with_label_values(&[label, "in"]),
            bytes_out: all.bytes.with_label_values(&[label, "out"]),
        }
    }

    /// Counts a request under way until the guard is dropped.
    pub fn in_flight(&self) -> HttpGauge {
        HttpGauge::new(&self.in_flight)
    }

    /// The head of an answer goes out.
    pub fn answered(&self, status: u16, since: Instant) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.by_class[class].inc();
        self.response.observe(since.elapsed().as_secs_f64());
    }

    /// Bytes of bodies since the last call.
    pub fn bytes(&self, inward: u64, outward: u64) {
        self.bytes_in.inc_by(inward);
        self.bytes_out.inc_by(outward);
    }
}
