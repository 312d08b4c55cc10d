#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::time::{LATEST_SECONDS, parse, show};
use super::*;

#[test]
fn each_kind_of_entry_revokes_what_it_names_and_nothing_else() {
    let list = list(
        "# comments and blank lines are passed over\n\n\
         {\"agent\":\"stolen\",\"reason\":\"lost laptop\"}\n\
         {\"tenant\":\"acme\",\"agent\":\"edge\"}\n\
         {\"jti\":\"leaked\"}\n\
         {\"agent\":\"old\",\"issued_before\":1000}\n",
    );
    assert_eq!(list.len(), 4);
    assert!(list.is_revoked(&identity("default", "stolen", None, Some(5000))));
    assert!(!list.is_revoked(&identity("acme", "stolen", None, Some(5000))));
    assert!(list.is_revoked(&identity("acme", "edge", None, None)));
    assert!(!list.is_revoked(&identity("default", "edge", None, None)));
    assert!(list.is_revoked(&identity("any", "any", Some("leaked"), Some(5000))));
    assert!(!list.is_revoked(&identity("any", "any", Some("other"), Some(5000))));
    assert!(list.is_revoked(&identity("default", "old", None, Some(999))));
    assert!(!list.is_revoked(&identity("default", "old", None, Some(1000))));
    assert!(
        list.is_revoked(&identity("default", "old", None, None)),
        "without `iat` a token is older than any"
    );
}

#[test]
fn everything_before_a_time_is_revoked_by_the_latest_such_line() {
    let list = list("{\"issued_before\":2000}\n{\"issued_before\":1000}\n");
    assert!(list.is_revoked(&identity("a", "b", None, Some(1999))));
    assert!(!list.is_revoked(&identity("a", "b", None, Some(2000))));
    assert!(list.is_revoked(&identity("a", "b", None, None)));
}

#[test]
fn a_file_that_does_not_exist_revokes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let list = RevocationList::open(&folder.path().join("none"), 10).unwrap();
    assert!(list.is_empty());
    assert!(!list.reload().unwrap());
    assert!(RevocationList::empty().is_empty());
    assert!(!RevocationList::empty().reload().unwrap());
}

#[test]
fn a_bad_list_is_refused_whole_and_the_last_good_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.jsonl");
    std::fs::write(&path, "{\"agent\":\"a\"}\n").unwrap();
    let list = RevocationList::open(&path, 2).unwrap();
    let shared = list.clone();
    for bad in [
        "{\"agent\":\"b\"}\nnonsense\n",
        "{\"agent\":\"b\",\"jti\":\"c\"}\n",
        "{\"agnet\":\"b\"}\n",
        "{}\n",
        "{\"agent\":\"a b\"}\n",
        "{\"jti\":\"\"}\n",
        "{\"issued_before\":-1}\n",
        "{\"issued_before\":99999999999999}\n",
        "{\"tenant\":\"t\",\"jti\":\"b\"}\n",
        "{\"agent\":\"a\"}\n{\"agent\":\"b\"}\n{\"agent\":\"c\"}\n",
        "\u{0}\u{0}",
    ] {
        std::fs::write(&path, bad).unwrap();
        assert!(list.reload().is_err(), "{bad:?}");
        assert!(shared.is_revoked(&identity("default", "a", None, None)));
    }
    std::fs::write(&path, "{\"agent\":\"b\"}\n").unwrap();
    assert!(list.reload().unwrap());
    assert!(!list.reload().unwrap());
    assert!(!shared.is_revoked(&identity("default", "a", None, None)));
    assert!(shared.is_revoked(&identity("default", "b", None, None)));
}

#[test]
fn a_lost_file_lets_nobody_back_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.jsonl");
    std::fs::write(&path, "{\"agent\":\"a\"}\n").unwrap();
    let list = RevocationList::open(&path, 10).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(list.reload(), Err(RevocationError::Gone { .. })));
    assert!(list.is_revoked(&identity("default", "a", None, None)));
    std::fs::write(&path, "").unwrap();
    assert!(list.reload().unwrap());
    assert!(list.is_empty());
}

#[test]
fn a_line_names_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.jsonl");
    std::fs::write(&path, "{\"agent\":\"a\"}\n\n{\"agent\":7}\n").unwrap();
    let error = RevocationList::open(&path, 10).unwrap_err().to_string();
    assert!(error.contains("revoked.jsonl`:3:"), "{error}");
}

