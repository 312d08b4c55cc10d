//! One log record, between the caller and the writer.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::Level;
use tracing::field::{Field, Visit};

use super::super::decisions::DecisionRecord;
use super::super::events;
use super::super::redact::{self, Covers, ERASED};
use super::{MAX_FIELDS, MAX_VALUE_BYTES};

/// Text formatted at most before the floor sees it. A secret that this cuts is behind the end of
/// what is kept anyway.
const MAX_RAW_BYTES: usize = 4 * MAX_VALUE_BYTES;

/// A record after the floor.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) event: Option<String>,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
    /// Trace id and span id, hexadecimal.
    pub(super) trace: Option<(String, String)>,
    /// A decision whose fields are made in the writer's thread.
    pub(super) decision: Option<Arc<DecisionRecord>>,
    /// Not shown to mask plugins.
    pub(super) floor_only: bool,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Natural(u64),
    Real(f64),
    Truth(bool),
    /// JSON text, made by us.
    Json(String),
}

impl Value {
    /// As a masker sees it.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Text(text) | Self::Json(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Natural(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        }
    }

    fn weight_bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Integer(_) | Self::Natural(_) | Self::Real(_) | Self::Truth(_) => 0,
        }
    }
}

impl Record {
    pub(super) fn new(level: Level, target: &'static str) -> Self {
        Self {
            time: SystemTime::now(),
            level,
            target,
            event: None,
            message: String::new(),
            fields: Vec::new(),
            trace: None,
            decision: None,
            floor_only: false,
        }
    }

    /// A record of the pipeline itself.
    pub(super) fn internal(level: Level, event: &str, message: &str) -> Self {
        let mut record = Self::new(level, "nowconnect::telemetry::logs");
        record.event = Some(event.to_owned());
        record.message = redact::floor(message).into_owned();
        record.floor_only = true;
        record
    }

    pub(super) fn of_decision(decision: Arc<DecisionRecord>) -> Self {
        let level = if decision.allow {
            Level::INFO
        } else {
            Level::WARN
        };
        let mut record = Self::new(level, "nowconnect::decision");
        record.time = UNIX_EPOCH + Duration::from_millis(decision.time_ms);
        record.event = Some(String::from(events::DECISION));
        record.decision = Some(decision);
        record
    }

    /// Whether the record is written even when the queue is full.
    pub(super) fn is_urgent(&self) -> bool {
        self.level == Level::ERROR
            || self.target.starts_with(events::SECURITY)
            || self.decision.as_ref().is_some_and(|record| !record.allow)
    }

    /// Bytes that it holds in the queue.
    pub(super) fn weight_bytes(&self) -> usize {
        let fields: usize = self
            .fields
            .iter()
            .map(|(_, value)| value.weight_bytes() + size_of::<(&str, Value)>())
            .sum();
        // The decision ring holds the decision as well, but may have forgotten it.
        let decision = self.decision.as_ref().map_or(0, |kept| kept.weight_bytes());
        size_of::<Self>() + self.message.len() + fields + decision
    }

    /// Puts the decision's fields in, in the order of their declaration.
    pub(super) fn unfold_decision(&mut self, covers: Covers) {
        let Some(decision) = self.decision.take() else {
            return;
        };
        self.fields = decision_fields(&decision);
        if let Some(trace) = &decision.trace_id {
            let span = decision.span_id.clone().unwrap_or_default();
            self.trace = Some((trace.clone(), span));
        }
        if let Some(message) = &decision.message {
            self.message.clone_from(message);
        }
        for (name, value) in &mut self.fields {
            if let Value::Text(text) = value {
                covers.cover(name, text);
            }
        }
    }

    /// Drops every value; what is left is safe whatever the record held.
    pub(super) fn strip_values(&mut self) {
        if let Some(decision) = self.decision.take() {
            self.fields = vec![("decision_id", Value::Text(decision.decision_id.to_string()))];
        } else {
            for (_, value) in &mut self.fields {
                *value = Value::Text(String::from(ERASED));
            }
        }
        self.message = String::from(ERASED);
        self.event = self
            .event
            .take()
            .filter(|event| events::ALL.contains(&event.as_str()));
    }

    /// Adds a field unless there is one of that name; for fields of enclosing spans.
    pub(super) fn add_outer(&mut self, name: &'static str, value: &Value) {
        if self.fields.len() < MAX_FIELDS && self.fields.iter().all(|(seen, _)| *seen != name) {
            self.fields.push((name, value.clone()));
        }
    }
}

