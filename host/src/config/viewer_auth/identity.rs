//! What header fields tell origins about a viewer.

use std::collections::BTreeMap;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, TRANSFER_ENCODING};

use super::super::problem::Problems;
use super::super::tree::Path;

/// What a header field tells an origin about a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityFact {
    /// Who it is, without the tenant.
    Subject,
    /// Whose it is.
    Tenant,
    /// Who vouches for it.
    Issuer,
    /// The way by which it was proven.
    Method,
    /// Its groups, with commas between them.
    Groups,
    /// A claim that became a tag.
    Claim(String),
}

/// Fields that say how a message is to be read: none can tell who asks as well.
const NEVER_IDENTITY: [HeaderName; 5] = [
    AUTHORIZATION,
    CONTENT_LENGTH,
    COOKIE,
    HOST,
    TRANSFER_ENCODING,
];

/// The most fields of one set.
const MAX_IDENTITY_HEADERS: usize = 32;

/// A field that can tell who asks.
pub(super) fn identity_name(text: &str) -> Option<HeaderName> {
    HeaderName::from_lowercase(text.as_bytes())
        .ok()
        .filter(|header| !NEVER_IDENTITY.contains(header) && !text.contains('_'))
}

pub(super) fn strange_name(text: &str, at: &Path, problems: &mut Problems<'_>) {
    problems.add_with_help(
        at,
        format!("`{text}` cannot tell who asks"),
        "take a header field's name in lower case with hyphens, such as `x-viewer-subject`, that \
         has no other meaning",
    );
}

pub(super) fn identity_headers(
    file: &BTreeMap<String, String>,
    path: &Path,
    problems: &mut Problems<'_>,
) -> Vec<(HeaderName, IdentityFact)> {
    if file.len() > MAX_IDENTITY_HEADERS {
        problems.add(
            path,
            format!(
                "`{path}` has {} names, at most {MAX_IDENTITY_HEADERS} are allowed",
                file.len()
            ),
        );
    }
    let mut headers = Vec::with_capacity(file.len());
    for (text, fact) in file {
        let at = path.key(text);
        let Some(header) = identity_name(text) else {
            strange_name(text, &at, problems);
            continue;
        };
        match IdentityFact::parse(fact) {
            Some(fact) => headers.push((header, fact)),
            None => problems.add_with_help(
                &at,
                format!("`{at}` cannot be `{fact}`"),
                "write `subject`, `tenant`, `issuer`, `method`, `groups` or `claim:NAME`",
            ),
        }
    }
    headers
}

impl IdentityFact {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "subject" => Some(Self::Subject),
            "tenant" => Some(Self::Tenant),
            "issuer" => Some(Self::Issuer),
            "method" => Some(Self::Method),
            "groups" => Some(Self::Groups),
            other => {
                let claim = other.strip_prefix("claim:")?;
                (!claim.is_empty()).then(|| Self::Claim(claim.to_owned()))
            }
        }
    }
}
