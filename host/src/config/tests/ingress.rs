//! HTTP by host name.

use super::super::{ChallengeKind, OriginHttp, Sticky};
use super::{problem, valid};

#[test]
fn ports_and_routes_are_read() {
    let config = valid(
        "ingress:\n  listeners:\n    - {name: web, bind: '0.0.0.0:8082'}\n    \
         - {name: tls, bind: '0.0.0.0:8443', tls: {cert_file: a.pem, key_file: a.key}, \
         trusted_proxies: [10.0.0.0/8]}\n  routes:\n    \
         - {name: shop, host: Shop.Example.com., path: /api/, connector: shop}\n    \
         - {name: all, tenant: acme, host: '*.example.com', path: /api, path_match: exact, \
         connector: web, public: true, host_header: 'App.internal:8080', rewrite_location: true, \
         origin_http: http2, connections: viewer}\n",
    );
    let ingress = &config.ingress;
    assert!(ingress.listeners[0].tls.is_none());
    let files = ingress.listeners[1].tls.iter().flat_map(|tls| tls.files());
    let files: Vec<_> = files.map(|files| files.cert_file.as_path()).collect();
    assert_eq!(files, [std::path::Path::new("a.pem")]);
    let shop = &ingress.routes[0];
    assert_eq!(shop.host.to_string(), "shop.example.com");
    assert_eq!(
        (shop.path.as_str(), shop.exact, shop.public),
        ("/api", false, false)
    );
    assert_eq!(shop.response_timeout.as_secs(), 10);
    let all = &ingress.routes[1];
    assert_eq!((all.path.as_str(), all.exact), ("/api", true));
    assert_eq!(all.connector_key().to_string(), "acme/web");
    assert_eq!(all.host_header.as_ref().unwrap(), "app.internal:8080");
    assert_eq!(all.origin_http, OriginHttp::Http2);
    assert!(all.connections_per_viewer);
}

#[test]
fn agents_are_looked_at_and_kept_as_written() {
    let config = valid(
        "connectors: {shop: {health_check: {fall: 5, http: {path: '/up?x=1', status: [204]}}}, \
         raw: {health_check: {}}}\n\
         ingress:\n  agent_label: true\n  routes:\n    \
         - {name: a, host: a, connector: shop, sticky: cookie}\n    \
         - {name: b, host: b, connector: shop, sticky: {header: X-Session}}\n    \
         - {name: c, host: '*.c', connector: http, agent_label: true}\n",
    );
    let check = |connector: &str| {
        let name = nowconnect_protocol::ConnectorName::parse(connector).unwrap();
        config.connector(&Default::default(), &name).health_check
    };
    let shop = check("shop").unwrap();
    assert_eq!((shop.rise, shop.fall, shop.timeout.as_secs()), (2, 5, 3));
    let http = shop.http.unwrap();
    assert_eq!(
        (http.path.as_str(), http.host.as_bytes()),
        ("/up?x=1", &b"localhost"[..])
    );
    assert_eq!(http.status, [http::StatusCode::NO_CONTENT]);
    assert_eq!(check("raw").unwrap().http, None);
    assert_eq!(check("other"), None);
    let routes = &config.ingress.routes;
    assert_eq!(routes[0].sticky, Some(Sticky::Cookie));
    let header = http::HeaderName::from_static("x-session");
    assert_eq!(routes[1].sticky, Some(Sticky::Header(header)));
    assert!(routes[2].agent_label);
    // Unless it is set, one address has a quarter of all requests.
    assert_eq!(config.ingress.limits.max_requests_per_source, 1024);
}

#[test]
fn agents_answer_under_their_names_only_where_that_is_wanted() {
    let route = |more: &str| format!("ingress: {{routes: [{{name: a, connector: c, {more}}}]}}");
    for (text, part) in [
        (
            route("host: '*.a', agent_label: true"),
            "ingress.agent_label",
        ),
        (
            route("host: a, agent_label: true").replace("{routes", "{agent_label: true, routes"),
            "*.agents.example.com",
        ),
        (
            route("host: '*.a', agent_label: true, sticky: cookie")
                .replace("{routes", "{agent_label: true, routes"),
            "leave `sticky` out",
        ),
        (route("host: a, sticky: {header: 'a b'}"), "header field"),
        (
            "connectors: {a: {health_check: {http: {path: up}}}}".to_owned(),
            "it is no path",
        ),
    ] {
        let found = problem(&text);
        let shown = format!("{} {:?}", found.message, found.help);
        assert!(shown.contains(part), "{text}: {found:?}");
    }
}

#[test]
fn without_ports_there_is_no_ingress() {
    let config = valid("");
    assert!(config.ingress.listeners.is_empty() && config.ingress.routes.is_empty());
    assert!(config.ingress.forwarded_headers);
}

