//! How viewers of HTTP say who they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, TRANSFER_ENCODING};
use nowconnect_protocol::TenantName;

use super::build::{Surroundings, ms, name};
use super::file::{
    ClientCertificatesFile, IssuerFile, SecurityFile, ViewerAuthFile, ViewerBearerFile,
    ViewerIssuerFile, ViewerSignedUrlFile, ViewerWayFile,
};
use super::problem::Problems;
use super::tree::Path;
use super::{ClaimsConfig, IssuerConfig, KeySource, ListenerName};

/// One set of ways to say who one is. Routes name it.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewerAuthConfig {
    /// Unique among sets.
    pub name: ListenerName,
    /// Whether a request that proves nothing is answered 401.
    pub required: bool,
    /// In this order; each kind at most once.
    pub ways: Vec<ViewerWay>,
    /// For `WWW-Authenticate`: printable, without quotes.
    pub realm: String,
    /// What origins are told in which field.
    pub identity_headers: Vec<(HeaderName, IdentityFact)>,
    /// Whether origins get what the viewer has shown.
    pub pass_on_credentials: bool,
}

/// One way.
#[derive(Clone, Debug, PartialEq)]
pub enum ViewerWay {
    /// A JWT.
    Bearer(ViewerBearer),
    /// A name and a password of this file.
    Basic(PathBuf),
    /// A client certificate of one of these listeners; empty means any.
    Mtls(Vec<ListenerName>),
    /// A signed URL.
    SignedUrl(ViewerSignedUrl),
}

/// Which JWTs count.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewerBearer {
    /// What `aud` must contain; never what agents' tokens have.
    pub audience: String,
    /// Who issues them; empty means `security.issuers`.
    pub issuers: Vec<IssuerConfig>,
    /// Which claims reach policies.
    pub claims: ClaimsConfig,
    /// Whose tokens count at a route beside those of its own tenant.
    pub other_tenants: BTreeSet<TenantName>,
}

/// Which signed URLs count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewerSignedUrl {
    /// Name and file of each key; names are unique.
    pub keys: Vec<(ListenerName, PathBuf)>,
    /// How long one may still be good for.
    pub max_lifetime: Duration,
}

/// What a header field tells an origin about a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityFact {
    /// Who it is, without the tenant.
    Subject,
    /// Who vouches for it.
    Issuer,
    /// The way by which it was proven.
    Method,
    /// Its groups, with commas between them.
    Groups,
    /// A claim that became a tag.
    Claim(String),
}

/// Which certificates of clients a port takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that vouch for them.
    pub ca_file: PathBuf,
    /// Whether the handshake fails without one.
    pub required: bool,
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

impl ViewerAuthConfig {
    pub(super) fn build(
        file: &ViewerAuthFile,
        path: &Path,
        (security, at_security): (&SecurityFile, &Path),
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let own_name = name(ListenerName::parse(&file.name), &path.key("name"), problems);
        let mut ways = Vec::with_capacity(file.ways.len());
        let mut kinds = BTreeSet::new();
        for (index, way) in file.ways.iter().enumerate() {
            let at = path.key("ways").index(index);
            let Some(way) = ViewerWay::build(way, &at, (security, at_security), around, problems)
            else {
                continue;
            };
            if !kinds.insert(way.kind()) {
                problems.add_with_help(
                    &at,
                    format!("`{path}` has the way `{}` twice", way.kind()),
                    "write each kind once; `bearer` takes several issuers, and `signed_url` \
                     several keys",
                );
            }
            ways.push(way);
        }
        let realm = file.realm.clone().unwrap_or_else(|| file.name.clone());
        if !realm
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
        {
            problems.add(
                &path.key("realm"),
                format!("`{path}.realm` has more than printable ASCII, or a quote or backslash"),
            );
        }
        let identity_headers = identity_headers(
            &file.identity_headers,
            &path.key("identity_headers"),
            problems,
        );
        Some(Self {
            name: own_name?,
            required: file.required,
            ways,
            realm,
            identity_headers,
            pass_on_credentials: file.pass_on_credentials,
        })
    }

