//! What is written is what is used.

use std::path::Path;
use std::time::Duration;

use nowconnect_plugins::Instances;
use nowconnect_protocol::ProxyProtocol;

use super::super::{
    Balance, CloudConfig, KeySource, Loaded, PluginConfig, PluginOrigin, ProxyProtocolAccept,
    TenantRule, TokenAlgorithm, parse, read,
};
use super::{env, valid};

#[test]
fn the_defaults_are_valid() {
    let config = CloudConfig::default();
    assert_eq!(config, valid(""));
    assert_eq!(config, valid("# only a comment\n---\n"));
    assert_eq!(config, valid("limits:\ntunnel:\nlisteners:\n"));
    assert_eq!(config.tunnel.listen().to_string(), "0.0.0.0:8765");
    assert_eq!(
        config.observability.metrics_listen().unwrap().to_string(),
        "0.0.0.0:8000"
    );
    assert!(config.security.issuers.is_empty());
    assert_eq!(config.warnings().len(), 2, "{:?}", config.warnings());
}

#[test]
fn listeners_and_connectors_are_read() {
    let config = valid(
        "listeners:\n\
         - name: ldaps-dc1\n  bind: 0.0.0.0:6361\n  connector: ldaps_dc1\n\
         - name: db\n  bind: '[::1]:5432'\n  connector: postgres\n  tenant: acme\n  \
           allow_cidrs: [10.0.0.0/8, 192.0.2.7]\n  max_connections: 5\n  \
           rate: {per_second: 10}\n  rate_per_source: {per_second: 1, burst: 3}\n  \
           proxy_protocol: {accept: v2, trusted: [10.1.0.0/16]}\n  balance: sticky_client\n  \
           idle_timeout_ms: 3600000\n\
         connectors:\n\
         \x20 ldaps_dc1: {idle_timeout_ms: 120000, linger_ms: 5, labels: {site: berlin}}\n\
         \x20 acme/postgres: {idle_timeout_ms: 7, stall_timeout_ms: 8}\n\
         \x20 ssh: {tenant: acme, protocol: ssh}\n",
    );
    let [ldaps, database] = config.listeners.as_slice() else {
        panic!("two listeners were written");
    };
    assert!(ldaps.tenant.is_default());
    assert_eq!(
        config.flow_times(ldaps).idle_timeout,
        Duration::from_secs(120)
    );
    assert_eq!(config.flow_times(ldaps).linger, Duration::from_millis(5));
    assert_eq!(
        config.flow_times(ldaps).stall_timeout,
        Duration::from_secs(300)
    );
    assert_eq!(
        config.flow_times(database).idle_timeout,
        Duration::from_secs(3600),
        "the listener's value wins"
    );
    assert_eq!(
        config.flow_times(database).stall_timeout,
        Duration::from_millis(8)
    );
    assert_eq!(database.balance, Balance::StickyClient);
    assert_eq!(database.proxy_protocol.accept, ProxyProtocolAccept::V2);
    assert_eq!(database.allow_cidrs[1].to_string(), "192.0.2.7/32");
    assert_eq!(database.rate.unwrap().burst, 10);
    assert_eq!(database.rate_per_source.unwrap().burst, 3);
    let keys: Vec<String> = config.connectors.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["acme/postgres", "acme/ssh", "ldaps_dc1"]);
}

#[test]
fn a_flows_window_ends_at_the_lower_of_its_two_bounds() {
    let most = |text: &str| valid(text).flow_window_max();
    assert_eq!(most(""), 100 * 131_072);
    assert_eq!(most("tunnel: {max_ws_payload: 8192}"), 100 * 8_192);
    assert_eq!(most("limits: {queue_depth_per_cid: 1}"), 131_072);
    assert_eq!(most("limits: {flow_window_max: 65536}"), 65_536);
}

#[test]
fn what_targets_expect_is_read() {
    let config =
        valid("connectors: {a: {proxy_protocol_out: v1}, b: {proxy_protocol_out: v2}, c: {}}");
    let asked: Vec<_> = config
        .connectors
        .values()
        .map(|connector| connector.proxy_protocol_out)
        .collect();
    assert_eq!(
        asked,
        [Some(ProxyProtocol::V1), Some(ProxyProtocol::V2), None]
    );
}

