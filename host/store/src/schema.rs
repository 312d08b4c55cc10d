//! The tables, how entries are written in them, and how an older file becomes today's.

use redb::{
    Database, ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;

/// A table of JSON texts under text keys. JSON lets a release add a field with a default.
#[derive(Clone, Copy)]
pub(crate) struct Json(pub(crate) &'static str);

/// Published endpoints by name.
pub(crate) const ENDPOINTS: Json = Json("endpoints");
/// An endpoint's name by its id.
pub(crate) const ENDPOINT_IDS: Json = Json("endpoint_ids");
/// An endpoint's name by its tenant and name, so that a tenant's list reads nobody else's.
pub(crate) const TENANT_ENDPOINTS: Json = Json("tenant_endpoints");
/// Deleted endpoints, by tenant and id.
pub(crate) const DELETED: Json = Json("deleted");
/// Reserved names.
pub(crate) const RESERVATIONS: Json = Json("reservations");
/// Signing keys by key id.
pub(crate) const KEYS: Json = Json("keys");
/// What was used and may not be used again.
pub(crate) const ONCE: Json = Json("once");
/// Answers to requests with an idempotency key.
pub(crate) const ANSWERS: Json = Json("answers");
/// How much each tenant has, so that a quota needs no count of everything.
pub(crate) const TENANTS: Json = Json("tenants");
/// The same for each maker of endpoints within its tenant.
pub(crate) const MAKERS: Json = Json("makers");
/// Names of [`ENDPOINTS`] by until when they are kept.
pub(crate) const ENDPOINT_ENDS: Json = Json("endpoint_ends");
/// Names of [`ENDPOINTS`] by the public TCP port that they have.
pub(crate) const PORTS: Json = Json("ports");
/// Quotas of tenants that have one of their own.
pub(crate) const QUOTAS: Json = Json("quotas");
/// Keys of [`DELETED`] by when they can be forgotten.
pub(crate) const DELETED_ENDS: Json = Json("deleted_ends");
/// Keys of [`ONCE`], likewise.
pub(crate) const ONCE_ENDS: Json = Json("once_ends");
/// Keys of [`ANSWERS`], likewise.
pub(crate) const ANSWER_ENDS: Json = Json("answer_ends");

/// Accounts at certificate authorities by the URL of their directory.
pub(crate) const ACCOUNTS: Json = Json("authority_accounts");
/// Issued certificates by name.
pub(crate) const CERTIFICATES: Json = Json("certificates");

/// Where agents have dialled in from, by number.
pub(crate) const AGENT_TUNNELS: Json = Json("agent_tunnels");

/// Every table, for backups.
pub(crate) const ALL: [Json; 19] = [
    ENDPOINTS,
    ENDPOINT_ENDS,
    PORTS,
    ENDPOINT_IDS,
    TENANT_ENDPOINTS,
    DELETED,
    RESERVATIONS,
    KEYS,
    ONCE,
    ANSWERS,
    TENANTS,
    QUOTAS,
    ACCOUNTS,
    CERTIFICATES,
    MAKERS,
    DELETED_ENDS,
    ONCE_ENDS,
    ANSWER_ENDS,
    AGENT_TUNNELS,
];

const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const SCHEMA: &str = "schema";

/// Makes a schema of the one before it.
type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// The step at index `n` makes schema `n + 1` of schema `n`; an empty file has schema 0.
const STEPS: [Step; 6] = [first, second, third, fourth, fifth, sixth];

/// The schema of this release.
pub const VERSION: u64 = STEPS.len() as u64;

fn first(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let names = [
        ENDPOINTS,
        ENDPOINT_IDS,
        RESERVATIONS,
        KEYS,
        ONCE,
        ANSWERS,
        TENANTS,
    ];
    for table in names {
        table.open(transaction)?;
    }
    Ok(())
}

/// Certificates: a release without them would leave them out of its backups.
fn second(transaction: &WriteTransaction) -> Result<(), StoreError> {
    ACCOUNTS.open(transaction)?;
    CERTIFICATES.open(transaction)?;
    Ok(())
}

/// Where agents have dialled in from, which a backup of an earlier release would leave out.
fn third(transaction: &WriteTransaction) -> Result<(), StoreError> {
    AGENT_TUNNELS.open(transaction).map(drop)
}

/// Endpoints by their ends: a release that does not know of them would leave them behind.
fn fourth(transaction: &WriteTransaction) -> Result<(), StoreError> {
    #[derive(serde::Deserialize)]
    struct Until {
        kept_until_ms: u64,
    }
    let mut kept: Vec<(u64, String)> = Vec::new();
    ENDPOINTS
        .open(transaction)?
        .each_of("", |name, until: Until| {
            kept.push((until.kept_until_ms, name.to_owned()));
            true
        })?;
    let mut ends = ENDPOINT_ENDS.open(transaction)?;
    for (until_ms, name) in &kept {
        ends.ends(*until_ms, name)?;
    }
    Ok(())
}

/// Quotas: a release without them would leave them out of its backups.
fn fifth(transaction: &WriteTransaction) -> Result<(), StoreError> {
    QUOTAS.open(transaction).map(|_| ())
}

/// Public ports: a release without them would give one to two.
fn sixth(transaction: &WriteTransaction) -> Result<(), StoreError> {
    PORTS.open(transaction).map(|_| ())
}

/// Brings the file to [`VERSION`], all steps or none.
pub(crate) fn migrate(database: &Database) -> Result<(), StoreError> {
    let transaction = database
        .begin_write()
        .map_err(|error| StoreError::engine("begin", &error))?;
    {
        let mut meta = transaction
            .open_table(META)
            .map_err(|error| StoreError::engine("open `meta`", &error))?;
        let found = meta
            .get(SCHEMA)
            .map_err(|error| StoreError::engine("read `meta`", &error))?
            .map_or(0, |version| version.value());
        if found > VERSION {
            return Err(StoreError::Newer {
                found,
                known: VERSION,
            });
        }
        for step in STEPS
            .iter()
            .skip(usize::try_from(found).unwrap_or(usize::MAX))
        {
            step(&transaction)?;
        }
        meta.insert(SCHEMA, VERSION)
            .map_err(|error| StoreError::engine("write `meta`", &error))?;
    }
    transaction
        .commit()
        .map_err(|error| StoreError::engine("commit", &error))
}

#[cfg(test)]
pub(crate) fn set_version(transaction: &WriteTransaction, version: u64) -> Result<(), StoreError> {
    transaction
        .open_table(META)
        .map_err(|error| StoreError::engine("open `meta`", &error))?
        .insert(SCHEMA, version)
        .map(|_| ())
        .map_err(|error| StoreError::engine("write `meta`", &error))
}

impl Json {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.0)
    }

    /// The table for a change.
    pub(crate) fn open(self, transaction: &WriteTransaction) -> Result<Open<'_>, StoreError> {
        let table = transaction
            .open_table(self.definition())
            .map_err(|error| StoreError::engine("open a table", &error))?;
        Ok(Open {
            name: self.0,
            table,
        })
    }

    /// One entry.
    pub(crate) fn get<T: DeserializeOwned>(
        self,
        transaction: &ReadTransaction,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        let Some(table) = self.read(transaction)? else {
            return Ok(None);
        };
        let found = table
            .get(key)
            .map_err(|error| StoreError::engine("read", &error))?;
        found.map(|bytes| decode(self.0, bytes.value())).transpose()
    }

    /// Entries in the order of their keys, beginning after `after`, until `each` says `false`.
    pub(crate) fn each<T: DeserializeOwned>(
        self,
        transaction: &ReadTransaction,
        after: Option<&str>,
        mut each: impl FnMut(&str, T) -> bool,
    ) -> Result<(), StoreError> {
        use std::ops::Bound;
        let Some(table) = self.read(transaction)? else {
            return Ok(());
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = table
            .range::<&str>((from, Bound::Unbounded))
            .map_err(|error| StoreError::engine("read", &error))?;
        for entry in entries {
            let (key, bytes) = entry.map_err(|error| StoreError::engine("read", &error))?;
            if !each(key.value(), decode(self.0, bytes.value())?) {
                break;
            }
        }
        Ok(())
    }

    /// Entries whose keys begin with `prefix`, in their order and after `after`, until `each` says
    /// `false`. `after` begins with `prefix` itself.
    pub(crate) fn each_of<T: DeserializeOwned>(
        self,
        transaction: &ReadTransaction,
        prefix: &str,
        after: Option<&str>,
        mut each: impl FnMut(&str, T) -> bool,
    ) -> Result<(), StoreError> {
        use std::ops::Bound;
        let Some(table) = self.read(transaction)? else {
            return Ok(());
        };
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let entries = table
            .range::<&str>((from, Bound::Unbounded))
            .map_err(|error| StoreError::engine("read", &error))?;
        for entry in entries {
            let (key, bytes) = entry.map_err(|error| StoreError::engine("read", &error))?;
            if !key.value().starts_with(prefix)
                || !each(key.value(), decode(self.0, bytes.value())?)
            {
                break;
            }
        }
        Ok(())
    }

    /// How many entries there are.
    pub(crate) fn len(self, transaction: &ReadTransaction) -> Result<u64, StoreError> {
        match self.read(transaction)? {
            Some(table) => redb::ReadableTableMetadata::len(&table)
                .map_err(|error| StoreError::engine("count", &error)),
            None => Ok(0),
        }
    }

    /// Of a table of ends: whether nothing can be forgotten yet, which needs no change to be seen.
    pub(crate) fn none_over(
        self,
        transaction: &ReadTransaction,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let mut none = true;
        let past = end_after(now_ms);
        self.each(transaction, None, |at, _: String| {
            none = at >= past.as_str();
            false
        })?;
        Ok(none)
    }

    /// Every entry as it is written, for a copy.
    pub(crate) fn raw(
        self,
        transaction: &ReadTransaction,
        mut each: impl FnMut(&str, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(table) = self.read(transaction)? else {
            return Ok(());
        };
        let entries = table
            .iter()
            .map_err(|error| StoreError::engine("read", &error))?;
        for entry in entries {
            let (key, bytes) = entry.map_err(|error| StoreError::engine("read", &error))?;
            each(key.value(), bytes.value())?;
        }
        Ok(())
    }

    fn read(
        self,
        transaction: &ReadTransaction,
    ) -> Result<Option<redb::ReadOnlyTable<&'static str, &'static [u8]>>, StoreError> {
        match transaction.open_table(self.definition()) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StoreError::engine("open a table", &error)),
        }
    }
}

