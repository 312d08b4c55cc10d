//! Core versions, extensions and templates: what a set may be written in.

use std::path::Path;
use std::sync::Arc;

use nowconnect_policy::{
    Admin, AdminDeed, AdminTarget, BundleArchive, CoreVersion, Decision, Folder, ManifestFacts,
    Name, OperatorFacts, PolicyBundle, Question, ReasonKind, SourceFile, Sources, parse_time,
};

use crate::fixture::{self, facts, meta, name, net, sources};

/// Right as long as every deed on something that is no agent and no endpoint is on something
/// signed. The second core also has deeds on the hub itself.
const ONLY_V1: &str = r#"
@id("writes-on-what-is-signed")
permit (
  principal in NowConnect::Role::"admin",
  action in NowConnect::Action::"admin-write",
  resource
)
when { resource is NowConnect::Endpoint || resource is NowConnect::Agent || resource.signed };

@id("whoever-activates")
permit (
  principal in NowConnect::Role::"chief",
  action == NowConnect::Action::"admin-activate-policy",
  resource
);

@id("all-else") permit (principal, action in NowConnect::Action::"data-plane", resource);
@id("joining") permit (principal, action in NowConnect::Action::"agent-lifecycle", resource);
"#;

fn under(text: &str, core: CoreVersion) -> Sources {
    Sources {
        core: Some(core),
        ..sources(text)
    }
}

fn open(connector: &str) -> Question {
    Question::Open(nowconnect_policy::Open {
        connector: name(connector),
        ..fixture::open()
    })
}

fn deed(bundle: &PolicyBundle, role: &str, deed: AdminDeed) -> Decision {
    let question = Question::Admin(Admin {
        net: net("tunnel"),
        meta: meta(),
        operator: Arc::new(OperatorFacts {
            operator: Name::bare("ann"),
            roles: vec![role.into()],
            amr: Vec::new(),
            break_glass: false,
        }),
        deed,
        target: AdminTarget::Node("hub-1".into()),
    });
    bundle.decide(&facts(), &question)
}

#[test]
fn a_set_that_an_upgrade_would_break_goes_on_in_the_shapes_it_was_written_for() {
    let refused = PolicyBundle::compile(&under(ONLY_V1, CoreVersion::V2), 1).unwrap_err();
    assert!(refused.to_string().contains("signed"), "{refused}");
    let stated = PolicyBundle::compile(&under(ONLY_V1, CoreVersion::V1), 1).unwrap();
    let found = PolicyBundle::compile(&sources(ONLY_V1), 1).unwrap();
    for bundle in [&stated, &found] {
        assert_eq!(bundle.core(), CoreVersion::V1);
        let decision = bundle.decide(&facts(), &open("ldap"));
        assert_eq!(decision.kind, ReasonKind::Permitted, "{decision:?}");
        // The first core has no word for it, so the right to activate stands for it.
        for (role, allowed) in [("chief", true), ("viewer", false)] {
            let decision = deed(bundle, role, AdminDeed::Drain);
            assert_eq!(decision.allow, allowed, "{decision:?}");
        }
    }
    assert_eq!(stated.warnings(), []);
    let warning = found.warnings().first().unwrap().to_string();
    assert!(warning.contains("core schema 1"), "{warning}");
}

#[test]
fn a_set_that_says_nothing_is_taken_in_the_newest_core() {
    let text = r#"
        @id("drains") permit (principal in NowConnect::Role::"porter",
            action == NowConnect::Action::"admin-drain", resource);
        @id("new-flows") permit (principal, action == NowConnect::Action::"open", resource);
        @id("frozen") @error("maintenance") forbid (principal,
            action == NowConnect::Action::"open", resource)
        unless { context.meta has recheck && context.meta.recheck };"#;
    let bundle = PolicyBundle::compile(&sources(text), 1).unwrap();
    assert_eq!(bundle.core(), CoreVersion::CURRENT);
    assert!(deed(&bundle, "porter", AdminDeed::Drain).allow);
    assert!(!deed(&bundle, "porter", AdminDeed::Reload).allow);
    let mut question = open("ldap");
    assert!(!bundle.decide(&facts(), &question).allow, "no new flow");
    if let Question::Open(open) = &mut question {
        open.meta.recheck = true;
    }
    assert!(
        bundle.decide(&facts(), &question).allow,
        "running ones go on"
    );
    assert!(PolicyBundle::compile(&under(text, CoreVersion::V1), 1).is_err());
}

const SITES: &str = r#"
@annotations("owner, ticket")
namespace Acme {
  @holds("Connector, Agent")
  entity Site enum ["berlin", "oslo"];
}"#;

const IN_BERLIN: &str = r#"
    @id("berlin") @owner("network team")
    permit (principal, action == NowConnect::Action::"open", resource in Acme::Site::"berlin");
    @id("joining") permit (principal, action in NowConnect::Action::"agent-lifecycle", resource);"#;

fn with_sites(schema: &str, site: &str) -> Sources {
    Sources {
        extension: Some(SourceFile::new("schema.cedarschema", schema)),
        entities: Some(SourceFile::new(
            "entities.json",
            format!(
                r#"[{{"uid": {{"type": "NowConnect::Connector", "id": "ldap"}},
                     "parents": [{{"type": "Acme::Site", "id": "{site}"}}]}}]"#
            ),
        )),
        ..sources(IN_BERLIN)
    }
}

