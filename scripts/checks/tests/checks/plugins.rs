//! The road of a plugin's author: each template builds and tests green at once, each example runs,
//! and `docs/plugin-guide.md` shows what works.
//!
//! The guide's blocks are run as they stand: those tagged `sh rust`, `sh js` and `sh python` one
//! after another in a folder of their own, `rust plugin`, `toml plugin` and `json plugin` as the
//! source, manifest and cases of one more plugin.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::documents::blocks_of;
use crate::gateway::{binary, clean};
use crate::repository::root;

/// A toolchain is fetched and a runtime compiled: minutes on a machine that does other work.
const DEADLINE: Duration = Duration::from_secs(1200);

/// The guide.
const GUIDE: &str = "docs/plugin-guide.md";

#[test]
fn the_road_in_rust_ends_with_a_signed_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let said = walk("sh rust", folder.path());
    for line in [
        "5 cases: 5 passed, 0 failed",
        "it conforms",
        "right: signed as visiting-hours 0.1.0 by ed25519:",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    // The folder is there and works, so the guide's longer plugin takes its place.
    let plugin = folder.path().join("visiting-hours");
    for (tag, file) in [
        ("rust plugin", "src/lib.rs"),
        ("toml plugin", "plugin.toml"),
        ("json plugin", "cases/open.json"),
    ] {
        let blocks = blocks_of(Path::new(GUIDE), tag);
        assert_eq!(blocks.len(), 1, "{GUIDE} has one block `{tag}`");
        std::fs::write(plugin.join(file), &blocks[0]).unwrap();
    }
    let said = shell("make", &plugin);
    assert!(
        said.contains(" 0 failed") && said.contains("it conforms"),
        "{said}"
    );
}

#[test]
#[ignore = "slow: fetches a JavaScript toolchain and compiles QuickJS"]
fn the_road_in_javascript_ends_with_a_signed_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let said = walk("sh js", folder.path());
    for line in [
        "5 cases: 5 passed, 0 failed",
        "it conforms",
        "right: signed as visiting-hours 0.1.0 by ed25519:",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[test]
#[ignore = "slow: fetches a Python toolchain and compiles CPython"]
fn the_road_in_python_ends_with_a_signed_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let said = walk("sh python", folder.path());
    for line in [
        "5 cases: 5 passed, 0 failed",
        "it conforms",
        "right: signed as visiting-hours 0.1.0 by ed25519:",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[test]
#[ignore = "slow: fetches a C compiler"]
fn the_example_in_c_runs() {
    example("c");
}

#[test]
#[ignore = "slow: fetches a Go toolchain"]
fn the_example_in_go_runs() {
    example("go");
}

#[test]
#[ignore = "slow: fetches a JavaScript toolchain and compiles QuickJS"]
fn the_example_in_javascript_runs() {
    example("javascript");
}

#[test]
#[ignore = "slow: fetches a Python toolchain and compiles CPython"]
fn the_example_in_python_runs() {
    example("python");
}

fn example(language: &str) {
    let said = shell("./run.sh", &root().join("examples/plugins").join(language));
    assert!(
        said.contains(" 0 failed") && said.contains("it conforms"),
        "{said}"
    );
}

/// Runs the guide's blocks of a kind, and says what they printed.
fn walk(tag: &str, folder: &Path) -> String {
    let blocks = blocks_of(Path::new(GUIDE), tag);
    assert!(!blocks.is_empty(), "{GUIDE} has no block `{tag}`");
    // What was built before is built again in a moment.
    let script = format!("set -eux\n{}", blocks.concat());
    shell(&script, folder)
}

fn shell(script: &str, folder: &Path) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let output = |log: &Path| Stdio::from(File::options().append(true).open(log).unwrap());
    let program = binary("nowconnect");
    let mut path = vec![program.parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    let mut command: Command = clean(Path::new("bash"));
    command
        .args(["-c", script])
        .current_dir(folder)
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("CARGO_TARGET_DIR", target().join("template"))
        .env("NOWCONNECT_EXAMPLE_DIR", target().join("examples"))
        .env_remove("NOWCONNECT")
        .stdin(Stdio::null())
        .stdout(output(log.path()))
        .stderr(output(log.path()));
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{script}: still running after {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = std::fs::read_to_string(log.path()).unwrap();
    assert!(status.success(), "{script}: {status}\n{said}");
    said
}

/// Cargo's folder for what it builds.
fn target() -> PathBuf {
    let program = binary("nowconnect");
    program.ancestors().nth(2).unwrap().to_owned()
}
