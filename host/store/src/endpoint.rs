//! Published endpoints: a name, who holds it, and until when.
//!
//! A name belongs to one endpoint at a time. It is free again when the endpoint is removed or
//! when nobody held it until its time was over. A reserved name is only for its tenant.
//!
//! Time may jump and a hub may have been off. So a name whose time is over is still its holder's
//! while his agent is here, which the caller says.

use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use crate::answer::{self, Keyed};
use crate::deleted;
use crate::schema::{
    DELETED, ENDPOINT_IDS, ENDPOINTS, MAKERS, Open, RESERVATIONS, TENANT_ENDPOINTS, TENANTS,
};
use crate::{MayBeEngine, Reservation, Store, StoreError};

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
    /// one that is there is replaced. It keeps since when it is there and what it was promised.
    pub again: bool,
    /// How many others its maker had when somebody decided that he may have this one; with more of
    /// them that has to be decided anew.
    pub others: Option<u64>,
}

/// How much may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one tenant.
    pub per_tenant: u64,
    /// Of all together.
    pub total: u64,
    /// Of one tenant together with those that it has deleted and that are remembered for that.
    pub deleted_per_tenant: u64,
    /// The same of one address of anonymous callers.
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
    /// Its maker got others since this one was decided on.
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

/// What a tenant or a maker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Has {
    #[serde(default)]
    pub(crate) endpoints: u64,
    #[serde(default)]
    pub(crate) reservations: u64,
    /// Deleted endpoints that are remembered.
    #[serde(default)]
    pub(crate) deleted: u64,
}

impl Has {
    /// Who has nothing any more takes no room.
    pub(crate) fn change(
        table: &mut Open<'_>,
        who: &str,
        change: impl FnOnce(&mut Self),
    ) -> Result<(), StoreError> {
        let mut has: Self = table.get(who)?.unwrap_or_default();
        change(&mut has);
        if has == Self::default() {
            table.remove(who).map(|_| ())
        } else {
            table.put(who, &has)
        }
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

    /// Lets the agent of an endpoint in with a token that counts once: true for the last one that
    /// was given out, the first time. The name is kept until then. `None` where the token does not
    /// count.
    ///
    /// # Errors
    /// The store failed.
    pub fn admit_endpoint(
        &self,
        id: &str,
        token_id: &str,
        until_ms: u64,
    ) -> Result<Option<Endpoint>, StoreError> {
        self.write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            let Some(mut endpoint) = tables
                .by_id(id)?
                .filter(|endpoint| endpoint.token_id.as_deref() == Some(token_id))
            else {
                return Ok(None);
            };
            endpoint.token_id = None;
            endpoint.was_held = true;
            endpoint.kept_until_ms = endpoint.kept_until_ms.max(until_ms);
            tables.endpoints.put(&endpoint.name, &endpoint)?;
            Ok(Some(endpoint))
        })
    }

    /// Keeps the names of endpoints whose agents are there until a later time. Those that are not
    /// there are left out, and those that are kept until `due_ms` or longer as it is.
    ///
    /// # Errors
    /// The store failed; then none was changed.
    pub fn keep_endpoints(
        &self,
        ids: &[String],
        until_ms: u64,
        due_ms: u64,
    ) -> Result<(), StoreError> {
        let is_due = |endpoint: &Endpoint| endpoint.kept_until_ms < due_ms || !endpoint.was_held;
        self.change_endpoints(ids, |endpoint| {
            let due = is_due(endpoint);
            if due {
                endpoint.kept_until_ms = endpoint.kept_until_ms.max(until_ms);
                endpoint.was_held = true;
            }
            due
        })
    }

    /// After time went by that this process has not seen, or the clock jumped: names that were
    /// held are kept until `until_ms` at least, and none for longer than `latest_ms`.
    ///
    /// # Errors
    /// The store failed.
    pub fn renew_endpoints(&self, until_ms: u64, latest_ms: u64) -> Result<(), StoreError> {
        /// Changed in one go, so that others get their turn.
        const PAGE: usize = 1000;
        let mut filter = EndpointFilter::default();
        loop {
            let page = self.endpoints(&filter, PAGE)?;
            let ids: Vec<String> = page.iter().map(|endpoint| endpoint.id.clone()).collect();
            self.change_endpoints(&ids, |endpoint| {
                let least = if endpoint.was_held { until_ms } else { 0 };
                let kept = endpoint.kept_until_ms.max(least).min(latest_ms);
                let differs = kept != endpoint.kept_until_ms;
                endpoint.kept_until_ms = kept;
                differs
            })?;
            match page.last() {
                Some(last) if page.len() == PAGE => filter.after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Does nothing to the disk where nothing changes.
    fn change_endpoints(
        &self,
        ids: &[String],
        change: impl Fn(&mut Endpoint) -> bool,
    ) -> Result<(), StoreError> {
        let mut changing: Vec<&String> = Vec::new();
        self.read(|transaction| {
            for id in ids {
                if let Some(name) = ENDPOINT_IDS.get::<String>(transaction, id)?
                    && let Some(mut endpoint) = ENDPOINTS.get::<Endpoint>(transaction, &name)?
                    && change(&mut endpoint)
                {
                    changing.push(id);
                }
            }
            Ok(())
        })?;
        if changing.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            for id in changing {
                if let Some(mut endpoint) = tables.by_id(id)?
                    && change(&mut endpoint)
                {
                    tables.endpoints.put(&endpoint.name, &endpoint)?;
                }
            }
            Ok(())
        })
    }

    /// Takes away endpoints whose time is over and whose agents are not here, at most `limit`, and
    /// returns them.
    ///
    /// # Errors
    /// The store failed.
    pub fn expire_endpoints(
        &self,
        now_ms: u64,
        limit: usize,
        is_here: impl Fn(&Endpoint) -> bool,
    ) -> Result<Vec<Endpoint>, StoreError> {
        let mut over: Vec<Endpoint> = Vec::new();
        self.read(|transaction| {
            ENDPOINTS.each(transaction, None, |_, endpoint: Endpoint| {
                if endpoint.kept_until_ms <= now_ms && over.len() < limit && !is_here(&endpoint) {
                    over.push(endpoint);
                }
                over.len() < limit
            })
        })?;
        if over.is_empty() {
            return Ok(over);
        }
        self.write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            // Between the look and this change one may have been kept for longer.
            let mut gone = Vec::with_capacity(over.len());
            for endpoint in over {
                let now: Option<Endpoint> = tables.endpoints.get(&endpoint.name)?;
                if now.as_ref() == Some(&endpoint) {
                    tables.take_away(&endpoint)?;
                    gone.push(endpoint);
                }
            }
            Ok(gone)
        })
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

