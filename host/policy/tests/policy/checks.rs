//! What is refused, and where the message points.

use nowconnect_policy::{Diagnostic, PolicyBundle, Severity, SourceFile, Sources};

use crate::fixture::{bundle, sources};

#[test]
fn every_problem_is_found_at_its_place() {
    for (text, place, said) in [
        ("permit (principal, action, resource);", (1, 1), "no `@id`"),
        (
            "@id(\"a\")\npermit (principal, action, resource);\n\n@id(\"a\")\nforbid (principal, action, resource);",
            (4, 1),
            "`@id(\"a\")` is taken by test.cedar:1:1",
        ),
        (
            "@id(\"a\")\npermit (principal, action, resource)\nwhen { context.nothing };",
            (3, 8),
            "`nothing`",
        ),
        (
            "@id(\"a\")\npermit (principal, action, resource)\nwhen {",
            (3, 7),
            "unexpected end",
        ),
        (
            "@id(\"a\")\npermit (principal == ?principal, action, resource);",
            (1, 1),
            "template",
        ),
        (
            "// ok\n@id(\"a\") @error(\"Not A Code\")\nforbid (principal, action, resource);",
            (2, 1),
            "is not a code",
        ),
        (
            "@id(\"a\")\npermit (principal, action == NowConnect::Action::\"opne\", resource);",
            (2, 30),
            "opne",
        ),
        (
            "@id(\"a\")\npermit (principal is NowConnect::Agent, action, resource is NowConnect::Endpoint)\nwhen { resource.owner.ephemeral };",
            (3, 8),
            "level",
        ),
    ] {
        let found = refused(text);
        assert!(
            found
                .iter()
                .any(|d| d.message.contains(said) && (d.line, d.column) == place),
            "`{said}` at {place:?} is not among {found:#?}"
        );
    }
}

#[test]
fn all_problems_of_all_files_come_at_once() {
    let sources = Sources {
        policies: vec![
            SourceFile::new("one.cedar", "permit (principal, action, resource);"),
            SourceFile::new("two.cedar", "@id(\"x\") permit (principal,"),
            SourceFile::new(
                "three.cedar",
                "@id(\"y\") permit (principal, action, resource) when { context.no };",
            ),
        ],
        entities: Some(SourceFile::new("entities.json", "[\n{]")),
        ..Sources::default()
    };
    let found = PolicyBundle::compile(&sources, 1).unwrap_err().0;
    for file in ["one.cedar", "two.cedar", "three.cedar", "entities.json"] {
        assert!(
            found.iter().any(|d| d.file == file),
            "nothing about {file} in {found:#?}"
        );
    }
    let entities = found.iter().find(|d| d.file == "entities.json").unwrap();
    assert_eq!(entities.line, 2);
}

#[test]
fn a_message_names_file_line_and_column_and_helps() {
    let found = refused("\n  permit (principal, action, resource);");
    let text = found[0].to_string();
    assert!(text.starts_with("test.cedar:2:3: error: "), "{text}");
    assert!(text.contains("\n  help: "), "{text}");
}

