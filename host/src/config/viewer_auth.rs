//! How viewers of HTTP say who they are, and what origins are told of it.

mod assertion;
mod identity;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use http::header::HeaderName;
use nowconnect_protocol::TenantName;

use super::build::{Surroundings, ms, name};
use super::file::{
    ClientCertificatesFile, IssuerFile, SecurityFile, ViewerAuthFile, ViewerBearerFile,
    ViewerIssuerFile, ViewerSignedUrlFile, ViewerWayFile,
};
use super::problem::Problems;
use super::tree::Path;
use super::{ClaimsConfig, IssuerConfig, KeySource, ListenerName};
pub(super) use assertion::check_signers;
pub use assertion::{AssertedClaim, ViewerAssertion};
pub use identity::IdentityFact;
use identity::identity_headers;

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
    /// The signed form of it.
    pub assertion: Option<ViewerAssertion>,
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

/// Which certificates of clients a port takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that vouch for them.
    pub ca_file: PathBuf,
    /// Whether the handshake fails without one.
    pub required: bool,
}

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
        let at = path.key("assertion");
        let assertion = file.assertion.as_ref();
        let assertion =
            assertion.and_then(|own| ViewerAssertion::build(own, &at, security, around, problems));
        if let Some(assertion) = &assertion
            && identity_headers
                .iter()
                .any(|(name, _)| *name == assertion.header)
        {
            problems.add_with_help(
                &at.key("header"),
                format!(
                    "`{}` is one of `{path}.identity_headers` as well",
                    assertion.header
                ),
                "take another name for one of them",
            );
        }
        Some(Self {
            name: own_name?,
            required: file.required,
            ways,
            realm,
            identity_headers,
            assertion,
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
        files.extend(self.assertion.iter().flat_map(|own| &own.key_files));
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
