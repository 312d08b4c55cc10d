//! One trace from a viewer through hub and agent to the service, as a collector shows it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;

use crate::gateway::{PATIENCE, Setup};
use crate::http_origin::HTTP_POLICY;
use crate::parts::otlp::{self, Otlp, Span};
use crate::parts::{eventually, free_port, skip_without};

/// The viewer's trace, and his span in it.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const VIEWER: &str = "00f067aa0ba902b7";

#[test]
fn a_viewers_trace_leads_through_hub_and_agent_to_the_service() {
    if skip_without(&otlp::PROGRAMS) {
        return;
    }
    let mut setup = Setup::new();
    let receiver = Otlp::start(setup.folder());
    let port = free_port();
    std::fs::write(setup.folder().join("policies/http.cedar"), HTTP_POLICY).unwrap();
    setup.config["observability"]["otlp_endpoint"] = json!(receiver.endpoint);
    setup.config["observability"]["otlp_sample_ratio"] = json!(1.0);
    setup.config["ingress"] = json!({
        "listeners": [{"name": "web", "bind": format!("127.0.0.1:{port}"), "continue_traces": true}],
        "routes": [{"name": "shop", "host": "localhost", "connector": "shop"}],
    });
    let hub = setup.hub();
    let (service, told) = service();
    let mut config = setup.agent_config(&[("shop", service)]);
    config["observability"]["otlp_endpoint"] = json!(receiver.endpoint);
    let agent = setup.agent(&config);

    eventually("an answer of the service", PATIENCE, || ask(port));
    let told: Vec<String> = told.try_iter().collect();
    let [at_service] = &told[..] else {
        panic!("the service should be asked once: {told:?}");
    };
    let [_, trace, parent, _] = at_service.split('-').collect::<Vec<_>>()[..] else {
        panic!("`{at_service}` is no traceparent");
    };
    assert_eq!(trace, TRACE);

    let spans = eventually("the whole trace", PATIENCE * 2, || {
        let spans = receiver.spans();
        let of_it: Vec<Span> = spans.into_iter().filter(|one| one.trace == TRACE).collect();
        let has_parent = |span: &Span| {
            span.parent == VIEWER || of_it.iter().any(|other| other.span == span.parent)
        };
        let whole = of_it.iter().all(has_parent)
            && of_it.iter().any(|span| span.service == "nowconnect-agent")
            && of_it.iter().any(|span| span.span == parent);
        whole.then_some(of_it)
    });
    // The service's own spans would hang on one of the hub's, and the agent's do.
    let asks = by_id(&spans, parent);
    assert_eq!(asks.service, "nowconnect", "{asks:?}");
    let dial = spans
        .iter()
        .find(|span| span.service == "nowconnect-agent")
        .unwrap();
    for span in [asks, dial] {
        assert_eq!(root_of(&spans, span).parent, VIEWER, "{spans:#?}");
    }
    let opened = by_id(&spans, &dial.parent);
    assert_eq!(opened.service, "nowconnect", "{opened:?}");
    drop((hub, agent));
}

fn by_id<'a>(spans: &'a [Span], id: &str) -> &'a Span {
    spans.iter().find(|span| span.span == id).unwrap()
}

/// The span of ours that a span hangs on in the end.
fn root_of<'a>(spans: &'a [Span], span: &'a Span) -> &'a Span {
    let mut root = span;
    while root.parent != VIEWER {
        root = by_id(spans, &root.parent);
    }
    root
}

/// One request of the viewer, where it was answered.
fn ask(port: u16) -> Option<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         traceparent: 00-{TRACE}-{VIEWER}-01\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200 ").then_some(())
}

/// A service that tells the `traceparent` of each request; it lives until the test's process ends.
fn service() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(&stream).lines();
            let parent = head
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .filter_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("traceparent")
                        .then(|| value.to_owned())
                })
                .last();
            // The test may be over.
            let _ = tell.send(parent.unwrap_or_default());
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            let _ = stream.write_all(answer);
        }
    });
    (port, told)
}
