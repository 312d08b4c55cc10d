//! Metrics of decisions, generations and plugins.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::label::{CappedChildren, LabelCap, MAX_CODES, MAX_PLUGINS, MAX_POLICIES, OTHER};
use super::registrar::Registrar;
use super::traffic::saturating_i64;
use crate::telemetry::decisions::{DecisionAction, Why};

/// Seconds of a decision or a plugin call: from a warm policy lookup to a call that was cut off.
const CALL_BUCKETS: &[f64] = &[
    0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 2.0,
];

/// Buckets for values of any unit that plugins observe.
const OWN_BUCKETS: &[f64] = &[
    0.001,
    0.01,
    0.1,
    1.0,
    10.0,
    100.0,
    1_000.0,
    10_000.0,
    100_000.0,
    1_000_000.0,
];

/// Series that all plugins together keep themselves. A histogram has 13 lines in a scrape, so
/// at most some 3,000 lines.
const MAX_OWN_SERIES: usize = 256;

/// A part that can be reloaded at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadPart {
    /// The configuration file.
    Config,
    /// Policies and plugins, which swap as one generation.
    Generation,
    /// TLS certificates and keys.
    Certificates,
    /// The revocation list.
    Revocation,
    /// Token-verification keys.
    Keys,
}

impl ReloadPart {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Generation => "generation",
            Self::Certificates => "certificates",
            Self::Revocation => "revocation",
            Self::Keys => "keys",
        }
    }
}

/// What the external decision point answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PdpResult {
    /// It allowed.
    Allow,
    /// It denied.
    Deny,
    /// It did not answer in time or not in a form that counts.
    Error,
}

/// How a re-check of all that runs ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecheckEnd {
    /// Everybody was asked about.
    Done,
    /// The hub failed at a question; not everybody was asked about.
    Failed,
    /// A newer one took its place.
    Superseded,
}

