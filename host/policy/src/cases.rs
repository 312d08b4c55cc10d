//! Test cases of policies, in the format of the stock Cedar CLI's `run-tests`.

use std::path::Path;

use crate::{PolicyBundle, SourceError};

/// How one case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// The file it stands in.
    pub file: String,
    /// Its name.
    pub name: String,
    /// Why it failed; `None` where it passed.
    pub failure: Option<String>,
}

/// How all cases went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaseReport {
    /// One for each case, in the order of files and then of cases.
    pub results: Vec<CaseResult>,
    /// Policies that determined no case.
    pub uncovered: Vec<String>,
}

impl CaseReport {
    /// Cases that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.results
            .iter()
            .filter(|result| result.failure.is_some())
            .count()
    }
}

/// Runs every `*.json` of a folder.
///
/// # Errors
/// Where the folder or a file cannot be read; a case that cannot be parsed is a failed case.
pub fn run_cases(_bundle: &PolicyBundle, _dir: &Path) -> Result<CaseReport, SourceError> {
    todo!()
}
