//! One trace from the viewer to the origin, and whose it is.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{PERMIT_HTTP, SHOP};
use crate::cluster::web::{Message, ask, origin};
use crate::cluster::{SOON, hub};

const THEIRS: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What a viewer says of his trace.
const TOLD: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
                    tracestate: vendor=1\r\n";

#[tokio::test]
async fn a_viewers_trace_is_linked_and_not_gone_on_with() {
    let (seen, collector) = traced("", TOLD).await;
    let ours = trace_of(&seen);
    assert_ne!(ours, THEIRS);
    assert_eq!(seen.field("tracestate"), None);
    // The span of the request is exported under our trace, with a link to theirs.
    collector.has(&ours).await;
    collector.has(THEIRS).await;
}

#[tokio::test]
async fn a_viewers_trace_goes_on_where_the_listener_says_so() {
    let (seen, collector) = traced("continue_traces: true", TOLD).await;
    assert_eq!(trace_of(&seen), THEIRS);
    let parent = seen.field("traceparent").unwrap();
    assert!(!parent.contains("00f067aa0ba902b7"), "{parent}");
    assert_eq!(seen.field("tracestate").as_deref(), Some("vendor=1"));
    collector.has(THEIRS).await;
}

#[tokio::test]
async fn nobody_but_a_trusted_proxy_has_his_trace_gone_on_with() {
    let proxied = "continue_traces: true, trusted_proxies: [192.0.2.0/24]";
    let (seen, _collector) = traced(proxied, TOLD).await;
    assert_ne!(trace_of(&seen), THEIRS);
    // Two of them say nothing.
    let (seen, _collector) = traced("continue_traces: true", &format!("{TOLD}{TOLD}")).await;
    assert_ne!(trace_of(&seen), THEIRS);
}

/// What an origin sees of a request with these fields, and what takes the hub's spans.
async fn traced(listener: &str, fields: &str) -> (Message, Collector) {
    let origin = origin(&[]).await;
    let collector = Collector::start().await;
    let more = if listener.is_empty() { "" } else { ", " };
    let mut hub = hub()
        .policy_file("http.cedar", PERMIT_HTTP)
        .observability(&format!("otlp_endpoint: \"{}\"", collector.url))
        .top(&format!(
            "ingress:\n  listeners:\n    - {{name: web, bind: \"127.0.0.1:0\"{more}{listener}}}\n  \
             routes:\n    - {{{SHOP}}}\n"
        ))
        .start_process()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    let request = format!("GET / HTTP/1.1\r\nhost: shop.example.com\r\n{fields}\r\n");
    let web = super::web_of(hub.process());
    assert_eq!(ask(web, request).await.status(), 200);
    // Its spans go out before its end.
    hub.process().signal("TERM").await;
    assert!(hub.process().ended().await.success());
    (origin.last(), collector)
}

fn trace_of(seen: &Message) -> String {
    let parent = seen
        .field("traceparent")
        .expect("the origin should be told");
    parent.split('-').nth(1).unwrap().to_owned()
}

/// Takes spans over OTLP and keeps them as they came.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
    server: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let kept = Arc::clone(&bodies);
        let take = move |body: Bytes| {
            kept.lock().push(body);
            std::future::ready(())
        };
        let pages = Router::new().route("/v1/traces", post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, pages).await.unwrap() });
        Self {
            url,
            bodies,
            server,
        }
    }

    /// Waits until a span or a link of this trace has come.
    async fn has(&self, trace: &str) {
        let digits = |at: usize| u8::from_str_radix(&trace[at..at + 2], 16).unwrap();
        let id: Vec<u8> = (0..trace.len()).step_by(2).map(digits).collect();
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let bodies = self.bodies.lock().concat();
            if bodies.windows(id.len()).any(|part| part == id) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "no span of {trace}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}
