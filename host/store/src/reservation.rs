//! Names that only one tenant may publish, whether or not it does just now.

use serde::{Deserialize, Serialize};

use crate::endpoint::{Endpoint, Has};
use crate::schema::{ENDPOINTS, QUOTAS, RESERVATIONS, TENANTS};
use crate::{MayBeEngine, Store, StoreError, quota};

/// A reserved name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The name.
    pub name: String,
    /// Who may publish it.
    pub tenant: String,
    /// Who reserved it.
    #[serde(default)]
    pub made_by: String,
    /// Since when.
    pub made_ms: u64,
}

/// How many names may be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameLimits {
    /// Of one tenant that has no quota of its own.
    pub per_tenant: u64,
    /// Of all together.
    pub total: u64,
}

/// Why a name was not reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveRefused {
    /// Another tenant has reserved it, or publishes it now.
    #[error("the name `{name}` is another's")]
    Taken {
        /// The name.
        name: String,
    },
    /// The tenant has as many as it may have.
    #[error("the tenant has {limit} reserved names, which is its quota")]
    Quota {
        /// The bound.
        limit: u64,
    },
    /// The hub keeps as many as it may.
    #[error("{limit} names are reserved, which is all that the hub keeps")]
    Full {
        /// The bound.
        limit: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MayBeEngine for ReserveRefused {
    fn is_engine(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_engine())
    }
}

impl Store {
    /// Reserves a name; one that the tenant has already stays as it is. `is_here` says whether the
    /// agent of an endpoint is connected: then its name is not free.
    ///
    /// # Errors
    /// The name is another's, or the quota is used up.
    pub fn reserve(
        &self,
        wanted: &Reservation,
        now_ms: u64,
        limits: NameLimits,
        is_here: impl Fn(&Endpoint) -> bool,
    ) -> Result<(), ReserveRefused> {
        self.write(|transaction| {
            let mut names = RESERVATIONS.open(transaction)?;
            let taken = || ReserveRefused::Taken {
                name: wanted.name.clone(),
            };
            if let Some(reserved) = names.get::<Reservation>(&wanted.name)? {
                return if reserved.tenant == wanted.tenant {
                    Ok(())
                } else {
                    Err(taken())
                };
            }
            let held: Option<Endpoint> = ENDPOINTS.open(transaction)?.get(&wanted.name)?;
            if held.is_some_and(|held| {
                held.tenant != wanted.tenant && (held.kept_until_ms > now_ms || is_here(&held))
            }) {
                return Err(taken());
            }
            let mut tenants = TENANTS.open(transaction)?;
            let mut has: Has = tenants.get(&wanted.tenant)?.unwrap_or_default();
            let quotas = QUOTAS.open(transaction)?;
            let limit = quota::names_of(&quotas, &wanted.tenant, limits.per_tenant)?;
            if has.reservations >= limit {
                return Err(ReserveRefused::Quota { limit });
            }
            if names.len()? >= limits.total {
                return Err(ReserveRefused::Full {
                    limit: limits.total,
                });
            }
            has.reservations += 1;
            tenants.put(&wanted.tenant, &has)?;
            names.put(&wanted.name, wanted)?;
            Ok(())
        })
    }

    /// Gives a name back; `false` if the tenant had not reserved it.
    ///
    /// # Errors
    /// The store failed.
    pub fn release(&self, name: &str, tenant: &str) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let mut names = RESERVATIONS.open(transaction)?;
            let theirs = names
                .get::<Reservation>(name)?
                .is_some_and(|reserved| reserved.tenant == tenant);
            if theirs {
                names.remove(name)?;
                let mut tenants = TENANTS.open(transaction)?;
                Has::change(&mut tenants, tenant, |has| {
                    has.reservations = has.reservations.saturating_sub(1);
                })?;
            }
            Ok(theirs)
        })
    }

    /// Who reserved a name.
    ///
    /// # Errors
    /// The store failed.
    pub fn reservation(&self, name: &str) -> Result<Option<Reservation>, StoreError> {
        self.read(|transaction| RESERVATIONS.get(transaction, name))
    }

    /// How many names are reserved, of all tenants.
    ///
    /// # Errors
    /// The store failed.
    pub fn reservation_count(&self) -> Result<u64, StoreError> {
        self.read(|transaction| RESERVATIONS.len(transaction))
    }

    /// At most `limit` reserved names in their order, of one tenant or of all.
    ///
    /// # Errors
    /// The store failed.
    pub fn reservations(
        &self,
        tenant: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Reservation>, StoreError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.read(|transaction| {
            RESERVATIONS.each(transaction, after, |_, reserved: Reservation| {
                if tenant.is_none_or(|tenant| tenant == reserved.tenant) {
                    found.push(reserved);
                }
                found.len() < limit
            })
        })?;
        Ok(found)
    }
}
