//! The process environment behind a trait, so that a test needs none.

use std::collections::BTreeMap;

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