#[test]
fn a_permit_on_signals_says_whom_it_trusts() {
    let permit = |annotation: &str, condition: &str| {
        format!(
            r#"@id("a") {annotation}
               permit (principal, action == NowConnect::Action::"open", resource)
               when {{ {condition} }};"#
        )
    };
    let de = r#"context.signals.contains("geo/DE")"#;
    let two = r#"context.signals.containsAny(["geo/DE", "risk/low"])"#;
    for (text, said) in [
        (permit("", de), "without `@trusts`"),
        (permit(r#"@trusts("risk")"#, de), "`geo/DE` is of a plugin"),
        (
            permit(r#"@trusts("geo")"#, two),
            "`risk/low` is of a plugin",
        ),
        (
            permit(r#"@trusts("geo")"#, r#"context.signals.contains("DE")"#),
            "no plugin in front",
        ),
        (permit("", "context.signals == []"), "without `@trusts`"),
    ] {
        let found = refused(&text);
        assert!(found[0].message.contains(said), "{found:#?}");
    }
    for text in [
        permit(r#"@trusts("geo")"#, de),
        permit(r#"@trusts("geo, risk")"#, two),
        permit(
            "",
            "context.signalsMissing.isEmpty() && context.openFlows < 3",
        ),
        r#"@id("a") forbid (principal, action == NowConnect::Action::"open", resource)
           when { context.signals.contains("geo/XX") };"#
            .to_owned(),
    ] {
        let _ = bundle(&text);
    }
}

#[test]
fn guards_hold_where_a_set_leaves_them_out() {
    let bundle = bundle(r#"@id("all") permit (principal, action, resource);"#);
    let ids: Vec<&str> = bundle.policies().map(|policy| policy.id.as_str()).collect();
    for guard in [
        "hello-own-id",
        "hello-token-live",
        "announce-in-scope",
        "signals-complete",
        "tenant-open",
    ] {
        assert!(ids.contains(&guard), "{guard} is missing");
    }
    assert_eq!(bundle.warnings(), []);
}

#[test]
fn a_guard_that_is_replaced_is_said_to_be() {
    let bundle = bundle(
        r#"@id("all") permit (principal, action, resource);
           @id("signals-complete") forbid (principal, action, resource) when { false };"#,
    );
    let warning = warning(bundle.warnings(), "shipped guard `signals-complete`");
    assert_eq!(warning.line, 2);
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let found = bundle(
        r#"@id("a") @eror("typo") @error("no_effect")
           permit (principal, action == NowConnect::Action::"open", resource);"#,
    );
    for said in [
        "`@eror` means nothing",
        "`@error` on a permit",
        "no policy permits `hello`",
        "no policy permits `announce`",
    ] {
        let _ = warning(found.warnings(), said);
    }
    assert!(
        !found
            .warnings()
            .iter()
            .any(|d| d.message.contains("permits `open`"))
    );
    let impossible = bundle(
        r#"@id("a") permit (principal is NowConnect::Agent, action == NowConnect::Action::"open", resource);"#,
    );
    let _ = warning(impossible.warnings(), "no policy permits `open`");
}

#[test]
fn a_text_nested_without_end_is_refused() {
    for (open, close) in [("(", ")"), ("[", "]"), ("{", "}")] {
        let nested = |depth: usize| {
            format!(
                "@id(\"a\") permit (principal, action, resource)\nwhen {{ {}true{} }};",
                open.repeat(depth),
                close.repeat(depth)
            )
        };
        let found = refused(&nested(100_000));
        assert!(
            found[0].message.contains("more than 200 brackets"),
            "{found:#?}"
        );
        assert_eq!(found[0].line, 2);
    }
    let brackets = "(".repeat(1000);
    let _ = bundle(&format!(
        "// {brackets}\n@id(\"a\") @advice(\"\\\"{brackets}\") permit (principal, action, resource);"
    ));
}

#[test]
fn equal_texts_have_equal_digests() {
    let one = r#"@id("a") permit (principal, action, resource);"#;
    assert_eq!(bundle(one).digest(), bundle(one).digest());
    assert_ne!(bundle(one).digest(), bundle(&format!("{one} ")).digest());
}

fn refused(text: &str) -> Vec<Diagnostic> {
    match PolicyBundle::compile(&sources(text), 1) {
        Ok(_) => panic!("not refused: {text}"),
        Err(found) => {
            assert!(found.0.iter().any(|d| d.severity == Severity::Error));
            found.0
        }
    }
}

fn warning<'a>(warnings: &'a [Diagnostic], said: &str) -> &'a Diagnostic {
    warnings
        .iter()
        .find(|d| d.severity == Severity::Warning && d.message.contains(said))
        .unwrap_or_else(|| panic!("`{said}` is not among {warnings:#?}"))
}
