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
    ClaimRefused, DeleteRefused, Deletion, Endpoint, EndpointFilter, Keyed, Lapsed, Limits,
    NameLimits, NewEndpoint, PortRange, Round, Store, StoreError,
};

use crate::client::ClientRegister;
use crate::id;
use crate::keys::{KeyError, KeyRing};
use crate::name::{NameRefused, NameRules};
use crate::token::{
    Ephemeral, MANAGEMENT_AUDIENCE, Management, RECREATE_AUDIENCE, Recreate, SKEW_SECONDS,
    TokenRefused, prove,
};

/// Characters of an endpoint's id after its prefix: 130 random bits.
const ID_CHARACTERS: usize = 26;

/// What an endpoint's id begins with.
const ID_PREFIX: &str = "tun_";

/// What a connector speaks that gets a public port of its own.
const TCP: &str = "tcp";

/// Endpoints that are looked at in one step.
const TIDIED_EACH: usize = 1000;

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
    /// How many endpoints anonymous callers may have, all of them together.
    pub anonymous_endpoints: u64,
    /// How many endpoints there may be.
    pub limits: Limits,
    /// How many names may be reserved.
    pub name_limits: NameLimits,
    /// Public ports of TCP services, where there are any.
    pub tcp_ports: Option<PortRange>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Somebody who showed nothing.
    Anonymous,
    /// A registered client, by its token.
    Client(Box<Management>),
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