/// A table within a change.
pub(crate) struct Open<'t> {
    name: &'static str,
    table: Table<'t, &'static str, &'static [u8]>,
}

impl Open<'_> {
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let found = self
            .table
            .get(key)
            .map_err(|error| StoreError::engine("read", &error))?;
        found
            .map(|bytes| decode(self.name, bytes.value()))
            .transpose()
    }

    pub(crate) fn contains(&self, key: &str) -> Result<bool, StoreError> {
        let found = self.table.get(key);
        found
            .map(|found| found.is_some())
            .map_err(|error| StoreError::engine("read", &error))
    }

    pub(crate) fn put<T: Serialize>(&mut self, key: &str, value: &T) -> Result<(), StoreError> {
        let bytes =
            serde_json::to_vec(value).map_err(|error| StoreError::engine("encode", &error))?;
        self.put_raw(key, &bytes)
    }

    pub(crate) fn put_raw(&mut self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.table
            .insert(key, bytes)
            .map(|_| ())
            .map_err(|error| StoreError::engine("write", &error))
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, key: &str) -> Result<bool, StoreError> {
        self.table
            .remove(key)
            .map(|removed| removed.is_some())
            .map_err(|error| StoreError::engine("remove", &error))
    }

    pub(crate) fn len(&self) -> Result<u64, StoreError> {
        redb::ReadableTableMetadata::len(&self.table)
            .map_err(|error| StoreError::engine("count", &error))
    }

    /// Entries whose keys begin with `prefix`, in their order, until `each` says `false`.
    pub(crate) fn each_of<T: DeserializeOwned>(
        &self,
        prefix: &str,
        mut each: impl FnMut(&str, T) -> bool,
    ) -> Result<(), StoreError> {
        let entries = self
            .table
            .range::<&str>(prefix..)
            .map_err(|error| StoreError::engine("read", &error))?;
        for entry in entries {
            let (key, bytes) = entry.map_err(|error| StoreError::engine("read", &error))?;
            if !key.value().starts_with(prefix)
                || !each(key.value(), decode(self.name, bytes.value())?)
            {
                break;
            }
        }
        Ok(())
    }

    /// How many keys begin with `prefix`.
    pub(crate) fn count_of(&self, prefix: &str) -> Result<usize, StoreError> {
        let entries = self
            .table
            .range::<&str>(prefix..)
            .map_err(|error| StoreError::engine("read", &error))?;
        let mut count = 0;
        for entry in entries {
            let (key, _) = entry.map_err(|error| StoreError::engine("read", &error))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// In a table of ends: notes when an entry of its table can be forgotten.
    pub(crate) fn ends(&mut self, until_ms: u64, key: &str) -> Result<(), StoreError> {
        self.put(&format!("{until_ms:020}/{key}"), &key)
    }

    /// In a table of ends: takes out what was noted for an entry.
    pub(crate) fn remove_end(&mut self, until_ms: u64, key: &str) -> Result<bool, StoreError> {
        self.remove(&format!("{until_ms:020}/{key}"))
    }

    /// In a table of ends: takes out the keys of at most `most` entries whose time may be over,
    /// the earliest first. An entry that was written again since ends later: look at its own end.
    pub(crate) fn over(&mut self, now_ms: u64, most: usize) -> Result<Vec<String>, StoreError> {
        let mut over: Vec<(String, String)> = Vec::new();
        let past = end_after(now_ms);
        self.each_of("", |at, key: String| {
            let is_over = at < past.as_str() && over.len() < most;
            if is_over {
                over.push((at.to_owned(), key));
            }
            is_over
        })?;
        for (at, _) in &over {
            self.remove(at)?;
        }
        Ok(over.into_iter().map(|(_, key)| key).collect())
    }
}

/// In a table of ends: the key before which everything is over at `now_ms`.
pub(crate) fn end_after(now_ms: u64) -> String {
    format!("{:020}/", now_ms.saturating_add(1))
}

fn decode<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged {
        table,
        // The position only: the text of some errors quotes values, and keys are secret.
        reason: format!("line {}, column {}", error.line(), error.column()),
    })
}
