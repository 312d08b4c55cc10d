//! Policies of tenants beside each other.

use nowconnect_policy::{
    AgentFacts, Decision, Facts, Hello, ListenerFacts, Meta, Name, Net, Open, PolicyBundle,
    Question, ReasonKind, Signals, SourceFile, Sources, Viewer,
};

const HUB: &str = r#"
@id("hello") permit (principal, action == NowConnect::Action::"hello", resource);
@id("announce") permit (principal, action == NowConnect::Action::"announce", resource);
@id("never-secret") @error("secret")
forbid (principal, action == NowConnect::Action::"open", resource)
when { resource.hasTag("class") && resource.getTag("class") == "secret" };
"#;

const ANYBODY: &str = r#"
@id("anybody") permit (principal, action == NowConnect::Action::"open", resource);
"#;

#[test]
fn a_tenants_permit_reaches_its_own_connectors_and_no_others() {
    let at = At::new(&[("hub.cedar", HUB), ("acme@open.cedar", ANYBODY)]);
    let decision = at.open("acme", "acme/edge");
    assert!(decision.allow, "{decision:?}");
    assert_eq!(decision.policies[0].id, "acme/anybody");
    for other in ["globex", "default"] {
        let decision = at.open(other, &agent_of(other));
        assert_eq!(decision.kind, ReasonKind::NotPermitted, "{other}");
    }
}

#[test]
fn a_tenants_forbid_shuts_nobody_else_out() {
    let shut = "@id(\"shut\") forbid (principal, action == NowConnect::Action::\"open\", resource);
                @id(\"no-agents\") forbid (principal is NowConnect::Agent,
                    action == NowConnect::Action::\"hello\", resource);";
    let at = At::new(&[
        ("hub.cedar", HUB),
        ("hub-open.cedar", ANYBODY),
        ("acme@shut.cedar", shut),
    ]);
    assert_eq!(at.open("acme", "acme/edge").kind, ReasonKind::Forbidden);
    assert!(at.open("globex", "globex/edge").allow);
    assert!(at.open("default", "edge").allow);
    assert_eq!(at.hello("acme").kind, ReasonKind::Forbidden);
    assert!(at.hello("globex").allow);
}

#[test]
fn what_the_hub_forbids_no_tenant_permits() {
    let at = At::new(&[("hub.cedar", HUB), ("acme@open.cedar", ANYBODY)]);
    let decision = at.open_connector("acme", "acme/edge", "vault");
    assert_eq!(decision.code(), Some("secret"));
    // Nor can it take the place of a guard, or of a policy of the hub, by using its id.
    let thief = "@id(\"never-secret\") permit (principal, action == NowConnect::Action::\"open\", resource);
                 @id(\"tenant-open\") permit (principal, action == NowConnect::Action::\"open\", resource);";
    let at = At::new(&[("hub.cedar", HUB), ("acme@open.cedar", thief)]);
    assert_eq!(
        at.open_connector("acme", "acme/edge", "vault").code(),
        Some("secret")
    );
    assert_eq!(
        at.open("acme", "globex/edge").code(),
        Some("tenant_mismatch")
    );
}

#[test]
fn a_tenants_policy_that_fails_denies_nobody_else() {
    // It overflows in every request that it is evaluated in.
    let fails =
        "@id(\"fails\") permit (principal, action == NowConnect::Action::\"open\", resource)
        when { context.net.srcPort + 9223372036854775807 > 0 };";
    let at = At::new(&[
        ("hub.cedar", HUB),
        ("hub-open.cedar", ANYBODY),
        ("acme@bad.cedar", fails),
    ]);
    assert_eq!(at.open("acme", "acme/edge").kind, ReasonKind::Error);
    let other = at.open("globex", "globex/edge");
    assert!(other.allow && other.errors.is_empty(), "{other:?}");
}

#[test]
fn tenants_do_not_see_each_other_in_an_explanation() {
    let with_value = |tenant: &str| {
        format!(
            "@id(\"code\") permit (principal, action == NowConnect::Action::\"open\", resource)
             when {{ context.net.srcPort == {} }};",
            if tenant == "acme" { 1 } else { 2 }
        )
    };
    let (acme, globex) = (with_value("acme"), with_value("globex"));
    let at = At::new(&[
        ("hub.cedar", HUB),
        ("acme@open.cedar", &acme),
        ("globex@open.cedar", &globex),
    ]);
    let explanation = at
        .bundle
        .explain(&at.facts, &at.question("acme", "acme/edge", "ldap"));
    let near: Vec<&str> = explanation
        .near_misses
        .iter()
        .map(|shown| shown.policy.id.as_str())
        .collect();
    assert_eq!(near, ["acme/code"]);
}

#[test]
fn what_is_not_a_tenants_to_say_is_refused_with_a_place() {
    for (text, part) in [
        (
            "@id(\"a\") permit (principal, action, resource);",
            "must name its action",
        ),
        (
            "@id(\"a\") permit (principal, action == NowConnect::Action::\"admin-status\", resource);",
            "not a tenant's to decide",
        ),
        (
            "@id(\"a\") permit (principal, action == NowConnect::Action::\"open\",
                resource == NowConnect::Connector::\"globex/ldap\");",
            "is not of tenant `acme`",
        ),
        (
            "@id(\"a\") permit (principal, action in [NowConnect::Action::\"hello\",
                NowConnect::Action::\"open\"], resource);",
            "different sides",
        ),
    ] {
        let problems = PolicyBundle::compile(&sources(&[("acme@x.cedar", text)]), 1).unwrap_err();
        let found = problems.0.iter().any(|found| {
            found.message.contains(part) && found.file == "acme@x.cedar" && found.line == 1
        });
        assert!(found, "{part}: {problems}");
    }
    let named = sources(&[("default@x.cedar", ANYBODY)]);
    assert!(PolicyBundle::compile(&named, 1).is_err());
}

#[test]
fn a_tenants_entities_put_its_own_into_groups_of_its_own() {
    let grouped = r#"[{"uid": {"type": "NowConnect::Connector", "id": "acme/ldap"},
        "parents": [{"type": "NowConnect::Group", "id": "acme/directory"}]}]"#;
    let hub = format!(
        "{HUB}
         @id(\"open-directory\") permit (principal, action == NowConnect::Action::\"open\",
           resource in NowConnect::Group::\"directory\");"
    );
    let own = "@id(\"own\") permit (principal, action == NowConnect::Action::\"open\",
                 resource in NowConnect::Group::\"acme/directory\");";
    let mut sources = sources(&[("hub.cedar", &hub), ("acme@own.cedar", own)]);
    sources.entities = Some(SourceFile::new(
        "entities.json",
        r#"[{"uid": {"type": "NowConnect::Connector", "id": "acme/ldap"},
             "tags": {"zone": "inner"}}]"#,
    ));
    let without = PolicyBundle::compile(&sources, 1).unwrap();
    sources.tenant_entities = vec![SourceFile::new("acme@entities.json", grouped)];
    let with = PolicyBundle::compile(&sources, 2).unwrap();
    assert_ne!(without.digest(), with.digest());
    let at = At::of(with);
    let decision = at.open("acme", "acme/edge");
    assert!(decision.allow, "{decision:?}");
    assert_eq!(decision.policies[0].id, "acme/own");
    assert!(!at.open("globex", "globex/edge").allow);
    assert!(!At::of(without).open("acme", "acme/edge").allow);
}

