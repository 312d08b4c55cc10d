//! What came over the network, kept by its digest beside the compiled code.
//!
//! A kept file is compared with its name each time it is read, so a damaged one is fetched again.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::spawn_blocking;

use crate::component::{COMPONENT_BYTES_MAX, Digest, read_bounded};
use crate::engine::EngineInner;

/// Files that are kept; the oldest goes first.
const KEPT_MAX: usize = 128;

/// The bytes with that digest, where they are kept.
pub(super) async fn kept(engine: &EngineInner, digest: Digest) -> Option<Arc<[u8]>> {
    let path = folder(engine)?.join(digest.to_string());
    let read = spawn_blocking(move || read_bounded(&path, COMPONENT_BYTES_MAX).ok()).await;
    let bytes = read.ok()??;
    (Digest::of(&bytes) == digest).then(|| bytes.into())
}

/// Keeps bytes that have this digest. That they cannot be kept only costs another fetch.
pub(super) async fn keep(engine: &EngineInner, digest: Digest, bytes: &Arc<[u8]>) {
    let Some(folder) = folder(engine) else { return };
    if Digest::of(bytes) != digest {
        return;
    }
    let bytes = Arc::clone(bytes);
    let written = spawn_blocking(move || write(&folder, &digest.to_string(), &bytes)).await;
    // Neither a full disk nor a panic of the pool is a reason not to load what has arrived.
    let _ = written;
}

fn folder(engine: &EngineInner) -> Option<PathBuf> {
    engine
        .settings
        .cache_dir
        .as_ref()
        .map(|dir| dir.join("sources"))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!("{name}.{}", std::process::id()));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))?;
    prune(folder)
}

fn prune(folder: &Path) -> std::io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort_unstable();
    let surplus = files.len().saturating_sub(KEPT_MAX);
    files
        .iter()
        .take(surplus)
        .try_for_each(|(_, path)| fs::remove_file(path))
}
