//! The commands, as an operator uses them.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use nowconnect_policy::{PolicyBundle, SourceFile, Sources};

use super::*;

const PERMIT: &str = "@id(\"all\")\npermit (principal, action, resource);\n";

#[test]
fn the_built_in_policies_are_right() {
    let (exit, out, problems) = run(check_of(None, true));
    assert_eq!((exit, problems.as_str()), (Exit::Success, ""));
    assert!(out.starts_with("right: "), "{out}");
    assert!(out.contains("0 warnings (built in, digest "), "{out}");
}

#[test]
fn a_wrong_policy_is_shown_at_its_place() {
    let dir = folder(&[("a.cedar", "\npermit (principal, action, resource);")]);
    let (exit, out, problems) = run(check_of(Some(dir.path()), false));
    assert_eq!((exit, out.as_str()), (Exit::Failure, ""));
    assert!(
        problems.contains("a.cedar:2:1: error: this policy has no `@id`"),
        "{problems}"
    );
    assert!(problems.contains("\n  help: "), "{problems}");
    assert!(problems.ends_with("refused: 1 error\n"), "{problems}");
}

#[test]
fn a_warning_counts_where_it_is_asked_to() {
    let text = PERMIT.replace("@id", "@note(\"x\") @id");
    let dir = folder(&[("a.cedar", &text)]);
    let (exit, out, problems) = run(check_of(Some(dir.path()), false));
    assert_eq!(exit, Exit::Success);
    assert!(out.contains("shipped guards, 1 warning"), "{out}");
    assert!(
        problems.contains("a.cedar:1:1: warning: annotation `@note`"),
        "{problems}"
    );
    assert_eq!(run(check_of(Some(dir.path()), true)).0, Exit::Failure);
}

#[test]
fn a_folder_that_is_not_there_is_a_wrong_argument() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [dir.path().join("gone"), dir.path().to_owned()] {
        let (exit, _, problems) = run(check_of(Some(&dir), false));
        assert_eq!(exit, Exit::Usage);
        assert!(problems.contains(&*dir.display().to_string()), "{problems}");
    }
}

#[test]
fn what_init_writes_is_right_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("policies");
    let init = || Command::Init {
        dir: target.clone(),
    };
    let (exit, out, _) = run(init());
    assert_eq!(exit, Exit::Success);
    assert!(out.contains("nowconnect policy test"), "{out}");
    let (exit, out, problems) = run(check_of(Some(&target), true));
    assert_eq!((exit, problems.as_str()), (Exit::Success, ""), "{out}");
    assert!(!out.contains("shipped guards"), "{out}");
    let (exit, out, problems) = run(test_of(&target));
    assert_eq!((exit, problems.as_str()), (Exit::Success, ""), "{out}");
    assert!(out.ends_with(" 0 failed\n"), "{out}");
    let determined_by_none = out.lines().filter(|line| line.starts_with("note:")).count();
    assert_eq!(determined_by_none, 0, "{out}");
    let (exit, _, problems) = run(init());
    assert_eq!(exit, Exit::Usage);
    assert!(problems.contains("is there already"), "{problems}");
}

#[test]
fn the_projects_own_cases_pass() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let (exit, out, problems) = run(test_of(&dir));
    assert_eq!((exit, problems.as_str()), (Exit::Success, ""), "{out}");
    assert!(out.contains("ok    "), "{out}");
    assert!(out.ends_with(" 0 failed\n"), "{out}");
}

#[test]
fn a_failed_case_says_what_came_instead() {
    let dir = folder(&[("a.cedar", PERMIT)]);
    let cases = dir.path().join("tests");
    std::fs::create_dir(&cases).unwrap();
    let text = include_str!("../../../../policies/tests/open.json");
    std::fs::write(cases.join("open.json"), text).unwrap();
    let (exit, out, _) = run(test_of(dir.path()));
    assert_eq!(exit, Exit::Failure);
    assert!(
        out.contains("`open-own-tenant` not among the determining policies"),
        "{out}"
    );
    std::fs::write(cases.join("open.json"), "[]").unwrap();
    assert_eq!(run(test_of(dir.path())).0, Exit::Usage);
}

