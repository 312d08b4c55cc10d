//! Endpoints that were deleted, so that no token brings them back.
//!
//! Each is remembered as long as a token for it could count. Until then it takes of its tenant's
//! and its maker's room, and of nobody else's: whoever makes and deletes without end shuts out
//! himself. Room for deleting what is there is set apart when it is made.

use serde::{Deserialize, Serialize};

use crate::endpoint::{Endpoint, Has, Limits, Tables, maker_of};
use crate::schema::{
    DELETED, DELETED_ENDS, ENDPOINT_IDS, ENDPOINTS, Json, MAKERS, Open, QUOTAS, TENANTS,
};
use crate::{MayBeEngine, Store, StoreError, quota};

/// Entries whose time is over that go with each new one: more than come, so that they run out.
const FORGOTTEN_EACH: usize = 16;

/// What is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The endpoint's id, also of one whose name is over.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// When no token for it counts any more.
    pub until_ms: u64,
}

/// Why an endpoint was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteRefused {
    /// It is not there, and its tenant has deleted as many as are remembered.
    #[error("{limit} deleted tunnels of this tenant are remembered, which is all; try again later")]
    Full {
        /// The bound.
        limit: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MayBeEngine for DeleteRefused {
    fn is_engine(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_engine())
    }
}

#[derive(Serialize, Deserialize)]
struct Mark {
    until_ms: u64,
    tenant: String,
    /// Whose room it takes, where its maker is known.
    maker: Option<String>,
}

impl Store {
    /// Takes an endpoint away for good and returns it, if it was there. Also one whose name is
    /// over does not come back then.
    ///
    /// # Errors
    /// There is no room to remember one that is not there, or the store failed.
    pub fn delete_endpoint(
        &self,
        deletion: &Deletion,
        now_ms: u64,
        limits: Limits,
    ) -> Result<Option<Endpoint>, DeleteRefused> {
        self.write(|transaction| {
            let key = key_of(&deletion.tenant, &deletion.id);
            let mut deleted = DELETED.open(transaction)?;
            let mut ends = DELETED_ENDS.open(transaction)?;
            let found = match ENDPOINT_IDS
                .open(transaction)?
                .get::<String>(&deletion.id)?
            {
                Some(name) => ENDPOINTS.open(transaction)?.get::<Endpoint>(&name)?,
                None => None,
            };
            if found
                .as_ref()
                .is_some_and(|found| found.tenant != deletion.tenant)
            {
                return Ok(None);
            }
            if let Some(found) = &found {
                Tables::open(transaction)?.take_away(found)?;
            }
            let mut tenants = TENANTS.open(transaction)?;
            let mut makers = MAKERS.open(transaction)?;
            forget(
                &mut deleted,
                &mut ends,
                &mut tenants,
                &mut makers,
                now_ms,
                FORGOTTEN_EACH,
            )?;
            if deleted.get::<Mark>(&key)?.is_some() {
                return Ok(found);
            }
            let has: Has = tenants.get(&deletion.tenant)?.unwrap_or_default();
            let quotas = QUOTAS.open(transaction)?;
            let limit = quota::endpoints_of(&quotas, &deletion.tenant, limits.per_tenant)?
                .saturating_add(limits.deleted_per_tenant);
            if found.is_none() && has.endpoints + has.deleted >= limit {
                return Err(DeleteRefused::Full { limit });
            }
            let maker = found.as_ref().map(maker_of);
            count(&mut tenants, &deletion.tenant, 1)?;
            if let Some(maker) = &maker {
                count(&mut makers, maker, 1)?;
            }
            let mark = Mark {
                until_ms: deletion.until_ms,
                tenant: deletion.tenant.clone(),
                maker,
            };
            deleted.put(&key, &mark)?;
            ends.ends(deletion.until_ms, &key)?;
            Ok(found)
        })
    }

    /// Whether an endpoint was deleted for good.
    ///
    /// # Errors
    /// The store failed.
    pub fn is_deleted(&self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        let key = key_of(tenant, id);
        let mark: Option<Mark> = self.read(|transaction| DELETED.get(transaction, &key))?;
        Ok(mark.is_some())
    }

    /// Forgets at most `most` deleted endpoints for which no token counts any more. Returns how
    /// many that were.
    ///
    /// # Errors
    /// The store failed.
    pub fn forget_deleted(&self, now_ms: u64, most: usize) -> Result<usize, StoreError> {
        if self.read(|transaction| DELETED_ENDS.none_over(transaction, now_ms))? {
            return Ok(0);
        }
        self.write(|transaction| {
            let open = |table: Json| table.open(transaction);
            forget(
                &mut open(DELETED)?,
                &mut open(DELETED_ENDS)?,
                &mut open(TENANTS)?,
                &mut open(MAKERS)?,
                now_ms,
                most,
            )
        })
    }
}

pub(crate) fn key_of(tenant: &str, id: &str) -> String {
    format!("{tenant}/{id}")
}

fn forget(
    deleted: &mut Open<'_>,
    ends: &mut Open<'_>,
    tenants: &mut Open<'_>,
    makers: &mut Open<'_>,
    now_ms: u64,
    most: usize,
) -> Result<usize, StoreError> {
    let over = ends.over(now_ms, most)?;
    for key in &over {
        if let Some(mark) = deleted.get::<Mark>(key)? {
            deleted.remove(key)?;
            count(tenants, &mark.tenant, -1)?;
            if let Some(maker) = &mark.maker {
                count(makers, maker, -1)?;
            }
        }
    }
    Ok(over.len())
}

fn count(table: &mut Open<'_>, who: &str, change: i64) -> Result<(), StoreError> {
    Has::change(table, who, |has| {
        has.deleted = has.deleted.saturating_add_signed(change);
    })
}
