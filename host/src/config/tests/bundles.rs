//! `policy.bundle`.

use std::path::Path;
use std::time::Duration;

use super::super::{BundleSource, parse};
use super::{env, problem, problems, valid};

const KEY: &str = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

#[test]
fn without_trusted_keys_there_are_no_bundles() {
    assert_eq!(
        valid("policy: {bundle: {poll_ms: 500}}").policy.bundle,
        None
    );
    let found = problem("policy: {bundle: {source: hub.tar}}");
    assert!(found.message.contains("no effect"), "{found:?}");
    assert_eq!(found.key, "policy.bundle.source");
}

#[test]
fn a_bundle_section_is_read() {
    let text = bundle(
        "source: hub.tar, poll_ms: 500, auto_activate: false, keep: 3, \
         require: {no_new_allow: true, min_shadow_requests: 7}",
    );
    let file = Path::new("/etc/nc/cloud.yaml");
    let config = parse(&text, Some(file), &env(&[])).unwrap();
    let bundle = config.policy.bundle.unwrap();
    assert_eq!(bundle.source, BundleSource::Path("/etc/nc/hub.tar".into()));
    assert_eq!(bundle.state_dir, Path::new("/etc/nc/state"));
    assert_eq!((bundle.poll, bundle.keep), (Duration::from_millis(500), 3));
    assert!(!bundle.auto_activate && bundle.require.no_new_allow && !bundle.require.proof);
    assert_eq!(bundle.require.min_shadow_requests, 7);
    let pushed = valid(&self::bundle("keep: 1")).policy.bundle.unwrap();
    assert_eq!(pushed.source, BundleSource::Push);
}

#[test]
fn what_does_not_go_together_is_said() {
    let cases = [
        (
            format!("policy: {{dir: p, bundle: {{trusted_keys: ['{KEY}'], state_dir: s}}}}"),
            "exclude each other",
        ),
        (
            format!("policy: {{bundle: {{trusted_keys: ['{KEY}']}}}}"),
            "needs `policy.bundle.state_dir`",
        ),
        (bundle("required_signatures: 2"), "has 1"),
        (bundle("source: 'http://192.0.2.1/hub.tar'"), "plain HTTP"),
        (bundle("source: 'ftp://host/hub.tar'"), "ftp://"),
        (
            format!("policy: {{bundle: {{trusted_keys: ['{KEY}', '{KEY}'], state_dir: s}}}}"),
            "twice",
        ),
    ];
    for (text, expected) in cases {
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].message.contains(expected), "{text}: {found:?}");
    }
    assert!(
        valid(&bundle("source: 'http://127.0.0.1:1/hub.tar'"))
            .policy
            .bundle
            .is_some()
    );
}

#[test]
fn a_text_that_is_no_key_is_refused_and_not_repeated() {
    let secret = "nowconnect-secret-ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let found = problem(&format!(
        "policy: {{bundle: {{trusted_keys: ['{secret}'], state_dir: s}}}}"
    ));
    assert!(found.message.contains("not a public key"), "{found:?}");
    assert!(!format!("{found:?}").contains("AAAA"), "{found:?}");
}

#[test]
fn whether_there_are_bundles_is_decided_at_the_start() {
    let (without, with) = (valid("policy: {dir: p}"), valid(&bundle("keep: 1")));
    let changes = with.changes_from(&without);
    assert_eq!(changes.restart, ["policy.bundle.trusted_keys"]);
    assert_eq!(with.keeping_fixed(&without).policy, without.policy);
    let other = valid(&bundle("keep: 2, auto_activate: false"));
    assert_eq!(other.changes_from(&with).live, ["policy"]);
    let moved = valid(&bundle("keep: 1").replace("state_dir: state", "state_dir: other"));
    assert_eq!(
        moved.changes_from(&with).restart,
        ["policy.bundle.state_dir"]
    );
}

fn bundle(more: &str) -> String {
    format!("policy: {{bundle: {{trusted_keys: ['{KEY}'], state_dir: state, {more}}}}}")
}