#[test]
fn a_case_of_a_file_can_be_explained_without_a_hub() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let file = dir.join("tests/guard-tenants.json");
    let explain = |case: Option<&str>, json: bool| {
        Command::Explain(Explain {
            what: Some(file.display().to_string()),
            client: None,
            flow: None,
            last: false,
            policies: Some(dir.clone()),
            case: case.map(ToOwned::to_owned),
            socket: None,
            json,
        })
    };
    let case = "an agent of another tenant would serve a flow";
    let (exit, out, problems) = run(explain(Some(case), false));
    assert_eq!((exit, problems.as_str()), (Exit::Success, ""));
    assert!(
        out.starts_with("denied: forbidden, code tenant_mismatch"),
        "{out}"
    );
    assert!(out.contains("forbid `tenant-open` at "), "{out}");
    assert!(out.contains("what would turn it"), "{out}");

    let (exit, out, _) = run(explain(Some(case), true));
    assert_eq!(exit, Exit::Success);
    let explained: Explained = serde_json::from_str(&out).unwrap();
    assert!(!explained.explanation.unwrap().decision.allow);

    let (exit, _, problems) = run(explain(None, false));
    assert_eq!(exit, Exit::Usage);
    assert!(problems.contains("--case NAME"), "{problems}");
}

#[test]
fn without_a_hub_a_past_decision_cannot_be_explained() {
    let dir = tempfile::tempdir().unwrap();
    let (exit, _, problems) = run(Command::Explain(Explain {
        what: None,
        client: Some("192.0.2.7".to_owned()),
        flow: None,
        last: true,
        policies: None,
        case: None,
        socket: Some(dir.path().join("admin.sock")),
        json: false,
    }));
    assert_eq!(exit, Exit::Failure);
    assert!(problems.contains("is it running"), "{problems}");
}

#[test]
fn a_hubs_answer_is_read_whatever_redaction_left_of_it() {
    let record = serde_json::json!({
        "decision_id": "1-2f", "time_ms": 1, "hub": "hub-1", "generation": 3, "action": "open",
        "principal": "p", "resource": "r", "client": "192.0.2.7:4000", "allow": false,
        "why": "limit", "code": "agent_busy",
        "latency": {"policy_us": 0, "plugins_us": 0, "pdp_us": 0, "total_us": 5},
    });
    let mut masked = record.clone();
    masked["client"] = "***".into();
    for (record, said) in [
        (record, "denied: limit, code agent_busy"),
        (masked, "agent_busy"),
    ] {
        let answer = serde_json::json!({"record": record, "explanation": null});
        let explained: Explained = serde_json::from_value(answer).unwrap();
        let text = explain::text(&explained);
        assert!(text.contains(said), "{text}");
        assert!(text.contains("policies had no part in it"), "{text}");
    }
}

