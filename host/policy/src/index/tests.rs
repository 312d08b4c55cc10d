//! The index must answer as the whole set does.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use crate::request::{Asked, Shared};
use crate::scene::Scene;
use crate::{
    AgentFacts, Announce, ConnectorFacts, Facts, ListenerFacts, Meta, Name, Net, Open,
    PolicyBundle, Question, Signals, SourceFile, Sources, Viewer, ViewerFacts,
};

const CONNECTORS: [&str; 4] = ["c0", "c1", "c2", "acme/c0"];
const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
const AGENTS: [&str; 3] = ["a0", "a1", "acme/a0"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn the_index_answers_as_the_whole_set_does(
        policies in prop::collection::vec(policy(), 0..24),
        with_groups in any::<bool>(),
        placed in prop::collection::vec(prop::collection::vec(0..GROUPS.len(), 0..3), 4),
        questions in prop::collection::vec(question(), 1..12),
    ) {
        let bundle = PolicyBundle::compile(&sources(&policies, with_groups), 1)
            .map_err(|problems| TestCaseError::fail(problems.to_string()))?;
        let whole = bundle.index.whole();
        let facts = facts(&placed);
        // Twice, so that kept sets are used too.
        for question in questions.iter().chain(&questions) {
            let asked =
                Asked::new(question, &facts, bundle.kit(false), &mut Shared::default()).unwrap();
            let scene = Scene::from(&asked);
            let response = bundle.authorizer.is_authorized(scene.request, &whole, scene.entities);
            prop_assert_eq!(bundle.answer(&scene), bundle.decision(&response));
            let all =
                Asked::new(question, &facts, bundle.kit(true), &mut Shared::default()).unwrap();
            prop_assert_eq!(bundle.answer(&scene), bundle.answer(&Scene::from(&all)));
        }
    }
}

#[test]
fn a_request_is_put_to_few_of_many_policies() {
    let policies: Vec<String> = (0..500)
        .map(|number| {
            format!(
                r#"permit (principal, action == NowConnect::Action::"open",
                           resource == NowConnect::Connector::"c{number}");"#
            )
        })
        .collect();
    let bundle = PolicyBundle::compile(&sources(&policies, false), 1).unwrap();
    let facts = facts(&[]);
    let question = Question::Open(open("c1", "a0", Viewer::Anonymous, 0));
    let asked = Asked::new(&question, &facts, bundle.kit(false), &mut Shared::default()).unwrap();
    let scene = Scene::from(&asked);
    let set = bundle
        .index
        .select(scene.action, scene.principal, scene.resource)
        .unwrap();
    // The one permit and the guards of `open`.
    assert!(set.num_of_policies() <= 3, "{}", set.num_of_policies());
    assert!(bundle.answer(&scene).allow);
}

