//! `Authorization: Basic` with names and passwords of a file.
//!
//! A line is `NAME:HASH` or `NAME:HASH:GROUP,GROUP`, as `htpasswd -B -C 12` and `argon2` write hashes;
//! empty lines and those that begin with `#` are passed over. Hashes that are too cheap to guess
//! at, or too dear to compute for everybody who asks, refuse the file.
//!
//! A name that is not in the file costs as much as one that is: the time of an answer does not
//! tell which names there are, as long as all lines have the same kind of hash. What was proven is
//! [remembered](proofs) for a time; a changed file forgets it all.

mod hash;
mod proofs;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::hashing::Hashing;
use super::{Carried, Proven, Refusal, RefusalKind, ViewerAuthError};
use crate::config::Secret;
use hash::Hash;
use proofs::Proofs;

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The most users of one file.
const MAX_USERS: usize = 10_000;

/// The longest name, and the longest password, in bytes.
const MAX_NAME_BYTES: usize = 200;
const MAX_PASSWORD_BYTES: usize = 1024;

/// The most groups of one user, and the longest name of one, in bytes.
const MAX_GROUPS: usize = 64;
const MAX_GROUP_BYTES: usize = 256;

/// A file of users as it was read.
pub(super) struct Users {
    path: PathBuf,
    digest: [u8; 32],
    users: BTreeMap<String, User>,
    /// What is computed for a name that is not there.
    decoy: Arc<Hash>,
    proofs: Arc<Proofs>,
}

struct User {
    hash: Arc<Hash>,
    groups: Vec<String>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.users.len())
    }
}

impl Users {
    /// Reads the file; `before`, where it is the same.
    ///
    /// # Errors
    /// It cannot be read, is too large, or has a line that is none. The message has the line's
    /// number and nothing else of it.
    pub(super) fn read(
        path: &Path,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, ViewerAuthError> {
        let malformed = |reason: String| ViewerAuthError::Malformed {
            path: path.to_path_buf(),
            reason,
        };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| ViewerAuthError::Unreadable {
                path: path.to_path_buf(),
                error,
            })?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(malformed(format!(
                "it is larger than {MAX_FILE_BYTES} bytes"
            )));
        }
        let digest = Sha256::digest(text.as_bytes()).into();
        let is_same = |before: &&Arc<Self>| before.digest == digest && before.path == path;
        if let Some(before) = before.filter(is_same) {
            return Ok(Arc::clone(before));
        }
        Self::parse(path, &text, digest)
            .map(Arc::new)
            .map_err(malformed)
    }

    fn parse(path: &Path, text: &str, digest: [u8; 32]) -> Result<Self, String> {
        let mut users: BTreeMap<String, User> = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let (name, user) = user(line).map_err(|why| format!("line {number}: {why}"))?;
            if users.insert(name, user).is_some() {
                return Err(format!("line {number}: the name is there twice"));
            }
            if users.len() > MAX_USERS {
                return Err(format!("it has more than {MAX_USERS} users"));
            }
        }
        // Whoever takes the last user out wants nobody to be let in.
        let decoy = match users.values().next() {
            Some(user) => Arc::clone(&user.hash),
            None => Arc::new(Hash::of_nobody()?),
        };
        let proofs = Proofs::new().map_err(|error| format!("no random bytes: {error}"))?;
        Ok(Self {
            path: path.to_path_buf(),
            digest,
            users,
            decoy,
            proofs,
        })
    }

    /// Proves what stands behind `Basic`.
    pub(super) async fn prove(
        &self,
        pair: &str,
        carried: &Carried<'_>,
        hashing: &Hashing,
    ) -> Result<Proven, Refusal> {
        let (name, password) = pair_of(pair)?;
        let user = self.users.get(&name);
        let asker = hashing.asker(&self.path, &name, carried.source);
        let seal = self.proofs.seal(&name, &password);
        let hash = Arc::clone(user.map_or(&self.decoy, |user| &user.hash));
        let is_user = user.is_some();
        // What is remembered is right: a name that is not there has no right password.
        let look = move || hash.fits(password.expose().as_bytes()) && is_user;
        let fits = self.proofs.prove(seal, || hashing.place(asker), look).await;
        let fits = fits.map_err(Refusal::unavailable)?;
        hashing.note(asker, fits);
        if !fits {
            return Err(Refusal {
                kind: RefusalKind::PasswordWrong,
                detail: None,
            });
        }
        let mut proven = Proven::named(carried.tenant, format!("basic:{name}"), "pwd");
        proven.groups = user.map(|user| user.groups.clone()).unwrap_or_default();
        Ok(proven)
    }
}

/// Name and password of RFC 7617.
fn pair_of(text: &str) -> Result<(String, Secret), Refusal> {
    let malformed = |why| Err(Refusal::ambiguous(why));
    let Ok(bytes) = STANDARD.decode(text) else {
        return malformed("what stands behind `Basic` is no base64");
    };
    let Ok(pair) = String::from_utf8(bytes) else {
        return malformed("name and password are no UTF-8");
    };
    let Some((name, password)) = pair.split_once(':') else {
        return malformed("there is no `:` behind the name");
    };
    if name.len() > MAX_NAME_BYTES || password.len() > MAX_PASSWORD_BYTES {
        return malformed("name or password is too long");
    }
    if pair.contains(char::is_control) {
        return malformed("name or password has a control character");
    }
    Ok((name.to_owned(), Secret::new(password)))
}

fn user(line: &str) -> Result<(String, User), String> {
    let mut parts = line.splitn(3, ':');
    let (Some(name), Some(hash)) = (parts.next(), parts.next()) else {
        return Err("it is not `NAME:HASH` or `NAME:HASH:GROUP,GROUP`".to_owned());
    };
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(char::is_control) {
        return Err(format!(
            "a name has 1 to {MAX_NAME_BYTES} bytes, and no control characters"
        ));
    }
    let groups: Vec<String> = parts
        .next()
        .into_iter()
        .flat_map(|groups| groups.split(','))
        .map(|group| group.trim().to_owned())
        .filter(|group| !group.is_empty())
        .collect();
    if groups.len() > MAX_GROUPS || groups.iter().any(|group| group.len() > MAX_GROUP_BYTES) {
        return Err(format!(
            "it has more than {MAX_GROUPS} groups, or one of more than {MAX_GROUP_BYTES} bytes"
        ));
    }
    let hash = Arc::new(Hash::parse(hash.trim())?);
    Ok((name.to_owned(), User { hash, groups }))
}
