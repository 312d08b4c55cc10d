//! The product's programs against real servers: what a simulated peer would only pretend.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::gateway::{
    EchoClient, PATIENCE, Setup, echo_service, echo_through, health, http, wait_until_ready,
};
use crate::parts::cerbos::{self, Cerbos};
use crate::parts::forward_proxy::{CREDENTIALS, ForwardProxy};
use crate::parts::ingress::Ingress;
use crate::parts::oidc::Oidc;
use crate::parts::otlp::{Otlp, Span};
use crate::parts::slapd::{self, Slapd};
use crate::parts::{eventually, oidc, otlp, program, run, run_ok, skip_without};
use crate::repository::root;

/// Of OpenID client credentials.
const CLIENT_SECRET: &str = "a-secret-of-the-test-client";

#[test]
fn ldaps_is_one_tls_session_from_client_to_directory() {
    if skip_without(&slapd::PROGRAMS) || skip_without(&["openssl"]) {
        return;
    }
    let mut setup = Setup::new();
    let directories: Vec<_> = ["dc1", "dc2", "dc3"]
        .map(|name| {
            let folder = setup.folder().join(name);
            std::fs::create_dir(&folder).unwrap();
            let authority = crate::parts::certificates::Authority::new(&folder);
            (
                Slapd::start(&folder, &authority, "localhost", name, 250),
                authority,
                name,
            )
        })
        .into();
    let ports: Vec<_> = directories
        .iter()
        .map(|(.., name)| setup.listen(&format!("ldaps_{name}")))
        .collect();
    let _hub = setup.hub();
    let targets: Vec<_> = directories
        .iter()
        .map(|(slapd, _, name)| (format!("ldaps_{name}"), slapd.port))
        .collect();
    let targets: Vec<_> = targets
        .iter()
        .map(|(name, port)| (name.as_str(), *port))
        .collect();
    let _agent = setup.agent(&setup.agent_config(&targets));

    for (index, (slapd, authority, name)) in directories.iter().enumerate() {
        let bundle = authority.bundle();
        let found = eventually("a whole paged search", PATIENCE, || {
            let mut search = ldapsearch(ports[index], &bundle, &["-E", "pr=100/noprompt"]);
            let output = run(search.arg("(objectClass=inetOrgPerson)").arg("description"));
            output
                .status
                .success()
                .then(|| String::from_utf8(output.stdout).unwrap())
        });
        assert_eq!(
            found.matches(&format!("description: {name}")).count(),
            250,
            "{found}"
        );

        let (user, password) = slapd::ADMIN;
        let mut bind = ldapsearch(ports[index], &bundle, &["-D", user, "-w", password]);
        assert!(run_ok(bind.arg("(uid=u0007)").arg("uid")).contains("uid: u0007"));

        // The certificate that the client sees is the directory's own.
        let shown = run(program("openssl").args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{}", ports[index]),
            "-servername",
            "localhost",
        ]));
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let own = std::fs::read_to_string(setup.folder().join(name).join("localhost.pem")).unwrap();
        let body = |pem: &str| {
            pem.lines()
                .filter(|line| !line.starts_with("-----"))
                .collect::<String>()
        };
        assert!(body(&shown).contains(&body(&own)), "{shown}");
        assert!(slapd.daemon.pid() > 0);
    }

    // Another authority's word is not taken: nothing in between could have answered instead.
    let mut stranger = ldapsearch(ports[0], &directories[1].1.bundle(), &[]);
    assert!(!run(stranger.arg("(uid=u0007)")).status.success());
}

