//! Telling origins who asks, in header fields.
//!
//! The shape is that of the plugin `jwt-claims-header`: printable ASCII as it is, the rest
//! percent-encoded, and so are `%` and, in a list, the comma, so that no claim can look like two or
//! break out of its line. A value that is too long is not told, because half a group is another
//! group.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue};
use nowconnect_policy::Viewer;

use super::{SignedIn, ViewerAuth};
use crate::config::{IdentityFact, ViewerAuthConfig};

/// The longest value in bytes; an origin's own bound for all fields is often 8 KiB.
const MAX_VALUE_BYTES: usize = 4096;

/// The fields by which any route tells who asks. No viewer may say one of them at any route: the
/// same origin may be behind several.
#[derive(Debug, Default)]
pub(crate) struct IdentityNames {
    names: BTreeSet<String>,
    has_signed_urls: bool,
}

impl IdentityNames {
    pub(crate) fn of(sets: &[ViewerAuthConfig]) -> Self {
        let of_set = |set: &'_ ViewerAuthConfig| {
            let plain = set.identity_headers.iter().map(|(name, _)| name);
            let signed = set.assertion.iter().map(|assertion| &assertion.header);
            let all: Vec<String> = plain.chain(signed).map(ToString::to_string).collect();
            all
        };
        Self {
            names: sets.iter().flat_map(of_set).collect(),
            has_signed_urls: sets.iter().any(|set| set.has("signed_url")),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether `name`, written with hyphens, is one of them.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether there are URLs which let whoever reads them in.
    pub(crate) fn has_signed_urls(&self) -> bool {
        self.has_signed_urls
    }
}

impl ViewerAuth {
    /// Puts what origins are told; a viewer's own fields were taken out before.
    pub(crate) fn tell(&self, signed_in: &SignedIn, headers: &mut HeaderMap) {
        for (name, fact) in &self.config.identity_headers {
            let value = told(signed_in, fact).filter(|value| value.len() <= MAX_VALUE_BYTES);
            put(headers, name, value);
        }
    }
}

fn put(headers: &mut HeaderMap, name: &HeaderName, value: Option<String>) {
    match value.and_then(|value| HeaderValue::try_from(value).ok()) {
        Some(value) => {
            headers.insert(name, value);
        }
        None => {
            headers.remove(name);
        }
    }
}

fn told(signed_in: &SignedIn, fact: &IdentityFact) -> Option<String> {
    let viewer = &signed_in.plugin;
    match fact {
        IdentityFact::Subject => viewer
            .subject
            .as_deref()
            .map(|subject| encoded(subject, b"")),
        IdentityFact::Tenant => match &signed_in.viewer {
            Viewer::Known(facts) => Some(facts.viewer.tenant().to_owned()),
            Viewer::Anonymous => None,
        },
        IdentityFact::Issuer => viewer.issuer.as_deref().map(|issuer| encoded(issuer, b"")),
        IdentityFact::Method => signed_in.method.map(str::to_owned),
        IdentityFact::Groups if viewer.groups.is_empty() => None,
        IdentityFact::Groups => {
            let groups: Vec<String> = viewer
                .groups
                .iter()
                .map(|group| encoded(group, b","))
                .collect();
            Some(groups.join(","))
        }
        IdentityFact::Claim(claim) => {
            let mut tags = viewer.attributes.iter();
            let (_, value) = tags.find(|(name, _)| name == claim)?;
            Some(encoded(value, b""))
        }
    }
}

fn encoded(text: &str, separators: &[u8]) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = matches!(byte, b'!'..=b'~') && byte != b'%' && !separators.contains(&byte);
        if plain {
            value.push(char::from(byte));
        } else {
            value.push_str(&format!("%{byte:02X}"));
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_breaks_out_of_its_line_or_looks_like_two() {
        assert_eq!(encoded("ann@example.com", b""), "ann@example.com");
        assert_eq!(encoded("a\r\nx-admin: 1", b""), "a%0D%0Ax-admin:%201");
        assert_eq!(encoded("é 100%", b""), "%C3%A9%20100%25");
        let viewer = nowconnect_plugins::Viewer {
            subject: Some("ann".to_owned()),
            groups: vec!["ops".to_owned(), "a,b".to_owned()],
            ..nowconnect_plugins::Viewer::default()
        };
        let signed_in = SignedIn {
            plugin: viewer,
            ..SignedIn::default()
        };
        let told = |fact| told(&signed_in, &fact);
        assert_eq!(told(IdentityFact::Groups).as_deref(), Some("ops,a%2Cb"));
        assert_eq!(told(IdentityFact::Subject).as_deref(), Some("ann"));
        assert_eq!(told(IdentityFact::Issuer), None);
        assert_eq!(told(IdentityFact::Claim("email".to_owned())), None);
    }
}
