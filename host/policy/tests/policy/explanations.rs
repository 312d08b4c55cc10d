//! Why, and what would have turned it.

use nowconnect_policy::{PolicyBundle, Question, shipped};

use crate::fixture::{bundle, facts, name, open};

#[test]
fn a_near_miss_is_shown_with_what_it_saw() {
    let bundle = bundle(
        r#"@id("office-hours")
           permit (principal, action == NowConnect::Action::"open", resource in NowConnect::Group::"directory")
           when { context.net.srcIp.isInRange(ip("192.0.2.0/24")) && context.openFlows < 2 };
           @id("other")
           permit (principal, action == NowConnect::Action::"open", resource == NowConnect::Connector::"ssh");"#,
    );
    let explanation = bundle.explain(&facts(), &Question::Open(open()));
    assert!(!explanation.decision.allow);
    let miss = &explanation.near_misses[0];
    assert_eq!(miss.policy.id, "office-hours");
    assert_eq!(miss.conditions[0].holds, Some(true));
    assert_eq!(miss.conditions[1].holds, Some(false));
    assert_eq!(
        miss.conditions[1].values,
        [("context.openFlows".to_owned(), "3".to_owned())]
    );
    assert_eq!(explanation.out_of_scope[0].policy.id, "other");
    assert_eq!(
        explanation.out_of_scope[0].wants,
        [r#"resource == NowConnect::Connector::"ssh""#]
    );
    assert_eq!(
        explanation.turns,
        [
            "`office-hours` would permit it if `context.openFlows < 2` held (`context.openFlows` is 3)"
        ]
    );
    let text = explanation.to_string();
    for line in [
        "denied: not_permitted",
        "nearly permitted by",
        "permit `office-hours` at test.cedar:1",
        "fails       context.openFlows < 2",
        "context.net.srcIp = ",
    ] {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
}

#[test]
fn a_forbid_is_shown_with_what_turns_it() {
    let bundle = PolicyBundle::compile(&shipped(), 1).unwrap();
    let mut open = open();
    open.agent = name("acme/a1");
    let explanation = bundle.explain(&facts(), &Question::Open(open));
    assert_eq!(explanation.determining[0].policy.id, "tenant-open");
    let condition = &explanation.determining[0].conditions[0];
    assert_eq!(condition.text, "!(context.agent.tenant == resource.tenant)");
    assert_eq!(condition.holds, Some(true));
    assert_eq!(
        condition.values[0],
        (
            "context.agent.tenant".to_owned(),
            r#"NowConnect::Tenant::"acme""#.to_owned()
        )
    );
    assert_eq!(explanation.turns.len(), 1, "{:?}", explanation.turns);
    assert!(
        explanation.turns[0].starts_with(
            "`tenant-open` would not forbid it if `context.agent.tenant == resource.tenant` held"
        ),
        "{:?}",
        explanation.turns
    );
}

#[test]
fn behind_a_forbid_the_missing_permit_is_told_too() {
    let bundle = bundle(r#"@id("no") forbid (principal, action, resource);"#);
    let explanation = bundle.explain(&facts(), &Question::Open(open()));
    assert_eq!(
        explanation.turns,
        [
            "`no` forbids it without condition",
            "even without that no permit applies"
        ]
    );
}

#[test]
fn what_was_not_reached_is_not_an_error() {
    let bundle = bundle(
        r#"@id("mail") permit (principal, action == NowConnect::Action::"open", resource)
           when { principal has email && principal.email like "*@example.org" };"#,
    );
    let explanation = bundle.explain(&facts(), &Question::Open(open()));
    let conditions = &explanation.near_misses[0].conditions;
    assert_eq!(conditions[0].holds, Some(false));
    assert_eq!((conditions[1].holds, &conditions[1].error), (None, &None));
}

#[test]
fn a_membership_shows_the_groups() {
    let bundle = bundle(
        r#"@id("g") permit (principal, action == NowConnect::Action::"open", resource)
           when { resource in NowConnect::Group::"web" };"#,
    );
    let explanation = bundle.explain(&facts(), &Question::Open(open()));
    let (path, value) = &explanation.near_misses[0].conditions[0].values[0];
    assert_eq!(path, "resource");
    assert!(
        value.contains(r#"NowConnect::Group::"directory""#),
        "{value}"
    );
}

#[test]
fn an_error_is_shown_where_it_happened() {
    let bundle = bundle(
        r#"@id("yes") permit (principal, action, resource);
           @id("sum") forbid (principal, action == NowConnect::Action::"open", resource)
           when { context.openFlows + 9223372036854775807 == 7 };"#,
    );
    let explanation = bundle.explain(&facts(), &Question::Open(open()));
    assert_eq!(explanation.failing[0].policy.id, "sum");
    assert!(explanation.failing[0].conditions[0].error.is_some());
}

#[test]
fn a_missing_fact_is_the_explanation() {
    let bundle = bundle(r#"@id("yes") permit (principal, action, resource);"#);
    let mut open = open();
    open.connector = name("gone");
    let text = bundle.explain(&facts(), &Question::Open(open)).to_string();
    assert!(
        text.contains("connector `gone` is not known to this hub"),
        "{text}"
    );
}

#[test]
fn a_test_case_can_be_explained() {
    let bundle = PolicyBundle::compile(&shipped(), 1).unwrap();
    let cases = include_str!("../../../../policies/tests/guard-identity.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(cases).unwrap();
    let explanation = bundle.explain_json(&cases[1].to_string()).unwrap();
    assert_eq!(explanation.decision.code(), Some("agent_id_mismatch"));
    let mut bare = cases[1]["request"].clone();
    bare["entities"] = cases[1]["entities"].clone();
    assert_eq!(bundle.explain_json(&bare.to_string()).unwrap(), explanation);
    let error = bundle.explain_json("{}").unwrap_err();
    assert!(error.contains("`principal`"), "{error}");
}

#[test]
fn an_explanation_survives_being_sent() {
    let bundle = PolicyBundle::compile(&shipped(), 1).unwrap();
    let explanation = bundle.explain(&facts(), &Question::Open(open()));
    let json = serde_json::to_string(&explanation).unwrap();
    let back: nowconnect_policy::Explanation = serde_json::from_str(&json).unwrap();
    assert_eq!(back.to_string(), explanation.to_string());
}
