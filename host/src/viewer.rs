//! Who a viewer of HTTP is: from what a request carries to a proven identity.
//!
//! A route names a set of ways, [`ViewerAuth`]. They are looked at in the order of the
//! configuration, and the first that the request carries something for decides: where that is
//! wrong the request is refused, whatever else it carries, so that nobody passes by trying. What
//! carries nothing is anonymous, or is refused where the set says so.
//!
//! Proving says who it is, never what he may: that is for the policies, which see a `Viewer` with
//! groups, tags and the way by which it was proven. What was shown is [taken out](ViewerAuth::hide)
//! of the request before a plugin or an origin sees it.
//!
//! Ids of different ways never meet: `basic:NAME`, `cert:NAME` and `url:KEY`, and a token's `sub`
//! that begins like one of these is refused.
//!
//! Absent: signing in by a browser's redirects. It would be one more way, which finds a session in
//! a cookie and answers a refusal with a redirect.

mod assertion;
mod bearer;
mod certificate;
mod hashing;
pub(crate) mod hide;
mod origin;
mod refusal;
pub(crate) mod signed_url;
mod users;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use nowconnect_plugins as plugins;
use nowconnect_policy::{Name, Viewer, ViewerFacts};
use nowconnect_protocol::TenantName;

use crate::config::{ListenerName, METHOD_TAG, SecurityConfig, ViewerAuthConfig, ViewerWay};
use crate::identity::Authenticator;
pub(crate) use assertion::{Assertions, KEYS_PATH, RingKeys};
use bearer::Tokens;
pub(crate) use certificate::ClientCertificate;
pub(crate) use hashing::Hashing;
pub(crate) use origin::IdentityNames;
pub(crate) use refusal::{Challenges, Refusal, RefusalKind};
use signed_url::UrlKeys;
use users::Users;

/// How ids begin that do not come from a token.
const OWN_PREFIXES: [&str; 3] = ["basic:", "cert:", "url:"];

/// A set of ways as it is in force; swapped whole by a reload.
#[derive(Debug)]
pub(crate) struct ViewerAuth {
    config: ViewerAuthConfig,
    ways: Vec<Way>,
    /// What origins are told under a signature, where the set wants it.
    assertions: Option<Assertions>,
}

#[derive(Debug)]
enum Way {
    Bearer(Tokens),
    Basic(Arc<Users>),
    Mtls(Vec<ListenerName>),
    SignedUrl(UrlKeys),
}

/// Why a set cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewerAuthError {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {error}")]
    Unreadable {
        path: std::path::PathBuf,
        error: std::io::Error,
    },
    /// A file does not hold what it should. Nothing of what it holds is shown.
    #[error("`{path}`: {reason}")]
    Malformed {
        path: std::path::PathBuf,
        reason: String,
    },
    /// An issuer's keys cannot be used.
    #[error(transparent)]
    Issuer(#[from] crate::identity::AuthenticatorError),
}

/// What a request carries that may prove something, in the form that routes and policies see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried<'a> {
    pub(crate) method: &'a Method,
    /// In lower case, without a port.
    pub(crate) host: &'a str,
    /// Normalised.
    pub(crate) path: &'a str,
    /// As it came.
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    /// What the handshake has verified.
    pub(crate) certificate: Option<&'a ClientCertificate>,
    /// The viewer's address.
    pub(crate) source: IpAddr,
    /// Whose endpoint it asks for.
    pub(crate) tenant: &'a TenantName,
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct SignedIn {
    /// As policies see it.
    pub(crate) viewer: Viewer,
    /// As plugins see it.
    pub(crate) plugin: plugins::Viewer,
    /// The way by which it was proven; `None` is the anonymous viewer.
    pub(crate) method: Option<&'static str>,
    /// Until when the proof would be accepted, where it ends.
    pub(crate) until: Option<SystemTime>,
}

/// A proven viewer, before policies and plugins get it in their own forms.
struct Proven {
    tenant: TenantName,
    /// Its id within the tenant.
    id: String,
    issuer: Option<String>,
    email: Option<String>,
    email_verified: Option<bool>,
    amr: Vec<String>,
    auth_time: Option<SystemTime>,
    groups: Vec<String>,
    tags: Vec<(String, String)>,
    until: Option<SystemTime>,
}

