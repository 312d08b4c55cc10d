//! Who may call over TCP, and by which name.
//!
//! A web page that an operator has open can make his browser send requests to an address it
//! chooses, also to loopback, by pointing its own name there. So `Host` must be one of the names
//! of this port, `Origin`, where a browser sends it, must be too, and the caller must show what
//! no page has: the token in a header field, or a client certificate.

use std::net::SocketAddr;

use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::problem::{Problem, ProblemCode};
use super::view::AdminCaller;
use crate::config::Secret;
use crate::telemetry::events;

/// Recognises the token without keeping it: digests are compared, so that time tells nothing
/// about the token itself.
pub(super) struct TokenProof([u8; 32]);

impl TokenProof {
    pub(super) fn new(token: &Secret) -> Self {
        Self(Sha256::digest(token.expose().trim().as_bytes()).into())
    }

    fn accepts(&self, token: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        given == self.0
    }
}

/// The rules of the TCP port.
pub(super) struct TcpGuard {
    hosts: Vec<String>,
    token: Option<TokenProof>,
}

impl TcpGuard {
    /// Allowed names are the address itself, `localhost` on loopback, and `allowed`, each with
    /// and without the port.
    pub(super) fn new(address: SocketAddr, allowed: &[String], token: Option<TokenProof>) -> Self {
        let port = address.port();
        let ip = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        let mut names = vec![ip];
        if address.ip().is_loopback() {
            names.push(String::from("localhost"));
        }
        names.extend(allowed.iter().map(|name| name.to_ascii_lowercase()));
        let with_port = names.iter().map(|name| format!("{name}:{port}"));
        let mut hosts: Vec<String> = with_port.collect();
        hosts.extend(names);
        Self { hosts, token }
    }

    /// Who calls, or why he may not. `leaf` is the certificate that TLS has verified.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        from: SocketAddr,
        leaf: Option<&[u8]>,
    ) -> Result<AdminCaller, Problem> {
        let checked = self.checked(headers, from, leaf);
        if let Err(problem) = &checked {
            warn!(
                target: events::SECURITY,
                event = events::ADMIN_REFUSED,
                peer = %from,
                code = problem.code,
                "an admin call was refused"
            );
        }
        checked
    }

    fn checked(
        &self,
        headers: &HeaderMap,
        from: SocketAddr,
        leaf: Option<&[u8]>,
    ) -> Result<AdminCaller, Problem> {
        if !self.host_is_ours(headers) {
            return Err(Problem::new(
                ProblemCode::ForeignOrigin,
                "`Host` is not a name of this port; add it to `admin.allowed_hosts`",
            ));
        }
        if origin_is_foreign(headers, |host| self.knows(host)) {
            return Err(Problem::new(
                ProblemCode::ForeignOrigin,
                "web pages of other origins have no access",
            ));
        }
        if let Some(leaf) = leaf {
            let fingerprint = Sha256::digest(leaf)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            return Ok(AdminCaller::Certificate { from, fingerprint });
        }
        let given = single(headers, header::AUTHORIZATION)
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        match (&self.token, given) {
            (Some(token), Some(given)) if token.accepts(given) => Ok(AdminCaller::Token { from }),
            (Some(_), Some(_)) => Err(Problem::new(
                ProblemCode::Unauthenticated,
                "the token is not the right one",
            )),
            (Some(_), None) | (None, _) => Err(Problem::new(
                ProblemCode::Unauthenticated,
                "show the token as `Authorization: Bearer …`, or a client certificate",
            )),
        }
    }

    fn host_is_ours(&self, headers: &HeaderMap) -> bool {
        single(headers, header::HOST).is_some_and(|host| self.knows(host))
    }

    fn knows(&self, host: &str) -> bool {
        self.hosts
            .iter()
            .any(|known| known.eq_ignore_ascii_case(host))
    }
}

/// Whether a browser says that the request comes from a page that is not ours.
pub(super) fn origin_is_foreign(headers: &HeaderMap, knows: impl Fn(&str) -> bool) -> bool {
    if headers.get_all(header::ORIGIN).iter().next().is_some() {
        let host = single(headers, header::ORIGIN).and_then(|origin| {
            origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"))
        });
        return !host.is_some_and(knows);
    }
    // A browser that leaves `Origin` out of a simple request still says where it comes from.
    headers
        .get("sec-fetch-site")
        .is_some_and(|site| site != "same-origin" && site != "none")
}

/// The value of a field that stands once and is text.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn the_token_is_asked_for_under_our_own_name_only() {
        for host in [
            "127.0.0.1:9000",
            "127.0.0.1",
            "LOCALHOST:9000",
            "admin.example:9000",
        ] {
            let caller = check(&[("host", host), ("authorization", "bearer t0ken")]);
            assert!(matches!(caller, Ok(AdminCaller::Token { .. })), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1:9001",
            "localhost:9000.evil.example",
            "",
        ] {
            let refused = check(&[("host", host), ("authorization", "Bearer t0ken")]);
            assert_eq!(refused.unwrap_err().code, "foreign_origin", "{host}");
        }
        let twice = check(&[("host", "localhost"), ("host", "evil.example")]);
        assert_eq!(twice.unwrap_err().code, "foreign_origin");
    }

    #[test]
    fn no_or_a_wrong_token_is_refused() {
        let host = ("host", "localhost:9000");
        for tokens in [
            &[host][..],
            &[host, ("authorization", "Bearer wrong")],
            &[host, ("authorization", "Basic t0ken")],
            &[
                host,
                ("authorization", "Bearer t0ken"),
                ("authorization", "Bearer x"),
            ],
            &[host, ("authorization", "t0ken")],
        ] {
            let refused = check(tokens).unwrap_err();
            assert_eq!(refused.code, "unauthenticated");
            assert!(!refused.detail.contains("t0ken"));
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused_even_with_the_token() {
        let ours = [
            ("host", "localhost:9000"),
            ("authorization", "Bearer t0ken"),
        ];
        for foreign in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:9000.evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let refused = check(&[ours[0], ours[1], foreign]).unwrap_err();
            assert_eq!(refused.code, "foreign_origin", "{foreign:?}");
        }
        for own in [
            ("origin", "http://localhost:9000"),
            ("sec-fetch-site", "none"),
        ] {
            assert!(check(&[ours[0], ours[1], own]).is_ok(), "{own:?}");
        }
    }

    #[test]
    fn a_verified_certificate_needs_no_token() {
        let guard = guard();
        let headers = headers(&[("host", "localhost:9000")]);
        let caller = guard.check(&headers, from(), Some(b"leaf")).unwrap();
        assert!(matches!(caller, AdminCaller::Certificate { .. }));
    }

    fn guard() -> TcpGuard {
        let address = "127.0.0.1:9000".parse().unwrap();
        let token = TokenProof::new(&Secret::new("t0ken\n"));
        TcpGuard::new(address, &[String::from("Admin.Example")], Some(token))
    }

    fn check(fields: &[(&'static str, &str)]) -> Result<AdminCaller, Problem> {
        guard().check(&headers(fields), from(), None)
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn from() -> SocketAddr {
        "127.0.0.1:5555".parse().unwrap()
    }
}
