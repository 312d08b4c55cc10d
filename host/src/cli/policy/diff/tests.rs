//! Two sets beside each other. The proof is tested end to end, with the real programs.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use super::super::Command;
use super::*;

const OLD: &str = r#"
@id("joining") permit (principal, action in NowConnect::Action::"agent-lifecycle", resource);
@id("ldap") @advice("ask the directory team")
permit (principal, action == NowConnect::Action::"open", resource == NowConnect::Connector::"ldap")
when { context.net.srcIp.isInRange(ip("10.0.0.0/8")) };
@id("gone") forbid (principal, action == NowConnect::Action::"mesh-join", resource);
@id("same") permit (principal, action == NowConnect::Action::"mesh-join", resource);
"#;

fn folder(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.cedar"), text).unwrap();
    dir
}

fn diff(before: &str, after: &str) -> Diff {
    let keep = |dir: tempfile::TempDir| dir.keep();
    Diff {
        sides: Sides {
            sets: vec![keep(folder(before)), keep(folder(after))],
            ..Sides::default()
        },
        replay: None,
        prove: false,
        timeout_sec: 60,
        fail_on: Vec::new(),
        json: false,
    }
}

fn run(diff: Diff) -> (Exit, String, String) {
    let folders = diff.sides.sets.clone();
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let env: BTreeMap<String, String> = BTreeMap::new();
    let exit = Command::Diff(diff).run_with(&env, &mut out, &mut problems);
    for folder in folders {
        std::fs::remove_dir_all(folder).unwrap();
    }
    (
        exit,
        String::from_utf8(out).unwrap(),
        String::from_utf8(problems).unwrap(),
    )
}

#[test]
fn the_same_in_another_layout_is_no_change() {
    let other = OLD
        .replace("permit (", "permit(\n  ")
        .replace("when {", "// why\nwhen\n{");
    let mut same = diff(OLD, &other);
    same.fail_on = vec![FailOn::Change, FailOn::NewAllow];
    let (exit, out, problems) = run(same);
    assert_eq!(
        (exit, out.as_str()),
        (Exit::Success, "both sets say the same\n"),
        "{problems}"
    );
}

#[test]
fn each_policy_is_told_by_what_became_of_it() {
    let new = OLD
        .replace("10.0.0.0/8", "10.1.0.0/16")
        .replace("@id(\"same\")", "@id(\"same\") @advice(\"new\")")
        .replace("@id(\"gone\") forbid", "@id(\"come\") forbid");
    let (exit, out, problems) = run(diff(OLD, &new));
    assert_eq!((exit, problems.as_str()), (Exit::Success, ""));
    let lines: Vec<&str> = out.lines().collect();
    for (line, next) in [
        ("added: `come` (", "  + forbid("),
        ("removed: `gone` (", "  - forbid("),
        ("changed: `ldap` (", "  - when"),
        ("annotations only: `same` (", "  + @advice(\"new\")"),
    ] {
        let at = lines
            .iter()
            .position(|found| found.starts_with(line))
            .expect(&out);
        assert!(lines[at + 1].starts_with(next), "{out}");
    }
    assert!(
        out.contains("10.0.0.0/8") && out.contains("10.1.0.0/16"),
        "{out}"
    );
    assert!(!out.contains("joining"), "{out}");
    assert!(
        !out.contains("ask the directory team"),
        "what stays is not told: {out}"
    );
}

#[test]
fn facts_that_change_are_said() {
    let changed = diff(OLD, OLD);
    std::fs::write(changed.sides.sets[1].join("entities.json"), "[]").unwrap();
    let (exit, out, _) = run(changed);
    assert_eq!(exit, Exit::Success);
    assert!(out.starts_with("changes facts: the entities"), "{out}");
}

