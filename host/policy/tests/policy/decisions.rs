//! What a decision says.

use std::sync::Arc;

use nowconnect_policy::{
    Admin, AdminDeed, AdminTarget, EndpointCreate, EndpointFacts, MeshForward, MeshJoin, Name,
    OperatorFacts, PolicyBundle, Question, ReasonKind, SourceFile, Tls, UpstreamOpen, Viewer,
    shipped,
};

use crate::fixture::{
    agent, announce, bundle, facts, hello, http_request, meta, name, net, open, sources, viewer,
};

const PERMIT_OPEN: &str = r#"
@id("yes")
permit (principal, action == NowConnect::Action::"open", resource);
"#;

#[test]
fn an_error_turns_an_allow_into_a_denial() {
    // Adding to the largest integer is the one error that strict validation cannot exclude.
    let bundle = bundle(&format!(
        r#"{PERMIT_OPEN}
        @id("overflow")
        forbid (principal, action == NowConnect::Action::"open", resource)
        when {{ context.openFlows + 9223372036854775807 == 7 }};"#
    ));
    let facts = facts();
    let decision = bundle.decide(&facts, &Question::Open(open()));
    assert_eq!((decision.allow, decision.kind), (false, ReasonKind::Error));
    assert_eq!(decision.code(), Some("policy_error"));
    assert!(
        decision.errors[0].contains("overflow"),
        "{:?}",
        decision.errors
    );
    assert_eq!(decision.policies[0].id, "yes");

    let mut idle = open();
    idle.open_flows = 0;
    assert!(bundle.decide(&facts, &Question::Open(idle)).allow);
}

#[test]
fn a_forbid_wins_over_a_failing_policy() {
    let bundle = bundle(&format!(
        r#"{PERMIT_OPEN}
        @id("overflow")
        permit (principal, action == NowConnect::Action::"open", resource)
        when {{ context.openFlows + 9223372036854775807 == 7 }};
        @id("no") @error("closed_today")
        forbid (principal, action == NowConnect::Action::"open", resource);"#
    ));
    let decision = bundle.decide(&facts(), &Question::Open(open()));
    assert_eq!(decision.kind, ReasonKind::Forbidden);
    assert_eq!(decision.code(), Some("closed_today"));
    assert_eq!(decision.errors.len(), 1);
}

#[test]
fn not_permitted_is_not_forbidden() {
    let decision = bundle(r#"@id("x") permit (principal, action, resource) when { false };"#)
        .decide(&facts(), &Question::Open(open()));
    assert_eq!(decision.kind, ReasonKind::NotPermitted);
    assert_eq!(decision.code(), Some("not_permitted"));
    assert_eq!(decision.policies, []);
}

#[test]
fn the_deciding_policies_are_sorted_and_the_first_code_counts() {
    let bundle = bundle(
        r#"@id("z") @error("last") forbid (principal, action, resource);
           @id("m") @advice("ask") forbid (principal, action, resource);
           @id("n") @error("first") forbid (principal, action, resource);"#,
    );
    let decision = bundle.decide(&facts(), &Question::Open(open()));
    let ids: Vec<_> = decision
        .policies
        .iter()
        .map(|policy| policy.id.as_str())
        .collect();
    assert_eq!(ids, ["m", "n", "z"]);
    assert_eq!(decision.code(), Some("first"));
    assert_eq!(decision.advice(), Some("ask"));
    assert_eq!(decision.policies[1].line, 3);
}

#[test]
fn a_fact_that_is_missing_denies_and_is_named() {
    let bundle = bundle(PERMIT_OPEN);
    let facts = facts();
    for (take_away, said) in [
        (0, "connector `ldap` is not known"),
        (1, "agent `a1` is not known"),
        (2, "listener `ldap-port` is not known"),
    ] {
        let facts_without = crate::fixture::facts();
        match take_away {
            0 => facts_without.remove_connector(&name("ldap")),
            1 => facts_without.remove_agent(&name("a1")),
            _ => facts_without.remove_listener(&name("ldap-port")),
        }
        let decision = bundle.decide(&facts_without, &Question::Open(open()));
        assert_eq!((decision.allow, decision.kind), (false, ReasonKind::Error));
        assert!(decision.errors[0].contains(said), "{:?}", decision.errors);
    }
    assert!(bundle.decide(&facts, &Question::Open(open())).allow);
}

#[test]
fn a_change_of_facts_counts_at_once() {
    let bundle = bundle(
        r#"@id("prod") permit (principal, action == NowConnect::Action::"open", resource)
           when { context.agent in NowConnect::Group::"prod" };"#,
    );
    let facts = facts();
    assert!(!bundle.decide(&facts, &Question::Open(open())).allow);
    let mut promoted = agent("a1");
    promoted.groups = vec!["prod".into()];
    facts.put_agent(&promoted);
    assert!(bundle.decide(&facts, &Question::Open(open())).allow);
    facts.put_agent(&agent("a1"));
    assert!(!bundle.decide(&facts, &Question::Open(open())).allow);
}

#[test]
fn groups_of_a_bundle_count_for_its_own_decisions_only() {
    let text = r#"@id("jewels") permit (principal, action == NowConnect::Action::"open",
                  resource in NowConnect::Group::"crown-jewels")
                  when { resource.hasTag("owner") && resource.getTag("owner") == "it" };"#;
    let mut with_groups = sources(text);
    with_groups.entities = Some(SourceFile::new(
        "entities.json",
        r#"[{"uid": {"type": "NowConnect::Group", "id": "directory"},
             "parents": [{"type": "NowConnect::Group", "id": "crown-jewels"}]},
            {"uid": {"type": "NowConnect::Connector", "id": "ldap"}, "tags": {"owner": "it"}}]"#,
    ));
    let with_groups = PolicyBundle::compile(&with_groups, 2).unwrap();
    let facts = facts();
    for _ in 0..2 {
        assert!(with_groups.decide(&facts, &Question::Open(open())).allow);
        assert!(!bundle(text).decide(&facts, &Question::Open(open())).allow);
    }
}

