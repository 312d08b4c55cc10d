//! `Authorization: Basic` with names and passwords of a file.
//!
//! A line is `NAME:HASH` or `NAME:HASH:GROUP,GROUP`, as `htpasswd -B` and `argon2` write hashes;
//! empty lines and those that begin with `#` are passed over. Hashes that are too cheap to guess
//! at, or too dear to compute for everybody who asks, refuse the file.
//!
//! A name that is not in the file costs as much as one that is: the time of an answer does not
//! tell which names there are, as long as all lines have the same kind of hash. What was proven is
//! remembered for [`KEPT_FOR`], not as the password but as a digest with a key of this process; a
//! changed file forgets it all.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lru::LruCache;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::hashing::{Hashing, MAX_MEMORY_KIB};
use super::{Carried, Proven, Refusal, RefusalKind, ViewerAuthError};
use crate::config::Secret;

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

/// How long a proven password is remembered.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Proven passwords that are remembered, at some 100 bytes each.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Costs of bcrypt that are taken: a tenth of a second to two.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 10..=14;

/// The least memory of Argon2 in KiB, with the rounds that it needs at least (OWASP's table).
const ARGON2_LEAST: [(u32, u32); 3] = [(19_456, 2), (12_288, 3), (7_168, 5)];

/// The most rounds and lanes of Argon2.
const ARGON2_MAX_ROUNDS: u32 = 16;
const ARGON2_MAX_LANES: u32 = 4;

/// A file of users as it was read.
pub(super) struct Users {
    digest: [u8; 32],
    users: BTreeMap<String, User>,
    /// What is computed for a name that is not there.
    decoy: Arc<Hash>,
    /// Of this file in this process.
    key: [u8; 32],
    proven: Mutex<LruCache<[u8; 32], Instant>>,
}

struct User {
    hash: Arc<Hash>,
    groups: Vec<String>,
}

enum Hash {
    Bcrypt(String),
    Argon2(Box<PasswordHash>),
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
        if let Some(before) = before.filter(|before| before.digest == digest) {
            return Ok(Arc::clone(before));
        }
        Self::parse(&text, digest).map(Arc::new).map_err(malformed)
    }

    fn parse(text: &str, digest: [u8; 32]) -> Result<Self, String> {
        let mut users = BTreeMap::new();
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
        let Some(decoy) = users.values().map(|user| Arc::clone(&user.hash)).next() else {
            return Err("it has no user".to_owned());
        };
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| format!("no random bytes: {error}"))?;
        Ok(Self {
            digest,
            users,
            decoy,
            key,
            proven: Mutex::new(LruCache::new(KEPT)),
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
        let seal = self.seal(&name, &password);
        let is_kept = user.is_some() && self.is_kept(&seal);
        if !is_kept {
            let hash = user.map_or(&self.decoy, |user| &user.hash);
            let (hash, given) = (Arc::clone(hash), password);
            let fits = hashing
                .run(carried.source, move || hash.fits(given.expose().as_bytes()))
                .await
                .map_err(Refusal::unavailable)?;
            if !fits || user.is_none() {
                return Err(Refusal {
                    kind: RefusalKind::PasswordWrong,
                    detail: None,
                });
            }
            self.proven.lock().put(seal, Instant::now());
        }
        let mut proven = Proven::named(carried.tenant, format!("basic:{name}"), "pwd");
        proven.groups = user.map(|user| user.groups.clone()).unwrap_or_default();
        Ok(proven)
    }

    fn is_kept(&self, seal: &[u8; 32]) -> bool {
        let mut proven = self.proven.lock();
        proven
            .get(seal)
            .is_some_and(|since| since.elapsed() < KEPT_FOR)
    }

    fn seal(&self, name: &str, password: &Secret) -> [u8; 32] {
        // The length keeps `a` with `bc` apart from `ab` with `c`.
        let length = u64::try_from(name.len()).unwrap_or(u64::MAX);
        Sha256::new()
            .chain_update(self.key)
            .chain_update(length.to_be_bytes())
            .chain_update(name)
            .chain_update(password.expose())
            .finalize()
            .into()
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

impl Hash {
    fn parse(text: &str) -> Result<Self, String> {
        if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|kind| text.starts_with(kind))
        {
            let parts = bcrypt::HashParts::from_str(text)
                .map_err(|_| "the bcrypt hash is malformed".to_owned())?;
            let cost = parts.get_cost();
            if !BCRYPT_COSTS.contains(&cost) {
                return Err(format!(
                    "its cost is {cost}; {} to {} are taken (`htpasswd -B -C 12`)",
                    BCRYPT_COSTS.start(),
                    BCRYPT_COSTS.end()
                ));
            }
            return Ok(Self::Bcrypt(text.to_owned()));
        }
        if text.starts_with("$argon2id$") {
            return Self::argon2(text);
        }
        Err("its hash is neither bcrypt (`htpasswd -B`) nor Argon2id (`argon2 -id -e`)".to_owned())
    }

    fn argon2(text: &str) -> Result<Self, String> {
        let malformed = || "the Argon2 hash is malformed".to_owned();
        let hash = PasswordHash::new(text).map_err(|_| malformed())?;
        let params = argon2::Params::try_from(&hash).map_err(|_| malformed())?;
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err(malformed());
        }
        let (memory, rounds, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
        let is_enough = |(least, of_rounds): &(u32, u32)| memory >= *least && rounds >= *of_rounds;
        if !ARGON2_LEAST.iter().any(is_enough) {
            return Err(format!(
                "{memory} KiB in {rounds} rounds is too cheap; take 19456 KiB in 2 at least"
            ));
        }
        if memory > MAX_MEMORY_KIB || rounds > ARGON2_MAX_ROUNDS || lanes > ARGON2_MAX_LANES {
            return Err(format!(
                "it takes {memory} KiB, {rounds} rounds and {lanes} lanes; at most \
                 {MAX_MEMORY_KIB}, {ARGON2_MAX_ROUNDS} and {ARGON2_MAX_LANES} are computed for \
                 whoever asks"
            ));
        }
        Ok(Self::Argon2(Box::new(hash)))
    }

    /// Compared in constant time by both libraries.
    fn fits(&self, password: &[u8]) -> bool {
        match self {
            // What is longer than bcrypt reads is refused: its end would not count.
            Self::Bcrypt(hash) => bcrypt::non_truncating_verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
        }
    }
}
