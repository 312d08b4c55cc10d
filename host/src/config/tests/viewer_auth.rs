//! How viewers say who they are, and what origins are told of it.

use std::time::Duration;

use super::super::AssertedClaim;
use super::{problem, valid};

#[test]
fn viewers_who_could_never_be_meant_so_are_refused() {
    let set = |ways: &str, more: &str| {
        format!("ingress: {{viewer_auth: [{{name: a, ways: [{ways}]{more}}}]}}")
    };
    let of_agents = "security: {issuer: 'https://idp.example'}\n";
    let basic = "{basic: {users_file: users}}";
    for (text, part) in [
        (set("{}", ""), "exactly one way"),
        (
            set("{basic: {users_file: users}, mtls: {}}", ""),
            "exactly one way",
        ),
        (set(&format!("{basic}, {basic}"), ""), "`basic` twice"),
        (set("{bearer: {audience: shop}}", ""), "trusts no issuer"),
        (
            format!("{of_agents}{}", set("{bearer: {audience: nowconnect}}", "")),
            "as in agents' tokens",
        ),
        (
            format!("{of_agents}{}", set("{bearer: {audience: ''}}", "")),
            "must not be empty",
        ),
        (
            format!(
                "{of_agents}{}",
                set("{bearer: {audience: shop, tag_claims: [method]}}", "")
            ),
            "the hub's own",
        ),
        (
            set(
                "{signed_url: {keys: [{name: k, file: a}, {name: k, file: b}]}}",
                "",
            ),
            "written twice",
        ),
        (set(basic, ", realm: 'a\"b'"), "a quote"),
        (
            set(basic, ", identity_headers: {X-A: subject}"),
            "cannot tell",
        ),
        (
            set(basic, ", identity_headers: {x_a: subject}"),
            "cannot tell",
        ),
        (
            set(basic, ", identity_headers: {host: subject}"),
            "cannot tell",
        ),
        (set(basic, ", identity_headers: {x-a: email}"), "claim:NAME"),
        (
            "ingress: {routes: [{name: a, host: a, connector: c, viewer_auth: none}]}".to_owned(),
            "has none of that name",
        ),
        (
            "ingress: {listeners: [{name: w, bind: '0.0.0.0:1'}], viewer_auth: [{name: a, ways: \
             [{mtls: {}}]}]}"
                .to_owned(),
            "no listener asks",
        ),
        (two_authorities("mtls: {}"), "different authorities"),
        (
            two_authorities("mtls: {listeners: [acme, absent]}"),
            "the listener `absent`",
        ),
        (
            "ingress: {listeners: [{name: w, bind: '0.0.0.0:1', client_certificates: {ca_file: \
             a}}]}"
                .to_owned(),
            "speaks no TLS",
        ),
    ] {
        let found = problem(&text);
        let shown = format!("{} {:?}", found.message, found.help);
        assert!(shown.contains(part), "{text}: {found:?}");
    }
}

/// Two listeners that ask for certificates, each with authorities of its own, and a set with this
/// way.
fn two_authorities(way: &str) -> String {
    let listener = |name: &str, port: u16| {
        format!(
            "{{name: {name}, bind: '0.0.0.0:{port}', tls: {{cert_file: c, key_file: k}}, \
             client_certificates: {{ca_file: {name}.pem}}}}"
        )
    };
    format!(
        "ingress: {{listeners: [{}, {}], viewer_auth: [{{name: a, ways: [{{{way}}}]}}]}}",
        listener("acme", 1),
        listener("beta", 2)
    )
}

#[test]
fn an_assertion_is_read() {
    let config = valid(
        "control: {listen: '127.0.0.1:1'}\n\
         ingress: {viewer_auth: [{name: a, ways: [{basic: {users_file: users}}], \
         assertion: {audience: shop, claims: [groups, 'claim:dept', issuer]}}]}",
    );
    let assertion = config.ingress.viewer_auth[0].assertion.as_ref().unwrap();
    assert_eq!(assertion.header, "x-viewer-assertion");
    assert_eq!(assertion.lifetime, Duration::from_secs(60));
    assert_eq!(
        assertion.claims,
        [
            AssertedClaim::Groups,
            AssertedClaim::Tag("dept".to_owned()),
            AssertedClaim::Issuer
        ]
    );
    assert!(assertion.key_files.is_empty() && assertion.issuer.is_none());
}

#[test]
fn an_assertion_that_nobody_could_check_is_refused() {
    let set = |more: &str| {
        format!(
            "ingress: {{viewer_auth: [{{name: a, ways: [{{basic: {{users_file: users}}}}], \
             identity_headers: {{x-viewer: subject}}, assertion: {{{more}}}}}]}}"
        )
    };
    let keys = "key_files: [k], issuer: 'https://hub.example.com'";
    for (text, part) in [
        (set("audience: shop"), "turn `control` on"),
        (
            format!(
                "control: {{listen: '127.0.0.1:1', tokens: {{algorithm: HS256}}}}\n{}",
                set("audience: shop")
            ),
            "shared secret",
        ),
        (set("audience: shop, key_files: [k]"), "in whose name"),
        (set(&format!("audience: '', {keys}")), "it is empty"),
        (
            set(&format!("audience: nowconnect, {keys}")),
            "itself takes",
        ),
        (
            set(&format!("audience: nowconnect-control, {keys}")),
            "itself takes",
        ),
        (
            set(&format!("audience: shop, header: authorization, {keys}")),
            "cannot tell",
        ),
        (
            set(&format!("audience: shop, header: x-viewer, {keys}")),
            "as well",
        ),
        (
            set(&format!("audience: shop, claims: [email], {keys}")),
            "claim:NAME",
        ),
    ] {
        let found = problem(&text);
        let shown = format!("{} {:?}", found.message, found.help);
        assert!(shown.contains(part), "{text}: {found:?}");
    }
}
