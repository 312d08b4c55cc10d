//! Who we are to a registry: the file in which container tools keep that.
//!
//! ```json
//! {"auths": {"registry.example": {"auth": "<base64 of user:password>"}}}
//! ```
//! An entry may be for part of a registry, `registry.example/team` or `registry.example/team/name`;
//! the one that says most about the repository counts, as for the tools that write such a file.
//!
//! It is read whenever it is needed, so that it can be replaced while the hub runs. Programs that
//! such a file may name (`credsStore`, `credHelpers`) are not started.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;
use thiserror::Error;

use crate::component::read_bounded;

/// Largest file of credentials, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The credentials for a registry cannot be had. Holds nothing of the file.
#[derive(Debug, Error)]
#[error("`{}`: {problem}", path.display())]
pub struct CredentialsError {
    path: PathBuf,
    problem: String,
}

/// A user's name and password at one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryCredentials {
    user: String,
    password: String,
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl RegistryCredentials {
    /// Reads what a file has for a repository (`team/name`) of a registry, named as in a reference
    /// (`registry.example:5000`); `None` where it has nothing. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, is none, or has for this registry what cannot be used.
    pub fn read(
        path: &Path,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Self>, CredentialsError> {
        let refuse = |problem: String| CredentialsError {
            path: path.to_owned(),
            problem,
        };
        let bytes = read_bounded(path, FILE_BYTES_MAX).map_err(|error| CredentialsError {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        // The parser's own words could repeat what stands in the file.
        let file: AuthFile = serde_json::from_slice(&bytes)
            .map_err(|_| refuse("it is no JSON object with `auths`".to_owned()))?;
        let entry = file
            .auths
            .into_iter()
            .filter_map(|(name, entry)| Some((closeness(&name, registry, repository)?, entry)))
            .max_by_key(|(closeness, _)| *closeness);
        match entry {
            None => Ok(None),
            Some((_, entry)) => match entry.read() {
                Ok(found) => Ok(Some(found)),
                Err(problem) => Err(refuse(format!("`auths` for `{registry}`: {problem}"))),
            },
        }
    }

    /// These.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The user's password or access token: for the registry, and for nothing else.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// As an `authorization` field.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let pair = STANDARD.encode(format!("{}:{}", self.user, self.password));
        let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Entry {
    fn read(self) -> Result<RegistryCredentials, &'static str> {
        if let (Some(user), Some(password)) = (self.username, self.password) {
            return Ok(RegistryCredentials { user, password });
        }
        let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) else {
            return Err(if self.identitytoken.is_some() {
                "an `identitytoken` cannot be used; log in with a password or an access token"
            } else {
                "it has no `auth`; a program that keeps it elsewhere is not asked"
            });
        };
        let text = STANDARD.decode(auth.trim()).ok();
        text.and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| {
                let (user, password) = text.split_once(':')?;
                Some(RegistryCredentials {
                    user: user.to_owned(),
                    password: password.to_owned(),
                })
            })
            .ok_or("`auth` is not the base64 of `user:password`")
    }
}

/// How much an entry's name says about a repository: letters of its path, and that it is no URL;
/// `None` where it is about another.
fn closeness(name: &str, registry: &str, repository: &str) -> Option<(usize, bool)> {
    // Some tools write a URL where the registry's name belongs; its path is that of the interface.
    if let Some((_, rest)) = name.split_once("://") {
        let host = rest.split('/').next().unwrap_or(rest);
        return host.eq_ignore_ascii_case(registry).then_some((0, false));
    }
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    if !host.eq_ignore_ascii_case(registry) {
        return None;
    }
    let rest = repository.strip_prefix(path)?;
    let is_whole = path.is_empty() || rest.is_empty() || rest.starts_with('/');
    is_whole.then_some((path.len(), true))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::RegistryCredentials;

    #[test]
    fn a_registry_finds_its_own_entry_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        // `reader:s3cret:x`
        let text = r#"{"auths": {
            "registry.example:5000": {"auth": "cmVhZGVyOnMzY3JldDp4"},
            "https://other.example/v2/": {"username": "u", "password": "p"},
            "token.example": {"identitytoken": "s3cret"},
            "empty.example": {},
            "bad.example": {"auth": "s3cret"}
        }, "credsStore": "desktop"}"#;
        std::fs::write(&path, text).unwrap();
        let read = |registry: &str| RegistryCredentials::read(&path, registry, "acme/x");
        let found = read("registry.example:5000").unwrap().unwrap();
        assert_eq!((found.user(), found.password()), ("reader", "s3cret:x"));
        assert!(!format!("{found:?}").contains("s3cret"));
        assert_eq!(read("other.example").unwrap().unwrap().user(), "u");
        assert_eq!(read("registry.example").unwrap(), None);
        for registry in ["token.example", "empty.example", "bad.example"] {
            let error = read(registry).unwrap_err().to_string();
            assert!(error.contains(registry), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        std::fs::write(&path, "{\"auths\": \"s3cret\"}").unwrap();
        let error = read("registry.example:5000").unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        assert!(RegistryCredentials::read(&folder.path().join("none"), "r.example", "x").is_err());
    }

    #[test]
    fn the_entry_that_says_most_about_a_repository_counts_and_none_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        let entries = [
            "https://r.example/v2/",
            "r.example",
            "r.example/team",
            "r.example/team/guard",
            "r.example/tea",
            "only.example/team",
        ];
        let auths: serde_json::Map<String, serde_json::Value> = entries
            .iter()
            .map(|name| {
                let entry = serde_json::json!({"username": name, "password": "p"});
                ((*name).to_owned(), entry)
            })
            .collect();
        let text = serde_json::json!({ "auths": auths }).to_string();
        std::fs::write(&path, text).unwrap();
        for (registry, repository, expected) in [
            ("r.example", "team/guard", Some("r.example/team/guard")),
            ("R.EXAMPLE", "team/guard-2", Some("r.example/team")),
            ("r.example", "teams/guard", Some("r.example")),
            ("r.example", "other", Some("r.example")),
            ("only.example", "team", Some("only.example/team")),
            ("only.example", "other/guard", None),
        ] {
            let found = RegistryCredentials::read(&path, registry, repository).unwrap();
            let user = found.as_ref().map(RegistryCredentials::user);
            assert_eq!(user, expected, "{registry}/{repository}");
        }
    }
}
