#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod registry;
mod supply;

use std::path::{Path, PathBuf};

use clap::Parser;
use tempfile::TempDir;

use super::Command;
use crate::cli::Exit;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// What a command printed, and how it ended.
struct Said {
    exit: Exit,
    out: String,
    problems: String,
}

fn say(arguments: &[&str]) -> Said {
    let line = Line::try_parse_from(std::iter::once(&"plugin").chain(arguments)).unwrap();
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let exit = line.command.run_with(&mut out, &mut problems);
    Said {
        exit,
        out: String::from_utf8(out).unwrap(),
        problems: String::from_utf8(problems).unwrap(),
    }
}

/// A built-in plugin, built by `scripts/build-guests.sh`, with its manifest beside it.
fn builtin(folder: &TempDir, name: &str) -> String {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let built = plugins.join(format!("target/components/{name}.wasm"));
    assert!(built.exists(), "run scripts/build-guests.sh first");
    let copy = folder.path().join(format!("{name}.wasm"));
    std::fs::copy(built, &copy).unwrap();
    let manifest = plugins.join(name).join("plugin.toml");
    std::fs::copy(manifest, folder.path().join("plugin.toml")).unwrap();
    text(&copy)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn file(folder: &TempDir, name: &str, content: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    text(&path)
}

#[test]
fn inspect_says_what_a_component_is() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "rate-limit");
    let said = say(&["inspect", &component]);
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    for line in [
        "digest     sha256:",
        "hooks      open (0.1.0)",
        "wants      grants: [config, kv]",
        "wasi       none",
        "signature  none",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
    let nothing = file(&folder, "nothing.wasm", "nothing");
    assert_eq!(say(&["inspect", &nothing]).exit, Exit::Failure);
    assert_eq!(say(&["inspect", "/not/there.wasm"]).exit, Exit::Usage);
}

#[test]
fn check_refuses_what_a_hub_refuses_and_prints_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "rate-limit");
    let config = r#"{"limits": [{"flows": 1, "window_seconds": 60}]}"#;
    let said = say(&["check", &component, "--config", config]);
    assert_eq!(said.exit, Exit::Failure);
    assert!(
        said.problems.contains("grants: [config, kv]"),
        "{}",
        said.problems
    );

    let granted = ["--grant", "config", "--grant", "kv:1MiB"];
    let refused = say(&[
        &["check", &component],
        &granted[..],
        &["--config", "{\"x\": 1}"],
    ]
    .concat());
    assert_eq!(refused.exit, Exit::Failure);
    assert!(
        refused.problems.contains("refuses its `config`"),
        "{}",
        refused.problems
    );

    let said = say(&[&["check", &component], &granted[..], &["--config", config]].concat());
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    assert!(
        said.out.contains(r#"grants: ["config","kv:1MiB"]"#),
        "{}",
        said.out
    );
}

#[test]
fn cases_see_the_table_before_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "rate-limit");
    let cases = file(
        &folder,
        "cases.json",
        r#"[
            {"name": "first", "hook": "open",
             "expect": {"answer": {"verdict": "allow"}, "max_ms": 10000}},
            {"name": "wrong on purpose", "hook": "open",
             "expect": {"answer": {"verdict": "deny"}}},
            {"name": "refused settings", "hook": "open", "config": {"limit": []},
             "expect": {"refused": "limit"}}
        ]"#,
    );
    let config = r#"{"limits": [{"flows": 1, "window_seconds": 60}]}"#;
    let said = say(&["test", &component, &cases, "--config", config]);
    assert_eq!(said.exit, Exit::Failure);
    for line in [
        "ok    cases.json: first",
        "FAIL  cases.json: wrong on purpose",
        r#"`answer.verdict` is "allow", expected "deny""#,
        "ok    cases.json: refused settings",
        "3 cases: 2 passed, 1 failed",
    ] {
        assert!(
            said.out.contains(line),
            "{line}\n{}\n{}",
            said.out,
            said.problems
        );
    }

    // What one call leaves in the table is what the next one finds.
    let ran = say(&["run", &component, "--hook", "open", "--config", config]);
    assert_eq!(ran.exit, Exit::Success, "{}", ran.problems);
    let line = ran
        .out
        .lines()
        .find(|line| line.starts_with("kv "))
        .unwrap();
    let (key, value) = line
        .trim_start_matches("kv")
        .trim()
        .split_once(" = ")
        .unwrap();
    assert_eq!(value, "1");
    let full = serde_json::json!({
        "hook": "open",
        "kv": {key: 1},
        "expect": {"answer": {"code": "rate_limited"}, "kv": {key: 2}},
    });
    let cases = file(&folder, "full.json", &full.to_string());
    let said = say(&["test", &component, &cases, "--config", config]);
    assert_eq!(said.exit, Exit::Success, "{}", said.out);
}