#[test]
fn a_deny_of_a_decision_point_is_not_laid_on_the_policies() {
    let sources = Sources {
        policies: vec![SourceFile::new(
            "test.cedar",
            "@id(\"all\") permit (principal, action == NowConnect::Action::\"open\", resource);",
        )],
        ..Sources::default()
    };
    let bundle = PolicyBundle::compile(&sources, 3).unwrap();
    let case = include_str!("../../../../policies/tests/open.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(case).unwrap();
    let allowed = cases
        .iter()
        .find(|case| case["decision"] == "allow")
        .unwrap();
    let explanation = bundle.explain_json(&allowed.to_string()).unwrap();
    assert!(explanation.decision.allow);
    let record = serde_json::json!({
        "decision_id": "1-2f", "time_ms": 1, "hub": "hub-1", "generation": 3,
        "policy_digest": "0123456789ab", "revision": 12, "flow": "hub-1.5.9",
        "action": "open",
        "principal": "p", "resource": "r", "allow": false, "why": "pdp", "code": "pdp_denied",
        "pdp": {"allow": false, "reason": "rule 7"},
        "latency": {"policy_us": 0, "plugins_us": 0, "pdp_us": 9, "total_us": 9},
    });
    let explained = Explained {
        record: Some(record),
        explanation: Some(explanation),
    };
    let text = explain::text(&explained);
    for part in [
        "generation 3, revision 12, digest 0123456789ab",
        "flow       hub-1.5.9",
        "deny rule 7",
        "only its own answer would turn it",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}

#[test]
fn the_arguments_are_as_documented() {
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }
    let parse = |line: &str| Line::try_parse_from(line.split(' ').map(ToOwned::to_owned));
    for line in [
        "policy check",
        "policy check policies --strict",
        "policy test policies",
        "policy explain 18c2f0a1b-2f",
        "policy explain --client 192.0.2.7:4000 --last",
        "policy explain --flow hub-1.5.9",
        "policy explain case.json --policies policies",
        "policy requests --since 2h --cases",
        "policy schema",
        "policy schema --core 1",
        "policy diff old new.tar --replay requests.jsonl --prove --fail-on new-allow --json",
        "policy diff --active --staged --socket admin.sock",
        "policy diff --active proposed --prove",
        "policy prove policies --equivalent-to other --json",
        "policy who-can open acme/ldap --policies policies --group directory --json",
        "policy keygen release.key",
        "policy build policies --out policies.tar --revision 7 --not-after 2027-01-31T00:00:00Z",
        "policy sign policies.tar --key release.key",
        "policy verify policies.tar --trust release.key.pub --trust ed25519:x --signers 2",
        "policy inspect policies.tar --json",
        "policy init policies",
    ] {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
    }
    for line in [
        "policy explain",
        "policy explain --last",
        "policy init",
        "policy requests --since 2",
        "policy build policies --out policies.tar",
        "policy build policies --out x --revision 7 --not-after tomorrow",
        "policy verify policies.tar",
        "policy diff old new --fail-on anything",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn who_can_open_a_connector_is_told_by_the_policies_about_it() {
    let text = r#"
        @id("this") permit (principal, action == NowConnect::Action::"open",
            resource == NowConnect::Connector::"ldap");
        @id("that") permit (principal, action == NowConnect::Action::"open",
            resource == NowConnect::Connector::"ssh") when { context.openFlows < 3 };
        @id("grouped") permit (principal in NowConnect::Group::"staff",
            action == NowConnect::Action::"open", resource in NowConnect::Group::"directory");
        @id("joining") permit (principal, action in NowConnect::Action::"agent-lifecycle", resource);
        @id("closed") forbid (principal, action in NowConnect::Action::"data-plane", resource)
        when { context.agent.ephemeral };"#;
    let dir = folder(&[("a.cedar", text)]);
    let who = |words: &str| {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Line {
            #[command(subcommand)]
            command: Command,
        }
        let words = format!("policy who-can open {words} --policies");
        let words = words.split(' ').map(ToOwned::to_owned);
        let words = words.chain([dir.path().display().to_string()]);
        run(Line::try_parse_from(words).unwrap().command)
    };
    let (exit, out, _) = who("ldap");
    assert_eq!(exit, Exit::Success);
    assert!(out.contains("`this` (") && !out.contains("`that`"), "{out}");
    assert!(
        !out.contains("`grouped`") && !out.contains("`joining`"),
        "{out}"
    );
    let (_, forbids) = out.split_once("none of these forbids").unwrap();
    assert!(
        forbids.contains("`closed`") && forbids.contains("`tenant-open`"),
        "{out}"
    );
    let (_, out, _) = who("ldap --group directory");
    assert!(out.contains("`grouped`"), "{out}");
    let (_, out, _) = who("ssh");
    assert!(out.contains("when") && out.contains("openFlows"), "{out}");
    let (exit, out, _) = who("other");
    assert_eq!(
        (exit, out.as_str()),
        (Exit::Failure, "nobody: no permit is about it\n")
    );
    assert!(who("ldap --json").1.contains("\"permits\""));
}

#[test]
fn every_served_schema_is_printed() {
    for version in CoreVersion::SERVED {
        let core = Some(version.number());
        let (exit, out, _) = run(Command::Schema { core });
        assert_eq!((exit, out.as_str()), (Exit::Success, version.text()));
    }
    let (exit, _, problems) = run(Command::Schema { core: Some(99) });
    assert_eq!(exit, Exit::Usage);
    assert!(problems.contains("served are 1 and 2"), "{problems}");
}

fn check_of(dir: Option<&Path>, strict: bool) -> Command {
    Command::Check {
        dir: dir.map(ToOwned::to_owned),
        strict,
        quiet: false,
    }
}

fn test_of(dir: &Path) -> Command {
    Command::Test {
        dir: Some(dir.to_owned()),
        cases: None,
        quiet: false,
    }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn run(command: Command) -> (Exit, String, String) {
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let env: BTreeMap<String, String> = BTreeMap::new();
    let exit = command.run_with(&env, &mut out, &mut problems);
    (
        exit,
        String::from_utf8(out).unwrap(),
        String::from_utf8(problems).unwrap(),
    )
}

#[test]
fn who_can_open_a_connector_is_said_by_the_policies_about_it() {
    let dir = folder(&[(
        "a.cedar",
        r#"@id("staff") permit (principal, action == NowConnect::Action::"open",
             resource == NowConnect::Connector::"ldap")
           when { context.net.srcIp.isInRange(ip("10.0.0.0/8")) };
           @id("grouped") permit (principal, action == NowConnect::Action::"open",
             resource in NowConnect::Group::"directory");
           @id("other") permit (principal, action == NowConnect::Action::"open",
             resource == NowConnect::Connector::"ssh");
           @id("curfew") forbid (principal, action == NowConnect::Action::"open", resource)
           when { context.openFlows > 100 };
           @id("joining") permit (principal, action == NowConnect::Action::"hello", resource);"#,
    )]);
    let ask = |connector: &str, more: &[&str]| {
        use clap::Parser;

        #[derive(Debug, Parser)]
        struct Line {
            #[command(subcommand)]
            command: Command,
        }
        let policies = dir.path().display().to_string();
        let mut line = vec![
            "policy",
            "who-can",
            "open",
            connector,
            "--policies",
            &policies,
        ];
        line.extend(more);
        run(Line::try_parse_from(line).unwrap().command)
    };
    let (exit, out, problems) = ask("ldap", &[]);
    assert_eq!((exit, problems.as_str()), (Exit::Success, ""));
    let (permits, forbids) = out.split_once("and none of these forbids:\n").unwrap();
    assert!(
        permits.starts_with("whoever one of these permits:\n  `staff` ("),
        "{out}"
    );
    assert!(
        permits.contains("a.cedar:1)") && permits.contains("10.0.0.0/8"),
        "{out}"
    );
    assert!(
        forbids.contains("`curfew`") && forbids.contains("openFlows"),
        "{out}"
    );
    for left_out in ["`other`", "`joining`", "`grouped`"] {
        assert!(!out.contains(left_out), "{left_out}: {out}");
    }
    let (_, out, _) = ask("ldap", &["--group", "directory"]);
    assert!(out.contains("`grouped`"), "{out}");
    let (exit, out, _) = ask("ldap", &["--json"]);
    assert_eq!(exit, Exit::Success);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["permits"][0]["id"], "staff");
    let (exit, out, _) = ask("vault", &[]);
    assert_eq!(exit, Exit::Failure);
    assert!(out.starts_with("nobody: no permit is about it"), "{out}");
}
