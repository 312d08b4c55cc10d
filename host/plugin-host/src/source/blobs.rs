//! What came over the network, kept by its digest beside the compiled code.
//!
//! A kept file is compared with its name each time it is read, so a damaged one is fetched again.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::task::spawn_blocking;

use crate::component::{COMPONENT_BYTES_MAX, Digest, read_bounded};
use crate::engine::EngineInner;
use crate::error::LoadProblem;
use crate::trust::SIGNATURES_BYTES_MAX;

/// Files that are kept; the oldest goes first.
const KEPT_MAX: usize = 256;

/// Tells files apart that are being written.
static UNFINISHED: AtomicU64 = AtomicU64::new(0);

/// The digest of a component, on a thread that has time for 32 MiB.
pub(super) async fn digest_of(bytes: &Arc<[u8]>) -> Result<Digest, LoadProblem> {
    let bytes = Arc::clone(bytes);
    let hashed = spawn_blocking(move || Digest::of(&bytes)).await;
    hashed.map_err(|error| LoadProblem::Fetch(format!("hashing it panicked: {error}")))
}

/// The bytes with that digest, where they are kept.
pub(super) async fn kept(engine: &EngineInner, digest: Digest) -> Option<Arc<[u8]>> {
    let path = folder(engine)?.join(digest.to_string());
    let read = spawn_blocking(move || {
        let bytes = read_bounded(&path, COMPONENT_BYTES_MAX).ok()?;
        (Digest::of(&bytes) == digest).then(|| bytes.into())
    });
    read.await.ok()?
}

/// Keeps bytes that have this digest. That they cannot be kept only costs another fetch.
pub(super) async fn keep(engine: &EngineInner, digest: Digest, bytes: &Arc<[u8]>) {
    let Some(folder) = folder(engine) else { return };
    let bytes = Arc::clone(bytes);
    let written = spawn_blocking(move || {
        if Digest::of(&bytes) != digest {
            return Ok(());
        }
        write(&folder, &digest.to_string(), &bytes)
    });
    let written = written.await;
    // Neither a full disk nor a panic of the pool is a reason not to load what has arrived.
    let _ = written;
}

/// The signatures that were kept beside the bytes with that digest.
pub(super) async fn kept_signature(engine: &EngineInner, digest: Digest) -> Option<String> {
    let path = folder(engine)?.join(signature_name(digest));
    let read = spawn_blocking(move || read_bounded(&path, SIGNATURES_BYTES_MAX).ok()).await;
    String::from_utf8(read.ok()??).ok()
}

/// Keeps the signatures of those bytes. They prove themselves each time they are read.
pub(super) async fn keep_signature(engine: &EngineInner, digest: Digest, signatures: &str) {
    let Some(folder) = folder(engine) else { return };
    let text = signatures.to_owned();
    let write = move || write(&folder, &signature_name(digest), text.as_bytes());
    // As for the bytes: it only costs another fetch.
    let _ = spawn_blocking(write).await;
}

fn signature_name(digest: Digest) -> String {
    format!("{digest}.sig")
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
    // Two plugins may bring the same component at once.
    let number = UNFINISHED.fetch_add(1, Ordering::Relaxed);
    let unfinished = folder.join(format!("{name}.{}.{number}", std::process::id()));
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
