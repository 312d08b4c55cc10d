//! How much a tenant may have, where that is not what the configuration gives everybody.

use serde::{Deserialize, Serialize};

use crate::endpoint::Has;
use crate::schema::{Open, QUOTAS, TENANTS};
use crate::{MayBeEngine, Store, StoreError};

/// Tenants that have a quota of their own, of some 200 bytes each.
pub const MAX_QUOTAS: u64 = 10_000;

/// The quota of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Whose.
    pub tenant: String,
    /// Endpoints at once; `None` is what everybody has.
    #[serde(default)]
    pub endpoints: Option<u64>,
    /// Reserved names; likewise.
    #[serde(default)]
    pub names: Option<u64>,
    /// Who said so.
    #[serde(default)]
    pub made_by: String,
    /// When.
    pub made_ms: u64,
}

/// What a tenant has of what is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Endpoints.
    pub endpoints: u64,
    /// Reserved names.
    pub names: u64,
}

/// Why a quota was not put.
#[derive(Debug, thiserror::Error)]
pub enum QuotaRefused {
    /// As many tenants have one as may.
    #[error("{limit} tenants have a quota of their own, which is all that are kept")]
    Full {
        /// The bound.
        limit: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MayBeEngine for QuotaRefused {
    fn is_engine(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_engine())
    }
}

impl Store {
    /// Gives a tenant a quota of its own, or another one.
    ///
    /// # Errors
    /// Too many tenants have one, or the store failed.
    pub fn put_quota(&self, quota: &Quota) -> Result<(), QuotaRefused> {
        self.write(|transaction| {
            let mut quotas = QUOTAS.open(transaction)?;
            if quotas.len()? >= MAX_QUOTAS && !quotas.contains(&quota.tenant)? {
                return Err(QuotaRefused::Full { limit: MAX_QUOTAS });
            }
            Ok(quotas.put(&quota.tenant, quota)?)
        })
    }

    /// Takes a tenant's own quota away, so that it has what everybody has; `false` if it had none.
    /// What it has beyond that stays.
    ///
    /// # Errors
    /// The store failed.
    pub fn remove_quota(&self, tenant: &str) -> Result<bool, StoreError> {
        self.write(|transaction| QUOTAS.open(transaction)?.remove(tenant))
    }

    /// The quota of a tenant, if it has one of its own, and what it has of it.
    ///
    /// # Errors
    /// The store failed.
    pub fn quota(&self, tenant: &str) -> Result<(Option<Quota>, Usage), StoreError> {
        self.read(|transaction| {
            let has: Option<Has> = TENANTS.get(transaction, tenant)?;
            Ok((QUOTAS.get(transaction, tenant)?, usage(has)))
        })
    }

    /// At most `limit` tenants that have a quota of their own, by name, with what they have of it.
    ///
    /// # Errors
    /// The store failed.
    pub fn quotas(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Quota, Usage)>, StoreError> {
        let mut found: Vec<Quota> = Vec::new();
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.read(|transaction| {
            QUOTAS.each(transaction, after, |_, quota| {
                found.push(quota);
                found.len() < limit
            })?;
            let mut all = Vec::with_capacity(found.len());
            for quota in found.drain(..) {
                let has: Option<Has> = TENANTS.get(transaction, &quota.tenant)?;
                all.push((quota, usage(has)));
            }
            Ok(all)
        })
    }
}

fn usage(has: Option<Has>) -> Usage {
    let has = has.unwrap_or_default();
    Usage {
        endpoints: has.endpoints,
        names: has.reservations,
    }
}

/// Endpoints that a tenant may have, within a change.
pub(crate) fn endpoints_of(
    quotas: &Open<'_>,
    tenant: &str,
    everybody: u64,
) -> Result<u64, StoreError> {
    let own: Option<Quota> = quotas.get(tenant)?;
    Ok(own.and_then(|own| own.endpoints).unwrap_or(everybody))
}

/// The same for reserved names.
pub(crate) fn names_of(quotas: &Open<'_>, tenant: &str, everybody: u64) -> Result<u64, StoreError> {
    let own: Option<Quota> = quotas.get(tenant)?;
    Ok(own.and_then(|own| own.names).unwrap_or(everybody))
}