fn record(address: &str, decision: &str, count: u64) -> String {
    serde_json::json!({
        "request": {
            "principal": "NowConnect::Viewer::\"anonymous\"",
            "action": "NowConnect::Action::\"open\"",
            "resource": "NowConnect::Connector::\"ldap\"",
            "context": {
                "net": {"srcIp": {"__extn": {"fn": "ip", "arg": address}}, "srcPort": 1,
                    "listener": {"__entity": {"type": "NowConnect::Listener", "id": "l"}}},
                "meta": {"now": {"__extn": {"fn": "datetime", "arg": "2026-11-21"}},
                    "hub": {"__entity": {"type": "NowConnect::Node", "id": "h"}},
                    "requestId": "r"},
                "agent": {"__entity": {"type": "NowConnect::Agent", "id": "a"}},
                "openFlows": 0, "viaMesh": false, "signals": [], "signalsMissing": [],
            },
        },
        "entities": [
            entity("Tenant", "default", serde_json::json!({}), false),
            entity("Agent", "a", serde_json::json!({
                "tenant": {"__entity": {"type": "NowConnect::Tenant", "id": "default"}},
                "scopes": [], "ephemeral": false,
                "tokenExp": {"__extn": {"fn": "datetime", "arg": "2026-11-22"}}}), true),
            entity("Listener", "l", serde_json::json!({
                "tenant": {"__entity": {"type": "NowConnect::Tenant", "id": "default"}},
                "port": 389, "protocol": "tcp"}), true),
            entity("Connector", "ldap", serde_json::json!({
                "tenant": {"__entity": {"type": "NowConnect::Tenant", "id": "default"}},
                "protocol": "tcp"}), true),
            entity("Viewer", "anonymous", serde_json::json!({
                "authenticated": false, "amr": []}), false),
        ],
        "decision": decision, "count": count, "first": 1, "last": 2,
    })
    .to_string()
}

fn entity(kind: &str, id: &str, attrs: serde_json::Value, tenant: bool) -> serde_json::Value {
    let parents = match tenant {
        true => serde_json::json!([{"type": "NowConnect::Tenant", "id": "default"}]),
        false => serde_json::json!([]),
    };
    serde_json::json!({"uid": {"type": format!("NowConnect::{kind}"), "id": id},
        "attrs": attrs, "parents": parents})
}

#[test]
fn recorded_requests_are_decided_by_both() {
    let new = OLD.replace("10.0.0.0/8", "10.1.0.0/16");
    let replayed = |old: &str, new: &str, fail_on: Vec<FailOn>| {
        let mut with = diff(old, new);
        let file = with.sides.sets[0].join("requests.jsonl");
        let lines = [
            record("10.0.0.9", "allow", 7),
            record("10.1.0.9", "allow", 5),
            record("192.0.2.1", "allow", 2),
            "{}".to_owned(),
            String::new(),
        ];
        std::fs::write(&file, lines.join("\n")).unwrap();
        with.replay = Some(file);
        with.fail_on = fail_on;
        run(with)
    };
    let (exit, out, problems) = replayed(OLD, &new, Vec::new());
    assert_eq!((exit, problems.as_str()), (Exit::Success, ""));
    for part in [
        "replay of 4 records: 7 decisions the same, 0 newly allowed, 7 newly denied, 0 with errors",
        "2 were recorded otherwise",
        "1 record cannot be replayed; the first: line 4: ",
        "newly denied, 7 times (line 1): NowConnect::Viewer::\"anonymous\"",
        "before by `ldap`, now by no policy",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(replayed(OLD, &new, vec![FailOn::NewDeny]).0, Exit::Failure);
    let (exit, _, problems) = replayed(&new, OLD, vec![FailOn::NewAllow]);
    assert_eq!(exit, Exit::Failure);
    assert!(
        problems.contains("7 decisions are newly allowed"),
        "{problems}"
    );
}

#[test]
fn a_replay_sees_who_is_in_which_group_now() {
    let grouped = OLD.replace(
        "resource == NowConnect::Connector::\"ldap\"",
        "resource in NowConnect::Group::\"directory\"",
    );
    let mut with = diff(&grouped, &grouped);
    let entities = r#"[{"uid": {"type": "NowConnect::Connector", "id": "ldap"},
        "parents": [{"type": "NowConnect::Group", "id": "directory"}], "tags": {"a": "b"}}]"#;
    std::fs::write(with.sides.sets[1].join("entities.json"), entities).unwrap();
    let file = with.sides.sets[0].join("requests.jsonl");
    std::fs::write(&file, record("10.0.0.9", "deny", 3)).unwrap();
    with.replay = Some(file);
    let (_, out, problems) = run(with);
    assert!(out.contains("3 newly allowed"), "{out}{problems}");
    assert!(out.contains("changes facts: the entities"), "{out}");
    // And the other way: the record has the group, and the set to come takes it away.
    let mut with = diff(&grouped, &grouped);
    std::fs::write(with.sides.sets[0].join("entities.json"), entities).unwrap();
    let mut recorded: serde_json::Value =
        serde_json::from_str(&record("10.0.0.9", "allow", 2)).unwrap();
    let connector = &mut recorded["entities"][3];
    assert_eq!(connector["uid"]["id"], "ldap");
    let parents = connector["parents"].as_array_mut().unwrap();
    parents.push(serde_json::json!({"type": "NowConnect::Group", "id": "directory"}));
    connector["tags"] = serde_json::json!({"a": "b"});
    let file = with.sides.sets[0].join("requests.jsonl");
    std::fs::write(&file, recorded.to_string()).unwrap();
    with.replay = Some(file);
    let (_, out, problems) = run(with);
    assert!(out.contains("2 newly denied"), "{out}{problems}");
}

