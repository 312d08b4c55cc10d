//! A hub begins with what an earlier run left.

use std::sync::Arc;
use std::time::SystemTime;

use nowconnect_policy::{BundleArchive, TrustedKeys};

use super::{HUB_VERSION, Life, Set};
use crate::bundle::refused::{BundleRefused, codes};
use crate::bundle::state::{HistoryEntry, Origin, Stage, State, signers_of};
use crate::bundle::store::{Kind, Store};

/// What was found at the start.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) life: Life,
    pub(crate) active: Option<Set>,
    /// What the operator should know.
    pub(crate) troubles: Vec<BundleRefused>,
}

impl Life {
    /// Begins with what an earlier run left. Whatever is wrong with it is told, and never keeps
    /// the hub from starting.
    pub(crate) fn open(store: Box<dyn Store>, trusted: &TrustedKeys, now: SystemTime) -> Opened {
        let mut troubles = Vec::new();
        let state = match read_state(store.as_ref()) {
            Ok(state) => state,
            Err(problem) => {
                let message = format!(
                    "the state {problem}; revisions were taken from the bundles beside it, and \
                     what was staged waits for `nowconnect policy activate`"
                );
                troubles.push(BundleRefused::new(codes::STATE_BROKEN, message));
                let recovered = recover(store.as_ref(), trusted, now);
                // Written before anything else: the next start must not take it for a first one.
                if let Err(error) = store.write_state(&recovered.to_bytes()) {
                    troubles.push(error.into());
                }
                recovered
            }
        };
        let mut life = Self {
            store,
            state,
            staged: None,
            kept: Vec::new(),
        };
        let active = life.load_active(trusted, &mut troubles);
        life.load_staged(trusted, now, &mut troubles);
        life.look_what_is_kept();
        Opened {
            life,
            active,
            troubles,
        }
    }

    fn load_active(
        &mut self,
        trusted: &TrustedKeys,
        troubles: &mut Vec<BundleRefused>,
    ) -> Option<Set> {
        let revision = self.state.active?;
        match self.load(Kind::Active, revision, trusted) {
            Ok(set) => Some(set),
            Err(problem) => {
                let message = format!(
                    "revision {revision} was in force and cannot be loaded ({problem}); until a \
                     bundle comes, nothing is permitted"
                );
                troubles.push(BundleRefused::new(codes::LOST, message));
                self.state.active = None;
                None
            }
        }
    }

    fn load_staged(
        &mut self,
        trusted: &TrustedKeys,
        now: SystemTime,
        troubles: &mut Vec<BundleRefused>,
    ) {
        let Some(revision) = self.state.staged else {
            return;
        };
        match self.load(Kind::Staged, revision, trusted) {
            Ok(set) => self.staged = Some(set),
            Err(problem) => {
                let message =
                    format!("revision {revision} was staged and cannot be loaded ({problem})");
                let refused = BundleRefused::new(codes::LOST, message);
                if let Some(entry) = self.state.entry(revision).cloned() {
                    let mut entry = entry.rejected(refused.code, &refused.message);
                    entry.since_ms = crate::authorize::unix_ms(now);
                    self.state.put(entry);
                }
                self.state.staged = None;
                troubles.push(refused);
            }
        }
    }

    /// Reads, verifies and compiles a bundle that was taken before. Its time may have run out
    /// since: what was in force stays so over a restart.
    fn load(&self, kind: Kind, revision: u64, trusted: &TrustedKeys) -> Result<Set, String> {
        let bytes = self.bytes_of(revision).map_err(|error| error.to_string())?;
        let archive = BundleArchive::from_tar(&bytes).map_err(|error| error.to_string())?;
        if archive.revision() != revision {
            return Err(format!("its file holds revision {}", archive.revision()));
        }
        let then = archive.manifest().created;
        let verified = archive
            .verify(trusted, then, HUB_VERSION)
            .map_err(|error| error.to_string())?;
        let digest = verified.archive().payload_digest();
        let mut history = self.state.history.iter().rev();
        let kept = history.find(|entry| entry.revision == revision).cloned();
        let entry = match kept {
            // Other keys may have vouched for it when it came.
            Some(entry) if entry.payload_digest == digest => HistoryEntry {
                signers: signers_of(&verified),
                ..entry
            },
            Some(_) => return Err("its file holds another payload".to_owned()),
            None => HistoryEntry::new(&verified, Stage::Active, Origin::Path, then),
        };
        let policies = match kind {
            Kind::Active => verified.compile_policies(revision),
            // It has yet to pass its tests here to come into force.
            Kind::Staged => verified.compile(revision),
        };
        let policies = policies.map_err(|error| error.to_string())?;
        let sources = verified
            .archive()
            .sources()
            .map_err(|error| error.to_string())?;
        Ok(Set {
            revision,
            policies: Arc::new(policies),
            sources: Arc::new(sources),
            entry,
        })
    }
}

/// The state, or what is wrong with it. One that cannot be read is put aside.
fn read_state(store: &dyn Store) -> Result<State, String> {
    let problem = match store.read_state() {
        Ok(Some(bytes)) => match State::parse(&bytes) {
            Ok(state) => return Ok(state),
            Err(problem) => problem,
        },
        Ok(None) => {
            return match store.bundles() {
                Ok(kept) if kept.is_empty() => Ok(State::default()),
                Ok(_) | Err(_) => Err("is missing where bundles are kept".to_owned()),
            };
        }
        Err(error) => error.to_string(),
    };
    Err(match store.set_state_aside() {
        Ok(()) => format!("cannot be read ({problem}) and was put aside as `state.json.broken`"),
        Err(error) => format!("cannot be read ({problem}) nor put aside ({error})"),
    })
}

/// The state as the kept bundles tell it. Revisions of active bundles only grow, so the highest
/// of them was in force last.
fn recover(store: &dyn Store, trusted: &TrustedKeys, now: SystemTime) -> State {
    // Whether a person held back what was staged is not known any more.
    let mut state = State::held();
    for (kind, revision) in store.bundles().unwrap_or_default() {
        let verified = store
            .read_bundle(kind, revision)
            .ok()
            .and_then(|bytes| BundleArchive::from_tar(&bytes).ok())
            .and_then(|archive| {
                let then = archive.manifest().created;
                archive.verify(trusted, then, HUB_VERSION).ok()
            })
            .filter(|verified| verified.archive().revision() == revision);
        let Some(verified) = verified else {
            continue;
        };
        state.saw(&verified);
        let stage = match kind {
            Kind::Active => {
                if let Some(earlier) = state.active.and_then(|old| state.entry(old)) {
                    earlier.stage = Stage::Superseded;
                }
                state.active = Some(revision);
                Stage::Active
            }
            Kind::Staged => {
                state.staged = Some(revision);
                Stage::Staged
            }
        };
        state.put(HistoryEntry::new(&verified, stage, Origin::Path, now));
    }
    state
}