fn policy() -> impl Strategy<Value = String> {
    let principal = prop_oneof![
        Just("principal".to_owned()),
        Just("principal is NowConnect::Viewer".to_owned()),
        Just("principal is NowConnect::Agent".to_owned()),
        Just("principal == NowConnect::Viewer::\"anonymous\"".to_owned()),
        (0..GROUPS.len()).prop_map(|g| format!("principal in NowConnect::Group::\"g{g}\"")),
        (0..GROUPS.len()).prop_map(|g| format!(
            "principal is NowConnect::Viewer in NowConnect::Group::\"g{g}\""
        )),
        (0..AGENTS.len())
            .prop_map(|a| format!("principal == NowConnect::Agent::\"{}\"", AGENTS[a])),
        Just("principal in NowConnect::Tenant::\"acme\"".to_owned()),
    ];
    let action = prop_oneof![
        Just("action"),
        Just("action == NowConnect::Action::\"open\""),
        Just("action == NowConnect::Action::\"announce\""),
        Just("action in NowConnect::Action::\"data-plane\""),
        Just("action in [NowConnect::Action::\"announce\", NowConnect::Action::\"data-plane\"]"),
    ];
    let resource = prop_oneof![
        Just("resource".to_owned()),
        Just("resource is NowConnect::Connector".to_owned()),
        (0..CONNECTORS.len())
            .prop_map(|c| format!("resource == NowConnect::Connector::\"{}\"", CONNECTORS[c])),
        (0..CONNECTORS.len())
            .prop_map(|c| format!("resource in NowConnect::Connector::\"{}\"", CONNECTORS[c])),
        (0..GROUPS.len()).prop_map(|g| format!("resource in NowConnect::Group::\"g{g}\"")),
        (0..GROUPS.len()).prop_map(|g| format!(
            "resource is NowConnect::Connector in NowConnect::Group::\"g{g}\""
        )),
        Just("resource in NowConnect::Tenant::\"default\"".to_owned()),
    ];
    let condition = prop_oneof![
        3 => Just(""),
        1 => Just("when { context has net && context.net.srcPort < 30000 }"),
        1 => Just(r#"when { context["m\u{65}ta"].requestId like "r*" }"#),
        1 => Just("when { context.meta.requestId like \"r*\" }"),
        1 => Just("when { context has openFlows && context.openFlows == 0 }"),
        1 => Just("when { context has \"scopes\\u{52}equired\" && context.scopesRequired }"),
        1 => Just("when { context has agent && context.agent == principal || context has viaMesh }"),
        // Fails for every port but 0: a policy that must not be asked must not fail either.
        1 => Just("when { context has net && context.net.srcPort + 9223372036854775807 > 5 }"),
    ];
    let effect = prop_oneof![3 => Just("permit"), 1 => Just("forbid")];
    (effect, principal, action, resource, condition)
        .prop_map(|(effect, p, a, r, c)| format!("{effect} ({p}, {a}, {r}) {c};"))
}

fn question() -> impl Strategy<Value = Question> {
    let viewer = prop_oneof![
        Just(Viewer::Anonymous),
        prop::collection::vec(0..GROUPS.len(), 0..3).prop_map(viewer),
    ];
    let port = prop_oneof![Just(0), Just(20_000), Just(40_000)];
    let opens = (0..CONNECTORS.len(), 0..AGENTS.len(), viewer, port.clone()).prop_map(
        |(connector, agent, viewer, port)| {
            Question::Open(open(CONNECTORS[connector], AGENTS[agent], viewer, port))
        },
    );
    let announces = (0..CONNECTORS.len(), 0..AGENTS.len(), port, any::<bool>()).prop_map(
        |(connector, agent, port, scopes_required)| {
            Question::Announce(Announce {
                net: net(port),
                meta: meta(),
                agent: Arc::new(agent_facts(AGENTS[agent], vec!["g1".into()])),
                connector: Name::from_text(CONNECTORS[connector]),
                scopes_required,
            })
        },
    );
    prop_oneof![2 => opens, 1 => announces]
}

fn sources(policies: &[String], with_groups: bool) -> Sources {
    let text: String = policies
        .iter()
        .enumerate()
        .map(|(number, policy)| format!("@id(\"p{number}\")\n{policy}\n"))
        .collect();
    let entities = r#"[
        {"uid": {"type": "NowConnect::Group", "id": "g1"},
         "parents": [{"type": "NowConnect::Group", "id": "g2"}]},
        {"uid": {"type": "NowConnect::Connector", "id": "c2"},
         "parents": [{"type": "NowConnect::Group", "id": "g1"}]}]"#;
    Sources {
        policies: vec![SourceFile::new("random.cedar", text)],
        entities: with_groups.then(|| SourceFile::new("entities.json", entities)),
        ..Sources::default()
    }
}

fn facts(placed: &[Vec<usize>]) -> Facts {
    let facts = Facts::new();
    for (position, connector) in CONNECTORS.iter().enumerate() {
        let groups = placed.get(position).cloned().unwrap_or_default();
        facts.put_connector(&ConnectorFacts {
            groups: groups.into_iter().map(|g| GROUPS[g].into()).collect(),
            ..ConnectorFacts::tcp(Name::from_text(connector))
        });
    }
    for agent in AGENTS {
        facts.put_agent(&agent_facts(agent, Vec::new()));
    }
    facts.put_listener(&ListenerFacts {
        listener: Name::bare("l"),
        port: 1,
        protocol: "tcp".to_owned(),
    });
    facts
}

fn agent_facts(name: &str, groups: Vec<Arc<str>>) -> AgentFacts {
    AgentFacts {
        agent: Name::from_text(name),
        scopes: Vec::new(),
        ephemeral: false,
        token_expires_ms: 1,
        groups,
        tags: Vec::new(),
    }
}

fn viewer(groups: Vec<usize>) -> Viewer {
    Viewer::Known(Arc::new(ViewerFacts {
        viewer: Name::bare("alice"),
        issuer: None,
        email: None,
        email_verified: None,
        amr: Vec::new(),
        auth_time_ms: None,
        groups: groups.into_iter().map(|g| GROUPS[g].into()).collect(),
        tags: Vec::new(),
    }))
}

fn net(source_port: u16) -> Net {
    Net {
        source_ip: IpAddr::from([192, 0, 2, 7]),
        source_port,
        listener: Name::bare("l"),
        tls: None,
    }
}

fn meta() -> Meta {
    Meta {
        now_ms: 0,
        hub: "hub-1".into(),
        request_id: "r-1".into(),
        trace_id: None,
        recheck: false,
    }
}

fn open(connector: &str, agent: &str, viewer: Viewer, port: u16) -> Open {
    Open {
        net: net(port),
        meta: meta(),
        viewer,
        connector: Name::from_text(connector),
        agent: Name::from_text(agent),
        open_flows: 0,
        via_mesh: false,
        signals: Signals::default(),
    }
}
