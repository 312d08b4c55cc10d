//! The list on disk: one JSON object a line.
//!
//! ```text
//! {"agent":"edge-7","reason":"stolen","revoked_at":1767225600}
//! {"jti":"f3a9","revoked_at":1767225600}
//! {"issued_before":1767225600,"reason":"signing key exposed","revoked_at":1767225600}
//! {"tenant":"acme","agent":"edge-7","issued_before":1767225600,"revoked_at":1767225600}
//! ```
//!
//! Times are seconds since 1970. Blank lines and lines that begin with `#` are passed over.
//! Writers hold a lock beside the file and put a whole new file in its place, so that a reader
//! sees the old or the new one and two writers lose nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use nowconnect_protocol::{AgentId, TenantName};
use serde::{Deserialize, Serialize};

use super::time::LATEST_SECONDS;

/// The most bytes of one line; a reason is a sentence.
const MAX_LINE_BYTES: u64 = 2048;

/// The most characters of a reason.
const MAX_REASON_CHARACTERS: usize = 256;

/// The most bytes of a `jti`, as many as an identity keeps.
const MAX_JTI_BYTES: usize = 256;

/// What counts no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// Every token of an agent.
    Agent {
        /// Whose agent.
        tenant: TenantName,
        /// Which.
        agent: AgentId,
    },
    /// One token.
    Jti {
        /// Its `jti`.
        jti: String,
    },
    /// Every token issued before a time.
    IssuedBefore {
        /// Seconds since 1970; tokens issued in that second still count.
        issued_before: u64,
    },
    /// Every token of an agent issued before a time.
    AgentIssuedBefore {
        /// Whose agent.
        tenant: TenantName,
        /// Which.
        agent: AgentId,
        /// Seconds since 1970; tokens issued in that second still count.
        issued_before: u64,
    },
}

impl Revoked {
    /// As it stands in a line, without a reason and a time.
    pub(crate) fn to_text(&self) -> String {
        let entry = Revocation {
            revoked: self.clone(),
            reason: None,
            revoked_at: 0,
        };
        entry.to_line()
    }

    /// Reads such a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_text(text: &str) -> Result<Self, String> {
        Revocation::parse(text).map(|entry| entry.revoked)
    }
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What counts no more.
    pub revoked: Revoked,
    /// Why, for people. At most 256 characters.
    pub reason: Option<String>,
    /// When it was written, in seconds since 1970.
    pub revoked_at: u64,
}

/// Why a list cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The file, or one beside it, cannot be read or written.
    #[error("cannot {action} the revocation list `{path}`: {error}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The list.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A list with entries is not there any more.
    #[error(
        "the revocation list `{path}` is gone; the entries in force stay: restore it, or write an \
         empty file to clear them"
    )]
    Gone {
        /// The list.
        path: PathBuf,
    },
    /// A line is not what it has to be.
    #[error("`{path}`:{line}: {reason}")]
    Line {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// There are too many entries.
    #[error(
        "the revocation list `{path}` has more than {max_entries} entries: remove those of expired \
         tokens, or raise `security.revocation_max_entries`"
    )]
    TooLong {
        /// The list.
        path: PathBuf,
        /// The bound.
        max_entries: u32,
    },
}

/// A line as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default)]
    revoked_at: u64,
}

impl Revocation {
    fn parse(text: &str) -> Result<Self, String> {
        let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if line
            .issued_before
            .is_some_and(|seconds| seconds > LATEST_SECONDS)
        {
            return Err("`issued_before` is no time in seconds since 1970".to_owned());
        }
        let tenant = match line.tenant.as_deref() {
            Some(tenant) => TenantName::parse(tenant).map_err(|error| error.to_string())?,
            None => TenantName::default(),
        };
        let agent = line
            .agent
            .as_deref()
            .map(AgentId::parse)
            .transpose()
            .map_err(|error| error.to_string())?;
        let revoked = match (agent, line.jti, line.issued_before) {
            (Some(agent), None, None) => Revoked::Agent { tenant, agent },
            (Some(agent), None, Some(issued_before)) => Revoked::AgentIssuedBefore {
                tenant,
                agent,
                issued_before,
            },
            (None, Some(jti), None) if line.tenant.is_none() => {
                if jti.is_empty() || jti.len() > MAX_JTI_BYTES {
                    return Err(format!("a `jti` has 1 to {MAX_JTI_BYTES} bytes"));
                }
                Revoked::Jti { jti }
            }
            (None, None, Some(issued_before)) if line.tenant.is_none() => {
                Revoked::IssuedBefore { issued_before }
            }
            (Some(_) | None, Some(_) | None, Some(_) | None) => {
                return Err(
                    "a line names `agent` (with `tenant` and `issued_before` if wanted), or `jti`, \
                     or `issued_before`"
                        .to_owned(),
                );
            }
        };
        Ok(Self {
            revoked,
            reason: line.reason,
            revoked_at: line.revoked_at,
        })
    }

