//! The signed assertion that tells origins who asks.

use std::path::PathBuf;
use std::time::Duration;

use http::header::HeaderName;
use nowconnect_control::{Algorithm, OWN_AUDIENCES};

use super::super::build::{Surroundings, ms};
use super::super::file::{SecurityFile, ViewerAssertionFile};
use super::super::problem::Problems;
use super::super::tree::Path;
use super::super::{ControlConfig, IngressConfig};
use super::identity::{identity_name, strange_name};

/// A JWT about the viewer in a header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewerAssertion {
    /// The field; a viewer's own of this name is taken out at every route.
    pub header: HeaderName,
    /// Its `aud`; never that of a token which the hub itself takes.
    pub audience: String,
    /// How long it is good for.
    pub lifetime: Duration,
    /// Its `iss`; `None` is that of the control API.
    pub issuer: Option<String>,
    /// The keys, of which the first signs; none means those of the control API.
    pub key_files: Vec<PathBuf>,
    /// What it says beside who it is.
    pub claims: Vec<AssertedClaim>,
}

/// What an assertion may say of a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssertedClaim {
    /// Its groups.
    Groups,
    /// How it was proven, as `amr` of RFC 8176.
    Amr,
    /// The way of `viewer_auth` by which it was proven.
    Method,
    /// Who vouches for it.
    Issuer,
    /// A claim that became a tag.
    Tag(String),
}

impl AssertedClaim {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "groups" => Some(Self::Groups),
            "amr" => Some(Self::Amr),
            "method" => Some(Self::Method),
            "issuer" => Some(Self::Issuer),
            other => {
                let claim = other.strip_prefix("claim:")?;
                (!claim.is_empty()).then(|| Self::Tag(claim.to_owned()))
            }
        }
    }
}

impl ViewerAssertion {
    pub(super) fn build(
        file: &ViewerAssertionFile,
        path: &Path,
        security: &SecurityFile,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let at = path.key("header");
        let header = identity_name(&file.header);
        if header.is_none() {
            strange_name(&file.header, &at, problems);
        }
        let of_agents = security
            .issuers
            .iter()
            .filter_map(|issuer| issuer.audience.as_deref())
            .chain([security.audience.as_str()]);
        let is_own = |audience: &str| OWN_AUDIENCES.contains(&audience);
        if file.audience.is_empty()
            || is_own(&file.audience)
            || of_agents.into_iter().any(|other| other == file.audience)
        {
            problems.add_with_help(
                &path.key("audience"),
                format!(
                    "`{path}.audience` cannot be `{}`: it is empty, or of tokens that the hub \
                     itself takes",
                    file.audience
                ),
                "name the service that is to take the assertion, such as `shop`",
            );
        }
        if !file.key_files.is_empty() && file.issuer.is_none() {
            problems.add_with_help(
                &path.key("key_files"),
                format!("`{path}.key_files` sign, and nothing says in whose name"),
                format!("write `{path}.issuer`, such as the hub's public URL"),
            );
        }
        let at = path.key("claims");
        let mut claims = Vec::with_capacity(file.claims.len());
        for (index, text) in file.claims.iter().enumerate() {
            match AssertedClaim::parse(text) {
                Some(claim) => claims.push(claim),
                None => problems.add_with_help(
                    &at.index(index),
                    format!("`{at}` cannot hold `{text}`"),
                    "write `groups`, `amr`, `method`, `issuer` or `claim:NAME`",
                ),
            }
        }
        let key_files = file.key_files.iter().map(|key| around.path(key));
        Some(Self {
            header: header?,
            audience: file.audience.clone(),
            lifetime: ms(file.lifetime_ms),
            issuer: file.issuer.clone(),
            key_files: key_files.collect(),
            claims,
        })
    }
}

/// Who has no keys of his own signs with those of the control API, which have to be there and to
/// have a public half.
pub(in super::super) fn check_signers(
    ingress: &IngressConfig,
    control: &ControlConfig,
    path: &Path,
    problems: &mut Problems<'_>,
) {
    for (index, set) in ingress.viewer_auth.iter().enumerate() {
        let Some(assertion) = &set.assertion else {
            continue;
        };
        if !assertion.key_files.is_empty() {
            continue;
        }
        let at = path.key("viewer_auth").index(index).key("assertion");
        if control.listen.is_none() {
            problems.add_with_help(
                &at,
                format!("`{at}` has no key: there is no control API whose keys could sign"),
                "write `key_files` and `issuer`, or turn `control` on",
            );
        } else if control.tokens.algorithm == Algorithm::Hs256 {
            problems.add_with_help(
                &at,
                format!("`{at}` would be signed with a shared secret, which no service can check"),
                "write `key_files` and `issuer`, or another `control.tokens.algorithm`",
            );
        }
    }
}
