#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use nowconnect_plugins::PluginSet;
use nowconnect_policy::{
    AgentFacts, ConnectorFacts, ListenerFacts, Meta, Name, Net, Open, Signals, SourceFile, Sources,
    Viewer,
};

use super::*;
use crate::telemetry::decisions::DecisionIds;

const PERMIT: &str =
    "@id(\"open\") permit (principal, action == NowConnect::Action::\"open\", resource);";
const NO_LDAP: &str = "@id(\"no-ldap\") forbid (principal, \
                       action == NowConnect::Action::\"open\", \
                       resource == NowConnect::Connector::\"ldap\");";

#[test]
fn differences_are_counted_by_action_and_sampled() {
    let at = At::new(&format!("{PERMIT} {NO_LDAP}"), PERMIT);
    for _ in 0..3 {
        assert!(!at.asks("ldap"));
    }
    assert!(at.asks("ssh"));
    let report = at.after(4);
    let (action, counts) = report.actions[0];
    assert_eq!(action, DecisionAction::Open);
    assert_eq!((counts.same, counts.newly_allowed), (1, 3));
    assert_eq!((counts.newly_denied, counts.errors), (0, 0));
    assert_eq!(report.samples.len(), 1, "equal requests share a sample");
    let sample = &report.samples[0];
    assert_eq!(sample.count, 3);
    assert_eq!(sample.resource, "Connector::\"ldap\"");
    assert_eq!(sample.live.policies, ["no-ldap"]);
    assert_eq!(sample.staged.policies, ["open"]);
    at.until(|| {
        at.metrics
            .render()
            .contains("nowconnect_policy_shadow_total{action=\"open\",outcome=\"newly_allowed\"} 3")
    });
}

#[test]
fn what_the_staged_set_would_newly_deny_is_found() {
    let at = At::new(PERMIT, &format!("{PERMIT} {NO_LDAP}"));
    assert!(at.asks("ldap"));
    let total = at.after(1).total();
    assert_eq!(total.newly_denied, 1);
    assert_eq!(total.newly_allowed, 0);
}

#[test]
fn a_staged_policy_that_cannot_be_evaluated_is_an_error_and_no_permit() {
    let overflow = format!(
        "{PERMIT} @id(\"overflow\") forbid (principal, action == NowConnect::Action::\"open\", \
         resource) when {{ context.openFlows + 9223372036854775807 < 0 }};"
    );
    let at = At::new(PERMIT, &overflow);
    assert!(at.asks_with("ldap", 1));
    let report = at.after(1);
    assert_eq!(report.total().errors, 1);
    assert!(!report.samples[0].staged.allow);
    assert!(!report.samples[0].staged.errors.is_empty());
}

#[test]
fn an_agent_that_has_gone_meanwhile_is_no_difference() {
    let at = At::new(PERMIT, PERMIT);
    let question = at.question("ldap", 0);
    let decision = at.generation.policies().decide(&at.facts, &question);
    assert!(decision.allow);
    at.facts.remove_agent(&Name::bare("plant"));
    at.offer(&question, &decision);
    let total = at.after(1).total();
    assert_eq!(total.stale, 1);
    assert_eq!(total.compared(), 0);
}

#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let at = At::new(PERMIT, PERMIT);
    // The comparing thread cannot count while the tally is held, so the queue fills up.
    let run = at.shadow.run.load_full().unwrap();
    let held = run.shared.tally.lock();
    let offered = MAX_WAITING_QUESTIONS + 100;
    for _ in 0..offered {
        assert!(at.asks("ldap"));
    }
    let dropped = run.shared.dropped.load(Ordering::Relaxed);
    assert!((90..=100).contains(&dropped), "{dropped} were dropped");
    drop(held);
    drop(run);
    let expected = u64::try_from(offered).unwrap() - dropped;
    assert_eq!(at.after(expected).total().same, expected);
}