#[test]
fn connectors_of_other_tenants_are_not_mixed_up() {
    let config = valid(
        "listeners: [{name: a, bind: '0.0.0.0:1', connector: x, tenant: b}]\n\
         connectors: {x: {idle_timeout_ms: 1}}\n",
    );
    assert_eq!(
        config.flow_times(&config.listeners[0]).idle_timeout,
        Duration::from_secs(60)
    );
}

#[test]
fn issuers_in_short_and_long_form_are_read() {
    let config = valid(
        "security:\n  issuer: https://idp.example/realms/a/\n  audience: mine\n  issuers:\n  \
         - {issuer: 'https://b', jwks_url: 'https://keys.b/jwks', algorithms: [EdDSA, RS256], \
            tenant: b, audience: other, connectors_claim: c}\n  \
         - {issuer: c, jwks_file: keys.json, tenant_claim: org, tenants: [d, e]}\n",
    );
    let [a, b, c] = config.security.issuers.as_slice() else {
        panic!("three issuers were written");
    };
    assert_eq!(
        a.keys,
        KeySource::Discovery(
            "https://idp.example/realms/a/.well-known/openid-configuration".to_owned()
        )
    );
    assert_eq!(a.audience, "mine");
    assert_eq!(a.connectors_claims, ["connectors", "scp"]);
    assert_eq!(a.algorithms.len(), 4);
    assert_eq!(b.keys, KeySource::Url("https://keys.b/jwks".to_owned()));
    assert_eq!(b.audience, "other");
    assert_eq!(b.algorithms, [TokenAlgorithm::Rs256, TokenAlgorithm::EdDsa]);
    assert_eq!(b.connectors_claims, ["c"]);
    assert_eq!(c.audience, "mine");
    assert_eq!(c.keys, KeySource::File("keys.json".into()));
    assert!(matches!(&c.tenant, TenantRule::Claim { claim, allowed }
        if claim == "org" && allowed.len() == 2));
}

#[test]
fn a_plugin_may_come_from_a_registry_and_must_then_be_pinned() {
    let pinned = format!("sha256:{}", "0".repeat(64));
    let text = format!(
        "plugins:\n  trust: [\"ed25519:{KEY}\"]\n  list:\n    \
         - {{name: a, source: \"oci://registry.example/a@{pinned}\", instances: warm}}\n    \
         - {{name: b, source: \"https://example.com/b.wasm\", digest: \"{pinned}\"}}\n"
    );
    let config = parse(&text, None, &env(&[])).unwrap();
    let [a, b] = config.plugins.list.as_slice() else {
        panic!("two plugins");
    };
    assert!(matches!(&a.source, PluginOrigin::Oci(source) if source.starts_with("oci://")));
    assert!(matches!(&b.source, PluginOrigin::Url(_)));
    assert!(
        a.require_signature && b.require_signature,
        "a key is trusted"
    );
    assert_eq!(a.trust.len(), 1);
    let warm = Instances::Warm {
        max_calls: 1000,
        max_idle: Duration::from_secs(30),
    };
    assert_eq!((a.instances, b.instances), (warm, Instances::Fresh));

    for (wrong, said) in [
        (
            "source: \"oci://registry.example/a:latest\"",
            "names no digest",
        ),
        (
            "source: \"https://example.com/a.wasm\"",
            "digest` is missing",
        ),
        ("source: \"/opt/a.wasm\"", "cannot be `/opt/a.wasm`"),
        (
            "file: a.wasm, source: \"oci://r.example/a@sha256:0\"",
            "both `file` and `source`",
        ),
        ("trust: [\"ed25519:AAAA\"]", "no public key"),
        ("version: new", "version` cannot be `new`"),
    ] {
        let text = format!("plugins: {{list: [{{name: a, {wrong}}}]}}\n");
        let error = parse(&text, None, &env(&[])).unwrap_err().to_string();
        assert!(error.contains(said), "{wrong}: {error}");
    }
    let text = "plugins: {list: [{name: a}]}\n";
    let error = parse(text, None, &env(&[])).unwrap_err().to_string();
    assert!(error.contains("no key is trusted"), "{error}");
    assert!(error.contains("while you develop"), "{error}");
}