    /// The line of the list, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let named = |tenant: &TenantName, agent: &AgentId| {
            (
                (!tenant.is_default()).then(|| tenant.to_string()),
                Some(agent.to_string()),
            )
        };
        let ((tenant, agent), jti, issued_before) = match &self.revoked {
            Revoked::Agent { tenant, agent } => (named(tenant, agent), None, None),
            Revoked::Jti { jti } => ((None, None), Some(jti.clone()), None),
            Revoked::IssuedBefore { issued_before } => ((None, None), None, Some(*issued_before)),
            Revoked::AgentIssuedBefore {
                tenant,
                agent,
                issued_before,
            } => (named(tenant, agent), None, Some(*issued_before)),
        };
        let reason = self
            .reason
            .as_ref()
            .map(|reason| reason.chars().take(MAX_REASON_CHARACTERS).collect());
        let line = Line {
            tenant,
            agent,
            jti,
            issued_before,
            reason,
            revoked_at: self.revoked_at,
        };
        serde_json::to_string(&line).expect("texts and numbers always have a JSON form")
    }
}

/// Reads a list. `None` if there is no file.
///
/// # Errors
/// It cannot be read, a line is wrong, or there are more than `max_entries`.
pub fn read(path: &Path, max_entries: u32) -> Result<Option<Vec<Revocation>>, RevocationError> {
    let io_error = |error| RevocationError::Io {
        action: "read",
        path: path.to_path_buf(),
        error,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    let too_long = || RevocationError::TooLong {
        path: path.to_path_buf(),
        max_entries,
    };
    let max_bytes = u64::from(max_entries).saturating_add(1) * MAX_LINE_BYTES;
    let mut text = String::new();
    file.take(max_bytes + 1)
        .read_to_string(&mut text)
        .map_err(io_error)?;
    if text.len() as u64 > max_bytes {
        return Err(too_long());
    }
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if entries.len() as u64 >= u64::from(max_entries) {
            return Err(too_long());
        }
        entries.push(
            Revocation::parse(line).map_err(|reason| RevocationError::Line {
                path: path.to_path_buf(),
                line: index + 1,
                reason,
            })?,
        );
    }
    Ok(Some(entries))
}

/// Reads a list, lets `change` change it, and puts the new one in its place. Other writers wait.
///
/// # Errors
/// As [`read`]; and it cannot be written, or would be longer than `max_entries`. The list is then
/// as it was.
pub fn edit<T>(
    path: &Path,
    max_entries: u32,
    change: impl FnOnce(&mut Vec<Revocation>) -> T,
) -> Result<T, RevocationError> {
    // A symlink stays one: what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let io_error = |error| RevocationError::Io {
        action: "write",
        path: path.clone(),
        error,
    };
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(io_error)?;
    }
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(beside(path, "lock"))
        .map_err(io_error)?;
    lock.lock().map_err(io_error)?;
    let mut entries = read(path, max_entries)?.unwrap_or_default();
    let done = change(&mut entries);
    if entries.len() as u64 > u64::from(max_entries) {
        return Err(RevocationError::TooLong {
            path: path.clone(),
            max_entries,
        });
    }
    replace(path, &entries).map_err(io_error)?;
    Ok(done)
}

fn replace(path: &Path, entries: &[Revocation]) -> io::Result<()> {
    let new = beside(path, "new");
    let mut file = File::create(&new)?;
    for entry in entries {
        writeln!(file, "{}", entry.to_line())?;
    }
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.sync_all()?;
    fs::rename(&new, path)
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(what);
    path.with_file_name(name)
}
