//! What becomes a task for the prover, and how far its answers are believed.

use nowconnect_policy::{
    Claim, Proof, ProofLimits, ProofReport, SourceFile, Sources, Verdict, shipped,
};
use serde_json::{Value, json};

use crate::fixture::sources;

const OLD: &str = r#"
@id("ldap") permit (principal, action == NowConnect::Action::"open", resource)
when { resource.protocol == "ldap" };
@id("joining") permit (principal, action in NowConnect::Action::"agent-lifecycle", resource);
"#;

fn wider() -> Sources {
    sources(&OLD.replace("== \"ldap\"", "like \"ldap*\""))
}

fn change() -> Proof {
    Proof::of_change(&sources(OLD), &wider()).unwrap()
}

fn task(proof: &Proof) -> Value {
    serde_json::from_str(&proof.task(ProofLimits::default()).unwrap()).unwrap()
}

/// The report with this answer to the query about new allows of `open`.
fn answered(proof: &Proof, answer: Value) -> ProofReport {
    let task = task(proof);
    let mut answer = answer;
    answer["query"] = task["environments"][0]["queries"][0]["id"].clone();
    proof.report(
        &format!("{{\"engine\":\"4\"}}\n{answer}\nnot json"),
        "it was not asked",
    )
}

fn verdict(report: &ProofReport, claim: &Claim) -> Verdict {
    report
        .results
        .iter()
        .find(|result| result.claim == *claim && result.environment.action.ends_with("::\"open\""))
        .unwrap()
        .verdict
        .clone()
}

fn opened(protocol: &str) -> Value {
    let tenant = json!({"__entity": {"type": "NowConnect::Tenant", "id": "t"}});
    json!({
        "answer": "counterexample",
        "request": {
            "principal": "NowConnect::Viewer::\"v\"",
            "action": "NowConnect::Action::\"open\"",
            "resource": "NowConnect::Connector::\"c\"",
            "context": {
                "net": {"srcIp": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}, "srcPort": 1,
                    "listener": {"__entity": {"type": "NowConnect::Listener", "id": "l"}}},
                "meta": {"now": {"__extn": {"fn": "datetime", "arg": "2026-11-21"}},
                    "hub": {"__entity": {"type": "NowConnect::Node", "id": "h"}},
                    "requestId": ""},
                "agent": {"__entity": {"type": "NowConnect::Agent", "id": "a"}},
                "openFlows": 0, "viaMesh": false, "signals": [], "signalsMissing": [],
            },
        },
        "entities": [
            {"uid": {"type": "NowConnect::Viewer", "id": "v"},
                "attrs": {"authenticated": false, "amr": []}, "parents": []},
            {"uid": {"type": "NowConnect::Connector", "id": "c"},
                "attrs": {"tenant": tenant, "protocol": protocol}, "parents": []},
            {"uid": {"type": "NowConnect::Agent", "id": "a"}, "parents": [],
                "attrs": {"tenant": tenant, "scopes": [], "ephemeral": false,
                    "tokenExp": {"__extn": {"fn": "datetime", "arg": "2026-11-22"}}}},
        ],
    })
}

#[test]
fn a_set_beside_itself_needs_no_prover() {
    let proof = Proof::of_change(&shipped(), &shipped()).unwrap();
    assert_eq!(proof.task(ProofLimits::default()), None);
    let report = proof.report("", "");
    assert!(report.lets_nothing_new_in() && report.denies_nothing_new());
    // Nor does another order and layout.
    let mut other = shipped();
    other.policies.reverse();
    for file in &mut other.policies {
        file.text = file.text.replace("permit (", "// once more\npermit(\n");
    }
    let proof = Proof::of_change(&shipped(), &other).unwrap();
    assert_eq!(proof.task(ProofLimits::default()), None);
}

#[test]
fn only_what_a_change_touches_is_asked() {
    let task = task(&change());
    let environments = task["environments"].as_array().unwrap();
    assert_eq!(environments.len(), 1, "{environments:?}");
    assert_eq!(environments[0]["action"], "NowConnect::Action::\"open\"");
    assert_eq!(environments[0]["queries"].as_array().unwrap().len(), 2);
    assert!(task["schema"]["NowConnect"]["entityTypes"]["Connector"].is_object());
}

#[test]
fn a_counterexample_counts_only_where_the_engine_decides_so() {
    let proof = change();
    let shown = answered(&proof, opened("ldaps"));
    let Verdict::Disproved(example) = verdict(&shown, &Claim::LetsNothingNewIn) else {
        panic!("{shown:?}");
    };
    assert!(!example.before.allow && example.after.as_ref().unwrap().allow);
    let text = example.to_string();
    assert!(text.contains("  .protocol = \"ldaps\"\n"), "{text}");
    assert!(
        text.contains("context.net.srcIp = ip(\"10.0.0.1\")\n"),
        "{text}"
    );
    for wrong in [
        opened("ldap"),
        opened("http"),
        json!({"answer": "counterexample",
        "request": {}, "entities": []}),
    ] {
        let report = answered(&proof, wrong);
        let verdict = verdict(&report, &Claim::LetsNothingNewIn);
        assert!(
            matches!(&verdict, Verdict::NotProved { why } if why.contains("does not hold")),
            "{verdict:?}"
        );
    }
}

