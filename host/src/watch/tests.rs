#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

#[tokio::test]
async fn a_changed_file_is_named_and_its_neighbours_are_not() {
    let (folder, mut watcher) = watching(&[
        (Watched::Config, "cloud.yaml"),
        (Watched::Revocations, "revoked.jsonl"),
    ]);
    fs::write(folder.path().join("neighbour"), "x").unwrap();
    fs::write(folder.path().join("cloud.yaml"), "a: 1").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Config]);
    fs::write(folder.path().join("revoked.jsonl"), "x").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Revocations]);
    fs::remove_file(folder.path().join("revoked.jsonl")).unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Revocations]);
}

#[tokio::test]
async fn a_file_that_an_editor_puts_in_place_counts_once() {
    let (folder, mut watcher) = watching(&[(Watched::Config, "cloud.yaml")]);
    let new = folder.path().join(".cloud.yaml.swp");
    for text in ["a: 1", "a: 2", "a: 3"] {
        fs::write(&new, text).unwrap();
        fs::rename(&new, folder.path().join("cloud.yaml")).unwrap();
    }
    assert_eq!(next(&mut watcher).await, [Watched::Config]);
    assert!(nothing_more(&mut watcher).await);
    // Renames go on being seen, though the watched inode is gone.
    fs::write(&new, "a: 4").unwrap();
    fs::rename(&new, folder.path().join("cloud.yaml")).unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Config]);
}

/// A mounted secret: the file is a link into `..data`, which is a link that is swapped.
#[tokio::test]
async fn a_swapped_symlink_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["..v1", "..v2"] {
        fs::create_dir(folder.path().join(version)).unwrap();
        fs::write(folder.path().join(version).join("tls.crt"), version).unwrap();
        fs::write(folder.path().join(version).join("tls.key"), version).unwrap();
    }
    symlink("..v1", folder.path().join("..data")).unwrap();
    symlink("..data/tls.crt", folder.path().join("tls.crt")).unwrap();
    symlink("..data/tls.key", folder.path().join("tls.key")).unwrap();
    let mut set = WatchSet::default();
    set.add(Watched::Certificates, &folder.path().join("tls.crt"));
    set.add(Watched::Certificates, &folder.path().join("tls.key"));
    let mut watcher = Watcher::start(set).unwrap();
    for version in ["..v2", "..v1"] {
        symlink(version, folder.path().join("..data_tmp")).unwrap();
        fs::rename(
            folder.path().join("..data_tmp"),
            folder.path().join("..data"),
        )
        .unwrap();
        assert_eq!(next(&mut watcher).await, [Watched::Certificates]);
    }
}

#[tokio::test]
async fn a_folder_is_watched_with_all_below_but_not_its_noise() {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    fs::create_dir_all(policies.join("deep")).unwrap();
    fs::write(policies.join("deep/a.cedar"), "1").unwrap();
    let mut set = WatchSet::default();
    set.add(Watched::Policies, &policies);
    let mut watcher = Watcher::start(set).unwrap();

    fs::write(policies.join(".a.cedar.swp"), "x").unwrap();
    fs::write(policies.join("a.cedar~"), "x").unwrap();
    fs::write(policies.join("deep/a.cedar"), "22").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Policies]);
    fs::write(policies.join(".a.cedar.swp"), "y").unwrap();
    assert!(nothing_more(&mut watcher).await);
    fs::create_dir(policies.join("new")).unwrap();
    fs::write(policies.join("new/b.cedar"), "x").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Policies]);
    fs::write(policies.join("new/b.cedar"), "xx").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Policies]);

    // The whole folder replaced by another.
    fs::rename(&policies, folder.path().join("old")).unwrap();
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("c.cedar"), "x").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Policies]);
    fs::write(policies.join("c.cedar"), "xx").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Policies]);
}

#[tokio::test]
async fn several_changes_of_a_burst_come_together() {
    let (folder, mut watcher) = watching(&[
        (Watched::Config, "cloud.yaml"),
        (Watched::Certificates, "tls.crt"),
        (Watched::Certificates, "tls.key"),
    ]);
    for name in ["tls.crt", "cloud.yaml", "tls.key"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    assert_eq!(
        next(&mut watcher).await,
        [Watched::Config, Watched::Certificates]
    );
}

#[tokio::test]
async fn other_paths_can_be_watched_later() {
    let (folder, mut watcher) = watching(&[(Watched::Config, "cloud.yaml")]);
    let plugin = folder.path().join("later/plugin.wasm");
    let mut set = watcher.set.clone();
    set.add(Watched::Plugins, &plugin);
    watcher.update(set.clone());
    watcher.update(set);
    fs::create_dir(folder.path().join("later")).unwrap();
    fs::write(&plugin, "x").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Plugins]);
    fs::write(&plugin, "xx").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Plugins]);
    fs::write(folder.path().join("cloud.yaml"), "y").unwrap();
    assert_eq!(next(&mut watcher).await, [Watched::Config]);
}

#[tokio::test]
async fn a_change_survives_a_cancelled_wait() {
    let (folder, mut watcher) = watching(&[(Watched::Config, "cloud.yaml")]);
    fs::write(folder.path().join("cloud.yaml"), "x").unwrap();
    let cancelled = tokio::time::timeout(Duration::from_millis(50), watcher.next()).await;
    assert!(cancelled.is_err());
    assert_eq!(next(&mut watcher).await, [Watched::Config]);
}

#[test]
fn every_file_of_a_configuration_is_watched() {
    let config = crate::config::parse(
        "policy: {dir: /p}\nplugins: {require_signature: false, list: [{name: a, file: /a.wasm}]}\n\
         tunnel: {tls: {cert_file: /c, key_file: /k}}\n\
         admin: {token_file: /t, tls: {cert_file: /ac, key_file: /ak, client_ca_file: /ca}}\n\
         security: {revocation_file: /r, jwks_ca_bundle: /b, \
           issuers: [{issuer: a, jwks_file: /j}, {issuer: 'https://b'}]}\n\
         pdp: {url: 'https://pdp', token_file: /pt, ca_bundle: /pb}\n",
        Some(Path::new("/etc/cloud.yaml")),
        &BTreeMap::new(),
    )
    .unwrap();
    let set = WatchSet::of(&config);
    let paths: Vec<String> = set
        .paths
        .iter()
        .map(|(what, path)| format!("{what:?} {}", path.display()))
        .collect();
    assert_eq!(
        paths,
        [
            "Config /etc/cloud.yaml",
            "Policies /p",
            "Plugins /a.wasm",
            "Plugins /a.wasm.sig",
            "Certificates /ac",
            "Certificates /ak",
            "Certificates /c",
            "Certificates /ca",
            "Certificates /k",
            "Certificates /pb",
            "Certificates /pt",
            "Certificates /t",
            "Revocations /r",
            "Keys /b",
            "Keys /j",
        ]
    );
}

fn watching(paths: &[(Watched, &str)]) -> (TempDir, Watcher) {
    let folder = tempfile::tempdir().unwrap();
    let mut set = WatchSet::default();
    for (what, name) in paths {
        let path = folder.path().join(name);
        fs::write(&path, "before").unwrap();
        set.add(*what, &path);
    }
    (folder, Watcher::start(set).unwrap())
}

async fn next(watcher: &mut Watcher) -> Vec<Watched> {
    tokio::time::timeout(Duration::from_secs(20), watcher.next())
        .await
        .unwrap()
        .into_iter()
        .collect()
}

async fn nothing_more(watcher: &mut Watcher) -> bool {
    tokio::time::timeout(Duration::from_millis(600), watcher.next())
        .await
        .is_err()
}