    /// Whether one of the ways is this kind.
    pub(crate) fn has(&self, kind: &str) -> bool {
        self.ways.iter().any(|way| way.kind() == kind)
    }

    /// Every file that it refers to.
    pub(crate) fn files(&self) -> Vec<&PathBuf> {
        let mut files = Vec::new();
        for way in &self.ways {
            match way {
                ViewerWay::Bearer(bearer) => {
                    files.extend(
                        bearer
                            .issuers
                            .iter()
                            .filter_map(|issuer| match &issuer.keys {
                                KeySource::File(path) => Some(path),
                                KeySource::Discovery(_) | KeySource::Url(_) => None,
                            }),
                    );
                }
                ViewerWay::Basic(path) => files.push(path),
                ViewerWay::Mtls(_) => {}
                ViewerWay::SignedUrl(urls) => {
                    files.extend(urls.keys.iter().map(|(_, path)| path));
                }
            }
        }
        files
    }
}

impl ViewerWay {
    fn build(
        file: &ViewerWayFile,
        path: &Path,
        (security, at_security): (&SecurityFile, &Path),
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let ViewerWayFile {
            bearer,
            basic,
            mtls,
            signed_url,
        } = file;
        match (bearer, basic, mtls, signed_url) {
            (Some(bearer), None, None, None) => ViewerBearer::build(
                bearer,
                &path.key("bearer"),
                (security, at_security),
                around,
                problems,
            )
            .map(Self::Bearer),
            (None, Some(basic), None, None) => Some(Self::Basic(around.path(&basic.users_file))),
            (None, None, Some(mtls), None) => {
                let at = path.key("mtls").key("listeners");
                let listeners =
                    mtls.listeners
                        .iter()
                        .enumerate()
                        .filter_map(|(index, listener)| {
                            name(ListenerName::parse(listener), &at.index(index), problems)
                        });
                Some(Self::Mtls(listeners.collect()))
            }
            (None, None, None, Some(urls)) => {
                ViewerSignedUrl::build(urls, &path.key("signed_url"), around, problems)
                    .map(Self::SignedUrl)
            }
            _ => {
                problems.add_with_help(
                    path,
                    format!("`{path}` needs exactly one way"),
                    "write one of `bearer`, `basic`, `mtls` and `signed_url` in each entry",
                );
                None
            }
        }
    }

    /// As it is written, as policies see it (`method`), and in metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bearer(_) => "bearer",
            Self::Basic(_) => "basic",
            Self::Mtls(_) => "mtls",
            Self::SignedUrl(_) => "signed_url",
        }
    }
}

