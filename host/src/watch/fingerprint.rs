//! What a path leads to, as far as the system can tell without reading it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The most files of a folder that are looked at; the rest changes unseen, until SIGHUP.
const MAX_FILES: usize = 4096;

/// How deep folders are looked into.
const MAX_DEPTH: usize = 4;

/// Changes whenever what the path leads to does: every write and every rename over it gives a
/// new change time or another inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(BTreeMap<PathBuf, State>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub(super) fn of(path: &Path) -> Self {
        let mut found = BTreeMap::new();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => gather(path, 0, &mut found),
            Ok(metadata) => {
                found.insert(path.to_path_buf(), State::of(&metadata));
            }
            // Not there is a state as well.
            Err(_) => {}
        }
        Self(found)
    }
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn gather(folder: &Path, depth: usize, found: &mut BTreeMap<PathBuf, State>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if found.len() >= MAX_FILES {
            return;
        }
        if is_noise(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => {
                gather(&path, depth + 1, found);
            }
            Ok(metadata) if metadata.is_file() => {
                found.insert(path, State::of(&metadata));
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// Hidden files, and those that editors leave lying about while someone types.
fn is_noise(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || name.ends_with(".swp") || name.ends_with(".tmp")
}

/// The folders whose notifications tell of a change of `path`: where it is, where a symlink
/// leads, and for a folder all below it.
pub(super) fn folders_of(path: &Path, folders: &mut BTreeSet<PathBuf>) {
    folders.extend(nearest_folder(path));
    if let Ok(target) = fs::canonicalize(path)
        && let Some(folder) = target.parent()
    {
        folders.insert(folder.to_path_buf());
    }
    if path.is_dir() {
        below(path, 0, folders);
    }
}

/// The folder that a path is in, or the next one up that exists.
fn nearest_folder(path: &Path) -> Option<PathBuf> {
    let mut folder = path.parent();
    while let Some(candidate) = folder {
        let candidate = if candidate.as_os_str().is_empty() {
            Path::new(".")
        } else {
            candidate
        };
        if candidate.is_dir() {
            return Some(candidate.to_path_buf());
        }
        folder = candidate.parent();
    }
    None
}

fn below(folder: &Path, depth: usize, folders: &mut BTreeSet<PathBuf>) {
    if folders.len() >= MAX_FILES || !folders.insert(folder.to_path_buf()) && depth > 0 {
        return;
    }
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if depth < MAX_DEPTH && path.is_dir() && !is_noise(&entry.file_name().to_string_lossy()) {
            below(&path, depth + 1, folders);
        }
    }
}
