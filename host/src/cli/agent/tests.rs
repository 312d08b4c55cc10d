#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser;

use super::*;

#[test]
fn revoking_showing_and_taking_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revoked.jsonl");
    let (exit, out, _) = run(
        &file,
        &["revoke", "--agent", "acme/edge-7", "--reason", "stolen"],
    );
    assert_eq!(exit, Exit::Success);
    assert!(
        out.starts_with("revoked: {\"tenant\":\"acme\",\"agent\":\"edge-7\""),
        "{out}"
    );
    assert!(out.contains(&format!("in {}", file.display())), "{out}");
    let (_, out, _) = run(&file, &["revoke", "--agent", "acme/edge-7"]);
    assert!(out.starts_with("renewed: "), "{out}");
    run(&file, &["revoke", "--jti", "token-1"]);
    run(
        &file,
        &["revoke", "--issued-before", "2026-01-01T00:00:00Z"],
    );
    run(
        &file,
        &["revoke", "--agent", "b", "--issued-before", "1767225600"],
    );

    let (_, out, _) = run(&file, &["revoked"]);
    for part in [
        "agent acme/edge-7",
        "token token-1",
        "everything issued before 2026-01-01T00:00:00Z",
        "agent b issued before 2026-01-01T00:00:00Z",
    ] {
        assert!(out.contains(part), "{out}");
    }
    assert_eq!(out.lines().count(), 4);
    let (_, json, _) = run(&file, &["revoked", "--json"]);
    assert_eq!(json, std::fs::read_to_string(&file).unwrap());

    assert_eq!(
        run(&file, &["unrevoke", "--jti", "token-1"]).0,
        Exit::Success
    );
    let (exit, _, problems) = run(&file, &["unrevoke", "--jti", "token-1"]);
    assert_eq!(exit, Exit::Usage);
    assert!(problems.contains("nothing like this"), "{problems}");
    assert_eq!(run(&file, &["revoked", "--json"]).1.lines().count(), 3);
}

#[test]
fn mistakes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revoked.jsonl");
    for arguments in [
        &["revoke", "--agent", "a b"][..],
        &["revoke", "--agent", "a/b/c"],
        &["revoke", "--issued-before", "yesterday"],
        &["revoke", "--jti", ""],
    ] {
        let (exit, _, problems) = run(&file, arguments);
        assert_eq!(exit, Exit::Usage, "{arguments:?}");
        assert!(problems.starts_with("error: "), "{problems}");
    }
    for arguments in [
        &["x", "revoke"][..],
        &["x", "revoke", "--jti", "a", "--agent", "b"],
        &["x", "revoke", "--jti", "a", "--issued-before", "now"],
    ] {
        assert!(Cli::try_parse_from(arguments).is_err(), "{arguments:?}");
    }
    assert!(!file.exists());
    std::fs::write(&file, "broken").unwrap();
    assert_eq!(run(&file, &["revoke", "--agent", "a"]).0, Exit::Failure);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "broken");
}

#[test]
fn the_list_is_found_by_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cloud.yaml");
    std::fs::write(&config, "security: {revocation_file: list.jsonl}").unwrap();
    let env = BTreeMap::from([("NC_CONFIG".to_owned(), config.to_str().unwrap().to_owned())]);
    let command = Cli::try_parse_from(["x", "revoke", "--agent", "a"])
        .unwrap()
        .command;
    let exit = command.run_with(&env, &mut Vec::new(), &mut Vec::new());
    assert_eq!(exit, Exit::Success);
    assert!(folder.path().join("list.jsonl").exists());

    std::fs::write(&config, "security: {revocation_file: null}").unwrap();
    let command = Cli::try_parse_from(["x", "revoked"]).unwrap().command;
    let mut problems = Vec::new();
    let exit = command.run_with(&env, &mut Vec::new(), &mut problems);
    assert_eq!(exit, Exit::Usage);
    assert!(String::from_utf8(problems).unwrap().contains("turned off"));
}

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn run(file: &Path, arguments: &[&str]) -> (Exit, String, String) {
    let all = [&["x"], arguments, &["--file", file.to_str().unwrap()]].concat();
    let command = Cli::try_parse_from(all).unwrap().command;
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let exit = command.run_with(&BTreeMap::new(), &mut out, &mut problems);
    (
        exit,
        String::from_utf8(out).unwrap(),
        String::from_utf8(problems).unwrap(),
    )
}
