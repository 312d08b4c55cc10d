//! The trace that a request is part of.
//!
//! A request begins a trace of the hub's own: whoever asks does not choose under which id spans
//! are kept, or whether. What he says of a trace is linked to it. Only where the listener is told
//! so does his trace go on here. The origin gets the hub's `traceparent` either way, and agents
//! get it in OPEN; where the hub traces nothing, fields pass as they came.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use tracing::Span;

use super::door::DoorRules;
use crate::telemetry::traces::{self, TraceParent};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Relates a request's span, before it is entered or has children, to the trace that the request
/// says it is of.
pub(super) fn take_up(span: &Span, headers: &HeaderMap, rules: &DoorRules, peer: std::net::IpAddr) {
    if span.is_disabled() {
        return;
    }
    let Some(told) = told(headers) else {
        return;
    };
    let proxies = &rules.config.trusted_proxies;
    let peer = peer.to_canonical();
    let trusted = proxies.is_empty() || proxies.iter().any(|net| net.contains(&peer));
    if rules.config.continue_traces && trusted {
        traces::continue_trace(span, &told);
    } else {
        traces::link_trace(span, &told);
    }
}

/// Says to the origin which span asks it. `tracestate` goes with the trace that it is of.
pub(super) fn put(span: &Span, headers: &mut HeaderMap) {
    let Some(ours) = traces::trace_parent(span) else {
        return;
    };
    if told(headers).is_none_or(|told| told.trace_id() != ours.trace_id()) {
        headers.remove(TRACESTATE);
    }
    if let Ok(value) = HeaderValue::from_str(&ours.to_string()) {
        headers.insert(TRACEPARENT, value);
    }
}

/// The one `traceparent`; several, or what is none, say nothing.
fn told(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()?.parse().ok()
}
