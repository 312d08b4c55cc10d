//! `nowconnect policy prove`, and how a proof is shown.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use nowconnect_policy::{Claim, ProofLimits, ProofReport, Verdict};

use super::material::Material;
use super::{Exit, Refusal, open};
use crate::config::Env;
use crate::prove::ProveError;

/// See [`super::Command::Prove`].
#[derive(Clone, Debug, Args)]
pub struct Prove {
    /// Folder with the policies, or a bundle; without it as in `policy check`
    dir: Option<PathBuf>,
    /// Prove that it decides everything as this set does, instead
    #[arg(long, value_name = "SET")]
    equivalent_to: Option<PathBuf>,
    /// How long a proof may take; what is open then is not proved
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout_sec: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Prove {
    pub(super) fn run(
        &self,
        env: &dyn Env,
        out: &mut dyn Write,
        problems: &mut dyn Write,
    ) -> io::Result<Exit> {
        let opened = match open(self.dir.as_deref(), env) {
            Ok(opened) => opened,
            Err(refusal) => return refusal.print(problems),
        };
        let folder = opened.material.folder;
        let limits = limits(self.timeout_sec);
        let report = match &self.equivalent_to {
            None => wait(crate::prove::check(
                &folder.sources,
                &folder.assertions,
                limits,
            )),
            Some(other) => match Material::open(other) {
                Ok(other) => wait(crate::prove::compare(
                    &other.folder.sources,
                    &folder.sources,
                    limits,
                )),
                Err(unusable) => return Refusal::from(unusable).print(problems),
            },
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => return failed(&error, problems),
        };
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        } else {
            print(&report, out)?;
        }
        // That a kind of request is never allowed is worth a note, and no fault.
        let proved = report.all_hold(|claim| *claim != Claim::SometimesAllows);
        if proved && report.changed_facts.is_empty() {
            Ok(Exit::Success)
        } else {
            Ok(Exit::Failure)
        }
    }
}

pub(super) fn limits(timeout_sec: u64) -> ProofLimits {
    ProofLimits {
        total_ms: timeout_sec.saturating_mul(1000),
        ..ProofLimits::default()
    }
}

pub(super) fn wait(
    proof: impl Future<Output = Result<ProofReport, ProveError>>,
) -> Result<ProofReport, ProveError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(proof),
        Err(error) => Err(ProveError::Failed {
            program: "nowconnect".to_owned(),
            complaint: format!("no runtime: {error}"),
        }),
    }
}

pub(super) fn failed(error: &ProveError, problems: &mut dyn Write) -> io::Result<Exit> {
    writeln!(problems, "{error}")?;
    Ok(match error {
        ProveError::Policies(_) => Exit::Usage,
        ProveError::NoProgram | ProveError::NoSolver(_) => Exit::Unavailable,
        ProveError::Failed { .. } => Exit::Failure,
    })
}

/// Counts for each claim; in full only what does not hold.
pub(super) fn print(report: &ProofReport, out: &mut dyn Write) -> io::Result<()> {
    let mut claims: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for result in &report.results {
        let key = match &result.claim {
            Claim::NeverErrors { .. } => "no policy ever errors".to_owned(),
            claim @ (Claim::LetsNothingNewIn
            | Claim::DeniesNothingNew
            | Claim::SometimesAllows
            | Claim::Assertion { .. }
            | Claim::Describes { .. }) => claim.to_string(),
        };
        claims.entry(key).or_default().push(result);
    }
    for (claim, results) in &claims {
        let holding = results
            .iter()
            .filter(|result| result.verdict.holds())
            .count();
        let unchanged = results
            .iter()
            .filter(|result| result.verdict == Verdict::Unchanged)
            .count();
        let word = match (holding == results.len(), claim.as_str()) {
            (true, _) => "proved",
            (false, "allows something") => "note",
            (false, _) => "NOT PROVED",
        };
        let unchanged = match unchanged {
            0 => String::new(),
            unchanged => format!(", {unchanged} of them unchanged"),
        };
        writeln!(
            out,
            "{word}: {claim} ({holding} of {}{unchanged})",
            results.len()
        )?;
        for result in results {
            let environment = &result.environment;
            let about = format!(
                "{} {} {}",
                environment.principal, environment.action, environment.resource
            );
            match &result.verdict {
                Verdict::Unchanged | Verdict::Proved => {}
                Verdict::NotProved { why } => match &result.claim {
                    Claim::NeverErrors { policy } => {
                        writeln!(out, "  `{policy}` for {about}: {why}")?;
                    }
                    Claim::LetsNothingNewIn
                    | Claim::DeniesNothingNew
                    | Claim::SometimesAllows
                    | Claim::Assertion { .. }
                    | Claim::Describes { .. } => writeln!(out, "  {about}: {why}")?,
                },
                Verdict::Disproved(example) => {
                    writeln!(out, "  {about}: it does not hold for this request:")?;
                    for line in example.to_string().lines() {
                        writeln!(out, "    {line}")?;
                    }
                    match &example.after {
                        Some(after) => {
                            writeln!(out, "    before: {}; after: {after}", example.before)?;
                        }
                        None => writeln!(out, "    it is {}", example.before)?,
                    }
                }
            }
        }
    }
    for fact in &report.changed_facts {
        writeln!(out, "not covered by a proof: {fact}")?;
    }
    Ok(())
}