#[test]
fn whatever_has_no_answer_is_not_proved() {
    let proof = change();
    for (answer, said) in [
        (
            json!({"answer": "unsupported", "policy": 0, "message": "odd"}),
            "odd",
        ),
        (
            json!({"answer": "may_error", "policy": 0}),
            "may fail to evaluate",
        ),
        (json!({"answer": "unknown", "message": "tired"}), "tired"),
        (json!({"answer": "surely"}), "it was not asked"),
    ] {
        let report = answered(&proof, answer);
        assert!(!report.lets_nothing_new_in());
        let Verdict::NotProved { why } = verdict(&report, &Claim::LetsNothingNewIn) else {
            panic!("{report:?}");
        };
        assert!(why.contains(said), "{why}");
        assert!(
            !report.denies_nothing_new(),
            "the other query got no answer"
        );
    }
    let proved = answered(&proof, json!({"answer": "proved"}));
    assert!(proved.lets_nothing_new_in() && !proved.denies_nothing_new());
}

#[test]
fn facts_and_cores_that_change_are_not_covered() {
    let mut after = sources(OLD);
    after.entities = Some(SourceFile::new("entities.json", "[]"));
    let report = Proof::of_change(&sources(OLD), &after)
        .unwrap()
        .report("", "");
    assert!(report.lets_nothing_new_in());
    assert_eq!(report.changed_facts.len(), 1);
    let mut before = sources(OLD);
    before.core = Some(nowconnect_policy::CoreVersion::V1);
    let report = Proof::of_change(&before, &sources(OLD))
        .unwrap()
        .report("", "");
    assert!(
        !report.lets_nothing_new_in(),
        "new kinds of request have nothing to compare with"
    );
    assert!(report.changed_facts[0].contains("from 1 to 2"));
}

#[test]
fn assertions_are_checked_like_policies() {
    let written = |text: &str| {
        let file = SourceFile::new("a.cedar", text);
        Proof::of_set(&sources(OLD), &[file])
    };
    let good = "@id(\"x\") @assert(\"never_allows\") forbid (principal, action == \
                NowConnect::Action::\"open\", resource) when { context.viaMesh };";
    let proof = written(good).unwrap();
    let claims = proof.report("", "").results;
    let own = claims
        .iter()
        .filter(|result| result.claim == Claim::Assertion { id: "x".to_owned() });
    assert_eq!(
        own.count(),
        1,
        "an assertion is about its own requests only"
    );
    for (from, to, problem) in [
        ("forbid", "permit", "written as a forbid"),
        ("never_allows", "maybe", "an assertion says"),
        ("@id(\"x\")", "", "`@id` of its own"),
        ("viaMesh", "viaMash", "viaMash"),
        ("principal,", "principal == ?principal,", "template"),
        // The types leave nothing over, and nobody would ever hear of it.
        (
            "context.viaMesh",
            "context.viaMesh && false",
            "describes no request",
        ),
        (";", "", "a.cedar:"),
    ] {
        let refused = written(&good.replace(from, to)).unwrap_err().to_string();
        assert!(refused.contains(problem), "{problem}: {refused}");
    }
}

#[test]
fn an_assertion_that_describes_no_request_counts_as_not_proved() {
    // No type can see it: a solver has to.
    let empty = "@id(\"x\") @assert(\"never_allows\") forbid (principal, action == \
                 NowConnect::Action::\"open\", resource) \
                 when { context.openFlows > 5 && context.openFlows < 3 };";
    let proof = Proof::of_set(&sources(OLD), &[SourceFile::new("a.cedar", empty)]).unwrap();
    let queries = task(&proof)["environments"]
        .as_array()
        .unwrap()
        .iter()
        .find(|environment| environment["action"] == "NowConnect::Action::\"open\"")
        .unwrap()["queries"]
        .as_array()
        .unwrap()
        .clone();
    // The last two are the assertion's: whether it describes anything, and whether it holds.
    let [.., describes, holds] = queries.as_slice() else {
        panic!("{queries:?}");
    };
    assert_eq!(describes["kind"], "always_denies");
    assert_eq!(holds["kind"], "implies");
    let own = |described: Value| {
        let mut described = described;
        described["query"] = describes["id"].clone();
        let holds = json!({"query": holds["id"], "answer": "proved"});
        let report = proof.report(&format!("{described}\n{holds}"), "");
        report.all_hold(|claim| match claim {
            Claim::Assertion { .. } | Claim::Describes { .. } => true,
            Claim::LetsNothingNewIn
            | Claim::DeniesNothingNew
            | Claim::NeverErrors { .. }
            | Claim::SometimesAllows => false,
        })
    };
    assert!(!own(json!({"answer": "proved"})), "nothing is described");
    assert!(!own(json!({"answer": "unknown", "message": "tired"})));
    assert!(own(
        json!({"answer": "counterexample", "request": {}, "entities": []})
    ));
}

#[test]
fn the_prover_sees_a_tenants_policies_as_they_are_confined() {
    let before = sources(OLD);
    let mut after = before.clone();
    after.policies.push(SourceFile::new(
        "acme@open.cedar",
        "@id(\"anybody\") permit (principal, action == NowConnect::Action::\"open\", resource);",
    ));
    let proof = Proof::of_change(&before, &after).unwrap();
    let task = task(&proof);
    let confined: Vec<&str> = task["policies"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .filter(|text| text.contains("NowConnect::Tenant::\"acme\""))
        .collect();
    assert_eq!(confined.len(), 1, "{task}");
    assert!(
        confined[0].contains("resource in NowConnect::Tenant::\"acme\""),
        "{confined:?}"
    );
    let environments = task["environments"].as_array().unwrap();
    assert_eq!(environments.len(), 1, "it is about opening alone");
    assert_eq!(environments[0]["action"], "NowConnect::Action::\"open\"");
}
