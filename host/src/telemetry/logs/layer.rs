//! Where `tracing` meets the pipeline.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use opentelemetry::trace::TraceContextExt as _;
use tracing::dispatcher::WeakDispatch;
use tracing::span::{Attributes, Id, Record as SpanValues};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use super::super::decisions::DecisionRecord;
use super::super::events;
use super::Logs;
use super::record::{FieldVisitor, Record, Value};
use super::writer::in_writer_thread;

/// Turns events into records, in the caller's thread.
#[derive(Debug)]
pub(in super::super) struct LogLayer {
    logs: Logs,
    /// Set only with traces on: where to find the trace of a span.
    dispatch: OnceLock<WeakDispatch>,
    traces: bool,
}

thread_local! {
    /// The decision that the event being dispatched stands for.
    static DECISION: Cell<Option<Arc<DecisionRecord>>> = const { Cell::new(None) };
}

/// Target of the events that stand for decisions.
const DECISION_TARGET: &str = "nowconnect::decision";

/// Logs a decision as an event of this thread's subscriber, which filters it like any other. The
/// record itself is handed over beside the event. (`tracing::enabled!` would not do: with filters
/// by layer it leaves its answer behind, and the next span is taken for disabled.)
pub(super) fn emit_decision(record: &Arc<DecisionRecord>) {
    DECISION.set(Some(Arc::clone(record)));
    if record.allow {
        tracing::info!(target: DECISION_TARGET, "");
    } else {
        tracing::warn!(target: DECISION_TARGET, "");
    }
    DECISION.set(None);
}

/// The fields of a span, kept with it.
#[derive(Debug)]
struct SpanFields(Vec<(&'static str, Value)>);

impl LogLayer {
    pub(in super::super) fn new(logs: Logs, traces: bool) -> Self {
        Self {
            logs,
            dispatch: OnceLock::new(),
            traces,
        }
    }

    fn trace_of<S>(&self, event: &Event<'_>, context: &Context<'_, S>) -> Option<(String, String)>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        if !self.traces {
            return None;
        }
        let dispatch = self.dispatch.get()?.upgrade()?;
        let span = context
            .event_scope(event)?
            .find(|span| is_trace_span(span.metadata()))?;
        let found = tracing_opentelemetry::get_otel_context(&span.id(), &dispatch)?;
        let found = found.span().span_context().clone();
        found
            .is_valid()
            .then(|| (found.trace_id().to_string(), found.span_id().to_string()))
    }
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // A layer is part of one subscriber; a second registration would be the same one.
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut visitor = FieldVisitor::new(self.logs.shared.covers);
        attributes.record(&mut visitor);
        span.extensions_mut().insert(SpanFields(visitor.fields));
    }

    fn on_record(&self, id: &Id, values: &SpanValues<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut visitor = FieldVisitor::new(self.logs.shared.covers);
        values.record(&mut visitor);
        let mut extensions = span.extensions_mut();
        if let Some(SpanFields(fields)) = extensions.get_mut() {
            for (name, value) in visitor.fields {
                match fields.iter_mut().find(|(seen, _)| *seen == name) {
                    Some((_, seen)) => *seen = value,
                    None => fields.push((name, value)),
                }
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == DECISION_TARGET {
            if let Some(decision) = DECISION.take() {
                self.logs.shared.push(Record::of_decision(decision));
            }
            return;
        }
        let mut visitor = FieldVisitor::new(self.logs.shared.covers);
        event.record(&mut visitor);
        let mut record = Record::new(*metadata.level(), metadata.target());
        record.event = visitor.event;
        record.message = visitor.message;
        record.fields = visitor.fields;
        record.floor_only = metadata.target().starts_with(events::PLUGIN) || in_writer_thread();
        if let Some(scope) = context.event_scope(event) {
            for span in scope {
                if let Some(SpanFields(fields)) = span.extensions().get() {
                    for (name, value) in fields {
                        if !name.starts_with("otel.") {
                            record.add_outer(name, value);
                        }
                    }
                }
            }
        }
        record.trace = self.trace_of(event, &context);
        self.logs.shared.push(record);
    }
}

/// What the log takes: what the level says; and, with traces on, their spans, so that a line can
/// name its trace at any level.
pub(in super::super) struct LogFilter {
    level: reload::Layer<EnvFilter, Registry>,
    traces: bool,
}

impl LogFilter {
    pub(in super::super) const fn new(
        level: reload::Layer<EnvFilter, Registry>,
        traces: bool,
    ) -> Self {
        Self { level, traces }
    }
}

impl Filter<Registry> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, Registry>) -> bool {
        if is_trace_span(metadata) {
            self.traces
        } else {
            Filter::enabled(&self.level, metadata, context)
        }
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_trace_span(metadata) {
            if self.traces {
                Interest::always()
            } else {
                Interest::never()
            }
        } else {
            Filter::callsite_enabled(&self.level, metadata)
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let hint = Filter::max_level_hint(&self.level)?;
        Some(if self.traces {
            hint.max(LevelFilter::INFO)
        } else {
            hint
        })
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, Registry>) {
        Filter::on_new_span(&self.level, attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &SpanValues<'_>, context: Context<'_, Registry>) {
        Filter::on_record(&self.level, id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, Registry>) {
        Filter::on_enter(&self.level, id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, Registry>) {
        Filter::on_exit(&self.level, id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, Registry>) {
        Filter::on_close(&self.level, id, context);
    }
}

pub(in super::super) fn is_trace_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == events::TRACE
}
