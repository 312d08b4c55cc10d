//! Tokens and agents that count no more, before their time.
//!
//! `nowconnect agent revoke` writes a list of JSON lines; every hub that shares the file reads it
//! anew when it changes and asks it at HELLO, RENEW, RESUME and every OPEN, before any policy.
//! A list that cannot be read leaves the last good one in force. Looking up is three hash
//! lookups, whatever the length.

use std::path::Path;
use std::sync::Arc;

use crate::identity::AgentIdentity;

/// The list in force. Cheap to clone; all clones share it.
#[derive(Clone, Debug)]
pub struct RevocationList {
    _inner: Arc<()>,
}

impl RevocationList {
    /// A list that revokes nothing and has no file.
    #[must_use]
    pub fn empty() -> Self {
        todo!()
    }

    /// Reads the file; one that does not exist is an empty list.
    ///
    /// # Errors
    /// It cannot be read, holds a bad line, or has more than `max_entries`.
    pub fn open(path: &Path, max_entries: u32) -> Result<Self, RevocationError> {
        let _ = (path, max_entries);
        todo!()
    }

    /// Reads the file again and publishes it whole. On an error the last good list stays.
    /// `true` if it now differs.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reload(&self) -> Result<bool, RevocationError> {
        todo!()
    }

    /// Whether the identity counts no more.
    #[must_use]
    pub fn is_revoked(&self, identity: &AgentIdentity) -> bool {
        let _ = identity;
        todo!()
    }
}

/// Why a list cannot be used or written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RevocationError(String);
