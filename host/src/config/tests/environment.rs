//! Environment variables override the file, and messages name them.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::env::settings;
use super::super::{ConfigError, KNOWN_VARIABLES, load, parse};
use super::{env, invalid};

#[test]
fn known_names_override_the_file() {
    let config = parse(
        "security: {issuer: 'https://file.example', audience: file}\n\
         observability: {log_level: warn}\n",
        None,
        &env(&[
            ("NOWCONNECT_JWKS_URL", "https://env.example/keys"),
            ("NOWCONNECT_AUDIENCE", "env"),
            ("NOWCONNECT_REQUIRE_CONNECTOR_SCOPES", "true"),
            ("NOWCONNECT_PDP_TIMEOUT_MS", "750"),
            ("LOG_LEVEL", "DEBUG"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ]),
    )
    .unwrap();
    assert_eq!(config.security.issuers.len(), 1);
    assert_eq!(config.security.issuers[0].audience, "env");
    assert!(config.security.require_connector_scopes);
    assert_eq!(config.pdp.timeout.as_millis(), 750);
    assert_eq!(config.observability.log_level, "debug");
    assert_eq!(
        config.observability.otlp_endpoint.as_deref(),
        Some("http://collector:4318")
    );
}

#[test]
fn every_single_value_has_a_variable() {
    let config = parse(
        "",
        None,
        &env(&[
            ("NOWCONNECT_TUNNEL__PORT", "9000"),
            ("NOWCONNECT_LIMITS__MAX_AGENTS", "7"),
            ("NOWCONNECT_SECURITY__ON_EXPIRY", "close"),
            ("NOWCONNECT_TUNNEL__HANDSHAKE__TIMEOUT_MS", "1234"),
            ("NOWCONNECT_OBSERVABILITY__METRICS_ON_TUNNEL_PORT", "1"),
            ("NOWCONNECT_POLICY__DIR", "/etc/policies"),
        ]),
    )
    .unwrap();
    assert_eq!(config.tunnel.port, 9000);
    assert_eq!(config.limits.max_agents, 7);
    assert_eq!(config.tunnel.handshake.timeout.as_millis(), 1234);
    assert!(config.observability.metrics_on_tunnel_port);
    assert_eq!(
        config.policy.dir.as_deref(),
        Some(Path::new("/etc/policies"))
    );
}

#[test]
fn every_known_name_leads_to_a_key() {
    for (variable, key) in KNOWN_VARIABLES {
        assert!(
            settings().iter().any(|setting| setting.key == key),
            "{variable} sets {key}, which is no single value"
        );
    }
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    let error = invalid("", &env(&[("NOWCONNECT_PDP_TIMEOUT_MS", "fast")]));
    let found = &error.problems()[0];
    assert_eq!(found.variable, Some("NOWCONNECT_PDP_TIMEOUT_MS"));
    assert_eq!(found.place, None);
    assert!(
        error
            .to_string()
            .contains("--> environment variable `NOWCONNECT_PDP_TIMEOUT_MS`, key `pdp.timeout_ms`"),
        "{error}"
    );
}

#[test]
fn the_file_is_found_by_its_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloud.yaml");
    std::fs::write(&file, "tunnel: {port: 1}").unwrap();
    let folder_text = folder.path().to_str().unwrap();
    let config = load(None, &env(&[("SERVICE_CONFIG_DIR", folder_text)])).unwrap();
    assert_eq!(config.tunnel.port, 1);
    assert_eq!(config.source.as_deref(), Some(file.as_path()));

    let other = folder.path().join("other.yaml");
    std::fs::write(&other, "tunnel: {port: 2}").unwrap();
    let both = env(&[
        ("SERVICE_CONFIG_DIR", folder_text),
        ("NC_CONFIG", other.to_str().unwrap()),
    ]);
    assert_eq!(load(None, &both).unwrap().tunnel.port, 2);
    assert_eq!(load(Some(&file), &both).unwrap().tunnel.port, 1);
}

#[test]
fn a_file_that_is_missing_or_too_large_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(Some(&folder.path().join("none.yaml")), &BTreeMap::new());
    assert!(matches!(missing, Err(ConfigError::Unreadable { .. })));
    let large = folder.path().join("large.yaml");
    std::fs::write(&large, " ".repeat((4 << 20) + 1)).unwrap();
    let error = load(Some(&large), &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[test]
fn the_admin_socket_follows_the_runtime_folder() {
    let config = parse("", None, &env(&[("XDG_RUNTIME_DIR", "/run/user/7")])).unwrap();
    assert_eq!(
        config.admin.socket.as_deref(),
        Some(Path::new("/run/user/7/nowconnect/admin.sock"))
    );
    let config = parse("", None, &BTreeMap::new()).unwrap();
    assert_eq!(
        config.admin.socket.as_deref(),
        Some(Path::new("/run/nowconnect/admin.sock"))
    );
    let config = parse("admin: {socket: ''}", None, &BTreeMap::new()).unwrap();
    assert_eq!(config.admin.socket, None);
}