#[test]
fn a_tenants_entities_say_nothing_of_what_is_not_its_own() {
    let entry = |kind: &str, id: &str, more: &str| {
        format!(r#"[{{"uid": {{"type": "NowConnect::{kind}", "id": "{id}"}}{more}}}]"#)
    };
    let group =
        |id: &str| format!(r#", "parents": [{{"type": "NowConnect::Group", "id": "{id}"}}]"#);
    for (text, part) in [
        // Into a group of the hub, whose policies may let everybody in there.
        (
            entry("Connector", "acme/ldap", &group("public")),
            "`NowConnect::Group::\"public\"` is not of tenant `acme`",
        ),
        (
            entry("Connector", "globex/ldap", &group("acme/x")),
            "is not of tenant `acme`",
        ),
        (
            entry("Connector", "ldap", &group("acme/x")),
            "is not of tenant `acme`",
        ),
        (
            entry("Group", "acme/x", &group("globex/y")),
            "is not of tenant `acme`",
        ),
        (entry("Operator", "acme/x", ""), "is not of tenant `acme`"),
        // A label that a policy of the hub reads.
        (
            entry(
                "Connector",
                "acme/vault",
                r#", "tags": {"class": "public"}"#,
            ),
            "tag `class` is the hub's to give",
        ),
    ] {
        let mut sources = sources(&[("hub.cedar", HUB)]);
        sources.tenant_entities = vec![SourceFile::new("acme@entities.json", &text)];
        let problems = PolicyBundle::compile(&sources, 1).unwrap_err();
        let found = problems
            .0
            .iter()
            .any(|found| found.message.contains(part) && found.file == "acme@entities.json");
        assert!(found, "{part}: {problems}");
    }
    for name in ["default@entities.json", "@entities.json"] {
        let mut sources = sources(&[("hub.cedar", HUB)]);
        sources.tenant_entities = vec![SourceFile::new(name, "[]")];
        assert!(PolicyBundle::compile(&sources, 1).is_err(), "{name}");
    }
}

#[test]
fn a_tenants_entities_go_through_folder_and_archive() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hub.cedar"), HUB).unwrap();
    std::fs::write(dir.path().join("acme@entities.json"), "[]").unwrap();
    let folder = nowconnect_policy::Folder::read(dir.path()).unwrap();
    let archive = folder
        .build(nowconnect_policy::ManifestFacts {
            revision: 1,
            created: std::time::SystemTime::now(),
            not_after: None,
            min_hub: None,
        })
        .unwrap();
    assert!(archive.manifest().files.contains_key("acme@entities.json"));
    let sources = archive.sources().unwrap();
    assert_eq!(sources.tenant_entities[0].name, "acme@entities.json");
    assert_eq!(sources.entities, None);
    let mut without = sources.clone();
    without.tenant_entities.clear();
    let report = nowconnect_policy::Proof::of_change(&without, &sources)
        .unwrap()
        .report("", "");
    assert_eq!(report.changed_facts.len(), 1, "no proof covers them");
}

fn agent_of(tenant: &str) -> String {
    match tenant {
        "default" => "edge".to_owned(),
        tenant => format!("{tenant}/edge"),
    }
}

fn sources(files: &[(&str, &str)]) -> Sources {
    Sources {
        policies: files
            .iter()
            .map(|(name, text)| SourceFile::new(*name, *text))
            .collect(),
        ..Sources::default()
    }
}

struct At {
    bundle: PolicyBundle,
    facts: Facts,
}

impl At {
    fn new(files: &[(&str, &str)]) -> Self {
        let bundle = PolicyBundle::compile(&sources(files), 1);
        Self::of(bundle.unwrap_or_else(|problems| panic!("{problems}")))
    }

    fn of(bundle: PolicyBundle) -> Self {
        let facts = Facts::new();
        for name in ["front", "tunnel"] {
            facts.put_listener(&ListenerFacts {
                listener: Name::bare(name),
                port: 1,
                protocol: "tcp".to_owned(),
            });
        }
        for tenant in ["acme", "globex", "default"] {
            facts.put_agent(&agent(tenant));
            facts.ensure_connector(&Name::new(tenant, "ldap"));
            facts.put_connector(&nowconnect_policy::ConnectorFacts {
                tags: vec![("class".to_owned(), "secret".to_owned())],
                ..nowconnect_policy::ConnectorFacts::tcp(Name::new(tenant, "vault"))
            });
        }
        Self { bundle, facts }
    }

    fn open(&self, tenant: &str, agent: &str) -> Decision {
        self.open_connector(tenant, agent, "ldap")
    }

    fn open_connector(&self, tenant: &str, agent: &str, connector: &str) -> Decision {
        self.bundle
            .decide(&self.facts, &self.question(tenant, agent, connector))
    }

    fn question(&self, tenant: &str, agent: &str, connector: &str) -> Question {
        Question::Open(Open {
            net: net("front"),
            meta: meta(),
            viewer: Viewer::Anonymous,
            connector: Name::new(tenant, connector),
            agent: Name::from_text(agent),
            open_flows: 0,
            via_mesh: false,
            signals: Signals::default(),
        })
    }

    fn hello(&self, tenant: &str) -> Decision {
        let facts = std::sync::Arc::new(agent(tenant));
        let question = Question::Hello(Hello {
            net: net("tunnel"),
            meta: meta(),
            claimed: facts.agent.clone(),
            agent: facts,
            agent_version: "1".to_owned(),
            announced: Vec::new(),
            replacing: false,
        });
        self.bundle.decide(&self.facts, &question)
    }
}

fn agent(tenant: &str) -> AgentFacts {
    AgentFacts {
        agent: Name::new(tenant, "edge"),
        scopes: Vec::new(),
        ephemeral: false,
        token_expires_ms: 4_000_000_000_000,
        groups: Vec::new(),
        tags: Vec::new(),
    }
}

fn net(listener: &str) -> Net {
    Net {
        source_ip: "192.0.2.7".parse().unwrap(),
        source_port: 40_000,
        listener: Name::bare(listener),
        tls: None,
    }
}

fn meta() -> Meta {
    Meta {
        now_ms: 1_700_000_000_000,
        hub: "hub".into(),
        request_id: "r".into(),
        trace_id: None,
        recheck: false,
    }
}
