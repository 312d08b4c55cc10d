#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod bundles;
mod changes;
mod control;
mod environment;
mod examples;
mod ha;
mod ingress;
mod mistakes;
mod properties;
mod values;
mod viewer_auth;

use std::collections::BTreeMap;
use std::path::Path;

use super::{CloudConfig, ConfigError, Problem, parse};

/// Text that must be a valid configuration.
fn valid(text: &str) -> CloudConfig {
    parse(text, None, &BTreeMap::new()).unwrap_or_else(|error| panic!("{error}"))
}

/// The problems of a text that must not be a valid configuration.
fn problems(text: &str) -> Vec<Problem> {
    invalid(text, &BTreeMap::new()).problems().to_vec()
}

/// The whole error of a text that must not be a valid configuration.
fn invalid(text: &str, env: &BTreeMap<String, String>) -> ConfigError {
    match parse(text, Some(Path::new("cloud.yaml")), env) {
        Ok(config) => panic!("this was accepted: {config:?}"),
        Err(error) => error,
    }
}

/// The only problem of a text.
fn problem(text: &str) -> Problem {
    let mut found = problems(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn env(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
