//! One hash of a password, as `htpasswd` and `argon2` write it.

use std::str::FromStr as _;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier as _};

use super::super::hashing::MAX_MEMORY_KIB;

/// Costs of bcrypt that are taken: a tenth of a second to two.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 10..=14;

/// The least memory of Argon2 in KiB, with the rounds that it needs at least (OWASP's table).
const ARGON2_LEAST: [(u32, u32); 3] = [(19_456, 2), (12_288, 3), (7_168, 5)];

/// The most rounds and lanes of Argon2.
const ARGON2_MAX_ROUNDS: u32 = 16;
const ARGON2_MAX_LANES: u32 = 4;

/// What writes a hash that is taken; without the costs both programs write cheaper ones.
const BCRYPT: &str = "`htpasswd -n -B -C 12 NAME`";
const ARGON2: &str = "`argon2 SALT -id -e -k 19456 -t 2 -p 1`";

/// A hash that is dear enough to guess at, and cheap enough to compute for whoever asks.
pub(super) enum Hash {
    Bcrypt(String),
    Argon2(Box<PasswordHash>),
}

impl Hash {
    /// # Errors
    /// It is none of these, or its cost is out of bounds. Nothing of it is in the message.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|kind| text.starts_with(kind))
        {
            let parts = bcrypt::HashParts::from_str(text)
                .map_err(|_| "the bcrypt hash is malformed".to_owned())?;
            let cost = parts.get_cost();
            if !BCRYPT_COSTS.contains(&cost) {
                return Err(format!(
                    "its cost is {cost}, and {} to {} are taken: write it with {BCRYPT}",
                    BCRYPT_COSTS.start(),
                    BCRYPT_COSTS.end()
                ));
            }
            return Ok(Self::Bcrypt(text.to_owned()));
        }
        if text.starts_with("$argon2id$") {
            return Self::argon2(text);
        }
        Err(format!(
            "its hash is neither bcrypt ({BCRYPT}) nor Argon2id ({ARGON2})"
        ))
    }

    /// What is computed where there is no user.
    pub(super) fn of_nobody() -> Result<Self, String> {
        Self::parse("$2y$12$nobodynobodynobodynobu1Qq1Ihmm1lGPpVbq9sFcTL2Vv9FyTuq")
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
                "{memory} KiB in {rounds} rounds is too cheap: write it with {ARGON2}"
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
    pub(super) fn fits(&self, password: &[u8]) -> bool {
        match self {
            // What is longer than bcrypt reads is refused: its end would not count.
            Self::Bcrypt(hash) => bcrypt::non_truncating_verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
        }
    }
}
