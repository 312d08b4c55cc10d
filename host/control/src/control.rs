//! The life of a tunnel's name: asked for, published, asked for again, deleted.
//!
//! ```text
//!            create                 agent connects          tunnel ends
//!  (nothing) ──────► kept for the ─────────────────► held ─────────────► kept for the grace time
//!                    first connect                     ▲                      │        │
//!                                                      └──────────────────────┘        ▼
//!                                                   create with the recreate token   (nothing)
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nowconnect_store::{
    ClaimRefused, Endpoint, EndpointFilter, Limits, NewEndpoint, Once, Store, StoreError, Used,
};

use crate::client::ClientRegister;
use crate::id;
use crate::keys::{KeyError, KeyRing};
use crate::name::{NameRefused, NameRules};
use crate::token::{
    Ephemeral, MANAGEMENT_AUDIENCE, Management, RECREATE_AUDIENCE, Recreate, TokenRefused, prove,
};

/// Characters of an endpoint's id after its prefix: 130 random bits.
const ID_CHARACTERS: usize = 26;

/// Shortest life of a recreate token that can be asked for.
const RECREATE_MIN: Duration = Duration::from_secs(60);

/// What the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `iss` of every token.
    pub issuer: String,
    /// `aud` of ephemeral tokens: what the tunnel port asks for.
    pub audience: String,
    /// The domain below which names are published.
    pub domain: String,
    /// The tenant of callers that show nothing, if they get anything.
    pub anonymous_tenant: Option<String>,
    /// How long an ephemeral token lives.
    pub ephemeral: Duration,
    /// How long a recreate token of an anonymous caller lives at most.
    pub recreate_anonymous: Duration,
    /// The same for registered clients.
    pub recreate_registered: Duration,
    /// How long a management token lives.
    pub management: Duration,
    /// How long a name is kept after its tunnel has ended.
    pub grace: Duration,
    /// Which names nobody gets.
    pub names: NameRules,
    /// How many endpoints there may be.
    pub limits: Limits,
    /// How many used tokens are remembered.
    pub used_tokens_max: u64,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Somebody who showed nothing.
    Anonymous,
    /// A registered client, by its token.
    Client(Management),
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct TunnelRequest {
    /// The wished name.
    pub name: Option<String>,
    /// What the connector behind it speaks.
    pub protocol: String,
    /// How long the recreate token shall live; bounded by the settings.
    pub recreate_ttl: Option<Duration>,
    /// The endpoint that is asked for again.
    pub recreate_token: Option<String>,
}

/// An endpoint that could be published, for policies to look at first.
#[derive(Clone, Debug)]
pub struct Planned {
    new: NewEndpoint,
    recreate: Duration,
    wished: bool,
}

impl Planned {
    /// The endpoint as it would be.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.new.endpoint
    }

    /// Whether somebody wished for the name; else it is random, and planning again gives another.
    #[must_use]
    pub fn is_wished(&self) -> bool {
        self.wished
    }
}

/// What a caller gets.
pub struct Created {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its public host name.
    pub host: String,
    /// For the tunnel port, once.
    pub ephemeral_token: String,
    /// When that ends, in milliseconds since 1970.
    pub ephemeral_until_ms: u64,
    /// For the same endpoint again.
    pub recreate_token: String,
    /// When that ends, in milliseconds since 1970.
    pub recreate_until_ms: u64,
}

