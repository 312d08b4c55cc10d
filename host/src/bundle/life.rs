//! From delivered to superseded: what may follow what, and what is written down before.
//!
//! Everything is written down first and counts afterwards. So a disk that is full refuses the
//! next bundle and harms nothing that is in force, and a hub that ends at any moment begins
//! again with what it had.
//!
//! Absent: the generation, traffic and time. [`Life`] is told the time, and does not know what a
//! bundle does once it is active.

mod load;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nowconnect_policy::{
    BundleArchive, PolicyBundle, Refusal, RefusalCode, Sources, TrustedKeys, Verified, admit,
    time_text,
};

use super::refused::{BundleRefused, codes};
use super::state::{HistoryEntry, Origin, Stage, State, signers_of};
use super::store::{Kind, Store, StoreError};
use crate::generation::Brought;
pub(crate) use load::Opened;

/// What manifests compare with their `min_hub`.
const HUB_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A verified bundle, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) revision: u64,
    pub(crate) policies: Arc<PolicyBundle>,
    /// What it was compiled from.
    pub(crate) sources: Arc<Sources>,
    pub(crate) entry: HistoryEntry,
}

impl Set {
    /// The policies with what they came in.
    pub(crate) fn brought(&self) -> Brought {
        Brought {
            policies: Arc::clone(&self.policies),
            revision: Some(self.revision),
        }
    }

    /// What to say where its time has run out.
    pub(crate) fn past(&self, now: SystemTime) -> Option<BundleRefused> {
        let end = UNIX_EPOCH + Duration::from_millis(self.entry.not_after_ms?);
        (now > end).then(|| {
            let message = format!(
                "revision {} is past its `not_after`, {}; it stays in force until another comes",
                self.revision,
                time_text(end)
            );
            BundleRefused::new(RefusalCode::Expired.as_str(), message)
        })
    }
}

/// What a delivered bundle is to this hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may be staged.
    New,
    /// It is in force.
    Active,
    /// It is staged.
    Staged,
    /// The same was rejected before, for something that is still so.
    Rejected(BundleRefused),
}