#[test]
fn a_case_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "rate-limit");
    let cases = file(&folder, "bad.json", r#"{"name": "odd", "hook": "opens"}"#);
    let said = say(&["test", &component, &cases]);
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.problems.contains("`odd`"), "{}", said.problems);
    let said = say(&["run", &component]);
    assert_eq!(said.exit, Exit::Usage);
    let said = say(&["run", &component, "--hook", "mask"]);
    assert_eq!(said.exit, Exit::Usage, "it has no such hook: {}", said.out);
}

#[test]
fn bench_measures_instance_and_call() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let said = say(&["bench", &component, "--hook", "on-open", "--calls", "50"]);
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    for word in ["50 calls of `open`", "instance", "together", "memory"] {
        assert!(said.out.contains(word), "{}", said.out);
    }
}

/// Whoever tries a plugin has not vouched for it: its manifest and its cases say what they like.
#[test]
fn a_trial_reaches_nothing_that_was_not_granted_by_hand() {
    let reached = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    reached.set_nonblocking(true).unwrap();
    let host = reached.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "authzen-pdp");
    let manifest = folder.path().join("plugin.toml");
    let wants = std::fs::read_to_string(&manifest)
        .unwrap()
        .replace("fetch:pdp.corp.example", &format!("fetch:http://{host}"));
    std::fs::write(&manifest, wants).unwrap();
    let config = format!(r#"{{"url": "http://{host}/", "timeout_ms": 100}}"#);
    let case = format!(
        r#"{{"name": "it reaches out", "hook": "open", "config": {config},
             "grants": ["config", "log", "fetch:http://{host}"],
             "expect": {{"answer": {{"detail": "unavailable: the decision point: not_granted*"}}}}}}"#
    );
    let cases = file(&folder, "reach.json", &case);
    let run = ["run", &component, "--hook", "open", "--config", &config];
    let calls = ["bench", &component, "--hook", "open", "--calls", "1"];
    let bench = [&calls[..], &run[4..]].concat();
    let test = ["test", &component, &cases];
    for line in [&run[..], &test[..], &bench[..]] {
        let said = say(line);
        let wanted = format!("not granted: fetch:http://{host}");
        assert!(said.out.contains(&wanted), "{}{}", said.out, said.problems);
        assert!(said.out.contains("--grant-wanted"), "{}", said.out);
        assert!(reached.accept().is_err(), "{line:?} reached out");
    }
    // It waits for an answer in vain, and that is what was granted.
    say(&[&run[..], &["--grant-wanted"]].concat());
    assert!(reached.accept().is_ok());
}

#[test]
fn the_shipped_plugins_pass_their_cases() {
    for name in ["authzen-pdp", "geo-signal", "jwt-claims-header", "pii-mask"] {
        let folder = tempfile::tempdir().unwrap();
        let component = builtin(&folder, name);
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/{name}/cases"));
        let said = say(&["test", &component, &text(&cases)]);
        assert_eq!(
            said.exit,
            Exit::Success,
            "{name}\n{}{}",
            said.out,
            said.problems
        );
    }
}