#[test]
fn another_staged_set_begins_with_empty_counts_and_the_end_leaves_nothing() {
    let at = At::new(PERMIT, PERMIT);
    at.asks("ldap");
    at.after(1);
    at.shadow
        .begin(8, Arc::new(compile(&format!("{PERMIT} {NO_LDAP}"), 8)))
        .unwrap();
    assert_eq!(at.shadow.report().unwrap().total().compared(), 0);
    at.asks("ldap");
    let report = at.after(1);
    assert_eq!((report.revision, report.total().newly_denied), (8, 1));
    assert_eq!(at.shadow.end().unwrap().revision, 8);
    assert_eq!(at.shadow.report(), None);
    assert!(at.asks("ldap"));
}

#[test]
fn samples_are_bounded_and_the_rest_is_counted() {
    let at = At::new(
        PERMIT,
        "@id(\"none\") forbid (principal, action, resource);",
    );
    let all = 2 * tally::MAX_SAMPLES;
    for number in 0..all {
        let name = format!("c{number}");
        at.facts
            .put_connector(&ConnectorFacts::tcp(Name::bare(&name)));
        assert!(at.asks(&name));
    }
    let all = u64::try_from(all).unwrap();
    let report = at.after(all);
    assert_eq!(report.total().newly_denied, all);
    assert_eq!(report.samples.len(), tally::MAX_SAMPLES);
    assert_eq!(report.unsampled, all / 2);
}

struct At {
    facts: Arc<Facts>,
    metrics: Arc<Metrics>,
    generation: Arc<Generation>,
    shadow: Shadow,
    ids: DecisionIds,
}

impl At {
    fn new(live: &str, staged: &str) -> Self {
        let facts = Arc::new(Facts::new());
        facts.put_listener(&ListenerFacts {
            listener: Name::bare("front"),
            port: 389,
            protocol: "tcp".to_owned(),
        });
        for name in ["ldap", "ssh"] {
            facts.put_connector(&ConnectorFacts::tcp(Name::bare(name)));
        }
        facts.put_agent(&AgentFacts {
            agent: Name::bare("plant"),
            scopes: Vec::new(),
            ephemeral: false,
            token_expires_ms: 0,
            groups: Vec::new(),
            tags: Vec::new(),
        });
        let metrics = Metrics::new();
        let shadow = Shadow::new(Arc::clone(&facts), Arc::clone(&metrics));
        shadow.begin(7, Arc::new(compile(staged, 7))).unwrap();
        Self {
            facts,
            metrics,
            generation: Arc::new(Generation::new(1, compile(live, 1), PluginSet::empty())),
            shadow,
            ids: DecisionIds::new(1),
        }
    }

    fn question(&self, connector: &str, open_flows: u32) -> Arc<Question> {
        Arc::new(Question::Open(Open {
            net: Net {
                source_ip: [192, 0, 2, 7].into(),
                source_port: 4711,
                listener: Name::bare("front"),
                tls: None,
            },
            meta: Meta {
                now_ms: 1,
                hub: Arc::from("hub"),
                request_id: Arc::from("r"),
                trace_id: None,
                recheck: false,
            },
            viewer: Viewer::Anonymous,
            connector: Name::bare(connector),
            agent: Name::bare("plant"),
            open_flows,
            via_mesh: false,
            signals: Signals::default(),
        }))
    }

    fn asks(&self, connector: &str) -> bool {
        self.asks_with(connector, 0)
    }

    fn asks_with(&self, connector: &str, open_flows: u32) -> bool {
        let question = self.question(connector, open_flows);
        let decision = self.generation.policies().decide(&self.facts, &question);
        self.offer(&question, &decision);
        decision.allow
    }

    fn offer(&self, question: &Arc<Question>, decision: &Decision) {
        self.shadow.saw(
            DecisionAction::Open,
            self.ids.next_id(),
            &self.generation,
            question,
            decision,
        );
    }

    /// The report once so many questions were looked at.
    fn after(&self, questions: u64) -> ShadowReport {
        self.until(|| {
            let total = self.shadow.report().unwrap().total();
            total.compared() + total.stale >= questions
        });
        self.shadow.report().unwrap()
    }

    fn until(&self, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "still at {:?}",
                self.shadow.report()
            );
            std::thread::yield_now();
        }
    }
}

fn compile(text: &str, number: u64) -> PolicyBundle {
    let sources = Sources {
        policies: vec![SourceFile::new("test.cedar", text)],
        ..Sources::default()
    };
    PolicyBundle::compile(&sources, number).unwrap()
}
