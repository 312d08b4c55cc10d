#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use nowconnect_policy::{
    Facts, ListenerFacts, Meta, Name, Net, Open, PolicyBundle, Signals, SourceFile, Sources, Viewer,
};

use super::*;

#[test]
fn the_same_request_is_kept_once_with_its_number_and_times() {
    let at = At::new(1 << 20);
    for number in 0..50 {
        at.ask(
            "192.0.2.7",
            1000 + number,
            40_000 + u16::try_from(number).unwrap(),
        );
    }
    at.ask("192.0.2.8", 2000, 1);
    let found = at.requests.since(0, 100);
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[1].count, found[1].first_ms, found[1].last_ms),
        (50, 1000, 1049)
    );
    assert_eq!(found[0].last_ms, 2000);
    assert_eq!(at.requests.since(1500, 100).len(), 1);
    assert_eq!(at.requests.since(0, 1).len(), 1);
}

#[test]
fn what_is_kept_is_a_test_case_that_passes() {
    let at = At::new(1 << 20);
    at.ask("192.0.2.7", 1000, 1);
    at.ask("10.1.1.1", 1001, 1);
    let found = at.requests.since(0, 100);
    let decisions: Vec<&str> = found.iter().map(|one| one.decision.as_str()).collect();
    assert_eq!(decisions, ["allow", "deny"]);
    assert_eq!(found[0].reason, ["office"]);
    let dir = tempfile::tempdir().unwrap();
    let json = serde_json::to_string(&found).unwrap();
    std::fs::write(dir.path().join("recorded.json"), json).unwrap();
    let report = nowconnect_policy::run_cases(&at.bundle, dir.path()).unwrap();
    assert_eq!(report.results.len(), 2);
    assert_eq!(report.failed(), 0, "{report:?}");
    // And it can be explained.
    let one = serde_json::to_string(&found[1]).unwrap();
    let explanation = at.bundle.explain_json(&one).unwrap();
    assert!(!explanation.decision.allow);
    assert_eq!(explanation.near_misses[0].policy.id, "office");
}

#[test]
fn bytes_bound_it_and_what_was_not_asked_for_longest_goes_first() {
    let at = At::new(8 << 10);
    for number in 0..100_u8 {
        at.ask(&format!("192.0.2.{number}"), u64::from(number), 1);
        at.ask("10.9.9.9", 1000, 1);
    }
    let counts = at.requests.counts();
    assert!(counts.bytes <= 8 << 10, "{counts:?}");
    assert!(counts.forgotten > 50, "{counts:?}");
    let found = at.requests.since(0, 1000);
    let often = found.iter().find(|one| one.count == 100).unwrap();
    assert_eq!(
        often.decision, "allow",
        "what is asked all the time was forgotten"
    );
}

#[test]
fn a_storm_of_new_requests_states_only_so_many() {
    let at = At::new(64 << 20);
    for number in 0..2000_u32 {
        at.ask(
            &std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string(),
            1,
            1,
        );
    }
    let counts = at.requests.counts();
    assert_eq!(counts.kept as u64 + counts.skipped, 2000);
    assert!(counts.skipped > 0, "{counts:?}");
}

#[test]
fn covered_addresses_stay_addresses() {
    let mut at = At::new(1 << 20);
    at.requests = Requests::new(
        1 << 20,
        Covers {
            client_ips: true,
            ..Covers::default()
        },
    );
    at.ask("10.1.1.77", 1, 1);
    let one = serde_json::to_string(&at.requests.since(0, 1)[0]).unwrap();
    assert!(!one.contains("10.1.1.77"), "{one}");
    assert!(at.bundle.explain_json(&one).unwrap().decision.allow);
}

struct At {
    requests: Requests,
    bundle: PolicyBundle,
    facts: Facts,
}

impl At {
    fn new(max_bytes: usize) -> Self {
        let sources = Sources {
            policies: vec![SourceFile {
                name: "test.cedar".to_owned(),
                text: "@id(\"office\") permit (principal, action == NowConnect::Action::\"open\", \
                       resource) when { context.net.srcIp.isInRange(ip(\"10.0.0.0/8\")) };"
                    .to_owned(),
            }],
            ..Sources::default()
        };
        let facts = Facts::new();
        facts.put_listener(&ListenerFacts {
            listener: Name::bare("front"),
            port: 389,
            protocol: "tcp".to_owned(),
        });
        facts.ensure_connector(&Name::bare("ldap"));
        facts.put_agent(&nowconnect_policy::AgentFacts {
            agent: Name::bare("plant"),
            scopes: Vec::new(),
            ephemeral: false,
            token_expires_ms: 1,
            groups: Vec::new(),
            tags: vec![("site".to_owned(), "north".to_owned())],
        });
        Self {
            requests: Requests::new(max_bytes, Covers::default()),
            bundle: PolicyBundle::compile(&sources, 1).unwrap(),
            facts,
        }
    }

    fn ask(&self, client: &str, time_ms: u64, port: u16) {
        let question = Question::Open(Open {
            net: Net {
                source_ip: client.parse().unwrap(),
                source_port: port,
                listener: Name::bare("front"),
                tls: None,
            },
            meta: Meta {
                now_ms: time_ms,
                hub: Arc::from("hub"),
                request_id: Arc::from(time_ms.to_string()),
                trace_id: None,
                recheck: false,
            },
            viewer: Viewer::Anonymous,
            connector: Name::bare("ldap"),
            agent: Name::bare("plant"),
            open_flows: u32::from(port),
            via_mesh: false,
            signals: Signals::default(),
        });
        let decision = self.bundle.decide(&self.facts, &question);
        self.requests.seen(&question, &decision, time_ms, || {
            self.bundle.state(&self.facts, &question).ok()
        });
    }
}