/// A decision point of the test's making, which keeps what it was asked.
#[test]
fn authzen_pdp_asks_with_all_that_it_knows_and_passes_on_what_it_may() {
    use std::sync::Arc;

    use axum::Json;
    use axum::extract::State;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    type Asked = Arc<Mutex<Vec<Value>>>;
    let asked = Asked::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listening = tokio::net::TcpListener::bind("127.0.0.1:0");
    let listener = runtime.block_on(listening).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async |State(asked): State<Asked>, Json(question): Json<Value>| {
        let decision = question["resource"]["id"] != "secret";
        asked.lock().push(question);
        Json(json!({"decision": decision, "context": {"risk": "low", "reason_user": "not today"}}))
    };
    let router = axum::Router::new()
        .route("/", axum::routing::post(answer))
        .with_state(Arc::clone(&asked));
    runtime.spawn(async move { axum::serve(listener, router).await });

    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "authzen-pdp");
    let config = |more: Value| {
        let mut config = json!({"url": format!("http://{address}/"), "timeout_ms": 10_000});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    };
    let cases = json!([
        {"name": "what is passed on", "hook": "open", "config": config(json!({"pass_on": ["risk"]})),
         "input": {"connector": "db", "viewer": {"subject": "ann", "groups": ["dba"],
                   "attributes": {"amr": "otp"}}, "agent": {"attributes": {"site": "north"}}},
         "expect": {"answer": {"verdict": "allow", "attributes": {"authzen-pdp/risk": "low"}}}},
        {"name": "a key that it does not know", "hook": "open", "config": config(json!({})),
         "input": {"connector": "db"},
         "expect": {"answer": {"verdict": "deny", "code": "pdp_obligation"}}},
        {"name": "a no", "hook": "open", "config": config(json!({"pass_on": ["risk"]})),
         "input": {"connector": "secret"},
         "expect": {"answer": {"verdict": "deny", "code": "pdp_denied"}}},
    ]);
    let cases = file(&folder, "asked.json", &cases.to_string());
    let grant = format!("fetch:http://{address}");
    let granted = ["--grant", "config", "--grant", "log", "--grant", &grant];
    let said = say(&[&["test", &component, &cases], &granted[..]].concat());
    assert_eq!(said.exit, Exit::Success, "{}{}", said.out, said.problems);
    let asked = asked.lock();
    assert_eq!(asked.len(), 3);
    let properties = json!({"groups": ["dba"], "amr": "otp"});
    assert_eq!(asked[0]["subject"]["id"], "ann");
    assert_eq!(asked[0]["subject"]["properties"], properties);
    assert_eq!(asked[0]["context"]["agent_attributes"]["site"], "north");
}

#[test]
fn the_built_in_plugins_conform() {
    for name in [
        "authzen-pdp",
        "geo-signal",
        "header-inject",
        "jwt-claims-header",
        "log-mask",
        "pii-mask",
        "rate-limit",
        "scope-guard",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let component = builtin(&folder, name);
        let said = say(&["conformance", &component, "--time-ms", "2000"]);
        assert_eq!(
            said.exit,
            Exit::Success,
            "{name}\n{}{}",
            said.out,
            said.problems
        );
        assert!(said.out.contains("it conforms"), "{}", said.out);
    }
}

#[test]
fn templates_are_complete_and_named() {
    for lang in ["rust", "js", "python"] {
        let folder = tempfile::tempdir().unwrap();
        let into = text(folder.path());
        let said = say(&["new", "--lang", lang, "my-gate", "--into", &into]);
        assert_eq!(said.exit, Exit::Success, "{}", said.problems);
        let written = walk(&folder.path().join("my-gate"));
        assert!(
            written.iter().any(|path| path.ends_with("types.wit")),
            "{written:?}"
        );
        for path in &written {
            let content = std::fs::read_to_string(path).unwrap();
            assert!(!content.contains("{{"), "{}", path.display());
        }
        let again = say(&["new", "--lang", lang, "my-gate", "--into", &into]);
        assert_eq!(again.exit, Exit::Usage, "{}", again.out);
        assert_eq!(
            say(&["new", "--lang", lang, "My Gate", "--into", &into]).exit,
            Exit::Usage
        );
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}
