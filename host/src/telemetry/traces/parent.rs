//! W3C trace context: `traceparent` in and out.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// A parsed `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    span: SpanId,
    sampled: bool,
}

/// The text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of version 00")]
pub struct InvalidTraceParent;

impl TraceParent {
    /// The trace's id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.trace.to_string()
    }

    /// The span's id, 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        self.span.to_string()
    }

    fn remote(&self) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(self.sampled);
        SpanContext::new(self.trace, self.span, flags, true, TraceState::NONE)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let mut part = |length: usize| {
            parts
                .next()
                .filter(|part| part.len() == length)
                .filter(|part| part.bytes().all(is_lower_hex))
                .ok_or(InvalidTraceParent)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if version != "00" || parts.next().is_some() {
            return Err(InvalidTraceParent);
        }
        let trace = TraceId::from_hex(trace).map_err(|_| InvalidTraceParent)?;
        let span = SpanId::from_hex(span).map_err(|_| InvalidTraceParent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| InvalidTraceParent)?;
        if trace == TraceId::INVALID || span == SpanId::INVALID {
            return Err(InvalidTraceParent);
        }
        Ok(Self {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", self.trace, self.span)
    }
}

const fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'a'..=b'f')
}

/// The `traceparent` of a span, for OPEN; `None` where nothing is traced.
pub fn trace_parent(span: &Span) -> Option<TraceParent> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let found = context.span().span_context().clone();
    found.is_valid().then(|| TraceParent {
        trace: found.trace_id(),
        span: found.span_id(),
        sampled: found.is_sampled(),
    })
}

/// Notes in `span` another trace that it has to do with and is no part of.
pub fn link_trace(span: &Span, other: &TraceParent) {
    if !span.is_disabled() {
        span.add_link(other.remote());
    }
}

/// Makes `span` a child of a trace that began elsewhere. Call it before the span is entered or
/// has children; later, and where nothing is traced, it changes nothing.
pub fn continue_trace(span: &Span, parent: &TraceParent) {
    if span.is_disabled() {
        return;
    }
    let context = opentelemetry::Context::new().with_remote_span_context(parent.remote());
    // Refused only where the span has started or is not traced.
    let _ = span.set_parent(context);
}