impl ViewerAuth {
    /// Reads every file of the set. What `before` has read and did not change is kept, and so are
    /// issuers' keys. Nothing is fetched.
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it should; the message names it.
    pub(crate) fn build(
        config: &ViewerAuthConfig,
        security: &SecurityConfig,
        before: Option<&Self>,
    ) -> Result<Self, ViewerAuthError> {
        let earlier = || before.into_iter().flat_map(|before| &before.ways);
        let ways = config.ways.iter().map(|way| {
            Ok(match way {
                ViewerWay::Bearer(bearer) => {
                    let kept = earlier().find_map(|way| match way {
                        Way::Bearer(tokens) => Some(tokens),
                        Way::Basic(_) | Way::Mtls(_) | Way::SignedUrl(_) => None,
                    });
                    Way::Bearer(Tokens::build(bearer, security, kept)?)
                }
                ViewerWay::Basic(path) => {
                    let kept = earlier().find_map(|way| match way {
                        Way::Basic(users) => Some(users),
                        Way::Bearer(_) | Way::Mtls(_) | Way::SignedUrl(_) => None,
                    });
                    Way::Basic(Users::read(path, kept)?)
                }
                ViewerWay::Mtls(listeners) => Way::Mtls(listeners.clone()),
                ViewerWay::SignedUrl(urls) => Way::SignedUrl(UrlKeys::read(urls)?),
            })
        });
        let assertions = config.assertion.as_ref();
        Ok(Self {
            ways: ways.collect::<Result<_, ViewerAuthError>>()?,
            assertions: assertions.map(Assertions::build).transpose()?,
            config: config.clone(),
        })
    }

    /// What makes assertions for origins, where the set wants them.
    pub(crate) fn assertions(&self) -> Option<&Assertions> {
        self.assertions.as_ref()
    }

    /// Keeps the keys of the set's own issuers fresh until dropped. Needs a tokio runtime.
    pub(crate) fn keep_fresh(&self) {
        for way in &self.ways {
            match way {
                Way::Bearer(tokens) => tokens.keep_fresh(),
                Way::Basic(_) | Way::Mtls(_) | Way::SignedUrl(_) => {}
            }
        }
    }

    /// Finds out who asks. `of_agents` verifies tokens where the set has no issuers of its own.
    ///
    /// # Errors
    /// What the request carries is wrong, or it carries nothing where something is required.
    pub(crate) async fn prove(
        &self,
        carried: &Carried<'_>,
        of_agents: &Authenticator,
        hashing: &Hashing,
    ) -> Result<SignedIn, Refusal> {
        let authorization = self.authorization(carried.headers)?;
        for (way, settings) in self.ways.iter().zip(&self.config.ways) {
            let proven = match way {
                Way::Bearer(tokens) => match authorization.of("bearer") {
                    Some(token) => Some(tokens.prove(token, of_agents, carried.tenant).await?),
                    None => None,
                },
                Way::Basic(users) => match authorization.of("basic") {
                    Some(pair) => Some(users.prove(pair, carried, hashing).await?),
                    None => None,
                },
                Way::Mtls(listeners) => match carried.certificate {
                    Some(certificate) => Some(certificate.prove(carried.tenant, listeners)?),
                    None => None,
                },
                Way::SignedUrl(keys) => keys.prove(carried, SystemTime::now())?,
            };
            if let Some(proven) = proven {
                return Ok(proven.signed_in(settings.kind()));
            }
        }
        if self.config.required {
            return Err(Refusal::nothing_shown());
        }
        Ok(SignedIn::default())
    }

    /// The `Authorization` that one of the ways could mean.
    fn authorization<'a>(&self, headers: &'a HeaderMap) -> Result<Authorization<'a>, Refusal> {
        if !self.config.has("bearer") && !self.config.has("basic") {
            return Ok(Authorization(None));
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(Authorization(None));
        };
        if values.next().is_some() {
            return Err(Refusal::ambiguous("`Authorization` stands there twice"));
        }
        let text = value
            .to_str()
            .map_err(|_| Refusal::ambiguous("`Authorization` is no printable ASCII"))?;
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        Ok(Authorization(Some((scheme, rest.trim_start()))))
    }
}

/// Scheme and rest of the one `Authorization`.
struct Authorization<'a>(Option<(&'a str, &'a str)>);

impl<'a> Authorization<'a> {
    fn of(&self, wanted: &str) -> Option<&'a str> {
        let (scheme, rest) = self.0?;
        scheme.eq_ignore_ascii_case(wanted).then_some(rest)
    }
}

impl Proven {
    /// One of `tenant` about whom nothing more is known.
    fn named(tenant: &TenantName, id: String, amr: &str) -> Self {
        Self {
            tenant: tenant.clone(),
            id,
            issuer: None,
            email: None,
            email_verified: None,
            amr: vec![amr.to_owned()],
            auth_time: None,
            groups: Vec::new(),
            tags: Vec::new(),
            until: None,
        }
    }

    fn signed_in(mut self, method: &'static str) -> SignedIn {
        // The configuration refuses a claim of this name, so this is the only one.
        self.tags.push((METHOD_TAG.to_owned(), method.to_owned()));
        let plugin = plugins::Viewer {
            subject: Some(self.id.clone()),
            issuer: self.issuer.clone(),
            groups: self.groups.clone(),
            attributes: self.tags.clone(),
        };
        let facts = ViewerFacts {
            viewer: Name::new(self.tenant.as_str(), &self.id),
            issuer: self.issuer,
            email: self.email,
            email_verified: self.email_verified,
            amr: self.amr,
            auth_time_ms: self.auth_time.map(unix_ms),
            groups: self.groups.into_iter().map(Arc::from).collect(),
            tags: self.tags,
        };
        SignedIn {
            viewer: Viewer::Known(Arc::new(facts)),
            plugin,
            method: Some(method),
            until: self.until,
        }
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
