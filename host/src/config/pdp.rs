//! `pdp`: the external decision point.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::build::{Surroundings, ms, url};
use super::file::{PdpFile, PdpKindFile, PdpOnErrorFile, PdpRecheckFile};
use super::problem::Problems;
use super::tree::Path;

/// `pdp`: an external decision point that is asked after the policies.
#[derive(Clone, Debug, PartialEq)]
pub struct PdpConfig {
    /// Where; `None` asks nobody.
    pub url: Option<Url>,
    /// The URL as it was written: the identifier that discovery must show.
    pub identifier: String,
    /// What the simple form states as `aud`: `security.audience`.
    pub audience: String,
    /// What it speaks.
    pub kind: PdpKind,
    /// Whether its endpoints are discovered.
    pub discovery: bool,
    /// The file with the bearer token.
    pub token_file: Option<PathBuf>,
    /// Roots beside those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// How long an allow is kept.
    pub cache_ttl: Duration,
    /// Allows that are kept.
    pub cache_entries: u32,
    /// The bound of one question.
    pub timeout: Duration,
    /// What trouble does.
    pub on_error: PdpOnError,
    /// How old an allow may be for [`PdpOnError::AllowIfCached`].
    pub stale_ttl: Duration,
    /// What a re-check asks.
    pub recheck: PdpRecheck,
    /// The largest answer, in bytes.
    pub max_response_bytes: u64,
    /// Questions under way at once.
    pub max_concurrent: u32,
    /// Failures in a row that open the breaker …
    pub breaker_failures: u32,
    /// … for this long.
    pub breaker_pause: Duration,
    /// Added to the properties of every subject.
    pub subject_properties: serde_json::Map<String, serde_json::Value>,
    /// Keys of an allow's context that are ignored.
    pub ignore_context: Vec<String>,
}

/// What a decision point speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PdpKind {
    /// OpenID AuthZEN 1.0.
    Authzen,
    /// `{allow, ttl_sec}`.
    Simple,
}

/// What trouble with a decision point does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PdpOnError {
    /// It denies.
    Deny,
    /// It denies, unless the same question was allowed a short time ago.
    AllowIfCached,
    /// It allows what the policies allow (`fail_open`).
    Allow,
}

/// What a re-check asks of a decision point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PdpRecheck {
    /// Nothing.
    Off,
    /// It is asked; trouble with it leaves the flow.
    KeepOnError,
    /// It is asked; trouble with it counts.
    CloseOnError,
}

impl PdpConfig {
    pub(super) fn build(
        file: &PdpFile,
        audience: &str,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let kind = match file.kind {
            PdpKindFile::Authzen => PdpKind::Authzen,
            PdpKindFile::Simple => PdpKind::Simple,
        };
        if file.discovery && kind == PdpKind::Simple {
            problems.add_with_help(
                &path.key("discovery"),
                "`pdp.discovery: true` does not go with `pdp.kind: simple`",
                "only `authzen` has a discovery document; write `false`",
            );
        }
        if file.fail_open && file.on_error == PdpOnErrorFile::AllowIfCached {
            problems.add_with_help(
                &path.key("on_error"),
                "`pdp.on_error: allow_if_cached` has no meaning beside `pdp.fail_open: true`",
                "`fail_open` allows in any trouble; write one of the two",
            );
        }
        let here = path.key("url");
        let parsed = if file.url.is_empty() {
            None
        } else {
            let parsed = url(&file.url, &["https", "http"], &here, problems);
            if let Some(url) = &parsed {
                check_url(url, &here, problems);
            }
            parsed
        };
        Self {
            url: parsed,
            identifier: file.url.clone(),
            audience: audience.to_owned(),
            kind,
            discovery: file.discovery,
            token_file: around.optional_path(file.token_file.as_ref()),
            ca_bundle: around.optional_path(file.ca_bundle.as_ref()),
            cache_ttl: Duration::from_secs(file.cache_ttl_sec),
            cache_entries: file.cache_entries,
            timeout: ms(file.timeout_ms),
            on_error: match (file.fail_open, file.on_error) {
                (true, _) => PdpOnError::Allow,
                (false, PdpOnErrorFile::Deny) => PdpOnError::Deny,
                (false, PdpOnErrorFile::AllowIfCached) => PdpOnError::AllowIfCached,
            },
            stale_ttl: Duration::from_secs(file.stale_ttl_sec),
            recheck: match file.recheck {
                PdpRecheckFile::Off => PdpRecheck::Off,
                PdpRecheckFile::KeepOnError => PdpRecheck::KeepOnError,
                PdpRecheckFile::CloseOnError => PdpRecheck::CloseOnError,
            },
            max_response_bytes: file.max_response_bytes,
            max_concurrent: file.max_concurrent,
            breaker_failures: file.breaker_failures,
            breaker_pause: ms(file.breaker_pause_ms),
            subject_properties: file.subject_properties.clone(),
            ignore_context: file.ignore_context.clone(),
        }
    }
}

/// Decisions and the token must not cross a network in clear, and a password does not belong in
/// a file that is shown.
fn check_url(url: &Url, path: &Path, problems: &mut Problems<'_>) {
    if !url.username().is_empty() || url.password().is_some() {
        problems.add_with_help(
            path,
            "`pdp.url` holds user information",
            "put a bearer token into a file and name it in `pdp.token_file`",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        problems.add_with_help(
            path,
            "`pdp.url` has a query or a fragment",
            "write scheme, host and path only",
        );
    }
    if url.scheme() == "http" && !crate::identity::fetch::is_loopback(url) {
        problems.add_with_help(
            path,
            "`pdp.url` is plain HTTP beyond this machine: whoever is on the way could allow \
             anything",
            "write `https://`, with `pdp.ca_bundle` for a root of your own",
        );
    }
}
