//! Test cases of policies, in the format of the stock Cedar CLI's `run-tests`.
//!
//! A file holds a list of cases; a case has a `name`, a `request`, the `entities`, the expected
//! `decision` (`allow` or `deny`), `reason` (ids that must be among the determining policies)
//! and `num_errors`. The verdict is the engine's own, as the stock tool sees it. Each case is
//! also put to the hub's index, which must answer alike.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use cedar_policy::{PolicySet, Response};
use serde::Deserialize;

use crate::bundle::PolicyBundle;
use crate::diagnostic::SourceError;
use crate::scene::{Posed, RequestJson, Scene};
use crate::source::{SourceFile, files_of, read};

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
    /// Ids of policies that determined no case. Shipped guards that the set did not bring
    /// itself are left out: their cases are elsewhere.
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

#[derive(Debug, Deserialize)]
struct Case {
    request: RequestJson,
    entities: serde_json::Value,
    decision: Expected,
    reason: Vec<String>,
    num_errors: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

/// Runs every `*.json` of a folder.
///
/// # Errors
/// Where the folder or a file cannot be read; a file or a case that cannot be parsed is a
/// failed case.
pub fn run_cases(bundle: &PolicyBundle, dir: &Path) -> Result<CaseReport, SourceError> {
    let mut files = Vec::new();
    for path in files_of(dir, "json")? {
        files.push(read(&path)?);
    }
    Ok(run(bundle, &files, Some(dir)))
}

/// Runs the cases of these texts. Entities stand in the cases: there is no folder to look for a
/// file in.
#[must_use]
pub fn run_case_files(bundle: &PolicyBundle, files: &[SourceFile]) -> CaseReport {
    run(bundle, files, None)
}

fn run(bundle: &PolicyBundle, files: &[SourceFile], dir: Option<&Path>) -> CaseReport {
    let whole = bundle.index.whole();
    let mut report = CaseReport::default();
    let mut covered = BTreeSet::new();
    for file in files {
        let cases: Vec<serde_json::Value> = match serde_json::from_str(&file.text) {
            Ok(cases) => cases,
            Err(error) => {
                let failure = Some(format!("not a list of cases: {error}"));
                let name = "(file)".to_owned();
                report.results.push(CaseResult {
                    file: file.name.clone(),
                    name,
                    failure,
                });
                continue;
            }
        };
        for case in cases {
            let name = case["name"].as_str().unwrap_or("(unnamed)").to_owned();
            let failure = run_one(bundle, &whole, case, dir, &mut covered).err();
            report.results.push(CaseResult {
                file: file.name.clone(),
                name,
                failure,
            });
        }
    }
    report.uncovered = bundle
        .policies()
        .filter(|policy| !policy.file.starts_with("shipped:") && !covered.contains(&policy.id))
        .map(|policy| policy.id.clone())
        .collect();
    report
}

fn run_one(
    bundle: &PolicyBundle,
    whole: &PolicySet,
    case: serde_json::Value,
    dir: Option<&Path>,
    covered: &mut BTreeSet<String>,
) -> Result<(), String> {
    let case: Case =
        serde_json::from_value(case).map_err(|error| format!("not a case: {error}"))?;
    let entities = match case.entities {
        serde_json::Value::String(path) => match dir {
            Some(dir) => beside(dir, &path)?,
            None => {
                return Err(format!(
                    "entities file `{path}`: put its list into the case"
                ));
            }
        },
        inline @ (serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_)) => inline,
    };
    let posed = Posed::new(case.request, entities, bundle.schema())?;
    let scene = posed.scene();
    let response = bundle
        .authorizer
        .is_authorized(scene.request, whole, scene.entities);
    let reasons: BTreeSet<String> = response
        .diagnostics()
        .reason()
        .map(ToString::to_string)
        .collect();
    covered.extend(reasons.iter().cloned());
    compare(
        case.decision,
        &case.reason,
        case.num_errors,
        &response,
        &reasons,
    )?;
    same_by_index(bundle, &scene, &response)
}

/// A newer stock tool takes a file name in place of the entities.
fn beside(dir: &Path, path: &str) -> Result<serde_json::Value, String> {
    let inside = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(format!(
            "entities file `{path}` is outside of the folder of the cases"
        ));
    }
    let file = read(&dir.join(path)).map_err(|error| error.to_string())?;
    serde_json::from_str(&file.text).map_err(|error| format!("entities file `{path}`: {error}"))
}

fn compare(
    expected: Expected,
    wanted: &[String],
    num_errors: usize,
    response: &Response,
    reasons: &BTreeSet<String>,
) -> Result<(), String> {
    let actual = match response.decision() {
        cedar_policy::Decision::Allow => Expected::Allow,
        cedar_policy::Decision::Deny => Expected::Deny,
    };
    let mut problems = Vec::new();
    if actual != expected {
        let by = match reasons.len() {
            0 => "by no policy".to_owned(),
            _ => format!("by {}", quoted(reasons.iter())),
        };
        problems.push(format!(
            "expected {}, got {} {by}",
            word(expected),
            word(actual)
        ));
    }
    let missing: Vec<&String> = wanted.iter().filter(|id| !reasons.contains(*id)).collect();
    if !missing.is_empty() {
        let missing = quoted(missing.into_iter());
        problems.push(format!("{missing} not among the determining policies"));
    }
    let errors: Vec<String> = response
        .diagnostics()
        .errors()
        .map(ToString::to_string)
        .collect();
    if errors.len() != num_errors {
        let found = errors.join("; ");
        problems.push(format!(
            "expected {num_errors} errors, got {}: {found}",
            errors.len()
        ));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("; "))
    }
}

fn same_by_index(
    bundle: &PolicyBundle,
    scene: &Scene<'_>,
    response: &Response,
) -> Result<(), String> {
    let whole = bundle.decision(response);
    let indexed = bundle.answer(scene);
    if whole == indexed {
        Ok(())
    } else {
        Err(format!(
            "the hub's index answers {indexed:?}, the whole set {whole:?}"
        ))
    }
}

const fn word(decision: Expected) -> &'static str {
    match decision {
        Expected::Allow => "allow",
        Expected::Deny => "deny",
    }
}

fn quoted<'a>(ids: impl Iterator<Item = &'a String>) -> String {
    ids.map(|id| format!("`{id}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
