//! Policy bundles.

use std::path::PathBuf;
use std::time::Duration;

use nowconnect_policy::{PublicKey, TrustedKeys};

use super::build::{Surroundings, ms, url};
use super::file::{BundleFile, OnUntrustedFile};
use super::problem::Problems;
use super::tree::Path;

/// `policy.bundle`: signed policy bundles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleConfig {
    /// Whose signatures count.
    pub trusted: TrustedKeys,
    /// What happens to the bundle in force when they do not any more.
    pub on_untrusted: OnUntrusted,
    /// Where bundles come from beside pushes.
    pub source: BundleSource,
    /// How often the source is looked at.
    pub poll: Duration,
    /// How long one fetch may take.
    pub timeout: Duration,
    /// The largest bundle, in bytes.
    pub max_bytes: u64,
    /// Further roots for the URL.
    pub ca_bundle: Option<PathBuf>,
    /// Whether a right bundle comes into force by itself.
    pub auto_activate: bool,
    /// What it must show before.
    pub require: BundleRequire,
    /// Where bundles and revisions are kept.
    pub state_dir: PathBuf,
    /// How many superseded bundles are kept.
    pub keep: usize,
}

/// What happens to the bundle in force when a reload takes the trust from those who signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUntrusted {
    /// It serves until another takes its place; the operator is told.
    Keep,
    /// Nothing is permitted until another takes its place.
    Deny,
}

/// Where bundles come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleSource {
    /// From operators only.
    Push,
    /// From a folder or a tar.
    Path(PathBuf),
    /// From a web server.
    Url(reqwest::Url),
}

/// What a staged bundle must show before it comes into force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BundleRequire {
    /// The shadow saw nothing newly allowed.
    pub no_new_allow: bool,
    /// The shadow saw nothing newly denied.
    pub no_new_deny: bool,
    /// It is proved to let nothing new in.
    pub proof: bool,
    /// The shadow compared so many decisions.
    pub min_shadow_requests: u64,
}

impl BundleConfig {
    /// `None` where no key is trusted, and then there are no bundles.
    pub(super) fn build(
        file: &BundleFile,
        dir: Option<&PathBuf>,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        if file.trusted_keys.is_empty() {
            for (key, set) in [
                ("source", file.source.is_some()),
                ("state_dir", file.state_dir.is_some()),
            ] {
                if set {
                    problems.add_with_help(
                        &path.key(key),
                        format!("`{path}.{key}` has no effect without `{path}.trusted_keys`"),
                        "name the public keys that bundles are signed with; unsigned policies \
                         are read from `policy.dir`",
                    );
                }
            }
            return None;
        }
        if dir.is_some() {
            problems.add_with_help(
                &path.key("trusted_keys"),
                format!("`{path}.trusted_keys` and `policy.dir` exclude each other"),
                "remove `policy.dir`: with trusted keys no unsigned policy is taken",
            );
        }
        let keys = trusted_keys(&file.trusted_keys, &path.key("trusted_keys"), problems);
        let required = usize::try_from(file.required_signatures).unwrap_or(usize::MAX);
        if required > file.trusted_keys.len() {
            problems.add_with_help(
                &path.key("required_signatures"),
                format!(
                    "`{path}.required_signatures` is `{required}`, and `{path}.trusted_keys` has {}",
                    file.trusted_keys.len()
                ),
                "trust more keys or require fewer signatures",
            );
        }
        let Some(state_dir) = around.optional_path(file.state_dir.as_ref()) else {
            problems.add_with_help(
                &path.key("trusted_keys"),
                format!("`{path}.trusted_keys` needs `{path}.state_dir`"),
                "name a folder of this hub alone, such as `/var/lib/nowconnect/policy`: without \
                 it an old bundle could come back after a restart",
            );
            return None;
        };
        Some(Self {
            trusted: TrustedKeys::new(keys).require(required),
            on_untrusted: match file.on_untrusted {
                OnUntrustedFile::Keep => OnUntrusted::Keep,
                OnUntrustedFile::Deny => OnUntrusted::Deny,
            },
            source: source(
                file.source.as_deref(),
                &path.key("source"),
                around,
                problems,
            )?,
            poll: ms(file.poll_ms),
            timeout: ms(file.timeout_ms),
            max_bytes: file.max_bytes,
            ca_bundle: around.optional_path(file.ca_bundle.as_ref()),
            auto_activate: file.auto_activate,
            require: BundleRequire {
                no_new_allow: file.require.no_new_allow,
                no_new_deny: file.require.no_new_deny,
                proof: file.require.proof,
                min_shadow_requests: file.require.min_shadow_requests,
            },
            state_dir,
            keep: usize::try_from(file.keep).unwrap_or(usize::MAX),
        })
    }
}

fn trusted_keys(texts: &[String], path: &Path, problems: &mut Problems<'_>) -> Vec<PublicKey> {
    let mut keys: Vec<PublicKey> = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match PublicKey::parse(text) {
            Ok(key) if keys.contains(&key) => {
                problems.add(&path.index(index), "this key is listed twice".to_owned());
            }
            Ok(key) => keys.push(key),
            Err(error) => problems.add_with_help(
                &path.index(index),
                error.to_string(),
                "`nowconnect policy keygen` prints the line to put here",
            ),
        }
    }
    keys
}

fn source(
    text: Option<&str>,
    path: &Path,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Option<BundleSource> {
    let Some(text) = text else {
        return Some(BundleSource::Push);
    };
    if !text.contains("://") {
        return Some(BundleSource::Path(around.path(text)));
    }
    let url = url(text, &["https", "http"], path, problems)?;
    if url.scheme() == "http" && !crate::identity::fetch::is_loopback(&url) {
        problems.add_with_help(
            path,
            format!("`{path}` is plain HTTP beyond loopback"),
            "write `https://`: the signature keeps a bundle from being changed, but not from \
             being held back",
        );
        return None;
    }
    Some(BundleSource::Url(url))
}
