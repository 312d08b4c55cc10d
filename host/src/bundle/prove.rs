//! The proof that a staged set lets nothing new in.

use super::life::Set;
use super::refused::{BundleRefused, codes};

/// Whether `staged` is proved to let nothing in that `active` does not.
///
/// # Errors
/// It is not, or there is nothing here that could prove it: both keep it out.
pub(crate) fn nothing_new(active: &Set, staged: &Set) -> Result<(), BundleRefused> {
    if active.policies.digest() == staged.policies.digest() {
        return Ok(());
    }
    Err(BundleRefused::new(
        codes::UNPROVED,
        format!(
            "a proof is required that revision {} lets in nothing that revision {} does not, and \
             there is no prover here",
            staged.revision, active.revision
        ),
    ))
}