/// An endpoint with its tokens, which count as soon as it is [published](Control::publish).
#[derive(Debug)]
pub struct Offered {
    new: NewEndpoint,
    /// What the caller gets.
    pub created: Created,
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
    /// An endpoint that is not there cannot be remembered as deleted.
    #[error(transparent)]
    Delete(#[from] DeleteRefused),
    /// Every public port has its tunnel.
    #[error("all {count} public TCP ports are taken")]
    NoPort {
        /// How many there are.
        count: u32,
    },
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
            proof: client.fingerprint(),
            jti: id::random(ID_CHARACTERS).ok_or(KeyError::NotMade)?,
            iat: now,
            exp: now.saturating_add(self.settings.management.as_secs()),
        };
        let token = self.keys.sign("JWT", &claims, claims.exp, now_ms)?;
        Ok((token, claims))
    }

    /// Who shows this management token, with what its registration allows now: a client that is no
    /// longer registered, or for another tenant, or with another secret, is nobody; scopes that it
    /// lost are gone from its tokens; its role is today's.
    ///
    /// # Errors
    /// The token does not count.
    pub fn prove_management(&self, token: &str, now_ms: u64) -> Result<Management, TokenRefused> {
        let mut claims: Management = prove(
            &self.keys,
            token,
            &self.settings.issuer,
            MANAGEMENT_AUDIENCE,
            now_ms,
        )?;
        let client = self
            .clients
            .get(&claims.sub)
            .filter(|client| client.tenant == claims.tenant)
            .filter(|client| client.fingerprint() == claims.proof)
            .ok_or(TokenRefused::Withdrawn)?;
        let allowed: Vec<&str> = client
            .scopes
            .iter()
            .map(String::as_str)
            .filter(|scope| claims.allows(scope))
            .collect();
        claims.scope = allowed.join(" ");
        claims.role.clone_from(&client.role.0);
        Ok(claims)
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
            (Some(again), _) => {
                self.settings.names.check_kept(&again.name)?;
                (again.sub.clone(), again.name.clone(), true)
            }
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
                    port: None,
                },
                again: again.is_some(),
                others: None,
            },
            recreate,
            wished,
        })
    }

    /// Gives what was planned the public port that it has or can have, where it is to have one.
    ///
    /// # Errors
    /// All are taken, or the store failed.
    pub fn choose_port(&self, planned: &mut Planned) -> Result<(), ControlError> {
        let endpoint = &mut planned.new.endpoint;
        endpoint.port = match self.settings.tcp_ports {
            Some(range) if endpoint.protocol == TCP => {
                let port = self.store.port_for(range, &endpoint.id)?;
                let count = range.count();
                Some(port.ok_or(ControlError::NoPort { count })?)
            }
            Some(_) | None => None,
        };
        Ok(())
    }

    /// Makes the tokens of what was planned, with nothing changed yet. `others` is how many others
    /// its maker had when that was decided.
    ///
    /// # Errors
    /// No key signs.
    pub fn offer(
        &self,
        mut planned: Planned,
        others: u64,
        now_ms: u64,
    ) -> Result<Offered, ControlError> {
        let token_id = id::random(ID_CHARACTERS).ok_or(KeyError::NotMade)?;
        planned.new.endpoint.token_id = Some(token_id);
        planned.new.others = Some(others);
        let new = planned.new.clone();
        let created = self.tokens(planned, now_ms)?;
        Ok(Offered { new, created })
    }

    /// Publishes what was offered, in one step with what is answered to the caller. `is_here` says
    /// whether an endpoint's agent is connected.
    ///
    /// # Errors
    /// The name was given to another meanwhile, or there is no room.
    pub fn publish(
        &self,
        offered: Offered,
        now_ms: u64,
        is_here: impl Fn(&Endpoint) -> bool,
        answered: Option<&Keyed>,
    ) -> Result<Created, ControlError> {
        let limits = self.limits_of(&offered.new.endpoint.tenant);
        let claimed = self
            .store
            .claim_endpoint(&offered.new, now_ms, limits, is_here, answered);
        let endpoint = claimed.map_err(|refused| {
            if matches!(refused, ClaimRefused::Deleted) {
                ControlError::Token(TokenRefused::Withdrawn)
            } else {
                ControlError::Claim(refused)
            }
        })?;
        Ok(Created {
            endpoint,
            ..offered.created
        })
    }

    /// How many endpoints a tenant may have that has no quota of its own.
    #[must_use]
    pub fn limits_of(&self, tenant: &str) -> Limits {
        let mut limits = self.settings.limits;
        if self.settings.anonymous_tenant.as_deref() == Some(tenant) {
            limits.per_tenant = self.settings.anonymous_endpoints;
        }
        limits
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
            exp,
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
            recreate_exp,
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
        // Publishing looks again, in one step with the claim.
        if self.store.is_deleted(tenant, &claims.sub)? {
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
        now_ms: u64,
    ) -> Result<Endpoint, ControlError> {
        let until = now_ms.saturating_add(ms(self.settings.grace));
        self.store
            .admit_endpoint(endpoint_id, token_id, until)?
            .ok_or(ControlError::Token(TokenRefused::Withdrawn))
    }

    /// One step of looking after names, beginning after the last one's end: for agents that are
    /// here they are kept for the grace time from now, where half of it is over; the others go
    /// with their time.
    ///
    /// # Errors
    /// The store failed.
    pub fn tidy(
        &self,
        now_ms: u64,
        after: Option<&str>,
        is_here: impl Fn(&Endpoint) -> bool,
    ) -> Result<Lapsed, StoreError> {
        let grace = ms(self.settings.grace);
        let round = Round {
            now_ms,
            due_ms: now_ms.saturating_add(grace / 2),
            until_ms: now_ms.saturating_add(grace),
            limit: TIDIED_EACH,
        };
        self.store.tidy_endpoints(round, after, is_here)
    }

    /// When the hub has been off, or its clock has jumped: agents get the grace time to come back.
    ///
    /// # Errors
    /// The store failed.
    pub fn resume(&self, now_ms: u64) -> Result<(), StoreError> {
        let grace = ms(self.settings.grace);
        let longest = grace.max(ms(self.settings.ephemeral));
        self.store
            .renew_endpoints(now_ms.saturating_add(grace), now_ms.saturating_add(longest))
    }

    /// Deletes an endpoint of a tenant for good: its tokens count no longer, and its name is free.
    /// Also one whose name is over does not come back then. Returns it, if it was there.
    ///
    /// # Errors
    /// It is not there and there is no room to remember it, or the store failed.
    pub fn delete(
        &self,
        id: &str,
        tenant: &str,
        now_ms: u64,
    ) -> Result<Option<Endpoint>, ControlError> {
        let anonymous = self.settings.anonymous_tenant.as_deref() == Some(tenant);
        let longest = if anonymous {
            self.settings.recreate_anonymous
        } else {
            let registered = self.settings.recreate_registered;
            registered.max(self.settings.recreate_anonymous)
        };
        let deletion = Deletion {
            id: id.to_owned(),
            tenant: tenant.to_owned(),
            until_ms: now_ms
                .saturating_add(ms(longest.max(RECREATE_MIN)))
                .saturating_add(SKEW_SECONDS.saturating_mul(1000)),
        };
        let limits = self.limits_of(tenant);
        Ok(self.store.delete_endpoint(&deletion, now_ms, limits)?)
    }

    /// Endpoints, at most `limit`, in the order of their names.
    ///
    /// # Errors
    /// The store failed.
    pub fn list(&self, filter: &EndpointFilter, limit: usize) -> Result<Vec<Endpoint>, StoreError> {
        self.store.endpoints(filter, limit)
    }

    /// How many other endpoints the maker of this one has: a client by its id, anonymous callers
    /// by their address.
    ///
    /// # Errors
    /// The store failed.
    pub fn others_of_maker(&self, endpoint: &Endpoint) -> Result<u64, StoreError> {
        self.store.others_of_maker(endpoint)
    }

    /// Whose the endpoint with this id is, for whoever shows its recreate token, whether or not it
    /// is there.
    ///
    /// # Errors
    /// The token does not count, or is another endpoint's.
    pub fn tenant_by_recreate_token(
        &self,
        id: &str,
        token: &str,
        now_ms: u64,
    ) -> Result<String, TokenRefused> {
        let claims: Recreate = prove(
            &self.keys,
            token,
            &self.settings.issuer,
            RECREATE_AUDIENCE,
            now_ms,
        )?;
        if claims.sub != id {
            return Err(TokenRefused::Invalid);
        }
        Ok(claims.tenant)
    }

    /// Whether a text has the form of an endpoint's id.
    #[must_use]
    pub fn is_id(text: &str) -> bool {
        text.strip_prefix(ID_PREFIX).is_some_and(|random| {
            random.len() == ID_CHARACTERS && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
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

fn new_id() -> Result<String, ControlError> {
    let random = id::random(ID_CHARACTERS).ok_or(KeyError::NotMade)?;
    Ok(format!("{ID_PREFIX}{random}"))
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
