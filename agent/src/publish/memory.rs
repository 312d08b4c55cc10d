//! What an agent remembers of a tunnel between two runs: the token to come back.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Of a service's name, so many characters stand in the name of its file.
const READABLE_CHARS_MAX: usize = 40;
/// A file of this kind holds a URL and a token.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// One file of mode 0600 for each service or wished name at each control API, held while an agent
/// uses it. Two agents never come back as the same tunnel.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    control_url: String,
    /// Locked until dropped.
    _held: File,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    control_url: String,
    recreate_token: String,
}

/// Why nothing is remembered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("another agent on this machine uses that address")]
    InUse,
    #[error("`{}`: {error}", path.display())]
    Io {
        path: PathBuf,
        error: std::io::Error,
    },
}

impl Memory {
    /// The memory of `service` (such as `http-shop`) at one API, in `folder`, which is made.
    pub(crate) fn open(
        folder: &Path,
        control_url: &str,
        service: &str,
    ) -> Result<Self, MemoryError> {
        let name = file_name(control_url, service);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| MemoryError::Io { path, error }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed(folder))?;
        // Another file than the one that is replaced, so that the lock stays with its name.
        let lock = folder.join(format!("{name}.lock"));
        let held = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(failed(&lock))?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(MemoryError::InUse),
            Err(TryLockError::Error(error)) => return Err(failed(&lock)(error)),
        }
        Ok(Self {
            path: folder.join(format!("{name}.json")),
            control_url: control_url.to_owned(),
            _held: held,
        })
    }

    /// The token that was kept. A file that others could write or read is not believed.
    pub(crate) fn recall(&self) -> Option<Secret> {
        let meta = std::fs::metadata(&self.path).ok()?;
        let is_private = meta.permissions().mode() & 0o077 == 0;
        if !is_private || meta.len() > FILE_BYTES_MAX {
            return None;
        }
        let text = std::fs::read_to_string(&self.path).ok()?;
        let kept: Remembered = serde_json::from_str(&text).ok()?;
        (kept.control_url == self.control_url).then(|| Secret::new(kept.recreate_token))
    }

    /// Keeps a token; written under another name first, so that the file is never half.
    pub(crate) fn keep(&self, token: &Secret) -> Result<(), MemoryError> {
        let failed = |error| MemoryError::Io {
            path: self.path.clone(),
            error,
        };
        let kept = Remembered {
            control_url: self.control_url.clone(),
            recreate_token: token.expose().to_owned(),
        };
        let text = serde_json::to_vec(&kept).map_err(|error| failed(error.into()))?;
        let early = self.path.with_extension("new");
        let write = || {
            // One left by a crash may have another mode.
            match std::fs::remove_file(&early) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&early)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&early, &self.path)
        };
        write().map_err(failed)
    }
}

/// What a person recognises, and what tells apart those that read alike.
fn file_name(control_url: &str, service: &str) -> String {
    let letters = service.chars().take(READABLE_CHARS_MAX);
    let readable: String = letters
        .map(|letter| match letter {
            letter if letter.is_ascii_alphanumeric() => letter,
            _ => '-',
        })
        .collect();
    let all = [control_url, "\n", service].concat();
    // FNV-1a: another one of a million services would have to be there to meet by chance.
    let hash = all.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{readable}-{hash:016x}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    const URL: &str = "http://127.0.0.1:8766";

    #[test]
    fn a_token_is_kept_in_a_private_file_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path(), URL, "http-shop").unwrap();
        assert_eq!(memory.recall(), None);
        memory.keep(&Secret::new("one")).unwrap();
        memory.keep(&Secret::new("two")).unwrap();
        assert_eq!(memory.recall(), Some(Secret::new("two")));
        let path = memory.path.clone();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            name.starts_with("http-shop-") && name.ends_with(".json"),
            "{name}"
        );
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = Memory::open(folder.path(), URL, "http-blog").unwrap();
        assert_eq!(other.recall(), None, "another service");
        for like in ["http.shop", "http/shop"] {
            let memory = Memory::open(folder.path(), URL, like).unwrap();
            assert_eq!(memory.recall(), None, "{like}");
        }
        let long = "x".repeat(5000);
        Memory::open(folder.path(), URL, &long).unwrap();
        let elsewhere =
            Memory::open(folder.path(), "https://hub.example.com", "http-shop").unwrap();
        assert_eq!(elsewhere.recall(), None, "another hub");

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(memory.recall(), None, "others could have read it");
    }

    #[test]
    fn two_agents_never_share_a_memory() {
        let folder = tempfile::tempdir().unwrap();
        let first = Memory::open(folder.path(), URL, "http-shop").unwrap();
        let second = Memory::open(folder.path(), URL, "http-shop");
        assert!(matches!(second, Err(MemoryError::InUse)), "{second:?}");
        drop(first);
        Memory::open(folder.path(), URL, "http-shop").unwrap();
    }
}
