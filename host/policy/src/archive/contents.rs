//! Files in and out of a folder or a tar, within bounds, before anything is made of them.
//!
//! A member's path is one of a handful of shapes, so nothing absolute, hidden or upward can be
//! one; links, devices and extension records are no members at all.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;

use super::refusal::{Refusal, RefusalCode};
use crate::source::{FILE_BYTES, FILES, TENANT_ENTITIES};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const SIGNATURES: &str = "manifest.sig";

/// Bytes of a whole archive, headers included: a hub holds a few of them in memory at once.
pub const ARCHIVE_BYTES: u64 = 32 * 1024 * 1024;

/// Bytes of a path. A tar header has room for a hundred.
const PATH_BYTES: usize = 100;

const FOLDERS: [(&str, &str); 3] = [
    ("policies/", ".cedar"),
    ("tests/", ".json"),
    ("assertions/", ".cedar"),
];

/// Texts by path.
pub(super) type Members = BTreeMap<String, String>;

pub(super) fn read(path: &Path) -> Result<Members, Refusal> {
    let unreadable = |error: io::Error| unreadable(path, &error);
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if about.is_dir() {
        return from_dir(path);
    }
    if about.len() > ARCHIVE_BYTES {
        return Err(too_large(format!(
            "`{}` has {} bytes; a bundle may have {ARCHIVE_BYTES}",
            path.display(),
            about.len()
        )));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(ARCHIVE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    from_tar(&bytes)
}

pub(super) fn from_tar(bytes: &[u8]) -> Result<Members, Refusal> {
    if bytes.len() as u64 > ARCHIVE_BYTES {
        return Err(too_large(format!(
            "the tar has more than {ARCHIVE_BYTES} bytes"
        )));
    }
    let malformed = |error: io::Error| malformed(format!("not a plain tar: {error}"));
    let mut archive = tar::Archive::new(bytes);
    let mut members = Bounded::default();
    for entry in archive.entries().map_err(malformed)?.raw(true) {
        let mut entry = entry.map_err(malformed)?;
        let path = match std::str::from_utf8(&entry.path_bytes()) {
            Ok(path) => path.strip_prefix("./").unwrap_or(path).to_owned(),
            Err(_) => return Err(self::malformed("a path that is not UTF-8".to_owned())),
        };
        let kind = entry.header().entry_type();
        if kind.is_dir() && (path.is_empty() || is_folder(&path)) {
            continue;
        }
        if !kind.is_file() {
            return Err(self::malformed(format!(
                "`{}` is no plain file; `nowconnect policy build` makes archives without links \
                 and extension records",
                shown(&path)
            )));
        }
        members.add(path, &mut entry)?;
    }
    Ok(members.done)
}

fn from_dir(dir: &Path) -> Result<Members, Refusal> {
    let mut members = Bounded::default();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let at = dir.join(&folder);
        for entry in std::fs::read_dir(&at).map_err(|error| unreadable(&at, &error))? {
            let entry = entry.map_err(|error| unreadable(&at, &error))?;
            let kind = entry
                .file_type()
                .map_err(|error| unreadable(&entry.path(), &error))?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(malformed("a file name that is not UTF-8".to_owned()));
            };
            let path = format!("{folder}{name}");
            if kind.is_dir() && is_folder(&path) {
                folders.push(format!("{path}/"));
            } else if kind.is_file() {
                let mut file = std::fs::File::open(entry.path())
                    .map_err(|error| unreadable(&entry.path(), &error))?;
                members.add(path, &mut file)?;
            } else {
                return Err(malformed(format!(
                    "`{}` is neither a plain file nor a folder of a bundle",
                    shown(&path)
                )));
            }
        }
    }
    Ok(members.done)
}

#[derive(Default)]
struct Bounded {
    done: Members,
    bytes: u64,
}

impl Bounded {
    fn add(&mut self, path: String, from: &mut dyn io::Read) -> Result<(), Refusal> {
        if !is_member(&path) && path != MANIFEST && path != SIGNATURES {
            return Err(malformed(format!(
                "`{}` has no place in a bundle: there are `policies/*.cedar`, `entities.json`, \
                 `TENANT@entities.json`, `schema.cedarschema`, `tests/*.json` and `assertions/*.cedar`, with names of \
                 letters, digits, `.`, `-`, `_` and `@`",
                shown(&path)
            )));
        }
        if self.done.len() >= FILES {
            return Err(too_large(format!("more than {FILES} files")));
        }
        let mut bytes = Vec::new();
        from.take(FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| malformed(format!("`{path}`: {error}")))?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(too_large(format!(
                "`{path}` has more than {FILE_BYTES} bytes"
            )));
        }
        self.bytes += bytes.len() as u64;
        if self.bytes > ARCHIVE_BYTES {
            return Err(too_large(format!(
                "the files have more than {ARCHIVE_BYTES} bytes together"
            )));
        }
        let text =
            String::from_utf8(bytes).map_err(|_| malformed(format!("`{path}` is not UTF-8")))?;
        if self.done.insert(path.clone(), text).is_some() {
            return Err(malformed(format!("`{path}` is there twice")));
        }
        Ok(())
    }
}

pub(super) fn to_tar(members: &Members) -> Result<Vec<u8>, Refusal> {
    let mut tar = tar::Builder::new(Vec::new());
    let failed = |error: io::Error| too_large(format!("cannot be put into a tar: {error}"));
    for (path, text) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_path(path).map_err(failed)?;
        header.set_cksum();
        tar.append(&header, text.as_bytes()).map_err(failed)?;
    }
    tar.into_inner().map_err(failed)
}

pub(super) fn write_to(dir: &Path, members: &Members) -> io::Result<()> {
    for (path, text) in members {
        let path = dir.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Whether a path may be that of a file that the manifest lists.
pub(super) fn is_member(path: &str) -> bool {
    if path.len() > PATH_BYTES {
        return false;
    }
    if path == "entities.json" || path == "schema.cedarschema" {
        return true;
    }
    if let Some(tenant) = path.strip_suffix(TENANT_ENTITIES) {
        return !tenant.is_empty() && is_plain(tenant);
    }
    FOLDERS.iter().any(|(folder, ending)| {
        path.strip_prefix(folder)
            .and_then(|name| name.strip_suffix(ending))
            .is_some_and(|stem| !stem.is_empty() && is_plain(stem))
    })
}

fn is_folder(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    FOLDERS
        .iter()
        .any(|(folder, _)| folder.strip_suffix('/') == Some(path))
}

fn is_plain(stem: &str) -> bool {
    !stem.starts_with('.')
        && stem
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || ".-_@".contains(letter))
}

/// A path of a stranger, fit for a terminal.
fn shown(path: &str) -> String {
    path.chars()
        .take(PATH_BYTES)
        .flat_map(char::escape_debug)
        .collect()
}

fn malformed(message: String) -> Refusal {
    Refusal::new(RefusalCode::Malformed, message)
}

fn too_large(message: String) -> Refusal {
    Refusal::new(RefusalCode::TooLarge, message)
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    let message = format!("cannot read `{}`: {error}", path.display());
    Refusal::new(RefusalCode::Unreadable, message)
}