#[test]
fn what_nobody_looked_into_cannot_be_ruled_out() {
    let mut unknown = diff(OLD, &OLD.replace("10.0.0.0/8", "10.1.0.0/16"));
    unknown.fail_on = vec![FailOn::NewAllow];
    let (exit, _, problems) = run(unknown);
    assert_eq!(exit, Exit::Failure);
    assert!(problems.contains("nobody knows"), "{problems}");
}

#[test]
fn a_replay_of_nothing_answers_nothing() {
    let narrower = OLD.replace("10.0.0.0/8", "10.1.0.0/16");
    let replayed = |recorded: &str, fail_on: FailOn| {
        let mut with = diff(OLD, &narrower);
        let file = with.sides.sets[0].join("requests.jsonl");
        std::fs::write(&file, recorded).unwrap();
        with.replay = Some(file);
        with.fail_on = vec![fail_on];
        run(with)
    };
    let never = record("10.1.0.9", "allow", 0);
    for recorded in ["", "\n  \n", &never] {
        for fail_on in [FailOn::NewAllow, FailOn::NewDeny] {
            let (exit, _, problems) = replayed(recorded, fail_on);
            assert_eq!(exit, Exit::Failure, "{recorded:?} {fail_on:?}");
            assert!(problems.contains("nothing was replayed"), "{problems}");
        }
    }
    let (exit, _, problems) = replayed(&record("10.1.0.9", "allow", 1), FailOn::NewAllow);
    assert_eq!((exit, problems.as_str()), (Exit::Success, ""));
}

#[test]
fn sets_that_do_not_compile_or_are_not_there_are_wrong_arguments() {
    let (exit, _, problems) = run(diff(OLD, "permit"));
    assert_eq!(exit, Exit::Usage);
    assert!(problems.contains("refused: 1 error"), "{problems}");
    let mut gone = diff(OLD, OLD);
    gone.replay = Some(gone.sides.sets[0].join("gone"));
    assert_eq!(run(gone).0, Exit::Usage);
}

#[test]
fn two_sets_are_named_by_path_or_by_a_hub() {
    let compare = |sets: usize, active: bool, staged: bool| {
        let mut compared = diff(OLD, OLD);
        let all = compared.sides.sets.clone();
        compared.sides.sets.truncate(sets);
        compared.sides.active = active;
        compared.sides.staged = staged;
        compared.sides.socket = Some(all[0].join("no-hub.sock"));
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        let env: BTreeMap<String, String> = BTreeMap::new();
        let exit = Command::Diff(compared).run_with(&env, &mut out, &mut problems);
        for folder in all {
            std::fs::remove_dir_all(folder).unwrap();
        }
        (exit, String::from_utf8(problems).unwrap())
    };
    for (sets, active, staged) in [
        (0, false, false),
        (1, false, false),
        (2, true, false),
        (1, true, true),
    ] {
        let (exit, problems) = compare(sets, active, staged);
        assert_eq!(exit, Exit::Usage);
        assert!(problems.contains("two sets are compared"), "{problems}");
    }
    for (sets, active, staged) in [(1, true, false), (1, false, true), (0, true, true)] {
        let (exit, problems) = compare(sets, active, staged);
        assert_eq!(exit, Exit::Usage);
        assert!(problems.contains("no-hub.sock"), "{problems}");
    }
}