#[test]
fn routes_that_no_request_or_two_could_meet_are_refused() {
    let route = |more: &str| format!("ingress: {{routes: [{{name: a, connector: c, {more}}}]}}");
    for (text, part) in [
        (route("host: 'a b'"), "no host of a route"),
        (route("host: 'a:80'"), "leave the port out"),
        (route("host: '*.*'"), "no host of a route"),
        (route("host: a, path: api"), "begins with `/`"),
        (route("host: a, path: /a//b"), "no request has that path"),
        (route("host: a, path: /%61"), "no request has that path"),
        (route("host: a, path: '/a\\b'"), "read differently"),
        (route("host: a, host_header: 'b c'"), "host_header"),
        (
            route("host: a, rewrite_location: true"),
            "nothing to turn back",
        ),
        (
            "ingress: {routes: [{name: a, host: a, connector: c}, {name: b, host: A, path: /, \
             connector: d}]}"
                .to_owned(),
            "same host and path",
        ),
        (
            "ingress: {routes: [{name: a, host: a, connector: c}, {name: a, host: b, \
             connector: d}]}"
                .to_owned(),
            "used twice",
        ),
        (
            "{listeners: [{name: a, bind: '0.0.0.0:1', connector: c}], ingress: {listeners: \
             [{name: a, bind: '0.0.0.0:2'}]}}"
                .to_owned(),
            "used twice",
        ),
        (
            "{listeners: [{name: a, bind: '0.0.0.0:1', connector: c}], ingress: {listeners: \
             [{name: b, bind: '0.0.0.0:1'}]}}"
                .to_owned(),
            "share the port",
        ),
    ] {
        let found = problem(&text);
        let shown = format!("{} {:?}", found.message, found.help);
        assert!(shown.contains(part), "{text}: {found:?}");
    }
}

#[test]
fn a_port_with_tls_needs_a_certificate() {
    let port =
        |tls: &str| format!("ingress: {{listeners: [{{name: a, bind: '0.0.0.0:1', tls: {tls}}}]}}");
    let further = valid(&port(
        "{certificates: [{cert_file: a.pem, key_file: a.key}]}",
    ));
    let tls = further.ingress.listeners[0].tls.as_ref().unwrap();
    assert!(tls.default.is_none() && tls.files().count() == 1);
    for (tls, part) in [
        ("{}", "has no certificate"),
        ("{cert_file: a.pem}", "without the other"),
        ("{key_file: a.key}", "without the other"),
    ] {
        let found = problem(&port(tls));
        assert!(found.message.contains(part), "{tls}: {found:?}");
    }
}

/// `ingress` with an authority, these ports and more of its settings.
fn issuing(ports: &str, more: &str) -> String {
    format!(
        "ingress:\n  listeners: [{ports}]\n  acme:\n    directory_url: https://ca.example/dir\n    \
         terms_of_service_agreed: true\n    state_file: state/c.redb\n    {more}\n"
    )
}

const BOTH: &str = "{name: a, bind: '0.0.0.0:1'}, {name: b, bind: '0.0.0.0:2', tls: {}}";

#[test]
fn an_authority_is_read() {
    let config = valid(&issuing(BOTH, "hosts: [shop.test, '*.Example.com']"));
    let acme = config.ingress.acme.unwrap();
    assert_eq!(
        acme.challenges,
        [ChallengeKind::TlsAlpn01, ChallengeKind::Http01]
    );
    assert!(acme.allows("shop.test") && acme.allows("a.example.com"));
    assert!(!acme.allows("example.com") && !acme.allows("other.test"));
    assert_eq!(acme.handshake_wait.as_millis(), 5000);
    let all = valid(&issuing(BOTH, "challenges: [http_01, http_01]"));
    let acme = all.ingress.acme.unwrap();
    assert_eq!(acme.challenges, [ChallengeKind::Http01]);
    assert!(acme.allows("other.test"));
    assert!(valid("").ingress.acme.is_none());
}

#[test]
fn an_authority_that_could_issue_nothing_is_refused() {
    let plain = "{name: a, bind: '0.0.0.0:1'}";
    let tls = "{name: b, bind: '0.0.0.0:2', tls: {}}";
    for (text, part) in [
        (issuing(plain, ""), "no port of `ingress.listeners` has TLS"),
        (issuing(tls, "challenges: [http_01]"), "every port has TLS"),
        (issuing(BOTH, "contact: [ops@example.com]"), "mailto:"),
        (issuing(BOTH, "contact: ['mailto:a@b,c@d']"), "no contact"),
        (issuing(BOTH, "hosts: ['a b']"), "no host"),
        (
            issuing(BOTH, "").replace("agreed: true", "agreed: false"),
            "issues nothing",
        ),
        (
            issuing(BOTH, "").replace("https://", "http://"),
            "directory_url",
        ),
    ] {
        let found = problem(&text);
        let shown = format!("{} {:?}", found.message, found.help);
        assert!(shown.contains(part), "{text}: {found:?}");
    }
}

#[test]
fn an_authority_is_added_by_a_restart_and_changed_without() {
    let none = valid("ingress: {listeners: [{name: a, bind: '0.0.0.0:1'}]}");
    let one = valid(&issuing(BOTH, ""));
    let added = one.changes_from(&none);
    assert_eq!(added.restart, ["ingress.acme.state_file"]);
    assert!(one.keeping_fixed(&none).ingress.acme.is_none());
    let other = valid(&issuing(BOTH, "hosts: [shop.test]"));
    let changed = other.changes_from(&one);
    assert!(changed.restart.is_empty() && changed.touches("ingress"));
    let moved = valid(&issuing(BOTH, "").replace("c.redb", "d.redb"));
    let kept = moved.keeping_fixed(&one).ingress.acme.unwrap();
    assert!(kept.state_file.ends_with("c.redb"));
    assert!(none.changes_from(&one).restart.is_empty(), "turned off");
}

#[test]
fn a_change_is_taken_over_while_the_hub_runs() {
    let before = valid("");
    let after = valid("ingress: {routes: [{name: a, host: a, connector: c}]}");
    let changes = after.changes_from(&before);
    assert_eq!(changes.live, ["ingress"]);
    assert!(changes.restart.is_empty());
    let bound = valid("ingress: {listeners: [{name: a, bind: '127.0.0.1:0'}]}").memory_bound();
    assert!(bound.total_bytes() > before.memory_bound().total_bytes());
}
