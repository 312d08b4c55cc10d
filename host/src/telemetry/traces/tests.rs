#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use parking_lot::Mutex;

use super::super::decisions::{DecisionAction, DecisionIds, DecisionRecord, Why};
use super::super::logs::LogSettings;
use super::super::metrics::Metrics;
use super::super::{DecisionLog, Settings, build};
use super::*;

#[test]
fn nothing_is_traced_without_an_endpoint() {
    let (dispatch, _telemetry) = build(
        &Settings::default(),
        Box::new(std::io::sink()),
        &Metrics::new(),
    )
    .unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        // Whether the span is disabled outright depends on the other subscribers that tests of
        // this process have; that it carries no trace does not.
        let span = flow_span("ldap", &"ldap", client());
        assert!(trace_parent(&span).is_none());
        assert!(trace_parent(&open_span(&span, &"dc1")).is_none());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_a_collector_without_their_secrets() {
    let (endpoint, bodies) = collector().await;
    let settings = Settings {
        traces: Some(settings(&endpoint)),
        logs: LogSettings::default(),
    };
    let (dispatch, mut telemetry) =
        build(&settings, Box::new(std::io::sink()), &Metrics::new()).unwrap();
    telemetry.traces.as_ref().unwrap().make_global();
    let parents = tracing::dispatcher::with_default(&dispatch, || {
        let flow = flow_span("ldap", &"ldap", client());
        flow.record("result", "denied Bearer s3cr3tvalue");
        let open = open_span(&flow, &"dc1");
        decision_span(&flow).in_scope(|| {
            plugin_called("geo", "enrich", "timeout", Duration::from_millis(5));
        });
        let hello = hello_span(client());
        hello.record("agent_id", "dc7");
        failed(&authentication_span(&hello), "token_expired");
        decision_span(&hello).in_scope(|| {
            plugin_called("names", "hello", "deny", Duration::from_millis(5));
        });
        (trace_parent(&flow).unwrap(), trace_parent(&open).unwrap())
    });
    assert_eq!(parents.0.trace_id(), parents.1.trace_id());
    assert_ne!(parents.0, parents.1);
    tokio::task::spawn_blocking(move || telemetry.shutdown(Duration::from_secs(5)))
        .await
        .unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while bodies.lock().is_empty() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seen = bodies.lock().concat();
    for text in [
        "accept",
        "decision",
        "plugin enrich",
        "timeout",
        "open",
        "dc1",
        "nowconnect-test",
        "hub-7",
        "denied Bearer ***",
        "hello",
        "dc7",
        "authentication",
        "token_expired",
        "plugin hello",
    ] {
        assert!(contains(&seen, text), "`{text}` was not exported");
    }
    assert!(!contains(&seen, "s3cr3tvalue"));
}

#[test]
fn a_decision_in_the_log_does_not_hide_the_next_span() {
    let settings = Settings {
        traces: Some(settings("http://127.0.0.1:1")),
        logs: LogSettings::default(),
    };
    let metrics = Metrics::new();
    let (dispatch, telemetry) = build(&settings, Box::new(std::io::sink()), &metrics).unwrap();
    let log = DecisionLog::new(metrics, Arc::default(), Some(telemetry.logs.clone()));
    let ids = DecisionIds::new(1);
    tracing::dispatcher::with_default(&dispatch, || {
        let root = flow_span("ldap", &"ldap", client());
        let (id, answer) = (ids.next_id(), (true, Why::Permitted));
        let record = DecisionRecord::new(id, 0, "hub-1".into(), 1, DecisionAction::Open, answer);
        let record = decision_span(&root).in_scope(|| log.record(record));
        let parent = trace_parent(&open_span(&root, &"dc1")).unwrap();
        assert_eq!(record.trace_id, Some(parent.trace_id()));
    });
}

#[test]
fn a_collector_that_is_away_costs_spans_and_is_counted() {
    let metrics = Metrics::new();
    let settings = Settings {
        traces: Some(settings("http://127.0.0.1:1")),
        logs: LogSettings::default(),
    };
    let (dispatch, mut telemetry) = build(&settings, Box::new(std::io::sink()), &metrics).unwrap();
    tracing::dispatcher::with_default(&dispatch, || drop(flow_span("l", &"c", client())));
    telemetry.flush_traces();
    telemetry.shutdown(Duration::from_secs(5));
    let text = metrics.render();
    assert!(
        text.contains("nowconnect_trace_spans_dropped_total 1"),
        "{text}"
    );
}

#[test]
fn a_trace_from_elsewhere_is_continued() {
    let settings = Settings {
        traces: Some(settings("http://127.0.0.1:1")),
        logs: LogSettings::default(),
    };
    let (dispatch, _telemetry) =
        build(&settings, Box::new(std::io::sink()), &Metrics::new()).unwrap();
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let parent: TraceParent = given.parse().unwrap();
    assert_eq!(parent.to_string(), given);
    tracing::dispatcher::with_default(&dispatch, || {
        let span = flow_span("ldap", &"ldap", client());
        continue_trace(&span, &parent);
        let own = trace_parent(&span).unwrap();
        assert_eq!(own.trace_id(), parent.trace_id());
        assert_ne!(own, parent);
    });
}

#[test]
fn what_is_no_traceparent_is_refused() {
    for text in [
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319é-b7ad6b716920333-01",
    ] {
        assert!(text.parse::<TraceParent>().is_err(), "{text}");
    }
}

#[test]
fn every_text_of_a_span_passes_the_floor() {
    let secret = "https://u:hunter2@idp/?token=hunter2";
    let context = SpanContext::new(
        TraceId::from(1_u128),
        SpanId::from(1_u64),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    let mut span = SpanData {
        span_context: context,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: secret.into(),
        start_time: std::time::UNIX_EPOCH,
        end_time: std::time::UNIX_EPOCH,
        attributes: vec![
            KeyValue::new("url", secret),
            KeyValue::new("password", "hunter2"),
            KeyValue::new("count", 2),
        ],
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::error(secret),
        instrumentation_scope: opentelemetry::InstrumentationScope::default(),
    };
    export::clean(&mut span);
    assert!(!format!("{span:?}").contains("hunter2"), "{span:?}");
    assert!(span.attributes.contains(&KeyValue::new("count", 2)));
}

#[test]
fn the_path_is_added_to_a_base_url_once() {
    assert_eq!(
        signal_url("http://c:4318", TRACES_PATH),
        "http://c:4318/v1/traces"
    );
    assert_eq!(
        signal_url("http://c:4318/", TRACES_PATH),
        "http://c:4318/v1/traces"
    );
    assert_eq!(
        signal_url("http://c/otlp/v1/traces", TRACES_PATH),
        "http://c/otlp/v1/traces"
    );
}

fn settings(endpoint: &str) -> TraceSettings {
    TraceSettings {
        endpoint: endpoint.to_owned(),
        headers: Vec::new(),
        timeout: Duration::from_secs(2),
        sample_ratio: 1.0,
        service_name: String::from("nowconnect-test"),
        replica: String::from("hub-7"),
    }
}

fn client() -> SocketAddr {
    "192.0.2.7:4000".parse().unwrap()
}

/// A receiver that keeps the bodies sent to it.
async fn collector() -> (String, Arc<Mutex<Vec<Bytes>>>) {
    let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let kept = Arc::clone(&bodies);
    let router = Router::new().route(
        "/v1/traces",
        post(move |body: Bytes| {
            kept.lock().push(body);
            std::future::ready(())
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (endpoint, bodies)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}
