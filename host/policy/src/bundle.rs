//! Texts become an immutable set of policies, whole or not at all.

use crate::{Decision, Diagnostic, Diagnostics, Explanation, Facts, Question, Sources};

/// A checked, indexed, immutable set of policies. Share it in an `Arc`.
#[derive(Debug)]
pub struct PolicyBundle {}

impl PolicyBundle {
    /// Compiles the texts. Takes tens of milliseconds for a thousand policies: call it off the
    /// runtime threads.
    ///
    /// # Errors
    /// Every problem found, each with its place; nothing of the texts is in force then.
    pub fn compile(_sources: &Sources, _generation: u64) -> Result<Self, Diagnostics> {
        todo!()
    }

    /// Answers a question. Denies where anything goes wrong.
    #[must_use]
    pub fn decide(&self, _facts: &Facts, _question: &Question) -> Decision {
        todo!()
    }

    /// Answers the questions of one HELLO (the hello itself, then one announce for each
    /// connector) in order, building the shared agent once.
    #[must_use]
    pub fn decide_all(&self, _facts: &Facts, _questions: &[Question]) -> Vec<Decision> {
        todo!()
    }

    /// Answers a question and says why, with the policies that nearly applied.
    #[must_use]
    pub fn explain(&self, _facts: &Facts, _question: &Question) -> Explanation {
        todo!()
    }

    /// What is worth a look although the bundle works.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        todo!()
    }

    /// The number given at [`compile`](Self::compile).
    #[must_use]
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// SHA-256 over all texts in hex: equal for equal sources.
    #[must_use]
    pub fn digest(&self) -> &str {
        todo!()
    }

    /// Policies in the set.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        todo!()
    }
}
