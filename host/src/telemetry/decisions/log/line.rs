//! A decision becomes a line.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use nowconnect_plugins::{Level, LogEntry};
use serde_json::Value;

use super::DecisionLogSettings;
use super::flood::Repeated;
use super::queue::{Entry, Gap};
use crate::telemetry::decisions::record::DecisionRecord;
use crate::telemetry::events;
use crate::telemetry::logs::MASK_TIMEOUT;
use crate::telemetry::mask::{LogMasker, MaskFailure};
use crate::telemetry::redact::{self, Covers, ERASED};
use crate::telemetry::rfc3339_ms;

/// Fields that stand whatever becomes of masking: they hold no text of a request.
const KEPT: [&str; 12] = [
    "record",
    "time",
    "decision_id",
    "generation",
    "policy_digest",
    "schema_digest",
    "revision",
    "action",
    "allow",
    "why",
    "count",
    "recheck",
];

/// The longest text of one field that is written, in bytes.
const MAX_FIELD_BYTES: usize = 4096;

/// One line, as an object of JSON in the order of its fields.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) time_ms: u64,
    pub(super) allow: bool,
    pub(super) trace_id: Option<String>,
    pub(super) span_id: Option<String>,
    pub(super) fields: Vec<(String, Value)>,
}

impl Line {
    /// Says what is missing before the next line.
    pub(super) fn gap(gap: &Gap) -> Self {
        let fields = [
            ("record", Value::from("gap")),
            ("time", Value::from(rfc3339_ms(gap.last_ms))),
            ("dropped", Value::from(gap.allows + gap.denies)),
            ("dropped_allows", Value::from(gap.allows)),
            ("dropped_denies", Value::from(gap.denies)),
            ("first", Value::from(rfc3339_ms(gap.first_ms))),
            ("last", Value::from(rfc3339_ms(gap.last_ms))),
        ];
        Self {
            time_ms: gap.last_ms,
            allow: false,
            trace_id: None,
            span_id: None,
            fields: fields
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
        }
    }

    /// The object of JSON, with its end of line.
    pub(super) fn push_json(&self, out: &mut String) {
        out.push('{');
        for (index, (name, value)) in self.fields.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(&Value::from(name.as_str()).to_string());
            out.push(':');
            out.push_str(&value.to_string());
        }
        out.push_str("}\n");
    }

    fn push(&mut self, name: &str, value: Value) {
        self.fields.push((name.to_owned(), value));
    }

    fn strip(&mut self) {
        for (name, value) in &mut self.fields {
            if !KEPT.contains(&name.as_str()) {
                *value = Value::from(ERASED);
            }
        }
    }
}

