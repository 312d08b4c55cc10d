//! What a hub remembers across restarts: published endpoints, reserved names, quotas, signing keys,
//! what may be used only once, certificates with the accounts that they were issued to, and where
//! agents have dialled in from.
//!
//! One file, one process. Every change is one transaction that is on the disk when the call
//! returns: after `kill -9` the file is as it was before the change or as it was after it. Calls
//! block on the disk for some milliseconds, so an async caller makes them on a blocking thread.
//! Nothing here reads the clock: callers give the time, in milliseconds since 1970.
//!
//! A disk that fails, even for a moment, makes the engine refuse everything from then on: it cannot
//! know what is written. [`Store::heal`] closes the file and opens it anew, as it was after the
//! last change that was told to be done.
//!
//! The file carries a schema version. An older one is migrated when it is opened, in one
//! transaction; a newer one is refused, since what an older release does not know it could lose.

mod agent_tunnel;
mod answer;
mod backup;
mod certificate;
mod deleted;
mod endpoint;
mod error;
mod key;
mod once;
mod quota;
mod reservation;
mod schema;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{fmt, fs};

use parking_lot::{Mutex, RwLock};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Database, DatabaseError};

pub use agent_tunnel::AgentTunnel;
pub use answer::{Answer, Keyed, Remembered};
pub use certificate::{AuthorityAccount, IssuedCertificate};
pub use deleted::{DeleteRefused, Deletion};
pub use endpoint::{
    ClaimRefused, Endpoint, EndpointFilter, Lapsed, Limits, NewEndpoint, PortRange, Round,
};
pub use error::StoreError;
pub use key::SigningKey;
pub use once::{Once, Used};
pub use quota::{MAX_QUOTAS, Quota, QuotaRefused, Usage};
pub use reservation::{NameLimits, Reservation, ReserveRefused};
pub use schema::VERSION as SCHEMA_VERSION;

/// The database. Share it behind an `Arc`: reads run beside each other and beside the one write.
#[derive(Debug)]
pub struct Store {
    /// `None` while it could not be opened again after a failure.
    database: RwLock<Option<Database>>,
    source: Source,
    /// The engine has failed, and refuses what comes after.
    failed: AtomicBool,
    /// How often that began.
    failures: AtomicU64,
    made_anew: bool,
    /// One backup at a time: two of one name would share their unfinished file.
    backups: Mutex<()>,
}

/// Where the database is opened again.
enum Source {
    File(PathBuf),
    Memory,
    #[cfg(test)]
    Test(Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Memory => f.write_str("memory"),
            #[cfg(test)]
            Self::Test(_) => f.write_str("test"),
        }
    }
}

impl Store {
    /// Opens the file, or makes it with mode 0600 and its folder with mode 0700.
    ///
    /// # Errors
    /// Another process has it open, it is damaged, it is of a newer release, or the disk fails.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| cannot_open(path, format!("cannot make its folder: {error}")))?;
        }
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let (file, made_anew) = match options.clone().create_new(true).open(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let file = options.open(path);
                let file = file.map_err(|error| cannot_open(path, error.to_string()))?;
                (file, false)
            }
            Err(error) => return Err(cannot_open(path, error.to_string())),
        };
        let database = open_file(path, file)?;
        Self::ready(database, Source::File(path.to_owned()), made_anew)
    }

    /// One that ends with the process.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn in_memory() -> Result<Self, StoreError> {
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|error| StoreError::engine("open", &error))?;
        Self::ready(database, Source::Memory, true)
    }

    fn ready(database: Database, source: Source, made_anew: bool) -> Result<Self, StoreError> {
        schema::migrate(&database)?;
        Ok(Self {
            database: RwLock::new(Some(database)),
            source,
            failed: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            made_anew,
            backups: Mutex::default(),
        })
    }

    /// Whether there was no file: all that somebody could have expected in it is not there.
    #[must_use]
    pub fn is_made_anew(&self) -> bool {
        self.made_anew
    }

    /// Whether the engine has failed: then every call fails until [`heal`](Self::heal) succeeds.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// How often the engine began to fail since this was opened.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn note<T, E: MayBeEngine>(&self, done: &Result<T, E>) {
        if done.as_ref().is_err_and(MayBeEngine::is_engine)
            && !self.failed.swap(true, Ordering::AcqRel)
        {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file anew where it has failed, with every change that was done before. `true` if
    /// it did. Call it now and then.
    ///
    /// # Errors
    /// The disk fails still, or a change that began before has not ended; try again later.
    pub fn heal(&self) -> Result<bool, StoreError> {
        if !self.has_failed() {
            return Ok(false);
        }
        let mut database = self.database.write();
        if !self.has_failed() {
            return Ok(false);
        }
        let opened = match &self.source {
            Source::File(path) => {
                // Its lock goes with it.
                *database = None;
                let file = fs::OpenOptions::new().read(true).write(true).open(path);
                let file = file.map_err(|error| cannot_open(path, error.to_string()))?;
                open_file(path, file)?
            }
            // There is nothing from which it could come back.
            Source::Memory => return Err(closed()),
            #[cfg(test)]
            Source::Test(open) => {
                *database = None;
                open()?
            }
        };
        *database = Some(opened);
        self.failed.store(false, Ordering::Release);
        Ok(true)
    }

    /// Runs a change; it is on the disk when this returns, and undone if `change` fails.
    fn write<T, E: From<StoreError> + MayBeEngine>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let done = self.begin_write().map_err(E::from).and_then(|transaction| {
            // An early return drops the transaction, and dropping it undoes it.
            let done = change(&transaction)?;
            transaction
                .commit()
                .map_err(|error| StoreError::engine("commit", &error))?;
            Ok(done)
        });
        self.note(&done);
        done
    }

    fn begin_write(&self) -> Result<redb::WriteTransaction, StoreError> {
        let database = self.database.read();
        database
            .as_ref()
            .ok_or_else(closed)?
            .begin_write()
            .map_err(|error| StoreError::engine("begin", &error))
    }

    /// Looks at the state of one moment.
    fn read<T>(
        &self,
        look: impl FnOnce(&redb::ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let done = self.begin_read().and_then(|transaction| look(&transaction));
        self.note(&done);
        done
    }

    fn begin_read(&self) -> Result<redb::ReadTransaction, StoreError> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(closed)?;
        redb::ReadableDatabase::begin_read(database)
            .map_err(|error| StoreError::engine("read", &error))
    }
}

/// Whether an error is the engine's, which goes on failing then.
trait MayBeEngine {
    fn is_engine(&self) -> bool;
}

impl MayBeEngine for StoreError {
    fn is_engine(&self) -> bool {
        matches!(self, Self::Engine { .. })
    }
}

fn closed() -> StoreError {
    StoreError::engine("open", &"it has failed and is not open again yet")
}

fn cannot_open(path: &Path, reason: String) -> StoreError {
    StoreError::Open {
        path: path.to_owned(),
        reason,
    }
}

fn open_file(path: &Path, file: fs::File) -> Result<Database, StoreError> {
    let about = file
        .metadata()
        .map_err(|error| cannot_open(path, error.to_string()))?;
    if about.permissions().mode() & 0o077 != 0 {
        let reason = "others may read it, and it holds signing keys; `chmod 600` it";
        return Err(cannot_open(path, reason.to_owned()));
    }
    FileBackend::new(file)
        .and_then(|file| Database::builder().create_with_backend(file))
        .map_err(|error| {
            if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                let path = path.to_owned();
                StoreError::InUse { path }
            } else {
                cannot_open(path, error.to_string())
            }
        })
}
