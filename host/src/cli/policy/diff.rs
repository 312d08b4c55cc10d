//! `nowconnect policy diff`: what a change says, what it would have done, what it can do.

mod sides;

use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nowconnect_policy::{Difference, PolicyBundle, ProofReport, Replay, replay};
use serde::Serialize;

use super::{Exit, prove};
use sides::Sides;

/// See [`super::Command::Diff`].
#[derive(Clone, Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    sides: Sides,
    /// Put recorded requests to both: lines of JSON with `request`, `entities`, `decision` and
    /// `count`
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Prove what the change lets in and denies; needs `nowconnect-prove` and cvc5
    #[arg(long)]
    prove: bool,
    /// How long a proof may take; what is open then is not proved
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout_sec: u64,
    /// Fail where the change does this, or may do it; may be given several times
    #[arg(long, value_name = "WHAT")]
    fail_on: Vec<FailOn>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Something may be allowed that was denied
    NewAllow,
    /// Something may be denied that was allowed
    NewDeny,
    /// Anything is different
    Change,
}

#[derive(Debug, Serialize)]
struct Answer {
    difference: Difference,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<Replay>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<ProofReport>,
}

impl Diff {
    pub(super) fn run(&self, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
        let Some((before, after)) = self.sides.open(problems)? else {
            return Ok(Exit::Usage);
        };
        let (old, new) = (
            &before.material.folder.sources,
            &after.material.folder.sources,
        );
        let mut answer = Answer {
            difference: Difference::between((old, &before.bundle), (new, &after.bundle)),
            replay: None,
            proof: None,
        };
        if let Some(file) = &self.replay {
            match read_replay(file, &before.bundle, &after.bundle) {
                Ok(replay) => answer.replay = Some(replay),
                Err(problem) => {
                    writeln!(problems, "{problem}")?;
                    return Ok(Exit::Usage);
                }
            }
        }
        if self.prove {
            match prove::wait(crate::prove::compare(
                old,
                new,
                prove::limits(self.timeout_sec),
            )) {
                Ok(report) => answer.proof = Some(report),
                Err(error) => return prove::failed(&error, problems),
            }
        }
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &answer)?;
            writeln!(out)?;
        } else {
            answer.print(out)?;
        }
        for what in &self.fail_on {
            if let Some(why) = answer.fails(*what) {
                writeln!(problems, "{why}")?;
                return Ok(Exit::Failure);
            }
        }
        Ok(Exit::Success)
    }
}

fn read_replay(path: &Path, before: &PolicyBundle, after: &PolicyBundle) -> Result<Replay, String> {
    std::fs::File::open(path)
        .and_then(|file| replay(before, after, BufReader::new(file)))
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))
}

impl Answer {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.difference.is_empty() {
            writeln!(out, "both sets say the same")?;
        } else {
            write!(out, "{}", self.difference)?;
        }
        if let Some(replay) = &self.replay {
            print_replay(replay, out)?;
        }
        if let Some(proof) = &self.proof {
            prove::print(proof, out)?;
        }
        Ok(())
    }

    /// Why it is so, or cannot be ruled out.
    fn fails(&self, what: FailOn) -> Option<String> {
        let (allow, kind) = match what {
            FailOn::Change => {
                return (!self.difference.is_empty()).then(|| "the sets differ".to_owned());
            }
            FailOn::NewAllow => (true, "allowed"),
            FailOn::NewDeny => (false, "denied"),
        };
        if let Some(replay) = &self.replay {
            let found = match allow {
                true => replay.newly_allowed,
                false => replay.newly_denied,
            };
            if found > 0 || replay.unreadable > 0 {
                return Some(format!(
                    "replay: {found} decisions are newly {kind}, {} records cannot be replayed",
                    replay.unreadable
                ));
            }
            if replay.decisions() == 0 {
                return Some(format!(
                    "nothing was replayed: the file of `--replay` has no recorded decision, so \
                     nobody knows whether anything is newly {kind}; `nowconnect policy requests` \
                     prints what a hub was asked"
                ));
            }
        }
        if let Some(proof) = &self.proof {
            let holds = match allow {
                true => proof.lets_nothing_new_in(),
                false => proof.denies_nothing_new(),
            };
            if !holds {
                return Some(format!("it is not proved that nothing is newly {kind}"));
            }
            // A proof says nothing about facts, so they need the traffic's word.
            if !proof.changed_facts.is_empty() && self.replay.is_none() {
                return Some("facts change, which no proof covers: add `--replay`".to_owned());
            }
        }
        let asked = self.replay.is_some() || self.proof.is_some();
        (!asked && !self.difference.is_empty()).then(|| {
            format!("without `--replay` or `--prove` nobody knows whether anything is newly {kind}")
        })
    }
}

fn print_replay(replay: &Replay, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "replay of {}: {} decisions the same, {} newly allowed, {} newly denied, {} with errors",
        super::count(
            usize::try_from(replay.records).unwrap_or(usize::MAX),
            "record"
        ),
        replay.same,
        replay.newly_allowed,
        replay.newly_denied,
        replay.errors,
    )?;
    if replay.unlike_recorded > 0 {
        writeln!(
            out,
            "  {} were recorded otherwise than the first set decides them",
            replay.unlike_recorded
        )?;
    }
    if let Some(problem) = &replay.first_unreadable {
        writeln!(
            out,
            "  {} cannot be replayed; the first: {problem}",
            super::count(
                usize::try_from(replay.unreadable).unwrap_or(usize::MAX),
                "record"
            )
        )?;
    }
    for sample in &replay.samples {
        let side = |name: &str| sample.request[name].as_str().unwrap_or("?").to_owned();
        writeln!(
            out,
            "  newly {}, {} times (line {}): {} {} {}; before by {}, now by {}",
            if sample.allow { "allowed" } else { "denied" },
            sample.count,
            sample.line,
            side("principal"),
            side("action"),
            side("resource"),
            ids(&sample.before),
            ids(&sample.after),
        )?;
    }
    Ok(())
}

fn ids(ids: &[String]) -> String {
    match ids.is_empty() {
        true => "no policy".to_owned(),
        false => format!("`{}`", ids.join("`, `")),
    }
}

#[cfg(test)]
mod tests;