/// Makes lines in one thread.
pub(super) struct Lines {
    covers: Covers,
    context: Vec<String>,
    sample_allows: f64,
    masker: Option<Arc<dyn LogMasker>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Lines {
    pub(super) fn new(settings: &DecisionLogSettings, masker: Option<Arc<dyn LogMasker>>) -> Self {
        Self {
            covers: settings.covers,
            context: settings.context.clone(),
            sample_allows: settings.sample_allows,
            masker,
            runtime: None,
        }
    }

    /// The lines of a batch, masked.
    pub(super) fn of(&mut self, entries: &[Entry]) -> Vec<Line> {
        let mut lines: Vec<Line> = entries
            .iter()
            .map(|entry| match entry {
                Entry::One(record) => self.one(record),
                Entry::Many(many) => self.many(many),
            })
            .collect();
        if let Err(failure) = self.mask(&mut lines) {
            lines.iter_mut().for_each(Line::strip);
            tracing::error!(
                event = events::LOG_MASK_FAILED,
                error = %failure,
                "decisions are written without what mask plugins should have seen"
            );
        }
        lines
    }

    fn one(&self, record: &DecisionRecord) -> Line {
        let mut line = Line {
            time_ms: record.time_ms,
            allow: record.allow,
            trace_id: record.trace_id.clone(),
            span_id: record.span_id.clone(),
            fields: Vec::with_capacity(24),
        };
        line.push("record", Value::from("decision"));
        line.push("time", Value::from(rfc3339_ms(record.time_ms)));
        self.push_record(&mut line, record);
        if record.allow && self.sample_allows < 1.0 {
            line.push("sampled", Value::from(self.sample_allows));
        }
        self.push_context(&mut line, record);
        line
    }

    fn many(&self, many: &Repeated) -> Line {
        let mut line = Line {
            time_ms: many.last_ms,
            allow: false,
            trace_id: None,
            span_id: None,
            fields: Vec::with_capacity(24),
        };
        line.push("record", Value::from("repeated"));
        line.push("time", Value::from(rfc3339_ms(many.last_ms)));
        line.push("count", Value::from(many.count));
        line.push("first", Value::from(rfc3339_ms(many.first_ms)));
        line.push("last", Value::from(rfc3339_ms(many.last_ms)));
        self.push_record(&mut line, &many.last);
        line
    }

    /// The fields of the record under the names that the admin API gives them.
    fn push_record(&self, line: &mut Line, record: &DecisionRecord) {
        let Ok(Value::Object(fields)) = serde_json::to_value(record) else {
            line.push("problem", Value::from("the record is no object"));
            return;
        };
        let covers = record.covers(self.covers);
        for (name, mut value) in fields {
            if name == "time_ms" {
                continue;
            }
            Self::cover(covers, &name, &mut value);
            line.push(&name, value);
        }
        if let Some(address) = record.agent_address.filter(|_| !covers.agent_ips) {
            line.push("agent_address", Value::from(address.to_string()));
        }
    }

    fn push_context(&self, line: &mut Line, record: &DecisionRecord) {
        if self.context.is_empty() {
            return;
        }
        let asked = record.question.as_ref().and_then(
            crate::telemetry::decisions::Question::downcast::<nowconnect_policy::Question>,
        );
        let Some(question) = asked.and_then(|asked| serde_json::to_value(&*asked).ok()) else {
            return;
        };
        let mut picked = serde_json::Map::new();
        for path in &self.context {
            let found = path
                .split('.')
                .try_fold(&question, |value, name| value.get(name));
            if let Some(found) = found {
                let mut value = found.clone();
                let name = path.rsplit('.').next().unwrap_or(path);
                Self::clean(record.covers(self.covers), name, &mut value);
                picked.insert(path.clone(), value);
            }
        }
        line.push("context", Value::Object(picked));
    }

    /// What the floor has not seen yet: parts of a question.
    fn clean(covers: Covers, name: &str, value: &mut Value) {
        if redact::is_sensitive_key(name) {
            *value = Value::from(ERASED);
            return;
        }
        match value {
            Value::String(text) => redact::in_place(text),
            Value::Array(items) => {
                items
                    .iter_mut()
                    .for_each(|item| Self::clean(covers, name, item));
            }
            Value::Object(fields) => fields
                .iter_mut()
                .for_each(|(name, value)| Self::clean(covers, name, value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Self::cover(covers, name, value);
    }

    fn cover(covers: Covers, name: &str, value: &mut Value) {
        if let Value::String(text) = value {
            covers.cover(name, text);
            if text.len() > MAX_FIELD_BYTES {
                *text = redact::truncated(text, MAX_FIELD_BYTES).to_owned();
            }
        }
    }

    fn mask(&mut self, lines: &mut [Line]) -> Result<(), MaskFailure> {
        let Some(masker) = self.masker.clone().filter(|masker| masker.is_active()) else {
            return Ok(());
        };
        let mut entries: Vec<LogEntry> = lines.iter().map(entry_of).collect();
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .map_err(|_| failure("no runtime for the mask plugins"))?,
        };
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                tokio::time::timeout(MASK_TIMEOUT, masker.mask(&mut entries)).await
            })
        }));
        self.runtime = Some(runtime);
        match asked {
            Ok(Ok(answer)) => drop(answer?),
            Ok(Err(_)) => return Err(failure("no answer in time")),
            Err(_) => return Err(failure("the masker panicked")),
        }
        if entries.len() != lines.len() {
            return Err(failure("the masker changed the number of records"));
        }
        lines
            .iter_mut()
            .zip(entries)
            .try_for_each(|(line, entry)| take_over(line, entry))
    }
}

fn entry_of(line: &Line) -> LogEntry {
    LogEntry {
        level: if line.allow { Level::Info } else { Level::Warn },
        target: "nowconnect::decisions".to_owned(),
        message: events::DECISION.to_owned(),
        fields: line
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), shown(value)))
            .collect(),
    }
}

/// Takes over what a masker covered. A field that it left out is erased.
fn take_over(line: &mut Line, entry: LogEntry) -> Result<(), MaskFailure> {
    let mut answers = entry.fields.into_iter().peekable();
    for (name, value) in &mut line.fields {
        match answers.next_if(|(answered, _)| answered == name) {
            Some((_, answer)) if answer == shown(value) => {}
            Some((_, answer)) => *value = Value::from(answer),
            None => *value = Value::from(ERASED),
        }
    }
    match answers.next() {
        None => Ok(()),
        Some(_) => Err(failure("the masker answered a field that is not there")),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

fn failure(reason: &str) -> MaskFailure {
    MaskFailure {
        reason: reason.to_owned(),
    }
}
