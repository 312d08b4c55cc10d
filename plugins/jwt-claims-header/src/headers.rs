//! Which header tells what, and how a value becomes one that a header can carry.

use std::collections::BTreeMap;

use nowconnect_plugin::serde::Deserialize;
use serde_json::{Value, json};

/// Longest value in bytes; an origin's own bound for all headers is often 8 KiB.
const VALUE_BYTES_MAX: usize = 4096;
/// Headers that one configuration may name.
const HEADERS_MAX: usize = 32;

/// The plugin's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, crate = "nowconnect_plugin::serde")]
pub struct Settings {
    /// Headers by name, each with the fact that it tells.
    pub headers: BTreeMap<String, String>,
    /// A header with all facts as JSON in base64url.
    pub all_claims: Option<String>,
    /// Deny requests of viewers without a subject.
    pub require_subject: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let pair = |(name, fact): (&str, &str)| (name.to_owned(), fact.to_owned());
        let headers = [
            ("x-viewer-subject", "subject"),
            ("x-viewer-issuer", "issuer"),
            ("x-viewer-groups", "groups"),
        ];
        Self {
            headers: headers.into_iter().map(pair).collect(),
            all_claims: None,
            require_subject: false,
        }
    }
}

/// What is known about the viewer.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub subject: Option<&'a str>,
    pub issuer: Option<&'a str>,
    pub groups: &'a [String],
    pub claims: &'a [(String, String)],
}

impl Settings {
    /// Refuses what could never work.
    pub fn check(&self) -> Result<(), String> {
        if self.headers.len() > HEADERS_MAX {
            return Err(format!("`headers` has over {HEADERS_MAX} names"));
        }
        for name in self.headers.keys().chain(&self.all_claims) {
            let good = !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
            if !good {
                return Err(format!(
                    "`{name}` cannot be a header's name: use lower case"
                ));
            }
        }
        for (name, fact) in &self.headers {
            let known = matches!(fact.as_str(), "subject" | "issuer" | "groups")
                || fact
                    .strip_prefix("claim:")
                    .is_some_and(|claim| !claim.is_empty());
            if !known {
                return Err(format!(
                    "`headers.{name}` is `{fact}`; possible are subject, issuer, groups and \
                     claim:<name>"
                ));
            }
        }
        Ok(())
    }

    /// Each configured header with its value; `None` where there is nothing to tell.
    pub fn headers(&self, facts: &Facts<'_>) -> Vec<(String, Option<String>)> {
        let mut all: Vec<(String, Option<String>)> = self
            .headers
            .iter()
            .map(|(name, fact)| (name.clone(), bounded(facts.value(fact))))
            .collect();
        if let Some(name) = &self.all_claims {
            let value = facts
                .subject
                .map(|_| base64url(facts.json().to_string().as_bytes()));
            all.push((name.clone(), bounded(value)));
        }
        all
    }
}

impl Facts<'_> {
    fn value(&self, fact: &str) -> Option<String> {
        match fact {
            "subject" => self.subject.map(|subject| encoded(subject, "")),
            "issuer" => self.issuer.map(|issuer| encoded(issuer, "")),
            "groups" if self.groups.is_empty() => None,
            "groups" => {
                let groups: Vec<String> = self
                    .groups
                    .iter()
                    .map(|group| encoded(group, ","))
                    .collect();
                Some(groups.join(","))
            }
            _ => {
                let wanted = fact.strip_prefix("claim:")?;
                let claim = self.claims.iter().find(|(name, _)| name == wanted);
                claim.map(|(_, value)| encoded(value, ""))
            }
        }
    }

    fn json(&self) -> Value {
        let claims: BTreeMap<&str, &str> = self
            .claims
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        json!({
            "sub": self.subject,
            "iss": self.issuer,
            "groups": self.groups,
            "claims": claims,
        })
    }
}

/// A value that is too long is not cut, because half a group is another group.
fn bounded(value: Option<String>) -> Option<String> {
    value.filter(|value| value.len() <= VALUE_BYTES_MAX)
}

/// Printable ASCII as it is, the rest percent-encoded, and so are `%` itself and what separates
/// one value from the next: no claim can look like two, or break out of its line.
fn encoded(text: &str, separators: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain =
            matches!(byte, b'!'..=b'~') && byte != b'%' && !separators.contains(byte as char);
        if plain {
            value.push(byte as char);
        } else {
            value.push_str(&format!("%{byte:02X}"));
        }
    }
    value
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = (at(0) << 16) | (at(1) << 8) | at(2);
        for place in 0..=chunk.len() {
            let index = (word >> (18 - 6 * place)) & 63;
            text.push(LETTERS[index as usize] as char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::{Facts, Settings, base64url, encoded};

    #[test]
    fn facts_become_headers() {
        let groups = ["ops".to_owned(), "a,b".to_owned()];
        let claims = [("email".to_owned(), "ann@example.com".to_owned())];
        let facts = Facts {
            subject: Some("ann"),
            issuer: None,
            groups: &groups,
            claims: &claims,
        };
        let mut settings = Settings::default();
        let claim = ("x-viewer-email".to_owned(), "claim:email".to_owned());
        settings.headers.extend([claim]);
        assert_eq!(settings.check(), Ok(()));
        let headers = settings.headers(&facts);
        let value = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| name == wanted);
            found.unwrap().1.as_deref()
        };
        assert_eq!(value("x-viewer-subject"), Some("ann"));
        assert_eq!(value("x-viewer-issuer"), None);
        assert_eq!(value("x-viewer-groups"), Some("ops,a%2Cb"));
        assert_eq!(value("x-viewer-email"), Some("ann@example.com"));
    }

    #[test]
    fn no_value_breaks_out_of_its_line() {
        assert_eq!(encoded("a\r\nx-admin: 1", ""), "a%0D%0Ax-admin:%201");
        assert_eq!(encoded("100%", ""), "100%25");
        assert_eq!(encoded("é", ""), "%C3%A9");
    }

    #[test]
    fn a_value_that_is_too_long_is_not_told() {
        let subject = "x".repeat(5000);
        let facts = Facts {
            subject: Some(&subject),
            issuer: None,
            groups: &[],
            claims: &[],
        };
        let headers = Settings::default().headers(&facts);
        assert!(headers.iter().all(|(_, value)| value.is_none()));
    }

    #[test]
    fn base64url_is_without_padding() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"\xfb\xff", "-_8"),
        ] {
            assert_eq!(base64url(bytes), text);
        }
    }

    #[test]
    fn settings_that_could_never_work_are_refused() {
        let settings = |name: &str, fact: &str| Settings {
            headers: [(name.to_owned(), fact.to_owned())].into(),
            ..Settings::default()
        };
        for (name, fact) in [
            ("X-Upper", "subject"),
            ("", "subject"),
            ("x", "claim:"),
            ("x", "sub"),
        ] {
            assert!(settings(name, fact).check().is_err(), "{name} {fact}");
        }
    }
}
