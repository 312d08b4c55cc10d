#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

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

#[test]
fn the_shipped_plugins_pass_their_cases() {
    for name in ["geo-signal", "jwt-claims-header", "pii-mask"] {
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

#[test]
fn the_built_in_plugins_conform() {
    for name in [
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
fn a_signature_is_over_the_bytes_and_by_somebody() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let key = |name: &str| text(&folder.path().join(name));
    for name in ["ours", "theirs"] {
        assert_eq!(say(&["keygen", &key(name)]).exit, Exit::Success);
    }
    assert_eq!(
        say(&["keygen", &key("ours")]).exit,
        Exit::Usage,
        "never over a key"
    );
    let unsigned = say(&["verify", &component, "--key", &key("ours.pub")]);
    assert!(
        unsigned.problems.contains("no signature"),
        "{}",
        unsigned.problems
    );

    let said = say(&["sign", &component, "--key", &key("ours")]);
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    assert_eq!(
        say(&["verify", &component, "--key", &key("ours.pub")]).exit,
        Exit::Success
    );
    let said = say(&["verify", &component, "--key", &key("theirs.pub")]);
    assert_eq!(said.exit, Exit::Failure);
    assert!(
        said.problems.contains("none of the trusted keys"),
        "{}",
        said.problems
    );
    assert!(
        say(&["inspect", &component])
            .out
            .contains("signature  holds, by ed25519:")
    );

    let mut bytes = std::fs::read(&component).unwrap();
    bytes.push(0);
    std::fs::write(&component, bytes).unwrap();
    let said = say(&["verify", &component, "--key", &key("ours.pub")]);
    assert!(said.problems.contains("does not hold"), "{}", said.problems);
}

#[test]
fn a_component_goes_into_a_registry_as_the_tools_lay_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let key = text(&folder.path().join("key"));
    assert_eq!(say(&["keygen", &key]).exit, Exit::Success);
    assert_eq!(
        say(&["sign", &component, "--key", &key]).exit,
        Exit::Success
    );

    let registry = registry::Registry::start();
    let reference = format!("oci+http://{}/team/guard:1.0", registry.address);
    let said = say(&["push", &component, &reference]);
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    let stored = registry.stored();
    let manifest: serde_json::Value = serde_json::from_slice(&stored["manifests/1.0"]).unwrap();
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/wasm");
    let blob = |described: &serde_json::Value| {
        stored[&format!("blobs/{}", described["digest"].as_str().unwrap())].clone()
    };
    assert_eq!(blob(layer), std::fs::read(&component).unwrap());
    let config: serde_json::Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
    assert_eq!(config["layerDigests"][0], layer["digest"]);
    let signatures = manifest["annotations"]["dev.nowconnect.signatures"]
        .as_str()
        .unwrap();
    assert_eq!(
        signatures,
        std::fs::read_to_string(format!("{component}.sig")).unwrap()
    );

    let again = say(&["push", &component, &reference]);
    assert_eq!(
        again.out, said.out,
        "the same component is the same artifact"
    );
    registry.refuse();
    let refused = say(&["push", &component, &reference]);
    assert_eq!(refused.exit, Exit::Failure, "{}", refused.out);
    for reference in [
        "guard:1.0",
        "oci://guard",
        "oci://team/guard:1",
        "oci://r.example/g@sha256:0",
    ] {
        assert_eq!(
            say(&["push", &component, reference]).exit,
            Exit::Usage,
            "{reference}"
        );
    }
}

/// As much of a registry as a push needs.
mod registry {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
    use parking_lot::Mutex;
    use tokio::runtime::Runtime;

    #[derive(Default)]
    struct Shelf {
        stored: Mutex<BTreeMap<String, Vec<u8>>>,
        refuses: AtomicBool,
    }

    pub(super) struct Registry {
        pub(super) address: SocketAddr,
        shelf: Arc<Shelf>,
        /// Serves until it is dropped.
        _runtime: Runtime,
    }

    impl Registry {
        pub(super) fn start() -> Self {
            let runtime = Runtime::new().unwrap();
            let shelf = Arc::new(Shelf::default());
            let listening = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
            let listener = runtime.block_on(listening).unwrap();
            let address = listener.local_addr().unwrap();
            let router = Router::new()
                .fallback(answer)
                .with_state(Arc::clone(&shelf));
            runtime.spawn(async move { axum::serve(listener, router).await });
            Self {
                address,
                shelf,
                _runtime: runtime,
            }
        }

        /// What was pushed, by `blobs/<digest>` and `manifests/<tag>`.
        pub(super) fn stored(&self) -> BTreeMap<String, Vec<u8>> {
            self.shelf.stored.lock().clone()
        }

        pub(super) fn refuse(&self) {
            self.shelf.refuses.store(true, Ordering::Relaxed);
        }
    }

    type Answer = (StatusCode, [(HeaderName, String); 1]);

    async fn answer(
        State(shelf): State<Arc<Shelf>>,
        method: Method,
        uri: Uri,
        _: HeaderMap,
        body: Bytes,
    ) -> Answer {
        let at = |place: &str| [(header::LOCATION, place.to_owned())];
        let path = uri
            .path()
            .trim_start_matches("/v2/")
            .trim_start_matches("team/guard/");
        if shelf.refuses.load(Ordering::Relaxed) {
            return (StatusCode::FORBIDDEN, at(""));
        }
        match (&method, path) {
            (&Method::POST, "blobs/uploads/") => {
                (StatusCode::ACCEPTED, at("/v2/team/guard/upload"))
            }
            (&Method::PUT, "upload") => {
                let digest = uri.query().unwrap().rsplit_once("digest=").unwrap().1;
                let name = format!("blobs/{}", digest.replace("%3A", ":"));
                shelf.stored.lock().insert(name.clone(), body.to_vec());
                (StatusCode::CREATED, at(&format!("/v2/team/guard/{name}")))
            }
            (&Method::PUT, manifest) if manifest.starts_with("manifests/") => {
                shelf
                    .stored
                    .lock()
                    .insert(manifest.to_owned(), body.to_vec());
                (StatusCode::CREATED, at(uri.path()))
            }
            (&Method::GET, _) => (StatusCode::OK, at("")),
            _ => (StatusCode::NOT_FOUND, at("")),
        }
    }
}

#[test]
fn a_secret_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let key = text(&folder.path().join("key"));
    assert_eq!(say(&["keygen", &key]).exit, Exit::Success);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = say(&["sign", &component, "--key", &key]);
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.problems.contains("chmod 600"), "{}", said.problems);
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
