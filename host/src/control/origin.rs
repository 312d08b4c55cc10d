//! By which names the API may be called, and from which web pages.
//!
//! A page whose host name was led to this machine (DNS rebinding) is of one origin with the port,
//! so a browser lets it send what it likes and read the answer. But the request says the page's
//! name in `Host`, and where it changes something in `Origin`, which an agent or a script never
//! sends. An address cannot be led elsewhere, so whoever calls by address may.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

/// The host names of this API, beside its addresses and those of this machine.
#[derive(Debug)]
pub(super) struct OwnNames(Vec<String>);

impl OwnNames {
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self(names.map(|name| bare(name).to_ascii_lowercase()).collect())
    }

    /// Whether the request is for one of them. A target that names a host goes before the field
    /// (RFC 9112 §3.2.2), but a proxy may have gone by either: both have to be ours.
    pub(super) fn is_asked(&self, target: &Uri, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let host = host.to_str().ok();
        let host = host.and_then(|host| host.parse::<Authority>().ok());
        host.is_some_and(|host| self.contains(host.host()))
            && target.host().is_none_or(|host| self.contains(host))
    }

    /// Whether it comes from a web page of another host.
    pub(super) fn is_foreign_page(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => false,
            (Some(origin), None) => !origin
                .to_str()
                .ok()
                .and_then(|origin| origin.parse::<Uri>().ok())
                .and_then(|origin| origin.host().map(str::to_owned))
                .is_some_and(|host| self.contains(&host)),
            (Some(_), Some(_)) => true,
        }
    }

    fn contains(&self, host: &str) -> bool {
        let host = bare(host);
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok()
            || self.0.iter().any(|name| host.eq_ignore_ascii_case(name))
    }
}

/// Without the brackets of an address and the dot at the end of a name.
fn bare(host: &str) -> &str {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use http::HeaderName;

    use super::*;

    fn names() -> OwnNames {
        OwnNames::new(["control.example.com", "Control.Internal"].into_iter())
    }

    fn with(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_name_that_was_led_here_is_not_ours() {
        let asked = |target: &str, hosts: &[&str]| {
            names().is_asked(&target.parse().unwrap(), &with(header::HOST, hosts))
        };
        for ours in [
            "127.0.0.1:8766",
            "[::1]:8766",
            "192.0.2.7",
            "localhost:8766",
            "Control.example.com",
            "control.example.com.:8766",
            "control.internal",
        ] {
            assert!(asked("/tunnels/create", &[ours]), "{ours}");
        }
        for foreign in [
            "evil.example:8766",
            "localhost.evil.example",
            "example.com",
            "a.control.example.com",
            "127.0.0.1.evil.example",
            "user@control.example.com@evil.example",
            "",
        ] {
            assert!(!asked("/", &[foreign]), "{foreign}");
        }
        assert!(!asked("/", &[]), "nobody says whom he asks");
        assert!(!asked("/", &["localhost", "localhost"]));
        assert!(asked("http://localhost/", &["localhost"]));
        assert!(!asked("http://evil.example/", &["localhost"]));
        assert!(!asked("http://localhost/", &["evil.example"]));
    }

    #[test]
    fn a_page_of_another_name_is_foreign_wherever_that_name_leads() {
        let foreign = |origins: &[&str]| names().is_foreign_page(&with(header::ORIGIN, origins));
        for ours in [
            "http://127.0.0.1:8766",
            "http://[::1]:8766",
            "http://localhost:8766",
            "https://Control.example.com",
            "https://control.example.com:8766",
        ] {
            assert!(!foreign(&[ours]), "{ours}");
        }
        for other in [
            "http://evil.example:8766",
            "http://localhost.evil.example",
            "https://example.com",
            "null",
            "",
        ] {
            assert!(foreign(&[other]), "{other}");
        }
        assert!(!foreign(&[]), "no browser asks");
        assert!(foreign(&["http://localhost", "http://localhost"]));
    }
}
