//! What a hub remembers across restarts: published endpoints, reserved names, signing keys, what
//! may be used only once, and certificates with the accounts that they were issued to.
//!
//! One file, one process. Every change is one transaction that is on the disk when the call
//! returns: after `kill -9` the file is as it was before the change or as it was after it. Calls
//! block on the disk for some milliseconds, so an async caller makes them on a blocking thread.
//! Nothing here reads the clock: callers give the time, in milliseconds since 1970.
//!
//! The file carries a schema version. An older one is migrated when it is opened, in one
//! transaction; a newer one is refused, since what an older release does not know it could lose.

mod answer;
mod backup;
mod certificate;
mod endpoint;
mod error;
mod key;
mod once;
mod reservation;
mod schema;
#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Database, DatabaseError};

pub use answer::{Answer, Remembered};
pub use certificate::{AuthorityAccount, IssuedCertificate};
pub use endpoint::{ClaimRefused, Endpoint, EndpointFilter, Limits, NewEndpoint};
pub use error::StoreError;
pub use key::SigningKey;
pub use once::{Once, Used};
pub use reservation::{Reservation, ReserveRefused};
pub use schema::VERSION as SCHEMA_VERSION;

/// The database. Share it behind an `Arc`: reads run beside each other and beside the one write.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the file, or makes it with mode 0600 and its folder with mode 0700.
    ///
    /// # Errors
    /// Another process has it open, it is damaged, it is of a newer release, or the disk fails.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |reason: String| StoreError::Open {
            path: path.to_owned(),
            reason,
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| failed(format!("cannot make its folder: {error}")))?;
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(error.to_string()))?;
        let about = file.metadata().map_err(|error| failed(error.to_string()))?;
        if about.permissions().mode() & 0o077 != 0 {
            let reason = "others may read it, and it holds signing keys; `chmod 600` it";
            return Err(failed(reason.to_owned()));
        }
        let database = FileBackend::new(file)
            .and_then(|file| Database::builder().create_with_backend(file))
            .map_err(|error| {
                if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                    let path = path.to_owned();
                    StoreError::InUse { path }
                } else {
                    failed(error.to_string())
                }
            })?;
        Self::ready(database)
    }

    /// One that ends with the process.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn in_memory() -> Result<Self, StoreError> {
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|error| StoreError::engine("open", &error))?;
        Self::ready(database)
    }

    fn ready(database: Database) -> Result<Self, StoreError> {
        schema::migrate(&database)?;
        Ok(Self { database })
    }

    /// Runs a change; it is on the disk when this returns, and undone if `change` fails.
    fn write<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self
            .database
            .begin_write()
            .map_err(|error| StoreError::engine("begin", &error))?;
        // An early return drops the transaction, and dropping it undoes it.
        let done = change(&transaction)?;
        transaction
            .commit()
            .map_err(|error| StoreError::engine("commit", &error))?;
        Ok(done)
    }

    fn read(&self) -> Result<redb::ReadTransaction, StoreError> {
        redb::ReadableDatabase::begin_read(&self.database)
            .map_err(|error| StoreError::engine("read", &error))
    }
}