/// All that says what endpoints there are; changed together.
pub(crate) struct Tables<'t> {
    endpoints: Open<'t>,
    ids: Open<'t>,
    by_tenant: Open<'t>,
    tenants: Open<'t>,
    makers: Open<'t>,
}

impl<'t> Tables<'t> {
    pub(crate) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            endpoints: ENDPOINTS.open(transaction)?,
            ids: ENDPOINT_IDS.open(transaction)?,
            by_tenant: TENANT_ENDPOINTS.open(transaction)?,
            tenants: TENANTS.open(transaction)?,
            makers: MAKERS.open(transaction)?,
        })
    }

    fn by_id(&self, id: &str) -> Result<Option<Endpoint>, StoreError> {
        match self.ids.get::<String>(id)? {
            Some(name) => self.endpoints.get(&name),
            None => Ok(None),
        }
    }

    fn check_room(
        &self,
        wanted: &Endpoint,
        others: Option<u64>,
        limits: Limits,
    ) -> Result<(), ClaimRefused> {
        let has: Has = self.tenants.get(&wanted.tenant)?.unwrap_or_default();
        let made: Has = self.makers.get(&maker_of(wanted))?.unwrap_or_default();
        if has.endpoints >= limits.per_tenant {
            return Err(ClaimRefused::Quota {
                limit: limits.per_tenant,
            });
        }
        if self.endpoints.len()? >= limits.total {
            return Err(ClaimRefused::Full {
                limit: limits.total,
            });
        }
        let churns = |has: Has, limit| has.endpoints + has.deleted >= limit;
        if churns(has, limits.deleted_per_tenant)
            || wanted.made_by.is_empty() && churns(made, limits.deleted_per_source)
        {
            return Err(ClaimRefused::ManyDeleted);
        }
        if others.is_some_and(|others| made.endpoints > others) {
            return Err(ClaimRefused::Overtaken);
        }
        Ok(())
    }

    fn put_in(&mut self, endpoint: &Endpoint) -> Result<(), StoreError> {
        let key = tenant_key(&endpoint.tenant, &endpoint.name);
        self.by_tenant.put(&key, &endpoint.name)?;
        self.ids.put(&endpoint.id, &endpoint.name)?;
        self.endpoints.put(&endpoint.name, endpoint)?;
        Has::change(&mut self.tenants, &endpoint.tenant, |has| {
            has.endpoints += 1
        })?;
        Has::change(&mut self.makers, &maker_of(endpoint), |has| {
            has.endpoints += 1;
        })
    }

    pub(crate) fn take_away(&mut self, endpoint: &Endpoint) -> Result<(), StoreError> {
        let key = tenant_key(&endpoint.tenant, &endpoint.name);
        self.by_tenant.remove(&key)?;
        self.ids.remove(&endpoint.id)?;
        self.endpoints.remove(&endpoint.name)?;
        let less = |has: &mut Has| has.endpoints = has.endpoints.saturating_sub(1);
        Has::change(&mut self.tenants, &endpoint.tenant, less)?;
        Has::change(&mut self.makers, &maker_of(endpoint), less)
    }
}

fn tenant_key(tenant: &str, name: &str) -> String {
    format!("{tenant}/{name}")
}

/// No client's id begins with `@`.
pub(crate) fn maker_of(endpoint: &Endpoint) -> String {
    let tenant = &endpoint.tenant;
    if endpoint.made_by.is_empty() {
        format!("{tenant}/@{}", endpoint.source)
    } else {
        format!("{tenant}/{}", endpoint.made_by)
    }
}