impl RecheckEnd {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

/// Families of the decision pipeline.
#[derive(Debug)]
pub struct PolicyMetrics {
    decisions: IntCounterVec,
    policies: LabelCap,
    evaluation_errors: IntCounterVec,
    decision_seconds: HistogramVec,
    generation: IntGauge,
    bundle_age: Gauge,
    bundle_since: Mutex<Option<SystemTime>>,
    bundle_broken: IntGauge,
    reloads: IntCounterVec,
    recheck_closed: IntCounter,
    recheck_sessions: IntCounter,
    recheck_connectors: IntCounter,
    recheck_rounds: IntCounterVec,
    recheck_running: IntGauge,
    recheck_asked: IntCounterVec,
    decided_again: IntCounterVec,
    pdp_allow: IntCounter,
    pdp_deny: IntCounter,
    pdp_errors: IntCounter,
    pdp_decisions: IntCounterVec,
}

impl PolicyMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            decisions: families.counters(
                "nowconnect_policy_decisions_total",
                &["action", "result", "kind", "policy"],
                "Decisions by action, result (allow or deny), reason kind and first deciding policy.",
            ),
            policies: LabelCap::new(MAX_POLICIES),
            evaluation_errors: families.counters(
                "nowconnect_policy_evaluation_errors_total",
                &["action"],
                "Decisions in which a policy failed to evaluate; each is a deny and an alarm.",
            ),
            decision_seconds: families.histograms(
                "nowconnect_policy_decision_seconds",
                &["action"],
                CALL_BUCKETS,
                "Time of one whole decision, plugins and external decision point included.",
            ),
            generation: families.gauge(
                "nowconnect_generation",
                "Number of the generation of policies and plugins in force.",
            ),
            bundle_age: families.float_gauge(
                "nowconnect_policy_bundle_age_seconds",
                "Time since the generation in force was activated.",
            ),
            bundle_since: Mutex::new(None),
            bundle_broken: families.gauge(
                "nowconnect_policy_last_reload_failed",
                "1 while the newest policies or plugins on disk were refused and older ones serve.",
            ),
            reloads: families.counters(
                "nowconnect_reloads_total",
                &["part", "result"],
                "Reloads by part and result (ok, refused or unchanged).",
            ),
            recheck_closed: families.counter(
                "nowconnect_recheck_closed_flows_total",
                "Running flows that ended because a later decision forbids them.",
            ),
            recheck_sessions: families.counter(
                "nowconnect_recheck_closed_sessions_total",
                "Sessions of agents that ended because a later decision refuses the agent.",
            ),
            recheck_connectors: families.counter(
                "nowconnect_recheck_lost_connectors_total",
                "Connectors that agents lost because a later decision refuses them.",
            ),
            recheck_rounds: families.counters(
                "nowconnect_recheck_rounds_total",
                &["end"],
                "Re-checks of all that runs: done, superseded by a newer one, or failed at a fault of the hub.",
            ),
            recheck_running: families.gauge(
                "nowconnect_recheck_running",
                "1 while all that runs is asked about again after a change.",
            ),
            recheck_asked: families.counters(
                "nowconnect_recheck_asked_total",
                &["what"],
                "Running flows (flow) and connected agents (agent) that were asked about again.",
            ),
            decided_again: families.counters(
                "nowconnect_policy_decided_again_total",
                &["action"],
                "Decisions made anew because what they rest on changed while they were under way.",
            ),
            pdp_allow: families.counter(
                "nowconnect_pdp_allow_total",
                "Allows of the external decision point.",
            ),
            pdp_deny: families.counter(
                "nowconnect_pdp_deny_total",
                "Denies of the external decision point.",
            ),
            pdp_errors: families.counter(
                "nowconnect_pdp_errors_total",
                "Questions to the external decision point that failed.",
            ),
            pdp_decisions: families.counters(
                "nowconnect_pdp_decisions_total",
                &["result"],
                "Answers of the external decision point: allow, deny or error.",
            ),
        }
    }

    /// Counts one decision. `policy` is the id of the first policy that determined it.
    pub fn decided(
        &self,
        action: DecisionAction,
        allow: bool,
        why: Why,
        policy: Option<&str>,
        took: Duration,
    ) {
        let result = if allow { "allow" } else { "deny" };
        let policy = policy.map_or("", |id| self.policies.admit(id));
        self.decisions
            .with_label_values(&[action.as_str(), result, why.as_str(), policy])
            .inc();
        self.decision_seconds
            .with_label_values(&[action.as_str()])
            .observe(took.as_secs_f64());
    }

    /// Raises the alarm for a decision in which a policy failed to evaluate.
    pub fn evaluation_error(&self, action: DecisionAction) {
        self.evaluation_errors
            .with_label_values(&[action.as_str()])
            .inc();
    }

    /// A new generation is in force since `now`.
    pub fn generation_activated(&self, number: u64, now: SystemTime) {
        self.generation.set(saturating_i64(number));
        *self.bundle_since.lock() = Some(now);
        self.bundle_broken.set(0);
    }

    /// The newest policies or plugins were refused; the last good ones serve.
    pub fn generation_refused(&self) {
        self.bundle_broken.set(1);
    }

    /// Counts a reload; `result` is `ok`, `refused` or `unchanged`.
    pub fn reloaded(&self, part: ReloadPart, result: ReloadResult) {
        self.reloads
            .with_label_values(&[part.as_str(), result.as_str()])
            .inc();
    }

    /// Counts running flows that a re-check ended.
    pub fn recheck_closed(&self, flows: u64) {
        self.recheck_closed.inc_by(flows);
    }

    /// Counts a session that a re-check ended.
    pub fn recheck_closed_session(&self) {
        self.recheck_sessions.inc();
    }

    /// Counts connectors that a re-check took from an agent.
    pub fn recheck_lost_connectors(&self, connectors: u64) {
        self.recheck_connectors.inc_by(connectors);
    }

    /// A re-check of all that runs begins.
    pub fn recheck_began(&self) {
        self.recheck_running.set(1);
    }

    /// Counts a re-check of all that runs.
    pub fn recheck_ended(&self, end: RecheckEnd) {
        self.recheck_running.set(0);
        self.recheck_rounds.with_label_values(&[end.as_str()]).inc();
    }

    /// Counts a question about a running flow.
    pub fn recheck_asked_flow(&self) {
        self.recheck_asked.with_label_values(&["flow"]).inc();
    }

    /// Counts a question about a connected agent.
    pub fn recheck_asked_agent(&self) {
        self.recheck_asked.with_label_values(&["agent"]).inc();
    }

    /// Counts a decision that is made anew.
    pub fn decided_again(&self, action: DecisionAction) {
        self.decided_again
            .with_label_values(&[action.as_str()])
            .inc();
    }

    /// Counts an answer of the external decision point.
    pub fn pdp(&self, result: PdpResult) {
        let label = match result {
            PdpResult::Allow => {
                self.pdp_allow.inc();
                "allow"
            }
            PdpResult::Deny => {
                self.pdp_deny.inc();
                "deny"
            }
            PdpResult::Error => {
                self.pdp_errors.inc();
                "error"
            }
        };
        self.pdp_decisions.with_label_values(&[label]).inc();
    }

    pub(super) fn refresh(&self, now: SystemTime) {
        let since = *self.bundle_since.lock();
        let age = since.map_or(Duration::ZERO, |since| {
            now.duration_since(since).unwrap_or_default()
        });
        self.bundle_age.set(age.as_secs_f64());
    }
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new form is in force.
    Ok,
    /// The new form has errors; the old one stays.
    Refused,
    /// Nothing differs.
    Unchanged,
}