impl ViewerBearer {
    fn build(
        file: &ViewerBearerFile,
        path: &Path,
        (security, at_security): (&SecurityFile, &Path),
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let of_agents = security
            .issuers
            .iter()
            .filter_map(|issuer| issuer.audience.as_ref())
            .chain([&security.audience]);
        if of_agents
            .into_iter()
            .any(|audience| *audience == file.audience)
        {
            problems.add_with_help(
                &path.key("audience"),
                format!(
                    "`{path}.audience` is `{}`, as in agents' tokens: each would count for the \
                     other",
                    file.audience
                ),
                "let the issuer give viewers' tokens an audience of their own",
            );
        }
        if file.audience.is_empty() {
            problems.add(
                &path.key("audience"),
                "the audience must not be empty: `aud` is always checked",
            );
        }
        if file.issuers.is_empty() && security.issuer.is_none() && security.issuers.is_empty() {
            problems.add_with_help(
                path,
                format!("`{path}` trusts no issuer"),
                format!("write `issuers` here, or `{at_security}.issuers`"),
            );
        }
        let mut issuers = Vec::with_capacity(file.issuers.len());
        let mut seen = BTreeSet::new();
        for (index, issuer) in file.issuers.iter().enumerate() {
            let at = path.key("issuers").index(index);
            if !seen.insert(&issuer.issuer) {
                problems.add(
                    &at.key("issuer"),
                    format!("the issuer `{}` is written twice", issuer.issuer),
                );
                continue;
            }
            let whole = whole_issuer(issuer, &file.audience);
            issuers.push(IssuerConfig::build(
                &whole, &at, security, around, problems,
            )?);
        }
        if file.tag_claims.iter().any(|claim| claim == METHOD_TAG) {
            problems.add_with_help(
                &path.key("tag_claims"),
                format!("the tag `{METHOD_TAG}` is the hub's own"),
                "leave the claim out, or let the issuer give it another name",
            );
        }
        let at = path.key("other_tenants");
        let other_tenants = file
            .other_tenants
            .iter()
            .enumerate()
            .filter_map(|(index, tenant)| {
                name(TenantName::parse(tenant), &at.index(index), problems)
            });
        Some(Self {
            audience: file.audience.clone(),
            other_tenants: other_tenants.collect(),
            issuers,
            claims: ClaimsConfig {
                tags: file.tag_claims.clone(),
                groups: file.groups_claim.clone(),
            },
        })
    }
}

/// The tag by which policies see how a viewer was proven.
pub(crate) const METHOD_TAG: &str = "method";

/// The same issuer as agents have them: what is of agents only is never looked at.
fn whole_issuer(file: &ViewerIssuerFile, audience: &str) -> IssuerFile {
    IssuerFile {
        issuer: file.issuer.clone(),
        discovery: file.discovery.clone(),
        jwks_url: file.jwks_url.clone(),
        jwks_file: file.jwks_file.clone(),
        audience: Some(audience.to_owned()),
        algorithms: file.algorithms.clone(),
        tenant: file.tenant.clone(),
        tenant_claim: file.tenant_claim.clone(),
        tenants: file.tenants.clone(),
        agent_id_claim: String::new(),
        connectors_claim: None,
    }
}

impl ViewerSignedUrl {
    fn build(
        file: &ViewerSignedUrlFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let mut keys: Vec<(ListenerName, PathBuf)> = Vec::with_capacity(file.keys.len());
        for (index, key) in file.keys.iter().enumerate() {
            let at = path.key("keys").index(index).key("name");
            let key_name = name(ListenerName::parse(&key.name), &at, problems)?;
            if keys.iter().any(|(known, _)| *known == key_name) {
                problems.add(&at, format!("the key `{key_name}` is written twice"));
            }
            keys.push((key_name, around.path(&key.file)));
        }
        Some(Self {
            keys,
            max_lifetime: ms(file.max_lifetime_ms),
        })
    }
}

impl ClientCertificates {
    pub(super) fn build(file: &ClientCertificatesFile, around: &Surroundings<'_>) -> Self {
        Self {
            ca_file: around.path(&file.ca_file),
            required: file.required,
        }
    }
}

fn identity_headers(
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
        let header = HeaderName::from_lowercase(text.as_bytes())
            .ok()
            .filter(|header| !NEVER_IDENTITY.contains(header) && !text.contains('_'));
        let Some(header) = header else {
            problems.add_with_help(
                &at,
                format!("`{text}` cannot tell who asks"),
                "take a header field's name in lower case with hyphens, such as \
                 `x-viewer-subject`, that has no other meaning",
            );
            continue;
        };
        match IdentityFact::parse(fact) {
            Some(fact) => headers.push((header, fact)),
            None => problems.add_with_help(
                &at,
                format!("`{at}` cannot be `{fact}`"),
                "write `subject`, `issuer`, `method`, `groups` or `claim:NAME`",
            ),
        }
    }
    headers
}

impl IdentityFact {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "subject" => Some(Self::Subject),
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
