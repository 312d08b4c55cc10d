//! The policies in the project's own `policies/` folder, and their cases.

use std::path::Path;
use std::sync::Arc;

use nowconnect_policy::{
    AgentFacts, PolicyBundle, Question, ReasonKind, SourceFile, Sources, run_cases, shipped,
    shipped_cases,
};

use crate::fixture::{agent, announce, facts, hello, http_request, open, viewer};

#[test]
fn every_case_passes_and_every_policy_has_one() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let sources = Sources::from_dir(&dir).unwrap();
    let bundle = PolicyBundle::compile(&sources, 1).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(bundle.warnings(), []);
    let report = run_cases(&bundle, &dir.join("tests")).unwrap();
    let failures: Vec<_> = report
        .results
        .iter()
        .filter(|r| r.failure.is_some())
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(
        report.results.len() >= 45,
        "only {} cases",
        report.results.len()
    );
    assert_eq!(report.uncovered, [""; 0]);
}

#[test]
fn what_is_embedded_is_what_is_in_the_folder() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let mut in_folder: Vec<String> = Sources::from_dir(&dir)
        .unwrap()
        .policies
        .into_iter()
        .map(|file| file.text)
        .collect();
    let mut embedded: Vec<String> = shipped()
        .policies
        .into_iter()
        .map(|file| file.text)
        .collect();
    in_folder.sort_unstable();
    embedded.sort_unstable();
    assert!(
        in_folder == embedded,
        "a policy file is not embedded, or no longer there"
    );
}

#[test]
fn every_case_file_of_the_folder_is_embedded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let mut in_folder: Vec<String> = std::fs::read_dir(dir.join("tests"))
        .unwrap()
        .map(|entry| format!("tests/{}", entry.unwrap().file_name().display()))
        .collect();
    let mut embedded: Vec<String> = shipped_cases().into_iter().map(|file| file.name).collect();
    in_folder.sort_unstable();
    embedded.sort_unstable();
    assert_eq!(embedded, in_folder);
}

#[test]
fn a_hub_without_a_policy_folder_works() {
    let bundle = PolicyBundle::compile(&shipped(), 1).unwrap();
    assert_eq!(bundle.warnings(), []);
    let facts = facts();
    let agent = Arc::new(agent("a1"));
    for question in [
        hello(AgentFacts::clone(&agent), "a1"),
        announce(&agent, "ldap", false),
        announce(&agent, "never-heard-of", false),
        Question::Open(open()),
        http_request(viewer("alice")),
    ] {
        let decision = bundle.decide(&facts, &question);
        assert!(decision.allow, "{question:?}: {decision:?}");
    }
}

#[test]
fn an_agent_never_serves_another_tenant() {
    let bundle = PolicyBundle::compile(&shipped(), 1).unwrap();
    let mut open = open();
    open.agent = crate::fixture::name("acme/a1");
    let decision = bundle.decide(&facts(), &Question::Open(open));
    assert_eq!(decision.kind, ReasonKind::Forbidden);
    assert_eq!(decision.code(), Some("tenant_mismatch"));
    let stranger = Arc::new(agent("acme/a1"));
    let decision = bundle.decide(&facts(), &announce(&stranger, "ldap", false));
    assert_eq!(decision.code(), Some("tenant_mismatch"));
}

#[test]
fn denials_have_the_codes_of_their_policies() {
    let bundle = PolicyBundle::compile(&shipped(), 7).unwrap();
    let facts = facts();
    let decision = bundle.decide(&facts, &hello(agent("a1"), "a2"));
    assert_eq!(decision.code(), Some("agent_id_mismatch"));
    assert_eq!(decision.generation, 7);
    let policy = &decision.policies[0];
    assert_eq!((policy.id.as_str(), policy.line), ("hello-own-id", 5));
    assert_eq!(policy.file, "shipped:guard-identity.cedar");

    let unscoped = Arc::new(agent("a1"));
    let decision = bundle.decide(&facts, &announce(&unscoped, "ldap", true));
    assert_eq!(decision.code(), Some("connector_not_in_scope"));
    let mut scoped = agent("a1");
    scoped.scopes = vec![crate::fixture::name("ldap")];
    assert!(
        bundle
            .decide(&facts, &announce(&Arc::new(scoped), "ldap", true))
            .allow
    );

    let mut unsure = open();
    unsure.signals.missing = vec!["geo".to_owned()];
    let decision = bundle.decide(&facts, &Question::Open(unsure));
    assert_eq!(decision.code(), Some("signal_missing"));
}

#[test]
fn what_the_guide_shows_is_right() {
    let guide = include_str!("../../../../docs/policy-guide.md");
    let policies: String = fenced(guide, "cedar").collect();
    let entities: Vec<_> = fenced(guide, "json")
        .filter(|text| text.contains("parents"))
        .collect();
    assert!(!policies.is_empty() && entities.len() == 1);
    let sources = Sources {
        policies: vec![SourceFile::new("policy-guide.md", policies)],
        entities: Some(SourceFile::new("policy-guide.md", entities[0])),
        ..Sources::default()
    };
    PolicyBundle::compile(&sources, 1).unwrap_or_else(|found| panic!("{found}"));
    for policy in PolicyBundle::compile(&shipped(), 1).unwrap().policies() {
        let Some(code) = &policy.error else { continue };
        assert!(
            guide.contains(&format!("`{}`", policy.id)),
            "no word of {}",
            policy.id
        );
        assert!(guide.contains(&format!("`{code}`")), "no word of {code}");
    }
}

#[test]
fn the_explanation_in_the_guide_is_a_real_one() {
    let guide = include_str!("../../../../docs/policy-guide.md");
    let shown = fenced(guide, "text")
        .find(|text| text.starts_with("denied:"))
        .unwrap();
    let mut sources = shipped();
    for file in &mut sources.policies {
        file.name = file.name.replace("shipped:", "policies/");
    }
    let bundle = PolicyBundle::compile(&sources, 0).unwrap();
    let cases = include_str!("../../../../policies/tests/open.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(cases).unwrap();
    let name = "a listener of one tenant, a connector of another";
    assert!(guide.contains(name));
    let case = cases.iter().find(|case| case["name"] == name).unwrap();
    assert_eq!(
        bundle.explain_json(&case.to_string()).unwrap().to_string(),
        shown
    );
}

fn fenced<'a>(text: &'a str, language: &'a str) -> impl Iterator<Item = &'a str> {
    let start = format!("{language}\n");
    text.split("```")
        .filter_map(move |block| block.strip_prefix(&start))
}