impl std::fmt::Debug for Created {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Created")
            .field("endpoint", &self.endpoint.id)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The name cannot be had.
    #[error(transparent)]
    Name(#[from] NameRefused),
    /// Somebody else has the name, or there is no room.
    #[error(transparent)]
    Claim(#[from] ClaimRefused),
    /// A token does not count.
    #[error(transparent)]
    Token(#[from] TokenRefused),
    /// Nobody is served without a token here.
    #[error("a management token is needed here; the operator has turned anonymous tunnels off")]
    NotAnonymous,
    /// The client and its secret do not fit.
    #[error("client id or secret do not fit")]
    BadClient,
    /// As many tokens and deleted endpoints are remembered as may be.
    #[error("the hub remembers as many used tokens as it may; try again later")]
    Busy,
    /// No key can sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// See the module.
#[derive(Debug)]
pub struct Control {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    clients: ClientRegister,
    settings: Settings,
}

impl Control {
    /// Rules over a store and its keys. Cheap: made anew with each configuration.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        keys: Arc<KeyRing>,
        clients: ClientRegister,
        settings: Settings,
    ) -> Self {
        Self {
            store,
            keys,
            clients,
            settings,
        }
    }

    /// The keys that sign.
    #[must_use]
    pub fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The host name of an endpoint.
    #[must_use]
    pub fn host(&self, name: &str) -> String {
        format!("{name}.{}", self.settings.domain)
    }

    /// A management token for a client that proves itself.
    ///
    /// # Errors
    /// The secret does not fit, or no key signs.
    pub fn management_token(
        &self,
        client_id: &str,
        client_secret: &str,
        now_ms: u64,
    ) -> Result<(String, Management), ControlError> {
        let client = self
            .clients
            .prove(client_id, client_secret)
            .ok_or(ControlError::BadClient)?;
        let now = now_ms / 1000;
        let claims = Management {
            iss: self.settings.issuer.clone(),
            aud: MANAGEMENT_AUDIENCE.to_owned(),
            sub: client.id.clone(),
            tenant: client.tenant.clone(),
            scope: client.scopes.join(" "),
            role: client.role.0.clone(),
            jti: id::random(ID_CHARACTERS).ok_or(KeyError::NotMade)?,
            iat: now,
            exp: now.saturating_add(self.settings.management.as_secs()),
        };
        let token = self.keys.sign("JWT", &claims, now_ms)?;
        Ok((token, claims))
    }

    /// Who shows this management token. A client that is no longer registered, or for another
    /// tenant, is nobody.
    ///
    /// # Errors
    /// The token does not count.
    pub fn prove_management(&self, token: &str, now_ms: u64) -> Result<Management, TokenRefused> {
        let claims: Management = prove(
            &self.keys,
            token,
            &self.settings.issuer,
            MANAGEMENT_AUDIENCE,
            now_ms,
        )?;
        let known = self
            .clients
            .get(&claims.sub)
            .is_some_and(|client| client.tenant == claims.tenant);
        if known {
            Ok(claims)
        } else {
            Err(TokenRefused::Withdrawn)
        }
    }

    /// The endpoint that a caller would get, with nothing changed yet.
    ///
    /// # Errors
    /// The name or the recreate token cannot be used, or the caller gets nothing here.
    pub fn plan(
        &self,
        maker: &Maker,
        request: &TunnelRequest,
        from: IpAddr,
        now_ms: u64,
    ) -> Result<Planned, ControlError> {
        let (tenant, made_by, longest) = match maker {
            Maker::Anonymous => {
                let tenant = self
                    .settings
                    .anonymous_tenant
                    .as_ref()
                    .ok_or(ControlError::NotAnonymous)?;
                (tenant, "", self.settings.recreate_anonymous)
            }
            Maker::Client(claims) => (
                &claims.tenant,
                claims.sub.as_str(),
                self.settings.recreate_registered,
            ),
        };
        let again = request
            .recreate_token
            .as_ref()
            .map(|token| self.prove_recreate(token, tenant, now_ms))
            .transpose()?;
        let (id, name, wished) = match (&again, &request.name) {
            (Some(again), _) => (again.sub.clone(), again.name.clone(), true),
            (None, Some(wished)) => (new_id()?, self.settings.names.check(wished)?, true),
            (None, None) => (
                new_id()?,
                NameRules::random().ok_or(KeyError::NotMade)?,
                false,
            ),
        };
        let kept_until_ms = now_ms.saturating_add(ms(self.settings.ephemeral));
        let recreate = request.recreate_ttl.map_or(longest, |wanted| {
            wanted.clamp(RECREATE_MIN, longest.max(RECREATE_MIN))
        });
        Ok(Planned {
            new: NewEndpoint {
                endpoint: Endpoint {
                    agent: id.clone(),
                    id,
                    name,
                    tenant: tenant.clone(),
                    made_by: made_by.to_owned(),
                    source: source(from),
                    protocol: request.protocol.clone(),
                    made_ms: now_ms,
                    kept_until_ms,
                    was_held: false,
                    token_id: None,
                },
                again: again.is_some(),
            },
            recreate,
            wished,
        })
    }

    /// Publishes what was planned, and gives out its tokens.
    ///
    /// # Errors
    /// The name was given to another meanwhile, or there is no room.
    pub fn publish(&self, mut planned: Planned, now_ms: u64) -> Result<Created, ControlError> {
        let token_id = id::random(ID_CHARACTERS).ok_or(KeyError::NotMade)?;
        planned.new.endpoint.token_id = Some(token_id);
        self.store
            .claim_endpoint(&planned.new, now_ms, self.settings.limits)?;
        self.tokens(planned, now_ms)
    }

    fn tokens(&self, planned: Planned, now_ms: u64) -> Result<Created, ControlError> {
        let endpoint = planned.new.endpoint;
        let now = now_ms / 1000;
        let exp = now.saturating_add(self.settings.ephemeral.as_secs());
        let ephemeral_token = self.keys.sign(
            "JWT",
            &Ephemeral {
                iss: &self.settings.issuer,
                sub: &endpoint.id,
                aud: &self.settings.audience,
                iat: now,
                exp,
                jti: endpoint.token_id.as_deref().unwrap_or_default(),
                name: &endpoint.name,
                tenant: &endpoint.tenant,
                agent_id: &endpoint.agent,
                connectors: [&endpoint.id],
            },
            now_ms,
        )?;
        let recreate_exp = now.saturating_add(planned.recreate.as_secs());
        let recreate_token = self.keys.sign(
            "JWT",
            &Recreate {
                iss: self.settings.issuer.clone(),
                aud: RECREATE_AUDIENCE.to_owned(),
                sub: endpoint.id.clone(),
                name: endpoint.name.clone(),
                tenant: endpoint.tenant.clone(),
                iat: now,
                exp: recreate_exp,
            },
            now_ms,
        )?;
        Ok(Created {
            host: self.host(&endpoint.name),
            endpoint,
            ephemeral_token,
            ephemeral_until_ms: exp.saturating_mul(1000),
            recreate_token,
            recreate_until_ms: recreate_exp.saturating_mul(1000),
        })
    }

    /// A recreate token is for its tenant: an anonymous caller's is no use to a client.
    fn prove_recreate(
        &self,
        token: &str,
        tenant: &str,
        now_ms: u64,
    ) -> Result<Recreate, ControlError> {
        let claims: Recreate = prove(
            &self.keys,
            token,
            &self.settings.issuer,
            RECREATE_AUDIENCE,
            now_ms,
        )?;
        if claims.tenant != tenant {
            return Err(TokenRefused::Invalid.into());
        }
        if self.store.was_used(Once::Deleted, &claims.sub)? {
            return Err(TokenRefused::Withdrawn.into());
        }
        Ok(claims)
    }

    /// Lets an ephemeral token in, whose signature and time were checked: the first time, and
    /// only the last one that its endpoint got. Returns the endpoint, whose name is kept for the
    /// grace time from now.
    ///
    /// # Errors
    /// The token was used, or its endpoint is gone or has a newer one.
    pub fn admit(
        &self,
        endpoint_id: &str,
        token_id: &str,
        token_until_ms: u64,
        now_ms: u64,
    ) -> Result<Endpoint, ControlError> {
        let endpoint = self
            .store
            .endpoint_by_id(endpoint_id)?
            .filter(|endpoint| endpoint.token_id.as_deref() == Some(token_id))
            .ok_or(TokenRefused::Withdrawn)?;
        let used = self.store.use_once(
            Once::Token,
            token_id,
            now_ms,
            token_until_ms.saturating_add(TOKEN_SKEW_MS),
            self.settings.used_tokens_max,
        )?;
        match used {
            Used::First => {}
            Used::Again => return Err(TokenRefused::Withdrawn.into()),
            Used::Full => return Err(ControlError::Busy),
        }
        self.keep(std::slice::from_ref(&endpoint.id), now_ms)?;
        Ok(endpoint)
    }

    /// Keeps the names of endpoints for the grace time from now: called while agents hold them.
    ///
    /// # Errors
    /// The store failed.
    pub fn keep(&self, ids: &[String], now_ms: u64) -> Result<(), StoreError> {
        let until = now_ms.saturating_add(ms(self.settings.grace));
        self.store.keep_endpoints(ids, until)
    }

    /// Deletes an endpoint for good: its tokens count no longer, and its name is free.
    ///
    /// # Errors
    /// The store failed.
    pub fn delete(&self, id: &str, now_ms: u64) -> Result<Option<Endpoint>, ControlError> {
        if self.store.endpoint_by_id(id)?.is_none() {
            return Ok(None);
        }
        let longest = self
            .settings
            .recreate_registered
            .max(self.settings.recreate_anonymous);
        // First the mark: between the two a recreate token must not bring it back.
        let used = self.store.use_once(
            Once::Deleted,
            id,
            now_ms,
            now_ms.saturating_add(ms(longest)),
            self.settings.used_tokens_max,
        )?;
        if used == Used::Full {
            return Err(ControlError::Busy);
        }
        Ok(self.store.remove_endpoint(id)?)
    }

    /// Endpoints, at most `limit`, in the order of their names.
    ///
    /// # Errors
    /// The store failed.
    pub fn list(&self, filter: &EndpointFilter, limit: usize) -> Result<Vec<Endpoint>, StoreError> {
        self.store.endpoints(filter, limit)
    }

    /// How many other endpoints the maker of this one has, counted up to `most`: a client by its
    /// id, anonymous callers by their address.
    ///
    /// # Errors
    /// The store failed.
    pub fn open_endpoints(&self, endpoint: &Endpoint, most: usize) -> Result<usize, StoreError> {
        let anonymous = endpoint.made_by.is_empty();
        let filter = EndpointFilter {
            tenant: Some(endpoint.tenant.clone()),
            made_by: Some(endpoint.made_by.clone()),
            source: anonymous.then(|| endpoint.source.clone()),
            ..EndpointFilter::default()
        };
        let found = self.store.endpoints(&filter, most)?;
        Ok(found.iter().filter(|found| found.id != endpoint.id).count())
    }

    /// The endpoint with this id, for whoever shows its recreate token.
    ///
    /// # Errors
    /// The token does not count, or is another endpoint's.
    pub fn find_by_recreate_token(
        &self,
        id: &str,
        token: &str,
        now_ms: u64,
    ) -> Result<Option<Endpoint>, ControlError> {
        let claims: Recreate = prove(
            &self.keys,
            token,
            &self.settings.issuer,
            RECREATE_AUDIENCE,
            now_ms,
        )?;
        if claims.sub != id {
            return Err(TokenRefused::Invalid.into());
        }
        Ok(self.store.endpoint_by_id(id)?)
    }

    /// The endpoint with this id.
    ///
    /// # Errors
    /// The store failed.
    pub fn find(&self, id: &str) -> Result<Option<Endpoint>, StoreError> {
        self.store.endpoint_by_id(id)
    }

    /// The store, for names and backups.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

/// The tunnel port lets a token in for some time after its end, because clocks differ; so long it
/// must be known as used.
const TOKEN_SKEW_MS: u64 = 600_000;

fn new_id() -> Result<String, ControlError> {
    let random = id::random(ID_CHARACTERS).ok_or(KeyError::NotMade)?;
    Ok(format!("tun_{random}"))
}

/// An address, or what one customer of a provider has of IPv6.
fn source(from: IpAddr) -> String {
    match from.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