impl ReloadResult {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Families of the plugin host.
#[derive(Debug)]
pub struct PluginMetrics {
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    instantiate_seconds: HistogramVec,
    pool_wait_seconds: HistogramVec,
    memory_peak: IntGaugeVec,
    active: IntGaugeVec,
    quarantined: IntGaugeVec,
    dropped: IntCounterVec,
    fetches: IntCounterVec,
    fetch_seconds: HistogramVec,
    shadow_denials: IntCounterVec,
    own_counts: IntCounterVec,
    own_values: HistogramVec,
    own_series: LabelCap,
    codes: LabelCap,
    active_now: Mutex<Vec<(String, String)>>,
    plugins: CappedChildren<OnePlugin>,
}

impl PluginMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            calls: families.counters(
                "nowconnect_plugin_calls_total",
                &["plugin", "hook", "outcome"],
                "Calls of plugins by hook and outcome (ok, deny, error, trap, timeout, oom, shed, bad_output).",
            ),
            call_seconds: families.histograms(
                "nowconnect_plugin_call_seconds",
                &["plugin", "hook"],
                CALL_BUCKETS,
                "Time of one call of a plugin's hook.",
            ),
            instantiate_seconds: families.histograms(
                "nowconnect_plugin_instantiate_seconds",
                &["plugin"],
                CALL_BUCKETS,
                "Time to make a fresh instance of a plugin.",
            ),
            pool_wait_seconds: families.histograms(
                "nowconnect_plugin_pool_wait_seconds",
                &["plugin"],
                CALL_BUCKETS,
                "Time that a call waited for a free instance slot.",
            ),
            memory_peak: families.gauges(
                "nowconnect_plugin_memory_peak_bytes",
                &["plugin"],
                "Largest linear memory that one call of the plugin used.",
            ),
            active: families.gauges(
                "nowconnect_plugin_active",
                &["plugin", "digest"],
                "1 for each plugin, with its digest, of the generation in force.",
            ),
            quarantined: families.gauges(
                "nowconnect_plugin_quarantined",
                &["plugin"],
                "1 while a plugin is not called because it failed too often.",
            ),
            dropped: families.counters(
                "nowconnect_plugin_dropped_total",
                &["plugin", "what"],
                "What a plugin sent over its bounds: log_lines, metric_samples or signals.",
            ),
            fetches: families.counters(
                "nowconnect_plugin_fetches_total",
                &["plugin", "outcome"],
                "HTTP requests that plugins sent, by outcome (ok, or a code of the capability fetch).",
            ),
            fetch_seconds: families.histograms(
                "nowconnect_plugin_fetch_seconds",
                &["plugin"],
                CALL_BUCKETS,
                "Time of one HTTP request of a plugin.",
            ),
            shadow_denials: families.counters(
                "nowconnect_plugin_shadow_denials_total",
                &["plugin", "hook"],
                "Answers of plugins in shadow that would have been a no.",
            ),
            own_counts: families.counters(
                "nowconnect_plugin_own_total",
                &["plugin", "name", "labels"],
                "Counters that plugins keep themselves; labels is their list as name=value.",
            ),
            own_values: families.histograms(
                "nowconnect_plugin_own_value",
                &["plugin", "name", "labels"],
                OWN_BUCKETS,
                "Values that plugins observe themselves; labels is their list as name=value.",
            ),
            own_series: LabelCap::new(MAX_OWN_SERIES),
            codes: LabelCap::new(MAX_CODES),
            active_now: Mutex::default(),
            plugins: CappedChildren::new(MAX_PLUGINS),
        }
    }

    /// Counts one call with its outcome label and time.
    pub fn called(&self, plugin: &str, hook: &str, outcome: &str, took: Duration) {
        let plugin = self.plugin(plugin);
        let hook = self.codes.admit(hook);
        self.calls
            .with_label_values(&[plugin.label.as_ref(), hook, self.codes.admit(outcome)])
            .inc();
        self.call_seconds
            .with_label_values(&[plugin.label.as_ref(), hook])
            .observe(took.as_secs_f64());
    }

    /// Observes the making of a fresh instance.
    pub fn instantiated(&self, plugin: &str, took: Duration) {
        self.plugin(plugin).instantiate.observe(took.as_secs_f64());
    }

    /// Observes the wait for an instance slot.
    pub fn waited(&self, plugin: &str, took: Duration) {
        self.plugin(plugin).pool_wait.observe(took.as_secs_f64());
    }

    /// Keeps the largest memory that a call used, in bytes.
    pub fn memory_used(&self, plugin: &str, bytes: u64) {
        let peak = &self.plugin(plugin).memory_peak;
        let bytes = saturating_i64(bytes);
        if bytes > peak.get() {
            peak.set(bytes);
        }
    }

    /// Sets whether a plugin is in quarantine.
    pub fn set_quarantined(&self, plugin: &str, quarantined: bool) {
        self.plugin(plugin).quarantined.set(i64::from(quarantined));
    }

    /// Counts what was dropped over a bound.
    pub fn dropped(&self, plugin: &str, what: &str, number: u64) {
        let plugin = self.plugin(plugin);
        self.dropped
            .with_label_values(&[plugin.label.as_ref(), self.codes.admit(what)])
            .inc_by(number);
    }

    /// Counts one HTTP request of a plugin's.
    pub fn fetched(&self, plugin: &str, outcome: &str, took: Duration) {
        let plugin = self.plugin(plugin);
        let label = plugin.label.as_ref();
        self.fetches
            .with_label_values(&[label, self.codes.admit(outcome)])
            .inc();
        self.fetch_seconds
            .with_label_values(&[label])
            .observe(took.as_secs_f64());
    }

    /// Counts a no that was not acted on.
    pub fn would_deny(&self, plugin: &str, hook: &str) {
        let plugin = self.plugin(plugin);
        self.shadow_denials
            .with_label_values(&[plugin.label.as_ref(), self.codes.admit(hook)])
            .inc();
    }

    /// Adds to a counter that a plugin keeps itself.
    pub fn own_count(&self, plugin: &str, name: &str, delta: u64, labels: &[(String, String)]) {
        let (plugin, labels) = (self.plugin(plugin), joined(labels));
        let (name, labels) = self.own_labels(&plugin.label, name, &labels);
        self.own_counts
            .with_label_values(&[plugin.label.as_ref(), name, labels])
            .inc_by(delta);
    }

    /// Observes a value that a plugin measured itself.
    pub fn own_value(&self, plugin: &str, name: &str, value: f64, labels: &[(String, String)]) {
        let (plugin, labels) = (self.plugin(plugin), joined(labels));
        let (name, labels) = self.own_labels(&plugin.label, name, &labels);
        self.own_values
            .with_label_values(&[plugin.label.as_ref(), name, labels])
            .observe(value);
    }

    /// Name and labels, or `other` for both once all plugins together have too many.
    fn own_labels<'l>(&self, plugin: &str, name: &'l str, labels: &'l str) -> (&'l str, &'l str) {
        let series = format!("{plugin} {name} {labels}");
        if self.own_series.admit(&series) == OTHER {
            (OTHER, OTHER)
        } else {
            (name, labels)
        }
    }

    /// Replaces the list of (plugin, digest) in force.
    pub fn set_active(&self, active: &[(&str, &str)]) {
        let mut now = self.active_now.lock();
        for (plugin, digest) in now.drain(..) {
            // A child that never existed is no error here.
            let _ = self.active.remove_label_values(&[&plugin, &digest]);
        }
        for (plugin, digest) in active.iter().take(MAX_PLUGINS) {
            self.active.with_label_values(&[*plugin, *digest]).set(1);
            now.push(((*plugin).to_owned(), (*digest).to_owned()));
        }
    }

    fn plugin(&self, name: &str) -> Arc<OnePlugin> {
        self.plugins.child(name, |label| OnePlugin {
            label: label.into(),
            instantiate: self.instantiate_seconds.with_label_values(&[label]),
            pool_wait: self.pool_wait_seconds.with_label_values(&[label]),
            memory_peak: self.memory_peak.with_label_values(&[label]),
            quarantined: self.quarantined.with_label_values(&[label]),
        })
    }
}

#[derive(Debug)]
struct OnePlugin {
    label: Box<str>,
    instantiate: Histogram,
    pool_wait: Histogram,
    memory_peak: IntGauge,
    quarantined: IntGauge,
}

fn joined(labels: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    text
}
