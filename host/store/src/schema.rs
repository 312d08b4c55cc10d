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
/// Reserved names.
pub(crate) const RESERVATIONS: Json = Json("reservations");
/// Signing keys by key id.
pub(crate) const KEYS: Json = Json("keys");
/// What was used and may not be used again, with when that can be forgotten.
pub(crate) const ONCE: Json = Json("once");
/// Answers to requests with an idempotency key.
pub(crate) const ANSWERS: Json = Json("answers");

/// How much each tenant has, so that a quota needs no count of everything.
pub(crate) const TENANTS: Json = Json("tenants");

/// Accounts at certificate authorities by the URL of their directory.
pub(crate) const ACCOUNTS: Json = Json("authority_accounts");
/// Issued certificates by name.
pub(crate) const CERTIFICATES: Json = Json("certificates");

/// Every table, for backups.
pub(crate) const ALL: [Json; 9] = [
    ENDPOINTS,
    ENDPOINT_IDS,
    RESERVATIONS,
    KEYS,
    ONCE,
    ANSWERS,
    TENANTS,
    ACCOUNTS,
    CERTIFICATES,
];

const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const SCHEMA: &str = "schema";

/// Makes a schema of the one before it.
type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// The step at index `n` makes schema `n + 1` of schema `n`; an empty file has schema 0.
const STEPS: [Step; 2] = [first, second];

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

    /// Every entry, until `each` says `false`.
    pub(crate) fn each<T: DeserializeOwned>(
        &self,
        mut each: impl FnMut(&str, T) -> bool,
    ) -> Result<(), StoreError> {
        let entries = self
            .table
            .iter()
            .map_err(|error| StoreError::engine("read", &error))?;
        for entry in entries {
            let (key, bytes) = entry.map_err(|error| StoreError::engine("read", &error))?;
            if !each(key.value(), decode(self.name, bytes.value())?) {
                break;
            }
        }
        Ok(())
    }
}

fn decode<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged {
        table,
        // The position only: the text of some errors quotes values, and keys are secret.
        reason: format!("line {}, column {}", error.line(), error.column()),
    })
}
