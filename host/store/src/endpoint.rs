//! Published endpoints: a name, who holds it, and until when.
//!
//! A name belongs to one endpoint at a time. It is free again when the endpoint is removed or
//! when nobody held it until its time was over. A reserved name is only for its tenant.

use serde::{Deserialize, Serialize};

use crate::schema::{ENDPOINT_IDS, ENDPOINTS, Open, RESERVATIONS, TENANTS};
use crate::{Reservation, Store, StoreError};

/// An endpoint as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// For life; never given twice.
    pub id: String,
    /// Unique among the endpoints that are there.
    pub name: String,
    /// Whose it is.
    pub tenant: String,
    /// The agent that may hold it.
    pub agent: String,
    /// Who made it: an operator's client id, or empty for an anonymous caller.
    #[serde(default)]
    pub made_by: String,
    /// The address from which an anonymous caller made it.
    #[serde(default)]
    pub source: String,
    /// What the connector behind it speaks.
    pub protocol: String,
    /// When it was made.
    pub made_ms: u64,
    /// Until when the name is kept while no agent holds it.
    pub kept_until_ms: u64,
    /// Whether its agent was there at least once.
    #[serde(default)]
    pub was_held: bool,
    /// The one ephemeral token that may be used with it, by its id.
    #[serde(default)]
    pub token_id: Option<String>,
}

/// What [`Store::claim_endpoint`] makes an endpoint of.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// The endpoint with its wanted name.
    pub endpoint: Endpoint,
    /// Whether this is the same endpoint again, by whoever proved that he may have it: then the
    /// one that is there is replaced.
    pub again: bool,
}

/// How much may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one tenant.
    pub per_tenant: u64,
    /// Of all together.
    pub total: u64,
}

/// Which endpoints are listed.
#[derive(Clone, Debug, Default)]
pub struct EndpointFilter {
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// Only those of this agent.
    pub agent: Option<String>,
    /// Only those of this maker …
    pub made_by: Option<String>,
    /// … or made from this address.
    pub source: Option<String>,
    /// Only names after this one.
    pub after: Option<String>,
}