#[test]
fn key_rotation_and_renewal_drop_nothing() {
    if skip_without(&oidc::PROGRAMS) {
        return;
    }
    let mut setup = Setup::new();
    let provider = Oidc::start(setup.folder(), CLIENT_SECRET, &["echo"], 8);
    setup.config["security"] = json!({
        "issuers": [{"issuer": provider.issuer, "discovery": provider.discovery()}],
        "jwks_refresh_min_ms": 100,
        "clock_skew_ms": 0,
        "on_expiry": "close",
    });
    let port = setup.listen("echo");
    let hub = setup.hub();
    let mut config = setup.agent_config(&[("echo", echo_service())]);
    let secret = setup.folder().join("client-secret");
    std::fs::write(&secret, CLIENT_SECRET).unwrap();
    config["tunnel"]["auth"] = json!({"oidc": {
        "issuer": provider.issuer, "client_id": "site-1", "client_secret_file": secret}});
    config["tunnel"]["renew_before_sec"] = json!(5);
    let _agent = setup.agent(&config);
    let mut running = echo_through(port);

    let (tokens, keys) = (provider.count("token"), provider.count("jwks"));
    let before = provider.rotate(false);
    assert_eq!(before["keys"], 1, "the old key is gone");
    // Two renewals: the first token under the old key has run out by then.
    eventually("two renewals under the new key", PATIENCE, || {
        assert!(
            running.say("still here"),
            "the running flow was cut\n{}",
            hub.log()
        );
        (provider.count("token") >= tokens + 2 && provider.count("jwks") > keys).then_some(())
    });
    for _ in 0..3 {
        assert!(
            EchoClient::connect(port).is_some(),
            "a new flow was refused\n{}",
            hub.log()
        );
    }
    assert!(running.say("to the end"));
    let tunnels = hub.log().matches("agent_connected").count();
    assert_eq!(tunnels, 1, "one tunnel carried it all\n{}", hub.log());
    assert!(!provider.log().contains("Error"), "{}", provider.log());
}

#[test]
fn stale_keys_outlive_an_outage_of_the_issuer() {
    if skip_without(&oidc::PROGRAMS) {
        return;
    }
    let mut setup = Setup::new();
    let provider = Oidc::start(setup.folder(), CLIENT_SECRET, &["echo"], 600);
    setup.config["security"] = json!({
        "issuers": [{"issuer": provider.issuer, "discovery": provider.discovery()}],
    });
    let port = setup.listen("echo");
    let _hub = setup.hub();
    let answer = run_ok(
        program("curl")
            .args(["-fsS", "--noproxy", "*", "-u"])
            .args([
                &format!("site-1:{CLIENT_SECRET}"),
                "-d",
                "grant_type=client_credentials",
                &format!("{}/token", provider.issuer),
            ]),
    );
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let token = setup.folder().join("provider.token");
    std::fs::write(&token, answer["access_token"].as_str().unwrap()).unwrap();
    let mut config = setup.agent_config(&[("echo", echo_service())]);
    config["tunnel"]["auth"] = json!({"token_file": token});
    let agent = setup.agent(&config);
    echo_through(port);

    provider.outage(true);
    drop(agent);
    let _agent = setup.agent(&config);
    echo_through(port);
}

#[test]
fn nginx_ends_tls_in_front_of_the_hub() {
    if skip_without(&["nginx"]) {
        return;
    }
    works_behind(|setup| Ingress::nginx(setup.folder(), &setup.certificate, setup.tunnel_port));
}

#[test]
fn haproxy_ends_tls_in_front_of_the_hub() {
    if skip_without(&["haproxy"]) {
        return;
    }
    works_behind(|setup| Ingress::haproxy(setup.folder(), &setup.certificate, setup.tunnel_port));
}

