//! The JSON Schema of `premise.yaml`, for editors.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::file::FileConfig;

/// The schema as indented text with a newline at its end; the same text is in
/// `config/premise.schema.json`.
#[must_use]
pub fn json_schema() -> String {
    let mut text = serde_json::to_string_pretty(&sorted(&schema()))
        .expect("a JSON value always has a textual form");
    text.push('\n');
    text
}

fn schema() -> Json {
    schemars::schema_for!(FileConfig).to_value()
}

/// The same JSON with the keys of every object in order, so that the text does not depend on what
/// another crate makes of JSON objects.
fn sorted(json: &Json) -> Json {
    match json {
        Json::Object(entries) => {
            let entries: BTreeMap<&String, &Json> = entries.iter().collect();
            Json::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key.clone(), sorted(value)))
                    .collect(),
            )
        }
        Json::Array(items) => Json::Array(items.iter().map(sorted).collect()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => json.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use serde_json::json;

    use super::*;
    use crate::config::{NoEnv, parse};

    const SCHEMA: &str = include_str!("../../../config/premise.schema.json");
    const PREMISE: &str = include_str!("../../../config/premise.yaml");

    #[test]
    fn the_shipped_schema_is_up_to_date() {
        assert!(
            SCHEMA == json_schema(),
            "run `cargo run -p nowconnect-agent -- config schema > config/premise.schema.json`"
        );
    }

    #[test]
    fn the_shipped_file_is_valid_with_its_options_on_and_off() {
        let all_on: String = PREMISE
            .lines()
            .map(|line| line.replacen("#: ", "", 1) + "\n")
            .collect();
        for text in [PREMISE, all_on.as_str()] {
            let value: Json = serde_saphyr::from_str(text).unwrap();
            assert_eq!(invalid(&value), None);
        }
        for (wrong, place) in [
            (json!({"tunel": {}}), "/tunel"),
            (json!({"tunnel": {"role": "spare"}}), "/tunnel/role"),
            (
                json!({"targets": {"ssh": {"hots": "a"}}}),
                "/targets/ssh/hots",
            ),
            (
                json!({"limits": {"stall_timeout_ms": "5s"}}),
                "/limits/stall_timeout_ms",
            ),
            (json!({"proxy": {"no_proxy": [1]}}), "/proxy/no_proxy"),
        ] {
            assert_eq!(invalid(&wrong).as_deref(), Some(place));
        }
    }

    /// The first place that an editor underlines. Reads the part of JSON Schema that the
    /// derivation makes.
    fn invalid(value: &Json) -> Option<String> {
        let schema = schema();
        wrong_at(&schema, &schema, value, "")
    }

    fn definition<'a>(all: &'a Json, reference: &str) -> &'a Json {
        all.pointer(reference.strip_prefix('#').unwrap()).unwrap()
    }

    fn wrong_at(all: &Json, schema: &Json, value: &Json, place: &str) -> Option<String> {
        if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            return wrong_at(all, definition(all, reference), value, place);
        }
        let here = Some(place.to_owned());
        if let Some(options) = schema.get("anyOf").and_then(Json::as_array) {
            let fits = |option| wrong_at(all, option, value, place).is_none();
            if options.iter().any(fits) {
                return None;
            }
            // Of a section that may be left out, what is wrong inside it.
            let objects = options.iter().filter(|_| value.is_object());
            return objects
                .filter_map(|option| wrong_at(all, option, value, place))
                .max_by_key(String::len)
                .or(here);
        }
        if let Some(words) = schema.get("enum").and_then(Json::as_array)
            && !words.contains(value)
        {
            return here;
        }
        let kind = match value {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "integer",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        };
        let allowed = match &schema["type"] {
            Json::String(one) => one == kind,
            Json::Array(several) => several.contains(&json!(kind)),
            other @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_)) => {
                panic!("`{place}` has no type: {other}")
            }
        };
        if !allowed {
            return here;
        }
        match value {
            Json::Object(entries) => entries.iter().find_map(|(key, value)| {
                let place = format!("{place}/{key}");
                let known = schema.get("properties").and_then(|known| known.get(key));
                match known.or(schema.get("additionalProperties")) {
                    None | Some(Json::Bool(false)) => Some(place),
                    Some(schema) => wrong_at(all, schema, value, &place),
                }
            }),
            Json::Array(items) => items
                .iter()
                .find_map(|item| wrong_at(all, &schema["items"], item, place)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
        }
    }

    #[test]
    fn every_key_is_documented_and_shown_in_the_shipped_file() {
        for (path, name, property) in properties() {
            assert!(
                property.get("description").is_some(),
                "`{path}.{name}` has no description"
            );
            let shown = PREMISE.lines().any(|line| {
                let line = line.trim_start_matches(['#', ':', ' ', '-']);
                line.strip_prefix(name.as_str())
                    .is_some_and(|rest| rest.starts_with(':'))
            });
            assert!(shown, "config/premise.yaml does not show `{path}.{name}`");
        }
    }

    /// What an editor underlines is what the agent refuses.
    #[test]
    fn the_bounds_of_the_schema_are_those_of_the_check() {
        let mut held = 0;
        for (path, name, property) in properties() {
            let (Some(least), Some(most)) = (
                property.get("minimum").and_then(Json::as_u64),
                property.get("maximum").and_then(Json::as_u64),
            ) else {
                continue;
            };
            held += 1;
            for (value, good) in [
                (least, true),
                (most, true),
                (most + 1, false),
                (least.wrapping_sub(1), false),
            ] {
                if value == u64::MAX {
                    continue;
                }
                let refused = problem_of(&path, &name, value);
                assert_eq!(
                    refused.is_none(),
                    good,
                    "{path}.{name}: {value}: {refused:?}"
                );
            }
        }
        assert!(held > 15, "only {held} bounds were found");
    }

    /// What the check says of the key with this value, in a file that is else right.
    fn problem_of(section: &str, name: &str, value: u64) -> Option<String> {
        let mut file = json!({
            "tunnel": {"url": "wss://hub.example.com", "agent_id": "a", "auth": {"token_file": "t"}},
            "targets": {"ssh": {"host": "127.0.0.1", "port": 22}},
        });
        let place = match section {
            "TunnelSection" => "/tunnel",
            "ReconnectSection" => "/tunnel/reconnect",
            "TargetSection" => "/targets/ssh",
            "LimitsSection" => "/limits",
            "ObservabilitySection" => "/observability",
            other => panic!("where is `{other}`?"),
        };
        let mut at = &mut file;
        for key in place.split('/').skip(1) {
            // What is not there yet becomes a map of its own.
            at = &mut at[key];
        }
        at[name] = json!(value);
        if name == "base_ms" {
            // Its partner must not be the one that is refused.
            at["cap_ms"] = json!(3_600_000);
        }
        if name == "cap_ms" {
            at["base_ms"] = json!(10);
        }
        let error = parse(&file.to_string(), "premise.yaml", &NoEnv).err()?;
        Some(error.to_string())
    }

    /// Each key: the type that it is in, its name and its schema.
    fn properties() -> Vec<(String, String, Json)> {
        let schema = schema();
        let of = |name: &str, section: &Json| -> Vec<(String, String, Json)> {
            let properties = section.get("properties").and_then(Json::as_object);
            properties
                .into_iter()
                .flatten()
                .map(|(key, property)| (name.to_owned(), key.clone(), property.clone()))
                .collect()
        };
        let mut all = of("FileConfig", &schema);
        let definitions = schema.get("$defs").and_then(Json::as_object);
        for (name, section) in definitions.into_iter().flatten() {
            all.extend(of(name, section));
        }
        all
    }
}