#[test]
fn an_extension_brings_groups_with_names_that_are_checked() {
    let bundle = PolicyBundle::compile(&with_sites(SITES, "berlin"), 1)
        .unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(bundle.warnings(), [], "@owner is known");
    assert!(bundle.decide(&facts(), &open("ldap")).allow);
    assert!(!bundle.decide(&facts(), &open("acme/ldap")).allow);
    let refused = PolicyBundle::compile(&with_sites(SITES, "Berlin"), 1).unwrap_err();
    assert!(
        refused.to_string().contains("none of the entities"),
        "{refused}"
    );
    let mut misspelt = with_sites(SITES, "berlin");
    misspelt.policies[0].text = IN_BERLIN.replace("Site::\"berlin\"", "Site::\"berln\"");
    let refused = PolicyBundle::compile(&misspelt, 1).unwrap_err();
    assert!(refused.to_string().contains("berln"), "{refused}");
}

#[test]
fn an_extension_changes_nothing_of_ours() {
    for (schema, problem) in [
        ("namespace NowConnect { entity Mine; }", "is the hub's"),
        (
            "namespace NowConnect::Mine { entity Mine; }",
            "is the hub's",
        ),
        ("entity Mine;", "no namespace"),
        (
            "namespace A { entity B; action \"c\" appliesTo { principal: B, resource: B }; }",
            "has actions",
        ),
        ("namespace A { entity B = { \"c\": Long }; }", "attributes"),
        ("namespace A { entity B tags String; }", "attributes"),
        (
            "namespace A { @holds(\"Tenant\") entity B; }",
            "it can hold",
        ),
        (
            "namespace A { entity B in [NowConnect::Tenant]; }",
            "only in a Group",
        ),
        ("namespace A {", "error"),
    ] {
        let refused = PolicyBundle::compile(&with_sites(schema, "berlin"), 1).unwrap_err();
        assert!(refused.to_string().contains(problem), "{schema}: {refused}");
    }
}

#[test]
fn a_folder_says_what_it_was_written_for_by_the_schema_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.cedar", ONLY_V1);
    let read = || Sources::from_dir(dir.path());
    assert_eq!(read().unwrap().core, None);
    for version in CoreVersion::SERVED {
        write(
            "schema.cedarschema",
            &format!("// ours\n{}", version.text()),
        );
        let sources = read().unwrap();
        assert_eq!((sources.core, sources.extension), (Some(version), None));
    }
    write("schema.cedarschema", SITES);
    assert!(read().unwrap().extension.is_some());
    let bent = CoreVersion::V1.text().replace("port: Long", "port: String");
    write("schema.cedarschema", &bent);
    let refused = read().unwrap_err().to_string();
    assert!(refused.contains("changes the core schema"), "{refused}");
}

#[test]
fn links_make_policies_of_templates_in_a_folder_and_in_what_is_built_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "grant.cedar",
        "@id(\"grant\")\npermit (principal in ?principal, action == NowConnect::Action::\"open\",\n\
         resource == ?resource);\n@id(\"joining\") permit (principal, action in \
         NowConnect::Action::\"agent-lifecycle\", resource);\n",
    );
    write(
        "links.json",
        r#"[{"template_id": "grant", "link_id": "grant-staff-ldap", "args": {
              "?principal": "NowConnect::Group::\"staff\"",
              "?resource": "NowConnect::Connector::\"ldap\""}}]"#,
    );
    let folder = Folder::read(dir.path()).unwrap();
    let bundle =
        PolicyBundle::compile(&folder.sources, 1).unwrap_or_else(|found| panic!("{found}"));
    let ids = |bundle: &PolicyBundle| -> Vec<(String, usize)> {
        bundle
            .policies()
            .filter(|policy| !policy.file.starts_with("shipped:"))
            .map(|policy| (policy.id.clone(), policy.line))
            .collect()
    };
    let expected = [
        ("joining".to_owned(), 4),
        ("grant-staff-ldap".to_owned(), 2),
    ];
    assert_eq!(ids(&bundle), expected);
    let built = folder
        .build(ManifestFacts {
            revision: 1,
            created: parse_time("2026-11-21T00:00:00Z").unwrap(),
            not_after: None,
            min_hub: None,
        })
        .unwrap();
    let built = BundleArchive::from_tar(&built.to_tar().unwrap()).unwrap();
    assert_eq!(ids(&built.compile(1).unwrap()), expected);
    let paths: Vec<_> = built.manifest().files.keys().map(Path::new).collect();
    assert!(
        paths.contains(&Path::new("policies/links.expanded.cedar")),
        "{paths:?}"
    );
    write("links.json", r#"[{"template_id": "gone", "link_id": "x"}]"#);
    let refused = Folder::read(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("links.json`: link `x`"), "{refused}");
    std::fs::remove_file(dir.path().join("links.json")).unwrap();
    let unlinked = Sources::from_dir(dir.path()).unwrap();
    let refused = PolicyBundle::compile(&unlinked, 1).unwrap_err().to_string();
    assert!(refused.contains("nothing links"), "{refused}");
}
