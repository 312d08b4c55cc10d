//! Where bundles and what is known of them outlive the process.
//!
//! ```text
//! state.json        the highest revision, what is active and staged, the history
//! bundle-12.tar     a bundle that is or was active
//! staged-13.tar     the bundle that is staged
//! lock              held while a hub runs
//! ```
//! Each file is written under another name, synced and renamed, and then the folder is synced:
//! after a crash a file is there as it was or as it should be, never half.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nowconnect_policy::ARCHIVE_BYTES;

/// Largest state file that is read: a full history has some 100 KiB.
const MAX_STATE_BYTES: u64 = 4 * 1024 * 1024;

/// How long a hub that begins waits for the one before it to let go of the folder.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How often it looks.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

const STATE: &str = "state.json";

/// What a store keeps a bundle as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It is or was active.
    Active,
    /// It is staged.
    Staged,
}

impl Kind {
    fn file(self, revision: u64) -> String {
        match self {
            Self::Active => format!("bundle-{revision}.tar"),
            Self::Staged => format!("staged-{revision}.tar"),
        }
    }
}

/// The store failed; says at what and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} `{path}`: {source}")]
pub(crate) struct StoreError {
    pub(crate) step: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Keeps bundles and state. What returns without an error is there after a crash.
pub(crate) trait Store: Send + Sync + std::fmt::Debug {
    /// What was written last; `None` in a new store.
    fn read_state(&self) -> Result<Option<Vec<u8>>, StoreError>;
    /// Replaces the state.
    fn write_state(&self, bytes: &[u8]) -> Result<(), StoreError>;
    /// Puts a state aside that cannot be read, for a person to look at.
    fn set_state_aside(&self) -> Result<(), StoreError>;
    /// The bytes of a bundle.
    fn read_bundle(&self, kind: Kind, revision: u64) -> Result<Vec<u8>, StoreError>;
    /// Keeps a bundle.
    fn write_bundle(&self, kind: Kind, revision: u64, bytes: &[u8]) -> Result<(), StoreError>;
    /// Makes the staged bundle an active one.
    fn promote(&self, revision: u64) -> Result<(), StoreError>;
    /// Forgets a bundle; one that is not there is no error.
    fn remove_bundle(&self, kind: Kind, revision: u64) -> Result<(), StoreError>;
    /// Every bundle that is kept.
    fn bundles(&self) -> Result<Vec<(Kind, u64)>, StoreError>;
}

/// A folder of mode 0700 that one hub has to itself.
#[derive(Debug)]
pub(crate) struct DiskStore {
    dir: PathBuf,
    /// Released when closed.
    _lock: File,
}

impl DiskStore {
    /// Makes the folder where it is not there. Another hub that has it may take so long to end.
    pub(crate) fn open(dir: &Path, wait: Duration) -> Result<Self, StoreError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError { step, path, source }
        };
        if !dir.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(failed("make", dir))?;
        }
        let about = fs::metadata(dir).map_err(failed("look at", dir))?;
        if about.mode() & 0o077 != 0 {
            let source = io::Error::other("others may use it; `chmod 700` it");
            return Err(failed("use", dir)(source));
        }
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        lock_within(&lock, wait).map_err(failed("lock", &path))?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name);
        let early = self.path(&format!(".{name}.new"));
        let written = write_synced(&early, bytes)
            .and_then(|()| fs::rename(&early, &path))
            .and_then(|()| self.sync());
        written.map_err(|source| {
            // What is left of it takes room that is missing already.
            let _ = fs::remove_file(&early);
            StoreError {
                step: "write",
                path,
                source,
            }
        })
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.path(name);
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path)?
                .take(limit + 1)
                .read_to_end(&mut bytes)
                .map(|_| bytes)
        };
        let bytes = read().and_then(|bytes| {
            if bytes.len() as u64 > limit {
                Err(io::Error::other(format!("more than {limit} bytes")))
            } else {
                Ok(bytes)
            }
        });
        bytes.map_err(|source| StoreError {
            step: "read",
            path,
            source,
        })
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl Store for DiskStore {
    fn read_state(&self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.read(STATE, MAX_STATE_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_state(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(STATE, bytes)
    }

    fn set_state_aside(&self) -> Result<(), StoreError> {
        let path = self.path(STATE);
        fs::rename(&path, self.path("state.json.broken")).map_err(|source| StoreError {
            step: "put aside",
            path,
            source,
        })
    }

    fn read_bundle(&self, kind: Kind, revision: u64) -> Result<Vec<u8>, StoreError> {
        self.read(&kind.file(revision), ARCHIVE_BYTES)
    }

    fn write_bundle(&self, kind: Kind, revision: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(&kind.file(revision), bytes)
    }

    fn promote(&self, revision: u64) -> Result<(), StoreError> {
        let path = self.path(&Kind::Active.file(revision));
        fs::rename(self.path(&Kind::Staged.file(revision)), &path)
            .and_then(|()| self.sync())
            .map_err(|source| StoreError {
                step: "rename the staged bundle to",
                path,
                source,
            })
    }

    fn remove_bundle(&self, kind: Kind, revision: u64) -> Result<(), StoreError> {
        let path = self.path(&kind.file(revision));
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError {
                step: "remove",
                path,
                source,
            }),
        }
    }

    fn bundles(&self) -> Result<Vec<(Kind, u64)>, StoreError> {
        let failed = |source| StoreError {
            step: "list",
            path: self.dir.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            let parsed = name.strip_suffix(".tar").and_then(|stem| {
                let (kind, number) = stem.split_once('-')?;
                let kind = match kind {
                    "bundle" => Kind::Active,
                    "staged" => Kind::Staged,
                    _ => return None,
                };
                Some((kind, number.parse().ok()?))
            });
            found.extend(parsed);
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn lock_within(lock: &File, wait: Duration) -> io::Result<()> {
    let deadline = Instant::now() + wait;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another hub uses this folder"));
            }
        }
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
