#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::{Capability, EditKind, GrantError, Grants};

#[test]
fn nothing_is_allowed_without_a_grant() {
    let grants = Grants::default();
    for capability in Capability::ALL {
        assert!(!grants.allows(capability));
    }
    assert!(!grants.allows_signal("DE"));
    assert!(!grants.allows_edit(EditKind::Set, "x-a"));
}

#[test]
fn kv_has_a_quota() {
    assert_eq!(parse(&["kv"]).kv_quota_bytes(), 1024 * 1024);
    assert_eq!(parse(&["kv:16MiB"]).kv_quota_bytes(), 16 * 1024 * 1024);
    assert_eq!(parse(&["kv:512KiB"]).kv_quota_bytes(), 512 * 1024);
    assert!(Grants::parse(&["kv:16GB".to_owned()]).is_err());
}

#[test]
fn signals_are_named_or_begin_alike() {
    let grants = parse(&["signals:DE, FR", "signals:risk-*"]);
    assert!(grants.allows_signal("DE"));
    assert!(grants.allows_signal("risk-high"));
    assert!(!grants.allows_signal("DEU"));
    assert!(parse(&["signals:*"]).allows_signal("anything"));
}

#[test]
fn edits_are_allowed_by_kind_and_name() {
    let grants = parse(&["headers.set:x-tenant-*", "headers.remove:server"]);
    assert!(grants.allows_edit(EditKind::Set, "x-tenant-id"));
    assert!(!grants.allows_edit(EditKind::Append, "x-tenant-id"));
    assert!(!grants.allows_edit(EditKind::Set, "x-other"));
    assert!(grants.allows_edit(EditKind::Remove, "server"));
}

#[test]
fn a_pattern_never_covers_names_that_carry_authority() {
    let all = parse(&["headers.set:*"]);
    for name in ["host", "authorization", "cookie", "set-cookie", "forwarded"] {
        assert!(!all.allows_edit(EditKind::Set, name), "{name}");
        let exact = parse(&[&format!("headers.set:{name}")]);
        assert!(exact.allows_edit(EditKind::Set, name), "{name}");
    }
}

#[test]
fn hop_by_hop_fields_cannot_be_granted() {
    let all = parse(&["headers.set:*"]);
    for name in super::NEVER_EDITED {
        assert!(!all.allows_edit(EditKind::Set, name), "{name}");
        assert!(Grants::parse(&[format!("headers.set:{name}")]).is_err());
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for grant in [
        "root",
        "kvs",
        "log:debug",
        "headers.set",
        "headers.set:",
        "headers.set:X-A",
        "headers.set:a*b",
        "signals",
    ] {
        let error = Grants::parse(&[grant.to_owned()]).unwrap_err();
        assert!(error.to_string().contains(grant), "{error}");
    }
    assert_eq!(
        Grants::parse(&["root".to_owned()]),
        Err(GrantError::Unknown("root".to_owned()))
    );
}

fn parse(grants: &[&str]) -> Grants {
    let grants: Vec<String> = grants.iter().map(|grant| (*grant).to_owned()).collect();
    Grants::parse(&grants).unwrap()
}
