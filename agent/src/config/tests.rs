#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

const PREMISE: &str = include_str!("../../../config/premise.yaml");

const SMALL: &str = "
tunnel:
  url: wss://hub.example.com
  agent_id: premise-1
  auth: {token_file: /run/token}
targets:
  ssh: {host: 127.0.0.1, port: 22}
  web-1: {host: web.corp.local, port: 443}
";

#[test]
fn the_shipped_file_shows_the_defaults() {
    let shipped = parse(PREMISE, "premise.yaml", &NoEnv).unwrap();
    let hub = HubUrl::parse("wss://hub.example.com/tunnel", false).unwrap();
    let auth = Auth::TokenFile("/etc/nowconnect/token".into());
    let expected = AgentConfig {
        health: Some("0.0.0.0:8090".parse().unwrap()),
        ..AgentConfig::new(hub, AgentId::parse("premise-1").unwrap(), auth)
            .with_target(name("ssh"), Target::tcp("127.0.0.1", 22))
    };
    assert_eq!(shipped, expected);
}

#[test]
fn the_shipped_file_without_its_optional_keys_means_the_same() {
    let shipped = parse(PREMISE, "premise.yaml", &NoEnv).unwrap();
    let bare = "
tunnel:
  url: wss://hub.example.com/tunnel
  agent_id: premise-1
  auth: {token_file: /etc/nowconnect/token}
targets:
  ssh: {host: 127.0.0.1, port: 22}
";
    assert_eq!(parse(bare, "bare", &NoEnv).unwrap(), shipped);
}

#[test]
fn the_shipped_files_options_are_real() {
    let all_on: String = PREMISE
        .lines()
        .filter(|line| !line.trim_start().starts_with("token_file:"))
        .map(|line| line.replacen("#: ", "", 1) + "\n")
        .collect();
    let config = parse(&all_on, "premise.yaml", &NoEnv).unwrap();
    assert_eq!(config.targets.len(), 3);
    let intranet = &config.targets[&name("intranet")];
    assert_eq!(intranet.proxy_header, Some(ProxyHeader::V2));
    let tls = intranet.tls.as_ref().unwrap();
    assert_eq!(tls.alpn, ["http/1.1"]);
    let files: Vec<_> = tls.files().map(|path| path.display().to_string()).collect();
    assert_eq!(
        files,
        ["corp-ca.pem", "agent.pem", "agent.key"].map(|name| format!("/etc/nowconnect/{name}"))
    );
    assert_eq!(intranet.idle_timeout, Some(Duration::from_secs(3600)));
    assert!(matches!(config.auth, Auth::Oidc(_)));
    assert!(config.outbound.no_proxy.covers("a.corp.local", 1));
    assert_eq!(config.labels["site"], "berlin");
    assert_eq!(config.limits.idle_timeout, Some(Duration::from_secs(60)));
}

#[test]
fn an_unknown_key_is_placed_and_the_nearest_is_named() {
    let text = SMALL.replace("  agent_id:", "  agnet_id:");
    let error = parse(&text, "premise.yaml", &NoEnv)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("premise.yaml:4:3: unknown key `agnet_id`; did you mean `agent_id`?"),
        "{error}"
    );
}

#[test]
fn a_wrong_unit_is_told_with_the_right_one() {
    let key = format!("{SMALL}limits:\n  connect_timeout_sec: 3\n");
    let error = parse(&key, "f", &NoEnv).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "f:10:3: unknown key `connect_timeout_sec`; did you mean `connect_timeout_ms`, a whole number of milliseconds?"
        ),
        "{error}"
    );
    let value = format!("{SMALL}limits:\n  connect_timeout_ms: 3s\n");
    let error = parse(&value, "f", &NoEnv).unwrap_err().to_string();
    assert!(
        error.starts_with("f:10:")
            && error.contains("`connect_timeout_ms` must be a whole number of milliseconds"),
        "{error}"
    );
}

#[test]
fn a_duplicate_key_is_an_error() {
    let text = format!("{SMALL}  ssh: {{host: other, port: 1}}\n");
    let error = parse(&text, "f", &NoEnv).unwrap_err();
    assert!(error.problems()[0].position.is_some(), "{error}");
    assert!(error.to_string().contains("duplicate"), "{error}");
}

