//! Every kind of mistake is found, placed and explained.

use super::{env, invalid, problem, problems};

#[test]
fn an_unknown_key_has_its_place_and_the_nearest_key() {
    let found = problem("limits:\n  idle_timout_ms: 5\n");
    assert_eq!(found.message, "unknown key `idle_timout_ms` in `limits`");
    assert_eq!(found.place, Some((2, 3)));
    assert_eq!(
        found.help.as_deref(),
        Some("did you mean `idle_timeout_ms`?")
    );
}

#[test]
fn another_unit_finds_the_key_with_ours() {
    for key in ["idle_timeout", "idle_timeout_sec", "idle_timeout_seconds"] {
        let found = problem(&format!("limits: {{{key}: 5}}"));
        assert_eq!(
            found.help.as_deref(),
            Some("did you mean `idle_timeout_ms`?"),
            "{key}"
        );
    }
}

#[test]
fn a_key_in_the_wrong_section_is_told_its_home() {
    let found = problem("metrics_port: 9000\n");
    assert_eq!(
        found.help.as_deref(),
        Some("`metrics_port` belongs in `observability`")
    );
}

#[test]
fn a_key_like_no_other_gets_the_list() {
    let found = problem("policy: {zzzzzzzz: 1}");
    assert!(found.help.unwrap().starts_with("known keys here: "));
}

#[test]
fn a_queue_shorter_than_what_a_flow_is_sure_of_is_refused() {
    let text = "tunnel: {max_ws_payload: 8192}\nlimits: {queue_depth_per_cid: 3}";
    let found = problem(text);
    assert_eq!(found.key, "limits.queue_depth_per_cid");
    assert!(found.message.contains("`8192` less than"), "{found:?}");
    assert_eq!(
        found.help.as_deref(),
        Some("write at least `4`, or lower `limits.flow_window_min`")
    );
}

#[test]
fn a_unit_in_the_value_is_converted_in_the_help() {
    for (text, help) in [
        ("limits: {idle_timeout_ms: 60s}", "write `60000`"),
        ("limits: {idle_timeout_ms: 2 min}", "write `120000`"),
        ("tunnel: {ping_interval_sec: 1m}", "write `60`"),
        ("limits: {window_pool_bytes: 64MiB}", "write `67108864`"),
    ] {
        let found = problem(text);
        assert!(found.help.as_ref().unwrap().contains(help), "{found:?}");
    }
}

#[test]
fn a_value_out_of_range_names_the_bound() {
    let found = problem("tunnel: {max_ws_payload: 200000}");
    assert_eq!(
        found.message,
        "`tunnel.max_ws_payload` is `200000`, it must be from 1024 to 131072"
    );
    let found = problem("tunnel: {port: 70000}");
    assert_eq!(
        found.message,
        "`tunnel.port` is `70000`, it must be from 0 to 65535"
    );
    let found = problem("limits: {max_conn_total: -1}");
    assert!(found.message.contains("from 1 to 1000000"), "{found:?}");
    let found = problem("observability: {otlp_sample_ratio: 1.5}");
    assert!(found.message.contains("from 0 to 1"), "{found:?}");
}

#[test]
fn a_wrong_type_says_what_is_expected_and_what_was_found() {
    let found = problem("listeners: {name: a}");
    assert_eq!(found.message, "`listeners` must be a list, found a map");
    let found = problem("tunnel: 5");
    assert_eq!(found.message, "`tunnel` must be a map of keys, found `5`");
    let found = problem("security: {query_token: yes}");
    assert_eq!(found.help.as_deref(), Some("write `true`"));
    let found = problem("security: {audience: 5}");
    assert_eq!(found.help.as_deref(), Some("put the value in quotes"));
    let found = problem("limits: {max_agents: }");
    assert!(found.message.ends_with("found nothing"), "{found:?}");
}

#[test]
fn a_wrong_word_gets_the_allowed_ones() {
    let found = problem("security: {on_expiry: drian}");
    assert_eq!(found.message, "`security.on_expiry` cannot be `drian`");
    assert_eq!(
        found.help.as_deref(),
        Some("did you mean `drain`? allowed: `keep`, `drain`, `close`")
    );
}

#[test]
fn everything_wrong_is_found_at_once_in_the_order_of_the_file() {
    let found = problems(
        "listeners:\n\
         - {name: a, bind: '0.0.0.0:389', connector: x}\n\
         - {name: a, bind: '0.0.0.0:389', connector: 'y z', tenannt: t}\n\
         limits:\n  idle_timeout_ms: 60s\n  flow_window_min: 65536\n  flow_window_max: 4096\n\
         security:\n  allow_cidrs: [10.0.0.1/8, fish]\n  jwks_url: https://idp.example/keys\n\
         ha: {enabled: true}\n",
    );
    let messages: Vec<&str> = found.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "the listener name `a` is used twice",
            "`listeners[1].connector`: ` ` is not allowed in a connector name: use letters, \
             digits, `.`, `_` and `-`",
            "unknown key `tenannt` in `listeners[1]`",
            "`limits.idle_timeout_ms` must be a whole number, found `60s`",
            "`limits.flow_window_max` is `4096`, less than `flow_window_min` of `65536`",
            "`10.0.0.1/8` has bits set beyond its prefix",
            "`fish` is no network",
            "`security.jwks_url` is set without `security.issuer`",
            "`ha.enabled: true` needs `ha.replica_id`",
        ]
    );
}

#[test]
fn missing_keys_of_a_list_item_are_named() {
    let found = problems("listeners:\n- name: a\n");
    let messages: Vec<&str> = found.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "`listeners[0]` needs the key `bind`",
            "`listeners[0]` needs the key `connector`"
        ]
    );
    assert_eq!(found[0].place, Some((2, 3)));
}