#[test]
fn a_viewer_brings_its_own_facts() {
    let bundle = bundle(
        r#"@id("staff") permit (principal in NowConnect::Group::"staff",
             action == NowConnect::Action::"open", resource)
           when { principal.authenticated && principal has email
                  && principal.email like "*@example.org"
                  && principal.hasTag("department") && principal.getTag("department") == "it" };"#,
    );
    let mut open = open();
    assert!(!bundle.decide(&facts(), &Question::Open(open.clone())).allow);
    open.viewer = viewer("alice");
    assert!(bundle.decide(&facts(), &Question::Open(open)).allow);
}

/// Another tenant's issuer may call a group what it likes.
#[test]
fn a_group_is_of_the_tenant_of_who_is_in_it() {
    let permits = |group: &str, viewer: Name, named: &str| {
        let bundle = bundle(&format!(
            "@id(\"ops\") permit (principal in NowConnect::Group::\"{group}\", \
             action == NowConnect::Action::\"open\", resource);"
        ));
        let mut open = open();
        let Viewer::Known(mut facts) = self::viewer("ann") else {
            unreachable!("it is known");
        };
        let of_tenant = Arc::make_mut(&mut facts);
        of_tenant.viewer = viewer;
        of_tenant.groups = vec![named.into()];
        open.viewer = Viewer::Known(facts);
        bundle.decide(&self::facts(), &Question::Open(open)).allow
    };
    let (default, acme) = (Name::bare("ann"), Name::new("acme", "ann"));
    assert!(permits("ops", default.clone(), "ops"));
    assert!(!permits("ops", acme.clone(), "ops"));
    assert!(permits("acme/ops", acme, "ops"));
    assert!(!permits("acme/ops", default.clone(), "acme/ops"));
    assert!(permits("acme%2Fops", default, "acme/ops"));
}

#[test]
fn a_subject_called_anonymous_is_not_the_anonymous_viewer() {
    let bundle = bundle(
        r#"@id("only-anonymous") permit (principal == NowConnect::Viewer::"anonymous",
             action == NowConnect::Action::"open", resource);"#,
    );
    let mut open = open();
    assert!(bundle.decide(&facts(), &Question::Open(open.clone())).allow);
    open.viewer = viewer("anonymous");
    assert!(!bundle.decide(&facts(), &Question::Open(open)).allow);
}

#[test]
fn addresses_of_both_families_can_be_matched() {
    let bundle = bundle(
        r#"@id("inside") permit (principal, action == NowConnect::Action::"open", resource)
           when { context.net.srcIp.isInRange(ip("192.0.2.0/24"))
                  || context.net.srcIp.isInRange(ip("2001:db8::/32")) };"#,
    );
    for (address, allowed) in [
        ("192.0.2.9", true),
        ("::ffff:192.0.2.9", true),
        ("2001:db8::9", true),
        ("::192.0.2.9", false),
        ("198.51.100.1", false),
        ("::1", false),
    ] {
        let mut open = open();
        open.net.source_ip = address.parse().unwrap();
        let decision = bundle.decide(&facts(), &Question::Open(open));
        assert_eq!(
            (decision.allow, decision.errors.len()),
            (allowed, 0),
            "{address}"
        );
    }
}

