//! A released version of the plugin contract never changes.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::repository;

/// Digests of the files of released folders, as `sha256sum` writes them.
const RELEASED: &str = "wit/released.sha256";

#[test]
fn what_is_released_is_as_it_was() {
    let released = released();
    let listed: BTreeMap<String, String> = released
        .keys()
        .map(|path| {
            let bytes = std::fs::read(repository::root().join("wit").join(path))
                .unwrap_or_else(|error| panic!("wit/{path} is released and gone: {error}"));
            (path.clone(), hex(&bytes))
        })
        .collect();
    assert_eq!(
        listed, released,
        "a released folder never changes: put the change into a new version, see wit/README.md"
    );
}

#[test]
fn nothing_is_added_to_what_is_released() {
    let released = released();
    let folders: BTreeSet<&str> = released.keys().filter_map(|path| folder(path)).collect();
    assert!(!folders.is_empty(), "{RELEASED} names no folder");
    for path in repository::files() {
        let Ok(inside) = path.strip_prefix("wit") else {
            continue;
        };
        let inside = inside.to_str().unwrap();
        let is_released = folder(inside).is_some_and(|folder| folders.contains(folder));
        assert!(
            !is_released || released.contains_key(inside),
            "wit/{inside} is not in {RELEASED}, and its folder is released"
        );
    }
}

/// By path within `wit/`.
fn released() -> BTreeMap<String, String> {
    repository::text(RELEASED.as_ref())
        .unwrap()
        .lines()
        .map(|line| {
            let (digest, path) = line.split_once("  ").unwrap();
            (path.to_owned(), digest.to_owned())
        })
        .collect()
}

fn folder(path: &str) -> Option<&str> {
    path.split_once('/').map(|(folder, _)| folder)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
