//! The shipped policy cases under the policy language's own command line: what holds here must
//! hold for whoever checks his policies with it.

use std::path::{Path, PathBuf};

use crate::parts::{program, run_ok, skip_without};
use crate::repository::{files, root, text};

#[test]
#[ignore = "slow: needs the stock `cedar` program, which `make test-all` builds"]
fn the_stock_cedar_runs_every_shipped_case() {
    if skip_without(&["cedar"]) {
        return;
    }
    let stock = run_ok(program("cedar").arg("--version"));
    assert_eq!(
        stock.split_whitespace().last(),
        Some(engine_version().as_str()),
        "the program is of another version than the engine"
    );
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("all.cedar");
    std::fs::write(&policies, concatenated()).unwrap();
    let cases = listed("policies/tests", "json");
    assert!(!cases.is_empty(), "there are no cases");
    for case in cases {
        let said = run_ok(
            program("cedar")
                .arg("run-tests")
                .arg("--policies")
                .arg(&policies)
                .arg("--schema")
                .arg(root().join("policies/schema.cedarschema"))
                .arg("--tests")
                .arg(root().join(&case)),
        );
        let verdict = said.lines().last().unwrap_or_default();
        assert!(
            verdict.ends_with(" passed, 0 failed") && verdict != "results: 0 passed, 0 failed",
            "{}: {said}",
            case.display()
        );
    }
}

/// The version of the engine that the hub is built with.
fn engine_version() -> String {
    let lock = text(Path::new("Cargo.lock")).unwrap();
    let mut lines = lock.lines();
    lines
        .find(|line| *line == r#"name = "cedar-policy""#)
        .unwrap();
    let version = lines.next().unwrap().strip_prefix("version = ").unwrap();
    version.trim_matches('"').to_owned()
}

/// All shipped policies as the one file that the program takes.
fn concatenated() -> String {
    listed("policies", "cedar")
        .iter()
        .map(|path| text(path).unwrap() + "\n")
        .collect()
}

/// The tracked files of a folder, not of those below it.
fn listed(folder: &str, extension: &str) -> Vec<PathBuf> {
    files()
        .into_iter()
        .filter(|path| path.parent() == Some(Path::new(folder)))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}
