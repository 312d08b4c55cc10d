//! Revisions only grow.
//!
//! Whoever can put an old, once well-signed bundle in front of a hub must not be able to bring
//! its holes back. To go back to an earlier payload, an operator signs it anew under a higher
//! revision.

use super::{BundleArchive, Refusal, RefusalCode};

/// The highest revision that a hub has ever accepted, with its payload.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HighWater {
    /// The revision.
    pub revision: u64,
    /// [`BundleArchive::payload_digest`] of what came with it.
    pub payload_digest: String,
}

impl From<&BundleArchive> for HighWater {
    fn from(archive: &BundleArchive) -> Self {
        Self {
            revision: archive.revision(),
            payload_digest: archive.payload_digest(),
        }
    }
}

/// What an acceptable archive is to a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A revision above all that were seen.
    Newer,
    /// The highest revision again, with the same payload.
    Same,
}

/// Decides by revision and payload alone; call it with an archive that was verified.
///
/// # Errors
/// `bundle_rollback` or `bundle_revision_conflict`.
pub fn admit(seen: Option<&HighWater>, archive: &BundleArchive) -> Result<Admission, Refusal> {
    let Some(seen) = seen else {
        return Ok(Admission::Newer);
    };
    let revision = archive.revision();
    match revision.cmp(&seen.revision) {
        std::cmp::Ordering::Greater => Ok(Admission::Newer),
        std::cmp::Ordering::Less => Err(Refusal::new(
            RefusalCode::Rollback,
            format!(
                "revision {revision} is below {}, which was accepted before; to go back, sign the \
                 earlier payload under a revision above it",
                seen.revision
            ),
        )),
        std::cmp::Ordering::Equal if archive.payload_digest() == seen.payload_digest => {
            Ok(Admission::Same)
        }
        std::cmp::Ordering::Equal => Err(Refusal::new(
            RefusalCode::RevisionConflict,
            format!(
                "revision {revision} was accepted before with other content; give the new content \
                 a revision of its own"
            ),
        )),
    }
}
