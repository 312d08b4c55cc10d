//! The environment, behind a trait so that tests and embedders bring their own.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// Where variables are read from.
pub trait Env: Debug {
    /// The value of `name`, if it is set and is text.
    fn var(&self, name: &str) -> Option<String>;

    /// The names that start with `prefix`, sorted.
    fn names(&self, prefix: &str) -> Vec<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }
}

/// An environment without variables.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEnv;

impl Env for NoEnv {
    fn var(&self, _name: &str) -> Option<String> {
        None
    }

    fn names(&self, _prefix: &str) -> Vec<String> {
        Vec::new()
    }
}

impl Env for BTreeMap<String, String> {
    fn var(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        self.keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect()
    }
}

/// Every fixed `NC_*` name that an agent reads, with its meaning, for `--help` and for warnings
/// about unknown ones.
pub(crate) const NAMES: [(&str, &str); 18] = [
    ("NC_CONFIG", "path of the config file"),
    ("NC_AGENT_URL", "tunnel.url"),
    ("NC_AGENT_ID", "tunnel.agent_id"),
    ("NC_TOKEN_FILE", "tunnel.auth.token_file"),
    ("NC_TOKEN", "the token itself; a file is read by fewer"),
    ("NC_HMAC_SECRET_FILE", "tunnel.auth.hmac_secret_file"),
    (
        "NC_HMAC_SECRET",
        "that secret itself; a file is read by fewer",
    ),
    ("NC_CONTROL_URL", "publish.control_url"),
    ("NC_CLIENT_ID", "publish.client_id"),
    ("NC_CLIENT_SECRET_FILE", "publish.client_secret_file"),
    ("NC_CONNECTORS", "tunnel.exported_connectors, comma list"),
    ("NC_LOG_LEVEL", "observability.log_level"),
    ("NC_LOG_FORMAT", "observability.log_format: plain or json"),
    (
        "NC_TRUST_ENV",
        "use HTTPS_PROXY, ALL_PROXY and NO_PROXY: true or false",
    ),
    ("NC_CA_BUNDLE", "proxy.ca_bundle"),
    ("NC_HEALTH_HOST", "observability.health_host"),
    ("NC_HEALTH_PORT", "observability.health_port, 0 for none"),
    (
        "NC_ALLOW_PLAINTEXT",
        "tunnel.allow_plaintext: true or false",
    ),
];

/// Names of targets start with this: `NC_TARGET_<name>_HOST`, `NC_TARGET_<name>_PORT`.
pub(crate) const TARGET_PREFIX: &str = "NC_TARGET_";
