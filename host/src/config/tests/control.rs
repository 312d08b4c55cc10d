//! What an operator of a control plane writes, and what he gets where he does not.

use super::{problem, problems, valid};

/// The keys that are at fault.
fn faults(text: &str) -> Vec<String> {
    let found = problems(text).into_iter();
    found.map(|problem| problem.key).collect()
}

#[test]
fn an_api_for_others_says_where_it_is_and_where_agents_dial() {
    let keys = faults("control: {listen: \"0.0.0.0:8766\", allow_plaintext: true}");
    assert_eq!(keys, ["control.public_url", "control.tunnel_url"]);
    // A proxy on this machine takes callers from elsewhere.
    let found = problem(
        "control: {listen: \"127.0.0.1:8766\", public_url: \"https://control.example.com\"}",
    );
    assert_eq!(found.key, "control.tunnel_url");
    assert!(found.help.unwrap().contains("wss://"));
    for whole in [
        "control: {listen: \"127.0.0.1:8766\"}",
        "control: {listen: \"127.0.0.1:8766\", public_url: \"http://localhost:8766\"}",
        "control: {listen: \"0.0.0.0:8766\", allow_plaintext: true, \
         public_url: \"https://control.example.com\", tunnel_url: \"wss://hub.example.com/tunnel\"}",
    ] {
        valid(whole);
    }
}

#[test]
fn no_issuer_of_others_has_our_name_and_no_audience_is_ours() {
    let issuers = |issuer: &str| {
        format!(
            "control: {{listen: \"127.0.0.1:8766\", public_url: \"http://localhost:8766/\"}}\n\
             security: {{issuers: [{{issuer: \"{issuer}\", jwks_file: keys.json}}]}}"
        )
    };
    let found = problem(&issuers("http://localhost:8766"));
    assert_eq!(found.key, "control.public_url");
    valid(&issuers("http://localhost:8767"));
    for kind in ["nowconnect-recreate", "nowconnect-control"] {
        let found = problem(&format!(
            "control: {{listen: \"127.0.0.1:8766\"}}\nsecurity: {{audience: {kind}}}"
        ));
        assert_eq!(found.key, "security.audience");
    }
}

#[test]
fn hosts_are_names_without_port_and_path() {
    for bad in [
        "control.internal:8766",
        "https://control.internal",
        "a/b",
        "",
    ] {
        let found = problem(&format!("control: {{allowed_hosts: [\"{bad}\"]}}"));
        assert_eq!(found.key, "control.allowed_hosts[0]", "{bad}");
    }
}

#[test]
fn public_ports_are_a_range_that_nobody_else_has() {
    for (ports, key) in [
        ("{first: 20010, last: 20000}", "control.tcp_ports.last"),
        ("{first: 1, last: 20000}", "control.tcp_ports.last"),
        (
            "{bind: \"0.0.0.0:1\", first: 1, last: 2}",
            "control.tcp_ports.bind",
        ),
        ("{first: 8700, last: 8800}", "control.tcp_ports"),
    ] {
        let found = problem(&format!("control: {{tcp_ports: {ports}}}"));
        assert_eq!(found.key, key, "{ports}");
    }
    let config = valid("control: {tcp_ports: {bind: \"::\", first: 20000, last: 20000}}");
    let ports = config.control.tcp_ports.unwrap();
    assert!(ports.range.contains(20_000) && ports.host.is_none());
}
