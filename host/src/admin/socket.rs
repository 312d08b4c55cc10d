//! The Unix socket of the admin API, as a file.
//!
//! The socket is bound in a new folder of mode 0700 beside its place, gets mode 0600 there and is
//! then renamed to its place, so that at no moment anybody else can connect. A file that an
//! earlier hub left is replaced; one that a living hub answers on is not.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::UnixListener;

/// The socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another hub answers there.
    #[error("`admin.socket`: another hub answers on `{path}`; stop it or choose another path")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket stands there.
    #[error("`admin.socket`: `{path}` exists and is no socket; remove it or choose another path")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// Others could replace the socket.
    #[error(
        "`admin.socket`: others can write to the folder `{folder}`; `chmod go-w` it or choose \
         another path"
    )]
    OpenFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The system refused.
    #[error("`admin.socket`: cannot {step} `{path}`")]
    Io {
        /// What was tried.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A bound socket; dropping it removes its file, unless another has taken its place.
#[derive(Debug)]
pub(super) struct BoundSocket {
    path: PathBuf,
    /// Device and inode: whose file it is.
    identity: (u64, u64),
}

/// Mode bits of group and others that let them write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// In a sticky folder only a file's owner can replace it.
const STICKY: u32 = 0o1000;

impl BoundSocket {
    pub(super) fn bind(path: &Path) -> Result<(UnixListener, Self), SocketError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        prepare_folder(folder)?;
        check_place(path)?;
        let private = PrivateFolder::make(folder)?;
        let early = private.0.join("s");
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { step, path, source }
        };
        let listener = UnixListener::bind(&early).map_err(failed("bind", path))?;
        fs::set_permissions(&early, Permissions::from_mode(0o600))
            .map_err(failed("protect", path))?;
        let found = fs::symlink_metadata(&early).map_err(failed("look at", path))?;
        fs::rename(&early, path).map_err(failed("put in place", path))?;
        let bound = Self {
            path: path.to_owned(),
            identity: (found.dev(), found.ino()),
        };
        Ok((listener, bound))
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            // A file that stays is replaced by the next hub.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn prepare_folder(folder: &Path) -> Result<(), SocketError> {
    let failed = |step| {
        let path = folder.to_owned();
        move |source| SocketError::Io { step, path, source }
    };
    if !folder.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("create"))?;
    }
    let mode = fs::metadata(folder).map_err(failed("look at"))?.mode();
    if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
        let folder = folder.to_owned();
        return Err(SocketError::OpenFolder { folder });
    }
    Ok(())
}

/// Nothing there, or a socket on which nobody answers.
fn check_place(path: &Path) -> Result<(), SocketError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(SocketError::Io {
                step: "look at",
                path: path.to_owned(),
                source,
            });
        }
    };
    let path = path.to_owned();
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { path });
    }
    match std::os::unix::net::UnixStream::connect(&path) {
        Ok(_) => Err(SocketError::InUse { path }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SocketError::Io {
            step: "see whether a hub answers on",
            path,
            source,
        }),
    }
}

/// A new folder that only we can enter, removed when dropped. Its name is short, because the
/// path of a socket has at most 107 bytes.
struct PrivateFolder(PathBuf);

/// Hubs of one process may bind beside each other at once.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl PrivateFolder {
    fn make(parent: &Path) -> Result<Self, SocketError> {
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(format!(".n{process:x}.{number:x}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        let made = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // An earlier process of our number left it, empty or with its socket.
                let _ = fs::remove_file(path.join("s"));
                fs::remove_dir(&path).and_then(|()| DirBuilder::new().mode(0o700).create(&path))
            }
            other => other,
        };
        made.map_err(|source| SocketError::Io {
            step: "create",
            path: path.clone(),
            source,
        })?;
        Ok(Self(path))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // What is left of a failed bind.
        let _ = fs::remove_file(self.0.join("s"));
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where the socket is without configuration: in `$XDG_RUNTIME_DIR/nowconnect` where that is
/// set, else in `/run/nowconnect`.
pub fn default_socket_path(xdg_runtime_dir: Option<&str>) -> PathBuf {
    let base = xdg_runtime_dir.filter(|dir| dir.starts_with('/'));
    Path::new(base.unwrap_or("/run")).join("nowconnect/admin.sock")
}

/// The socket of a hub of `nowconnect dev`, in its [folder](dev_folder).
pub(crate) const DEV_SOCKET: &str = "admin.sock";

/// Where a hub of `nowconnect dev` keeps its state, and its socket: below `$XDG_STATE_HOME`, or
/// below the home folder.
pub(crate) fn dev_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("nowconnect/hub"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[tokio::test]
    async fn only_the_owner_can_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/admin.sock");
        let (_listener, bound) = BoundSocket::bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_living_hub_keeps_its_socket_and_a_dead_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (listener, first) = BoundSocket::bind(&path).unwrap();
        let second = BoundSocket::bind(&path).map(drop);
        assert!(matches!(second, Err(SocketError::InUse { .. })));
        drop(listener);
        let (_listener, _second) = BoundSocket::bind(&path).unwrap();
        drop(first);
        assert!(
            path.exists(),
            "an earlier owner must not remove its successor's socket"
        );
    }

    #[tokio::test]
    async fn what_is_no_socket_and_where_others_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "x").unwrap();
        let refused = BoundSocket::bind(&path).map(drop);
        assert!(matches!(refused, Err(SocketError::NotASocket { .. })));

        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let refused = BoundSocket::bind(&folder.path().join("s")).map(drop);
        assert!(matches!(refused, Err(SocketError::OpenFolder { .. })));
    }

    #[test]
    fn the_default_is_below_the_runtime_folder() {
        let path = |dir| default_socket_path(dir).display().to_string();
        assert_eq!(path(None), "/run/nowconnect/admin.sock");
        assert_eq!(
            path(Some("/run/user/7")),
            "/run/user/7/nowconnect/admin.sock"
        );
        assert_eq!(path(Some("")), "/run/nowconnect/admin.sock");
    }
}
