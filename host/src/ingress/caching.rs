//! What a response says about caches that serve several viewers.
//!
//! `Set-Cookie` keeps no cache from storing a response (RFC 9111, 7.3), so what names one viewer's
//! agent must not ride on what others will be given.

use http::header::{CACHE_CONTROL, EXPIRES};
use http::{HeaderMap, HeaderValue, StatusCode};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// No shared cache may keep it.
    Never,
    /// It does not say; a cache may think that it may.
    Unsaid,
    /// It is meant for shared caches, or becomes part of what they have.
    Meant,
}

/// Keeps `Set-Cookie` out of caches, of a response that does not say whether they may keep it.
pub(super) const WITHOUT_COOKIES: HeaderValue = HeaderValue::from_static("no-cache=\"set-cookie\"");

impl Sharing {
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if status == StatusCode::NOT_MODIFIED {
            return Self::Meant;
        }
        let (mut has_directives, mut is_meant) = (false, false);
        let values = headers.get_all(CACHE_CONTROL).iter();
        for directive in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
            has_directives = true;
            let directive = directive.trim_ascii().to_ascii_lowercase();
            match directive.as_slice() {
                b"no-store" | b"private" => return Self::Never,
                b"public" => is_meant = true,
                other => {
                    let age = other
                        .strip_prefix(b"s-maxage=")
                        .or_else(|| other.strip_prefix(b"max-age="));
                    is_meant |= age.is_some_and(|age| age != b"0");
                }
            }
        }
        if is_meant || !has_directives && headers.contains_key(EXPIRES) {
            Self::Meant
        } else {
            Self::Unsaid
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn what_is_meant_for_shared_caches_is_told_from_what_is_not() {
        for (control, expected) in [
            ("", Sharing::Unsaid),
            ("no-cache", Sharing::Unsaid),
            ("max-age=0, must-revalidate", Sharing::Unsaid),
            ("private, max-age=60", Sharing::Never),
            ("public, No-Store", Sharing::Never),
            ("public", Sharing::Meant),
            ("max-age=60", Sharing::Meant),
            ("no-cache, S-Maxage=60", Sharing::Meant),
        ] {
            let mut headers = HeaderMap::new();
            if !control.is_empty() {
                headers.insert(CACHE_CONTROL, control.parse().unwrap());
            }
            assert_eq!(Sharing::of(StatusCode::OK, &headers), expected, "{control}");
            let validated = Sharing::of(StatusCode::NOT_MODIFIED, &headers);
            assert_eq!(validated, Sharing::Meant);
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            EXPIRES,
            HeaderValue::from_static("Thu, 01 Jan 2099 00:00:00 GMT"),
        );
        assert_eq!(Sharing::of(StatusCode::OK, &headers), Sharing::Meant);
    }
}
