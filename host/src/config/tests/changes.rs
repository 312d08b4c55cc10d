//! What a reload takes over.

use super::super::CloudConfig;
use super::valid;

#[test]
fn nothing_changed_is_empty() {
    let config = CloudConfig::default();
    assert!(config.changes_from(&config).is_empty());
    let mut moved = config.clone();
    moved.source = Some("elsewhere.yaml".into());
    assert!(moved.changes_from(&config).is_empty());
}

#[test]
fn most_changes_are_live() {
    let old = CloudConfig::default();
    for (text, section) in [
        (
            "listeners: [{name: a, bind: '0.0.0.0:1', connector: x}]",
            "listeners",
        ),
        ("connectors: {a: {protocol: ssh}}", "connectors"),
        ("limits: {max_agents: 1}", "limits"),
        ("security: {query_token: false}", "security"),
        ("tunnel: {tls: {cert_file: a, key_file: b}}", "tunnel.tls"),
        ("tunnel: {ping_interval_sec: 5}", "tunnel"),
        ("policy: {dir: p}", "policy"),
        (
            "plugins: {require_signature: false, list: [{name: a}]}",
            "plugins",
        ),
        (
            "observability: {log_level: debug}",
            "observability.log_level",
        ),
        (
            "observability: {metrics_on_tunnel_port: true}",
            "observability",
        ),
        ("admin: {allowed_hosts: [a]}", "admin"),
        ("pdp: {timeout_ms: 1}", "pdp"),
        ("ha: {mode: shadow}", "ha"),
    ] {
        let changes = valid(text).changes_from(&old);
        assert_eq!(changes.live, [section], "{text}");
        assert!(changes.restart.is_empty(), "{text}");
        assert!(changes.touches(section));
    }
}

#[test]
fn a_fixed_key_is_named_and_keeps_its_old_value() {
    let old = CloudConfig::default();
    for (text, key) in [
        ("tunnel: {host: 127.0.0.1}", "tunnel.host"),
        ("tunnel: {port: 1}", "tunnel.port"),
        ("tunnel: {workers: 3}", "tunnel.workers"),
        (
            "observability: {metrics_port: 1}",
            "observability.metrics_port",
        ),
        (
            "observability: {metrics_host: 127.0.0.1}",
            "observability.metrics_host",
        ),
        (
            "observability: {log_format: text}",
            "observability.log_format",
        ),
        (
            "observability: {redaction: {client_ips: true}}",
            "observability.redaction",
        ),
        (
            "limits: {window_pool_bytes: 1048576}",
            "limits.window_pool_bytes",
        ),
        (
            "security: {revocation_max_entries: 7}",
            "security.revocation_max_entries",
        ),
        ("ha: {replica_id: b}", "ha.replica_id"),
        ("admin: {socket: /x}", "admin.socket"),
    ] {
        let new = valid(text);
        let changes = new.changes_from(&old);
        assert_eq!(changes.restart, [key], "{text}");
        assert!(changes.live.is_empty(), "{text}: {changes:?}");
        assert_eq!(new.keeping_fixed(&old), old, "{text}");
    }
}

#[test]
fn tls_can_be_added_but_not_taken_away_while_the_hub_runs() {
    let old = valid("tunnel: {tls: {cert_file: a, key_file: b}}");
    let new = CloudConfig::default();
    let changes = new.changes_from(&old);
    assert_eq!(changes.restart, ["tunnel.tls"]);
    assert!(changes.live.is_empty(), "{changes:?}");
    assert_eq!(new.keeping_fixed(&old), old);
}

#[test]
fn live_and_fixed_changes_are_told_apart_in_one_section() {
    let old = CloudConfig::default();
    let new = valid("tunnel: {port: 1, hello_timeout_ms: 5}");
    let changes = new.changes_from(&old);
    assert_eq!(changes.live, ["tunnel"]);
    assert_eq!(changes.restart, ["tunnel.port"]);
    let kept = new.keeping_fixed(&old);
    assert_eq!(kept.tunnel.port, 8765);
    assert_eq!(kept.tunnel.hello_timeout.as_millis(), 5);
}