/// Debug builds check every request against the schema, so each kind must pass that once with
/// all its optional parts.
#[test]
fn every_kind_of_question_can_be_asked() {
    let bundle = PolicyBundle::compile(&shipped(), 1).unwrap();
    let facts = facts();
    for question in every_question() {
        let decision = bundle.decide(&facts, &question);
        assert!(decision.errors.is_empty(), "{question:?}: {decision:?}");
        assert!(decision.allow, "{question:?}: {decision:?}");
    }
}

#[test]
fn a_question_survives_being_written_down() {
    for question in every_question() {
        let json = serde_json::to_string(&question).unwrap();
        assert_eq!(serde_json::from_str::<Question>(&json).unwrap(), question);
    }
}

#[test]
fn the_questions_of_one_hello_are_answered_in_order() {
    let bundle = PolicyBundle::compile(&shipped(), 1).unwrap();
    let agent = Arc::new(agent("a1"));
    let questions = [
        announce(&agent, "ldap", false),
        announce(&agent, "acme/ldap", false),
        announce(&agent, "ssh", false),
    ];
    let decisions = bundle.decide_all(&facts(), &questions);
    let allowed: Vec<bool> = decisions.iter().map(|decision| decision.allow).collect();
    assert_eq!(allowed, [true, false, true]);
}

fn every_question() -> Vec<Question> {
    let agent = Arc::new(agent("a1"));
    let mut full = open();
    full.net.tls = Some(Tls {
        version: "TLSv1.3".to_owned(),
        sni: Some("ldap.example.org".to_owned()),
        client_san: Some("client.example.org".to_owned()),
    });
    full.meta.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".into());
    full.viewer = viewer("alice");
    full.signals.present = vec!["geo/DE".to_owned()];
    let mut questions = vec![
        hello(crate::fixture::agent("a1"), "a1"),
        announce(&agent, "ldap", false),
        Question::Open(full),
        http_request(viewer("alice")),
        Question::EndpointCreate(EndpointCreate {
            net: net("tunnel"),
            meta: meta(),
            agent,
            endpoint: EndpointFacts {
                endpoint: name("new"),
                owner: name("a1"),
                host: "new.example.org".to_owned(),
                reserved: true,
                public: true,
                tags: vec![
                    ("a".to_owned(), "1".to_owned()),
                    ("a".to_owned(), "2".to_owned()),
                ],
            },
            open_endpoints: 3,
        }),
        Question::UpstreamOpen(UpstreamOpen {
            meta: meta(),
            connector: name("ldap"),
            agent: name("a1"),
            why: "pool".to_owned(),
        }),
        Question::MeshJoin(MeshJoin {
            net: net("tunnel"),
            meta: meta(),
            peer: "hub-2".into(),
        }),
        mesh_forward("hub-2", "hub-1"),
        mesh_forward("hub-2", "hub-2"),
    ];
    questions.extend(every_admin_question());
    questions
}

fn mesh_forward(origin: &str, epoch_replica: &str) -> Question {
    Question::MeshForward(MeshForward {
        net: net("ldap-port"),
        meta: meta(),
        origin: origin.into(),
        connector: name("ldap"),
        agent: name("a1"),
        epoch_counter: u64::MAX,
        epoch_replica: epoch_replica.into(),
        viewer: Viewer::Anonymous,
        origin_generation: 3,
        signals: nowconnect_policy::Signals::default(),
    })
}

fn every_admin_question() -> Vec<Question> {
    let plugin = AdminTarget::Plugin {
        plugin: name("geo"),
        digest: "00".to_owned(),
        signed: true,
    };
    let policies = AdminTarget::PolicyBundle {
        bundle: name("hub"),
        revision: 3,
        signed: false,
    };
    [
        (AdminDeed::Status, AdminTarget::Node("hub-1".into())),
        (AdminDeed::Explain, AdminTarget::Connector(name("ldap"))),
        (AdminDeed::ListEndpoints, AdminTarget::Endpoint(name("app"))),
        (AdminDeed::CloseEndpoint, AdminTarget::Endpoint(name("app"))),
        (AdminDeed::KickAgent, AdminTarget::Agent(name("a1"))),
        (AdminDeed::StagePolicy, policies.clone()),
        (AdminDeed::ActivatePolicy, policies.clone()),
        (AdminDeed::RollbackPolicy, policies),
        (AdminDeed::LoadPlugin, plugin.clone()),
        (AdminDeed::DisablePlugin, plugin),
    ]
    .into_iter()
    .map(|(deed, target)| {
        Question::Admin(Admin {
            net: net("tunnel"),
            meta: meta(),
            operator: Arc::new(OperatorFacts {
                operator: name("carol"),
                roles: vec!["viewer".into()],
                amr: vec!["local-socket".to_owned()],
                break_glass: false,
            }),
            deed,
            target,
        })
    })
    .collect()
}