#[test]
fn a_plugins_own_keys_count_instead_of_those_of_all() {
    let text = format!(
        "plugins:\n  trust: [\"ed25519:{KEY}\"]\n  list:\n    - {{name: a}}\n    \
         - {{name: b, trust: [\"ed25519:{OTHER_KEY}\"], signed_as: guard, version: \">=1.2\"}}\n"
    );
    let config = valid(&text);
    let trusted: Vec<Vec<String>> = config
        .plugins
        .list
        .iter()
        .map(|plugin| plugin.trust.iter().map(ToString::to_string).collect())
        .collect();
    assert_eq!(
        trusted,
        [[format!("ed25519:{KEY}")], [format!("ed25519:{OTHER_KEY}")]]
    );
    let spec = crate::generation::plugin_spec(&config.plugins.list[1]);
    assert_eq!(spec.signed_as.as_deref(), Some("guard"));
    assert_eq!(spec.version.unwrap().to_string(), ">=1.2");
    let text = "plugins: {require_signature: false, list: [{name: a, version: '1'}]}\n";
    let error = parse(text, None, &env(&[])).unwrap_err().to_string();
    assert!(error.contains("what a signature says"), "{error}");
}

#[test]
fn a_registry_may_send_for_tokens_to_hosts_that_are_named_for_it() {
    let pinned = format!("sha256:{}", "0".repeat(64));
    let text = format!(
        "plugins:\n  require_signature: false\n  registry_auth_file: /run/auth.json\n  \
         registries: [{{host: \"r.example:5000\", token_hosts: [auth.example]}}]\n  list:\n    \
         - {{name: a, source: \"oci://r.example:5000/a@{pinned}\"}}\n    \
         - {{name: b, source: \"oci://r.example/b@{pinned}\"}}\n"
    );
    let config = valid(&text);
    let [a, b] = config.plugins.list.as_slice() else {
        panic!("two plugins");
    };
    assert_eq!(a.registry.token_hosts, ["auth.example"]);
    assert!(b.registry.token_hosts.is_empty(), "it has another port");
    let file = Some(Path::new("/run/auth.json"));
    assert_eq!(a.registry.auth_file.as_deref(), file);
    for (wrong, said) in [
        ("{host: 'https://r.example'}", "host` cannot be"),
        (
            "{host: r.example, token_hosts: ['a/b']}",
            "token_hosts` cannot be `a/b`",
        ),
        ("{host: r.example}, {host: r.example}", "there twice"),
    ] {
        let text = format!("plugins: {{registries: [{wrong}]}}\n");
        let error = parse(&text, None, &env(&[])).unwrap_err().to_string();
        assert!(error.contains(said), "{wrong}: {error}");
    }
}

/// Another one that is on the curve and of full order: that of the second vector.
const OTHER_KEY: &str = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";

/// The public key of the first test vector of RFC 8032.
const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

#[test]
fn paths_start_at_the_folder_of_the_file() {
    let text = "policy: {dir: policies}\n\
                plugins: {require_signature: false, dir: plugins, \
                  list: [{name: a}, {name: b, file: /opt/b.wasm}]}\n\
                tunnel: {tls: {cert_file: tls/c.pem, key_file: /k.pem}}\n";
    let config = parse(text, Some(Path::new("/etc/nc/cloud.yaml")), &env(&[])).unwrap();
    assert_eq!(
        config.policy.dir.as_deref(),
        Some(Path::new("/etc/nc/policies"))
    );
    let files: Vec<_> = config.plugins.list.iter().map(PluginConfig::file).collect();
    let expected = [
        Path::new("/etc/nc/plugins/a.wasm").to_owned(),
        Path::new("/opt/b.wasm").to_owned(),
    ];
    assert_eq!(files, expected.each_ref().map(Some));
    let tls = config.tunnel.tls.unwrap();
    assert_eq!(tls.cert_file, Path::new("/etc/nc/tls/c.pem"));
    assert_eq!(tls.key_file, Path::new("/k.pem"));
}