#[test]
fn ports_that_clash_are_found() {
    let clash = |a: &str, b: &str| {
        problem(&format!(
            "listeners:\n- {{name: a, bind: '{a}', connector: x}}\n\
             - {{name: b, bind: '{b}', connector: y}}\n"
        ))
        .message
    };
    let expected = "`listeners[1].bind` and `listeners[0].bind` share the port `389`";
    assert_eq!(clash("0.0.0.0:389", "0.0.0.0:389"), expected);
    assert_eq!(clash("0.0.0.0:389", "127.0.0.1:389"), expected);
    assert_eq!(clash("127.0.0.1:389", "[::]:389"), expected);
    let found = problem("listeners: [{name: a, bind: '127.0.0.1:8765', connector: x}]");
    assert_eq!(
        found.message,
        "`listeners[0].bind` and `tunnel.port` share the port `8765`"
    );
    let found = problem("observability: {metrics_port: 8765}");
    assert!(found.message.contains("share the port `8765`"));
}

#[test]
fn the_report_shows_line_excerpt_and_help() {
    let error = invalid("limits:\n  idle_timout_ms: 5\n", &env(&[]));
    assert_eq!(
        error.to_string(),
        "error: unknown key `idle_timout_ms` in `limits`\n  \
         --> cloud.yaml:2:3\n   \
         2 |   idle_timout_ms: 5\n     |   ^\n  \
         = did you mean `idle_timeout_ms`?\n\n\
         1 problem in the configuration"
    );
}

#[test]
fn broken_yaml_has_its_place() {
    let found = problem("limits:\n  a: [1, 2\nsecurity: {}\n");
    assert!(found.place.is_some(), "{found:?}");
    let found = problem("tunnel: {port: 1}\ntunnel: {port: 2}\n");
    assert!(found.message.contains("duplicate"), "{found:?}");
    assert_eq!(found.place, Some((2, 1)));
    assert!(!problems("limits: {max_agents: 1}\n---\nlimits: {}\n").is_empty());
}

#[test]
fn secrets_reach_no_message() {
    let yaml = "ha: {enabled: true, redis_url: 'redis://user:hunter2@host'}\n\
                pdp: {url: 'https://user:hunter2@pdp.example'}\n\
                ha_redis: 'redis://user:hunter2@host'\n\
                observability:\n  otlp_headers:\n    x-token: [hunter2]\n    token: {a: hunter2}\n  \
                token: hunter2\n  otlp_endpoint: 'ftp://user:hunter2@host'\n";
    let error = invalid(
        yaml,
        &env(&[("NOWCONNECT_REDIS_URL", "http://u:hunter2@host")]),
    );
    let shown = format!("{error} {error:?}");
    assert!(error.problems().len() >= 5, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{shown}");
}

#[test]
fn what_is_not_built_is_refused_in_a_sentence() {
    let found = problem("security: {fapi_mode: 2}");
    assert!(found.message.contains("not built yet"), "{found:?}");
}

#[test]
fn a_decision_point_is_asked_over_tls_and_in_one_way() {
    for (text, part) in [
        ("url: 'http://pdp.example'", "plain HTTP beyond"),
        ("url: 'https://u:p@pdp.example'", "user information"),
        ("url: 'https://pdp.example/?a=b'", "a query"),
        ("url: 'ldap://pdp.example'", "cannot be"),
        (
            "url: 'https://pdp.example', kind: simple, discovery: true",
            "does not go with",
        ),
        ("fail_open: true, on_error: allow_if_cached", "no meaning"),
        ("cache_ttl_sec: 6", "5"),
    ] {
        let found = problem(&format!("pdp: {{{text}}}"));
        assert!(found.message.contains(part), "{text}: {found:?}");
    }
    let local = super::valid("pdp: {url: 'http://127.0.0.1:1'}");
    assert!(local.pdp.url.is_some());
}

#[test]
fn the_admin_port_needs_a_lock() {
    let found = problem("admin: {listen: '127.0.0.1:9000'}");
    assert!(found.message.contains("open to everyone"), "{found:?}");
    let found = problem("admin: {listen: '10.0.0.1:9000', token_file: t}");
    assert!(found.message.contains("in clear"), "{found:?}");
}

#[test]
fn a_proxy_protocol_that_nobody_may_speak_is_a_mistake() {
    let found = problem(
        "listeners: [{name: a, bind: '0.0.0.0:1', connector: x, proxy_protocol: {accept: any}}]",
    );
    assert!(found.message.contains("from nobody"), "{found:?}");
}

#[test]
fn issuers_are_checked() {
    for (text, part) in [
        (
            "issuers: [{issuer: 'https://a', discovery: 'https://b', jwks_url: 'https://c'}]",
            "not several",
        ),
        (
            "issuers: [{issuer: 'https://a', tenant: a, tenant_claim: t}]",
            "not both",
        ),
        (
            "issuers: [{issuer: 'https://a'}, {issuer: 'https://a'}]",
            "written twice",
        ),
        ("issuers: [{issuer: 'http://idp.example'}]", "plain HTTP"),
        (
            "issuers: [{issuer: 'https://a', algorithms: [HS256]}]",
            "cannot be `HS256`",
        ),
        (
            "issuers: [{issuer: 'https://a', algorithms: []}]",
            "at least 1",
        ),
        ("issuers: [{issuer: 'not a url'}]", "cannot be discovered"),
        ("issuers: [{issuer: 'https://a', tenants: [b]}]", "not set"),
        ("audience: ''", "must not be empty"),
    ] {
        let found = problem(&format!("security: {{{text}}}"));
        assert!(found.message.contains(part), "{text}: {found:?}");
    }
}
