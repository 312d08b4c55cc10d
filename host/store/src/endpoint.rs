//! Published endpoints: a name, who holds it, and until when.
//!
//! A name belongs to one endpoint at a time. It is free again when the endpoint is removed or
//! when nobody held it until its time was over. A reserved name is only for its tenant.
//!
//! Time may jump and a hub may have been off. So a name whose time is over is still its holder's
//! while his agent is here, which the caller says.

mod lapse;
mod port;
mod tables;

use serde::{Deserialize, Serialize};

use crate::answer::{self, Keyed};
use crate::deleted;
use crate::schema::{DELETED, ENDPOINT_IDS, ENDPOINTS, MAKERS, RESERVATIONS, TENANT_ENDPOINTS};
use crate::{MayBeEngine, Reservation, Store, StoreError};
pub use lapse::{Lapsed, Round};
pub use port::PortRange;
use tables::tenant_key;
pub(crate) use tables::{Has, Tables, maker_of};

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
    /// Its public TCP port, unique among the endpoints that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What [`Store::claim_endpoint`] makes an endpoint of.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// The endpoint with its wanted name.
    pub endpoint: Endpoint,
    /// Whether this is the same endpoint again, by whoever proved that he may have it: then the
    /// one that is there is replaced. It keeps since when it is there and what it was promised.
    pub again: bool,
    /// How many others its maker had when somebody decided that he may have this one; with more of
    /// them that has to be decided anew.
    pub others: Option<u64>,
}

/// How much may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one tenant that has no quota of its own.
    pub per_tenant: u64,
    /// Of all together.
    pub total: u64,
    /// Of one tenant that were deleted and are remembered for that, beside those that it may have.
    pub deleted_per_tenant: u64,
    /// Of one address of anonymous callers, those that it has among them.
    pub deleted_per_source: u64,
}

/// Which endpoints are listed.
#[derive(Clone, Debug, Default)]
pub struct EndpointFilter {
    /// Only this tenant's.
    pub tenant: Option<String>,
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
    /// The tenant, or the anonymous caller's address, has deleted too many of late.
    #[error("too many tunnels were made and deleted lately; try again later")]
    ManyDeleted,
    /// It was deleted for good.
    #[error("the tunnel was deleted")]
    Deleted,
    /// Its maker got others, or another one its port, since this one was decided on.
    #[error("another tunnel was made at the same time; try again")]
    Overtaken,
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

impl MayBeEngine for ClaimRefused {
    fn is_engine(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_engine())
    }
}

impl Store {
    /// Gives an endpoint its name, in one step with the checks that it may have it and with what
    /// is `answered` to whoever asked. `is_here` says whether the agent of an endpoint is
    /// connected: then its name is not free, whatever the time. Returns the endpoint as it is kept.
    ///
    /// # Errors
    /// The name is another's, or there is no room for one more.
    pub fn claim_endpoint(
        &self,
        new: &NewEndpoint,
        now_ms: u64,
        limits: Limits,
        is_here: impl Fn(&Endpoint) -> bool,
        answered: Option<&Keyed>,
    ) -> Result<Endpoint, ClaimRefused> {
        self.write(|transaction| {
            let mut wanted = new.endpoint.clone();
            let mut tables = Tables::open(transaction)?;
            let name = || new.endpoint.name.clone();
            let reserved: Option<Reservation> =
                RESERVATIONS.open(transaction)?.get(&wanted.name)?;
            if reserved.is_some_and(|reserved| reserved.tenant != wanted.tenant) {
                return Err(ClaimRefused::Reserved { name: name() });
            }
            let mark = deleted::key_of(&wanted.tenant, &wanted.id);
            if DELETED.open(transaction)?.contains(&mark)? {
                return Err(ClaimRefused::Deleted);
            }
            if let Some(held) = tables.endpoints.get::<Endpoint>(&wanted.name)? {
                let ours = new.again && held.id == wanted.id && held.tenant == wanted.tenant;
                if !ours && (held.kept_until_ms > now_ms || is_here(&held)) {
                    return Err(ClaimRefused::Taken { name: name() });
                }
                tables.take_away(&held)?;
                if ours {
                    wanted.goes_on_as(&held);
                }
            }
            // The same endpoint under another name gives the first one back.
            if let Some(held) = tables.by_id(&wanted.id)? {
                if !new.again || held.tenant != wanted.tenant {
                    return Err(ClaimRefused::Taken { name: name() });
                }
                tables.take_away(&held)?;
                wanted.goes_on_as(&held);
            }
            if tables.has_port_of_another(&wanted)? {
                return Err(ClaimRefused::Overtaken);
            }
            tables.check_room(&wanted, new.others, limits)?;
            tables.put_in(&wanted)?;
            if let Some(answered) = answered {
                answer::remember(transaction, answered)?;
            }
            Ok(wanted)
        })
    }

    /// The endpoint of this name, also one whose time is over.
    ///
    /// # Errors
    /// The store failed.
    pub fn endpoint(&self, name: &str) -> Result<Option<Endpoint>, StoreError> {
        self.read(|transaction| ENDPOINTS.get(transaction, name))
    }

    /// The endpoint with this id.
    ///
    /// # Errors
    /// The store failed.
    pub fn endpoint_by_id(&self, id: &str) -> Result<Option<Endpoint>, StoreError> {
        self.read(
            |transaction| match ENDPOINT_IDS.get::<String>(transaction, id)? {
                Some(name) => ENDPOINTS.get(transaction, &name),
                None => Ok(None),
            },
        )
    }

    /// How many endpoints the maker of this one has beside it: a client by its id, anonymous
    /// callers by their address.
    ///
    /// # Errors
    /// The store failed.
    pub fn others_of_maker(&self, endpoint: &Endpoint) -> Result<u64, StoreError> {
        let maker = maker_of(endpoint);
        self.read(|transaction| {
            let has: Has = MAKERS.get(transaction, &maker)?.unwrap_or_default();
            let name: Option<String> = ENDPOINT_IDS.get(transaction, &endpoint.id)?;
            let itself: Option<Endpoint> = match name {
                Some(name) => ENDPOINTS.get(transaction, &name)?,
                None => None,
            };
            let counted = itself.is_some_and(|itself| maker_of(&itself) == maker);
            Ok(has.endpoints.saturating_sub(u64::from(counted)))
        })
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
        let after = filter.after.as_deref();
        self.read(|transaction| {
            let Some(tenant) = &filter.tenant else {
                return ENDPOINTS.each(transaction, after, |_, endpoint: Endpoint| {
                    found.push(endpoint);
                    found.len() < limit
                });
            };
            let mut names: Vec<String> = Vec::new();
            let after = after.map(|after| tenant_key(tenant, after));
            let prefix = tenant_key(tenant, "");
            let each = |_: &str, name| {
                names.push(name);
                names.len() < limit
            };
            TENANT_ENDPOINTS.each_of(transaction, &prefix, after.as_deref(), each)?;
            for name in names {
                found.extend(ENDPOINTS.get::<Endpoint>(transaction, &name)?);
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl Endpoint {
    /// What the same endpoint has asked for again keeps.
    fn goes_on_as(&mut self, held: &Self) {
        self.made_ms = held.made_ms;
        self.was_held = held.was_held;
        self.kept_until_ms = self.kept_until_ms.max(held.kept_until_ms);
    }
}
