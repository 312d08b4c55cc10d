//! A copy of the file while it is in use, and the way back.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::schema::ALL;
use crate::{Store, StoreError};

impl Store {
    /// Writes a copy of this moment to `path`, which must not be there yet: under another name
    /// first, synced, then given its name. The copy is a store of its own, of mode 0600.
    ///
    /// # Errors
    /// The file is there, or the disk fails; then nothing is left behind.
    pub fn backup(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |reason: String| StoreError::Backup {
            step: "write the backup",
            path: path.to_owned(),
            reason,
        };
        if path.exists() {
            return Err(failed(
                "it is there already; choose another name".to_owned(),
            ));
        }
        let _turn = self.backups.lock();
        let early = beside(path, "part");
        // What a crash has left there would be mixed into this one.
        remove(&early).map_err(|error| failed(error.to_string()))?;
        // A link, unlike a rename, never takes the place of a file that came meanwhile.
        let copied = self
            .copy_to(&early)
            .and_then(|()| fs::hard_link(&early, path).map_err(|error| failed(error.to_string())));
        let removed = remove(&early).map_err(|error| failed(error.to_string()));
        copied?;
        removed?;
        sync_folder(path).map_err(|error| failed(error.to_string()))
    }

    fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let copy = Self::open(path)?;
        if !copy.is_made_anew() {
            return Err(StoreError::InUse {
                path: path.to_owned(),
            });
        }
        self.read(|from| {
            copy.write(|to| {
                for table in ALL {
                    let mut target = table.open(to)?;
                    table.raw(from, |key, bytes| target.put_raw(key, bytes))?;
                }
                Ok(())
            })
        })
    }

    /// Reads everything once, so that damage shows before the copy is relied on.
    fn check(&self) -> Result<(), StoreError> {
        self.read(|from| {
            for table in ALL {
                table.each(from, None, |_, _: serde_json::Value| true)?;
            }
            Ok(())
        })
    }

    /// Puts a backup in the place of `path`, for a hub that is not running. What was there stays
    /// beside it under the name that is returned.
    ///
    /// # Errors
    /// The backup cannot be read, is damaged or of a newer release, or a hub has the file open;
    /// then what was there is untouched.
    pub fn restore(backup: &Path, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        let failed = |reason: String| StoreError::Backup {
            step: "restore",
            path: path.to_owned(),
            reason,
        };
        // Whoever has the file open would go on writing to what is put aside, so it is held here
        // until that is done. One that is damaged is what a backup is for, and no hub opens it.
        let held = path.exists().then(|| Self::open(path));
        if let Some(Err(StoreError::InUse { path })) = held {
            return Err(StoreError::InUse { path });
        }
        let early = beside(path, "restore");
        let copied = remove(&early)
            .and_then(|()| fs::copy(backup, &early))
            .and_then(|_| fs::set_permissions(&early, fs::Permissions::from_mode(0o600)))
            .map_err(|error| StoreError::Backup {
                step: "read the backup",
                path: backup.to_owned(),
                reason: error.to_string(),
            })
            .and_then(|()| Self::open(&early)?.check());
        if let Err(error) = copied {
            let _ = fs::remove_file(&early);
            return Err(error);
        }
        // At no moment is there no file: a hub that starts then would make an empty one.
        let aside = put_aside(path).map_err(|error| failed(error.to_string()))?;
        fs::rename(&early, path).map_err(|error| failed(error.to_string()))?;
        sync_folder(path).map_err(|error| failed(error.to_string()))?;
        drop(held);
        Ok(aside)
    }
}

/// `state.redb` → `.state.redb.part`
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

/// Gives what is there a second name, `state.redb.before-1` or the first that is free.
fn put_aside(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut number = 1u32;
    loop {
        let aside = path.with_file_name(format!("{name}.before-{number}"));
        match fs::hard_link(path, &aside) {
            Ok(()) => return Ok(Some(aside)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    fs::File::open(folder)?.sync_all()
}
