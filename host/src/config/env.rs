//! Environment variables: where they come from, and which keys they override.
//!
//! Two ways to override a key. Any single value has a variable of its own, made of its path:
//! `NOWCONNECT_` and the keys in capitals, joined by two underscores
//! (`NOWCONNECT_TUNNEL__PORT`). And the names that operators know from older hubs
//! ([`KNOWN`]) go on working; where both are set, the known name wins. Lists and maps cannot be
//! overridden.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value as Json;

use super::check::schema;
use super::tree::{Node, Origin, Value};

/// Where environment variables come from.
pub trait Env {
    /// The value of a variable; `None` where it is unset, empty or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

/// A map is an environment: for tests, and for programs that embed the hub.
impl Env for BTreeMap<String, String> {
    fn var(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).cloned()
    }
}

/// The names of older hubs and of OpenTelemetry, and the keys that they set. A later one wins.
pub const KNOWN: [(&str, &str); 15] = [
    ("LOG_LEVEL", "observability.log_level"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "observability.otlp_endpoint"),
    ("OTEL_SERVICE_NAME", "observability.service_name"),
    ("NOWCONNECT_ISSUER", "security.issuer"),
    ("NOWCONNECT_JWKS_URL", "security.jwks_url"),
    ("NOWCONNECT_AUDIENCE", "security.audience"),
    (
        "NOWCONNECT_REQUIRE_CONNECTOR_SCOPES",
        "security.require_connector_scopes",
    ),
    ("FAPI_MODE", "security.fapi_mode"),
    ("NOWCONNECT_FAPI_MODE", "security.fapi_mode"),
    ("NOWCONNECT_PDP_URL", "pdp.url"),
    ("NOWCONNECT_PDP_CACHE_TTL_SEC", "pdp.cache_ttl_sec"),
    ("NOWCONNECT_PDP_TIMEOUT_MS", "pdp.timeout_ms"),
    ("NOWCONNECT_PDP_FAIL_OPEN", "pdp.fail_open"),
    ("NOWCONNECT_REPLICA_ID", "ha.replica_id"),
    ("NOWCONNECT_REDIS_URL", "ha.redis_url"),
];

/// The file to read when the command line names none: `NC_CONFIG`, else `cloud.yaml` in
/// `SERVICE_CONFIG_DIR`.
pub(crate) fn file_from(env: &dyn Env) -> Option<PathBuf> {
    env.var("NC_CONFIG").map(PathBuf::from).or_else(|| {
        env.var("SERVICE_CONFIG_DIR")
            .map(|folder| PathBuf::from(folder).join("cloud.yaml"))
    })
}

/// Puts every override on top of the document.
pub(crate) fn apply(env: &dyn Env, root: &mut Node) {
    for setting in settings() {
        if let Some(text) = env.var(&setting.variable) {
            setting.put(&setting.variable, &text, root);
        }
    }
    for (variable, key) in KNOWN {
        if let Some(text) = env.var(variable)
            && let Some(setting) = settings().iter().find(|setting| setting.key == key)
        {
            setting.put(variable, &text, root);
        }
    }
}

/// A single value that a variable can set.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Dotted.
    pub(crate) key: String,
    /// The variable made of the key.
    pub(crate) variable: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Boolean,
}

impl Setting {
    fn put(&self, variable: &'static str, text: &str, root: &mut Node) {
        let text = text.trim();
        let value = match self.kind {
            Kind::Text if self.key == "observability.log_level" => {
                Value::Text(text.to_ascii_lowercase())
            }
            Kind::Text => Value::Text(text.to_owned()),
            Kind::Number => text
                .parse::<i64>()
                .map(|number| Value::Integer(number.into()))
                .or_else(|_| text.parse::<f64>().map(Value::Float))
                .unwrap_or_else(|_| Value::Text(text.to_owned())),
            Kind::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Value::Bool(true),
                "false" | "0" | "no" | "off" => Value::Bool(false),
                _ => Value::Text(text.to_owned()),
            },
        };
        let keys: Vec<&str> = self.key.split('.').collect();
        root.put(
            &keys,
            Node {
                value,
                at: Origin::Variable(variable),
            },
        );
    }
}

/// Every single value of the schema, in its order.
pub(crate) fn settings() -> &'static [Setting] {
    static SETTINGS: OnceLock<Vec<Setting>> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let mut settings = Vec::new();
        gather(schema(), &[], &mut settings);
        settings
    })
}

fn gather(schema: &Json, path: &[&str], settings: &mut Vec<Setting>) {
    let schema = resolve(schema);
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        for (name, property) in properties {
            let mut path = path.to_vec();
            path.push(name);
            gather(property, &path, settings);
        }
        return;
    }
    let is = |name: &str| match schema.get("type") {
        Some(Json::String(one)) => one == name,
        Some(Json::Array(several)) => several.iter().any(|one| one == name),
        Some(_) | None => false,
    };
    let kind = if is("boolean") {
        Kind::Boolean
    } else if is("integer") || is("number") {
        Kind::Number
    } else if is("string") || schema.get("oneOf").is_some() || schema.get("enum").is_some() {
        Kind::Text
    } else {
        return;
    };
    settings.push(Setting {
        key: path.join("."),
        variable: format!("NOWCONNECT_{}", path.join("__").to_ascii_uppercase()),
        kind,
    });
}

/// Follows `$ref`, also through the `anyOf` of an optional value.
fn resolve(part: &Json) -> &Json {
    let part = part
        .get("anyOf")
        .and_then(Json::as_array)
        .and_then(|options| {
            options
                .iter()
                .find(|option| option.get("type") != Some(&Json::from("null")))
        })
        .unwrap_or(part);
    part.get("$ref")
        .and_then(Json::as_str)
        .and_then(|reference| reference.strip_prefix('#'))
        .and_then(|pointer| schema().pointer(pointer))
        .unwrap_or(part)
}
