//! No text makes the reader panic, and its answers hold together.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::check::nearest;
use super::super::parse;

proptest! {
    #[test]
    fn any_text_is_accepted_or_refused(text in "\\PC{0,200}") {
        check(&text);
    }

    #[test]
    fn any_shape_of_known_keys_is_accepted_or_refused(
        lines in prop::collection::vec(
            (0_usize..4, prop::sample::select(&[
                "listeners", "limits", "security", "tunnel", "name", "bind", "issuers", "issuer",
                "plugins", "list", "config", "connectors", "ha", "mesh", "peers", "port", "- name",
                "proxy_protocol", "accept", "redis_url", "allow_cidrs", "on_expiry", "rate",
            ][..]), prop::sample::select(&[
                "", "1", "-1", "1e9", "true", "off", "[]", "{}", "[1, {a: b}]", "text", "10.0.0.0/8",
                "0.0.0.0:1", "null", "~", "99999999999999999999", ".nan", "'", "\"", "&a", "*a", "!x",
            ][..])),
            0..12,
        )
    ) {
        let text: String = lines
            .iter()
            .map(|(depth, key, value)| format!("{}{key}: {value}\n", "  ".repeat(*depth)))
            .collect();
        check(&text);
    }

    #[test]
    fn a_word_is_nearest_to_itself(word in "[a-z_]{1,30}") {
        prop_assert_eq!(nearest(&word, &["zzzzzzzzzzzz", &word]), Some(word.as_str()));
    }
}

/// Refused with problems that point into the text, or accepted as itself.
fn check(text: &str) {
    match parse(text, None, &BTreeMap::new()) {
        Ok(config) => assert_eq!(config.changes_from(&config.clone()), Default::default()),
        Err(error) => {
            assert!(!error.problems().is_empty());
            assert!(!error.to_string().is_empty());
        }
    }
}