/// Whether a rejection is about the bundle itself, or an operator's word. Keys, times, versions
/// and what a disk lost say nothing about a bundle that was verified just now.
fn is_lasting(code: &str) -> bool {
    [
        RefusalCode::Invalid.as_str(),
        RefusalCode::TestsFailed.as_str(),
        codes::REPLACED,
        codes::DISCARDED,
    ]
    .contains(&code)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Life {
    store: Box<dyn Store>,
    state: State,
    staged: Option<Set>,
    /// Revisions whose bytes are kept.
    kept: Vec<u64>,
}

impl Life {
    /// Holds an archive against keys, time and the revisions that were seen.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn verify(
        &self,
        archive: BundleArchive,
        trusted: &TrustedKeys,
        now: SystemTime,
    ) -> Result<Verified, Refusal> {
        let verified = archive.verify(trusted, self.not_before(now), HUB_VERSION)?;
        admit(self.state.highest.as_ref(), verified.archive())?;
        Ok(verified)
    }

    /// The time, but never before the newest bundle that was accepted here was made: a clock
    /// that was set back does not let in what has expired, nor refuse what is new.
    fn not_before(&self, now: SystemTime) -> SystemTime {
        now.max(UNIX_EPOCH + Duration::from_millis(self.state.newest_created_ms))
    }

    pub(crate) fn standing(&self, verified: &Verified) -> Standing {
        let archive = verified.archive();
        let revision = archive.revision();
        if self
            .staged
            .as_ref()
            .is_some_and(|set| set.revision == revision)
        {
            return Standing::Staged;
        }
        if self.state.active == Some(revision) {
            return Standing::Active;
        }
        let digest = archive.payload_digest();
        self.state
            .history
            .iter()
            .rev()
            .find(|entry| entry.revision == revision && entry.payload_digest == digest)
            .and_then(|entry| entry.code.as_deref().zip(entry.message.as_deref()))
            .filter(|(code, _)| is_lasting(code))
            .map_or(Standing::New, |(code, message)| {
                Standing::Rejected(BundleRefused::known(code, message))
            })
    }

    /// Whether the same payload was in force here before.
    pub(crate) fn was_active(&self, verified: &Verified) -> bool {
        let digest = verified.archive().payload_digest();
        self.state.history.iter().any(|entry| {
            entry.payload_digest == digest
                && matches!(entry.stage, Stage::Active | Stage::Superseded)
        })
    }

    /// Keeps a set beside the active one, in place of any that was there.
    ///
    /// # Errors
    /// It could not be written down; nothing has changed.
    pub(crate) fn stage(
        &mut self,
        verified: &Verified,
        policies: Arc<PolicyBundle>,
        origin: Origin,
        hold: bool,
        now: SystemTime,
    ) -> Result<&Set, BundleRefused> {
        let entry = HistoryEntry::new(verified, Stage::Staged, origin, now);
        let revision = entry.revision;
        let mut next = self.state.clone();
        next.saw(verified);
        next.hold = hold;
        let replaced = next.staged.replace(revision).filter(|old| *old != revision);
        if let Some(old) = replaced.and_then(|old| next.entry(old).cloned()) {
            let message = format!("revision {revision} was staged in its place");
            next.put(old.rejected(codes::REPLACED, &message));
        }
        next.put(entry.clone());
        let bytes = verified.archive().to_tar()?;
        let sources = Arc::new(verified.archive().sources()?);
        self.store.write_bundle(Kind::Staged, revision, &bytes)?;
        if let Err(error) = self.store.write_state(&next.to_bytes()) {
            // Without its state it is nothing; a later one of the same revision replaces it.
            let _ = self.store.remove_bundle(Kind::Staged, revision);
            return Err(error.into());
        }
        self.state = next;
        if let Some(old) = replaced {
            let _ = self.store.remove_bundle(Kind::Staged, old);
        }
        self.look_what_is_kept();
        Ok(self.staged.insert(Set {
            revision,
            policies,
            sources,
            entry,
        }))
    }

    /// Remembers a bundle that was verified and yet not taken.
    ///
    /// # Errors
    /// It could not be written down; it is remembered until the hub ends.
    pub(crate) fn reject(
        &mut self,
        verified: &Verified,
        origin: Origin,
        refused: &BundleRefused,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let entry = HistoryEntry::new(verified, Stage::Rejected, origin, now)
            .rejected(refused.code, &refused.message);
        self.state.saw(verified);
        self.state.put(entry);
        self.store.write_state(&self.state.to_bytes())
    }

    /// Whether some set was in force here once, be it lost now.
    pub(crate) fn had_one(&self) -> bool {
        self.state
            .history
            .iter()
            .any(|entry| matches!(entry.stage, Stage::Active | Stage::Superseded))
    }

    /// The staged set is to come into force: written down, but not in force yet. It is held
    /// once more against the keys and the time of now, which may not be those of its delivery.
    ///
    /// # Errors
    /// Nothing is staged, it is not good any more, or it could not be written down; nothing has
    /// changed.
    pub(crate) fn activate(
        &mut self,
        trusted: &TrustedKeys,
        now: SystemTime,
        keep: usize,
    ) -> Result<Set, BundleRefused> {
        let Some(staged) = &self.staged else {
            return Err(none_staged());
        };
        let revision = staged.revision;
        let bytes = self.store.read_bundle(Kind::Staged, revision)?;
        let verified =
            BundleArchive::from_tar(&bytes)?.verify(trusted, self.not_before(now), HUB_VERSION)?;
        if verified.archive().payload_digest() != staged.entry.payload_digest {
            return Err(BundleRefused::new(
                codes::LOST,
                format!("the file of revision {revision} holds another payload than was staged"),
            ));
        }
        let mut next = self.state.clone();
        let since_ms = crate::authorize::unix_ms(now);
        if let Some(old) = next.active.and_then(|old| next.entry(old)) {
            old.stage = Stage::Superseded;
            old.since_ms = since_ms;
        }
        if let Some(new) = next.entry(revision) {
            new.stage = Stage::Active;
            new.since_ms = since_ms;
        }
        next.active = Some(revision);
        next.staged = None;
        self.store.write_state(&next.to_bytes())?;
        self.state = next;
        // From here on it is the active one, whatever its file is called.
        let _ = self.store.promote(revision);
        self.forget_old(keep);
        self.look_what_is_kept();
        let mut set = self.staged.take().ok_or_else(none_staged)?;
        set.entry.stage = Stage::Active;
        set.entry.since_ms = since_ms;
        Ok(set)
    }

    /// Those of the keys of now that vouch for the set in force, by its file.
    ///
    /// # Errors
    /// None do, or too few (`bundle_untrusted_key`); or its file cannot be read to see, or is not
    /// what it was.
    pub(crate) fn vouched_for(
        &self,
        active: &HistoryEntry,
        trusted: &TrustedKeys,
    ) -> Result<Vec<String>, BundleRefused> {
        let revision = active.revision;
        let archive = BundleArchive::from_tar(&self.bytes_of(revision)?)?;
        if archive.revision() != revision || archive.payload_digest() != active.payload_digest {
            return Err(BundleRefused::new(
                codes::LOST,
                format!("revision {revision} is in force and its file holds another bundle"),
            ));
        }
        // What was in force stays so though its time runs out.
        let then = archive.manifest().created;
        match archive.verify(trusted, then, HUB_VERSION) {
            Ok(verified) => Ok(signers_of(&verified)),
            Err(refusal) => {
                let message = format!("revision {revision} is in force and {}", refusal.message);
                Err(BundleRefused::new(refusal.code.as_str(), message))
            }
        }
    }

    /// Takes the staged set back.
    ///
    /// # Errors
    /// Nothing is staged, or it could not be written down; nothing has changed.
    pub(crate) fn discard(
        &mut self,
        refused: &BundleRefused,
        now: SystemTime,
    ) -> Result<u64, BundleRefused> {
        let Some(staged) = &self.staged else {
            return Err(none_staged());
        };
        let revision = staged.revision;
        let mut next = self.state.clone();
        let mut entry = staged
            .entry
            .clone()
            .rejected(refused.code, &refused.message);
        entry.since_ms = crate::authorize::unix_ms(now);
        next.staged = None;
        next.put(entry);
        self.store.write_state(&next.to_bytes())?;
        self.state = next;
        self.staged = None;
        let _ = self.store.remove_bundle(Kind::Staged, revision);
        self.look_what_is_kept();
        Ok(revision)
    }

    /// Tries to write the state once more, after a failure.
    pub(crate) fn write_again(&self) -> Result<(), StoreError> {
        self.store.write_state(&self.state.to_bytes())
    }

    pub(crate) fn staged(&self) -> Option<&Set> {
        self.staged.as_ref()
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Revisions whose bytes are kept, so that one can go back to them.
    pub(crate) fn kept(&self) -> &[u64] {
        &self.kept
    }

    fn look_what_is_kept(&mut self) {
        let found = self.store.bundles().unwrap_or_default();
        self.kept = found.into_iter().map(|(_, revision)| revision).collect();
        self.kept.sort_unstable();
        self.kept.dedup();
    }

    /// The bytes of a bundle that is kept.
    ///
    /// # Errors
    /// They are not kept or cannot be read.
    pub(crate) fn bytes_of(&self, revision: u64) -> Result<Vec<u8>, StoreError> {
        self.store
            .read_bundle(Kind::Active, revision)
            .or_else(|_| self.store.read_bundle(Kind::Staged, revision))
    }

    /// Superseded bundles beyond `keep` lose their bytes.
    fn forget_old(&self, keep: usize) {
        let superseded: Vec<u64> = self
            .store
            .bundles()
            .unwrap_or_default()
            .into_iter()
            .filter(|(kind, revision)| {
                *kind == Kind::Active && Some(*revision) != self.state.active
            })
            .map(|(_, revision)| revision)
            .collect();
        for revision in superseded.iter().rev().skip(keep) {
            // What cannot be removed now is tried again at the next activation.
            let _ = self.store.remove_bundle(Kind::Active, *revision);
        }
    }
}

fn none_staged() -> BundleRefused {
    BundleRefused::new(
        codes::NONE_STAGED,
        "no bundle is staged; `nowconnect policy push BUNDLE` brings one",
    )
}
