//! The section `ha`.

use nowconnect_registry::redis::Topology;

use super::super::HaMode;
use super::{problem, valid};

#[test]
fn a_mode_counts_only_where_the_cluster_is_enabled() {
    assert_eq!(valid("").ha.mode(), HaMode::Off);
    assert_eq!(valid("ha: {mode: active}").ha.mode(), HaMode::Off);
    let text = "ha: {enabled: true, replica_id: a, mode: shadow}";
    assert_eq!(valid(text).ha.mode(), HaMode::Shadow);
}

#[test]
fn every_kind_of_redis_is_named_by_its_url() {
    let topology = |url: &str| {
        let config = valid(&format!("ha: {{redis_url: '{url}'}}"));
        config.ha.redis.unwrap()
    };
    let one = topology("rediss://u:p@cache.example:7000/3");
    assert!(matches!(one.topology, Topology::Standalone(_)));
    assert!(one.tls.is_some());
    let sentinel = topology("redis+sentinel://s1,s2:7/main");
    assert!(matches!(sentinel.topology, Topology::Sentinel { .. }));
    assert!(sentinel.tls.is_none());
    let cluster = topology("redis+cluster://a,b");
    assert!(matches!(cluster.topology, Topology::Cluster(nodes) if nodes.len() == 2));
}

#[test]
fn what_belongs_to_the_url_is_checked_with_it() {
    for (text, part) in [
        ("redis: {key_prefix: x}", "without `ha.redis_url`"),
        ("redis_url: 'http://hunter2@a'", "no scheme of a redis URL"),
        (
            "redis_url: 'redis://a', redis: {ca_bundle: ca.pem}",
            "is without TLS",
        ),
        (
            "redis_url: 'redis://a', redis: {sentinel_username: s}",
            "says who this hub is to Sentinels",
        ),
        (
            "redis_url: 'redis://u:hunter2@a', redis: {password_file: p}",
            "in the URL or in a file, not both",
        ),
        (
            "redis_url: 'rediss://a', redis: {cert_file: c}",
            "needs both `cert_file` and `key_file`",
        ),
        (
            "redis_url: 'redis://a', redis: {key_prefix: 'a b'}",
            "the key prefix `a b`",
        ),
    ] {
        let found = problem(&format!("ha: {{{text}}}"));
        assert!(found.message.contains(part), "{text}: {found:?}");
        assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
    }
}

#[test]
fn hubs_are_dialled_by_their_address_alone() {
    for text in [
        "peers: ['wss://user:hunter2@b/mesh']",
        "advertise: 'wss://user:hunter2@a/mesh'",
        "advertise: 'https://a/mesh'",
        "discovery: {allow: ['wss://b']}",
    ] {
        let found = problem(&format!("ha: {{mesh: {{{text}}}}}"));
        assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
    }
}

#[test]
fn links_are_proven_unless_that_is_given_up() {
    let with = |mesh: &str| {
        format!("ha: {{enabled: true, mode: active, replica_id: a, mesh: {{{mesh}}}}}")
    };
    valid(&with(""));
    valid(&with("listen: '127.0.0.1:0', require_mtls: false"));
    let tls = "tls: {ca_bundle: a, cert_file: b, key_file: c}";
    valid(&with(&format!("peers: ['wss://b/mesh'], {tls}")));
    let found = problem(&with("peers: ['wss://b/mesh']"));
    assert!(found.message.contains("needs `ha.mesh.tls`"), "{found:?}");
    let found = problem(&with(&format!("peers: ['ws://b/mesh'], {tls}")));
    assert!(found.message.contains("without TLS"), "{found:?}");
}

#[test]
fn a_registry_that_nobody_else_sees_is_warned_of() {
    let about = |text: &str| {
        let warnings = valid(text).warnings();
        warnings
            .iter()
            .any(|warning| warning.contains("ha.redis_url"))
    };
    assert!(!about("ha: {enabled: true, replica_id: a}"));
    assert!(about("ha: {enabled: true, replica_id: a, mode: shadow}"));
    assert!(!about(
        "ha: {enabled: true, replica_id: a, mode: shadow, redis_url: 'redis://b'}"
    ));
}
