//! The tables that say what endpoints there are, and how much each tenant and maker has of them.

use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use super::port::port_key;
use super::{ClaimRefused, Endpoint, Limits};
use crate::schema::{
    ENDPOINT_ENDS, ENDPOINT_IDS, ENDPOINTS, MAKERS, Open, PORTS, QUOTAS, TENANT_ENDPOINTS, TENANTS,
};
use crate::{StoreError, quota};

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

/// All that says what endpoints there are; changed together.
pub(crate) struct Tables<'t> {
    pub(super) endpoints: Open<'t>,
    ids: Open<'t>,
    by_tenant: Open<'t>,
    tenants: Open<'t>,
    makers: Open<'t>,
    ends: Open<'t>,
    quotas: Open<'t>,
    ports: Open<'t>,
}

impl<'t> Tables<'t> {
    pub(crate) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            endpoints: ENDPOINTS.open(transaction)?,
            ids: ENDPOINT_IDS.open(transaction)?,
            by_tenant: TENANT_ENDPOINTS.open(transaction)?,
            tenants: TENANTS.open(transaction)?,
            makers: MAKERS.open(transaction)?,
            ends: ENDPOINT_ENDS.open(transaction)?,
            quotas: QUOTAS.open(transaction)?,
            ports: PORTS.open(transaction)?,
        })
    }

    pub(super) fn by_id(&self, id: &str) -> Result<Option<Endpoint>, StoreError> {
        match self.ids.get::<String>(id)? {
            Some(name) => self.endpoints.get(&name),
            None => Ok(None),
        }
    }

    /// Whether the port that an endpoint is to have is taken.
    pub(super) fn has_port_of_another(&self, wanted: &Endpoint) -> Result<bool, StoreError> {
        match wanted.port {
            Some(port) => self.ports.contains(&port_key(port)),
            None => Ok(false),
        }
    }

    pub(super) fn check_room(
        &self,
        wanted: &Endpoint,
        others: Option<u64>,
        limits: Limits,
    ) -> Result<(), ClaimRefused> {
        let has: Has = self.tenants.get(&wanted.tenant)?.unwrap_or_default();
        let made: Has = self.makers.get(&maker_of(wanted))?.unwrap_or_default();
        let limit = quota::endpoints_of(&self.quotas, &wanted.tenant, limits.per_tenant)?;
        if has.endpoints >= limit {
            return Err(ClaimRefused::Quota { limit });
        }
        if self.endpoints.len()? >= limits.total {
            return Err(ClaimRefused::Full {
                limit: limits.total,
            });
        }
        let churns = |has: Has, limit| has.endpoints + has.deleted >= limit;
        if churns(has, limit.saturating_add(limits.deleted_per_tenant))
            || wanted.made_by.is_empty() && churns(made, limits.deleted_per_source)
        {
            return Err(ClaimRefused::ManyDeleted);
        }
        if others.is_some_and(|others| made.endpoints > others) {
            return Err(ClaimRefused::Overtaken);
        }
        Ok(())
    }

    pub(super) fn put_in(&mut self, endpoint: &Endpoint) -> Result<(), StoreError> {
        let key = tenant_key(&endpoint.tenant, &endpoint.name);
        self.by_tenant.put(&key, &endpoint.name)?;
        self.ids.put(&endpoint.id, &endpoint.name)?;
        self.endpoints.put(&endpoint.name, endpoint)?;
        self.ends.ends(endpoint.kept_until_ms, &endpoint.name)?;
        if let Some(port) = endpoint.port {
            self.ports.put(&port_key(port), &endpoint.name)?;
        }
        Has::change(&mut self.tenants, &endpoint.tenant, |has| {
            has.endpoints += 1
        })?;
        Has::change(&mut self.makers, &maker_of(endpoint), |has| {
            has.endpoints += 1;
        })
    }

    /// Keeps the name of one that is there until another time, and writes it as it is now.
    pub(super) fn keep_until(
        &mut self,
        endpoint: &mut Endpoint,
        until_ms: u64,
    ) -> Result<(), StoreError> {
        self.ends
            .remove_end(endpoint.kept_until_ms, &endpoint.name)?;
        self.ends.ends(until_ms, &endpoint.name)?;
        endpoint.kept_until_ms = until_ms;
        self.endpoints.put(&endpoint.name, endpoint)
    }

    pub(crate) fn take_away(&mut self, endpoint: &Endpoint) -> Result<(), StoreError> {
        let key = tenant_key(&endpoint.tenant, &endpoint.name);
        self.by_tenant.remove(&key)?;
        self.ids.remove(&endpoint.id)?;
        self.endpoints.remove(&endpoint.name)?;
        self.ends
            .remove_end(endpoint.kept_until_ms, &endpoint.name)?;
        if let Some(port) = endpoint.port {
            self.ports.remove(&port_key(port))?;
        }
        let less = |has: &mut Has| has.endpoints = has.endpoints.saturating_sub(1);
        Has::change(&mut self.tenants, &endpoint.tenant, less)?;
        Has::change(&mut self.makers, &maker_of(endpoint), less)
    }
}

pub(super) fn tenant_key(tenant: &str, name: &str) -> String {
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