#[test]
fn every_problem_is_told_at_once() {
    let text = "
tunnel:
  url: http://hub
  agent_id: 'not an id'
  exported_connectors: [shh]
  ping_interval_sec: 0
targets:
  ssh: {host: 127.0.0.1, port: 0}
  both: {host: a, port: 1, unix: /b}
  none: {}
  odd: {host: 'a:1', port: 1, proxy_protocol: v3, idle_timeout_ms: 1}
  half: {host: a, port: 1, tls: {cert_file: /c}}
  other-half: {host: a, port: 1, tls: {key_file: /k}}
observability: {log_level: loud}
";
    let error = parse(text, "f", &NoEnv).unwrap_err();
    let all = error.to_string();
    for expected in [
        "f:3:8: `tunnel.url`: `http://hub` must start with `wss://` or `ws://`",
        "f:4:13: `tunnel.agent_id`",
        "`targets.ssh.port` is 0; it must be from 1 to 65535",
        "`targets.both` has `unix` beside `host` or `port`",
        "`targets.none` needs `host` and `port`, or `unix: /path/of/socket`",
        "`targets.odd.host`: `a:1` is not a host name",
        "`targets.odd.proxy_protocol`: `v3` must be `off`, `v1` or `v2`",
        "`targets.odd.idle_timeout_ms` is 1; it must be from 100 to 604800000",
        "`targets.half.tls.cert_file` needs `key_file` beside it",
        "`targets.other-half.tls.key_file` needs `cert_file` beside it",
        "connector `shh` is exported but has no entry under `targets`; did you mean `ssh`?",
        "no token is configured",
        "`tunnel.ping_interval_sec` is 0; it must be from 1 to 3600",
        "`observability.log_level`: `loud` must be",
    ] {
        assert!(all.contains(expected), "{expected} is not in:\n{all}");
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let env = env(&[
        ("NC_AGENT_URL", "ws://127.0.0.1:8765"),
        ("NC_AGENT_ID", "other"),
        ("NC_TOKEN_FILE", "/tmp/t"),
        ("NC_CONNECTORS", "ssh, web-1"),
        ("NC_TARGET_ssh_HOST", "10.0.0.9"),
        ("NC_TARGET_WEB_1_PORT", "8443"),
        ("NC_TARGET_db_HOST", "db"),
        ("NC_TARGET_db_PORT", "5432"),
        ("NC_LOG_LEVEL", "DEBUG"),
        ("NC_LOG_FORMAT", "json"),
        ("NC_CA_BUNDLE", "/tmp/ca.pem"),
        ("NC_HEALTH_HOST", "127.0.0.1"),
        ("NC_HEALTH_PORT", "9"),
    ]);
    let config = parse(SMALL, "f", &env).unwrap();
    assert_eq!(config.hub.to_string(), "ws://127.0.0.1:8765/tunnel");
    assert_eq!(config.agent_id.as_str(), "other");
    assert_eq!(config.auth, Auth::TokenFile("/tmp/t".into()));
    assert_eq!(config.offered_connectors(), [name("ssh"), name("web-1")]);
    assert_eq!(config.targets[&name("ssh")], Target::tcp("10.0.0.9", 22));
    assert_eq!(
        config.targets[&name("web-1")],
        Target::tcp("web.corp.local", 8443)
    );
    assert_eq!(config.targets[&name("db")], Target::tcp("db", 5432));
    assert_eq!(config.observability.log_level, LogLevel::Debug);
    assert_eq!(config.observability.log_format, LogFormat::Json);
    assert_eq!(config.outbound.ca_bundle, Some("/tmp/ca.pem".into()));
    assert_eq!(config.health, Some("127.0.0.1:9".parse().unwrap()));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_environment_alone_is_enough() {
    let env = env(&[
        ("NC_AGENT_URL", "wss://hub"),
        ("NC_AGENT_ID", "a"),
        ("NC_TOKEN_FILE", "/tmp/t"),
        ("NC_TARGET_ssh_HOST", "127.0.0.1"),
        ("NC_TARGET_ssh_PORT", "22"),
        ("NC_HEALTH_PORT", "0"),
    ]);
    let config = load(None, &env).unwrap();
    assert_eq!(config.offered_connectors(), [name("ssh")]);
    assert_eq!(config.health, None);
}

#[test]
fn relative_paths_start_at_the_files_folder_and_those_of_variables_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("premise.yaml");
    let text = SMALL.replace("/run/token", "token")
        + "  s: {unix: s.sock, tls: {server_name: s, ca_bundle: a/ca.pem, cert_file: c, key_file: k}}\n\
           proxy: {ca_bundle: ../ca.pem}\n";
    std::fs::write(&path, text).unwrap();
    let config = load(Some(&path), &NoEnv).unwrap();
    assert_eq!(config.auth, Auth::TokenFile(folder.path().join("token")));
    let target = &config.targets[&name("s")];
    assert_eq!(
        target.address,
        TargetAddress::Unix(folder.path().join("s.sock"))
    );
    let files: Vec<_> = target.tls.as_ref().unwrap().files().collect();
    assert_eq!(
        files,
        ["a/ca.pem", "c", "k"].map(|file| folder.path().join(file))
    );
    assert_eq!(
        config.outbound.ca_bundle,
        Some(folder.path().join("../ca.pem"))
    );

    let env = env(&[("NC_TOKEN_FILE", "token"), ("NC_CA_BUNDLE", "ca.pem")]);
    let config = load(Some(&path), &env).unwrap();
    assert_eq!(config.auth, Auth::TokenFile("token".into()));
    assert_eq!(config.outbound.ca_bundle, Some("ca.pem".into()));
}

#[test]
fn bad_variables_are_named() {
    let env = env(&[
        ("NC_AGENT_URL", "hub"),
        ("NC_TARGET_ssh_PORT", "many"),
        ("NC_TARGET_ssh_USER", "x"),
        ("NC_TRUST_ENV", "maybe"),
        ("NC_HEALTH_PORT", "99999"),
        ("NC_LOG_FORMAT", "xml"),
    ]);
    let error = parse(SMALL, "f", &env).unwrap_err();
    for variable in env.keys() {
        assert!(
            error
                .problems()
                .iter()
                .any(|problem| problem.source == *variable),
            "{variable} is not in:\n{error}"
        );
    }
}

#[test]
fn unknown_variables_are_warned_of() {
    let env = env(&[("NC_AGENT_URI", "wss://hub")]);
    let config = parse(SMALL, "f", &env).unwrap();
    assert_eq!(
        config.warnings,
        ["variable `NC_AGENT_URI` is not known and has no effect; did you mean `NC_AGENT_URL`?"]
    );
}

#[test]
fn proxies_of_the_environment_count_only_when_trusted() {
    let mut env = env(&[
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("ALL_PROXY", "socks5://all:1080"),
        ("NO_PROXY", ".corp.local"),
    ]);
    let config = parse(SMALL, "f", &env).unwrap();
    assert_eq!(config.outbound.hub_proxy, None);

    env.insert("NC_TRUST_ENV".to_owned(), "true".to_owned());
    let config = parse(SMALL, "f", &env).unwrap();
    let proxy = config.outbound.hub_proxy.unwrap();
    assert_eq!(proxy.to_string(), "http://proxy:3128");
    assert!(config.outbound.no_proxy.covers("hub.corp.local", 443));

    env.insert("NC_AGENT_URL".to_owned(), "ws://127.0.0.1:1".to_owned());
    let config = parse(SMALL, "f", &env).unwrap();
    let proxy = config.outbound.hub_proxy.unwrap();
    assert_eq!(proxy.to_string(), "socks5://all:1080");
}

#[test]
fn two_ways_to_a_token_are_one_too_many() {
    let text = SMALL.replace(
        "{token_file: /run/token}",
        "{token_file: /run/token, oidc: {issuer: 'https://idp', client_id: a, client_secret_file: /s}}",
    );
    let error = parse(&text, "f", &NoEnv).unwrap_err();
    assert!(error.to_string().contains("keep one of the two"), "{error}");
}

#[test]
fn what_upgrades_are_signed_with_comes_from_a_file_or_a_variable() {
    let config = parse(SMALL, "f", &NoEnv).unwrap();
    assert_eq!(config.signing_secret, None);
    let text = SMALL.replace(
        "{token_file: /run/token}",
        "{token_file: /run/token, hmac_secret_file: /run/secret}",
    );
    let config = parse(&text, "f", &NoEnv).unwrap();
    let of_file = SigningSecret::File("/run/secret".into());
    assert_eq!(config.signing_secret, Some(of_file));

    let secret = "0123456789abcdef0123456789abcdef";
    let config = parse(&text, "f", &env(&[("NC_HMAC_SECRET", secret)])).unwrap();
    let of_variable = SigningSecret::Fixed(Secret::new(secret));
    assert_eq!(config.signing_secret, Some(of_variable));
    assert!(!format!("{config:?}").contains(secret));
    let config = parse(&text, "f", &env(&[("NC_HMAC_SECRET_FILE", "/tmp/s")])).unwrap();
    let named = SigningSecret::File("/tmp/s".into());
    assert_eq!(config.signing_secret, Some(named));

    for (pairs, said) in [
        (&[("NC_HMAC_SECRET", "hunter2")][..], "at least 32"),
        (
            &[("NC_HMAC_SECRET", secret), ("NC_HMAC_SECRET_FILE", "/s")],
            "keep one of the two",
        ),
    ] {
        let error = parse(&text, "f", &env(pairs)).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(error.contains("NC_HMAC_SECRET"), "{error}");
        assert!(
            !error.contains("hunter2") && !error.contains(secret),
            "{error}"
        );
    }
}

#[test]
fn secrets_do_not_show_in_a_config() {
    let text = format!("{SMALL}proxy: {{https_proxy: 'http://joe:hunter2@proxy:1'}}\n");
    let mut config = parse(&text, "f", &NoEnv).unwrap();
    config.auth = Auth::Fixed(Secret::new("t0ken"));
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("t0ken"),
        "{shown}"
    );
}

#[test]
fn an_empty_file_says_what_is_missing() {
    for text in ["", "# nothing\n"] {
        let error = parse(text, "f", &NoEnv).unwrap_err().to_string();
        for missing in ["tunnel.url", "tunnel.agent_id", "no token", "no connector"] {
            assert!(error.contains(missing), "{missing}: {error}");
        }
    }
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn name(text: &str) -> ConnectorName {
    ConnectorName::parse(text).unwrap()
}
