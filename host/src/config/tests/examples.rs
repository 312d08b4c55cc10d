//! What is shipped for people to read agrees with the code.

use std::path::Path;

use super::super::{CloudConfig, file::FileConfig, json_schema, parse};
use super::env;

const EXAMPLE: &str = include_str!("../../../../config/cloud.yaml");
const SCHEMA: &str = include_str!("../../../../config/cloud.schema.json");

#[test]
fn the_example_equals_the_defaults() {
    let mut config = parse(EXAMPLE, Some(Path::new("cloud.yaml")), &env(&[]))
        .unwrap_or_else(|error| panic!("{error}"));
    config.source = None;
    assert_eq!(config, CloudConfig::default());
}

#[test]
fn the_example_shows_every_key() {
    let defaults = serde_json::to_value(FileConfig::default()).unwrap();
    for (section, keys) in defaults.as_object().unwrap() {
        assert!(EXAMPLE.contains(&format!("\n{section}:")), "{section}");
        for key in keys.as_object().into_iter().flat_map(|keys| keys.keys()) {
            assert!(
                EXAMPLE.lines().any(|line| line
                    .trim_start_matches(['#', '~', ' '])
                    .starts_with(&format!("{key}:"))),
                "config/cloud.yaml does not show `{section}.{key}`"
            );
        }
    }
}

/// What is commented out in the example has to be valid too once its marks are gone.
#[test]
fn the_commented_parts_of_the_example_are_valid() {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        // A default that an example replaces.
        if !line.ends_with("# example below") {
            text.push_str(line.strip_prefix("#~").unwrap_or(line));
        }
        text.push('\n');
    }
    let config = parse(&text, None, &env(&[])).unwrap_or_else(|error| panic!("{error}"));
    assert!(!config.listeners.is_empty());
    assert!(!config.connectors.is_empty());
    assert!(!config.security.issuers.is_empty());
    assert!(!config.plugins.list.is_empty());
}

#[test]
fn the_schema_is_up_to_date() {
    assert!(
        SCHEMA == json_schema(),
        "run `cargo run -p nowconnect -- config schema > config/cloud.schema.json`"
    );
}

#[test]
fn every_key_of_the_schema_is_documented() {
    fn walk(schema: &serde_json::Value, path: &str) {
        let properties = schema.get("properties").and_then(|value| value.as_object());
        for (name, property) in properties.into_iter().flatten() {
            let described = property.get("description").is_some();
            assert!(described, "`{path}.{name}` has no description");
        }
        let definitions = schema.get("$defs").and_then(|value| value.as_object());
        for (name, definition) in definitions.into_iter().flatten() {
            walk(definition, name);
        }
    }
    walk(&serde_json::from_str(SCHEMA).unwrap(), "");
}