fn decision_fields(decision: &DecisionRecord) -> Vec<(&'static str, Value)> {
    let mut fields: Vec<(&'static str, Value)> = Vec::with_capacity(22);
    let text = |value: &dyn fmt::Display| Value::Text(value.to_string());
    fields.push(("decision_id", text(&decision.decision_id)));
    fields.push(("action", Value::Text(decision.action.as_str().to_owned())));
    fields.push(("allow", Value::Truth(decision.allow)));
    fields.push(("why", Value::Text(decision.why.as_str().to_owned())));
    fields.push(("hub", text(&decision.hub)));
    fields.push(("generation", Value::Natural(decision.generation)));
    if let Some(digest) = &decision.policy_digest {
        fields.push(("policy_digest", text(digest)));
    }
    if let Some(digest) = &decision.schema_digest {
        fields.push(("schema_digest", text(digest)));
    }
    if let Some(revision) = decision.revision {
        fields.push(("revision", Value::Natural(revision)));
    }
    fields.push(("principal", text(&decision.principal)));
    fields.push(("resource", text(&decision.resource)));
    let mut optional = |name: &'static str, value: Option<&dyn fmt::Display>| {
        if let Some(value) = value {
            fields.push((name, Value::Text(value.to_string())));
        }
    };
    optional("client", decision.client.as_ref().map(|seen| seen as _));
    optional(
        "agent_address",
        decision.agent_address.as_ref().map(|seen| seen as _),
    );
    optional("listener", decision.listener.as_ref().map(|seen| seen as _));
    optional("agent_id", decision.agent.as_ref().map(|seen| seen as _));
    optional(
        "connector",
        decision.connector.as_ref().map(|seen| seen as _),
    );
    optional("flow", decision.flow.as_ref().map(|seen| seen as _));
    optional("code", decision.code.as_ref().map(|seen| seen as _));
    json_field(
        &mut fields,
        "policies",
        &decision.policies,
        decision.policies.is_empty(),
    );
    json_field(
        &mut fields,
        "errors",
        &decision.errors,
        decision.errors.is_empty(),
    );
    json_field(
        &mut fields,
        "signals",
        &decision.signals,
        decision.signals.is_empty(),
    );
    let missing = &decision.signals_missing;
    json_field(&mut fields, "signals_missing", missing, missing.is_empty());
    json_field(
        &mut fields,
        "plugin",
        &decision.plugin,
        decision.plugin.is_none(),
    );
    json_field(&mut fields, "pdp", &decision.pdp, decision.pdp.is_none());
    json_field(&mut fields, "latency", &decision.latency, false);
    if decision.recheck {
        fields.push(("recheck", Value::Truth(true)));
    }
    fields
}

fn json_field<T: serde::Serialize>(
    fields: &mut Vec<(&'static str, Value)>,
    name: &'static str,
    value: &T,
    absent: bool,
) {
    if absent {
        return;
    }
    let value = serde_json::to_string(value).map_or_else(
        |_| Value::Text(String::from(ERASED)),
        |json| {
            if json.len() > MAX_VALUE_BYTES {
                Value::Text(shortened(&json))
            } else {
                Value::Json(json)
            }
        },
    );
    fields.push((name, value));
}

/// Takes the fields of an event or span, each through the floor.
pub(super) struct FieldVisitor {
    covers: Covers,
    pub(super) event: Option<String>,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl FieldVisitor {
    pub(super) fn new(covers: Covers) -> Self {
        Self {
            covers,
            event: None,
            message: String::new(),
            fields: Vec::new(),
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if self.fields.len() >= MAX_FIELDS {
            return;
        }
        let value = if redact::is_sensitive_key(name) {
            Value::Text(String::from(ERASED))
        } else {
            value
        };
        self.fields.push((name, value));
    }

    fn put_text(&mut self, field: &Field, raw: &str) {
        let mut text = shortened(&redact::floor(redact::truncated(raw, MAX_RAW_BYTES)));
        match field.name() {
            "message" => {
                self.covers.cover("message", &mut text);
                self.message = text;
            }
            "event" => self.event = Some(text),
            name => {
                self.covers.cover(name, &mut text);
                self.put(field, Value::Text(text));
            }
        }
    }
}

impl Visit for FieldVisitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut raw = BoundedText::default();
        // A text that is full refuses the rest, which is what its bound is for.
        let _ = write!(raw, "{value:?}");
        self.put_text(field, &raw.0);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut raw = BoundedText::default();
        let mut error = Some(value);
        let mut joint = "";
        while let Some(cause) = error {
            if write!(raw, "{joint}{cause}").is_err() {
                break;
            }
            joint = ": ";
            error = cause.source();
        }
        self.put_text(field, &raw.0);
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        let text = format!("<{} bytes>", value.len());
        self.put(field, Value::Text(text));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Integer(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Natural(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, Value::Text(value.to_string()));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, Value::Text(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::Real(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Truth(value));
    }
}

/// Text that takes [`MAX_RAW_BYTES`] and refuses more.
#[derive(Default)]
struct BoundedText(String);

impl fmt::Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_RAW_BYTES - self.0.len();
        let taken = redact::truncated(text, room);
        self.0.push_str(taken);
        if taken.len() == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= MAX_VALUE_BYTES {
        return text.to_owned();
    }
    let kept = redact::truncated(text, MAX_VALUE_BYTES);
    format!("{kept}… ({} bytes)", text.len())
}
