//! What is known of the bundles of this hub.

use std::time::SystemTime;

use nowconnect_policy::{HighWater, Verified};
use serde::{Deserialize, Serialize};

use crate::authorize::unix_ms;

/// Entries of the history; the oldest are forgotten.
pub const MAX_HISTORY: usize = 100;

/// Bytes of a message that the history keeps.
const MESSAGE_BYTES: usize = 1024;

/// The form of the state file that this program writes and reads.
const FORMAT: u32 = 1;

/// Where a bundle is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Verified, compiled and tested; compared with what is in force.
    Staged,
    /// In force.
    Active,
    /// It was in force.
    Superseded,
    /// It was refused, taken back or replaced before it came into force.
    Rejected,
}

impl Stage {
    /// The word in tables, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Active => "active",
            Self::Superseded => "superseded",
            Self::Rejected => "rejected",
        }
    }
}

/// By which way a bundle came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An operator pushed it.
    Push,
    /// An operator went back to an earlier payload.
    Rollback,
    /// The source was a folder or a tar.
    Path,
    /// The source was a URL.
    Url,
}

impl Origin {
    /// The word in tables, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Rollback => "rollback",
            Self::Path => "path",
            Self::Url => "url",
        }
    }

    /// Whether a person asked for it, who may ask again for what was refused before.
    pub(crate) const fn is_asked_for(self) -> bool {
        match self {
            Self::Push | Self::Rollback => true,
            Self::Path | Self::Url => false,
        }
    }
}

/// The ids of the keys that a bundle was verified with.
pub(crate) fn signers_of(verified: &Verified) -> Vec<String> {
    verified.signers().iter().map(ToString::to_string).collect()
}

/// One bundle and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its revision.
    pub revision: u64,
    /// Digest of its payload.
    pub payload_digest: String,
    /// Where it is now.
    pub stage: Stage,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// How it came.
    pub origin: Origin,
    /// The trusted keys that signed it.
    #[serde(default)]
    pub signers: Vec<String>,
    /// When it was made, Unix milliseconds.
    #[serde(default)]
    pub created_ms: u64,
    /// Until when it may be taken, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_ms: Option<u64>,
    /// Why it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl HistoryEntry {
    pub(crate) fn new(verified: &Verified, stage: Stage, origin: Origin, now: SystemTime) -> Self {
        let manifest = verified.archive().manifest();
        Self {
            revision: manifest.revision,
            payload_digest: verified.archive().payload_digest(),
            stage,
            since_ms: unix_ms(now),
            origin,
            signers: signers_of(verified),
            created_ms: unix_ms(manifest.created),
            not_after_ms: manifest.not_after.map(unix_ms),
            code: None,
            message: None,
        }
    }

    pub(crate) fn rejected(mut self, code: &str, message: &str) -> Self {
        self.stage = Stage::Rejected;
        self.code = Some(code.to_owned());
        let mut message = crate::telemetry::redact::floor(message).into_owned();
        if message.len() > MESSAGE_BYTES {
            let mut end = MESSAGE_BYTES;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        self.message = Some(message);
        self
    }
}

/// The state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: u32,
    /// The highest revision that was ever verified here.
    pub(crate) highest: Option<HighWater>,
    /// When the newest bundle that was verified here was made, Unix milliseconds: it cannot be
    /// earlier than that, whatever the clock says.
    pub(crate) newest_created_ms: u64,
    pub(crate) active: Option<u64>,
    pub(crate) staged: Option<u64>,
    /// The staged one comes into force only when an operator says so.
    #[serde(default)]
    pub(crate) hold: bool,
    /// Oldest first.
    pub(crate) history: Vec<HistoryEntry>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            format: FORMAT,
            highest: None,
            newest_created_ms: 0,
            active: None,
            staged: None,
            hold: false,
            history: Vec::new(),
        }
    }
}

impl State {
    /// Nothing yet, and what is staged waits for a person.
    pub(crate) fn held() -> Self {
        Self {
            hold: true,
            ..Self::default()
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let state: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if state.format == FORMAT {
            Ok(state)
        } else {
            Err(format!(
                "it has format {}; this hub reads format {FORMAT}",
                state.format
            ))
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers always serialise.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// A verified bundle was seen.
    pub(crate) fn saw(&mut self, verified: &Verified) {
        let archive = verified.archive();
        let above = self
            .highest
            .as_ref()
            .is_none_or(|highest| archive.revision() > highest.revision);
        if above {
            self.highest = Some(HighWater::from(archive));
        }
        self.newest_created_ms = self
            .newest_created_ms
            .max(unix_ms(archive.manifest().created));
    }

    /// The newest entry of a revision.
    pub(crate) fn entry(&mut self, revision: u64) -> Option<&mut HistoryEntry> {
        self.history
            .iter_mut()
            .rev()
            .find(|entry| entry.revision == revision)
    }

    /// Adds an entry, or replaces the one of the same payload.
    pub(crate) fn put(&mut self, entry: HistoryEntry) {
        self.history.retain(|kept| {
            kept.revision != entry.revision || kept.payload_digest != entry.payload_digest
        });
        self.history.push(entry);
        // What is active or staged is never the oldest for long, and is kept whatever its age.
        let (active, staged) = (self.active, self.staged);
        while self.history.len() > MAX_HISTORY {
            let oldest = self
                .history
                .iter()
                .position(|entry| Some(entry.revision) != active && Some(entry.revision) != staged);
            match oldest {
                Some(index) => drop(self.history.remove(index)),
                None => break,
            }
        }
    }
}