fn works_behind(start: impl FnOnce(&Setup) -> Ingress) {
    let mut setup = Setup::new();
    let tunnel = setup.config["tunnel"].as_object_mut().unwrap();
    tunnel.remove("tls");
    tunnel.insert("trusted_ingress".to_owned(), json!(["127.0.0.1/32"]));
    let port = setup.listen("echo");
    let _hub = setup.hub();
    let ingress = start(&setup);
    let mut config = setup.agent_config(&[("echo", echo_service())]);
    config["tunnel"]["url"] = json!(format!("wss://localhost:{}/tunnel", ingress.port));
    let _agent = setup.agent(&config);
    let mut flow = echo_through(port);
    // More than a proxy's buffers, so that flow control has to work through it.
    let large = "0123456789abcdef".repeat(16 * 1024);
    assert!(flow.say(&large), "{}", ingress.log());
    assert!(
        http(setup.tunnel_port, "/healthz")
            .is_some_and(|answer| answer.ends_with(r#"{"status":"ok"}"#))
    );
}

#[test]
fn agent_leaves_through_an_http_proxy_with_a_password() {
    if skip_without(&["tinyproxy"]) {
        return;
    }
    let mut setup = Setup::new();
    let port = setup.listen("echo");
    let _hub = setup.hub();
    let proxy = ForwardProxy::connect(setup.folder(), setup.tunnel_port);
    let (user, password) = CREDENTIALS;
    let mut config = setup.agent_config(&[("echo", echo_service())]);
    config["proxy"]["https_proxy"] =
        json!(format!("http://{user}:{password}@127.0.0.1:{}", proxy.port));
    let agent = setup.agent(&config);
    echo_through(port);
    assert!(
        proxy.daemon.log().contains("CONNECT"),
        "{}",
        proxy.daemon.log()
    );
    assert!(
        !agent.log().contains(password),
        "the password is in the agent's log"
    );
    drop(agent);

    config["proxy"]["https_proxy"] = json!(format!("http://{user}:wrong@127.0.0.1:{}", proxy.port));
    let report = setup.diagnose(&config, &[]);
    assert!(
        // Proxies disagree on the number for a wrong password.
        report.contains("401") || report.contains("407"),
        "diagnose names the proxy's answer:\n{report}"
    );
    assert!(
        !report.contains("wrong@"),
        "the password is in the report:\n{report}"
    );
}

#[test]
fn agent_leaves_through_a_socks_proxy_named_by_the_environment() {
    if skip_without(&["microsocks"]) {
        return;
    }
    let mut setup = Setup::new();
    let port = setup.listen("echo");
    let _hub = setup.hub();
    let proxy = ForwardProxy::socks(setup.folder());
    let (user, password) = CREDENTIALS;
    let config = setup.agent_config(&[("echo", echo_service())]);
    let url = format!("socks5h://{user}:{password}@127.0.0.1:{}", proxy.port);
    let mut agent = setup.agent_with(&config, &[("NC_TRUST_ENV", "true"), ("HTTPS_PROXY", &url)]);
    wait_until_ready(&mut agent, &config);
    echo_through(port);
    drop(agent);

    // Without a proxy that answers there is no way out, which shows that it was used.
    drop(proxy);
    let agent = setup.agent_with(&config, &[("NC_TRUST_ENV", "true"), ("HTTPS_PROXY", &url)]);
    let health_port =
        u16::try_from(config["observability"]["health_port"].as_u64().unwrap()).unwrap();
    eventually("a failed dial in the agent's log", PATIENCE, || {
        agent.log().contains("proxy").then_some(())
    });
    assert_ne!(health(health_port).as_deref(), Some("READY"));
    drop(agent);
    let _agent = setup.agent_with(
        &config,
        &[
            ("NC_TRUST_ENV", "true"),
            ("HTTPS_PROXY", &url),
            ("NO_PROXY", "localhost"),
        ],
    );
    eventually("READY without the proxy", PATIENCE, || {
        health(health_port).filter(|text| text == "READY")
    });
}

#[test]
fn one_trace_from_accept_to_dial() {
    if skip_without(&otlp::PROGRAMS)
        || skip_without(&["plugins/target/components/scope-guard.wasm"])
    {
        return;
    }
    let mut setup = Setup::new();
    let receiver = Otlp::start(setup.folder());
    setup.config["observability"]["otlp_endpoint"] = json!(receiver.endpoint);
    setup.config["observability"]["otlp_sample_ratio"] = json!(1.0);
    setup.config["plugins"] = json!({
        "dir": root().join("plugins/target/components"),
        "require_signature": false,
        "list": [{"name": "gate", "file": "scope-guard.wasm", "grants": ["config"],
                  "config": {"agent_names": ["site-#"]}}],
    });
    let port = setup.listen("echo");
    let hub = setup.hub();
    let mut config = setup.agent_config(&[("echo", echo_service())]);
    config["observability"]["otlp_endpoint"] = json!(receiver.endpoint);
    let agent = setup.agent(&config);
    drop(echo_through(port));

    let trace = eventually("a trace with spans of hub and agent", PATIENCE * 2, || {
        let spans = receiver.spans();
        let dial = spans
            .iter()
            .find(|span| span.name.contains("dial"))?
            .clone();
        let trace: Vec<Span> = spans
            .into_iter()
            .filter(|span| span.trace == dial.trace)
            .collect();
        // Spans come in batches: the trace is whole when no parent is missing.
        let has_parent = |span: &Span| {
            span.parent.is_empty() || trace.iter().any(|other| other.span == span.parent)
        };
        let has = |wanted: &str| trace.iter().any(|span| span.name == wanted);
        let whole = trace.iter().all(has_parent)
            && ["accept", "decision", "plugin open", "open"]
                .into_iter()
                .all(has);
        whole.then_some(trace)
    });
    let services: std::collections::BTreeSet<_> =
        trace.iter().map(|span| span.service.as_str()).collect();
    assert_eq!(services.len(), 2, "hub and agent: {trace:?}");
    let roots = trace.iter().filter(|span| span.parent.is_empty()).count();
    assert_eq!(roots, 1, "one root: {trace:?}");
    for span in &trace {
        let attributes = span.attributes.to_string();
        assert!(!attributes.contains("eyJ"), "a token in a span: {span:?}");
    }
    let hello = eventually("a trace of the agent's HELLO", PATIENCE * 2, || {
        let spans = receiver.spans();
        let root = spans.iter().find(|span| span.name == "hello")?.clone();
        let below = |parent: &Span, name: &str| {
            spans
                .iter()
                .find(|span| span.name == name && span.parent == parent.span)
                .cloned()
        };
        let authentication = below(&root, "authentication")?;
        let decision = below(&root, "decision")?;
        let plugin = below(&decision, "plugin hello")?;
        Some([root, authentication, decision, plugin])
    });
    assert!(hello[0].parent.is_empty(), "{hello:?}");
    assert!(
        hello.iter().all(|span| span.trace == hello[0].trace),
        "one trace: {hello:?}"
    );
    let attributes = hello[0].attributes.to_string();
    assert!(attributes.contains("site-1"), "{attributes}");
    assert!(attributes.contains("accepted"), "{attributes}");
    for span in &hello {
        let attributes = span.attributes.to_string();
        assert!(!attributes.contains("eyJ"), "a token in a span: {span:?}");
    }
    drop((hub, agent));
}

#[test]
fn decisions_reach_a_collector_as_log_records() {
    if skip_without(&otlp::PROGRAMS) {
        return;
    }
    let mut setup = Setup::new();
    let receiver = Otlp::start(setup.folder());
    setup.config["observability"]["otlp_endpoint"] = json!(receiver.endpoint);
    setup.config["observability"]["decision_log"] = json!({"otlp": true, "file": setup.folder().join("decisions.jsonl"),
               "context": ["net.source_ip"]});
    let port = setup.listen("echo");
    let hub = setup.hub();
    let agent = setup.agent(&setup.agent_config(&[("echo", echo_service())]));
    drop(echo_through(port));
    let records = eventually("the decisions about an agent and a flow", PATIENCE, || {
        let records = receiver.log_records();
        let has = |action: &str| {
            records
                .iter()
                .any(|record| record.log_attributes["action"] == action)
        };
        (has("hello") && has("announce") && has("open")).then_some(records)
    });
    let open = records
        .iter()
        .find(|record| record.log_attributes["action"] == "open")
        .unwrap();
    assert_eq!(open.service, "nowconnect");
    assert_eq!(open.scope, "nowconnect.decisions");
    assert_eq!(
        (open.severity.as_str(), open.body.as_str()),
        ("INFO", "decision")
    );
    assert_eq!(open.log_trace.len(), 32, "{open:?}");
    assert_eq!(open.log_attributes["allow"], true);
    assert_eq!(open.log_attributes["why"], "permitted");
    assert!(
        open.log_attributes["context"]
            .to_string()
            .contains("127.0.0.1")
    );
    let id = open.log_attributes["decision_id"].as_str().unwrap();
    let file = std::fs::read_to_string(setup.folder().join("decisions.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = file
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.iter().any(|line| line["decision_id"] == id), "{id}");
    assert!(!file.contains("eyJ"), "a token in the decision log");
    drop((hub, agent));
}

#[test]
fn an_authzen_decision_point_narrows_what_policies_allow() {
    if skip_without(&cerbos::PROGRAMS) {
        return;
    }
    let mut setup = Setup::new();
    let pdp = Cerbos::start(setup.folder());
    setup.config["pdp"] = json!({
        "url": pdp.url,
        "discovery": true,
        "timeout_ms": 10_000,
        "subject_properties": {"cerbos.roles": ["gateway"]},
    });
    let (open, secret) = (setup.listen("echo"), setup.listen("secret"));
    let hub = setup.hub();
    let service = echo_service();
    let _agent = setup.agent(&setup.agent_config(&[("echo", service), ("secret", service)]));
    let mut flow = echo_through(open);
    assert!(flow.say("through the decision point"), "{}", pdp.log());
    eventually("a flow that the decision point denies", PATIENCE, || {
        assert!(EchoClient::connect(secret).is_none_or(|mut flow| !flow.say("let me in")));
        hub.log().contains("pdp_denied").then_some(())
    });
    let metrics = setup.metrics();
    let counted = |line: &str| metrics.lines().any(|seen| seen.starts_with(line));
    assert!(counted("nowconnect_pdp_allow_total "), "{metrics}");
    assert!(
        metrics.contains("nowconnect_listener_errors_total{connector=\"secret\",type=\"pdp\"}"),
        "{metrics}"
    );
    // Once it is away, nothing new is let in, and the hub says so.
    drop(pdp);
    eventually("flows are denied without it", PATIENCE, || {
        assert!(flow.say("still here"), "trouble ended a running flow");
        let denied = EchoClient::connect(open).is_none_or(|mut flow| !flow.say("let me in"));
        (denied && hub.log().contains("pdp_unavailable")).then_some(())
    });
}

#[test]
fn metrics_are_what_prometheus_expects() {
    if skip_without(&["promtool"]) {
        return;
    }
    let mut setup = Setup::new();
    let port = setup.listen("echo");
    let _hub = setup.hub();
    let _agent = setup.agent(&setup.agent_config(&[("echo", echo_service())]));
    drop(echo_through(port));
    let metrics = setup.metrics();
    assert!(
        metrics.contains("nowconnect_tcp_connections_total{connector=\"echo\"}"),
        "{metrics}"
    );

    let mut check = program("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), metrics.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .concat();
    // These names come from the requirements and have to stay without their `_total`.
    let known = [
        "nowconnect_fin_sent",
        "nowconnect_fin_recv",
        "nowconnect_rst_sent",
        "nowconnect_rst_recv",
    ];
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| {
            !known
                .iter()
                .any(|name| line.starts_with(name) && line.contains("_total"))
        })
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

fn ldapsearch(port: u16, bundle: &std::path::Path, more: &[&str]) -> Command {
    let mut command = program("ldapsearch");
    command
        .env("LDAPTLS_CACERT", bundle)
        .env("LDAPTLS_REQCERT", "demand")
        .env("LDAPRC", "/dev/null")
        .args([
            "-x",
            "-LLL",
            "-o",
            "nettimeout=5",
            "-H",
            &format!("ldaps://127.0.0.1:{port}"),
            "-b",
            slapd::BASE,
        ])
        .args(more);
    command
}
