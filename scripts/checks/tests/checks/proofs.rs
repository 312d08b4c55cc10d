//! What the prover finds with a real solver, and what is said where one of them is missing, slow
//! or dead. Also: every command of the guide's chapters on bundles, changes and proof.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::gateway::{binary, clean};
use crate::parts::skip_without;
use crate::repository::{root, text};

const JOINING: &str = r#"
@id("joining") permit (principal, action in NowConnect::Action::"agent-lifecycle", resource);
"#;

/// The prover, beside the hub. Without `NOWCONNECT_BIN_DIR` it is built first.
pub(crate) fn prover() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let beside = binary("nowconnect").with_file_name("nowconnect-prove");
    BUILT.get_or_init(|| {
        if std::env::var_os("NOWCONNECT_BIN_DIR").is_some() {
            return;
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let target = beside.ancestors().nth(2).unwrap();
        let status = Command::new(cargo)
            .args([
                "build",
                "--manifest-path",
                "prove/Cargo.toml",
                "--target-dir",
            ])
            .arg(target)
            .current_dir(root())
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    });
    beside
}

struct Sets {
    dir: tempfile::TempDir,
}

impl Sets {
    /// Folders with one policy file each; `NAME/assertions` is a folder of assertions.
    fn new(folders: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, policies) in folders {
            let folder = dir.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            let whole = if name.contains('/') {
                (*policies).to_owned()
            } else {
                format!("{JOINING}{policies}")
            };
            std::fs::write(folder.join("set.cedar"), whole).unwrap();
        }
        Self { dir }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = clean(&binary("nowconnect"));
        command
            .arg("policy")
            .args(line.split(' '))
            .current_dir(self.dir.path())
            .env("NOWCONNECT_PROVE", prover())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> (i32, String) {
        said(&self.command(line).output().unwrap())
    }
}

pub(crate) fn said(output: &Output) -> (i32, String) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code().unwrap_or(-1), text)
}

fn ldap(condition: &str) -> String {
    format!(
        "@id(\"ldap\") permit (principal, action == NowConnect::Action::\"open\", resource)\n\
         when {{ resource.hasTag(\"kind\") && resource.getTag(\"kind\") == \"ldap\" && {condition} }};\n"
    )
}

