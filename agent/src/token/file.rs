//! A token in a file, which whoever issues tokens replaces from time to time.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{TOKEN_BYTES_MAX, Token, TokenError};

/// What tells one state of a file from the next. A replaced file has another inode even where
/// its length and time are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    inode: u64,
    length: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl FileStamp {
    /// The state of the file at `path` now; links are followed.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|meta| Self::from(&meta))
    }
}

impl From<&Metadata> for FileStamp {
    fn from(meta: &Metadata) -> Self {
        Self {
            inode: meta.ino(),
            length: meta.len(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    stamp: Option<FileStamp>,
    was_read: bool,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            stamp: None,
            was_read: false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read(&mut self) -> Result<Token, TokenError> {
        self.was_read = true;
        // Taken before reading, so that a change in between is seen as one.
        self.stamp = FileStamp::of(&self.path);
        let path = self.path.display().to_string();
        if self
            .stamp
            .is_some_and(|stamp| stamp.length > 4 * TOKEN_BYTES_MAX as u64)
        {
            return Err(TokenError::Malformed {
                origin: format!("token file `{path}`"),
                reason: "it is far longer than any token".to_owned(),
            });
        }
        let text = std::fs::read_to_string(&self.path).map_err(|error| TokenError::Unreadable {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        if text.trim().is_empty() {
            return Err(TokenError::Empty { path });
        }
        Token::parse(&text, &format!("token file `{path}`"))
    }

    pub(super) fn changed(&self) -> bool {
        self.was_read && FileStamp::of(&self.path) != self.stamp
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_replaced_file_is_noticed_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let mut file = TokenFile::new(path.clone());
        assert_eq!(file.read().unwrap().secret.expose(), "first");
        assert!(!file.changed());

        let next = folder.path().join("next");
        std::fs::write(&next, "other\n").unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert!(file.changed());
        assert_eq!(file.read().unwrap().secret.expose(), "other");
        assert!(!file.changed());
    }

    #[test]
    fn missing_and_empty_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let mut file = TokenFile::new(path.clone());
        assert!(!file.changed());
        assert!(matches!(file.read(), Err(TokenError::Unreadable { .. })));
        assert!(!file.changed());
        std::fs::write(&path, " \n").unwrap();
        assert!(file.changed());
        assert!(matches!(file.read(), Err(TokenError::Empty { .. })));
    }
}
