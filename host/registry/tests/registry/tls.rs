//! TLS, and a user with no more rights than the registry needs.

use std::path::Path;
use std::time::Duration;

use nowconnect_registry::Secret;
use nowconnect_registry::redis::{Eviction, RedisConfig, RedisTls};

use crate::servers::{Authority, Server, skip_without_redis};
use crate::standalone::{open, subject, until_away, until_healthy};
use crate::suite::conforms;

const PASSWORD: &str = "hunter2 with spaces";

/// As `docs/protocols/registry.md` gives them.
pub(crate) const RIGHTS: [&str; 14] = [
    "~nowconnect:*",
    "+@connection",
    "+evalsha",
    "+eval",
    "+get",
    "+set",
    "+del",
    "+incrby",
    "+pexpire",
    "+pttl",
    "+@hash",
    "+@set",
    "+@sortedset",
    "+time",
];

/// A server that takes TLS alone, and of clients with a certificate.
fn server(authority: &Authority, name: &str, rights: &[&str]) -> Server {
    let (cert, key) = authority.issue(name);
    let path = |path: &Path| path.display().to_string();
    let server = Server::prepare(&[]);
    let port = server.port.to_string();
    let arguments = [
        "--tls-port",
        &port,
        "--port",
        "0",
        "--tls-cert-file",
        &path(&cert),
        "--tls-key-file",
        &path(&key),
        "--tls-ca-cert-file",
        &path(&authority.bundle()),
    ]
    .map(str::to_owned);
    let client = [
        "--tls",
        "--cacert",
        &path(&authority.bundle()),
        "--cert",
        &path(&cert),
        "--key",
        &path(&key),
    ]
    .map(str::to_owned);
    let server = server.with(&arguments, &client).started();
    let mut user = vec!["ACL", "SETUSER", "hub", "on"];
    let password = format!(">{PASSWORD}");
    user.push(&password);
    user.extend(rights);
    assert_eq!(server.cli(&user), "OK");
    // Nobody else may do anything.
    assert_eq!(server.cli(&["ACL", "SETUSER", "default", "off"]), "OK");
    server
}

fn login(config: &mut RedisConfig, authority: &Authority) {
    let (cert_file, key_file) = authority.issue("hub");
    config.username = Some("hub".to_owned());
    config.password = Some(Secret::new(PASSWORD));
    config.tls = Some(RedisTls {
        ca_bundle: Some(authority.bundle()),
        cert_file: Some(cert_file),
        key_file: Some(key_file),
    });
    config.timing.dial = Duration::from_secs(5);
}

fn url(server: &Server) -> String {
    format!("rediss://127.0.0.1:{}", server.port)
}

#[tokio::test]
async fn a_user_with_the_documented_rights_conforms_over_tls() {
    if skip_without_redis() {
        return;
    }
    let authority = Authority::new();
    let redis = server(&authority, "127.0.0.1", &[&RIGHTS[..], &["+info"]].concat());
    let subject = subject(&url(&redis), |config| login(config, &authority)).await;
    conforms(&subject).await;
}

#[tokio::test]
async fn eviction_that_may_not_be_read_is_a_warning() {
    if skip_without_redis() {
        return;
    }
    let authority = Authority::new();
    let redis = server(&authority, "127.0.0.1", &RIGHTS);
    let registry = open(&url(&redis), |config| login(config, &authority)).await;
    until_healthy(&registry).await;
    let eviction = registry.eviction();
    assert!(
        matches!(&eviction, Eviction::Unreadable { reason } if reason.contains("info")),
        "{eviction:?}"
    );
}

#[tokio::test]
async fn a_password_comes_from_a_file_and_is_read_anew() {
    if skip_without_redis() {
        return;
    }
    let authority = Authority::new();
    let redis = server(&authority, "127.0.0.1", &[&RIGHTS[..], &["+info"]].concat());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "not yet\n").unwrap();
    let registry = open(&url(&redis), |config| {
        login(config, &authority);
        config.password = None;
        config.password_file = Some(file.clone());
    })
    .await;
    let away = until_away(&registry).await;
    assert!(
        !away.contains("not yet") && !away.contains("dialled"),
        "{away}"
    );
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    until_healthy(&registry).await;
    let shown = format!("{registry:?}");
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[tokio::test]
async fn a_server_that_proves_another_name_is_not_believed() {
    if skip_without_redis() {
        return;
    }
    let authority = Authority::new();
    let redis = server(&authority, "redis.example.org", &RIGHTS);
    let registry = open(&url(&redis), |config| login(config, &authority)).await;
    let away = until_away(&registry).await;
    assert!(away.to_lowercase().contains("certificate"), "{away}");

    let other = Authority::new();
    let redis = server(&authority, "127.0.0.1", &RIGHTS);
    let registry = open(&url(&redis), |config| {
        login(config, &authority);
        config.tls.as_mut().unwrap().ca_bundle = Some(other.bundle());
    })
    .await;
    let away = until_away(&registry).await;
    assert!(away.to_lowercase().contains("certificate"), "{away}");
}
