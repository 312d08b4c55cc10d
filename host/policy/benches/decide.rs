//! What a decision costs, question to answer, by the number of policies.
//!
//! `cargo bench -p nowconnect-policy`. The questions differ in time, id and port, as they do in
//! a hub, so nothing but what the crate keeps itself is reused.

#![expect(clippy::print_stdout, reason = "a bench prints its result")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use nowconnect_policy::{
    AgentFacts, ConnectorFacts, EndpointFacts, Facts, Http, HttpRequest, ListenerFacts, Meta, Name,
    Net, Open, PolicyBundle, Question, Signals, SourceFile, Viewer, ViewerFacts, shipped,
};

const QUESTIONS: usize = 20_000;
const CONNECTORS: usize = 1000;

fn main() {
    println!("policies  compile_ms  question       viewer         min_us  p50_us  p99_us");
    for policies in [10, 100, 1000] {
        let mut sources = shipped();
        sources
            .policies
            .push(SourceFile::new("bench.cedar", text(policies)));
        let started = Instant::now();
        let bundle = PolicyBundle::compile(&sources, 1).unwrap();
        let compile_ms = started.elapsed().as_millis();
        let facts = facts();
        for (label, viewer) in [("anonymous", Viewer::Anonymous), ("authenticated", alice())] {
            for (asked, question) in [("open", open as Asked), ("http-request", http_request)] {
                let [min, p50, p99] = measure(&bundle, &facts, |number| question(number, &viewer));
                println!(
                    "{policies:8}  {compile_ms:10}  {asked:13}  {label:13}  {min:6.1}  {p50:6.1}  \
                     {p99:6.1}"
                );
            }
        }
    }
}

type Asked = fn(usize, &Viewer) -> Question;

fn measure(bundle: &PolicyBundle, facts: &Facts, question: impl Fn(usize) -> Question) -> [f64; 3] {
    let mut nanos = Vec::with_capacity(QUESTIONS);
    for number in 0..QUESTIONS + QUESTIONS / 10 {
        let question = question(number);
        let started = Instant::now();
        let decision = bundle.decide(facts, &question);
        let took = started.elapsed().as_nanos();
        assert!(decision.allow, "{decision:?}");
        // The first tenth warms up.
        if number >= QUESTIONS / 10 {
            nanos.push(took as f64);
        }
    }
    nanos.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| nanos[(nanos.len() as f64 * share) as usize] / 1000.0;
    [at(0.0), at(0.5), at(0.99)]
}

/// One permit for each connector, and a few that are for all.
fn text(policies: usize) -> String {
    (0..policies)
        .map(|number| {
            let connector = number % CONNECTORS;
            format!(
                "@id(\"bench-{number}\")\npermit (principal is NowConnect::Viewer, \
                 action == NowConnect::Action::\"open\", \
                 resource == NowConnect::Connector::\"c{connector}\")\n\
                 when {{ context.net.srcIp.isInRange(ip(\"192.0.2.0/24\")) \
                 && context.openFlows < 512 }};\n"
            )
        })
        .collect()
}

fn open(number: usize, viewer: &Viewer) -> Question {
    Question::Open(Open {
        net: net(number),
        meta: meta(number),
        viewer: viewer.clone(),
        connector: Name::bare(&format!("c{}", number % CONNECTORS)),
        agent: Name::bare(&format!("a{}", number % 100)),
        open_flows: 3,
        via_mesh: false,
        signals: Signals::default(),
    })
}

fn http_request(number: usize, viewer: &Viewer) -> Question {
    Question::HttpRequest(HttpRequest {
        net: net(number),
        meta: meta(number),
        viewer: viewer.clone(),
        endpoint: Name::bare("shop"),
        connector: Name::bare(&format!("c{}", number % CONNECTORS)),
        agent: Name::bare(&format!("a{}", number % 100)),
        http: Http {
            method: "GET".to_owned(),
            host: "shop.example.org".to_owned(),
            path: format!("/articles/{number}"),
            header_names: ["accept", "accept-language", "cookie", "host", "user-agent"]
                .map(str::to_owned)
                .to_vec(),
        },
        signals: Signals::default(),
    })
}

fn net(number: usize) -> Net {
    Net {
        source_ip: IpAddr::from([192, 0, 2, (number % 250) as u8]),
        source_port: (number % 60_000) as u16,
        listener: Name::bare("l"),
        tls: None,
    }
}

fn meta(number: usize) -> Meta {
    Meta {
        now_ms: 1_795_248_000_000 + number as u64,
        hub: "hub-1".into(),
        request_id: format!("{number:032x}").into(),
        trace_id: None,
        recheck: false,
    }
}

fn facts() -> Facts {
    let facts = Facts::new();
    for number in 0..CONNECTORS {
        let connector = Name::bare(&format!("c{number}"));
        facts.put_connector(&ConnectorFacts::tcp(connector));
    }
    for number in 0..100 {
        facts.put_agent(&AgentFacts {
            agent: Name::bare(&format!("a{number}")),
            scopes: (0..10).map(|c| Name::bare(&format!("c{c}"))).collect(),
            ephemeral: false,
            token_expires_ms: u64::MAX,
            groups: vec!["prod".into()],
            tags: vec![("zone".to_owned(), "inner".to_owned())],
        });
    }
    facts.put_endpoint(&EndpointFacts {
        endpoint: Name::bare("shop"),
        owner: Name::bare("a0"),
        host: "shop.example.org".to_owned(),
        reserved: true,
        public: true,
        tags: Vec::new(),
    });
    facts.put_listener(&ListenerFacts {
        listener: Name::bare("l"),
        port: 10389,
        protocol: "tcp".to_owned(),
    });
    facts
}

fn alice() -> Viewer {
    Viewer::Known(Arc::new(ViewerFacts {
        viewer: Name::bare("alice"),
        issuer: Some("https://id.example.org".to_owned()),
        email: Some("alice@example.org".to_owned()),
        email_verified: Some(true),
        amr: vec!["pwd".to_owned()],
        auth_time_ms: Some(1_795_248_000_000),
        groups: vec!["staff".into(), "it".into()],
        tags: Vec::new(),
    }))
}