/// Why a name was not given.
#[derive(Debug, thiserror::Error)]
pub enum ClaimRefused {
    /// Another endpoint has it.
    #[error("the name `{name}` is in use")]
    Taken {
        /// The name.
        name: String,
    },
    /// It is reserved for somebody else. Who that is, is nobody's business.
    #[error("the name `{name}` is reserved")]
    Reserved {
        /// The name.
        name: String,
    },
    /// The tenant has as many as it may have.
    #[error("the tenant has {limit} endpoints, which is its quota")]
    Quota {
        /// The bound.
        limit: u64,
    },
    /// The hub has as many as it may have.
    #[error("the hub has {limit} endpoints, which is all it takes")]
    Full {
        /// The bound.
        limit: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a tenant has.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Has {
    #[serde(default)]
    pub(crate) endpoints: u64,
    #[serde(default)]
    pub(crate) reservations: u64,
}

impl Store {
    /// Gives an endpoint its name, in one step with the checks that it may have it.
    ///
    /// # Errors
    /// The name is another's, or there is no room for one more.
    pub fn claim_endpoint(
        &self,
        new: &NewEndpoint,
        now_ms: u64,
        limits: Limits,
    ) -> Result<(), ClaimRefused> {
        let wanted = &new.endpoint;
        self.write(|transaction| {
            let mut endpoints = ENDPOINTS.open(transaction)?;
            let mut ids = ENDPOINT_IDS.open(transaction)?;
            let mut tenants = TENANTS.open(transaction)?;
            let name = || wanted.name.clone();
            let reserved: Option<Reservation> =
                RESERVATIONS.open(transaction)?.get(&wanted.name)?;
            if reserved.is_some_and(|reserved| reserved.tenant != wanted.tenant) {
                return Err(ClaimRefused::Reserved { name: name() });
            }
            if let Some(held) = endpoints.get::<Endpoint>(&wanted.name)? {
                let ours = new.again && held.id == wanted.id && held.tenant == wanted.tenant;
                if !ours && held.kept_until_ms > now_ms {
                    return Err(ClaimRefused::Taken { name: name() });
                }
                take_away(&held, &mut endpoints, &mut ids, &mut tenants)?;
            }
            // The same endpoint under another name gives the first one back.
            if let Some(old) = ids.get::<String>(&wanted.id)?
                && let Some(held) = endpoints.get::<Endpoint>(&old)?
            {
                if !new.again || held.tenant != wanted.tenant {
                    return Err(ClaimRefused::Taken { name: name() });
                }
                take_away(&held, &mut endpoints, &mut ids, &mut tenants)?;
            }
            let mut has: Has = tenants.get(&wanted.tenant)?.unwrap_or_default();
            if has.endpoints >= limits.per_tenant {
                return Err(ClaimRefused::Quota {
                    limit: limits.per_tenant,
                });
            }
            if endpoints.len()? >= limits.total {
                return Err(ClaimRefused::Full {
                    limit: limits.total,
                });
            }
            has.endpoints += 1;
            tenants.put(&wanted.tenant, &has)?;
            ids.put(&wanted.id, &wanted.name)?;
            endpoints.put(&wanted.name, wanted)?;
            Ok(())
        })
    }

    /// The endpoint of this name, also one whose time is over.
    ///
    /// # Errors
    /// The store failed.
    pub fn endpoint(&self, name: &str) -> Result<Option<Endpoint>, StoreError> {
        ENDPOINTS.get(&self.read()?, name)
    }

    /// The endpoint with this id.
    ///
    /// # Errors
    /// The store failed.
    pub fn endpoint_by_id(&self, id: &str) -> Result<Option<Endpoint>, StoreError> {
        let transaction = self.read()?;
        match ENDPOINT_IDS.get::<String>(&transaction, id)? {
            Some(name) => ENDPOINTS.get(&transaction, &name),
            None => Ok(None),
        }
    }

    /// At most `limit` endpoints in the order of their names.
    ///
    /// # Errors
    /// The store failed.
    pub fn endpoints(
        &self,
        filter: &EndpointFilter,
        limit: usize,
    ) -> Result<Vec<Endpoint>, StoreError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        ENDPOINTS.each(
            &self.read()?,
            filter.after.as_deref(),
            |_, endpoint: Endpoint| {
                if fits(&filter.tenant, &endpoint.tenant)
                    && fits(&filter.agent, &endpoint.agent)
                    && fits(&filter.made_by, &endpoint.made_by)
                    && fits(&filter.source, &endpoint.source)
                {
                    found.push(endpoint);
                }
                found.len() < limit
            },
        )?;
        Ok(found)
    }

    /// Keeps the names of endpoints whose agents are there until a later time; those that are not
    /// there are left out.
    ///
    /// # Errors
    /// The store failed; then none was changed.
    pub fn keep_endpoints(&self, ids: &[String], until_ms: u64) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let names = ENDPOINT_IDS.open(transaction)?;
            let mut endpoints = ENDPOINTS.open(transaction)?;
            for id in ids {
                let Some(name) = names.get::<String>(id)? else {
                    continue;
                };
                if let Some(mut endpoint) = endpoints.get::<Endpoint>(&name)?
                    && (endpoint.kept_until_ms < until_ms || !endpoint.was_held)
                {
                    endpoint.kept_until_ms = endpoint.kept_until_ms.max(until_ms);
                    endpoint.was_held = true;
                    endpoints.put(&name, &endpoint)?;
                }
            }
            Ok(())
        })
    }

    /// Takes an endpoint away and returns it.
    ///
    /// # Errors
    /// The store failed.
    pub fn remove_endpoint(&self, id: &str) -> Result<Option<Endpoint>, StoreError> {
        self.write(|transaction| {
            let mut ids = ENDPOINT_IDS.open(transaction)?;
            let Some(name) = ids.get::<String>(id)? else {
                return Ok(None);
            };
            let mut endpoints = ENDPOINTS.open(transaction)?;
            let Some(endpoint) = endpoints.get::<Endpoint>(&name)? else {
                return Err(StoreError::Damaged {
                    table: "endpoint_ids",
                    reason: format!("`{name}` is not there"),
                });
            };
            let mut tenants = TENANTS.open(transaction)?;
            take_away(&endpoint, &mut endpoints, &mut ids, &mut tenants)?;
            Ok(Some(endpoint))
        })
    }

    /// Takes away endpoints whose time is over, at most `limit`, and returns them.
    ///
    /// # Errors
    /// The store failed.
    pub fn expire_endpoints(&self, now_ms: u64, limit: usize) -> Result<Vec<Endpoint>, StoreError> {
        let mut over: Vec<Endpoint> = Vec::new();
        ENDPOINTS.each(&self.read()?, None, |_, endpoint: Endpoint| {
            if endpoint.kept_until_ms <= now_ms && over.len() < limit {
                over.push(endpoint);
            }
            over.len() < limit
        })?;
        if over.is_empty() {
            return Ok(over);
        }
        self.write(|transaction| {
            let mut endpoints = ENDPOINTS.open(transaction)?;
            let mut ids = ENDPOINT_IDS.open(transaction)?;
            let mut tenants = TENANTS.open(transaction)?;
            // Between the look and this change one may have been kept for longer.
            let mut gone = Vec::with_capacity(over.len());
            for endpoint in over {
                let now: Option<Endpoint> = endpoints.get(&endpoint.name)?;
                if now.as_ref() == Some(&endpoint) {
                    take_away(&endpoint, &mut endpoints, &mut ids, &mut tenants)?;
                    gone.push(endpoint);
                }
            }
            Ok(gone)
        })
    }
}

fn take_away(
    endpoint: &Endpoint,
    endpoints: &mut Open<'_>,
    ids: &mut Open<'_>,
    tenants: &mut Open<'_>,
) -> Result<(), StoreError> {
    endpoints.remove(&endpoint.name)?;
    ids.remove(&endpoint.id)?;
    let mut has: Has = tenants.get(&endpoint.tenant)?.unwrap_or_default();
    has.endpoints = has.endpoints.saturating_sub(1);
    tenants.put(&endpoint.tenant, &has)
}