#[test]
fn plugins_are_sorted_by_order() {
    let config = valid(
        "plugins:\n  require_signature: false\n  list:\n  - {name: late, order: 5}\n  - {name: a}\n  - {name: b}\n  \
         - {name: first, order: -1, config: {deep: [1, {x: null}]}, grants: [log], \
            digest: 'sha256:00ff000000000000000000000000000000000000000000000000000000000000'}\n",
    );
    let names: Vec<&str> = config
        .plugins
        .list
        .iter()
        .map(|plugin| plugin.name.as_str())
        .collect();
    assert_eq!(names, ["first", "a", "b", "late"]);
    assert_eq!(config.plugins.list[0].digest.unwrap()[1], 0xff);
    assert_eq!(
        config.plugins.list[0].config,
        serde_json::json!({"deep": [1, {"x": null}]})
    );
}

#[test]
fn port_zero_may_be_used_many_times() {
    let config = valid(
        "listeners:\n- {name: a, bind: '127.0.0.1:0', connector: x}\n\
         - {name: b, bind: '127.0.0.1:0', connector: x}\n\
         tunnel: {port: 0}\nobservability: {metrics_port: 0}\n",
    );
    assert_eq!(config.listeners.len(), 2);
    let config = valid("observability: {metrics_port: null}");
    assert_eq!(config.observability.metrics_listen(), None);
}

#[test]
fn the_shown_configuration_hides_secrets_and_is_valid_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloud.yaml");
    std::fs::write(
        &file,
        "ha: {redis_url: 'redis://u:hunter2@host'}\n\
         observability: {otlp_headers: {x-api-key: hunter2}, \
           otlp_endpoint: 'https://u:hunter2@collector'}\n\
         plugins: {require_signature: false, list: [{name: a, config: {key: hunter2}}]}\n\
         security: {query_token: false}\n",
    )
    .unwrap();
    let loaded: Loaded = read(Some(&file), &env(&[])).unwrap();
    let shown = loaded.shown();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("query_token: false"), "{shown}");
    assert!(!format!("{:?}", loaded.config.ha).contains("hunter2"));
    assert!(!format!("{:?}", loaded.config.observability.otlp_headers).contains("hunter2"));
    let default = read(None, &env(&[])).unwrap();
    assert_eq!(valid(&default.shown()), CloudConfig::default());
}

#[test]
fn the_memory_bound_grows_with_what_it_depends_on() {
    let small = valid("").memory_bound();
    let parts: u64 = small.parts.iter().map(|part| part.bytes).sum();
    assert_eq!(small.total_bytes(), parts);
    // Beside agents, which are counted as if each sent and confirmed nothing.
    let of_agents = 1000 * (8 << 20) + 1000 * 14 * 262_144;
    assert!(small.total_bytes() - of_agents < 2 << 30, "{small}");
    let fewer = valid("limits: {max_agents: 10, per_link_max_inflight_bytes: 1048576}");
    assert_eq!(
        small.total_bytes() - fewer.memory_bound().total_bytes(),
        of_agents - 10 * (1 << 20) - 10 * 14 * 262_144
    );
    let large =
        valid("limits: {max_conn_total: 4000, window_pool_bytes: 536870912}").memory_bound();
    assert_eq!(
        large.total_bytes() - small.total_bytes(),
        2000 * (2 * 32_768 + 8192) + (256 << 20)
    );
    assert!(
        large
            .to_string()
            .contains("max_conn_total 4000 × 2 × flow_window_min 32768")
    );
    let huge = valid(
        "limits: {window_pool_bytes: 1099511627776, max_conn_total: 1000000}\n\
         plugins: {require_signature: false, list: [{name: a}]}",
    );
    assert!(huge.memory_bound().to_string().contains("plugins"));
}

#[test]
fn a_plugin_gets_its_data_its_queue_and_its_share_of_instances() {
    let config = valid(
        "plugins: {require_signature: false, instances_max: 64, \
         list: [{name: geo, data: geo-data, limits: {queue_ms: 250}}]}",
    );
    assert_eq!(config.plugins.instances_max, 64);
    let spec = crate::generation::plugin_spec(&config.plugins.list[0]);
    assert_eq!(spec.limits.queue_time, Duration::from_millis(250));
    assert!(spec.data.unwrap().ends_with("geo-data"));
    let plain = valid("plugins: {require_signature: false, list: [{name: geo}]}");
    let spec = crate::generation::plugin_spec(&plain.plugins.list[0]);
    assert_eq!(spec.limits.queue_time, Duration::from_millis(10));
    assert_eq!(spec.data, None);
    assert_eq!(valid("").plugins.instances_max, 1024);
}
