//! What to do about what a text contains.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::finders::{has_email, has_ip, has_token};

/// The plugin's settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Values with an e-mail address.
    pub emails: Cover,
    /// Values with a token.
    pub tokens: Cover,
    /// Values with an IP address.
    pub ips: Cover,
    /// Fields by name, whatever they contain.
    pub fields: BTreeMap<String, Cover>,
    /// Fields that are never covered for what they contain, such as `trace_id`.
    pub keep: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            emails: Cover::Hash,
            tokens: Cover::Erase,
            ips: Cover::Hash,
            fields: BTreeMap::new(),
            keep: ["trace_id", "span_id", "decision_id", "digest"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

/// How a value is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cover {
    /// Not at all.
    Off,
    /// Replaced by `***`.
    Erase,
    /// Replaced by a keyed hash, equal for equal values.
    Hash,
    /// All but the last four characters replaced.
    KeepLast4,
}

impl Rules {
    /// Reads settings.
    pub fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    /// How a message is to be covered.
    pub fn message(&self, text: &str) -> Cover {
        self.by_content(text)
    }

    /// How the value of a field is to be covered.
    pub fn field(&self, name: &str, value: &str) -> Cover {
        if let Some(cover) = self.fields.get(name) {
            return *cover;
        }
        if self.keep.iter().any(|kept| kept == name) {
            return Cover::Off;
        }
        self.by_content(value)
    }

    /// A value may contain several things; the most secret one decides.
    fn by_content(&self, text: &str) -> Cover {
        if self.tokens != Cover::Off && has_token(text) {
            return self.tokens;
        }
        if self.emails != Cover::Off && has_email(text) {
            return self.emails;
        }
        if self.ips != Cover::Off && has_ip(text) {
            return self.ips;
        }
        Cover::Off
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::{Cover, Rules};

    #[test]
    fn by_default_tokens_are_erased_and_people_hashed() {
        let rules = Rules::default();
        assert_eq!(rules.field("user", "ann@example.com"), Cover::Hash);
        assert_eq!(rules.field("client", "192.0.2.1:80"), Cover::Hash);
        assert_eq!(rules.field("header", "Bearer abc"), Cover::Erase);
        assert_eq!(rules.field("connector", "db"), Cover::Off);
        assert_eq!(rules.message("login of ann@example.com"), Cover::Hash);
    }

    #[test]
    fn the_most_secret_content_decides() {
        let rules = Rules::default();
        assert_eq!(rules.message("ann@example.com Bearer x"), Cover::Erase);
    }

    #[test]
    fn named_fields_go_before_content() {
        let rules = Rules::parse(
            r#"{"fields": {"client": "off", "note": "erase"}, "keep": ["id"], "ips": "keep_last4"}"#,
        )
        .unwrap();
        assert_eq!(rules.field("client", "192.0.2.1"), Cover::Off);
        assert_eq!(rules.field("note", "plain"), Cover::Erase);
        assert_eq!(rules.field("id", "192.0.2.1"), Cover::Off);
        assert_eq!(rules.field("peer", "192.0.2.1"), Cover::KeepLast4);
    }

    #[test]
    fn settings_that_are_not_understood_are_refused() {
        assert!(Rules::parse(r#"{"emails": "maybe"}"#).is_err());
        assert!(Rules::parse(r#"{"mail": "off"}"#).is_err());
    }
}