#[test]
fn writers_do_not_lose_each_others_entries() {
    let folder = tempfile::tempdir().unwrap();
    let path: Arc<PathBuf> = Arc::new(folder.path().join("deep/revoked.jsonl"));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let path = Arc::clone(&path);
            std::thread::spawn(move || {
                for number in 0..10 {
                    edit(&path, 100, |entries| {
                        entries.push(entry(&format!("w{writer}-{number}")));
                    })
                    .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(read(&path, 100).unwrap().unwrap().len(), 40);
}

#[test]
fn an_edit_that_would_be_too_long_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.jsonl");
    edit(&path, 1, |entries| entries.push(entry("a"))).unwrap();
    let refused = edit(&path, 1, |entries| entries.push(entry("b")));
    assert!(matches!(refused, Err(RevocationError::TooLong { .. })));
    assert_eq!(read(&path, 1).unwrap().unwrap(), [entry("a")]);
}

#[test]
fn a_symlink_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    edit(&link, 10, |entries| entries.push(entry("a"))).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(read(&target, 10).unwrap().unwrap().len(), 1);
}

#[test]
fn times_are_read_and_shown() {
    for (text, seconds) in [
        ("now", 42),
        ("0", 0),
        ("1767225600", 1_767_225_600),
        ("1970-01-01", 0),
        ("2026-01-01", 1_767_225_600),
        ("2026-01-01T00:00:00Z", 1_767_225_600),
        ("2026-01-01T02:00:00+02:00", 1_767_225_600),
        ("2025-12-31T22:30:00-01:30", 1_767_225_600),
        ("2026-01-01T00:00:00.999Z", 1_767_225_600),
        ("2000-02-29T12:34:56Z", 951_827_696),
    ] {
        assert_eq!(parse(text, 42), Ok(seconds), "{text}");
    }
    assert_eq!(show(1_767_225_600), "2026-01-01T00:00:00Z");
    assert_eq!(show(951_827_696), "2000-02-29T12:34:56Z");
    assert_eq!(show(u64::MAX), "9999-12-31T23:59:59Z");
    for text in [
        "",
        "yesterday",
        "2026-1-1",
        "2026-13-01",
        "2026-02-29",
        "1900-01-01",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00Z",
        "-5",
        "99999999999999",
        "2026-01-01T00:00:00+2",
        "1970-01-01T00:00:00+01:00",
    ] {
        assert!(parse(text, 42).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn a_shown_time_reads_the_same(seconds in 0..=LATEST_SECONDS) {
        prop_assert_eq!(parse(&show(seconds), 0), Ok(seconds));
    }

    #[test]
    fn no_time_makes_it_panic(text in "[0-9TZ:+.-]{0,30}") {
        let _ = parse(&text, 0);
    }

    #[test]
    fn an_entry_reads_as_it_was_written(
        agent in "[A-Za-z0-9._-]{1,128}",
        tenant in prop::option::of("[a-z]{1,64}"),
        jti in "\\PC{1,60}",
        issued_before in 0..LATEST_SECONDS,
        kind in 0..4,
        reason in prop::option::of("\\PC{0,100}"),
    ) {
        let tenant = TenantName::parse(tenant.as_deref().unwrap_or("default")).unwrap();
        let agent = AgentId::parse(&agent).unwrap();
        let revoked = match kind {
            0 => Revoked::Agent { tenant, agent },
            1 => Revoked::Jti { jti },
            2 => Revoked::IssuedBefore { issued_before },
            _ => Revoked::AgentIssuedBefore { tenant, agent, issued_before },
        };
        let entry = Revocation { revoked, reason, revoked_at: 7 };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        edit(&path, 1, |entries| entries.push(entry.clone())).unwrap();
        prop_assert_eq!(read(&path, 1).unwrap().unwrap(), vec![entry]);
    }
}

fn entry(agent: &str) -> Revocation {
    Revocation {
        revoked: Revoked::Agent {
            tenant: TenantName::default(),
            agent: AgentId::parse(agent).unwrap(),
        },
        reason: None,
        revoked_at: 1,
    }
}

fn list(text: &str) -> RevocationList {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.jsonl");
    std::fs::write(&path, text).unwrap();
    RevocationList::open(&path, 100).unwrap()
}

fn identity(tenant: &str, agent: &str, jti: Option<&str>, issued_at: Option<u64>) -> AgentIdentity {
    AgentIdentity {
        tenant: TenantName::parse(tenant).unwrap(),
        agent_id: AgentId::parse(agent).unwrap(),
        issuer: Arc::from("https://idp.example"),
        subject: None,
        jti: jti.map(str::to_owned),
        issued_at: issued_at.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
        expires_at: UNIX_EPOCH + Duration::from_secs(LATEST_SECONDS),
        scopes: None,
        tags: BTreeMap::new(),
        groups: Vec::new(),
        ephemeral: false,
    }
}