#[test]
fn a_wider_set_is_shown_by_a_request_and_a_narrower_one_proved() {
    if skip_without(&["cvc5"]) {
        return;
    }
    let narrow = ldap("context.net.srcIp.isInRange(ip(\"10.1.0.0/16\"))");
    let wide = ldap("context.net.srcIp.isInRange(ip(\"10.0.0.0/8\"))");
    let sets = Sets::new(&[("narrow", &narrow), ("wide", &wide)]);
    let (exit, out) = sets.run("diff narrow wide --prove --fail-on new-allow");
    assert_eq!(exit, 1, "{out}");
    for part in [
        "proved: denies nothing new",
        "NOT PROVED: lets nothing new in",
        "it does not hold for this request:",
        "resource NowConnect::Connector::",
        "tag kind = \"ldap\"",
        "context.net.srcIp = ip(\"10.",
        "before: denied; after: allowed by `ldap`",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (exit, out) = sets.run("diff wide narrow --prove --fail-on new-allow");
    assert_eq!(exit, 0, "{out}");
    assert!(out.contains("proved: lets nothing new in"), "{out}");
    let (exit, out) = sets.run("diff wide narrow --prove --fail-on new-deny --json");
    assert_eq!(exit, 1, "{out}");
    let json = out
        .rsplit_once('}')
        .map(|(json, _)| format!("{json}}}"))
        .unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let results = json["proof"]["results"].as_array().unwrap();
    assert!(
        results
            .iter()
            .any(|result| result["verdict"]["verdict"] == "disproved")
    );
}

#[test]
fn two_ways_to_say_the_same_are_proved_equivalent() {
    if skip_without(&["cvc5"]) {
        return;
    }
    let range = "context.net.srcIp.isInRange(ip(\"10.0.0.0/8\"))";
    let one = ldap(&format!("!(!{range} || context.openFlows > 5)"));
    let other = ldap(&format!("{range} && context.openFlows <= 5"));
    let sets = Sets::new(&[("one", &one), ("other", &other), ("more", &ldap(range))]);
    let (exit, out) = sets.run("prove one --equivalent-to other");
    assert_eq!(exit, 0, "{out}");
    let (exit, out) = sets.run("prove one --equivalent-to more");
    assert_eq!(exit, 1, "{out}");
    std::fs::write(sets.dir.path().join("other/entities.json"), "[]").unwrap();
    let (exit, out) = sets.run("prove one --equivalent-to other");
    assert_eq!(exit, 1, "{out}");
    assert!(
        out.contains("not covered by a proof: the entities"),
        "{out}"
    );
}

#[test]
fn assertions_hold_or_are_shown_not_to() {
    if skip_without(&["cvc5"]) {
        return;
    }
    let assertions = r#"
        @id("ldap-only-from-inside") @assert("never_allows")
        forbid (principal, action == NowConnect::Action::"open", resource)
        when { resource.hasTag("kind") && resource.getTag("kind") == "ldap" }
        unless { context.net.srcIp.isInRange(ip("10.0.0.0/8")) };
        @id("agents-always-renew") @assert("always_allows")
        permit (principal, action == NowConnect::Action::"open", resource)
        when { context.net.srcIp.isInRange(ip("10.2.0.0/16")) && resource.protocol == "ldap" };"#;
    let inside = ldap("context.net.srcIp.isInRange(ip(\"10.0.0.0/8\"))");
    let sets = Sets::new(&[("set", &inside), ("set/assertions", assertions)]);
    let (exit, out) = sets.run("prove set");
    assert_eq!(exit, 1, "{out}");
    assert!(
        out.contains("proved: assertion `ldap-only-from-inside`"),
        "{out}"
    );
    assert!(
        out.contains("NOT PROVED: assertion `agents-always-renew`"),
        "{out}"
    );
    assert!(out.contains("it is denied"), "{out}");
    assert!(out.contains("proved: no policy ever errors"), "{out}");
    let written = assertions.replace("never_allows", "never");
    std::fs::write(sets.dir.path().join("set/assertions/set.cedar"), written).unwrap();
    let (exit, out) = sets.run("prove set");
    assert_eq!(exit, 64, "{out}");
    assert!(out.contains("an assertion says"), "{out}");
}

#[test]
fn an_assertion_that_no_request_meets_is_not_proved() {
    if skip_without(&["cvc5"]) {
        return;
    }
    let never = r#"
        @id("nobody") @assert("never_allows")
        forbid (principal, action == NowConnect::Action::"open", resource)
        when { context.openFlows > 5 && context.openFlows < 3 };"#;
    let sets = Sets::new(&[
        ("set", &ldap("context.openFlows < 4")),
        ("set/assertions", never),
    ]);
    let (exit, out) = sets.run("prove set");
    assert_eq!(exit, 1, "{out}");
    assert!(
        out.contains("proved: assertion `nobody` ("),
        "it holds of nothing: {out}"
    );
    assert!(
        out.contains("NOT PROVED: assertion `nobody` describes a request"),
        "{out}"
    );
    let some = never.replace("< 3", "< 7");
    std::fs::write(sets.dir.path().join("set/assertions/set.cedar"), some).unwrap();
    let (exit, out) = sets.run("prove set");
    assert_eq!(exit, 0, "{out}");
    assert!(
        out.contains("proved: assertion `nobody` describes a request"),
        "{out}"
    );
}

#[test]
fn what_a_tenant_permits_is_proved_to_reach_nobody_elses() {
    if skip_without(&["cvc5"]) {
        return;
    }
    let apart = r#"
        @id("acme-alone") @assert("never_allows")
        forbid (principal, action == NowConnect::Action::"open", resource)
        unless { resource in NowConnect::Tenant::"acme" };"#;
    let sets = Sets::new(&[("set", ""), ("set/assertions", apart)]);
    let whatever =
        "@id(\"whatever\") permit (principal, action == NowConnect::Action::\"open\", resource);";
    let (own, hubs) = (
        sets.dir.path().join("set/acme@open.cedar"),
        sets.dir.path().join("set/open.cedar"),
    );
    std::fs::write(own, whatever).unwrap();
    let (exit, out) = sets.run("prove set");
    assert_eq!(exit, 0, "{out}");
    assert!(out.contains("proved: assertion `acme-alone`"), "{out}");
    std::fs::write(hubs, whatever).unwrap();
    let (exit, out) = sets.run("prove set");
    assert_eq!(exit, 1, "{out}");
    assert!(out.contains("NOT PROVED: assertion `acme-alone`"), "{out}");
}

#[test]
fn a_policy_that_can_overflow_is_found_and_spoils_what_it_is_part_of() {
    if skip_without(&["cvc5"]) {
        return;
    }
    let safe = ldap("context.openFlows < 4");
    let sets = Sets::new(&[("safe", &safe), ("sum", &ldap("context.openFlows + 1 < 5"))]);
    let (exit, out) = sets.run("prove sum");
    assert_eq!(exit, 1, "{out}");
    assert!(out.contains("NOT PROVED: no policy ever errors"), "{out}");
    assert!(
        out.contains("context.openFlows = 9223372036854775807"),
        "{out}"
    );
    let (exit, out) = sets.run("diff safe sum --prove --fail-on new-allow");
    assert_eq!(exit, 1, "{out}");
    assert!(out.contains("policy `ldap` may fail to evaluate"), "{out}");
}

#[test]
fn what_is_missing_is_named_with_an_exit_code_of_its_own() {
    let sets = Sets::new(&[("old", ""), ("new", &ldap("context.openFlows < 4"))]);
    let without = |name: &str, line: &str| {
        said(
            &sets
                .command(line)
                .env(name, "/nonexistent/program")
                .output()
                .unwrap(),
        )
    };
    for line in ["diff old new --prove", "prove new"] {
        let (exit, out) = without("NOWCONNECT_PROVE", line);
        assert_eq!(exit, 69, "{out}");
        assert!(out.contains("`nowconnect-prove` is not installed"), "{out}");
        let (exit, out) = without("CVC5", line);
        assert_eq!(exit, 69, "{out}");
        assert!(
            out.contains("/nonexistent/program") && out.contains("cvc5"),
            "{out}"
        );
    }
}

#[test]
fn a_solver_that_hangs_proves_nothing_and_is_ended() {
    use std::os::unix::fs::PermissionsExt as _;
    let sets = Sets::new(&[("old", ""), ("new", &ldap("context.openFlows < 4"))]);
    let solver = sets.dir.path().join("solver");
    let pids = sets.dir.path().join("pids");
    let script = format!("#!/bin/sh\necho $$ >>{}\nexec sleep 600\n", pids.display());
    std::fs::write(&solver, script).unwrap();
    std::fs::set_permissions(&solver, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = sets.command("diff old new --prove --timeout-sec 3 --fail-on new-allow");
    let (exit, out) = said(&command.env("CVC5", &solver).output().unwrap());
    assert_eq!(exit, 1, "{out}");
    assert!(out.contains("no answer within 3 s"), "{out}");
    let until = Instant::now() + Duration::from_secs(30);
    for id in std::fs::read_to_string(&pids).unwrap().lines() {
        let running = || {
            let state = std::fs::read_to_string(format!("/proc/{id}/stat"));
            state.is_ok_and(|state| state.contains("(sleep)") && !state.contains(") Z "))
        };
        while running() {
            assert!(Instant::now() < until, "the solver goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_guides_commands_do_what_it_says() {
    if skip_without(&["cvc5"]) {
        return;
    }
    let guide = text(Path::new("docs/policy-guide.md")).unwrap();
    let shop = tempfile::tempdir().unwrap();
    let folder = |name: &str| shop.path().join(name);
    for name in [
        "policies",
        "policies/tests",
        "proposed",
        "policies/assertions",
    ] {
        std::fs::create_dir(folder(name)).unwrap();
    }
    for (from, to) in [
        ("policies", "policies"),
        ("policies/tests", "policies/tests"),
        ("policies", "proposed"),
    ] {
        for entry in std::fs::read_dir(root().join(from)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), folder(to).join(entry.file_name())).unwrap();
            }
        }
    }
    std::fs::remove_file(folder("proposed/mesh.cedar")).unwrap();
    std::fs::write(folder("requests.jsonl"), recorded()).unwrap();
    let chapters = ["Bundles", "What a change does", "Proof"];
    let mut ran = 0;
    for chapter in chapters {
        let chapter = guide
            .split("\n## ")
            .find(|part| part.lines().next() == Some(chapter))
            .unwrap();
        if let Some(assertion) = fenced(chapter, "text").first() {
            std::fs::write(folder("policies/assertions/shown.cedar"), assertion).unwrap();
        }
        for line in fenced(chapter, "sh").iter().flat_map(|block| block.lines()) {
            let Some(words) = line.strip_prefix("nowconnect ") else {
                continue;
            };
            let output = clean(&binary("nowconnect"))
                .args(words.split_whitespace())
                .current_dir(shop.path())
                .env("NOWCONNECT_PROVE", prover())
                .output()
                .unwrap();
            let (exit, out) = said(&output);
            assert_eq!(exit, 0, "{line}: {out}");
            if line.contains("--replay") {
                let replayed = "replay of 1 record: 5 decisions the same, 0 newly allowed";
                assert!(out.contains(replayed), "{line}: {out}");
            }
            ran += 1;
        }
    }
    assert!(ran > 10, "{ran}");
}

/// What `nowconnect policy requests` printed of a client of `ldap`: five times the same.
fn recorded() -> String {
    let kind = |name: &str| format!("NowConnect::{name}");
    let own = serde_json::json!({"type": kind("Tenant"), "id": "default"});
    let entity = |name: &str, id: &str, attrs: serde_json::Value, parents: bool| {
        let parents = if parents {
            vec![own.clone()]
        } else {
            Vec::new()
        };
        serde_json::json!({"uid": {"type": kind(name), "id": id}, "attrs": attrs, "parents": parents})
    };
    let tenant = serde_json::json!({"__entity": own});
    let record = serde_json::json!({
        "request": {
            "principal": "NowConnect::Viewer::\"anonymous\"",
            "action": "NowConnect::Action::\"open\"",
            "resource": "NowConnect::Connector::\"ldap\"",
            "context": {
                "net": {"srcIp": {"__extn": {"fn": "ip", "arg": "10.1.2.3"}}, "srcPort": 4000,
                    "listener": {"__entity": {"type": kind("Listener"), "id": "l"}}},
                "meta": {"now": {"__extn": {"fn": "datetime", "arg": "2026-11-21"}},
                    "hub": {"__entity": {"type": kind("Node"), "id": "h"}}, "requestId": "r"},
                "agent": {"__entity": {"type": kind("Agent"), "id": "a"}},
                "openFlows": 0, "viaMesh": false, "signals": [], "signalsMissing": [],
            },
        },
        "entities": [
            entity("Tenant", "default", serde_json::json!({}), false),
            entity("Agent", "a", serde_json::json!({"tenant": tenant, "scopes": [],
                "ephemeral": false,
                "tokenExp": {"__extn": {"fn": "datetime", "arg": "2026-11-22"}}}), true),
            entity("Listener", "l", serde_json::json!({"tenant": tenant, "port": 389,
                "protocol": "tcp"}), true),
            entity("Connector", "ldap", serde_json::json!({"tenant": tenant,
                "protocol": "tcp"}), true),
            entity("Viewer", "anonymous", serde_json::json!({"authenticated": false,
                "amr": []}), false),
        ],
        "decision": "allow", "count": 5, "first": 1, "last": 2,
    });
    format!("{record}\n")
}

fn fenced<'a>(chapter: &'a str, tag: &str) -> Vec<&'a str> {
    let open = format!("```{tag}\n");
    chapter
        .match_indices(&open)
        .filter_map(|(at, _)| {
            let from = at + open.len();
            let rest = chapter.get(from..)?;
            rest.get(..rest.find("\n```")? + 1)
        })
        .collect()
}
