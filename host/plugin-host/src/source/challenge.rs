//! What a registry says to who has no token: where it would have one.
//!
//! A registry may name any server there. It is believed about its own host, and about those that
//! the operator named for it; for anything else the hub would be sent to, with or without its
//! credentials, by whoever answers in the registry's place.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use crate::web::Target;

/// Longest URL that tokens are asked for at.
const URL_BYTES_MAX: usize = 2048;

/// How a registry wants to be shown who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// By a token that another URL hands out.
    Token {
        realm: String,
        service: Option<String>,
    },
    /// By user and password.
    Password,
}

impl Challenge {
    /// The first that is understood, a token before a password.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let all: Vec<Self> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| Self::parse(value.to_str().ok()?))
            .collect();
        let token = all.iter().find(|one| **one != Self::Password);
        token.or_else(|| all.first()).cloned()
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (scheme, mut rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Password);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let (name, after) = rest.split_once('=')?;
            let (value, left) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                // The scope too: what is asked for is ours to say.
                _ => {}
            }
            rest = left;
        }
        let realm = realm?;
        Some(Self::Token { realm, service })
    }
}

/// Why the hub does not go where a registry sends it for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadRealm {
    /// No URL that could be asked.
    NoUrl,
    /// Without TLS, by a registry that has it.
    NoTls,
    /// With a query of its own, which could ask for another scope or another service.
    Query,
    /// Another server that the operator did not name.
    Elsewhere(String),
}

/// The URL to ask for a token of this scope, if the realm is one that the registry may name.
pub(super) fn token_url(
    realm: &str,
    service: Option<&str>,
    scope: &str,
    registry: &Target,
    token_hosts: &[String],
) -> Result<String, BadRealm> {
    let target = Target::parse(realm).map_err(|_| BadRealm::NoUrl)?;
    if registry.tls && !target.tls {
        return Err(BadRealm::NoTls);
    }
    let is_named = |text: &String| {
        host_and_port(text, target.tls).is_some_and(|(host, port)| {
            (host.as_str(), port) == (target.host.as_str(), target.port)
        })
    };
    let is_own = (&target.host, target.port) == (&registry.host, registry.port);
    if !is_own && !token_hosts.iter().any(is_named) {
        return Err(BadRealm::Elsewhere(target.authority()));
    }
    if realm.contains('?') {
        return Err(BadRealm::Query);
    }
    let mut url = realm.to_owned();
    let mut separator = '?';
    for (name, value) in [("service", service), ("scope", Some(scope))] {
        let Some(value) = value else { continue };
        url.push(std::mem::replace(&mut separator, '&'));
        url.push_str(name);
        url.push('=');
        url.extend(value.bytes().map(escaped));
    }
    if url.len() > URL_BYTES_MAX || url.contains('#') {
        return Err(BadRealm::NoUrl);
    }
    Ok(url)
}

/// A host as the operator writes it, `auth.example` or `auth.example:8443`.
pub(super) fn host_and_port(text: &str, tls: bool) -> Option<(String, u16)> {
    if text.contains(['/', '?', '#', '@']) {
        return None;
    }
    let scheme = if tls { "https" } else { "http" };
    let target = Target::parse(&format!("{scheme}://{text}")).ok()?;
    Some((target.host, target.port))
}

fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::{BadRealm, Challenge, token_url};
    use crate::web::Target;

    #[test]
    fn a_challenge_is_read_whatever_its_order_and_spelling() {
        for text in [
            r#"Bearer realm="https://r.example/token",service="r.example",scope="repository:x:push""#,
            r#"bearer service=r.example , realm="https://r.example/token""#,
        ] {
            let Some(Challenge::Token { realm, service }) = Challenge::parse(text) else {
                panic!("{text}");
            };
            assert_eq!(realm, "https://r.example/token");
            assert_eq!(service.unwrap().trim(), "r.example");
        }
        assert_eq!(
            Challenge::parse("Basic realm=\"x\""),
            Some(Challenge::Password)
        );
        for text in [
            "",
            "Bearer",
            "Bearer realm=\"x",
            "Bearer xrealm=\"x\"",
            "Digest realm=\"x\"",
        ] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }

    #[test]
    fn tokens_come_from_the_registry_or_from_whom_the_operator_names() {
        let registry = Target::parse("https://r.example:5000/v2/").unwrap();
        let named = ["auth.example".to_owned(), "auth.example:8443".to_owned()];
        let url = |realm: &str, named: &[String]| {
            token_url(realm, Some("r"), "repository:acme/x:pull", &registry, named)
        };
        assert_eq!(
            url("https://r.example:5000/token", &[]).unwrap(),
            "https://r.example:5000/token?service=r&scope=repository%3Aacme%2Fx%3Apull"
        );
        for realm in ["https://auth.example/t", "https://AUTH.example:8443/t"] {
            assert!(url(realm, &named).is_ok(), "{realm}");
            assert!(
                matches!(url(realm, &[]), Err(BadRealm::Elsewhere(_))),
                "{realm}"
            );
        }
        for realm in [
            "https://r.example/token",
            "https://auth.example:444/t",
            "https://auth.example.evil.example/t",
            "https://127.0.0.1:5000/t",
            "https://[::1]/t",
            "https://169.254.169.254/latest",
        ] {
            let refused = url(realm, &named);
            assert!(matches!(refused, Err(BadRealm::Elsewhere(_))), "{realm}");
        }
        assert_eq!(url("http://auth.example/t", &named), Err(BadRealm::NoTls));
        for query in [
            "scope=repository:acme/y:push",
            "service=x",
            "account=root",
            "",
        ] {
            let realm = format!("https://r.example:5000/token?{query}");
            assert_eq!(url(&realm, &named), Err(BadRealm::Query), "{realm}");
        }
        for realm in [
            "",
            "/token",
            "ftp://r.example/",
            "https://u:p@r.example:5000/",
        ] {
            assert_eq!(url(realm, &named), Err(BadRealm::NoUrl), "{realm}");
        }
    }

    #[test]
    fn a_registry_without_tls_may_hand_out_tokens_without_it() {
        let registry = Target::parse("http://r.example:5000/v2/").unwrap();
        let url = |realm: &str| token_url(realm, None, "x", &registry, &[]);
        assert!(url("http://r.example:5000/token").is_ok());
        assert!(url("http://r.example:5001/token").is_err());
    }
}
