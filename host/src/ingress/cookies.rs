//! Cookies on their way through the hub.

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

/// Cookies of the hub itself, over plain HTTP.
const OWN_COOKIE: &str = "nowconnect-";

/// The same over TLS: browsers let nobody else set those (RFC 6265bis, 4.1.3).
const OWN_SECURE_COOKIE: &str = "__Host-nowconnect-";

/// Own cookies of one request that are looked at.
const MAX_OWN: usize = 16;

/// One for the hub's own use, of this host alone and out of reach of scripts.
pub(super) fn own(name: &str, value: &str, secure: bool) -> String {
    let (prefix, and) = if secure {
        (OWN_SECURE_COOKIE, "; Secure")
    } else {
        (OWN_COOKIE, "")
    };
    format!("{prefix}{name}={value}; Path=/; HttpOnly; SameSite=Lax{and}")
}

/// Those of the hub itself, by their name without its beginning. Over TLS only those count that
/// nobody else can have set.
pub(super) fn own_of(headers: &HeaderMap, secure: bool) -> Vec<(String, String)> {
    let prefix = if secure {
        OWN_SECURE_COOKIE
    } else {
        OWN_COOKIE
    };
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|cookie| cookie.trim().strip_prefix(prefix)?.split_once('='))
        .take(MAX_OWN)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn is_own(cookie: &[u8]) -> bool {
    let begins = |own: &str| cookie.starts_with(own.as_bytes());
    begins(OWN_COOKIE) || begins(OWN_SECURE_COOKIE)
}

/// Takes out those of the hub itself, which no service is to read.
pub(super) fn strip_own(headers: &mut HeaderMap) {
    let has_own = headers.get_all(COOKIE).iter().any(|value| {
        let name = OWN_COOKIE.as_bytes();
        value
            .as_bytes()
            .windows(name.len())
            .any(|part| part == name)
    });
    if !has_own {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| {
            let kept: Vec<&[u8]> = value
                .as_bytes()
                .split(|byte| *byte == b';')
                .map(<[u8]>::trim_ascii)
                .filter(|cookie| !is_own(cookie))
                .collect();
            HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok()
        })
        .filter(|value| !value.is_empty())
        .collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
    }
}

/// Makes every cookie that an origin sets one of `host` alone: with `Domain`, even one that equals
/// the host, it would be sent to every service below that name, and those may be other tenants'.
/// One for another host is dropped, of others `Domain` is taken out. Says how many were dropped.
pub(crate) fn narrow(headers: &mut HeaderMap, host: &str) -> usize {
    let all: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    if !all.iter().any(|cookie| domains(cookie).next().is_some()) {
        return 0;
    }
    headers.remove(SET_COOKIE);
    let mut dropped = 0;
    for cookie in all {
        match narrowed(&cookie, host) {
            Some(cookie) => {
                headers.append(SET_COOKIE, cookie);
            }
            None => dropped += 1,
        }
    }
    dropped
}

fn narrowed(cookie: &HeaderValue, host: &str) -> Option<HeaderValue> {
    // Browsers ignore a dot at its start; an empty one is none.
    let is_wide = domains(cookie).any(|domain| {
        let domain = domain.strip_prefix(b".").unwrap_or(domain);
        !domain.is_empty() && !domain.eq_ignore_ascii_case(host.as_bytes())
    });
    if is_wide {
        return None;
    }
    let mut parts = cookie.as_bytes().split(|byte| *byte == b';');
    let pair = parts.next();
    let kept: Vec<&[u8]> = pair
        .into_iter()
        .chain(parts.filter(|attribute| domain_of(attribute).is_none()))
        .collect();
    HeaderValue::from_bytes(&kept.join(&b';')).ok()
}

/// Every `Domain` of a cookie.
fn domains(cookie: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let attributes = cookie.as_bytes().split(|byte| *byte == b';').skip(1);
    attributes.filter_map(domain_of)
}

fn domain_of(attribute: &[u8]) -> Option<&[u8]> {
    let mut halves = attribute.splitn(2, |byte| *byte == b'=');
    let name = halves.next()?.trim_ascii();
    name.eq_ignore_ascii_case(b"domain")
        .then(|| halves.next().unwrap_or_default().trim_ascii())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn the_hubs_own_cookies_are_read_and_taken_out() {
        let mut headers = HeaderMap::new();
        let all = "a=1; nowconnect-x=2; __Host-nowconnect-x=3; b=nowconnect-y=4";
        headers.insert(COOKIE, HeaderValue::from_static(all));
        let read = |secure| own_of(&headers, secure);
        assert_eq!(read(false), [("x".to_owned(), "2".to_owned())]);
        assert_eq!(read(true), [("x".to_owned(), "3".to_owned())]);
        strip_own(&mut headers);
        assert_eq!(headers[COOKIE], "a=1; b=nowconnect-y=4");
        assert_eq!(
            own("x", "3", true),
            "__Host-nowconnect-x=3; Path=/; HttpOnly; SameSite=Lax; Secure"
        );
    }

    #[test]
    fn a_cookie_is_for_its_host_alone() {
        let mut headers = HeaderMap::new();
        for cookie in [
            "a=1; Path=/",
            "b=1; Domain=.shop.example.com; Secure",
            "c=1; domain = Example.com; Secure",
            "d=1; Domain=shop.example.com; Domain=example.com",
            "e=Domain=example.com",
            "f=1; Domain=",
            "g=1; DOMAIN=Shop.Example.com",
        ] {
            headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        assert_eq!(narrow(&mut headers, "shop.example.com"), 2);
        let left: Vec<&str> = headers
            .get_all(SET_COOKIE)
            .iter()
            .map(|cookie| cookie.to_str().unwrap())
            .collect();
        assert_eq!(
            left,
            [
                "a=1; Path=/",
                "b=1; Secure",
                "e=Domain=example.com",
                "f=1",
                "g=1"
            ]
        );
    }
}
